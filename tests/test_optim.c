/* tests/test_optim.c: optimizers, clipping, parameter groups, schedules: against torch and transformers
 * (tests/golden/make_optim.py, make_ops.py, make_models.py), and by hand where that says more. */
#include "model/model.h"
#include "optim/optim.h"
#include "tests/golden_impl.h"

static double betas[2] = {0.9, 0.95};
static const ScheduleConfig constant = {.name = "constant"};

static OptimConfig adamw(double lr, double wd)
{
    return (OptimConfig){.name = "adamw",
                         .learning_rate = lr,
                         .betas = {2, betas},
                         .eps = 1e-8,
                         .weight_decay = wd,
                         .momentum = 0};
}

static void set_betas(double b1, double b2)
{
    betas[0] = b1;
    betas[1] = b2;
}

/* A parameter with memory for value and gradient. */
static Param *param(Params *ps, const char *name, int ndim, const long *dim, Err *e)
{
    Param *p = params_add(ps, name, ndim, dim, e);
    ASSERT(p != NULL);
    p->w.data = arena_alloc(ps->run, (size_t)t_numel(&p->w) * ps->k->real, e);
    p->w.grad = arena_alloc(ps->run, (size_t)t_numel(&p->w) * ps->k->real, e);
    ASSERT_OK(*e);
    return p;
}

static void put_all(void *dst, const double *v, long n, const Kernels *k)
{
    for (long i = 0; i < n; i++) real_put(dst, i, v[i], k);
}

static void near(const char *what, int step, const void *have, const double *want, long n, const Kernels *k,
                 double tol)
{
    for (long i = 0; i < n; i++)
        if (!(fabs(real_get(have, i, k) - want[i]) <= tol))
            test_fail(__FILE__, __LINE__, "%s on %s, step %d, element %ld: %.15g, torch has %.15g", what,
                      k->name, step + 1, i, real_get(have, i, k), want[i]);
}

/* ---- one tensor against torch.optim ---- */
static void trajectory(const Golden *f, const char *name, const Kernels *k)
{
    Arena a = {.name = "test"};
    Err e = {0};
    json_t *at = golden_attr(f, name);
    bool sgd = golden_is(name, "sgd"), moving = num(at, "constant") <= 0;
    int steps = (int)num(at, "steps");
    const double *w0 = golden_f64(f, name, "w0", -1);
    long n = golden_numel(golden_find(f, name, "w0"));
    const double *g = golden_f64(f, name, "g", steps * n), *w = golden_f64(f, name, "w", steps * n);
    OptimConfig c = adamw(num(at, "lr"), num(at, "weight_decay"));
    c.name = sgd ? "sgd" : "adamw";
    if (sgd) c.momentum = num(at, "momentum");
    else {
        set_betas(num(at, "beta1"), num(at, "beta2"));
        c.eps = num(at, "eps");
    }
    ScheduleConfig ramp = {.name = "constant", .warmup_steps = moving ? steps : 0};
    Params ps = {.run = &a, .k = k};
    Param *p = param(&ps, "w", 2, (long[]){1, n}, &e);
    put_all(p->w.data, w0, n, k);
    Optim *o = optim_new(&c, &ramp, 0, &ps, &a, &e);
    ASSERT_OK(e);
    for (int t = 0; t < steps; t++) { /* gradients come in as a sum over 3 tokens */
        for (long i = 0; i < n; i++) real_put(p->w.grad, i, 3 * g[t * n + i], k);
        optim_step(o, t, steps, 1.0 / 3);
        near(name, t, p->w.data, w + t * n, n, k, k->real == sizeof(double) ? 1e-12 : 2e-6);
    }
    double tol = k->real == sizeof(double) ? 1e-12 : 1e-5;
    if (golden_find(f, name, "m")) near(name, steps, p->m, golden_f64(f, name, "m", n), n, k, tol);
    if (golden_find(f, name, "v")) near(name, steps, p->v, golden_f64(f, name, "v", n), n, k, tol);
    json_decref(at);
    arena_free(&a);
}

TEST(optim, one_tensor_as_torch)
{
    Golden f;
    golden_open(&f, "tests/golden/ops.safetensors");
    int n = 0;
    for (int i = 0; i < f.n; i++) {
        if (!golden_is(f.name[i], "adamw") && !golden_is(f.name[i], "sgd")) continue;
        trajectory(&f, f.name[i], kernels_ref_f64());
        trajectory(&f, f.name[i], kernels_cpu_f32());
        n++;
    }
    ASSERT_EQ(n, 6);
    golden_close(&f);
}

/* ---- several tensors: groups, decay by dimension, clipping ---- */
static const char *const four[4] = {"wq", "emb", "norm", "bias"};
static const long four_dim[4][2] = {{5, 3}, {7, 3}, {5, 0}, {3, 0}};

static void many(const Golden *f, const char *run, const OptimConfig *c, double clip, const Kernels *k)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Params ps = {.run = &a, .k = k};
    Param *p[4];
    char part[32];
    for (int i = 0; i < 4; i++) {
        p[i] = param(&ps, four[i], i < 2 ? 2 : 1, four_dim[i], &e);
        snprintf(part, sizeof part, "w0.%s", four[i]);
        put_all(p[i]->w.data, golden_f64(f, "groups", part, -1), t_numel(&p[i]->w), k);
    }
    Optim *o = optim_new(c, &constant, clip, &ps, &a, &e);
    ASSERT_OK(e);
    const double *gnorm = clip > 0 ? golden_f64(f, run, "gnorm", 10) : NULL;
    for (int t = 0; t < 10; t++) {
        for (int i = 0; i < 4; i++) {
            long n = t_numel(&p[i]->w);
            snprintf(part, sizeof part, "g.%s", four[i]);
            put_all(p[i]->w.grad, golden_f64(f, "groups", part, 10 * n) + t * n, n, k);
        }
        StepInfo info = optim_step(o, t, 10, 1.0);
        bool f64 = k->real == sizeof(double);
        if (gnorm) ASSERT_CLOSE(info.grad_norm, gnorm[t], f64 ? 1e-14 : 1e-6, 0);
        for (int i = 0; i < 4; i++) {
            long n = t_numel(&p[i]->w);
            snprintf(part, sizeof part, "w.%s", four[i]);
            near(four[i], t, p[i]->w.data, golden_f64(f, run, part, 10 * n) + t * n, n, k,
                 f64 ? 1e-12 : 1e-5);
        }
    }
    arena_free(&a);
}

static void many_on_both(const char *run, const OptimConfig *c, double clip)
{
    Golden f;
    golden_open(&f, "tests/golden/optim.safetensors");
    many(&f, run, c, clip, kernels_ref_f64());
    many(&f, run, c, clip, kernels_cpu_f32());
    golden_close(&f);
}

/* Clipped by the norm of all of them; wq and emb in groups of their own, no decay on what has one
 * dimension. */
TEST(optim, groups_and_clipping_as_torch)
{
    const char *wq = "w?", *emb = "emb", *any = "*";
    ParamGroupConfig g[3] = {
        {.match = {1, &any}, .learning_rate = NAN, .lr_scale = 1, .weight_decay = NAN},
        {.match = {1, &wq}, .learning_rate = NAN, .lr_scale = 1, .weight_decay = 0.02},
        {.match = {1, &emb}, .learning_rate = NAN, .lr_scale = 0.1, .weight_decay = NAN}};
    OptimConfig c = adamw(1e-2, 0.1);
    c.groups.n = 3;
    c.groups.v = g;
    many_on_both("groups", &c, 1.0);
}

/* Adam is AdamW without decay: a decay that is set does nothing. */
TEST(optim, adam_as_torch)
{
    OptimConfig c = adamw(1e-2, 0.5);
    set_betas(0.85, 0.99);
    c.name = "adam";
    c.eps = 1e-7;
    many_on_both("adam", &c, 0);
}

TEST(optim, sgd_with_momentum_as_torch)
{
    OptimConfig c = adamw(3e-2, 0);
    c.name = "sgd";
    c.momentum = 0.8;
    many_on_both("sgd", &c, 0);
}

/* ---- by hand ---- */
typedef struct Pair {
    Arena a;
    Err e;
    Params ps;
    Param *w, *b;
} Pair;

static void pair_open(Pair *p)
{
    *p = (Pair){.a = {.name = "test"}};
    p->ps = (Params){.run = &p->a, .k = kernels_ref_f64()};
    p->w = param(&p->ps, "h.0.attn.weight", 2, (long[]){1, 2}, &p->e);
    p->b = param(&p->ps, "h.0.attn.bias", 1, (long[]){2}, &p->e);
    put_all(p->w->w.data, (double[]){2, -4}, 2, p->ps.k);
    put_all(p->b->w.data, (double[]){8, 1}, 2, p->ps.k);
}
static double at(const Tensor *t, int i) { return ((double *)t->data)[i]; }

/* No gradient: all that moves is the decay, w <- w (1 - lr wd), and not on one-dimensional tensors; the
 * moments stay 0, which an L2 term in the gradient would have filled. */
TEST(optim, decay_is_decoupled_and_spares_vectors)
{
    for (int norm_bias = 0; norm_bias < 2; norm_bias++) {
        Pair p;
        pair_open(&p);
        OptimConfig c = adamw(0.5, 0.25);
        c.decay_norm_bias = norm_bias;
        Optim *o = optim_new(&c, &constant, 1.0, &p.ps, &p.a, &p.e);
        optim_step(o, 0, 2, 1.0);
        ASSERT_EQ(at(&p.w->w, 0), 1.75);
        ASSERT_EQ(at(&p.w->w, 1), -3.5);
        ASSERT_EQ(at(&p.b->w, 0), norm_bias ? 7.0 : 8.0);
        ASSERT_EQ(((double *)p.w->m)[0], 0.0);
        ASSERT_EQ(((double *)p.w->v)[0], 0.0);
        arena_free(&p.a);
    }
}

/* The first step of AdamW is lr sign(g): both bias corrections cancel. */
TEST(optim, first_step_is_the_learning_rate)
{
    Pair p;
    pair_open(&p);
    OptimConfig c = adamw(0.125, 0);
    c.eps = 1e-30;
    Optim *o = optim_new(&c, &constant, 0, &p.ps, &p.a, &p.e);
    put_all(p.w->w.grad, (double[]){1e-3, -77}, 2, p.ps.k);
    StepInfo s = optim_step(o, 0, 1, 0.5);
    ASSERT_CLOSE(at(&p.w->w, 0), 2 - 0.125, 1e-14, 0);
    ASSERT_CLOSE(at(&p.w->w, 1), -4 + 0.125, 1e-14, 0);
    ASSERT_CLOSE(s.grad_norm, 0.5 * sqrt(77 * 77 + 1e-6), 1e-14, 0);
    ASSERT_EQ(s.lr, 0.125);
    ASSERT_EQ(optim_updates(o), 1);
    arena_free(&p.a);
}

/* One infinity: nothing changes, not even the count of updates, and the step says so. */
TEST(optim, a_gradient_that_is_not_finite_changes_nothing)
{
    static const double bad[] = {INFINITY, -INFINITY, NAN};
    Pair p;
    pair_open(&p);
    OptimConfig c = adamw(0.125, 0.1);
    Optim *o = optim_new(&c, &constant, 1.0, &p.ps, &p.a, &p.e);
    put_all(p.w->w.grad, (double[]){1, 2}, 2, p.ps.k);
    ASSERT(!optim_step(o, 0, 9, 1.0).skipped);
    double w = at(&p.w->w, 0), m = ((double *)p.w->m)[0], v = ((double *)p.w->v)[0];
    for (int i = 0; i < 3; i++) {
        put_all(p.b->w.grad, (double[]){0, bad[i]}, 2, p.ps.k);
        ASSERT(optim_step(o, 1, 9, 1.0).skipped);
    }
    ASSERT_EQ(at(&p.w->w, 0), w);
    ASSERT_EQ(((double *)p.w->m)[0], m);
    ASSERT_EQ(((double *)p.w->v)[0], v);
    ASSERT_EQ(optim_updates(o), 1);
    arena_free(&p.a);
}

/* Frozen and tied parameters have no moments, do not move and do not count in the norm. */
TEST(optim, frozen_and_tied_stay)
{
    for (int tied = 0; tied < 2; tied++) {
        Pair p;
        pair_open(&p);
        p.b->frozen = !tied;
        p.b->tied_to = tied ? "h.0.attn.weight" : NULL;
        OptimConfig c = adamw(0.125, 0.1);
        c.decay_norm_bias = true;
        Optim *o = optim_new(&c, &constant, 0, &p.ps, &p.a, &p.e);
        put_all(p.w->w.grad, (double[]){3, 4}, 2, p.ps.k);
        put_all(p.b->w.grad, (double[]){100, 100}, 2, p.ps.k);
        ASSERT_EQ(optim_step(o, 0, 9, 1.0).grad_norm, 5.0);
        ASSERT_EQ(at(&p.b->w, 0), 8.0);
        ASSERT(!p.b->m && !p.b->v && p.w->m && p.w->v);
        arena_free(&p.a);
    }
}

/* Groups: the last match wins, one that matches nothing is an error that names it; a rate of its own stays
 * scheduled. */
TEST(optim, groups_last_match_wins)
{
    Pair p;
    pair_open(&p);
    const char *weight = "*.weight", *none = "h.1.*";
    ParamGroupConfig g[3] = {
        {.match = {1, &weight}, .learning_rate = 1.0, .lr_scale = 1, .weight_decay = 0},
        {.match = {1, &weight}, .learning_rate = 0.25, .lr_scale = 2, .weight_decay = NAN},
        {.match = {1, &none}, .learning_rate = NAN, .lr_scale = 1, .weight_decay = NAN}};
    OptimConfig c = adamw(0.125, 0.1);
    c.name = "sgd";
    c.groups.v = g;
    c.groups.n = 2;
    ScheduleConfig half = {.name = "constant", .warmup_steps = 2};
    Optim *o = optim_new(&c, &half, 0, &p.ps, &p.a, &p.e);
    put_all(p.w->w.grad, (double[]){1, 1}, 2, p.ps.k);
    put_all(p.b->w.grad, (double[]){1, 1}, 2, p.ps.k);
    ASSERT_EQ(optim_step(o, 0, 9, 1.0).lr, 0.0625);
    ASSERT_EQ(at(&p.w->w, 0), 2 - 0.25); /* 0.25 x 2, half way through the warm-up, no decay */
    ASSERT_EQ(at(&p.b->w, 0), 8 - 0.0625);
    optim_set_lr(o, "*.bias", 4.0);
    optim_step(o, 1, 9, 1.0);
    ASSERT_EQ(at(&p.b->w, 0), 8 - 0.0625 - 4);
    c.groups.n = 3;
    ASSERT(optim_new(&c, &half, 0, &p.ps, &p.a, &p.e) == NULL);
    ASSERT_EQ((int)p.e.code, (int)ERR_USAGE);
    ASSERT_CONTAINS(p.e.msg, "optim.groups[2]");
    arena_free(&p.a);
}

/* ---- schedules ---- */
TEST(schedule, corners_by_hand)
{
    static const struct {
        ScheduleConfig s;
        int64_t t;
        double want;
    } v[] = {
        {{.name = "constant", .warmup_steps = 4}, 0, 0.25},
        {{.name = "constant", .warmup_steps = 4}, 3, 1},
        {{.name = "constant", .warmup_steps = 4}, 19, 1},
        {{.name = "linear", .warmup_steps = 4, .min_lr_ratio = 0.2}, 0, 0.25},
        {{.name = "linear", .warmup_steps = 4, .min_lr_ratio = 0.2}, 3, 1},
        {{.name = "linear", .warmup_steps = 4, .min_lr_ratio = 0.2}, 4, 1},
        {{.name = "linear", .warmup_steps = 4, .min_lr_ratio = 0.2}, 12, 0.6},
        {{.name = "linear", .warmup_steps = 4, .min_lr_ratio = 0.2}, 19, 0.25},
        {{.name = "linear", .warmup_steps = 4, .min_lr_ratio = 0.2}, 20, 0.2},
        {{.name = "linear", .warmup_steps = 4, .min_lr_ratio = 0.2}, 99, 0.2},
        {{.name = "cosine", .warmup_ratio = 0.2, .min_lr_ratio = 0.1, .cycles = 1}, 0, 0.25},
        {{.name = "cosine", .warmup_ratio = 0.2, .min_lr_ratio = 0.1, .cycles = 1}, 4, 1},
        {{.name = "cosine", .warmup_ratio = 0.2, .min_lr_ratio = 0.1, .cycles = 1}, 12, 0.55},
        {{.name = "cosine", .warmup_ratio = 0.2, .min_lr_ratio = 0.1, .cycles = 1}, 20, 0.1},
        {{.name = "cosine", .cycles = 2}, 0, 1},
        {{.name = "cosine", .cycles = 2}, 5, 0.5},
        {{.name = "cosine", .cycles = 2}, 10, 1},
        {{.name = "cosine", .cycles = 2}, 15, 0.5},
        {{.name = "wsd", .warmup_steps = 4, .min_lr_ratio = 0.1, .decay_ratio = 0.25}, 3, 1},
        {{.name = "wsd", .warmup_steps = 4, .min_lr_ratio = 0.1, .decay_ratio = 0.25}, 15, 1},
        {{.name = "wsd", .warmup_steps = 4, .min_lr_ratio = 0.1, .decay_ratio = 0.25}, 16, 0.82},
        {{.name = "wsd", .warmup_steps = 4, .min_lr_ratio = 0.1, .decay_ratio = 0.25}, 19, 0.28},
        {{.name = "wsd", .warmup_steps = 4, .min_lr_ratio = 0.1, .decay_ratio = 0.25}, 20, 0.1},
        {{.name = "wsd", .decay_ratio = 0}, 19, 1},
        {{.name = "polynomial", .power = 2, .min_lr_ratio = 0.5}, 10, 0.625},
        {{.name = "inverse_sqrt", .warmup_steps = 4}, 15, 0.5},
        {{.name = "linear", .warmup_steps = 40}, 19, 0.5}, /* a warm-up longer than the run */
    };
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        double have = schedule_factor(&v[i].s, v[i].t, 20);
        if (!(fabs(have - v[i].want) <= 1e-14))
            test_fail(__FILE__, __LINE__, "%s, step %lld of 20: %.16g, not %.16g", v[i].s.name,
                      (long long)v[i].t, have, v[i].want);
    }
}

/* transformers warms up as t / W: comparable from step W on, and one step later for what counts from step
 * 0. */
TEST(schedule, as_torch_and_transformers)
{
    static const struct {
        const char *part;
        ScheduleConfig s;
        int shift;
    } v[] = {
        {"constant.7", {.name = "constant", .warmup_steps = 7}, 0},
        {"linear.0", {.name = "linear"}, 0},
        {"linear.7", {.name = "linear", .warmup_steps = 7}, 0},
        {"linear_min.0", {.name = "linear", .min_lr_ratio = 0.1}, 0},
        {"cosine.0", {.name = "cosine", .cycles = 1}, 0},
        {"cosine.7", {.name = "cosine", .cycles = 1, .warmup_steps = 7}, 0},
        {"cosine_min.0", {.name = "cosine", .cycles = 1, .min_lr_ratio = 0.1}, 0},
        {"cosine_min.7", {.name = "cosine", .cycles = 1, .min_lr_ratio = 0.1, .warmup_ratio = 0.175}, 0},
        {"cosine_torch.0", {.name = "cosine", .cycles = 1, .min_lr_ratio = 0.1}, 0},
        {"cosine_restarts.0", {.name = "cosine", .cycles = 3}, 0},
        {"cosine_restarts.7", {.name = "cosine", .cycles = 3, .warmup_steps = 7}, 0},
        {"polynomial.0", {.name = "polynomial", .power = 2, .min_lr_ratio = 0.1}, 0},
        {"polynomial.7", {.name = "polynomial", .power = 2, .min_lr_ratio = 0.1, .warmup_steps = 7}, 0},
        {"wsd.0", {.name = "wsd", .decay_ratio = 0.25, .min_lr_ratio = 0.1}, 0},
        {"wsd.7", {.name = "wsd", .decay_ratio = 0.25, .min_lr_ratio = 0.1, .warmup_steps = 7}, 0},
        {"inverse_sqrt.7", {.name = "inverse_sqrt", .warmup_steps = 7}, 1},
    };
    Golden f;
    golden_open(&f, "tests/golden/optim.safetensors");
    for (size_t i = 0; i < sizeof v / sizeof *v; i++) {
        const double *want = golden_f64(&f, "schedule", v[i].part, 41);
        int W = v[i].s.warmup_ratio > 0 ? 7 : (int)v[i].s.warmup_steps;
        /* transformers warms these up from min_lr_ratio, not from 0 */
        bool same_start = strcmp(v[i].part, "cosine_min.7") && strcmp(v[i].part, "wsd.7");
        for (int t = 0; same_start && t < W; t++)
            ASSERT_CLOSE(schedule_factor(&v[i].s, t, 40), want[t + 1], 1e-14, 0);
        for (int t = W; t < 40; t++) {
            double have = schedule_factor(&v[i].s, t, 40);
            if (!(fabs(have - want[t + v[i].shift]) <= 1e-13))
                test_fail(__FILE__, __LINE__, "%s, step %d: %.16g, not %.16g", v[i].part, t, have,
                          want[t + v[i].shift]);
        }
    }
    golden_close(&f);
}

/* The factors of algorithms 5.24, written down once more in Python. */
TEST(schedule, as_written_in_python)
{
    Golden f;
    golden_open(&f, "tests/golden/ops.safetensors");
    int n = 0;
    for (int i = 0; i < f.n; i++) {
        if (!golden_is(f.name[i], "schedule")) continue;
        json_t *a = golden_attr(&f, f.name[i]);
        ScheduleConfig s = {.name = json_string_value(json_object_get(a, "kind")),
                            .warmup_steps = (int64_t)num(a, "warmup"),
                            .min_lr_ratio = num(a, "min_lr_ratio"),
                            .decay_ratio = num(a, "decay_ratio"),
                            .cycles = (int64_t)num(a, "cycles"),
                            .power = num(a, "power")};
        int steps = (int)num(a, "steps");
        const double *want = golden_f64(&f, f.name[i], "factor", steps);
        for (int t = 0; t < steps; t++) ASSERT_CLOSE(schedule_factor(&s, t, steps), want[t], 1e-13, 1e-15);
        json_decref(a);
        n++;
    }
    ASSERT_EQ(n, 13);
    golden_close(&f);
}
