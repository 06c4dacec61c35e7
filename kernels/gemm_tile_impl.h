/* kernels/gemm_tile_impl.h: the innermost loops of the builtin float GEMM, written once for any vector
 * width.
 *
 * The including file defines: VEC (vector type), LANES, ROWS (most rows of a tile), COLS (vectors across a
 * tile), v_zero() v_set1(f) v_load(p) v_store(p,v) v_fma(a,b,c) = a*b+c, v_add(a,b), MASK,
 * v_mask(n) (the first n lanes), v_load_mask(p,m), v_store_mask(p,v,m), v_sum(v).
 *
 * Every element of a product is summed over k in order by fused multiply-adds, whatever tile it falls into:
 * bits depend on K and its blocking alone.
 */
#include "kernels/gemm_impl.h"

#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

/* One tile: c (m, v vectors, the last one masked; row stride ldc) (+)= sum over k of a b.
 * a: element (i,k) at a[i*row + k*step]. b: (k, v*LANES), row stride ldb. m, v are compile-time constants. */
INLINE void tile(const int m, const int v, const float *a, long row, long step, const float *b, long ldb,
                 float *c, long ldc, long k, MASK last, Mode mode)
{
    VEC sum[ROWS][COLS];
    UNROLL for (int i = 0; i < m; i++)
    {
        __builtin_prefetch(c + i * ldc, 1);
        __builtin_prefetch(c + i * ldc + v * LANES - 1, 1);
        UNROLL for (int j = 0; j < v; j++) sum[i][j] = v_zero();
    }
    const float *a0 = a, *a4 = a + 4 * row, *a8 = a + 8 * row, *a12 = a + 12 * row;
    const long row2 = 2 * row, row3 = 3 * row;
    for (long p = 0; p < k; p++) {
        VEC bv[COLS];
        UNROLL for (int j = 0; j < v; j++) bv[j] = v_load(b + j * LANES);
        UNROLL for (int i = 0; i < m; i++)
        {
            const float *base = i < 4 ? a0 : i < 8 ? a4 : i < 12 ? a8 : a12;
            const VEC av = v_set1(base[i % 4 == 0 ? 0 : i % 4 == 1 ? row : i % 4 == 2 ? row2 : row3]);
            UNROLL for (int j = 0; j < v; j++) sum[i][j] = v_fma(av, bv[j], sum[i][j]);
        }
        b += ldb;
        a0 += step;
        if (m > 4) a4 += step;
        if (m > 8) a8 += step;
        if (m > 12) a12 += step;
    }
    UNROLL for (int i = 0; i < m; i++)
    {
        float *ci = c + i * ldc;
        UNROLL for (int j = 0; j < v - 1; j++)
            v_store(ci + j * LANES, mode == ADD ? v_add(v_load(ci + j * LANES), sum[i][j]) : sum[i][j]);
        float *end = ci + (v - 1) * LANES;
        v_store_mask(end, mode == ADD ? v_add(v_load_mask(end, last), sum[i][v - 1]) : sum[i][v - 1], last);
    }
}

/* The tile of each height and width as a function of its own. */
#define TILE(m, v)                                                                                           \
    static void tile_##m##_##v(const float *a, long row, long step, const float *b, long ldb, float *c,      \
                               long ldc, long k, int lanes, Mode mode)                                       \
    {                                                                                                        \
        tile(m, v, a, row, step, b, ldb, c, ldc, k, v_mask(lanes), mode);                                    \
    }

/* Columns [0, n) of w, n <= width, to out (k, width) padded with zeros: w (k, ldw) or, transposed, (n,
 * ldw). */
static void pack_columns(float *out, const float *w, long ldw, long n, long k, long width)
{
    for (long j = 0; j < width; j += LANES) {
        const float *from = w + (j < n ? j : 0);
        float *to = out + j;
        if (n - j >= LANES) {
            for (long p = 0; p < k; p++) v_store(to + p * width, v_load(from + p * ldw));
        } else {
            const MASK mask = v_mask(n > j ? (int)(n - j) : 0);
            for (long p = 0; p < k; p++) v_store(to + p * width, v_load_mask(from + p * ldw, mask));
        }
    }
}

/* y (m, n) (+)= x w^T for few rows: every row of w is read once, r rows of it side by side. m, r are
 * constants. */
INLINE void dots(const int m, const int r, float *y, long ldy, const float *x, long ldx, const float *w,
                 long ldw, long k, Mode mode)
{
    VEC sum[8][4];
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < r; j++) sum[i][j] = v_zero();
    long p = 0;
    for (; p + LANES <= k; p += LANES) {
        VEC wv[4];
        UNROLL for (int j = 0; j < r; j++) wv[j] = v_load(w + j * ldw + p);
        UNROLL for (int i = 0; i < m; i++)
        {
            const VEC xv = v_load(x + i * ldx + p);
            UNROLL for (int j = 0; j < r; j++) sum[i][j] = v_fma(xv, wv[j], sum[i][j]);
        }
    }
    if (p < k) {
        const MASK rest = v_mask((int)(k - p));
        UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < r; j++) sum[i][j] = v_fma(
            v_load_mask(x + i * ldx + p, rest), v_load_mask(w + j * ldw + p, rest), sum[i][j]);
    }
    UNROLL for (int i = 0; i < m; i++) UNROLL for (int j = 0; j < r; j++)
    {
        const float s = v_sum(sum[i][j]);
        y[i * ldy + j] = mode == ADD ? y[i * ldy + j] + s : s;
    }
}

#define DOTS(m, r)                                                                                           \
    static void dots_##m(float *y, long ldy, const float *x, long ldx, const float *w, long ldw, long n,     \
                         long k, Mode mode)                                                                  \
    {                                                                                                        \
        long j = 0;                                                                                          \
        for (; j + r <= n; j += r) dots(m, r, y + j, ldy, x, ldx, w + j * ldw, ldw, k, mode);                \
        for (; j < n; j++) dots(m, 1, y + j, ldy, x, ldx, w + j * ldw, ldw, k, mode);                        \
    }

/* y (m, n) += sum over `group` rows of w (group, n) weighted by x: element (i,p) of x at x[i*row + p*step].
 */
INLINE void add_group(const int group, float *y, long ldy, const float *x, long row, long step,
                      const float *w, long ldw, long m, long n, bool set)
{
    for (long j = 0; j < n; j += LANES) {
        const MASK mask = v_mask(n - j < LANES ? (int)(n - j) : LANES);
        VEC wv[8];
        UNROLL for (int p = 0; p < group; p++) wv[p] = v_load_mask(w + p * ldw + j, mask);
        for (long i = 0; i < m; i++) {
            VEC sum = v_zero();
            UNROLL for (int p = 0; p < group; p++) sum = v_fma(v_set1(x[i * row + p * step]), wv[p], sum);
            if (!set) sum = v_add(v_load_mask(y + i * ldy + j, mask), sum);
            v_store_mask(y + i * ldy + j, sum, mask);
        }
    }
}

/* y (m, n) (+)= A w (k, n) for few rows: eight rows of w are read side by side, each once. */
static void axpys(float *y, long ldy, const float *x, long row, long step, const float *w, long ldw, long m,
                  long n, long k, Mode mode)
{
    long p = 0;
    for (; p + 8 <= k; p += 8)
        add_group(8, y, ldy, x + p * step, row, step, w + p * ldw, ldw, m, n, p == 0 && mode == SET);
    for (; p < k; p++)
        add_group(1, y, ldy, x + p * step, row, step, w + p * ldw, ldw, m, n, p == 0 && mode == SET);
}
