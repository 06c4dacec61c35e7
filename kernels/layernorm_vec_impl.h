/* kernels/layernorm_vec_impl.h: layernorm.c in vectors. Row sums in double; the float mean is split in two so
 * that rows far from zero keep their digits. Column sums: float over COL_RUN rows, then double.
 */
enum { COL_RUN = 32, COL_VECS = 4, COLS = COL_VECS * VW }; /* one tile's sums: 4 vectors each for dw and db */

static void layernorm_row(float *y, const float *x, const float *w, const float *b, long C, double eps,
                          float *mean, float *rstd)
{
    const double m = row_sum(x, C) / (double)C; /* y x w b (C) */
    const double r = 1.0 / sqrt(row_squares(x, C, m) / (double)C + eps);
    const VF hi = vf_set((float)m), low = vf_set((float)(m - (double)(float)m));
    const VF rv = vf_set((float)r);
    EACH_VECTOR(C, j, k, {
        VF h = (vf_get(x + j, k) - hi - low) * rv;
        if (w) h = h * vf_get(w + j, k);
        if (b) h = h + vf_get(b + j, k);
        vf_put(y + j, h, k);
    });
    *mean = (float)m;
    *rstd = (float)r;
}

void V(layernorm_fwd)(void *y_, void *mean_, void *rstd_, const void *x_, const void *w, const void *b,
                      long N, long C, double eps)
{
    float *y = y_, *mean = mean_, *rstd = rstd_; /* (N,C), (N), (N) */
    const float *x = x_;                         /* (N,C); w, b (C) or NULL */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) layernorm_row(y + i * C, x + i * C, w, b, C, eps, mean + i, rstd + i);
}

static void layernorm_row_bwd(float *dx, const float *dy, const float *x, const float *w, float m, float r,
                              long C, Mode mode)
{
    const VF mv = vf_set(m), rv = vf_set(r); /* dx dy x (C), w (C) or NULL */
    VD sd = vd_zero(), sdx = vd_zero();
    EACH_VECTOR(C, j, k, { /* lanes behind the row: d is 0 */
                           VF d = vf_get(dy + j, k);
                           if (w) d = d * vf_get(w + j, k);
                           sd = vd_add(sd, d);
                           sdx = vd_fma(sdx, d, (vf_get(x + j, k) - mv) * rv);
    });
    const VF a = vf_set((float)(vd_sum(sd) / (double)C)), b = vf_set((float)(vd_sum(sdx) / (double)C));
    EACH_VECTOR(C, j, k, {
        VF d = vf_get(dy + j, k);
        if (w) d = d * vf_get(w + j, k);
        vf_store(dx + j, rv * vf_fnma((vf_get(x + j, k) - mv) * rv, b, d - a), k, mode);
    });
}

/* dw and db of the n <= COLS columns from c0. */
static void layernorm_columns(float *dw, float *db, const float *dy, const float *x, const float *mean,
                              const float *rstd, long N, long C, long c0, long n, Mode mw, Mode mb)
{
    double tw[COLS] = {0}, tb[COLS] = {0}; /* dw db (C); dy x (N,C); mean rstd (N) */
    for (long i0 = 0; i0 < N; i0 += COL_RUN) {
        float fw[COLS], fb[COLS];
        for (long v = 0; v < n; v += VW) {
            const int k = (int)lmin(VW, n - v);
            VF sw = vf_set(0.0f), sb = sw;
            for (long i = i0; i < lmin(N, i0 + COL_RUN); i++) {
                const VF d = vf_get(dy + i * C + c0 + v, k);
                const VF h = (vf_get(x + i * C + c0 + v, k) - vf_set(mean[i])) * vf_set(rstd[i]);
                sw = vf_fma(d, h, sw);
                sb = sb + d;
            }
            vf_put(fw + v, sw, VW);
            vf_put(fb + v, sb, VW);
        }
        for (long j = 0; j < n; j++) {
            tw[j] += (double)fw[j];
            tb[j] += (double)fb[j];
        }
    }
    for (long j = 0; j < n && dw; j++) dw[c0 + j] = (float)tw[j] + (mw == ADD ? dw[c0 + j] : 0.0f);
    for (long j = 0; j < n && db; j++) db[c0 + j] = (float)tb[j] + (mb == ADD ? db[c0 + j] : 0.0f);
}

void V(layernorm_bwd)(void *dx_, void *dw, void *db, const void *dy_, const void *x_, const void *mean_,
                      const void *rstd_, const void *w, long N, long C, Mode mx, Mode mw, Mode mb)
{
    float *dx = dx_;                                              /* (N,C) or NULL; dw db (C) or NULL */
    const float *dy = dy_, *x = x_, *mean = mean_, *rstd = rstd_; /* (N,C), (N,C), (N), (N); w (C) or NULL */
    if (dw || db) {                                               /* before dx, which may overwrite dy */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
        for (long c0 = 0; c0 < C; c0 += COLS)
            layernorm_columns(dw, db, dy, x, mean, rstd, N, C, c0, lmin(COLS, C - c0), mw, mb);
    }
    if (!dx) return;
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++)
        layernorm_row_bwd(dx + i * C, dy + i * C, x + i * C, w, mean[i], rstd[i], C, mx);
}
