/* formats/safetensors_write.c: the writer, and the Hugging Face folder around it.
 *
 * Order as the reference writer: element type descending, then name, which aligns every tensor to its element
 * size; spaces pad the header to 8 bytes; `__metadata__` always says "format": "pt" (transformers asks for
 * it). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "formats/formats_impl.h"

/* The format's own order of element types, in increasing order. */
static int dtype_rank(DType t)
{
    static const DType order[] = {DT_BOOL, DT_U8,  DT_I8,  DT_F8_E5M2, DT_F8_E4M3, DT_I16, DT_U16, DT_F16,
                                  DT_BF16, DT_I32, DT_U32, DT_F32,     DT_F64,     DT_I64, DT_U64};
    for (int i = 0; i < (int)(sizeof order / sizeof *order); i++)
        if (order[i] == t) return i;
    return -1;
}

static int by_type_and_name(const void *a, const void *b)
{
    const OutTensor *x = *(const OutTensor *const *)a, *y = *(const OutTensor *const *)b;
    int rx = dtype_rank(x->dtype), ry = dtype_rank(y->dtype);
    return rx != ry ? ry - rx : strcmp(x->name, y->name);
}

static bool metadata_add(json_t *header, const char *metadata_json, const char *path, Err *e)
{
    json_t *meta = json_object(), *more = NULL, *v;
    const char *k;
    bool ok = json_object_set_new(meta, "format", json_string("pt")) == 0;
    if (metadata_json) {
        more = json_object_of(metadata_json, strlen(metadata_json), path, e);
        json_object_foreach(more, k, v)
            ok = ok &&
                 (json_is_string(v) || err_set(e, ERR_FAIL, "%s: metadata `%s` is not a string", path, k)) &&
                 json_object_set(meta, k, v) == 0;
        json_decref(more);
    }
    ok = json_object_set_new(header, "__metadata__", meta) == 0 && ok;
    if (!ok) err_set(e, ERR_MEMORY, "%s: out of memory for the header", path);
    return !e->code;
}

static char *header_text(const OutTensor *const *t, int n, const char *metadata_json, const char *path,
                         Err *e)
{
    json_t *header = json_object();
    uint64_t at = 0;
    metadata_add(header, metadata_json, path, e);
    for (int i = 0; i < n && !e->code; i++) {
        int64_t dim[4];
        uint64_t end = at + out_bytes(t[i]);
        json_t *shape = json_array();
        out_dims(t[i], dim);
        for (int k = 0; k < t[i]->ndim; k++) json_array_append_new(shape, json_integer(dim[k]));
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(t[i]->dtype), "shape", shape,
                                  "data_offsets", (json_int_t)at, (json_int_t)end);
        if (!entry || json_object_set_new(header, t[i]->name, entry) != 0)
            err_set(e, ERR_FAIL, "%s: tensor `%s`: its name is not UTF-8, or memory is out", path,
                    t[i]->name);
        at = end;
    }
    char *text = e->code ? NULL : json_dumps(header, JSON_COMPACT);
    if (!text) err_set(e, ERR_MEMORY, "%s: out of memory for the header", path);
    json_decref(header);
    return text;
}

bool safetensors_store(const char *path, const OutTensor *const *list, int n, const char *metadata_json,
                       Err *e)
{
    Arena a = {.name = "formats"};
    Sink s = {.fd = -1};
    uint64_t data = 0;
    const OutTensor **t = arena_alloc(&a, (size_t)n * sizeof *t, e);
    char *header = NULL;
    if (t) {
        for (int i = 0; i < n; i++) data += out_bytes(t[i] = list[i]);
        qsort(t, (size_t)n, sizeof *t, by_type_and_name);
        header = header_text(t, n, metadata_json, path, e);
    }
    if (header && sink_open(&s, path, data, &a, e)) {
        unsigned char length[8];
        size_t text = strlen(header), padded = (text + 7) & ~(size_t)7;
        for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)padded >> (8 * i));
        sink_put(&s, length, 8);
        sink_put(&s, header, text);
        sink_put(&s, "       ", padded - text);
        for (int i = 0; i < n; i++) sink_tensor(&s, t[i]);
        sink_commit(&s);
    }
    free(header);
    arena_free(&a);
    return !e->code;
}

bool formats_write_safetensors(const char *path, const OutModel *m, Err *e)
{
    Arena a = {.name = "formats"};
    int n = 0;
    const OutTensor **t = e->code ? NULL : arena_alloc(&a, (size_t)m->n * sizeof *t, e);
    bool ok = t && out_check(m, path, e);
    for (int i = 0; ok && i < m->n; i++)
        if (!m->t[i].tied_to) t[n++] = &m->t[i];
    const char *meta = ok ? encoded_metadata(m, path, &a, e) : NULL;
    ok = ok && !e->code && safetensors_store(path, t, n, meta, e);
    arena_free(&a);
    return ok;
}

/* ---- Hugging Face folder ------------------------------------------------------------------------------- */

static bool write_text(const char *dir, const char *name, const char *text, Arena *a, Err *e)
{
    const char *path = path_join(a, dir, name, e);
    return path && (!text || file_write_atomic(path, text, strlen(text), e));
}

static bool tail_is(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

/* The tokenizer and the files that always lie beside it. */
static bool copy_tokenizer(const char *dir, const char *from, Arena *a, Err *e)
{
    static const char *const also[] = {"tokenizer.model",         "tokenizer.json",   "tokenizer_config.json",
                                       "special_tokens_map.json", "vocab.json",       "merges.txt",
                                       "chat_template.jinja",     "added_tokens.json"};
    const char *source = from ? path_dir(a, from, e) : NULL, *base = from ? strrchr(from, '/') : NULL;
    base = base ? base + 1 : from;
    if (!from || !source) return !e->code;
    if (formats_is_h5(from)) return formats_tokenizer_files(from, dir, a, e);
    /* A tokenizer of another name gets the one that readers look for. */
    const char *standard = tail_is(base, ".model") ? "tokenizer.model" : base;
    if (tail_is(base, ".json") && strcmp(base, "vocab.json") && strcmp(base, "encoder.json"))
        standard = "tokenizer.json";
    for (int i = -1; i < (int)(sizeof also / sizeof *also) && !e->code; i++) {
        size_t bytes;
        const char *in = i < 0 ? from : path_join(a, source, also[i], e),
                   *out = path_join(a, dir, i < 0 ? standard : also[i], e);
        if (!in || !out || (i >= 0 && (!file_exists(in) || !strcmp(also[i], standard)))) continue;
        const char *data = file_read(a, in, &bytes, e);
        if (data && strcmp(in, out)) file_write_atomic(out, data, bytes, e);
    }
    return !e->code;
}

/* Greedy fill in the given order; shard[i] = 0-based shard of t[i]. Returns the number of shards. */
static int shards_of(const OutTensor *const *t, int n, int64_t limit, int *shard)
{
    int k = 0;
    uint64_t used = 0;
    for (int i = 0; i < n; i++) {
        uint64_t b = out_bytes(t[i]);
        if (used && used + b > (uint64_t)limit) {
            k++;
            used = 0;
        }
        used += b;
        shard[i] = k;
    }
    return k + 1;
}

static bool write_shards(const char *dir, const OutTensor *const *t, int n, const int *shard, int n_shard,
                         const char *metadata_json, Arena *a, Err *e)
{
    uint64_t total = 0, elements = 0;
    json_t *map = json_object();
    const OutTensor **part = arena_alloc(a, (size_t)n * sizeof *part, e);
    for (int k = 0; part && k < n_shard && !e->code; k++) {
        int m = 0;
        char *name = arena_printf(a, e, "model-%05d-of-%05d.safetensors", k + 1, n_shard);
        const char *path = name ? path_join(a, dir, name, e) : NULL;
        for (int i = 0; path && i < n; i++)
            if (shard[i] == k) {
                part[m++] = t[i];
                total += out_bytes(t[i]);
                elements += out_bytes(t[i]) / dtype_size(t[i]->dtype);
                if (json_object_set_new(map, t[i]->name, json_string(name)) != 0)
                    err_set(e, ERR_MEMORY, "%s: out of memory for the index", dir);
            }
        if (path && !e->code) safetensors_store(path, part, m, metadata_json, e);
    }
    json_t *index = json_pack("{s:{s:I, s:I}, s:o}", "metadata", "total_parameters", (json_int_t)elements,
                              "total_size", (json_int_t)total, "weight_map", map);
    char *text = index ? json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    if (!text) err_set(e, ERR_MEMORY, "%s: out of memory for the index", dir);
    char *line = text && !e->code ? arena_printf(a, e, "%s\n", text) : NULL;
    free(text);
    json_decref(index);
    return line && write_text(dir, "model.safetensors.index.json", line, a, e);
}

/* A folder with the other layout would be read wrongly afterwards; its files are not ours to delete. */
static bool layout_free(const char *dir, bool sharded, Arena *a, Err *e)
{
    const char *name = sharded ? "model.safetensors" : "model.safetensors.index.json";
    const char *other = path_join(a, dir, name, e);
    if (other && file_exists(other))
        err_set(
            e, ERR_FAIL,
            "%s: the folder already holds %s, which would clash with this model's %s file; choose another "
            "folder or remove it",
            dir, name, sharded ? "index" : "single");
    return !e->code;
}

/* The configuration with the type that most numbers have; codes have none. */
static const char *config_text(const OutModel *m, Arena *a, Err *e)
{
    int64_t n[DT_COUNT] = {0};
    DType most = DT_F32;
    if (m->n_group) return m->config_json;
    for (int i = 0; i < m->n; i++) {
        int64_t k = 1;
        for (int d = 0; d < m->t[i].ndim; d++) k *= m->t[i].dim[d];
        n[m->t[i].dtype] += m->t[i].tied_to ? 0 : k;
    }
    for (int t = 0; t < DT_COUNT; t++)
        if (n[t] > n[most]) most = (DType)t;
    return formats_config_dtype(m->config_json, most, a, e);
}

bool formats_write_hf(const char *dir, const OutModel *m, int64_t shard_bytes, Err *e)
{
    Arena a = {.name = "formats"};
    int n = 0;
    if (e->code || !out_check(m, dir, e)) return false;
    if (!m->config_json)
        return err_set(e, ERR_FAIL, "%s: a Hugging Face folder needs a config.json; none is known", dir);
    const OutTensor **t = arena_alloc(&a, (size_t)m->n * sizeof *t, e);
    int *shard = arena_alloc(&a, (size_t)m->n * sizeof *shard, e);
    if (shard && dir_make(dir, e)) {
        for (int i = 0; i < m->n; i++)
            if (!m->t[i].tied_to) t[n++] = &m->t[i];
        int n_shard = shards_of(t, n, shard_bytes > 0 ? shard_bytes : INT64_C(5000000000), shard);
        const char *single = path_join(&a, dir, "model.safetensors", e);
        if (single && layout_free(dir, n_shard > 1, &a, e)) {
            const char *meta = encoded_metadata(m, dir, &a, e);
            if (n_shard > 1) write_shards(dir, t, n, shard, n_shard, meta, &a, e);
            else if (!e->code) safetensors_store(single, t, n, meta, e);
        }
    }
    if (!e->code) write_text(dir, "generation_config.json", m->generation_json, &a, e);
    if (!e->code) copy_tokenizer(dir, m->tokenizer_path, &a, e);
    if (!e->code) write_text(dir, "config.json", config_text(m, &a, e), &a, e);
    arena_free(&a);
    return !e->code;
}
