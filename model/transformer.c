/* model/transformer.c: the transformer. Knows names and shapes only; what a family has is read off its table,
 * what compression does to a projection is the site's business.
 *   x += post1(attn(norm1(x)));   x += post2(mlp(norm2(x)));   final norm.     Taps: product.md 4,
 * distill.features. */
#include "model/model.h"
#include <math.h>
#include <stdio.h>

/* A name template filled in; the templates are the constants of family.c. */
__attribute__((format_arg(1))) static const char *template_of(const char *fmt) { return fmt; }

static Param *param(const Model *m, const char *fmt, int layer, const char *suffix)
{
    char name[NAME_LEN];
    if (!fmt) return NULL;
    int n = snprintf(name, sizeof name, template_of(fmt), layer);
    snprintf(name + n, sizeof name - (size_t)n, "%s", suffix);
    return params_find(&m->params, name);
}

static Site *site(const Model *m, const char *fmt, int layer)
{
    char name[NAME_LEN];
    snprintf(name, sizeof name, template_of(fmt), layer);
    return model_site(m, name);
}

static Tensor *weight(Graph *g, Param *p) { return p ? graph_param(g, &p->w) : NULL; }

static Tensor *norm(Graph *g, const Model *m, Tensor *x, const char *fmt, int l)
{
    NormAttr at = {m->spec.eps};
    Tensor *w = weight(g, param(m, fmt, l, ".weight"));
    if (m->spec.family->plus_one) w = OP_ATTR(g, affine, ((AffineAttr){1, 1}), w);
    if (m->spec.family->layernorm)
        return OP_ATTR(g, layernorm, at, x, w, weight(g, param(m, fmt, l, ".bias")));
    return OP_ATTR(g, rmsnorm, at, x, w);
}

static uint32_t dropout_stream(const char *what, int l)
{
    char name[NAME_LEN];
    snprintf(name, sizeof name, "dropout.%s.%d", what, l);
    return rng_stream(name);
}

static Tensor *dropout(Graph *g, double p, Tensor *x, const ModelInputs *in, const char *what, int l)
{
    if (!in->train || !(p > 0)) return x;
    DropoutAttr at = {p, dropout_stream(what, l)};
    return OP_ATTR(g, dropout, at, x);
}

/* Frequencies of the tokens this graph holds: with a cache, of all that it can hold. */
static const double *frequencies(Graph *g, Model *m, const ModelInputs *in, bool local)
{
    const ModelSpec *s = &m->spec;
    long T = in->k_cache ? in->k_cache[0]->dim[1] : in->ids->dim[1];
    const RopeSpec *r = local ? &s->rope_local : &s->rope;
    if (r->kind != ROPE_DYNAMIC || (double)T <= r->original) return m->inv_freq[local];
    double *f = arena_alloc(m->run, (size_t)s->D / 2 * sizeof *f, graph_err(g));
    if (f) rope_frequencies(r, s->D, T, f);
    return f;
}

static Tensor *rope(Graph *g, Model *m, Tensor *x, long heads, const ModelInputs *in, int l)
{
    const ModelSpec *s = &m->spec;
    if (s->family->learned_pos) return x;
    bool local = s->family->local_rope && spec_sliding(s, l);
    RopeAttr at = {heads,
                   s->D,
                   s->D,
                   false,
                   (local ? &s->rope_local : &s->rope)->attention_factor,
                   frequencies(g, m, in, local)};
    return OP_ATTR(g, rope, at, x, in->pos);
}

/* q, k, v of one layer: three sites, or one fused site read at three columns. */
static void project(Graph *g, Model *m, Tensor *h, const ModelInputs *in, int l, Tensor *qkv[3],
                    AttentionAttr *at)
{
    const ModelSpec *s = &m->spec;
    const FamilyNames *n = &s->family->name;
    if (n->qkv) {
        Tensor *t = graph_tap(g, site_linear(g, h, site(m, n->qkv, l)), "layers.%d.qkv", l);
        qkv[0] = qkv[1] = qkv[2] = t;
        at->k_at = s->C;
        at->v_at = 2 * s->C;
        return;
    }
    const char *name[3] = {n->q, n->k, n->v};
    long heads[3] = {s->H, s->Hkv, s->Hkv};
    for (int i = 0; i < 3; i++) {
        qkv[i] = site_linear(g, h, site(m, name[i], l));
        if (i < 2 && s->family->qk_norm) qkv[i] = norm(g, m, qkv[i], i ? n->k_norm : n->q_norm, l);
        if (i < 2) qkv[i] = rope(g, m, qkv[i], heads[i], in, l);
        graph_tap(g, qkv[i], "layers.%d.%c", l, "qkv"[i]);
    }
}

/* The cache takes k and v as rows of Hkv D; a fused projection is cut apart for it. */
static void cached(Graph *g, Model *m, const ModelInputs *in, int l, Tensor *qkv[3], AttentionAttr *at)
{
    if (!in->past) return;
    if (qkv[0] == qkv[1]) {
        for (int i = 1; i < 3; i++) {
            SliceAttr sl = {i == 1 ? at->k_at : at->v_at, m->spec.Hkv * m->spec.D};
            qkv[i] = OP_ATTR(g, slice, sl, qkv[0]);
        }
        at->k_at = at->v_at = 0;
    }
    qkv[1] = OP(g, kv_append, in->k_cache[l], qkv[1], in->past);
    qkv[2] = OP(g, kv_append, in->v_cache[l], qkv[2], in->past);
}

static Tensor *attention(Graph *g, Model *m, Tensor *h, const ModelInputs *in, int l)
{
    const ModelSpec *s = &m->spec;
    Tensor *qkv[3];
    AttentionAttr at = {.n_head = s->H,
                        .n_kv_head = s->Hkv,
                        .D = s->D,
                        .scale = s->attn_scale,
                        .softcap = s->attn_softcap,
                        .dropout = in->train ? s->attn_dropout : 0,
                        .stream = dropout_stream("probabilities", l),
                        .causal = true,
                        .window = spec_sliding(s, l) ? s->window : 0};
    project(g, m, h, in, l, qkv, &at);
    cached(g, m, in, l, qkv, &at);
    Tensor *o = OP_ATTR(g, attention, at, qkv[0], qkv[1], qkv[2], in->seg, in->past);
    graph_tap(g, o, "layers.%d.attn_mix", l);
    return graph_tap(g, site_linear(g, o, site(m, s->family->name.o, l)), "layers.%d.attn_out", l);
}

static Tensor *mlp(Graph *g, Model *m, Tensor *h, int l)
{
    const FamilyNames *n = &m->spec.family->name;
    Tensor *u = site_linear(g, h, site(m, n->up, l));
    Tensor *gate = n->gate ? site_linear(g, h, site(m, n->gate, l)) : NULL;
    if (gate && m->spec.family->gelu_gate)
        u = OP(g, mul, OP_ATTR(g, gelu, ((GeluAttr){m->spec.tanh_gelu}), gate), u);
    else if (gate) u = OP(g, swiglu, gate, u);
    else u = OP_ATTR(g, gelu, ((GeluAttr){m->spec.tanh_gelu}), u);
    return graph_tap(g, site_linear(g, u, site(m, n->down, l)), "layers.%d.mlp_out", l);
}

/* What a branch adds to x: normed first where the family does so. */
static Tensor *branch(Graph *g, Model *m, Tensor *y, const char *post, const ModelInputs *in,
                      const char *what, int l)
{
    if (post) y = norm(g, m, y, post, l);
    return dropout(g, m->spec.dropout, y, in, what, l);
}

static Tensor *block(Graph *g, Model *m, Tensor *x, const ModelInputs *in, int l)
{
    const FamilyNames *n = &m->spec.family->name;
    Tensor *h = graph_tap(g, norm(g, m, x, n->norm1, l), "layers.%d.attn_in", l);
    x = OP(g, add, x, branch(g, m, attention(g, m, h, in, l), n->attn_post, in, "attn", l));
    h = graph_tap(g, norm(g, m, x, n->norm2, l), "layers.%d.mlp_in", l);
    x = OP(g, add, x, branch(g, m, mlp(g, m, h, l), n->mlp_post, in, "mlp", l));
    return graph_tap(g, x, "layers.%d.out", l);
}

Tensor *model_hidden(Graph *g, Model *m, const ModelInputs *in)
{
    const FamilyNames *n = &m->spec.family->name;
    Tensor *x = OP(g, embedding, weight(g, param(m, n->embed, 0, ".weight")), in->ids);
    if (n->pos) x = OP(g, add, x, OP(g, embedding, weight(g, param(m, n->pos, 0, ".weight")), in->pos));
    if (m->spec.family->scaled_embed) x = OP_ATTR(g, affine, ((AffineAttr){sqrt((double)m->spec.C), 0}), x);
    x = graph_tap(g, dropout(g, m->spec.embed_dropout, x, in, "embed", 0), "embed");
    for (int l = 0; l < m->spec.L; l++) {
        graph_segment(g, l);
        x = block(g, m, x, in, l);
    }
    graph_segment(g, -1);
    return graph_tap(g, norm(g, m, x, n->final_norm, 0), "final_norm");
}

Tensor *model_head(Graph *g, Model *m) { return site_weight(g, site(m, m->spec.family->name.head, 0)); }

Tensor *model_logits(Graph *g, Model *m, Tensor *hidden)
{
    Tensor *z = site_linear(g, hidden, site(m, m->spec.family->name.head, 0));
    if (m->spec.final_softcap > 0) z = OP_ATTR(g, softcap, ((SoftcapAttr){m->spec.final_softcap}), z);
    return graph_tap(g, z, "logits");
}

void model_loss_caps(LossAttr *a, const Model *student, const Model *teacher)
{
    a->softcap = student->spec.final_softcap;
    a->teacher_softcap = teacher ? teacher->spec.final_softcap : 0;
}
