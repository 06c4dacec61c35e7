/* tests/test_lora_run.c: adapters in runs of the program: a run that stops and goes on ends with the bits of
 * one that nothing disturbed; adapters beside a teacher and quantisers; switching them while generating; what
 * is refused, and where. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include "model/model.h"

#define AT(step) text_of("run/checkpoints/step_%08d.h5", step)

/* A folder with base.h5, the model of a small run, and c.yaml, which trains adapters on it. */
static char *lora_dir(const char *name)
{
    char *d = tiny_dir(name);
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "run.output_dir=pre", "eval.perplexity.enabled=false",
                                 "export=[{format: hdf5, path: base.h5}]"));
    ASSERT_RAN(p, 0);
    size_t n;
    char *base = get_file(text_of("%s/pre/export/base.h5", d), &n);
    put_file(text_of("%s/base.h5", d), base, n);
    put_text(text_of("%s/c.yaml", d), "version: 1\n"
                                      "run: {recipe: finetune, output_dir: run, seed: 3}\n"
                                      "device: {threads: 1}\n"
                                      "model: {path: base.h5}\n"
                                      "data:\n"
                                      "  train: [{path: d.bin, format: bin_nanogpt}]\n"
                                      "  val: [{path: d.bin, format: bin_nanogpt, split: 'train[-10%:]'}]\n"
                                      "  seq_len: 16\n"
                                      "train: {max_steps: 6, batch_size: 4}\n"
                                      "optim: {learning_rate: 1e-2}\n"
                                      "eval: {every_steps: 3}\n"
                                      "checkpoint: {every_steps: 3, keep_last: 9}\n"
                                      "log: {every_steps: 1}\n"
                                      "lora:\n"
                                      "  enabled: true\n"
                                      "  r: 3\n"
                                      "  target_modules: all-linear\n");
    return d;
}

static Pare train(const char *dir, const char *const *more)
{
    const char *args[32] = {"train", "c.yaml"};
    for (int i = 0; more[i]; i++) args[i + 2] = more[i];
    return pare_run(&(PareOptions){.dir = dir, .args = args});
}
#define MORE(...) ((const char *const[]){__VA_ARGS__, NULL})

/* ---- resumed = unbroken -------------------------------------------------------------------------------- */

/* Every tensor below /lora/default of two states, bit for bit; how many of the name `part` there were. */
static int same_adapters(const char *path_a, const char *path_b, const char *part)
{
    static const char *const parts[] = {"A", "B", "magnitude", "A0", "B0"};
    Arena a = {.name = "state"};
    Err e = {0};
    H5In *x = h5_open(path_a, false, &a, &e), *y = h5_open(path_b, false, &a, &e);
    ASSERT_OK(e);
    const char *name[64];
    const int n = h5_list(x, "/lora/default", name, 64);
    int found = 0;
    ASSERT(n > 0);
    ASSERT_EQ(h5_list(y, "/lora/default", name, 64), n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < 5; j++) {
            char *at = text_of("/lora/default/%s/%s", name[i], parts[j]);
            if (!h5_has(x, at)) continue;
            DType t;
            int nd;
            int64_t d[4] = {1, 1, 1, 1};
            ASSERT(h5_tensor_info(x, at, &t, &nd, d, &e));
            const size_t bytes = dtype_size(t) * (size_t)(d[0] * (nd > 1 ? d[1] : 1));
            void *p = arena_alloc(&a, bytes, &e), *q = arena_alloc(&a, bytes, &e);
            ASSERT(h5_read_tensor(x, at, t, p, bytes, &e) && h5_read_tensor(y, at, t, q, bytes, &e));
            ASSERT_MSG(!memcmp(p, q, bytes), "%s differs", at);
            found += !strcmp(parts[j], part);
        }
    h5_close(x);
    h5_close(y);
    arena_free(&a);
    return found;
}

/* The folder's base as the folder `base`, every tensor where it can stay in the file's mapping. */
static void mapped_base(const char *dir)
{
    Pare p = PARE(.dir = dir, ARGS("export", "base.h5", "base", "--format", "hf"));
    ASSERT_RAN(p, 0);
    const char *path = text_of("%s/base/model.safetensors", dir);
    size_t n;
    uint64_t head;
    char *file = get_file(path, &n);
    memcpy(&head, file, sizeof head);
    const size_t data = sizeof head + head, start = (data + 63) / 64 * 64;
    char *padded = calloc(1, n + 64);
    memset(padded, ' ', start);
    memcpy(padded, &(uint64_t){start - sizeof head}, sizeof head);
    memcpy(padded + sizeof head, file + sizeof head, head);
    memcpy(padded + start, file + data, n - data);
    put_file(path, padded, start + n - data);
    free(padded);
    Arena a = {.name = "base"};
    Err e = {0};
    Model m;
    ASSERT(model_open_frozen(&m, text_of("%s/base", dir), kernels_cpu_f32(), &a, &e));
    for (int i = 0; i < m.params.n; i++) ASSERT(m.params.p[i]->read_only);
    model_close(&m);
    arena_free(&a);
}

static void three_of_six(const char *part, int count, const char *const *also)
{
    char *a = lora_dir("a"), *b = make_dir("b");
    const char *more[16] = {text_of("model.path=%s/base", a)};
    for (int i = 0; also[i]; i++) more[i + 1] = also[i];
    mapped_base(a);
    Pare p = train(a, more);
    ASSERT_RAN(p, 0);
    for (int i = 0; i < 5; i++) {
        static const char *const file[] = {"base.h5", "d.bin", "c.yaml", "run/metrics.jsonl"};
        size_t n;
        const char *at = i < 4 ? file[i] : AT(3);
        if (i == 3)
            ASSERT(!mkdir(text_of("%s/run", b), 0700) && !mkdir(text_of("%s/run/checkpoints", b), 0700));
        char *s = get_file(text_of("%s/%s", a, at), &n);
        ASSERT_MSG(s != NULL, "%s is missing", at);
        put_file(text_of("%s/%s", b, at), s, n);
    }
    p = train(b, more);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 3 from");
    same_state(text_of("%s/%s", a, AT(6)), text_of("%s/%s", b, AT(6)));
    ASSERT_EQ(same_adapters(text_of("%s/%s", a, AT(6)), text_of("%s/%s", b, AT(6)), part), count);
    ASSERT_STR(events(text_of("%s/run/metrics.jsonl", a), "train"),
               events(text_of("%s/run/metrics.jsonl", b), "train"));
}

TEST(lora_run, resumed_is_unbroken) { three_of_six("B", 14, MORE("lora.dropout=0.2", "lora.plus_ratio=4")); }
TEST(lora_run, resumed_is_unbroken_pissa) { three_of_six("B0", 14, MORE("lora.init=pissa")); }
TEST(lora_run, resumed_is_unbroken_dora)
{
    three_of_six("magnitude", 14, MORE("lora.use_dora=true", "lora.dropout=0.2"));
}
TEST(lora_run, resumed_is_unbroken_qlora)
{
    three_of_six("A", 14, MORE("lora.base_quant=nf4_double", "lora.use_rslora=true"));
}
TEST(lora_run, resumed_is_unbroken_saved_modules_and_tables)
{
    three_of_six("A", 3,
                 MORE("lora.target_modules=[embed_tokens, q_proj]", "lora.modules_to_save=[lm_head]"));
}
TEST(lora_run, resumed_is_unbroken_with_a_mask)
{
    three_of_six("B", 14, MORE("prune.enabled=true", "prune.end_step=4", "prune.every_steps=1"));
}
/* A mask's weights are written: kept behind it, moved by what is taken out, moved by SparseGPT. */
TEST(lora_run, resumed_is_unbroken_pissa_regrow)
{
    three_of_six("B0", 14,
                 MORE("lora.init=pissa", "prune.enabled=true", "prune.regrow=true", "prune.end_step=5",
                      "prune.every_steps=1"));
}
TEST(lora_run, resumed_is_unbroken_sparsegpt_and_quantisers)
{
    three_of_six("B", 14,
                 MORE("prune.enabled=true", "prune.method=sparsegpt", "prune.begin_step=2",
                      "prune.calibration.samples=6", "qat.enabled=true"));
}
TEST(lora_run, resumed_is_unbroken_with_a_masked_table)
{
    three_of_six("B", 14,
                 MORE("prune.enabled=true", "prune.include=[model.embed_tokens.weight]", "prune.exclude=[]",
                      "prune.schedule=oneshot", "prune.begin_step=2"));
}

/* The adapter of a state is the one that its run wrote: whole tensors and PiSSA's start come along. */
static void state_is_export(const char *name, const char *const *more)
{
    char *d = lora_dir(name);
    const char *args[16] = {"train.max_steps=3", "export=[{format: peft, path: ad}]"};
    for (int i = 0; more[i]; i++) args[i + 2] = more[i];
    Pare p = train(d, args);
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("export", "run", "again", "--format", "peft"));
    ASSERT_RAN(p, 0);
    size_t n, m;
    const char *x = get_file(text_of("%s/run/export/ad/adapter_model.safetensors", d), &n),
               *y = get_file(text_of("%s/again/adapter_model.safetensors", d), &m);
    ASSERT_MSG(n == m && !memcmp(x, y, n), "%s: %zu and %zu bytes", more[0], n, m);
}
TEST(lora_run, a_state_holds_its_adapter)
{
    state_is_export("a", MORE("lora.init=pissa", "lora.rank_pattern={q_proj: 2}"));
    state_is_export("b", MORE("lora.modules_to_save=[lm_head, embed_tokens, norm]", "lora.use_dora=true"));
    state_is_export("c", MORE("lora.target_modules=[embed_tokens, up_proj]", "lora.base_quant=int8"));
}

/* ---- beside a teacher, beside quantisers --------------------------------------------------------------- */

/* One config: LoRA on the student, a teacher, and quantisers around W + s B A. What is evaluated from the
 * state is what its export holds. */
static void with_a_teacher(const char *const *more, const char *want)
{
    char *d = lora_dir("t");
    const char *args[24] = {"run.recipe=distill", "teacher.path=base.h5", "distill.temperature=2",
                            "distill.features=[{student: layers.0.out, teacher: layers.0.out, loss: mse}]",
                            "export=[{format: hdf5, path: m.h5}, {format: peft, path: ad}]"};
    int n = 5;
    for (int i = 0; more && more[i]; i++) args[n++] = more[i];
    Pare p = train(d, args);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, want);
    const char *log = text_of("%s/run/metrics.jsonl", d);
    const json_t *o = last_event(log, "train");
    ASSERT(field(o, "loss") > 0 && field(o, "loss/kd") >= 0 && field(o, "grad_norm") > 0);
    /* base tensors are those of the base, to the bit */
    TensorFile f;
    Arena a = {.name = "file"};
    Err e = {0};
    H5In *h = h5_open(text_of("%s/%s", d, AT(6)), false, &a, &e);
    ASSERT(h && formats_open(&f, text_of("%s/base.h5", d), &a, &e));
    for (int i = 0; i < f.n; i++) {
        float w[2048], s[2048];
        const char *at = text_of("/tensors/%s", f.t[i].name);
        if (!h5_has(h, at)) continue;
        ASSERT(f.t[i].bytes <= sizeof w && formats_read_f32(&f, &f.t[i], w, &e));
        ASSERT(h5_read_tensor(h, at, DT_F32, s, f.t[i].bytes, &e));
        ASSERT_MSG(!memcmp(w, s, f.t[i].bytes), "%s moved", f.t[i].name);
    }
    h5_close(h);
    formats_close(&f);
    arena_free(&a);
    p = PARE(.dir = d, ARGS("eval", "run", "--data", "d.bin", "--json", "--seq-len", "16"));
    ASSERT_RAN(p, 0);
    const double state = field(one_object(p.out), "nll");
    p = PARE(.dir = d, ARGS("eval", "run/export/m.h5", "--data", "d.bin", "--json", "--seq-len", "16"));
    ASSERT_RAN(p, 0);
    ASSERT_CLOSE(field(one_object(p.out), "nll"), state, 1e-6, 0);
    p = PARE(.dir = d, ARGS("eval", "base.h5", "--data", "d.bin", "--json", "--seq-len", "16"));
    ASSERT_RAN(p, 0);
    ASSERT(fabs(field(one_object(p.out), "nll") - state) > 1e-4);
}
TEST(lora_run, with_distillation) { with_a_teacher(MORE("lora.dropout=0.1"), "lora: 14 adapters"); }
TEST(lora_run, with_distillation_and_quantisers)
{
    with_a_teacher(MORE("qat.enabled=true", "qat.weight=int8"), "lora: 14 adapters");
}

/* LoRA+: Adam's first step is its rate, so B, zero before, shows ratio times the rate. */
TEST(lora_run, plus_ratio_is_the_rate_of_b)
{
    char *d = lora_dir("t");
    double most[2];
    for (int i = 0; i < 2; i++) {
        Pare p = train(d, MORE("train.max_steps=1", "optim.eps=1e-30", "schedule.name=constant",
                               "train.clip_grad_norm=0", i ? "lora.plus_ratio=16" : "lora.plus_ratio=0",
                               text_of("run.output_dir=r%d", i)));
        ASSERT_RAN(p, 0);
        Arena a = {.name = "state"};
        Err e = {0};
        H5In *h = h5_open(text_of("%s/r%d/checkpoints/step_00000001.h5", d, i), false, &a, &e);
        float b[16 * 3];
        ASSERT(h &&
               h5_read_tensor(h, "/lora/default/model.layers.0.self_attn.q_proj/B", DT_F32, b, sizeof b, &e));
        most[i] = 0;
        for (int q = 0; q < 16 * 3; q++) most[i] = fmax(most[i], fabs((double)b[q]));
        h5_close(h);
        arena_free(&a);
    }
    ASSERT_CLOSE(most[0], 1e-2, 1e-5, 0);
    ASSERT_CLOSE(most[1], 16e-2, 1e-5, 0);
}

/* ---- switching while generating ------------------------------------------------------------------------ */

#define BASE                                                                                                 \
    repo("tests/data/stories/stories260K.bin"), "--tokenizer", repo("tests/data/stories/tok512.model")
#define SAY "-p", "Once upon", "-n", "12", "--temp", "0", "--json"

TEST(lora_run, switching_gives_each_adapters_own)
{
    const char *d = test_dir();
    for (int i = 0; i < 2; i++) {
        Pare p = PARE(.dir = repo("."),
                      ARGS("train", "configs/lora.yaml", text_of("run.output_dir=%s/r%d", d, i),
                           "train.max_steps=4", "data.seq_len=32", "data.train[0].split=train[:20000b]",
                           "eval.perplexity.enabled=false", "eval.every_steps=0",
                           "eval.generate.max_new_tokens=2", "schedule.name=constant",
                           "optim.learning_rate=0.05", i ? "lora.use_dora=true" : "lora.r=4",
                           i ? "lora.dropout=0.1" : "lora.dropout=0"));
        ASSERT_RAN(p, 0);
    }
    static const char *const name[3] = {"a", "b", "none"};
    Pare p = PARE(.dir = d, ARGS("generate", BASE, "--adapter", "a=r0/export/adapter", "--adapter",
                                 "b=r1/export/adapter", "--use", "a", "--use", "none", "--use", "b", "--use",
                                 "a", SAY));
    ASSERT_RAN(p, 0);
    char *line[4], *at = p.out;
    for (int i = 0; i < 4; i++) ASSERT((line[i] = next_line(&at)) != NULL);
    static const int order[4] = {0, 2, 1, 0};
    json_t *seen[3];
    for (int i = 0; i < 3; i++) {
        p = i < 2 ? PARE(.dir = d, ARGS("generate", BASE, "--adapter", text_of("r%d/export/adapter", i), SAY))
                  : PARE(.dir = d, ARGS("generate", BASE, SAY));
        ASSERT_RAN(p, 0);
        seen[i] = json_object_get(one_object(p.out), "ids");
        ASSERT_EQ(json_array_size(seen[i]) > 12, true);
    }
    for (int i = 0; i < 4; i++) {
        json_t *o = kept(json_loads(line[i], 0, NULL));
        ASSERT_STR(json_string_value(json_object_get(o, "adapter")), name[order[i]]);
        ASSERT_MSG(json_equal(json_object_get(o, "ids"), seen[order[i]]), "under %s", name[order[i]]);
    }
    ASSERT(!json_equal(seen[0], seen[1]) && !json_equal(seen[0], seen[2]) && !json_equal(seen[1], seen[2]));
    p = PARE(.dir = d, ARGS("generate", BASE, "--adapter", "a=r0/export/adapter", "--use", "c", SAY));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "--use c: no --adapter has that name");
}

/* ---- what is refused, and where ------------------------------------------------------------------------ */

/* `validate` says no at the place of the key, and so does `train`. */
static void refused(const char *d, const char *lora, const char *want)
{
    char *text = get_file(text_of("%s/c.yaml", d), NULL), *at = strstr(text, "lora:\n");
    put_text(text_of("%s/bad.yaml", d), text_of("%.*s%s", (int)(at - text), text, lora));
    for (int i = 0; i < 2; i++) {
        Pare p = PARE(.dir = d, ARGS(i ? "train" : "validate", "bad.yaml"));
        ASSERT_RAN(p, 2);
        if (!strstr(p.err, want)) test_fail(__FILE__, __LINE__, "%s\n%s", lora, p.err);
        ASSERT(!exists(text_of("%s/run", d)));
    }
}

TEST(lora_run, bad_sections_with_their_place)
{
    char *d = lora_dir("t");
    refused(d, "lora:\n  enabled: true\n  target_modules: [k_proj]\n  r: 9\n",
            "bad.yaml:17:6: lora.r: rank 9 is above the 8 x 16 matrix of model.layers.0.self_attn.k_proj");
    refused(d,
            "lora:\n  enabled: true\n  target_modules: all-linear\n  r: 2\n  rank_pattern:\n    v_proj: 12\n",
            "bad.yaml:19:5: lora.rank_pattern: rank 12 is above the 8 x 16 matrix of "
            "model.layers.0.self_attn.v_proj");
    refused(d, "lora:\n  enabled: true\n  target_modules: [q_prj]\n",
            "bad.yaml:16:19: lora.target_modules: no module of this llama model matches \"q_prj\"; the "
            "nearest is q_proj");
    refused(d, "lora:\n  enabled: true\n  target_modules: ['model.layers.*.self_atn.*']\n",
            "bad.yaml:16:19: lora.target_modules: no module of this llama model matches "
            "\"model.layers.*.self_atn.*\"");
    refused(d, "lora:\n  enabled: true\n  exclude_modules: [o_prj]\n",
            "bad.yaml:16:20: lora.exclude_modules: no module of this llama model matches \"o_prj\"; the "
            "nearest is o_proj");
    refused(d, "lora:\n  enabled: true\n  modules_to_save: [lm_hed]\n",
            "bad.yaml:16:20: lora.modules_to_save: no module of this llama model matches \"lm_hed\"; the "
            "nearest is lm_head");
    refused(d, "lora:\n  enabled: true\n  alpha_pattern: {up_prj: 3}\n",
            "bad.yaml:16:18: lora.alpha_pattern: no module of this llama model matches \"up_prj\"; the "
            "nearest is up_proj");
    refused(d, "lora:\n  enabled: true\n  exclude_modules: ['*']\n",
            "bad.yaml:16:20: lora.target_modules: every module is left out by exclude_modules");
    refused(d, "lora:\n  enabled: true\n  target_modules: [embed_tokens]\n  use_dora: true\n",
            "use_dora is for projections, not for embeddings");
    refused(d, "lora: {enabled: true, base_quant: nf4}\nmodel: {init: {arch: llama, hidden_size: 16}}\n",
            "bad.yaml:");
}

/* A fresh model has no file whose weights could be kept as codes. */
TEST(lora_run, codes_need_a_file)
{
    char *d = tiny_dir("t");
    Pare p = PARE(.dir = d,
                  ARGS("validate", "c.yaml", "lora.enabled=true", "lora.r=2", "lora.base_quant=nf4"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "lora.base_quant: ");
    ASSERT_CONTAINS(p.err, "needs model.path");
}

/* The base under a run, or under an adapter, is another one than it was trained on. */
TEST(lora_run, another_base_is_refused)
{
    char *d = lora_dir("t");
    Pare p = train(d, MORE("train.max_steps=3", "export=[{format: peft, path: ad}]"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("export", "pre/checkpoints/step_00000009.h5", "other.h5"));
    ASSERT_RAN(p, 0);
    p = train(d, MORE("train.max_steps=6", "model.path=other.h5"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "the adapter was trained on another base (content hash ");
    for (int i = 0; i < 3; i++) {
        static const char *const verb[] = {"eval", "generate", "merge"};
        p = i == 0 ? PARE(.dir = d, ARGS("eval", "other.h5", "--adapter", "run/export/ad", "--data", "d.bin"))
            : i == 1 ? PARE(.dir = d, ARGS("generate", "other.h5", "--adapter", "run/export/ad", "-p", "x"))
                     : PARE(.dir = d, ARGS("merge", "other.h5", "run/export/ad", "out.h5"));
        ASSERT_MSG(p.rc == 2, "%s: %d: %s", verb[i], p.rc, p.err);
        ASSERT_CONTAINS(p.err, "was trained on another base: content hash ");
        ASSERT_CONTAINS(p.err, "base.h5, other.h5 has ");
    }
    ASSERT(!exists(text_of("%s/out.h5", d)));
    p = PARE(.dir = d, ARGS("merge", "other.h5", "run/export/ad", "out.h5", "--force"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "taken because it was forced");
    /* the state itself as a PEFT folder: nobody asks for its base, and nothing is warned of */
    p = PARE(.dir = d, ARGS("export", "run", "again", "--format", "peft"));
    ASSERT_RAN(p, 0);
    ASSERT(!strstr(p.err, "another base"));
}
