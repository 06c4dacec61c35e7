/* tests/test_lora_path.c: what stands between an adapter and its projection: dropout of its input alone,
 * masks around the sum. Numbers are found again here, in double, from what the graph's nodes hold. */
#include "tests/lora_impl.h"

#define LLAMA "tests/data/hf-tiny-llama"

/* ---- dropout ------------------------------------------------------------------------------------------- */

static const Node *dropout_of(const LoraBed *b, const char *module)
{
    char name[NAME_LEN + 32];
    int n;
    const Node *const *node = graph_nodes(b->g, &n);
    snprintf(name, sizeof name, "lora.dropout.%s", module);
    for (int i = 0; i < n; i++)
        if (node[i]->op == &op_dropout && ((const DropoutAttr *)node[i]->attr)->stream == rng_stream(name))
            return node[i];
    return NULL;
}

/* The output, adapter included: LoRA's is the axpy after B, DoRA's the one that takes W d(x) off. */
static const Tensor *output_of(const LoraBed *b, const LoraItem *it, const Node *drop)
{
    int n;
    const Node *const *node = graph_nodes(b->g, &n);
    for (int i = 0; i < n; i++) {
        const Node *from = node[i]->op == &op_axpy ? node[i]->in[0]->node : NULL;
        if (!from || from->op != &op_linear) continue;
        if (it->m ? from->in[0] == drop->out && !strcmp(from->in[1]->name, it->base->name) &&
                        ((const AxpyAttr *)node[i]->attr)->alpha < 0
                  : !strcmp(from->in[1]->name, it->b->name))
            return node[i]->out;
    }
    test_fail(__FILE__, __LINE__, "%s: no output found", it->module);
}

static double dot(const double *x, const double *y, long n)
{
    double s = 0;
    for (long i = 0; i < n; i++) s += x[i] * y[i];
    return s;
}

/* y = W x + b + s B A d, or W x + b + (g - 1) W d + g s B A d with g = m / |W + s B A|: peft's two forms. */
static void check_output(const LoraBed *b, const LoraItem *it)
{
    const Node *drop = dropout_of(b, it->module);
    ASSERT_MSG(drop != NULL, "%s: its input is not dropped", it->module);
    const double *x = drop->in[0]->data, *d = drop->out->data, *y = output_of(b, it, drop)->data,
                 *W = it->base->w.data, *A = it->a->w.data, *B = it->b->w.data,
                 *m = it->m ? it->m->w.data : NULL, *bias = it->site->b ? it->site->b->w.data : NULL;
    const long out = it->b->w.dim[0], in = it->a->w.dim[1], r = it->r;
    double row[512];
    ASSERT(in <= 512);
    for (long o = 0; o < out; o++) {
        for (long j = 0; j < in; j++) {
            row[j] = W[o * in + j];
            for (long q = 0; q < r; q++) row[j] += it->scale * B[o * r + q] * A[q * in + j];
        }
        const double g = m ? m[o] / sqrt(dot(row, row, in)) : 1;
        for (long t = 0; t < LB * LT; t++) {
            double z = 0;
            for (long q = 0; q < r; q++) z += it->scale * B[o * r + q] * dot(A + q * in, d + t * in, in);
            const double want = dot(W + o * in, x + t * in, in) + (bias ? bias[o] : 0) +
                                (g - 1) * dot(W + o * in, d + t * in, in) + g * z;
            ASSERT_CLOSE(y[t * out + o], want, 1e-11, 1e-11);
        }
    }
}

/* Zeros at the rate asked for, the others times 1 / (1 - p); the projection itself reads all of x. */
static void check_drop(const LoraBed *b, const LoraItem *it, double p)
{
    const Node *drop = dropout_of(b, it->module);
    const double *x = drop->in[0]->data, *d = drop->out->data;
    const long n = t_numel(drop->out);
    long zeros = 0;
    for (long i = 0; i < n; i++) {
        zeros += d[i] == 0;
        if (d[i] != 0) ASSERT_CLOSE(d[i], x[i] / (1 - p), 1e-14, 0);
    }
    ASSERT_CLOSE((double)zeros / (double)n, p, 0, 0.08); /* 768 draws: 4 sigma */
}

TEST(lora_path, dropout_of_the_adapters_input_alone)
{
    Arena a = {.name = "test"};
    for (int dora = 0; dora < 2; dora++)
        for (int gpt2 = 0; gpt2 < 2; gpt2++) {
            LoraBed b;
            const LoraConfig c = LORA_OF(&a, "target_modules=all-linear", "dropout=0.3", "r=3",
                                         dora ? "use_dora=true" : "use_dora=false");
            lora_bed(&b, gpt2 ? "tests/data/hf-tiny-gpt2" : LLAMA, &c, kernels_ref_f64());
            lora_stir(&b, &b.l, 0.1);
            b.keep_all = true;
            lora_record(&b, true);
            graph_forward(b.g);
            for (int i = 0; i < b.l.n; i++) {
                check_output(&b, &b.l.item[i]);
                check_drop(&b, &b.l.item[i], 0.3);
            }
            /* each module draws for itself */
            const Node *q = dropout_of(&b, b.l.item[0].module), *v = dropout_of(&b, b.l.item[1].module);
            long differ = 0;
            for (long i = 0; i < LB * LT * 32 && !gpt2; i++)
                differ += (((const double *)q->out->data)[i] == 0) !=
                          (((const double *)v->out->data)[i] == 0);
            ASSERT(gpt2 || differ > 100);
            graph_free(b.g);
            lora_record(&b, false); /* an evaluation drops nothing */
            ASSERT(!dropout_of(&b, b.l.item[0].module));
            lora_close(&b);
        }
    arena_free(&a);
}

/* ---- a mask around the sum ----------------------------------------------------------------------------- */

#define MASKED "model.layers.0.mlp.up_proj"

static uint8_t keep[48 * 32];
static const MaskState state = {.keep = keep};

static Tensor *masked(Graph *g, Tensor *w, const Attachment *a)
{
    const MaskAttr at = {a->state};
    return OP_ATTR(g, mask, at, w);
}

static void masked_bed(LoraBed *b, const LoraConfig *c)
{
    for (int i = 0; i < 48 * 32; i++) keep[i] = i * 7 % 5 < 3;
    lora_plain(b, LLAMA, kernels_ref_f64());
    b->c = *c;
    ASSERT_EQ(
        model_attach(&b->m, MASKED, true, (Attachment){"mask", masked, (void *)(uintptr_t)&state}, &b->e), 1);
    ASSERT_MSG(lora_open(&b->l, &b->c, &b->m, 1, NULL, &b->e), "%s", b->e.msg);
    lora_stir(b, &b->l, 0.1);
}

/* Logits of the base whose masked weight is w (48,32), without adapters. */
static double *with_weight(Arena *a, const double *w)
{
    LoraBed b;
    lora_plain(&b, LLAMA, kernels_ref_f64());
    memcpy(params_find(&b.m.params, MASKED ".weight")->w.data, w, 48 * 32 * sizeof *w);
    double *z = arena_alloc(a, LB * LT * LV * sizeof *z, &b.e);
    memcpy(z, lora_logits(&b), LB * LT * LV * sizeof *z);
    lora_close(&b);
    return z;
}

TEST(lora_path, mask_lies_around_the_sum)
{
    Arena a = {.name = "test"};
    const LoraConfig c = LORA_OF(&a, "target_modules=[up_proj]", "exclude_modules=['*.layers.1.*']", "r=2"),
                     loose = LORA_OF(&a, "target_modules=[up_proj]", "exclude_modules=['*.layers.1.*']",
                                     "r=2", "respect_mask=false");
    LoraBed b;
    double w[2][48 * 32];
    masked_bed(&b, &c);
    const LoraItem *it = &b.l.item[0];
    ASSERT(b.l.n == 1 && it->in_weight);
    const double *W = it->base->w.data, *A = it->a->w.data, *B = it->b->w.data;
    for (long i = 0; i < 48 * 32; i++) {
        const double d = it->scale * (B[i / 32 * 2] * A[i % 32] + B[i / 32 * 2 + 1] * A[32 + i % 32]);
        w[0][i] = keep[i] ? W[i] + d : 0;
        w[1][i] = (keep[i] ? W[i] : 0) + d;
    }
    ASSERT(lora_distance(lora_logits(&b), with_weight(&a, w[0])) < 1e-12);
    ASSERT(lora_distance(lora_logits(&b), with_weight(&a, w[1])) > 1e-3);
    /* and what is written is that weight, with its zeros */
    OutModel o;
    ASSERT(model_out(&b.m, &o, DT_F32, &b.a, &b.e));
    for (int i = 0; i < o.n; i++)
        for (long q = 0; !strcmp(o.t[i].name, MASKED ".weight") && q < 48 * 32; q++)
            ASSERT_CLOSE(o.t[i].src[q], w[0][q], 1e-6, 0);
    lora_close(&b);
    masked_bed(&b, &loose);
    ASSERT(!b.l.item[0].in_weight);
    ASSERT(lora_distance(lora_logits(&b), with_weight(&a, w[1])) < 1e-12);
    lora_close(&b);
    arena_free(&a);
}

/* Gradients see the mask: entries that are off teach neither A nor B. Against central differences. */
TEST(lora_path, gradients_through_the_mask)
{
    Arena a = {.name = "test"};
    LoraBed b;
    const LoraConfig c = LORA_OF(&a, "target_modules=[up_proj]", "exclude_modules=['*.layers.1.*']", "r=2");
    masked_bed(&b, &c);
    lora_record(&b, true);
    lora_step(&b);
    Param *p[2] = {b.l.item[0].a, b.l.item[0].b};
    const double g[2] = {((double *)p[0]->w.grad)[5], ((double *)p[1]->w.grad)[7]}, h = 1e-5;
    for (int i = 0; i < 2; i++) {
        double *at = (double *)p[i]->w.data + (i ? 7 : 5), loss[2];
        const double old = *at;
        for (int s = 0; s < 2; s++) {
            *at = old + (s ? h : -h);
            lora_step(&b);
            loss[s] = graph_loss_total(b.g);
        }
        *at = old;
        ASSERT_CLOSE(g[i], (loss[1] - loss[0]) / (2 * h), 1e-6, 1e-9);
        ASSERT(fabs(g[i]) > 1e-6);
    }
    lora_close(&b);
    /* nothing on: no gradient at all */
    masked_bed(&b, &c);
    memset(keep, 0, sizeof keep);
    lora_record(&b, true);
    lora_step(&b);
    for (long i = 0; i < t_numel(&b.l.item[0].a->w); i++)
        ASSERT_EQ(((double *)b.l.item[0].a->w.grad)[i], 0.0);
    lora_close(&b);
    arena_free(&a);
}

TEST(lora_path, a_mask_and_dropout_are_refused)
{
    Arena a = {.name = "test"};
    LoraBed b;
    const LoraConfig c = LORA_OF(&a, "target_modules=[up_proj]", "dropout=0.1");
    lora_plain(&b, LLAMA, kernels_ref_f64());
    model_attach(&b.m, MASKED, true, (Attachment){"mask", masked, (void *)(uintptr_t)&state}, &b.e);
    ASSERT(!lora_open(&b.l, &c, &b.m, 1, NULL, &b.e));
    ASSERT_CONTAINS(b.e.msg, "set lora.dropout: 0 or lora.respect_mask: false");
    lora_close(&b);
    arena_free(&a);
}
