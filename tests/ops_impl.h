/* tests/ops_impl.h: one op, alone, with memory of its own: what the checks of test_ops.c run on.
 *
 *   Bench b;  bench_open(&b, op, &op->cases[i], kernels_ref_f64());     // leaves filled from a seeded stream
 *   bench_forward(&b);  bench_backward(&b);                             // b.in[j]->grad, b.node->out
 */
#ifndef OPS_IMPL_H
#define OPS_IMPL_H
#include "autograd/autograd.h"
#include "tests/test.h"
#include <math.h>
#include <string.h>

typedef struct Bench {
    Arena a;
    Err e;
    Graph *g;
    Node *node;
    const Kernels *k;
    Tensor *in[MAX_IN];
    bool wants[MAX_IN];
    double loss_weight;
} Bench;

static inline double real_get(const void *p, long i, const Kernels *k)
{
    return k->real == sizeof(double) ? ((const double *)p)[i] : (double)((const float *)p)[i];
}
static inline void real_put(void *p, long i, double v, const Kernels *k)
{
    if (k->real == sizeof(double)) ((double *)p)[i] = v;
    else ((float *)p)[i] = (float)v;
}

static inline Tensor *bench_leaf(Bench *b, const OpCase *c, int j)
{
    char kind = c->in[j].kind;
    if (!kind) return NULL;
    if (kind == 'd') return b->in[0];
    bool real = kind == 'r' || kind == 'R';
    char name[8] = {'i', 'n', (char)('0' + j), 0};
    Tensor *t = graph_input(b->g, name, real ? DT_F64 : DT_I32, c->in[j].ndim, c->in[j].dim);
    ASSERT(t != NULL);
    RngKey key = {.seed = 7, .stream = rng_stream(c->name) + (uint32_t)j};
    for (long i = 0; i < t_numel(t); i++) {
        uint32_t r = rng_u32(key, (uint32_t)i);
        if (real) real_put(t->data, i, rng_uniform(key, (uint32_t)i) * 2 - 1, b->k);
        else if (kind == 'p') ((int32_t *)t->data)[i] = (int32_t)(i % t_last(t));
        else if (kind == 's')
            ((int32_t *)t->data)[i] = (int32_t)((i % t_last(t)) * c->in[j].limit / t_last(t));
        else if (kind == 't' && r % 4 == 0) ((int32_t *)t->data)[i] = -100;
        else ((int32_t *)t->data)[i] = (int32_t)(r % (uint32_t)c->in[j].limit);
    }
    if (kind == 'r') t->flags &= ~(unsigned)T_NOGRAD;
    return t;
}

/* The node over b->in, with memory for everything; gradients of the inputs that want one start at zero. */
static inline void bench_record(Bench *b, const Op *op, const void *attr, const char *name)
{
    Tensor *out = graph_record(b->g, op, attr, op->n_in, b->in);
    if (!out) test_fail(__FILE__, __LINE__, "%s/%s: %s", op->name, name, graph_err(b->g)->msg);
    b->node = out->node;
    *graph_state(b->g) = (RunState){.seed = 11, .step = 3, .sample0 = 5};
    size_t real = b->k->real;
    if (op->flags & OP_ALIAS0) out->data = b->in[0]->data;
    else out->data = arena_alloc(&b->a, (size_t)t_numel(out) * real, &b->e);
    out->grad = arena_alloc(&b->a, (size_t)t_numel(out) * real, &b->e);
    b->node->stat = arena_alloc(&b->a, b->node->stat_bytes, &b->e);
    b->node->scratch = arena_alloc(&b->a, b->node->scratch_bytes, &b->e);
    for (int j = 0; j < op->n_in; j++)
        if (b->wants[j] && !b->in[j]->grad)
            b->in[j]->grad = arena_alloc(&b->a, (size_t)t_numel(b->in[j]) * real, &b->e);
    ASSERT_EQ((int)b->e.code, 0);
}

/* An op with one of its own cases: leaves and the cotangent from seeded streams. */
static inline void bench_open(Bench *b, const Op *op, const OpCase *c, const Kernels *k)
{
    *b = (Bench){.a = {.name = "bench"}, .k = k, .loss_weight = 0.7};
    b->g = graph_new(&(GraphOptions){.k = k, .train = true, .run = &b->a}, &b->e);
    for (int j = 0; j < op->n_in; j++) {
        b->in[j] = bench_leaf(b, c, j);
        b->wants[j] = c->in[j].kind == 'r' || (c->in[j].kind == 'd' && c->in[0].kind == 'r');
    }
    bench_record(b, op, c->attr, c->name);
    RngKey key = {.seed = 9, .stream = 1};
    Tensor *out = b->node->out;
    for (long i = 0; i < t_numel(out); i++) real_put(out->grad, i, rng_uniform(key, (uint32_t)i) * 2 - 1, k);
    b->node->loss_weight = b->loss_weight;
}

static inline void bench_close(Bench *b)
{
    graph_free(b->g);
    arena_free(&b->a);
}
static inline void bench_forward(Bench *b) { b->node->op->forward(b->node, b->k); }
static inline void bench_backward(Bench *b) { b->node->op->backward(b->node, b->k); }

/* The scalar whose gradient backward computes: <u, y>, or loss_weight * value. */
static inline double bench_scalar(Bench *b)
{
    const Op *op = b->node->op;
    void (*f)(const Node *, const Kernels *) = op->surrogate ? op->surrogate : op->forward;
    f(b->node, b->k);
    if (op->flags & OP_LOSS) return b->loss_weight * op->value(b->node);
    double s = 0;
    const Tensor *y = b->node->out;
    for (long i = 0; i < t_numel(y); i++) s += real_get(y->grad, i, b->k) * real_get(y->data, i, b->k);
    return s;
}

static inline bool bench_seen(const Bench *b, int j)
{ /* the same tensor came in before */
    for (int i = 0; i < j; i++)
        if (b->in[i] == b->in[j]) return true;
    return false;
}
#define EACH_CASE(op, c)                                                                                     \
    for (int i_op = 0; i_op < n_all_ops; i_op++)                                                             \
        for (const Op *op = all_ops[i_op]; op; op = NULL)                                                    \
            for (const OpCase *c = op->cases; c && c->name; c++)
#endif
