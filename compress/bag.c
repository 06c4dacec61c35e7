/* compress/bag.c: a file of tensors without a config as a model of nothing but sites, so that what needs only
 * weights (magnitude and random masks) works on it; and the way back, everything else as it was. */
#include "compress/compress.h"
#include <string.h>

static bool is_float(DType t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16; }
static bool is_matrix(const FileTensor *t) { return t->ndim == 2 && is_float(t->dtype) && !t->tied_to; }

bool bag_open(Model *m, const TensorFile *f, const Kernels *k, Arena *run, Err *e)
{
    *m = (Model){.params = {.run = run, .k = k}, .run = run, .path = f->path};
    m->site = arena_alloc(run, (size_t)(f->n + 1) * sizeof *m->site, e);
    for (int i = 0; i < f->n && !e->code; i++) {
        const FileTensor *t = &f->t[i];
        int64_t d[4];
        if (!is_matrix(t)) continue;
        formats_dims(t, d);
        Param *p = params_add(&m->params, arena_strdup(run, t->name, e), 2, (long[]){(long)d[0], (long)d[1]},
                              e);
        if (!p) return false;
        p->in_out = t->in_out;
        p->w.data = arena_alloc(run, (size_t)t_numel(&p->w) * sizeof(float), e);
        if (!p->w.data || !formats_read_f32(f, t, p->w.data, e)) return false;
        m->site[m->n_site++] = (Site){.name = p->name, .w = p, .run = run};
    }
    if (!m->n_site && !e->code)
        err_set(e, ERR_USAGE, "%s: no tensor can be pruned; matrices of floats can", f->path);
    return !e->code;
}

bool bag_out(const Model *m, const TensorFile *f, OutModel *out, Arena *a, Err *e)
{
    OutModel matrices;
    OutTensor *t = arena_alloc(a, (size_t)(f->n + 1) * sizeof *t, e);
    if (!t || !model_out(m, &matrices, DT_F32, a, e)) return false;
    *out = (OutModel){.t = t, .n = f->n, .tokenizer_path = f->tokenizer_path, .step = f->step};
    for (int i = 0, next = 0; i < f->n && !e->code; i++) {
        const FileTensor *was = &f->t[i];
        int64_t d[4];
        size_t n = 1;
        if (is_matrix(was)) {
            t[i] = matrices.t[next++];
            if (!was->encoded) t[i].dtype = was->dtype;
            continue;
        }
        t[i] = (OutTensor){
            .name = was->name, .ndim = was->ndim, .dtype = was->dtype, .tied_to = was->tied_to};
        formats_dims(was, d);
        for (int k = 0; k < was->ndim; k++) n *= (size_t)(t[i].dim[k] = d[k]);
        if (was->tied_to) continue;
        if (!is_float(was->dtype)) {
            t[i].raw = was->data;
            if (!was->data)
                return err_set(e, ERR_USAGE,
                               "%s: tensor %s: %s in HDF5 is not carried over; use the safetensors file it "
                               "was made from",
                               f->path, was->name, dtype_name(was->dtype));
        } else {
            float *x = arena_alloc(a, n * sizeof *x, e);
            t[i].src = x;
            t[i].in_out = was->in_out;
            if (!x || !formats_read_f32(f, was, x, e)) return false;
        }
    }
    return !e->code;
}
