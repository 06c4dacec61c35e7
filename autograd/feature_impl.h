/* autograd/feature_impl.h: what the feature losses between two tensors share (op_mse, op_l1, op_cosine):
 * a, b (...,C), targets int32 (rows) or absent; one sum in double, over the rows whose target is not -100. */
#ifndef FEATURE_IMPL_H
#define FEATURE_IMPL_H
#include "autograd/autograd.h"

static inline bool feature_shape(Node *n, Graph *g)
{
    const Tensor *a = n->in[0], *b = n->in[1], *y = n->in[2];
    if (t_last(a) != t_last(b) || t_rows(a) != t_rows(b) || (y && t_numel(y) != t_rows(a)))
        return graph_error(g,
                           "%s: %s is (%ld,%ld), %s is (%ld,%ld); widths that differ need projector: linear",
                           n->op->name, a->name, t_rows(a), t_last(a), b->name, t_rows(b), t_last(b));
    n->stat_bytes = sizeof(double);
    return graph_out(n, 1, (long[]){1});
}

/* (rows), or NULL: all rows count */
static inline const int32_t *feature_targets(const Node *n) { return n->in[2] ? n->in[2]->data : NULL; }

/* Where forward leaves the sum, at zero. */
static inline double *feature_sum(const Node *n)
{
    double *sum = n->stat;
    *sum = 0;
    return sum;
}

static inline double feature_value(const Node *n) { return *(const double *)n->stat; }

static const OpCase feature_cases[] = {
    {"both", NULL, {{'r', 2, {5, 9}, 0}, {'r', 2, {5, 9}, 0}, {'t', 1, {5}, 3}}},
    {"one", NULL, {{'r', 1, {1}, 0}, {'r', 1, {1}, 0}}},
    {"teacher", NULL, {{'r', 3, {2, 3, 17}, 0}, {'R', 3, {2, 3, 17}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};
#endif
