/* autograd/op_slice.c: columns [at, at + width) of every row.      x (...,W)   y (...,width)
 * Cuts a fused projection apart where its parts must lie by themselves (the KV cache, relations of
 * distillation); attention in training reads the fused tensor at three columns instead. dx (+)= dy in its
 * columns, else 0. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const SliceAttr *at = n->attr;
    const Tensor *x = n->in[0];
    if (at->at < 0 || at->width < 1 || at->at + at->width > t_last(x))
        return graph_error(g, "slice: columns %ld to %ld of %s, which has %ld", at->at, at->at + at->width,
                           x->name, t_last(x));
    long dim[MAX_DIM] = {0};
    for (int i = 0; i < x->ndim; i++) dim[i] = x->dim[i];
    dim[x->ndim - 1] = at->width;
    return graph_out(n, x->ndim, dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const SliceAttr *at = n->attr;
    long W = t_last(n->in[0]);
    for (long r = 0; r < t_rows(n->out); r++)
        k->copy((char *)n->out->data + (size_t)(r * at->width) * k->real,
                (const char *)n->in[0]->data + (size_t)(r * W + at->at) * k->real, at->width);
}

static void backward(const Node *n, const Kernels *k)
{
    const SliceAttr *at = n->attr;
    const Tensor *x = n->in[0];
    long W = t_last(x);
    if (!x->grad) return;
    if (grad_mode(n, 0) == SET) k->fill(x->grad, 0.0, t_numel(x));
    for (long r = 0; r < t_rows(n->out); r++)
        k->scale((char *)x->grad + (size_t)(r * W + at->at) * k->real, 1.0,
                 (const char *)n->out->grad + (size_t)(r * at->width) * k->real, at->width, ADD);
}

static const SliceAttr middle = {3, 4};
static const OpCase cases[] = {{"middle", &middle, {{'r', 3, {2, 3, 9}, 0}}}, {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_slice = {.name = "slice",
                     .formula = "y = x[..., at : at + width]",
                     .n_in = 1,
                     .attr_size = sizeof(SliceAttr),
                     .shape = shape,
                     .forward = forward,
                     .backward = backward,
                     .cases = cases};
