/* autograd/op_fakegrad.c: y = x; the gradient that comes back goes through a number format.    x, y (...,C)
 * dx = s v(dy/s), s from dy itself: what a GEMM with FP8 gradients would see (formats.md 1.6, HYBRID). */
#include "autograd/fakequant_impl.h"

static void forward(const Node *n, const Kernels *k)
{
    ((FakeStat *)n->stat)->on = false;
    k->copy(n->out->data, n->in[0]->data, t_numel(n->out));
}

static bool acts(const Node *n)
{
    const FakeQuantState *st = ((const FakeQuantAttr *)n->attr)->state;
    return !st || st->on;
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *y = n->out;
    if (!x->grad) return;
    if (!acts(n)) {
        fakequant_pass(n, k);
        return;
    }
    QuantScales q = fakequant_own(n);
    k->fakequant_scales(&q, fake_spec(n), y->grad, t_rows(y), t_last(y), n->scratch);
    fakequant_round(n, k, x->grad, y->grad, &q, grad_mode(n, 0));
}

static FakeQuantState off = {.on = false};
static const FakeQuantAttr passing = {.spec = {.f = &quant_formats[QUANT_fp8_e5m2]}, .state = &off};
static const OpCase cases[] = {{"off", &passing, {{'r', 2, {4, 17}, 0}}}, {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_fakegrad = {.name = "fakegrad",
                        .formula = "y = x, dx = s v(dy/s)",
                        .n_in = 1,
                        .attr_size = sizeof(FakeQuantAttr),
                        .shape = fakequant_shape,
                        .forward = forward,
                        .backward = backward,
                        .saves = 0,
                        .cases = cases};
