/* autograd/op_linear.c: y = x W^T (+ b).      x (...,in)   W (out,in)   b (out)   y (...,out)
 * dx = dy W,   dW = dy^T x,   db = sum over rows of dy. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const Tensor *x = n->in[0], *w = n->in[1], *b = n->in[2];
    if (w->ndim != 2 || w->dim[1] != t_last(x))
        return graph_error(g, "linear: x %s has width %ld, weight %s is (%ld,%ld)", x->name, t_last(x),
                           w->name, w->dim[0], w->ndim == 2 ? w->dim[1] : 0);
    if (b && t_numel(b) != w->dim[0])
        return graph_error(g, "linear: bias %s has %ld entries, not %ld", b->name, t_numel(b), w->dim[0]);
    long dim[MAX_DIM] = {0};
    for (int i = 0; i < x->ndim; i++) dim[i] = x->dim[i];
    dim[x->ndim - 1] = w->dim[0];
    n->scratch_bytes = weight_room(graph_kernels(g), w);
    return graph_out(n, x->ndim, dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *w = n->in[1], *b = n->in[2], *y = n->out;
    weight_nt(k, y->data, x->data, w, t_rows(x), n->scratch);
    if (b) k->add_row(y->data, b->data, t_rows(y), t_last(y));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *w = n->in[1], *b = n->in[2], *y = n->out;
    if (x->grad) k->gemm_nn(x->grad, y->grad, w->data, t_rows(x), t_last(x), t_last(y), grad_mode(n, 0));
    if (w->grad) k->gemm_tn(w->grad, y->grad, x->data, t_last(y), t_last(x), t_rows(x), grad_mode(n, 1));
    if (b && b->grad) k->add_colsum(b->grad, y->grad, t_rows(y), t_last(y), grad_mode(n, 2));
}

static const OpCase cases[] = {
    {"bias", NULL, {{'r', 3, {2, 3, 5}, 0}, {'r', 2, {7, 5}, 0}, {'r', 1, {7}, 0}}},
    {"plain", NULL, {{'r', 2, {17, 33}, 0}, {'r', 2, {19, 33}, 0}}},
    {"one", NULL, {{'r', 2, {1, 1}, 0}, {'r', 2, {1, 1}, 0}, {'r', 1, {1}, 0}}},
    {"frozen", NULL, {{'r', 2, {9, 8}, 0}, {'R', 2, {6, 8}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_linear = {.name = "linear",
                      .formula = "y = x W^T (+ b)",
                      .n_in = 3,
                      .optional = 1 << 2,
                      .halves = 1 << 1,
                      .shape = shape,
                      .forward = forward,
                      .backward = backward,
                      .saves = SAVE_IN(0) | SAVE_IN(1),
                      .cases = cases};
