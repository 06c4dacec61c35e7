/* compress/lora_peft.c: adapter folders as peft has them (formats.md 5): adapter_config.json,
 * adapter_model.safetensors.
 *
 *   base_model.model.<module>.lora_A.weight [r,in]   .lora_B.weight [out,r]   .lora_magnitude_vector [out]
 *                            .lora_embedding_A [r,V]  .lora_embedding_B [C,r]
 *   base_model.model.<module>.weight                 a module trained in full (modules_to_save)
 *
 * A folder of ours holds the base's content hash in the safetensors' metadata (base_content_xxh3_128). A
 * PiSSA adapter is written as the difference to its start, rank 2r: it then fits the base that everybody
 * has. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "compress/lora_impl.h"
#include <jansson.h>
#include <math.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char prefix[] = "base_model.model.";

void param_put(const Kernels *k, void *dst, const float *src, size_t n)
{
    if (k->real == sizeof(float)) memcpy(dst, src, n * sizeof *src);
    else
        for (size_t i = 0; i < n; i++) ((double *)dst)[i] = (double)src[i];
}

float *param_floats(const Kernels *k, const void *src, size_t n, Arena *a, Err *e)
{
    float *v = arena_alloc(a, n * sizeof *v, e);
    if (v && k->real == sizeof(float)) memcpy(v, src, n * sizeof *v);
    else
        for (size_t i = 0; v && i < n; i++) v[i] = (float)((const double *)src)[i];
    return v;
}

/* ---- reading ---- */
typedef struct Peft {
    Lora *l;
    const char *dir;
    json_t *j;
    TensorFile f;
    Arena *a;
    Err *e;
} Peft;

static double number(const Peft *p, const char *key, double def)
{
    const json_t *v = json_object_get(p->j, key);
    return json_is_number(v) ? json_number_value(v) : def;
}
static bool truth(const Peft *p, const char *key) { return json_is_true(json_object_get(p->j, key)); }

/* Keys whose meaning we do not have: anything but null, false, empty. */
static bool refuse_unknown(Peft *p)
{
    static const char *const later[] = {
        "layer_replication", "megatron_config", "use_qalora",    "alora_invocation_tokens", "arrow_config",
        "lora_bias",         "use_bdlora",      "velora_config", "target_parameters"};
    const char *type = json_string_value(json_object_get(p->j, "peft_type"));
    if (!type || strcmp(type, "LORA"))
        return err_set(p->e, ERR_USAGE, "%s/adapter_config.json: peft_type is %s; only LORA is read", p->dir,
                       type ? type : "missing");
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        const json_t *v = json_object_get(p->j, later[i]);
        if (!v || json_is_null(v) || json_is_false(v) || (json_is_object(v) && !json_object_size(v)) ||
            (json_is_array(v) && !json_array_size(v)))
            continue;
        return err_set(p->e, ERR_USAGE, "%s/adapter_config.json: %s is not supported", p->dir, later[i]);
    }
    return true;
}

/* Is module matched by key, as peft reads it: a regular expression that is the whole path or its end behind a
 * dot? */
static bool key_matches(Peft *p, const char *key, const char *module)
{
    int code = 0;
    size_t at = 0;
    const char *whole = arena_printf(p->a, p->e, "^(.*\\.)?(%s)$", key);
    pcre2_code *re = whole ? pcre2_compile((PCRE2_SPTR)whole, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL)
                           : NULL;
    pcre2_match_data *d = re ? pcre2_match_data_create(1, NULL) : NULL;
    const int hit = d ? pcre2_match(re, (PCRE2_SPTR)module, strlen(module), 0, 0, d, NULL) : -1;
    if (whole && !re)
        err_set(p->e, ERR_USAGE, "%s/adapter_config.json: \"%s\" is no regular expression", p->dir, key);
    pcre2_match_data_free(d);
    pcre2_code_free(re);
    return hit >= 0;
}

static double by_pattern(Peft *p, const char *map, const char *module, double def)
{
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(p->j, map), key,
                        v) if (json_is_number(v) && key_matches(p, key, module)) return json_number_value(v);
    return def;
}

static bool fill(Peft *p, Param *to, const FileTensor *t, bool turned)
{
    const Kernels *k = p->l->m->params.k;
    const long rows = to->w.dim[0], cols = to->w.ndim > 1 ? to->w.dim[1] : 1, n = rows * cols;
    int64_t dim[4] = {0};
    formats_dims(t, dim);
    if (t->ndim != to->w.ndim || dim[0] != (turned ? cols : rows) ||
        (t->ndim > 1 && dim[1] != (turned ? rows : cols)))
        return err_set(p->e, ERR_USAGE, "%s: %s is %lld x %lld, the model wants %ld x %ld", p->f.path,
                       t->stored_name, (long long)dim[0], (long long)(t->ndim > 1 ? dim[1] : 1),
                       turned ? cols : rows, turned ? rows : cols);
    Arena tmp = {.name = "adapter"};
    float *v = arena_alloc(&tmp, (size_t)n * sizeof *v, p->e), *w = v;
    if (v && formats_read_f32(&p->f, t, v, p->e)) {
        for (long i = 0; i < n && !p->e->code; i++)
            if (!isfinite(v[i]))
                err_set(p->e, ERR_CORRUPT, "%s: %s holds NaN or infinity", p->f.path, t->stored_name);
        if (turned && (w = arena_alloc(&tmp, (size_t)n * sizeof *w, p->e)))
            for (long i = 0; i < rows; i++)
                for (long j = 0; j < cols; j++) w[i * cols + j] = v[j * rows + i];
        if (!p->e->code) param_put(k, to->w.data, w, (size_t)n);
    }
    arena_free(&tmp);
    return !p->e->code;
}

static const FileTensor *tensor_of(const Peft *p, const char *module, const char *what)
{
    const char *name = arena_printf(p->a, p->e, "%s%s.%s", prefix, module, what);
    return name ? formats_find(&p->f, name) : NULL;
}

static bool read_module(Peft *p, const char *module, const FileTensor *a, bool table)
{
    Lora *l = p->l;
    const long r = (long)a->dim[0];
    LoraItem *it = lora_add(l, module, r, by_pattern(p, "alpha_pattern", module, l->alpha), p->e);
    if (!it) return err_prefix(p->e, "%s", p->dir);
    const FileTensor *b = tensor_of(p, module, table ? "lora_embedding_B" : "lora_B.weight"),
                     *m = it->m ? tensor_of(p, module, "lora_magnitude_vector") : NULL;
    if (it->m && !m) m = tensor_of(p, module, "lora_magnitude_vector.weight");
    if (!b || (it->m && !m))
        return err_set(p->e, ERR_CORRUPT, "%s: %s has lora_A but no %s", p->f.path, module,
                       b ? "lora_magnitude_vector" : "lora_B");
    return fill(p, it->a, a, table) && fill(p, it->b, b, false) && (!m || fill(p, it->m, m, false));
}

/* A whole tensor: beside the model's own, until the adapter is used. */
static bool read_saved(Peft *p, const FileTensor *t, const char *name)
{
    Model *m = p->l->m;
    Param *to = params_find(&m->params, name);
    const char *head = arena_printf(p->a, p->e, "%s.weight", m->spec.family->name.head);
    if (!to && m->spec.tied && head && !strcmp(name, head)) return true; /* the embedding's twin */
    if (!to || to->aux) return err_set(p->e, ERR_USAGE, "%s: %s is no tensor of the model", p->f.path, name);
    LoraSaved *s = lora_save_add(p->l, to, p->e);
    void *values = arena_alloc(m->run, (size_t)t_numel(&to->w) * m->params.k->real, p->e);
    if (!s || !values) return false;
    Param fake = *to;
    fake.w.data = values;
    s->own = to->w.data;
    s->values = values;
    if (!fill(p, &fake, t, to->in_out)) return false;
    const bool same = to->w.data && !memcmp(values, to->w.data, (size_t)t_numel(&to->w) * m->params.k->real);
    if (same) p->l->n_saved--;
    return true;
}

static bool ends(const char *s, const char *tail)
{
    const size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

static bool read_tensor(Peft *p, const FileTensor *t)
{
    const char *name = t->name;
    if (strncmp(name, prefix, sizeof prefix - 1))
        return err_set(p->e, ERR_USAGE, "%s: %s does not begin with %s", p->f.path, name, prefix);
    name += sizeof prefix - 1;
    const char *mark = strstr(name, ".lora_"),
               *module = mark ? arena_strndup(p->a, name, (size_t)(mark - name), p->e) : NULL;
    if (module && ends(name, ".lora_A.weight")) return read_module(p, module, t, false);
    if (module && ends(name, ".lora_embedding_A")) return read_module(p, module, t, true);
    if (module &&
        (ends(name, ".lora_B.weight") || ends(name, ".lora_embedding_B") || strstr(name, "magnitude")))
        return true;
    if (module) return err_set(p->e, ERR_USAGE, "%s: %s is not supported", p->f.path, t->name);
    /* peft also keeps the table under an adapter of an embedding or the head */
    const char *base = strstr(name, ".base_layer.");
    if (base)
        name = arena_printf(p->a, p->e, "%.*s%s", (int)(base - name), name, base + strlen(".base_layer"));
    return name && read_saved(p, t, name);
}

static void read_hash(Peft *p)
{
    json_t *meta = p->f.metadata_json ? json_loads(p->f.metadata_json, 0, NULL) : NULL;
    const char *h = json_string_value(json_object_get(meta, "base_content_xxh3_128"));
    if (h) p->l->base_hash = arena_strdup(p->l->m->run, h, p->e);
    json_decref(meta);
}

bool lora_read_peft(Lora *l, const char *dir, Err *e)
{
    Arena tmp = {.name = "adapter"};
    Peft p = {.l = l, .dir = dir, .a = &tmp, .e = e};
    size_t n;
    const char *path = path_join(&tmp, dir, "adapter_config.json", e),
               *tensors = path_join(&tmp, dir, "adapter_model.safetensors", e);
    char *text = path ? file_read(&tmp, path, &n, e) : NULL;
    json_error_t why;
    p.j = text ? json_loadb(text, n, 0, &why) : NULL;
    if (text && !json_is_object(p.j)) err_set(e, ERR_CORRUPT, "%s:%d: %s", path, why.line, why.text);
    if (!e->code && refuse_unknown(&p) && formats_open(&p.f, tensors, &tmp, e)) {
        l->r = (long)number(&p, "r", 8);
        l->alpha = number(&p, "lora_alpha", 8);
        l->dropout = number(&p, "lora_dropout", 0);
        l->rslora = truth(&p, "use_rslora");
        l->dora = truth(&p, "use_dora");
        read_hash(&p);
        const char *base = json_string_value(json_object_get(p.j, "base_model_name_or_path"));
        if (base) l->base_path = arena_strdup(l->m->run, base, e);
        for (int i = 0; i < p.f.n && !e->code; i++) read_tensor(&p, &p.f.t[i]);
        if (!e->code && !l->n && !l->n_saved) err_set(e, ERR_CORRUPT, "%s: it holds no adapter", tensors);
    }
    formats_close(&p.f);
    json_decref(p.j);
    arena_free(&tmp);
    return !e->code;
}

/* ---- writing ---- */
typedef struct Out {
    const Lora *l;
    OutTensor *t;
    int n, cap;
    Arena *a;
    Err *e;
} Out;

static void put(Out *o, const char *module, const char *what, const float *v, int ndim, long d0, long d1,
                bool turned)
{
    if (o->e->code || o->n == o->cap) return;
    const char *name = arena_printf(o->a, o->e, "%s%s%s%s", prefix, module, *what ? "." : "", what);
    o->t[o->n++] = (OutTensor){.name = name,
                               .ndim = ndim,
                               .dim = {d0, d1},
                               .src = v,
                               .dtype = DT_F32,
                               .in_out = turned && ndim == 2};
}

static const float *floats(Out *o, const Param *p)
{
    return param_floats(o->l->m->params.k, p->w.data, (size_t)t_numel(&p->w), o->a, o->e);
}

/* [A; A0] and [B, -B0]: what the adapter has learned, on the untouched base. */
static void put_pissa(Out *o, const LoraItem *it)
{
    const long r = it->r, in = it->a->w.dim[1], out = it->b->w.dim[0];
    const float *a[2] = {floats(o, it->a), floats(o, it->a0)}, *b[2] = {floats(o, it->b), floats(o, it->b0)};
    float *aa = arena_alloc(o->a, (size_t)(2 * r * in) * sizeof *aa, o->e),
          *bb = arena_alloc(o->a, (size_t)(2 * r * out) * sizeof *bb, o->e);
    if (o->e->code) return;
    for (int h = 0; h < 2; h++) {
        memcpy(aa + h * r * in, a[h], (size_t)(r * in) * sizeof *aa);
        for (long i = 0; i < out; i++)
            for (long j = 0; j < r; j++) bb[i * 2 * r + h * r + j] = h ? -b[h][i * r + j] : b[h][i * r + j];
    }
    put(o, it->module, "lora_A.weight", aa, 2, 2 * r, in, false);
    put(o, it->module, "lora_B.weight", bb, 2, out, 2 * r, false);
}

static void put_item(Out *o, const LoraItem *it)
{
    if (it->a0) {
        put_pissa(o, it);
        return;
    }
    const bool table = !it->site;
    /* OutTensor.in_out writes the transpose of (d0,d1) */
    put(o, it->module, table ? "lora_embedding_A" : "lora_A.weight", floats(o, it->a), 2, it->a->w.dim[0],
        it->a->w.dim[1], table);
    put(o, it->module, table ? "lora_embedding_B" : "lora_B.weight", floats(o, it->b), 2, it->b->w.dim[0],
        it->b->w.dim[1], false);
    if (it->m) put(o, it->module, "lora_magnitude_vector", floats(o, it->m), 1, it->m->w.dim[0], 0, false);
}

static void put_saved(Out *o, const LoraSaved *s)
{
    const Model *m = o->l->m;
    Param p = *s->p;
    if (s->values) p.w.data = s->values;
    const float *v = floats(o, &p);
    put(o, p.name, "", v, p.w.ndim, p.w.dim[0], p.w.dim[1], p.in_out);
    const char *module = module_of(p.name, o->a, o->e);
    /* peft keeps tied modules apart: both get the values */
    if (module && m->spec.tied && !strcmp(module, m->spec.family->name.embed))
        put(o, m->spec.family->name.head, "weight", v, p.w.ndim, p.w.dim[0], p.w.dim[1], false);
}

static const char *last_part(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot ? dot + 1 : module;
}

static bool has_item(const Lora *l, const char *module)
{
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->item[i].module, module)) return true;
    return false;
}

static bool listed(const json_t *list, const char *text)
{
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!strcmp(json_string_value(json_array_get(list, i)), text)) return true;
    return false;
}

/* Last parts of paths, as peft itself writes, where they mean just these modules; else whole paths. */
static json_t *target_list(const Lora *l)
{
    json_t *list = json_array();
    for (int i = 0; i < l->n; i++) {
        const char *part = last_part(l->item[i].module);
        bool just = true;
        for (int j = 0; j < l->m->n_site; j++)
            if (module_match(part, l->m->site[j].name) && !has_item(l, l->m->site[j].name)) just = false;
        const char *text = just ? part : l->item[i].module;
        if (!listed(list, text)) json_array_append_new(list, json_string(text));
    }
    return list;
}

static json_t *saved_list(const Lora *l, Arena *a, Err *e)
{
    json_t *list = json_array();
    for (int i = 0; i < l->n_saved; i++) {
        const char *module = module_of(l->saved[i].p->name, a, e);
        if (module && !listed(list, module)) json_array_append_new(list, json_string(module));
        if (module && l->m->spec.tied && !strcmp(module, l->m->spec.family->name.embed))
            json_array_append_new(list, json_string(l->m->spec.family->name.head));
    }
    if (json_array_size(list)) return list;
    json_decref(list);
    return json_null();
}

/* PiSSA doubles the rank; its scale must not change. */
static double alpha_of(const Lora *l, const LoraItem *it, double alpha)
{
    return !it->a0 ? alpha : l->rslora ? alpha * sqrt(2) : 2 * alpha;
}

static char *config_text(const Lora *l, Arena *a, Err *e)
{
    const long twice = l->n && l->item[0].a0 ? 2 : 1;
    const double alpha = l->n ? alpha_of(l, &l->item[0], l->alpha) : l->alpha;
    json_t *ranks = json_object(), *alphas = json_object();
    for (int i = 0; i < l->n; i++) {
        const LoraItem *it = &l->item[i];
        if (it->r != l->r) json_object_set_new(ranks, it->module, json_integer(it->r * twice));
        if (it->alpha < l->alpha || it->alpha > l->alpha)
            json_object_set_new(alphas, it->module, json_real(alpha_of(l, it, it->alpha)));
    }
    const double whole = floor(alpha);
    json_t *j = json_pack(
        "{s:s,s:n,s:s?,s:n,s:s,s:b,s:I,s:o,s:f,s:s,s:b,s:o,s:n,s:o,s:n,s:n,s:o,s:o,s:b,s:b,s:b,s:{}}",
        "peft_type", "LORA", "auto_mapping", "base_model_name_or_path", l->base_path, "revision", "task_type",
        "CAUSAL_LM", "inference_mode", 1, "r", (json_int_t)(l->r * twice), "lora_alpha",
        alpha > whole ? json_real(alpha) : json_integer((json_int_t)whole), "lora_dropout", l->dropout,
        "bias", "none", "fan_in_fan_out", l->m->spec.family->in_out, "target_modules", target_list(l),
        "exclude_modules", "modules_to_save", saved_list(l, a, e), "layers_to_transform", "layers_pattern",
        "rank_pattern", ranks, "alpha_pattern", alphas, "init_lora_weights", 1, "use_rslora", l->rslora,
        "use_dora", l->dora, "loftq_config");
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(17)) : NULL;
    char *copy = text ? arena_strdup(a, text, e) : NULL;
    if (!copy) err_set(e, ERR_MEMORY, "out of memory for adapter_config.json");
    free(text);
    json_decref(j);
    return copy;
}

bool lora_write_peft(const Lora *l, const char *dir, Err *e)
{
    Arena tmp = {.name = "adapter"};
    Out o = {.l = l, .cap = 3 * l->n + 2 * l->n_saved + 1, .a = &tmp, .e = e};
    o.t = arena_alloc(&tmp, (size_t)o.cap * sizeof *o.t, e);
    for (int i = 0; o.t && i < l->n; i++) put_item(&o, &l->item[i]);
    for (int i = 0; o.t && i < l->n_saved; i++) put_saved(&o, &l->saved[i]);
    const char *config = path_join(&tmp, dir, "adapter_config.json", e),
               *tensors = path_join(&tmp, dir, "adapter_model.safetensors", e);
    char *text = config_text(l, &tmp, e);
    OutModel m = {.n = o.n, .t = o.t};
    if (l->base_hash)
        m.metadata_json = arena_printf(&tmp, e, "{\"base_content_xxh3_128\": \"%s\"}", l->base_hash);
    if (!e->code && dir_make(dir, e) && formats_write_safetensors(tensors, &m, e))
        file_write_atomic(config, text, strlen(text), e);
    arena_free(&tmp);
    return !e->code;
}
