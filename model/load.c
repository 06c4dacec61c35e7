/* model/load.c: parameters and sites of a model, their values from a file or fresh, and the way back to a
 * file. */
#include "model/load_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

__attribute__((format_arg(1))) static const char *template_of(const char *fmt) { return fmt; }

typedef struct Declare {
    Model *m;
    Err *e;
    int layer;
} Declare;

static const char *name_of(Declare *d, const char *fmt, const char *suffix)
{
    char name[NAME_LEN];
    snprintf(name, sizeof name, template_of(fmt), d->layer);
    return arena_printf(d->m->run, d->e, "%s%s", name, suffix);
}

static Param *add(Declare *d, const char *fmt, const char *suffix, int ndim, long a, long b)
{
    if (d->e->code || !fmt) return NULL;
    const char *name = name_of(d, fmt, suffix);
    return name ? params_add(&d->m->params, name, ndim, (long[]){a, b}, d->e) : NULL;
}

static void add_norm(Declare *d, const char *fmt, long width)
{
    add(d, fmt, ".weight", 1, width, 0);
    if (d->m->spec.family->layernorm) add(d, fmt, ".bias", 1, width, 0);
}

static void add_site(Declare *d, const char *fmt, long out, long in, bool bias)
{
    if (!fmt || d->e->code) return;
    Model *m = d->m;
    Param *w = add(d, fmt, ".weight", 2, out, in), *b = bias ? add(d, fmt, ".bias", 1, out, 0) : NULL;
    if (!w) return;
    w->in_out = m->spec.family->in_out;
    m->site[m->n_site++] = (Site){.name = name_of(d, fmt, ""), .w = w, .b = b, .run = m->run};
}

static void add_layer(Declare *d)
{
    const ModelSpec *s = &d->m->spec;
    const Family *f = s->family;
    const FamilyNames *n = &f->name;
    long q = s->H * s->D, kv = s->Hkv * s->D;
    bool qkv_bias = f->qkv_bias || s->attention_bias;
    add_norm(d, n->norm1, s->C);
    add_site(d, n->q, q, s->C, qkv_bias);
    add_site(d, n->k, kv, s->C, qkv_bias);
    add_site(d, n->v, kv, s->C, qkv_bias);
    add_site(d, n->qkv, 3 * s->C, s->C, qkv_bias);
    if (n->q_norm) add(d, n->q_norm, ".weight", 1, s->D, 0);
    if (n->k_norm) add(d, n->k_norm, ".weight", 1, s->D, 0);
    add_site(d, n->o, s->C, q, f->linear_bias || s->attention_bias);
    if (n->attn_post) add_norm(d, n->attn_post, s->C);
    add_norm(d, n->norm2, s->C);
    add_site(d, n->gate, s->F, s->C, s->mlp_bias);
    add_site(d, n->up, s->F, s->C, f->linear_bias || s->mlp_bias);
    add_site(d, n->down, s->C, s->F, f->linear_bias || s->mlp_bias);
    if (n->mlp_post) add_norm(d, n->mlp_post, s->C);
}

/* Parameters and sites by name and shape, without memory for the values. */
static bool declare(Model *m, const ModelSpec *s, const Kernels *k, Arena *run, Err *e)
{
    *m = (Model){.spec = *s, .params = {.run = run, .k = k}, .run = run};
    m->site = arena_alloc(run, (size_t)(s->L * 8 + 1) * sizeof *m->site, e);
    if (!m->site) return false;
    const FamilyNames *n = &s->family->name;
    Declare d = {m, e, 0};
    Param *embed = add(&d, n->embed, ".weight", 2, s->V, s->C);
    add(&d, n->pos, ".weight", 2, s->max_pos, s->C);
    for (d.layer = 0; d.layer < s->L && !e->code; d.layer++) add_layer(&d);
    d.layer = 0;
    add_norm(&d, n->final_norm, s->C);
    if (s->tied) {
        if (!e->code) m->site[m->n_site++] = (Site){.name = n->head, .w = embed, .run = run};
    } else {
        add_site(&d, n->head, s->V, s->C, false);
        if (!e->code) m->site[m->n_site - 1].w->in_out = false; /* GPT-2's head is a plain linear */
    }
    const RopeSpec *rope[2] = {&s->rope, &s->rope_local};
    for (int i = 0; i < 2 && !s->family->learned_pos; i++) {
        m->inv_freq[i] = arena_alloc(run, (size_t)(s->D / 2 + 1) * sizeof(double), e);
        if (m->inv_freq[i] && rope[i]->theta > 0) rope_frequencies(rope[i], s->D, 0, m->inv_freq[i]);
    }
    return !e->code;
}

static const char *dims_text(int ndim, const int64_t *dim, char *buf, size_t n)
{
    size_t at = (size_t)snprintf(buf, n, "[");
    for (int i = 0; i < ndim && at < n; i++)
        at += (size_t)snprintf(buf + at, n - at, "%s%lld", i ? "," : "", (long long)dim[i]);
    if (at < n) snprintf(buf + at, n - at, "]");
    return buf;
}

static bool same_dims(const Tensor *w, int ndim, const int64_t *dim)
{
    bool same = ndim == w->ndim;
    for (int i = 0; same && i < ndim; i++) same = dim[i] == w->dim[i];
    return same;
}

bool load_check(const TensorFile *f, Param *p, Err *e)
{
    const FileTensor *t = formats_find(f, p->name);
    char have[96], want[96];
    if (!t) return err_set(e, ERR_CORRUPT, "%s: tensor %s is missing", f->path, p->name);
    int64_t dim[4] = {0}, need[4] = {0};
    formats_dims(t, dim);
    for (int i = 0; i < p->w.ndim; i++) need[i] = p->w.dim[i];
    if (!same_dims(&p->w, t->ndim, dim))
        return err_set(e, ERR_CORRUPT, "%s: tensor %s has shape %s, the configuration wants %s", f->path,
                       p->name, dims_text(t->ndim, dim, have, sizeof have),
                       dims_text(p->w.ndim, need, want, sizeof want));
    if (t->in_out) p->in_out = true;
    return true;
}

bool load_finite(const float *x, size_t n, const TensorFile *f, const Param *p, Err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return err_set(e, ERR_CORRUPT,
                           "%s: tensor %s holds %s at element %zu; nothing was loaded: "
                           "take an earlier checkpoint, or make the file again",
                           f->path, p->name, isnan(x[i]) ? "NaN" : "infinity", i);
    return true;
}

bool load_values(const TensorFile *f, const Param *p, float *dst, Err *e)
{
    const FileTensor *t = formats_find(f, p->name);
    bool ok = formats_read_f32(f, t, dst, e) && load_finite(dst, (size_t)t_numel(&p->w), f, p, e);
    if (ok) formats_drop(f, t);
    return ok;
}

bool load_in_place(const TensorFile *f, const FileTensor *t, DType type, size_t align)
{
    if (!strcmp(f->kind, "train_state")) return false; /* what is stored is not what is effective */
    return t->dtype == type && !t->in_out && !t->unpermute_heads && (uintptr_t)t->data % align == 0 &&
           formats_mapped(f, t);
}

/* Values that somebody keeps in his own way are floats for as long as he looks at them. */
static bool offer(Model *m, Param *p, const TensorFile *f, const ModelStore *st, bool *taken, Err *e)
{
    Arena tmp = {.name = "conversion"};
    float *v = arena_alloc(&tmp, (size_t)t_numel(&p->w) * sizeof *v, e);
    if (v && load_values(f, p, v, e) && st->take(m, p, v, st->ctx, taken, e) && *taken) p->read_only = true;
    arena_free(&tmp);
    return !e->code;
}

/* Of a model that nobody writes. */
typedef enum { OWNED, IN_PLACE, PACKED } Keep;

/* One parameter from the file: in the mapping where it may stay and fits, else converted into the arena. */
static bool read_param(Model *m, Param *p, const TensorFile *f, Keep keep, const ModelStore *st, Err *e)
{
    bool taken = false;
    if (!load_check(f, p, e)) return false;
    const FileTensor *t = formats_find(f, p->name);
    size_t n = (size_t)t_numel(&p->w);
    if (st && st->take && p->w.ndim == 2 && !offer(m, p, f, st, &taken, e)) return false;
    if (keep == PACKED && !taken && !load_packed(m, p, f, &taken, e)) return false;
    if (taken) return true;
    if (st && st->half) return load_half(m, p, f, keep != OWNED, e);
    if (keep != OWNED && m->params.k->real == sizeof(float) && load_in_place(f, t, DT_F32, 64)) {
        p->w.data = (void *)(uintptr_t)t->data;
        p->read_only = true;
        m->mapped_bytes += (int64_t)t->bytes;
        return load_finite(p->w.data, n, f, p, e);
    }
    p->w.data = arena_alloc(m->run, n * m->params.k->real, e);
    if (!p->w.data) return false;
    if (m->params.k->real == sizeof(float)) return load_values(f, p, p->w.data, e);
    Arena tmp = {.name = "conversion"};
    float *v = arena_alloc(&tmp, n * sizeof *v, e);
    if (v && load_values(f, p, v, e))
        for (size_t i = 0; i < n; i++) ((double *)p->w.data)[i] = v[i];
    arena_free(&tmp);
    return !e->code;
}

void load_warn_unused(const Model *m, const TensorFile *f)
{
    for (int i = 0; i < f->n; i++) {
        const char *name = f->t[i].name;
        bool alias = m->spec.tied && !strcmp(name, "lm_head.weight");
        if (!alias && !f->t[i].tied_to && !params_find(&m->params, name))
            log_warn("%s: tensor %s is not part of a %s model and is not used", f->path, name,
                     m->spec.family->arch);
    }
}

bool load_spec(Model *m, const TensorFile *f, const Kernels *k, Arena *run, Err *e)
{
    if (!f->config_json)
        return err_set(e, ERR_USAGE, "%s: no config.json: put the model's config.json beside it", f->path);
    ModelSpec s;
    if (!spec_parse(&s, f->config_json, f->path, run, e) || !declare(m, &s, k, run, e)) return false;
    m->config_json = arena_strdup(run, f->config_json, e);
    if (f->generation_json) m->generation_json = arena_strdup(run, f->generation_json, e);
    if (f->tokenizer_path) m->tokenizer_path = arena_strdup(run, f->tokenizer_path, e);
    m->path = arena_strdup(run, f->path, e);
    return !e->code;
}

static bool read_all(Model *m, const TensorFile *f, Keep keep, const ModelStore *st, Err *e)
{
    for (int i = 0; i < m->params.n && !e->code; i++) read_param(m, m->params.p[i], f, keep, st, e);
    if (!e->code) load_warn_unused(m, f);
    return !e->code;
}

bool model_from_file(Model *m, const TensorFile *f, const Kernels *k, Arena *run, Err *e)
{
    return load_spec(m, f, k, run, e) && read_all(m, f, OWNED, NULL, e);
}

bool model_open(Model *m, const char *path, const Kernels *k, Arena *run, Err *e)
{
    Arena tmp = {.name = "file"};
    TensorFile f = {0};
    bool ok = formats_open(&f, path, &tmp, e) && model_from_file(m, &f, k, run, e);
    formats_close(&f);
    arena_free(&tmp);
    return ok;
}

static bool open_kept(Model *m, const char *path, Keep keep, const ModelStore *st, const Kernels *k,
                      Arena *run, Err *e)
{
    TensorFile f = {0};
    bool ok = formats_open(&f, path, run, e) && load_spec(m, &f, k, run, e) && read_all(m, &f, keep, st, e);
    if (ok && (m->mapped_bytes || m->n_packed)) {
        m->file = arena_alloc(run, sizeof f, e);
        if (m->file) *m->file = f;
        else formats_close(&f);
        return !e->code;
    }
    formats_close(&f);
    return ok;
}

bool model_open_frozen(Model *m, const char *path, const Kernels *k, Arena *run, Err *e)
{
    return open_kept(m, path, IN_PLACE, NULL, k, run, e);
}

bool model_open_packed(Model *m, const char *path, const Kernels *k, Arena *run, Err *e)
{
    return open_kept(m, path, PACKED, NULL, k, run, e);
}

bool model_open_stored(Model *m, const char *path, const ModelStore *st, const Kernels *k, Arena *run, Err *e)
{
    return open_kept(m, path, IN_PLACE, st, k, run, e);
}

void model_close(Model *m)
{
    if (m->file) formats_close(m->file);
    m->file = NULL;
}

static bool ends_with(const char *s, const char *tail)
{
    size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

bool model_fresh(Model *m, const ModelSpec *s, uint64_t seed, const Kernels *k, Arena *run, Err *e)
{
    if (!declare(m, s, k, run, e)) return false;
    m->config_json = spec_json(s, run, e);
    Arena tmp = {.name = "initialisation"};
    for (int i = 0; i < m->params.n && !e->code; i++) {
        Param *p = m->params.p[i];
        size_t n = (size_t)t_numel(&p->w);
        p->w.data = arena_alloc(run, n * k->real, e);
        if (!p->w.data) break;
        if (p->w.ndim < 2) {
            k->fill(p->w.data, ends_with(p->name, ".bias") || s->family->plus_one ? 0.0 : 1.0, (long)n);
            continue;
        }
        bool residual = ends_with(p->name, "o_proj.weight") || ends_with(p->name, "down_proj.weight") ||
                        ends_with(p->name, "c_proj.weight");
        RngKey key = {.seed = seed, .stream = rng_stream(p->name)};
        float *v = k->real == sizeof(float) ? p->w.data : arena_alloc(&tmp, n * sizeof *v, e);
        if (!v) break;
        rng_normal_f32(v, n, key, 0.0, s->init_std * (residual ? s->residual_scale : 1));
        for (size_t j = 0; k->real == sizeof(double) && j < n; j++) ((double *)p->w.data)[j] = v[j];
    }
    arena_free(&tmp);
    return !e->code;
}

int model_freeze(Model *m, const char *glob)
{
    int count = 0;
    for (int i = 0; i < m->params.n; i++)
        if (glob_match(glob, m->params.p[i]->name)) {
            m->params.p[i]->frozen = true;
            count++;
        }
    return count;
}

/* The effective weight of a parameter: NULL when nothing hangs on it. */
static Tensor *merged(Graph *g, const Model *m, Param *p)
{
    for (int i = 0; i < m->n_site; i++) {
        Site *s = &m->site[i];
        if (s->w == p && (s->n_wx || s->n_side || s->q)) return site_merged(g, s);
    }
    Tensor *w = p->w.hook ? graph_param(g, &p->w) : NULL;
    for (const TensorHook *h = p->w.hook; h; h = h->next) w = h->merge(g, w, h);
    return w;
}

/* The values a writer stores: the weight itself, or what its site's attachments make of it. */
static const void *effective(const Model *m, Param *p, Graph **keep, Arena *a, Err *e)
{
    Graph *g = graph_new(&(GraphOptions){.k = m->params.k, .run = a}, e);
    if (!g) return NULL;
    Tensor *w = merged(g, m, p);
    if (!w && !graph_err(g)->code) {
        graph_free(g);
        return p->w.data;
    }
    *keep = g;
    graph_keep(g, w);
    if (!graph_plan(g, e)) return NULL;
    graph_forward(g);
    return w->data;
}

bool model_out(const Model *m, OutModel *out, DType dtype, Arena *a, Err *e)
{
    OutTensor *t = arena_alloc(a, (size_t)m->params.n * sizeof *t, e);
    if (!t) return false;
    *out = (OutModel){.t = t,
                      .arch = m->spec.family ? m->spec.family->arch : NULL,
                      .config_json = m->config_json,
                      .generation_json = m->generation_json,
                      .tokenizer_path = m->tokenizer_path};
    for (int i = 0; i < m->params.n && !e->code; i++) {
        Param *p = m->params.p[i];
        if (p->aux) continue;
        Graph *g = NULL;
        const void *v = weight_is_half(&p->w) ? model_floats(m, p, a, e) : effective(m, p, &g, a, e);
        size_t n = (size_t)t_numel(&p->w);
        if (v && m->params.k->real == sizeof(double) && !weight_is_half(&p->w)) {
            float *f = arena_alloc(a, n * sizeof *f, e);
            for (size_t j = 0; f && j < n; j++) f[j] = (float)((const double *)v)[j];
            v = f;
        }
        t[out->n] = (OutTensor){
            .name = p->name, .ndim = p->w.ndim, .src = v, .dtype = dtype, .in_out = p->in_out};
        for (int d = 0; d < p->w.ndim; d++) t[out->n].dim[d] = p->w.dim[d];
        out->n++;
        graph_free(g);
    }
    return !e->code;
}

/* Of the values as floats, whatever the run computes in. */
static bool values_hash(char hex[33], const Model *m, const Param *p, Err *e)
{
    Arena tmp = {.name = "hash"};
    const float *v = model_floats(m, p, &tmp, e);
    if (v) hash128_hex(hex, v, (size_t)t_numel(&p->w) * sizeof *v);
    arena_free(&tmp);
    return !e->code;
}

const char *model_content_hash(const Model *m, Arena *a, Err *e)
{
    char line[NAME_LEN + 64], hex[33];
    char *all = arena_strdup(a, "", e);
    for (int i = 0; all && i < m->params.n; i++) {
        const Param *p = m->params.p[i];
        if (p->aux) continue;
        if (!p->hash && !values_hash(hex, m, p, e)) return NULL;
        snprintf(line, sizeof line, "%s %s\n", p->name, p->hash ? p->hash : hex);
        all = arena_printf(a, e, "%s%s", all, line);
    }
    if (!all) return NULL;
    hash128_hex(hex, all, strlen(all));
    return arena_strdup(a, hex, e);
}
