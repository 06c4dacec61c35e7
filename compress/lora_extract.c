/* compress/lora_extract.c: a full fine-tune as an adapter: dW = U S V^T cut to rank r, B = U sqrt(S), A =
 * sqrt(S) V^T, scale 1 (Eckart-Young: no rank-r adapter is nearer). Embeddings, norms and biases that moved
 * ship in full. Also the sum of adapters by concatenation: [B1 s1/s .. ] [A1; ..], exact. */
#include "compress/lora_impl.h"
#include <math.h>
#include <string.h>

/* The projection that a parameter is; NULL for one that an embedding shares. */
static Site *site_of(const Model *m, const Param *p)
{
    for (int i = 0; i < m->n_site; i++)
        if (m->site[i].w == p) return m->spec.tied && is_head(m, m->site[i].name) ? NULL : &m->site[i];
    return NULL;
}

/* ||D - B A|| / ||D||, from the factors themselves: 1 - sum of kept squares would lose what is small. sum:
 * a row's squares of D - B A and of D.   d (in), b (r), a (r,in) */
static void row_error(double sum[2], const float *d, const float *b, const float *a, long in, long r)
{
    double x[256];
    for (long q = 0; q < in; q += 256) {
        const long n = in - q < 256 ? in - q : 256;
        for (long c = 0; c < n; c++) {
            x[c] = (double)d[q + c];
            sum[1] += x[c] * x[c];
        }
        for (long j = 0; j < r; j++)
            for (long c = 0; c < n; c++) x[c] -= (double)b[j] * (double)a[j * in + q + c];
        for (long c = 0; c < n; c++) sum[0] += x[c] * x[c];
    }
}

/* Sums of a row each, then over rows in their order: the same bits for any number of threads. */
static double error_of(const float *d, const float *b, const float *a, long out, long in, long r, Arena *tmp,
                       Err *e)
{
    double off = 0, all = 0, (*sum)[2] = arena_alloc(tmp, (size_t)out * sizeof *sum, e);
    if (!sum) return 0;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < out; i++) row_error(sum[i], d + i * in, b + i * r, a, in, r);
    for (long i = 0; i < out; i++) {
        off += sum[i][0];
        all += sum[i][1];
    }
    return all > 0 ? sqrt(off / all) : 0;
}

static bool cut(LoraItem *it, const float *d, Err *e)
{
    const long out = it->base->w.dim[0], in = it->base->w.dim[1], r = it->r;
    float *u = it->b->w.data, *vt = it->a->w.data;
    Arena tmp = {.name = "extract"};
    float *s = arena_alloc(&tmp, (size_t)r * sizeof *s, e);
    if (s && svd_top(d, out, in, r, u, s, vt, e)) {
        for (long j = 0; j < r; j++) {
            const float root = sqrtf(s[j]);
            for (long i = 0; i < out; i++) u[i * r + j] *= root;
            for (long i = 0; i < in; i++) vt[j * in + i] *= root;
        }
        it->error = error_of(d, u, vt, out, in, r, &tmp, e);
    }
    arena_free(&tmp);
    return !e->code;
}

static bool extract_one(Lora *l, const Param *base, const Param *tuned, long r, Err *e)
{
    const long n = t_numel(&base->w);
    const float *x = base->w.data, *y = tuned->w.data;
    if (!memcmp(x, y, (size_t)n * sizeof *x)) return true;
    const Site *s = site_of(l->m, base);
    if (!s) {
        LoraSaved *v = lora_save_add(l, params_find(&l->m->params, base->name), e);
        if (v) v->values = tuned->w.data;
        return v != NULL;
    }
    const long out = base->w.dim[0], in = base->w.dim[1];
    if (r > (out < in ? out : in))
        return err_set(e, ERR_USAGE, "--r %ld: above the %ld x %ld matrix of %s, which %ld gives back whole",
                       r, out, in, s->name, out < in ? out : in);
    LoraItem *it = lora_add(l, s->name, r, (double)r, e);
    Arena tmp = {.name = "extract"};
    float *d = it ? arena_alloc(&tmp, (size_t)n * sizeof *d, e) : NULL;
    for (long i = 0; d && i < n; i++) d[i] = y[i] - x[i];
    if (d) cut(it, d, e);
    arena_free(&tmp);
    return !e->code;
}

static bool same_models(const Model *a, const Model *b, Err *e)
{
    for (int i = 0; i < a->params.n; i++) {
        const Param *p = a->params.p[i], *q = params_find(&b->params, p->name);
        if (!q || q->w.ndim != p->w.ndim || memcmp(q->w.dim, p->w.dim, sizeof p->w.dim))
            return err_set(e, ERR_USAGE, "%s: %s is %s the base's: an adapter needs two models of one shape",
                           b->path, p->name, q ? "not shaped as" : "missing beside");
    }
    return true;
}

bool lora_extract_file(const char *base, const char *tuned, const char *out, long r, Lora *l, Arena *a,
                       Err *e)
{
    Model *mb = arena_alloc(a, sizeof *mb, e), *mt = arena_alloc(a, sizeof *mt, e);
    if (r < 1) return err_set(e, ERR_USAGE, "--r %ld: a rank is at least 1", r);
    if (!mb || !mt || !model_open_frozen(mb, base, kernels_cpu_f32(), a, e)) return false;
    if (!model_open_frozen(mt, tuned, kernels_cpu_f32(), a, e) || !same_models(mb, mt, e)) return false;
    lora_start(l, mb, "default");
    l->r = r;
    l->alpha = (double)r;
    l->base_path = base;
    l->base_hash = model_content_hash(mb, a, e);
    const int n = mb->params.n; /* lora_add appends its own */
    for (int i = 0; i < n && !e->code; i++) {
        const Param *p = mb->params.p[i];
        extract_one(l, p, params_find(&mt->params, p->name), r, e);
    }
    if (!e->code && !l->n && !l->n_saved)
        err_set(e, ERR_USAGE, "%s and %s are equal: there is nothing to extract", base, tuned);
    if (!e->code) formats_is_h5(out) ? lora_write_h5(l, out, e) : lora_write_peft(l, out, e);
    return !e->code;
}

/* ---- several adapters as one ---- */
static const LoraItem *item_of(const Lora *l, const char *module)
{
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->item[i].module, module)) return &l->item[i];
    return NULL;
}

static bool concat_one(Lora *out, Lora *const *l, int n, const char *module, Err *e)
{
    const size_t real = out->m->params.k->real;
    long r = 0, at = 0;
    for (int i = 0; i < n; i++) r += item_of(l[i], module) ? item_of(l[i], module)->r : 0;
    LoraItem *it = lora_add(out, module, r, (double)r, e); /* scale 1: the scales stand in b */
    if (!it) return false;
    const bool table = !it->site;
    for (int i = 0; i < n; i++) {
        const LoraItem *x = item_of(l[i], module);
        if (!x) continue;
        const long rows = it->b->w.dim[0], width = table ? it->a->w.dim[0] : it->a->w.dim[1];
        const Kernels *k = out->m->params.k;
        if (!table)
            memcpy((char *)it->a->w.data + (size_t)(at * width) * real, x->a->w.data,
                   (size_t)(x->r * width) * real);
        else k->columns_put(it->a->w.data, x->a->w.data, width, r, at, x->r, SET);
        k->columns_put(it->b->w.data, x->b->w.data, rows, r, at, x->r, SET);
        for (long j = 0; j < rows; j++) {
            void *part = (char *)it->b->w.data + (size_t)(j * r + at) * real;
            k->scale(part, x->scale * l[i]->weight, part, x->r, SET);
        }
        at += x->r;
    }
    return true;
}

bool lora_concat(Lora *out, Lora *const *l, int n, const char *name, Model *m, Err *e)
{
    lora_start(out, m, name);
    out->base_hash = n ? l[0]->base_hash : NULL;
    out->base_path = n ? l[0]->base_path : NULL;
    for (int i = 0; i < n; i++) {
        if (l[i]->dora || l[i]->n_saved)
            return err_set(e, ERR_USAGE, "adapter %s %s: it has no sum with others", l[i]->name,
                           l[i]->dora ? "is DoRA" : "brings whole tensors");
        for (int j = 0; j < l[i]->n && !e->code; j++)
            if (!item_of(out, l[i]->item[j].module)) concat_one(out, l, n, l[i]->item[j].module, e);
    }
    for (int i = 0; i < out->n; i++)
        if (out->item[i].r > out->r || !i) out->r = out->item[i].r;
    out->alpha = (double)out->r;
    return !e->code;
}
