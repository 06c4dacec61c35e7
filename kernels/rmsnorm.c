/* kernels/rmsnorm.c: y = x rstd w, rstd = 1/sqrt(mean(x^2) + eps). Reference, float and double.  1910.07467
 * x y dx dy (N,C); w dw (C); rstd (N).  With xh = x rstd and d = dy w:
 *   dx (+)= rstd (d - xh mean(d xh)),  dw (+)= sum over rows of dy xh
 */
#include "kernels/ref_impl.h"

void K(rmsnorm_fwd)(void *y_, void *rstd_, const void *x_, const void *w_, long N, long C, double eps)
{
    REAL *y = y_, *rstd = rstd_; /* (N,C), (N) */
    const REAL *x = x_, *w = w_; /* (N,C), (C) or NULL */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        double q = 0.0;
        for (long j = 0; j < C; j++) q += (double)x[i * C + j] * (double)x[i * C + j];
        const double r = 1.0 / sqrt(q / (double)C + eps);
        for (long j = 0; j < C; j++)
            y[i * C + j] = (REAL)((double)x[i * C + j] * r * (w ? (double)w[j] : 1.0));
        rstd[i] = (REAL)r;
    }
}

static void row_bwd(REAL *dx, const REAL *dy, const REAL *x, const REAL *w, double r, long C, Mode mode)
{
    double sdx = 0.0; /* dx dy x (C), w (C) or NULL */
    for (long j = 0; j < C; j++) sdx += (double)dy[j] * (w ? (double)w[j] : 1.0) * (double)x[j];
    sdx *= r * r / (double)C;
    for (long j = 0; j < C; j++)
        put(&dx[j], (REAL)(r * ((double)dy[j] * (w ? (double)w[j] : 1.0) - (double)x[j] * sdx)), mode);
}

void K(rmsnorm_bwd)(void *dx_, void *dw_, const void *dy_, const void *x_, const void *rstd_, const void *w_,
                    long N, long C, Mode mx, Mode mw)
{
    REAL *dx = dx_, *dw = dw_;                             /* (N,C) or NULL, (C) or NULL */
    const REAL *dy = dy_, *x = x_, *rstd = rstd_, *w = w_; /* (N,C), (N,C), (N), (C) or NULL */
    if (dw) {                                              /* before dx, which may overwrite dy */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
        for (long c0 = 0; c0 < C; c0 += COL_TILE) {
            const long n = lmin(COL_TILE, C - c0);
            double sw[COL_TILE] = {0};
            for (long i = 0; i < N; i++)
                for (long j = 0; j < n; j++)
                    sw[j] += (double)dy[i * C + c0 + j] * (double)x[i * C + c0 + j] * (double)rstd[i];
            for (long j = 0; j < n; j++) put(&dw[c0 + j], (REAL)sw[j], mw);
        }
    }
    if (!dx) return;
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) row_bwd(dx + i * C, dy + i * C, x + i * C, w, (double)rstd[i], C, mx);
}
