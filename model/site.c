/* model/site.c: the one doorway every projection takes. compress/ hung the attachments on the site, from the
 * config, before the graph was recorded: mask first, then quantiser; the LoRA branch stands beside W, so that
 * a frozen W needs no dW. */
#include "model/model.h"
#include <string.h>

Tensor *site_weight(Graph *g, Site *s)
{
    Tensor *w = graph_param(g, &s->w->w);
    for (int i = 0; i < s->n_wx; i++) w = s->wx[i].apply(g, w, &s->wx[i]);
    return w;
}

Tensor *site_linear(Graph *g, Tensor *x, Site *s)
{
    Tensor *w = site_weight(g, s), *xq = x, *b = s->b ? graph_param(g, &s->b->w) : NULL;
    for (int i = 0; i < s->n_ax; i++) xq = s->ax[i].apply(g, xq, &s->ax[i]);
    Tensor *y = OP(g, linear, xq, w, b);
    for (int i = 0; i < s->n_yx; i++) y = s->yx[i].apply(g, y, &s->yx[i]);
    if (s->lora_a) {
        Tensor *h = OP(g, linear, x, graph_param(g, s->lora_a));
        y = OP_ATTR(g, axpy, ((AxpyAttr){s->lora_scale}), OP(g, linear, h, graph_param(g, s->lora_b)), y);
    }
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
            err_set(e, ERR_USAGE, "%s: more than %d attachments", s->name, SITE_MAX);
            return count;
        }
        (on_weight ? s->wx : s->ax)[(*n)++] = a;
        count++;
    }
    return count;
}
