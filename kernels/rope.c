/* kernels/rope.c: rotary positions. Reference, float and double.  Su et al. 2104.09864
 * x y (rows,H,D) with row strides; the first D_rot of every head turn in pairs by pos inv_freq[j], the rest
 * is copied. Pairs are (j, j + D_rot/2) or, interleaved, (2j, 2j+1):
 *   (a, b) -> (a cos - b sin, a sin + b cos)
 * Angles, cos and sin in double (float angles are wrong by 1e-3 at position 1e5), once per row for all heads.
 * y may be x.
 */
#include "kernels/ref_impl.h"

enum { PAIRS = 256 }; /* pairs whose cos and sin stand on the stack at once */

/* One row: n pairs from pair j0 of every head. sign -1 turns back (gradient). */
static void turn(REAL *y, const REAL *x, const RopeShape *s, const REAL *c, const REAL *sn, long j0, long n,
                 Mode mode)
{
    const long half = s->D_rot / 2, step = s->interleaved ? 2 : 1, apart = s->interleaved ? 1 : half;
    for (long h = 0; h < s->H; h++) /* x y (H,D); c sn (n) */
        for (long j = 0; j < n; j++) {
            const long at = h * s->D + (j0 + j) * step;
            const REAL a = x[at], b = x[at + apart];
            put(&y[at], a * c[j] - b * sn[j], mode);
            put(&y[at + apart], a * sn[j] + b * c[j], mode);
        }
}

static void rope(REAL *y, const REAL *x, const RopeShape *s, long y_stride, long x_stride, double sign,
                 Mode mode)
{
    const long half = s->D_rot / 2; /* y x (rows,H,D) */
#pragma omp parallel for schedule(static) if (s->rows * s->H * s->D > PAR_MIN)
    for (long i = 0; i < s->rows; i++) {
        REAL *yi = y + i * y_stride;
        const REAL *xi = x + i * x_stride;
        for (long j0 = 0; j0 < half; j0 += PAIRS) {
            const long n = lmin(PAIRS, half - j0);
            REAL c[PAIRS], sn[PAIRS];
            for (long j = 0; j < n; j++) {
                const double angle = (double)s->pos[i] * s->inv_freq[j0 + j];
                c[j] = (REAL)(s->mscale * cos(angle));
                sn[j] = (REAL)(sign * s->mscale * sin(angle));
            }
            turn(yi, xi, s, c, sn, j0, n, mode);
        }
        for (long h = 0; h < s->H; h++)
            for (long j = s->D_rot; j < s->D; j++) put(&yi[h * s->D + j], xi[h * s->D + j], mode);
    }
}

void K(rope_fwd)(void *y, const void *x, const RopeShape *s)
{ /* y, x (rows,H,D) at y_stride, x_stride */
    rope(y, x, s, s->y_stride, s->x_stride, 1.0, SET);
}

void K(rope_bwd)(void *dx, const void *dy, const RopeShape *s, Mode mode)
{ /* dx: x_stride, dy: y_stride */
    rope(dx, dy, s, s->x_stride, s->y_stride, -1.0, mode);
}
