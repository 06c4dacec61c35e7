/* core/gguf.c: the header of a GGUF file: key/value pairs and tensor infos, nothing of what they mean.
 *
 *   "GGUF" | u32 version | u64 n_tensors | u64 n_kv | pairs | tensor infos | zeros up to alignment | data
 *   string = u64 length + bytes;  pair = key, u32 type, value;  array = u32 item type, u64 count, items
 *   tensor = name, u32 n_dims, u64 dims[] (fastest first), u32 ggml type, u64 offset into the data
 *
 * Strict: every length and count is compared with the bytes that are left before it is used, keys and names
 * occur once, offsets follow each other without hole, the file ends with the last tensor. Values stay in the
 * file's memory: apart from one entry for each pair and tensor nothing is allocated.
 * Source: the format's specification (ggml, docs/gguf.md). Versions 2 and 3 have one layout; 1 is refused.
 */
#include "core/core.h"
#include <stdlib.h>
#include <string.h>

typedef struct Cursor {
    const unsigned char *p;
    uint64_t left;
    const char *path, *what;
} Cursor;

/* ggml type -> its name, elements and bytes of a block */
static const struct {
    uint32_t type;
    const char *name;
    uint32_t items, bytes;
} kinds[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 40},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},
};

const char *gguf_type_name(uint32_t type)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].type == type) return kinds[i].name;
    return NULL;
}

static bool cut_off(const Cursor *c, Err *e)
{
    err_set(e, ERR_CORRUPT, "%s: GGUF: truncated in %s", c->path, c->what);
    return false; /* in words, so that compilers see that nothing was taken */
}

static bool take(Cursor *c, uint64_t n, const unsigned char **p, Err *e)
{
    if (n > c->left) return cut_off(c, e);
    *p = c->p;
    c->p += n;
    c->left -= n;
    return true;
}

static uint64_t little(const unsigned char *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static bool take_int(Cursor *c, size_t n, uint64_t *v, Err *e)
{
    const unsigned char *p;
    if (!take(c, n, &p, e)) return false;
    *v = little(p, n);
    return true;
}

static bool take_text(Cursor *c, GgufText *t, Err *e)
{
    const unsigned char *p;
    uint64_t n;
    if (!take_int(c, 8, &n, e) || !take(c, n, &p, e)) return false;
    *t = (GgufText){(const char *)p, (size_t)n};
    return true;
}

/* A key or name: 1 to max printable ASCII characters. */
static bool take_name(Cursor *c, GgufText *t, size_t max, Err *e)
{
    if (!take_text(c, t, e)) return false;
    if (t->bytes == 0 || t->bytes > max)
        return err_set(e, ERR_CORRUPT, "%s: GGUF: %s has a name of %zu bytes (1 to %zu)", c->path, c->what,
                       t->bytes, max);
    for (size_t i = 0; i < t->bytes; i++)
        if (t->s[i] < 0x21 || t->s[i] > 0x7E)
            return err_set(e, ERR_CORRUPT, "%s: GGUF: %s has a name that is not printable ASCII", c->path,
                           c->what);
    return true;
}

static size_t type_bytes(uint64_t type)
{
    static const unsigned char size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return type < sizeof size ? size[type] : 0;
}

static bool bools_valid(const Cursor *c, const GgufValue *v, Err *e)
{
    for (uint64_t i = 0; v->item == GGUF_BOOL && i < v->n; i++)
        if (v->data[i] > 1)
            return err_set(e, ERR_CORRUPT, "%s: GGUF: key `%.*s`: a bool of %u", c->path, (int)v->key.bytes,
                           v->key.s, v->data[i]);
    return true;
}

static bool take_value(Cursor *c, GgufValue *v, Err *e)
{
    uint64_t type, item, n = 1;
    if (!take_name(c, &v->key, 65535, e) || !take_int(c, 4, &type, e)) return false;
    item = type;
    if (type == GGUF_ARRAY && (!take_int(c, 4, &item, e) || !take_int(c, 8, &n, e))) return false;
    if (type > GGUF_F64 || item > GGUF_F64)
        return err_set(e, ERR_CORRUPT, "%s: GGUF: key `%.*s` has unknown type %llu", c->path,
                       (int)v->key.bytes, v->key.s, (unsigned long long)(type > GGUF_F64 ? type : item));
    if (item == GGUF_ARRAY)
        return err_set(e, ERR_USAGE, "%s: GGUF: key `%.*s`: an array of arrays is not read", c->path,
                       (int)v->key.bytes, v->key.s);
    v->type = (GgufType)type;
    v->item = (GgufType)item;
    v->n = n;
    v->data = c->p;
    if (item == GGUF_STRING) {
        GgufText t;
        for (uint64_t i = 0; i < n; i++)
            if (!take_text(c, &t, e)) return false;
    } else {
        const size_t size = type_bytes(item);
        if (n > c->left / size) return cut_off(c, e);
        if (!take(c, n * size, &v->data, e)) return false;
    }
    v->bytes = (size_t)(c->p - v->data);
    return bools_valid(c, v, e);
}

/* Elements and bytes of a tensor, each product checked. */
static bool tensor_size(const Cursor *c, GgufTensor *t, Err *e)
{
    const int len = (int)t->name.bytes;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        if (kinds[k].type != t->type) continue;
        uint64_t n = 1;
        for (int i = 0; i < t->ndim; i++)
            if (__builtin_mul_overflow(n, t->dim[i], &n) || n > INT64_MAX)
                return err_set(e, ERR_CORRUPT, "%s: GGUF: tensor `%.*s`: its shape overflows", c->path, len,
                               t->name.s);
        if (t->dim[0] % kinds[k].items)
            return err_set(e, ERR_CORRUPT, "%s: GGUF: tensor `%.*s`: rows of %llu are no blocks of %s (%u)",
                           c->path, len, t->name.s, (unsigned long long)t->dim[0], kinds[k].name,
                           kinds[k].items);
        if (__builtin_mul_overflow(n / kinds[k].items, (uint64_t)kinds[k].bytes, &t->bytes))
            return err_set(e, ERR_CORRUPT, "%s: GGUF: tensor `%.*s`: its size overflows", c->path, len,
                           t->name.s);
        return true;
    }
    return err_set(e, ERR_USAGE, "%s: GGUF: tensor `%.*s` has the unknown ggml type %u", c->path, len,
                   t->name.s, t->type);
}

static bool take_tensor(Cursor *c, GgufTensor *t, Err *e)
{
    uint64_t ndim, type;
    if (!take_name(c, &t->name, 63, e) || !take_int(c, 4, &ndim, e)) return false;
    if (ndim < 1 || ndim > 4)
        return err_set(e, ERR_CORRUPT, "%s: GGUF: tensor `%.*s` has %llu dimensions (1 to 4)", c->path,
                       (int)t->name.bytes, t->name.s, (unsigned long long)ndim);
    t->ndim = (int)ndim;
    for (int i = 0; i < 4; i++) t->dim[i] = 1;
    for (int i = 0; i < t->ndim; i++)
        if (!take_int(c, 8, &t->dim[i], e)) return false;
    if (!take_int(c, 4, &type, e) || !take_int(c, 8, &t->offset, e)) return false;
    t->type = (uint32_t)type;
    return tensor_size(c, t, e);
}

/* ---- names occur once ---------------------------------------------------------------------------------- */

static int text_order(const GgufText *a, const GgufText *b)
{
    const int d = memcmp(a->s, b->s, a->bytes < b->bytes ? a->bytes : b->bytes);
    return d ? d : a->bytes < b->bytes ? -1 : a->bytes > b->bytes;
}

static int by_text(const void *a, const void *b)
{
    return text_order(*(const GgufText *const *)a, *(const GgufText *const *)b);
}

/* Sorted pointers to the n texts that lie `step` bytes apart from first on. */
static const GgufText **sorted_once(const void *first, size_t n, size_t step, const char *path,
                                    const char *what, Arena *a, Err *e)
{
    const GgufText **s = arena_alloc(a, n * sizeof *s, e);
    for (size_t i = 0; s && i < n; i++) s[i] = (const GgufText *)((uintptr_t)first + i * step);
    if (!s) return NULL;
    if (n) qsort((void *)(uintptr_t)s, n, sizeof *s, by_text);
    for (size_t i = 1; i < n; i++) {
        if (text_order(s[i - 1], s[i]) != 0) continue;
        err_set(e, ERR_CORRUPT, "%s: GGUF: two %s are named `%.*s`", path, what, (int)s[i]->bytes, s[i]->s);
        return NULL;
    }
    return s;
}

const GgufValue *gguf_find(const Gguf *g, const char *key)
{
    const GgufText want = {key, strlen(key)};
    size_t lo = 0, hi = g->n_kv;
    while (lo < hi) {
        const size_t mid = lo + (hi - lo) / 2;
        const int d = text_order(&want, g->by_key[mid]);
        if (d == 0) return (const GgufValue *)(const void *)g->by_key[mid];
        if (d < 0) hi = mid;
        else lo = mid + 1;
    }
    return NULL;
}

/* ---- places -------------------------------------------------------------------------------------------- */

static bool place_tensors(Gguf *g, Cursor *c, const unsigned char *file, Err *e)
{
    const GgufValue *v = gguf_find(g, "general.alignment");
    uint64_t unit = 32, at = 0;
    if (v) {
        if (v->type != GGUF_U32) unit = 0;
        else unit = little(v->data, 4);
        if (unit == 0 || (unit & (unit - 1)))
            return err_set(e, ERR_CORRUPT, "%s: GGUF: general.alignment is not a power of two (u32)",
                           c->path);
    }
    const uint64_t pad = (unit - (uint64_t)(c->p - file) % unit) % unit;
    const unsigned char *data = c->p;
    c->what = "the padding before the data";
    if (c->left >= pad || g->n_tensor > 0) {
        if (!take(c, pad, &data, e)) return false;
        data += pad;
    } else c->left = 0;
    for (size_t i = 0; i < g->n_tensor; i++) {
        GgufTensor *t = &g->tensor[i];
        const int len = (int)t->name.bytes;
        if (t->offset != at)
            return err_set(e, ERR_CORRUPT, "%s: GGUF: tensor `%.*s` begins at %llu, not at %llu", c->path,
                           len, t->name.s, (unsigned long long)t->offset, (unsigned long long)at);
        if (at > c->left || t->bytes > c->left - at)
            return err_set(e, ERR_CORRUPT, "%s: GGUF: truncated: tensor `%.*s` ends behind the file", c->path,
                           len, t->name.s);
        t->data = data + at;
        at += t->bytes;
        at += (unit - at % unit) % unit;
    }
    if (c->left > at)
        return err_set(e, ERR_CORRUPT, "%s: GGUF: %llu bytes behind the last tensor", c->path,
                       (unsigned long long)(c->left - at));
    return true;
}

static bool head(Cursor *c, uint64_t *n_tensor, uint64_t *n_kv, uint32_t *version, Err *e)
{
    const unsigned char *magic;
    uint64_t v;
    *version = 0;
    if (!take(c, 4, &magic, e)) return false;
    if (memcmp(magic, "GGUF", 4) != 0)
        return err_set(e, ERR_CORRUPT, "%s: not a GGUF file (its first four bytes are not `GGUF`)", c->path);
    if (!take_int(c, 4, &v, e)) return false;
    if (v != 0 && (v & 0xFFFF) == 0)
        return err_set(e, ERR_USAGE, "%s: GGUF: a big-endian file is not read", c->path);
    if (v != 2 && v != 3)
        return err_set(e, ERR_USAGE, "%s: GGUF version %llu is not read (2 and 3 are)", c->path,
                       (unsigned long long)v);
    *version = (uint32_t)v;
    if (!take_int(c, 8, n_tensor, e) || !take_int(c, 8, n_kv, e)) return false;
    /* The shortest pair has 14 bytes, the shortest tensor info 33. */
    if (*n_kv > c->left / 14 || *n_tensor > c->left / 33)
        return err_set(e, ERR_CORRUPT, "%s: GGUF: truncated: %llu pairs and %llu tensors do not fit", c->path,
                       (unsigned long long)*n_kv, (unsigned long long)*n_tensor);
    return true;
}

bool gguf_read(Gguf *g, const unsigned char *data, size_t bytes, const char *path, Arena *a, Err *e)
{
    static const unsigned char nothing[1];
    Cursor c = {data ? data : nothing, bytes, path, "the first 24 bytes"};
    uint64_t n_tensor = 0, n_kv = 0;
    *g = (Gguf){0};
    if (!head(&c, &n_tensor, &n_kv, &g->version, e)) return false;
    g->n_kv = (size_t)n_kv;
    g->n_tensor = (size_t)n_tensor;
    g->kv = arena_alloc(a, g->n_kv * sizeof *g->kv, e);
    g->tensor = arena_alloc(a, g->n_tensor * sizeof *g->tensor, e);
    if (!g->kv || !g->tensor) return false;
    c.what = "a key/value pair";
    for (size_t i = 0; i < g->n_kv; i++)
        if (!take_value(&c, &g->kv[i], e)) return false;
    c.what = "a tensor info";
    for (size_t i = 0; i < g->n_tensor; i++)
        if (!take_tensor(&c, &g->tensor[i], e)) return false;
    g->by_key = sorted_once(g->kv, g->n_kv, sizeof *g->kv, path, "keys", a, e);
    if (!g->by_key || !sorted_once(g->tensor, g->n_tensor, sizeof *g->tensor, path, "tensors", a, e))
        return false;
    return place_tensors(g, &c, data ? data : nothing, e);
}

/* ---- values -------------------------------------------------------------------------------------------- */

bool gguf_string(const GgufValue *v, size_t *at, GgufText *t)
{
    if (v->item != GGUF_STRING || *at >= v->bytes) return false;
    *t = (GgufText){(const char *)v->data + *at + 8, (size_t)little(v->data + *at, 8)};
    *at += 8 + t->bytes;
    return true;
}

int64_t gguf_int(const GgufValue *v, uint64_t i)
{
    const size_t size = type_bytes(v->item);
    const uint64_t u = little(v->data + i * size, size);
    switch (v->item) {
    case GGUF_I8: return (int8_t)u;
    case GGUF_I16: return (int16_t)u;
    case GGUF_I32: return (int32_t)u;
    case GGUF_U64: return u > INT64_MAX ? -1 : (int64_t)u;
    default: return (int64_t)u;
    }
}

float gguf_f32(const GgufValue *v, uint64_t i)
{
    float f;
    memcpy(&f, v->data + 4 * i, 4);
    return f;
}
