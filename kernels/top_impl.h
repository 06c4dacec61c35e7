/* kernels/top_impl.h: losses against a teacher known by its k largest, and how those are chosen; the passes
 * over whole rows come from xent_top.c (reference) or xent_top_vec_impl.h.
 *
 * Classes: the k ids, and one for all others together (rest_bucket): by the data processing inequality every
 * divergence over them is a lower bound of the one over the vocabulary, and never negative. Masses are kept
 * as logarithms, the others' summed by themselves and never taken as 1 - sum (algorithms 5.1).
 */
#ifndef TOP_IMPL_H
#define TOP_IMPL_H
#include "kernels/soft_impl.h"
#include "kernels/xent_impl.h"

/* Passes over a row z (V) of elements of `real` bytes. */
typedef struct TopPasses {
    size_t real;
    void (*cap)(void *z, long V, double cap);                               /* z = softcap(z) */
    double (*max)(const void *z, long V);                                   /* NaN is passed over */
    void (*ce)(XentSums *s, const void *z, int32_t t, long V, bool smooth); /* s1, total, zy from s->m */
    /* sum of exp((softcap(z) - m) it) over all, or over those with z < below where only is set */
    double (*exp_sum)(const void *z, long V, double m, double it, double cap, bool only, double below);
    /* z = (c1 exp(z - m) - c0 + cr exp((z - mr) it)) softcap'(z); z is capped already */
    void (*grad)(void *z, long V, const XentFactors *f, double m, double mr, double it, double cap);
} TopPasses;

static inline double top_get(const void *p, long i, size_t real)
{
    return real == sizeof(float) ? (double)((const float *)p)[i] : ((const double *)p)[i];
}
static inline void top_put(void *p, long i, double v, size_t real)
{
    if (real == sizeof(float)) ((float *)p)[i] = (float)v;
    else ((double *)p)[i] = v;
}
static inline void *top_row(const void *p, long i, long width, size_t real)
{
    return (char *)(uintptr_t)p + (size_t)(i * width) * real;
}

static inline double top_cap(double z, double cap) { return cap > 0.0 ? softcap_f64(z, cap) : z; }

/* One row's classes: logarithms of masses before normalisation, their log-sum-exps, the student's rest. */
typedef struct TopRow {
    const int32_t *index; /* (k) */
    const void *logp, *y; /* (k): teacher at T = 1; student's capped logits */
    long k;
    double m, it, lp_rest, lq_rest, lse_p, lse_q;
    size_t real;
} TopRow;

static inline double top_lp(const TopRow *r, long c)
{
    return (c < r->k ? top_get(r->logp, c, r->real) * r->it : r->lp_rest) - r->lse_p;
}
static inline double top_lq(const TopRow *r, long c)
{
    return (c < r->k ? (top_get(r->y, c, r->real) - r->m) * r->it : r->lq_rest) - r->lse_q;
}
static inline SoftTerm top_term(const TopRow *r, const LossAttr *a, long c, double *q)
{
    const double lp = top_lp(r, c), lq = top_lq(r, c);
    *q = exp(lq);
    return soft_term(a->kind, a->mix, exp(lp), *q, lq - lp);
}

static inline void top_normalise(TopRow *r)
{
    double mp = r->lp_rest, mq = r->lq_rest, sp, sq;
    r->lse_p = r->lse_q = 0.0;
    for (long c = 0; c < r->k; c++) {
        mp = fmax(mp, top_lp(r, c));
        mq = fmax(mq, top_lq(r, c));
    }
    sp = exp(r->lp_rest - mp);
    sq = exp(r->lq_rest - mq);
    for (long c = 0; c < r->k; c++) {
        sp += exp(top_lp(r, c) - mp);
        sq += exp(top_lq(r, c) - mq);
    }
    r->lse_p = mp + log(sp);
    r->lse_q = mq + log(sq);
}

/* Moves the classes' logits out of the row: what stays is the rest. */
static inline void top_take(void *z, const TopRow *r, void *room)
{
    for (long c = 0; c < r->k; c++) top_put(room, c, top_get(z, r->index[c], r->real), r->real);
    for (long c = 0; c < r->k; c++) top_put(z, r->index[c], -INFINITY, r->real);
}

/* The student's mass outside the classes; returns the sum behind it, of exp((z - *mr) / T). */
static inline double top_rest(const TopPasses *pass, const void *z, TopRow *r, const double *rest, long V,
                              double *mr)
{
    r->lp_rest = rest ? *rest : -INFINITY;
    r->lq_rest = -INFINITY;
    *mr = rest && r->k < V ? pass->max(z, V) : -INFINITY;
    if (!(*mr > -INFINITY)) return 0.0;
    const double sum = pass->exp_sum(z, V, *mr, r->it, 0.0, false, 0.0);
    r->lq_rest = (*mr - r->m) * r->it + log(sum);
    return sum;
}

/* dz of the whole row, then of the classes, whose logits lie in y. */
static inline void top_grad(const TopPasses *pass, void *z, const TopRow *r, long V, const LossAttr *a,
                            double g, const XentSums *s, double sum, double mr)
{
    XentFactors f = xent_factors(s, a, V, false, g);
    const double scale = soft_scale(a, V, g);
    double q;
    f.cq = sum > 0.0 ? scale * (top_term(r, a, r->k, &q).w - exp(top_lq(r, r->k)) * s->soft_w) / sum : 0.0;
    pass->grad(z, V, &f, s->m, mr, r->it, a->softcap);
    for (long c = 0; c < r->k; c++) {
        const double y = top_get(r->y, c, r->real);
        const SoftTerm t = top_term(r, a, c, &q);
        const double d = f.c1 * exp(y - s->m) - f.c0 + scale * (t.w - q * s->soft_w);
        top_put(z, r->index[c], a->softcap > 0.0 ? d * softcap_grad_f64(y, a->softcap) : d, r->real);
    }
}

/* Loss of one row; dz in place of z where g is not 0. rest: NULL or the teacher's log mass of the others at
 * T. */
static inline XentPart top_loss(const TopPasses *pass, void *z, TopRow *r, const double *rest, void *room,
                                int32_t t, long V, const LossAttr *a, double g)
{
    XentSums s = {0};
    double mr;
    if (a->softcap > 0.0) pass->cap(z, V, a->softcap);
    const double yt = top_get(z, t, r->real);
    s.m = r->m = pass->max(z, V);
    pass->ce(&s, z, t, V, a->label_smoothing > 0.0);
    top_take(z, r, room);
    const double sum = top_rest(pass, z, r, rest, V, &mr);
    top_normalise(r);
    for (long c = 0; c < r->k + (rest ? 1 : 0); c++) {
        const double lp = top_lp(r, c), p = exp(lp);
        double q;
        const SoftTerm term = top_term(r, a, c, &q);
        s.soft += term.d;
        s.soft_w += term.w;
        s.own -= p > 0.0 ? p * lp : 0.0;
    }
    XentPart part = xent_part(&s, a, V, false);
    part.kd = s.soft;
    part.entropy = s.own;
    if (g == 0.0) return part;
    top_grad(pass, z, r, V, a, g, &s, sum, mr);
    const double hot = g * a->ce_weight * (1.0 - a->label_smoothing);
    const double slope = a->softcap > 0.0 ? softcap_grad_f64(yt, a->softcap) : 1.0;
    top_put(z, t, top_get(z, t, r->real) - hot * slope, r->real);
    return part;
}

/* All rows; as xent_rows of xent_impl.h. */
static inline void top_rows(const TopPasses *pass, void *z, const int32_t *index, const void *logp,
                            const void *rest, void *room, const int32_t *targets, long N, long V, long k,
                            const LossAttr *a, double g, double *sums, void *nll)
{
    const size_t real = pass->real;
    for (long i0 = 0; i0 < N; i0 += SUM_BATCH) {
        const long n = lmin(SUM_BATCH, N - i0);
        XentPart part[SUM_BATCH];
#pragma omp parallel for schedule(static) if (n * V > PAR_MIN)
        for (long j = 0; j < n; j++) {
            const long i = i0 + j;
            const double lr = rest ? top_get(rest, i, real) : 0.0;
            void *zi = top_row(z, i, V, real), *ri = top_row(room, i, k, real);
            TopRow r = {.index = index + i * k,
                        .logp = top_row(logp, i, k, real),
                        .y = ri,
                        .k = k,
                        .it = 1.0 / a->temperature,
                        .real = real};
            part[j] = (XentPart){0};
            if (targets[i] != IGNORED)
                part[j] = top_loss(pass, zi, &r, rest ? &lr : NULL, ri, targets[i], V, a, g);
            else if (g != 0.0) memset(zi, 0, (size_t)V * real);
            if (nll) top_put(nll, i, part[j].nll, real);
        }
        xent_add(sums, part, targets + i0, n);
    }
}

/* ---- choosing ---------------------------------------------------------------------------------------- */
/* a before b: larger, or as large with a lower id. */
static inline bool top_before(const void *z, int32_t a, int32_t b, size_t real)
{
    const double x = top_get(z, a, real), y = top_get(z, b, real);
    return x > y || (x == y && a < b);
}

/* Heap of ids (n) whose first is the last in order; i goes down to its place. */
static inline void top_sift(const void *z, int32_t *h, long i, long n, size_t real)
{
    for (long c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && top_before(z, h[c], h[c + 1], real)) c++;
        if (!top_before(z, h[i], h[c], real)) return;
        const int32_t x = h[i];
        h[i] = h[c];
        h[c] = x;
    }
}

/* The k largest of z (V), in order. */
static inline void top_select(int32_t *h, const void *z, long V, long k, size_t real)
{
    for (long i = 0; i < k; i++) h[i] = (int32_t)i;
    for (long i = k / 2; i-- > 0;) top_sift(z, h, i, k, real);
    for (long v = k; v < V; v++) {
        if (!top_before(z, (int32_t)v, h[0], real)) continue;
        h[0] = (int32_t)v;
        top_sift(z, h, 0, k, real);
    }
    for (long n = k - 1; n > 0; n--) {
        const int32_t x = h[0];
        h[0] = h[n];
        h[n] = x;
        top_sift(z, h, 0, n, real);
    }
}

/* One row: ids, log-probabilities at T = 1, log of the others' p^(1/T) for each T. */
static inline void top_choose(const TopPasses *pass, int32_t *index, void *logp, void *rest, const void *z,
                              long V, long k, double softcap, const double *T, long nT)
{
    const size_t real = pass->real;
    top_select(index, z, V, k, real);
    const double m = top_cap(pass->max(z, V), softcap), least = top_get(z, index[k - 1], real);
    const double lse = m + log(pass->exp_sum(z, V, m, 1.0, softcap, false, 0.0));
    long equal = 0; /* left out although as large as the least of the k */
    double next = -INFINITY;
    for (long c = 0; c < k; c++) {
        const double y = top_get(z, index[c], real);
        equal -= y == least;
        top_put(logp, c, top_cap(y, softcap) - lse, real);
    }
    for (long v = 0; v < V; v++) {
        const double y = top_get(z, v, real);
        equal += y == least;
        next = y < least && y > next ? y : next;
    }
    const double edge = equal ? top_cap(least, softcap) : top_cap(next, softcap); /* the largest left out */
    for (long i = 0; i < nT; i++) {
        double s = (double)equal;
        if (next > -INFINITY) s += pass->exp_sum(z, V, edge, 1.0 / T[i], softcap, true, least);
        top_put(rest, i, edge > -INFINITY && s > 0.0 ? (edge - lse) / T[i] + log(s) : -INFINITY, real);
    }
}

static inline void top_choose_rows(const TopPasses *pass, int32_t *index, void *logp, void *rest,
                                   const void *z, long N, long V, long k, double softcap, const double *T,
                                   long nT)
{
#pragma omp parallel for schedule(static) if (N * V > PAR_MIN)
    for (long i = 0; i < N; i++)
        top_choose(pass, index + i * k, top_row(logp, i, k, pass->real), top_row(rest, i, nT, pass->real),
                   top_row(z, i, V, pass->real), V, k, softcap, T, nT);
}
#endif
