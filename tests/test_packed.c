/* tests/test_packed.c: weights that run packed: a file's codes used as they are give the logits and the
 * tokens of the same file decoded, through the same kernels bit for bit, and hold no more bytes than the
 * file has.
 */
#define _GNU_SOURCE
#include "compress/compress.h"
#include "infer/infer.h"
#include "tests/pare_impl.h"

static const char stories[] = "tests/data/stories/stories260K.bin";

typedef struct Form {
    const char *format, *granularity;
    long group;
    bool symmetric, double_quant;
} Form;
static const Form forms[] = {
    {"int8", "channel", 0, true, false},     {"int8", "tensor", 0, true, false},
    {"int8", "group", 32, false, false},     {"int4", "group", 32, true, false},
    {"int4", "group", 32, false, false},     {"int4", "channel", 0, true, false},
    {"int3", "group", 32, true, false},      {"int2", "group", 16, false, false},
    {"fp8_e4m3", "channel", 0, true, false}, {"fp8_e4m3", "tensor", 0, true, false},
    {"fp8_e4m3", "block", 32, true, false},  {"fp8_e5m2", "tensor", 0, true, false},
    {"fp4_e2m1", "group", 32, true, false},  {"nvfp4", "auto", 0, true, false},
    {"mxfp4", "auto", 0, true, false},       {"mxfp8", "auto", 0, true, false},
    {"nf4", "auto", 0, true, false},         {"nf4", "auto", 0, true, true},
};
enum { N_FORMS = (int)(sizeof forms / sizeof *forms) };

/* in under a format, as out in the test's folder. include NULL: the linear matrices. */
static const char *made(const char *in, const char *out, const Form *f, const char *include)
{
    Arena a = {.name = "made"};
    Err e = {0};
    QuantizeReport r;
    QuantizeConfig c = {.method = "rtn",
                        .format = f->format,
                        .granularity = f->granularity,
                        .group_size = f->group,
                        .scale_rounding = "floor",
                        .range = "narrow",
                        .symmetric = f->symmetric,
                        .double_quant = f->double_quant,
                        .include = {include != NULL, &include}};
    const char *path = in_dir(out);
    if (!quantize_file(in, path, &c, false, &r, &a, &e)) test_fail(__FILE__, __LINE__, "%s", e.msg);
    arena_free(&a);
    return path;
}

typedef struct Bed {
    Arena a;
    Err e;
    Model m;
    Graph *g;
    Tensor *ids, *z;
} Bed;

static void bed_open(Bed *b, const char *path, bool packed, const Kernels *k)
{
    *b = (Bed){.a = {.name = packed ? "packed" : "dense"}};
    if (!(packed ? model_open_packed : model_open_frozen)(&b->m, path, k, &b->a, &b->e))
        test_fail(__FILE__, __LINE__, "%s", b->e.msg);
}

/* Logits (T,V) of a fixed sequence. */
static const float *logits(Bed *b, long T)
{
    b->g = graph_new(&(GraphOptions){.k = b->m.params.k, .run = &b->a}, &b->e);
    b->ids = graph_input(b->g, "ids", DT_I32, 2, (long[]){1, T});
    Tensor *pos = graph_input(b->g, "pos", DT_I32, 2, (long[]){1, T});
    Tensor *h = model_hidden(b->g, &b->m, &(ModelInputs){.ids = b->ids, .pos = pos});
    b->z = model_logits(b->g, &b->m, h);
    graph_keep(b->g, b->z);
    if (!graph_plan(b->g, &b->e)) test_fail(__FILE__, __LINE__, "%s", b->e.msg);
    for (long t = 0; t < T; t++) {
        ((int32_t *)b->ids->data)[t] = (int32_t)((t * 37 + 11) % b->m.spec.V);
        ((int32_t *)pos->data)[t] = (int32_t)t;
    }
    graph_forward(b->g);
    return b->z->data;
}

static void bed_close(Bed *b)
{
    graph_free(b->g);
    model_close(&b->m);
    arena_free(&b->a);
}

/* Largest difference of the logits, as a share of the largest logit; 0 = the same bits. */
static double apart(const char *path, long T, const Kernels *k, int *n_packed)
{
    Bed p, d;
    bed_open(&p, path, true, k);
    bed_open(&d, path, false, k);
    const float *x = logits(&p, T), *y = logits(&d, T);
    const long n = T * p.m.spec.V;
    double worst = 0, top = 0;
    for (long i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
        top = fmax(top, fabs((double)y[i]));
        ASSERT(isfinite(x[i]) && isfinite(y[i]));
    }
    if (worst == 0) ASSERT(!memcmp(x, y, (size_t)n * sizeof *x));
    *n_packed = p.m.n_packed;
    ASSERT_EQ(d.m.n_packed, 0);
    bed_close(&p);
    bed_close(&d);
    return worst / top;
}

/* From eight rows on, codes are decoded and multiplied by the kernels of floats: the same bits. Builtin
 * products are the same under any cut, a library's need not be. */
TEST(packed, decoded_rows_give_the_same_bits)
{
    for (int i = 0; i < N_FORMS; i++)
        for (int o = i % 4 != 0; o < 2; o++) {
            const char *path = made(stories, text_of(o ? "hf%d" : "m%d.h5", i), &forms[i], NULL);
            int n = 0;
            for (int isa = i % 3 ? (int)cpu_isa() : ISA_PORTABLE; isa <= (int)cpu_isa(); isa++) {
                const double far = apart(path, 16, kernels_isa_f32(isa, "builtin"), &n);
                ASSERT_MSG(far == 0, "%s %s %ld: logits differ by %g", forms[i].format, forms[i].granularity,
                           forms[i].group, far);
            }
            ASSERT_EQ(n, 35);
            ASSERT(apart(path, 16, kernels_cpu_f32(), &n) <= 1e-5);
        }
}

/* Fewer are multiplied with the codes: sums in another order. */
TEST(packed, codes_multiplied_stay_close)
{
    for (int i = 0; i < N_FORMS; i++) {
        const char *path = made(stories, text_of("m%d.h5", i), &forms[i], NULL);
        int n = 0;
        for (int isa = i % 3 ? (int)cpu_isa() : ISA_PORTABLE; isa <= (int)cpu_isa(); isa++)
            for (long T = 1 + i % 2; T < 8; T += 5) {
                const double far = apart(path, T, kernels_isa_f32(isa, "builtin"), &n);
                ASSERT_MSG(far <= 1e-5, "%s %s, %ld rows on %s: logits differ by %g", forms[i].format,
                           forms[i].granularity, T, isa_name((Isa)isa), far);
            }
        ASSERT_EQ(n, 35);
    }
}

/* GPT-2 files hold [in,out], codes lie [out,in]; a quantised head and a quantised table beside it. */
TEST(packed, other_families_and_whole_models)
{
    static const char *const model[] = {"hf-tiny-gpt2", "hf-tiny-llama", "hf-tiny-qwen2", "hf-tiny-gemma2"};
    for (int i = 0; i < 4; i++)
        for (int all = 0; all < 2; all++) {
            const Form f = {"int8", "channel", 0, true, false};
            const char *in = text_of("tests/data/%s", model[i]);
            const char *path = made(in, text_of("%s%d.h5", model[i], all), &f, all ? "*.weight" : NULL);
            int n = 0;
            const double far = apart(path, 12, kernels_isa_f32((int)cpu_isa(), "builtin"), &n);
            ASSERT_MSG(far == 0 && n > 0, "%s: %g, %d", model[i], far, n);
            ASSERT(apart(path, 3, kernels_cpu_f32(), &n) <= 1e-5);
        }
}

/* What is held, counted by the arena: no more than the file's codes and scales and what is not coded. */
TEST(packed, no_more_bytes_than_the_file)
{
    static const Form small[] = {{"int4", "group", 32, true, false},
                                 {"nvfp4", "auto", 0, true, false},
                                 {"nf4", "auto", 0, true, true},
                                 {"mxfp4", "auto", 0, true, false},
                                 {"int4", "group", 32, false, false}};
    for (int i = 0; i < 5; i++) {
        const char *path = made(stories, text_of("m%d.h5", i), &small[i], NULL);
        Arena a = {.name = "file"};
        Err e = {0};
        TensorFile f;
        ASSERT(formats_open(&f, path, &a, &e));
        int64_t coded = 0, floats = 0, whole = 0;
        for (int t = 0; t < f.n; t++) {
            if (f.t[t].encoded) coded += (int64_t)f.t[t].bytes;
            if (f.t[t].encoded) whole += 4 * f.t[t].dim[0] * f.t[t].dim[1];
            else floats += (int64_t)f.t[t].bytes;
        }
        formats_close(&f);
        Bed p, d;
        bed_open(&p, path, true, kernels_cpu_f32());
        bed_open(&d, path, false, kernels_cpu_f32());
        const WeightBytes b = model_weight_bytes(&p.m);
        ASSERT_EQ(b.n_packed, 35);
        ASSERT_EQ((long)b.packed, (long)coded);
        ASSERT_EQ((long)b.dense, (long)floats);
        /* names and headers take as much in both; a coded matrix has its description on top */
        const int64_t names = (int64_t)d.a.used - (whole + floats - d.m.mapped_bytes);
        const int64_t held = (int64_t)p.a.used + p.m.mapped_bytes + p.m.packed_bytes - names;
        ASSERT_MSG(held <= coded + floats + 35 * 640,
                   "%s: %ld bytes held, the file has %ld of codes and %ld others", small[i].format,
                   (long)held, (long)coded, (long)floats);
        ASSERT(whole > 5 * coded);
        /* and while it generates: what came on top is the same or less than for floats, scratch rows apart */
        int32_t id = 1;
        Session *sp = session_new(&p.m, 40, &p.a, &p.e), *sd = session_new(&d.m, 40, &d.a, &d.e);
        const int64_t before = (int64_t)p.a.used;
        for (int t = 0; t < 24; t++) ASSERT(session_feed(sp, &id, 1, &p.e) && session_feed(sd, &id, 1, &d.e));
        ASSERT_MSG((int64_t)p.a.used - before < whole / 4, "%ld bytes more",
                   (long)((int64_t)p.a.used - before));
        session_free(sp);
        session_free(sd);
        bed_close(&p);
        bed_close(&d);
        arena_free(&a);
    }
}

/* Greedy continuation of a prompt, its logits at the end copied out. */
static void continued(const char *path, bool packed, int threads, int32_t *out, long n, float *last)
{
    Bed b;
    threads_init(threads);
    bed_open(&b, path, packed, kernels_cpu_f32());
    Session *s = session_new(&b.m, n + 24, &b.a, &b.e);
    int32_t prompt[20] = {1};
    for (int i = 1; i < 20; i++) prompt[i] = 260 + 3 * i;
    ASSERT(s && session_feed(s, prompt, 20, &b.e));
    for (long i = 0; i < n; i++) {
        b.m.params.k->argmax(&out[i], session_logits(s), 1, b.m.spec.V);
        ASSERT(session_feed(s, &out[i], 1, &b.e));
    }
    memcpy(last, session_logits(s), (size_t)b.m.spec.V * sizeof *last);
    session_free(s);
    bed_close(&b);
}

TEST(packed, tokens_of_the_decoded_model_and_bits_of_itself)
{
    enum { N = 30, V = 512 };
    int32_t p[N], d[N], again[N];
    float lp[V], ld[V], la[V];
    for (int i = 0; i < N_FORMS; i++) {
        const char *path = made(stories, text_of("m%d.h5", i), &forms[i], NULL);
        continued(path, true, 1, p, N, lp);
        continued(path, false, 1, d, N, ld);
        ASSERT_MSG(!memcmp(p, d, sizeof p), "%s: other tokens", forms[i].format);
        for (int threads = 1 + i % 3 % 2; threads <= 2; threads++) {
            continued(path, true, threads, again, N, la);
            ASSERT(!memcmp(p, again, sizeof p) && !memcmp(lp, la, sizeof lp));
        }
    }
}

/* Rows wide enough for several threads, few rows of x. */
TEST(packed, threads_do_not_change_products)
{
    enum { R = 301, C = 704 };
    Arena a = {.name = "threads"};
    Err e = {0};
    float *w = arena_alloc(&a, sizeof *w * R * C, &e), *x = arena_alloc(&a, sizeof *x * 7 * C, &e);
    float *y[2] = {arena_alloc(&a, sizeof **y * 7 * R, &e), arena_alloc(&a, sizeof **y * 7 * R, &e)};
    rng_normal_f32(w, (size_t)R * C, (RngKey){.seed = 5}, 0, 1);
    rng_normal_f32(x, (size_t)7 * C, (RngKey){.seed = 6}, 0, 1);
    for (int i = 0; i < n_quant_formats; i++) {
        const QuantSpec s = {.f = &quant_formats[i], .block_rows = 1, .block_cols = quant_formats[i].group};
        QuantScales q;
        uint8_t *codes = arena_alloc(&a, R * quant_row_bytes(&s, C), &e);
        ASSERT(quant_scales_alloc(&q, &s, R, C, &a, &e));
        quant_scales(&q, &s, w, R, C);
        quant_encode(codes, w, &s, &q, C, 0, R);
        for (int threads = 1; threads <= 2; threads++) {
            threads_init(threads);
            kernels_cpu_f32()->coded_dot(y[threads - 1], x, codes, &s, &q, 7, R, C);
        }
        ASSERT_MSG(!memcmp(y[0], y[1], sizeof **y * 7 * R), "%s", quant_formats[i].name);
    }
    arena_free(&a);
}

/* Masked, then quantised: zeros are codes of zero, and stay zeros. */
TEST(packed, masked_weights_stay_masked)
{
    const char *sparse = in_dir("sparse.h5");
    Pare p = PARE(ARGS("prune", stories, sparse, "--sparsity", "0.75"));
    ASSERT_RAN(p, 0);
    static const Form some[] = {{"int4", "group", 32, false, false},
                                {"nf4", "auto", 0, true, false},
                                {"nvfp4", "auto", 0, true, false}};
    for (int i = 0; i < 3; i++) {
        const char *path = made(sparse, text_of("s%d.h5", i), &some[i], NULL);
        int n = 0;
        ASSERT(apart(path, 16, kernels_isa_f32((int)cpu_isa(), "builtin"), &n) == 0 && n == 35);
        ASSERT(apart(path, 1, kernels_cpu_f32(), &n) <= 1e-5);
        Bed b;
        bed_open(&b, path, true, kernels_cpu_f32());
        const Param *w = params_find(&b.m.params, "model.layers.0.mlp.up_proj.weight");
        const float *v = model_floats(&b.m, w, &b.a, &b.e);
        long zeros = 0;
        for (long j = 0; j < t_numel(&w->w); j++) zeros += v[j] == 0;
        ASSERT(zeros >= t_numel(&w->w) * 3 / 4);
        bed_close(&b);
    }
    /* stored without its zeros: decoded, not packed */
    int n = -1;
    ASSERT(apart(sparse, 3, kernels_cpu_f32(), &n) == 0 && n == 0);
}

static void adapt(Bed *b, Lora *l, const char *path, bool packed, const char *adapter)
{
    bed_open(b, path, packed, kernels_isa_f32((int)cpu_isa(), "builtin"));
    Lora *all[1] = {l};
    *l = (Lora){0};
    if (!lora_load(l, &b->m, adapter, "a", true, &b->e) || !lora_use(all, 1, (int[]){0}, 1, &b->e))
        test_fail(__FILE__, __LINE__, "%s", b->e.msg);
}

/* Adapters beside codes; plus brings a whole head, which then counts instead of its codes, until it is
 * taken off. */
TEST(packed, adapters_on_codes)
{
    static const char *const adapter[] = {"lora", "dora", "plus", "head"};
    const Form f = {"int8", "channel", 0, true, false};
    const char *path = made("tests/data/hf-tiny-llama", "base.h5", &f, "*.weight");
    for (int i = 0; i < 4; i++) {
        Bed p, d;
        Lora lp, ld;
        const char *from = text_of("tests/data/peft/%s", adapter[i]);
        adapt(&p, &lp, path, true, from);
        adapt(&d, &ld, path, false, from);
        const float *x = logits(&p, 12), *y = logits(&d, 12);
        ASSERT_MSG(!memcmp(x, y, sizeof *x * (size_t)(12 * p.m.spec.V)), "%s", adapter[i]);
        graph_free(p.g);
        graph_free(d.g);
        Lora *off[1] = {&lp}, *other[1] = {&ld};
        ASSERT(lora_use(off, 1, NULL, 0, &p.e) && lora_use(other, 1, NULL, 0, &d.e));
        x = logits(&p, 12);
        y = logits(&d, 12);
        ASSERT_MSG(!memcmp(x, y, sizeof *x * (size_t)(12 * p.m.spec.V)), "%s off", adapter[i]);
        ASSERT_STR(model_content_hash(&p.m, &p.a, &p.e), model_content_hash(&d.m, &d.a, &d.e));
        bed_close(&p);
        bed_close(&d);
    }
}

/* Two adapters inside one coded head, and codes beside a mask, which are refused by their name. */
TEST(packed, two_adapters_on_a_coded_head)
{
    const Form f = {"int8", "channel", 0, true, false};
    const char *path = made("tests/data/hf-tiny-llama", "base.h5", &f, "*.weight"),
               *head = "tests/data/peft/head";
    const float *z[2];
    Bed b[2];
    for (int i = 0; i < 2; i++) {
        Lora one, two, *all[2] = {&one, &two};
        bed_open(&b[i], path, !i, kernels_isa_f32((int)cpu_isa(), "builtin"));
        ASSERT(lora_load(&one, &b[i].m, head, "a", true, &b[i].e) &&
               lora_load(&two, &b[i].m, head, "b", true, &b[i].e));
        one.n_saved = two.n_saved = 0; /* the base's head, which peft puts beside an adapter of it */
        ASSERT_MSG(lora_use(all, 2, (int[]){0, 1}, 2, &b[i].e), "%s", b[i].e.msg);
        z[i] = logits(&b[i], 12);
        if (i) continue;
        Site *s = model_site(&b[i].m, "lm_head");
        ASSERT(lora_use(all, 2, NULL, 0, &b[i].e) && s->q && !s->n_wx);
        s->wx[s->n_wx++] = (Attachment){.kind = "mask"};
        ASSERT(!lora_use(all, 2, (int[]){0}, 1, &b[i].e));
        ASSERT(strstr(b[i].e.msg, "lm_head is kept as codes and is pruned or quantised in training"));
    }
    ASSERT(!memcmp(z[0], z[1], sizeof **z * (size_t)(12 * b[0].m.spec.V)));
    bed_close(&b[0]);
    bed_close(&b[1]);
}

/* A safetensors file has no hash of a tensor: one byte of a member changed. */
static void spoil(const char *path, const char *tensor, const char *member, uint8_t byte)
{
    Arena a = {.name = "spoil"};
    Err e = {0};
    TensorFile f;
    ASSERT(formats_open(&f, path, &a, &e));
    const EncodedTensor *c = formats_find(&f, tensor)->encoded;
    long at = -1;
    for (int i = 0; i < c->n_member; i++)
        if (!strcmp(c->member[i].name, member)) at = (long)(c->member[i].data - f.map[0].data) + 3;
    formats_close(&f);
    arena_free(&a);
    int fd = open(path, O_WRONLY);
    ASSERT(at > 0 && fd >= 0 && pwrite(fd, &byte, 1, at) == 1);
    close(fd);
}

/* A header's entries: the codes of n bytes, and behind them floats. */
#define U8(n) "\"w.codes\":{\"dtype\":\"U8\",\"shape\":[" #n "],\"data_offsets\":[0," #n "]}"
#define F32(name, shape, from, to)                                                                           \
    ",\"w." name "\":{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" #from "," #to "]}"

TEST(packed, refuses_what_is_no_number)
{
    static const struct {
        const char *format, *member;
        uint8_t byte;
    } bad[] = {
        {"fp8_e4m3", "codes", 0xFF},    {"fp8_e5m2", "codes", 0x7C},
        {"mxfp4", "scales_e8m0", 0xFF}, {"nvfp4", "scales_e4m3", 0x7F},
        {"int8", "scales", 0x7F},       {"int4", "scales", 0x7C}}; /* finite times 15, infinite times 255 */
    for (int i = 0; i < 6; i++) {
        const bool wide = i == 5;
        const Form f = {bad[i].format, wide ? "channel" : "auto", 0, !wide, false};
        const char *path = made(stories, text_of("b%d", i), &f, NULL);
        Bed b = {.a = {.name = "bad"}};
        ASSERT(model_open_packed(&b.m, path, kernels_cpu_f32(), &b.a, &b.e));
        model_close(&b.m);
        spoil(text_of("%s/model.safetensors", path), "model.layers.1.mlp.up_proj.weight", bad[i].member,
              bad[i].byte);
        const bool opened = model_open_packed(&b.m, path, kernels_cpu_f32(), &b.a, &b.e);
        ASSERT_MSG(!opened && strstr(b.e.msg, "model.layers.1.mlp.up_proj.weight"), "%s", bad[i].format);
        arena_free(&b.a);
    }
}

/* A file's own sizes of blocks index its scales: what they cannot be is refused when it is opened. */
TEST(packed, refuses_impossible_blocks)
{
    static const struct {
        const char *attrs, *members, *says;
        int bytes;
    } bad[] = {{"fp8_e4m3fn\\\",\\\"block_rows\\\":-1,\\\"block_cols\\\":1",
                U8(16) F32("scales", "1,4", 16, 32), "quantise it again", 32},
               {"fp8_e4m3fn\\\",\\\"block_rows\\\":1,\\\"block_cols\\\":-4",
                U8(16) F32("scales", "4,1", 16, 32), "quantise it again", 32},
               {"nf4\\\",\\\"block_size\\\":9223372036854775807",
                U8(0) F32("absmax", "0", 0, 0) F32("levels", "16", 0, 64), "quantise it again", 64},
               {"nf4\\\",\\\"block_size\\\":0", U8(0) F32("absmax", "4,1", 0, 16) F32("levels", "16", 16, 80),
                "quantise it again", 80},
               {"fp8_e4m3fn\\\",\\\"block_cols\\\":4", U8(0) F32("scales", "4,1", 0, 16), "`codes`", 16},
               {"fp8_e4m3fn\\\",\\\"block_cols\\\":4", U8(16) F32("scales", "2,1", 16, 24), "`scales`", 24}};
    for (int i = 0; i < (int)(sizeof bad / sizeof *bad); i++) {
        const char *head = text_of(
            "{\"__metadata__\":{\"w\":\"{\\\"shape\\\":[4,4],\\\"encoding\\\":\\\"%s}\"},%s}", bad[i].attrs,
            bad[i].members);
        const size_t n = strlen(head);
        char file[1024] = {(char)(n & 255), (char)(n >> 8)};
        ASSERT(8 + n + (size_t)bad[i].bytes <= sizeof file);
        memcpy(file + 8, head, n);
        put_file(in_dir("bad.safetensors"), file, 8 + n + (size_t)bad[i].bytes);
        Arena a = {.name = "bad"};
        Err e = {0};
        TensorFile f;
        const bool opened = formats_open(&f, in_dir("bad.safetensors"), &a, &e);
        ASSERT_MSG(!opened && strstr(e.msg, "tensor `w`") && strstr(e.msg, bad[i].says), "%d: %s", i, e.msg);
        arena_free(&a);
    }
}

/* A head that something hangs on is decoded once, however often a graph is recorded. */
TEST(packed, a_decoded_matrix_is_kept)
{
    const Form f = {"int8", "channel", 0, true, false};
    Bed b;
    bed_open(&b, made("tests/data/hf-tiny-llama", "base.h5", &f, "*.weight"), true, kernels_cpu_f32());
    Site *s = model_site(&b.m, "lm_head");
    ASSERT(s && s->q);
    b.g = graph_new(&(GraphOptions){.k = b.m.params.k, .run = &b.a}, &b.e);
    Tensor *one = site_weight(b.g, s);
    const size_t used = b.a.used;
    Tensor *two = site_weight(b.g, s);
    ASSERT(one && two && one->data == two->data && b.a.used - used < (size_t)(s->q->rows * s->q->cols));
    bed_close(&b);
}

TEST(packed, the_program_says_so)
{
    const Form f = {"nf4", "auto", 0, true, false};
    const char *path = made(stories, "m.h5", &f, NULL), *tok = "tests/data/stories/tok512.model";
    Pare p = PARE(ARGS("generate", path, "--tokenizer", tok, "--temp", "0", "-n", "20", "-p", "Once upon")),
         d = PARE(ARGS("generate", path, "--tokenizer", tok, "--temp", "0", "-n", "20", "-p", "Once upon",
                       "--dense"));
    ASSERT_RAN(p, 0);
    ASSERT_RAN(d, 0);
    ASSERT_STR(p.out, d.out);
    ASSERT_CONTAINS(p.err, "35 matrices run packed");
    ASSERT(!strstr(d.err, "packed"));
    Pare j = PARE(ARGS("generate", path, "--tokenizer", tok, "-n", "4", "--json"));
    ASSERT_RAN(j, 0);
    const json_t *o = one_object(j.out);
    ASSERT(field(o, "packed_bytes") > 100e3 && field(o, "packed_bytes") < 200e3 &&
           field(o, "dense_bytes") > 100e3);
    Pare i = PARE(ARGS("inspect", path));
    ASSERT_RAN(i, 0);
    ASSERT_CONTAINS(i.out, "35 run packed");
    Pare e = PARE(
        ARGS("eval", path, "--data", "README.md", "--tokenizer", tok, "--set", "eval.max_batches=1"));
    ASSERT_RAN(e, 0);
}
