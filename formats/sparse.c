/* formats/sparse.c: tensors stored without their zeros (product.md 6.3), groups like those of encoded.c:
 *
 *   sparse_bitmask  mask u8 (rows, ceil(cols/8)), bit i of byte j = column 8 j + i; values (nnz); row_offsets
 *   u64 (rows+1)
 *   sparse_2_4      values (out, in/2); meta u8 (out, in/8): per 4 columns idx0 in bits 0-1, idx1 in 2-3, low
 *   nibble first
 *
 * Values lie in the tensor's type, rows one after the other; what is not kept decodes to +0. Members lie
 * [out,in]. */
#include <stdlib.h>
#include <string.h>
#include "formats/formats_impl.h"

static bool is(const char *a, const char *b) { return !strcmp(a, b); }

bool sparse_is(const EncodedTensor *c)
{
    return is(c->encoding, "sparse_bitmask") || is(c->encoding, "sparse_2_4");
}

static const FileTensor *part(const EncodedTensor *c, const char *name)
{
    for (int i = 0; i < c->n_member; i++)
        if (is(c->member[i].name, name)) return &c->member[i];
    return NULL;
}

/* A member's bytes, verified, of the type and size asked for. NULL with e set. */
static const unsigned char *bytes_of(const TensorFile *f, const EncodedTensor *c, const char *name, DType t,
                                     size_t count, Err *e)
{
    const FormatsImpl *im = f->impl;
    const FileTensor *m = part(c, name);
    if (!m || m->dtype != t || m->bytes != count * dtype_size(t)) {
        err_set(e, ERR_CORRUPT, "%s: tensor `%s` (%s): member `%s` is missing or not %zu x %s", f->path,
                c->name, c->encoding, name, count, dtype_name(t));
        return NULL;
    }
    if (im->h5 && !h5_verify(im->h5, m->stored_name, m->data, m->bytes, e)) return NULL;
    return m->data;
}

static bool read_bitmask(const TensorFile *f, const FileTensor *t, float *dst, Arena *tmp, Err *e)
{
    const EncodedTensor *c = t->encoded;
    const size_t rows = (size_t)c->rows, cols = (size_t)c->cols, wide = (cols + 7) / 8;
    const unsigned char *mask = bytes_of(f, c, "mask", DT_U8, rows * wide, e);
    const unsigned char *offset = mask ? bytes_of(f, c, "row_offsets", DT_U64, rows + 1, e) : NULL;
    size_t nnz = 0, at = 0;
    for (size_t i = 0; offset && i < rows * wide; i++) nnz += (size_t)__builtin_popcount(mask[i]);
    const unsigned char *stored = offset ? bytes_of(f, c, "values", t->dtype, nnz, e) : NULL;
    float *v = arena_alloc(tmp, (nnz + 1) * sizeof *v, e);
    if (!stored || !v || !dtype_to_f32(v, stored, t->dtype, nnz)) return false;
    memset(dst, 0, rows * cols * sizeof *dst);
    for (size_t r = 0; r <= rows; r++) {
        uint64_t want;
        memcpy(&want, offset + r * sizeof want, sizeof want);
        if (want != at)
            return err_set(e, ERR_CORRUPT, "%s: tensor `%s`: row_offsets and mask differ at row %zu", f->path,
                           c->name, r);
        for (size_t j = 0; r < rows && j < wide * 8; j++) {
            if (!(mask[r * wide + j / 8] >> (j % 8) & 1)) continue;
            if (j >= cols)
                return err_set(e, ERR_CORRUPT,
                               "%s: tensor `%s`: a bit is set behind the last column of row %zu", f->path,
                               c->name, r);
            dst[r * cols + j] = v[at++];
        }
    }
    return true;
}

static bool read_2_4(const TensorFile *f, const FileTensor *t, float *dst, Arena *tmp, Err *e)
{
    const EncodedTensor *c = t->encoded;
    const size_t rows = (size_t)c->rows, cols = (size_t)c->cols, groups = cols / 4, wide = (groups + 1) / 2;
    if (cols % 4)
        return err_set(e, ERR_CORRUPT, "%s: tensor `%s`: %zu columns are no fours", f->path, c->name, cols);
    const unsigned char *meta = bytes_of(f, c, "meta", DT_U8, rows * wide, e);
    const unsigned char *stored = meta ? bytes_of(f, c, "values", t->dtype, rows * groups * 2, e) : NULL;
    float *v = arena_alloc(tmp, (rows * groups * 2 + 1) * sizeof *v, e);
    if (!stored || !v || !dtype_to_f32(v, stored, t->dtype, rows * groups * 2)) return false;
    memset(dst, 0, rows * cols * sizeof *dst);
    for (size_t r = 0; r < rows; r++)
        for (size_t g = 0; g < groups; g++) {
            const int bits = meta[r * wide + g / 2] >> (g % 2 * 4) & 15;
            if ((bits & 3) >= bits >> 2)
                return err_set(e, ERR_CORRUPT, "%s: tensor `%s`: columns of a group do not ascend in row %zu",
                               f->path, c->name, r);
            dst[r * cols + g * 4 + (size_t)(bits & 3)] = v[(r * groups + g) * 2];
            dst[r * cols + g * 4 + (size_t)(bits >> 2)] = v[(r * groups + g) * 2 + 1];
        }
    return true;
}

bool sparse_read(const TensorFile *f, const FileTensor *t, float *dst, Err *e)
{
    Arena tmp = {.name = "sparse"};
    const bool ok = is(t->encoded->encoding, "sparse_2_4") ? read_2_4(f, t, dst, &tmp, e)
                                                           : read_bitmask(f, t, dst, &tmp, e);
    arena_free(&tmp);
    return ok && !e->code;
}

/* ---- writing ------------------------------------------------------------------------------------------- */
SparseForm formats_sparse_form(const uint8_t *keep, long rows, long cols, DType dtype)
{
    const uint64_t size = dtype_size(dtype), n = (uint64_t)(rows * cols);
    uint64_t nnz = 0;
    bool fours = cols % 4 == 0;
    for (long i = 0; i < rows * cols; i++) nnz += keep[i];
    for (long i = 0; fours && i < rows * cols; i += 4)
        fours = keep[i] + keep[i + 1] + keep[i + 2] + keep[i + 3] <= 2;
    const uint64_t bitmask = nnz * size + (uint64_t)rows * (uint64_t)((cols + 7) / 8) +
                             8 * (uint64_t)(rows + 1),
                   half = n / 2 * size + (uint64_t)rows * (uint64_t)((cols / 4 + 1) / 2);
    if (fours && half < n * size && half <= bitmask) return SPARSE_2_4;
    return bitmask < n * size ? SPARSE_BITMASK : SPARSE_NONE;
}

static void add(OutTensor *out, int *n, const char *name, const char *part_name, DType t, int ndim, long d0,
                long d1, const void *raw, const float *src, Arena *a, Err *e)
{
    out[(*n)++] = (OutTensor){.name = arena_printf(a, e, "%s.%s", name, part_name),
                              .ndim = ndim,
                              .dim = {d0, d1},
                              .dtype = t,
                              .raw = raw,
                              .src = src,
                              .member_of = name};
}

static bool put_bitmask(OutTensor *out, int *n, const OutTensor *t, const uint8_t *keep, long rows, long cols,
                        Arena *a, Err *e)
{
    const long wide = (cols + 7) / 8;
    uint8_t *mask = arena_alloc(a, (size_t)(rows * wide), e);
    uint64_t *offset = arena_alloc(a, (size_t)(rows + 1) * sizeof *offset, e);
    float *v = arena_alloc(a, (size_t)(rows * cols + 1) * sizeof *v, e);
    long at = 0;
    for (long r = 0; mask && offset && v && r < rows; r++) {
        for (long c = 0; c < cols; c++) {
            if (!keep[r * cols + c]) continue;
            mask[r * wide + c / 8] |= (uint8_t)(1 << (c % 8));
            v[at++] = t->src[r * cols + c];
        }
        offset[r + 1] = (uint64_t)at;
    }
    if (e->code) return false;
    add(out, n, t->name, "mask", DT_U8, 2, rows, wide, mask, NULL, a, e);
    add(out, n, t->name, "values", t->dtype, 1, at, 0, NULL, v, a, e);
    add(out, n, t->name, "row_offsets", DT_U64, 1, rows + 1, 0, offset, NULL, a, e);
    return !e->code;
}

/* Two columns of a group: the kept ones, filled up with the first that are not. */
static int two_of(const uint8_t *keep)
{
    int kept = keep[0] + keep[1] + keep[2] + keep[3], pair[2], n = 0;
    for (int j = 0; j < 4 && n < 2; j++) {
        const bool fill = !keep[j] && kept < 2;
        if (!keep[j] && !fill) continue;
        kept += fill;
        pair[n++] = j;
    }
    return pair[0] | pair[1] << 2;
}

static bool put_2_4(OutTensor *out, int *n, const OutTensor *t, const uint8_t *keep, long rows, long cols,
                    Arena *a, Err *e)
{
    const long groups = cols / 4, wide = (groups + 1) / 2;
    uint8_t *meta = arena_alloc(a, (size_t)(rows * wide), e);
    float *v = arena_alloc(a, (size_t)(rows * groups * 2 + 1) * sizeof *v, e);
    for (long i = 0; meta && v && i < rows * groups; i++) {
        const int bits = two_of(keep + i * 4);
        meta[i / groups * wide + i % groups / 2] |= (uint8_t)(bits << (i % groups % 2 * 4));
        v[i * 2] = t->src[i * 4 + (bits & 3)];
        v[i * 2 + 1] = t->src[i * 4 + (bits >> 2)];
    }
    if (e->code) return false;
    add(out, n, t->name, "values", t->dtype, 2, rows, groups * 2, NULL, v, a, e);
    add(out, n, t->name, "meta", DT_U8, 2, rows, wide, meta, NULL, a, e);
    return !e->code;
}

bool formats_sparse(OutTensor *out, int *n, OutGroup *group, const OutTensor *t, const uint8_t *keep,
                    SparseForm form, Arena *a, Err *e)
{
    const long rows = (long)t->dim[0], cols = (long)t->dim[1];
    long nnz = 0;
    for (long i = 0; i < rows * cols; i++) nnz += keep[i];
    *n = 0;
    if (!(form == SPARSE_2_4 ? put_2_4 : put_bitmask)(out, n, t, keep, rows, cols, a, e)) return false;
    json_t *attrs = json_pack("{s:s, s:[I,I], s:s, s:s, s:i, s:f}", "encoding",
                              form == SPARSE_2_4 ? "sparse_2_4" : "sparse_bitmask", "shape",
                              (json_int_t)(t->in_out ? cols : rows), (json_int_t)(t->in_out ? rows : cols),
                              "dtype", dtype_long_name(t->dtype), "layout", t->in_out ? "in_out" : "out_in",
                              "bits", (int)dtype_size(t->dtype) * 8, "sparsity",
                              1 - (double)nnz / (double)(rows * cols));
    char *text = attrs ? json_dumps(attrs, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    *group = (OutGroup){
        .name = t->name, .attrs_json = text ? arena_strdup(a, text, e) : NULL, .parameters = rows * cols};
    free(text);
    json_decref(attrs);
    return (group->attrs_json && !e->code) ||
           err_set(e, ERR_MEMORY, "out of memory for the attributes of `%s`", t->name);
}
