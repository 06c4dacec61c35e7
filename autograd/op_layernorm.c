/* autograd/op_layernorm.c: y = (x - mean) rstd w + b over the last axis (1607.06450).      x, y (...,C)   w,
 * b (C)
 * dx = rstd (g - mean(g) - xhat mean(g xhat)) with g = dy w,   dw = sum dy xhat,   db = sum dy. stat: mean,
 * rstd (rows). */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const Tensor *x = n->in[0];
    for (int i = 1; i < 3; i++)
        if (n->in[i] && t_numel(n->in[i]) != t_last(x))
            return graph_error(g, "layernorm: %s has %ld entries, x %s has width %ld", n->in[i]->name,
                               t_numel(n->in[i]), x->name, t_last(x));
    n->stat_bytes = 2 * (size_t)t_rows(x) * graph_kernels(g)->real;
    return graph_out(n, x->ndim, x->dim);
}

static void *rstd(const Node *n, const Kernels *k)
{
    return (char *)n->stat + (size_t)t_rows(n->in[0]) * k->real;
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *w = n->in[1], *b = n->in[2];
    k->layernorm_fwd(n->out->data, n->stat, rstd(n, k), x->data, w ? w->data : NULL, b ? b->data : NULL,
                     t_rows(x), t_last(x), ((const NormAttr *)n->attr)->eps);
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *w = n->in[1], *b = n->in[2];
    k->layernorm_bwd(x->grad, w ? w->grad : NULL, b ? b->grad : NULL, n->out->grad, x->data, n->stat,
                     rstd(n, k), w ? w->data : NULL, t_rows(x), t_last(x), grad_mode(n, 0), grad_mode(n, 1),
                     grad_mode(n, 2));
}

static const NormAttr eps = {1e-5};
static const OpCase cases[] = {
    {"affine", &eps, {{'r', 3, {2, 3, 17}, 0}, {'r', 1, {17}, 0}, {'r', 1, {17}, 0}}},
    {"plain", &eps, {{'r', 2, {5, 8}, 0}}},
    {"frozen", &eps, {{'r', 2, {5, 8}, 0}, {'R', 1, {8}, 0}, {'R', 1, {8}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_layernorm = {.name = "layernorm",
                         .formula = "y = (x - mean) rstd w + b",
                         .n_in = 3,
                         .optional = 6,
                         .attr_size = sizeof(NormAttr),
                         .shape = shape,
                         .forward = forward,
                         .backward = backward,
                         .saves = SAVE_IN(0) | SAVE_IN(1),
                         .cases = cases};
