/* formats/packed.c: the codes and scales of an encoded tensor as they lie in the file, for weights that are
 * used packed: bytes stay where they are (the mapping of the file) and scales keep their stored form.
 *
 *   scale(i) = scales[i]  |  E8M0[byte]  |  E4M3[byte]  |  absmax  |  map[byte] absmax_scale[i / 256] +
 * offset
 *
 * Only floats that lie off their alignment, or are stored as F16, are copied. */
#include <math.h>
#include <string.h>
#include "formats/formats_impl.h"

bool formats_packs(const TensorFile *f, const FileTensor *t)
{
    /* what a training state stores is not what is effective */
    return t && t->encoded && t->encoded->spec.f && t->ndim == 2 && !t->unpermute_heads &&
           strcmp(f->kind, "train_state") != 0;
}

typedef struct Pack {
    const TensorFile *f;
    const EncodedTensor *c;
    PackedTensor *p;
    Arena *a;
    Err *e;
} Pack;

static const uint8_t *bytes_in(Pack *k, const char *name, size_t n)
{
    const unsigned char *v = encoded_bytes(k->f, k->c, name, DT_U8, n, k->e);
    k->p->bytes += v ? n : 0;
    return v;
}

/* n floats in place, else a copy of them. */
static float *floats_in(Pack *k, const char *name, size_t n)
{
    const DType t = encoded_dtype(k->c, name) == DT_F16 ? DT_F16 : DT_F32;
    const unsigned char *v = encoded_bytes(k->f, k->c, name, t, n, k->e);
    if (!v) return NULL;
    k->p->bytes += n * sizeof(float);
    if (t == DT_F32 && (uintptr_t)v % sizeof(float) == 0) return (float *)(uintptr_t)v;
    float *copy = arena_alloc(k->a, n * sizeof *copy, k->e);
    return copy && dtype_to_f32(copy, v, t, n) ? copy : NULL;
}

/* Is the member the program's own table? Then that one serves. */
static bool is_table(Pack *k, const char *name, const float *table, size_t n)
{
    const unsigned char *v = encoded_dtype(k->c, name) == DT_F32
                                 ? encoded_bytes(k->f, k->c, name, DT_F32, n, k->e)
                                 : NULL;
    const bool same = v && !memcmp(v, table, n * sizeof *table);
    k->p->bytes += same ? n * sizeof *table : 0;
    return same;
}

static void nf4_scales(Pack *k, QuantScales *q, size_t n)
{
    if (!is_table(k, "levels", nf4_levels(), 16) && !k->e->code)
        err_set(k->e, ERR_CORRUPT, "%s: tensor `%s`: other levels than NF4's are not read by this version",
                k->f->path, k->c->name);
    if (!k->c->spec.double_quant) {
        q->scale = floats_in(k, "absmax", n);
        return;
    }
    q->byte = bytes_in(k, "absmax_codes", n);
    q->map = is_table(k, "absmax_map", dynamic_map(), 256) ? dynamic_map() : floats_in(k, "absmax_map", 256);
    q->dq_scale = floats_in(k, "absmax_scale", (n + 255) / 256);
    const float *offset = floats_in(k, "absmax_offset", 1);
    if (offset) q->dq_offset = *offset;
}

/* A code that is no number: of E4M3 all ones, of E5M2 the exponent all ones. */
static bool code_is_number(const QuantFormat *f, uint8_t c)
{
    if (f->elem == ELEM_E4M3) return (c & 0x7F) != 0x7F;
    return f->elem != ELEM_E5M2 || (c & 0x7C) != 0x7C;
}

/* No element may decode to infinity or NaN: scales finite also times the largest element, codes numbers. */
static bool all_finite(Pack *k)
{
    const EncodedTensor *c = k->c;
    const QuantFormat *f = c->spec.f;
    const QuantScales *q = &k->p->scales;
    const int half = 1 << (f->bits - 1);
    /* what codes can say, whatever the range: a zero point is any byte, the lowest signed code is -half */
    const float top = f->elem != ELEM_INT ? f->max : c->spec.asymmetric ? 255 : (float)half;
    for (long i = 0; i < q->R * q->G; i++)
        if (!isfinite(quant_scale_at(q, i) * q->tensor * top))
            return err_set(k->e, ERR_CORRUPT,
                           "%s: tensor %s holds a scale that makes infinities or NaN, at block %ld; nothing "
                           "was loaded: quantise it again from a sound file",
                           k->f->path, c->name, i);
    if (f->elem != ELEM_E4M3 && f->elem != ELEM_E5M2) return true;
    const size_t row = quant_row_bytes(&c->spec, c->cols);
    for (long r = 0; r < c->rows; r++)
        for (long j = 0; j < c->cols; j++)
            if (!code_is_number(f, k->p->codes[(size_t)r * row + (size_t)j]))
                return err_set(k->e, ERR_CORRUPT,
                               "%s: tensor %s holds NaN or infinity at [%ld,%ld]; nothing was loaded: "
                               "quantise it again from a sound file",
                               k->f->path, c->name, r, j);
    return true;
}

bool formats_packed(const TensorFile *f, const FileTensor *t, PackedTensor *p, Arena *a, Err *e)
{
    const EncodedTensor *c = t->encoded;
    const QuantSpec *s = &c->spec;
    *p = (PackedTensor){.scales = {.tensor = 1}};
    if (!formats_packs(f, t))
        return err_set(e, ERR_FAIL, "%s: tensor `%s` is not stored as codes", f->path, t->name);
    Pack k = {f, c, p, a, e};
    QuantScales *q = &p->scales;
    q->R = quant_rows(s, c->rows);
    q->G = quant_groups(s, c->cols);
    const size_t n = (size_t)(q->R * q->G);
    if (s->f->elem == ELEM_NF4) {
        nf4_scales(&k, q, n);
    } else if (s->f->scale == SCALE_F32) {
        q->scale = floats_in(&k, "scales", n);
    } else {
        const bool e8 = s->f->scale == SCALE_E8M0;
        q->byte = bytes_in(&k, e8 ? "scales_e8m0" : "scales_e4m3", n);
        q->map = quant_scale_map(s->f->scale);
        const float *tensor = e8 ? NULL : floats_in(&k, "tensor_scale", 1);
        if (tensor) q->tensor = *tensor;
    }
    if (s->asymmetric) q->zero_byte = bytes_in(&k, "zeros", n);
    p->codes = bytes_in(&k, "codes", (size_t)c->rows * quant_row_bytes(s, c->cols));
    return !e->code && all_finite(&k);
}
