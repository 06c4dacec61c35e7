/* tests/test_ten_steps.c: whole tiny models through ten AdamW steps, as PyTorch makes them
 * (tests/golden/make_models.py): losses, gradient norms before clipping, every weight after the last step;
 * whole batches and micro-batches. */
#include "model/model.h"
#include "optim/optim.h"
#include "tests/golden_impl.h"

enum { B = 2, T = 16, STEPS = 10 };
typedef struct Train {
    Arena a;
    Err e;
    Model m;
    Graph *g;
    Optim *o;
    Tensor *ids, *y;
    TensorFile gold;
    long rows, targets;
} Train;

static double betas[2] = {0.9, 0.95};
static const OptimConfig optim = {
    .name = "adamw", .learning_rate = 1e-3, .betas = {2, betas}, .eps = 1e-8, .weight_decay = 0.1};
static const ScheduleConfig constant = {.name = "constant"};

static const double *want_f64(Train *r, const char *name, long n)
{
    const FileTensor *t = formats_find(&r->gold, name);
    if (!t || t->dtype != DT_F64 || golden_numel(t) != n)
        test_fail(__FILE__, __LINE__, "the fixture has no %s of %ld float64 numbers", name, n);
    double *v = arena_alloc(&r->a, t->bytes, &r->e);
    memcpy(v, t->data, t->bytes);
    return v;
}

static void open_train(Train *r, const char *name, const Kernels *k, long rows)
{
    *r = (Train){.a = {.name = "test"}, .rows = rows};
    const char *gold = arena_printf(&r->a, &r->e, "tests/golden/%s.safetensors", name);
    model_open(&r->m, arena_printf(&r->a, &r->e, "tests/data/%s", name), k, &r->a, &r->e);
    ASSERT_OK(r->e);
    formats_open(&r->gold, gold, &r->a, &r->e);
    params_alloc_grads(&r->m.params, &r->e);
    r->g = graph_new(&(GraphOptions){.k = k, .train = true, .run = &r->a}, &r->e);
    r->ids = graph_input(r->g, "ids", DT_I32, 2, (long[]){rows, T});
    r->y = graph_input(r->g, "targets", DT_I32, 2, (long[]){rows, T});
    Tensor *pos = graph_input(r->g, "pos", DT_I32, 2, (long[]){rows, T});
    Tensor *h = model_hidden(r->g, &r->m, &(ModelInputs){.ids = r->ids, .pos = pos});
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}, .chunk = 5};
    graph_loss(r->g, OP_ATTR(r->g, lm_loss, at, h, model_head(r->g, &r->m), r->y), 1.0, "lm");
    graph_plan(r->g, &r->e);
    r->o = optim_new(&optim, &constant, 1.0, &r->m.params, &r->a, &r->e);
    ASSERT_OK(r->e);
    for (long i = 0; i < rows * T; i++) ((int32_t *)pos->data)[i] = (int32_t)(i % T);
    const int32_t *y = (const int32_t *)(const void *)formats_find(&r->gold, "labels")->data;
    for (long i = 0; i < B * T; i++) r->targets += y[i] >= 0;
}

/* The batch in pieces of `rows` rows: gradients add up and are divided once. */
static StepInfo step(Train *r, int t, double *loss)
{
    const unsigned char *ids = formats_find(&r->gold, "input_ids")->data,
                        *y = formats_find(&r->gold, "labels")->data;
    size_t bytes = (size_t)(r->rows * T) * sizeof(int32_t);
    *loss = 0;
    graph_step_begin(r->g);
    for (long b = 0; b < B; b += r->rows, ids += bytes, y += bytes) {
        memcpy(r->ids->data, ids, bytes);
        memcpy(r->y->data, y, bytes);
        graph_micro(r->g);
        *loss += graph_loss_total(r->g) / (double)r->targets;
    }
    graph_step_end(r->g);
    return optim_step(r->o, t, STEPS, 1.0 / (double)r->targets);
}

/* A key bias has no gradient but rounding (a shift of a row's scores leaves softmax alone), of which AdamW
 * makes steps of any size: in float32 it says nothing. Slow rotary pairs leave it little more. */
static bool says_nothing(const Param *p, long i, const Kernels *k)
{
    long n = t_numel(&p->w);
    if (k->real != sizeof(float)) return false;
    if (strstr(p->name, ".c_attn.bias")) return i >= n / 3 && i < 2 * n / 3;
    return strstr(p->name, ".k_proj.bias") != NULL;
}

/* tol: of the weights after ten steps, absolute, where the steps moved them by up to 1e-2. */
static void ten_steps(const char *name, const Kernels *k, long rows, double tol_loss, double tol)
{
    Train r;
    open_train(&r, name, k, rows);
    const double *losses = want_f64(&r, "losses", STEPS), *gnorm = want_f64(&r, "gnorm", STEPS);
    double loss;
    for (int t = 0; t < STEPS; t++) {
        StepInfo s = step(&r, t, &loss);
        ASSERT(!s.skipped);
        if (!(fabs(loss - losses[t]) <= tol_loss * losses[t] &&
              fabs(s.grad_norm - gnorm[t]) <= 10 * tol_loss * gnorm[t]))
            test_fail(__FILE__, __LINE__, "%s on %s, step %d: loss %.12g (torch %.12g), norm %.12g (%.12g)",
                      name, k->name, t + 1, loss, losses[t], s.grad_norm, gnorm[t]);
    }
    for (int j = 0; j < r.m.params.n; j++) {
        const Param *p = r.m.params.p[j];
        if (p->tied_to) continue;
        long n = t_numel(&p->w), out = p->w.ndim == 2 ? p->w.dim[0] : 1, in = n / out;
        const double *w = want_f64(&r, arena_printf(&r.a, &r.e, "step10.%s", p->name), n);
        for (long i = 0; i < n; i++) {
            double d = fabs(real_get(p->w.data, i, k) - w[p->in_out ? (i % in) * out + i / in : i]);
            if (says_nothing(p, i, k)) continue;
            if (!(d <= tol))
                test_fail(__FILE__, __LINE__, "%s on %s: %s[%ld] is off by %.3g after ten steps", name,
                          k->name, p->name, i, d);
        }
    }
    graph_free(r.g);
    formats_close(&r.gold);
    arena_free(&r.a);
}

static const char *const tiny[] = {"hf-tiny-gpt2", "hf-tiny-llama", "hf-tiny-qwen2"};
TEST(ten_steps, as_torch_in_float64)
{
    for (int i = 0; i < 3; i++) ten_steps(tiny[i], kernels_ref_f64(), B, 1e-12, 2e-11);
}
TEST(ten_steps, as_torch_in_float32)
{
    for (int i = 0; i < 3; i++) ten_steps(tiny[i], kernels_cpu_f32(), B, 1e-6, 5e-6);
}
TEST(ten_steps, in_micro_batches)
{
    for (int i = 0; i < 3; i++) ten_steps(tiny[i], kernels_ref_f64(), 1, 1e-12, 2e-11);
}
