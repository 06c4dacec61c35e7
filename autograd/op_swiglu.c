/* autograd/op_swiglu.c: y = silu(g) u, silu(g) = g / (1 + e^-g) (2002.05202).      g, u, y (...,F)
 * dg = dy u silu'(g),   du = dy silu(g). */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const Tensor *a = n->in[0], *b = n->in[1];
    if (t_numel(a) != t_numel(b))
        return graph_error(g, "%s: %s has %ld elements, %s has %ld", n->op->name, a->name, t_numel(a),
                           b->name, t_numel(b));
    return graph_out(n, a->ndim, a->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    k->swiglu_fwd(n->out->data, n->in[0]->data, n->in[1]->data, t_numel(n->out));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *a = n->in[0], *u = n->in[1];
    long m = t_numel(n->out);
    if (a->grad && u->grad && grad_mode(n, 0) == grad_mode(n, 1)) {
        k->swiglu_bwd(a->grad, u->grad, n->out->grad, a->data, u->data, m, grad_mode(n, 0));
        return;
    }
    if (a->grad) k->swiglu_bwd(a->grad, NULL, n->out->grad, a->data, u->data, m, grad_mode(n, 0));
    if (u->grad) k->swiglu_bwd(NULL, u->grad, n->out->grad, a->data, u->data, m, grad_mode(n, 1));
}

static const OpCase cases[] = {{"plain", NULL, {{'r', 2, {5, 13}, 0}, {'r', 2, {5, 13}, 0}}},
                               {"gate", NULL, {{'r', 2, {3, 33}, 0}, {'R', 2, {3, 33}, 0}}},
                               {"up", NULL, {{'R', 2, {3, 33}, 0}, {'r', 2, {3, 33}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_swiglu = {.name = "swiglu",
                      .formula = "y = g sigmoid(g) u",
                      .n_in = 2,
                      .shape = shape,
                      .forward = forward,
                      .backward = backward,
                      .saves = SAVE_IN(0) | SAVE_IN(1),
                      .cases = cases};
