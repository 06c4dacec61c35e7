/* autograd/op_lora_weight.c: W' = W + s B A (2106.09685), where a weight itself is wanted: under a mask or a
 * quantiser,
 * as the output head, merged.      W W' (out,in)   A (r,in)   B (out,r)
 * dW = dW',   dA = s B^T dW',   dB = s dW' A^T. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const Tensor *w = n->in[0], *a = n->in[1], *b = n->in[2];
    if (w->ndim != 2 || a->ndim != 2 || b->ndim != 2 || a->dim[1] != w->dim[1] || b->dim[0] != w->dim[0] ||
        a->dim[0] != b->dim[1])
        return graph_error(g, "%s: %s, %s and %s do not fit together", n->op->name, w->name, a->name,
                           b->name);
    n->scratch_bytes = (size_t)(t_numel(a) > t_numel(b) ? t_numel(a) : t_numel(b)) * graph_kernels(g)->real;
    return graph_out(n, 2, w->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *w = n->in[0], *a = n->in[1], *b = n->in[2], *y = n->out;
    const LoraWeightAttr *at = n->attr;
    k->gemm_nn(y->data, b->data, a->data, y->dim[0], y->dim[1], a->dim[0], SET);
    k->axpby(y->data, at->scale, y->data, 1.0, w->data, t_numel(y));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *w = n->in[0], *a = n->in[1], *b = n->in[2], *y = n->out;
    const LoraWeightAttr *at = n->attr;
    const long out = y->dim[0], in = y->dim[1], r = a->dim[0];
    if (w->grad) k->scale(w->grad, 1.0, y->grad, t_numel(y), grad_mode(n, 0));
    if (a->grad) {
        k->gemm_tn(n->scratch, b->data, y->grad, r, in, out, SET);
        k->scale(a->grad, at->scale, n->scratch, r * in, grad_mode(n, 1));
    }
    if (b->grad) {
        k->gemm_nt(n->scratch, y->grad, a->data, out, r, in, SET);
        k->scale(b->grad, at->scale, n->scratch, out * r, grad_mode(n, 2));
    }
}

static const LoraWeightAttr half = {0.5}, two = {2.0};
static const OpCase cases[] = {
    {"half", &half, {{'r', 2, {7, 9}, 0}, {'r', 2, {3, 9}, 0}, {'r', 2, {7, 3}, 0}}},
    {"frozen", &two, {{'R', 2, {5, 17}, 0}, {'r', 2, {2, 17}, 0}, {'r', 2, {5, 2}, 0}}},
    {"one", &two, {{'r', 2, {1, 1}, 0}, {'r', 2, {1, 1}, 0}, {'r', 2, {1, 1}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_lora_weight = {.name = "lora_weight",
                           .formula = "W' = W + s B A",
                           .n_in = 3,
                           .attr_size = sizeof(LoraWeightAttr),
                           .shape = shape,
                           .forward = forward,
                           .backward = backward,
                           .saves = SAVE_IN(1) | SAVE_IN(2),
                           .cases = cases};
