/* tests/test_qat_random.c: rounding at random: on the grid, between the neighbours, in the mean x; draws that
 * depend on (seed, step, stream, sample, element) alone; whole runs that resume bit for bit and export what
 * an evaluation computes with. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }

enum { ROWS = 6, COLS = 96, N = ROWS * COLS, DRAWS = 2000 };

static void each(void (*f)(const QuantSpec *, const float *, const QuantScales *))
{
    for (int i = 0; i < n_quant_formats; i++) {
        Arena a = {.name = "random"};
        Err e = {0};
        const QuantFormat *q = &quant_formats[i];
        for (int u = 0; u <= (q->elem == ELEM_INT); u++) {
            const QuantSpec s = {
                .f = q, .block_rows = 1, .block_cols = q->block > 0 ? q->block : 48, .asymmetric = u == 1};
            float x[N];
            QuantScales sc;
            rng_normal_f32(x, N, (RngKey){.seed = 9, .stream = 4}, 0.1, 0.5);
            x[5] = 0;
            ASSERT(quant_scales_alloc(&sc, &s, ROWS, COLS, &a, &e));
            quant_scales(&sc, &s, x, ROWS, COLS);
            f(&s, x, &sc);
        }
        arena_free(&a);
    }
}

static void draw(float *y, const float *x, const QuantSpec *s, const QuantScales *q, uint32_t step)
{
    const RngKey key = {.seed = 77, .step = step, .stream = 3};
    for (long r = 0; r < ROWS; r++)
        for (long c = 0; c < COLS; c += s->block_cols) {
            const QuantRun run = quant_run(s, q, r, c / s->block_cols);
            const long n = COLS - c < s->block_cols ? COLS - c : s->block_cols;
            quant_fake_random(y + r * COLS + c, x + r * COLS + c, n, s, &run, key, (uint32_t)(r * COLS + c));
        }
}

/* A value of the format, so encoding it again keeps it; what nearest gives, or the neighbour on x's other
 * side; the same key, the same bits. */
static void on_grid(const QuantSpec *s, const float *x, const QuantScales *q)
{
    float y[N], z[N], near[N];
    long other = 0;
    quant_fake(near, x, s, q, COLS, 0, ROWS);
    draw(y, x, s, q, 1);
    draw(z, x, s, q, 1);
    ASSERT_BYTES(y, z, sizeof y);
    quant_fake(z, y, s, q, COLS, 0, ROWS);
    ASSERT_BYTES(y, z, sizeof y);
    for (long i = 0; i < N; i++) {
        const float d = near[i] - x[i], f = y[i] - x[i];
        ASSERT_MSG(y[i] == near[i] || (d <= 0) != (f <= 0), "%s: %a went to %a, the nearest is %a",
                   s->f->name, (double)x[i], (double)y[i], (double)near[i]);
        other += y[i] != near[i];
    }
    ASSERT_MSG(other > N / 50 && other < N * 6 / 10, "%s: %ld of %d left the nearest", s->f->name, other, N);
    draw(z, x, s, q, 2);
    ASSERT(memcmp(y, z, sizeof y) != 0);
    draw(z, y, s, q, 3); /* what is on the grid stays there */
    ASSERT_BYTES(y, z, sizeof y);
}
TEST(qat_random, on_the_grid_and_repeatable) { each(on_grid); }

/* Mean of 2,000 draws against x where the scale holds it: each element within 6 standard errors
 * (measured; and what ten draws would move), all elements together within 5. */
static void unbiased(const QuantSpec *s, const float *x, const QuantScales *q)
{
    static double sum[N], square[N];
    float y[N], clamped[N];
    double all = 0, var = 0;
    memset(sum, 0, sizeof sum);
    memset(square, 0, sizeof square);
    for (uint32_t k = 0; k < DRAWS; k++) {
        draw(y, x, s, q, k);
        for (long i = 0; i < N; i++) {
            const double d = (double)y[i] - (double)x[i];
            sum[i] += d;
            square[i] += d * d;
        }
    }
    kernels_ref_f32()->fakequant_clip(clamped, x, s, q, ROWS, COLS);
    for (long i = 0; i < N; i++) {
        if (clamped[i] != x[i]) continue;
        const double unit = (double)q->scale[i / COLS * q->G + i % COLS / s->block_cols] * (double)q->tensor;
        const double mean = sum[i] / DRAWS, v = fmax(square[i] / DRAWS - mean * mean, 0);
        const double bound = 6 * sqrt(v / DRAWS) + 10.0 / DRAWS * (fabs((double)x[i]) + unit);
        ASSERT_MSG(fabs(mean) < bound, "%s: mean of %a is off by %g, %g allowed", s->f->name, (double)x[i],
                   mean, bound);
        all += mean;
        var += v / DRAWS;
    }
    ASSERT_MSG(fabs(all) < 5 * sqrt(var), "%s: the sum of means is off by %g, standard error %g", s->f->name,
               all, sqrt(var));
}
TEST(qat_random, mean_is_x) { each(unbiased); }

/* A batch drawn at once, and its second half alone; four threads. */
TEST(qat_random, draws_by_sample_and_element)
{
    enum { B = 4, T = 50, C = 70 };
    const QuantSpec s = {.f = &quant_formats[QUANT_int8], .block_rows = 1};
    static float x[B * T * C], y[B * T * C], z[B * T * C], scale[B * T];
    rng_normal_f32(x, B * T * C, (RngKey){.seed = 2, .stream = 4}, 0, 1);
    for (int i = 0; i < B * T; i++) scale[i] = 0.02f;
    QuantScales q = {.R = B * T, .G = 1, .scale = scale, .tensor = 1};
    const RngKey key = {.seed = 1, .step = 2, .stream = 3, .sample = 10};
    RngKey half = key;
    half.sample = 12;
    const Kernels *k = kernels_ref_f32();
    threads_init(4);
    k->fakequant_random(y, x, &s, &q, B * T, C, key, T, SET);
    threads_init(1);
    k->fakequant_random(z, x, &s, &q, B * T, C, key, T, SET);
    ASSERT_BYTES(y, z, sizeof y);
    q.R = B * T / 2;
    k->fakequant_random(z, x + 2 * T * C, &s, &q, B * T / 2, C, half, T, SET);
    ASSERT_BYTES(y + 2 * T * C, z, sizeof y / 2);
    k->fakequant_random(z, x, &s, &q, T, C, half, T, SET);
    ASSERT(memcmp(y, z, (size_t)(T * C) * sizeof *z) != 0); /* another sample, other draws */
}

/* ---- runs ---- */
static Pare train(const char *dir, const char *last)
{
    return PARE(.dir = dir,
                ARGS("train", "c.yaml", "checkpoint.keep_last=9", "qat.enabled=true", "qat.weight=int4",
                     "qat.activation=fp8_e4m3", "qat.grad=fp8_e5m2", "qat.rounding=stochastic",
                     "train.gradient_accumulation_steps=2", "+export=[{format: hdf5, path: m.h5}]", last));
}

TEST(qat_random, resumes_bit_for_bit)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    size_t n, m;
    ASSERT_RAN(train(a, NULL), 0);
    ASSERT(!mkdir(in(b, "run"), 0700) && !mkdir(in(b, "run/checkpoints"), 0700));
    char *s = get_file(in(a, "run/checkpoints/step_00000006.h5"), &n);
    ASSERT(s != NULL);
    put_file(in(b, "run/checkpoints/step_00000006.h5"), s, n);
    s = get_file(in(a, "run/metrics.jsonl"), &n);
    put_file(in(b, "run/metrics.jsonl"), s, n);
    Pare p = train(b, NULL);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 6 from");
    same_state(in(a, "run/checkpoints/step_00000012.h5"), in(b, "run/checkpoints/step_00000012.h5"));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "train"), events(in(a, "run/metrics.jsonl"), "train"));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "eval"), events(in(a, "run/metrics.jsonl"), "eval"));
    char *x = get_file(in(a, "run/export/m.h5"), &n), *y = get_file(in(b, "run/export/m.h5"), &m);
    ASSERT_EQ(n, m);
    ASSERT_BYTES(x, y, n);
    /* draws change the losses, and the seed the draws */
    char *c = tiny_dir("c"), *d = tiny_dir("d");
    ASSERT_RAN(train(c, "qat.rounding=nearest"), 0);
    ASSERT(strcmp(events(in(a, "run/metrics.jsonl"), "train"), events(in(c, "run/metrics.jsonl"), "train")));
    ASSERT_RAN(train(d, "device.threads=2"), 0);
    ASSERT_STR(events(in(d, "run/metrics.jsonl"), "train"), events(in(a, "run/metrics.jsonl"), "train"));
}
