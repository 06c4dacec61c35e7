/* autograd/op_squared_relu.c: y = max(x, 0)^2 (2109.08668).      x, y (...)
 * dx = 2 max(x, 0) dy; the formula stands in kernels/scalar.h. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    k->squared_relu_fwd(n->out->data, n->in[0]->data, t_numel(n->out));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    if (x->grad) k->squared_relu_bwd(x->grad, n->out->grad, x->data, t_numel(x), grad_mode(n, 0));
}

static const OpCase cases[] = {{"odd", NULL, {{'r', 2, {5, 13}, 0}}},
                               {"one", NULL, {{'r', 1, {1}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_squared_relu = {.name = "squared_relu",
                            .formula = "y = max(x, 0)^2",
                            .n_in = 1,
                            .shape = shape,
                            .forward = forward,
                            .backward = backward,
                            .saves = SAVE_IN(0),
                            .cases = cases};
