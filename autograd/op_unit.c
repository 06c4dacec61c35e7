/* autograd/op_unit.c: rows of length 1, y = x / |x|.      x, y (...,C)
 * dx = (dy - y (y.dy)) / |x|. A row shorter than 1e-8 is divided by 1e-8 (torch normalize). */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    k->unit_fwd(n->out->data, x->data, t_rows(x), t_last(x));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    if (x->grad) k->unit_bwd(x->grad, n->out->grad, x->data, t_rows(x), t_last(x), grad_mode(n, 0));
}

static const OpCase cases[] = {{"odd", NULL, {{'r', 2, {5, 13}, 0}}},
                               {"one", NULL, {{'r', 1, {1}, 0}}},
                               {"batch", NULL, {{'r', 3, {2, 3, 16}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_unit = {.name = "unit",
                    .formula = "y = x / |x| by rows",
                    .n_in = 1,
                    .shape = shape,
                    .forward = forward,
                    .backward = backward,
                    .saves = SAVE_IN(0),
                    .cases = cases};
