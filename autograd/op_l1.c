/* autograd/op_l1.c: a feature loss: sum over target rows of mean over channels of |a - b|.      a, b (...,C)
 * targets int32 (rows) or absent: rows with -100 do not count. da = sign(a - b)/C, db = -da. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const Tensor *a = n->in[0], *b = n->in[1], *y = n->in[2];
    if (t_last(a) != t_last(b) || t_rows(a) != t_rows(b) || (y && t_numel(y) != t_rows(a)))
        return graph_error(g,
                           "l1: %s is (%ld,%ld), %s is (%ld,%ld); widths that differ need projector: linear",
                           a->name, t_rows(a), t_last(a), b->name, t_rows(b), t_last(b));
    n->stat_bytes = sizeof(double);
    return graph_out(n, 1, (long[]){1});
}

static const int32_t *targets(const Node *n) { return n->in[2] ? n->in[2]->data : NULL; }

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *a = n->in[0];
    double *sum = n->stat;
    *sum = 0;
    k->l1_fwd(sum, a->data, n->in[1]->data, targets(n), t_rows(a), t_last(a));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *a = n->in[0], *b = n->in[1];
    forward(n, k);
    k->l1_bwd(a->grad, b->grad, a->data, b->data, targets(n), t_rows(a), t_last(a), n->loss_weight,
              grad_mode(n, 0), grad_mode(n, 1));
}

static double value(const Node *n) { return *(const double *)n->stat; }

static const OpCase cases[] = {{"both", NULL, {{'r', 2, {5, 9}, 0}, {'r', 2, {5, 9}, 0}, {'t', 1, {5}, 3}}},
                               {"one", NULL, {{'r', 1, {1}, 0}, {'r', 1, {1}, 0}}},
                               {"teacher", NULL, {{'r', 3, {2, 3, 17}, 0}, {'R', 3, {2, 3, 17}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_l1 = {.name = "l1",
                  .formula = "sum over rows of mean |a - b|",
                  .n_in = 3,
                  .optional = 4,
                  .flags = OP_LOSS,
                  .shape = shape,
                  .forward = forward,
                  .backward = backward,
                  .value = value,
                  .saves = SAVE_IN(0) | SAVE_IN(1) | SAVE_IN(2),
                  .cases = cases};
