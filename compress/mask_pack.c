/* compress/mask_pack.c: masked tensors in an export: as bitmap or 2:4 where that is smaller than their zeros,
 * then read back and counted. What a quantiser has packed already stays as it is: its codes hold the
 * zeros. */
#include "compress/mask_impl.h"
#include <string.h>

static const PruneItem *item_of(const Prune *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->item[i].name, name)) return &p->item[i];
    return NULL;
}

bool prune_pack(const Prune *p, OutModel *out, Arena *a, Err *e)
{
    OutTensor *t = arena_alloc(a, (size_t)(out->n + p->n * ENCODED_MEMBERS + 1) * sizeof *t, e);
    OutGroup *group = arena_alloc(a, (size_t)(out->n_group + p->n + 1) * sizeof *group, e);
    int n = 0, n_group = out->n_group;
    if (!t || !group) return false;
    if (n_group) memcpy(group, out->group, (size_t)n_group * sizeof *group);
    for (int i = 0; i < out->n; i++) {
        const OutTensor *x = &out->t[i];
        const PruneItem *it = x->src && !x->member_of ? item_of(p, x->name) : NULL;
        const SparseForm form = it ? formats_sparse_form(it->keep, it->rows, it->cols, x->dtype)
                                   : SPARSE_NONE;
        int members = 1;
        if (form == SPARSE_NONE) t[n] = *x;
        else if (!formats_sparse(&t[n], &members, &group[n_group++], x, it->keep, form, a, e)) return false;
        n += members;
    }
    out->t = t;
    out->n = n;
    out->group = group;
    out->n_group = n_group;
    return true;
}

/* Effective values rounded to the type they were stored in. */
static bool as_stored(float *y, const OutTensor *t, size_t n, DType stored, Arena *tmp, Err *e)
{
    if (stored != DT_BF16 && stored != DT_F16) {
        memcpy(y, t->src, n * sizeof *y);
        return true;
    }
    void *small = arena_alloc(tmp, n * 2, e);
    return small && dtype_from_f32(small, stored, t->src, n) && dtype_to_f32(y, small, stored, n);
}

static bool verify_one(const PruneItem *it, const TensorFile *f, const OutTensor *t, PruneCount *count,
                       Arena *tmp, Err *e)
{
    const FileTensor *have = formats_find(f, t->name);
    const size_t n = (size_t)(it->rows * it->cols);
    float *y = arena_alloc(tmp, n * sizeof *y, e), *want = arena_alloc(tmp, n * sizeof *want, e);
    if (!have) return err_set(e, ERR_FAIL, "%s: tensor %s was not found when read back", f->path, t->name);
    if (!want || !formats_read_f32(f, have, y, e) || !as_stored(want, t, n, have->dtype, tmp, e))
        return false;
    if (memcmp(y, want, n * sizeof *y))
        return err_set(e, ERR_FAIL, "%s: tensor %s reads back with other values than were computed with",
                       f->path, t->name);
    for (size_t i = 0; i < n; i++) {
        count->zeros += y[i] == 0;
        if (!it->keep[i] && y[i] != 0)
            return err_set(e, ERR_FAIL, "%s: tensor %s: element %zu is masked and not zero", f->path, t->name,
                           i);
    }
    count->entries += (int64_t)n;
    return true;
}

bool prune_verify(const Prune *p, const char *path, const OutModel *effective, PruneCount *count, Err *e)
{
    Arena tmp = {.name = "verify"};
    TensorFile f = {0};
    bool ok = formats_open(&f, path, &tmp, e);
    *count = (PruneCount){0};
    for (int i = 0; ok && i < effective->n; i++) {
        const PruneItem *it = item_of(p, effective->t[i].name);
        const ArenaMark mark = arena_mark(&tmp);
        if (it) ok = verify_one(it, &f, &effective->t[i], count, &tmp, e);
        arena_release(&tmp, mark);
    }
    formats_close(&f);
    arena_free(&tmp);
    return ok;
}
