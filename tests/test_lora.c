/* tests/test_lora.c: what an adapter computes: nothing at its start, W + s B A later, beside the weight or
 * in it; which modules, ranks and scales the section means; what a frozen base does not cost. */
#include "autograd/graph_impl.h"
#include "tests/lora_impl.h"

#define LLAMA "tests/data/hf-tiny-llama"
#define GPT2 "tests/data/hf-tiny-gpt2"

/* ---- the start ----------------------------------------------------------------------------------------- */

/* Largest difference to the base at the start; exact: not one bit may differ. train: dropout acts. */
static double off_base(const char *model, const LoraConfig *c, const Kernels *k, bool train, bool *exact)
{
    LoraBed b, plain;
    lora_plain(&plain, model, k);
    lora_bed(&b, model, c, k);
    ASSERT(b.l.n > 0);
    const double *want = lora_logits(&plain), *have = lora_logits_as(&b, train);
    const double d = lora_distance(have, want);
    *exact = !memcmp(have, want, LB * LT * LV * sizeof *want);
    lora_close(&plain);
    lora_close(&b);
    return d;
}

TEST(lora, zero_b_is_the_base_bit_for_bit)
{
    Arena a = {.name = "test"};
    const LoraConfig c[] = {LORA_OF(&a, "target_modules=all-linear", "dropout=0.4"),
                            LORA_OF(&a, "target_modules=all-linear", "use_rslora=true", "init=gaussian"),
                            LORA_OF(&a, "plus_ratio=16", "alpha=64")};
    const Kernels *k[] = {kernels_cpu_f32(), kernels_ref_f64()};
    for (int i = 0; i < 3; i++)
        for (int t = 0; t < 2; t++)
            for (int m = 0; m < 2; m++) {
                bool exact;
                const double d = off_base(m ? GPT2 : LLAMA, &c[i], k[t], true, &exact);
                ASSERT_MSG(exact, "config %d, table %d, model %d: off by %.3g", i, t, m, d);
            }
    const LoraConfig tables = LORA_OF(&a, "target_modules=[embed_tokens, lm_head, q_proj]");
    bool exact;
    off_base(LLAMA, &tables, k[0], true, &exact);
    ASSERT(exact);
    arena_free(&a);
}

/* Without dropout g = m / |W + 0| is 1 exactly, since m was found by the same sums, and y * 1 is y. With it
 * y + (W d(x) - W d(x)) rounds twice: a few last places of |W d(x)|. */
TEST(lora, dora_starts_as_the_base)
{
    Arena a = {.name = "test"};
    const LoraConfig plain = LORA_OF(&a, "target_modules=all-linear", "use_dora=true"),
                     drop = LORA_OF(&a, "target_modules=all-linear", "use_dora=true", "dropout=0.3");
    bool exact;
    for (int m = 0; m < 2; m++) {
        off_base(m ? GPT2 : LLAMA, &plain, kernels_cpu_f32(), true, &exact);
        ASSERT(exact);
        off_base(m ? GPT2 : LLAMA, &plain, kernels_ref_f64(), true, &exact);
        ASSERT(exact);
        ASSERT(off_base(m ? GPT2 : LLAMA, &drop, kernels_cpu_f32(), true, &exact) < 1e-5);
        ASSERT(off_base(m ? GPT2 : LLAMA, &drop, kernels_ref_f64(), true, &exact) < 1e-14);
    }
    arena_free(&a);
}

/* ---- merged, added up ---------------------------------------------------------------------------------- */

/* ||W' - (W + s B A)|| <= 1e-6 ||W'||, the sum in double. */
static void weights_are_the_sum(const LoraBed *b, const Model *merged)
{
    for (int i = 0; i < b->l.n; i++) {
        const LoraItem *it = &b->l.item[i];
        if (it->m || it->a0 || !it->site) continue;
        const long out = it->b->w.dim[0], in = it->a->w.dim[1], r = it->r;
        const float *w = it->base->w.data, *A = it->a->w.data, *B = it->b->w.data,
                    *have = params_find(&merged->params, it->base->name)->w.data;
        double diff = 0, norm = 0;
        for (long q = 0; q < out * in; q++) {
            double want = (double)w[q];
            for (long j = 0; j < r; j++)
                want += it->scale * (double)B[q / in * r + j] * (double)A[j * in + q % in];
            diff += ((double)have[q] - want) * ((double)have[q] - want);
            norm += want * want;
        }
        ASSERT_MSG(sqrt(diff) <= 1e-6 * sqrt(norm), "%s: %.3g", it->module, sqrt(diff / norm));
    }
}

/* Logits to 1e-5, relative to the largest where that is above 1 (here about 6). */
static void merged_is_beside(const char *model, const LoraConfig *c)
{
    LoraBed b, m;
    MergeReport r;
    Err e = {0};
    lora_bed(&b, model, c, kernels_cpu_f32());
    lora_stir(&b, &b.l, 0.05);
    const double *beside = lora_logits(&b);
    char dir[512], out[512];
    snprintf(dir, sizeof dir, "%s/adapter", test_dir());
    snprintf(out, sizeof out, "%s/merged.h5", test_dir());
    ASSERT_MSG(lora_write_peft(&b.l, dir, &e), "%s", e.msg);
    const MergeOptions o = {
        .adapter = (const char *const[]){dir}, .weight = (double[]){1}, .n_adapter = 1, .scale = 1};
    ASSERT_MSG(lora_merge_file(model, out, &o, &r, &b.a, &e), "%s", e.msg);
    ASSERT_EQ(r.n, b.l.n);
    lora_plain(&m, out, kernels_cpu_f32());
    weights_are_the_sum(&b, &m.m);
    const double *merged = lora_logits(&m);
    double top = 1;
    for (long i = 0; i < LB * LT * LV; i++) top = fmax(top, fabs(beside[i]));
    const double d = lora_distance(merged, beside);
    ASSERT_MSG(d <= 1e-5 * top, "%s: off by %.3g of %.3g", c->init, d, top);
    LoraBed plain; /* and it is not the base that was compared with itself */
    lora_plain(&plain, model, kernels_cpu_f32());
    ASSERT(lora_distance(merged, lora_logits(&plain)) > 1e-2);
    lora_close(&plain);
    lora_close(&m);
    lora_close(&b);
}

TEST(lora, merged_is_beside_the_weight)
{
    Arena a = {.name = "test"};
    const LoraConfig c[] = {
        LORA_OF(&a, "target_modules=all-linear", "r=3"),
        LORA_OF(&a, "target_modules=all-linear", "use_rslora=true", "alpha=3"),
        LORA_OF(&a, "target_modules=all-linear", "use_dora=true"),
        LORA_OF(&a, "target_modules=[q_proj, down_proj]", "init=pissa", "r=4"),
        LORA_OF(&a, "target_modules=[embed_tokens, lm_head, v_proj]", "r=2"),
    };
    for (int i = 0; i < 5; i++) merged_is_beside(LLAMA, &c[i]);
    merged_is_beside(GPT2, &c[0]);
    merged_is_beside(GPT2, &c[2]);
    arena_free(&a);
}

/* Two adapters with shares on one model, and their concatenation: the same function. */
static void sum_of_two(const Kernels *k, double tol)
{
    LoraBed b;
    Arena a = {.name = "test"};
    Lora two[2], one;
    const LoraConfig c[2] = {LORA_OF(&a, "r=2", "target_modules=[q_proj, v_proj]"),
                             LORA_OF(&a, "r=3", "target_modules=all-linear", "alpha=12")};
    static const double share[2] = {1, -0.5};
    for (int i = 0; i < 2; i++) {
        lora_bed(&b, LLAMA, &c[i], k);
        lora_stir(&b, &b.l, i ? 0.07 : 0.1);
        char dir[512];
        snprintf(dir, sizeof dir, "%s/%d", test_dir(), i);
        ASSERT(lora_write_peft(&b.l, dir, &b.e));
        lora_close(&b);
    }
    lora_plain(&b, LLAMA, k);
    Lora *all[3] = {&two[0], &two[1], &one};
    for (int i = 0; i < 2; i++) {
        char dir[512];
        snprintf(dir, sizeof dir, "%s/%d", test_dir(), i);
        ASSERT(lora_load(&two[i], &b.m, dir, i ? "b" : "a", false, &b.e));
        two[i].weight = share[i];
    }
    ASSERT(lora_concat(&one, all, 2, "sum", &b.m, &b.e));
    double *z[4];
    static const int use[4][2] = {{0, 1}, {2, 2}, {0, 0}, {1, 1}};
    for (int i = 0; i < 4; i++) {
        ASSERT(lora_use(all, 3, use[i], i ? 1 : 2, &b.e));
        z[i] = lora_logits(&b);
    }
    ASSERT(lora_distance(z[0], z[1]) <= tol);
    ASSERT(lora_distance(z[0], z[2]) > 1e-3 && lora_distance(z[0], z[3]) > 1e-3);
    for (int i = 0; i < one.n; i++)
        ASSERT_EQ(one.item[i].r,
                  strstr(one.item[i].module, "q_proj") || strstr(one.item[i].module, "v_proj") ? 5 : 3);
    lora_close(&b);
    arena_free(&a);
}
TEST(lora, several_add_up)
{
    sum_of_two(kernels_ref_f64(), 1e-13);
    sum_of_two(kernels_cpu_f32(), 1e-5);
}

/* Numbers without rounding: the concatenation's B A is s1 w1 B1 A1 + s2 w2 B2 A2 to the last bit. */
TEST(lora, concatenation_is_exact)
{
    LoraBed b;
    Arena a = {.name = "test"};
    Lora one, second;
    const LoraConfig c = LORA_OF(&a, "r=2", "alpha=4", "target_modules=[q_proj]");
    lora_bed(&b, LLAMA, &c, kernels_cpu_f32());
    ASSERT(lora_write_peft(&b.l, test_dir(), &b.e));
    ASSERT(lora_load(&second, &b.m, test_dir(), "second", false, &b.e));
    Lora *all[2] = {&b.l, &second};
    second.weight = 0.25;
    const LoraItem *x = &b.l.item[0], *y = &second.item[0];
    const long out = x->b->w.dim[0], in = x->a->w.dim[1];
    for (int t = 0; t < 2; t++)
        for (long i = 0; i < 2 * (in > out ? in : out); i++) {
            const LoraItem *it = t ? y : x;
            if (i < 2 * in) ((float *)it->a->w.data)[i] = (float)((i * 7 + t) % 11 - 5);
            if (i < 2 * out) ((float *)it->b->w.data)[i] = (float)((i * 5 + t) % 7 - 3);
        }
    ASSERT(lora_concat(&one, all, 2, "sum", &b.m, &b.e));
    const float *A = one.item[0].a->w.data, *B = one.item[0].b->w.data, *A1 = x->a->w.data,
                *B1 = x->b->w.data, *A2 = y->a->w.data, *B2 = y->b->w.data;
    ASSERT_EQ(one.item[0].r, 4);
    for (long i = 0; i < out; i++)
        for (long j = 0; j < in; j++) {
            double sum = 0, want = 0;
            for (long q = 0; q < 4; q++)
                sum += one.item[0].scale * (double)B[i * 4 + q] * (double)A[q * in + j];
            for (long q = 0; q < 2; q++)
                want += 2 * (double)B1[i * 2 + q] * (double)A1[q * in + j] +
                        0.25 * 2 * (double)B2[i * 2 + q] * (double)A2[q * in + j];
            ASSERT_MSG(!memcmp(&sum, &want, sizeof sum), "(%ld,%ld): %.17g and %.17g", i, j, sum, want);
        }
    lora_close(&b);
    arena_free(&a);
}

/* ---- which modules, ranks, scales ---------------------------------------------------------------------- */

static const LoraItem *item_at(const LoraBed *b, const char *module)
{
    for (int i = 0; i < b->l.n; i++)
        if (!strcmp(b->l.item[i].module, module)) return &b->l.item[i];
    return NULL;
}

TEST(lora, patterns_last_match_wins)
{
    LoraBed b;
    Arena a = {.name = "test"};
    const LoraConfig c = LORA_OF(
        &a, "r=4", "alpha=8", "target_modules=all-linear",
        "rank_pattern={q_proj: 2, 'model.layers.1.*': 3, 'model.layers.1.mlp.up_proj': 5}",
        "alpha_pattern={'*.mlp.*': 6, up_proj: 10}", "exclude_modules=['*.0.*.down_proj', o_proj]");
    lora_bed(&b, LLAMA, &c, kernels_cpu_f32());
    static const struct {
        const char *module;
        long r;
        double alpha;
    } want[] = {{"model.layers.0.self_attn.q_proj", 2, 8}, {"model.layers.0.self_attn.k_proj", 4, 8},
                {"model.layers.1.self_attn.q_proj", 3, 8}, {"model.layers.0.mlp.up_proj", 4, 10},
                {"model.layers.1.mlp.up_proj", 5, 10},     {"model.layers.1.mlp.down_proj", 3, 6},
                {"model.layers.0.mlp.gate_proj", 4, 6}};
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const LoraItem *it = item_at(&b, want[i].module);
        ASSERT_MSG(it != NULL, "%s has no adapter", want[i].module);
        ASSERT_MSG(it->r == want[i].r && it->a->w.dim[0] == it->r && it->b->w.dim[1] == it->r, "%s: r %ld",
                   want[i].module, it->r);
        ASSERT_CLOSE(it->scale, want[i].alpha / (double)want[i].r, 1e-15, 0);
    }
    ASSERT(!item_at(&b, "model.layers.0.mlp.down_proj") && !item_at(&b, "model.layers.1.self_attn.o_proj"));
    ASSERT(!item_at(&b, "lm_head") && !item_at(&b, "model.embed_tokens")); /* all-linear: not the tables */
    ASSERT_EQ(b.l.n, 2 * 7 - 3);
    lora_close(&b);
    const LoraConfig rs = LORA_OF(&a, "r=9", "alpha=6", "use_rslora=true");
    lora_bed(&b, LLAMA, &rs, kernels_cpu_f32());
    ASSERT_CLOSE(b.l.item[0].scale, 2, 1e-15, 0); /* 6 / sqrt(9) */
    ASSERT_EQ(b.l.n, 4);                          /* q_proj and v_proj of two layers */
    lora_close(&b);
    arena_free(&a);
}

TEST(lora, saved_modules_train_in_full)
{
    LoraBed b, back;
    Arena a = {.name = "test"};
    const LoraConfig c = LORA_OF(&a, "target_modules=all-linear", "modules_to_save=[lm_head, norm, k_proj]");
    lora_bed(&b, LLAMA, &c, kernels_cpu_f32());
    ASSERT(!item_at(&b, "model.layers.0.self_attn.k_proj"));
    static const char *const saved[] = {"lm_head.weight", "model.norm.weight",
                                        "model.layers.0.self_attn.k_proj.weight",
                                        "model.layers.1.self_attn.k_proj.weight"};
    ASSERT_EQ(b.l.n_saved, 4);
    for (int i = 0; i < b.m.params.n; i++) {
        Param *p = b.m.params.p[i];
        bool is = false;
        for (int j = 0; j < 4; j++) is = is || !strcmp(p->name, saved[j]);
        ASSERT_MSG(p->frozen == !(is || lora_owns(p)), "%s", p->name);
        if (is) ((float *)p->w.data)[3] += 0.5f;
    }
    lora_stir(&b, &b.l, 0.1);
    const double *want = lora_logits(&b);
    ASSERT(lora_write_peft(&b.l, test_dir(), &b.e));
    lora_plain(&back, LLAMA, kernels_cpu_f32());
    const double *base = lora_logits(&back);
    ASSERT_MSG(lora_load(&back.l, &back.m, test_dir(), "x", false, &back.e), "%s", back.e.msg);
    ASSERT_EQ(back.l.n_saved, 4);
    Lora *all[1] = {&back.l};
    ASSERT(lora_use(all, 1, (int[]){0}, 1, &back.e));
    ASSERT(!memcmp(lora_logits(&back), want, LB * LT * LV * sizeof *want));
    ASSERT(lora_use(all, 1, NULL, 0, &back.e)); /* and the base is itself again */
    ASSERT(!memcmp(lora_logits(&back), base, LB * LT * LV * sizeof *want));
    lora_close(&back);
    lora_close(&b);
    arena_free(&a);
}

/* ---- another base -------------------------------------------------------------------------------------- */

TEST(lora, another_base_is_refused_by_content)
{
    LoraBed b, other;
    Arena a = {.name = "test"};
    const LoraConfig c = LORA_OF(&a, "r=2");
    char path[2][512];
    snprintf(path[0], sizeof path[0], "%s/peft", test_dir());
    snprintf(path[1], sizeof path[1], "%s/a.h5", test_dir());
    lora_bed(&b, LLAMA, &c, kernels_cpu_f32());
    ASSERT(lora_write_peft(&b.l, path[0], &b.e) && lora_write_h5(&b.l, path[1], &b.e));
    for (int i = 0; i < 2; i++) {
        Lora l;
        lora_plain(&other, LLAMA, kernels_cpu_f32());
        ASSERT(lora_load(&l, &other.m, path[i], "x", false, &other.e)); /* the same values elsewhere */
        lora_close(&other);
        lora_plain(&other, LLAMA, kernels_cpu_f32());
        ((float *)params_find(&other.m.params, "model.layers.1.mlp.up_proj.weight")->w.data)[7] += 1e-6f;
        ASSERT(!lora_load(&l, &other.m, path[i], "x", false, &other.e));
        ASSERT_EQ((int)other.e.code, (int)ERR_USAGE);
        ASSERT_CONTAINS(other.e.msg, "was trained on another base: content hash ");
        ASSERT_CONTAINS(other.e.msg, b.l.base_hash);
        lora_close(&other);
        lora_plain(&other, LLAMA, kernels_cpu_f32());
        ((float *)params_find(&other.m.params, "model.layers.1.mlp.up_proj.weight")->w.data)[7] += 1e-6f;
        ASSERT(lora_load(&l, &other.m, path[i], "x", true, &other.e)); /* forced */
        lora_close(&other);
    }
    lora_close(&b);
    arena_free(&a);
}

/* ---- what a frozen base does not cost ------------------------------------------------------------------ */

static Kernels counting;
static const Kernels *real_table;
static long calls_tn, base_tn;
static long shape_of[32][2];
static int n_shape;

/* dW of a linear: counted, and whether it has the shape of a base matrix. */
static void counted_tn(void *y, const void *x, const void *w, long M, long N, long K, Mode mode)
{
    calls_tn++;
    for (int i = 0; i < n_shape; i++) base_tn += shape_of[i][0] == M && shape_of[i][1] == N;
    real_table->gemm_tn(y, x, w, M, N, K, mode);
}

static void no_dw(const char *model, const LoraConfig *c, const char *why)
{
    LoraBed b;
    real_table = kernels_cpu_f32();
    counting = *real_table;
    counting.gemm_tn = counted_tn;
    calls_tn = base_tn = n_shape = 0;
    lora_bed(&b, model, c, &counting);
    int64_t trained = 0;
    for (int i = 0; i < b.m.n_site; i++) {
        ASSERT(n_shape < 32);
        shape_of[n_shape][0] = b.m.site[i].w->w.dim[0];
        shape_of[n_shape++][1] = b.m.site[i].w->w.dim[1];
    }
    const size_t before = b.a.used;
    ASSERT(params_alloc_grads(&b.m.params, &b.e));
    const size_t grads = b.a.used - before;
    lora_record(&b, true);
    for (int i = 0; i < b.m.params.n; i++) {
        const Param *p = b.m.params.p[i];
        ASSERT_MSG(p->frozen == !p->w.grad, "%s: %s", why, p->name);
        if (!p->frozen) trained += t_numel(&p->w);
    }
    ASSERT_MSG(grads < (size_t)trained * 4 + 128 * (size_t)b.m.params.n, "%s: %zu bytes of gradients", why,
               grads);
    /* the plan: no node has a gradient for what rests */
    int n;
    const Node *const *node = graph_nodes(b.g, &n);
    for (int i = 0; i < n; i++)
        for (int j = 0; j < node[i]->n_in; j++) {
            const Tensor *t = node[i]->in[j];
            const Param *p = t && t->flags & T_PARAM ? params_find(&b.m.params, t->name) : NULL;
            if (p && p->frozen)
                ASSERT_MSG(!t->grad, "%s: %s has a gradient for %s", why, node[i]->op->name, t->name);
        }
    char *table = graph_memory_table(b.g, &b.a, &b.e);
    for (int i = 0; i < b.m.n_site; i++) ASSERT(table && !strstr(table, b.m.site[i].w->name));
    lora_step(&b);
    ASSERT_MSG(calls_tn == 2 * b.l.n && base_tn == 0, "%s: %ld dW, %ld of them of the base, %d adapters", why,
               calls_tn, base_tn, b.l.n);
    /* dx still flows through the base: the first layer's adapters have gradients */
    double sum = 0;
    for (long i = 0; i < t_numel(&b.l.item[0].b->w); i++)
        sum += fabs((double)((float *)b.l.item[0].b->w.grad)[i]);
    ASSERT(sum > 0);
    lora_close(&b);
}

TEST(lora, a_frozen_base_has_no_gradients_and_no_dw)
{
    Arena a = {.name = "test"};
    const LoraConfig lora = LORA_OF(&a, "target_modules=all-linear", "r=2"),
                     dora = LORA_OF(&a, "target_modules=all-linear", "r=2", "use_dora=true", "dropout=0.2"),
                     pissa = LORA_OF(&a, "r=2", "init=pissa"), coded = LORA_OF(&a, "r=2", "base_quant=nf4");
    no_dw(LLAMA, &lora, "lora");
    no_dw(LLAMA, &dora, "dora");
    no_dw(LLAMA, &pissa, "pissa");
    no_dw(LLAMA, &coded, "nf4");
    no_dw(GPT2, &lora, "gpt2");
    arena_free(&a);
}
