/* kernels/embedding.c: y (N,C) (+)= rows ids of w (V,C); dw (V,C) += rows of dy. Reference, float and double.
 * The gradient is shared out by columns, so the rows of one id are added in the order they stand, on any
 * thread count.
 */
#include "kernels/ref_impl.h"

void K(embedding_fwd)(void *y_, const void *w_, const int32_t *ids, long N, long C, Mode mode)
{
    REAL *y = y_;       /* (N,C) */
    const REAL *w = w_; /* (V,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const REAL *row = w + (long)ids[i] * C;
        for (long j = 0; j < C; j++) put(&y[i * C + j], row[j], mode);
    }
}

void K(embedding_bwd)(void *dw_, const void *dy_, const int32_t *ids, long N, long V, long C)
{
    REAL *dw = dw_;       /* (V,C) */
    const REAL *dy = dy_; /* (N,C) */
    (void)V;
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long c0 = 0; c0 < C; c0 += COL_TILE) {
        const long w = lmin(COL_TILE, C - c0);
        for (long i = 0; i < N; i++) {
            REAL *to = dw + (long)ids[i] * C + c0;
            const REAL *from = dy + i * C + c0;
            for (long j = 0; j < w; j++) to[j] += from[j];
        }
    }
}
