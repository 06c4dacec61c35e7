/* autograd/op_kv_append.c: cache[b][past + t] = x[b][t]; out is the cache itself.      cache (B,Tmax,W)   x
 * (B,T,W) past int32 (1). Inference only; room is checked by the session before the graph runs. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const Tensor *c = n->in[0], *x = n->in[1];
    if (c->ndim != 3 || x->ndim != 3 || c->dim[0] != x->dim[0] || c->dim[2] != x->dim[2] ||
        x->dim[1] > c->dim[1])
        return graph_error(g, "kv_append: %s does not fit the cache %s", x->name, c->name);
    return graph_out(n, 3, c->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *c = n->in[0], *x = n->in[1];
    long past = *(const int32_t *)n->in[2]->data, T = x->dim[1], W = x->dim[2];
    for (long b = 0; b < x->dim[0]; b++)
        k->copy((char *)c->data + (size_t)((b * c->dim[1] + past) * W) * k->real,
                (const char *)x->data + (size_t)(b * T * W) * k->real, T * W);
}

static const OpCase cases[] = {
    {"append", NULL, {{'R', 3, {2, 9, 4}, 0}, {'R', 3, {2, 3, 4}, 0}, {'i', 1, {1}, 6}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_kv_append = {.name = "kv_append",
                         .formula = "cache[past + t] = x[t]",
                         .n_in = 3,
                         .flags = OP_ALIAS0,
                         .shape = shape,
                         .forward = forward,
                         .cases = cases};
