/* tests/test_distill.c: distillation: what the divergences are by hand, their identities and limits, top-k as
 * a lower bound, mixed teachers; students cut out of their teachers, balance and schedule in a run; what is
 * refused. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include "compress/compress.h"
#include <math.h>

enum { V = 37, MAX_V = 4096, N_KIND = 6 };
static const Kernels *table(int i)
{
    return i == 0   ? kernels_ref_f64()
           : i == 1 ? kernels_ref_f32()
           : i == 2 ? kernels_isa_f32(ISA_AVX2, "builtin")
                    : kernels_isa_f32(ISA_AVX512, "builtin");
}
#define EACH_TABLE(k, i)                                                                                     \
    for (int i = 0; i < 4; i++)                                                                              \
        for (const Kernels *k = table(i); k; k = NULL)

typedef struct Row {
    double kd, entropy, grad[MAX_V];
} Row;
static double at(const Kernels *k, const void *p, long i)
{
    return k->real == sizeof(double) ? ((const double *)p)[i] : (double)((const float *)p)[i];
}
static void *reals(const Kernels *k, const double *v, long n, double *room)
{
    for (long i = 0; i < n; i++) {
        if (k->real == sizeof(double)) room[i] = v[i];
        else ((float *)room)[i] = (float)v[i];
    }
    return room;
}

/* One row's divergence and its gradient; top 0: the whole vocabulary. */
static Row row(const Kernels *k, const double *zt, const double *z, long n, int kind, double mix, double T,
               long top, bool renormalize)
{
    static double a[MAX_V], b[MAX_V], logp[MAX_V], room[MAX_V], rest[1];
    static int32_t index[MAX_V];
    const LossAttr at_ = {.kd_weight = 1, .temperature = T, .kind = kind, .mix = mix};
    double sums[4] = {0};
    Row r = {0};
    const int32_t target = 0;
    void *s = reals(k, z, n, a), *t = reals(k, zt, n, b);
    if (top) {
        k->topk(index, logp, rest, t, 1, n, top, 0.0, &T, 1);
        k->xent_top(s, index, logp, renormalize ? NULL : rest, room, &target, 1, n, top, &at_, 1.0, sums,
                    NULL);
    } else {
        k->xent(s, t, &target, 1, n, &at_, 1.0, sums, NULL);
    }
    r.kd = sums[1];
    r.entropy = sums[2];
    for (long i = 0; i < n; i++) r.grad[i] = at(k, s, i);
    return r;
}

static void draw(double *z, long n, uint32_t stream, double std)
{
    static float f[MAX_V];
    rng_normal_f32(f, (size_t)n, (RngKey){.seed = 3, .stream = stream}, 0.0, std);
    for (long i = 0; i < n; i++) z[i] = (double)f[i];
}
static double mix_of(int kind) { return kind == LOSS_SKEW_KL ? 0.1 : kind == LOSS_SYMMETRIC_KL ? 0.3 : 0.5; }

/* p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): every sum on paper. */
TEST(distill, divergences_by_hand)
{
    const double zt[] = {log(2.0), 0, 0}, z[] = {0, 0, log(2.0)}, l2 = log(2.0);
    const double kl = 0.25 * l2; /* 1/2 log 2 - 1/4 log 2, both ways */
    const double js = 0.5 * log(0.5 / 0.375) +
                      0.25 * log(0.25 / 0.375); /* each half of the JSD: (3/8, 1/4, 3/8) */
    const double skew = 0.5 * log(0.5 / 0.275) +
                        0.25 * log(0.25 / 0.475); /* .1 p + .9 q = (.275, .25, .475) */
    const double want[] = {kl, kl, js, kl, 0.25, skew, 2 * l2 * l2 / 3};
    EACH_TABLE (k, i)
        for (int kind = 0; kind <= LOSS_MSE_LOGITS; kind++) {
            const Row r = row(k, zt, z, 3, kind, mix_of(kind), 1.0, 0, false);
            ASSERT_CLOSE(r.kd, want[kind], 1e-6, 0);
        }
    /* with T = 2: z/2 halves the logits; reverse KL's gradient q/T (log q/p - KL) */
    const Row r = row(kernels_ref_f64(), zt, z, 3, LOSS_REVERSE_KL, 0, 1.0, 0, false);
    ASSERT_CLOSE(r.grad[0], 0.25 * (-l2 - kl), 1e-12, 0);
    ASSERT_CLOSE(r.grad[1], 0.25 * -kl, 1e-12, 0);
    ASSERT_CLOSE(r.grad[2], 0.5 * (l2 - kl), 1e-12, 0);
    /* top 1 of the teacher and the rest: (1/2, 1/2) against (1/4, 3/4) */
    EACH_TABLE (k, i) {
        const Row t = row(k, zt, z, 3, LOSS_FORWARD_KL, 0, 1.0, 1, false);
        ASSERT_CLOSE(t.kd, 0.5 * l2 + 0.5 * log(2.0 / 3), 1e-6, 0);
        ASSERT_CLOSE(t.entropy, l2, 1e-6, 0);
        ASSERT_CLOSE(t.grad[0], -0.25, 1e-6, 0);
        ASSERT_CLOSE(t.grad[1], 0.25 * (0.75 - 0.5) / 0.75, 1e-6, 0);
        ASSERT_CLOSE(t.grad[2], 0.50 * (0.75 - 0.5) / 0.75, 1e-6, 0);
    }
}

/* D(p, p) = 0 with a gradient of 0, at every temperature and top-k. */
TEST(distill, of_oneself_is_zero)
{
    double z[V];
    draw(z, V, 1, 4.0);
    EACH_TABLE (k, i)
        for (int kind = 0; kind <= LOSS_MSE_LOGITS; kind++)
            for (int t = 0; t < 3; t++)
                for (long top = 0; top <= V && !(kind == LOSS_MSE_LOGITS && top);
                     top += top < 9 ? 9 : V - 9) {
                    const double T = t == 0 ? 0.5 : t == 1 ? 1 : 100;
                    const Row r = row(k, z, z, V, kind, mix_of(kind), T, top, false);
                    ASSERT_CLOSE(r.kd, 0, 0, k->real == 8 ? 1e-13 : 2e-7);
                    if (kind == LOSS_TVD && top) continue; /* a corner: rounding decides its sign */
                    for (int v = 0; v < V; v++) ASSERT_CLOSE(r.grad[v], 0, 0, k->real == 8 ? 1e-13 : 2e-7);
                }
}

TEST(distill, symmetries_and_ends)
{
    double a[V], b[V];
    draw(a, V, 1, 2.0);
    draw(b, V, 2, 2.0);
    EACH_TABLE (k, i) {
        const double tol = k->real == 8 ? 1e-12 : 2e-6;
        ASSERT_CLOSE(row(k, a, b, V, LOSS_JSD, 0.5, 2, 0, false).kd,
                     row(k, b, a, V, LOSS_JSD, 0.5, 2, 0, false).kd, tol, 0);
        ASSERT_CLOSE(row(k, a, b, V, LOSS_TVD, 0, 2, 0, false).kd,
                     row(k, b, a, V, LOSS_TVD, 0, 2, 0, false).kd, tol, 0);
        const double forward = row(k, a, b, V, LOSS_FORWARD_KL, 0, 2, 0, false).kd,
                     reverse = row(k, a, b, V, LOSS_REVERSE_KL, 0, 2, 0, false).kd;
        ASSERT_CLOSE(reverse, row(k, b, a, V, LOSS_FORWARD_KL, 0, 2, 0, false).kd, tol, 0);
        ASSERT_CLOSE(row(k, a, b, V, LOSS_SYMMETRIC_KL, 0, 2, 0, false).kd, forward, tol, 0);
        ASSERT_CLOSE(row(k, a, b, V, LOSS_SYMMETRIC_KL, 1, 2, 0, false).kd, reverse, tol, 0);
        ASSERT_CLOSE(row(k, a, b, V, LOSS_SKEW_KL, 0, 2, 0, false).kd, forward, tol, 0);
        /* the generalised JSD over beta tends to forward KL, over 1 - beta to reverse KL */
        ASSERT_CLOSE(row(k, a, b, V, LOSS_JSD, 1e-4, 2, 0, false).kd / 1e-4, forward, 1e-3, 0);
        ASSERT_CLOSE(row(k, a, b, V, LOSS_JSD, 1 - 1e-4, 2, 0, false).kd / 1e-4, reverse, 2e-3, 0);
    }
    /* and the config's ends are those two */
    DistillConfig c = {.loss = "jsd", .beta = 0, .temperature = 2, .alpha = 1, .top_k_mode = "rest_bucket"};
    ASSERT_EQ(distill_loss(&c, 0, 0).a.kind, LOSS_FORWARD_KL);
    c.beta = 1;
    ASSERT_EQ(distill_loss(&c, 0, 0).a.kind, LOSS_REVERSE_KL);
    c.beta = 0.5;
    ASSERT_EQ(distill_loss(&c, 0, 0).a.kind, LOSS_JSD);
}

/* T^2 KL -> half the variance of z - zt; the other divergences to their multiples of it. */
TEST(distill, high_temperature)
{
    static double a[MAX_V], b[MAX_V];
    double mean = 0, var = 0;
    draw(a, MAX_V, 1, 2.0);
    draw(b, MAX_V, 2, 2.0);
    for (int v = 0; v < MAX_V; v++) mean += (b[v] - a[v]) / MAX_V;
    for (int v = 0; v < MAX_V; v++) var += (b[v] - a[v] - mean) * (b[v] - a[v] - mean) / MAX_V;
    const double share[] = {0.5, 0.5, 0.125, 0.5, 0, 0.5 * 0.81};
    EACH_TABLE (k, i)
        for (int kind = 0; kind < N_KIND; kind++) {
            if (kind == LOSS_TVD) continue;
            const Row r = row(k, a, b, MAX_V, kind, mix_of(kind), 1000, 0, false);
            ASSERT_CLOSE(1e6 * r.kd, share[kind] * var, 0.01, 0);
            if (kind == LOSS_FORWARD_KL) continue;
            const Row exact = row(kernels_ref_f64(), a, b, MAX_V, kind, mix_of(kind), 1000, 0, false);
            ASSERT_CLOSE(r.kd, exact.kd, 2e-4, 0);
        }
}

/* What T^2 is for: the gradient is as large at every temperature, and without it falls as T^-2. */
TEST(distill, gradient_keeps_its_size_over_temperatures)
{
    const double T[] = {1, 2, 4, 8};
    double size[4] = {0}, bare[4] = {0}, a[V], b[V];
    EACH_TABLE (k, i)
        for (uint32_t n = 0; n < 16; n++) {
            draw(a, V, 2 * n + 1, 1.0);
            draw(b, V, 2 * n + 2, 0.5);
            for (int v = 0; v < V; v++) b[v] += a[v];
            for (int t = 0; t < 4; t++) {
                const Row r = row(k, a, b, V, LOSS_FORWARD_KL, 0, T[t], 0, false);
                double sum = 0;
                for (int v = 0; v < V; v++) sum += r.grad[v] * r.grad[v];
                size[t] += T[t] * T[t] * sqrt(sum);
                bare[t] += sqrt(sum);
            }
        }
    for (int t = 1; t < 4; t++) {
        ASSERT(size[t] < 2 * size[0] && size[0] < 2 * size[t]);
        ASSERT(bare[0] > 0.5 * T[t] * T[t] * bare[t]);
    }
}

/* Classes can only hide a difference; all of them hide none. */
TEST(distill, top_k_is_a_lower_bound)
{
    double a[V], b[V];
    EACH_TABLE (k, i)
        for (uint32_t trial = 0; trial < 40; trial++) {
            const double T = trial % 3 == 0 ? 0.3 : trial % 3 == 1 ? 1 : 4;
            draw(a, V, 2 * trial, 3.0);
            draw(b, V, 2 * trial + 1, 3.0);
            for (int kind = 0; kind < N_KIND; kind++) {
                const Row full = row(k, a, b, V, kind, mix_of(kind), T, 0, false);
                double before = 0;
                for (long top = 1; top <= V; top += 6) {
                    const Row r = row(k, a, b, V, kind, mix_of(kind), T, top, false);
                    const double slack = 1e-5 * full.kd + 1e-6;
                    ASSERT(r.kd >= 0 && r.kd <= full.kd + slack);
                    ASSERT(r.kd >= before - slack); /* finer classes show more */
                    before = r.kd;
                    if (top < V) continue;
                    ASSERT_CLOSE(r.kd, full.kd, 1e-5, 1e-6);
                    ASSERT_CLOSE(r.entropy, full.entropy, 1e-5, 1e-6);
                    for (int v = 0; v < V; v++) ASSERT_CLOSE(r.grad[v], full.grad[v], 1e-4, 1e-5);
                }
            }
        }
}

/* What a teacher's logits far apart do to the tail: nothing that is not a number, nothing below 0. */
TEST(distill, top_k_tail_far_below)
{
    const double a[] = {0, -300, -301, -302, 5}, b[] = {200, 0, 1, -1, 199};
    EACH_TABLE (k, i)
        for (int kind = 0; kind < N_KIND; kind++)
            for (long top = 1; top < 5; top++) {
                const Row r = row(k, a, b, 5, kind, mix_of(kind), 1, top, false);
                if (!(isfinite(r.kd) && r.kd >= 0))
                    test_fail(__FILE__, __LINE__, "%s, kind %d, top %ld: %g", k->name, kind, top, r.kd);
                for (int v = 0; v < 5; v++) ASSERT(isfinite(r.grad[v]));
            }
}

TEST(distill, topk_takes_the_lowest_id_of_equals)
{
    const double z[] = {1, 3, 3, 2, 3, 2};
    double room[6], logp[3], rest[2];
    const double T[] = {1, 2};
    EACH_TABLE (k, i) {
        int32_t index[3];
        k->topk(index, logp, rest, reals(k, z, 6, room), 1, 6, 3, 0.0, T, 2);
        ASSERT(index[0] == 1 && index[1] == 2 && index[2] == 4);
        k->topk(index, logp, rest, room, 1, 6, 2, 0.0, T, 2);
        ASSERT(index[0] == 1 && index[1] == 2);
        const double lse = log(exp(1) + 3 * exp(3) + 2 * exp(2));
        ASSERT_CLOSE(at(k, logp, 0), 3 - lse, 1e-6, 0);
        ASSERT_CLOSE(at(k, rest, 0), log(exp(1) + exp(3) + 2 * exp(2)) - lse, 1e-5, 1e-6);
        ASSERT_CLOSE(at(k, rest, 1), log(exp(0.5) + exp(1.5) + 2 * exp(1)) - lse / 2, 1e-5, 1e-6);
    }
}

/* p = 1/4 softmax(a/T) + 3/4 softmax(b/T), as logits at T. */
TEST(distill, teachers_are_mixed_as_probabilities)
{
    const double a[] = {log(2.0), 0, 0}, b[] = {0, 0, 2 * log(2.0)};
    double one[3], two[3], y[3];
    EACH_TABLE (k, i) {
        k->teacher_mix(y, reals(k, a, 3, one), 1, 3, 0.25, 1.0, 0.0, SET);
        k->teacher_mix(y, reals(k, b, 3, two), 1, 3, 0.75, 1.0, 0.0, ADD);
        const double want[] = {0.25 / 2 + 0.75 / 6, 0.25 / 4 + 0.75 / 6, 0.25 / 4 + 0.75 * 4 / 6};
        for (int v = 0; v < 3; v++) ASSERT_CLOSE(exp(at(k, y, v)), want[v], 1e-6, 0);
    }
}

/* ---- the schedule ------------------------------------------------------------------------------------ */
TEST(distill, temperature_schedule)
{
    static ConfigNode num[4] = {{.text = "10"}, {.text = "4"}, {.text = "20"}, {.text = "2"}};
    ConfigNode *in0[] = {&num[0], &num[1]}, *in1[] = {&num[2], &num[3]};
    ConfigNode p0 = {.kind = NODE_LIST, .n = 2, .item = in0}, p1 = {.kind = NODE_LIST, .n = 2, .item = in1};
    ConfigNode *both[] = {&p0, &p1}, list = {.kind = NODE_LIST, .n = 2, .item = both};
    DistillConfig c = {.temperature = 7};
    ASSERT_EQ(distill_temperature(&c, 3), 7.0);
    c.temperature_schedule = &list;
    const double want[][2] = {{0, 4}, {10, 4}, {11, 3.8}, {15, 3}, {20, 2}, {99, 2}};
    for (int i = 0; i < 6; i++)
        ASSERT_CLOSE(distill_temperature(&c, (int64_t)want[i][0]), want[i][1], 1e-12, 0);
}

/* ---- runs -------------------------------------------------------------------------------------------- */
static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }
#define TEACHER repo("tests/data/hf-tiny-llama")
#define DISTILL                                                                                              \
    "train", "c.yaml", "run.recipe=distill", text_of("teacher.path=%s", TEACHER), "model.init.vocab_size=97"

static json_t *metrics(const char *dir) { return last_event(in(dir, "run/metrics.jsonl"), "train"); }

/* All of the vocabulary as top-k, the same teacher twice: nothing changes but rounding. */
TEST(distill, top_k_of_all_and_equal_teachers)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b"), *c = tiny_dir("c");
    Pare p = PARE(.dir = a, ARGS(DISTILL, "distill.loss=jsd", "train.max_steps=3"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = b, ARGS(DISTILL, "distill.loss=jsd", "train.max_steps=3", "distill.top_k=97"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = c, ARGS("train", "c.yaml", "run.recipe=distill", "model.init.vocab_size=97",
                            "distill.loss=jsd", "train.max_steps=3",
                            text_of("teachers=[{path: %s, weight: 3}, {path: %s}]", TEACHER, TEACHER)));
    ASSERT_RAN(p, 0);
    for (int i = 0; i < 2; i++) {
        json_t *x = metrics(a), *y = metrics(i ? c : b);
        ASSERT_CLOSE(field(y, "loss/kd"), field(x, "loss/kd"), 1e-5, 0);
        ASSERT_CLOSE(field(y, "grad_norm"), field(x, "grad_norm"), 1e-4, 0);
        ASSERT_CLOSE(field(y, "loss/teacher_entropy"), field(x, "loss/teacher_entropy"), 1e-5, 0);
    }
}

/* The student made of all its teacher's layers is the teacher; features of every kind are 0 there. */
TEST(distill, student_of_all_layers_is_its_teacher)
{
    char *d = tiny_dir("a");
    Pare p =
        PARE(.dir = d,
             ARGS("train", "c.yaml", "run.recipe=distill", text_of("teacher.path=%s", TEACHER), "~model.init",
                  "model.init_from_teacher.layers=[0, 1]", "distill.alpha=1", "train.max_steps=1",
                  "distill.layer_map=uniform",
                  "distill.features=[{student: \"layers.{s}.attn_scores\", teacher: "
                  "\"layers.{t}.attn_scores\"},"
                  "{student: \"layers.{s}.v\", teacher: \"layers.{t}.v\", loss: relation, relation_heads: 2},"
                  "{student: \"layers.{s}.attn_probs\", teacher: \"layers.{t}.attn_probs\", loss: relation},"
                  "{student: embed, teacher: embed, loss: l1, normalize: true}]"));
    ASSERT_RAN(p, 0);
    json_t *o = metrics(d);
    ASSERT_CLOSE(field(o, "loss/kd"), 0, 0, 1e-9);
    ASSERT_CLOSE(field(o, "grad_norm"), 0, 0, 1e-5);
    static const char *const zero[] = {"layers.1.attn_scores", "layers.0.v", "layers.1.attn_probs", "embed"};
    for (int i = 0; i < 4; i++) ASSERT_CLOSE(field(o, text_of("loss/feature/%s", zero[i])), 0, 0, 1e-6);
    ASSERT(field(o, "loss/ce") > 0.1);
}

/* Chosen layers, first heads and columns: element by element. */
TEST(distill, student_is_cut_out_of_its_teacher)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Model t, s;
    ASSERT(model_open(&t, TEACHER, kernels_ref_f32(), &a, &e));
    ModelSpec small = t.spec;
    ASSERT(t.spec.C >= 8 && t.spec.H >= 2);
    small.L = 1;
    small.C = t.spec.C / 2;
    small.H = t.spec.Hkv; /* one query head below each key head */
    small.F = t.spec.F - 3;
    small.D = t.spec.D / 2;
    ASSERT(model_fresh(&s, &small, 1, kernels_ref_f32(), &a, &e));
    ASSERT(model_from_teacher(&s, &t, (long[]){1}, true, &e));
    const float *q = params_find(&s.params, "model.layers.0.self_attn.q_proj.weight")->w.data,
                *Q = params_find(&t.params, "model.layers.1.self_attn.q_proj.weight")->w.data,
                *o = params_find(&s.params, "model.layers.0.self_attn.o_proj.weight")->w.data,
                *O = params_find(&t.params, "model.layers.1.self_attn.o_proj.weight")->w.data;
    const long share = t.spec.H / t.spec.Hkv, D = t.spec.D, d = small.D;
    for (long h = 0; h < small.H; h++)
        for (long j = 0; j < d; j++) {
            const long row = h * share * D + (j < d / 2 ? j : D / 2 + j - d / 2);
            for (long c = 0; c < small.C; c++) {
                ASSERT_EQ(q[(h * d + j) * small.C + c], Q[row * t.spec.C + c]);
                ASSERT_EQ(o[c * small.H * d + h * d + j], O[c * t.spec.H * D + row]);
            }
        }
    const float *g = params_find(&s.params, "model.layers.0.mlp.down_proj.weight")->w.data,
                *G = params_find(&t.params, "model.layers.1.mlp.down_proj.weight")->w.data;
    for (long i = 0; i < small.C; i++)
        for (long j = 0; j < small.F; j++) ASSERT_EQ(g[i * small.F + j], G[i * t.spec.F + j]);
    arena_free(&a);
}

/* The plan has no tensor of all tokens by all words, whatever the loss: their logits are a chunk's. */
TEST(distill, no_logits_of_all_tokens)
{
    enum { N = 4096, WORDS = 500, C = 8 };
    for (int top = 0; top < 2; top++) {
        Arena a = {.name = "test"};
        Err e = {0};
        static float w[2][WORDS * C];
        Tensor p[4] = {{.name = "h", .ndim = 2, .dim = {N, C}},
                       {.name = "w", .ndim = 2, .dim = {WORDS, C}},
                       {.name = "ht", .ndim = 2, .dim = {N, C}},
                       {.name = "wt", .ndim = 2, .dim = {WORDS, C}}};
        for (int i = 0; i < 4; i++) {
            p[i].data = i % 2 ? w[i / 2] : arena_alloc(&a, N * C * sizeof(float), &e);
            p[i].grad = i < 2 ? arena_alloc(&a, N * C * sizeof(float), &e) : NULL;
            if (i > 1) p[i].flags = T_NOGRAD;
        }
        Graph *g = graph_new(&(GraphOptions){.k = kernels_ref_f32(), .train = true, .run = &a}, &e);
        Tensor *y = graph_input(g, "y", DT_I32, 1, (long[]){N});
        const LmLossAttr at_ = {
            .a = {.ce_weight = 0.5, .kd_weight = 0.5, .temperature = 2}, .chunk = 256, .top_k = top ? 9 : 0};
        graph_loss(g,
                   OP_ATTR(g, lm_loss, at_, graph_param(g, &p[0]), graph_param(g, &p[1]), y,
                           graph_param(g, &p[2]), graph_param(g, &p[3])),
                   1.0, "lm");
        ASSERT(graph_plan(g, &e));
        const size_t all = (size_t)N * WORDS * sizeof(float);
        ASSERT(graph_step_bytes(g) < all / 8);
        int n;
        const Node *const *node = graph_nodes(g, &n);
        for (int i = 0; i < n; i++) {
            ASSERT(node[i]->scratch_bytes < all / 4);
            ASSERT(t_numel(node[i]->out) < (long)N * WORDS);
        }
        graph_free(g);
        arena_free(&a);
    }
}

/* Pairs of a map: one block of the student is matched with the block that the map names. */
TEST(distill, layer_maps)
{
    static const char *const map[][2] = {
        {"uniform", "layers.1.out"}, {"last", "layers.1.out"}, {"[[0, 0]]", "layers.0.out"}};
    double value[3];
    for (int i = 0; i < 3; i++) {
        json_t *o[2];
        for (int j = 0; j < 2; j++) {
            char *d = tiny_dir(text_of("%d%d", i, j));
            Pare p = PARE(.dir = d,
                          ARGS(DISTILL, "model.init.num_hidden_layers=1", "train.max_steps=1",
                               text_of(
                                   "distill.features=[{student: \"%s\", teacher: \"%s\", projector: linear}]",
                                   j ? "layers.{s}.out" : "layers.0.out", j ? "layers.{t}.out" : map[i][1]),
                               j ? text_of("distill.layer_map=%s", map[i][0]) : "distill.layer_map=null"));
            ASSERT_RAN(p, 0);
            o[j] = metrics(d);
        }
        value[i] = field(o[0], "loss/feature/layers.0.out");
        ASSERT(value[i] > 0);
        ASSERT_EQ(field(o[1], "loss/feature/layers.0.out"), value[i]);
    }
    ASSERT(value[2] < value[0] || value[2] > value[0]);
}

/* match_kd: each term starts as large as the soft loss, times its weight; a broken run goes on bit for
 * bit. */
TEST(distill, balance_follows_the_soft_loss)
{
    static const char features[] =
        "distill.features=[{student: final_norm, teacher: final_norm, projector: linear, "
        "weight: 0.5}, {student: layers.0.attn_scores, teacher: layers.1.attn_scores}]";
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = PARE(.dir = a, ARGS(DISTILL, features, "distill.balance=match_kd", "train.max_steps=1",
                                 "log.every_steps=1"));
    ASSERT_RAN(p, 0);
    json_t *o = metrics(a);
    ASSERT_CLOSE(field(o, "loss"), 0.5 * field(o, "loss/ce") + (1 + 0.5 + 1) * 0.5 * field(o, "loss/kd"),
                 1e-5, 0);
    for (int i = 0; i < 2; i++) {
        p = PARE(.dir = b, ARGS(DISTILL, features, "distill.balance=match_kd",
                                i ? "train.max_steps=4" : "train.max_steps=2", "schedule.name=constant",
                                "checkpoint.keep_last=9"));
        ASSERT_RAN(p, 0);
    }
    p = PARE(.dir = a, ARGS(DISTILL, features, "distill.balance=match_kd", "train.max_steps=4",
                            "schedule.name=constant", "run.resume=never", "run.overwrite=true"));
    ASSERT_RAN(p, 0);
    same_state(in(a, "run/checkpoints/step_00000004.h5"), in(b, "run/checkpoints/step_00000004.h5"));
}

/* The temperature of the schedule is the one used: two steps at T = 4 and T = 1 are those of two runs. */
TEST(distill, schedule_in_a_run)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    for (int i = 0; i < 2; i++) {
        Pare p = PARE(.dir = a,
                      ARGS(DISTILL, "optim.learning_rate=0", "data.shuffle=false", "distill.alpha=0.7",
                           "distill.temperature_schedule=[[0, 4], [1, 1]]", "run.overwrite=true",
                           "run.resume=never", i ? "train.max_steps=2" : "train.max_steps=1"));
        ASSERT_RAN(p, 0);
        p = PARE(.dir = b, ARGS(DISTILL, "optim.learning_rate=0", "data.shuffle=false", "distill.alpha=0.7",
                                i ? "distill.temperature=1" : "distill.temperature=4", "run.overwrite=true",
                                "run.resume=never", i ? "train.max_steps=2" : "train.max_steps=1"));
        ASSERT_RAN(p, 0);
        ASSERT_EQ(field(metrics(a), "loss/kd"), field(metrics(b), "loss/kd"));
        ASSERT_EQ(field(metrics(a), "loss"), field(metrics(b), "loss"));
    }
}

/* ---- what is refused: at validation, with the place
 * ------------------------------------------------------ */
static void refused(const char *override, const char *where, const char *what)
{
    Pare p = PARE(.dir = tiny_dir("refused"), ARGS(DISTILL, override, "--dry-run"));
    if (p.rc != 2 || !strstr(p.err, where) || !strstr(p.err, what))
        test_fail(__FILE__, __LINE__, "%s: exit %d, wanted \"%s\" and \"%s\" in:\n%s", override, p.rc, where,
                  what, p.err);
}

TEST(distill, bad_input_is_refused_with_its_place)
{
    refused("distill.temperature=0", "distill.temperature", "(0, 100]");
    refused("distill.top_k=98", "distill.top_k", "98 of a vocabulary of 97");
    refused("distill.features=[{student: layers.9.out, teacher: layers.0.out}]", "distill.features[0]",
            "no hook point \"layers.9.out\"");
    refused(
        "distill.features=[{student: layers.0.v, teacher: layers.0.v, loss: relation, relation_heads: 5}]",
        "distill.features[0]", "5 relation heads do not divide");
    const char *map = "distill.features=[{student: \"layers.{s}.out\", teacher: \"layers.{t}.out\"}]";
    static const char *const beyond[] = {"distill.layer_map=[[0, 7]]", "distill.layer_map=[[5, 0]]"};
    for (int i = 0; i < 2; i++) {
        Pare p = PARE(.dir = tiny_dir("refused"), ARGS(DISTILL, map, beyond[i], "--dry-run"));
        ASSERT_RAN(p, 2);
        ASSERT_CONTAINS(p.err,
                        "1:20: distill.layer_map: entry 0 must be [student layer 0..1, teacher layer 0..1]");
    }
    refused("distill.features=[{student: embed, teacher: embed, projector: none}]", "distill.features[0]",
            "set projector: linear");
}
