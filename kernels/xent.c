/* kernels/xent.c: softmax, cross-entropy and distillation loss with the gradient in place. Reference, float and double.
 * z zt (N,V), targets (N). Per row that counts, with p = softmax(zt/T), q = softmax(z/T), s = softmax(z), l = logsumexp(z):
 *   ce = l - (1-e) z[target] - e mean(z) + z_loss l^2       (e = label_smoothing)
 *   kd = sum p (log p - log q)                              forward KL, Hinton 1503.02531; entropy = -sum p log p
 *   dz = grad_scale (ce_weight (s (1 + 2 z_loss l) - (1-e) onehot - e/V) + kd_weight (q - p)/T)
 * A soft-cap c replaces z by c tanh(z/c) first. Logits of -inf have probability 0 (their terms are 0, never NaN).
 * Maxima are subtracted before every exp; sums stand in double; rows are added in order.
 */
#include "kernels/ref_impl.h"

typedef struct Row { double m, mt, s1, sq, sp; } Row;               /* maxima; sums of exp: T=1, student at T, teacher at T */
typedef struct Part { double ce, kd, entropy, nll; } Part;

static REAL capped(REAL z, REAL cap) { return cap > (REAL)0 ? K(softcap)(z, cap) : z; }

static REAL row_max(const REAL *z, long V, REAL cap) {              /* z (V) */
    REAL m = -(REAL)INFINITY;
    for (long v = 0; v < V; v++) m = z[v] > m ? z[v] : m;
    return capped(m, cap);                                          /* the cap is monotonic */
}

/* Cross-entropy at temperature 1; leaves r->m, r->s1. */
static void row_ce(const REAL *z, int32_t t, long V, const LossAttr *a, Row *r, Part *p) {
    const REAL cap = (REAL)a->softcap, m = row_max(z, V, cap);      /* z (V) */
    double s = 0.0, mean = 0.0;
    for (long v = 0; v < V; v++) {
        const REAL d = capped(z[v], cap) - m;
        s += (double)K(s_exp)(d);
        mean += (double)d;
    }
    r->m = (double)m;
    r->s1 = s;
    const double e = a->label_smoothing, zy = (double)(capped(z[t], cap) - m), lse = r->m + log(s);
    p->nll = log(s) - zy;
    p->ce = log(s) - (1.0 - e) * zy - (e > 0.0 ? e * mean / (double)V : 0.0) + a->z_loss * lse * lse;
}

/* Forward KL and teacher entropy at temperature T; leaves r->mt, r->sq, r->sp. Needs r->m. */
static void row_kd(const REAL *z, const REAL *zt, long V, const LossAttr *a, Row *r, Part *p) {
    const REAL cap = (REAL)a->softcap, tcap = (REAL)a->teacher_softcap, m = (REAL)r->m;
    const REAL mt = row_max(zt, V, tcap), it = (REAL)(1.0 / a->temperature);   /* z zt (V) */
    double sq = 0.0, sp = 0.0, cross = 0.0, own = 0.0;
    for (long v = 0; v < V; v++) {
        const REAL d = (capped(z[v], cap) - m) * it, dt = (capped(zt[v], tcap) - mt) * it, ep = K(s_exp)(dt);
        sq += (double)K(s_exp)(d);
        sp += (double)ep;
        if (ep == (REAL)0) continue;                                /* p log p -> 0, also where both logits are -inf */
        cross += (double)ep * ((double)dt - (double)d);
        own += (double)ep * (double)dt;
    }
    r->mt = (double)mt;
    r->sq = sq;
    r->sp = sp;
    p->kd = cross / sp - log(sp) + log(sq);
    p->entropy = log(sp) - own / sp;
}

/* dz in place of z. */
static void row_grad(REAL *z, const REAL *zt, int32_t t, long V, const LossAttr *a, const Row *r, double gs) {
    const REAL cap = (REAL)a->softcap, tcap = (REAL)a->teacher_softcap, m = (REAL)r->m, mt = (REAL)r->mt;
    const double lse = r->m + log(r->s1), T = zt ? a->temperature : 1.0, gc = gs * a->ce_weight;
    const double gk = zt ? gs * a->kd_weight / T : 0.0;             /* z zt (V) */
    const REAL c1 = (REAL)(gc * (1.0 + 2.0 * a->z_loss * lse) / r->s1), c0 = (REAL)(gc * a->label_smoothing / (double)V);
    const REAL cq = (REAL)(zt ? gk / r->sq : 0.0), cp = (REAL)(zt ? gk / r->sp : 0.0), it = (REAL)(1.0 / T);
    const REAL hot = (REAL)(gc * (1.0 - a->label_smoothing));
    for (long v = 0; v < V; v++) {
        const REAL y = capped(z[v], cap);
        REAL d = c1 * K(s_exp)(y - m) - c0;
        if (zt) d += cq * K(s_exp)((y - m) * it) - cp * K(s_exp)((capped(zt[v], tcap) - mt) * it);
        if (v == t) d -= hot;
        z[v] = cap > (REAL)0 ? d * K(softcap_grad)(y, cap) : d;
    }
}

static void row_ignored(REAL *z, long V, double gs, Part *p) {      /* z (V) */
    *p = (Part){0};
    for (long v = 0; v < V && gs != 0.0; v++) z[v] = (REAL)0;
}

void K(xent)(void *z_, const void *zt_, const int32_t *targets, long N, long V, const LossAttr *a, double grad_scale,
             double *sums, void *nll_) {
    REAL *z = z_, *nll = nll_;                                      /* (N,V), (N) or NULL */
    const REAL *zt = zt_;                                           /* (N,V) or NULL */
    for (long i0 = 0; i0 < N; i0 += SUM_BATCH) {
        const long n = lmin(SUM_BATCH, N - i0);
        Part part[SUM_BATCH];
#pragma omp parallel for schedule(static) if (n * V > PAR_MIN)
        for (long i = 0; i < n; i++) {
            REAL *zi = z + (i0 + i) * V;
            const REAL *ti = zt ? zt + (i0 + i) * V : NULL;
            const int32_t t = targets[i0 + i];
            Row r = {0};
            part[i] = (Part){0};
            if (t == IGNORED) {
                row_ignored(zi, V, grad_scale, &part[i]);
            } else {
                row_ce(zi, t, V, a, &r, &part[i]);
                if (ti) row_kd(zi, ti, V, a, &r, &part[i]);
                if (grad_scale != 0.0) row_grad(zi, ti, t, V, a, &r, grad_scale);
            }
            if (nll) nll[i0 + i] = (REAL)part[i].nll;
        }
        for (long i = 0; i < n; i++) {
            sums[0] += part[i].ce;
            sums[1] += part[i].kd;
            sums[2] += part[i].entropy;
            sums[3] += targets[i0 + i] == IGNORED ? 0.0 : 1.0;
        }
    }
}

void K(softmax)(void *y_, const void *x_, long N, long V, double temperature) {
    REAL *y = y_;                                                   /* (N,V); may be x */
    const REAL *x = x_, it = (REAL)(1.0 / temperature);             /* (N,V) */
#pragma omp parallel for schedule(static) if (N * V > PAR_MIN)
    for (long i = 0; i < N; i++) {
        REAL *yi = y + i * V;
        const REAL *xi = x + i * V, m = row_max(xi, V, (REAL)0);
        double s = 0.0;
        for (long v = 0; v < V; v++) {
            yi[v] = K(s_exp)((xi[v] - m) * it);
            s += (double)yi[v];
        }
        const REAL inv = (REAL)(1.0 / s);
        for (long v = 0; v < V; v++) yi[v] *= inv;
    }
}
