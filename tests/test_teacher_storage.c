/* tests/test_teacher_storage.c: a teacher kept as bfloat16 or as codes: its logits are those of the rounded
 * model, its memory is what the type says, and what cannot be kept so is refused. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include "compress/compress.h"
#include "train/train.h"

enum { B = 2, T = 9 };
static Arena arena = {.name = "test"};
static Err e;

static const char *data(const char *name) { return text_of("tests/data/hf-tiny-%s", name); }
static const Kernels *builtin(void) { return kernels_isa_f32((int)cpu_isa(), "builtin"); }

/* One with the file's values rounded to bfloat16. */
static const char *rounded(const char *path, const char *name)
{
    ConvertOptions o = {.format = "hf", .dtype = DT_BF16};
    int n;
    const char *out = in_dir(name);
    if (!model_convert(path, out, &o, &n, &e)) test_fail(__FILE__, __LINE__, "%s", e.msg);
    return out;
}

static void open_teacher(Model *m, const char *path, const char *dtype, const char *quantize,
                         const Kernels *k)
{
    if (!teacher_open(m, path, dtype, quantize, k, &arena, &e)) test_fail(__FILE__, __LINE__, "%s", e.msg);
}

/* Logits (B,T,V) as doubles. */
static double *logits(Model *m)
{
    const Kernels *k = m->params.k;
    Graph *g = graph_new(&(GraphOptions){.k = k, .run = &arena}, &e);
    Tensor *ids = graph_input(g, "ids", DT_I32, 2, (long[]){B, T}),
           *pos = graph_input(g, "pos", DT_I32, 2, (long[]){B, T});
    Tensor *z = model_logits(g, m, model_hidden(g, m, &(ModelInputs){.ids = ids, .pos = pos}));
    graph_keep(g, z);
    if (!graph_plan(g, &e)) test_fail(__FILE__, __LINE__, "%s", e.msg);
    for (int i = 0; i < B * T; i++) {
        ((int32_t *)ids->data)[i] = (int32_t)((i * 31 + 5) % m->spec.V);
        ((int32_t *)pos->data)[i] = i % T;
    }
    graph_forward(g);
    const long n = t_numel(z);
    double *y = arena_alloc(&arena, (size_t)n * sizeof *y, &e);
    for (long i = 0; i < n; i++)
        y[i] = k->real == sizeof(double) ? ((double *)z->data)[i] : (double)((float *)z->data)[i];
    graph_free(g);
    return y;
}

static void same_logits(Model *a, Model *b)
{
    const double *x = logits(a), *y = logits(b);
    ASSERT(a->spec.V == b->spec.V);
    ASSERT_BYTES(x, y, (size_t)(B * T * a->spec.V) * sizeof *x);
}

/* Every family's layout (tied head, learned positions, stored transposed, soft-cap), floats and doubles: bit
 * for bit the model that `pare convert` to bfloat16 gives. */
TEST(teacher_storage, bf16_is_the_rounded_model)
{
    static const char *const model[] = {"llama", "gpt2", "qwen3", "gemma2"};
    for (int i = 0; i < 4; i++)
        for (int wide = 0; wide < 2; wide++) {
            const Kernels *k = wide ? kernels_ref_f64() : builtin();
            const char *path = rounded(data(model[i]), text_of("%s%d", model[i], wide));
            Model plain, kept, mapped, exact;
            ASSERT(model_open_frozen(&plain, path, k, &arena, &e));
            ASSERT(model_open_frozen(&exact, data(model[i]), k, &arena, &e));
            open_teacher(&kept, data(model[i]), "bfloat16", "none", k);
            open_teacher(&mapped, path, "bfloat16", "none", k);
            same_logits(&kept, &plain);
            same_logits(&mapped, &plain);
            ASSERT(memcmp(logits(&plain), logits(&exact), sizeof(double) * (size_t)(B * T * plain.spec.V)));
            ASSERT_STR(model_content_hash(&kept, &arena, &e), model_content_hash(&exact, &arena, &e));
            ASSERT_STR(model_content_hash(&mapped, &arena, &e), model_content_hash(&plain, &arena, &e));
            Param *half = params_find(&mapped.params, "model.layers.0.mlp.up_proj.weight");
            const size_t used = arena.used;
            ASSERT(!half || (half->read_only && model_own(&mapped, half, &e)));
            ASSERT(arena.used - used < sizeof(uint16_t) * (size_t)(half ? t_numel(&half->w) : 0) + 256);
            same_logits(&mapped, &plain);
            model_close(&mapped);
            model_close(&plain);
            model_close(&exact);
        }
}

/* Two bytes a weight of a matrix, four of a vector; none of them on the heap where the file has them so. */
TEST(teacher_storage, bytes_held)
{
    Model fresh, f32, bf16, mapped, coded;
    ModelSpec s;
    ASSERT(model_open(&fresh, data("llama"), builtin(), &arena, &e));
    s = fresh.spec;
    s.V = 1000, s.C = 128, s.F = 384, s.D = 32, s.H = 4, s.Hkv = 2;
    ASSERT(model_fresh(&fresh, &s, 1, builtin(), &arena, &e));
    OutModel out;
    const char *f = in_dir("m.h5");
    ASSERT(model_out(&fresh, &out, DT_F32, &arena, &e) && formats_write_h5(f, &out, &e));
    const char *half = rounded(f, "half");
    int64_t matrices = 0, vectors = 0, inside = 0;
    for (int i = 0; i < fresh.params.n; i++)
        *(fresh.params.p[i]->w.ndim == 2 ? &matrices : &vectors) += t_numel(&fresh.params.p[i]->w);
    for (int i = 0; i < fresh.n_site; i++)
        if (strcmp(fresh.site[i].name, "lm_head")) inside += t_numel(&fresh.site[i].w->w);
    open_teacher(&f32, f, "float32", "none", builtin());
    ASSERT_EQ(model_held(&f32), 4 * (matrices + vectors));
    size_t before = arena.used;
    open_teacher(&bf16, f, "bfloat16", "none", builtin());
    ASSERT_EQ(model_held(&bf16), 2 * matrices + 4 * vectors);
    ASSERT(arena.used - before < (size_t)(2 * matrices + 4 * vectors) + 200000);
    before = arena.used;
    open_teacher(&mapped, half, "bfloat16", "none", builtin());
    ASSERT_EQ(mapped.mapped_bytes, 2 * matrices);
    ASSERT(arena.used - before < 200000);
    before = arena.used;
    open_teacher(&coded, half, "bfloat16", "int8", builtin());
    ASSERT(model_held(&coded) < inside + inside / 8 + 2 * (matrices - inside) + 4 * vectors);
    ASSERT(arena.used - before < (size_t)(inside + inside / 8) + 200000);
    model_close(&mapped);
    model_close(&coded);
}

/* Codes of the projections: the logits of the model with the values that they decode to. */
TEST(teacher_storage, codes_are_the_decoded_model)
{
    static const char *const format[] = {"int8", "nf4", "fp8"};
    for (int i = 0; i < 6; i++) {
        Model coded, plain, exact;
        const char *dtype = i < 3 ? "float32" : "bfloat16";
        open_teacher(&coded, data("llama"), dtype, format[i % 3], builtin());
        ASSERT(model_open(&plain, data("llama"), builtin(), &arena, &e));
        ASSERT(model_open(&exact, data("llama"), builtin(), &arena, &e));
        int codes = 0;
        for (int j = 0; j < plain.params.n; j++) {
            Param *p = coded.params.p[j];
            codes += !p->w.data;
            memcpy(plain.params.p[j]->w.data, model_floats(&coded, p, &arena, &e),
                   (size_t)t_numel(&p->w) * sizeof(float));
        }
        ASSERT_EQ(codes, 7 * (int)plain.spec.L);
        same_logits(&coded, &plain);
        const double *x = logits(&coded), *y = logits(&exact);
        double far = 0, size = 0;
        for (long j = 0; j < B * T * plain.spec.V; j++) far += fabs(x[j] - y[j]), size += fabs(y[j]);
        ASSERT_MSG(far > 0 && far < (i % 3 ? 0.6 : 0.05) * size, "%s: %g", format[i % 3], far / size);
    }
}

/* Larger than a tile: the builtin product's bits, a library's within its rounding; rows by id. */
TEST(teacher_storage, tiles_of_a_wide_head)
{
    enum { M = 3, N = 5003, K = 300 };
    uint16_t *half = arena_alloc(&arena, N * K * sizeof *half, &e);
    float *w = arena_alloc(&arena, N * K * sizeof *w, &e), *x = arena_alloc(&arena, 64 * K * sizeof *x, &e);
    float *y = arena_alloc(&arena, 64 * N * sizeof *y, &e), *z = arena_alloc(&arena, 64 * N * sizeof *z, &e);
    ASSERT(half && w && x && y && z);
    rng_normal_f32(w, N * K, (RngKey){.seed = 1}, 0, 1);
    rng_normal_f32(x, 64 * K, (RngKey){.seed = 2}, 0, 1);
    dtype_from_f32(half, DT_BF16, w, N * K);
    dtype_to_f32(w, half, DT_BF16, N * K);
    Tensor t = {.name = "w", .dtype = DT_BF16, .ndim = 2, .dim = {N, K}, .data = half};
    const Kernels *table[] = {kernels_ref_f32(), builtin(), kernels_cpu_f32()};
    for (int i = 0; i < 3; i++)
        for (long rows = M; rows <= 64; rows += 61) {
            const Kernels *k = table[i];
            ASSERT(weight_room(k, &t) < N * K * sizeof(float));
            void *room = arena_alloc(&arena, weight_room(k, &t), &e);
            weight_nt(k, y, x, &t, rows, room);
            k->gemm_nt(z, x, w, rows, N, K, SET);
            for (long j = 0; j < rows * N; j++) ASSERT_CLOSE(y[j], z[j], i < 2 ? 0 : 1e-6, i < 2 ? 0 : 1e-4);
        }
    const int32_t ids[] = {N - 1, 0, 17};
    weight_rows(builtin(), y, &t, ids, 3);
    for (int i = 0; i < 3; i++) ASSERT_BYTES(y + i * K, w + (long)ids[i] * K, K * sizeof *w);
    arena_free(&arena);
}

/* Heads of two widths, the wider one first: the room for widening holds both. */
TEST(teacher_storage, evaluation_of_two_widths)
{
    enum { N = 64 };
    const char *narrow, *wide = data("llama");
    int32_t id[N];
    for (int i = 0; i < N; i++) id[i] = (i * 31 + 5) % 97;
    tiny_run(test_dir());
    Pare p = PARE(.dir = test_dir(), ARGS("train", "c.yaml", "train.max_steps=1", "model.init.vocab_size=97",
                                          "model.init.hidden_size=4", "model.init.num_attention_heads=1",
                                          "export=[{format: hdf5, path: narrow.h5}]"));
    ASSERT_RAN(p, 0);
    narrow = in_dir("run/export/narrow.h5");
    EvalResult r[2];
    for (int i = 0; i < 2; i++) {
        Model m, t;
        const char *a = i ? rounded(wide, "w") : wide, *b = i ? rounded(narrow, "n") : narrow;
        open_teacher(&m, a, i ? "float32" : "bfloat16", "none", builtin());
        open_teacher(&t, b, i ? "float32" : "bfloat16", "none", builtin());
        Evaluator *ev = evaluator_new(&m, &t, 1, 4, &arena, &e);
        ASSERT_OK(e);
        ASSERT_MSG(evaluator_run(ev, &(Tokens){.id = id, .n = N}, -1, "val", 4, 0, 0, &r[i], &e), "%s",
                   e.msg);
        evaluator_free(ev);
        model_close(&m);
        model_close(&t);
    }
    ASSERT(r[0].tokens == r[1].tokens && r[0].kl > 0);
    ASSERT_CLOSE(r[0].kl, r[1].kl, 0, 0);
    ASSERT_CLOSE(r[0].nll, r[1].nll, 0, 0);
}

/* ---- what is refused ----------------------------------------------------------------------------------- */

/* The first finite half of a tensor's bytes replaced, in a copy of the file. */
static const char *with_value(const char *dir, uint16_t bits)
{
    size_t n;
    char *text = get_file(text_of("%s/model.safetensors", dir), &n);
    text[n - 2] = (char)(bits & 0xff);
    text[n - 1] = (char)(bits >> 8);
    put_file(text_of("%s/model.safetensors", dir), text, n);
    return dir;
}

TEST(teacher_storage, values_that_are_no_weights)
{
    Model m;
    static const uint16_t bad[] = {0x7fc0, 0xff80}; /* NaN, -infinity: mapped halves are looked at too */
    for (int i = 0; i < 2; i++) {
        e = (Err){0};
        const char *dir = with_value(rounded(data("llama"), text_of("bad%d", i)), bad[i]);
        ASSERT(!teacher_open(&m, dir, "bfloat16", "none", builtin(), &arena, &e));
        ASSERT(strstr(e.msg, i ? "infinity" : "NaN") && strstr(e.msg, "tensor "));
    }
    e = (Err){0};
    const char *dir = rounded(data("llama"), "seventh"), *file = in_dir("seventh/model.safetensors");
    TensorFile f;
    ASSERT(formats_open(&f, dir, &arena, &e));
    const long at = (long)(formats_find(&f, "model.layers.0.mlp.up_proj.weight")->data - f.map[0].data);
    formats_close(&f);
    const int fd = open(file, O_WRONLY);
    ASSERT(fd >= 0 && pwrite(fd, &bad[0], sizeof bad[0], at + 7 * (long)sizeof bad[0]) == 2);
    close(fd);
    ASSERT(!teacher_open(&m, dir, "bfloat16", "none", builtin(), &arena, &e));
    ASSERT_CONTAINS(e.msg, "up_proj.weight holds NaN at element 7;");
    e = (Err){0};
    /* the largest float is beyond the largest half */
    ConvertOptions o = {.format = "hf", .dtype = DT_F32};
    int count;
    ASSERT(model_convert(data("llama"), in_dir("f32"), &o, &count, &e));
    with_value(in_dir("f32"), 0x7f7f);
    size_t n;
    char *text = get_file(in_dir("f32/model.safetensors"), &n);
    text[n - 4] = text[n - 3] = (char)0xff;
    put_file(in_dir("f32/model.safetensors"), text, n);
    ASSERT(!teacher_open(&m, in_dir("f32"), "bfloat16", "none", builtin(), &arena, &e));
    ASSERT(strstr(e.msg, "infinity"));
}

/* Halves are read, never trained through, and by no op that does not say so. */
TEST(teacher_storage, halves_have_no_gradient)
{
    uint16_t half[6] = {0};
    float x[4] = {0};
    for (int i = 0; i < 2; i++) {
        Tensor w = {.name = "w", .dtype = DT_BF16, .ndim = 2, .dim = {3, 2}, .data = half, .flags = T_NOGRAD};
        Tensor p = {.name = "p", .dtype = DT_F32, .ndim = 2, .dim = {2, 2}, .data = x};
        e = (Err){0};
        Graph *g = graph_new(&(GraphOptions){.k = builtin(), .train = true, .run = &arena}, &e);
        if (i) OP(g, add, graph_param(g, &w), graph_param(g, &w));
        else OP(g, linear, graph_param(g, &p), graph_param(g, &w), NULL);
        ASSERT(strstr(graph_err(g)->msg,
                      i ? "cannot read w, which is kept as bfloat16" : "forward passes alone"));
        graph_free(g);
    }
}

/* ---- in a run ------------------------------------------------------------------------------------------ */
#define LAST "run/checkpoints/step_00000004.h5"
static Pare run(const char *dir, const char *a, const char *b, const char *c)
{
    const char *args[12] = {
        "train", "c.yaml", "run.recipe=distill", "model.init.vocab_size=97", "train.max_steps=4", a, b, c};
    return pare_run(&(PareOptions){.dir = dir, .args = args});
}

/* The loss, its gradient, evaluation and the teacher's own rows: those of the rounded file, bit for bit. */
TEST(teacher_storage, a_run_is_that_of_the_rounded_file)
{
    static const char *const loss[] = {"distill.loss=forward_kl", "distill.top_k=9"};
    setenv("PARE_BLAS", "builtin", 1);
    const char *half = text_of("teacher.path=%s", rounded(data("llama"), "half"));
    const char *whole = text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama"));
    for (int i = 0; i < 2; i++) {
        char *a = tiny_dir(text_of("a%d", i)), *b = tiny_dir(text_of("b%d", i));
        Pare p = run(a, half, loss[i], NULL);
        ASSERT_RAN(p, 0);
        p = run(b, whole, loss[i], "teacher.dtype=bfloat16");
        ASSERT_RAN(p, 0);
        ASSERT_CONTAINS(p.err, "as bfloat16 (0.04 MB)");
        same_state(text_of("%s/" LAST, a), text_of("%s/" LAST, b));
        ASSERT_STR(events(text_of("%s/run/metrics.jsonl", a), "eval"),
                   events(text_of("%s/run/metrics.jsonl", b), "eval"));
        ASSERT_STR(events(text_of("%s/run/metrics.jsonl", a), "train"),
                   events(text_of("%s/run/metrics.jsonl", b), "train"));
    }
    /* several, each in its own way */
    Pare p = run(tiny_dir("m"),
                 text_of("teachers=[{path: %s, dtype: bfloat16}, {path: %s, quantize: int8}]",
                         repo("tests/data/hf-tiny-llama"), repo("tests/data/hf-tiny-llama")),
                 NULL, NULL);
    ASSERT_RAN(p, 0);
}

/* A cut-out student starts from the file, not from what the run keeps of its teacher. */
TEST(teacher_storage, students_are_cut_from_the_file)
{
    const char *whole = text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama"));
    double ce[2];
    for (int i = 0; i < 2; i++) {
        char *d = tiny_dir(i ? "b" : "a");
        Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "run.recipe=distill", whole, "~model.init",
                                     "model.init_from_teacher.layers=[0, 1]", "train.max_steps=1",
                                     i ? "teacher.quantize=int8" : "teacher.quantize=none"));
        ASSERT_RAN(p, 0);
        json_t *o = last_event(text_of("%s/run/metrics.jsonl", d), "train");
        ce[i] = field(o, "loss/ce");
        ASSERT(i ? field(o, "loss/kd") > 1e-7 : fabs(field(o, "loss/kd")) < 1e-9);
    }
    ASSERT_EQ(ce[0], ce[1]);
}

/* What wrote a cache is part of what the cache is. */
TEST(teacher_storage, a_cache_knows_its_teachers_storage)
{
    const char *whole = text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama"));
    const char *dir = tiny_dir("w"), *cache = text_of("teacher.cache=%s", in_dir("cache.h5"));
    Pare p = PARE(.dir = dir,
                  ARGS("teacher-cache", "c.yaml", "run.recipe=distill", "model.init.vocab_size=97", whole,
                       cache, "teacher.quantize=int8", "teacher.dtype=bfloat16"));
    ASSERT_RAN(p, 0);
    p = run(dir, whole, cache, "teacher.quantize=int8");
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "stored as int8+bfloat16, this one is int8");
    p = PARE(.dir = dir, ARGS("train", "c.yaml", "run.recipe=distill", "model.init.vocab_size=97", whole,
                              cache, "teacher.quantize=int8", "teacher.dtype=bfloat16", "train.max_steps=2"));
    ASSERT_RAN(p, 0);
}
