/* compress/distill.c: distillation as loss terms over taps (algorithms 5.1, 5.2; 1503.02531). loss =
 * ce_weight CE + alpha T^2 D(p_T, q_T) + sum of weight * feature, all per target token. What changes from
 * step to step is here: the temperature, and the weights of features that follow the soft loss. */
#include "compress/compress.h"
#include <math.h>
#include <string.h>

static int loss_kind(const DistillConfig *c, double *mix)
{
    static const char *const name[] = {"forward_kl", "reverse_kl", "jsd",       "symmetric_kl",
                                       "tvd",        "skew_kl",    "mse_logits"};
    int kind = LOSS_FORWARD_KL;
    for (int i = 0; i < CFG_COUNT(name); i++)
        if (c->loss && !strcmp(c->loss, name[i])) kind = i;
    *mix = kind == LOSS_SKEW_KL ? c->skew : c->beta;
    /* the ends of the generalised JSD are 0; forward and reverse KL stand for them (2306.13649) */
    if (kind == LOSS_JSD && *mix <= 0) kind = LOSS_FORWARD_KL;
    if (kind == LOSS_JSD && *mix >= 1) kind = LOSS_REVERSE_KL;
    return kind;
}

static void set_temperature(LmLossAttr *at, const DistillConfig *c, double T)
{
    const double t2 = c->scale_t2 && at->a.kind != LOSS_MSE_LOGITS ? T * T : 1;
    at->a.temperature = T;
    at->a.kd_weight = c->alpha * t2;
    at->kd_report = t2;
}

LmLossAttr distill_loss(const DistillConfig *c, double label_smoothing, double z_loss)
{
    LmLossAttr at = {.a = {.ce_weight = isnan(c->ce_weight) ? fmax(0, 1 - c->alpha) : c->ce_weight,
                           .label_smoothing = label_smoothing,
                           .z_loss = z_loss},
                     .chunk = c->chunk_tokens,
                     .top_k = c->top_k,
                     .renormalize = c->top_k_mode && !strcmp(c->top_k_mode, "renormalize")};
    at.a.kind = loss_kind(c, &at.a.mix);
    set_temperature(&at, c, distill_temperature(c, 0));
    return at;
}

static double number(const ConfigNode *n, int i)
{
    double v = 0;
    if (i < n->n && n->item[i]->kind == NODE_SCALAR) config_parse_float(n->item[i]->text, &v);
    return v;
}

double distill_temperature(const DistillConfig *c, int64_t step)
{
    const ConfigNode *s = c->temperature_schedule;
    if (!s || config_is_null(s) || s->kind != NODE_LIST || !s->n) return c->temperature;
    int i = 0;
    while (i < s->n && number(s->item[i], 0) <= (double)step) i++;
    if (!i) return number(s->item[0], 1);
    if (i == s->n) return number(s->item[i - 1], 1);
    const double from = number(s->item[i - 1], 0), to = number(s->item[i], 0), a = number(s->item[i - 1], 1);
    return a + (number(s->item[i], 1) - a) * ((double)step - from) / (to - from);
}

/* ---- balance: [0] steps seen, [1] running mean of the soft loss, [2 + i] of term i
 * ----------------------- */
static double get(const Distill *d, int i)
{
    return d->real == sizeof(float) ? (double)((const float *)d->balance->w.data)[i]
                                    : ((const double *)d->balance->w.data)[i];
}

static void put(const Distill *d, int i, double v)
{
    if (d->real == sizeof(float)) ((float *)d->balance->w.data)[i] = (float)v;
    else ((double *)d->balance->w.data)[i] = v;
}

static void reweigh(const Distill *d, Graph *g)
{
    for (int i = 0; i < d->n; i++)
        graph_loss_weight(g, d->term[i].loss,
                          get(d, 2 + i) > 0 ? d->term[i].weight * get(d, 1) / get(d, 2 + i) : 0);
}

void distill_before(const Distill *d, Graph *g, int64_t step)
{
    if (!d->c) return;
    if (d->lm && d->c->temperature_schedule)
        set_temperature(d->lm->node->attr, d->c, distill_temperature(d->c, step));
    if (d->balance && get(d, 0) > 0) reweigh(d, g);
}

bool distill_wants_measure(const Distill *d) { return d->c && d->balance && !(get(d, 0) > 0); }

void distill_after(const Distill *d, Graph *g, const LossPart *part, int n, double targets)
{
    if (!d->c || !d->balance) return;
    const bool first = !(get(d, 0) > 0);
    double kd = 0;
    for (int i = 0; i < n; i++)
        if (!strcmp(part[i].label, "loss/kd")) kd = d->c->alpha * part[i].value / targets;
    for (int i = 0; i <= d->n && i <= n; i++) { /* the terms are the graph's first losses */
        const double now = i ? part[i - 1].value / targets : kd;
        put(d, 1 + i, first ? now : get(d, 1 + i) + 0.1 * (now - get(d, 1 + i)));
    }
    put(d, 0, 1);
    reweigh(d, g);
}

/* ---- recording ----------------------------------------------------------------------------------------- */
static Tensor *tap(Graph *g, const TapPart *t, Err *e)
{
    Tensor *x = t->tap ? graph_find(g, t->tap) : NULL;
    if (!x && !graph_err(g)->code) err_set(e, ERR_USAGE, "distill.features: the graph has no tap %s", t->tap);
    if (!x || !t->cut) return x;
    SliceAttr at = {t->at, t->width};
    return OP_ATTR(g, slice, at, x);
}

static Tensor *relation(Graph *g, const FeatureTerm *t, Tensor *targets, Tensor *seg, Err *e)
{
    Tensor *x[2][2];
    for (int i = 0; i < 2; i++) {
        graph_scope_nograd(g, i == 1);
        x[i][0] = tap(g, &t->part[i][0], e);
        x[i][1] = t->part[i][1].tap == t->part[i][0].tap && t->part[i][1].at == t->part[i][0].at
                      ? x[i][0]
                      : tap(g, &t->part[i][1], e);
    }
    graph_scope_nograd(g, false);
    return OP_ATTR(g, relation, t->relation, x[0][0], x[0][1], x[1][0], x[1][1], targets, seg);
}

static Tensor *rows(Graph *g, const FeatureTerm *t, Tensor *targets, Err *e)
{
    Tensor *hs = tap(g, &t->part[0][0], e);
    graph_scope_nograd(g, true);
    Tensor *ht = tap(g, &t->part[1][0], e);
    if (t->normalize) ht = OP(g, unit, ht);
    graph_scope_nograd(g, false);
    if (t->projector) hs = OP(g, linear, hs, graph_param(g, &t->projector->w));
    if (t->normalize) hs = OP(g, unit, hs);
    if (t->cosine) return OP(g, cosine, hs, ht, targets);
    return t->l1 ? OP(g, l1, hs, ht, targets) : OP(g, mse, hs, ht, targets);
}

bool distill_features(Distill *d, Graph *g, Tensor *targets, Tensor *seg, Err *e)
{
    for (int i = 0; i < d->n && !e->code; i++) {
        FeatureTerm *t = &d->term[i];
        t->loss = t->is_relation ? relation(g, t, targets, seg, e) : rows(g, t, targets, e);
        if (!e->code) graph_loss(g, t->loss, t->weight, t->label);
    }
    return !e->code;
}
