/* tests/test_qat_tables.c: quantised and masked embedding tables: what is looked up, what a tied head reads
 * and what the file holds are one tensor; plain files of tensors through `pare prune` and `pare quantize`. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }

typedef struct Held {
    bool encoded;
    char encoding[24];
    long n, zeros, values; /* values: different ones in the first row */
} Held;

static Held held(const char *path, const char *name)
{
    Arena a = {.name = "file"};
    Err e = {0};
    TensorFile f;
    int64_t d[4];
    ASSERT(formats_open(&f, path, &a, &e));
    const FileTensor *t = formats_find(&f, name);
    ASSERT_MSG(t != NULL, "%s has no %s", path, name);
    formats_dims(t, d);
    Held h = {.encoded = t->encoded != NULL, .n = (long)(d[0] * d[1])};
    if (h.encoded) snprintf(h.encoding, sizeof h.encoding, "%s", t->encoded->encoding);
    float *w = arena_alloc(&a, (size_t)h.n * sizeof *w, &e);
    ASSERT(formats_read_f32(&f, t, w, &e));
    for (long i = 0; i < h.n; i++) h.zeros += w[i] == 0;
    for (long i = 0; i < d[1]; i++) {
        bool seen = false;
        for (long j = 0; j < i; j++) seen = seen || w[j] == w[i];
        h.values += !seen;
    }
    formats_close(&f);
    arena_free(&a);
    return h;
}

/* Runs three steps and exports; the export itself compares values and logits with training's. */
static const char *exported(const char *name, const char *const *more)
{
    char *d = tiny_dir(name);
    const char *args[32] = {"train", "c.yaml", "train.max_steps=3", "+export=[{format: hdf5, path: m.h5}]"};
    for (int i = 0; more[i]; i++) args[i + 4] = more[i];
    Pare p = pare_run(&(PareOptions){.dir = d, .args = args});
    ASSERT_RAN(p, 0);
    return in(d, "run/export/m.h5");
}

#define EMBED "model.embed_tokens.weight"

TEST(qat_tables, embedding_alone)
{
    const char *file = exported("u", (const char *const[]){"qat.enabled=true", "qat.weight=int4",
                                                           "qat.quantize_embedding=true", NULL});
    const Held e = held(file, EMBED);
    ASSERT(e.encoded && e.values <= 15);
    ASSERT(!held(file, "lm_head.weight").encoded);
    file = exported("off", (const char *const[]){"qat.enabled=true", "qat.weight=int4", NULL});
    ASSERT(!held(file, EMBED).encoded);
}

/* A tied head goes with its table, whoever of the two asked; formats whose scale spans the table too. */
TEST(qat_tables, tied)
{
    static const char *const ask[] = {"qat.quantize_embedding=true", "qat.quantize_lm_head=true"};
    static const char *const format[] = {"qat.weight=nvfp4", "qat.weight=int8"};
    for (int i = 0; i < 4; i++) {
        const char *file = exported(
            text_of("t%d", i),
            (const char *const[]){"model.init.tie_word_embeddings=true", "qat.enabled=true", ask[i % 2],
                                  format[i / 2], i == 2 ? "qat.scale_update=delayed" : "run.seed=4",
                                  i == 3 ? "qat.scale_update=learned" : "run.seed=4", NULL});
        ASSERT(held(file, EMBED).encoded);
    }
}

TEST(qat_tables, positions_of_gpt2)
{
    const char *file = exported("g",
                                (const char *const[]){"model.init.arch=gpt2", "qat.enabled=true",
                                                      "model.init.num_key_value_heads=0", "qat.weight=int8",
                                                      "qat.quantize_embedding=true", NULL});
    ASSERT(held(file, "transformer.wte.weight").encoded && held(file, "transformer.wpe.weight").encoded);
}

/* By rule: another format for the table, or not at all. A training state reads as what it computes with. */
TEST(qat_tables, rules_and_states)
{
    const char *file = exported(
        "r", (const char *const[]){"qat.enabled=true", "qat.weight=int4", "qat.quantize_embedding=true",
                                   "qat.rules=[{match: '*embed_tokens*', weight: fp8_e4m3}]", NULL});
    ASSERT_STR(held(file, EMBED).encoding, "fp8_e4m3fn");
    Pare p = PARE(.dir = in_dir("r"),
                  ARGS("compare", "run/checkpoints/step_00000003.h5", "run/export/m.h5", "--json"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "\"all_equal\": true");
    file = exported("n",
                    (const char *const[]){"qat.enabled=true", "qat.quantize_embedding=true",
                                          "qat.rules=[{match: '*embed_tokens*', enabled: false}]", NULL});
    ASSERT(!held(file, EMBED).encoded);
    p = PARE(.dir = tiny_dir("l"), ARGS("train", "c.yaml", "qat.enabled=true", "qat.quantize_embedding=true",
                                        "lora.enabled=true", "lora.target_modules=[embed_tokens]"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "its table is masked or quantised in training");
}

/* A masked table: zeros in the file, once, for both uses; behind the mask a quantiser. */
TEST(qat_tables, masked)
{
    for (int i = 0; i < 3; i++) {
        const char *file = exported(
            text_of("m%d", i),
            (const char *const[]){i ? "model.init.tie_word_embeddings=true" : "run.seed=3",
                                  "prune.enabled=true", "prune.schedule=oneshot", "prune.sparsity=0.4",
                                  "prune.include=[embed_tokens, linear]", "prune.exclude=[norms]",
                                  i == 2 ? "qat.enabled=true" : "qat.enabled=false", "qat.weight=int8",
                                  "qat.quantize_embedding=true", NULL});
        const Held e = held(file, EMBED);
        const long kept = (long)rint((double)e.n * 0.6);
        ASSERT_MSG(i == 2 ? e.zeros >= e.n - kept : e.zeros == e.n - kept, "%ld of %ld are zero", e.zeros,
                   e.n);
    }
}

/* ---- files without a config ---- */
static char *plain_file(const char *dir)
{
    static float w[24 * 20], b[20], u[6 * 8];
    static int64_t ids[3] = {4, 5, 6};
    rng_normal_f32(w, 24 * 20, (RngKey){.seed = 1, .stream = 1}, 0, 1);
    rng_normal_f32(b, 20, (RngKey){.seed = 1, .stream = 2}, 0, 1);
    rng_normal_f32(u, 6 * 8, (RngKey){.seed = 1, .stream = 3}, 0, 1);
    static float half[8 * 12];
    rng_normal_f32(half, 8 * 12, (RngKey){.seed = 1, .stream = 4}, 0, 1);
    const OutTensor t[] = {
        {.name = "encoder.w", .ndim = 2, .dim = {24, 20}, .src = w, .dtype = DT_F32},
        {.name = "encoder.b", .ndim = 1, .dim = {20}, .src = b, .dtype = DT_F32},
        {.name = "fc.weight", .ndim = 2, .dim = {8, 12}, .src = half, .dtype = DT_BF16},
        {.name = "ids", .ndim = 1, .dim = {3}, .raw = ids, .dtype = DT_I64},
        {.name = "norm.weight", .ndim = 2, .dim = {6, 8}, .src = u, .dtype = DT_F32},
    };
    Err e = {0};
    char *path = in(dir, "plain.safetensors");
    if (!formats_write_safetensors(path, &(OutModel){.n = 5, .t = t}, &e))
        test_fail(__FILE__, __LINE__, "%s", e.msg);
    return path;
}

TEST(qat_tables, plain_files_are_pruned)
{
    char *d = make_dir("plain");
    plain_file(d);
    static const char *const out[] = {"p.safetensors", "p.h5"};
    for (int i = 0; i < 2; i++) {
        Pare p = PARE(.dir = d, ARGS("prune", "plain.safetensors", out[i], "--sparsity", "0.3", "--json"));
        ASSERT_RAN(p, 0);
        ASSERT_EQ(held(in(d, out[i]), "encoder.w").zeros, 480 - (long)rint(480 * 0.7));
        ASSERT_EQ(held(in(d, out[i]), "fc.weight").zeros, 96 - (long)rint(96 * 0.7));
        ASSERT_EQ(held(in(d, out[i]), "norm.weight").zeros, 0);
        p = PARE(.dir = d, ARGS("compare", "plain.safetensors", out[i], "--json"));
        ASSERT_CONTAINS(p.out, "\"name\": \"ids\", \"max_abs\": 0");
    }
    Pare p = PARE(.dir = d, ARGS("prune", "plain.safetensors", "two.safetensors", "--structure", "2:4",
                                 "--include", "encoder.w"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(held(in(d, "two.safetensors"), "encoder.w").zeros, 240);
    ASSERT_EQ(held(in(d, "two.safetensors"), "fc.weight").zeros, 0);
    static const struct {
        const char *arg[2], *want;
    } bad[] = {{{"--method", "wanda"}, "has no config.json"},
               {{"--structure", "head"}, "nobody knows which tensors"},
               {{"--include", "encodr.w"}, "the nearest is encoder.w"}};
    for (int i = 0; i < 3; i++) {
        p = PARE(.dir = d, ARGS("prune", "plain.safetensors", "x.h5", bad[i].arg[0], bad[i].arg[1]));
        ASSERT_RAN(p, 2);
        ASSERT_CONTAINS(p.err, bad[i].want);
        ASSERT(!exists(in(d, "x.h5")));
    }
}

/* NaN has no place in an order, 18 inputs none in a pattern of fours, codes and masks none in other
 * formats. */
TEST(qat_tables, plain_files_that_are_refused)
{
    char *d = make_dir("plain");
    static float w[6 * 18];
    rng_normal_f32(w, 6 * 18, (RngKey){.seed = 1, .stream = 1}, 0, 1);
    Err e = {0};
    OutTensor t = {.name = "w", .ndim = 2, .dim = {6, 18}, .src = w, .dtype = DT_F32};
    ASSERT(formats_write_safetensors(in(d, "wide.safetensors"), &(OutModel){.n = 1, .t = &t}, &e));
    w[40] = NAN;
    ASSERT(formats_write_safetensors(in(d, "nan.safetensors"), &(OutModel){.n = 1, .t = &t}, &e));
    static const struct {
        const char *arg[6], *want;
        int rc;
    } bad[] = {
        {{"prune", "nan.safetensors", "x.h5"}, "score of element 40 is NaN", 1},
        {{"quantize", "nan.safetensors", "x.h5"}, "holds NaN at element 40", 3},
        {{"prune", "wide.safetensors", "x.h5", "--structure", "2:4"},
         "18 inputs, which 4 does not divide",
         2},
        {{"prune", "wide.safetensors", "x.h5", "--sparsity", "1"}, "1 is out of range", 2},
        {{"prune", "wide.safetensors", "x.gguf"}, "a .gguf file cannot hold", 2},
        {{"quantize", "wide.safetensors", "x.gguf"}, "a .gguf file cannot hold", 2},
        {{"quantize", "wide.safetensors", "x.bin"}, "a .bin file cannot hold", 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *const *a = bad[i].arg;
        Pare p = PARE(.dir = d, ARGS(a[0], a[1], a[2], a[3], a[4]));
        ASSERT_RAN(p, bad[i].rc);
        ASSERT_CONTAINS(p.err, bad[i].want);
        ASSERT(!exists(in(d, a[2])));
    }
}

/* Masks of another model: the tensor and its shape are named. */
TEST(qat_tables, masks_of_another_shape)
{
    Arena a = {.name = "masks"};
    Err e = {0};
    Model m, other;
    Prune p, q;
    static const char *exclude[] = {"embed_tokens", "lm_head", "norms"};
    const PruneConfig c = {.enabled = true,
                           .method = "magnitude",
                           .structure = "unstructured",
                           .schedule = "oneshot",
                           .scope = "layer",
                           .sparsity = 0.5,
                           .every_steps = 1,
                           .exclude = {3, exclude}};
    const Kernels *k = kernels_ref_f32();
    ASSERT(model_open(&m, repo("tests/data/hf-tiny-llama"), k, &a, &e) &&
           prune_open(&p, &c, &m, 1, NULL, &e));
    ASSERT(prune_write_masks(&p, in_dir("m.h5"), &a, &e));
    ASSERT(model_open(&other, repo("tests/data/stories/stories260K.bin"), k, &a, &e) &&
           prune_open(&q, &c, &other, 1, NULL, &e));
    H5In *h = h5_open(in_dir("m.h5"), false, &a, &e);
    ASSERT(h && !prune_carry(&q, h, &a, &e));
    ASSERT_CONTAINS(e.msg, "model.layers.0.self_attn.q_proj.weight");
    ASSERT_CONTAINS(e.msg, "the mask has another shape than the tensor");
    h5_close(h);
    arena_free(&a);
}

TEST(qat_tables, plain_files_are_quantised)
{
    char *d = make_dir("plain");
    plain_file(d);
    for (int i = 0; i < n_quant_formats; i++) {
        char *out = text_of("q-%s.safetensors", quant_formats[i].name);
        Pare p = PARE(.dir = d,
                      ARGS("quantize", "plain.safetensors", out, "--format", quant_formats[i].name));
        ASSERT_RAN(p, 0);
        ASSERT(held(in(d, out), "encoder.w").encoded && held(in(d, out), "fc.weight").encoded);
    }
}

/* Tied heads: excluded by default; asked for, the table goes. */
TEST(qat_tables, tied_head_through_the_verb)
{
    char *d = tiny_dir("v");
    Pare p = PARE(.dir = d,
                  ARGS("train", "c.yaml", "train.max_steps=1", "model.init.tie_word_embeddings=true"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("prune", "run", "p.h5", "--sparsity", "0.5"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(held(in(d, "p.h5"), EMBED).zeros, 0);
    p = PARE(.dir = d, ARGS("prune", "run", "h.h5", "--sparsity", "0.5", "prune.include=[lm_head]",
                            "prune.exclude=[norms]"));
    ASSERT_RAN(p, 0);
    const Held h = held(in(d, "h.h5"), EMBED);
    ASSERT_EQ(h.zeros, h.n - (long)rint((double)h.n * 0.5));
    p = PARE(.dir = d, ARGS("generate", "h.h5", "--ids", "1,2", "-n", "3"));
    p = PARE(.dir = d, ARGS("prune", "run", "w.h5", "--method", "wanda", "prune.include=[lm_head]",
                            "prune.exclude=[norms]", "--calibration", "d.bin"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "has no inputs for wanda to measure");
}
