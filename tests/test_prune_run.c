/* tests/test_prune_run.c: pruning in whole runs: masks through optimizer, KD, QAT, checkpoints and resume;
 * exported zeros; `pare prune`; messages with their place. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

#define LAST "run/checkpoints/step_00000012.h5"

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }

static Pare train(const char *dir, const char *const *more, const char *last)
{
    const char *args[32] = {"train", "c.yaml"};
    int n = 2;
    for (int i = 0; more[i]; i++) args[n++] = more[i];
    args[n] = last;
    return pare_run(&(PareOptions){.dir = dir, .args = args});
}

/* Unbroken against gone on with from each checkpoint: state, masks, scores, metrics, and the exported file's
 * bytes. */
static void resumes(const char *const *more)
{
    char *a = tiny_dir("a");
    Pare p = train(a, more, NULL);
    ASSERT_RAN(p, 0);
    for (int step = 3; step < 9; step += 3) {
        char *b = tiny_dir(text_of("b%d", step)), *name = text_of("run/checkpoints/step_%08d.h5", step);
        size_t n, m;
        ASSERT(!mkdir(in(b, "run"), 0700) && !mkdir(in(b, "run/checkpoints"), 0700));
        char *s = get_file(in(a, name), &n);
        ASSERT_MSG(s != NULL, "%s is missing", name);
        put_file(in(b, name), s, n);
        s = get_file(in(a, "run/metrics.jsonl"), &n);
        put_file(in(b, "run/metrics.jsonl"), s, n);
        p = train(b, more, step == 6 ? "device.threads=2" : NULL);
        ASSERT_RAN(p, 0);
        ASSERT_CONTAINS(p.err, text_of("resuming at step %d from", step));
        same_state(in(a, LAST), in(b, LAST));
        ASSERT_STR(events(in(b, "run/metrics.jsonl"), "train"), events(in(a, "run/metrics.jsonl"), "train"));
        ASSERT_STR(events(in(b, "run/metrics.jsonl"), "prune"), events(in(a, "run/metrics.jsonl"), "prune"));
        if (step == 6) continue; /* its resolved config says two threads */
        char *x = get_file(in(a, "run/export/m.h5"), &n), *y = get_file(in(b, "run/export/m.h5"), &m);
        ASSERT_EQ(n, m);
        ASSERT_BYTES(x, y, n);
    }
}

#define COMMON                                                                                               \
    "checkpoint.keep_last=9", "prune.enabled=true", "optim.weight_decay=0.1", "optim.learning_rate=1e-2",    \
        "+export=[{format: hdf5, path: m.h5}]"

TEST(prune_run, resume_cubic_magnitude)
{
    resumes((const char *const[]){COMMON, "prune.end_step=8", "prune.every_steps=2", NULL});
}
TEST(prune_run, resume_regrow_taylor)
{
    resumes((const char *const[]){COMMON, "prune.method=taylor", "prune.regrow=true", "prune.end_step=8",
                                  "prune.every_steps=2", "prune.snip_batches=2", NULL});
}
TEST(prune_run, resume_movement)
{
    resumes((const char *const[]){COMMON, "prune.method=movement", "prune.begin_step=1", "prune.end_step=8",
                                  NULL});
}
TEST(prune_run, resume_soft_movement)
{
    resumes((const char *const[]){COMMON, "prune.method=soft_movement", "prune.movement_lambda=500",
                                  "prune.score_learning_rate=0.5", "prune.end_step=8", NULL});
}
TEST(prune_run, resume_wanda_from_the_stream)
{
    resumes((const char *const[]){COMMON, "prune.method=wanda", "prune.begin_step=4",
                                  "prune.calibration.samples=6", NULL});
}

/* The adapters of the runs a, b3 and b6, bit for bit. */
static void same_adapters(void)
{
    static const char *const runs[] = {"a", "b3", "b6"};
    char *first = NULL;
    size_t n = 0, m;
    for (int i = 0; i < 3; i++) {
        Pare p = PARE(.dir = in_dir(runs[i]), ARGS("export", "run", "adapter", "--format", "peft"));
        ASSERT_RAN(p, 0);
        char *s = get_file(in_dir(text_of("%s/adapter/adapter_model.safetensors", runs[i])), &m);
        ASSERT(s && m > 1000 && (!first || n == m));
        if (first) ASSERT_BYTES(first, s, n);
        first = s;
        n = m;
    }
}

/* Mask, KD, QAT with learned and with group scales, and LoRA, in one run: it resumes bit for bit, and masked
 * entries are exactly zero in what is exported, packed or dense. */
static void composed(const char *weight, const char *update, bool lora)
{
    const char *teacher = text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama"));
    const char *const more[] = {
        COMMON,
        "run.recipe=distill",
        teacher,
        "model.init.vocab_size=97",
        "prune.method=snip",
        "prune.begin_step=2",
        "prune.snip_batches=2",
        "qat.enabled=true",
        text_of("qat.weight=%s", weight),
        text_of("qat.scale_update=%s", update),
        lora ? "lora.enabled=true" : "lora.enabled=false",
        "lora.target_modules=all-linear",
        "lora.r=2",
        "+export=[{format: safetensors, path: m.safetensors}, {format: hf, path: hf}]",
        NULL};
    resumes(more);
    if (lora) same_adapters();
    Arena a = {.name = "masks"};
    Err e = {0};
    H5In *h = h5_open(text_of("%s/a/" LAST, test_dir()), false, &a, &e);
    const char *name[64], *file[] = {"m.h5", "m.safetensors", "hf"};
    ASSERT_OK(e);
    const int n = h5_list(h, "/masks", name, 64);
    ASSERT_EQ(n, 14);
    for (int k = 0; k < 3; k++) {
        TensorFile f;
        long zeros = 0, masked = 0, all = 0;
        ASSERT(formats_open(&f, text_of("%s/a/run/export/%s", test_dir(), file[k]), &a, &e));
        for (int i = 0; i < n; i++) {
            const FileTensor *t = formats_find(&f, name[i]);
            int64_t d[4], pd[4];
            int nd;
            DType ty;
            ASSERT(t != NULL);
            formats_dims(t, d);
            char *path = text_of("/masks/%s", name[i]);
            ASSERT(h5_tensor_info(h, path, &ty, &nd, pd, &e));
            uint8_t *bits = arena_alloc(&a, (size_t)(pd[0] * pd[1]), &e);
            float *w = arena_alloc(&a, (size_t)(d[0] * d[1]) * sizeof *w, &e);
            ASSERT(h5_read_tensor(h, path, DT_U8, bits, (size_t)(pd[0] * pd[1]), &e) &&
                   formats_read_f32(&f, t, w, &e));
            for (int64_t j = 0; j < d[0] * d[1]; j++) {
                const bool keep = bits[j / d[1] * pd[1] + j % d[1] / 8] >> (j % d[1] % 8) & 1;
                ASSERT_MSG(keep || w[j] == 0, "%s %s[%ld] = %g is masked", file[k], name[i], (long)j,
                           (double)w[j]);
                masked += !keep;
                zeros += w[j] == 0;
                all++;
            }
        }
        ASSERT_EQ(masked, all - (long)rint((double)all * 0.5));
        if (k == 0) {
            json_t *o = last_event(text_of("%s/a/run/metrics.jsonl", test_dir()), "prune");
            ASSERT_CLOSE(field(o, "sparsity"), (double)zeros / (double)all, 1e-8, 0);
        }
        formats_close(&f);
    }
    h5_close(h);
    arena_free(&a);
}
TEST(prune_run, composed_int4) { composed("int4", "dynamic", false); }
TEST(prune_run, composed_learned) { composed("int8", "learned", false); }
TEST(prune_run, four_composed_int4) { composed("int4", "dynamic", true); }
TEST(prune_run, four_composed_learned) { composed("int8", "learned", true); }

/* A training state reads as its effective weights, hidden values and all. */
TEST(prune_run, checkpoints_read_as_effective)
{
    char *a = tiny_dir("a");
    const char *const more[] = {"prune.enabled=true", "prune.method=movement",  "prune.begin_step=1",
                                "prune.end_step=9",   "checkpoint.keep_last=9", NULL};
    Pare p = train(a, more, NULL);
    ASSERT_RAN(p, 0);
    p = PARE(.dir = a, ARGS("inspect", "run/checkpoints/step_00000006.h5", "--json"));
    ASSERT_RAN(p, 0);
    Arena ar = {.name = "state"};
    Err e = {0};
    TensorFile f;
    ASSERT(formats_open(&f, in(a, "run/checkpoints/step_00000006.h5"), &ar, &e));
    const FileTensor *t = formats_find(&f, "model.layers.0.mlp.up_proj.weight");
    int64_t d[4];
    formats_dims(t, d);
    float *w = arena_alloc(&ar, (size_t)(d[0] * d[1]) * sizeof *w, &e);
    ASSERT(formats_read_f32(&f, t, w, &e));
    long zeros = 0;
    for (int64_t j = 0; j < d[0] * d[1]; j++) zeros += w[j] == 0;
    const double u = 5.0 / 8, want = 0.5 * (1 - pow(1 - u, 3));
    ASSERT_EQ(zeros, (long)(d[0] * d[1]) - (long)rint((double)(d[0] * d[1]) * (1 - want)));
    formats_close(&f);
    /* without the section the zeros would be lost: refused */
    p = train(a, (const char *const[]){"train.max_steps=13", NULL}, NULL);
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "the checkpoint has masks");
    p = train(a, (const char *const[]){"train.max_steps=13", "prune.enabled=true", NULL}, NULL);
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "prune.method is magnitude, the checkpoint's masks were made by movement");
    arena_free(&ar);
}

TEST(prune_run, refused_with_place)
{
    static const struct {
        const char *text, *want[2];
    } c[] = {
        {"  enabled: true\n  include: ['model.layers.0.mlp.upp_proj']\n", {"c2.yaml:3:", "the nearest is"}},
        {"  enabled: true\n  sparsity: 1\n", {"c2.yaml:3:", "prune.sparsity"}},
        {"  enabled: true\n  structure: 2:4\n  sparsity: 0.7\n", {"c2.yaml:4:", "a share of its own, 0.5"}},
        {"  enabled: true\n  begin_step: 9\n", {"c2.yaml:3:", "not before end_step 6"}},
        {"  enabled: true\n  method: movement\n  schedule: oneshot\n", {"c2.yaml:4:", "grow over steps"}},
    };
    char *d = tiny_dir("bad");
    size_t n;
    char *yaml = get_file(in(d, "c.yaml"), &n);
    const char *nl = strchr(yaml, '\n');
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        put_text(in(d, "c2.yaml"), text_of("prune:\n%s%s%s", c[i].text, "version: 1", nl));
        /* the section starts at line 1: its keys are at lines 2, 3, ... */
        Pare p = PARE(.dir = d, ARGS("validate", "c2.yaml"));
        ASSERT_RAN(p, 2);
        ASSERT_CONTAINS(p.err, c[i].want[0]);
        ASSERT_CONTAINS(p.err, c[i].want[1]);
    }
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "model.init.hidden_size=18", "prune.enabled=true",
                                 "model.init.head_dim=8", "prune.structure=2:4", "-n"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "has 18 inputs, which 4 does not divide");
}

/* ---- pare prune ---- */
static long zeros_in(const char *path, const char *name, long *all)
{
    Arena a = {.name = "zeros"};
    Err e = {0};
    TensorFile f;
    int64_t d[4];
    ASSERT(formats_open(&f, path, &a, &e));
    const FileTensor *t = formats_find(&f, name);
    ASSERT(t != NULL);
    formats_dims(t, d);
    float *w = arena_alloc(&a, (size_t)(d[0] * d[1]) * sizeof *w, &e);
    ASSERT(formats_read_f32(&f, t, w, &e));
    long n = 0;
    *all = (long)(d[0] * d[1]);
    for (long j = 0; j < *all; j++) n += w[j] == 0;
    formats_close(&f);
    arena_free(&a);
    return n;
}

TEST(prune_run, verb_formats_agree)
{
    static const char *const out[] = {"p.h5", "p.safetensors", "p"};
    static const char *const name = "model.layers.1.mlp.down_proj.weight";
    char *model = repo("tests/data/hf-tiny-llama"), *d = make_dir("verb");
    for (int i = 0; i < 3; i++) {
        long all;
        Pare p = PARE(.dir = d,
                      ARGS("prune", model, out[i], "--method", "magnitude", "--sparsity", "0.3", "--json"));
        ASSERT_RAN(p, 0);
        ASSERT_CONTAINS(p.err, "counted in the file");
        json_t *o = one_object(p.out);
        ASSERT_EQ((int)json_array_size(json_object_get(o, "tensors")), 14);
        const long zeros = zeros_in(in(d, out[i]), name, &all);
        ASSERT_EQ(zeros, all - (long)rint((double)all * 0.7));
    }
    Pare p = PARE(.dir = d, ARGS("compare", "p.h5", "p", "--json"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "\"all_equal\": true");
    ASSERT_RAN(PARE(.dir = d, ARGS("prune", "p.h5", "again.h5", "--sparsity", "0.3")), 0); /* idempotent */
    p = PARE(.dir = d, ARGS("compare", "p.h5", "again.h5", "--json"));
    ASSERT_CONTAINS(p.out, "\"all_equal\": true");
    p = PARE(.dir = d, ARGS("prune", model, "x.h5", "--method", "movement"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "learns its scores while the model trains");
    p = PARE(.dir = d, ARGS("prune", model, "x.h5", "--method", "wanda"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "prune.calibration.data: a text to measure on is needed");
    ASSERT(!exists(in(d, "x.h5")));
}

/* Bitmap and 2:4 in HDF5: encodings, sizes by the formula, and what they decode to. GPT-2 stores [in,out]. */
TEST(prune_run, sparse_encodings)
{
    static const char *const models[] = {"tests/data/hf-tiny-llama", "tests/data/hf-tiny-gpt2"};
    static const char *const names[] = {"model.layers.0.mlp.up_proj.weight",
                                        "transformer.h.0.mlp.c_fc.weight"};
    char *d = make_dir("sparse");
    for (int i = 0; i < 4; i++) {
        char *model = repo(models[i % 2]);
        const bool fours = i >= 2;
        Pare p = PARE(.dir = d, ARGS("prune", model, "s.h5", "--structure", fours ? "2:4" : "unstructured",
                                     "--masks", "masks.h5"));
        ASSERT_RAN(p, 0);
        p = PARE(.dir = d,
                 ARGS("prune", model, "s.safetensors", "--structure", fours ? "2:4" : "unstructured"));
        ASSERT_RAN(p, 0);
        p = PARE(.dir = d, ARGS("compare", "s.h5", "s.safetensors", "--json"));
        ASSERT_CONTAINS(p.out, "\"all_equal\": true");
        Arena a = {.name = "sparse"};
        Err e = {0};
        TensorFile f;
        ASSERT(formats_open(&f, in(d, "s.h5"), &a, &e));
        const FileTensor *t = formats_find(&f, names[i % 2]);
        ASSERT(t && t->encoded);
        ASSERT_STR(t->encoded->encoding, fours ? "sparse_2_4" : "sparse_bitmask");
        const size_t rows = (size_t)t->encoded->rows, cols = (size_t)t->encoded->cols, n = rows * cols;
        ASSERT_EQ(t->bytes, fours ? n / 2 * 4 + n / 8 : n / 2 * 4 + rows * ((cols + 7) / 8) + 8 * (rows + 1));
        formats_close(&f);
        H5In *h = h5_open(in(d, "masks.h5"), false, &a, &e);
        ASSERT_OK(e);
        const char *list[64];
        double s;
        ASSERT(h5_list(h, "/masks", list, 64) > 0);
        ASSERT(h5_get_f64(h, text_of("/masks/%s", list[0]), "sparsity", &s, &e));
        ASSERT_EQ(s, 0.5);
        h5_close(h);
        arena_free(&a);
    }
}
