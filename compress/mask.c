/* compress/mask.c: masks as attachments on sites (algorithms 5.3 to 5.6): which tensors, when masks move,
 * what happens to masked weights. A mask is state: it goes in front of the quantiser, through checkpoints and
 * into the export.
 *
 *   s(t) = s_f u | s_f (1 - (1 - u)^3), u = (t - begin) / (end - begin)     linear | cubic (1710.01878); t:
 *   steps done
 *
 * Once masked for good, a weight and its moments are 0 and its gradient is 0, so no optimizer moves it. Where
 * it may come back (regrow, movement, until end_step) it keeps its value behind the mask. */
#include "compress/mask_impl.h"
#include <stdio.h>
#include <string.h>

double real_at(const void *data, long i, bool f64)
{
    return f64 ? ((const double *)data)[i] : (double)((const float *)data)[i];
}

void real_set(void *data, long i, bool f64, double v)
{
    if (f64) ((double *)data)[i] = v;
    else ((float *)data)[i] = (float)v;
}

static bool is(const char *a, const char *b) { return !strcmp(a, b); }

bool prune_needs_data(const PruneConfig *c)
{
    return is(c->method, "snip") || is(c->method, "taylor") || is(c->method, "wanda") ||
           is(c->method, "sparsegpt");
}

/* "file:line:col: " before an error about key. */
static bool at_key(const ConfigDoc *doc, const char *key, Err *e)
{
    const ConfigNode *n = doc ? config_node(doc, key) : NULL;
    if (!n && doc) n = config_node(doc, "prune");
    return n && n->file ? err_prefix(e, "%s:%d:%d", n->file, n->line, n->col) : false;
}

#define REFUSE(key, ...)                                                                                     \
    (err_set(e, ERR_USAGE, "prune." key ": " __VA_ARGS__), at_key(doc, "prune." key, e), false)

/* Words that do not go together. */
static bool words_ok(const PruneConfig *c, const ConfigDoc *doc, Err *e)
{
    int of;
    const bool pattern = pattern_of(c->structure, &of) > 0, soft = is(c->method, "soft_movement"),
               movement = soft || is(c->method, "movement"), sparsegpt_ = is(c->method, "sparsegpt"),
               wanda = is(c->method, "wanda"), plain = is(c->structure, "unstructured");
    const bool gradual = is(c->schedule, "linear") || is(c->schedule, "cubic");
    if (pattern && fabs(c->sparsity - 0.5) > 1e-12)
        return REFUSE("sparsity", "%g; structure %s has a share of its own, 0.5", c->sparsity, c->structure);
    if (pattern && gradual)
        return REFUSE("schedule", "%s: structure %s has no steps between", c->schedule, c->structure);
    if (pattern && movement) return REFUSE("structure", "%s: %s prunes over time", c->structure, c->method);
    if (soft && !plain) return REFUSE("structure", "%s: soft_movement is unstructured", c->structure);
    if (soft && !(c->movement_lambda > 0))
        return REFUSE("movement_lambda",
                      "soft_movement needs a weight above 0: it is what makes scores fall");
    if (movement && is(c->schedule, "oneshot"))
        return REFUSE("schedule", "oneshot: movement scores grow over steps; linear or cubic");
    if (sparsegpt_ && !plain && !pattern)
        return REFUSE("structure", "%s: sparsegpt makes unstructured, 2:4 or 4:8 masks", c->structure);
    if ((wanda || sparsegpt_) && is(c->scope, "global"))
        return REFUSE("scope", "global: %s compares within a %s", c->method,
                      wanda ? "row" : "128-column block");
    if (is(c->structure, "block") && c->block_shape.n != 2)
        return REFUSE("block_shape", "two numbers: rows and columns of a block");
    if (c->layer_floor > 1 - c->sparsity)
        return REFUSE("layer_floor", "%g is more than the %g that sparsity keeps", c->layer_floor,
                      1 - c->sparsity);
    return true;
}

static bool wants(const PruneConfig *c, const char *name)
{
    bool take = c->include.n == 0 && is(tensor_class(name, 2), "linear");
    for (int i = 0; i < c->include.n; i++) take = take || tensor_match(c->include.v[i], name, 2);
    for (int i = 0; i < c->exclude.n; i++) take = take && !tensor_match(c->exclude.v[i], name, 2);
    return take;
}

/* A site's weight by the site's own name, also where it is tied to a table; in a bag names are whole. */
static const char *site_tensor(const Site *s, char name[NAME_LEN + 8])
{
    if (!strcmp(s->name, s->w->name)) return s->name;
    snprintf(name, NAME_LEN + 8, "%s.weight", s->name);
    return name;
}

/* Token and position tables; a bag has none. */
static bool is_table(const Model *m, const Param *p)
{
    return m->spec.family && !p->aux && p->w.ndim == 2 && is(tensor_class(p->name, 2), "embed_tokens");
}

static bool globs_ok(const PruneConfig *c, const Model *m, const ConfigDoc *doc, Err *e)
{
    Arena tmp = {.name = "prune"};
    int n = 0;
    const char **name = arena_alloc(&tmp, (size_t)(m->n_site + m->params.n + 1) * sizeof *name, e);
    for (int i = 0; name && i < m->n_site; i++) {
        char text[NAME_LEN + 8];
        name[n++] = arena_strdup(&tmp, site_tensor(&m->site[i], text), e);
    }
    for (int i = 0; name && i < m->params.n; i++)
        if (is_table(m, m->params.p[i])) name[n++] = m->params.p[i]->name;
    if (!e->code && !globs_check(&c->include, "prune.include", name, n, e)) at_key(doc, "prune.include", e);
    if (!e->code && !globs_check(&c->exclude, "prune.exclude", name, n, e)) at_key(doc, "prune.exclude", e);
    arena_free(&tmp);
    return !e->code;
}

static Tensor *apply(Graph *g, Tensor *t, const Attachment *a)
{
    PruneItem *it = a->state;
    const MaskAttr at = {&it->state};
    if (!it->score) return OP_ATTR(g, mask, at, t);
    return OP_ATTR(g, topk_mask, at, t, graph_param(g, &it->score->w));
}

static Tensor *of_table(Graph *g, Tensor *w, const TensorHook *h)
{
    return apply(g, w, &(Attachment){"mask", apply, h->state});
}

/* Scores start equal; soft ones on the kept side of every threshold. */
static bool add_scores(Prune *p, PruneItem *it, Err *e)
{
    Model *m = p->m;
    const char *name = arena_printf(m->run, e, "prune.%s.scores", it->name);
    Param *s = name ? params_add(&m->params, name, 2, (long[]){it->rows, it->cols}, e) : NULL;
    if (!s) return false;
    s->aux = true;
    s->decay = false;
    s->w.data = arena_alloc(m->run, (size_t)t_numel(&s->w) * m->params.k->real, e);
    if (!s->w.data) return false;
    const double t = p->c->movement_threshold, start = t < 0.5 ? 0 : log((1 + t) / (1 - t));
    if (p->soft) m->params.k->fill(s->w.data, start, t_numel(&s->w));
    it->score = s;
    return true;
}

static bool add_item(Prune *p, Site *s, const ConfigDoc *doc, Err *e)
{
    PruneItem *it = &p->item[p->n];
    int of;
    *it = (PruneItem){
        .name = s->w->name, .site = s, .rows = s->w->w.dim[0], .cols = s->w->w.dim[1], .limit = NAN};
    if (pattern_of(p->c->structure, &of) && it->cols % of)
        return REFUSE("structure", "%s: tensor %s has %ld inputs, which %d does not divide; exclude it",
                      p->c->structure, it->name, it->cols, of);
    if (s->n_wx == SITE_MAX)
        return err_set(e, ERR_USAGE,
                       "%s: more than %d attachments; name it in fewer groups of the configuration", s->name,
                       SITE_MAX);
    if (!model_own(p->m, s->w, e)) return false; /* it is cleared, moved and resumed: also a frozen base's */
    uint8_t *keep = arena_alloc(p->m->run, (size_t)(it->rows * it->cols), e);
    if (!keep) return false;
    memset(keep, 1, (size_t)(it->rows * it->cols));
    it->keep = keep;
    it->state.keep = keep;
    memmove(s->wx + 1, s->wx, (size_t)s->n_wx * sizeof *s->wx);
    s->wx[0] = (Attachment){"mask", apply, it};
    s->n_wx++;
    p->n++;
    return !p->movement || add_scores(p, it, e);
}

/* A table: rows are looked up in the masked one, and the head reads it where it is tied. */
static bool add_table(Prune *p, Param *w, Site *head, const ConfigDoc *doc, Err *e)
{
    const PruneConfig *c = p->c;
    if (is(c->method, "wanda") || is(c->method, "sparsegpt"))
        return REFUSE("include", "%s is a table, which has no inputs for %s to measure; exclude it", w->name,
                      c->method);
    Site *s = head ? head : arena_alloc(p->m->run, sizeof *s, e);
    if (!s) return false;
    if (!head) *s = (Site){.name = w->name, .w = w, .run = p->m->run};
    if (!add_item(p, s, doc, e)) return false;
    PruneItem *it = &p->item[p->n - 1];
    it->hook = (TensorHook){.in = of_table, .merge = of_table, .state = it, .next = w->w.hook};
    w->w.hook = &it->hook;
    return true;
}

static bool open_tables(Prune *p, const ConfigDoc *doc, Err *e)
{
    Model *m = p->m;
    for (int i = 0; i < m->params.n && !e->code; i++) {
        Param *w = m->params.p[i];
        Site *head = NULL;
        char name[NAME_LEN + 8];
        if (!is_table(m, w)) continue;
        for (int j = 0; j < m->n_site; j++)
            if (m->site[j].w == w) head = &m->site[j];
        if (wants(p->c, w->name) || (head && wants(p->c, site_tensor(head, name))))
            add_table(p, w, head, doc, e);
    }
    return !e->code;
}

bool prune_open(Prune *p, const PruneConfig *c, Model *m, uint64_t seed, const ConfigDoc *doc, Err *e)
{
    *p = (Prune){.c = c, .m = m, .seed = seed, .done = -1};
    if (!c->enabled) return true;
    int of;
    p->soft = is(c->method, "soft_movement");
    p->movement = p->soft || is(c->method, "movement");
    const bool known = is(c->method, "snip") || is(c->method, "wanda") || is(c->method, "sparsegpt") ||
                       pattern_of(c->structure, &of);
    p->oneshot = is(c->schedule, "oneshot") || (is(c->schedule, "auto") && known);
    p->cubic = !is(c->schedule, "linear");
    p->global = is(c->scope, "global") ||
                (is(c->scope, "auto") && (is(c->method, "snip") || is(c->method, "taylor")));
    if (!m->spec.family && (is(c->structure, "head") || is(c->structure, "ffn") || is(c->structure, "layer")))
        return REFUSE("structure", "%s: without a model's config nobody knows which tensors these are",
                      c->structure);
    p->item = arena_alloc(m->run, (size_t)(m->n_site + 3) * sizeof *p->item, e);
    if (!p->item || !words_ok(c, doc, e) || !globs_ok(c, m, doc, e)) return false;
    for (int i = 0; i < m->n_site; i++) {
        char name[NAME_LEN + 8];
        Site *s = &m->site[i];
        const char *own = site_tensor(s, name);
        if (!strcmp(own, s->w->name) && wants(c, own) && !add_item(p, s, doc, e)) return false;
    }
    if (!open_tables(p, doc, e)) return false;
    if (!p->n) return REFUSE("include", "no tensor is left to prune by include and exclude");
    p->end = p->begin = c->begin_step;
    p->every = c->every_steps;
    return true;
}

bool prune_steps(Prune *p, int64_t n_steps, const ConfigDoc *doc, Err *e)
{
    const PruneConfig *c = p->c;
    if (!p->n) return true;
    if (!n_steps && p->movement)
        return REFUSE("method", "%s learns its scores over steps; this stage has none", c->method);
    if (!n_steps && is(c->schedule, "auto")) p->oneshot = true;
    p->end = p->oneshot ? c->begin_step : c->end_step ? c->end_step : n_steps / 2;
    if (p->movement && doc && !config_was_set(doc, "prune.every_steps")) p->every = 1;
    if (p->begin > n_steps)
        return REFUSE("begin_step", "%lld is behind the last step, %lld", (long long)p->begin,
                      (long long)n_steps);
    if (!p->oneshot && p->begin >= p->end)
        return REFUSE("begin_step", "%lld is not before end_step %lld (0 = half of the run)",
                      (long long)p->begin, (long long)p->end);
    if (p->end > n_steps)
        return REFUSE("end_step", "%lld is behind the last step, %lld", (long long)p->end,
                      (long long)n_steps);
    p->hidden = p->movement || (c->regrow && !p->oneshot);
    log_info("prune: %d tensors, %s, %s, %s; masks from step %lld to %lld", p->n, c->method, c->structure,
             p->oneshot ? "at once"
             : p->cubic ? "cubic"
                        : "linear",
             (long long)p->begin, (long long)p->end);
    return true;
}

double prune_target(const Prune *p, int64_t step)
{
    const double last = p->soft ? p->c->movement_threshold : p->c->sparsity;
    if (step < p->begin) return 0;
    if (step >= p->end) return last;
    const double u = (double)(step - p->begin) / (double)(p->end - p->begin);
    return last * (p->cubic ? 1 - (1 - u) * (1 - u) * (1 - u) : u);
}

double prune_sparsity(const Prune *p)
{
    int64_t kept = 0, all = 0;
    for (int i = 0; i < p->n; i++) {
        const long n = p->item[i].rows * p->item[i].cols;
        for (long j = 0; j < n; j++) kept += p->item[i].keep[j];
        all += n;
    }
    return all ? 1 - (double)kept / (double)all : 0;
}

/* ---- new masks ---- */
static void plain_scores(const Prune *p, const PruneItem *it, float *score)
{
    const bool f64 = prune_f64(p);
    const void *x = p->movement ? it->score->w.data : it->site->w->w.data;
    const RngKey key = {.seed = p->seed, .stream = rng_stream(it->name)};
    for (long j = 0; j < it->rows * it->cols; j++) {
        const double v = real_at(x, j, f64);
        score[j] = is(p->c->method, "random") ? (float)rng_uniform(key, (uint32_t)j)
                                              : (float)(p->movement ? v : fabs(v));
    }
}

/* Kept where sigmoid(score) is above the threshold, and at least half a percent of each tensor. */
static bool soft_masks(Prune *p, double threshold, Arena *tmp, Err *e)
{
    const bool f64 = prune_f64(p);
    for (int i = 0; i < p->n; i++) {
        PruneItem *it = &p->item[i];
        const long n = it->rows * it->cols, least = (long)ceil(0.005 * (double)n);
        const ArenaMark mark = arena_mark(tmp);
        float *s = arena_alloc(tmp, (size_t)n * sizeof *s, e);
        long kept = 0;
        if (!s) return false;
        plain_scores(p, it, s);
        for (long j = 0; j < n; j++) {
            const double v = real_at(it->score->w.data, j, f64);
            if (isnan(v)) return err_set(e, ERR_FAIL, "%s: the score of element %ld is NaN", it->name, j);
            kept += it->keep[j] = 1 / (1 + exp(-v)) > threshold;
        }
        if (kept < least) {
            memset(it->keep, 0, (size_t)n);
            units_keep(&(Units){n, s, it->keep}, 1, least);
        }
        it->limit = log(threshold / (1 - threshold));
        arena_release(tmp, mark);
    }
    return true;
}

static void clear_masked(const Prune *p, const PruneItem *it, void *x)
{
    if (x) p->m->params.k->mask(x, x, it->keep, it->rows * it->cols, SET);
}

/* Masked weights: gone with their moments, or standing still behind the mask. */
static void settle(Prune *p, int64_t step)
{
    p->hidden = p->hidden && step < p->end;
    for (int i = 0; i < p->n; i++) {
        const PruneItem *it = &p->item[i];
        Param *w = it->site->w;
        p->item[i].moved = step;
        if (it->score && step >= p->end) it->score->frozen = true;
        if (!p->hidden) clear_masked(p, it, w->w.data);
        if (p->hidden && p->movement) continue;
        clear_masked(p, it, w->m);
        clear_masked(p, it, w->v);
    }
}

static bool new_masks(Prune *p, double target, const Calibration *cal, Arena *tmp, Err *e)
{
    if (p->soft) return soft_masks(p, target, tmp, e);
    float **score = arena_alloc(tmp, (size_t)p->n * sizeof *score, e);
    for (int i = 0; score && i < p->n; i++)
        score[i] = arena_alloc(tmp, (size_t)(p->item[i].rows * p->item[i].cols) * sizeof **score, e);
    if (e->code) return false;
    const bool inputs = is(p->c->method, "wanda") || is(p->c->method, "sparsegpt");
    if (prune_needs_data(p->c) && !cal)
        return err_set(e, ERR_USAGE, "prune.method: %s needs data: prune.calibration", p->c->method);
    if (inputs) return score_inputs(p, cal, score, target, tmp, e);
    if (prune_needs_data(p->c)) {
        if (!score_gradients(p, cal, score, tmp, e)) return false;
    } else {
        for (int i = 0; i < p->n; i++) plain_scores(p, &p->item[i], score[i]);
    }
    return prune_pick(p, score, target, tmp, e);
}

/* The tensors that a global scope has hit hardest. */
static void tell(const Prune *p, int64_t step)
{
    double least = 2;
    const char *name = "";
    for (int i = 0; i < p->n; i++) {
        Prune one = *p;
        one.item = &p->item[i];
        one.n = 1;
        const double kept = 1 - prune_sparsity(&one);
        if (kept == 0)
            log_warn("prune: nothing is left of %s; prune.layer_floor keeps a share", p->item[i].name);
        if (kept < least) {
            least = kept;
            name = p->item[i].name;
        }
    }
    log_info("step %lld: masks made, sparsity %.6f of %d tensors; fewest kept: %.1f %% of %s",
             (long long)step, prune_sparsity(p), p->n, 100 * least, name);
}

bool prune_update(Prune *p, int64_t step, const Calibration *cal, bool *moved, Err *e)
{
    *moved = false;
    if (!p->n || step < p->begin || step <= p->done || p->done >= p->end) return true;
    if ((step - p->begin) % p->every && step < p->end) return true;
    const double target = prune_target(p, step);
    p->done = step;
    if (target == 0 && !p->movement) return true;
    Arena tmp = {.name = "masks"};
    const bool ok = new_masks(p, target, cal, &tmp, e);
    arena_free(&tmp);
    if (!ok) return err_prefix(e, "masks at step %lld", (long long)step);
    settle(p, step);
    if (!p->movement || step >= p->end || step % 50 == 0) tell(p, step);
    *moved = true;
    return true;
}

double prune_regularise(Prune *p, int64_t step, double targets)
{
    if (!p->soft || step < p->begin || step >= p->end) return 0;
    const bool f64 = prune_f64(p);
    const double weight = p->c->movement_lambda * prune_target(p, step) / p->c->movement_threshold;
    double sum = 0, n = 0;
    for (int i = 0; i < p->n; i++) n += (double)(p->item[i].rows * p->item[i].cols);
    for (int i = 0; i < p->n; i++) {
        const Tensor *s = &p->item[i].score->w;
        for (long j = 0; j < t_numel(s); j++) {
            const double y = 1 / (1 + exp(-real_at(s->data, j, f64)));
            sum += y;
            if (s->grad)
                real_set(s->grad, j, f64, real_at(s->grad, j, f64) + targets * weight * y * (1 - y) / n);
        }
    }
    return targets * weight * sum / n;
}
