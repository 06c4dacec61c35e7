/* tests/test_model.c: whole models: the real stories260K against its golden file, tiny transformers models
 * against what transformers computes, the doorway of attachments, recompute, generation. */
#include "infer/infer.h"
#include "tests/test.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Run1 {
    Arena a;
    Err e;
    Model m;
    Graph *g;
    Tensor *ids, *y, *pos, *logits, *nll;
    TensorFile gold;
} Run1;

static const float *gold(Run1 *r, const char *name)
{
    const FileTensor *t = formats_find(&r->gold, name);
    if (!t) return NULL;
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->dim[i];
    float *v = arena_alloc(&r->a, (n + 1) * sizeof *v, &r->e);
    return formats_read_f32(&r->gold, t, v, &r->e) ? v : NULL;
}

static void read_ints(Run1 *r, const char *name, int32_t *dst, long n)
{
    const FileTensor *t = formats_find(&r->gold, name);
    ASSERT(t != NULL);
    for (long i = 0; i < n; i++) {
        if (t->dtype == DT_I64) {
            int64_t v;
            memcpy(&v, t->data + i * 8, 8);
            dst[i] = (int32_t)v;
        } else memcpy(&dst[i], t->data + i * 4, 4);
    }
}

static void open_run(Run1 *r, const char *model, const char *golden, long B, long T, const Kernels *k,
                     bool recompute)
{
    *r = (Run1){.a = {.name = "test"}};
    if (!model_open(&r->m, model, k, &r->a, &r->e)) test_fail(__FILE__, __LINE__, "%s", r->e.msg);
    if (!formats_open(&r->gold, golden, &r->a, &r->e)) test_fail(__FILE__, __LINE__, "%s", r->e.msg);
    params_alloc_grads(&r->m.params, &r->e);
    r->g = graph_new(&(GraphOptions){.k = k, .train = true, .run = &r->a, .recompute = recompute}, &r->e);
    Tensor **in[3] = {&r->ids, &r->y, &r->pos};
    for (int i = 0; i < 3; i++) *in[i] = graph_input(r->g, "in", DT_I32, 2, (long[]){B, T});
    Tensor *h = model_hidden(r->g, &r->m, &(ModelInputs){.ids = r->ids, .pos = r->pos});
    r->logits = model_logits(r->g, &r->m, h);
    graph_keep(r->g, r->logits);
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    model_loss_caps(&at.a, &r->m, NULL);
    r->nll = OP_ATTR(r->g, lm_loss, at, h, model_head(r->g, &r->m), r->y);
    graph_keep(r->g, r->nll);
    graph_loss(r->g, r->nll, 1.0, "lm");
    if (!graph_plan(r->g, &r->e)) test_fail(__FILE__, __LINE__, "%s", r->e.msg);
    for (long i = 0; i < B * T; i++) ((int32_t *)r->pos->data)[i] = (int32_t)(i % T);
}

static void close_run(Run1 *r)
{
    graph_free(r->g);
    formats_close(&r->gold);
    arena_free(&r->a);
}

/* logits within 5e-5 and per-token losses within 1e-5 of the float64 reference, from both file formats. */
static void golden_stories(const char *path)
{
    Run1 r;
    open_run(&r, path, "tests/data/stories/stories260K.golden.safetensors", 1, 32, kernels_cpu_f32(), false);
    read_ints(&r, "prompt_ids", r.ids->data, 32);
    for (int i = 0; i < 32; i++) ((int32_t *)r.y->data)[i] = i < 31 ? ((int32_t *)r.ids->data)[i + 1] : -100;
    graph_forward(r.g);
    graph_step_begin(r.g);
    graph_micro(r.g);
    const float *z = gold(&r, "logits"), *nll = gold(&r, "nll");
    ASSERT_CLOSE_F32(r.logits->data, z, 32 * 512, 0, 5e-5);
    ASSERT_CLOSE_F32(r.nll->data, nll, 31, 0, 1e-5);
    close_run(&r);
}

TEST(model, stories_golden_from_bin) { golden_stories("tests/data/stories/stories260K.bin"); }
TEST(model, stories_golden_from_safetensors) { golden_stories("tests/data/stories/stories260K.safetensors"); }

TEST(model, stories_greedy_text)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Model m;
    ASSERT(model_open(&m, "tests/data/stories/stories260K.bin", kernels_cpu_f32(), &a, &e));
    Tokenizer *tk = tokenizer_open("tests/data/stories/tok512.model", &a, &e);
    Generation g;
    ASSERT(generate(&g, &m, tk, "", 200, &(SampleOptions){.top_p = 1, .repetition_penalty = 1}, &a, &e));
    size_t bytes;
    char *want = file_read(&a, "tests/data/stories/stories260K.greedy200.txt", &bytes, &e);
    while (bytes && want[bytes - 1] == '\n') want[--bytes] = 0;
    ASSERT_STR(g.text, want);
    arena_free(&a);
}

/* Against transformers in float64: ours in float64 must agree far below float32's noise. */
static void golden_tiny(const char *name, const Kernels *k, double tol_logit, double tol_grad)
{
    char model[96], file[96];
    snprintf(model, sizeof model, "tests/data/%s", name);
    snprintf(file, sizeof file, "tests/golden/%s.safetensors", name);
    Run1 r;
    open_run(&r, model, file, 2, 16, k, false);
    read_ints(&r, "input_ids", r.ids->data, 32);
    read_ints(&r, "labels", r.y->data, 32);
    long count = 0, V = r.m.spec.V;
    for (int i = 0; i < 32; i++) count += ((int32_t *)r.y->data)[i] >= 0;
    r.nll->node->loss_weight = 1.0 / (double)count;
    graph_step_begin(r.g);
    graph_micro(r.g);
    graph_step_end(r.g);
    const float *z = gold(&r, "logits");
    double top = 0, worst = 0;
    for (long i = 0; i < 32 * V; i++) {
        double have = k->real == 8 ? ((double *)r.logits->data)[i] : (double)((float *)r.logits->data)[i];
        top = fmax(top, fabs((double)z[i]));
        worst = fmax(worst, fabs(have - (double)z[i]));
    }
    if (!(worst <= tol_logit * fmax(1, top)))
        test_fail(__FILE__, __LINE__, "%s: logits differ by %g (largest %g)", name, worst, top);
    for (int p = 0; p < r.m.params.n; p++) {
        const Param *q = r.m.params.p[p];
        char key[160];
        snprintf(key, sizeof key, "grad.%s", q->name);
        const float *want = gold(&r, key);
        if (!want) test_fail(__FILE__, __LINE__, "%s: no %s in the fixture", name, key);
        double diff = 0, norm = 0;
        long n = t_numel(&q->w), rows = q->w.ndim == 2 ? q->w.dim[0] : 1, cols = n / rows;
        for (long i = 0; i < n; i++) {
            long at = q->in_out ? (i % cols) * rows + i / cols : i;
            double have = k->real == 8 ? ((double *)q->w.grad)[i] : (double)((float *)q->w.grad)[i];
            diff += (have - (double)want[at]) * (have - (double)want[at]);
            norm += (double)want[at] * (double)want[at];
        }
        if (!(sqrt(diff) <= tol_grad * sqrt(norm) + 1e-9))
            test_fail(__FILE__, __LINE__, "%s: %s off by %g relative", name, key, sqrt(diff / norm));
    }
    close_run(&r);
}

static const char *const tiny[] = {"hf-tiny-gpt2",         "hf-tiny-llama",        "hf-tiny-qwen2",
                                   "hf-tiny-qwen3",        "hf-tiny-mistral",      "hf-tiny-gemma2",
                                   "hf-tiny-gemma3",       "hf-tiny-llama-linear", "hf-tiny-llama-yarn",
                                   "hf-tiny-llama-llama3", "hf-tiny-llama-dynamic"};
enum { N_TINY = 11 };
TEST(model, transformers_float64)
{
    for (int i = 0; i < N_TINY; i++) golden_tiny(tiny[i], kernels_ref_f64(), 2e-7, 2e-6);
}
TEST(model, transformers_float32)
{
    for (int i = 0; i < N_TINY; i++) golden_tiny(tiny[i], kernels_cpu_f32(), 1e-5, 1e-5);
}

static Tensor *mask_weight(Graph *g, Tensor *w, const Attachment *a) { return OP(g, mul, w, a->state); }

/* The doorway: a mask on sites by glob goes through forward, gradient and export. */
TEST(model, attachment_by_glob)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Model m;
    ASSERT(model_open(&m, "tests/data/hf-tiny-llama", kernels_ref_f64(), &a, &e));
    Site *s = model_site(&m, "model.layers.0.mlp.up_proj");
    ASSERT(s != NULL);
    Tensor mask = {.name = "mask",
                   .dtype = DT_F64,
                   .ndim = 2,
                   .dim = {s->w->w.dim[0], s->w->w.dim[1]},
                   .flags = T_NOGRAD | T_PARAM};
    long n = t_numel(&mask);
    mask.data = arena_alloc(&a, (size_t)n * sizeof(double), &e);
    for (long i = 0; i < n; i++) ((double *)mask.data)[i] = i % 3 ? 1 : 0;
    ASSERT_EQ(model_attach(&m, "*layers.0.mlp.up_proj*", true, (Attachment){"mask", mask_weight, &mask}, &e),
              1);
    ASSERT_EQ(model_attach(&m, "no.such.*", true, (Attachment){"mask", mask_weight, &mask}, &e), 0);
    params_alloc_grads(&m.params, &e);
    Graph *g = graph_new(&(GraphOptions){.k = kernels_ref_f64(), .train = true, .run = &a}, &e);
    Tensor *ids = graph_input(g, "ids", DT_I32, 2, (long[]){1, 8}),
           *y = graph_input(g, "y", DT_I32, 2, (long[]){1, 8});
    Tensor *pos = graph_input(g, "pos", DT_I32, 2, (long[]){1, 8});
    Tensor *h = model_hidden(g, &m, &(ModelInputs){.ids = ids, .pos = pos});
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    graph_loss(g, OP_ATTR(g, lm_loss, at, h, model_head(g, &m), y), 1.0, "lm");
    ASSERT(graph_plan(g, &e));
    for (int i = 0; i < 8; i++) {
        ((int32_t *)ids->data)[i] = i * 5;
        ((int32_t *)y->data)[i] = i * 5 + 5;
        ((int32_t *)pos->data)[i] = i;
    }
    graph_step_begin(g);
    graph_micro(g);
    graph_micro(g);
    graph_step_end(g);
    bool any = false;
    for (long i = 0; i < n; i++) {
        double d = ((double *)s->w->w.grad)[i];
        if (i % 3 == 0) ASSERT_EQ(d, 0.0);
        any = any || d != 0;
    }
    ASSERT(any);
    OutModel out;
    ASSERT(model_out(&m, &out, DT_F32, &a, &e));
    for (int t = 0; t < out.n; t++)
        if (!strcmp(out.t[t].name, s->w->name))
            for (long i = 0; i < n; i++)
                ASSERT_EQ((double)out.t[t].src[i], i % 3 ? (double)(float)((double *)s->w->w.data)[i] : 0.0);
    graph_free(g);
    arena_free(&a);
}

/* Recompute drops the interiors and makes them again: the same bits, less memory. */
TEST(model, recompute_is_bitwise_equal)
{
    Run1 r[2];
    for (int i = 0; i < 2; i++) {
        open_run(&r[i], "tests/data/hf-tiny-gpt2", "tests/golden/hf-tiny-gpt2.safetensors", 2, 16,
                 kernels_cpu_f32(), i == 1);
        read_ints(&r[i], "input_ids", r[i].ids->data, 32);
        read_ints(&r[i], "labels", r[i].y->data, 32);
        graph_step_begin(r[i].g);
        graph_micro(r[i].g);
        graph_step_end(r[i].g);
    }
    ASSERT(graph_step_bytes(r[1].g) < graph_step_bytes(r[0].g));
    for (int p = 0; p < r[0].m.params.n; p++) {
        const Tensor *a = &r[0].m.params.p[p]->w, *b = &r[1].m.params.p[p]->w;
        ASSERT(!memcmp(a->grad, b->grad, (size_t)t_numel(a) * sizeof(float)));
    }
    close_run(&r[0]);
    close_run(&r[1]);
}

/* Token by token through the cache = the whole row at once. */
TEST(model, cache_equals_full_forward)
{
    for (int i = 0; i < N_TINY; i++) {
        Run1 r;
        char model[96], file[96];
        snprintf(model, sizeof model, "tests/data/%s", tiny[i]);
        snprintf(file, sizeof file, "tests/golden/%s.safetensors", tiny[i]);
        open_run(&r, model, file, 2, 16, kernels_cpu_f32(), false);
        read_ints(&r, "input_ids", r.ids->data, 32);
        graph_step_begin(r.g);
        graph_forward(r.g);
        Session *s = session_new(&r.m, 16, &r.a, &r.e);
        ASSERT(s != NULL);
        for (int t = 0; t < 16; t++) {
            ASSERT(session_feed(s, (int32_t *)r.ids->data + t, 1, &r.e));
            ASSERT_CLOSE_F32(session_logits(s), (float *)r.logits->data + (long)t * r.m.spec.V,
                             (size_t)r.m.spec.V, 1e-5, 2e-5);
        }
        session_free(s);
        close_run(&r);
    }
}
