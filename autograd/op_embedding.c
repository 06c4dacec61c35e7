/* autograd/op_embedding.c: y[r] = W[ids[r]].      W (V,C)   ids int32 (...)   y (...,C)
 * dW[v] += sum of dy[r] over rows with ids[r] == v, in row order. Ids are in [0,V): checked where data is
 * read. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const Tensor *w = n->in[0], *ids = n->in[1];
    if (w->ndim != 2 || ids->dtype != DT_I32 || ids->ndim >= MAX_DIM)
        return graph_error(g, "embedding: table %s must be (V,C) and ids int32", w->name);
    long dim[MAX_DIM] = {0};
    for (int i = 0; i < ids->ndim; i++) dim[i] = ids->dim[i];
    dim[ids->ndim] = w->dim[1];
    return graph_out(n, ids->ndim + 1, dim);
}

static void forward(const Node *n, const Kernels *k)
{
    weight_rows(k, n->out->data, n->in[0], n->in[1]->data, t_numel(n->in[1]));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *w = n->in[0], *ids = n->in[1];
    if (!w->grad) return;
    if (grad_mode(n, 0) == SET) k->fill(w->grad, 0.0, t_numel(w));
    k->embedding_bwd(w->grad, n->out->grad, ids->data, t_numel(ids), w->dim[0], w->dim[1]);
}

static const OpCase cases[] = {{"repeats", NULL, {{'r', 2, {5, 7}, 0}, {'i', 2, {3, 4}, 5}}},
                               {"wide", NULL, {{'r', 2, {11, 65}, 0}, {'i', 1, {9}, 11}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_embedding = {.name = "embedding",
                         .formula = "y[r] = W[ids[r]]",
                         .n_in = 2,
                         .halves = 1 << 0,
                         .shape = shape,
                         .forward = forward,
                         .backward = backward,
                         .saves = SAVE_IN(1),
                         .cases = cases};
