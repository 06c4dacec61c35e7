/* bench/quant.c: weights that run packed, and the codecs.
 *
 *   decode   one sequence, token by token, from a file: tokens/s, and the share of the bound, which is the
 * time to read
 *            every byte that a token needs (codes, scales, floats) at the rate at which this machine reads
 * as many
 *   codec    a matrix of 4096 x 4096 into codes, through a format and back, out of codes; the bound is the
 * time to
 *            copy as many bytes as must be read and written
 */
#include "bench/bench.h"
#include "compress/compress.h"
#include "train/train.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- the rates to compare with ---- */
/* Two ways to read, and the quicker one counts: streams of plain vectors, and the matrix-vector product of
 * float32, whose loads are as wide as the machine has them. One narrow stream a thread reads half as much. */
typedef struct Block {
    float *p; /* (rows,WIDE) */
    long rows;
    const Kernels *k;
    float *y, *x; /* (rows), (WIDE) */
    uint64_t sum;
} Block;
typedef uint64_t Wide __attribute__((vector_size(64)));
enum { WIDE = 1024, STREAMS = 4 };

static void run_streams(void *x_)
{
    Block *x = x_;
    const Wide *p = (const void *)x->p;
    const long n = x->rows * WIDE / 16;
    uint64_t sum = 0;
#pragma omp parallel for schedule(static) reduction(+ : sum)
    for (long b = 0; b < 64; b++) {
        const long step = n / 64 / STREAMS;
        const Wide *q = p + b * STREAMS * step;
        Wide s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (long i = 0; i < step; i++) {
            s0 += q[i];
            s1 += q[step + i];
            s2 += q[2 * step + i];
            s3 += q[3 * step + i];
        }
        const Wide all = (s0 + s1) + (s2 + s3);
        for (int i = 0; i < 8; i++) sum += all[i];
    }
    x->sum = sum;
}
static void run_product(void *x_)
{
    Block *x = x_;
    x->k->gemm_nt(x->y, x->x, x->p, 1, x->rows, WIDE, SET);
}

/* Bytes/s of reading `bytes` again and again with all threads: the quickest run of either way. */
static double read_rate(const Bench *b, double bytes, Err *e)
{
    Arena a = {.name = "bench"};
    Block x = {.rows = (long)(bytes / 4 / WIDE), .k = kernels_cpu_f32()};
    x.p = arena_alloc(&a, (size_t)(x.rows * WIDE) * 4, e);
    x.y = arena_alloc(&a, (size_t)x.rows * 4, e);
    x.x = arena_alloc(&a, WIDE * 4, e);
    double rate = 0;
    if (!e->code) rng_uniform_f32(x.p, (size_t)(x.rows * WIDE), (RngKey){.seed = 3}, -1, 1);
    const double until = bench_now() + (b->quick ? 0.5 : 2);
    for (int n = 0; !e->code && (n < 20 || bench_now() < until); n++) {
        const double from = bench_now();
        (n % 2 ? run_product : run_streams)(&x);
        if (n > 1) rate = fmax(rate, 4 * (double)(x.rows * WIDE) / (bench_now() - from));
    }
    arena_free(&a);
    return rate;
}

/* ---- decode ---- */
static const struct {
    const char *name, *format, *granularity;
    long group;
    bool symmetric;
} form[] = {{"float32", NULL, NULL, 0, true},
            {"int8 channel", "int8", "channel", 0, true},
            {"int4 g64", "int4", "group", 64, true},
            {"int4 g64 asymmetric", "int4", "group", 64, false},
            {"nf4", "nf4", "auto", 0, true},
            {"nvfp4", "nvfp4", "auto", 0, true},
            {"mxfp4", "mxfp4", "auto", 0, true},
            {"mxfp8", "mxfp8", "auto", 0, true},
            {"fp8_e4m3 channel", "fp8_e4m3", "channel", 0, true},
            {"fp8_e5m2 channel", "fp8_e5m2", "channel", 0, true}};
enum { N_FORM = sizeof form / sizeof *form };
static const char source[] = "build/bench/decode-f32.h5", coded[] = "build/bench/decode-coded.h5";

/* A Llama of random weights, 13.4 M a layer, larger than the caches. */
static bool write_source(const Bench *b, Err *e)
{
    Arena a = {.name = "bench"};
    ModelInitConfig c = {0};
    Model m;
    ModelSpec s;
    OutModel out;
    char layers[40];
    snprintf(layers, sizeof layers, "model.init.num_hidden_layers=%d", b->quick ? 5 : 16);
    char *set[] = {(char[]){"model.init.arch=llama"},
                   (char[]){"model.init.hidden_size=1024"},
                   layers,
                   (char[]){"model.init.num_attention_heads=16"},
                   (char[]){"model.init.intermediate_size=3072"},
                   (char[]){"model.init.vocab_size=2048"},
                   (char[]){"model.init.max_position_embeddings=256"},
                   (char[]){"model.init.tie_word_embeddings=false"}};
    const Config *full = config_load(&a, "bench/shape-a.yaml", 8, set, NULL, e);
    if (full) c = full->model.init;
    const bool ok = full && spec_from_init(&s, &c, 2048, 256, e) &&
                    model_fresh(&m, &s, 1, kernels_cpu_f32(), &a, e) && model_out(&m, &out, DT_F32, &a, e) &&
                    formats_write_h5(source, &out, e);
    arena_free(&a);
    return ok;
}

typedef struct Decode {
    Session *s;
    Model *m;
    Err *e;
} Decode;

static void next_token(void *x_)
{
    Decode *x = x_;
    int32_t id = 0;
    if (session_length(x->s) + 1 >= x->m->spec.max_pos) session_reset(x->s);
    x->m->params.k->argmax(&id, session_logits(x->s), 1, x->m->spec.V);
    session_feed(x->s, &id, 1, x->e);
}

/* file: as it is, or decoded (dense). */
static void measure_decode(const Bench *b, const char *name, const char *path, bool dense, double *plain,
                           Err *e)
{
    Arena a = {.name = "bench"};
    Model m;
    const int32_t bos = 1;
    if ((dense ? model_open_frozen : model_open_packed)(&m, path, kernels_cpu_f32(), &a, e)) {
        Session *s = session_new(&m, m.spec.max_pos, &a, e);
        if (s && session_feed(s, &bos, 1, e)) {
            Decode x = {s, &m, e};
            const Stat t = bench_time(next_token, &x, b->quick ? 0.8 : 4, 8);
            const WeightBytes w = model_weight_bytes(&m);
            const double table = 4.0 * (double)(m.spec.V * m.spec.C); /* one row of it is read */
            const double bytes = (double)(w.packed + w.dense) - table, rate = read_rate(b, bytes, e);
            if (*plain <= 0) *plain = t.median;
            printf("  %-20s %8.1f MB %9.1f tokens/s (spread %.0f %%, n %d)  %6.2fx float32  %6.1f GB/s of "
                   "%5.1f read, "
                   "%3.0f %% of the bound %.2f ms\n",
                   name, bytes / 1e6, 1 / t.median, bench_spread(&t), t.n, *plain / t.median,
                   bytes / t.median / 1e9, rate / 1e9, 100 * bytes / rate / t.median, 1e3 * bytes / rate);
            bench_line(
                b,
                "{\"part\": \"quant\", \"what\": \"decode\", \"format\": \"%s\", \"bytes\": %.0f, "
                "\"tokens_per_s\": %.2f, \"spread\": %.3f, \"n\": %d, \"over_float32\": %.3f, \"read_gbs\": "
                "%.2f, \"of_bound\": %.3f}",
                name, bytes, 1 / t.median, bench_spread(&t) / 100, t.n, *plain / t.median, rate / 1e9,
                bytes / rate / t.median);
            fflush(stdout);
        }
        session_free(s);
        model_close(&m);
    }
    arena_free(&a);
}

static bool bench_decode(const Bench *b)
{
    Err e = {0};
    double plain = 0;
    bench_title(
        "packed decode, one sequence, Llama %d x 1024: bytes a token reads, speed, share of the bound",
        b->quick ? 5 : 16);
    if (!write_source(b, &e)) return bench_ok(&e, source);
    for (int i = 0; i < N_FORM && !e.code; i++) {
        Arena a = {.name = "bench"};
        QuantizeReport r;
        QuantizeConfig c = {.method = "rtn",
                            .format = form[i].format,
                            .granularity = form[i].granularity,
                            .group_size = form[i].group,
                            .scale_rounding = "floor",
                            .range = "narrow",
                            .symmetric = form[i].symmetric};
        const bool ok = !form[i].format || quantize_file(source, coded, &c, false, &r, &a, &e);
        if (ok) measure_decode(b, form[i].name, form[i].format ? coded : source, false, &plain, &e);
        arena_free(&a);
    }
    if (!e.code) measure_decode(b, "the last, decoded", coded, true, &plain, &e);
    remove(source);
    remove(coded);
    return bench_ok(&e, "decode");
}

/* ---- codecs ---- */
enum { SIDE = 4096, STRIPS = 64 };
typedef struct Codec {
    QuantSpec s;
    QuantScales q;
    float *x, *y; /* (SIDE,SIDE) */
    uint8_t *codes;
    const Kernels *k;
} Codec;

static void run_copy(void *x_)
{
    const Codec *x = x_;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < STRIPS; i++)
        memcpy(x->y + i * SIDE * (SIDE / STRIPS), x->x + i * SIDE * (SIDE / STRIPS),
               sizeof(float) * SIDE * (SIDE / STRIPS));
}
static void run_quantise(void *x_)
{
    Codec *x = x_;
    quant_tensor_scale(&x->q, &x->s, 5.0f);
    const long step = SIDE / STRIPS, grid = x->q.R / STRIPS;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < STRIPS; i++) {
        quant_scale_rows(&x->q, &x->s, x->x, SIDE, SIDE, i * grid, (i + 1) * grid);
        quant_encode(x->codes, x->x, &x->s, &x->q, SIDE, i * step, (i + 1) * step);
    }
}
static void run_fake(void *x_)
{
    Codec *x = x_;
    x->k->fakequant_scales(&x->q, &x->s, x->x, SIDE, SIDE, NULL);
    x->k->fakequant_fwd(x->y, x->x, &x->s, &x->q, SIDE, SIDE, SET);
}
static void run_dequantise(void *x_)
{
    Codec *x = x_;
    x->k->decode_rows(x->y, x->codes, &x->s, &x->q, 0, SIDE, SIDE);
}

static void measure_codec(const Bench *b, Codec *x, const char *what, void (*run)(void *), double bytes,
                          double copy)
{
    const Stat t = bench_time(run, x, b->quick ? 0.15 : 0.6, 3);
    const double n = (double)SIDE * SIDE;
    printf("  %-10s %-10s %9.2f ms %4.0f %%  %6.2f Gweights/s  %6.2f GB/s, %3.0f %% of copying as much (%.2f "
           "ms)\n",
           x->s.f->name, what, 1e3 * t.median, bench_spread(&t), n / t.median / 1e9, bytes / t.median / 1e9,
           100 * bytes / copy / t.median, 1e3 * bytes / copy);
    bench_line(b,
               "{\"part\": \"quant\", \"what\": \"%s\", \"format\": \"%s\", \"ms\": %.3f, \"spread\": %.3f, "
               "\"n\": %d, "
               "\"gbs\": %.2f, \"of_copy\": %.3f}",
               what, x->s.f->name, 1e3 * t.median, bench_spread(&t) / 100, t.n, bytes / t.median / 1e9,
               bytes / copy / t.median);
    fflush(stdout);
}

static bool bench_codec(const Bench *b)
{
    static const int some[] = {QUANT_int8,  QUANT_int4,     QUANT_nf4,      QUANT_nvfp4,
                               QUANT_mxfp4, QUANT_fp8_e4m3, QUANT_fp8_e5m2, QUANT_mxfp8};
    Arena a = {.name = "bench"};
    Err e = {0};
    const double n = (double)SIDE * SIDE;
    Codec x = {.k = kernels_cpu_f32()};
    x.x = arena_alloc(&a, sizeof(float) * SIDE * SIDE, &e);
    x.y = arena_alloc(&a, sizeof(float) * SIDE * SIDE, &e);
    x.codes = arena_alloc(&a, SIDE * SIDE, &e);
    if (x.codes) {
        rng_uniform_f32(x.x, SIDE * SIDE, (RngKey){.seed = 2}, -1, 1);
        const Stat c = bench_time(run_copy, &x, b->quick ? 0.3 : 1, 5);
        const double copy = 8 * n / c.low;
        bench_title("codecs, %d x %d floats; copying: %.1f GB/s read and written", SIDE, SIDE, copy / 1e9);
        for (size_t i = 0; i < sizeof some / sizeof *some && !e.code; i++) {
            const QuantFormat *f = &quant_formats[some[i]];
            const long group = f->elem == ELEM_INT && f->bits == 8 ? 0 : f->group;
            x.s = (QuantSpec){.f = f, .block_rows = 1, .block_cols = group};
            if (!quant_scales_alloc(&x.q, &x.s, SIDE, SIDE, &a, &e)) break;
            const double codes = n * quant_bits(&x.s, SIDE, SIDE) / 8;
            measure_codec(b, &x, "quantise", run_quantise, 4 * n + codes, copy);
            measure_codec(b, &x, "fake", run_fake, 8 * n, copy);
            measure_codec(b, &x, "dequantise", run_dequantise, codes + 4 * n, copy);
        }
    }
    arena_free(&a);
    return bench_ok(&e, "codecs");
}

bool bench_quant(const Bench *b)
{
    log_set_level(LOG_ERROR);
    bench_threads(b);
    bool ok = bench_decode(b);
    ok = bench_codec(b) && ok;
    return bench_quant_steps(b) && ok;
}
