/* kernels/lora.c: what adapters need beside GEMM: rows of a coded matrix, a part of the columns, scales of
 * rows or columns. Reference, float and double.
 *
 *   decode_rows    w (n,K) = rows r0 .. r0+n of a matrix kept as codes and scales
 *   columns_put    y[:, c0:c0+n] (+)= t (M,n)          columns_get   t (M,n) = y[:, c0:c0+n]
 *   scale_by       y (+)= g[row] x, or g[column] x     scale_by_sum  g[row or column] (+)= sum of a b
 *   quotient       y (+)= a / b, 0 where b is 0        (n)
 *   row_norms      y[row] = sqrt(sum of squares)       x y a b (N,C)
 *
 * Sums are added in double, in order. */
#include "kernels/ref_impl.h"
#include <math.h>
#include <string.h>

static void decode_row(REAL *w, const uint8_t *row, const QuantSpec *s, const QuantScales *q, long K, long r)
{
    if (sizeof(REAL) == sizeof(float)) {
        quant_decode_row((float *)(void *)w, row, s, q, K, r);
        return;
    }
    /* the row decoded into its own upper half, then widened from the front */
    float *f = (float *)(void *)w + K;
    quant_decode_row(f, row, s, q, K, r);
    for (long i = 0; i < K; i++) {
        float v;
        memcpy(&v, (char *)w + (size_t)(K + i) * sizeof v, sizeof v);
        w[i] = (REAL)v;
    }
}

void K(decode_rows)(void *w_, const uint8_t *codes, const QuantSpec *s, const QuantScales *q, long r0, long n,
                    long K)
{
    REAL *w = w_; /* (n,K) */
    const size_t bytes = quant_row_bytes(s, K);
#pragma omp parallel for schedule(static) if (n * K > PAR_MIN)
    for (long i = 0; i < n; i++) decode_row(w + i * K, codes + (size_t)(r0 + i) * bytes, s, q, K, r0 + i);
}

void K(columns_put)(void *y_, const void *t_, long M, long N, long c0, long n, Mode mode)
{
    REAL *y = y_;       /* (M,N) */
    const REAL *t = t_; /* (M,n) */
#pragma omp parallel for schedule(static) if (M * n > PAR_MIN)
    for (long i = 0; i < M; i++)
        for (long j = 0; j < n; j++) put(&y[i * N + c0 + j], t[i * n + j], mode);
}

void K(columns_get)(void *t_, const void *y_, long M, long N, long c0, long n)
{
    REAL *t = t_;       /* (M,n) */
    const REAL *y = y_; /* (M,N) */
#pragma omp parallel for schedule(static) if (M * n > PAR_MIN)
    for (long i = 0; i < M; i++)
        for (long j = 0; j < n; j++) t[i * n + j] = y[i * N + c0 + j];
}

void K(scale_by)(void *y_, const void *x_, const void *g_, long N, long C, bool rows, Mode mode)
{
    REAL *y = y_;                /* (N,C) */
    const REAL *x = x_, *g = g_; /* (N,C), (N) or (C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++)
        for (long j = 0; j < C; j++) put(&y[i * C + j], x[i * C + j] * g[rows ? i : j], mode);
}

static void sum_rows(REAL *g, const REAL *a, const REAL *b, long N, long C, Mode mode)
{
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        double s = 0;
        for (long j = 0; j < C; j++) s += (double)a[i * C + j] * (double)b[i * C + j];
        put(&g[i], (REAL)s, mode);
    }
}

void K(scale_by_sum)(void *g_, const void *a_, const void *b_, long N, long C, bool rows, Mode mode)
{
    REAL *g = g_;                /* (N) or (C) */
    const REAL *a = a_, *b = b_; /* (N,C) */
    if (rows) {
        sum_rows(g, a, b, N, C, mode);
        return;
    }
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long c0 = 0; c0 < C; c0 += COL_TILE) {
        const long w = lmin(COL_TILE, C - c0);
        double sum[COL_TILE] = {0};
        for (long i = 0; i < N; i++)
            for (long j = 0; j < w; j++) sum[j] += (double)a[i * C + c0 + j] * (double)b[i * C + c0 + j];
        for (long j = 0; j < w; j++) put(&g[c0 + j], (REAL)sum[j], mode);
    }
}

void K(row_norms)(void *y_, const void *x_, long N, long C)
{
    REAL *y = y_;       /* (N) */
    const REAL *x = x_; /* (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        double s = 0;
        for (long j = 0; j < C; j++) s += (double)x[i * C + j] * (double)x[i * C + j];
        y[i] = (REAL)sqrt(s);
    }
}

void K(quotient)(void *y_, const void *a_, const void *b_, long n, Mode mode)
{
    REAL *y = y_;                /* (n) */
    const REAL *a = a_, *b = b_; /* (n) */
    for (long i = 0; i < n; i++) put(&y[i], b[i] == 0 ? (REAL)0 : a[i] / b[i], mode);
}
