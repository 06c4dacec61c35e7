/* tests/ops_checks_impl.h: the check table (architecture, Tests) for one op and one of its cases:
 * what test_ops.c runs over ops.def, and test_add_an_op.c over the op of docs/add-an-op.md.
 *
 *   check_gradcheck(&op_gelu, &op_gelu.cases[0]);        // fails the test, naming op, case and numbers
 */
#ifndef OPS_CHECKS_IMPL_H
#define OPS_CHECKS_IMPL_H
#include "tests/ops_impl.h"
#include <omp.h>

/* Moves every leaf along v by h. */
static inline void shift(Bench *b, double h)
{
    for (int j = 0; j < b->node->op->n_in; j++) {
        if (!b->wants[j] || bench_seen(b, j)) continue;
        RngKey key = {.seed = 21, .stream = (uint32_t)j};
        for (long i = 0; i < t_numel(b->in[j]); i++)
            real_put(b->in[j]->data, i,
                     real_get(b->in[j]->data, i, b->k) + h * (rng_uniform(key, (uint32_t)i) * 2 - 1), b->k);
    }
}

static inline double dot_v(Bench *b)
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
static inline void check_gradcheck(const Op *op, const OpCase *c)
{
    if (!op->backward) return;
    Bench b;
    bench_open(&b, op, c, kernels_ref_f64());
    bench_forward(&b); /* leaves what a surrogate holds fixed (the scales of a quantiser) */
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

static inline double *copy_grads(Bench *b, Arena *a)
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

static inline void fill_grads(Bench *b, double x)
{
    for (int j = 0; j < b->node->op->n_in; j++)
        for (long i = 0; b->wants[j] && i < t_numel(b->in[j]); i++) real_put(b->in[j]->grad, i, x, b->k);
}

static inline long grad_count(const Bench *b)
{
    long n = 0;
    for (int j = 0; j < b->node->op->n_in; j++) n += b->wants[j] ? t_numel(b->in[j]) : 0;
    return n;
}

/* Twice backward = twice the gradient; SET over NaN = ADD to zero. `=` where `+=` was meant passes every
 * gradcheck. */
static inline void check_accumulate(const Op *op, const OpCase *c)
{
    if (!op->backward) return;
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
            test_fail(__FILE__, __LINE__, "%s/%s: gradient %ld is %.15g once, %.15g twice", op->name, c->name,
                      i, once[i], twice[i]);
        if (!(fabs(set[i] - once[i]) <= 1e-13 * fmax(1, fabs(once[i]))))
            test_fail(__FILE__, __LINE__, "%s/%s: gradient %ld is %.15g added to zero, %.15g set", op->name,
                      c->name, i, once[i], set[i]);
    }
    bench_close(&b);
}

/* Whatever `saves` does not claim is NaN before backward: the same bits must come out. */
static inline void check_poison(const Op *op, const OpCase *c)
{
    if (!op->backward) return;
    Bench b;
    bench_open(&b, op, c, kernels_ref_f64());
    bench_forward(&b);
    bench_backward(&b);
    double *clean = copy_grads(&b, &b.a);
    fill_grads(&b, 0);
    for (int j = 0; j < op->n_in; j++) {
        Tensor *t = b.in[j];
        bool saved = false; /* under any of the places the tensor came in at */
        for (int k = 0; t && k < op->n_in; k++) saved = saved || (b.in[k] == t && (op->saves & SAVE_IN(k)));
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

static inline void close_to(const Op *op, const OpCase *c, const char *what, const char *table, double have,
                            double want, double scale)
{
    if (!(fabs(have - want) <= 1e-4 * fmax(fabs(want), 1e-1 * scale) + 1e-6))
        test_fail(__FILE__, __LINE__, "%s/%s on %s: %s is %.9g, reference %.9g", op->name, c->name, table,
                  what, have, want);
}

static inline double largest(const double *v, long n)
{
    double m = 0;
    for (long i = 0; i < n; i++) m = fmax(m, fabs(v[i]));
    return m;
}

/* Against the reference in float64, both fed with what float32 can hold. */
static inline void check_parity(const Op *op, const OpCase *c, const Kernels *k)
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

/* Twice, and with 1, 2 and 3 threads: the same bits. */
static inline void check_repeat(const Op *op, const OpCase *c)
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
#endif
