/* compress/lora.c: adapters of a run: from the section to parameters, their start, and where they hang on the
 * model.
 *
 *   scale = alpha / r, or alpha / sqrt(r) (rsLoRA, 2312.03732)
 *   kaiming   A ~ U(-1/sqrt(in), 1/sqrt(in)), B = 0        gaussian  A ~ N(0, 1/r^2), B = 0
 *   pissa     A = sqrt(S/s) V^T, B = U sqrt(S/s) of the r largest, base W - s B A (2404.02948)
 *   embedding A = 0, B ~ N(0, 1)                            DoRA      m = |W| by output row */
#include "compress/lora_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

double lora_scale(const Lora *l, double alpha, long r)
{
    return alpha / (l->rslora ? sqrt((double)r) : (double)r);
}

void lora_start(Lora *l, Model *m, const char *name)
{
    *l = (Lora){.name = name, .m = m, .weight = 1, .r = 8, .alpha = 8, .respect_mask = true};
}

bool lora_owns(const Param *p)
{
    return p->aux && (strstr(p->name, ".lora_A.") || strstr(p->name, ".lora_B.") ||
                      strstr(p->name, ".lora_embedding_") || strstr(p->name, ".lora_magnitude_vector.") ||
                      strstr(p->name, ".lora_start_"));
}

static Param *add_param(Lora *l, const char *module, const char *what, int ndim, long d0, long d1, Err *e)
{
    Model *m = l->m;
    const char *name = arena_printf(m->run, e, "%s.%s.%s%s", module, what, l->name,
                                    ndim == 2 ? ".weight" : "");
    Param *p = name ? params_add(&m->params, name, ndim, (long[]){d0, d1}, e) : NULL;
    if (!p) return NULL;
    p->aux = true;
    p->w.data = arena_alloc(m->run, (size_t)t_numel(&p->w) * m->params.k->real, e);
    return p->w.data ? p : NULL;
}

static Param *weight_of(const Model *m, const char *module, Err *e)
{
    char name[2 * NAME_LEN];
    snprintf(name, sizeof name, "%s.weight", module);
    Param *p = params_find(&m->params, name);
    if (!p) err_set(e, ERR_USAGE, "%s: the model has no such module", module);
    return p;
}

LoraItem *lora_add(Lora *l, const char *module, long r, double alpha, Err *e)
{
    Model *m = l->m;
    if (l->n == l->cap) {
        const int cap = l->cap ? 2 * l->cap : 64;
        LoraItem *v = arena_grow(m->run, l->item, (size_t)l->n * sizeof *v, (size_t)cap * sizeof *v, e);
        if (!v) return NULL;
        l->item = v;
        l->cap = cap;
    }
    LoraItem *it = &l->item[l->n];
    *it = (LoraItem){.module = arena_strdup(m->run, module, e), .of = l, .r = r, .alpha = alpha};
    const bool table = is_embedding(m, module);
    it->site = table ? NULL : model_site(m, module);
    it->base = table ? weight_of(m, module, e) : it->site ? it->site->w : NULL;
    if (!it->base) {
        err_set(e, ERR_USAGE, "%s: the model has no such projection", module);
        return NULL;
    }
    if (m->spec.tied && (is_head(m, module) || !strcmp(module, m->spec.family->name.embed))) {
        err_set(e, ERR_USAGE,
                "%s: this model's embedding and head are one tensor, and an adapter of one of them could not "
                "be merged "
                "without changing the other; leave it out, or train it whole by lora.modules_to_save",
                module);
        return NULL;
    }
    const long out = it->base->w.dim[0], in = it->base->w.dim[1];
    if (r < 1) {
        err_set(e, ERR_USAGE, "%s: rank %ld; it is at least 1", module, r);
        return NULL;
    }
    it->a = add_param(l, module, table ? "lora_embedding_A" : "lora_A", 2, table ? out : r, table ? r : in,
                      e);
    it->b = add_param(l, module, table ? "lora_embedding_B" : "lora_B", 2, table ? in : out, r, e);
    if (l->dora && table)
        err_set(e, ERR_USAGE, "%s: use_dora is for projections, not for embeddings", module);
    if (l->dora && !table) it->m = add_param(l, module, "lora_magnitude_vector", 1, out, 0, e);
    it->scale = lora_scale(l, alpha, r);
    if (e->code) return NULL;
    l->n++;
    return it;
}

/* ---- onto the model ---- */
/* What hangs on a site's weight beside adapters: a mask, a quantiser. */
static bool is_shaped(const Site *s)
{
    bool any = false;
    for (int i = 0; i < s->n_wx; i++) any = any || !is_lora_attachment(&s->wx[i]);
    return any;
}

static bool hang_weight(LoraItem *it, const char **key, Err *e)
{
    Site *s = it->site;
    if (it->of->dropout > 0) {
        *key = "lora.dropout";
        return err_set(
            e, ERR_USAGE,
            "lora.dropout: %s has its adapter inside the weight (a mask, a quantiser or the head), where its "
            "input cannot be dropped; set lora.dropout: 0%s",
            it->module, s->n_wx ? " or lora.respect_mask: false" : "");
    }
    if (s->n_wx == SITE_MAX)
        return err_set(e, ERR_USAGE,
                       "%s: more than %d attachments; name it in fewer groups of the configuration", s->name,
                       SITE_MAX);
    memmove(&s->wx[1], &s->wx[0], (size_t)s->n_wx * sizeof s->wx[0]);
    s->wx[0] = lora_attachment(it);
    s->n_wx++;
    it->in_weight = true;
    return true;
}

static bool hang(LoraItem *it, const char **key, Err *e)
{
    Site *s = it->site;
    *key = "lora.base_quant";
    if (s && s->q && is_shaped(s))
        return err_set(
            e, ERR_USAGE,
            "lora.base_quant: %s is kept as codes and is pruned or quantised in training, which needs a "
            "dense base; set base_quant: none, or take a file without codes",
            s->name);
    *key = "lora.target_modules";
    if (it->base->w.hook && it->base->w.hook->in)
        return err_set(e, ERR_USAGE,
                       "lora.target_modules: %s: its table is masked or quantised in training, and an "
                       "adapter would stand beside it; "
                       "take one of them out",
                       it->module);
    if (!s) {
        it->hook = lora_hook(it);
        it->hook.next = it->base->w.hook;
        it->base->w.hook = &it->hook;
        return true;
    }
    if (is_head(it->of->m, it->module) || (s->n_wx && it->of->respect_mask)) return hang_weight(it, key, e);
    if (s->n_side == SITE_MAX) return err_set(e, ERR_USAGE, "%s: more than %d adapters", s->name, SITE_MAX);
    s->side[s->n_side++] = lora_branch(it);
    return true;
}

bool lora_hang(Lora *l, const char **key, Err *e)
{
    for (int i = 0; i < l->n && !e->code; i++) {
        l->item[i].of = l;
        hang(&l->item[i], key, e);
    }
    for (int i = 0; i < l->n_saved && !e->code; i++)
        if (l->saved[i].values) l->saved[i].p->w.data = l->saved[i].values;
    return !e->code;
}

void lora_unhang(Model *m)
{
    for (int i = 0; i < m->n_site; i++) {
        Site *s = &m->site[i];
        int n = 0;
        for (int j = 0; j < s->n_side; j++)
            if (!is_lora_branch(&s->side[j])) s->side[n++] = s->side[j];
        s->n_side = n;
        n = 0;
        for (int j = 0; j < s->n_wx; j++)
            if (!is_lora_attachment(&s->wx[j])) s->wx[n++] = s->wx[j];
        s->n_wx = n;
    }
    for (int i = 0; i < m->params.n; i++) {
        Tensor *w = &m->params.p[i]->w;
        while (w->hook && is_lora_hook(w->hook)) w->hook = w->hook->next;
    }
}

LoraSaved *lora_save_add(Lora *l, Param *p, Err *e)
{
    LoraSaved *v = arena_grow(l->m->run, l->saved, (size_t)l->n_saved * sizeof *v,
                              (size_t)(l->n_saved + 1) * sizeof *v, e);
    if (!v) return NULL;
    l->saved = v;
    v[l->n_saved] = (LoraSaved){.p = p};
    return &v[l->n_saved++];
}

static bool goes_alone(const Lora *l, int n, Err *e)
{
    if (l->dora && (n > 1 || l->weight < 1 || l->weight > 1))
        return err_set(
            e, ERR_USAGE,
            "adapter %s is DoRA, which rescales the whole weight: it adds up with no other and has no share; "
            "use it alone",
            l->name);
    for (int k = 0; n > 1 && k < l->n_saved; k++)
        if (l->saved[k].values)
            return err_set(e, ERR_USAGE,
                           "adapter %s brings a whole %s, which adds up with no other; use it alone", l->name,
                           l->saved[k].p->name);
    return true;
}

bool lora_use(Lora *const *all, int n_all, const int *use, int n, Err *e)
{
    for (int i = 0; i < n_all; i++) {
        lora_unhang(all[i]->m);
        for (int k = 0; k < all[i]->n_saved; k++)
            if (all[i]->saved[k].values) all[i]->saved[k].p->w.data = all[i]->saved[k].own;
    }
    const char *key;
    for (int i = 0; i < n && !e->code; i++)
        if (goes_alone(all[use[i]], n, e)) lora_hang(all[use[i]], &key, e);
    return !e->code;
}

void lora_train(Lora *l, bool on) { l->train = on; }

/* ---- values at the start ---- */
static bool start_values(const Lora *l, Param *p, uint64_t seed, bool normal, double width, Err *e)
{
    const Kernels *k = l->m->params.k;
    const size_t n = (size_t)t_numel(&p->w);
    Arena tmp = {.name = "start"};
    float *v = arena_alloc(&tmp, n * sizeof *v, e);
    const RngKey key = {.seed = seed, .stream = rng_stream(p->name)};
    if (v && normal) rng_normal_f32(v, n, key, 0, width);
    else if (v) rng_uniform_f32(v, n, key, -width, width);
    if (v) param_put(k, p->w.data, v, n);
    arena_free(&tmp);
    return !e->code;
}

/* |W| by row, in just the way dora_scale finds |W + s B A|: at the start the quotient is 1 exactly. */
static bool start_magnitude(LoraItem *it, Err *e)
{
    const Kernels *k = it->of->m->params.k;
    const QuantStore *q = it->site->q;
    const long out = it->base->w.dim[0], in = it->base->w.dim[1];
    Arena tmp = {.name = "start"};
    void *tile = q ? arena_alloc(&tmp, (size_t)(STORE_TILE * in) * k->real, e) : NULL;
    for (long r = 0; r < out && !e->code; r += STORE_TILE) {
        const long t = out - r < STORE_TILE ? out - r : STORE_TILE;
        if (q) k->decode_rows(tile, q->codes, &q->spec, &q->scales, r, t, in);
        k->row_norms((char *)it->m->w.data + (size_t)r * k->real,
                     q ? tile : (char *)it->base->w.data + (size_t)(r * in) * k->real, t, in);
    }
    arena_free(&tmp);
    return !e->code;
}

bool lora_add_start(LoraItem *it, Err *e)
{
    Lora *l = it->of;
    it->a0 = add_param(l, it->module, "lora_start_A", 2, it->a->w.dim[0], it->a->w.dim[1], e);
    it->b0 = add_param(l, it->module, "lora_start_B", 2, it->b->w.dim[0], it->b->w.dim[1], e);
    if (e->code) return false;
    it->a0->frozen = it->b0->frozen = true;
    return true;
}

static void keep_start(LoraItem *it)
{
    const size_t real = it->of->m->params.k->real;
    memcpy(it->a0->w.data, it->a->w.data, (size_t)t_numel(&it->a->w) * real);
    memcpy(it->b0->w.data, it->b->w.data, (size_t)t_numel(&it->b->w) * real);
}

/* base -= s B A, by the kernels that the branch adds it back with. */
static bool take_out(LoraItem *it, Err *e)
{
    Model *m = it->of->m;
    const Kernels *k = m->params.k;
    const long out = it->base->w.dim[0], in = it->base->w.dim[1];
    Arena tmp = {.name = "start"};
    void *d = arena_alloc(&tmp, (size_t)(out * in) * k->real, e);
    if (d && model_own(m, it->base, e)) {
        k->gemm_nn(d, it->b->w.data, it->a->w.data, out, in, it->r, SET);
        k->axpby(it->base->w.data, -it->scale, d, 1.0, it->base->w.data, out * in);
    }
    arena_free(&tmp);
    return !e->code;
}

static bool start_pissa(LoraItem *it, Err *e)
{
    const Kernels *k = it->of->m->params.k;
    const long out = it->base->w.dim[0], in = it->base->w.dim[1], r = it->r;
    Arena tmp = {.name = "start"};
    const float *w = param_floats(k, it->base->w.data, (size_t)(out * in), &tmp, e);
    float *u = arena_alloc(&tmp, (size_t)(out * r) * sizeof *u, e),
          *vt = arena_alloc(&tmp, (size_t)(r * in) * sizeof *vt, e),
          *s = arena_alloc(&tmp, (size_t)r * sizeof *s, e);
    if (!e->code && svd_top(w, out, in, r, u, s, vt, e)) {
        for (long j = 0; j < r; j++) {
            const float root = (float)sqrt((double)s[j] / it->scale);
            for (long i = 0; i < out; i++) u[i * r + j] *= root;
            for (long i = 0; i < in; i++) vt[j * in + i] *= root;
        }
        param_put(k, it->a->w.data, vt, (size_t)(r * in));
        param_put(k, it->b->w.data, u, (size_t)(out * r));
        if (lora_add_start(it, e)) {
            keep_start(it);
            take_out(it, e);
        }
    }
    arena_free(&tmp);
    return e->code ? err_prefix(e, "%s", it->module) : true;
}

static bool start(LoraItem *it, uint64_t seed, Err *e)
{
    const Lora *l = it->of;
    if (!it->site) return start_values(l, it->b, seed, true, 1, e);
    if (!strcmp(l->c->init, "pissa")) return start_pissa(it, e);
    const bool gaussian = !strcmp(l->c->init, "gaussian");
    start_values(l, it->a, seed, gaussian, gaussian ? 1 / (double)it->r : 1 / sqrt((double)it->a->w.dim[1]),
                 e);
    return !e->code && (!it->m || start_magnitude(it, e));
}

/* ---- from the section ---- */
typedef struct Targets {
    int n;
    const char *v[256];
    bool all_linear;
} Targets;

static Targets targets(const LoraConfig *c, const Model *m)
{
    const ConfigNode *t = c->target_modules;
    if (config_is_null(t)) {
        if (m->spec.family->name.qkv) return (Targets){1, {"c_attn"}, false};
        return (Targets){2, {"q_proj", "v_proj"}, false};
    }
    Targets out = {.all_linear = t->kind == NODE_SCALAR};
    for (int i = 0; t->kind == NODE_LIST && i < t->n && out.n < 256; i++) out.v[out.n++] = t->item[i]->text;
    return out;
}

static bool any_match(const ConfigStrs *s, const char *module)
{
    for (int i = 0; i < s->n; i++)
        if (module_match(s->v[i], module)) return true;
    return false;
}

/* Does a pattern mean some module at all? Projections, embeddings and, for modules_to_save, norms. */
static bool means_any(const char *pattern, const Model *m, bool only_matrices, Err *e)
{
    Arena tmp = {.name = "names"};
    bool any = false;
    for (int i = 0; i < m->n_site && !any; i++) any = module_match(pattern, m->site[i].name);
    for (int i = 0; i < m->params.n && !any && !e->code; i++) {
        const Param *p = m->params.p[i];
        const char *module = p->aux ? NULL : module_of(p->name, &tmp, e);
        any = module && (!only_matrices || is_embedding(m, module)) && module_match(pattern, module);
    }
    arena_free(&tmp);
    return any;
}

static bool check_names(const LoraConfig *c, const Model *m, const ConfigDoc *doc, Err *e)
{
    const Targets t = targets(c, m);
    for (int i = 0; i < t.n; i++)
        if (strcmp(t.v[i], "all-linear") && !means_any(t.v[i], m, true, e))
            return module_missing("lora.target_modules", t.v[i], m, doc, e);
    for (int i = 0; i < c->exclude_modules.n; i++)
        if (!means_any(c->exclude_modules.v[i], m, true, e))
            return module_missing("lora.exclude_modules", c->exclude_modules.v[i], m, doc, e);
    for (int i = 0; i < c->modules_to_save.n; i++)
        if (!means_any(c->modules_to_save.v[i], m, false, e))
            return module_missing("lora.modules_to_save", c->modules_to_save.v[i], m, doc, e);
    const ConfigNode *map[2] = {c->rank_pattern, c->alpha_pattern};
    for (int k = 0; k < 2; k++)
        for (int i = 0; map[k] && map[k]->kind == NODE_MAP && i < map[k]->n; i++)
            if (!means_any(map[k]->key[i]->text, m, true, e))
                return module_missing(k ? "lora.alpha_pattern" : "lora.rank_pattern", map[k]->key[i]->text, m,
                                      doc, e);
    return !e->code;
}

static bool wanted(const LoraConfig *c, const Targets *t, const Model *m, const char *module)
{
    bool take = t->all_linear && !is_head(m, module) && !is_embedding(m, module);
    for (int i = 0; i < t->n; i++) {
        const bool all = !strcmp(t->v[i], "all-linear") && !is_head(m, module) && !is_embedding(m, module);
        take = take || all || module_match(t->v[i], module);
    }
    return take && !any_match(&c->exclude_modules, module) && !any_match(&c->modules_to_save, module);
}

static bool add_one(Lora *l, const char *module, const ConfigDoc *doc, Err *e)
{
    const LoraConfig *c = l->c;
    const long r = (long)pattern_value(c->rank_pattern, module, (double)c->r);
    const double alpha = pattern_value(c->alpha_pattern, module, l->alpha);
    const LoraItem *it = lora_add(l, module, r, alpha, e);
    const long out = it ? it->base->w.dim[0] : 0, in = it ? it->base->w.dim[1] : 0;
    const char *key = !it ? "lora.target_modules" : r != c->r ? "lora.rank_pattern" : "lora.r";
    if (it && r <= (out < in ? out : in)) return true;
    if (it)
        err_set(e, ERR_USAGE, "%s: rank %ld is above the %ld x %ld matrix of %s", key, r, out, in, module);
    else err_prefix(e, "%s", key);
    return lora_at(doc, doc && config_node(doc, key) ? key : "lora", e);
}

/* Everything rests but adapters, what the section saves, and other methods' own parameters. */
static bool freeze(Lora *l, Err *e)
{
    Model *m = l->m;
    Arena tmp = {.name = "names"};
    for (int i = 0; i < m->params.n && !e->code; i++) {
        Param *p = m->params.p[i];
        const char *module = p->aux ? NULL : module_of(p->name, &tmp, e);
        if (!module) continue;
        bool keep = any_match(&l->c->modules_to_save, module);
        if (m->spec.tied && !strcmp(module, m->spec.family->name.embed))
            keep = keep || any_match(&l->c->modules_to_save, m->spec.family->name.head);
        if (!keep) p->frozen = true;
        else if (model_own(m, p, e)) lora_save_add(l, p, e);
    }
    arena_free(&tmp);
    return !e->code;
}

bool lora_open(Lora *l, const LoraConfig *c, Model *m, uint64_t seed, const ConfigDoc *doc, Err *e)
{
    lora_start(l, m, "default");
    if (!c->enabled) return true;
    const Targets t = targets(c, m);
    l->c = c;
    l->r = (long)c->r;
    l->alpha = isnan(c->alpha) ? 2 * (double)c->r : c->alpha;
    l->dropout = c->dropout;
    l->rslora = c->use_rslora;
    l->dora = c->use_dora;
    l->respect_mask = c->respect_mask;
    l->base_path = m->path;
    if (!check_names(c, m, doc, e) || !(l->base_hash = model_content_hash(m, m->run, e))) return false;
    const FamilyNames *n = &m->spec.family->name;
    const char *table[2] = {n->embed, n->pos};
    for (int i = 0; i < 2; i++)
        if (table[i] && wanted(c, &t, m, table[i]) && !add_one(l, table[i], doc, e)) return false;
    for (int i = 0; i < m->n_site; i++)
        if (wanted(c, &t, m, m->site[i].name) && !add_one(l, m->site[i].name, doc, e)) return false;
    if (!l->n) {
        err_set(e, ERR_USAGE,
                "lora.target_modules: every module is left out by exclude_modules or modules_to_save");
        return lora_at(doc, doc && config_node(doc, "lora.exclude_modules") ? "lora.exclude_modules" : "lora",
                       e);
    }
    const char *key = "lora.modules_to_save";
    if (!freeze(l, e) || !lora_hang(l, &key, e))
        return lora_at(doc, doc && config_node(doc, key) ? key : "lora", e);
    for (int i = 0; i < l->n && !e->code; i++) start(&l->item[i], seed, e);
    log_info("lora: %d adapters, r %ld, scale %.4g%s%s%s; base %s", l->n, l->r, l->item[0].scale,
             l->rslora ? ", rsLoRA" : "", l->dora ? ", DoRA" : "", !strcmp(c->init, "pissa") ? ", PiSSA" : "",
             strcmp(c->base_quant, "none") ? c->base_quant : "as it is");
    return !e->code;
}

/* LoRA+ (2402.12354): B and magnitudes learn faster than A; embeddings have a rate of their own. */
void lora_rates(const Lora *l, Optim *o, double lr)
{
    const LoraConfig *c = l->c;
    if (!c || !l->n) return;
    if (!isnan(c->learning_rate)) lr = c->learning_rate;
    for (int i = 0; i < l->n; i++) {
        const LoraItem *it = &l->item[i];
        const Param *p[3] = {it->a, it->b, it->m};
        for (int k = 0; k < 3; k++) {
            double rate = k ? lr * c->plus_ratio : lr;
            if (!it->site) rate = c->plus_embedding_lr;
            if (!(c->plus_ratio > 0)) rate = lr;
            if (p[k] && (c->plus_ratio > 0 || !isnan(c->learning_rate))) optim_set_lr(o, p[k]->name, rate);
        }
    }
}
