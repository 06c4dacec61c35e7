/* autograd/op_mask.c: a weight under a mask that others choose (pruning).      w, y (...)   keep: bytes
 * (numel) y = w where keep is 1, else +0;   dw = dy there, else 0. */
#include "autograd/autograd.h"

static const MaskState *state_of(const Node *n) { return ((const MaskAttr *)n->attr)->state; }

static bool shape(Node *n, Graph *g)
{
    if (!state_of(n) || !state_of(n)->keep) return graph_error(g, "%s: no mask", n->op->name);
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    k->mask(n->out->data, n->in[0]->data, state_of(n)->keep, t_numel(n->out), SET);
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *w = n->in[0], *y = n->out;
    if (!w->grad) return;
    if (state_of(n)->dense) k->scale(w->grad, 1.0, y->grad, t_numel(y), grad_mode(n, 0));
    else k->mask(w->grad, y->grad, state_of(n)->keep, t_numel(y), grad_mode(n, 0));
}

static const uint8_t half[] = {1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0},
                     none[] = {0, 0, 0, 0};
static const MaskState at_half = {.keep = half}, at_none = {.keep = none};
static const MaskAttr mixed = {&at_half}, empty = {&at_none};
static const OpCase cases[] = {{"mixed", &mixed, {{'r', 2, {3, 7}, 0}}},
                               {"one", &mixed, {{'r', 1, {1}, 0}}},
                               {"nothing_kept", &empty, {{'r', 2, {2, 2}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_mask = {.name = "mask",
                    .formula = "y = w M, dw = dy M",
                    .n_in = 1,
                    .attr_size = sizeof(MaskAttr),
                    .shape = shape,
                    .forward = forward,
                    .backward = backward,
                    .saves = 0,
                    .cases = cases};
