/* kernels/attention_bwd_impl.h: backward attention, included by attention_<isa>.c.
 *
 * Keys lie in the lanes: S (IT,JT) = q K^T and dP = dO V^T against K^T, V^T packed once per JT keys; dV^T
 * (D,JT) += dO^T P and dK^T += q^T dS read q and dO as they lie; dq += dS k goes straight to memory, in the
 * order of the key tiles. Two schedules with the same bits (same tiles, same order of every sum): one pass
 * per (b, kv head) makes all three, 5 products; where those items cannot occupy the threads, dk dv per key
 * tile and dq per query range apart, 7 products.
 */
#ifndef ATTENTION_BWD_IMPL_H
#define ATTENTION_BWD_IMPL_H
#include <omp.h>

typedef struct Backward {
    float *dq, *dk, *dv; /* as q k v; NULL = not wanted */
    const float *dO, *o, *lse, *q, *k, *v;
    float *delta; /* (B,H,Tq) */
    const AttnShape *a;
    Mode mq, mk, mv;
} Backward;

typedef struct BackwardTile {
    ALIGNED float k[MAX_D * JT], v[MAX_D * JT];   /* (D,JT): scaled keys, values */
    ALIGNED float rows[MAX_D * JT];               /* (JT, D rounded up): keys as they lie, zero behind D */
    ALIGNED float dk[MAX_D * JT], dv[MAX_D * JT]; /* (D,JT) */
    ALIGNED float p[IT * JT], ds[IT * JT];        /* (IT,JT): scores, then probabilities; dP, then dS */
} BackwardTile;

static _Thread_local BackwardTile backward_buffer;

/* One query tile against one key tile: rows t0.. (n), keys s0.. (keys), and who is masked. */
typedef struct Pair {
    long b, h, t0, n, s0, keys;
    bool mask;
    const int32_t *seg_q, *seg_k;
} Pair;

/* Scores and dP in w become P and dS. */
static void backward_softmax(BackwardTile *w, const Backward *g, const Pair *x)
{
    const AttnShape *a = g->a;
    const float *lse = g->lse + (x->b * a->H + x->h) * a->Tq + x->t0;
    const float *delta = g->delta + (x->b * a->H + x->h) * a->Tq + x->t0;
    float cap = (float)a->softcap;
    for (long i = 0; i < x->n; i++) {
        Span see = visible(a, x->t0 + i);
        vint lo = v_int(see.lo), hi = v_int(see.hi);
        vec base = v_set(lse[i] == -INFINITY ? 0 : lse[i]), mean = v_set(delta[i]),
            scale = v_set((float)a->scale);
        for (long j = 0; j < x->keys; j += VL) {
            float *p = w->p + i * JT + j, *ds = w->ds + i * JT + j;
            vec s = v_load(p), slope = scale;
            if (cap > 0) {
                vec u = v_tanh(v_div(s, v_set(cap)));
                s = v_mul(v_set(cap), u);
                slope = v_mul(slope, v_fnma(u, u, v_set(1)));
            }
            if (x->mask) {
                vmask out = v_outside(lo, v_count((int32_t)(x->s0 + j)), hi);
                if (x->seg_k) {
                    vint seg = v_load_int_some(x->seg_k + j, v_first(x->keys - j));
                    out = v_or(out, v_differ(v_int(x->seg_q[i]), seg));
                }
                s = v_pick(out, v_set(-INFINITY), s);
            }
            vec e = v_exp(v_sub(s, base));
            v_store(p, e);
            v_store(ds, v_mul(v_mul(e, slope), v_sub(v_load(ds), mean)));
        }
    }
}

/* Cuts the pair to the rows and keys that meet; false when none do. */
static bool backward_meet(Pair *x, const AttnShape *a)
{
    long t1 = x->t0 + x->n, last = x->s0 + x->keys - 1;
    if (a->causal) x->t0 = most(x->t0, x->s0 - a->q_offset);
    if (a->window > 0) t1 = least(t1, last + a->window - a->q_offset);
    x->n = t1 - x->t0;
    if (x->n <= 0) return false;
    Span top = visible(a, x->t0), end = visible(a, t1 - 1); /* both bounds grow with t */
    x->keys = least(x->keys, end.hi + 1 - x->s0);
    if (x->keys <= 0 || top.lo >= x->s0 + x->keys) return false;
    x->mask = end.lo > x->s0 || top.hi < x->s0 + x->keys - 1 || x->keys % VL != 0; /* lanes behind keys too */
    x->seg_q = seg_row(a->seg_q, x->b * a->Tq + x->t0, a);
    x->seg_k = seg_row(a->seg_kv, x->b * a->Tkv + x->s0, a);
    if (!x->seg_q) return true;
    Meeting meet = segments_meet(x->seg_q, x->n, x->seg_k, x->keys);
    x->mask = x->mask || meet == SOME_SEE;
    return meet != NONE_SEE;
}

/* dk^T dv^T (when dkv) and dq (when wanted) of one pair; *fresh: nothing is in dk^T dv^T yet. */
static void backward_pair(BackwardTile *w, const Backward *g, Pair x, bool dkv, bool dq, bool *fresh)
{
    const AttnShape *a = g->a;
    if (!backward_meet(&x, a)) return;
    long D = a->D, lanes = round_up(x.keys, VL), row = x.b * a->Tq + x.t0, at = row * a->q_stride + x.h * D;
    const float *q = g->q + at, *dO = g->dO + row * a->o_stride + x.h * D;
    product_rows(w->p, JT, q, a->q_stride, w->k, JT, x.n, lanes, D, FROM_ZERO);
    product_rows(w->ds, JT, dO, a->o_stride, w->v, JT, x.n, lanes, D, FROM_ZERO);
    backward_softmax(w, g, &x);
    if (dkv) {
        Start start = FROM_C;
        if (*fresh) {
            for (long i = 0; i < D * JT; i++) w->dk[i] = w->dv[i] = 0;
            *fresh = false;
        }
        if (g->dv) product_columns(w->dv, JT, dO, a->o_stride, w->p, JT, D, lanes, x.n, start, NULL);
        if (g->dk) product_columns(w->dk, JT, q, a->q_stride, w->ds, JT, D, lanes, x.n, start, NULL);
    }
    if (dq)
        product_rows(g->dq + at, a->q_stride, w->ds, JT, w->rows, round_up(D, VL), x.n, D, x.keys, FROM_C);
}

static void zero_rows(float *x, long stride, long n, long D)
{
    for (long i = 0; i < n; i++)
        for (long d = 0; d < D; d++) x[i * stride + d] = 0;
}

static void backward_pack(BackwardTile *w, const Backward *g, long at, long v_at, long keys, bool dq)
{
    const AttnShape *a = g->a;
    long D = a->D, wide = round_up(D, VL);
    pack_columns(w->k, JT, g->k + at, a->k_stride, keys, JT, D, (float)a->scale);
    pack_columns(w->v, JT, g->v + v_at, a->v_stride, keys, JT, D, 1);
    if (!dq) return;
    for (long j = 0; j < keys; j++)
        for (long d = 0; d < wide; d += VL)
            v_store(w->rows + j * wide + d, v_load_some(g->k + at + j * a->k_stride + d, v_first(D - d)));
}

/* Keys [s0, s1) of sequence b and kv head hkv against heads [h0, h1) and queries [t0, t1), all on the tiles'
 * grid. */
static void backward_block(const Backward *g, long b, long hkv, long s0, long s1, long h0, long h1, long t0,
                           long t1, bool dkv, bool dq)
{
    const AttnShape *a = g->a;
    BackwardTile *w = &backward_buffer;
    for (long s = s0; s < s1; s += JT) {
        long keys = least(JT, s1 - s), at = (kv_row(a, b) + s) * a->k_stride + hkv * a->D;
        long v_at = (kv_row(a, b) + s) * a->v_stride + hkv * a->D;
        bool fresh = true;
        backward_pack(w, g, at, v_at, keys, dq);
        for (long h = h0; h < h1; h++)
            for (long t = t0; t < t1; t += IT) {
                Pair x = {.b = b, .h = h, .t0 = t, .n = least(IT, t1 - t), .s0 = s, .keys = keys};
                backward_pair(w, g, x, dkv, dq, &fresh);
            }
        if (!dkv) continue;
        if (g->dk && !fresh) unpack_columns(g->dk + at, a->k_stride, w->dk, JT, NULL, keys, a->D, g->mk);
        if (g->dv && !fresh) unpack_columns(g->dv + v_at, a->v_stride, w->dv, JT, NULL, keys, a->D, g->mv);
        if (g->dk && fresh && g->mk == SET) zero_rows(g->dk + at, a->k_stride, keys, a->D);
        if (g->dv && fresh && g->mv == SET) zero_rows(g->dv + v_at, a->v_stride, keys, a->D);
    }
}

/* delta = dO.o for every row. */
static void backward_delta(const Backward *g)
{
    const AttnShape *a = g->a;
#pragma omp parallel for if (worth_threads(a))
    for (long i = 0; i < a->B * a->Tq; i++)
        for (long h = 0; h < a->H; h++) {
            const float *x = g->dO + i * a->o_stride + h * a->D, *y = g->o + i * a->o_stride + h * a->D;
            vec sum = v_set(0);
            for (long d = 0; d < a->D; d += VL) {
                vmask on = v_first(a->D - d);
                sum = v_fma(v_load_some(x + d, on), v_load_some(y + d, on), sum);
            }
            g->delta[(i / a->Tq * a->H + h) * a->Tq + i % a->Tq] = v_sum(sum);
        }
}

/* All three gradients of one (b, kv head). */
static void backward_one_pass(const Backward *g)
{
    const AttnShape *a = g->a;
    long group = a->H / a->Hkv;
#pragma omp parallel for schedule(dynamic, 1) if (worth_threads(a))
    for (long i = 0; i < a->B * a->Hkv; i++) {
        long b = i / a->Hkv, h = i % a->Hkv * group;
        if (g->mq == SET)
            zero_rows(g->dq + b * a->Tq * a->q_stride + h * a->D, a->q_stride, a->Tq, group * a->D);
        backward_block(g, b, i % a->Hkv, 0, a->Tkv, h, h + group, 0, a->Tq, true, true);
    }
}

/* dk and dv by key tile. */
static void backward_keys(const Backward *g)
{
    const AttnShape *a = g->a;
    long group = a->H / a->Hkv, heads = a->B * a->Hkv, tiles = (a->Tkv + JT - 1) / JT;
#pragma omp parallel for schedule(dynamic, 1) if (worth_threads(a))
    for (long i = 0; i < heads * tiles; i++) {
        long b = i % heads / a->Hkv, hkv = i % heads % a->Hkv, s = i / heads * JT;
        backward_block(g, b, hkv, s, least(s + JT, a->Tkv), hkv * group, (hkv + 1) * group, 0, a->Tq, true,
                       false);
    }
}

/* dq by ranges of queries. */
static void backward_queries(const Backward *g)
{
    enum { RANGE = 4 * IT }; /* long enough to be worth packing each key tile for it */
    const AttnShape *a = g->a;
    long group = a->H / a->Hkv, heads = a->B * a->H, parts = (a->Tq + RANGE - 1) / RANGE;
#pragma omp parallel for schedule(dynamic, 1) if (worth_threads(a))
    for (long i = 0; i < heads * parts; i++) {
        long b = i % heads / a->H, h = i % heads % a->H, t = (parts - 1 - i / heads) * RANGE;
        long end = least(t + RANGE, a->Tq), first = visible(a, t).lo / JT * JT,
             last = visible(a, end - 1).hi + 1;
        if (g->mq == SET)
            zero_rows(g->dq + (b * a->Tq + t) * a->q_stride + h * a->D, a->q_stride, end - t, a->D);
        backward_block(g, b, h / group, first, last, h, h + 1, t, end, false, true);
    }
}

/* dq as q, dk as k, dv as v, each may be NULL;  dO o (B,Tq,H,D), both with o_stride;  lse delta (B,H,Tq) */
void ISA_NAME(attention_bwd)(void *dq, void *dk, void *dv, const void *dO, const void *o, const void *lse,
                             const void *q, const void *k, const void *v, void *delta, const AttnShape *a,
                             Mode mq, Mode mk, Mode mv)
{
    if (a->D > MAX_D || a->dropout > 0) {
        attention_bwd_f32(dq, dk, dv, dO, o, lse, q, k, v, delta, a, mq, mk, mv);
        return;
    }
    Backward g = {dq, dk, dv, dO, o, lse, q, k, v, delta, a, mq, mk, mv};
    long items = a->B * a->Hkv, threads = omp_get_max_threads();
    bool busy = round_up(items, threads) * 5 <= items * 7; /* idle threads against 2 more products */
    backward_delta(&g);
    if (dq && (dk || dv) && busy) {
        backward_one_pass(&g);
        return;
    }
    if (dk || dv) backward_keys(&g);
    if (dq) backward_queries(&g);
}
#endif
