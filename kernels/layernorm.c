/* kernels/layernorm.c: y = (x - mean) rstd w + b over each row. Reference, float and double.  1607.06450
 * x y dx dy (N,C); w b dw db (C); mean rstd (N).  With xh = (x - mean) rstd and d = dy w:
 *   dx (+)= rstd (d - mean(d) - xh mean(d xh))
 *   dw (+)= sum over rows of dy xh,  db (+)= sum over rows of dy
 */
#include "kernels/ref_impl.h"

void K(layernorm_fwd)(void *y_, void *mean_, void *rstd_, const void *x_, const void *w_, const void *b_,
                      long N, long C, double eps)
{
    REAL *y = y_, *mean = mean_, *rstd = rstd_; /* (N,C), (N), (N) */
    const REAL *x = x_, *w = w_, *b = b_;       /* (N,C), (C) or NULL, (C) or NULL */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const REAL *xi = x + i * C;
        double s = 0.0, q = 0.0;
        for (long j = 0; j < C; j++) s += (double)xi[j];
        const double m = s / (double)C;
        for (long j = 0; j < C; j++) q += ((double)xi[j] - m) * ((double)xi[j] - m);
        const double r = 1.0 / sqrt(q / (double)C + eps);
        for (long j = 0; j < C; j++) {
            const double xh = ((double)xi[j] - m) * r;
            y[i * C + j] = (REAL)(xh * (w ? (double)w[j] : 1.0) + (b ? (double)b[j] : 0.0));
        }
        mean[i] = (REAL)m;
        rstd[i] = (REAL)r;
    }
}

static void row_bwd(REAL *dx, const REAL *dy, const REAL *x, const REAL *w, double m, double r, long C,
                    Mode mode)
{
    double sd = 0.0, sdx = 0.0; /* dx dy x (C), w (C) or NULL */
    for (long j = 0; j < C; j++) {
        const double d = (double)dy[j] * (w ? (double)w[j] : 1.0);
        sd += d;
        sdx += d * ((double)x[j] - m) * r;
    }
    sd /= (double)C;
    sdx /= (double)C;
    for (long j = 0; j < C; j++) {
        const double d = (double)dy[j] * (w ? (double)w[j] : 1.0);
        put(&dx[j], (REAL)(r * (d - sd - ((double)x[j] - m) * r * sdx)), mode);
    }
}

void K(layernorm_bwd)(void *dx_, void *dw_, void *db_, const void *dy_, const void *x_, const void *mean_,
                      const void *rstd_, const void *w_, long N, long C, Mode mx, Mode mw, Mode mb)
{
    REAL *dx = dx_, *dw = dw_, *db = db_; /* (N,C), (C), (C), each or NULL */
    const REAL *dy = dy_, *x = x_, *mean = mean_, *rstd = rstd_, *w = w_;
    if (dw || db) { /* before dx, which may overwrite dy */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
        for (long c0 = 0; c0 < C; c0 += COL_TILE) {
            const long n = lmin(COL_TILE, C - c0);
            double sw[COL_TILE] = {0}, sb[COL_TILE] = {0};
            for (long i = 0; i < N; i++)
                for (long j = 0; j < n; j++) {
                    const double d = (double)dy[i * C + c0 + j];
                    sw[j] += d * ((double)x[i * C + c0 + j] - (double)mean[i]) * (double)rstd[i];
                    sb[j] += d;
                }
            for (long j = 0; j < n && dw; j++) put(&dw[c0 + j], (REAL)sw[j], mw);
            for (long j = 0; j < n && db; j++) put(&db[c0 + j], (REAL)sb[j], mb);
        }
    }
    if (!dx) return;
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++)
        row_bwd(dx + i * C, dy + i * C, x + i * C, w, (double)mean[i], (double)rstd[i], C, mx);
}
