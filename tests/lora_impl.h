/* tests/lora_impl.h: a model with adapters in a training graph, and what peft computed
 * (tests/golden/make_peft.py). */
#ifndef TESTS_LORA_IMPL_H
#define TESTS_LORA_IMPL_H
#include "compress/compress.h"
#include "tests/test.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LB = 2, LT = 12, LV = 97 };
typedef struct LoraBed {
    Arena a;
    Err e;
    Model m;
    Lora l;
    LoraConfig c;
    const Kernels *k;
    Graph *g;
    Tensor *ids, *y, *logits;
    bool keep_all; /* of the graph: every tensor has its own memory */
} LoraBed;

static inline LoraConfig lora_config(void)
{
    return (LoraConfig){.enabled = true,
                        .r = 4,
                        .alpha = NAN,
                        .bias = "none",
                        .init = "kaiming",
                        .respect_mask = true,
                        .base_quant = "none",
                        .plus_embedding_lr = 1e-6,
                        .learning_rate = NAN};
}

static inline double lora_real(const Kernels *k, const void *p, long i)
{
    return k->real == sizeof(double) ? ((const double *)p)[i] : (double)((const float *)p)[i];
}
static inline void lora_set(const Kernels *k, void *p, long i, double v)
{
    if (k->real == sizeof(double)) ((double *)p)[i] = v;
    else ((float *)p)[i] = (float)v;
}

static inline void lora_ok(const LoraBed *b)
{
    if (b->e.code) test_fail(__FILE__, __LINE__, "%s", b->e.msg);
}

/* The graph over what hangs on the model now; ids and labels from a fixed stream until somebody sets them. */
static inline void lora_record(LoraBed *b, bool train)
{
    params_alloc_grads(&b->m.params, &b->e);
    b->g = graph_new(&(GraphOptions){.k = b->k, .train = true, .keep_all = b->keep_all, .run = &b->a}, &b->e);
    const long dim[2] = {LB, LT};
    b->ids = graph_input(b->g, "ids", DT_I32, 2, dim);
    b->y = graph_input(b->g, "y", DT_I32, 2, dim);
    Tensor *pos = graph_input(b->g, "pos", DT_I32, 2, dim);
    lora_train(&b->l, train);
    Tensor *h = model_hidden(b->g, &b->m, &(ModelInputs){.ids = b->ids, .pos = pos});
    b->logits = model_logits(b->g, &b->m, h);
    graph_keep(b->g, b->logits);
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    model_loss_caps(&at.a, &b->m, NULL);
    graph_loss(b->g, OP_ATTR(b->g, lm_loss, at, h, model_head(b->g, &b->m), b->y), 1.0, "lm");
    lora_train(&b->l, false);
    graph_plan(b->g, &b->e);
    lora_ok(b);
    *graph_state(b->g) = (RunState){.seed = 5, .step = 1};
    for (int i = 0; i < LB * LT; i++) {
        ((int32_t *)pos->data)[i] = i % LT;
        ((int32_t *)b->ids->data)[i] = (i * 37 + 11) % LV;
        ((int32_t *)b->y->data)[i] = (i * 53 + 7) % LV;
    }
}

static inline void lora_step(LoraBed *b)
{
    graph_step_begin(b->g);
    graph_micro(b->g);
    graph_step_end(b->g);
}

/* Logits of what hangs on the model now, as doubles; the graph is gone again. train: with dropout. */
static inline double *lora_logits_as(LoraBed *b, bool train)
{
    lora_record(b, train);
    graph_forward(b->g);
    double *z = arena_alloc(&b->a, LB * LT * LV * sizeof *z, &b->e);
    for (long i = 0; i < LB * LT * LV; i++) z[i] = lora_real(b->k, b->logits->data, i);
    graph_free(b->g);
    b->g = NULL;
    return z;
}
static inline double *lora_logits(LoraBed *b) { return lora_logits_as(b, false); }

/* A model as it is, without adapters. */
static inline void lora_plain(LoraBed *b, const char *model, const Kernels *k)
{
    *b = (LoraBed){.a = {.name = "plain"}, .k = k};
    model_open(&b->m, model, k, &b->a, &b->e);
    lora_ok(b);
}

static inline double lora_distance(const double *x, const double *y)
{
    double d = 0;
    for (long i = 0; i < LB * LT * LV; i++) d = fmax(d, fabs(x[i] - y[i]));
    return d;
}

/* Every value of the adapters of l moved, so that nothing is zero. */
static inline void lora_stir(const LoraBed *b, const Lora *l, double size)
{
    for (int i = 0; i < l->n; i++) {
        const Param *p[3] = {l->item[i].a, l->item[i].b, l->item[i].m};
        for (int j = 0; j < 3; j++)
            for (long q = 0; p[j] && q < t_numel(&p[j]->w); q++) {
                const RngKey key = {.seed = 3, .stream = rng_stream(p[j]->name)};
                const double r = 2 * rng_uniform(key, (uint32_t)q) - 1,
                             old = lora_real(b->k, p[j]->w.data, q);
                lora_set(b->k, p[j]->w.data, q, (float)(j == 2 ? old * (1 + size * r) : size * r));
            }
    }
}

static inline void lora_bed(LoraBed *b, const char *model, const LoraConfig *c, const Kernels *k)
{
    *b = (LoraBed){.a = {.name = "lora"}, .c = *c, .k = k};
    lora_base_open(&b->m, model, &b->c, k, &b->a, &b->e);
    if (!b->e.code) lora_open(&b->l, &b->c, &b->m, 1, NULL, &b->e);
    lora_ok(b);
}

static inline void lora_close(LoraBed *b)
{
    graph_free(b->g);
    model_close(&b->m);
    arena_free(&b->a);
}

/* The section as a config's overrides give it: "r=4", "target_modules=[q_proj]". */
#define LORA_OF(a, ...) lora_of((a), (const char *const[]){__VA_ARGS__, NULL})
static inline LoraConfig lora_of(Arena *a, const char *const *kv)
{
    typedef struct Top {
        LoraConfig lora;
        int64_t version;
    } Top;
    static const ConfigField f[] = {
        {"version", CFG_T_INT, offsetof(Top, version), sizeof(int64_t), "1", 1, 1, NULL, NULL, "", NULL},
        {"lora", CFG_T_MAP, 0, sizeof(LoraConfig), NULL, 0, 0, NULL, NULL, "", lora_section}};
    static const ConfigSection top = {"top", sizeof(Top), 2, f, "", NULL, 0};
    Err e = {0};
    char *set[16] = {arena_strdup(a, "lora.enabled=true", &e)};
    int n = 1;
    for (; kv[n - 1] && n < 16; n++) set[n] = arena_printf(a, &e, "lora.%s", kv[n - 1]);
    ConfigDoc *d = config_parse(a, NULL, n, set, &e);
    Top *t = arena_alloc(a, sizeof *t, &e);
    if (!d || !config_fill(d, &top, t, &e))
        test_fail(__FILE__, __LINE__, "%s: %s", kv[0], d ? config_error_text(d) : e.msg);
    lora_check(&t->lora, d);
    if (config_error_text(d)[0]) test_fail(__FILE__, __LINE__, "%s", config_error_text(d));
    return t->lora;
}

/* A YAML value as the section's RAW node. */
static inline const ConfigNode *lora_node(Arena *a, const char *yaml)
{
    Err e = {0};
    return LORA_OF(a, arena_printf(a, &e, "target_modules=%s", yaml)).target_modules;
}
#endif
