/* compress/lora_h5.c: adapters in HDF5 (product.md 6.5), in training states and in files of their own (kind
 * adapter).
 *
 *   /lora/<name>  attributes r, alpha, dropout, use_rslora, use_dora, target_modules, saved_tensors,
 *   base_content_xxh3_128, base_model_name
 *   /lora/<name>/<module>/{A [r,in], B [out,r], magnitude [out]}   attribute alpha;   embeddings: A [r,V], B
 *   [C,r]
 *   /lora/<name>/<module>/{A0, B0}                                 PiSSA: the start, already out of the base
 *   /lora/<name>/saved/<tensor>                                    trained in full; a training state has them
 *   in /tensors
 */
#include "compress/lora_impl.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_MODULES = 8192, MAX_ADAPTERS = 64 };

static DType real_of(const Model *m) { return m->params.k->real == sizeof(double) ? DT_F64 : DT_F32; }

/* Embedding tables lie (V,r) in memory and [r,V] in files. */
static void *turned(const Param *p, const Kernels *k, Arena *a, Err *e)
{
    const long rows = p->w.dim[0], cols = p->w.dim[1];
    char *v = arena_alloc(a, (size_t)(rows * cols) * k->real, e);
    for (long i = 0; v && i < rows; i++)
        for (long j = 0; j < cols; j++)
            memcpy(v + (size_t)(j * rows + i) * k->real,
                   (const char *)p->w.data + (size_t)(i * cols + j) * k->real, k->real);
    return v;
}

static void put(const Lora *l, H5Out *h, const char *module, const char *what, const Param *p, bool turn,
                Arena *a, Err *e)
{
    if (!p || e->code) return;
    const char *path = arena_printf(a, e, "/lora/%s/%s/%s", l->name, module, what);
    int64_t dim[2] = {p->w.dim[turn ? 1 : 0], p->w.dim[turn ? 0 : 1]};
    const void *data = turn ? turned(p, l->m->params.k, a, e) : p->w.data;
    if (path && data) h5_tensor(h, path, real_of(l->m), p->w.ndim, dim, data);
}

static char *modules_json(const Lora *l)
{
    json_t *list = json_array();
    for (int i = 0; i < l->n; i++) json_array_append_new(list, json_string(l->item[i].module));
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

static char *saved_json(const Lora *l)
{
    json_t *list = json_array();
    for (int i = 0; i < l->n_saved; i++) json_array_append_new(list, json_string(l->saved[i].p->name));
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

static void put_all(const Lora *l, H5Out *h, bool with_saved, Arena *a, Err *e)
{
    const char *group = arena_printf(a, e, "/lora/%s", l->name);
    char *modules = modules_json(l), *saved = saved_json(l);
    const bool ok = group && modules && saved;
    if (ok) {
        h5_attr_i64(h, group, "r", l->r);
        h5_attr_f64(h, group, "alpha", l->alpha);
        h5_attr_f64(h, group, "dropout", l->dropout);
        h5_attr_i64(h, group, "use_rslora", l->rslora);
        h5_attr_i64(h, group, "use_dora", l->dora);
        h5_attr_i64(h, group, "respect_mask", l->respect_mask);
        h5_attr_str(h, group, "target_modules", modules);
        h5_attr_str(h, group, "saved_tensors", saved);
        h5_attr_str(h, group, "base_content_xxh3_128", l->base_hash ? l->base_hash : "");
        h5_attr_str(h, group, "base_model_name", l->base_path ? l->base_path : "");
    } else err_set(e, ERR_MEMORY, "adapter %s: out of memory for its attributes", l->name);
    free(modules);
    free(saved);
    if (!ok) return;
    for (int i = 0; i < l->n && !e->code; i++) {
        const LoraItem *it = &l->item[i];
        ArenaMark mark = arena_mark(a);
        put(l, h, it->module, "A", it->a, !it->site, a, e);
        put(l, h, it->module, "B", it->b, false, a, e);
        put(l, h, it->module, "magnitude", it->m, false, a, e);
        put(l, h, it->module, "A0", it->a0, false, a, e);
        put(l, h, it->module, "B0", it->b0, false, a, e);
        const char *object = arena_printf(a, e, "%s/%s", group, it->module);
        if (object) {
            h5_attr_f64(h, object, "alpha", it->alpha);
            h5_attr_i64(h, object, "embedding", !it->site);
        }
        arena_release(a, mark);
    }
    for (int i = 0; with_saved && i < l->n_saved && !e->code; i++) {
        Param p = *l->saved[i].p;
        if (l->saved[i].values) p.w.data = l->saved[i].values;
        put(l, h, "saved", p.name, &p, false, a, e);
    }
}

void lora_save(const Lora *l, H5Out *h, Err *e)
{
    Arena tmp = {.name = "adapter"};
    if (l->n) put_all(l, h, false, &tmp, e);
    arena_free(&tmp);
}

bool lora_write_h5(const Lora *l, const char *path, Err *e)
{
    Arena tmp = {.name = "adapter"}, scratch = {.name = "adapter"};
    for (int i = 0; i < l->n && !e->code; i++)
        if (l->item[i].a0)
            err_set(e, ERR_USAGE,
                    "%s: a PiSSA adapter fits only its own changed base; write it as peft, which holds the "
                    "difference to its start",
                    path);
    H5Out *h = e->code ? NULL : h5_create(path, "adapter", l->m->spec.family->arch, 0, &tmp, e);
    if (h) {
        if (l->m->config_json) h5_text(h, "/config/model_json", l->m->config_json);
        put_all(l, h, true, &scratch, e);
        if (e->code) h5_abandon(h);
        else h5_commit(h, e);
    }
    arena_free(&scratch);
    arena_free(&tmp);
    return !e->code;
}

/* ---- reading ---- */
static bool get(const Lora *l, H5In *h, const char *path, Param *p, bool turn, Arena *a, Err *e)
{
    const Kernels *k = l->m->params.k;
    DType t;
    int ndim;
    int64_t dim[4] = {0};
    if (!h5_tensor_info(h, path, &t, &ndim, dim, e)) return false;
    bool same = ndim == p->w.ndim && (t == DT_F32 || t == DT_F64);
    for (int i = 0; same && i < ndim; i++) same = dim[i] == p->w.dim[turn && ndim == 2 ? 1 - i : i];
    if (!same)
        return err_set(e, ERR_USAGE, "%s does not have the shape that the adapter's configuration gives it",
                       path);
    const size_t n = (size_t)t_numel(&p->w);
    ArenaMark mark = arena_mark(a);
    char *raw = arena_alloc(a, n * dtype_size(t), e);
    if (raw && h5_read_tensor(h, path, t, raw, n * dtype_size(t), e))
        for (size_t i = 0; i < n; i++) {
            const size_t rows = (size_t)p->w.dim[0], cols = turn ? (size_t)p->w.dim[1] : 1,
                         at = turn ? (i % cols) * rows + i / cols : i;
            float f;
            double d;
            if (t == DT_F32) {
                memcpy(&f, raw + at * sizeof f, sizeof f);
                d = (double)f;
            } else memcpy(&d, raw + at * sizeof d, sizeof d);
            if (k->real == sizeof(double)) ((double *)p->w.data)[i] = d;
            else ((float *)p->w.data)[i] = (float)d;
        }
    arena_release(a, mark);
    return !e->code;
}

static bool get_member(const Lora *l, H5In *h, const char *group, const LoraItem *it, const char *what,
                       Param *p, Arena *a, Err *e)
{
    const char *path = arena_printf(a, e, "%s/%s/%s", group, it->module, what);
    return path && (!p || get(l, h, path, p, !it->site && !strcmp(what, "A"), a, e));
}

static bool get_item(const Lora *l, H5In *h, const char *group, const LoraItem *it, Arena *a, Err *e)
{
    return get_member(l, h, group, it, "A", it->a, a, e) && get_member(l, h, group, it, "B", it->b, a, e) &&
           get_member(l, h, group, it, "magnitude", it->m, a, e) &&
           get_member(l, h, group, it, "A0", it->a0, a, e) && get_member(l, h, group, it, "B0", it->b0, a, e);
}

static bool get_attrs(Lora *l, H5In *h, const char *group, Err *e)
{
    int64_t r = 0, rs = 0, dora = 0, respect = 1;
    Err none = {0};
    h5_get_i64(h, group, "respect_mask", &respect, &none);
    const char *hash = NULL, *name = NULL;
    if (!h5_get_i64(h, group, "r", &r, e) || !h5_get_f64(h, group, "alpha", &l->alpha, e) ||
        !h5_get_f64(h, group, "dropout", &l->dropout, e) || !h5_get_i64(h, group, "use_rslora", &rs, e) ||
        !h5_get_i64(h, group, "use_dora", &dora, e) ||
        !(hash = h5_get_str(h, group, "base_content_xxh3_128", e)) ||
        !(name = h5_get_str(h, group, "base_model_name", e)))
        return false;
    l->r = (long)r;
    l->rslora = rs != 0;
    l->dora = dora != 0;
    l->respect_mask = respect != 0;
    l->base_hash = *hash ? arena_strdup(l->m->run, hash, e) : NULL;
    l->base_path = *name ? arena_strdup(l->m->run, name, e) : NULL;
    return !e->code;
}

/* One tensor trained in full: the file's values beside the model's own. */
static bool get_saved_one(Lora *l, H5In *h, const char *name, const char *path, Arena *a, Err *e)
{
    Param *p = params_find(&l->m->params, name);
    if (!p)
        return err_set(e, ERR_USAGE, "%s: the adapter trained it, but it is no tensor of the model", name);
    LoraSaved *s = lora_save_add(l, p, e);
    Param to = *p;
    to.w.data = arena_alloc(l->m->run, (size_t)t_numel(&p->w) * l->m->params.k->real, e);
    if (e->code || !path || !get(l, h, path, &to, false, a, e)) return false;
    s->values = to.w.data;
    s->own = p->w.data;
    return true;
}

/* An adapter's file has them below the group, a training state among its tensors. */
static bool get_saved(Lora *l, H5In *h, const char *group, Arena *a, Err *e)
{
    const char **name = arena_alloc(a, MAX_MODULES * sizeof *name, e);
    const char *at = arena_printf(a, e, "%s/saved", group);
    const bool own = name && at && h5_has(h, at);
    const int n = own ? h5_list(h, at, name, MAX_MODULES) : 0;
    for (int i = 0; i < n && !e->code; i++)
        get_saved_one(l, h, name[i], arena_printf(a, e, "%s/%s", at, name[i]), a, e);
    if (own || e->code) return !e->code;
    Err none = {0};
    const char *text = h5_get_str(h, group, "saved_tensors", &none);
    json_t *list = text ? json_loads(text, 0, NULL) : NULL;
    for (size_t i = 0; i < json_array_size(list) && !e->code; i++) {
        const char *which = json_string_value(json_array_get(list, i));
        if (which) get_saved_one(l, h, which, arena_printf(a, e, "/tensors/%s", which), a, e);
    }
    json_decref(list);
    return !e->code;
}

bool lora_read_h5(Lora *l, H5In *h, const char *group, Err *e)
{
    Arena tmp = {.name = "adapter"};
    const char **module = arena_alloc(&tmp, MAX_MODULES * sizeof *module, e);
    int n = module && get_attrs(l, h, group, e) ? h5_list(h, group, module, MAX_MODULES) : 0;
    for (int i = 0; i < n && !e->code; i++) {
        if (!strcmp(module[i], "saved")) continue;
        const char *object = arena_printf(&tmp, e, "%s/%s", group, module[i]),
                   *path = object ? arena_printf(&tmp, e, "%s/A", object) : NULL;
        DType t;
        int ndim;
        int64_t dim[4];
        double alpha = l->alpha;
        Err none = {0};
        if (!path || !h5_tensor_info(h, path, &t, &ndim, dim, e)) break;
        h5_get_f64(h, object, "alpha", &alpha, &none);
        LoraItem *it = lora_add(l, module[i], (long)dim[0], alpha, e);
        if (it && h5_has(h, arena_printf(&tmp, e, "%s/A0", object))) lora_add_start(it, e);
        if (it) get_item(l, h, group, it, &tmp, e);
    }
    if (!e->code) get_saved(l, h, group, &tmp, e);
    arena_free(&tmp);
    return !e->code;
}

bool lora_resume(Lora *l, H5In *h, Err *e)
{
    if (!l->n) return true;
    Arena tmp = {.name = "adapter"};
    const char *group = arena_printf(&tmp, e, "/lora/%s", l->name);
    const char *hash = group ? h5_get_str(h, group, "base_content_xxh3_128", e) : NULL;
    if (hash && l->base_hash && strcmp(hash, l->base_hash))
        err_set(e, ERR_USAGE,
                "the adapter was trained on another base (content hash %s) than model.path gives now (%s): "
                "resume with "
                "the same base, or start a new run.output_dir",
                hash, l->base_hash);
    for (int i = 0; i < l->n && !e->code; i++) get_item(l, h, group, &l->item[i], &tmp, e);
    arena_free(&tmp);
    return !e->code;
}

bool lora_check_base(const Lora *l, const char *path, bool force, Err *e)
{
    if (!l->base_hash) return true;
    Arena tmp = {.name = "adapter"};
    const char *have = model_content_hash(l->m, &tmp, e);
    if (have && strcmp(have, l->base_hash)) {
        if (force)
            log_warn("%s was trained on another base than %s; taken because it was forced", path, l->m->path);
        else
            err_set(e, ERR_USAGE,
                    "%s was trained on another base: content hash %s%s%s, %s has %s. Give that base, or "
                    "--force to "
                    "take it anyway",
                    path, l->base_hash, l->base_path ? ", then at " : "", l->base_path ? l->base_path : "",
                    l->m->path ? l->m->path : "the model", have);
    }
    arena_free(&tmp);
    return !e->code;
}

bool lora_check_start(const Lora *l, const char *path, Err *e)
{
    for (int i = 0; i < l->n; i++)
        if (l->item[i].a0)
            return err_set(
                e, ERR_USAGE,
                "%s: a PiSSA adapter fits only the changed base of its run: use the training state "
                "itself as the model, or its adapter exported as peft",
                path);
    return true;
}

bool lora_read(Lora *l, Model *m, const char *path, const char *name, Err *e)
{
    lora_start(l, m, name);
    if (!formats_is_h5(path)) return lora_read_peft(l, path, e) || err_prefix(e, "adapter %s", name);
    H5In *h = h5_open(path, false, m->run, e);
    const char *group[MAX_ADAPTERS];
    const int n = h ? h5_list(h, "/lora", group, MAX_ADAPTERS) : 0;
    if (h && n < 1) err_set(e, ERR_USAGE, "%s holds no adapter", path);
    if (h && n > 0) {
        int pick = 0;
        for (int i = 0; i < n; i++)
            if (!strcmp(group[i], name)) pick = i;
        const char *at = arena_printf(m->run, e, "/lora/%s", group[pick]);
        if (at) lora_read_h5(l, h, at, e);
    }
    if (h) h5_close(h);
    return !e->code || err_prefix(e, "adapter %s", name);
}

bool lora_load(Lora *l, Model *m, const char *path, const char *name, bool force, Err *e)
{
    return lora_read(l, m, path, name, e) && lora_check_start(l, path, e) &&
           (lora_check_base(l, path, force, e) || err_prefix(e, "adapter %s", name));
}
