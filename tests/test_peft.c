/* tests/test_peft.c: adapters against peft (tests/golden/make_peft.py): folders read, logits, every gradient,
 * groups of LoRA+, PiSSA's start; folders written and read again; files in HDF5; what is refused. */
#include "tests/lora_impl.h"
#include "train/train.h"

typedef struct Gold {
    TensorFile f;
    Arena a;
    Err e;
} Gold;

static void gold_open(Gold *g, const char *variant)
{
    *g = (Gold){.a = {.name = "gold"}};
    char path[128];
    snprintf(path, sizeof path, "tests/golden/peft-%s.safetensors", variant);
    ASSERT(formats_open(&g->f, path, &g->a, &g->e));
}
static void gold_close(Gold *g)
{
    formats_close(&g->f);
    arena_free(&g->a);
}

static const double *gold_f64(Gold *g, const char *name, long n)
{
    const FileTensor *t = formats_find(&g->f, name);
    if (!t) test_fail(__FILE__, __LINE__, "no %s in the fixture", name);
    if (t->bytes != (size_t)n * sizeof(double)) test_fail(__FILE__, __LINE__, "%s: not %ld numbers", name, n);
    double *v = arena_alloc(&g->a, t->bytes, &g->e);
    memcpy(v, t->data, t->bytes);
    return v;
}

static void gold_ints(Gold *g, const char *name, int32_t *dst)
{
    const FileTensor *t = formats_find(&g->f, name);
    ASSERT(t && t->bytes == LB * LT * sizeof(int32_t));
    memcpy(dst, t->data, t->bytes);
}

static void open_variant(LoraBed *b, const char *variant, const char *model, const Kernels *k)
{
    char path[128];
    *b = (LoraBed){.a = {.name = "peft"}, .k = k};
    snprintf(path, sizeof path, "tests/data/%s", model);
    model_open_frozen(&b->m, path, k, &b->a, &b->e);
    lora_ok(b);
    for (int i = 0; i < b->m.params.n; i++) b->m.params.p[i]->frozen = true;
    snprintf(path, sizeof path, "tests/data/peft/%s", variant);
    lora_load(&b->l, &b->m, path, "default", false, &b->e);
    lora_ok(b);
    for (int i = 0; i < b->l.n_saved; i++) b->l.saved[i].p->frozen = false;
    Lora *all[1] = {&b->l};
    lora_use(all, 1, (int[]){0}, 1, &b->e);
    lora_ok(b);
}

/* ||have - want|| <= tol ||want||; turned: want is the transpose. */
static void close_to(const LoraBed *b, const char *what, const Param *p, const double *want, bool turned,
                     double scale, double tol)
{
    const long rows = p->w.dim[0], cols = p->w.ndim > 1 ? p->w.dim[1] : 1;
    double diff = 0, norm = 0;
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < cols; j++) {
            const double w = want[turned ? j * rows + i : i * cols + j],
                         d = lora_real(b->k, p->w.grad, i * cols + j) * scale - w;
            diff += d * d;
            norm += w * w;
        }
    if (!(sqrt(diff) <= tol * sqrt(norm)) || !(norm > 0))
        test_fail(__FILE__, __LINE__, "%s: off by %.3g of %.3g", what, sqrt(diff), sqrt(norm));
}

static void check_grads(LoraBed *b, Gold *g, double scale, double tol)
{
    static const char *const what[2][3] = {{"lora_A.weight", "lora_B.weight", "lora_magnitude_vector"},
                                           {"lora_embedding_A", "lora_embedding_B", ""}};
    char name[256];
    for (int i = 0; i < b->l.n; i++) {
        const LoraItem *it = &b->l.item[i];
        const Param *p[3] = {it->a, it->b, it->m};
        for (int j = 0; j < 3; j++) {
            if (!p[j]) continue;
            snprintf(name, sizeof name, "grad.base_model.model.%s.%s", it->module, what[!it->site][j]);
            close_to(b, name, p[j], gold_f64(g, name, t_numel(&p[j]->w)), !it->site && j == 0, scale, tol);
        }
    }
    for (int i = 0; i < b->l.n_saved; i++) {
        const Param *p = b->l.saved[i].p;
        snprintf(name, sizeof name, "grad.base_model.model.%s", p->name);
        close_to(b, name, p, gold_f64(g, name, t_numel(&p->w)), false, scale, tol);
    }
}

static void against_peft(const char *variant, const char *model)
{
    const Kernels *table[2] = {kernels_ref_f64(), kernels_cpu_f32()};
    for (int t = 0; t < 2; t++) {
        LoraBed b;
        Gold g;
        long counted = 0;
        gold_open(&g, variant);
        open_variant(&b, variant, model, table[t]);
        lora_record(&b, false);
        gold_ints(&g, "input_ids", b.ids->data);
        gold_ints(&g, "labels", b.y->data);
        for (int i = 0; i < LB * LT; i++) counted += ((int32_t *)b.y->data)[i] >= 0;
        lora_step(&b);
        const double *z = gold_f64(&g, "logits", LB * LT * LV), tol = t ? 1e-5 : 1e-11;
        for (long i = 0; i < LB * LT * LV; i++)
            ASSERT_CLOSE(lora_real(b.k, b.logits->data, i), z[i], tol, tol);
        ASSERT_CLOSE(graph_loss_total(b.g) / (double)counted, gold_f64(&g, "loss", 1)[0], t ? 1e-6 : 1e-12,
                     0);
        check_grads(&b, &g, 1 / (double)counted, t ? 1e-5 : 1e-10);
        /* nothing else has a gradient */
        for (int i = 0; i < b.m.params.n; i++) ASSERT(b.m.params.p[i]->frozen == !b.m.params.p[i]->w.grad);
        lora_close(&b);
        gold_close(&g);
    }
}
TEST(peft, lora) { against_peft("lora", "hf-tiny-llama"); }
TEST(peft, rslora_all_linear) { against_peft("rslora", "hf-tiny-llama"); }
TEST(peft, dora) { against_peft("dora", "hf-tiny-llama"); }
TEST(peft, embedding) { against_peft("plus", "hf-tiny-llama"); }
TEST(peft, patterns_and_saved_modules) { against_peft("pattern", "hf-tiny-llama"); }
TEST(peft, head) { against_peft("head", "hf-tiny-llama"); }
TEST(peft, gpt2) { against_peft("gpt2", "hf-tiny-gpt2"); }
TEST(peft, gpt2_dora) { against_peft("gpt2-dora", "hf-tiny-gpt2"); }

/* Written by us, read by us: the same logits bit for bit, from a PEFT folder and from HDF5. */
static void round_trip(const char *variant, const char *model)
{
    LoraBed b, c;
    Err e = {0};
    open_variant(&b, variant, model, kernels_cpu_f32());
    double *want = lora_logits(&b);
    for (int h5 = 0; h5 < 2; h5++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s%s", test_dir(), variant, h5 ? ".h5" : "");
        if (!(h5 ? lora_write_h5(&b.l, path, &e) : lora_write_peft(&b.l, path, &e)))
            test_fail(__FILE__, __LINE__, "%s", e.msg);
        c = (LoraBed){.a = {.name = "back"}, .k = b.k};
        model_open_frozen(&c.m, b.m.path, b.k, &c.a, &c.e);
        lora_ok(&c);
        lora_load(&c.l, &c.m, path, "back", false, &c.e);
        lora_ok(&c);
        ASSERT_EQ(c.l.n, b.l.n);
        ASSERT_EQ(c.l.n_saved, b.l.n_saved);
        Lora *all[1] = {&c.l};
        lora_use(all, 1, (int[]){0}, 1, &c.e);
        double *have = lora_logits(&c);
        ASSERT(!memcmp(want, have, LB * LT * LV * sizeof *want));
        lora_close(&c);
    }
    lora_close(&b);
}
TEST(peft, round_trip)
{
    round_trip("dora", "hf-tiny-llama");
    round_trip("plus", "hf-tiny-llama");
    round_trip("pattern", "hf-tiny-llama");
    round_trip("gpt2", "hf-tiny-gpt2");
}

/* The groups of peft's create_loraplus_optimizer: one step with AdamW's sign-like first update shows each
 * rate. */
TEST(peft, loraplus_rates)
{
    LoraBed b;
    Gold g;
    char name[256];
    gold_open(&g, "plus");
    LoraConfig c = lora_config();
    Arena tmp = {.name = "tmp"};
    c.r = 2;
    c.plus_ratio = 16;
    c.target_modules = lora_node(&tmp, "[embed_tokens, q_proj, down_proj]");
    lora_bed(&b, "tests/data/hf-tiny-llama", &c, kernels_ref_f64());
    lora_stir(&b, &b.l, 0.2);
    lora_record(&b, false);
    OptimConfig oc = {
        .name = "adamw", .learning_rate = 1e-3, .betas = {2, (double[]){0.9, 0.95}}, .eps = 1e-300};
    ScheduleConfig sc = {.name = "constant"};
    Optim *o = optim_new(&oc, &sc, 0, &b.m.params, &b.a, &b.e);
    ASSERT(o != NULL);
    lora_rates(&b.l, o, 1e-3);
    lora_step(&b);
    for (int i = 0; i < b.l.n; i++)
        for (int j = 0; j < 2; j++) {
            const LoraItem *it = &b.l.item[i];
            Param *p = j ? it->b : it->a;
            long at = 0;
            for (long q = 0; q < t_numel(&p->w); q++)
                if (fabs(((double *)p->w.grad)[q]) > fabs(((double *)p->w.grad)[at])) at = q;
            p->group = (int)at;
        }
    double before[32];
    for (int i = 0; i < 2 * b.l.n; i++) {
        const Param *p = i % 2 ? b.l.item[i / 2].b : b.l.item[i / 2].a;
        before[i] = ((double *)p->w.data)[p->group];
    }
    optim_step(o, 0, 100, 1);
    for (int i = 0; i < 2 * b.l.n; i++) {
        const LoraItem *it = &b.l.item[i / 2];
        const Param *p = i % 2 ? it->b : it->a;
        snprintf(name, sizeof name, "plus.base_model.model.%s.%s_%c%s", it->module,
                 it->site ? "lora" : "lora_embedding", "AB"[i % 2], it -> site ? ".weight" : "");
        ASSERT_CLOSE(fabs(((double *)p->w.data)[p->group] - before[i]), gold_f64(&g, name, 1)[0], 1e-6, 0);
    }
    arena_free(&tmp);
    lora_close(&b);
    gold_close(&g);
}

/* PiSSA's s B A is what peft starts from, the base keeps the rest, and nothing has changed as a whole. */
TEST(peft, pissa)
{
    LoraBed b, plain;
    Gold g;
    Arena tmp = {.name = "tmp"};
    gold_open(&g, "pissa");
    LoraConfig c = lora_config();
    c.init = "pissa";
    c.alpha = 8;
    c.target_modules = lora_node(&tmp, "[q_proj, down_proj]");
    lora_bed(&b, "tests/data/hf-tiny-llama", &c, kernels_ref_f64());
    plain = (LoraBed){.a = {.name = "plain"}, .k = b.k};
    model_open(&plain.m, "tests/data/hf-tiny-llama", b.k, &plain.a, &plain.e);
    for (int i = 0; i < b.l.n; i++) {
        const LoraItem *it = &b.l.item[i];
        const long out = it->b->w.dim[0], in = it->a->w.dim[1];
        char name[128];
        snprintf(name, sizeof name, "delta.%s", it->module);
        const double *want = gold_f64(&g, name, out * in), *A = it->a->w.data, *B = it->b->w.data,
                     *rest = it->base->w.data, *w = params_find(&plain.m.params, it->base->name)->w.data;
        for (long r = 0; r < out; r++)
            for (long q = 0; q < in; q++) {
                double d = 0;
                for (long j = 0; j < it->r; j++) d += it->scale * B[r * it->r + j] * A[j * in + q];
                ASSERT_CLOSE(d, want[r * in + q], 0, 5e-6);
                ASSERT_CLOSE(d + rest[r * in + q], w[r * in + q], 0, 1e-12);
            }
    }
    /* as a peft folder it is an adapter of rank 2r on the untouched base, zero at the start */
    ASSERT(lora_distance(lora_logits(&b), lora_logits(&plain)) < 1e-10);
    lora_stir(&b, &b.l, 0.1);
    char path[512];
    snprintf(path, sizeof path, "%s/pissa", test_dir());
    lora_write_peft(&b.l, path, &b.e);
    lora_load(&plain.l, &plain.m, path, "default", false, &plain.e);
    Lora *all[1] = {&plain.l};
    lora_use(all, 1, (int[]){0}, 1, &plain.e);
    lora_ok(&plain);
    ASSERT_EQ(plain.l.item[0].r, 8);
    ASSERT(lora_distance(lora_logits(&b), lora_logits(&plain)) < 2e-5);
    arena_free(&tmp);
    lora_close(&plain);
    lora_close(&b);
    gold_close(&g);
}

static void refused(const char *name, const char *from, const char *to, const char *want)
{
    Arena a = {.name = "refused"};
    Err e = {0};
    Model m;
    Lora l;
    size_t n;
    const char *dir = arena_printf(&a, &e, "%s/%s", test_dir(), name);
    const char *text = file_read(&a, "tests/data/peft/lora/adapter_config.json", &n, &e),
               *at = strstr(text, from);
    ASSERT(at != NULL);
    const char *bad = arena_printf(&a, &e, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    const char *weights = file_read(&a, "tests/data/peft/lora/adapter_model.safetensors", &n, &e);
    dir_make(dir, &e);
    file_write_atomic(path_join(&a, dir, "adapter_config.json", &e), bad, strlen(bad), &e);
    file_write_atomic(path_join(&a, dir, "adapter_model.safetensors", &e), weights, n, &e);
    ASSERT(model_open(&m, "tests/data/hf-tiny-llama", kernels_cpu_f32(), &a, &e));
    ASSERT(!lora_load(&l, &m, dir, "x", false, &e));
    if (!strstr(e.msg, want)) test_fail(__FILE__, __LINE__, "%s: %s", name, e.msg);
    arena_free(&a);
}

TEST(peft, what_is_not_read_is_named)
{
    refused("type", "\"LORA\"", "\"IA3\"", "peft_type is IA3");
    refused("qalora", "\"use_qalora\": false", "\"use_qalora\": true", "use_qalora is not supported");
    refused("json", "\"r\": 4", "\"r\" 4", "adapter_config.json:");
    refused("magnitude", "\"use_dora\": false", "\"use_dora\": true", "no lora_magnitude_vector");
    Arena a = {.name = "other"};
    Err e = {0};
    Model m;
    Lora l;
    ASSERT(model_open(&m, "tests/data/hf-tiny-gpt2", kernels_cpu_f32(), &a, &e));
    ASSERT(!lora_load(&l, &m, "tests/data/peft/lora", "x", false, &e));
    ASSERT(strstr(e.msg, "no such projection") != NULL);
    arena_free(&a);
}
