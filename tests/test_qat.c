/* tests/test_qat.c: quantisers in training: gradients against PyTorch and by hand, scales from step to step,
 * globs and rules, packed export equal to the effective weight, resume bit for bit. */
#include "compress/compress.h"
#include "tests/test.h"
#include "train/train.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const float *gold(TensorFile *f, const char *name, Arena *a, Err *e)
{
    const FileTensor *t = formats_find(f, name);
    if (!t) test_fail(__FILE__, __LINE__, "no %s in the fixture", name);
    float *v = arena_alloc(a, t->bytes + 4, e);
    return formats_read_f32(f, t, v, e) ? v : NULL;
}

/* LSQ: dx and ds as autograd has them (1902.08153), per tensor and per row. */
static void lsq(const char *key, int format, long block_rows, float step)
{
    enum { R = 12, C = 40 };
    Arena a = {.name = "qat"};
    Err e = {0};
    TensorFile f;
    char name[32];
    ASSERT(formats_open(&f, "tests/golden/codec.safetensors", &a, &e));
    const float *w = gold(&f, "w", &a, &e);
    float *x = arena_alloc(&a, sizeof *x * R * C, &e), *dx = arena_alloc(&a, sizeof *x * R * C, &e), ds[R],
          scale[R];
    for (int r = 0; r < R; r++) memcpy(x + r * C, w + r * 160, C * sizeof *x);
    for (int r = 0; r < R; r++) scale[r] = step;
    snprintf(name, sizeof name, "%s.dy", key);
    const float *dy = gold(&f, name, &a, &e);
    const QuantSpec s = {.f = &quant_formats[format], .block_rows = block_rows};
    const QuantScales q = {.R = quant_rows(&s, R), .G = 1, .scale = scale, .tensor = 1};
    const Kernels *k = kernels_ref_f32();
    k->fakequant_clip_bwd(dx, dy, x, &s, &q, R, C, SET);
    k->fakequant_step_bwd(ds, dy, x, &s, &q, R, C, SET);
    snprintf(name, sizeof name, "%s.dx", key);
    ASSERT_CLOSE_F32(dx, gold(&f, name, &a, &e), R * C, 0, 0);
    snprintf(name, sizeof name, "%s.ds", key);
    ASSERT_CLOSE_F32(ds, gold(&f, name, &a, &e), (size_t)q.R, 1e-5, 1e-5);
    k->fakequant_step_bwd(ds, dy, x, &s, &q, R, C, ADD);
    ASSERT_CLOSE((double)ds[0], 2 * (double)gold(&f, name, &a, &e)[0], 1e-5, 1e-5);
    formats_close(&f);
    arena_free(&a);
}
TEST(qat, lsq_tensor) { lsq("lsq8", QUANT_int8, 0, 0.01f); }
TEST(qat, lsq_rows) { lsq("lsq4", QUANT_int4, 1, 0.008f); }

/* FP8 gradients: what comes back is on the grid, by the scale of the gradient itself. */
TEST(qat, gradient_through_e5m2)
{
    Arena a = {.name = "qat"};
    Err e = {0};
    Graph *g = graph_new(&(GraphOptions){.k = kernels_cpu_f32(), .train = true, .run = &a, .keep_all = true},
                         &e);
    Tensor *x = graph_input(g, "x", DT_F32, 2, (long[]){3, 5}),
           *t = graph_input(g, "t", DT_F32, 2, (long[]){3, 5});
    x->flags &= ~(unsigned)T_NOGRAD;
    x->grad = arena_alloc(&a, 15 * sizeof(float), &e);
    const FakeQuantAttr at = {.spec = {.f = &quant_formats[QUANT_fp8_e5m2]}};
    graph_loss(g, OP(g, mse, OP_ATTR(g, fakegrad, at, x), t, NULL), 1, "mse");
    ASSERT(graph_plan(g, &e));
    for (int i = 0; i < 15; i++) ((float *)x->data)[i] = (float)(i - 6) * 0.37f;
    graph_step_begin(g);
    graph_micro(g);
    double top = 0;
    for (int i = 0; i < 15; i++) top = fmax(top, 2.0 / 5 * fabs((double)((float *)x->data)[i]));
    const double scale = top / 57344;
    for (int i = 0; i < 15; i++) {
        const double exact = 2.0 / 5 * (double)((float *)x->data)[i], have = (double)((float *)x->grad)[i];
        const double want = (double)f32_from_e5m2(e5m2_from_f32((float)(exact / scale))) * scale;
        ASSERT_CLOSE(have, want, 1e-6, 1e-9);
    }
    graph_free(g);
    arena_free(&a);
}

/* ---- on a model ---- */
typedef struct Bed {
    Arena a;
    Err e;
    Model m;
    Qat q;
    Graph *g;
    Tensor *ids, *y;
    QatConfig c;
} Bed;

static QatConfig config(const char *weight)
{
    static const char *exclude[] = {"embed_tokens", "lm_head", "norms"};
    return (QatConfig){.enabled = true,
                       .weight = weight,
                       .activation = "none",
                       .grad = "none",
                       .granularity = "auto",
                       .scale_rounding = "floor",
                       .symmetric = true,
                       .scale_update = "dynamic",
                       .amax_history = 3,
                       .ste = "auto",
                       .rounding = "nearest",
                       .exclude = {3, exclude}};
}

static bool bed_open(Bed *b, const QatConfig *c, const Kernels *k)
{
    *b = (Bed){.a = {.name = "qat"}, .c = *c};
    ASSERT(model_open(&b->m, "tests/data/hf-tiny-llama", k, &b->a, &b->e));
    if (!qat_open(&b->q, &b->c, &b->m, NULL, &b->e)) return false;
    params_alloc_grads(&b->m.params, &b->e);
    b->g = graph_new(&(GraphOptions){.k = k, .train = true, .run = &b->a}, &b->e);
    b->ids = graph_input(b->g, "ids", DT_I32, 2, (long[]){2, 8});
    b->y = graph_input(b->g, "y", DT_I32, 2, (long[]){2, 8});
    Tensor *pos = graph_input(b->g, "pos", DT_I32, 2, (long[]){2, 8});
    Tensor *h = model_hidden(b->g, &b->m, &(ModelInputs){.ids = b->ids, .pos = pos});
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    graph_loss(b->g, OP_ATTR(b->g, lm_loss, at, h, model_head(b->g, &b->m), b->y), 1.0, "lm");
    if (!graph_plan(b->g, &b->e)) test_fail(__FILE__, __LINE__, "%s", b->e.msg);
    for (int i = 0; i < 16; i++) {
        ((int32_t *)b->ids->data)[i] = i * 5;
        ((int32_t *)b->y->data)[i] = i * 5 + 5;
        ((int32_t *)pos->data)[i] = i % 8;
    }
    return true;
}

static void bed_step(Bed *b, int64_t step)
{
    qat_before(&b->q, step);
    graph_step_begin(b->g);
    graph_micro(b->g);
    graph_step_end(b->g);
    qat_after(&b->q, step);
}

static void bed_close(Bed *b)
{
    graph_free(b->g);
    arena_free(&b->a);
}

static QatItem *item(Bed *b, const char *name)
{
    for (int i = 0; i < b->q.n; i++)
        if (!strcmp(b->q.item[i].name, name)) return &b->q.item[i];
    return NULL;
}

static void nudge(Bed *b, float by)
{
    for (int i = 0; i < b->q.n; i++) {
        Tensor *w = &b->q.item[i].site->w->w;
        for (long j = 0; j < t_numel(w); j++) ((float *)w->data)[j] *= by;
    }
}

/* Every format on weights and inputs: a step runs, gradients are finite and not zero, and the packed file
 * decodes to the effective weight bit for bit, whatever moves the scales. */
TEST(qat, packed_is_effective)
{
    static const char *const weight[] = {"int8",     "int4",  "fp8_e4m3", "fp8_e5m2", "mxfp8",
                                         "fp4_e2m1", "mxfp4", "nvfp4",    "nf4"};
    static const char *const update[] = {"dynamic", "mse_search", "delayed", "learned"};
    for (int i = 0; i < 9; i++)
        for (int u = 0; u < 4; u++) {
            Bed b;
            QatConfig c = config(weight[i]);
            const bool fixed = u >= 2;
            c.scale_update = update[u];
            if (strcmp(weight[i], "nf4")) c.activation = weight[i];
            c.grad = "fp8_e5m2";
            if (fixed && (!strncmp(weight[i], "mx", 2) || !strncmp(weight[i], "nv", 2) ||
                          !strncmp(weight[i], "nf", 2)))
                continue;
            if (!bed_open(&b, &c, kernels_cpu_f32()))
                test_fail(__FILE__, __LINE__, "%s %s: %s", weight[i], update[u], b.e.msg);
            for (int s = 0; s < 3; s++) {
                bed_step(&b, s);
                nudge(&b, 1.1f);
            }
            double norm = 0;
            const Param *p = params_find(&b.m.params, "model.layers.0.self_attn.q_proj.weight");
            for (long j = 0; j < t_numel(&p->w); j++) norm += pow((double)((float *)p->w.grad)[j], 2);
            ASSERT(norm > 0 && isfinite(norm));
            OutModel plain, packed;
            ASSERT(model_out(&b.m, &plain, DT_F32, &b.a, &b.e));
            packed = plain;
            ASSERT(qat_pack(&b.q, &b.m, &packed, &b.a, &b.e));
            ASSERT(packed.n_group > 0);
            char *path = arena_printf(&b.a, &b.e, "%s/p.safetensors", test_dir());
            if (!formats_write_safetensors(path, &packed, &b.e) || !packed_verify(path, &plain, &b.e))
                test_fail(__FILE__, __LINE__, "%s %s: %s", weight[i], update[u], b.e.msg);
            bed_close(&b);
        }
}

/* Rounding at random: other draws at every step and of every tensor, the same ones at the same step. */
TEST(qat, random_draws_follow_the_step)
{
    QatConfig c = config("int4");
    Bed b;
    c.rounding = "stochastic";
    ASSERT(bed_open(&b, &c, kernels_ref_f32()));
    ASSERT(item(&b, "model.layers.0.mlp.up_proj.weight")->attr.stream !=
           item(&b, "model.layers.1.mlp.up_proj.weight")->attr.stream);
    double loss[4];
    for (int i = 0; i < 4; i++) {
        graph_state(b.g)->seed = i == 3;
        graph_state(b.g)->step = i == 1;
        bed_step(&b, i == 1);
        loss[i] = graph_loss_total(b.g);
    }
    ASSERT(loss[0] == loss[2] && loss[0] != loss[1] && loss[0] != loss[3]);
    bed_close(&b);
}

/* Delayed: until the first step is over every forward finds its own scale; then the longest of the last
 * three. */
TEST(qat, delayed_scales_by_hand)
{
    Bed b;
    QatConfig c = config("int8");
    c.scale_update = "delayed";
    c.granularity = "tensor";
    c.freeze_scale_step = 5;
    ASSERT(bed_open(&b, &c, kernels_cpu_f32()));
    QatItem *it = item(&b, "model.layers.0.mlp.up_proj.weight");
    ASSERT(it != NULL);
    const Tensor *w = &it->site->w->w;
    static const float grow[] = {1, 3, 0.5f, 0.5f, 0.5f, 7, 1};
    float amax[8];
    for (int s = 0; s < 7; s++) {
        nudge(&b, grow[s]);
        amax[s] = quant_amax(w->data, t_numel(w));
        bed_step(&b, s);
        float top = 0;
        for (int h = s - 2 > 0 ? s - 2 : 0; h <= s; h++) top = fmaxf(top, amax[h]);
        if (s < 5) ASSERT_EQ((double)it->own.q.scale[0], (double)(top / 127));
        else ASSERT_EQ((double)it->own.q.scale[0], (double)(fmaxf(fmaxf(amax[2], amax[3]), amax[4]) / 127));
    }
    bed_close(&b);
}

/* Before start_step the graph computes as without quantisers; scales that are frozen stand still. */
TEST(qat, start_and_freeze)
{
    Bed b, plain;
    QatConfig c = config("int4"), none = config("none");
    c.start_step = 1;
    c.freeze_scale_step = 3;
    ASSERT(bed_open(&b, &c, kernels_cpu_f32()));
    none.activation = "fp8_e4m3";
    none.start_step = 100;
    ASSERT(bed_open(&plain, &none, kernels_cpu_f32()));
    bed_step(&b, 0);
    bed_step(&plain, 0);
    ASSERT_EQ(graph_loss_total(b.g), graph_loss_total(plain.g));
    bed_step(&b, 1);
    ASSERT(graph_loss_total(b.g) != graph_loss_total(plain.g));
    bed_step(&b, 2);
    QatItem *it = item(&b, "model.layers.1.mlp.down_proj.weight");
    const float before = it->own.q.scale[0];
    ASSERT(it->own.keep);
    nudge(&b, 2);
    bed_step(&b, 3);
    ASSERT_EQ((double)it->own.q.scale[0], (double)before);
    bed_close(&b);
    bed_close(&plain);
}

/* Last match wins; a rule may leave a tensor alone or give it another format; one that matches nothing is
 * refused. */
TEST(qat, rules_and_globs)
{
    Bed b;
    QatRuleConfig none = {.group_size = -1, .amax_history = -1, .start_step = -1, .freeze_scale_step = -1},
                  r[3];
    for (int i = 0; i < 3; i++) r[i] = none;
    QatConfig c = config("fp8_e4m3");
    r[0].match = "*.mlp.*";
    r[0].weight = "int4";
    r[0].group_size = 16;
    r[1].match = "model.layers.1.mlp.down_proj.weight";
    r[1].enabled = "false";
    r[2].match = "*layers.0.mlp.down_proj";
    r[2].weight = "nvfp4";
    c.rules.n = 3;
    c.rules.v = r;
    ASSERT(bed_open(&b, &c, kernels_cpu_f32()));
    ASSERT_STR(item(&b, "model.layers.0.self_attn.q_proj.weight")->attr.spec.f->name, "fp8_e4m3");
    ASSERT_STR(item(&b, "model.layers.0.mlp.up_proj.weight")->attr.spec.f->name, "int4");
    ASSERT_EQ(item(&b, "model.layers.0.mlp.up_proj.weight")->attr.spec.block_cols, 16L);
    ASSERT_STR(item(&b, "model.layers.0.mlp.down_proj.weight")->attr.spec.f->name, "nvfp4");
    ASSERT(item(&b, "model.layers.1.mlp.down_proj.weight") == NULL);
    ASSERT(item(&b, "lm_head.weight") == NULL);
    bed_close(&b);
    r[2].match = "*layers.7.mlp.down_proj.weight";
    ASSERT(!bed_open(&b, &c, kernels_cpu_f32()));
    ASSERT_CONTAINS(b.e.msg, "qat.rules[2].match: no tensor matches");
    ASSERT_CONTAINS(b.e.msg, "the nearest is ");
    bed_close(&b);
    c.rules.n = 0;
    c.scale_update = "delayed";
    c.weight = "nvfp4";
    ASSERT(!bed_open(&b, &c, kernels_cpu_f32()));
    ASSERT_CONTAINS(b.e.msg, "delayed needs a symmetric format");
    bed_close(&b);
}

/* q, k and v share one node on their input; the weights are quantised once a step, not once a micro-batch. */
TEST(qat, nodes_are_few)
{
    Bed b;
    QatConfig c = config("int8");
    c.activation = "int8";
    ASSERT(bed_open(&b, &c, kernels_cpu_f32()));
    int n, on_input = 0, on_weight = 0;
    const Node *const *v = graph_nodes(b.g, &n);
    for (int i = 0; i < n; i++)
        if (v[i]->op == &op_fakequant) *(v[i]->weight_phase ? &on_weight : &on_input) += 1;
    ASSERT_EQ(on_weight, (int)(7 * b.m.spec.L));
    ASSERT_EQ(on_input, (int)(4 * b.m.spec.L));
    bed_close(&b);
}
