/* autograd/op_fakequant_step.c: learned step size (LSQ, 1902.08153).      x, y (...,C)   s (R,G), R G blocks
 * of n each
 * y = |s| v(x/|s|);   dx = dy inside, else 0;   ds = sum dy (v - x/s) inside, dy lo or dy hi outside, /
 * sqrt(n hi). */
#include "autograd/fakequant_impl.h"
#include <math.h>
#include <string.h>

static bool shape(Node *n, Graph *g)
{
    const QuantSpec *s = fake_spec(n);
    if (!fakequant_shape(n, g)) return false;
    const long want = quant_rows(s, t_rows(n->in[0])) * quant_groups(s, t_last(n->in[0]));
    if (t_numel(n->in[1]) != want)
        return graph_error(g, "%s: %s has %ld steps, %s needs %ld", n->op->name, n->in[1]->name,
                           t_numel(n->in[1]), n->in[0]->name, want);
    return s->f->scale == SCALE_F32 && !s->asymmetric
               ? true
               : graph_error(g, "%s: %s has no scale that can be learned", n->op->name, s->f->name);
}

static double step_get(const Tensor *s, long i)
{
    return s->dtype == DT_F64 ? ((const double *)s->data)[i] : (double)((const float *)s->data)[i];
}
static void step_put(const Tensor *s, long i, double v)
{
    if (s->dtype == DT_F64) ((double *)s->data)[i] = v;
    else ((float *)s->data)[i] = (float)v;
}

/* First training forward: s = 2 mean|x| / sqrt(hi) of each block. */
static void step_start(const Node *n)
{
    const QuantSpec *q = fake_spec(n);
    const Tensor *x = n->in[0];
    const long N = t_rows(x), C = t_last(x), br = q->block_rows ? q->block_rows : N;
    const long bc = q->block_cols ? q->block_cols : C, G = quant_groups(q, C);
    for (long i = 0; i < t_numel(n->in[1]); i++) {
        const long r0 = i / G * br, r1 = r0 + br < N ? r0 + br : N, c0 = i % G * bc,
                   c1 = c0 + bc < C ? c0 + bc : C;
        double sum = 0;
        for (long r = r0; r < r1; r++)
            for (long c = c0; c < c1; c++) sum += fabs(step_get(x, r * C + c));
        const double mean = sum / (double)((r1 - r0) * (c1 - c0));
        step_put(n->in[1], i, mean > 0 ? 2 * mean / sqrt((double)q->f->max) : 1);
    }
}

/* The step sizes as scales. False: not acting. */
static bool step_scales(const Node *n, const Kernels *k)
{
    FakeQuantState *st = ((const FakeQuantAttr *)n->attr)->state;
    FakeStat *f = n->stat;
    const Tensor *s = n->in[1];
    if (!fakequant_scales(n, k)) return false;
    if (st && !st->keep && n->g->opt.train) {
        step_start(n);
        st->keep = true;
    }
    if (!st || st->keep)
        for (long i = 0; i < t_numel(s); i++) f->q.scale[i] = (float)fmax(fabs(step_get(s, i)), 0x1p-100);
    return true;
}

static void forward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    if (!step_scales(n, k)) k->copy(n->out->data, x->data, t_numel(x));
    else k->fakequant_fwd(n->out->data, x->data, fake_spec(n), &fake_stat(n)->q, t_rows(x), t_last(x), SET);
}

static void backward(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0], *s = n->in[1];
    const FakeStat *f = fake_stat(n);
    const QuantSpec *spec = fake_spec(n);
    const long N = t_rows(x), C = t_last(x);
    if (!f->on) {
        fakequant_pass(n, k);
        if (s->grad && grad_mode(n, 1) == SET) k->fill(s->grad, 0, t_numel(s));
        return;
    }
    if (x->grad) k->fakequant_clip_bwd(x->grad, n->out->grad, x->data, spec, &f->q, N, C, grad_mode(n, 0));
    if (s->grad) k->fakequant_step_bwd(s->grad, n->out->grad, x->data, spec, &f->q, N, C, grad_mode(n, 1));
}

static void surrogate(const Node *n, const Kernels *k)
{
    const Tensor *x = n->in[0];
    if (!fake_stat(n)->q.scale) step_scales(n, k); /* the scales stay while x moves */
    k->fakequant_clip(n->out->data, x->data, fake_spec(n), &fake_stat(n)->q, t_rows(x), t_last(x));
}

static const FakeQuantAttr int8 = {.spec = {.f = &quant_formats[QUANT_int8]}, .state = NULL},
                           int4 = {
                               .spec = {.f = &quant_formats[QUANT_int4], .block_rows = 1, .block_cols = 16},
                               .state = NULL};
/* The gradient of s is not one of a smooth function (it is scaled): tests/test_qat.c has it. */
static const OpCase cases[] = {{"tensor", &int8, {{'r', 2, {6, 21}, 0}, {'R', 2, {1, 1}, 0}}},
                               {"group", &int4, {{'r', 2, {3, 40}, 0}, {'R', 2, {3, 3}, 0}}},
                               {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_fakequant_step = {.name = "fakequant_step",
                              .formula = "y = s v(x/s), ds = sum dy (v - x/s) / sqrt(n hi)",
                              .n_in = 2,
                              .attr_size = sizeof(FakeQuantAttr),
                              .shape = shape,
                              .forward = forward,
                              .backward = backward,
                              .surrogate = surrogate,
                              .saves = SAVE_IN(0) | SAVE_IN(1),
                              .cases = cases};
