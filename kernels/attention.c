/* kernels/attention.c: scaled dot-product attention, the portable reference, for float and for double.
 *
 *   forward   s = scale q.k (softcap: s = cap tanh(s/cap)), keys masked by AttnShape;  m' = max(m, max s);
 *             p = e^(s-m');  c = e^(m-m');  l = c l + sum p;  o = c o + p v;
 *             at the end o = o/l, lse = m + log l
 *   backward  delta = dO.o;  p = e^(s-lse);  dv += p dO;  dp = dO.v;
 *             ds = p (dp-delta) scale (times 1-(s/cap)^2);  dq += ds k;  dk += ds q
 *   dropout   o, dv: p m/(1-P) for p, dp: dO.v m/(1-P), m from Philox; the sum l and delta stay as they are
 *
 * q o dO dq (B,Tq,H,D)  k v dk dv (B,Tkv,Hkv,D), rows by their strides;  lse delta (B,H,Tq).
 * Query head h reads kv head h/(H/Hkv). A row that sees no key gives o = 0, lse = -inf and gradient 0. Keys
 * go by in tiles, so no Tq x Tkv array exists. Each output row belongs to one loop index: bits do not depend
 * on the number of threads. Masked keys are never read. Rabe and Staats 2021 (arXiv 2112.05682); Dao et al.
 * 2022 (arXiv 2205.14135).
 */
#include <math.h>
#include "core/core.h"
#include "kernels/kernels.h"
#include "kernels/ref_impl.h"

enum { TILE = 64 }; /* keys per step of the online softmax: scores fit one small array */

#define FN1(fn, x) (sizeof(REAL) == sizeof(float) ? (REAL)fn##f((float)(x)) : (REAL)fn((double)(x)))

typedef struct Span {
    long lo, hi;
} Span; /* keys [lo, hi) */

/* Keys that query t may see by position; segments are checked key by key. */
static Span visible(const AttnShape *a, long t)
{
    long pos = a->q_offset + t;
    Span r = {0, a->Tkv};
    if (a->causal && pos + 1 < r.hi) r.hi = pos + 1;
    if (a->window > 0 && pos - a->window + 1 > r.lo) r.lo = pos - a->window + 1;
    if (r.hi < r.lo) r.hi = r.lo;
    return r;
}

static bool same_segment(const AttnShape *a, long b, long t, long s)
{
    return !a->seg_q || !a->seg_kv || a->seg_q[b * a->Tq + t] == a->seg_kv[b * a->Tkv + s];
}

static long kv_row(const AttnShape *a, long b, long s) { return b * (a->kv_rows ? a->kv_rows : a->Tkv) + s; }

/* x y (D) */
static REAL dot(const REAL *x, const REAL *y, long D)
{
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long d = 0; d < D; d++) sum += x[d] * y[d];
    return sum;
}

/* y (D) += c x (D) */
static void add_scaled(REAL *y, REAL c, const REAL *x, long D)
{
#pragma omp simd
    for (long d = 0; d < D; d++) y[d] += c * x[d];
}

static void multiply(REAL *y, REAL c, long D)
{
    for (long d = 0; d < D; d++) y[d] *= c;
}

static REAL score(const AttnShape *a, const REAL *q, const REAL *k)
{
    REAL s = dot(q, k, a->D) * (REAL)a->scale;
    if (a->softcap > 0) s = (REAL)a->softcap * FN1(tanh, s / (REAL)a->softcap);
    return s;
}

/* What dropout makes of the probability of one pair: a factor, 0 or 1/(1-P). */
static REAL kept(const AttnShape *a, long b, long h, long t, long s)
{
    if (!(a->dropout > 0)) return 1;
    RngKey key = {.seed = a->seed,
                  .step = a->step,
                  .stream = a->stream + (uint32_t)h,
                  .sample = a->sample0 + (uint32_t)b};
    bool on = (double)rng_u32(key, (uint32_t)(t * a->Tkv + s)) >= a->dropout * 4294967296.0;
    return on ? (REAL)(1 / (1 - a->dropout)) : (REAL)0;
}

/* One query: o (D) out, returns lse. q (D); k v are the kv head's row 0 of sequence b. */
static REAL forward_row(const AttnShape *a, long b, long h, long t, REAL *o, const REAL *q, const REAL *k,
                        const REAL *v)
{
    REAL m = -(REAL)INFINITY, l = 0, p[TILE];
    Span see = visible(a, t);
    for (long d = 0; d < a->D; d++) o[d] = 0;
    for (long s0 = see.lo; s0 < see.hi; s0 += TILE) {
        long n = see.hi - s0 < TILE ? see.hi - s0 : TILE;
        REAL top = m;
        for (long j = 0; j < n; j++) {
            bool on = same_segment(a, b, t, s0 + j);
            p[j] = on ? score(a, q, k + (s0 + j) * a->k_stride) : -(REAL)INFINITY;
            if (p[j] > top || p[j] != p[j]) top = p[j]; /* a NaN score stays visible */
        }
        if (top == -(REAL)INFINITY) continue;
        REAL c = FN1(exp, m - top);
        multiply(o, c, a->D);
        l *= c;
        for (long j = 0; j < n; j++) {
            if (p[j] == -(REAL)INFINITY) continue;
            REAL e = FN1(exp, p[j] - top);
            l += e;
            add_scaled(o, e * kept(a, b, h, t, s0 + j), v + (s0 + j) * a->v_stride, a->D);
        }
        m = top;
    }
    if (m == -(REAL)INFINITY) return m;
    multiply(o, 1 / l, a->D);
    return m + FN1(log, l);
}

/* o (B,Tq,H,D), lse (B,H,Tq) out;  q (B,Tq,H,D)  k v (B,Tkv,Hkv,D) */
void K(attention_fwd)(void *o_, void *lse_, const void *q_, const void *k_, const void *v_,
                      const AttnShape *a)
{
    REAL *o = o_, *lse = lse_;
    const REAL *q = q_, *k = k_, *v = v_;
    long group = a->H / a->Hkv;
#pragma omp parallel for schedule(dynamic, 8)
    for (long i = 0; i < a->B * a->H * a->Tq; i++) {
        long t = i % a->Tq, h = i / a->Tq % a->H, b = i / a->Tq / a->H, col = h / group * a->D,
             row = kv_row(a, b, 0);
        lse[i] = forward_row(a, b, h, t, o + (b * a->Tq + t) * a->o_stride + h * a->D,
                             q + (b * a->Tq + t) * a->q_stride + h * a->D, k + row * a->k_stride + col,
                             v + row * a->v_stride + col);
    }
}

/* The backward's arguments, so that the loops below stay readable; shapes as in attention_bwd. */
typedef struct Grad {
    REAL *dq, *dk, *dv;
    const REAL *dO, *lse, *q, *k, *v, *delta;
    const AttnShape *a;
} Grad;

/* Derivative of the loss by the raw q.k of one visible pair; *p gets the probability times keep, the
 * dropout's factor. dO v (D) */
static REAL score_grad(const Grad *g, REAL *p, REAL keep, long stat, const REAL *dO, const REAL *q,
                       const REAL *k, const REAL *v)
{
    const AttnShape *a = g->a;
    REAL s = score(a, q, k);
    *p = FN1(exp, s - g->lse[stat]);
    REAL ds = *p * (keep * dot(dO, v, a->D) - g->delta[stat]) * (REAL)a->scale;
    *p *= keep;
    if (a->softcap > 0) ds *= 1 - (s / (REAL)a->softcap) * (s / (REAL)a->softcap);
    return ds;
}

static void backward_query(const Grad *g, long b, long h, long t, Mode mode)
{
    const AttnShape *a = g->a;
    long D = a->D, col = h / (a->H / a->Hkv) * D, stat = (b * a->H + h) * a->Tq + t;
    long at = (b * a->Tq + t) * a->q_stride + h * D;
    const REAL *dO = g->dO + (b * a->Tq + t) * a->o_stride + h * D;
    Span see = visible(a, t);
    if (mode == SET)
        for (long d = 0; d < D; d++) g->dq[at + d] = 0;
    for (long s = see.lo; s < see.hi; s++) {
        if (!same_segment(a, b, t, s)) continue;
        REAL p;
        const REAL *k = g->k + kv_row(a, b, s) * a->k_stride + col;
        REAL ds = score_grad(g, &p, kept(a, b, h, t, s), stat, dO, g->q + at, k,
                             g->v + kv_row(a, b, s) * a->v_stride + col);
        add_scaled(g->dq + at, ds, k, D);
    }
}

static void backward_key(const Grad *g, long b, long hkv, long s, Mode mk, Mode mv)
{
    const AttnShape *a = g->a;
    long D = a->D, group = a->H / a->Hkv;
    long k_at = kv_row(a, b, s) * a->k_stride + hkv * D, v_at = kv_row(a, b, s) * a->v_stride + hkv * D;
    for (long d = 0; d < D; d++) {
        if (g->dk && mk == SET) g->dk[k_at + d] = 0;
        if (g->dv && mv == SET) g->dv[v_at + d] = 0;
    }
    for (long h = hkv * group; h < (hkv + 1) * group; h++)
        for (long t = 0; t < a->Tq; t++) {
            Span see = visible(a, t);
            if (s < see.lo || s >= see.hi || !same_segment(a, b, t, s)) continue;
            REAL p;
            const REAL *q = g->q + (b * a->Tq + t) * a->q_stride + h * D;
            const REAL *dO = g->dO + (b * a->Tq + t) * a->o_stride + h * D;
            REAL ds = score_grad(g, &p, kept(a, b, h, t, s), (b * a->H + h) * a->Tq + t, dO, q, g->k + k_at,
                                 g->v + v_at);
            if (g->dk) add_scaled(g->dk + k_at, ds, q, D);
            if (g->dv) add_scaled(g->dv + v_at, p, dO, D);
        }
}

/* dq as q, dk as k, dv as v, each may be NULL;  dO o (B,Tq,H,D), both with o_stride;  lse delta (B,H,Tq) */
void K(attention_bwd)(void *dq, void *dk, void *dv, const void *dO_, const void *o_, const void *lse,
                      const void *q, const void *k, const void *v, void *delta_, const AttnShape *a, Mode mq,
                      Mode mk, Mode mv)
{
    const REAL *dO = dO_, *o = o_;
    REAL *delta = delta_;
    Grad g = {dq, dk, dv, dO, lse, q, k, v, delta, a};
#pragma omp parallel for
    for (long i = 0; i < a->B * a->H * a->Tq; i++) {
        long t = i % a->Tq, h = i / a->Tq % a->H, b = i / a->Tq / a->H;
        long at = (b * a->Tq + t) * a->o_stride + h * a->D;
        delta[i] = dot(dO + at, o + at, a->D);
    }
    if (dq) {
#pragma omp parallel for schedule(dynamic, 8)
        for (long i = 0; i < a->B * a->H * a->Tq; i++)
            backward_query(&g, i / a->Tq / a->H, i / a->Tq % a->H, i % a->Tq, mq);
    }
    if (dk || dv) {
#pragma omp parallel for schedule(dynamic, 8)
        for (long i = 0; i < a->B * a->Hkv * a->Tkv; i++)
            backward_key(&g, i / a->Tkv / a->Hkv, i / a->Tkv % a->Hkv, i % a->Tkv, mk, mv);
    }
}
