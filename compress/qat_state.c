/* compress/qat_state.c: what quantisers remember, in a checkpoint: /qat/<name> with the format as attributes,
 * scale, zero and amax_history (history, R, G) as tensors (product.md 6.6). Learned steps are parameters:
 * train/checkpoint.c keeps them at /qat/<name>/step_size. */
#include "compress/compress.h"
#include <stdio.h>
#include <string.h>

void qat_save(const Qat *q, H5Out *h)
{
    for (int i = 0; i < q->n; i++) {
        const QatItem *it = &q->item[i];
        char path[NAME_LEN + 64];
        if (it->state != &it->own) continue;
        const int64_t dim[3] = {it->history, it->own.q.R, it->own.q.G};
        snprintf(path, sizeof path, "/qat/%s", it->name);
        h5_attr_str(h, path, "format", it->attr.spec.f->name);
        h5_attr_i64(h, path, "on", it->own.on);
        h5_attr_i64(h, path, "block_rows", it->attr.spec.block_rows);
        h5_attr_i64(h, path, "block_cols", it->attr.spec.block_cols);
        h5_attr_i64(h, path, "asymmetric", it->attr.spec.asymmetric);
        h5_attr_i64(h, path, "search", it->attr.spec.search);
        h5_attr_i64(h, path, "scale_rounding", it->attr.spec.rule);
        h5_attr_i64(h, path, "keep", it->own.keep);
        h5_attr_i64(h, path, "seen", it->seen);
        h5_attr_f64(h, path, "tensor", (double)it->own.q.tensor);
        if (!it->own.q.scale || it->step) continue;
        snprintf(path, sizeof path, "/qat/%s/scale", it->name);
        h5_tensor(h, path, DT_F32, 2, dim + 1, it->own.q.scale);
        snprintf(path, sizeof path, "/qat/%s/zero", it->name);
        if (it->own.q.zero) h5_tensor(h, path, DT_F32, 2, dim + 1, it->own.q.zero);
        snprintf(path, sizeof path, "/qat/%s/amax_history", it->name);
        if (it->ring) h5_tensor(h, path, DT_F32, 3, dim, it->ring);
    }
}

static bool read_floats(H5In *h, const char *name, const char *part, float *dst, long n, Err *e)
{
    char path[NAME_LEN + 64];
    snprintf(path, sizeof path, "/qat/%s/%s", name, part);
    return h5_read_tensor(h, path, DT_F32, dst, (size_t)n * sizeof *dst, e);
}

bool qat_load(Qat *q, H5In *h, int64_t step, Arena *a, Err *e)
{
    (void)a;
    for (int i = 0; i < q->n && !e->code; i++) {
        QatItem *it = &q->item[i];
        char path[NAME_LEN + 64];
        int64_t keep = 0;
        double tensor = 1;
        it->state->on = it->start == 0 || step > it->start;
        if (it->state != &it->own) continue;
        snprintf(path, sizeof path, "/qat/%s", it->name);
        if (!h5_has(h, path))
            return err_set(e, ERR_USAGE,
                           "%s is not in the checkpoint: the qat section is not the one it was written with",
                           path);
        const char *format = h5_get_str(h, path, "format", e);
        if (format && strcmp(format, it->attr.spec.f->name))
            return err_set(e, ERR_USAGE, "%s was trained with %s, the config says %s", it->name, format,
                           it->attr.spec.f->name);
        const long n = it->own.q.R * it->own.q.G;
        h5_get_i64(h, path, "keep", &keep, e);
        h5_get_i64(h, path, "seen", &it->seen, e);
        h5_get_f64(h, path, "tensor", &tensor, e);
        it->own.keep = keep != 0;
        it->own.q.tensor = (float)tensor;
        if (!it->own.q.scale || it->step) continue;
        read_floats(h, it->name, "scale", it->own.q.scale, n, e);
        if (it->own.q.zero) read_floats(h, it->name, "zero", it->own.q.zero, n, e);
        if (it->ring) read_floats(h, it->name, "amax_history", it->ring, n * it->history, e);
    }
    return !e->code;
}

/* Is the quantiser of the state the same one: format, blocks and way of finding scales? */
static bool same_as_saved(const QatItem *it, H5In *h, const char *path)
{
    const QuantSpec *s = &it->attr.spec;
    const struct {
        const char *key;
        int64_t want;
    } part[] = {{"block_rows", s->block_rows},
                {"block_cols", s->block_cols},
                {"asymmetric", s->asymmetric},
                {"search", s->search},
                {"scale_rounding", s->rule}};
    Err none = {0};
    const char *format = h5_has(h, path) ? h5_get_str(h, path, "format", &none) : NULL;
    bool same = format && !strcmp(format, s->f->name);
    for (int i = 0; same && i < (int)(sizeof part / sizeof *part); i++) {
        int64_t v = -1;
        same = h5_get_i64(h, path, part[i].key, &v, &none) && v == part[i].want;
    }
    return same;
}

bool qat_carry(Qat *q, H5In *h, Err *e)
{
    for (int i = 0; i < q->n && !e->code; i++) {
        QatItem *it = &q->item[i];
        char path[NAME_LEN + 64], ring[NAME_LEN + 80];
        int64_t keep = 0;
        double tensor = 1;
        snprintf(path, sizeof path, "/qat/%s", it->name);
        snprintf(ring, sizeof ring, "%s/amax_history", path);
        if (it->state != &it->own || !same_as_saved(it, h, path) || !it->own.q.scale) continue;
        const long n = it->own.q.R * it->own.q.G;
        DType t;
        int ndim = 0;
        int64_t dim[4] = {0};
        const bool same_ring = it->ring && h5_has(h, ring) && h5_tensor_info(h, ring, &t, &ndim, dim, e) &&
                               dim[0] == it->history;
        if (it->ring && !same_ring) continue;
        h5_get_i64(h, path, "keep", &keep, e);
        h5_get_f64(h, path, "tensor", &tensor, e);
        it->own.keep = keep != 0;
        if (it->step) continue; /* the parameter itself came with the weights */
        it->own.q.tensor = (float)tensor;
        read_floats(h, it->name, "scale", it->own.q.scale, n, e);
        if (it->own.q.zero) read_floats(h, it->name, "zero", it->own.q.zero, n, e);
        if (!it->ring) continue;
        h5_get_i64(h, path, "seen", &it->seen, e);
        read_floats(h, it->name, "amax_history", it->ring, n * it->history, e);
    }
    return !e->code;
}
