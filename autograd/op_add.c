/* autograd/op_add.c: y = a + b (residual).      a, b, y (...)
 * da = dy,   db = dy. The planner lets both share dy's buffer where nobody is in the way; then backward does
 * nothing. */
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
    k->axpby(n->out->data, 1.0, n->in[0]->data, 1.0, n->in[1]->data, t_numel(n->out));
}

static void backward(const Node *n, const Kernels *k)
{
    for (int i = 0; i < 2; i++) {
        const Tensor *x = n->in[i];
        if (x->grad && x->grad != n->out->grad)
            k->scale(x->grad, 1.0, n->out->grad, t_numel(x), grad_mode(n, i));
    }
}

static const OpCase cases[] = {{"plain", NULL, {{'r', 2, {3, 17}, 0}, {'r', 2, {3, 17}, 0}}},
                               {"one", NULL, {{'r', 1, {1}, 0}, {'r', 1, {1}, 0}}},
                               {"same", NULL, {{'r', 2, {4, 5}, 0}, {'d', 2, {4, 5}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_add = {.name = "add",
                   .formula = "y = a + b",
                   .n_in = 2,
                   .flags = OP_GRADPASS,
                   .shape = shape,
                   .forward = forward,
                   .backward = backward,
                   .saves = 0,
                   .cases = cases};
