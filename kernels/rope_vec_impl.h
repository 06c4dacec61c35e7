/* kernels/rope_vec_impl.h: rope.c in vectors. cos and sin of a row in double, DW angles at once, then float
 * for all heads. Interleaved pairs are turned in place, c doubled and s = -s0 s0 -s1 s1 ...:
 *   y = x c + swapped(x) s
 */
enum { PAIRS = 256 }; /* pairs whose cos and sin stand on the stack at once */

/* c, sn (n) of pairs j0.. of one row; both have room for n rounded up to DW. */
static void angles(float *c, float *sn, const RopeShape *s, long row, long j0, long n, double sign)
{
    const VX pos = vx_set((double)s->pos[row]), mc = vx_set(s->mscale), ms = vx_set(sign * s->mscale);
    for (long j = 0; j < n; j += DW) {
        double f[DW] = {0};
        VX sin, cos;
        for (long i = 0; i < lmin(DW, n - j); i++) f[i] = s->inv_freq[j0 + j + i];
        vx_sincos(pos * vx_get(f), &sin, &cos);
        vx_put_floats(c + j, cos * mc);
        vx_put_floats(sn + j, sin * ms);
    }
}

static void turn_halves(float *y, const float *x, const RopeShape *s, const float *c, const float *sn,
                        long j0, long n, Mode mode)
{
    const long half = s->D_rot / 2; /* y x (H,D); c sn (n) */
    for (long h = 0; h < s->H; h++) {
        float *ya = y + h * s->D + j0, *yb = ya + half;
        const float *xa = x + h * s->D + j0, *xb = xa + half;
        EACH_VECTOR(n, j, k, {
            const VF a = vf_get(xa + j, k), b = vf_get(xb + j, k), cv = vf_get(c + j, k),
                     sv = vf_get(sn + j, k);
            vf_store(ya + j, vf_fnma(b, sv, a * cv), k, mode);
            vf_store(yb + j, vf_fma(a, sv, b * cv), k, mode);
        });
    }
}

static void turn_pairs(float *y, const float *x, const RopeShape *s, const float *c, const float *sn, long j0,
                       long n, Mode mode)
{
    float cc[2 * PAIRS], ss[2 * PAIRS]; /* y x (H,D); c sn (n) */
    for (long j = 0; j < n; j++) {
        cc[2 * j] = cc[2 * j + 1] = c[j];
        ss[2 * j] = -sn[j];
        ss[2 * j + 1] = sn[j];
    }
    for (long h = 0; h < s->H; h++) {
        float *yh = y + h * s->D + 2 * j0;
        const float *xh = x + h * s->D + 2 * j0;
        EACH_VECTOR(2 * n, j, k, {
            const VF v = vf_get(xh + j, k);
            vf_store(yh + j, vf_fma(vf_swap_pairs(v), vf_get(ss + j, k), v * vf_get(cc + j, k)), k, mode);
        });
    }
}

static void rope(float *y, const float *x, const RopeShape *s, long y_stride, long x_stride, double sign,
                 Mode mode)
{
    const long half = s->D_rot / 2; /* y x (rows,H,D) */
#pragma omp parallel for schedule(static) if (s->rows * s->H * s->D > PAR_MIN)
    for (long i = 0; i < s->rows; i++) {
        float *yi = y + i * y_stride;
        const float *xi = x + i * x_stride;
        for (long j0 = 0; j0 < half; j0 += PAIRS) {
            const long n = lmin(PAIRS, half - j0);
            float c[PAIRS], sn[PAIRS];
            angles(c, sn, s, i, j0, n, sign);
            if (s->interleaved) turn_pairs(yi, xi, s, c, sn, j0, n, mode);
            else turn_halves(yi, xi, s, c, sn, j0, n, mode);
        }
        for (long h = 0; h < s->H && s->D_rot < s->D; h++)
            EACH_VECTOR(s->D - s->D_rot, j, k, {
                const long at = h * s->D + s->D_rot + j;
                vf_store(yi + at, vf_get(xi + at, k), k, mode);
            });
    }
}

void V(rope_fwd)(void *y, const void *x, const RopeShape *s)
{ /* y, x (rows,H,D) at y_stride, x_stride */
    rope(y, x, s, s->y_stride, s->x_stride, 1.0, SET);
}

void V(rope_bwd)(void *dx, const void *dy, const RopeShape *s, Mode mode)
{ /* dx: x_stride, dy: y_stride */
    rope(dx, dy, s, s->x_stride, s->y_stride, -1.0, mode);
}
