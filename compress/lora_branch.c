/* compress/lora_branch.c: what an adapter does to a projection, as nodes of the graph.
 *
 *   LoRA   y = W x + b + s B A d(x)                                        d: dropout, in training only
 *   DoRA   y = g (W x + s B A x) + b,  g = m / |W + s B A| by output row, the norm a constant (2402.09353)
 *          with dropout  y = W x + b + g (W d(x) + s B A d(x)) - W d(x)     (peft's form)
 *   embedding  y = W[i] + s B A[:, i]
 *
 * Where the site needs a weight (a mask, a quantiser, the head), the adapter stands in it, before the mask:
 *   W' = mask (g (W + s B A)), so that what is baked is what was trained. */
#include "compress/lora_impl.h"
#include <stdio.h>

static Tensor *magnitude(Graph *g, const LoraItem *it, double scale)
{
    DoraScaleAttr at = {scale, it->site->q};
    return OP_ATTR(g, dora_scale, at, it->site->q ? NULL : graph_param(g, &it->base->w),
                   graph_param(g, &it->a->w), graph_param(g, &it->b->w), graph_param(g, &it->m->w));
}

static Tensor *project(Graph *g, const LoraItem *it, Tensor *x)
{
    return OP(g, linear, OP(g, linear, x, graph_param(g, &it->a->w)), graph_param(g, &it->b->w));
}

/* W x without bias: of the same kind as the site's own. */
static Tensor *plain(Graph *g, const LoraItem *it, Tensor *x)
{
    Site *s = it->site;
    if (s->q) return OP_ATTR(g, linear_q, ((LinearQAttr){s->q}), x, NULL);
    return OP(g, linear, x, graph_param(g, &it->base->w));
}

static Tensor *dropped(Graph *g, const LoraItem *it, Tensor *x)
{
    char name[NAME_LEN + 32];
    if (!it->of->train || !(it->of->dropout > 0)) return x;
    snprintf(name, sizeof name, "lora.dropout.%s", it->module);
    DropoutAttr at = {it->of->dropout, rng_stream(name)};
    return OP_ATTR(g, dropout, at, x);
}

static Tensor *apply(Graph *g, Tensor *x, Tensor *y, Site *s, const Branch *br)
{
    const LoraItem *it = br->state;
    const double scale = it->scale * it->of->weight;
    Tensor *d = dropped(g, it, x), *z = project(g, it, d);
    if (!it->m) return OP_ATTR(g, axpy, ((AxpyAttr){scale}), z, y);
    Tensor *factor = magnitude(g, it, scale), *b = s->b ? graph_param(g, &s->b->w) : NULL;
    const ScaleByAttr columns = {false};
    if (d == x) {
        z = OP_ATTR(g, axpy, ((AxpyAttr){scale}), z, y);
        return OP_ATTR(g, scale_by, columns, z, factor, b);
    }
    Tensor *wd = plain(g, it, d);
    z = OP_ATTR(g, axpy, ((AxpyAttr){scale}), z, wd);
    y = OP(g, add, y, OP_ATTR(g, scale_by, columns, z, factor, b));
    return OP_ATTR(g, axpy, ((AxpyAttr){-1}), wd, y);
}

static Tensor *into(Graph *g, Tensor *w, const LoraItem *it)
{
    const double scale = it->scale * it->of->weight;
    w = OP_ATTR(g, lora_weight, ((LoraWeightAttr){scale}), w, graph_param(g, &it->a->w),
                graph_param(g, &it->b->w));
    if (!it->m) return w;
    return OP_ATTR(g, scale_by, ((ScaleByAttr){true}), w, magnitude(g, it, scale), NULL);
}

static Tensor *merge(Graph *g, Tensor *w, Site *s, const Branch *br)
{
    (void)s;
    return into(g, w, br->state);
}

static Tensor *in_weight(Graph *g, Tensor *w, const Attachment *at) { return into(g, w, at->state); }

static Tensor *embed(Graph *g, Tensor *y, Tensor *ids, const TensorHook *h)
{
    const LoraItem *it = h->state;
    Tensor *z = OP(g, linear, OP(g, embedding, graph_param(g, &it->a->w), ids), graph_param(g, &it->b->w));
    return OP_ATTR(g, axpy, ((AxpyAttr){it->scale * it->of->weight}), z, y);
}

static Tensor *embed_merge(Graph *g, Tensor *w, const TensorHook *h)
{
    const LoraItem *it = h->state;
    Tensor *d = OP(g, linear, graph_param(g, &it->a->w), graph_param(g, &it->b->w)); /* (V,C) */
    return OP_ATTR(g, axpy, ((AxpyAttr){it->scale * it->of->weight}), d, w);
}

Branch lora_branch(LoraItem *it)
{
    return (Branch){.kind = "lora", .bias = it->m != NULL, .apply = apply, .merge = merge, .state = it};
}
Attachment lora_attachment(LoraItem *it) { return (Attachment){"lora", in_weight, it}; }
TensorHook lora_hook(LoraItem *it) { return (TensorHook){.out = embed, .merge = embed_merge, .state = it}; }
bool is_lora_branch(const Branch *b) { return b->apply == apply; }
bool is_lora_attachment(const Attachment *a) { return a->apply == in_weight; }
bool is_lora_hook(const TensorHook *h) { return h->out == embed; }
