/* formats/safetensors.c: strict reader.
 *
 *   u64 N | N bytes of JSON {"name": {"dtype": D, "shape": [..], "data_offsets": [begin, end]}, ...} | data
 *
 * Sorted by offset the tensors must tile the data without hole or overlap, from 0 to the file's end; end -
 * begin is product(shape) x size. Nothing is allocated before what asks for it has been compared with the
 * file. Source: the format's README and reference reader (huggingface/safetensors). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "formats/formats_impl.h"

#define HEADER_MAX 100000000ull /* the reference reader's limit */

const char *name_shown(char *buf, const char *name)
{
    size_t n = 0;
    for (; name[n] && n < 160; n++) {
        unsigned char c = (unsigned char)name[n];
        buf[n] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
    }
    memcpy(buf + n, name[n] ? "..." : "", name[n] ? 4 : 1);
    return buf;
}

json_t *json_object_of(const char *text, size_t bytes, const char *where, Err *e)
{
    json_error_t je;
    if (e->code) return NULL;
    json_t *j = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &je);
    if (!j) {
        char shown[168];
        err_set(e, ERR_CORRUPT, "%s:%d:%d: invalid JSON: %s", where, je.line, je.column,
                name_shown(shown, je.text));
        return NULL;
    }
    if (!json_is_object(j)) {
        err_set(e, ERR_CORRUPT, "%s: a JSON object {...} is expected", where);
        json_decref(j);
        return NULL;
    }
    return j;
}

typedef struct Place {
    const char *path;
    const unsigned char *data;
    uint64_t bytes;
    int shard;
} Place;
#define BAD(...) return bad(at, key, e, __VA_ARGS__)

static bool bad(const Place *at, const char *key, Err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static bool bad(const Place *at, const char *key, Err *e, const char *fmt, ...)
{
    char what[512], shown[168];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(e, ERR_CORRUPT, "%s: tensor `%s`: %s", at->path, name_shown(shown, key), what);
}

/* Known to the format, but nothing here computes with them. */
static bool dtype_foreign(const char *s)
{
    static const char *const names[] = {"F4",          "F6_E2M3",     "F6_E3M2", "F8_E8M0",
                                        "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(s, names[i])) return true;
    return false;
}

static bool shape_of(FileTensor *t, const Place *at, const char *key, const json_t *shape, Err *e)
{
    uint64_t n = dtype_size(t->dtype);
    if (!json_is_array(shape)) BAD("no `shape` list");
    if (json_array_size(shape) > 4) BAD("%zu dimensions, at most 4 are read", json_array_size(shape));
    t->ndim = (int)json_array_size(shape);
    for (int i = 0; i < t->ndim; i++) {
        const json_t *d = json_array_get(shape, (size_t)i);
        if (!json_is_integer(d) || json_integer_value(d) < 0) BAD("shape[%d] is not a count", i);
        t->dim[i] = json_integer_value(d);
        if (__builtin_mul_overflow(n, (uint64_t)t->dim[i], &n)) BAD("its shape overflows 64 bits");
    }
    if (n > SIZE_MAX) BAD("its shape overflows the address space");
    t->bytes = (size_t)n;
    return true;
}

static bool entry_of(FileTensor *t, const Place *at, const char *key, const json_t *v, Err *e)
{
    const char *k;
    json_t *member;
    if (!json_is_object(v)) BAD("{dtype, shape, data_offsets} is expected");
    if (!*key) BAD("the name is empty");
    json_object_foreach((json_t *)(uintptr_t)v, k,
                        member) if (strcmp(k, "dtype") && strcmp(k, "shape") && strcmp(k, "data_offsets"))
    {
        char shown[168];
        BAD("unknown key `%s`", name_shown(shown, k));
    }
    const char *dtype = json_string_value(json_object_get(v, "dtype"));
    if (!dtype) BAD("no `dtype`");
    if (dtype_foreign(dtype)) BAD("dtype %s is not read by this version", dtype);
    if (!dtype_parse(dtype, &t->dtype) || strcmp(dtype_name(t->dtype), dtype)) {
        char shown[168];
        BAD("unknown dtype `%s`: save the tensor as F32, F16 or BF16", name_shown(shown, dtype));
    }
    if (!shape_of(t, at, key, json_object_get(v, "shape"), e)) return false;
    const json_t *off = json_object_get(v, "data_offsets");
    if (!json_is_array(off) || json_array_size(off) != 2) BAD("`data_offsets` must be [begin, end]");
    const json_t *b = json_array_get(off, 0), *end = json_array_get(off, 1);
    if (!json_is_integer(b) || !json_is_integer(end)) BAD("`data_offsets` must be two whole numbers");
    json_int_t lo = json_integer_value(b), hi = json_integer_value(end);
    if (lo < 0 || hi < lo)
        BAD("data_offsets [%lld, %lld] are reversed or negative", (long long)lo, (long long)hi);
    if ((uint64_t)hi > at->bytes)
        BAD("ends at %lld, behind the %llu bytes of data (truncated file?)", (long long)hi,
            (unsigned long long)at->bytes);
    if ((uint64_t)(hi - lo) != t->bytes)
        BAD("%lld bytes are stored, its shape and dtype %s need %zu", (long long)(hi - lo), dtype, t->bytes);
    t->data = at->data + lo;
    t->shard = at->shard;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const FileTensor *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    if (!x->bytes != !y->bytes) return x->bytes ? 1 : -1; /* empty tensors in front of what starts there */
    return strcmp(x->name, y->name);
}

static bool tiled(const FileTensor *t, int n, const Place *at, Err *e)
{
    uint64_t pos = 0;
    for (int i = 0; i < n; i++) {
        uint64_t lo = (uint64_t)(t[i].data - at->data);
        const char *key = t[i].name;
        if (lo < pos) BAD("begins at %llu, inside the one before it (overlap)", (unsigned long long)lo);
        if (lo > pos)
            BAD("begins at %llu, %llu bytes behind the one before it (hole)", (unsigned long long)lo,
                (unsigned long long)(lo - pos));
        pos = lo + t[i].bytes;
    }
    if (pos != at->bytes)
        return err_set(e, ERR_CORRUPT, "%s: %llu bytes behind the last tensor belong to none (trailing data)",
                       at->path, (unsigned long long)(at->bytes - pos));
    return true;
}

static bool metadata_of(TensorFile *f, const char *path, const json_t *meta, Err *e)
{
    const char *k;
    json_t *v;
    if (!json_is_object(meta)) return err_set(e, ERR_CORRUPT, "%s: `__metadata__` is not an object", path);
    json_object_foreach((json_t *)(uintptr_t)meta, k, v)
    {
        char shown[168];
        if (!json_is_string(v))
            return err_set(e, ERR_CORRUPT, "%s: `__metadata__` entry `%s` is not a string", path,
                           name_shown(shown, k));
    }
    if (f->metadata_json) return true;
    char *text = json_dumps(meta, JSON_COMPACT);
    if (!text) return err_set(e, ERR_MEMORY, "%s: out of memory for the metadata", path);
    f->metadata_json = arena_strdup(f->arena, text, e);
    free(text);
    return f->metadata_json != NULL;
}

static bool header_of(TensorFile *f, const Place *at, const json_t *header, Err *e)
{
    const char *key;
    json_t *v, *meta = json_object_get(header, "__metadata__");
    size_t n = json_object_size(header) - (meta ? 1 : 0), i = 0;
    if (meta && !metadata_of(f, at->path, meta, e)) return false;
    if (n > INT32_MAX - (size_t)f->n) return err_set(e, ERR_CORRUPT, "%s: too many tensors", at->path);
    FileTensor *t = tensors_add(f, (int)n, e);
    if (!t) return false;
    json_object_foreach((json_t *)(uintptr_t)header, key, v)
    {
        if (v == meta) continue;
        if (!entry_of(&t[i], at, key, v, e)) return false;
        t[i].name = t[i].stored_name = arena_strdup(f->arena, key, e);
        if (!t[i++].name) return false;
    }
    qsort(t, n, sizeof *t, by_place);
    return tiled(t, (int)n, at, e);
}

bool safetensors_read(TensorFile *f, const char *path, Err *e)
{
    uint64_t n = 0;
    const FileMap *m = maps_add(f, path, e);
    if (!m) return false;
    if (m->bytes < 10)
        return err_set(e, ERR_CORRUPT, "%s: truncated: %zu bytes, too short for a safetensors header", path,
                       m->bytes);
    for (int i = 0; i < 8; i++) n |= (uint64_t)m->data[i] << (8 * i);
    if (n > HEADER_MAX)
        return err_set(e, ERR_CORRUPT, "%s: header length %llu is over the format's limit of %llu", path,
                       (unsigned long long)n, HEADER_MAX);
    if (n > m->bytes - 8)
        return err_set(e, ERR_CORRUPT,
                       "%s: truncated: the header needs %llu bytes, the file has %zu behind its length", path,
                       (unsigned long long)n, m->bytes - 8);
    if (n < 2 || m->data[8] != '{')
        return err_set(e, ERR_CORRUPT, "%s: the header does not start with '{': not a safetensors file",
                       path);
    char *where = arena_printf(f->arena, e, "%s: header", path);
    json_t *header = json_object_of((const char *)m->data + 8, (size_t)n, where ? where : path, e);
    if (!header) return false;
    Place at = {.path = path, .data = m->data + 8 + n, .bytes = m->bytes - 8 - n, .shard = f->n_map - 1};
    bool ok = header_of(f, &at, header, e);
    json_decref(header);
    return ok;
}
