/* autograd/op_gelu.c: y = gelu(x), erf form or tanh approximation (1606.08415).      x, y (...)
 * dx = gelu'(x) dy; both formulas stand in kernels/scalar.h. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const GeluAttr *at = n->attr;
    k->gelu_fwd(n->out->data, n->in[0]->data, t_numel(n->out), at->tanh_form);
}

static void backward(const Node *n, const Kernels *k)
{
    const GeluAttr *at = n->attr;
    const Tensor *x = n->in[0];
    if (x->grad) k->gelu_bwd(x->grad, n->out->grad, x->data, t_numel(x), at->tanh_form, grad_mode(n, 0));
}

static const GeluAttr erf_form = {false}, tanh_form = {true};
static const OpCase cases[] = {{"erf", &erf_form, {{'r', 2, {5, 13}, 0}}},
                               {"tanh", &tanh_form, {{'r', 2, {5, 13}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_gelu = {.name = "gelu",
                    .formula = "y = x Phi(x), or its tanh form",
                    .n_in = 1,
                    .attr_size = sizeof(GeluAttr),
                    .shape = shape,
                    .forward = forward,
                    .backward = backward,
                    .saves = SAVE_IN(0),
                    .cases = cases};
