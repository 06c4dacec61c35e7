/* formats/h5model.c: a model inside an HDF5 container, to and from a TensorFile (product.md 6.1 to 6.3).
 *
 *   /config/model_json  /config/generation_json  /config/run_yaml      texts; the tokenizer: h5tokenizer.c
 *   /tensors/<HF name>            plain tensor, or a soft link (tied weights)
 *   /tensors/<HF name>/<member>   encoded tensor: listed as `<HF name>.<member>`; its group's attributes are
 *                                 one JSON text per name in metadata_json, as a safetensors file has them */
#include <stdlib.h>
#include <string.h>
#include "formats/hdf5_impl.h"

static bool list_tensor(TensorFile *f, H5In *h, const char *path, const char *name, Err *e)
{
    FileTensor *t = tensors_add(f, 1, e);
    if (!t) return false;
    t->name = name;
    t->stored_name = arena_strdup(f->arena, path, e);
    if (h5_kind(h, path) == H5_SOFT) {
        const char *target = h5_link_target(h, path, e);
        if (!target) return false;
        if (strncmp(target, "/tensors/", 9) || h5_kind(h, target) != H5_DATASET)
            return err_set(e, ERR_CORRUPT, "%s: link `%s` does not lead to a tensor", f->path, path);
        t->tied_to = target + 9;
        path = t->stored_name = target;
    }
    if (!h5_tensor_info(h, path, &t->dtype, &t->ndim, t->dim, e)) return false;
    t->bytes = dtype_size(t->dtype);
    for (int i = 0; i < t->ndim; i++) t->bytes *= (size_t)t->dim[i];
    t->data = h5_view(h, path, t->bytes, e);
    Err none = {0};
    const char *layout = h5_get_str(h, path, "layout", &none);
    t->in_out = t->ndim == 2 && layout && !strcmp(layout, "in_out");
    return t->data != NULL;
}

/* The members are laid out out_in whatever the group's layout says; decoding is not this floor's business. */
static bool list_group(TensorFile *f, H5In *h, const char *path, const char *name, json_t *metadata, Err *e)
{
    const char *member[16];
    int n = h5_list(h, path, member, 16);
    const char *attrs = h5_attrs_json(h, path, e);
    if (!attrs || json_object_set_new(metadata, name, json_string(attrs)) != 0)
        return err_set(e, ERR_MEMORY, "%s: out of memory for the attributes of `%s`", f->path, name);
    for (int i = 0; i < n && !e->code; i++) {
        char *at = arena_printf(f->arena, e, "%s/%s", path, member[i]);
        char *flat = arena_printf(f->arena, e, "%s.%s", name, member[i]);
        if (!flat) return false;
        if (h5_kind(h, at) == H5_GROUP) {
            if (!list_group(f, h, at, flat, metadata, e)) return false;
        } else if (!list_tensor(f, h, at, flat, e)) {
            return false;
        }
    }
    return !e->code;
}

static bool list_all(TensorFile *f, H5In *h, Err *e)
{
    int64_t n = h5_count(h, "/tensors");
    if (n < 0) return err_set(e, ERR_CORRUPT, "%s: no group /tensors: it holds no model", f->path);
    const char **name = arena_alloc(f->arena, (size_t)n * sizeof *name, e);
    if (!name) return false;
    n = h5_list(h, "/tensors", name, (int)n);
    json_t *metadata = json_object();
    for (int64_t i = 0; i < n && !e->code; i++) {
        char *path = arena_printf(f->arena, e, "/tensors/%s", name[i]);
        if (!path) break;
        if (h5_kind(h, path) == H5_GROUP) list_group(f, h, path, name[i], metadata, e);
        else list_tensor(f, h, path, name[i], e);
    }
    if (json_object_size(metadata)) {
        char *text = json_dumps(metadata, JSON_COMPACT);
        f->metadata_json = text ? arena_strdup(f->arena, text, e) : NULL;
        free(text);
    }
    json_decref(metadata);
    return !e->code;
}

bool h5model_read(TensorFile *f, const char *path, bool trust_foreign, Err *e)
{
    FormatsImpl *im = f->impl;
    Err none = {0};
    f->format = FMT_HDF5;
    f->dir = path_dir(f->arena, path, e);
    H5In *h = f->dir ? h5_open(path, trust_foreign, f->arena, e) : NULL;
    if (!h) return false;
    im->h5 = h;
    const char *kind = h5_get_str(h, "/", "kind", &none);
    if (kind) f->kind = kind;
    if (strcmp(f->kind, "model") && strcmp(f->kind, "train_state"))
        return err_set(e, ERR_FAIL, "%s: a file of kind `%s` holds no model", path, f->kind);
    none = (Err){0};
    f->step = 0;
    h5_get_i64(h, "/", "step", &f->step, &none);
    if (!hf_beside(f, f->dir, e)) return false;
    f->config_json = f->generation_json = f->arch = NULL; /* only the tokenizer beside it counts */
    if (h5_has_tokenizer(h)) f->tokenizer_path = f->path; /* and its own before that */
    if (h5_has(h, "/config/model_json")) {
        const char *text = h5_read_text(h, "/config/model_json", e);
        if (!text || !config_take(f, text, path, e)) return false;
    }
    if (h5_has(h, "/config/generation_json"))
        f->generation_json = h5_read_text(h, "/config/generation_json", e);
    return !e->code && list_all(f, h, e);
}

/* ---- writing ------------------------------------------------------------------------------------------- */

static void put_tensor(H5Out *h, const OutTensor *out, const char *file, Arena *a, Err *e)
{
    int64_t dim[4];
    ArenaMark mark = arena_mark(a);
    OutTensor pulled;
    const OutTensor *t = out_pull(out, &pulled, a, e);
    char *path = t->member_of
                     ? arena_printf(a, e, "/tensors/%s/%s", t->member_of, t->name + strlen(t->member_of) + 1)
                     : arena_printf(a, e, "/tensors/%s", t->name);
    if (!path) return;
    if (strchr(t->name, '/') || !strcmp(t->name, ".")) {
        err_set(e, ERR_FAIL, "%s: tensor `%s`: a name with `/` cannot be stored in HDF5", file, t->name);
    } else if (t->tied_to) {
        char *target = arena_printf(a, e, "/tensors/%s", t->tied_to);
        if (target) h5_link(h, path, target);
    } else {
        size_t bytes = out_bytes(t);
        const void *data = t->raw ? t->raw : t->dtype == DT_F32 && !t->in_out ? t->src : NULL;
        if (!data) {
            void *stored = arena_alloc(a, bytes, e);
            if (stored) out_fill(t, 0, bytes / dtype_size(t->dtype), stored);
            data = stored;
        }
        out_dims(t, dim);
        if (data) h5_tensor_layout(h, path, t->dtype, t->ndim, dim, data, t->in_out);
    }
    arena_release(a, mark);
}

/* An encoded tensor's attributes, onto its group. */
static void put_group(H5Out *h, const OutGroup *g, const char *file, Arena *a, Err *e)
{
    const char *object = arena_printf(a, e, "/tensors/%s", g->name), *key;
    json_t *attrs = json_object_of(g->attrs_json, strlen(g->attrs_json), file, e), *v;
    json_object_foreach(attrs, key, v)
    {
        int64_t list[4] = {0};
        if (json_is_string(v)) h5_attr_str(h, object, key, json_string_value(v));
        else if (json_is_integer(v)) h5_attr_i64(h, object, key, json_integer_value(v));
        else if (json_is_boolean(v)) h5_attr_i64(h, object, key, json_is_true(v));
        else if (json_is_real(v)) h5_attr_f64(h, object, key, json_real_value(v));
        else if (json_is_array(v) && json_array_size(v) <= 4) {
            for (size_t i = 0; i < json_array_size(v); i++)
                list[i] = json_integer_value(json_array_get(v, i));
            h5_attr_i64s(h, object, key, list, (int)json_array_size(v));
        }
    }
    json_decref(attrs);
}

void h5_encoded(H5Out *h, const char *name, bool in_out, const float *x, const QuantSpec *s,
                const QuantScales *q, long rows, long cols, Arena *a, Err *e)
{
    OutTensor t[ENCODED_MEMBERS];
    OutGroup group;
    int n = 0;
    if (!formats_encode(t, &n, &group, name, in_out, x, s, q, rows, cols, a, e)) return;
    for (int i = 0; i < n && !e->code; i++) put_tensor(h, &t[i], name, a, e);
    if (!e->code) put_group(h, &group, name, a, e);
}

/* Logical parameters: those of encoded tensors count once, not by their codes. */
static int64_t logical_params(const OutModel *m)
{
    int64_t n = 0;
    for (int i = 0; i < m->n_group; i++) n += m->group[i].parameters;
    for (int i = 0; i < m->n; i++)
        if (!m->t[i].tied_to && !m->t[i].member_of)
            n += (int64_t)(out_bytes(&m->t[i]) / dtype_size(m->t[i].dtype));
    return n;
}

bool formats_write_h5(const char *path, const OutModel *m, Err *e)
{
    Arena a = {.name = "formats"}, scratch = {.name = "formats"};
    uint64_t bytes = 0;
    if (e->code || !out_check(m, path, e)) return false;
    for (int i = 0; i < m->n; i++) bytes += m->t[i].tied_to ? 0 : out_bytes(&m->t[i]);
    if (!space_check(path, bytes + ENVELOPE, e)) return false;
    H5Out *h = h5_create(path, m->kind ? m->kind : "model", m->arch, m->step, &a, e);
    if (h) {
        if (m->config_json) h5_text(h, "/config/model_json", m->config_json);
        if (m->generation_json) h5_text(h, "/config/generation_json", m->generation_json);
        if (m->run_yaml) h5_text(h, "/config/run_yaml", m->run_yaml);
        h5_put_tokenizer(h, m->tokenizer_path, &scratch, e);
        for (int i = 0; i < m->n && !e->code; i++) put_tensor(h, &m->t[i], path, &scratch, e);
        for (int i = 0; i < m->n_group && !e->code; i++) put_group(h, &m->group[i], path, &scratch, e);
        for (int i = 0; m->also && m->also_path[i] && !e->code; i++)
            h5_copy(h, m->also, m->also_path[i], &scratch, e);
        h5_attr_i64(h, "/", "param_count", logical_params(m));
        if (e->code) h5_abandon(h);
        else h5_commit(h, e);
    }
    arena_free(&scratch);
    arena_free(&a);
    return !e->code;
}
