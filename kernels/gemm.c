/* kernels/gemm.c: matrix products, the portable reference (compiled for REAL float and double).
 *
 *   gemm_nt   y (M,N) (+)= x (M,K) w (N,K)^T
 *   gemm_nt_at   the same into N of the columns of y (M,ldy), SET
 *   gemm_nn   y (M,N) (+)= x (M,K) w (K,N)
 *   gemm_tn   y (M,N) (+)= x (K,M)^T w (K,N)
 *
 * Sums run over K in blocks of 256 whose totals are added in order: the error grows with sqrt(256) +
 * sqrt(K/256) instead of sqrt(K) (3e-7 of the Frobenius norm at K = 4096 in float). The order of every sum
 * depends on K alone.
 */
#include "kernels/ref_impl.h"

enum { K_BLOCK = 256, ROWS = 4, COLS = 32, LANES = 8 };

static long min_long(long a, long b) { return a < b ? a : b; }

/* The sum over one block of K, in 8 interleaved partial sums. x, w (k). */
static REAL dot(const REAL *restrict x, const REAL *restrict w, long k)
{
    REAL part[LANES] = {0}, rest = 0;
    long i = 0;
    for (; i + LANES <= k; i += LANES)
        for (int l = 0; l < LANES; l++) part[l] += x[i + l] * w[i + l];
    for (; i < k; i++) rest += x[i] * w[i];
    return (((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]))) + rest;
}

static void dots(REAL *y, long ldy, const REAL *x, const REAL *w, long M, long N, long K, Mode mode)
{
#pragma omp parallel for collapse(2) schedule(static) if ((double)M * (double)N * (double)K > 5e5)
    for (long i = 0; i < M; i++)
        for (long j = 0; j < N; j++) {
            REAL sum = 0;
            for (long k = 0; k < K; k += K_BLOCK)
                sum += dot(x + i * K + k, w + j * K + k, min_long(K_BLOCK, K - k));
            y[i * ldy + j] = mode == ADD ? y[i * ldy + j] + sum : sum;
        }
}

void K(gemm_nt)(void *y, const void *x, const void *w, long M, long N, long K, Mode mode)
{
    dots(y, N, x, w, M, N, K, mode);
}

void K(gemm_nt_at)(void *y, long ldy, const void *x, const void *w, long M, long N, long K)
{
    dots(y, ldy, x, w, M, N, K, SET);
}

/* Columns [0, n) of `m` rows of y (ld N), n <= COLS: y (m,n) (+)= A w, element (i,k) of A at x[i*row +
 * k*step], w (K, ld N). */
static void columns(REAL *restrict y, const REAL *restrict x, const REAL *restrict w, long m, long n, long N,
                    long K, long row, long step, Mode mode)
{
    for (long i = 0; i < m; i++) {
        REAL sum[COLS] = {0};
        for (long k0 = 0; k0 < K; k0 += K_BLOCK) {
            REAL part[COLS] = {0};
            const long end = min_long(K, k0 + K_BLOCK);
            if (n == COLS)
                for (long k = k0; k < end; k++)
                    for (long j = 0; j < COLS; j++) part[j] += x[i * row + k * step] * w[k * N + j];
            else
                for (long k = k0; k < end; k++)
                    for (long j = 0; j < n; j++) part[j] += x[i * row + k * step] * w[k * N + j];
            for (long j = 0; j < n; j++) sum[j] += part[j];
        }
        for (long j = 0; j < n; j++) y[i * N + j] = mode == ADD ? y[i * N + j] + sum[j] : sum[j];
    }
}

static void rows_by_columns(REAL *y, const REAL *x, const REAL *w, long M, long N, long K, long row,
                            long step, Mode mode)
{
#pragma omp parallel for collapse(2) schedule(static) if ((double)M * (double)N * (double)K > 5e5)
    for (long i = 0; i < M; i += ROWS)
        for (long j = 0; j < N; j += COLS)
            columns(y + i * N + j, x + i * row, w + j, min_long(ROWS, M - i), min_long(COLS, N - j), N, K,
                    row, step, mode);
}

void K(gemm_nn)(void *y, const void *x, const void *w, long M, long N, long K, Mode mode)
{
    rows_by_columns(y, x, w, M, N, K, K, 1, mode);
}

void K(gemm_tn)(void *y, const void *x, const void *w, long M, long N, long K, Mode mode)
{
    rows_by_columns(y, x, w, M, N, K, 1, M, mode);
}
