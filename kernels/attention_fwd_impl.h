/* kernels/attention_fwd_impl.h: forward attention for one tile of QT queries; included by attention_<isa>.c.
 *
 * Queries lie in the lanes: S^T (keys,QT) = K Q^T and O^T (D,QT) += V^T P^T read k and v as they lie, one
 * number at a time, so only q and o are transposed, once per tile; max and sum over keys are plain vertical
 * operations.
 */
#ifndef ATTENTION_FWD_IMPL_H
#define ATTENTION_FWD_IMPL_H
#include <omp.h>

typedef struct Forward {
    float *o, *lse;
    const float *q, *k, *v;
    const AttnShape *a;
} Forward;

typedef struct ForwardTile {
    ALIGNED float q[MAX_D * QT];       /* (D,QT) scaled */
    ALIGNED float o[MAX_D * QT];       /* (D,QT) */
    ALIGNED float p[KT * QT];          /* (KT,QT) scores, then probabilities */
    ALIGNED float m[QT], l[QT], c[QT]; /* row maximum, row sum, factor of what was summed before */
    ALIGNED int32_t lo[QT], hi[QT], seg[QT];
} ForwardTile;

static _Thread_local ForwardTile forward_buffer;

static void forward_softcap(ForwardTile *w, long keys, long lanes, float cap)
{
    for (long j = 0; j < keys; j++)
        for (long i = 0; i < lanes; i += VL) {
            float *at = w->p + j * QT + i;
            v_store(at, v_mul(v_set(cap), v_tanh(v_div(v_load(at), v_set(cap)))));
        }
}

/* seg_k (keys) or NULL */
static void forward_mask(ForwardTile *w, long s0, long keys, long lanes, const int32_t *seg_k)
{
    for (long i = 0; i < lanes; i += VL) {
        vint lo = v_load_int(w->lo + i), hi = v_load_int(w->hi + i), seg = v_load_int(w->seg + i);
        for (long j = 0; j < keys; j++) {
            vmask out = v_outside(lo, v_int((int32_t)(s0 + j)), hi);
            if (seg_k) out = v_or(out, v_differ(seg, v_int(seg_k[j])));
            float *at = w->p + j * QT + i;
            v_store(at, v_pick(out, v_set(-INFINITY), v_load(at)));
        }
    }
}

/* Scores to probabilities relative to the new maximum; a lane that has seen no key keeps m = -inf, p = 0. */
static void forward_softmax(ForwardTile *w, long keys, long lanes)
{
    for (long i = 0; i < lanes; i += VL) {
        vec old = v_load(w->m + i), m = old, m2 = old, sum = v_set(0), sum2 = v_set(0);
        float *p = w->p + i;
        long j = 0;
        for (; j + 2 <= keys; j += 2) {
            m = v_max(m, v_load(p + j * QT));
            m2 = v_max(m2, v_load(p + (j + 1) * QT));
        }
        if (j < keys) m = v_max(m, v_load(p + j * QT));
        m = v_max(m, m2);
        vec base = v_pick(v_equal(m, v_set(-INFINITY)), v_set(0), m);
        for (j = 0; j + 2 <= keys; j += 2) {
            vec e = v_exp(v_sub(v_load(p + j * QT), base)), e2 = v_exp(v_sub(v_load(p + (j + 1) * QT), base));
            v_store(p + j * QT, e);
            v_store(p + (j + 1) * QT, e2);
            sum = v_add(sum, e);
            sum2 = v_add(sum2, e2);
        }
        if (j < keys) {
            vec e = v_exp(v_sub(v_load(p + j * QT), base));
            v_store(p + j * QT, e);
            sum = v_add(sum, e);
        }
        vec c = v_exp(v_sub(old, base));
        v_store(w->c + i, c);
        v_store(w->l + i, v_fma(c, v_load(w->l + i), v_add(sum, sum2)));
        v_store(w->m + i, m);
    }
}

/* Bounds of the tile's lanes; returns the keys any lane sees in *any, those every lane sees in *every. */
static void forward_bounds(ForwardTile *w, const AttnShape *a, long b, long t0, long n, Span *any,
                           Span *every)
{
    *any = *every = visible(a, t0);
    for (long i = 0; i < QT; i++) {
        Span s = visible(a, t0 + least(i, n - 1));
        w->lo[i] = s.lo;
        w->hi[i] = s.hi;
        w->seg[i] = a->seg_q ? a->seg_q[b * a->Tq + t0 + least(i, n - 1)] : 0;
        *any = (Span){(int32_t)least(any->lo, s.lo), (int32_t)most(any->hi, s.hi)};
        *every = (Span){(int32_t)most(every->lo, s.lo), (int32_t)least(every->hi, s.hi)};
        w->m[i] = -INFINITY;
        w->l[i] = 0;
    }
}

/* o (n,D) rows and lse (n) of the tile. */
static void forward_finish(ForwardTile *w, float *o, float *lse, long n, const AttnShape *a, bool empty)
{
    for (long i = 0; i < QT; i++) {
        bool dead = w->m[i] == -INFINITY;
        w->c[i] = dead ? 0 : 1 / w->l[i];
        if (i < n) lse[i] = dead ? -INFINITY : w->m[i] + logf(w->l[i]);
    }
    if (!empty) {
        unpack_columns(o, a->o_stride, w->o, QT, w->c, n, a->D, SET);
        return;
    }
    for (long i = 0; i < n; i++)
        for (long d = 0; d < a->D; d++) o[i * a->o_stride + d] = 0;
}

/* Queries [t0, t0+QT) of head h, sequence b. */
static void forward_tile(const Forward *f, long b, long h, long t0)
{
    const AttnShape *a = f->a;
    ForwardTile *w = &forward_buffer;
    long n = least(QT, a->Tq - t0), lanes = round_up(n, VL), D = a->D, col = h / (a->H / a->Hkv) * D;
    const float *k = f->k + kv_row(a, b) * a->k_stride + col, *v = f->v + kv_row(a, b) * a->v_stride + col;
    const int32_t *seg_q = seg_row(a->seg_q, b * a->Tq + t0, a), *seg_k = seg_row(a->seg_kv, b * a->Tkv, a);
    Span any, every;
    bool first = true;
    forward_bounds(w, a, b, t0, n, &any, &every);
    pack_columns(w->q, QT, f->q + (b * a->Tq + t0) * a->q_stride + h * D, a->q_stride, n, lanes, D,
                 (float)a->scale);
    for (long s0 = any.lo / KT * KT; s0 <= any.hi; s0 += KT) {
        long keys = least(KT, any.hi + 1 - s0);
        Meeting meet = seg_q ? segments_meet(seg_q, n, seg_k + s0, keys) : ALL_SEE;
        if (meet == NONE_SEE) continue;
        product_rows(w->p, QT, k + s0 * a->k_stride, a->k_stride, w->q, QT, keys, lanes, D, FROM_ZERO);
        if (a->softcap > 0) forward_softcap(w, keys, lanes, (float)a->softcap);
        if (meet == SOME_SEE || s0 < every.lo || s0 + keys - 1 > every.hi)
            forward_mask(w, s0, keys, lanes, seg_q ? seg_k + s0 : NULL);
        forward_softmax(w, keys, lanes);
        product_columns(w->o, QT, v + s0 * a->v_stride, a->v_stride, w->p, QT, D, lanes, keys,
                        first ? FROM_ZERO : FROM_SCALED_C, w->c);
        first = false;
    }
    forward_finish(w, f->o + (b * a->Tq + t0) * a->o_stride + h * D, f->lse + (b * a->H + h) * a->Tq + t0, n,
                   a, first);
}

/* o (B,Tq,H,D), lse (B,H,Tq) out;  q (B,Tq,H,D)  k v (B,Tkv,Hkv,D). */
void ISA_NAME(attention_fwd)(void *o, void *lse, const void *q, const void *k, const void *v,
                             const AttnShape *a)
{
    if (a->D > MAX_D || a->dropout > 0) {
        attention_fwd_f32(o, lse, q, k, v, a);
        return;
    }
    Forward f = {o, lse, q, k, v, a};
    if (a->Tq <= FEW_QUERIES) {
        long rows = a->Tq * (a->H / a->Hkv), parts = (rows + FEW - 1) / FEW;
#pragma omp parallel for schedule(dynamic, 1) if (worth_threads(a))
        for (long i = 0; i < a->B * a->Hkv * parts; i++)
            few_rows(o, lse, q, k, v, a, i / parts / a->Hkv, i / parts % a->Hkv, i % parts * FEW);
        return;
    }
    /* Neighbouring items share a head, whose keys and values then stay in the thread's cache. */
    long tiles = (a->Tq + QT - 1) / QT, items = a->B * a->H * tiles;
    int chunk = (int)most(1, items / (8L * omp_get_max_threads()));
#pragma omp parallel for schedule(dynamic, chunk) if (worth_threads(a))
    for (long i = 0; i < items; i++)
        forward_tile(&f, i / tiles / a->H, i / tiles % a->H, (tiles - 1 - i % tiles) * QT);
}
#endif
