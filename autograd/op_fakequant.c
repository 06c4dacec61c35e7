/* autograd/op_fakequant.c: y = s v(x/s), a number format there and back (algorithms 5.11).      x, y (...,C)
 * Straight through: dx = dy everywhere. The right one where the scale follows x: nothing clips in exact
 * arithmetic,
 * but in floats amax/s often exceeds the largest code, and a mask would cut the gradient of just that
 * weight. */
#include "autograd/fakequant_impl.h"
#include <math.h>
#include <string.h>

static long grid(const QuantSpec *s, const Tensor *x)
{
    return quant_rows(s, t_rows(x)) * quant_groups(s, t_last(x));
}

bool fakequant_shape(Node *n, Graph *g)
{
    const FakeQuantAttr *at = n->attr;
    const Tensor *x = n->in[0];
    if (!at->spec.f) return graph_error(g, "%s: no number format", n->op->name);
    if (x->ndim < 1 || t_numel(x) < 1) return graph_error(g, "%s: %s is empty", n->op->name, x->name);
    /* scales, zero points, double quantisation's codes and scales */
    const size_t c = (size_t)grid(&at->spec, x);
    n->stat_bytes = round64(sizeof(FakeStat)) + (at->spec.asymmetric ? 2 : 1) * round64(c * sizeof(float));
    if (at->spec.double_quant) n->stat_bytes += round64(c) + round64((c / 256 + 1) * sizeof(float));
    n->scratch_bytes = g->opt.k->real == sizeof(double) ? (size_t)t_numel(x) * sizeof(float) : 0;
    return graph_out(n, x->ndim, x->dim);
}

/* The node's own scales, laid out in its stat. */
QuantScales fakequant_own(const Node *n)
{
    const QuantSpec *s = fake_spec(n);
    const Tensor *x = n->in[0];
    const size_t c = (size_t)grid(s, x);
    char *p = (char *)n->stat + round64(sizeof(FakeStat));
    QuantScales q = {.R = quant_rows(s, t_rows(x)), .G = quant_groups(s, t_last(x)), .tensor = 1};
    q.scale = (float *)(void *)p;
    p += round64(c * sizeof(float));
    if (s->asymmetric) {
        q.zero = (float *)(void *)p;
        p += round64(c * sizeof(float));
    }
    if (s->double_quant) {
        q.dq_code = (uint8_t *)p;
        q.dq_scale = (float *)(void *)(p + round64(c));
    }
    return q;
}

static void copy_scales(QuantScales *to, const QuantScales *from)
{
    const size_t c = (size_t)(from->R * from->G);
    memcpy(to->scale, from->scale, c * sizeof(float));
    if (from->zero) memcpy(to->zero, from->zero, c * sizeof(float));
    to->tensor = from->tensor;
}

/* Delayed scales look at this step's range for the next one; one that is not finite spoils this step's
 * values too. */
static bool watch(const Node *n, const Kernels *k, FakeQuantState *st)
{
    const Tensor *x = n->in[0];
    k->fakequant_amax(st->amax, fake_spec(n), x->data, t_rows(x), t_last(x));
    for (long i = 0; i < st->q.R * st->q.G; i++)
        if (!isfinite(st->amax[i])) return false;
    return true;
}

bool fakequant_scales(const Node *n, const Kernels *k)
{
    const FakeQuantAttr *at = n->attr;
    FakeQuantState *st = at->state;
    FakeStat *f = n->stat;
    const bool train = n->g->opt.train;
    const Tensor *x = n->in[0];
    f->on = !st || st->on;
    if (!f->on) return false;
    const bool finite = !(st && st->amax && train) || watch(n, k, st);
    if (st && st->keep && finite) {
        f->q = st->q;
        return true;
    }
    f->q = fakequant_own(n);
    k->fakequant_scales(&f->q, &at->spec, x->data, t_rows(x), t_last(x), n->scratch);
    if (st && st->q.scale && train && !st->keep) copy_scales(&st->q, &f->q);
    return true;
}

void fakequant_round(const Node *n, const Kernels *k, void *y, const void *x, const QuantScales *q, Mode mode)
{
    const FakeQuantAttr *at = n->attr;
    const Tensor *t = n->in[0];
    const long N = t_rows(t), C = t_last(t);
    if (!at->random || !n->g->opt.train) {
        k->fakequant_fwd(y, x, &at->spec, q, N, C, mode);
        return;
    }
    const RunState *s = graph_state(n->g);
    const bool weight = t->flags & T_WEIGHT;
    const RngKey key = {s->seed, s->step, at->stream, weight ? 0 : s->sample0};
    k->fakequant_random(y, x, &at->spec, q, N, C, key, weight ? N : N / t->dim[0], mode);
}

void fakequant_forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    if (!fakequant_scales(n, k)) k->copy(n->out->data, x->data, t_numel(x));
    else fakequant_round(n, k, n->out->data, x->data, &fake_stat(n)->q, SET);
}

void fakequant_pass(const Node *n, const Kernels *k)
{
    if (n->in[0]->grad) k->scale(n->in[0]->grad, 1.0, n->out->grad, t_numel(n->out), grad_mode(n, 0));
}

static void surrogate(const Node *n, const Kernels *k)
{
    k->copy(n->out->data, n->in[0]->data, t_numel(n->out));
}

static const FakeQuantAttr
    int8_row = {.spec = {.f = &quant_formats[QUANT_int8], .block_rows = 1}, .state = NULL},
    nvfp4_block = {.spec = {.f = &quant_formats[QUANT_nvfp4], .block_rows = 1, .block_cols = 16},
                   .state = NULL},
    nf4_block = {
        .spec = {.f = &quant_formats[QUANT_nf4], .block_rows = 1, .block_cols = 64, .double_quant = true},
        .state = NULL};
static const OpCase cases[] = {{"int8_channel", &int8_row, {{'r', 2, {5, 33}, 0}}},
                               {"nvfp4", &nvfp4_block, {{'r', 2, {3, 40}, 0}}},
                               {"nf4_3d", &nf4_block, {{'r', 3, {2, 3, 70}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_fakequant = {.name = "fakequant",
                         .formula = "y = s v(x/s), dx = dy",
                         .n_in = 1,
                         .attr_size = sizeof(FakeQuantAttr),
                         .shape = fakequant_shape,
                         .forward = fakequant_forward,
                         .backward = fakequant_pass,
                         .surrogate = surrogate,
                         .saves = 0,
                         .cases = cases};
