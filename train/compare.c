/* train/compare.c: `compare` and `inspect`: what is in files, tensor by tensor, as one JSON document. */
#include "train/train.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *dump(json_t *o, Arena *a, Err *e)
{
    char *s = o ? json_dumps(o, JSON_REAL_PRECISION(9)) : NULL, *copy = s ? arena_strdup(a, s, e) : NULL;
    if (!copy) err_set(e, ERR_MEMORY, "out of memory for the result");
    free(s);
    json_decref(o);
    return copy;
}

static size_t count(const FileTensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->dim[i];
    return n;
}

static float *values(const TensorFile *f, const FileTensor *t, Arena *a, Err *e)
{
    float *v = arena_alloc(a, (count(t) + 1) * sizeof *v, e);
    return v && formats_read_f32(f, t, v, e) ? v : NULL;
}

static json_t *only(const char *name, const char *where)
{
    return json_pack("{s:s,s:b,s:s}", "name", name, "equal", 0, "only_in", where);
}

/* One tensor of both files. Shapes that differ make it unequal with no distance. */
static json_t *pair(const TensorFile *fa, const FileTensor *a, const TensorFile *fb, const FileTensor *b,
                    bool *equal, Err *e)
{
    Arena tmp = {.name = "compare"};
    int64_t da[4] = {0}, db[4] = {0};
    json_t *o = json_pack("{s:s}", "name", a->name);
    formats_dims(a, da);
    formats_dims(b, db);
    bool same = a->ndim == b->ndim && !memcmp(da, db, sizeof da);
    *equal = false;
    if (!same) {
        json_object_set_new(o, "equal", json_false());
        json_object_set_new(o, "shapes_differ", json_true());
        return o;
    }
    const float *x = values(fa, a, &tmp, e), *y = x ? values(fb, b, &tmp, e) : NULL;
    double max = 0, diff = 0, norm = 0;
    *equal = y != NULL;
    for (size_t i = 0; y && i < count(a); i++) {
        double d = fabs((double)x[i] - (double)y[i]);
        if (d > max || isnan(d)) max = d;
        diff += d * d;
        norm += (double)x[i] * x[i];
        if (memcmp(&x[i], &y[i], sizeof *x)) *equal = false;
    }
    json_object_set_new(o, "max_abs", isfinite(max) ? json_real(max) : json_null());
    json_object_set_new(o, "rel_l2",
                        isfinite(diff) ? json_real(norm > 0 ? sqrt(diff / norm) : sqrt(diff)) : json_null());
    json_object_set_new(o, "equal", json_boolean(*equal));
    arena_free(&tmp);
    return o;
}

char *compare_json(const char *a, const char *b, Arena *ar, Err *e)
{
    TensorFile fa = {0}, fb = {0};
    json_t *list = json_array(), *o = NULL;
    bool all = true;
    if (formats_open(&fa, a, ar, e) && formats_open(&fb, b, ar, e)) {
        for (int i = 0; i < fa.n && !e->code; i++) {
            const FileTensor *t = formats_find(&fb, fa.t[i].name);
            bool equal = false;
            json_array_append_new(list, t ? pair(&fa, &fa.t[i], &fb, t, &equal, e) : only(fa.t[i].name, "A"));
            all = all && equal;
        }
        for (int i = 0; i < fb.n && !e->code; i++) {
            if (formats_find(&fa, fb.t[i].name)) continue;
            json_array_append_new(list, only(fb.t[i].name, "B"));
            all = false;
        }
        if (!e->code) o = json_pack("{s:O,s:b}", "tensors", list, "all_equal", (int)all);
    }
    formats_close(&fa);
    formats_close(&fb);
    json_decref(list);
    return e->code ? NULL : dump(o, ar, e);
}

static json_t *describe(const TensorFile *f, const FileTensor *t, int64_t *total, int64_t *params, Err *e)
{
    Arena tmp = {.name = "inspect"};
    json_t *shape = json_array();
    for (int i = 0; i < t->ndim; i++) json_array_append_new(shape, json_integer(t->dim[i]));
    int64_t nonzero = 0;
    const float *v = t->tied_to ? NULL : values(f, t, &tmp, e);
    for (size_t i = 0; v && i < count(t); i++) nonzero += v[i] != 0;
    json_t *o = json_pack("{s:s,s:o,s:s,s:s,s:I,s:I}", "name", t->name, "shape", shape, "dtype",
                          dtype_name(t->dtype), "encoding", t->encoded ? t->encoded->encoding : "plain",
                          "bytes", (json_int_t)(t->tied_to ? 0 : t->bytes), "nonzero", (json_int_t)nonzero);
    if (t->encoded && count(t))
        json_object_set_new(o, "bits_per_weight", json_real(8.0 * (double)t->bytes / (double)count(t)));
    if (t->tied_to) json_object_set_new(o, "tied_to", json_string(t->tied_to));
    else {
        *total += (int64_t)t->bytes;
        *params += (int64_t)count(t);
    }
    arena_free(&tmp);
    return o;
}

/* How many tensors of which element type, and their bytes: {"BF16": {"tensors": 3, "bytes": 96}, ...}. */
static json_t *type_mix(const json_t *list)
{
    json_t *mix = json_object(), *t;
    size_t i;
    json_array_foreach(list, i, t)
    {
        const char *type = json_string_value(json_object_get(t, "dtype"));
        const json_t *old = json_object_get(mix, type);
        json_object_set_new(mix, type,
                            json_pack("{s:I,s:I}", "tensors",
                                      json_integer_value(json_object_get(old, "tensors")) + 1, "bytes",
                                      json_integer_value(json_object_get(old, "bytes")) +
                                          json_integer_value(json_object_get(t, "bytes"))));
    }
    return mix;
}

/* What generate, eval and probe use as codes: {"tensors": 35, "bytes": 131000}. Tables read by row are
 * decoded. */
static json_t *run_packed(const TensorFile *f)
{
    const Family *family = f->arch ? family_find(f->arch) : NULL;
    int64_t n = 0, bytes = 0;
    for (int i = 0; family && i < f->n; i++) {
        const FileTensor *t = &f->t[i];
        const size_t embed = strlen(family->name.embed),
                     pos = family->name.pos ? strlen(family->name.pos) : 0;
        const bool table = !strncmp(t->name, family->name.embed, embed) ||
                           (pos && !strncmp(t->name, family->name.pos, pos));
        if (table || !formats_packs(f, t)) continue;
        n++;
        bytes += (int64_t)t->bytes;
    }
    return json_pack("{s:I,s:I}", "tensors", (json_int_t)n, "bytes", (json_int_t)bytes);
}

char *inspect_json(const char *path, bool trust_foreign, Arena *ar, Err *e)
{
    TensorFile f = {0};
    json_t *list = json_array(), *o = NULL;
    int64_t bytes = 0, params = 0;
    if (trust_foreign ? formats_open_foreign(&f, path, ar, e) : formats_open(&f, path, ar, e)) {
        for (int i = 0; i < f.n && !e->code; i++)
            json_array_append_new(list, describe(&f, &f.t[i], &bytes, &params, e));
        if (!e->code) {
            o = json_pack("{s:s,s:O,s:I,s:I}", "format", format_name(f.format), "tensors", list, "bytes",
                          (json_int_t)bytes, "parameters", (json_int_t)params);
            json_object_set_new(o, "dtypes", type_mix(list));
            json_object_set_new(o, "run_packed", run_packed(&f));
            json_object_set_new(o, "arch", f.arch ? json_string(f.arch) : json_null());
            if (f.kind) json_object_set_new(o, "kind", json_string(f.kind));
            if (f.format == FMT_HDF5) json_object_set_new(o, "step", json_integer(f.step));
        }
    }
    formats_close(&f);
    json_decref(list);
    return e->code ? NULL : dump(o, ar, e);
}

char *inspect_text(const char *json, Arena *ar, Err *e)
{
    json_t *j = json_loads(json, 0, NULL), *t;
    size_t i, cap = 2 * strlen(json) + 512, n = 0; /* a tensor is longer as JSON than half its line */
    const char *arch = json_string_value(json_object_get(j, "arch"));
    cap += 128 * json_array_size(json_object_get(j, "tensors"));
    char *text = arena_alloc(ar, cap, e);
    if (text)
        n = (size_t)snprintf(text, cap, "%s  %s  %lld parameters  %lld bytes",
                             json_string_value(json_object_get(j, "format")), arch ? arch : "(no model)",
                             (long long)json_integer_value(json_object_get(j, "parameters")),
                             (long long)json_integer_value(json_object_get(j, "bytes")));
    const char *type;
    json_object_foreach(json_object_get(j, "dtypes"), type, t)
    {
        if (text && n < cap)
            n += (size_t)snprintf(text + n, cap - n, "  %s x %lld", type,
                                  (long long)json_integer_value(json_object_get(t, "tensors")));
    }
    const json_t *packed = json_object_get(j, "run_packed");
    if (text && n < cap && json_integer_value(json_object_get(packed, "tensors")))
        n += (size_t)snprintf(text + n, cap - n, "  %lld run packed in %lld bytes",
                              (long long)json_integer_value(json_object_get(packed, "tensors")),
                              (long long)json_integer_value(json_object_get(packed, "bytes")));
    json_array_foreach(json_object_get(j, "tensors"), i, t)
    {
        char *shape = json_dumps(json_object_get(t, "shape"), JSON_COMPACT);
        const char *stored = json_string_value(json_object_get(t, "encoding"));
        const double bytes = (double)json_integer_value(json_object_get(t, "bytes"));
        double many = 1;
        for (size_t d = 0; d < json_array_size(json_object_get(t, "shape")); d++)
            many *= (double)json_integer_value(json_array_get(json_object_get(t, "shape"), d));
        if (text && n < cap)
            n += (size_t)snprintf(
                text + n, cap - n, "\n%-56s %-16s %-11s %6.3f bits %12lld bytes %12lld non-zero",
                json_string_value(json_object_get(t, "name")), shape ? shape : "",
                stored && strcmp(stored, "plain") ? stored : json_string_value(json_object_get(t, "dtype")),
                8.0 * bytes / (many > 0 ? many : 1),
                (long long)json_integer_value(json_object_get(t, "bytes")),
                (long long)json_integer_value(json_object_get(t, "nonzero")));
        free(shape);
    }
    json_decref(j);
    return text;
}
