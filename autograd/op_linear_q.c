/* autograd/op_linear_q.c: y = x W^T (+ b) with W as codes and scales (QLoRA, 2305.14314).  x (...,in)  b
 * (out)  y (...,out)
 * dx = dy W,   db = sum over rows of dy. W is frozen. Fewer than CODED_ROWS rows of x are multiplied with the
 * codes themselves; for more, STORE_TILE rows of W exist as floats at a time, both ways. */
#include "autograd/autograd.h"

static const QuantStore *store(const Node *n) { return ((const LinearQAttr *)n->attr)->w; }

/* Scratch: a tile of W (STORE_TILE,in), then its columns of dy (rows of x, STORE_TILE). */
static bool shape(Node *n, Graph *g)
{
    const Tensor *x = n->in[0], *b = n->in[1];
    const QuantStore *w = store(n);
    if (!w || w->cols != t_last(x))
        return graph_error(g, "linear_q: x %s has width %ld, the weight is (%ld,%ld)", x->name, t_last(x),
                           w ? w->rows : 0, w ? w->cols : 0);
    if (b && t_numel(b) != w->rows)
        return graph_error(g, "linear_q: bias %s has %ld entries, not %ld", b->name, t_numel(b), w->rows);
    long dim[MAX_DIM] = {0};
    for (int i = 0; i < x->ndim; i++) dim[i] = x->dim[i];
    dim[x->ndim - 1] = w->rows;
    n->scratch_bytes = (size_t)(STORE_TILE * (w->cols + t_rows(x))) * graph_kernels(g)->real;
    return graph_out(n, x->ndim, dim);
}

static long tile_at(const QuantStore *w, long r)
{
    return w->rows - r < STORE_TILE ? w->rows - r : STORE_TILE;
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *b = n->in[1], *y = n->out;
    const QuantStore *w = store(n);
    const long M = t_rows(x), K = w->cols;
    void *tile = n->scratch;
    if (M < CODED_ROWS) k->coded_dot(y->data, x->data, w->codes, &w->spec, &w->scales, M, w->rows, K);
    for (long r = 0; M >= CODED_ROWS && r < w->rows; r += STORE_TILE) {
        const long t = tile_at(w, r);
        k->decode_rows(tile, w->codes, &w->spec, &w->scales, r, t, K);
        k->gemm_nt_at((char *)y->data + (size_t)r * k->real, w->rows, x->data, tile, M, t, K);
    }
    if (b) k->add_row(y->data, b->data, t_rows(y), t_last(y));
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *b = n->in[1], *y = n->out;
    const QuantStore *w = store(n);
    const long M = t_rows(x), K = w->cols;
    void *tile = n->scratch, *part = (char *)n->scratch + (size_t)(STORE_TILE * K) * k->real;
    for (long r = 0; x->grad && r < w->rows; r += STORE_TILE) {
        const long t = tile_at(w, r);
        k->decode_rows(tile, w->codes, &w->spec, &w->scales, r, t, K);
        k->columns_get(part, y->grad, M, w->rows, r, t);
        k->gemm_nn(x->grad, part, tile, M, K, t, r ? ADD : grad_mode(n, 0));
    }
    if (b && b->grad) k->add_colsum(b->grad, y->grad, t_rows(y), t_last(y), grad_mode(n, 1));
}

/* Codes of the checks: int8 rows with scales of a power of two, as tests/golden/make_ops.py has them. */
static const uint8_t codes[] = {127, 1, 255, 30, 200, 129, 2, 0, 77, 90, 5, 127, 250, 60, 128 + 9};
static float scale[3] = {0.0078125f, 0.015625f, 0.00390625f};
static const QuantStore small = {.spec = {.f = &quant_formats[QUANT_int8], .block_rows = 1},
                                 .scales = {.R = 3, .G = 1, .scale = scale, .tensor = 1},
                                 .codes = codes,
                                 .rows = 3,
                                 .cols = 5};
static const LinearQAttr at_small = {&small};
static const OpCase cases[] = {{"bias", &at_small, {{'r', 3, {2, 3, 5}, 0}, {'r', 1, {3}, 0}}},
                               {"plain", &at_small, {{'r', 2, {17, 5}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_linear_q = {.name = "linear_q",
                        .formula = "y = x decode(W)^T (+ b), dx = dy decode(W)",
                        .n_in = 2,
                        .optional = 1 << 1,
                        .attr_size = sizeof(LinearQAttr),
                        .shape = shape,
                        .forward = forward,
                        .backward = backward,
                        .saves = 0,
                        .cases = cases};
