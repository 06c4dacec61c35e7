/* compress/delta.c: delta artefacts (kind `delta`): base XOR tuned, bit patterns of float32 values, tensor by
 * tensor.
 *
 *   /delta/<tensor>/mask u8[ceil(n/8)], xor u32[changed]      or xor u32[n] where that is smaller; nothing if
 *   equal
 *   /masks /prune /qat /lora /aux                               of a tuned training state, as they are
 *
 * XOR is its own inverse: applying and reverting are the same pass, and both are exact. What hangs on weights
 * stays beside them, so taking it off again loses nothing. The content hash of a model is XXH3-128 over the
 * sorted lines `name hash-of-its-float32-values`; it tells base and tuned apart whatever the file format. */
#include "compress/compress.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const state_path[] = {"/masks", "/prune", "/qat", "/lora", "/aux", NULL};

typedef struct Side { /* a model file, raw: what its quantisers would do is left out */
    TensorFile f;
    H5In *h; /* of an .h5, for its state */
    const char *path;
} Side;

static bool side_open(Side *s, const char *path, Arena *a, Err *e)
{
    *s = (Side){.path = path};
    if (!formats_open(&s->f, path, a, e)) return false;
    s->f.kind = "model";
    for (int i = 0; i < s->f.n; i++)
        if (s->f.t[i].encoded)
            return err_set(
                e, ERR_USAGE,
                "%s: tensor %s is stored as codes (%s): a delta is made of a training state or of floats",
                path, s->f.t[i].name, s->f.t[i].encoded->encoding);
    if (s->f.format == FMT_HDF5) s->h = h5_open(path, false, a, e);
    return !e->code;
}

static void side_close(Side *s)
{
    if (s->h) h5_close(s->h);
    formats_close(&s->f);
}

static bool has_state(const Side *s)
{
    bool any = false;
    for (int i = 0; s->h && state_path[i]; i++) any = any || h5_has(s->h, state_path[i]);
    return any;
}

static size_t count(const FileTensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->dim[i];
    return n;
}

/* ---- content hash ---- */
typedef struct Lines {
    char **line;
    int n;
} Lines;

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void add_line(Lines *l, const char *name, const float *x, size_t n, Arena *a, Err *e)
{
    char hex[33];
    hash128_hex(hex, x, n * sizeof *x);
    l->line[l->n] = arena_printf(a, e, "%s %s\n", name, hex);
    if (l->line[l->n]) l->n++;
}

static const char *lines_hash(Lines *l, Arena *a, Err *e)
{
    size_t bytes = 0, at = 0;
    char hex[33];
    for (int i = 0; i < l->n; i++) bytes += strlen(l->line[i]);
    char *all = arena_alloc(a, bytes + 1, e);
    if (!all) return NULL;
    qsort(l->line, (size_t)l->n, sizeof *l->line, by_text);
    for (int i = 0; i < l->n; i++) {
        memcpy(all + at, l->line[i], strlen(l->line[i]));
        at += strlen(l->line[i]);
    }
    hash128_hex(hex, all, bytes);
    return arena_strdup(a, hex, e);
}

static const char *content_of(const Side *s, Arena *a, Err *e)
{
    Lines l = {.line = arena_alloc(a, (size_t)(s->f.n + 1) * sizeof *l.line, e)};
    for (int i = 0; i < s->f.n && !e->code; i++) {
        const FileTensor *t = &s->f.t[i];
        Arena tmp = {.name = "hash"};
        float *x = t->tied_to ? NULL : arena_alloc(&tmp, count(t) * sizeof *x, e);
        if (x && formats_read_f32(&s->f, t, x, e)) add_line(&l, t->name, x, count(t), a, e);
        arena_free(&tmp);
    }
    return e->code ? NULL : lines_hash(&l, a, e);
}

/* ---- make ---- */
static void put_changes(H5Out *h, const FileTensor *b, const FileTensor *t, const uint32_t *x, uint32_t *y,
                        DeltaReport *r, Arena *a, Err *e)
{
    const int64_t n = (int64_t)count(t), mask_bytes = (n + 7) / 8;
    const char *at = arena_printf(a, e, "/delta/%s", t->name), *mask_at = arena_printf(a, e, "%s/mask", at),
               *xor_at = arena_printf(a, e, "%s/xor", at);
    uint8_t *mask = arena_alloc(a, (size_t)mask_bytes, e);
    int64_t changed = 0;
    if (!mask) return;
    memset(mask, 0, (size_t)mask_bytes);
    for (int64_t i = 0; i < n; i++) {
        y[i] ^= x[i];
        if (!y[i]) continue;
        mask[i / 8] = (uint8_t)(mask[i / 8] | 1u << (i % 8));
        changed++;
    }
    r->tensors++;
    r->values += n;
    r->changed_values += changed;
    if (!changed && b->dtype == t->dtype) return;
    r->changed++;
    if (mask_bytes + 4 * changed < 4 * n) {
        int64_t k = 0;
        for (int64_t i = 0; i < n; i++)
            if (y[i]) y[k++] = y[i];
        h5_tensor(h, mask_at, DT_U8, 1, &mask_bytes, mask);
        h5_tensor(h, xor_at, DT_U32, 1, &changed, y);
    } else h5_tensor(h, xor_at, DT_U32, 1, &n, y);
    h5_attr_str(h, at, "dtype_base", dtype_long_name(b->dtype));
    h5_attr_str(h, at, "dtype_tuned", dtype_long_name(t->dtype));
}

static bool same_tensors(const Side *b, const Side *t, Err *e)
{
    for (int i = 0; i < b->f.n + t->f.n; i++) {
        const bool first = i < b->f.n;
        const FileTensor *x = first ? &b->f.t[i] : &t->f.t[i - b->f.n];
        const FileTensor *y = formats_find(first ? &t->f : &b->f, x->name);
        int64_t dx[4], dy[4];
        if (x->tied_to) continue;
        if (!y || y->tied_to)
            return err_set(e, ERR_USAGE, "tensor %s is in %s, not in %s: no delta between different models",
                           x->name, first ? b->path : t->path, first ? t->path : b->path);
        formats_dims(x, dx);
        formats_dims(y, dy);
        if (memcmp(dx, dy, sizeof dx))
            return err_set(e, ERR_USAGE, "tensor %s has different shapes in %s and %s", x->name, b->path,
                           t->path);
    }
    return true;
}

static void put_texts(H5Out *h, const char *which, const Side *s, Arena *a, Err *e)
{
    const char *model = arena_printf(a, e, "/config/%s_model_json", which),
               *gen = arena_printf(a, e, "/config/%s_generation_json", which);
    if (model && s->f.config_json) h5_text(h, model, s->f.config_json);
    if (gen && s->f.generation_json) h5_text(h, gen, s->f.generation_json);
}

static bool put_all(H5Out *h, const Side *b, const Side *t, DeltaReport *r, Arena *a, Err *e)
{
    h5_attr_str(h, "/", "base_content_xxh3_128", r->base_hash);
    h5_attr_str(h, "/", "tuned_content_xxh3_128", r->tuned_hash);
    h5_attr_i64(h, "/", "base_step", b->f.step);
    put_texts(h, "base", b, a, e);
    put_texts(h, "tuned", t, a, e);
    for (int i = 0; i < t->f.n && !e->code; i++) {
        const FileTensor *y = &t->f.t[i], *x = formats_find(&b->f, y->name);
        Arena tmp = {.name = "delta"};
        if (!y->tied_to) {
            float *vx = arena_alloc(&tmp, count(y) * sizeof *vx, e),
                  *vy = arena_alloc(&tmp, count(y) * sizeof *vy, e);
            if (vy && formats_read_f32(&b->f, x, vx, e) && formats_read_f32(&t->f, y, vy, e))
                put_changes(h, x, y, (const uint32_t *)(const void *)vx, (uint32_t *)(void *)vy, r, &tmp, e);
        }
        arena_free(&tmp);
    }
    for (int i = 0; t->h && state_path[i] && !e->code; i++)
        if (h5_has(t->h, state_path[i])) h5_copy(h, t->h, state_path[i], a, e);
    return !e->code;
}

bool delta_make(const char *base, const char *tuned, const char *out, DeltaReport *r, Err *e)
{
    Arena a = {.name = "delta"};
    Side b = {0}, t = {0};
    struct stat st;
    *r = (DeltaReport){0};
    if (side_open(&b, base, &a, e) && side_open(&t, tuned, &a, e) && same_tensors(&b, &t, e)) {
        r->base_hash = content_of(&b, &a, e);
        r->tuned_hash = content_of(&t, &a, e);
        r->state = has_state(&t);
        H5Out *h = e->code ? NULL : h5_create(out, "delta", t.f.arch, t.f.step, &a, e);
        if (h && put_all(h, &b, &t, r, &a, e)) h5_commit(h, e);
        else h5_abandon(h);
        if (!e->code && !stat(out, &st)) r->bytes = (int64_t)st.st_size;
    }
    r->base_hash = r->tuned_hash = NULL; /* of the arena */
    side_close(&b);
    side_close(&t);
    arena_free(&a);
    return !e->code;
}

/* ---- apply and revert ---- */
typedef struct Patch {
    H5In *d;
    Side from;
    bool back; /* tuned to base */
    Lines lines;
    const char *path;
    Arena *a;
} Patch;
typedef struct Pull {
    const Patch *p;
    const FileTensor *t;
} Pull;

/* The changes of one tensor onto x (n values). */
static bool flip(H5In *d, const char *name, float *x, size_t n, Err *e)
{
    Arena tmp = {.name = "delta"};
    const char *mask_at = arena_printf(&tmp, e, "/delta/%s/mask", name),
               *xor_at = arena_printf(&tmp, e, "/delta/%s/xor", name);
    uint32_t *bits = (uint32_t *)(void *)x;
    DType t;
    int ndim;
    int64_t dim[4];
    if (xor_at && h5_has(d, xor_at) && h5_tensor_info(d, xor_at, &t, &ndim, dim, e)) {
        const bool sparse = h5_has(d, mask_at);
        const size_t k = (size_t)dim[0];
        uint32_t *v = arena_alloc(&tmp, (k + 1) * sizeof *v, e);
        uint8_t *mask = arena_alloc(&tmp, (n + 7) / 8 + 1, e);
        if (ndim != 1 || t != DT_U32 || k > n || (!sparse && k != n))
            err_set(e, ERR_CORRUPT, "`%s` does not fit the tensor's %zu values", xor_at, n);
        if (!e->code && h5_read_tensor(d, xor_at, DT_U32, v, k * sizeof *v, e) &&
            (!sparse || h5_read_tensor(d, mask_at, DT_U8, mask, (n + 7) / 8, e))) {
            size_t at = 0;
            for (size_t i = 0; i < n; i++) {
                if (sparse && !(mask[i / 8] >> (i % 8) & 1)) continue;
                if (at < k) bits[i] ^= v[at];
                at++;
            }
            if (at != k)
                err_set(e, ERR_CORRUPT, "`%s` has %zu entries, its mask asks for %zu", xor_at, k, at);
        }
    }
    arena_free(&tmp);
    return !e->code;
}

static bool pull(const OutTensor *o, float *dst, Err *e)
{
    const Pull *p = o->ctx;
    return formats_read_f32(&p->p->from.f, p->t, dst, e) && flip(p->p->d, p->t->name, dst, count(p->t), e);
}

static DType type_of(const Patch *p, const FileTensor *t, Err *e)
{
    const char *at = arena_printf(p->a, e, "/delta/%s", t->name);
    DType type = t->dtype;
    if (!at || !h5_has(p->d, at)) return type;
    const char *name = h5_get_str(p->d, at, p->back ? "dtype_base" : "dtype_tuned", e);
    if (name && !dtype_parse(name, &type)) err_set(e, ERR_CORRUPT, "`%s`: unknown type %s", at, name);
    return type;
}

static const char *text_at(const Patch *p, const char *kind, Err *e)
{
    const char *at = arena_printf(p->a, e, "/config/%s_%s", p->back ? "base" : "tuned", kind);
    return at && h5_has(p->d, at) ? h5_read_text(p->d, at, e) : NULL;
}

static bool build(Patch *p, OutModel *m, Err *e)
{
    const TensorFile *f = &p->from.f;
    OutTensor *t = arena_alloc(p->a, (size_t)(f->n + 1) * sizeof *t, e);
    Pull *ctx = arena_alloc(p->a, (size_t)(f->n + 1) * sizeof *ctx, e);
    *m = (OutModel){.t = t, .arch = f->arch, .tokenizer_path = f->tokenizer_path};
    for (int i = 0; ctx && i < f->n && !e->code; i++) {
        const FileTensor *x = &f->t[i];
        int64_t dim[4];
        formats_dims(x, dim);
        ctx[i] = (Pull){p, x};
        t[m->n] = (OutTensor){.name = x->name, .ndim = x->ndim, .tied_to = x->tied_to, .in_out = x->in_out};
        t[m->n].dtype = type_of(p, x, e);
        t[m->n].load = x->tied_to ? NULL : pull;
        t[m->n].ctx = &ctx[i];
        for (int d = 0; d < 4; d++) t[m->n].dim[d] = dim[d];
        m->n++;
    }
    m->config_json = text_at(p, "model_json", e);
    m->generation_json = text_at(p, "generation_json", e);
    Err none = {0};
    h5_get_i64(p->d, "/", p->back ? "base_step" : "step", &m->step, &none);
    return !e->code;
}

/* The hash that `m` will have, tensor by tensor through the delta. */
static const char *result_hash(const OutModel *m, Arena *a, Err *e)
{
    Lines l = {.line = arena_alloc(a, (size_t)(m->n + 1) * sizeof *l.line, e)};
    for (int i = 0; i < m->n && !e->code; i++) {
        const OutTensor *t = &m->t[i];
        Arena tmp = {.name = "hash"};
        size_t n = 1;
        for (int d = 0; d < t->ndim; d++) n *= (size_t)t->dim[d];
        float *x = t->tied_to ? NULL : arena_alloc(&tmp, n * sizeof *x, e);
        if (x && t->load(t, x, e)) add_line(&l, t->name, x, n, a, e);
        arena_free(&tmp);
    }
    return e->code ? NULL : lines_hash(&l, a, e);
}

static bool ends_in(const char *s, const char *tail)
{
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static bool write_out(const Patch *p, OutModel *m, const char *out, Err *e)
{
    const Side delta = {.h = p->d};
    const char *go[8] = {NULL};
    int n = 0;
    for (int i = 0; !p->back && state_path[i]; i++)
        if (h5_has(p->d, state_path[i])) go[n++] = state_path[i];
    if (!p->back && has_state(&delta)) {
        if (!ends_in(out, ".h5"))
            return err_set(e, ERR_USAGE, "%s: the delta has masks, scales or adapters: write an .h5 file",
                           out);
        m->kind = "train_state";
        m->also = p->d;
        m->also_path = go;
    }
    if (ends_in(out, ".h5")) return formats_write_h5(out, m, e);
    if (ends_in(out, ".safetensors")) return formats_write_safetensors(out, m, e);
    return formats_write_hf(out, m, 0, e);
}

/* The way there or back; out NULL: only looks whether it would be right. */
static bool walk(const char *from, const char *delta, const char *out, bool back, DeltaReport *r, Err *e)
{
    Arena a = {.name = "delta"};
    Patch p = {.back = back, .a = &a};
    OutModel m;
    *r = (DeltaReport){0};
    p.d = h5_open(delta, false, &a, e);
    const char *kind = p.d ? h5_get_str(p.d, "/", "kind", e) : NULL;
    if (kind && strcmp(kind, "delta"))
        err_set(e, ERR_USAGE, "%s: a file of kind %s, not a delta", delta, kind);
    const char *base = e->code ? NULL : h5_get_str(p.d, "/", "base_content_xxh3_128", e);
    const char *tuned = base ? h5_get_str(p.d, "/", "tuned_content_xxh3_128", e) : NULL;
    if (tuned && side_open(&p.from, from, &a, e)) {
        const char *have = content_of(&p.from, &a, e), *want = back ? tuned : base,
                   *goal = back ? base : tuned;
        if (have && strcmp(have, want))
            err_set(e, ERR_USAGE, "%s is not the %s of %s: its content hash is %s, the delta's %s", from,
                    back ? "tuned model" : "base", delta, have, want);
        const char *result = !e->code && build(&p, &m, e) ? result_hash(&m, &a, e) : NULL;
        if (result && strcmp(result, goal))
            err_set(e, ERR_CORRUPT, "%s: gives a model with content hash %s, not %s", delta, result, goal);
        r->tensors = p.from.f.n;
        if (!e->code && out) write_out(&p, &m, out, e);
    }
    side_close(&p.from);
    if (p.d) h5_close(p.d);
    arena_free(&a);
    return !e->code;
}

bool delta_apply(const char *base, const char *delta, const char *out, DeltaReport *r, Err *e)
{
    return walk(base, delta, out, false, r, e);
}

bool delta_revert(const char *tuned, const char *delta, const char *out, DeltaReport *r, Err *e)
{
    return walk(tuned, delta, out, true, r, e);
}

bool delta_verify(const char *delta, const char *base, DeltaReport *r, Err *e)
{
    Arena a = {.name = "delta"};
    if (base) return walk(base, delta, NULL, false, r, e);
    *r = (DeltaReport){0};
    H5In *h = h5_open(delta, false, &a, e); /* the envelope covers every byte */
    const char *kind = h ? h5_get_str(h, "/", "kind", e) : NULL;
    if (kind && strcmp(kind, "delta"))
        err_set(e, ERR_USAGE, "%s: a file of kind %s, not a delta", delta, kind);
    if (h) h5_close(h);
    arena_free(&a);
    return !e->code;
}
