/* kernels/pointwise_vec_impl.h: the sweeps of pointwise.c in vectors. Sums of squares in double; column sums:
 * float over COL_RUN rows, then double.
 */
enum { COL_RUN = 32, COL_VECS = 4, COLS = COL_VECS * VW };

void V(axpby)(void *y_, double a, const void *x_, double b, const void *z_, long n)
{
    float *y = y_;                                              /* (n) */
    const float *x = x_, *z = z_, fa = (float)a, fb = (float)b; /* (n) */
    EACH_BLOCK(lo, len, {
        EACH_VECTOR(len, i, k, {
            vf_put(y + lo + i, vf_fma(vf_get(x + lo + i, k), vf_set(fa), vf_get(z + lo + i, k) * vf_set(fb)),
                   k);
        });
    })
}

void V(mul)(void *y_, const void *a_, const void *b_, long n, Mode mode)
{
    float *y = y_;                /* (n) */
    const float *a = a_, *b = b_; /* (n) */
    EACH_BLOCK(lo, len, {
        EACH_VECTOR(len, i, k,
                    { vf_store(y + lo + i, vf_get(a + lo + i, k) * vf_get(b + lo + i, k), k, mode); });
    })
}

void V(scale)(void *y_, double a, const void *x_, long n, Mode mode)
{
    float *y = y_;                      /* (n) */
    const float *x = x_, fa = (float)a; /* (n) */
    EACH_BLOCK(lo, len, {
        EACH_VECTOR(len, i, k, { vf_store(y + lo + i, vf_get(x + lo + i, k) * vf_set(fa), k, mode); });
    })
}

void V(add_row)(void *y_, const void *b_, long N, long C)
{
    float *y = y_;       /* (N,C) */
    const float *b = b_; /* (C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++)
        EACH_VECTOR(C, j, k, { vf_put(y + i * C + j, vf_get(y + i * C + j, k) + vf_get(b + j, k), k); });
}

static void columns(float *db, const float *dy, long N, long C, long c0, long n, Mode mode)
{
    double t[COLS] = {0}; /* db (C), dy (N,C) */
    for (long i0 = 0; i0 < N; i0 += COL_RUN) {
        float f[COLS];
        for (long v = 0; v < n; v += VW) {
            const int k = (int)lmin(VW, n - v);
            VF s = vf_set(0.0f);
            for (long i = i0; i < lmin(N, i0 + COL_RUN); i++) s = s + vf_get(dy + i * C + c0 + v, k);
            vf_put(f + v, s, VW);
        }
        for (long j = 0; j < n; j++) t[j] += (double)f[j];
    }
    for (long j = 0; j < n; j++) db[c0 + j] = (float)t[j] + (mode == ADD ? db[c0 + j] : 0.0f);
}

void V(add_colsum)(void *db, const void *dy, long N, long C, Mode mode)
{ /* db (C), dy (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long c0 = 0; c0 < C; c0 += COLS) columns(db, dy, N, C, c0, lmin(COLS, C - c0), mode);
}

void V(sumsq)(double *sum, const void *x_, long n)
{
    const float *x = x_; /* (n) */
    const long blocks = (n + PAR_BLOCK - 1) / PAR_BLOCK;
    double total = 0.0;
    for (long b0 = 0; b0 < blocks; b0 += SUM_BATCH) {
        const long nb = lmin(SUM_BATCH, blocks - b0);
        double part[SUM_BATCH];
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
        for (long b = 0; b < nb; b++) {
            const long lo = (b0 + b) * PAR_BLOCK;
            part[b] = row_squares(x + lo, lmin(PAR_BLOCK, n - lo), 0.0);
        }
        total += sum_in_order(part, nb);
    }
    *sum = total;
}
