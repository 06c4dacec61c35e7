/* kernels/rmsnorm_vec_impl.h: rmsnorm.c in vectors. Row sums in double. Column sums: float over COL_RUN rows,
 * then double. */
enum { COL_RUN = 32, COL_VECS = 4, COLS = COL_VECS * VW };

static void rmsnorm_row(float *y, const float *x, const float *w, long C, double eps, float *rstd)
{
    const double r = 1.0 / sqrt(row_squares(x, C, 0.0) / (double)C + eps); /* y x (C), w (C) or NULL */
    const VF rv = vf_set((float)r);
    EACH_VECTOR(C, j, k, {
        VF h = vf_get(x + j, k) * rv;
        if (w) h = h * vf_get(w + j, k);
        vf_put(y + j, h, k);
    });
    *rstd = (float)r;
}

void V(rmsnorm_fwd)(void *y_, void *rstd_, const void *x_, const void *w, long N, long C, double eps)
{
    float *y = y_, *rstd = rstd_; /* (N,C), (N) */
    const float *x = x_;          /* (N,C); w (C) or NULL */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) rmsnorm_row(y + i * C, x + i * C, w, C, eps, rstd + i);
}

static void rmsnorm_row_bwd(float *dx, const float *dy, const float *x, const float *w, float r, long C,
                            Mode mode)
{
    VD s = vd_zero(); /* dx dy x (C), w (C) or NULL */
    EACH_VECTOR(C, j, k, {
        VF d = vf_get(dy + j, k);
        if (w) d = d * vf_get(w + j, k);
        s = vd_fma(s, d, vf_get(x + j, k));
    });
    const double r2 = (double)r * (double)r;
    const VF a = vf_set((float)(vd_sum(s) * r2 / (double)C)), rv = vf_set(r);
    EACH_VECTOR(C, j, k, {
        VF d = vf_get(dy + j, k);
        if (w) d = d * vf_get(w + j, k);
        vf_store(dx + j, rv * vf_fnma(vf_get(x + j, k), a, d), k, mode);
    });
}

/* dw of the n <= COLS columns from c0. */
static void rmsnorm_columns(float *dw, const float *dy, const float *x, const float *rstd, long N, long C,
                            long c0, long n, Mode mode)
{
    double t[COLS] = {0}; /* dw (C); dy x (N,C); rstd (N) */
    for (long i0 = 0; i0 < N; i0 += COL_RUN) {
        float f[COLS];
        for (long v = 0; v < n; v += VW) {
            const int k = (int)lmin(VW, n - v);
            VF s = vf_set(0.0f);
            for (long i = i0; i < lmin(N, i0 + COL_RUN); i++)
                s = vf_fma(vf_get(dy + i * C + c0 + v, k), vf_get(x + i * C + c0 + v, k) * vf_set(rstd[i]),
                           s);
            vf_put(f + v, s, VW);
        }
        for (long j = 0; j < n; j++) t[j] += (double)f[j];
    }
    for (long j = 0; j < n; j++) dw[c0 + j] = (float)t[j] + (mode == ADD ? dw[c0 + j] : 0.0f);
}

void V(rmsnorm_bwd)(void *dx_, void *dw, const void *dy_, const void *x_, const void *rstd_, const void *w,
                    long N, long C, Mode mx, Mode mw)
{
    float *dx = dx_;                               /* (N,C) or NULL; dw (C) or NULL */
    const float *dy = dy_, *x = x_, *rstd = rstd_; /* (N,C), (N,C), (N); w (C) or NULL */
    if (dw) {                                      /* before dx, which may overwrite dy */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
        for (long c0 = 0; c0 < C; c0 += COLS)
            rmsnorm_columns(dw, dy, x, rstd, N, C, c0, lmin(COLS, C - c0), mw);
    }
    if (!dx) return;
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) rmsnorm_row_bwd(dx + i * C, dy + i * C, x + i * C, w, rstd[i], C, mx);
}
