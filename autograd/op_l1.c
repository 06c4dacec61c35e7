/* autograd/op_l1.c: a feature loss: sum over target rows of mean over channels of |a - b|.      a, b (...,C)
 * da = sign(a - b)/C,   db = -da. */
#include "autograd/feature_impl.h"

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *a = n->in[0], *b = n->in[1];
    k->l1_fwd(feature_sum(n), a->data, b->data, feature_targets(n), t_rows(a), t_last(a));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *a = n->in[0], *b = n->in[1];
    forward(n, k);
    k->l1_bwd(a->grad, b->grad, a->data, b->data, feature_targets(n), t_rows(a), t_last(a), n->loss_weight,
              grad_mode(n, 0), grad_mode(n, 1));
}

const Op op_l1 = {.name = "l1",
                  .formula = "sum over rows of mean |a - b|",
                  .n_in = 3,
                  .optional = 4,
                  .flags = OP_LOSS,
                  .shape = feature_shape,
                  .forward = forward,
                  .backward = backward,
                  .value = feature_value,
                  .saves = SAVE_IN(0) | SAVE_IN(1) | SAVE_IN(2),
                  .cases = feature_cases};
