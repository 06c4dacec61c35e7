/* kernels/attention_few_impl.h: forward attention for a handful of queries (decoding against a cache);
 * included by attention_<isa>.c. With queries in the lanes most lanes would be empty, so here the lanes run
 * along D: up to FEW rows (query, head) that share one kv head go over its keys together, each key is read
 * once for all of them.
 */
#ifndef ATTENTION_FEW_IMPL_H
#define ATTENTION_FEW_IMPL_H

enum {
    FEW = 4,         /* rows that go over the keys together */
    FEW_QUERIES = 8, /* beyond 8 queries the tile of attention_fwd_impl.h does less work */
    AHEAD = 8,       /* rows fetched ahead: rows of a cache are pages apart, no hardware prefetcher follows */
    LINE = 16        /* floats of a cache line */
};

typedef struct FewRows {
    ALIGNED float q[FEW][MAX_D], o[FEW][MAX_D]; /* zero behind D */
    ALIGNED float p[FEW][KT];
    float m[FEW], l[FEW];
    Span see[FEW];
} FewRows;

static _Thread_local FewRows few_buffer;

/* p (VL) = k[0..n) . q.  k rows `stride` apart, q padded with zeros. */
static vec few_scores(const float *q, const float *k, long stride, long n, long D)
{
    vec r[VL];
    long whole = D / VL * VL;
    vmask on = v_first(D - whole);
    for (long j = 0; j < VL; j++) {
        vec sum = v_set(0);
        const float *row = k + j * stride;
        if (j < n) {
            for (long d = 0; d < whole; d += VL) sum = v_fma(v_load(q + d), v_load(row + d), sum);
            for (long d = 0; d < D; d += LINE) __builtin_prefetch(row + AHEAD * stride + d);
            if (whole < D) sum = v_fma(v_load(q + whole), v_load_some(row + whole, on), sum);
        }
        r[j] = sum;
    }
    v_transpose(r);
    for (int half = VL / 2; half > 0; half /= 2)
        for (int j = 0; j < half; j++) r[j] = v_add(r[j], r[j + half]);
    return r[0];
}

/* Scores of one row for keys [s0, s0+n), masked, into probabilities; returns the factor of the old sums. */
static float few_softmax(FewRows *w, int r, const AttnShape *a, const float *k, long s0, long n,
                         const int32_t *seg_k, int32_t seg_q)
{
    float cap = (float)a->softcap, old = w->m[r];
    vec top = v_set(old), sum = v_set(0);
    vint lo = v_int(w->see[r].lo), hi = v_int(w->see[r].hi); /* lanes behind n lie behind hi */
    for (long j = 0; j < n; j += VL) {
        vec s = few_scores(w->q[r], k + (s0 + j) * a->k_stride, a->k_stride, n - j, a->D);
        if (cap > 0) s = v_mul(v_set(cap), v_tanh(v_div(s, v_set(cap))));
        vmask out = v_outside(lo, v_count((int32_t)(s0 + j)), hi);
        if (seg_k) out = v_or(out, v_differ(v_int(seg_q), v_load_int_some(seg_k + s0 + j, v_first(n - j))));
        s = v_pick(out, v_set(-INFINITY), s);
        v_store(w->p[r] + j, s);
        top = v_max(top, s);
    }
    float m = v_top(top), base = m == -INFINITY ? 0 : m;
    for (long j = 0; j < n; j += VL) {
        vec e = v_exp(v_sub(v_load(w->p[r] + j), v_set(base)));
        v_store(w->p[r] + j, e);
        sum = v_add(sum, e);
    }
    float c = old == -INFINITY ? 0 : expf(old - base);
    w->m[r] = m;
    w->l[r] = c * w->l[r] + v_sum(sum);
    return c;
}

/* o[r] = c[r] o[r] + sum_j p[r][j] v[j] for `rows` rows, vecs vectors from d on (the last one on the lanes
 * `on`). */
INLINE void few_values(FewRows *w, const int rows, const int vecs, const bool part, vmask on, const float *c,
                       const float *v, long stride, long n, long d)
{
    vec sum[FEW][4];
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < vecs; i++) sum[r][i] = v_mul(v_set(c[r]), v_load(w->o[r] + d + i * VL));
    for (long j = 0; j < n; j++)
        for (int i = 0; i < vecs; i++) {
            const float *at = v + j * stride + d + i * VL;
            if (i * VL % LINE == 0) __builtin_prefetch(at + AHEAD * stride);
            vec x = part ? v_load_some(at, on) : v_load(at);
            for (int r = 0; r < rows; r++) sum[r][i] = v_fma(v_set(w->p[r][j]), x, sum[r][i]);
        }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < vecs; i++) v_store(w->o[r] + d + i * VL, sum[r][i]);
}

INLINE void few_value_rows(FewRows *w, const int rows, const float *c, const float *v, long stride, long n,
                           long D)
{
    long d = 0;
    for (; d + 4 * VL <= D; d += 4 * VL) few_values(w, rows, 4, false, v_first(VL), c, v, stride, n, d);
    for (; d + VL <= D; d += VL) few_values(w, rows, 1, false, v_first(VL), c, v, stride, n, d);
    if (d < D) few_values(w, rows, 1, true, v_first(D - d), c, v, stride, n, d);
}

/* Rows r0.. of kv head hkv, sequence b; row = t*group + head in the group. Arguments as attention_fwd. */
static void few_rows(float *o, float *lse, const float *q, const float *k, const float *v, const AttnShape *a,
                     long b, long hkv, long r0)
{
    FewRows *w = &few_buffer;
    long group = a->H / a->Hkv, D = a->D, rows = least(FEW, a->Tq * group - r0);
    Span any = {INT32_MAX, -1};
    for (long r = 0; r < FEW; r++) {
        long t = (r0 + least(r, rows - 1)) / group, h = hkv * group + (r0 + least(r, rows - 1)) % group;
        const float *from = q + (b * a->Tq + t) * a->q_stride + h * D;
        for (long d = 0; d < round_up(D, VL); d++) {
            w->q[r][d] = d < D ? from[d] * (float)a->scale : 0;
            w->o[r][d] = 0;
        }
        w->m[r] = -INFINITY;
        w->l[r] = 0;
        w->see[r] = visible(a, t);
        any = (Span){(int32_t)least(any.lo, w->see[r].lo), (int32_t)most(any.hi, w->see[r].hi)};
    }
    k += kv_row(a, b) * a->k_stride + hkv * D;
    v += kv_row(a, b) * a->v_stride + hkv * D;
    const int32_t *seg_k = seg_row(a->seg_kv, b * a->Tkv, a), *seg_q = seg_row(a->seg_q, b * a->Tq, a);
    for (long s0 = any.lo / KT * KT; s0 <= any.hi; s0 += KT) {
        long n = least(KT, any.hi + 1 - s0);
        float c[FEW] = {0};
        for (int r = 0; r < rows; r++)
            c[r] = few_softmax(w, r, a, k, s0, n, seg_k, seg_q ? seg_q[(r0 + r) / group] : 0);
        const float *from = v + s0 * a->v_stride;
        if (rows == 1) few_value_rows(w, 1, c, from, a->v_stride, n, D);
        else if (rows == 2) few_value_rows(w, 2, c, from, a->v_stride, n, D);
        else few_value_rows(w, FEW, c, from, a->v_stride, n, D);
    }
    for (long r = 0; r < rows; r++) {
        long t = (r0 + r) / group, h = hkv * group + (r0 + r) % group;
        bool dead = w->m[r] == -INFINITY;
        float c = dead ? 0 : 1 / w->l[r], *to = o + (b * a->Tq + t) * a->o_stride + h * D;
        for (long d = 0; d < D; d++) to[d] = w->o[r][d] * c;
        lse[(b * a->H + h) * a->Tq + t] = dead ? -INFINITY : w->m[r] + logf(w->l[r]);
    }
}
#endif
