/* tests/test_kernels_exact.c: kernels against values worked out by hand or by definition: losses (quality.md
 * C.2), dropout's mask, rotary angles, AdamW over a thousand steps. Every table this CPU can run.
 */
#include "core/core.h"
#include "kernels/kernels.h"
#include "tests/test.h"
#include <math.h>
#include <string.h>

enum { N_TABLES = 4 }; /* 0 is double; the others float, NULL where this CPU has none */
static const Kernels *table(int i)
{
    return i == 0   ? kernels_ref_f64()
           : i == 1 ? kernels_ref_f32()
                    : kernels_isa_f32(i == 2 ? ISA_AVX2 : ISA_AVX512, "builtin");
}

static double get(const Kernels *k, const void *p, long i)
{
    return k->real == sizeof(double) ? ((const double *)p)[i] : (double)((const float *)p)[i];
}

static void set(const Kernels *k, void *p, const double *v, long n)
{
    for (long i = 0; i < n; i++) {
        if (k->real == sizeof(double)) ((double *)p)[i] = v[i];
        else ((float *)p)[i] = (float)v[i];
    }
}

enum { SMALL = 8 };
typedef struct Loss {
    double sums[4], z[SMALL], nll;
} Loss;
/* One row of V <= SMALL logits. */
static Loss loss(const Kernels *k, const double *z, const double *zt, int32_t target, long V, LossAttr a,
                 double gs)
{
    double zb[SMALL], tb[SMALL], nll[1]; /* room for either type */
    Loss r = {{0}, {0}, 0};
    set(k, zb, z, V);
    if (zt) set(k, tb, zt, V);
    k->xent(zb, zt ? tb : NULL, &target, 1, V, &a, gs, r.sums, nll);
    for (long i = 0; i < V; i++) r.z[i] = get(k, zb, i);
    r.nll = get(k, nll, 0);
    return r;
}

#define EACH_TABLE(k, i)                                                                                     \
    for (int i = 0; i < N_TABLES; i++)                                                                       \
        for (const Kernels *k = table(i); k; k = NULL)

TEST(loss, cross_entropy_by_hand)
{
    const double z[] = {0.0, log(2.0), log(3.0)}; /* probabilities 1/6, 2/6, 3/6 */
    EACH_TABLE (k, i) {
        const Loss r = loss(k, z, NULL, 1, 3, (LossAttr){.ce_weight = 1}, 1.0);
        ASSERT_CLOSE(r.sums[0], log(3.0), 0, 2e-7);
        ASSERT_CLOSE(r.nll, log(3.0), 0, 2e-7);
        ASSERT_CLOSE(r.sums[3], 1.0, 0, 0);
        ASSERT_CLOSE(r.z[0], 1.0 / 6, 0, 1e-7);
        ASSERT_CLOSE(r.z[1], 1.0 / 3 - 1.0, 0, 1e-7);
        ASSERT_CLOSE(r.z[2], 0.5, 0, 1e-7);
        const Loss s = loss(k, z, NULL, 1, 3, (LossAttr){.ce_weight = 2, .label_smoothing = 0.3}, 0.5);
        const double ce = log(6.0) - 0.7 * log(2.0) - 0.1 * (log(2.0) + log(3.0)); /* logsumexp is log 6 */
        ASSERT_CLOSE(s.sums[0], ce, 0, 3e-7);
        ASSERT_CLOSE(s.nll, log(3.0), 0, 2e-7);
        ASSERT_CLOSE(s.z[0], 1.0 / 6 - 0.1, 0, 1e-7);
        ASSERT_CLOSE(s.z[1], 1.0 / 3 - 0.7 - 0.1, 0, 1e-7);
        const Loss l = loss(k, z, NULL, 2, 3, (LossAttr){.ce_weight = 1, .z_loss = 0.25}, 1.0);
        ASSERT_CLOSE(l.sums[0], log(2.0) + 0.25 * log(6.0) * log(6.0), 0, 3e-7);
        ASSERT_CLOSE(l.z[0], (1.0 + 0.5 * log(6.0)) / 6, 0, 1e-7);
    }
}

TEST(loss, forward_kl_by_hand)
{
    const double q[] = {0.0, log(2.0), log(3.0)},
                 p[] = {log(3.0), log(2.0), 0.0}; /* 1 2 3 and 3 2 1 sixths */
    static const double T[] = {1.0, 2.0, 4.0};
    EACH_TABLE (k, i)
        for (int t = 0; t < 3; t++) {
            double z[3], zt[3];
            for (int j = 0; j < 3; j++) z[j] = T[t] * q[j] + 7.0, zt[j] = T[t] * p[j] - 2.0;
            const LossAttr a = {.kd_weight = T[t] * T[t], .temperature = T[t]};
            const Loss r = loss(k, z, zt, 0, 3, a, 1.0);
            ASSERT_CLOSE(r.sums[1], log(3.0) / 3.0, 0, 5e-7);
            ASSERT_CLOSE(r.sums[2], log(6.0) - (3.0 * log(3.0) + 2.0 * log(2.0)) / 6.0, 0, 5e-7);
            for (int j = 0; j < 3; j++) ASSERT_CLOSE(r.z[j], T[t] * (double)(2 * j - 2) / 6.0, 0, 2e-6);
            const Loss same = loss(k, zt, zt, 0, 3, a, 1.0);
            ASSERT_CLOSE(same.sums[1], 0.0, 0, 1e-7);
            for (int j = 0; j < 3; j++) ASSERT_CLOSE(same.z[j], 0.0, 0, 1e-7);
        }
}

TEST(loss, ignored_rows_and_no_gradient)
{
    EACH_TABLE (k, i) {
        const double z[] = {1, 2, 3, 4, 5}, zt[] = {5, 4, 3, 2, 1};
        const LossAttr a = {.ce_weight = 1, .kd_weight = 1, .temperature = 2};
        const Loss off = loss(k, z, zt, -100, 5, a, 1.0), dry = loss(k, z, zt, 2, 5, a, 0.0);
        for (int j = 0; j < 4; j++) ASSERT_CLOSE(off.sums[j], 0.0, 0, 0);
        for (int j = 0; j < 5; j++) {
            ASSERT_CLOSE(off.z[j], 0.0, 0, 0);
            ASSERT_CLOSE(dry.z[j], z[j], 0, 0);
        }
        ASSERT_CLOSE(off.nll, 0.0, 0, 0);
        ASSERT(dry.sums[0] > 0 && dry.sums[1] > 0);
    }
}

TEST(loss, extreme_logits_stay_finite)
{
    EACH_TABLE (k, i) {
        const LossAttr a = {.ce_weight = 1, .kd_weight = 1, .temperature = 1};
        const double big[] = {1e4, -1e4, 0, 3}, masked[] = {1, -INFINITY, 0, 3},
                     masked_t[] = {2, -INFINITY, -INFINITY, 1};
        const Loss b = loss(k, big, big, 1, 4, a, 1.0), m = loss(k, masked, masked_t, 0, 4, a, 1.0);
        ASSERT_CLOSE(b.sums[0], 2e4, 1e-7, 0);
        ASSERT_CLOSE(b.sums[1], 0.0, 0, 1e-12);
        for (int j = 0; j < 4; j++) ASSERT(isfinite(b.z[j]) && isfinite(m.z[j]) && isfinite(m.sums[j]));
        ASSERT_CLOSE(m.z[1], 0.0, 0, 0);
        const double bad[] = {1, NAN, 0, 3};
        ASSERT(isnan(loss(k, bad, NULL, 0, 4, a, 1.0).sums[0]));
        ASSERT(isnan(loss(k, masked, bad, 0, 4, a, 1.0).sums[1]));
    }
}

/* Central differences of everything at once (double). */
TEST(loss, gradient_by_differences)
{
    const double z[] = {0.3, -1.2, 2.0, 0.1, 0.7}, zt[] = {1.0, 0.2, -0.4, 0.9, -2.0};
    for (int t = 1; t <= 3; t++) {
        const LossAttr a = {.ce_weight = 0.6,
                            .kd_weight = 1.7,
                            .temperature = t,
                            .label_smoothing = 0.2,
                            .z_loss = 0.05,
                            .softcap = 2.5,
                            .teacher_softcap = 1.5};
        const Loss g = loss(kernels_ref_f64(), z, zt, 2, 5, a, 0.5);
        for (int j = 0; j < 5; j++) {
            double up[5], down[5];
            memcpy(up, z, sizeof z);
            memcpy(down, z, sizeof z);
            up[j] += 1e-5;
            down[j] -= 1e-5;
            const Loss u = loss(kernels_ref_f64(), up, zt, 2, 5, a, 0.0),
                       d = loss(kernels_ref_f64(), down, zt, 2, 5, a, 0.0);
            const double ce = u.sums[0] - d.sums[0], kd = u.sums[1] - d.sums[1];
            ASSERT_CLOSE(g.z[j], 0.5 * (0.6 * ce + 1.7 * kd) / 2e-5, 1e-7, 1e-9);
        }
    }
}

/* V = 50257: mean CE to 1e-5, KL to 1e-6 of its value; and T^2 KL at T = 1000 is half the variance of the
 * difference. */
TEST(loss, gpt2_vocabulary)
{
    enum { N = 4, VOCAB = 50257 };
    Arena a = {.name = "test"};
    Err e = {0};
    const size_t n = (size_t)N * VOCAB;
    float *z = arena_alloc(&a, n * sizeof *z, &e), *zt = arena_alloc(&a, n * sizeof *zt, &e);
    double *zd = arena_alloc(&a, n * sizeof *zd, &e), *td = arena_alloc(&a, n * sizeof *td, &e);
    ASSERT_OK(e);
    rng_normal_f32(z, n, (RngKey){.seed = 1, .stream = 1}, 0.0, 3.0);
    rng_normal_f32(zt, n, (RngKey){.seed = 1, .stream = 2}, 0.0, 3.0);
    const int32_t targets[N] = {0, 50256, -100, 77};
    for (size_t i = 0; i < n; i++) zd[i] = (double)z[i], td[i] = (double)zt[i];
    const LossAttr at = {.ce_weight = 1, .kd_weight = 4, .temperature = 2};
    double want[4] = {0}, hot[4] = {0};
    kernels_ref_f64()->xent(zd, td, targets, N, VOCAB, &at, 0.0, want, NULL);
    ASSERT_CLOSE(want[3], 3.0, 0, 0);
    for (int i = 1; i < N_TABLES; i++) {
        if (!table(i)) continue;
        double got[4] = {0};
        table(i)->xent(z, zt, targets, N, VOCAB, &at, 0.0, got, NULL);
        ASSERT_CLOSE(got[0] / 3, want[0] / 3, 0, 1e-5);
        ASSERT_CLOSE(got[1], want[1], 1e-6, 0);
        ASSERT_CLOSE(got[2], want[2], 1e-6, 0);
    }
    kernels_ref_f64()->xent(zd, td, targets, 1, VOCAB, &(LossAttr){.temperature = 1000}, 0.0, hot, NULL);
    double mean = 0.0, var = 0.0;
    for (int v = 0; v < VOCAB; v++) mean += (zd[v] - td[v]) / VOCAB;
    for (int v = 0; v < VOCAB; v++) var += (zd[v] - td[v] - mean) * (zd[v] - td[v] - mean) / VOCAB;
    ASSERT_CLOSE(1e6 * hot[1], var / 2, 0.005, 0);
    arena_free(&a);
}

TEST(dropout, mask_is_the_counter_generator)
{
    enum { S = 3, PER = 20011 };
    Arena a = {.name = "test"};
    Err e = {0};
    const size_t n = (size_t)S * PER;
    double *x = arena_alloc(&a, n * sizeof *x, &e), *y = arena_alloc(&a, n * sizeof *y, &e),
           *v = arena_alloc(&a, n * sizeof *v, &e);
    ASSERT_OK(e);
    for (size_t i = 0; i < n; i++) v[i] = 0.75;
    EACH_TABLE (k, i) {
        set(k, x, v, (long)n);
        k->dropout(y, x, 0.25, 0xfeedbeef12345678ull, 7, 8, 0xfffffffeu, S, PER, SET);
        for (uint32_t s = 0; s < S; s++)
            for (uint32_t j = 0; j < PER; j++) {
                const RngKey key = {0xfeedbeef12345678ull, 7, 8, 0xfffffffeu + s};
                const double want = rng_u32(key, j) >= 0x40000000u ? 1.0 : 0.0;
                ASSERT_CLOSE(get(k, y, (long)(s * PER + j)), want, 1e-6, 0);
            }
    }
    arena_free(&a);
}

TEST(rope, angles_and_pairs_by_definition)
{
    const double f[] = {1.0, 0.01};
    const int32_t pos[] = {0, 131071};
    EACH_TABLE (k, i)
        for (int inter = 0; inter < 2; inter++) {
            const double v[] = {1, 2, 3, 4, 1, 2, 3, 4};
            double x[8], y[8], back[8];
            const RopeShape s = {.rows = 2,
                                 .H = 1,
                                 .D = 4,
                                 .D_rot = 4,
                                 .x_stride = 4,
                                 .y_stride = 4,
                                 .mscale = 1.0,
                                 .interleaved = inter,
                                 .inv_freq = f,
                                 .pos = pos};
            set(k, x, v, 8);
            k->rope_fwd(y, x, &s);
            k->rope_bwd(back, y, &s, SET);
            for (int j = 0; j < 2; j++) {
                const int p = inter ? 2 * j : j, q = inter ? p + 1 : j + 2;
                const double c = cos(131071 * f[j]), sn = sin(131071 * f[j]);
                ASSERT_CLOSE(get(k, y, 4 + p), v[p] * c - v[q] * sn, 0, 1e-6);
                ASSERT_CLOSE(get(k, y, 4 + q), v[p] * sn + v[q] * c, 0, 1e-6);
            }
            for (int j = 0; j < 8; j++) ASSERT_CLOSE(get(k, back, j), v[j], 0, 1e-6);
            for (int j = 0; j < 4; j++) ASSERT_CLOSE(get(k, y, j), v[j], 0, 0);
            k->rope_fwd(x, x, &s); /* in place */
            for (int j = 0; j < 8; j++) ASSERT_CLOSE(get(k, x, j), get(k, y, j), 0, 0);
        }
}

/* One step by the formula, then 1000 steps in float against the same in double: 1e-4 absolute at lr 1e-3
 * (1e-5 at 100). */
TEST(adamw, formula_and_a_thousand_steps)
{
    enum { N = 37 };
    const Kernels *r = kernels_ref_f64();
    for (int i = 0; i < N_TABLES; i++) {
        const Kernels *k = table(i);
        if (!k) continue;
        double w[N], m[N] = {0}, v[N] = {0}, g[N], wd[N], md[N] = {0}, vd[N] = {0}, gd[N], first[N];
        for (int j = 0; j < N; j++) wd[j] = first[j] = (double)(float)(0.05 * (j - 18));
        set(k, w, wd, N);
        for (int t = 1; t <= 1000; t++) {
            for (int j = 0; j < N; j++)
                gd[j] = (double)(float)(rng_uniform((RngKey){.seed = 3, .step = (uint32_t)t}, (uint32_t)j) -
                                        0.45);
            set(k, g, gd, N);
            const double c1 = 1 - pow(0.9, t), c2 = 1 - pow(0.95, t);
            k->adamw(w, m, v, g, N, 1e-3, 0.9, 0.95, 1e-8, 0.1, c1, c2, 0.5);
            r->adamw(wd, md, vd, gd, N, 1e-3, 0.9, 0.95, 1e-8, 0.1, c1, c2, 0.5);
            for (int j = 0; j < N && t == 1; j++) {
                const double h = 0.5 * gd[j];
                ASSERT_CLOSE(wd[j], first[j] * (1 - 1e-4) - 1e-3 * h / (fabs(h) + 1e-8), 1e-12, 1e-15);
            }
            for (int j = 0; j < N && (t == 100 || t == 1000); j++)
                ASSERT_CLOSE(get(k, w, j), wd[j], 0, t == 100 ? 1e-5 : 1e-4);
        }
    }
}

/* A constant row has no variance: finite results, gradient 0; and a row at 1e4 keeps its digits. */
TEST(norm, constant_rows)
{
    enum { C = 70 };
    EACH_TABLE (k, i) {
        double v[C], x[C], y[C], dx[C], mean[1], rstd[1];
        for (int j = 0; j < C; j++) v[j] = 12345.0;
        set(k, x, v, C);
        k->layernorm_fwd(y, mean, rstd, x, NULL, NULL, 1, C, 1e-5);
        k->layernorm_bwd(dx, NULL, NULL, x, x, mean, rstd, NULL, 1, C, SET, SET, SET);
        for (int j = 0; j < C; j++) {
            ASSERT_CLOSE(get(k, y, j), 0.0, 0, 0);
            ASSERT_CLOSE(get(k, dx, j), 0.0, 0, 1e-1);
        }
        k->rmsnorm_fwd(y, rstd, x, NULL, 1, C, 1e-5);
        for (int j = 0; j < C; j++) ASSERT_CLOSE(get(k, y, j), 1.0, 0, 1e-6);
    }
}

/* Feature losses: gradients against central differences (double). */
TEST(feature, gradients_by_differences)
{
    enum { N = 3, C = 4 };
    const Kernels *k = kernels_ref_f64();
    const int32_t targets[N] = {1, -100, 2};
    double a[N * C], b[N * C], da[N * C], db[N * C];
    for (int i = 0; i < N * C; i++) {
        a[i] = sin(1.0 + 2.0 * i);
        b[i] = cos(3.0 * i);
    }
    for (int kind = 0; kind < 2; kind++) {
        if (kind == 0) k->mse_bwd(da, db, a, b, targets, N, C, 0.5, SET, SET);
        else k->cosine_bwd(da, db, a, b, targets, N, C, 0.5, SET, SET);
        for (int i = 0; i < 2 * N * C; i++) {
            double *x = i < N * C ? &a[i] : &b[i - N * C], sum[2] = {0, 0};
            const double keep = *x, got = i < N * C ? da[i] : db[i - N * C];
            for (int side = 0; side < 2; side++) {
                *x = keep + (side ? 1e-5 : -1e-5);
                if (kind == 0) k->mse_fwd(&sum[side], a, b, targets, N, C);
                else k->cosine_fwd(&sum[side], a, b, targets, N, C);
            }
            *x = keep;
            ASSERT_CLOSE(got, 0.5 * (sum[1] - sum[0]) / 2e-5, 1e-7, 1e-9);
        }
    }
    double zero[C] = {0}, sum = 0; /* a row without direction */
    k->cosine_fwd(&sum, zero, b, NULL, 1, C);
    k->cosine_bwd(da, NULL, zero, b, NULL, 1, C, 1.0, SET, SET);
    ASSERT_CLOSE(sum, 1.0, 0, 0);
    for (int j = 0; j < C; j++) ASSERT_CLOSE(da[j], 0.0, 0, 0);
}

/* What parity with a reference cannot see: kernels that have only a reference; the reference formulas. */
TEST(kernels, small_values_by_hand)
{
    EACH_TABLE (k, i) {
        const double w4[] = {1, 2, 3, 4}, ones[] = {1, 1, 1, 1, 1, 1}, x2[] = {1, -2}, x3[] = {1, 2, 6};
        const int32_t ids[] = {1, 0, 1};
        double w[4], y[6], d[6], m[2], s[2];
        set(k, w, w4, 4);
        k->embedding_fwd(y, w, ids, 3, 2, SET);
        const double rows[] = {3, 4, 1, 2, 3, 4};
        for (int j = 0; j < 6; j++) ASSERT_CLOSE(get(k, y, j), rows[j], 0, 0);
        set(k, d, ones, 6);
        k->embedding_bwd(w, d, ids, 3, 2, 2);
        const double grown[] = {2, 3, 5, 6};
        for (int j = 0; j < 4; j++) ASSERT_CLOSE(get(k, w, j), grown[j], 0, 0);

        set(k, y, x2, 2);
        k->gelu_fwd(d, y, 2, false); /* x Phi(x) */
        ASSERT_CLOSE(get(k, d, 0), 0.84134474606854293, 3e-7, 0);
        ASSERT_CLOSE(get(k, d, 1), -2 * 0.022750131948179207, 1e-6, 0);
        k->gelu_fwd(d, y, 2, true);
        ASSERT_CLOSE(get(k, d, 0), 0.5 * (1 + tanh(sqrt(2 / 3.14159265358979324) * 1.044715)), 3e-7, 0);
        k->swiglu_fwd(d, y, y, 2);
        ASSERT_CLOSE(get(k, d, 1), 4.0 / (1 + exp(2.0)), 3e-7, 0);

        set(k, y, x3, 3); /* mean 3, variance 14/3, square mean 41/3 */
        k->layernorm_fwd(d, m, s, y, NULL, NULL, 1, 3, 0.25);
        ASSERT_CLOSE(get(k, d, 2), 3.0 / sqrt(14.0 / 3 + 0.25), 3e-7, 0);
        ASSERT_CLOSE(get(k, m, 0), 3.0, 1e-7, 0);
        k->rmsnorm_fwd(d, s, y, NULL, 1, 3, 0.25);
        ASSERT_CLOSE(get(k, d, 2), 6.0 / sqrt(41.0 / 3 + 0.25), 3e-7, 0);

        set(k, w, (double[]){2, -1}, 2); /* g' = 0.5 g + 0.1 w, m = 0.9 m + g' */
        set(k, m, (double[]){1, 0}, 2);
        set(k, y, (double[]){4, 6}, 2);
        k->sgd(w, m, y, 2, 0.5, 0.9, 0.1, 0.5);
        ASSERT_CLOSE(get(k, m, 0), 3.1, 1e-6, 0);
        ASSERT_CLOSE(get(k, w, 0), 2 - 1.55, 1e-6, 0);
        ASSERT_CLOSE(get(k, w, 1), -1 - 0.5 * 2.9, 1e-6, 0);

        set(k, y, ones, 6);
        k->fill(y, 7.0, 5);
        k->copy(d, y, 6);
        ASSERT_CLOSE(get(k, d, 4) + get(k, d, 5), 8.0, 0, 0);
        k->axpby(d, 2.0, y, -3.0, y, 6);
        ASSERT_CLOSE(get(k, d, 0), -7.0, 0, 0);
        k->add_colsum(m, y, 3, 2, SET);
        ASSERT_CLOSE(get(k, m, 0) + 10 * get(k, m, 1), 21 + 150, 0, 0);
    }
}
