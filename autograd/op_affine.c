/* autograd/op_affine.c: y = alpha x + beta.      x, y (...)
 * dx = alpha dy. Gemma's embeddings times sqrt(width), and its norm weights, which files store less 1. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const AffineAttr *at = n->attr;
    long m = t_numel(n->out);
    if (at->beta == 0) {
        k->scale(n->out->data, at->alpha, n->in[0]->data, m, SET);
        return;
    }
    k->fill(n->out->data, 1.0, m);
    k->axpby(n->out->data, at->alpha, n->in[0]->data, at->beta, n->out->data, m);
}

static void backward(const Node *n, const Kernels *k)
{
    const AffineAttr *at = n->attr;
    if (n->in[0]->grad) k->scale(n->in[0]->grad, at->alpha, n->out->grad, t_numel(n->out), grad_mode(n, 0));
}

static const AffineAttr plus_one = {1, 1}, times = {5.656854249492381, 0}, both = {-0.5, 2.25};
static const OpCase cases[] = {{"plus_one", &plus_one, {{'r', 1, {17}, 0}}},
                               {"times", &times, {{'r', 3, {2, 3, 13}, 0}}},
                               {"both", &both, {{'r', 2, {5, 65}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_affine = {.name = "affine",
                      .formula = "y = alpha x + beta",
                      .n_in = 1,
                      .attr_size = sizeof(AffineAttr),
                      .shape = shape,
                      .forward = forward,
                      .backward = backward,
                      .saves = 0,
                      .cases = cases};
