/* model/store.c: how a parameter lies in memory: as elements of the run's type, mapped or owned, as bfloat16
 * (a frozen teacher's), or as codes. */
#include "model/load_impl.h"
#include <math.h>
#include <string.h>

bool model_own(Model *m, Param *p, Err *e)
{
    if (!p->read_only || !p->w.data) return true;
    const size_t one = weight_is_half(&p->w) ? sizeof(uint16_t) : m->params.k->real,
                 bytes = (size_t)t_numel(&p->w) * one;
    void *copy = arena_alloc(m->run, bytes, e);
    if (!copy) return false;
    memcpy(copy, p->w.data, bytes);
    p->w.data = copy;
    p->read_only = false;
    return true;
}

/* x (n) rounded to bfloat16 and back. Only what is finite afterwards is a weight. */
static bool round_values(float *x, uint16_t *half, size_t n, const TensorFile *f, const Param *p, Err *e)
{
    if (!half) return false;
    dtype_from_f32(half, DT_BF16, x, n);
    dtype_to_f32(x, half, DT_BF16, n);
    return load_finite(x, n, f, p, e);
}

/* The mapping is the memory, where the file has halves in the layout of memory. */
static bool map_half(Model *m, Param *p, const FileTensor *t, const TensorFile *f, Err *e)
{
    const uint16_t *x = (const void *)t->data;
    p->w.dtype = DT_BF16;
    p->w.data = (void *)(uintptr_t)x;
    m->mapped_bytes += (int64_t)t->bytes;
    for (long i = 0; i < t_numel(&p->w); i++)
        if ((x[i] & 0x7f80u) == 0x7f80u) {      /* all ones in the exponent: infinity or NaN */
            Arena tmp = {.name = "conversion"}; /* whole, so that the message says which element */
            float *v = arena_alloc(&tmp, (size_t)(i + 1) * sizeof *v, e);
            if (v) dtype_to_f32(v, x, DT_BF16, (size_t)(i + 1));
            if (v) load_finite(v, (size_t)(i + 1), f, p, e);
            arena_free(&tmp);
            return false;
        }
    return true;
}

bool load_half(Model *m, Param *p, const TensorFile *f, bool in_place, Err *e)
{
    const FileTensor *t = formats_find(f, p->name);
    const size_t n = (size_t)t_numel(&p->w);
    const bool matrix = p->w.ndim == 2;
    p->read_only = true;
    if (matrix && in_place && load_in_place(f, t, DT_BF16, sizeof(uint16_t))) return map_half(m, p, t, f, e);
    Arena tmp = {.name = "conversion"};
    float *v = arena_alloc(&tmp, n * sizeof *v, e);
    char *hex = arena_alloc(m->run, 33, e);
    uint16_t *half = arena_alloc(matrix ? m->run : &tmp, n * sizeof *half, e);
    void *own = matrix ? half : arena_alloc(m->run, n * m->params.k->real, e);
    if (!e->code && load_values(f, p, v, e)) {
        hash128_hex(hex, v, n * sizeof *v); /* the model is still the file's, whatever it is kept in */
        p->hash = hex;
        round_values(v, half, n, f, p, e);
        if (!matrix && m->params.k->real == sizeof(float)) memcpy(own, v, n * sizeof *v);
        else if (!matrix)
            for (size_t i = 0; i < n; i++) ((double *)own)[i] = v[i];
        p->w.data = own;
        if (matrix) p->w.dtype = DT_BF16;
    }
    arena_free(&tmp);
    return !e->code;
}

const float *model_floats(const Model *m, const Param *p, Arena *a, Err *e)
{
    const size_t n = (size_t)t_numel(&p->w);
    if (p->w.data && p->w.dtype == DT_F32) return p->w.data;
    float *v = arena_alloc(a, n * sizeof *v, e);
    if (!v) return NULL;
    if (weight_is_half(&p->w)) dtype_to_f32(v, p->w.data, DT_BF16, n);
    for (int i = 0; !p->w.data && i < m->n_site; i++) {
        const QuantStore *q = m->site[i].w == p ? m->site[i].q : NULL;
        if (q) quant_decode(v, q->codes, &q->spec, &q->scales, q->cols, 0, q->rows);
    }
    for (size_t i = 0; p->w.data && p->w.dtype == DT_F64 && i < n; i++)
        v[i] = (float)((double *)p->w.data)[i];
    return v;
}

int64_t model_bytes(const Model *m) { return params_count(&m->params, false) * 4; }

int64_t model_held(const Model *m)
{
    int64_t n = 0;
    for (int i = 0; i < m->params.n; i++) {
        const Param *p = m->params.p[i];
        if (p->w.data && !p->tied_to) n += (int64_t)dtype_size(p->w.dtype) * t_numel(&p->w);
    }
    for (int i = 0; i < m->n_site; i++) {
        const QuantStore *q = m->site[i].q;
        if (!q) continue;
        n += (int64_t)((size_t)q->rows * quant_row_bytes(&q->spec, q->cols));
        const int64_t scales = (int64_t)q->scales.R * q->scales.G;
        n += scales * (int64_t)(q->scales.byte ? 1 : sizeof(float)) + (q->scales.zero_byte ? scales : 0) +
             (q->scales.zero ? scales * (int64_t)sizeof(float) : 0) + (q->scales.dq_code ? scales : 0);
    }
    return n;
}
