/* autograd/op_mul.c: y = a b, element by element (a mask on a weight).      a, b, y (...)
 * da = dy b,   db = dy a. */
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
    k->mul(n->out->data, n->in[0]->data, n->in[1]->data, t_numel(n->out), SET);
}

static void backward(const Node *n, const Kernels *k)
{
    for (int i = 0; i < 2; i++)
        if (n->in[i]->grad)
            k->mul(n->in[i]->grad, n->out->grad, n->in[1 - i]->data, t_numel(n->out), grad_mode(n, i));
}

static const OpCase cases[] = {{"plain", NULL, {{'r', 2, {3, 17}, 0}, {'r', 2, {3, 17}, 0}}},
                               {"mask", NULL, {{'r', 2, {9, 8}, 0}, {'R', 2, {9, 8}, 0}}},
                               {"square", NULL, {{'r', 2, {4, 5}, 0}, {'d', 2, {4, 5}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_mul = {.name = "mul",
                   .formula = "y = a b",
                   .n_in = 2,
                   .shape = shape,
                   .forward = forward,
                   .backward = backward,
                   .saves = SAVE_IN(0) | SAVE_IN(1),
                   .cases = cases};
