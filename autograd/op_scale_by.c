/* autograd/op_scale_by.c: y = g x (+ b), g one factor per row or per column.      x, y (...,C)   g (rows) or
 * (C)   b (C)
 * dx = g dy,   dg = sum of dy x over what shares the factor,   db = sum over rows of dy. */
#include "autograd/autograd.h"

static bool by_rows(const Node *n) { return ((const ScaleByAttr *)n->attr)->rows; }

static bool shape(Node *n, Graph *g)
{
    const Tensor *x = n->in[0], *f = n->in[1], *b = n->in[2];
    if (t_numel(f) != (by_rows(n) ? t_rows(x) : t_last(x)) || (b && t_numel(b) != t_last(x)))
        return graph_error(g, "%s: %s has %ld factors for %s of %ld x %ld", n->op->name, f->name, t_numel(f),
                           x->name, t_rows(x), t_last(x));
    return graph_out(n, x->ndim, x->dim);
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *y = n->out;
    k->scale_by(y->data, x->data, n->in[1]->data, t_rows(x), t_last(x), by_rows(n), SET);
    if (n->in[2]) k->add_row(y->data, n->in[2]->data, t_rows(y), t_last(y));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *f = n->in[1], *b = n->in[2], *y = n->out;
    const long N = t_rows(x), C = t_last(x);
    if (x->grad) k->scale_by(x->grad, y->grad, f->data, N, C, by_rows(n), grad_mode(n, 0));
    if (f->grad) k->scale_by_sum(f->grad, y->grad, x->data, N, C, by_rows(n), grad_mode(n, 1));
    if (b && b->grad) k->add_colsum(b->grad, y->grad, N, C, grad_mode(n, 2));
}

static const ScaleByAttr columns = {false}, rows = {true};
static const OpCase cases[] = {
    {"columns", &columns, {{'r', 3, {2, 3, 17}, 0}, {'r', 1, {17}, 0}, {'r', 1, {17}, 0}}},
    {"rows", &rows, {{'r', 2, {5, 9}, 0}, {'r', 1, {5}, 0}}},
    {"one", &columns, {{'r', 2, {1, 1}, 0}, {'r', 1, {1}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_scale_by = {.name = "scale_by",
                        .formula = "y = g x (+ b), g by row or by column",
                        .n_in = 3,
                        .optional = 1 << 2,
                        .attr_size = sizeof(ScaleByAttr),
                        .shape = shape,
                        .forward = forward,
                        .backward = backward,
                        .saves = SAVE_IN(0) | SAVE_IN(1),
                        .cases = cases};
