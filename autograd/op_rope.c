/* autograd/op_rope.c: rotary positions (2104.09864).      x, y (...,H D)   pos int32 (...)
 * Pair (a,b) of head columns (j, j+D_rot/2), or (2j,2j+1) when interleaved, turns by pos * inv_freq[j];
 * angles in double. dx is dy turned back. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const RopeAttr *at = n->attr;
    const Tensor *x = n->in[0];
    if (at->n_head * at->D != t_last(x) || at->D_rot > at->D || at->D_rot % 2 ||
        t_numel(n->in[1]) != t_rows(x))
        return graph_error(g, "rope: %ld heads of %ld (rotary %ld) do not fit %s of width %ld", at->n_head,
                           at->D, at->D_rot, x->name, t_last(x));
    return graph_out(n, x->ndim, x->dim);
}

static RopeShape rope_shape(const Node *n)
{
    const RopeAttr *at = n->attr;
    long w = t_last(n->out);
    return (RopeShape){.rows = t_rows(n->out),
                       .H = at->n_head,
                       .D = at->D,
                       .D_rot = at->D_rot,
                       .x_stride = w,
                       .y_stride = w,
                       .interleaved = at->interleaved,
                       .mscale = at->mscale,
                       .inv_freq = at->inv_freq,
                       .pos = n->in[1]->data};
}

static void forward(const Node *n, const Kernels *k)
{
    RopeShape s = rope_shape(n);
    k->rope_fwd(n->out->data, n->in[0]->data, &s);
}

static void backward(const Node *n, const Kernels *k)
{
    RopeShape s = rope_shape(n);
    if (n->in[0]->grad) k->rope_bwd(n->in[0]->grad, n->out->grad, &s, grad_mode(n, 0));
}

static const double freq[4] = {1.0, 0.1, 0.01, 0.001};
static const RopeAttr half = {3, 8, 8, false, 1.0, freq}, part = {2, 8, 4, false, 1.0, freq},
                      inter = {3, 8, 8, true, 1.2, freq};
static const OpCase cases[] = {{"half", &half, {{'r', 3, {2, 5, 24}, 0}, {'p', 2, {2, 5}, 0}}},
                               {"partial", &part, {{'r', 3, {1, 7, 16}, 0}, {'p', 2, {1, 7}, 0}}},
                               {"interleaved", &inter, {{'r', 3, {2, 3, 24}, 0}, {'p', 2, {2, 3}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_rope = {.name = "rope",
                    .formula = "pairs turned by pos * inv_freq",
                    .n_in = 2,
                    .attr_size = sizeof(RopeAttr),
                    .shape = shape,
                    .forward = forward,
                    .backward = backward,
                    .saves = SAVE_IN(1),
                    .cases = cases};
