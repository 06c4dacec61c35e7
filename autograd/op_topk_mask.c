/* autograd/op_topk_mask.c: movement pruning (2005.07683): a weight under the mask that its scores s make.
 *
 *   y = w M(s)      dw = dy M      ds = dy w, for masked entries too (straight through M)       w, s, y (...)
 *
 * M is 1 at the best scores; where scores of several tensors compete, or the share moves with the schedule,
 * one node cannot tell, so compress/mask.c chooses between steps and M is the state's. Surrogate: y = w (M +
 * s - s0). */
#include "autograd/autograd.h"

static const MaskState *state_of(const Node *n) { return ((const MaskAttr *)n->attr)->state; }

static bool shape(Node *n, Graph *g)
{
    const Tensor *w = n->in[0], *s = n->in[1];
    if (!state_of(n) || !state_of(n)->keep) return graph_error(g, "%s: no mask", n->op->name);
    if (t_numel(w) != t_numel(s))
        return graph_error(g, "%s: %s has %ld weights, %s %ld scores", n->op->name, w->name, t_numel(w),
                           s->name, t_numel(s));
    return graph_out(n, w->ndim, w->dim);
}

static double get(const Tensor *t, long i)
{
    return t->dtype == DT_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i];
}

static void forward(const Node *n, const Kernels *k)
{
    const MaskState *st = state_of(n);
    k->mask(n->out->data, n->in[0]->data, st->keep, t_numel(n->out), SET);
    for (long i = 0; st->anchor && i < t_numel(n->out); i++) st->anchor[i] = get(n->in[1], i);
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *w = n->in[0], *s = n->in[1], *y = n->out;
    if (w->grad) k->mask(w->grad, y->grad, state_of(n)->keep, t_numel(y), grad_mode(n, 0));
    if (s->grad) k->mul(s->grad, y->grad, w->data, t_numel(y), grad_mode(n, 1));
}

static void surrogate(const Node *n, const Kernels *k)
{
    (void)k;
    const MaskState *st = state_of(n);
    const Tensor *w = n->in[0], *s = n->in[1], *y = n->out;
    for (long i = 0; i < t_numel(y); i++) {
        const double v = get(w, i) * ((double)st->keep[i] + get(s, i) - st->anchor[i]);
        if (y->dtype == DT_F64) ((double *)y->data)[i] = v;
        else ((float *)y->data)[i] = (float)v;
    }
}

static const uint8_t half[] = {1, 0, 0, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0};
static double anchor[21];
static const MaskState at_half = {.keep = half, .anchor = anchor};
static const MaskAttr mixed = {&at_half};
static const OpCase cases[] = {{"mixed", &mixed, {{'r', 2, {3, 7}, 0}, {'r', 2, {3, 7}, 0}}},
                               {"one", &mixed, {{'r', 2, {1, 1}, 0}, {'r', 2, {1, 1}, 0}}},
                               {"fixed_scores", &mixed, {{'r', 2, {2, 5}, 0}, {'R', 2, {2, 5}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_topk_mask = {.name = "topk_mask",
                         .formula = "y = w M(s), dw = dy M, ds = dy w",
                         .n_in = 2,
                         .attr_size = sizeof(MaskAttr),
                         .shape = shape,
                         .forward = forward,
                         .backward = backward,
                         .surrogate = surrogate,
                         .saves = SAVE_IN(0),
                         .cases = cases};
