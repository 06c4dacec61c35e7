/* tests/test_quantize.c: the number formats against NumPy's and PyTorch's codes (tests/golden/make_codec.py),
 * and quantize_file: what is written decodes to the fake-quantised values, from every format and both
 * containers. */
#include "compress/compress.h"
#include "tests/test.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Gold {
    Arena a;
    Err e;
    TensorFile f;
} Gold;

static void gold_open(Gold *g)
{
    *g = (Gold){.a = {.name = "gold"}};
    if (!formats_open(&g->f, "tests/golden/codec.safetensors", &g->a, &g->e))
        test_fail(__FILE__, __LINE__, "%s", g->e.msg);
}

static const void *raw(const Gold *g, const char *name, size_t *bytes)
{
    const FileTensor *t = formats_find(&g->f, name);
    if (!t) test_fail(__FILE__, __LINE__, "no %s in the fixture", name);
    *bytes = t->bytes;
    return t->data;
}

static void same_bytes(const Gold *g, const char *name, const void *have, size_t bytes)
{
    size_t want_bytes;
    const unsigned char *want = raw(g, name, &want_bytes), *p = have;
    ASSERT_EQ(bytes, want_bytes);
    for (size_t i = 0; i < bytes; i++)
        if (p[i] != want[i])
            test_fail(__FILE__, __LINE__, "%s: byte %zu is %02x, wanted %02x", name, i, p[i], want[i]);
}

TEST(quantize, casts_as_pytorch)
{
    Gold g;
    gold_open(&g);
    size_t bytes;
    const float *x = raw(&g, "cast.x", &bytes);
    const long n = (long)(bytes / 4);
    uint8_t *c = arena_alloc(&g.a, (size_t)n, &g.e);
    for (long i = 0; i < n; i++) c[i] = e4m3_from_f32(x[i]);
    same_bytes(&g, "cast.e4m3", c, (size_t)n);
    for (long i = 0; i < n; i++) c[i] = e5m2_from_f32(x[i]);
    same_bytes(&g, "cast.e5m2", c, (size_t)n);
    formats_close(&g.f);
    arena_free(&g.a);
}

/* Codes and scales of a format, byte for byte. cols: of the matrix w used. */
static void against(Gold *g, const char *key, const QuantSpec *s, long cols)
{
    enum { ROWS = 12, COLS = 160 };
    size_t bytes;
    const float *w = raw(g, "w", &bytes);
    float *x = arena_alloc(&g->a, sizeof *x * ROWS * COLS, &g->e);
    uint8_t *codes = arena_alloc(&g->a, ROWS * COLS, &g->e), *b = arena_alloc(&g->a, ROWS * COLS, &g->e);
    char name[64];
    QuantScales q;
    for (long r = 0; r < ROWS; r++) memcpy(x + r * cols, w + r * COLS, (size_t)cols * sizeof *x);
    quant_scales_alloc(&q, s, ROWS, cols, &g->a, &g->e);
    quant_scales(&q, s, x, ROWS, cols);
    quant_encode(codes, x, s, &q, cols, 0, ROWS);
    const size_t n = (size_t)(q.R * q.G);
    snprintf(name, sizeof name, "%s.codes", key);
    same_bytes(g, name, codes, ROWS * quant_row_bytes(s, cols));
    snprintf(name, sizeof name, "%s.%s", key, s->f->elem == ELEM_NF4 ? "absmax" : "scales");
    if (!formats_find(&g->f, name)) return;
    for (size_t i = 0; i < n; i++)
        b[i] = s->f->scale == SCALE_E8M0 ? e8m0_from_f32(q.scale[i]) : e4m3_from_f32(q.scale[i]);
    if (s->f->scale == SCALE_F32) same_bytes(g, name, q.scale, n * sizeof(float));
    else same_bytes(g, name, b, n);
    if (s->f->scale == SCALE_E4M3) same_bytes(g, "nvfp4.tensor", &q.tensor, sizeof q.tensor);
    if (!s->asymmetric) return;
    for (size_t i = 0; i < n; i++) b[i] = (uint8_t)q.zero[i];
    same_bytes(g, "int4asym.zeros", b, n);
}

TEST(quantize, codes_as_numpy)
{
    Gold g;
    gold_open(&g);
    const QuantFormat *i4 = quant_format("int4"), *mx = quant_format("mxfp4");
    against(&g, "int8", &(QuantSpec){.f = quant_format("int8"), .block_rows = 1}, 160);
    against(&g, "int4", &(QuantSpec){.f = i4, .block_rows = 1, .block_cols = 32}, 160);
    against(&g, "int4full", &(QuantSpec){.f = i4, .block_rows = 1, .block_cols = 32, .full = true}, 160);
    against(&g, "int4asym", &(QuantSpec){.f = i4, .block_rows = 1, .block_cols = 32, .asymmetric = true},
            160);
    against(&g, "fp8_e4m3", &(QuantSpec){.f = quant_format("fp8_e4m3"), .block_rows = 1}, 160);
    against(&g, "nvfp4", &(QuantSpec){.f = quant_format("nvfp4"), .block_rows = 1, .block_cols = 16}, 160);
    against(&g, "mxfp4_floor", &(QuantSpec){.f = mx, .block_rows = 1, .block_cols = 32}, 160);
    against(&g, "mxfp4_ceil", &(QuantSpec){.f = mx, .block_rows = 1, .block_cols = 32, .rule = MX_CEIL}, 160);
    against(&g, "mxfp4_bump", &(QuantSpec){.f = mx, .block_rows = 1, .block_cols = 32, .rule = MX_BUMP_1P75},
            160);
    against(&g, "nf4", &(QuantSpec){.f = quant_format("nf4"), .block_rows = 1, .block_cols = 64}, 128);
    formats_close(&g.f);
    arena_free(&g.a);
}

/* Relative squared error on normal data, quality.md C.1, within 1 %. */
TEST(quantize, errors_on_normal_data)
{
    static const struct {
        const char *format;
        int group, rule;
        bool asymmetric;
        double mse;
    } want[] = {{"nf4", 64, 0, false, 8.456e-3},       {"nf4", 32, 0, false, 7.616e-3},
                {"fp4_e2m1", 32, 0, false, 10.212e-3}, {"int4", 64, 0, false, 11.581e-3},
                {"int4", 32, 0, true, 6.526e-3},       {"nvfp4", 0, 0, false, 9.044e-3},
                {"mxfp4", 0, 0, false, 13.21e-3},      {"mxfp4", 0, 1, false, 13.31e-3},
                {"mxfp4", 0, 2, false, 12.5e-3},       {"mxfp8", 0, 0, false, 0.863e-3},
                {"mxfp8", 0, 1, false, 0.705e-3},      {"fp8_e4m3", -1, 0, false, 0.697e-3},
                {"fp8_e5m2", -1, 0, false, 2.769e-3}};
    enum { R = 3072, C = 1024 };
    Arena a = {.name = "mse"};
    Err e = {0};
    float *x = arena_alloc(&a, sizeof *x * R * C, &e), *y = arena_alloc(&a, sizeof *x * R * C, &e);
    rng_normal_f32(x, R * C, (RngKey){.seed = 11}, 0, 1);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const QuantFormat *f = quant_format(want[i].format);
        QuantSpec s = {
            .f = f, .block_rows = 1, .asymmetric = want[i].asymmetric, .rule = (MxRule)want[i].rule};
        s.block_cols = want[i].group > 0 ? want[i].group : want[i].group < 0 ? 0 : f->block;
        QuantScales q;
        quant_scales_alloc(&q, &s, R, C, &a, &e);
        quant_scales(&q, &s, x, R, C);
        quant_fake(y, x, &s, &q, C, 0, R);
        double err = 0, sig = 0;
        for (long j = 0; j < R * C; j++) {
            err += ((double)y[j] - (double)x[j]) * ((double)y[j] - (double)x[j]);
            sig += (double)x[j] * (double)x[j];
        }
        if (fabs(err / sig / want[i].mse - 1) > 0.01)
            test_fail(__FILE__, __LINE__, "%s rule %d: relative error %.5g, wanted %.5g", want[i].format,
                      want[i].rule, err / sig, want[i].mse);
    }
    arena_free(&a);
}

/* ---- files ---- */
static const char *quantise(const char *in, const char *out, QuantizeConfig *c, QuantizeReport *r, Arena *a,
                            Err *e)
{
    if (!c->method) c->method = "rtn";
    if (!c->granularity) c->granularity = "auto";
    if (!c->scale_rounding) c->scale_rounding = "floor";
    if (!c->range) c->range = "narrow";
    char *path = arena_printf(a, e, "%s/%s", test_dir(), out);
    quantize_file(in, path, c, false, r, a, e);
    return path;
}

static void bag_write(const char *path, Err *e)
{
    static float x[7 * 45], b[9], narrow[3];
    rng_normal_f32(x, 7 * 45, (RngKey){.seed = 2}, 0, 1);
    static const int64_t ids[3] = {1, 2, -3};
    const OutTensor t[] = {{.name = "a.weight", .ndim = 2, .dim = {7, 45}, .src = x, .dtype = DT_F32},
                           {.name = "half", .ndim = 2, .dim = {3, 1}, .src = narrow, .dtype = DT_BF16},
                           {.name = "b.bias", .ndim = 1, .dim = {9}, .src = b, .dtype = DT_F16},
                           {.name = "ids", .ndim = 1, .dim = {3}, .raw = ids, .dtype = DT_I64}};
    formats_write_safetensors(path, &(OutModel){.n = 4, .t = t}, e);
}

TEST(quantize, every_format_both_containers)
{
    static const char *const outs[] = {"o.h5", "o.safetensors"};
    Arena a = {.name = "quantize"};
    Err e = {0};
    char *bag = arena_printf(&a, &e, "%s/bag.safetensors", test_dir());
    bag_write(bag, &e);
    for (int i = 0; i < n_quant_formats; i++)
        for (int o = 0; o < 2; o++)
            for (int asym = 0; asym <= (quant_formats[i].elem == ELEM_INT); asym++) {
                QuantizeConfig c = {.format = quant_formats[i].name,
                                    .symmetric = !asym,
                                    .double_quant = o && quant_formats[i].elem == ELEM_NF4};
                QuantizeReport r;
                const char *path = quantise(bag, outs[o], &c, &r, &a, &e);
                if (e.code) test_fail(__FILE__, __LINE__, "%s to %s: %s", c.format, outs[o], e.msg);
                ASSERT_EQ(r.n, 2);
                TensorFile f;
                ASSERT(formats_open(&f, path, &a, &e));
                ASSERT_EQ(f.n, 4);
                const FileTensor *t = formats_find(&f, "a.weight"), *ids = formats_find(&f, "ids");
                ASSERT(t && t->encoded && ids);
                ASSERT_EQ((int)t->dim[0], 7);
                ASSERT_EQ((int)t->dim[1], 45);
                ASSERT_EQ((int)ids->dtype, (int)DT_I64);
                ASSERT_EQ((long)t->bytes, (long)r.row[0].bytes);
                const double said = quant_bits(&t->encoded->spec, 7, 45),
                             real = 8.0 * (double)t->bytes / (7 * 45);
                ASSERT_CLOSE(said, real, 1e-9, 0);
                formats_close(&f);
            }
    arena_free(&a);
}

/* GPT-2 stores [in,out]: members are [out,in], the model reads the same weights. */
TEST(quantize, conv1d_and_tied)
{
    Arena a = {.name = "quantize"};
    Err e = {0};
    QuantizeConfig c = {.format = "int8", .symmetric = true};
    QuantizeReport r;
    static const char *const outs[] = {"g.h5", "hf"};
    for (int o = 0; o < 2; o++) {
        const char *path = quantise("tests/data/hf-tiny-gpt2", outs[o], &c, &r, &a, &e);
        if (e.code) test_fail(__FILE__, __LINE__, "%s", e.msg);
        Model m, q;
        ASSERT(model_open(&m, "tests/data/hf-tiny-gpt2", kernels_ref_f32(), &a, &e));
        if (!model_open(&q, path, kernels_ref_f32(), &a, &e)) test_fail(__FILE__, __LINE__, "%s", e.msg);
        double worst = 0;
        for (int i = 0; i < m.params.n; i++)
            for (long j = 0; j < t_numel(&m.params.p[i]->w); j++) {
                const double x = (double)((float *)m.params.p[i]->w.data)[j],
                             y = (double)((float *)q.params.p[i]->w.data)[j];
                worst = fmax(worst, fabs(x - y));
            }
        ASSERT(worst > 0 && worst < 0.01);
    }
    arena_free(&a);
}

TEST(quantize, bad_input)
{
    Arena a = {.name = "quantize"};
    Err e = {0};
    QuantizeReport r;
    char *bag = arena_printf(&a, &e, "%s/bag.safetensors", test_dir());
    bag_write(bag, &e);
    static const char *glob[] = {"a.wieght"};
    QuantizeConfig include = {.format = "int4", .symmetric = true, .include = {1, glob}};
    quantise(bag, "x.h5", &include, &r, &a, &e);
    ASSERT_CONTAINS(e.msg, "quantize.include: no tensor matches \"a.wieght\"; the nearest is a.weight");
    e = (Err){0};
    QuantizeConfig group = {.format = "nvfp4", .symmetric = true, .group_size = 32};
    quantise(bag, "x.h5", &group, &r, &a, &e);
    ASSERT_CONTAINS(e.msg, "nvfp4 has blocks of 16");
    e = (Err){0};
    QuantizeConfig zero = {.format = "fp8_e4m3", .symmetric = false};
    quantise(bag, "x.h5", &zero, &r, &a, &e);
    ASSERT_CONTAINS(e.msg, "fp8_e4m3 is symmetric");
    e = (Err){0};
    float bad[8] = {1, 2, NAN};
    char *nan = arena_printf(&a, &e, "%s/nan.safetensors", test_dir());
    const OutTensor t = {.name = "w", .ndim = 2, .dim = {2, 4}, .src = bad, .dtype = DT_F32};
    formats_write_safetensors(nan, &(OutModel){.n = 1, .t = &t}, &e);
    QuantizeConfig plain = {.format = "int8", .symmetric = true};
    const char *out = quantise(nan, "x.h5", &plain, &r, &a, &e);
    ASSERT_CONTAINS(e.msg, "tensor w holds NaN at element 2");
    ASSERT(!file_exists(out));
    arena_free(&a);
}

/* A damaged file: members of the wrong size or missing are named, nothing is opened. */
TEST(quantize, damaged_members)
{
    Arena a = {.name = "quantize"};
    Err e = {0};
    char *path = arena_printf(&a, &e, "%s/d.safetensors", test_dir());
    static uint8_t codes[12];
    static float scales[3] = {1, 1, 1};
    const char *attrs =
        "{\"encoding\":\"int_affine\",\"shape\":[3,8],\"dtype\":\"float32\",\"layout\":\"out_in\","
        "\"bits\":4,\"group_size\":-1,\"symmetric\":true,\"signed\":true,\"range\":\"narrow\"}";
    const OutGroup g = {"w", attrs, 24};
    for (int k = 0; k < 3; k++) {
        const OutTensor t[] = {
            {.name = "w.codes",
             .ndim = 2,
             .dim = {3, k == 1 ? 3 : 4},
             .raw = codes,
             .dtype = DT_U8,
             .member_of = "w"},
            {.name = "w.scales", .ndim = 2, .dim = {3, 1}, .raw = scales, .dtype = DT_F32, .member_of = "w"}};
        const OutModel m = {.n = k == 2 ? 1 : 2, .t = t, .n_group = 1, .group = &g};
        TensorFile f;
        float x[24];
        e = (Err){0};
        ASSERT(formats_write_safetensors(path, &m, &e));
        const bool opened = formats_open(&f, path, &a, &e);
        ASSERT_EQ((int)opened, k == 0);
        ASSERT(!opened || formats_read_f32(&f, formats_find(&f, "w"), x, &e));
        if (k == 1) ASSERT_CONTAINS(e.msg, "member `codes` is U8 of 9 bytes, U8 of 12 bytes is needed");
        if (k == 2) ASSERT_CONTAINS(e.msg, "member `scales` is missing");
        if (opened) formats_close(&f);
    }
    arena_free(&a);
}
