/* model/convert.c: a model file into another format, tensor by tensor: what is in memory is one tensor,
 * whatever the model's size. Names, shapes and values are checked as model_open checks them; what was
 * written is read again and compared bit for bit with what should stand there. */
#include "model/load_impl.h"
#include <stdlib.h>
#include <string.h>

typedef struct Source {
    Model m;
    TensorFile f;
    OutTensor *t;
    int n;
} Source;
typedef struct Pull {
    Source *s;
    const Param *p;
} Pull;

static bool pull(const OutTensor *t, float *dst, Err *e)
{
    const Pull *from = t->ctx;
    return load_values(&from->s->f, from->p, dst, e);
}

static bool open_source(Source *s, const char *path, DType dtype, Arena *a, Err *e)
{
    if (!formats_open(&s->f, path, a, e)) return false;
    if (!load_spec(&s->m, &s->f, kernels_ref_f32(), a, e)) return false;
    const Params *ps = &s->m.params;
    s->t = arena_alloc(a, (size_t)ps->n * sizeof *s->t, e);
    Pull *ctx = arena_alloc(a, (size_t)ps->n * sizeof *ctx, e);
    for (int i = 0; ctx && i < ps->n; i++) {
        const Param *p = ps->p[i];
        if (!load_check(&s->f, ps->p[i], e)) return false;
        ctx[i] = (Pull){s, p};
        OutTensor *t = &s->t[s->n++];
        *t = (OutTensor){.name = p->name,
                         .ndim = p->w.ndim,
                         .dtype = dtype,
                         .in_out = p->in_out,
                         .load = pull,
                         .ctx = &ctx[i]};
        for (int d = 0; d < p->w.ndim; d++) t->dim[d] = p->w.dim[d];
    }
    if (!e->code) load_warn_unused(&s->m, &s->f);
    return !e->code;
}

/* Stored as it is computed with: compared where it lies, a block after the other. */
static bool plain(const TensorFile *back, const FileTensor *b, const OutTensor *t)
{
    return !b->encoded && !b->in_out && !b->unpermute_heads && b->dtype == t->dtype &&
           formats_mapped(back, b);
}

static bool same_blocks(const TensorFile *back, const FileTensor *b, const float *x, size_t n, Err *e)
{
    unsigned char part[8192];
    const size_t size = dtype_size(b->dtype), step = sizeof part / size;
    if (!formats_check(back, b, e)) return false;
    for (size_t i = 0, k = 0; i < n; i += step, k++) {
        const size_t now = n - i < step ? n - i : step;
        dtype_from_f32(part, b->dtype, x + i, now);
        if (memcmp(part, b->data + i * size, now * size) != 0) return false;
        if (k % 512 == 511) formats_drop(back, b);
    }
    return true;
}

static bool same_values(const Source *s, const TensorFile *back, const OutTensor *t, Err *e)
{
    Arena tmp = {.name = "comparison"};
    const FileTensor *b = formats_find(back, t->name);
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->dim[i];
    if (!b) return err_set(e, ERR_FAIL, "%s: %s is not in what was written", back->path, t->name);
    const bool blocks = plain(back, b, t);
    float *x = arena_alloc(&tmp, n * sizeof *x, e), *y = blocks ? NULL : arena_alloc(&tmp, n * sizeof *y, e);
    if (!e->code && t->load(t, x, e)) {
        bool same = blocks && same_blocks(back, b, x, n, e);
        if (!blocks) {
            dtype_from_f32(y, t->dtype, x, n);
            dtype_to_f32(x, y, t->dtype, n);
            same = formats_read_f32(back, b, y, e) && memcmp(x, y, n * sizeof *x) == 0;
        }
        if (!same && !e->code)
            err_set(e, ERR_FAIL, "%s: %s: what was read back differs from what was written", back->path,
                    t->name);
        formats_drop(back, b);
    }
    arena_free(&tmp);
    (void)s;
    return !e->code;
}

static bool write(const char *out, const ConvertOptions *o, const OutModel *m, Err *e)
{
    if (!strcmp(o->format, "hdf5")) return formats_write_h5(out, m, e);
    if (!strcmp(o->format, "hf")) return formats_write_hf(out, m, o->shard_bytes, e);
    return formats_write_safetensors(out, m, e);
}

bool model_convert(const char *in, const char *out, const ConvertOptions *o, int *n_tensor, Err *e)
{
    Arena a = {.name = "conversion"};
    Source s = {.n = 0};
    TensorFile back = {0};
    if (open_source(&s, in, o->dtype, &a, e)) {
        OutModel m = {.n = s.n,
                      .t = s.t,
                      .arch = s.m.spec.family->arch,
                      .config_json = formats_config_dtype(s.f.config_json, o->dtype, &a, e),
                      .generation_json = s.f.generation_json,
                      .tokenizer_path = o->tokenizer_path ? o->tokenizer_path : s.f.tokenizer_path};
        *n_tensor = s.n;
        if (!o->dry_run && write(out, o, &m, e) && formats_open(&back, out, &a, e))
            for (int i = 0; i < s.n && !e->code; i++) same_values(&s, &back, &s.t[i], e);
    }
    formats_close(&back);
    formats_close(&s.f);
    arena_free(&a);
    return !e->code;
}
