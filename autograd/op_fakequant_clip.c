/* autograd/op_fakequant_clip.c: y = s v(x/s), scales that stand still, so x may lie outside.    x, y (...,C)
 * dx = dy where lo <= x/s <= hi (unrounded), else 0: the derivative of x clamped to [lo s, hi s]. */
#include "autograd/fakequant_impl.h"

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    if (!x->grad) return;
    if (!fake_stat(n)->on) fakequant_pass(n, k);
    else
        k->fakequant_clip_bwd(x->grad, n->out->grad, x->data, fake_spec(n), &fake_stat(n)->q, t_rows(x),
                              t_last(x), grad_mode(n, 0));
}

static void surrogate(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    if (!fake_stat(n)->q.scale) fakequant_scales(n, k); /* the scales stay while x moves */
    k->fakequant_clip(n->out->data, x->data, fake_spec(n), &fake_stat(n)->q, t_rows(x), t_last(x));
}

/* Half of [-1, 1] is outside: 127 x 0.004 = 448 x 0.0011339 = 0.508. */
static float s_int8[] = {0.004f}, s_fp8[] = {0.0011339f}, s_zero[] = {0.05f, 0.05f}, z_zero[] = {3, 12};
static FakeQuantState at_int8 = {.on = true,
                                 .keep = true,
                                 .q = {.R = 1, .G = 1, .scale = s_int8, .tensor = 1}},
                      at_fp8 = {.on = true, .keep = true, .q = {.R = 1, .G = 1, .scale = s_fp8, .tensor = 1}},
                      at_zero = {.on = true,
                                 .keep = true,
                                 .q = {.R = 1, .G = 2, .scale = s_zero, .zero = z_zero, .tensor = 1}};
static const FakeQuantAttr int8 = {.spec = {.f = &quant_formats[QUANT_int8]}, .state = &at_int8},
                           fp8 = {.spec = {.f = &quant_formats[QUANT_fp8_e4m3]}, .state = &at_fp8},
                           int4 = {.spec = {.f = &quant_formats[QUANT_int4],
                                            .block_cols = 20,
                                            .asymmetric = true},
                                   .state = &at_zero};
static const OpCase cases[] = {{"int8_fixed", &int8, {{'r', 2, {7, 33}, 0}}},
                               {"fp8_fixed", &fp8, {{'r', 3, {2, 3, 19}, 0}}},
                               {"int4_asymmetric", &int4, {{'r', 2, {5, 37}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_fakequant_clip = {.name = "fakequant_clip",
                              .formula = "y = s v(x/s), dx = dy where lo <= x/s <= hi",
                              .n_in = 1,
                              .attr_size = sizeof(FakeQuantAttr),
                              .shape = fakequant_shape,
                              .forward = fakequant_forward,
                              .backward = backward,
                              .surrogate = surrogate,
                              .saves = SAVE_IN(0),
                              .cases = cases};
