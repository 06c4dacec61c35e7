/* autograd/op_dropout.c: y = x m / (1 - p), m = 1 with probability 1 - p.      x, y (B,...)
 * m depends on (seed, step, stream, global sample index, element) only: the backward, a recomputed forward,
 * any thread count and any split into micro-batches draw the same mask. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const DropoutAttr *at = n->attr;
    if (!(at->p >= 0 && at->p < 1)) return graph_error(g, "dropout: p = %g is outside [0,1)", at->p);
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}

static void apply(const Node *n, const Kernels *k, void *y, const void *x, Mode mode)
{
    const DropoutAttr *at = n->attr;
    const RunState *s = graph_state(n->g);
    long B = n->out->dim[0];
    k->dropout(y, x, at->p, s->seed, s->step, at->stream, s->sample0, B, t_numel(n->out) / B, mode);
}

static void forward(const Node *n, const Kernels *k) { apply(n, k, n->out->data, n->in[0]->data, SET); }
static void backward(const Node *n, const Kernels *k)
{
    if (n->in[0]->grad) apply(n, k, n->in[0]->grad, n->out->grad, grad_mode(n, 0));
}

static const DropoutAttr third = {0.3, 77}, none = {0.0, 1};
static const OpCase cases[] = {{"p0.3", &third, {{'r', 3, {2, 5, 9}, 0}}},
                               {"p0", &none, {{'r', 2, {3, 4}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_dropout = {.name = "dropout",
                       .formula = "y = x m / (1 - p)",
                       .n_in = 1,
                       .attr_size = sizeof(DropoutAttr),
                       .flags = OP_RANDOM,
                       .shape = shape,
                       .forward = forward,
                       .backward = backward,
                       .saves = 0,
                       .cases = cases};
