/* kernels/feature_vec_impl.h: the mean squared error of feature.c in vectors; differences in float, squares
 * in double. */

static double row_mse(const float *a, const float *b, long C)
{ /* a b (C) */
    VD s = vd_zero();
    EACH_VECTOR(C, j, k, {
        const VF d = vf_get(a + j, k) - vf_get(b + j, k);
        s = vd_fma(s, d, d);
    });
    return vd_sum(s) / (double)C;
}

void V(mse_fwd)(double *sum, const void *a_, const void *b_, const int32_t *targets, long N, long C)
{
    const float *a = a_, *b = b_; /* (N,C); targets (N) or NULL */
    for (long i0 = 0; i0 < N; i0 += SUM_BATCH) {
        const long n = lmin(SUM_BATCH, N - i0);
        double part[SUM_BATCH];
#pragma omp parallel for schedule(static) if (n * C > PAR_MIN)
        for (long i = 0; i < n; i++) {
            const bool on = !targets || targets[i0 + i] != IGNORED;
            part[i] = on ? row_mse(a + (i0 + i) * C, b + (i0 + i) * C, C) : 0.0;
        }
        *sum += sum_in_order(part, n);
    }
}

void V(mse_bwd)(void *da_, void *db_, const void *a_, const void *b_, const int32_t *targets, long N, long C,
                double g, Mode ma, Mode mb)
{
    float *da = da_, *db = db_;                                     /* (N,C), (N,C) or NULL */
    const float *a = a_, *b = b_, s = (float)(2.0 * g / (double)C); /* (N,C); targets (N) or NULL */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const VM on = vf_lt(vf_set(0.0f), vf_set(!targets || targets[i] != IGNORED ? 1.0f : 0.0f));
        EACH_VECTOR(C, j, k, {
            const long at = i * C + j;
            const VF d = vf_only(on, (vf_get(a + at, k) - vf_get(b + at, k)) * vf_set(s));
            if (da) vf_store(da + at, d, k, ma);
            if (db) vf_store(db + at, vf_set(0.0f) - d, k, mb);
        });
    }
}
