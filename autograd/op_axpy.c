/* autograd/op_axpy.c: y = alpha a + b.      a, b, y (...)
 * da = alpha dy,   db = dy. The LoRA branch: alpha is its scale. */
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
    const AxpyAttr *at = n->attr;
    k->axpby(n->out->data, at->alpha, n->in[0]->data, 1.0, n->in[1]->data, t_numel(n->out));
}

static void backward(const Node *n, const Kernels *k)
{
    const AxpyAttr *at = n->attr;
    if (n->in[0]->grad) k->scale(n->in[0]->grad, at->alpha, n->out->grad, t_numel(n->out), grad_mode(n, 0));
    if (n->in[1]->grad) k->scale(n->in[1]->grad, 1.0, n->out->grad, t_numel(n->out), grad_mode(n, 1));
}

static const AxpyAttr half = {0.5}, minus = {-3.0};
static const OpCase cases[] = {{"half", &half, {{'r', 2, {3, 17}, 0}, {'r', 2, {3, 17}, 0}}},
                               {"minus", &minus, {{'r', 1, {65}, 0}, {'r', 1, {65}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_axpy = {.name = "axpy",
                    .formula = "y = alpha a + b",
                    .n_in = 2,
                    .attr_size = sizeof(AxpyAttr),
                    .shape = shape,
                    .forward = forward,
                    .backward = backward,
                    .saves = 0,
                    .cases = cases};
