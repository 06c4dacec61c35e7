/* formats/encoded.c: tensors stored as codes and scales (product.md 6.3), in HDF5 a group with members and
 * attributes, in safetensors tensors <name>.<member> and one JSON object per name in __metadata__.
 *
 *   int_affine  codes, scales (R,G), zeros      fp8_*  codes, scales        nf4    codes, absmax |
 * absmax_codes.., levels
 *   mxfp4/8     codes, scales_e8m0 (out,G)      nvfp4  codes, scales_e4m3, tensor_scale       fp4_e2m1
 * codes, scales
 *
 * Members lie [out,in] whatever `layout` says; `shape` is the file's. Strict: every member's type and shape
 * is checked against what shape and attributes ask for before anything is decoded. */
#include <stdlib.h>
#include <string.h>
#include "formats/formats_impl.h"

#define BAD(...) err_set(e, ERR_CORRUPT, __VA_ARGS__)

static const FileTensor *member(const EncodedTensor *c, const char *name)
{
    for (int i = 0; i < c->n_member; i++)
        if (!strcmp(c->member[i].name, name)) return &c->member[i];
    return NULL;
}

static long attr_long(const json_t *a, const char *key, long def)
{
    const json_t *v = json_object_get(a, key);
    if (json_is_boolean(v)) return json_is_true(v);
    return json_is_integer(v) ? (long)json_integer_value(v) : def;
}

static const char *attr_text(const json_t *a, const char *key)
{
    const char *s = json_string_value(json_object_get(a, key));
    return s ? s : "";
}

/* ---- reading ------------------------------------------------------------------------------------------- */

/* How many rows and columns share a scale, from the attributes; scales tells tensor from channel. Sizes are
 * the file's word, and every index of a scale is made of them. */
static bool spec_blocks(QuantSpec *s, const EncodedTensor *c, const json_t *attrs, const char *path, Err *e)
{
    const FileTensor *scales = member(c, "scales");
    const bool one = scales &&
                     (scales->ndim == 0 || (scales->ndim == 2 && scales->dim[0] == 1 && scales->dim[1] == 1));
    long rows = 1, cols = attr_long(attrs, "group_size", attr_long(attrs, "block_size", 0));
    if (s->f->elem == ELEM_E4M3 || s->f->elem == ELEM_E5M2) {
        rows = attr_long(attrs, "block_rows", 1);
        cols = attr_long(attrs, "block_cols", cols);
    }
    if (cols == -1) cols = 0; /* a whole row */
    if (rows < 0 || cols < 0 || rows > INT32_MAX || cols > INT32_MAX)
        return BAD("%s: tensor `%s` (%s): blocks of %ld x %ld elements are impossible; quantise it again",
                   path, c->name, c->encoding, rows, cols);
    if (s->f->block > 0) cols = s->f->block;
    else if (one && (rows != 1 || c->rows > 1 || cols <= 0)) rows = cols = 0;
    s->block_rows = rows >= c->rows && rows > 1 ? 0 : rows;
    s->block_cols = cols <= 0 || (cols >= c->cols && s->f->elem != ELEM_NF4 && !s->f->block) ? 0 : cols;
    if (s->f->block && !s->block_cols)
        return BAD("%s: tensor `%s` (%s): the size of a block is missing; quantise it again", path, c->name,
                   c->encoding);
    return true;
}

static bool spec_read(QuantSpec *s, const EncodedTensor *c, const json_t *attrs, const char *path, Err *e)
{
    const long bits = attr_long(attrs, "bits", 0);
    for (int i = 0; i < n_quant_formats && !s->f; i++)
        if (!strcmp(quant_formats[i].encoding, c->encoding) &&
            (quant_formats[i].elem != ELEM_INT || quant_formats[i].bits == bits))
            s->f = &quant_formats[i];
    if (!s->f)
        return BAD("%s: tensor `%s`: encoding `%s` with %ld bits is not read by this version", path, c->name,
                   c->encoding, bits);
    const char *rule = attr_text(attrs, "scale_rounding");
    s->rule = !strcmp(rule, "ceil") ? MX_CEIL : !strcmp(rule, "bump_1p75") ? MX_BUMP_1P75 : MX_FLOOR;
    s->asymmetric = s->f->elem == ELEM_INT && !attr_long(attrs, "signed", attr_long(attrs, "symmetric", 1));
    s->full = !strcmp(attr_text(attrs, "range"), "full");
    s->double_quant = member(c, "absmax_codes") != NULL;
    if (member(c, "g_idx")) return BAD("%s: tensor `%s`: g_idx is not read by this version", path, c->name);
    return spec_blocks(s, c, attrs, path, e);
}

/* The member, of `count` elements of type t; NULL: missing, or of another size. */
static const FileTensor *member_sized(const char *path, const EncodedTensor *c, const char *name, DType t,
                                      size_t count, Err *e)
{
    const FileTensor *m = member(c, name);
    const bool same = m && (m->dtype == t || (t == DT_U8 && dtype_size(m->dtype) == 1));
    if (!m) BAD("%s: tensor `%s` (%s): member `%s` is missing", path, c->name, c->encoding, name);
    else if (!same || m->bytes != count * dtype_size(t))
        BAD("%s: tensor `%s` (%s): member `%s` is %s of %zu bytes, %s of %zu bytes is needed", path, c->name,
            c->encoding, name, dtype_name(m->dtype), m->bytes, dtype_name(t), count * dtype_size(t));
    return e->code ? NULL : m;
}

/* Do codes, scales and zeros have the sizes that shape and blocks ask for? Before anything is allocated. */
static bool members_fit(const char *path, const EncodedTensor *c, Err *e)
{
    const QuantSpec *s = &c->spec;
    const size_t n = (size_t)(quant_rows(s, c->rows) * quant_groups(s, c->cols));
    const size_t codes = (size_t)c->rows * quant_row_bytes(s, c->cols);
    const bool small = s->double_quant || s->f->scale != SCALE_F32;
    const char *name = s->double_quant             ? "absmax_codes"
                       : s->f->elem == ELEM_NF4    ? "absmax"
                       : s->f->scale == SCALE_E8M0 ? "scales_e8m0"
                       : s->f->scale == SCALE_E4M3 ? "scales_e4m3"
                                                   : "scales";
    const DType t = small ? DT_U8 : encoded_dtype(c, name) == DT_F16 ? DT_F16 : DT_F32;
    return member_sized(path, c, "codes", DT_U8, codes, e) && member_sized(path, c, name, t, n, e) &&
           (!s->asymmetric || member_sized(path, c, "zeros", DT_U8, n, e));
}

static bool encoded_take(TensorFile *f, FileTensor *t, const char *name, const json_t *attrs,
                         EncodedTensor *c, Err *e)
{
    const json_t *shape = json_object_get(attrs, "shape");
    const int ndim = (int)json_array_size(shape);
    *t = (FileTensor){.name = name, .stored_name = name, .dtype = DT_F32, .ndim = ndim, .encoded = c};
    c->encoding = arena_strdup(f->arena, attr_text(attrs, "encoding"), e);
    if (ndim < 1 || ndim > 2)
        return BAD("%s: tensor `%s`: `shape` must have one or two sizes", f->path, name);
    for (int i = 0; i < ndim; i++) {
        t->dim[i] = json_integer_value(json_array_get(shape, (size_t)i));
        if (t->dim[i] < 1 || t->dim[i] > INT32_MAX)
            return BAD("%s: tensor `%s`: impossible shape", f->path, name);
    }
    const char *dtype = attr_text(attrs, "dtype");
    if (*dtype && !dtype_parse(dtype, &t->dtype)) return BAD("%s: tensor `%s`: unknown dtype", f->path, name);
    t->in_out = ndim == 2 && !strcmp(attr_text(attrs, "layout"), "in_out");
    c->rows = ndim == 2 ? (long)t->dim[t->in_out] : 1;
    c->cols = (long)t->dim[ndim == 2 ? !t->in_out : 0];
    for (int i = 0; i < c->n_member; i++) t->bytes += c->member[i].bytes;
    if (!e->code && sparse_is(c)) return true;
    return !e->code && spec_read(&c->spec, c, attrs, f->path, e) && members_fit(f->path, c, e);
}

/* Moves the members of `name` out of f's list, behind `end` of the kept ones. */
static bool members_take(TensorFile *f, EncodedTensor *c, bool *gone, Err *e)
{
    const size_t n = strlen(c->name);
    FileTensor *v = arena_alloc(f->arena, 16 * sizeof *v, e);
    for (int i = 0; v && i < f->n; i++) {
        if (strncmp(f->t[i].name, c->name, n) || f->t[i].name[n] != '.' || strchr(f->t[i].name + n + 1, '.'))
            continue;
        if (c->n_member == 16) return BAD("%s: tensor `%s` has more than 16 members", f->path, c->name);
        v[c->n_member] = f->t[i];
        v[c->n_member++].name = f->t[i].name + n + 1;
        gone[i] = true;
    }
    c->member = v;
    return v != NULL;
}

bool encoded_collect(TensorFile *f, Err *e)
{
    if (e->code || !f->metadata_json) return !e->code;
    json_t *meta = json_object_of(f->metadata_json, strlen(f->metadata_json), f->path, e), *value;
    const char *key;
    json_object_foreach(meta, key, value)
    {
        const char *text = json_string_value(value);
        json_t *attrs = text && *text == '{' && !e->code ? json_loads(text, JSON_REJECT_DUPLICATES, NULL)
                                                         : NULL;
        if (json_is_string(json_object_get(attrs, "encoding"))) {
            EncodedTensor *c = arena_alloc(f->arena, sizeof *c, e);
            bool *gone = arena_alloc(f->arena, (size_t)f->n + 1, e);
            char *name = arena_strdup(f->arena, key, e);
            FileTensor t;
            if (gone && name) {
                c->name = name;
                if (members_take(f, c, gone, e) && encoded_take(f, &t, name, attrs, c, e)) {
                    int kept = 0, at = -1; /* the tensor stands where its first member stood */
                    for (int i = 0; i < f->n; i++) {
                        if (gone[i] && at < 0) f->t[at = kept++] = t;
                        if (!gone[i]) f->t[kept++] = f->t[i];
                    }
                    f->n = kept;
                    if (at < 0) BAD("%s: tensor `%s` has attributes but no members", f->path, name);
                }
            }
        }
        json_decref(attrs);
    }
    json_decref(meta);
    return !e->code;
}

DType encoded_dtype(const EncodedTensor *c, const char *name)
{
    const FileTensor *m = member(c, name);
    return m ? m->dtype : DT_COUNT;
}

const unsigned char *encoded_bytes(const TensorFile *f, const EncodedTensor *c, const char *name, DType t,
                                   size_t count, Err *e)
{
    const FormatsImpl *im = f->impl;
    const FileTensor *m = e->code ? NULL : member_sized(f->path, c, name, t, count, e);
    if (!m) return NULL;
    if (im->h5 && !h5_verify(im->h5, m->stored_name, m->data, m->bytes, e)) return NULL;
    return m->data;
}

static bool floats_of(const TensorFile *f, const EncodedTensor *c, const char *name, float *dst, size_t n,
                      Err *e)
{
    const FileTensor *m = member(c, name);
    const DType t = m && m->dtype == DT_F16 ? DT_F16 : DT_F32;
    const unsigned char *p = encoded_bytes(f, c, name, t, n, e);
    return p && dtype_to_f32(dst, p, t, n);
}

/* Scales of one byte: E4M3 or E8M0. */
static bool small_scales(const TensorFile *f, const EncodedTensor *c, QuantScales *q, size_t n, Err *e)
{
    const bool e8 = c->spec.f->scale == SCALE_E8M0;
    const unsigned char *p = encoded_bytes(f, c, e8 ? "scales_e8m0" : "scales_e4m3", DT_U8, n, e);
    for (size_t i = 0; p && i < n; i++) q->scale[i] = e8 ? f32_from_e8m0(p[i]) : f32_from_e4m3(p[i]);
    return p && (e8 || floats_of(f, c, "tensor_scale", &q->tensor, 1, e));
}

static bool nf4_scales(const TensorFile *f, const EncodedTensor *c, QuantScales *q, size_t n, Err *e)
{
    float table[256];
    if (!floats_of(f, c, "levels", table, 16, e)) return false;
    if (memcmp(table, nf4_levels(), 16 * sizeof(float)))
        return BAD("%s: tensor `%s`: other levels than NF4's are not read by this version", f->path, c->name);
    if (!c->spec.double_quant) return floats_of(f, c, "absmax", q->scale, n, e);
    const unsigned char *p = encoded_bytes(f, c, "absmax_codes", DT_U8, n, e);
    if (!p || !floats_of(f, c, "absmax_map", table, 256, e) ||
        !floats_of(f, c, "absmax_scale", q->dq_scale, (n + 255) / 256, e) ||
        !floats_of(f, c, "absmax_offset", &q->dq_offset, 1, e))
        return false;
    memcpy(q->dq_code, p, n);
    for (size_t i = 0; i < n; i++) {
        const float part = table[p[i]] * q->dq_scale[i / 256];
        q->scale[i] = part + q->dq_offset;
    }
    return true;
}

bool formats_scales(const TensorFile *f, const FileTensor *t, QuantScales *q, const uint8_t **codes, Arena *a,
                    Err *e)
{
    const EncodedTensor *c = t->encoded;
    const QuantSpec *s = &c->spec;
    if (!s->f)
        return err_set(e, ERR_USAGE, "%s: tensor `%s` is stored as %s, without scales", f->path, c->name,
                       c->encoding);
    if (!quant_scales_alloc(q, s, c->rows, c->cols, a, e)) return false;
    const size_t n = (size_t)(q->R * q->G);
    bool ok = s->f->scale != SCALE_F32 ? small_scales(f, c, q, n, e)
              : s->f->elem == ELEM_NF4 ? nf4_scales(f, c, q, n, e)
                                       : floats_of(f, c, "scales", q->scale, n, e);
    const unsigned char *zero = ok && s->asymmetric ? encoded_bytes(f, c, "zeros", DT_U8, n, e) : NULL;
    for (size_t i = 0; zero && i < n; i++) q->zero[i] = zero[i];
    const size_t bytes = (size_t)c->rows * quant_row_bytes(s, c->cols);
    if (!e->code) *codes = encoded_bytes(f, c, "codes", DT_U8, bytes, e);
    return !e->code;
}

bool encoded_read(const TensorFile *f, const FileTensor *t, float *dst, Err *e)
{
    Arena tmp = {.name = "encoded"};
    QuantScales q;
    const uint8_t *codes;
    if (sparse_is(t->encoded)) return sparse_read(f, t, dst, e);
    if (formats_scales(f, t, &q, &codes, &tmp, e))
        quant_decode(dst, codes, &t->encoded->spec, &q, t->encoded->cols, 0, t->encoded->rows);
    arena_free(&tmp);
    return !e->code;
}

/* Floats of a dataset of n elements. */
static bool h5_floats(H5In *h, const char *path, float *dst, size_t n, Arena *a, Err *e)
{
    DType t;
    int ndim;
    int64_t dim[4];
    if (!h5_tensor_info(h, path, &t, &ndim, dim, e)) return false;
    void *v = arena_alloc(a, n * dtype_size(t), e);
    return v && h5_read_tensor(h, path, t, v, n * dtype_size(t), e) && dtype_to_f32(dst, v, t, n);
}

/* The scales a training state keeps: of the state, of learned steps, or found anew. */
static bool live_scales(H5In *h, const char *name, QuantScales *q, const QuantSpec *s, bool keep,
                        const float *x, const int64_t dim[4], Arena *a, Err *e)
{
    const size_t n = (size_t)(q->R * q->G);
    char *scale = arena_printf(a, e, "/qat/%s/scale", name), *zero = arena_printf(a, e, "/qat/%s/zero", name);
    char *step = arena_printf(a, e, "/qat/%s/step_size", name), *at = arena_printf(a, e, "/qat/%s", name);
    double tensor = 1;
    if (e->code) return false;
    if (keep && h5_has(h, step)) {
        if (!h5_floats(h, step, q->scale, n, a, e)) return false;
        for (size_t i = 0; i < n; i++) q->scale[i] = q->scale[i] < 0 ? -q->scale[i] : q->scale[i];
    } else if (keep && h5_has(h, scale)) {
        if (!h5_floats(h, scale, q->scale, n, a, e) || !h5_get_f64(h, at, "tensor", &tensor, e)) return false;
        if (q->zero && !h5_floats(h, zero, q->zero, n, a, e)) return false;
        q->tensor = (float)tensor;
    } else {
        quant_scales(q, s, x, (long)dim[0], (long)dim[1]);
    }
    return true;
}

bool live_quantise(const TensorFile *f, const FileTensor *t, float *x, Err *e)
{
    H5In *h = ((const FormatsImpl *)f->impl)->h5;
    Arena tmp = {.name = "quantiser"};
    int64_t v[7] = {0};
    static const char *const key[] = {"on",         "keep",   "block_rows",    "block_cols",
                                      "asymmetric", "search", "scale_rounding"};
    char *path = arena_printf(&tmp, e, "/qat/%s", t->name);
    if (path && t->ndim == 2 && h5_has(h, path)) {
        for (int i = 0; i < 7; i++) h5_get_i64(h, path, key[i], &v[i], e);
        const QuantSpec s = {.f = quant_format(h5_get_str(h, path, "format", e)),
                             .block_rows = (long)v[2],
                             .block_cols = (long)v[3],
                             .asymmetric = v[4] != 0,
                             .search = v[5] != 0,
                             .rule = (MxRule)v[6]};
        QuantScales q;
        if (!e->code && (!s.f || v[2] < 0 || v[3] < 0 || v[2] > INT32_MAX || v[3] > INT32_MAX))
            BAD("%s: `%s`: no usable number format", f->path, path);
        if (!e->code && v[0] && quant_scales_alloc(&q, &s, (long)t->dim[0], (long)t->dim[1], &tmp, e) &&
            live_scales(h, t->name, &q, &s, v[1] != 0, x, t->dim, &tmp, e))
            quant_fake(x, x, &s, &q, (long)t->dim[1], 0, (long)t->dim[0]);
    }
    arena_free(&tmp);
    return !e->code;
}

/* ---- writing ------------------------------------------------------------------------------------------- */

typedef struct Members {
    OutTensor *t;
    int n;
    const char *name;
    Arena *a;
    Err *e;
} Members;

static void add(Members *m, const char *part, DType type, int ndim, long d0, long d1, const void *data)
{
    m->t[m->n++] = (OutTensor){.name = arena_printf(m->a, m->e, "%s.%s", m->name, part),
                               .ndim = ndim,
                               .dim = {d0, d1},
                               .dtype = type,
                               .raw = data,
                               .member_of = m->name};
}

static const float *copy_f32(Members *m, const float *v, size_t n)
{
    float *p = arena_alloc(m->a, n * sizeof *p, m->e);
    if (p) memcpy(p, v, n * sizeof *p);
    return p;
}

static void add_scales(Members *m, const QuantSpec *s, const QuantScales *q)
{
    const size_t n = (size_t)(q->R * q->G);
    const bool fp8 = s->f->elem == ELEM_E4M3 || s->f->elem == ELEM_E5M2;
    if (s->f->scale == SCALE_F32 && s->f->elem != ELEM_NF4) {
        add(m, "scales", DT_F32, fp8 && !s->block_rows && !s->block_cols ? 0 : 2, q->R, q->G,
            copy_f32(m, q->scale, n));
        uint8_t *z = s->asymmetric ? arena_alloc(m->a, n, m->e) : NULL;
        for (size_t i = 0; z && i < n; i++) z[i] = (uint8_t)q->zero[i];
        if (z) add(m, "zeros", DT_U8, 2, q->R, q->G, z);
        return;
    }
    if (s->f->elem == ELEM_NF4) {
        add(m, "levels", DT_F32, 1, 16, 0, nf4_levels());
        if (!s->double_quant) {
            add(m, "absmax", DT_F32, 2, q->R, q->G, copy_f32(m, q->scale, n));
            return;
        }
        add(m, "absmax_codes", DT_U8, 2, q->R, q->G, q->dq_code);
        add(m, "absmax_scale", DT_F32, 1, (long)((n + 255) / 256), 0,
            copy_f32(m, q->dq_scale, (n + 255) / 256));
        add(m, "absmax_map", DT_F32, 1, 256, 0, dynamic_map());
        add(m, "absmax_offset", DT_F32, 0, 0, 0, copy_f32(m, &q->dq_offset, 1));
        return;
    }
    const bool e8 = s->f->scale == SCALE_E8M0;
    uint8_t *b = arena_alloc(m->a, n, m->e);
    for (size_t i = 0; b && i < n; i++) b[i] = e8 ? e8m0_from_f32(q->scale[i]) : e4m3_from_f32(q->scale[i]);
    add(m, e8 ? "scales_e8m0" : "scales_e4m3", DT_U8, 2, q->R, q->G, b);
    if (!e8) add(m, "tensor_scale", DT_F32, 0, 0, 0, copy_f32(m, &q->tensor, 1));
}

static json_t *attrs_of(const QuantSpec *s, bool in_out, long rows, long cols)
{
    const QuantFormat *f = s->f;
    json_t *j = json_pack("{s:s, s:[I,I], s:s, s:s, s:i}", "encoding", f->encoding, "shape",
                          (json_int_t)(in_out ? cols : rows), (json_int_t)(in_out ? rows : cols), "dtype",
                          "float32", "layout", in_out ? "in_out" : "out_in", "bits", f->bits);
    const json_int_t group = s->block_cols ? s->block_cols : -1;
    if (f->elem == ELEM_INT) {
        json_object_set_new(j, "group_size", json_integer(group));
        json_object_set_new(j, "symmetric", json_boolean(!s->asymmetric));
        json_object_set_new(j, "signed", json_boolean(!s->asymmetric));
        json_object_set_new(j, "range", json_string(s->full ? "full" : "narrow"));
    } else if (f->elem == ELEM_NF4) {
        json_object_set_new(j, "block_size", json_integer(s->block_cols));
    } else if (f->scale == SCALE_E8M0) {
        json_object_set_new(j, "scale_rounding", json_string(mx_rule_name(s->rule)));
    } else if (f->scale == SCALE_E4M3) {
        json_object_set_new(j, "scale_convention", json_string("multiply"));
    } else if (f->elem == ELEM_E2M1) {
        json_object_set_new(j, "group_size", json_integer(group));
    } else {
        json_object_set_new(j, "block_rows", json_integer(s->block_rows ? s->block_rows : rows));
        json_object_set_new(j, "block_cols", json_integer(s->block_cols ? s->block_cols : cols));
        json_object_set_new(j, "scale_convention", json_string("multiply"));
    }
    return j;
}

bool formats_encode(OutTensor *out, int *n, OutGroup *group, const char *name, bool in_out, const float *x,
                    const QuantSpec *s, const QuantScales *q, long rows, long cols, Arena *a, Err *e)
{
    Members m = {.t = out, .name = name, .a = a, .e = e};
    const size_t bytes = quant_row_bytes(s, cols);
    uint8_t *codes = arena_alloc(a, (size_t)rows * bytes, e);
    if (!codes) return false;
    quant_encode(codes, x, s, q, cols, 0, rows);
    add(&m, "codes", s->f->elem == ELEM_INT && s->f->bits == 8 && !s->asymmetric ? DT_I8 : DT_U8, 2, rows,
        (long)bytes, codes);
    add_scales(&m, s, q);
    *n = m.n;
    json_t *attrs = attrs_of(s, in_out, rows, cols);
    char *text = attrs ? json_dumps(attrs, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
    *group = (OutGroup){
        .name = name, .attrs_json = text ? arena_strdup(a, text, e) : NULL, .parameters = rows * cols};
    free(text);
    json_decref(attrs);
    return (group->attrs_json && !e->code) ||
           err_set(e, ERR_MEMORY, "out of memory for the attributes of `%s`", name);
}

const char *encoded_metadata(const OutModel *m, const char *path, Arena *a, Err *e)
{
    if (!m->n_group) return m->metadata_json;
    json_t *all = m->metadata_json ? json_object_of(m->metadata_json, strlen(m->metadata_json), path, e)
                                   : json_object();
    for (int i = 0; i < m->n_group; i++)
        json_object_set_new(all, m->group[i].name, json_string(m->group[i].attrs_json));
    char *text = json_dumps(all, JSON_COMPACT), *copy = text ? arena_strdup(a, text, e) : NULL;
    if (!copy) err_set(e, ERR_MEMORY, "%s: out of memory for the metadata", path);
    free(text);
    json_decref(all);
    return copy;
}
