/* compress/qat_pack.c: quantised weights as they go into a file: codes and scales that decode to what
 * training computed with, bit for bit; and the look at a file whether they do. x (out,in). */
#include "compress/compress.h"
#include <math.h>
#include <string.h>

/* The weight as the quantiser sees it: what hangs before it (a mask) is applied. (out,in) floats. */
static const float *before_quantiser(const Model *m, const QatItem *it, Arena *a, Err *e)
{
    Site s = it->site ? *it->site : (Site){.name = it->name, .w = it->w};
    for (int i = 0; i < s.n_wx; i++)
        if (s.wx[i].state == it) s.n_wx = i;
    Graph *g = graph_new(&(GraphOptions){.k = m->params.k, .run = a}, e);
    if (!g) return NULL;
    Tensor *w = site_weight(g, &s);
    if (s.n_wx) graph_keep(g, w);
    if (s.n_wx && graph_plan(g, e)) graph_forward(g);
    const long n = t_numel(&it->w->w);
    float *x = e->code ? NULL : arena_alloc(a, (size_t)n * sizeof *x, e);
    for (long i = 0; x && i < n; i++)
        x[i] = m->params.k->real == sizeof(double) ? (float)((double *)w->data)[i] : ((float *)w->data)[i];
    graph_free(g);
    return x;
}

static bool scales_now(const QatItem *it, const float *x, QuantScales *s, Arena *a, Err *e)
{
    const Tensor *w = &it->w->w;
    if (!quant_scales_alloc(s, &it->attr.spec, w->dim[0], w->dim[1], a, e)) return false;
    if (!it->state->keep) {
        quant_scales(s, &it->attr.spec, x, w->dim[0], w->dim[1]);
        return true;
    }
    const long n = s->R * s->G;
    memcpy(s->scale, it->own.q.scale, (size_t)n * sizeof(float));
    if (s->zero) memcpy(s->zero, it->own.q.zero, (size_t)n * sizeof(float));
    s->tensor = it->own.q.tensor;
    for (long i = 0; it->step && i < n; i++) {
        const Tensor *p = &it->step->w;
        const double v = p->dtype == DT_F64 ? ((double *)p->data)[i] : (double)((float *)p->data)[i];
        s->scale[i] = (float)fmax(fabs(v), 0x1p-100);
    }
    return true;
}

bool qat_pack(const Qat *q, const Model *m, OutModel *out, Arena *a, Err *e)
{
    OutTensor *t = arena_alloc(a, (size_t)(out->n + q->n * ENCODED_MEMBERS + 1) * sizeof *t, e);
    OutGroup *group = arena_alloc(a, (size_t)(q->n + 1) * sizeof *group, e);
    int n = 0, n_group = 0;
    for (int i = 0; group && t && i < out->n && !e->code; i++) {
        const QatItem *it = NULL;
        for (int j = 0; j < q->n; j++)
            if (!strcmp(q->item[j].name, out->t[i].name) && q->item[j].state->on) it = &q->item[j];
        if (!it || !it->own.q.scale) {
            t[n++] = out->t[i];
            continue;
        }
        int members = 0;
        QuantScales s;
        const float *x = before_quantiser(m, it, a, e);
        if (!x || !scales_now(it, x, &s, a, e) ||
            !formats_encode(&t[n], &members, &group[n_group++], out->t[i].name, out->t[i].in_out, x,
                            &it->attr.spec, &s, (long)it->w->w.dim[0], (long)it->w->w.dim[1], a, e))
            return false;
        n += members;
    }
    out->t = t;
    out->n = n;
    out->group = group;
    out->n_group = n_group;
    return !e->code;
}

bool packed_verify(const char *path, const OutModel *effective, Err *e)
{
    Arena tmp = {.name = "verify"};
    TensorFile f = {0};
    bool ok = formats_open(&f, path, &tmp, e);
    for (int i = 0; ok && i < effective->n; i++) {
        const OutTensor *t = &effective->t[i];
        const FileTensor *have = formats_find(&f, t->name);
        size_t n = 1;
        if (!have || !have->encoded) continue;
        for (int d = 0; d < t->ndim; d++) n *= (size_t)t->dim[d];
        const ArenaMark mark = arena_mark(&tmp);
        float *y = arena_alloc(&tmp, n * sizeof *y, e);
        ok = y && formats_read_f32(&f, have, y, e);
        if (ok && memcmp(y, t->src, n * sizeof *y))
            ok = err_set(e, ERR_FAIL, "%s: tensor %s decodes to other values than training computed with",
                         path, t->name);
        arena_release(&tmp, mark);
    }
    formats_close(&f);
    arena_free(&tmp);
    return ok;
}
