/* compress/mask_state.c: masks in checkpoints and in files of their own (product.md 6.4).
 *
 *   /masks/<tensor>        u8 (rows, ceil(cols/8)), bit i of byte j = column 8 j + i; shape, sparsity,
 *   method, step, ...
 *   /prune                 attributes: where the schedule stands        /prune/scores/<tensor>   written by
 *   checkpoint.c
 *   /prune/dense/<tensor>  values behind the mask, where weights may come back; /tensors/<tensor> is always
 *   effective */
#include "compress/mask_impl.h"
#include <stdio.h>
#include <string.h>

static long packed_cols(const PruneItem *it) { return (it->cols + 7) / 8; }

static double item_sparsity(const PruneItem *it)
{
    long kept = 0;
    for (long j = 0; j < it->rows * it->cols; j++) kept += it->keep[j];
    return 1 - (double)kept / (double)(it->rows * it->cols);
}

static void put_masks(const Prune *p, H5Out *h, Arena *a, Err *e)
{
    for (int i = 0; i < p->n && !e->code; i++) {
        const PruneItem *it = &p->item[i];
        const long wide = packed_cols(it);
        char *path = arena_printf(a, e, "/masks/%s", it->name);
        uint8_t *bits = arena_alloc(a, (size_t)(it->rows * wide), e);
        if (!path || !bits) return;
        for (long r = 0; r < it->rows; r++)
            for (long c = 0; c < it->cols; c++)
                bits[r * wide + c / 8] |= (uint8_t)(it->keep[r * it->cols + c] << (c % 8));
        h5_tensor(h, path, DT_U8, 2, (int64_t[]){it->rows, wide}, bits);
        h5_attr_i64s(h, path, "shape", (int64_t[]){it->rows, it->cols}, 2);
        h5_attr_f64(h, path, "sparsity", item_sparsity(it));
        h5_attr_str(h, path, "method", p->c->method);
        h5_attr_f64(h, path, "score_threshold", it->limit);
        h5_attr_i64(h, path, "step", it->moved);
    }
}

void prune_save(const Prune *p, H5Out *h, Arena *a, Err *e)
{
    if (!p->n) return;
    const bool f64 = prune_f64(p);
    put_masks(p, h, a, e);
    h5_attr_str(h, "/prune", "method", p->c->method);
    h5_attr_str(h, "/prune", "structure", p->c->structure);
    h5_attr_f64(h, "/prune", "sparsity", prune_sparsity(p));
    h5_attr_i64(h, "/prune", "end_step", p->end);
    h5_attr_i64(h, "/prune", "done", p->done);
    h5_attr_i64(h, "/prune", "hidden", p->hidden);
    for (int i = 0; i < p->n && p->hidden && !e->code; i++) {
        const PruneItem *it = &p->item[i];
        const char *path = arena_printf(a, e, "/prune/dense/%s", it->name);
        if (path)
            h5_tensor(h, path, f64 ? DT_F64 : DT_F32, 2, (int64_t[]){it->rows, it->cols},
                      it->site->w->w.data);
    }
}

const void *prune_effective(const Prune *p, const Param *w, Arena *a, Err *e)
{
    for (int i = 0; p->hidden && i < p->n; i++) {
        const PruneItem *it = &p->item[i];
        const Kernels *k = p->m->params.k;
        if (it->site->w != w) continue;
        void *y = arena_alloc(a, (size_t)t_numel(&w->w) * k->real, e);
        if (y) k->mask(y, w->w.data, it->keep, t_numel(&w->w), SET);
        return y;
    }
    return NULL;
}

static bool load_mask(PruneItem *it, H5In *h, Arena *a, Err *e)
{
    const long wide = packed_cols(it);
    const char *path = arena_printf(a, e, "/masks/%s", it->name);
    DType t;
    int ndim;
    int64_t dim[4];
    if (path && !h5_has(h, path))
        return err_set(e, ERR_USAGE,
                       "%s is not in the checkpoint: the prune section is not the one it was written with",
                       path);
    if (!path || !h5_tensor_info(h, path, &t, &ndim, dim, e)) return false;
    if (t != DT_U8 || ndim != 2 || dim[0] != it->rows || dim[1] != wide)
        return err_set(e, ERR_USAGE, "%s: the mask has another shape than the tensor, [%ld,%ld]", path,
                       it->rows, it->cols);
    uint8_t *bits = arena_alloc(a, (size_t)(it->rows * wide), e);
    if (!bits || !h5_read_tensor(h, path, DT_U8, bits, (size_t)(it->rows * wide), e)) return false;
    for (long r = 0; r < it->rows; r++)
        for (long c = 0; c < it->cols; c++)
            it->keep[r * it->cols + c] = bits[r * wide + c / 8] >> (c % 8) & 1;
    h5_get_f64(h, path, "score_threshold", &it->limit, e);
    h5_get_i64(h, path, "step", &it->moved, e);
    return !e->code;
}

bool prune_load(Prune *p, H5In *h, Arena *a, Err *e)
{
    const bool f64 = prune_f64(p);
    int64_t hidden = 0, end = 0;
    for (int i = 0; i < p->n && !e->code; i++) load_mask(&p->item[i], h, a, e);
    if (!p->n || e->code) return !e->code;
    const char *method = h5_get_str(h, "/prune", "method", e);
    if (method && strcmp(method, p->c->method))
        return err_set(e, ERR_USAGE, "prune.method is %s, the checkpoint's masks were made by %s",
                       p->c->method, method);
    h5_get_i64(h, "/prune", "done", &p->done, e);
    h5_get_i64(h, "/prune", "hidden", &hidden, e);
    h5_get_i64(h, "/prune", "end_step", &end, e);
    if (!p->c->end_step && !e->code) p->end = end; /* half of the run as it was planned */
    p->hidden = hidden != 0;
    for (int i = 0; i < p->n && !e->code; i++) {
        PruneItem *it = &p->item[i];
        if (it->score && p->done >= p->end) it->score->frozen = true;
        const char *path = arena_printf(a, e, "/prune/dense/%s", it->name);
        if (path && p->hidden)
            h5_read_tensor(h, path, f64 ? DT_F64 : DT_F32, it->site->w->w.data,
                           (size_t)(it->rows * it->cols) * (f64 ? sizeof(double) : sizeof(float)), e);
    }
    return !e->code;
}

bool prune_carry(Prune *p, H5In *h, Arena *a, Err *e)
{
    if (!p->n || !h5_has(h, "/masks")) return !e->code;
    for (int i = 0; i < p->n && !e->code; i++) {
        const char *path = arena_printf(a, e, "/masks/%s", p->item[i].name);
        if (path && h5_has(h, path)) load_mask(&p->item[i], h, a, e);
        if (p->item[i].score && !p->again) p->item[i].score->frozen = true;
    }
    if (!p->again) {
        p->done = p->end;
        p->hidden = false;
    }
    return !e->code;
}

bool prune_write_masks(const Prune *p, const char *path, Arena *a, Err *e)
{
    H5Out *h = h5_create(path, "masks", p->m->spec.family ? p->m->spec.family->arch : NULL, 0, a, e);
    if (!h) return false;
    put_masks(p, h, a, e);
    if (e->code) h5_abandon(h);
    else h5_commit(h, e);
    return !e->code;
}
