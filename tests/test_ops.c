/* tests/test_ops.c: every op of ops.def through every row of the check table (architecture, Tests). */
#include "tests/ops_impl.h"
#include <omp.h>

/* Moves every leaf along v by h. */
static void shift(Bench *b, double h)
{
    for (int j = 0; j < b->node->op->n_in; j++) {
        if (!b->wants[j] || bench_seen(b, j)) continue;
        RngKey key = {.seed = 21, .stream = (uint32_t)j};
        for (long i = 0; i < t_numel(b->in[j]); i++)
            real_put(b->in[j]->data, i,
                     real_get(b->in[j]->data, i, b->k) + h * (rng_uniform(key, (uint32_t)i) * 2 - 1), b->k);
    }
}

static double dot_v(Bench *b)
{
    double s = 0;
    for (int j = 0; j < b->node->op->n_in; j++) {
        if (!b->wants[j] || bench_seen(b, j)) continue;
        RngKey key = {.seed = 21, .stream = (uint32_t)j};
        for (long i = 0; i < t_numel(b->in[j]); i++)
            s += real_get(b->in[j]->grad, i, b->k) * (rng_uniform(key, (uint32_t)i) * 2 - 1);
    }
    return s;
}

/* Signed <u, Jv> = <J^T u, v> in float64: sign flips, factors, missing terms. */
TEST(ops, gradcheck)
{
    EACH_CASE(op, c)
    {
        if (!op->backward) continue;
        Bench b;
        bench_open(&b, op, c, kernels_ref_f64());
        bench_scalar(&b);
        bench_forward(&b);
        bench_backward(&b);
        double want = dot_v(&b), h = 1e-5;
        shift(&b, h);
        double up = bench_scalar(&b);
        shift(&b, -2 * h);
        double down = bench_scalar(&b), have = (up - down) / (2 * h);
        double scale = fmax(fabs(want), fabs(have));
        if (!(fabs(want - have) <= 1e-7 * fmax(scale, 0.01)))
            test_fail(__FILE__, __LINE__, "%s/%s: slope %.12g, gradient says %.12g", op->name, c->name, have,
                      want);
        bench_close(&b);
    }
}

static double *copy_grads(Bench *b, Arena *a)
{
    long n = 0;
    for (int j = 0; j < b->node->op->n_in; j++) n += b->wants[j] ? t_numel(b->in[j]) : 0;
    double *v = arena_alloc(a, (size_t)(n + 1) * sizeof *v, &b->e);
    n = 0;
    for (int j = 0; j < b->node->op->n_in; j++)
        for (long i = 0; b->wants[j] && i < t_numel(b->in[j]); i++)
            v[n++] = real_get(b->in[j]->grad, i, b->k);
    v[n] = (double)n;
    return v;
}

static void fill_grads(Bench *b, double x)
{
    for (int j = 0; j < b->node->op->n_in; j++)
        for (long i = 0; b->wants[j] && i < t_numel(b->in[j]); i++) real_put(b->in[j]->grad, i, x, b->k);
}

static long grad_count(const Bench *b)
{
    long n = 0;
    for (int j = 0; j < b->node->op->n_in; j++) n += b->wants[j] ? t_numel(b->in[j]) : 0;
    return n;
}

/* Twice backward = twice the gradient; SET over NaN = ADD to zero. `=` where `+=` was meant passes every
 * gradcheck. */
TEST(ops, accumulate)
{
    EACH_CASE(op, c)
    {
        if (!op->backward) continue;
        Bench b;
        bench_open(&b, op, c, kernels_ref_f64());
        bench_forward(&b);
        bench_backward(&b);
        double *once = copy_grads(&b, &b.a);
        bench_backward(&b);
        double *twice = copy_grads(&b, &b.a);
        fill_grads(&b, NAN);
        unsigned dup = 0;
        for (int j = 0; j < op->n_in; j++)
            if (b.in[j] && bench_seen(&b, j) && !(op->flags & OP_DISJOINT)) dup |= 1u << j;
        b.node->first = ~dup;
        bench_backward(&b);
        double *set = copy_grads(&b, &b.a);
        for (long i = 0; i < grad_count(&b); i++) {
            if (!(fabs(twice[i] - 2 * once[i]) <= 1e-12 * fmax(1, fabs(once[i]))))
                test_fail(__FILE__, __LINE__, "%s/%s: gradient %ld is %.15g once, %.15g twice", op->name,
                          c->name, i, once[i], twice[i]);
            if (!(fabs(set[i] - once[i]) <= 1e-13 * fmax(1, fabs(once[i]))))
                test_fail(__FILE__, __LINE__, "%s/%s: gradient %ld is %.15g added to zero, %.15g set",
                          op->name, c->name, i, once[i], set[i]);
        }
        bench_close(&b);
    }
}

/* Whatever `saves` does not claim is NaN before backward: the same bits must come out. */
TEST(ops, poison)
{
    EACH_CASE(op, c)
    {
        if (!op->backward) continue;
        Bench b;
        bench_open(&b, op, c, kernels_ref_f64());
        bench_forward(&b);
        bench_backward(&b);
        double *clean = copy_grads(&b, &b.a);
        fill_grads(&b, 0);
        for (int j = 0; j < op->n_in; j++) {
            Tensor *t = b.in[j];
            bool saved = false; /* under any of the places the tensor came in at */
            for (int k = 0; t && k < op->n_in; k++)
                saved = saved || (b.in[k] == t && (op->saves & SAVE_IN(k)));
            if (!t || saved) continue;
            for (long i = 0; i < t_numel(t); i++) {
                if (t->dtype == DT_I32) ((int32_t *)t->data)[i] = -1000000;
                else real_put(t->data, i, NAN, b.k);
            }
        }
        if (!(op->saves & SAVE_OUT))
            for (long i = 0; i < t_numel(b.node->out); i++) real_put(b.node->out->data, i, NAN, b.k);
        bench_backward(&b);
        double *poisoned = copy_grads(&b, &b.a);
        for (long i = 0; i < grad_count(&b); i++)
            if (memcmp(&clean[i], &poisoned[i], sizeof *clean))
                test_fail(__FILE__, __LINE__,
                          "%s/%s: backward reads what `saves` does not claim (gradient %ld: %g, was %g)",
                          op->name, c->name, i, poisoned[i], clean[i]);
        bench_close(&b);
    }
}

static void close_to(const Op *op, const OpCase *c, const char *what, const char *table, double have,
                     double want, double scale)
{
    if (!(fabs(have - want) <= 1e-4 * fmax(fabs(want), 1e-1 * scale) + 1e-6))
        test_fail(__FILE__, __LINE__, "%s/%s on %s: %s is %.9g, reference %.9g", op->name, c->name, table,
                  what, have, want);
}

static double largest(const double *v, long n)
{
    double m = 0;
    for (long i = 0; i < n; i++) m = fmax(m, fabs(v[i]));
    return m;
}

static void compare_tables(const Op *op, const OpCase *c, const Kernels *k)
{
    Bench r, b;
    bench_open(&r, op, c, kernels_ref_f64());
    bench_open(&b, op, c, k);
    for (int j = 0; j < op->n_in; j++) /* both read what float32 can hold */
        for (long i = 0; b.in[j] && b.in[j]->dtype != DT_I32 && !bench_seen(&b, j) && i < t_numel(b.in[j]);
             i++)
            real_put(r.in[j]->data, i, real_get(b.in[j]->data, i, k), r.k);
    for (long i = 0; i < t_numel(b.node->out); i++)
        real_put(r.node->out->grad, i, real_get(b.node->out->grad, i, k), r.k);
    Bench *two[2] = {&r, &b};
    for (int i = 0; i < 2; i++) {
        bench_forward(two[i]);
        if (op->backward) bench_backward(two[i]);
    }
    for (long i = 0; i < t_numel(b.node->out); i++)
        close_to(op, c, "output", k->name, real_get(b.node->out->data, i, k),
                 real_get(r.node->out->data, i, r.k), 1);
    double *want = copy_grads(&r, &r.a), *have = copy_grads(&b, &b.a), scale = largest(want, grad_count(&r));
    for (long i = 0; i < grad_count(&b); i++) close_to(op, c, "gradient", k->name, have[i], want[i], scale);
    bench_close(&r);
    bench_close(&b);
}

TEST(ops, parity)
{
    const Kernels *table[] = {kernels_ref_f32(), kernels_isa_f32(ISA_AVX2, "builtin"),
                              kernels_isa_f32(ISA_AVX512, "builtin"), kernels_cpu_f32()};
    for (size_t t = 0; t < sizeof table / sizeof *table; t++) {
        if (!table[t]) continue;
        EACH_CASE(op, c) compare_tables(op, c, table[t]);
    }
}

/* Twice, and with 1, 2 and 3 threads: the same bits. */
TEST(ops, repeat)
{
    EACH_CASE(op, c)
    {
        double *first = NULL;
        Bench b[4];
        for (int r = 0; r < 4; r++) {
            omp_set_num_threads(r ? r : 2);
            bench_open(&b[r], op, c, kernels_cpu_f32());
            bench_forward(&b[r]);
            if (op->backward) bench_backward(&b[r]);
            double *v = copy_grads(&b[r], &b[r].a);
            if (!r) first = v;
            ASSERT(!memcmp(first, v, (size_t)grad_count(&b[r]) * sizeof *v));
            ASSERT(!memcmp(b[0].node->out->data, b[r].node->out->data,
                           (size_t)t_numel(b[r].node->out) * b[r].k->real));
        }
        for (int r = 0; r < 4; r++) bench_close(&b[r]);
    }
}

/* A harness that cannot fail proves nothing: an op with a flipped sign, a lying `saves` and `=` for `+=` must
 * turn red. */
static void wrong_sign(const Node *n, const Kernels *k)
{
    k->scale(n->in[0]->grad, -1.0, n->out->grad, t_numel(n->out), ADD);
}
static void right_forward(const Node *n, const Kernels *k)
{
    k->scale(n->out->data, 1.0, n->in[0]->data, t_numel(n->out), SET);
}
static bool same_shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}
static const OpCase one_case[] = {{"x", NULL, {{'r', 1, {5}, 0}}}, {NULL, NULL, {{0, 0, {0}, 0}}}};

TEST(ops, harness_sees_a_flipped_sign)
{
    Op bad = {.name = "bad",
              .n_in = 1,
              .shape = same_shape,
              .forward = right_forward,
              .backward = wrong_sign,
              .cases = one_case};
    Bench b;
    bench_open(&b, &bad, one_case, kernels_ref_f64());
    bench_forward(&b);
    bench_backward(&b);
    double want = dot_v(&b), h = 1e-5;
    shift(&b, h);
    double up = bench_scalar(&b);
    shift(&b, -2 * h);
    double have = (up - bench_scalar(&b)) / (2 * h);
    ASSERT(fabs(want - have) > 1e-3);
    bench_close(&b);
}
