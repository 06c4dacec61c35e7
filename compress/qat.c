/* compress/qat.c: quantisation-aware training as attachments on sites (algorithms 5.11): weights (behind a
 * mask), inputs, and gradients of outputs. A quantiser is one op; which one says how gradients pass:
 *
 *   identity  fakequant        scales found at every forward         clipped  fakequant_clip   scales stand
 * or lag
 *   lsq       fakequant_step   step sizes are parameters             grad     fakegrad
 *
 * Delayed: s = max of the last amax_history steps' amax, moved once per step, so micro-batches and
 * recomputation see one scale; until the first step is over every forward finds its own. */
#include "compress/compress.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The section with one rule laid over it. */
typedef struct Wish {
    bool enabled, symmetric;
    const char *format[3]; /* weight, input, gradient */
    const char *granularity, *rounding, *update, *ste;
    int64_t group, history, start, freeze;
    int rule; /* of qat.rules, -1 = none */
} Wish;
enum { WEIGHT, INPUT, GRAD };

static const char *or_text(const char *rule, const char *section) { return rule ? rule : section; }
static int64_t or_int(int64_t rule, int64_t section) { return rule >= 0 ? rule : section; }

static Wish wish_of(const QatConfig *c, const char *name)
{
    QatRuleConfig none = {.group_size = -1, .amax_history = -1, .start_step = -1, .freeze_scale_step = -1};
    int rule = -1;
    for (int i = 0; i < c->rules.n; i++)
        if (tensor_match(c->rules.v[i].match, name, 2)) rule = i;
    const QatRuleConfig *r = rule >= 0 ? &c->rules.v[rule] : NULL;
    bool take = c->include.n == 0;
    for (int i = 0; i < c->include.n; i++) take = take || tensor_match(c->include.v[i], name, 2);
    for (int i = 0; i < c->exclude.n; i++) {
        const char *x = c->exclude.v[i];
        const bool head = c->quantize_lm_head && !strcmp(x, "lm_head"),
                   table = c->quantize_embedding && !strcmp(x, "embed_tokens");
        take = take && (head || table || !tensor_match(x, name, 2));
    }
    if (r) take = r->enabled ? !strcmp(r->enabled, "true") : true;
    else r = &none;
    return (Wish){.enabled = take,
                  .symmetric = r->symmetric ? !strcmp(r->symmetric, "true") : c->symmetric,
                  .format = {or_text(r->weight, c->weight), or_text(r->activation, c->activation),
                             or_text(r->grad, c->grad)},
                  .granularity = or_text(r->granularity, c->granularity),
                  .rounding = or_text(r->scale_rounding, c->scale_rounding),
                  .update = or_text(r->scale_update, c->scale_update),
                  .ste = or_text(r->ste, c->ste),
                  .group = or_int(r->group_size, r->weight ? 0 : c->group_size),
                  .history = or_int(r->amax_history, c->amax_history),
                  .start = or_int(r->start_step, c->start_step),
                  .freeze = or_int(r->freeze_scale_step, c->freeze_scale_step),
                  .rule = rule};
}

/* ---- the spec of one quantiser ---- */
static bool is(const char *a, const char *b) { return !strcmp(a, b); }

/* Granularity in the words of one side: a `channel` wish means weights, `token` means inputs. */
static const char *granularity_of(const Wish *w, int what, bool fixed)
{
    const char *g = w->granularity;
    if (what == GRAD) return "tensor";
    if (what == WEIGHT) return is(g, "token") ? "auto" : g;
    if (is(g, "channel") || is(g, "block")) g = "auto";
    return fixed && is(g, "auto") ? "tensor" : g;
}

static bool spec_of(QuantSpec *s, const Wish *w, int what, Err *e)
{
    const QuantFormat *f = quant_format(w->format[what]);
    const bool fixed = what != GRAD && (is(w->update, "delayed") || is(w->update, "learned"));
    const bool ints = f && f->elem == ELEM_INT, mx = f && f->scale == SCALE_E8M0;
    const char *g = granularity_of(w, what, fixed);
    /* a group size counts where groups are the granularity, asked for by name or by default */
    const bool grouped = f && f->block <= 0 && what != GRAD &&
                         (f->elem == ELEM_NF4 || is(g, "group") ||
                          (what == WEIGHT && f->bits < 8 && is(g, "auto")));
    if (what == WEIGHT && f && f->block > 0 && w->group && w->group != f->block)
        return err_set(e, ERR_USAGE, "qat.group_size: %lld; %s has blocks of %d", (long long)w->group,
                       f->name, f->block);
    QuantWords words = {.format = w->format[what],
                        .granularity = f && f->block ? "auto" : g,
                        .scale_rounding = mx ? w->rounding : "floor",
                        .group_size = grouped ? w->group : 0,
                        .symmetric = !ints || w->symmetric,
                        .search = what != GRAD && is(w->update, "mse_search"),
                        .activation = what != WEIGHT};
    if (!quant_spec(s, &words, "qat", e)) return false;
    if (fixed && (s->f->scale != SCALE_F32 || s->f->elem == ELEM_NF4 || s->asymmetric))
        return err_set(
            e, ERR_USAGE,
            "qat.scale_update: %s needs a symmetric format with one float scale per block; %s%s has none",
            w->update, s->asymmetric ? "asymmetric " : "", s->f->name);
    if (fixed && what == INPUT && s->block_rows)
        return err_set(e, ERR_USAGE,
                       "qat.granularity: %s scales of activations stand over batches: tensor is possible, "
                       "%s is not",
                       w->update, w->granularity);
    return true;
}

static const Op *op_of(const Wish *w, int what, bool random, Err *e)
{
    const bool learned = is(w->update, "learned"), delayed = is(w->update, "delayed");
    if (what == GRAD) return &op_fakegrad;
    if (learned != is(w->ste, "lsq") && !is(w->ste, "auto")) {
        err_set(e, ERR_USAGE,
                "qat.ste: lsq and scale_update: learned belong together; ste: %s with scale_update: %s",
                w->ste, w->update);
        return NULL;
    }
    if (learned && random) {
        err_set(e, ERR_USAGE,
                "qat.rounding: stochastic with scale_update: learned; a step's gradient is that of rounding "
                "to the nearest: dynamic, delayed or mse_search");
        return NULL;
    }
    if (learned) return &op_fakequant_step;
    if (is(w->ste, "clipped") || (delayed && is(w->ste, "auto"))) return &op_fakequant_clip;
    return &op_fakequant;
}

/* ---- hanging it on a site, a table ---- */
/* Does the node what the item asks for? Streams of draws may differ: any one will do. */
static bool serves(const Node *n, const QatItem *q, const Tensor *t)
{
    const FakeQuantAttr *a = n->attr;
    return n->op == q->op && n->in[0] == t && a->state == q->attr.state && a->random == q->attr.random &&
           !memcmp(&a->spec, &q->attr.spec, sizeof a->spec);
}

static Tensor *quantised(Graph *g, Tensor *t, const QatItem *q)
{
    int n = 0;
    /* q, k and v read the same input, a tied head its table: one node serves all that ask for the same. A
     * masked table is another node for each reader, so that each has a quantiser, of the same values. */
    const Node *const *node = graph_nodes(g, &n);
    const int first = t && t->flags & T_WEIGHT ? 0 : n - 12;
    for (int i = n - 1; t && i >= 0 && i >= first; i--)
        if (serves(node[i], q, t)) return node[i]->out;
    if (q->step) return graph_record(g, q->op, &q->attr, 2, (Tensor *[]){t, graph_param(g, &q->step->w)});
    return graph_record(g, q->op, &q->attr, 1, &t);
}

static Tensor *apply(Graph *g, Tensor *t, const Attachment *a) { return quantised(g, t, a->state); }
static Tensor *of_table(Graph *g, Tensor *w, const TensorHook *h) { return quantised(g, w, h->state); }

/* An earlier item that behaves the same on any input: no memory of its own, same format, same steps. */
static QatItem *twin(Qat *q, const QatItem *it)
{
    if (it->own.q.scale || it->delayed) return NULL;
    for (int i = 0; i < q->n; i++) {
        QatItem *o = &q->item[i];
        if (o->op == it->op && !o->own.q.scale && !o->delayed && o->start == it->start &&
            !memcmp(&o->attr.spec, &it->attr.spec, sizeof it->attr.spec))
            return o;
    }
    return NULL;
}

static bool learn(QatItem *it, Model *m, long rows, long cols, Err *e)
{
    const QuantSpec *s = &it->attr.spec;
    const char *name = arena_printf(m->run, e, "qat.%s.step_size", it->name);
    Param *p = name ? params_add(&m->params, name, 2, (long[]){quant_rows(s, rows), quant_groups(s, cols)}, e)
                    : NULL;
    if (!p) return false;
    p->aux = true;
    p->decay = false;
    p->w.data = arena_alloc(m->run, (size_t)t_numel(&p->w) * m->params.k->real, e);
    it->step = p;
    return p->w.data != NULL;
}

/* The quantiser itself: of the parameter, of its site's input or its output's gradient. */
static QatItem *new_item(Qat *q, Model *m, Param *p, const Wish *w, int what, Err *e)
{
    QatItem *it = &q->item[q->n];
    *it = (QatItem){.w = p, .start = w->start, .freeze = w->freeze, .history = w->history};
    it->name = what == WEIGHT ? p->name
                              : arena_printf(m->run, e, "%s.%s", p->name, what == INPUT ? "input" : "grad");
    if (!it->name) return NULL;
    it->attr.random = is(q->c->rounding, "stochastic");
    it->attr.stream = it->attr.random ? rng_stream(arena_printf(m->run, e, "qat.%s", it->name)) : 0;
    if (!spec_of(&it->attr.spec, w, what, e) || !(it->op = op_of(w, what, it->attr.random, e)))
        return err_prefix(e, "%s", it->name), NULL;
    const bool fixed = what != GRAD && (is(w->update, "delayed") || is(w->update, "learned"));
    const long rows = what == WEIGHT ? p->w.dim[0] : 1, cols = p->w.dim[what == WEIGHT || what == INPUT];
    it->delayed = what != GRAD && is(w->update, "delayed");
    if ((what == WEIGHT || fixed) && !quant_scales_alloc(&it->own.q, &it->attr.spec, rows, cols, m->run, e))
        return NULL;
    if (it->delayed) {
        const size_t n = (size_t)(it->own.q.R * it->own.q.G) * sizeof(float);
        it->own.amax = arena_alloc(m->run, n, e);
        it->ring = arena_alloc(m->run, n * (size_t)it->history, e);
    }
    if (it->op == &op_fakequant_step && !learn(it, m, rows, cols, e)) return NULL;
    const QatItem *same = twin(q, it);
    it->state = same ? same->state : &it->own;
    it->state->on = it->start == 0;
    it->attr.state = it->state;
    q->n++;
    return e->code ? NULL : it;
}

static bool hang(QatItem *it, Site *s, int what, Err *e)
{
    Attachment *list = what == WEIGHT ? s->wx : what == INPUT ? s->ax : s->yx;
    int *n = what == WEIGHT ? &s->n_wx : what == INPUT ? &s->n_ax : &s->n_yx;
    if (*n == SITE_MAX)
        return err_set(e, ERR_USAGE,
                       "%s: more than %d attachments; name it in fewer groups of the configuration", s->name,
                       SITE_MAX);
    it->site = s;
    list[(*n)++] = (Attachment){"fakequant", apply, it};
    return true;
}

static bool add_item(Qat *q, Model *m, Site *s, const Wish *w, int what, Err *e)
{
    QatItem *it = new_item(q, m, s->w, w, what, e);
    return it && hang(it, s, what, e);
}

/* A table: what is looked up in it, and the head where it is tied, read one quantised weight. */
static bool add_table(Qat *q, Model *m, Param *p, Site *head, const Wish *w, Err *e)
{
    QatItem *it = new_item(q, m, p, w, WEIGHT, e);
    if (!it || (head && !hang(it, head, WEIGHT, e))) return false;
    it->hook = (TensorHook){.in = of_table, .merge = of_table, .state = it};
    TensorHook **last = &p->w.hook; /* behind a mask */
    while (*last) last = &(*last)->next;
    *last = &it->hook;
    return true;
}

/* A site's weight by its own name, also where it is tied to the embedding. */
static const char *site_tensor(const Site *s, char name[NAME_LEN + 8])
{
    snprintf(name, NAME_LEN + 8, "%s.weight", s->name);
    return name;
}

/* "file:line:col: " before an error about key. */
static bool at_key(const ConfigDoc *doc, const char *key, Err *e)
{
    const ConfigNode *n = doc ? config_node(doc, key) : NULL;
    return n && n->file ? err_prefix(e, "%s:%d:%d", n->file, n->line, n->col) : false;
}

/* The same for an error that names its key, "qat.KEY: ...": the rule's own value, the section's, the
 * format's. */
static bool at_value(const ConfigDoc *doc, int rule, Err *e)
{
    char word[32] = "enabled", key[4][80];
    const char *named = strstr(e->msg, "qat.");
    if (named && sscanf(named, "qat.%31[a-z_]", word) != 1) return false;
    snprintf(key[0], sizeof key[0], "qat.rules[%d].%s", rule, word);
    snprintf(key[1], sizeof key[1], "qat.%s", word);
    snprintf(key[2], sizeof key[2], "qat.rules[%d].weight", rule);
    snprintf(key[3], sizeof key[3], "qat.weight");
    for (int i = rule < 0; i < 4; i += rule < 0 ? 2 : 1)
        if (doc && config_node(doc, key[i])) return at_key(doc, key[i], e);
    return at_key(doc, "qat", e);
}

/* Token and position tables. */
static bool is_table(const Param *p)
{
    return !p->aux && p->w.ndim == 2 && is(tensor_class(p->name, 2), "embed_tokens");
}

static bool globs_ok(const QatConfig *c, const Model *m, const ConfigDoc *doc, Err *e)
{
    Arena tmp = {.name = "qat"};
    int n = 0;
    const char **name = arena_alloc(&tmp, (size_t)(m->n_site + m->params.n) * sizeof *name, e);
    for (int i = 0; name && i < m->n_site; i++) {
        char text[NAME_LEN + 8];
        name[n++] = arena_strdup(&tmp, site_tensor(&m->site[i], text), e);
    }
    for (int i = 0; name && c->quantize_embedding && i < m->params.n; i++)
        if (is_table(m->params.p[i])) name[n++] = m->params.p[i]->name;
    if (e->code) return false;
    if (!globs_check(&c->include, "qat.include", name, n, e)) at_key(doc, "qat.include", e);
    if (!e->code && !globs_check(&c->exclude, "qat.exclude", name, n, e)) at_key(doc, "qat.exclude", e);
    for (int i = 0; i < c->rules.n && !e->code; i++) {
        char key[64];
        snprintf(key, sizeof key, "qat.rules[%d].match", i);
        const char *match = c->rules.v[i].match;
        if (!match) err_set(e, ERR_USAGE, "%s: required: a glob of tensor names", key);
        else if (!globs_check(&(ConfigStrs){1, &match}, key, name, n, e)) at_key(doc, key, e);
    }
    arena_free(&tmp);
    return !e->code;
}

/* The head where its weight is the token table. */
static Site *tied_head(const Model *m)
{
    Site *s = m->spec.tied ? model_site(m, m->spec.family->name.head) : NULL;
    return s && is_table(s->w) ? s : NULL;
}

/* Tables by quantize_embedding; a tied one also where the head asks for it: it is one tensor. */
static bool open_tables(Qat *q, Model *m, const ConfigDoc *doc, Err *e)
{
    const QatConfig *c = q->c;
    Site *head = tied_head(m);
    for (int i = 0; i < m->params.n && !e->code; i++) {
        Param *p = m->params.p[i];
        char name[NAME_LEN + 8];
        if (!is_table(p)) continue;
        Wish w = wish_of(c, p->name);
        w.enabled = w.enabled && c->quantize_embedding;
        if (head && head->w == p && !w.enabled) w = wish_of(c, site_tensor(head, name));
        else if (!w.enabled) continue;
        if (w.enabled && !is(w.format[WEIGHT], "none") &&
            !add_table(q, m, p, head && head->w == p ? head : NULL, &w, e))
            return at_value(doc, w.rule, e);
    }
    return !e->code;
}

bool qat_open(Qat *q, const QatConfig *c, Model *m, const ConfigDoc *doc, Err *e)
{
    *q = (Qat){.c = c, .cap = 3 * m->n_site + 2};
    if (!c->enabled) return true;
    q->item = arena_alloc(m->run, (size_t)(q->cap + 1) * sizeof *q->item, e);
    if (!q->item || !globs_ok(c, m, doc, e) || !open_tables(q, m, doc, e)) return false;
    for (int i = 0; i < m->n_site && !e->code; i++) {
        char name[NAME_LEN + 8];
        const Wish w = wish_of(c, site_tensor(&m->site[i], name));
        for (int what = &m->site[i] == tied_head(m) ? INPUT : WEIGHT; what <= GRAD && w.enabled; what++)
            if (!is(w.format[what], "none") && !add_item(q, m, &m->site[i], &w, what, e))
                return at_value(doc, w.rule, e);
    }
    if (!q->n) {
        err_set(e, ERR_USAGE, "qat.enabled: no tensor is left to quantise by include, exclude and rules");
        return at_key(doc, "qat.enabled", e);
    }
    log_info("qat: %d quantisers; weights %s, activations %s, gradients %s, scales %s", q->n, c->weight,
             c->activation, c->grad, c->scale_update);
    return !e->code;
}

/* ---- from step to step ---- */
void qat_before(Qat *q, int64_t step)
{
    for (int i = 0; i < q->n; i++) {
        QatItem *it = &q->item[i];
        it->state->on = step >= it->start;
        if (it->step && it->freeze && step >= it->freeze) it->step->frozen = true;
    }
}

/* This step's range into the history, the longest range of it into the scale. */
static void move_scale(QatItem *it)
{
    FakeQuantState *st = it->state;
    const long n = st->q.R * st->q.G;
    memcpy(it->ring + (it->seen++ % it->history) * n, st->amax, (size_t)n * sizeof(float));
    const int64_t known = it->seen < it->history ? it->seen : it->history;
    for (long j = 0; j < n; j++) {
        float top = 0;
        for (int64_t h = 0; h < known; h++) {
            const float a = it->ring[h * n + j];
            if (isfinite(a) && a > top) top = a; /* a step that overflowed teaches nothing */
        }
        quant_scale_of(&it->attr.spec, -top, top, 1, &st->q.scale[j], NULL);
        st->amax[j] = 0;
    }
    st->q.tensor = 1;
}

void qat_after(Qat *q, int64_t step)
{
    for (int i = 0; i < q->n; i++) {
        QatItem *it = &q->item[i];
        const bool frozen = it->freeze && step + 1 > it->freeze;
        if (!it->state->on || it->step) continue;
        if (it->delayed && !frozen) move_scale(it);
        /* dynamic: the last forward's scales are in the state */
        if (it->delayed || (it->freeze && step + 1 >= it->freeze && it->own.q.scale)) it->state->keep = true;
    }
}
