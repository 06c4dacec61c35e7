/* model/site.c: the one doorway every projection takes. compress/ hung the attachments on the site, from the
 * config, before the graph was recorded: mask first, then quantiser; an adapter's branch stands beside W, so
 * that a frozen W needs no dW. */
#include "model/model.h"
#include <string.h>

/* Codes count where no floats stand in their place (an adapter's whole matrix). */
static const QuantStore *coded(const Site *s) { return s->w->w.data ? NULL : s->q; }

/* Coded weights are frozen: they are decoded where somebody asks for the matrix itself (a writer, a loss, an
 * attachment of a tied or separate head), once: the matrix stays with the model. */
static Tensor *decoded(Graph *g, Site *s)
{
    const QuantStore *q = s->q;
    const Kernels *k = graph_kernels(g);
    const bool fresh = !s->decoded || s->decoded_real != k->real;
    if (fresh) {
        s->decoded = arena_alloc(s->run, (size_t)(q->rows * q->cols) * k->real, graph_err(g));
        s->decoded_real = k->real;
    }
    Tensor *t = s->decoded ? graph_leaf(g, s->w->name, 2, (long[]){q->rows, q->cols}, s->decoded) : NULL;
    if (!t) return NULL;
    if (fresh) k->decode_rows(s->decoded, q->codes, &q->spec, &q->scales, 0, q->rows, q->cols);
    t->flags |= T_WEIGHT;
    return t;
}

Tensor *site_weight(Graph *g, Site *s)
{
    Tensor *w = coded(s) ? decoded(g, s) : graph_param(g, &s->w->w);
    for (int i = 0; i < s->n_wx; i++) w = s->wx[i].apply(g, w, &s->wx[i]);
    return w;
}

Tensor *site_merged(Graph *g, Site *s)
{
    Tensor *w = site_weight(g, s);
    for (int i = 0; i < s->n_side; i++) w = s->side[i].merge(g, w, s, &s->side[i]);
    return w;
}

Tensor *site_linear(Graph *g, Tensor *x, Site *s)
{
    Tensor *xq = x, *b = s->b ? graph_param(g, &s->b->w) : NULL, *y;
    for (int i = 0; i < s->n_side; i++)
        if (s->side[i].bias) b = NULL;
    for (int i = 0; i < s->n_ax; i++) xq = s->ax[i].apply(g, xq, &s->ax[i]);
    if (coded(s) && !s->n_wx) y = OP_ATTR(g, linear_q, ((LinearQAttr){s->q}), xq, b);
    else y = OP(g, linear, xq, site_weight(g, s), b);
    for (int i = 0; i < s->n_yx; i++) y = s->yx[i].apply(g, y, &s->yx[i]);
    for (int i = 0; i < s->n_side; i++) y = s->side[i].apply(g, x, y, s, &s->side[i]);
    return y;
}

Site *model_site(const Model *m, const char *name)
{
    for (int i = 0; i < m->n_site; i++)
        if (!strcmp(m->site[i].name, name)) return &m->site[i];
    return NULL;
}

int model_attach(Model *m, const char *glob, bool on_weight, Attachment a, Err *e)
{
    int count = 0;
    for (int i = 0; i < m->n_site; i++) {
        Site *s = &m->site[i];
        if (!glob_match(glob, s->name) && !glob_match(glob, s->w->name)) continue;
        int *n = on_weight ? &s->n_wx : &s->n_ax;
        if (*n == SITE_MAX) {
            err_set(e, ERR_USAGE,
                    "%s: more than %d attachments; name it in fewer groups of the configuration", s->name,
                    SITE_MAX);
            return count;
        }
        (on_weight ? s->wx : s->ax)[(*n)++] = a;
        count++;
    }
    return count;
}
