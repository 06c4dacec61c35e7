/* kernels/pointwise.c: fill, copy, axpby, mul, scale, add_row, add_colsum, sumsq. Reference, both types.
 * x y z a b (n); rows (N,C); b db (C). Sums over rows and squares are added in double.
 */
#include "kernels/ref_impl.h"
#include <string.h>

void K(fill)(void *y_, double v, long n)
{
    REAL *y = y_; /* (n) */
    const REAL r = (REAL)v;
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) y[i] = r;
}

void K(copy)(void *y, const void *x, long n)
{
    if (n > 0 && y != x) memmove(y, x, (size_t)n * sizeof(REAL));
}

void K(axpby)(void *y_, double a_, const void *x_, double b_, const void *z_, long n)
{
    REAL *y = y_;                                            /* (n) */
    const REAL *x = x_, *z = z_, a = (REAL)a_, b = (REAL)b_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) y[i] = a * x[i] + b * z[i];
}

void K(mul)(void *y_, const void *a_, const void *b_, long n, Mode mode)
{
    REAL *y = y_;                /* (n) */
    const REAL *a = a_, *b = b_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) put(&y[i], a[i] * b[i], mode);
}

void K(scale)(void *y_, double a_, const void *x_, long n, Mode mode)
{
    REAL *y = y_;                     /* (n) */
    const REAL *x = x_, a = (REAL)a_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) put(&y[i], a * x[i], mode);
}

void K(add_row)(void *y_, const void *b_, long N, long C)
{
    REAL *y = y_;       /* (N,C) */
    const REAL *b = b_; /* (C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++)
        for (long j = 0; j < C; j++) y[i * C + j] += b[j];
}

void K(add_colsum)(void *db_, const void *dy_, long N, long C, Mode mode)
{
    REAL *db = db_;       /* (C) */
    const REAL *dy = dy_; /* (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long c0 = 0; c0 < C; c0 += COL_TILE) {
        const long w = lmin(COL_TILE, C - c0);
        double sum[COL_TILE] = {0};
        for (long i = 0; i < N; i++)
            for (long j = 0; j < w; j++) sum[j] += (double)dy[i * C + c0 + j];
        for (long j = 0; j < w; j++) put(&db[c0 + j], (REAL)sum[j], mode);
    }
}

static double block_sumsq(const REAL *x, long n)
{ /* x (n) */
    double s = 0.0;
    for (long i = 0; i < n; i++) s += (double)x[i] * (double)x[i];
    return s;
}

void K(sumsq)(double *sum, const void *x_, long n)
{
    const REAL *x = x_; /* (n) */
    const long blocks = (n + PAR_BLOCK - 1) / PAR_BLOCK;
    double total = 0.0;
    for (long b0 = 0; b0 < blocks; b0 += SUM_BATCH) {
        const long nb = lmin(SUM_BATCH, blocks - b0);
        double part[SUM_BATCH];
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
        for (long b = 0; b < nb; b++) {
            const long lo = (b0 + b) * PAR_BLOCK;
            part[b] = block_sumsq(x + lo, lmin(PAR_BLOCK, n - lo));
        }
        total += sum_in_order(part, nb);
    }
    *sum = total;
}
