/* tests/test_kernels.c: every kernel of kernels.def against the double reference, for the float reference and
 * each table this CPU can run: odd sizes, SET and ADD, optional outputs left out, guard bytes, and equal bits
 * with 1, 2, 3 threads. A case is one function that asks for its arrays and makes one call; the harness runs
 * it on two tables and compares. Products and attention are held to the same in test_gemm.c and
 * test_attention.c.
 */
#include "tests/kernels_quant_impl.h"
#include <omp.h>

/* Every format, scales given as floats and as bytes of a file, also ones that empty a block or make tiny
 * values. */
static void run_decode_rows(Ctx *c)
{
    static const float odd[] = {0, 0x1p-140f, 0x1p-126f};
    const QuantSpec s = coded_of(c);
    const long r0 = c->a / 3;
    QuantScales q = coded_scales(c, &s);
    for (long i = 0; q.scale && i < 3 && i < q.R * q.G && c->shape % 2; i++)
        q.scale[q.R * q.G - 1 - i] = odd[i];
    c->k->decode_rows(out(c, (c->a - r0) * c->b, 1), coded_codes(c, &s), &s, &q, r0, c->a - r0, c->b);
}
static void run_columns_put(Ctx *c)
{
    const long at = c->b / 3, n = (c->b + 1) / 2;
    c->k->columns_put(out(c, c->a * c->b, 1), in(c, c->a * n, 1), c->a, c->b, at, n, c->mode);
}
static void run_columns_get(Ctx *c)
{
    const long at = c->b / 3, n = (c->b + 1) / 2;
    c->k->columns_get(out(c, c->a * n, 1), in(c, c->a * c->b, 1), c->a, c->b, at, n);
}
static void run_scale_by(Ctx *c)
{
    c->k->scale_by(out(c, c->a * c->b, 1), in(c, c->a * c->b, 1), in(c, c->option ? c->a : c->b, 1), c->a,
                   c->b, c->option, c->mode);
}
static void run_scale_by_sum(Ctx *c)
{
    c->k->scale_by_sum(out(c, c->option ? c->a : c->b, 1), in(c, c->a * c->b, 1), in(c, c->a * c->b, 1), c->a,
                       c->b, c->option, c->mode);
}
static void run_row_norms(Ctx *c) { c->k->row_norms(out(c, c->a, 1), in(c, c->a * c->b, 1), c->a, c->b); }
static void run_widen(Ctx *c)
{
    uint16_t *x = alloc(c, (size_t)c->a * sizeof *x);
    for (long i = 0; i < c->a; i++) /* all signs, exponents and mantissas but those of infinity and NaN */
        x[i] = (uint16_t)((i * 40503 & 0x807f) | (i * 7 % 255) << 7);
    c->k->widen(out(c, c->a, 1), x, c->a);
}
static void run_quotient(Ctx *c)
{
    void *b = alloc(c, (size_t)c->a * c->k->real);
    c->k->fill(b, 1.75, c->a);
    c->k->quotient(out(c, c->a, 1), in(c, c->a, 1), b, c->a, c->mode);
}

/* ---- the cases: names end in the kernel's ----------------------------------------------------------- */
static void run_fill(Ctx *c) { c->k->fill(out(c, c->a, 1), 0.75, c->a); }
static void run_copy(Ctx *c) { c->k->copy(out(c, c->a, 1), in(c, c->a, 1), c->a); }
static void run_axpby(Ctx *c)
{
    void *y = out(c, c->a, 1), *x = in(c, c->a, 1);
    c->k->axpby(y, 0.5, x, -1.25, c->option ? y : x, c->a);
}
static void run_mul(Ctx *c) { c->k->mul(out(c, c->a, 1), in(c, c->a, 1), in(c, c->a, 1), c->a, c->mode); }
static void run_mask(Ctx *c)
{
    uint8_t *keep = alloc(c, (size_t)c->a);
    for (long i = 0; i < c->a; i++) keep[i] = (uint8_t)(i % 3 != 0);
    c->k->mask(out(c, c->a, 1), in(c, c->a, 1), keep, c->a, c->mode);
}
static void run_scale(Ctx *c) { c->k->scale(out(c, c->a, 1), -0.3, in(c, c->a, 1), c->a, c->mode); }
static void run_add_row(Ctx *c) { c->k->add_row(out(c, c->a * c->b, 1), in(c, c->b, 1), c->a, c->b); }
static void run_add_colsum(Ctx *c)
{
    c->k->add_colsum(out(c, c->b, 1), in(c, c->a * c->b, 1), c->a, c->b, c->mode);
}
static void run_sumsq(Ctx *c) { c->k->sumsq(sums(c, 1), in(c, c->a, 1), c->a); }
static void run_dropout(Ctx *c)
{
    c->k->dropout(out(c, c->a * c->b, 1), in(c, c->a * c->b, 1), c->option ? 0.1 : 0.0, 0x123456789abcdefull,
                  3, 9, 4, c->a, c->b, c->mode);
}
static void run_gelu_fwd(Ctx *c) { c->k->gelu_fwd(out(c, c->a, 1), in(c, c->a, 3), c->a, c->option); }
static void run_gelu_bwd(Ctx *c)
{
    c->k->gelu_bwd(out(c, c->a, 1), in(c, c->a, 1), in(c, c->a, 3), c->a, c->option, c->mode);
}
static void run_softcap_fwd(Ctx *c)
{
    c->k->softcap_fwd(out(c, c->a, 1), in(c, c->a, 3), c->option ? 0.7 : 30.0, c->a);
}
static void run_softcap_bwd(Ctx *c)
{
    c->k->softcap_bwd(out(c, c->a, 1), in(c, c->a, 1), in(c, c->a, 3), c->option ? 3.5 : 30.0, c->a, c->mode);
}
static void run_swiglu_fwd(Ctx *c)
{
    c->k->swiglu_fwd(out(c, c->a, 1), in(c, c->a, 3), in(c, c->a, 1), c->a);
}
static void run_swiglu_bwd(Ctx *c)
{
    void *dg = out(c, c->a, 1), *du = c->option ? NULL : out(c, c->a, 1), *dy = in(c, c->a, 1);
    if (!(c->a % 2) && !c->option) dg = NULL;
    c->k->swiglu_bwd(dg, du, dy, in(c, c->a, 3), in(c, c->a, 1), c->a, c->mode);
}

/* Rows that are far from zero, so that a one-pass variance or a float mean shows. */
static void *rows_in(Ctx *c)
{
    void *x = in(c, c->a * c->b, 1);
    for (long i = 0; i < c->a * c->b; i++) {
        const float shift = (float)(i / c->b % 3) * 64.0f;
        if (c->k->real == sizeof(float)) ((float *)x)[i] += shift;
        else ((double *)x)[i] = (double)((float)((double *)x)[i] + shift);
    }
    return x;
}
static void run_layernorm_fwd(Ctx *c)
{
    void *w = c->option ? NULL : in(c, c->b, 1), *b = c->mode == ADD ? NULL : in(c, c->b, 1);
    c->k->layernorm_fwd(out(c, c->a * c->b, 1), out(c, c->a, 1), out(c, c->a, 1), rows_in(c), w, b, c->a,
                        c->b, 1e-5);
}
static void run_layernorm_bwd(Ctx *c)
{
    const long n = c->a * c->b;
    void *x = in(c, n, 1), *y = in(c, n, 1), *mean = in(c, c->a, 1), *rstd = in(c, c->a, 1);
    void *w = c->option ? NULL : in(c, c->b, 1), *dx = c->a == 5 ? NULL : out(c, n, 1);
    c->k->layernorm_fwd(y, mean, rstd, x, w, NULL, c->a, c->b, 1e-5);
    void *dw = c->a == 17 ? NULL : out(c, c->b, 1), *db = c->a == 7 ? NULL : out(c, c->b, 1);
    c->k->layernorm_bwd(dx, dw, db, in(c, n, 1), x, mean, rstd, w, c->a, c->b, c->mode, c->mode, c->mode);
}
static void run_rmsnorm_fwd(Ctx *c)
{
    void *w = c->option ? NULL : in(c, c->b, 1);
    c->k->rmsnorm_fwd(out(c, c->a * c->b, 1), out(c, c->a, 1), rows_in(c), w, c->a, c->b, 1e-6);
}
static void run_rmsnorm_bwd(Ctx *c)
{
    const long n = c->a * c->b;
    void *x = in(c, n, 1), *y = in(c, n, 1), *rstd = in(c, c->a, 1), *w = c->option ? NULL : in(c, c->b, 1);
    c->k->rmsnorm_fwd(y, rstd, x, w, c->a, c->b, 1e-6);
    void *dx = c->a == 5 ? NULL : out(c, n, 1), *dw = c->a == 7 ? NULL : out(c, c->b, 1);
    c->k->rmsnorm_bwd(dx, dw, in(c, n, 1), x, rstd, w, c->a, c->b, c->mode, c->mode);
}
static void run_embedding_fwd(Ctx *c)
{
    c->k->embedding_fwd(out(c, c->a * c->b, 1), in(c, 11 * c->b, 1), ids(c, c->a, 11, false), c->a, c->b,
                        c->mode);
}
static void run_embedding_bwd(Ctx *c)
{
    c->k->embedding_bwd(out(c, 11 * c->b, 1), in(c, c->a * c->b, 1), ids(c, c->a, 11, false), c->a, 11, c->b);
}

/* a rows, heads of even width 2 b cut at 512; a third of the width is left alone when b > 2. */
static RopeShape rope_shape(Ctx *c)
{
    RopeShape s = {
        .rows = c->a, .H = 3, .D = c->b < 256 ? 2 * c->b : 512, .interleaved = c->option, .mscale = 1.125};
    s.D_rot = s.D > 4 ? 2 * (s.D / 3) : s.D;
    s.x_stride = s.H * s.D + 5;
    s.y_stride = s.H * s.D;
    double *f = alloc(c, (size_t)s.D * sizeof *f);
    for (long j = 0; j < s.D_rot / 2; j++) f[j] = pow(10000.0, -2.0 * (double)j / (double)s.D_rot);
    int32_t *pos = ids(c, s.rows, 131072, false);
    pos[0] = 0;
    s.inv_freq = f;
    s.pos = pos;
    return s;
}
static void run_rope_fwd(Ctx *c)
{
    const RopeShape s = rope_shape(c);
    c->k->rope_fwd(out(c, s.rows * s.y_stride, 1), in(c, s.rows * s.x_stride, 1), &s);
}
static void run_rope_bwd(Ctx *c)
{
    const RopeShape s = rope_shape(c);
    c->k->rope_bwd(out(c, s.rows * s.x_stride, 1), in(c, s.rows * s.y_stride, 1), &s, c->mode);
}

#include "tests/kernels_loss_impl.h"
static void run_adamw(Ctx *c)
{
    void *w = out(c, c->a, 1), *m = out(c, c->a, 0.1), *v = out(c, c->a, 0.1);
    c->k->mul(v, v, v, c->a, SET);
    c->k->adamw(w, m, v, in(c, c->a, 1), c->a, 1e-2, 0.9, 0.95, 1e-8, 0.1, 0.271, 0.142625, 0.5);
}
static void run_sgd(Ctx *c)
{
    void *w = out(c, c->a, 1), *m = c->option ? NULL : out(c, c->a, 0.1);
    c->k->sgd(w, m, in(c, c->a, 1), c->a, 1e-2, c->option ? 0.0 : 0.9, 0.1, 0.5);
}
static void run_argmax(Ctx *c)
{
    int32_t *best = alloc(c, (size_t)c->a * sizeof *best);
    double *as_double = sums(c, c->a);
    c->k->argmax(best, in(c, c->a * c->b, 1), c->a, c->b);
    for (long i = 0; i < c->a; i++) as_double[i] = (double)best[i];
}

static const Case cases[] = {FLAT(fill, 0),
                             FLAT(copy, 0),
                             FLAT(axpby, 2e-7),
                             FLAT(mul, 2e-7),
                             FLAT(mask, 2e-7),
                             FLAT(scale, 2e-7),
                             ROWS(add_row, 2e-7),
                             ROWS(add_colsum, 1e-6),
                             FLAT(sumsq, 1e-12),
                             ROWS(dropout, 2e-7),
                             FLAT(gelu_fwd, 1e-6),
                             FLAT(gelu_bwd, 1e-6),
                             FLAT(softcap_fwd, 5e-7),
                             FLAT(softcap_bwd, 5e-7),
                             FLAT(swiglu_fwd, 5e-7),
                             FLAT(swiglu_bwd, 1e-6),
                             ROWS(layernorm_fwd, 1e-6),
                             LEFT(layernorm_bwd, 2e-6, 1),
                             ROWS(rmsnorm_fwd, 5e-7),
                             LEFT(rmsnorm_bwd, 1e-6, 1),
                             ROWS(embedding_fwd, 2e-7),
                             ROWS(embedding_bwd, 1e-6),
                             ROWS(rope_fwd, 4e-7),
                             ROWS(rope_bwd, 4e-7),
                             LEFT(xent, 2e-6, 1e-2),
                             ROWS(softmax, 2e-6),
                             ROWS(mse_fwd, 5e-7),
                             ROWS(mse_bwd, 3e-7),
                             ROWS(cosine_fwd, 1e-9),
                             ROWS(cosine_bwd, 5e-7),
                             ROWS(l1_fwd, 5e-7),
                             ROWS(l1_bwd, 3e-7),
                             ROWS(unit_fwd, 5e-7),
                             LEFT(unit_bwd, 1e-6, 1),
                             LEFT(xent_top, 3e-6, 1e-2),
                             ROWS(topk, 2e-6),
                             LEFT(teacher_mix, 2e-6, 1),
                             FLAT(adamw, 2e-6),
                             FLAT(sgd, 3e-7),
                             ROWS(argmax, 0),
                             ROWS(fakequant_scales, 0),
                             ROWS(fakequant_amax, 0),
                             ROWS(fakequant_fwd, 2e-7),
                             ROWS(fakequant_random, 2e-7),
                             ROWS(fakequant_clip, 2e-7),
                             ROWS(fakequant_clip_bwd, 2e-7),
                             ROWS(fakequant_step_bwd, 2e-7),
                             ROWS(decode_rows, 0),
                             ROWS(columns_put, 2e-7),
                             ROWS(columns_get, 0),
                             ROWS(scale_by, 2e-7),
                             ROWS(scale_by_sum, 1e-6),
                             ROWS(row_norms, 2e-7),
                             FLAT(quotient, 3e-7),
                             FLAT(widen, 0),
                             ROWS(coded_dot, 2e-6)};
enum { N_CASES = (int)(sizeof cases / sizeof *cases) };

/* The last of each list is large enough for several threads. */
static const long flat[][2] = {{1, 0}, {3, 0}, {17, 0}, {63, 0}, {65, 0}, {257, 0}, {1000, 0}, {40001, 0}};
static const long rows[][2] = {{1, 1},   {3, 17},   {5, 63},    {17, 65},
                               {7, 257}, {2, 1000}, {601, 129}, {40, 1030}};
enum { N_SHAPES = 8, N_TABLES = 4 };

/* The float tables this CPU can run; NULL for those it cannot. */
static const Kernels *float_table(int i)
{
    static const Isa isa[] = {ISA_PORTABLE, ISA_PORTABLE, ISA_AVX2, ISA_AVX512};
    return i == 0 ? kernels_ref_f32() : kernels_isa_f32((int)isa[i], "builtin");
}

static Ctx run_case(const Case *t, const Kernels *k, int shape, int flags, int threads)
{
    const long *s = t->rows ? rows[shape] : flat[shape];
    Ctx c = {.k = k, .arena = {.name = "test"}, .shape = shape, .a = s[0], .b = s[1]};
    c.mode = flags & 1 ? ADD : SET;
    c.option = flags & 2;
    omp_set_num_threads(threads);
    t->run(&c);
    return c;
}

static double element(const Out *o, size_t i)
{
    if (o->elem == sizeof(double)) {
        double d;
        memcpy(&d, o->data + i * sizeof d, sizeof d);
        return d;
    }
    float f;
    memcpy(&f, o->data + i * sizeof f, sizeof f);
    return (double)f;
}

static void check_guards(const Ctx *c, const char *what)
{
    for (int i = 0; i < c->n_out; i++)
        for (size_t j = 0; j < GUARD; j++)
            if (c->out[i].data[-(long)j - 1] != 0x5a ||
                c->out[i].data[c->out[i].n * c->out[i].elem + j] != 0x5a)
                test_fail(__FILE__, __LINE__, "%s wrote outside output %d (%s)", what, i, c->k->name);
}

static void check_close(const Ctx *got, const Ctx *want, const Case *t, int shape, int flags)
{
    for (int i = 0; i < got->n_out; i++) {
        const Out *g = &got->out[i], *w = &want->out[i];
        ASSERT_EQ(g->n, w->n);
        double sq = 0.0;
        for (size_t j = 0; j < g->n; j++) sq += element(w, j) * element(w, j);
        const double rms = fmax(sqrt(sq / (double)g->n), t->size);
        for (size_t j = 0; j < g->n; j++) {
            const double a = element(g, j), b = element(w, j);
            if (!(fabs(a - b) <= t->tol * (fabs(b) + rms)))
                test_fail(__FILE__, __LINE__,
                          "%s on %s, shape %d flags %d, output %d[%zu]: %.9g, reference %.17g", t->name,
                          got->k->name, shape, flags, i, j, a, b);
        }
    }
}

static void check_same_bits(const Ctx *a, const Ctx *b, const Case *t, int threads)
{
    for (int i = 0; i < a->n_out; i++)
        if (memcmp(a->out[i].data, b->out[i].data, a->out[i].n * a->out[i].elem))
            test_fail(__FILE__, __LINE__, "%s on %s: output %d differs between 1 and %d threads", t->name,
                      a->k->name, i, threads);
}

static void check_table(const Case *t, const Kernels *k, int shape, int flags)
{
    Ctx want = run_case(t, kernels_ref_f64(), shape, flags, 1), one = run_case(t, k, shape, flags, 1);
    check_guards(&one, t->name);
    check_close(&one, &want, t, shape, flags);
    for (int threads = SIZED(2, 3); threads <= 3 && shape >= N_SHAPES - 2; threads++) {
        Ctx more = run_case(t, k, shape, flags, threads);
        check_same_bits(&one, &more, t, threads);
        arena_free(&more.arena);
    }
    arena_free(&one.arena);
    arena_free(&want.arena);
}

static void check_all(const Kernels *k)
{
    if (!k) SKIP("this CPU cannot run it, or PARE_ISA forbids it");
    for (int i = 0; i < N_CASES; i++)
        for (int shape = 0; shape < N_SHAPES; shape++)
            for (int flags = 0; flags < 4; flags++) check_table(&cases[i], k, shape, flags);
}

TEST(kernels, reference_f64_threads) { check_all(kernels_ref_f64()); }
TEST(kernels, reference_f32) { check_all(float_table(0)); }
TEST(kernels, avx2) { check_all(float_table(2)); }
TEST(kernels, avx512) { check_all(float_table(3)); }

static bool covered(const char *name)
{
    for (int i = 0; i < N_CASES; i++)
        if (!strcmp(name, cases[i].name)) return true;
    return !strncmp(name, "gemm_", 5) || !strncmp(name, "attention_", 10); /* test_gemm.c, test_attention.c */
}

TEST(kernels, every_kernel_has_a_case)
{
#define KERNEL(fn, args)                                                                                     \
    if (!covered(#fn))                                                                                       \
        test_fail(__FILE__, __LINE__, "%s of kernels.def has no case in tests/test_kernels.c", #fn);
#include "kernels/kernels.def"
#undef KERNEL
}

/* Whatever is asked for, every slot of every table is filled. */
TEST(kernels, tables_are_full)
{
    const Kernels *all[] = {kernels_ref_f32(), kernels_ref_f64(), kernels_cpu_f32(),
                            float_table(1),    float_table(2),    float_table(3)};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const Kernels *k = all[i];
        if (!k) continue;
        ASSERT(k->name && *k->name);
#define KERNEL(fn, args) ASSERT(k->fn != NULL);
#include "kernels/kernels.def"
#undef KERNEL
    }
    ASSERT(!kernels_isa_f32(ISA_PORTABLE, "no such library"));
    ASSERT(!kernels_isa_f32(99, "builtin"));
    ASSERT(kernels_blas_name() != NULL);
}

/* Activations over their whole range, in units of the last place of the double result, where that is not
 * subnormal. */
static double worst_ulp(const float *got, const double *want, long n, double least)
{
    double worst = 0.0;
    for (long i = 0; i < n; i++) {
        if (fabs(want[i]) < least) continue;
        const float f = fabsf((float)want[i]);
        const double ulp = (double)nextafterf(f, INFINITY) - (double)f,
                     d = fabs((double)got[i] - want[i]) / ulp;
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

TEST(kernels, activations_over_their_range)
{
    enum { N = SIZED(400001, 20001) };
    Arena a = {.name = "test"};
    Err e = {0};
    float *x = arena_alloc(&a, N * sizeof *x, &e), *y = arena_alloc(&a, N * sizeof *y, &e);
    float *ones = arena_alloc(&a, N * sizeof *ones, &e);
    double *xd = arena_alloc(&a, N * sizeof *xd, &e), *yd = arena_alloc(&a, N * sizeof *yd, &e);
    double *onesd = arena_alloc(&a, N * sizeof *onesd, &e);
    ASSERT(onesd);
    for (long i = 0; i < N; i++) {
        x[i] = (float)(i - N / 2) * (20.0f / (N / 2));
        xd[i] = (double)x[i];
        ones[i] = 1.0f;
        onesd[i] = 1.0;
    }
    for (int t = 0; t < N_TABLES; t++) {
        const Kernels *k = float_table(t), *r = kernels_ref_f64();
        if (!k) continue;
        k->swiglu_fwd(y, x, ones, N);
        r->swiglu_fwd(yd, xd, onesd, N);
        ASSERT_CLOSE(worst_ulp(y, yd, N, 1e-30), 0, 0, 4.0);
        /* Both forms round the argument of exp: towards the left, where y goes to 0, that costs |argument|
         * units. */
        for (int form = 0; form < 2; form++) {
            k->gelu_fwd(y, x, N, form);
            r->gelu_fwd(yd, xd, N, form);
            ASSERT_CLOSE(worst_ulp(y, yd, N, 0.1), 0, 0, 8.0);
        }
    }
    arena_free(&a);
}
