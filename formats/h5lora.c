/* formats/h5lora.c: adapters inside a training state (product.md 6.5): who reads a tensor of it gets what the
 * run computed with, W + s B A, rows rescaled to the magnitude under DoRA. A (r,in), B (out,r); of an
 * embedding A (r,V), B (C,r) and W (V,C). */
#include <math.h>
#include <string.h>
#include "formats/hdf5_impl.h"
#include "kernels/kernels.h"

typedef struct Factor {
    float *v;
    long rows, cols;
} Factor;

static bool factor(H5In *h, const char *object, const char *what, Factor *m, Arena *a, Err *e)
{
    DType t;
    int ndim;
    int64_t dim[4] = {0};
    const char *path = arena_printf(a, e, "%s/%s", object, what);
    if (!path || !h5_tensor_info(h, path, &t, &ndim, dim, e)) return false;
    const size_t n = (size_t)dim[0] * (ndim > 1 ? (size_t)dim[1] : 1);
    void *raw = arena_alloc(a, n * dtype_size(t), e);
    *m = (Factor){arena_alloc(a, n * sizeof(float), e), (long)dim[0], ndim > 1 ? (long)dim[1] : 1};
    if (e->code || !h5_read_tensor(h, path, t, raw, n * dtype_size(t), e)) return false;
    return dtype_to_f32(m->v, raw, t, n) || err_set(e, ERR_CORRUPT, "`%s` is not of a float type", path);
}

static bool misfit(const char *object, Err *e)
{
    return err_set(e, ERR_CORRUPT, "`%s`: A and B do not fit the tensor they belong to", object);
}

/* x (out,in) += s B A, then rows to their magnitudes. */
static bool add_branch(float *x, long out, long in, H5In *h, const char *object, double scale, bool table,
                       bool dora, Arena *a, Err *e)
{
    const Kernels *k = kernels_cpu_f32();
    Factor A, B, m;
    if (!factor(h, object, "A", &A, a, e) || !factor(h, object, "B", &B, a, e)) return false;
    const long r = A.rows;
    if (B.cols != r || (table ? A.cols != out || B.rows != in : A.cols != in || B.rows != out))
        return misfit(object, e);
    float *d = arena_alloc(a, (size_t)(out * in) * sizeof *d, e),
          *at = table ? arena_alloc(a, (size_t)(out * r) * sizeof *at, e) : NULL;
    if (e->code) return false;
    for (long i = 0; table && i < out; i++)
        for (long j = 0; j < r; j++) at[i * r + j] = A.v[j * out + i];
    if (table) k->gemm_nt(d, at, B.v, out, in, r, SET);
    else k->gemm_nn(d, B.v, A.v, out, in, r, SET);
    k->axpby(x, scale, d, 1.0, x, out * in);
    if (!dora) return true;
    if (!factor(h, object, "magnitude", &m, a, e)) return false;
    float *norm = arena_alloc(a, (size_t)out * sizeof *norm, e);
    if (m.rows != out || !norm) return misfit(object, e);
    k->row_norms(norm, x, out, in);
    k->quotient(norm, m.v, norm, out, SET);
    k->scale_by(x, x, norm, out, in, true, SET);
    return true;
}

bool live_lora(const TensorFile *f, const FileTensor *t, float *x, bool behind_quantiser, Err *e)
{
    H5In *h = ((const FormatsImpl *)f->impl)->h5;
    const char *group[64], *tail = strrchr(t->name, '.');
    if (t->ndim != 2 || !tail || strcmp(tail, ".weight") || !h5_has(h, "/lora")) return true;
    Arena tmp = {.name = "adapter"};
    const int n = h5_list(h, "/lora", group, 64);
    for (int i = 0; i < n && !e->code; i++) {
        const char *at = arena_printf(&tmp, e, "/lora/%s", group[i]);
        const char *object = arena_printf(&tmp, e, "%s/%.*s", at, (int)(tail - t->name), t->name);
        int64_t rs = 0, dora = 0, respect = 0, table = 0;
        double alpha = 0;
        if (!object || !h5_has(h, object)) continue;
        if (!h5_get_i64(h, at, "use_rslora", &rs, e) || !h5_get_i64(h, at, "use_dora", &dora, e) ||
            !h5_get_i64(h, at, "respect_mask", &respect, e) ||
            !h5_get_i64(h, object, "embedding", &table, e) || !h5_get_f64(h, object, "alpha", &alpha, e))
            break;
        Factor A;
        if ((respect == 0) != behind_quantiser || !factor(h, object, "A", &A, &tmp, e)) continue;
        int64_t dim[4] = {0};
        formats_dims(t, dim);
        add_branch(x, (long)dim[0], (long)dim[1], h, object,
                   alpha / (rs ? sqrt((double)A.rows) : (double)A.rows), table != 0, dora && !table, &tmp, e);
    }
    arena_free(&tmp);
    return !e->code;
}
