/* model/packed.c: weights that stay as codes and scales (docs/quantise.md): a projection's Site.q is filled
 * from the file, a float matrix of it never exists. Codes lie [out,in] in every file, so they are used
 * where they are. */
#include "model/load_impl.h"

/* The projection that alone reads p; NULL: something looks p up by row, or nothing multiplies by it. */
static Site *only_site(const Model *m, const Param *p)
{
    Site *s = NULL;
    if (m->n_site && m->spec.tied && m->site[m->n_site - 1].w == p) return NULL;
    for (int i = 0; i < m->n_site; i++)
        if (m->site[i].w == p) s = &m->site[i];
    return s;
}

bool load_packed(Model *m, Param *p, const TensorFile *f, bool *taken, Err *e)
{
    const FileTensor *t = formats_find(f, p->name);
    Site *s = formats_packs(f, t) ? only_site(m, p) : NULL;
    PackedTensor packed;
    if (!s) return true;
    QuantStore *q = arena_alloc(m->run, sizeof *q, e);
    if (!q || !formats_packed(f, t, &packed, m->run, e)) return false;
    *q = (QuantStore){.spec = t->encoded->spec,
                      .scales = packed.scales,
                      .codes = packed.codes,
                      .rows = t->encoded->rows,
                      .cols = t->encoded->cols};
    s->q = q;
    p->frozen = p->read_only = true;
    m->packed_bytes += (int64_t)packed.bytes;
    m->n_packed++;
    *taken = true;
    return true;
}

WeightBytes model_weight_bytes(const Model *m)
{
    WeightBytes b = {.packed = m->packed_bytes, .n_packed = m->n_packed};
    for (int i = 0; i < m->params.n; i++) {
        const Param *p = m->params.p[i];
        if (p->w.data && !p->tied_to) b.dense += t_numel(&p->w) * (int64_t)dtype_size(p->w.dtype);
    }
    return b;
}
