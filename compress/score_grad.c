/* compress/score_grad.c: scores from gradients of the cross-entropy, at the masks as they are:
 *
 *   snip    |w g|, g averaged over the batches before the absolute value (1810.02340)
 *   taylor  mean over batches of |w g|, first-order Taylor importance (1611.06440)            w g score
 *   (rows,cols)
 *
 * A graph of its own, without quantisers and dropout; a batch's gradient is the mean over its targets. A
 * model that is distilled from itself has no KD gradient, so the loss is always cross-entropy. */
#include "compress/mask_impl.h"
#include <string.h>

bool sites_bare(BareSites *b, Prune *p, Arena *tmp, Err *e)
{
    Model *m = p->m;
    b->was = arena_alloc(tmp, (size_t)m->n_site * sizeof *b->was, e);
    if (!b->was) return false;
    memcpy(b->was, m->site, (size_t)m->n_site * sizeof *b->was);
    for (int i = 0; i < m->n_site; i++) {
        Site *s = &m->site[i];
        s->n_wx = s->n_ax = s->n_yx = 0;
        for (int j = 0; j < b->was[i].n_wx; j++)
            if (!strcmp(b->was[i].wx[j].kind, "mask")) s->wx[s->n_wx++] = b->was[i].wx[j];
    }
    return true;
}

void sites_restore(const BareSites *b, Prune *p)
{
    if (b->was) memcpy(p->m->site, b->was, (size_t)p->m->n_site * sizeof *b->was);
}

/* Gradients of masked tensors only, into memory of our own. */
typedef struct Borrowed {
    void **grad;
    unsigned *flags;
} Borrowed;

static bool borrow(Borrowed *b, Prune *p, Arena *tmp, Err *e)
{
    Params *ps = &p->m->params;
    b->grad = arena_alloc(tmp, (size_t)ps->n * sizeof *b->grad, e);
    b->flags = arena_alloc(tmp, (size_t)ps->n * sizeof *b->flags, e);
    if (e->code) return false;
    for (int i = 0; i < ps->n; i++) {
        b->grad[i] = ps->p[i]->w.grad;
        b->flags[i] = ps->p[i]->w.flags;
        ps->p[i]->w.grad = NULL;
        ps->p[i]->w.flags |= T_NOGRAD;
    }
    for (int i = 0; i < p->n; i++) {
        Tensor *w = &p->item[i].site->w->w;
        w->flags &= ~(unsigned)T_NOGRAD;
        w->grad = arena_alloc(tmp, (size_t)t_numel(w) * ps->k->real, e);
        p->item[i].state.dense = true;
    }
    return !e->code;
}

static void give_back(const Borrowed *b, Prune *p)
{
    Params *ps = &p->m->params;
    for (int i = 0; i < ps->n && b->flags; i++) {
        ps->p[i]->w.grad = b->grad[i];
        ps->p[i]->w.flags = b->flags[i];
    }
    for (int i = 0; i < p->n; i++) p->item[i].state.dense = false;
}

typedef struct Pass {
    Graph *g;
    Tensor *ids, *targets, *pos, *seg;
    long B;
} Pass;

static bool record(Pass *s, Prune *p, const Calibration *cal, long rows, Arena *tmp, Err *e)
{
    const Kernels *k = p->m->params.k;
    s->B = rows < 8 ? rows : 8;
    Graph *g = s->g = graph_new(&(GraphOptions){.k = k, .train = true, .run = tmp}, e);
    if (!g) return false;
    const long dim[2] = {s->B, cal->T};
    s->ids = graph_input(g, "ids", DT_I32, 2, dim);
    s->targets = graph_input(g, "targets", DT_I32, 2, dim);
    s->pos = graph_input(g, "pos", DT_I32, 2, dim);
    s->seg = cal->segments ? graph_input(g, "seg", DT_I32, 2, dim) : NULL;
    Tensor *h = model_hidden(g, p->m, &(ModelInputs){.ids = s->ids, .pos = s->pos, .seg = s->seg});
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}, .chunk = 1024};
    model_loss_caps(&at.a, p->m, NULL);
    graph_loss(g, OP_ATTR(g, lm_loss, at, h, model_head(g, p->m), s->targets), 1.0, "score");
    return graph_plan(g, e);
}

/* Rows first .. first + n into one micro-batch; places left over count for nothing. Returns the targets. */
static long fill(const Pass *s, const Calibration *cal, int64_t first, int64_t n)
{
    long count = 0;
    for (long b = 0; b < s->B; b++) {
        int32_t *t = (int32_t *)s->targets->data + b * cal->T;
        cal->row(cal->ctx, b < n ? first + b : first, (int32_t *)s->ids->data + b * cal->T, t,
                 (int32_t *)s->pos->data + b * cal->T, s->seg ? (int32_t *)s->seg->data + b * cal->T : NULL);
        for (long i = 0; i < cal->T; i++) {
            if (b >= n) t[i] = -100;
            count += t[i] >= 0;
        }
    }
    return count;
}

static void add_scores(const Prune *p, float *const *score, double scale)
{
    const bool f64 = prune_f64(p);
    for (int i = 0; i < p->n; i++) {
        const PruneItem *it = &p->item[i];
        const Tensor *w = &it->site->w->w;
        for (long j = 0; j < it->rows * it->cols; j++)
            score[i][j] += (float)(fabs(real_at(w->data, j, f64) * real_at(w->grad, j, f64)) * scale);
    }
}

bool score_gradients(Prune *p, const Calibration *cal, float *const *score, Arena *tmp, Err *e)
{
    const bool snip = !strcmp(p->c->method, "snip");
    const int64_t batches = cal->batches < cal->rows ? cal->batches : cal->rows, per = cal->rows / batches;
    BareSites bare = {0};
    Borrowed own = {0};
    Pass s = {0};
    long targets = 0;
    bool ok = sites_bare(&bare, p, tmp, e) && borrow(&own, p, tmp, e) &&
              record(&s, p, cal, (long)per, tmp, e);
    for (int64_t b = 0; ok && b < batches; b++) {
        if (!snip || b == 0) graph_step_begin(s.g);
        for (int64_t r = 0; r < per; r += s.B) {
            targets += fill(&s, cal, b * per + r, per - r < s.B ? per - r : s.B);
            graph_micro(s.g);
        }
        if (snip && b + 1 < batches) continue;
        graph_step_end(s.g);
        if (targets) add_scores(p, score, 1 / (double)targets / (snip ? 1 : (double)batches));
        targets = 0;
    }
    graph_free(s.g);
    give_back(&own, p);
    sites_restore(&bare, p);
    return !e->code;
}
