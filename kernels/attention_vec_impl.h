/* kernels/attention_vec_impl.h: what the vector versions of attention share: exp and tanh, packing, masks,
 * and one register-tiled product. Included by attention_<isa>.c behind its vector vocabulary (vec, v_add, VL,
 * MR, ...).
 *
 * exp(x) = 2^n (1 + r + r^2 P(r)), r = x - n ln 2; tanh(x) = x + x^3 P(x^2) below 0.625, else (1 - e^-2x) /
 * (1 + e^-2x). Both P are weighted minimax fits; relative error 3e-9 and 4e-9 before rounding.
 */
#ifndef ATTENTION_VEC_IMPL_H
#define ATTENTION_VEC_IMPL_H

#define INLINE static inline __attribute__((always_inline))
#define ALIGNED _Alignas(64)

enum { MAX_D = ATTENTION_MAX_D };
typedef enum Start { FROM_ZERO, FROM_C, FROM_SCALED_C } Start;

/* e^x; 0 below -87.33 and for -inf: a masked score would otherwise make a denormal, which costs hundreds of
 * cycles. NaN stays. */
INLINE vec v_exp(vec x)
{
    vmask none = v_below(x, v_set(-87.33F));
    x = v_max(v_set(-87.33F), x);
    vec big = v_set(12582912.0F); /* 1.5 2^23: adding it rounds to a whole number */
    vec n = v_sub(v_fma(x, v_set(1.44269504F), big), big);
    vec r = v_fnma(n, v_set(0.693359375F), x);
    r = v_fnma(n, v_set(-2.12194440e-4F), r);
    vec p = v_fma(r, v_set(0.00138145988F), v_set(0.00836871658F));
    p = v_fma(r, p, v_set(0.041668389F));
    p = v_fma(r, p, v_set(0.166665211F));
    p = v_fma(r, p, v_set(0.49999994F));
    return v_ldexp_or_zero(none, v_add(v_set(1), v_fma(v_mul(r, r), p, r)), n);
}

INLINE vec v_tanh(vec x)
{
    vec a = v_abs(x), z = v_mul(x, x);
    vec p = v_fma(z, v_set(-0.0057170447F), v_set(0.0206505861F));
    p = v_fma(z, p, v_set(-0.0537434965F));
    p = v_fma(z, p, v_set(0.133314908F));
    p = v_fma(z, p, v_set(-0.333332837F));
    vec small = v_fma(v_mul(z, x), p, x);
    vec e = v_exp(v_sub(v_set(0), v_add(a, a))); /* of -2|x|: never overflows */
    vec big = v_sign_of(v_div(v_sub(v_set(1), e), v_add(v_set(1), e)), x);
    return v_pick(v_below(a, v_set(0.625F)), small, big);
}

static inline long least(long a, long b) { return a < b ? a : b; }
static inline long most(long a, long b) { return a > b ? a : b; }
static inline long round_up(long n, long unit) { return (n + unit - 1) / unit * unit; }

/* dst (D rounded up to VL, ld): lane j of row d = c x[j][d] for j < n, 0 for the lanes behind up to lanes.
 * x (n,D), rows `stride` apart; lanes a multiple of VL. */
static void pack_columns(float *dst, long ld, const float *x, long stride, long n, long lanes, long D,
                         float c)
{
    for (long j = 0; j < lanes; j += VL)
        for (long d = 0; d < D; d += VL) {
            vec r[VL];
            vmask on = v_first(D - d);
            for (long i = 0; i < VL; i++)
                r[i] = j + i < n ? v_mul(v_set(c), v_load_some(x + (j + i) * stride + d, on)) : v_set(0);
            v_transpose(r);
            for (long i = 0; i < VL; i++) v_store(dst + (d + i) * ld + j, r[i]);
        }
}

/* The way back: x[j][d] = (or +=) c[j] src[d][j] for j < n, d < D. c (lanes) or NULL = 1. src (D rounded up,
 * ld) */
static void unpack_columns(float *x, long stride, const float *src, long ld, const float *c, long n, long D,
                           Mode mode)
{
    for (long j = 0; j < n; j += VL)
        for (long d = 0; d < D; d += VL) {
            vec r[VL], factor = c ? v_load(c + j) : v_set(1);
            vmask on = v_first(D - d);
            for (long i = 0; i < VL; i++) r[i] = v_mul(v_load(src + (d + i) * ld + j), factor);
            v_transpose(r);
            for (long i = 0; i < VL && j + i < n; i++) {
                float *at = x + (j + i) * stride + d;
                v_store_some(at, on, mode == SET ? r[i] : v_add(v_load_some(at, on), r[i]));
            }
        }
}

/* Which keys a query may see by position: [lo, hi], int32 as the masks compare them. */
typedef struct Span {
    int32_t lo, hi;
} Span;

static inline Span visible(const AttnShape *a, long t)
{
    long pos = a->q_offset + t;
    long hi = a->causal ? most(least(pos, a->Tkv - 1), -1) : a->Tkv - 1;
    long lo = a->window > 0 ? least(most(pos - a->window + 1, 0), a->Tkv) : 0;
    return (Span){(int32_t)lo, (int32_t)hi};
}

/* How a block of queries meets a block of keys in the segment ids. */
typedef enum Meeting { ALL_SEE, SOME_SEE, NONE_SEE } Meeting;

static Meeting segments_meet(const int32_t *sq, long nq, const int32_t *sk, long nk)
{
    int32_t q0 = sq[0], q1 = sq[0], k0 = sk[0], k1 = sk[0];
    for (long i = 0; i < nq; i++) {
        q0 = sq[i] < q0 ? sq[i] : q0;
        q1 = sq[i] > q1 ? sq[i] : q1;
    }
    for (long i = 0; i < nk; i++) {
        k0 = sk[i] < k0 ? sk[i] : k0;
        k1 = sk[i] > k1 ? sk[i] : k1;
    }
    if (q1 < k0 || k1 < q0) return NONE_SEE;
    return q0 == q1 && k0 == k1 ? ALL_SEE : SOME_SEE;
}

static inline const int32_t *seg_row(const int32_t *seg, long row, const AttnShape *a)
{
    return a->seg_q && a->seg_kv ? seg + row : NULL;
}

/* Whether a call is worth waking the other threads: below this many products it takes less time than they do
 * (5 us). */
static inline bool worth_threads(const AttnShape *a)
{
    return a->B * a->H * a->Tq * a->Tkv * a->D >= 1L << 16;
}

static inline long kv_row(const AttnShape *a, long b) { return b * (a->kv_rows ? a->kv_rows : a->Tkv); }

/* One register tile: c (rows,vecs VL) = start + sum_k a[row][k] b[k][col]. a by rows: a[row*lda + k]; by
 * columns: a[k*lda + row]. rows and vecs are constants after inlining. scale (vecs VL): factor of the old c,
 * by column. */
INLINE void product_tile(const int rows, const int vecs, const bool by_columns, const bool part, vmask on,
                         float *c, long ldc, const float *a, long lda, const float *b, long ldb, long K,
                         Start start, const float *scale)
{
    vec sum[MR][2];
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vecs; j++) {
            float *at = c + i * ldc + j * VL;
            sum[i][j] = start == FROM_ZERO ? v_set(0) : part ? v_load_some(at, on) : v_load(at);
            if (start == FROM_SCALED_C) sum[i][j] = v_mul(sum[i][j], v_load(scale + j * VL));
        }
    for (long k = 0; k < K; k++) {
        vec right[2];
        for (int j = 0; j < vecs; j++) right[j] = v_load(b + k * ldb + j * VL);
        for (int i = 0; i < rows; i++) {
            vec left = v_set(by_columns ? a[k * lda + i] : a[i * lda + k]);
            for (int j = 0; j < vecs; j++) sum[i][j] = v_fma(left, right[j], sum[i][j]);
        }
    }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < vecs; j++) {
            if (part) v_store_some(c + i * ldc + j * VL, on, sum[i][j]);
            else v_store(c + i * ldc + j * VL, sum[i][j]);
        }
}

INLINE void product_strip(const int vecs, const bool by_columns, const bool part, vmask on, float *c,
                          long ldc, const float *a, long lda, const float *b, long ldb, long M, long K,
                          Start start, const float *scale)
{
    long next = by_columns ? 1 : lda, m = 0;
#define ROWS(n)                                                                                              \
    product_tile(n, vecs, by_columns, part, on, c + m * ldc, ldc, a + m * next, lda, b, ldb, K, start, scale)
    for (; m + MR <= M; m += MR) ROWS(MR);
    if (MR > 4 && M - m >= 4) {
        ROWS(4);
        m += 4;
    }
    if (M - m >= 2) {
        ROWS(2);
        m += 2;
    }
    if (M - m >= 1) ROWS(1);
#undef ROWS
}

INLINE void product(const bool by_columns, float *c, long ldc, const float *a, long lda, const float *b,
                    long ldb, long M, long N, long K, Start start, const float *scale)
{
    long n = 0;
#define STRIP(vecs, part)                                                                                    \
    product_strip(vecs, by_columns, part, v_first(N - n), c + n, ldc, a, lda, b + n, ldb, M, K, start,       \
                  scale ? scale + n : NULL)
    for (; n + 2 * VL <= N; n += 2 * VL) STRIP(2, false);
    if (n + VL <= N) {
        STRIP(1, false);
        n += VL;
    }
    if (n < N) STRIP(1, true);
#undef STRIP
}

/* c (M,N) = start + a (M,K) b (K,N), every sum in the order of k, so its bits depend on neither M nor N nor
 * the place in the tile. b is read up to N rounded up to VL; c is written only up to N. */
static __attribute__((noinline)) void product_rows(float *c, long ldc, const float *a, long lda,
                                                   const float *b, long ldb, long M, long N, long K,
                                                   Start start)
{
    product(false, c, ldc, a, lda, b, ldb, M, N, K, start, NULL);
}

/* The same with a given as (K,M). scale (N), used by FROM_SCALED_C: c = c scale + ... */
static __attribute__((noinline)) void product_columns(float *c, long ldc, const float *a, long lda,
                                                      const float *b, long ldb, long M, long N, long K,
                                                      Start start, const float *scale)
{
    product(true, c, ldc, a, lda, b, ldb, M, N, K, start, scale);
}
#endif
