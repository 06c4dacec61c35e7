/* autograd/op_softcap.c: y = cap tanh(x / cap) (Gemma 2, 2408.00118).      x, y (...)
 * dx = dy (1 - (y/cap)^2). Attention caps its scores and lm_loss its logits by themselves; this one is for
 * logits that somebody asked for. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const SoftcapAttr *at = n->attr;
    if (!(at->cap > 0)) return graph_error(g, "softcap: cap = %g must be above 0", at->cap);
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    k->softcap_fwd(n->out->data, n->in[0]->data, ((const SoftcapAttr *)n->attr)->cap, t_numel(n->out));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *y = n->out;
    if (x->grad)
        k->softcap_bwd(x->grad, y->grad, y->data, ((const SoftcapAttr *)n->attr)->cap, t_numel(y),
                       grad_mode(n, 0));
}

static const SoftcapAttr tight = {0.5}, wide = {30};
static const OpCase cases[] = {{"tight", &tight, {{'r', 2, {5, 13}, 0}}},
                               {"wide", &wide, {{'r', 3, {2, 3, 33}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_softcap = {.name = "softcap",
                       .formula = "y = cap tanh(x / cap)",
                       .n_in = 1,
                       .attr_size = sizeof(SoftcapAttr),
                       .shape = shape,
                       .forward = forward,
                       .backward = backward,
                       .saves = SAVE_OUT,
                       .cases = cases};
