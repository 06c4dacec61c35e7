/* tests/test_qlora.c: a base kept as codes (QLoRA): the same function as the decoded base, forward and
 * backward, decoded a few rows at a time, so that the memory never holds the dense weights. */
#include "autograd/graph_impl.h"
#include "tests/lora_impl.h"

#define LLAMA "tests/data/hf-tiny-llama"
static const char *const format[] = {"int8", "fp8", "nf4", "nf4_double"};
enum { FORMATS = 4 };

/* c's adapters on plain weights that are what b's codes decode to. */
static void decoded_bed(LoraBed *dense, const LoraBed *b, const char *model, LoraConfig c)
{
    c.base_quant = "none";
    *dense = (LoraBed){.a = {.name = "dense"}, .k = b->k, .c = c};
    model_open(&dense->m, model, b->k, &dense->a, &dense->e);
    lora_ok(dense);
    for (int i = 0; i < b->m.n_site; i++) {
        const QuantStore *q = b->m.site[i].q;
        Param *w = params_find(&dense->m.params, b->m.site[i].w->name);
        if (!q) continue;
        for (long r = 0; r < q->rows; r++)
            b->k->decode_rows((char *)w->w.data + (size_t)(r * q->cols) * b->k->real, q->codes, &q->spec,
                              &q->scales, r, 1, q->cols);
    }
    ASSERT_MSG(lora_open(&dense->l, &dense->c, &dense->m, 1, NULL, &dense->e), "%s", dense->e.msg);
}

static void same_grads(const LoraBed *x, const LoraBed *y, double tol)
{
    ASSERT_EQ(x->l.n, y->l.n);
    for (int i = 0; i < x->l.n; i++) {
        const Param *p[2][3] = {{x->l.item[i].a, x->l.item[i].b, x->l.item[i].m},
                                {y->l.item[i].a, y->l.item[i].b, y->l.item[i].m}};
        for (int j = 0; j < 3; j++) {
            double diff = 0, norm = 0;
            for (long q = 0; p[0][j] && q < t_numel(&p[0][j]->w); q++) {
                const double u = lora_real(x->k, p[0][j]->w.grad, q), v = lora_real(y->k, p[1][j]->w.grad, q);
                diff += (u - v) * (u - v);
                norm += v * v;
            }
            ASSERT_MSG(sqrt(diff) <= tol * sqrt(norm), "%s: %.3g", p[0][j]->name, sqrt(diff / norm));
            ASSERT(!p[0][j] || norm > 0);
        }
    }
}

static void as_decoded(const char *model, const char *base_quant, bool dora, const Kernels *k, double tol)
{
    Arena a = {.name = "test"};
    Err e = {0};
    LoraBed b, dense, plain;
    const LoraConfig c = LORA_OF(&a, "target_modules=all-linear", "r=3",
                                 dora ? "use_dora=true" : "use_dora=false",
                                 arena_printf(&a, &e, "base_quant=%s", base_quant));
    lora_bed(&b, model, &c, k);
    decoded_bed(&dense, &b, model, c);
    for (int i = 0; i < b.m.n_site; i++) { /* nothing but codes */
        const bool head = strstr(b.m.site[i].name, "lm_head") != NULL;
        ASSERT(!b.m.site[i].q == head && !b.m.site[i].w->w.data == !head);
    }
    lora_stir(&b, &b.l, 0.1);
    lora_stir(&dense, &dense.l, 0.1);
    for (int i = 0; i < b.l.n && dora; i++) /* lora_stir scales m: first the same m */
        memcpy(dense.l.item[i].m->w.data, b.l.item[i].m->w.data,
               (size_t)t_numel(&b.l.item[i].m->w) * k->real);
    ASSERT(lora_distance(lora_logits(&b), lora_logits(&dense)) <= tol);
    lora_record(&b, true);
    lora_record(&dense, true);
    lora_step(&b);
    lora_step(&dense);
    same_grads(&b, &dense, tol);
    /* the codes are not the weights themselves, but near them */
    lora_plain(&plain, model, k);
    for (int i = 0; i < b.m.n_site; i++) {
        const char *name = b.m.site[i].w->name;
        const void *w = params_find(&plain.m.params, name)->w.data,
                   *d = params_find(&dense.m.params, name)->w.data;
        double diff = 0, norm = 0;
        for (long q = 0; b.m.site[i].q && q < t_numel(&b.m.site[i].w->w); q++) {
            diff += pow(lora_real(k, w, q) - lora_real(k, d, q), 2);
            norm += pow(lora_real(k, w, q), 2);
        }
        const double most = !strcmp(base_quant, "int8") ? 0.012 : !strcmp(base_quant, "fp8") ? 0.04 : 0.12;
        ASSERT_MSG(!b.m.site[i].q || (diff > 0 && sqrt(diff / norm) < most), "%s of %s: %.3g", base_quant,
                   name, sqrt(diff / norm));
    }
    /* an adapter of it is an adapter of the file, not of the codes */
    ASSERT_STR(b.l.base_hash, model_content_hash(&plain.m, &plain.a, &plain.e));
    lora_close(&plain);
    lora_close(&dense);
    lora_close(&b);
    arena_free(&a);
}

TEST(qlora, codes_are_the_decoded_base)
{
    for (int i = 0; i < FORMATS; i++) {
        as_decoded(LLAMA, format[i], false, kernels_ref_f64(), 1e-12);
        as_decoded(LLAMA, format[i], false, kernels_cpu_f32(), 1e-5);
    }
}
TEST(qlora, codes_under_dora)
{
    as_decoded(LLAMA, "nf4_double", true, kernels_ref_f64(), 1e-12);
    as_decoded(LLAMA, "int8", true, kernels_cpu_f32(), 1e-5);
}

/* What a run holds at most, in bytes: its arena with parameters, gradients and inputs, and the graph's. */
static size_t bytes_of(const char *path, const char *base_quant, size_t *dense)
{
    Arena a = {.name = "test"};
    Err e = {0};
    LoraBed b;
    const LoraConfig c = LORA_OF(&a, "target_modules=all-linear", "r=2",
                                 arena_printf(&a, &e, "base_quant=%s", base_quant));
    lora_bed(&b, path, &c, kernels_cpu_f32());
    lora_record(&b, true);
    lora_step(&b);
    *dense = 0;
    for (int i = 0; i < b.m.n_site; i++) {
        const Site *s = &b.m.site[i];
        if (strstr(s->name, "lm_head")) continue;
        *dense += (size_t)t_numel(&s->w->w) * sizeof(float);
        ASSERT(strcmp(base_quant, "none") ? !s->w->w.data && !s->w->w.grad : s->w->w.data != NULL);
    }
    const size_t all = b.a.peak + b.g->own.peak + b.g->step.peak;
    int n;
    const Node *const *node = graph_nodes(b.g, &n);
    for (int i = 0; i < n; i++)
        if (node[i]->op == &op_linear_q) { /* one tile, and its columns of y */
            const QuantStore *w = ((const LinearQAttr *)node[i]->attr)->w;
            ASSERT_EQ(node[i]->scratch_bytes, (size_t)(STORE_TILE * (w->cols + LB * LT)) * sizeof(float));
        }
    lora_close(&b);
    arena_free(&a);
    return all;
}

/* Matrices of 1 MiB, so that a tile of 128 rows is an eighth of one. */
static const char *large_base(void)
{
    static char path[512];
    Arena a = {.name = "test"};
    Err e = {0};
    Model m;
    ModelSpec s;
    OutModel o;
    const ModelInitConfig init = {.arch = "llama",
                                  .hidden_size = 256,
                                  .num_hidden_layers = 2,
                                  .num_attention_heads = 4,
                                  .intermediate_size = 1024,
                                  .vocab_size = LV,
                                  .rope_theta = 10000,
                                  .rms_norm_eps = 1e-5,
                                  .residual_init_scale = 1,
                                  .initializer_range = 0.02,
                                  .max_position_embeddings = 32};
    ASSERT_MSG(spec_from_init(&s, &init, LV, 32, &e), "%s", e.msg);
    ASSERT_MSG(model_fresh(&m, &s, 1, kernels_cpu_f32(), &a, &e), "%s", e.msg);
    snprintf(path, sizeof path, "%s/base.h5", test_dir());
    ASSERT(model_out(&m, &o, DT_F32, &a, &e) && formats_write_h5(path, &o, &e));
    arena_free(&a);
    return path;
}

/* Eight tiles of a matrix: each in its place, forward and backward. */
TEST(qlora, tiles_are_the_decoded_base)
{
    as_decoded(large_base(), "nf4_double", false, kernels_cpu_f32(), 1e-5);
    as_decoded(large_base(), "int8", true, kernels_cpu_f32(), 1e-5);
}

TEST(qlora, memory_stays_below_the_dense_weights)
{
    const char *path = large_base();
    size_t dense, all[FORMATS];
    for (int i = 0; i < FORMATS; i++) all[i] = bytes_of(path, format[i], &dense);
    ASSERT(dense == 8 * 1024 * 1024);
    /* int8 and fp8: a quarter, nf4: an eighth and its scales; a tile, tables and activations beside them */
    ASSERT_MSG(all[0] < dense * 6 / 10 && all[1] < dense * 6 / 10, "int8 %zu, fp8 %zu of %zu", all[0], all[1],
               dense);
    const size_t eighth = dense * SIZED(40, 45) /
                          100; /* the sanitizer's gaps between allocations count too */
    ASSERT_MSG(all[2] < eighth && all[3] < eighth, "nf4 %zu, nf4_double %zu of %zu", all[2], all[3], dense);
}
