/* compress/score_inputs.c: Wanda and SparseGPT walk the layers: inputs of a layer's matrices are measured
 * over all calibration rows, the layer is pruned, and the next layer sees what the pruned one puts out
 * (2306.11695, 2301.00774).
 *
 *   wanda  |w_ij| ||x_j||, the mean over rows of text of ||x_j||^2 under the root      x (tokens,cols)
 *
 * A probe is an attachment on a site's input: it keeps the tensor and changes nothing. A pass computes up to
 * the layer that is measured, so L layers cost about (L + 1) / 2 forward passes over the text. */
#include "compress/mask_impl.h"
#include <string.h>

typedef struct Input {
    Tensor *x;
    long cols;
    double *square; /* (cols) sum of x^2, or */
    void *h;        /* (cols,cols) sum of x x^T, of the graph's type */
} Input;
typedef struct Walk {
    Prune *p;
    const Calibration *cal;
    bool hessian;
    Input *input; /* [at most p->n] */
    int n_input;
    int64_t tokens;
    Arena *tmp;
    Err *e;
} Walk;

static Tensor *probe(Graph *g, Tensor *t, const Attachment *a)
{
    (void)g;
    *(Tensor **)a->state = t;
    return t;
}

static bool add_input(Walk *k, Tensor *x)
{
    const size_t n = (size_t)t_last(x), real = k->p->m->params.k->real;
    for (int i = 0; i < k->n_input; i++)
        if (k->input[i].x == x) return true;
    Input *in = &k->input[k->n_input++];
    *in = (Input){.x = x, .cols = (long)n};
    if (k->hessian) in->h = arena_alloc(k->tmp, n * n * real, k->e);
    else in->square = arena_alloc(k->tmp, n * sizeof(double), k->e);
    return !k->e->code;
}

static void measure(Walk *k, Input *in, long rows)
{
    const Kernels *kn = k->p->m->params.k;
    const bool f64 = kn->real == sizeof(double);
    if (k->hessian) {
        kn->gemm_tn(in->h, in->x->data, in->x->data, in->cols, in->cols, rows, ADD);
        return;
    }
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < in->cols; c++) {
            const double v = real_at(in->x->data, r * in->cols + c, f64);
            in->square[c] += v * v;
        }
}

/* All rows through the model, up to the inputs that are probed. */
static bool pass(Walk *k, Tensor **seen, int first, int n)
{
    const Calibration *cal = k->cal;
    const long dim[2] = {1, cal->T};
    Graph *g = graph_new(&(GraphOptions){.k = k->p->m->params.k, .run = k->tmp}, k->e);
    if (!g) return false;
    Tensor *ids = graph_input(g, "ids", DT_I32, 2, dim), *pos = graph_input(g, "pos", DT_I32, 2, dim),
           *seg = cal->segments ? graph_input(g, "seg", DT_I32, 2, dim) : NULL;
    int32_t *targets = arena_alloc(k->tmp, (size_t)cal->T * sizeof *targets, k->e);
    Tensor *h = model_hidden(g, k->p->m, &(ModelInputs){.ids = ids, .pos = pos, .seg = seg});
    k->n_input = 0;
    for (int i = first; h && targets && i < first + n; i++) {
        if (!seen[i]) seen[i] = h; /* the head reads what the model puts out */
        graph_keep(g, seen[i]);
        if (!add_input(k, seen[i])) break;
    }
    bool ok = graph_plan(g, k->e) && targets;
    k->tokens = 0;
    for (int64_t r = 0; ok && r < cal->rows; r++) {
        const long len = cal->row(cal->ctx, r, ids->data, targets, pos->data, seg ? seg->data : NULL);
        graph_forward(g);
        for (int i = 0; i < k->n_input; i++) measure(k, &k->input[i], len);
        k->tokens += len;
    }
    graph_free(g);
    return ok && !k->e->code;
}

static void wanda(const Walk *k, const PruneItem *it, const Input *in, float *score)
{
    const bool f64 = prune_f64(k->p);
    for (long i = 0; i < it->rows * it->cols; i++)
        score[i] = (float)(fabs(real_at(it->site->w->w.data, i, f64)) *
                           sqrt(in->square[i % it->cols] / (double)k->cal->rows));
}

static bool second_order(Walk *k, PruneItem *it, const Input *in, double sparsity)
{
    const bool f64 = prune_f64(k->p);
    const long n = it->rows * it->cols, c2 = it->cols * it->cols;
    int of;
    const int pattern = pattern_of(k->p->c->structure, &of);
    const ArenaMark mark = arena_mark(k->tmp);
    double *w = arena_alloc(k->tmp, (size_t)n * sizeof *w, k->e),
           *h = arena_alloc(k->tmp, (size_t)c2 * sizeof *h, k->e);
    for (long i = 0; h && i < n; i++) w[i] = it->keep[i] ? real_at(it->site->w->w.data, i, f64) : 0;
    for (long i = 0; h && i < c2; i++) h[i] = 2 * real_at(in->h, i, f64) / (double)k->tokens;
    const bool ok = h && sparsegpt(w, h, it->keep, it->rows, it->cols, sparsity, pattern, of, 128, it->name,
                                   k->tmp, k->e);
    for (long i = 0; ok && i < n; i++) real_set(it->site->w->w.data, i, f64, w[i]);
    it->limit = NAN;
    arena_release(k->tmp, mark);
    return ok;
}

/* Items first .. first + n: one layer. now: pruned at once. */
static bool one_layer(Walk *k, float *const *score, int first, int n, double sparsity, bool now)
{
    Prune *p = k->p;
    Arena own = {.name = "layer"};
    Walk here = *k;
    Tensor **seen = arena_alloc(&own, (size_t)p->n * sizeof *seen, k->e);
    here.tmp = &own;
    here.input = arena_alloc(&own, (size_t)p->n * sizeof *here.input, k->e);
    for (int i = first; here.input && i < first + n; i++) {
        Site *s = p->item[i].site;
        s->ax[s->n_ax++] = (Attachment){"probe", probe, &seen[i]};
    }
    bool ok = !k->e->code && pass(&here, seen, first, n);
    for (int i = first; i < first + n; i++) p->item[i].site->n_ax = 0;
    for (int i = first; ok && i < first + n; i++)
        for (int j = 0; ok && j < here.n_input; j++) {
            if (here.input[j].x != seen[i]) continue;
            if (here.hessian) ok = second_order(&here, &p->item[i], &here.input[j], sparsity);
            else wanda(&here, &p->item[i], &here.input[j], score[i]);
        }
    if (ok && now && !k->hessian) {
        Prune part = *p;
        part.item = p->item + first;
        part.n = n;
        ok = prune_pick(&part, score + first, sparsity, &own, k->e);
    }
    arena_free(&own);
    return ok;
}

bool score_inputs(Prune *p, const Calibration *cal, float *const *score, double sparsity, Arena *tmp, Err *e)
{
    BareSites bare = {0};
    Walk k = {.p = p, .cal = cal, .hessian = !strcmp(p->c->method, "sparsegpt"), .tmp = tmp, .e = e};
    const bool at_once = p->global || !strcmp(p->c->structure, "layer");
    bool ok = sites_bare(&bare, p, tmp, e);
    for (int i = 0; ok && i < p->n;) {
        int n = 1;
        while (i + n < p->n && layer_of(p, &p->item[i + n]) == layer_of(p, &p->item[i])) n++;
        ok = one_layer(&k, score, i, n, sparsity, !at_once);
        i += n;
    }
    sites_restore(&bare, p);
    return ok && (!at_once || k.hessian || prune_pick(p, score, sparsity, tmp, e));
}
