/* autograd/op_dora_scale.c: g = m / |W + s B A|, one factor per output row (DoRA, 2402.09353).
 *      W (out,in)   A (r,in)   B (out,r)   m g (out)
 * dm = dg / |W + s B A|. The norm is a constant of the step: nothing flows into A and B here (the paper's
 * section 4.3,
 * and peft). W may be a store of codes; STORE_TILE rows of the sum exist at a time. */
#include "autograd/autograd.h"

static long rows_of(const Node *n) { return t_numel(n->in[3]); }
static long cols_of(const Node *n) { return n->in[1]->dim[1]; }

/* Stat: the norms (out). Scratch: a tile of W and of s B A. */
static bool shape(Node *n, Graph *g)
{
    const Tensor *w = n->in[0], *a = n->in[1], *b = n->in[2], *m = n->in[3];
    const DoraScaleAttr *at = n->attr;
    const long out = w ? w->dim[0] : at->w ? at->w->rows : 0, in = w ? w->dim[1] : at->w ? at->w->cols : 0;
    if (a->dim[1] != in || b->dim[0] != out || a->dim[0] != b->dim[1] || t_numel(m) != out)
        return graph_error(g, "%s: %s, %s and %s do not fit a weight of %ld x %ld", n->op->name, a->name,
                           b->name, m->name, out, in);
    n->stat_bytes = (size_t)out * graph_kernels(g)->real;
    n->scratch_bytes = (size_t)(2 * STORE_TILE * in) * graph_kernels(g)->real;
    return graph_out(n, 1, &out);
}

static const void *at_row(const Tensor *t, long r, const Kernels *k)
{
    return (const char *)t->data + (size_t)(r * t->dim[1]) * k->real;
}

static void norms(const Node *n, const Kernels *k)
{
    const Tensor *w = n->in[0], *a = n->in[1], *b = n->in[2];
    const DoraScaleAttr *at = n->attr;
    const long out = rows_of(n), in = cols_of(n);
    void *sum = n->scratch, *tile = (char *)n->scratch + (size_t)(STORE_TILE * in) * k->real;
    for (long r = 0; r < out; r += STORE_TILE) {
        const long t = out - r < STORE_TILE ? out - r : STORE_TILE;
        if (!w) k->decode_rows(tile, at->w->codes, &at->w->spec, &at->w->scales, r, t, in);
        k->gemm_nn(sum, at_row(b, r, k), a->data, t, in, a->dim[0], SET);
        k->axpby(sum, at->scale, sum, 1.0, w ? at_row(w, r, k) : tile, t * in);
        k->row_norms((char *)n->stat + (size_t)r * k->real, sum, t, in);
    }
}

static void forward(const Node *n, const Kernels *k)
{
    norms(n, k);
    k->quotient(n->out->data, n->in[3]->data, n->stat, rows_of(n), SET);
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *m = n->in[3];
    if (m->grad) k->quotient(m->grad, n->out->grad, n->stat, rows_of(n), grad_mode(n, 3));
}

static const DoraScaleAttr half = {0.5, NULL};
static const OpCase cases[] = {
    {"half", &half, {{'R', 2, {7, 9}, 0}, {'R', 2, {3, 9}, 0}, {'R', 2, {7, 3}, 0}, {'r', 1, {7}, 0}}},
    {"tiles", &half, {{'R', 2, {133, 5}, 0}, {'R', 2, {2, 5}, 0}, {'R', 2, {133, 2}, 0}, {'r', 1, {133}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_dora_scale = {.name = "dora_scale",
                          .formula = "g = m / |W + s B A| by row, the norm detached",
                          .n_in = 4,
                          .optional = 1 << 0,
                          .attr_size = sizeof(DoraScaleAttr),
                          .shape = shape,
                          .forward = forward,
                          .backward = backward,
                          .saves = 0,
                          .cases = cases};
