/* autograd/op_rmsnorm.c: y = x rstd w, rstd = 1/sqrt(mean(x^2) + eps) (1910.07467).      x, y (...,C)   w
 * (Cw), C = r Cw The last axis is cut into rows of w's width (heads, for q/k norms). dx = rstd (g - xhat
 * mean(g xhat)) with g = dy w, dw = sum dy xhat. stat: rstd per row. */
#include "autograd/autograd.h"

static long width(const Node *n) { return n->in[1] ? t_numel(n->in[1]) : t_last(n->in[0]); }

static bool shape(Node *n, Graph *g)
{
    const Tensor *x = n->in[0];
    if (t_last(x) % width(n))
        return graph_error(g, "rmsnorm: width %ld of %s is no multiple of %s's %ld", t_last(x), x->name,
                           n->in[1]->name, width(n));
    n->stat_bytes = (size_t)(t_numel(x) / width(n)) * graph_kernels(g)->real;
    return graph_out(n, x->ndim, x->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *w = n->in[1];
    k->rmsnorm_fwd(n->out->data, n->stat, x->data, w ? w->data : NULL, t_numel(x) / width(n), width(n),
                   ((const NormAttr *)n->attr)->eps);
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *w = n->in[1];
    k->rmsnorm_bwd(x->grad, w ? w->grad : NULL, n->out->grad, x->data, n->stat, w ? w->data : NULL,
                   t_numel(x) / width(n), width(n), grad_mode(n, 0), grad_mode(n, 1));
}

static const NormAttr eps = {1e-6};
static const OpCase cases[] = {{"plain", &eps, {{'r', 3, {2, 3, 17}, 0}, {'r', 1, {17}, 0}}},
                               {"heads", &eps, {{'r', 2, {5, 24}, 0}, {'r', 1, {8}, 0}}},
                               {"bare", &eps, {{'r', 2, {5, 9}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_rmsnorm = {.name = "rmsnorm",
                       .formula = "y = x / sqrt(mean(x^2) + eps) w",
                       .n_in = 2,
                       .optional = 2,
                       .attr_size = sizeof(NormAttr),
                       .shape = shape,
                       .forward = forward,
                       .backward = backward,
                       .saves = SAVE_IN(0) | SAVE_IN(1),
                       .cases = cases};
