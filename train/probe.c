/* train/probe.c: one batch through the model, everything written down (product.md 5, contract for scripts).
 * The tool that people reach for when a converted model disagrees. */
#include "train/train.h"
#include <math.h>
#include <string.h>

typedef struct Probe {
    Model *m;
    Graph *g;
    Arena *a;
    Err *e;
    long B, T;
    bool own_labels;
    Tensor *ids, *labels, *pos, *logits, *loss;
    int n_tap;
    const char **tap_name; /* (n_tap,) */
    Tensor **tap;          /* (n_tap,) */
    OutTensor *out;
    int n, cap;
} Probe;

/* Integers of an input tensor, checked against [lo, hi). */
static bool read_ids(Probe *p, const TensorFile *f, const char *name, int32_t *dst, int64_t lo, int64_t hi,
                     int64_t also)
{
    const FileTensor *t = formats_find(f, name);
    for (int64_t i = 0; i < p->B * p->T; i++) {
        int64_t v = 0;
        if (t->dtype == DT_I64) memcpy(&v, t->data + i * 8, 8);
        else {
            int32_t x;
            memcpy(&x, t->data + i * 4, 4);
            v = x;
        }
        if ((v < lo || v >= hi) && v != also)
            return err_set(p->e, ERR_USAGE, "%s: %s[%lld] = %lld is outside the vocabulary of %lld", f->path,
                           name, (long long)i, (long long)v, (long long)hi);
        dst[i] = (int32_t)v;
    }
    return true;
}

static bool check_input(Probe *p, const TensorFile *f, const char *name, bool required)
{
    const FileTensor *t = formats_find(f, name);
    if (!t)
        return required ? err_set(p->e, ERR_USAGE, "%s: no tensor %s (I32 or I64, [B,T])", f->path, name)
                        : true;
    if (t->ndim != 2 || (t->dtype != DT_I32 && t->dtype != DT_I64) || !t->data)
        return err_set(p->e, ERR_USAGE, "%s: %s must be I32 or I64 of shape [B,T]", f->path, name);
    if (required) {
        p->B = (long)t->dim[0];
        p->T = (long)t->dim[1];
    }
    if (t->dim[0] != p->B || t->dim[1] != p->T || p->B < 1 || p->T < 1)
        return err_set(p->e, ERR_USAGE, "%s: %s has another shape than input_ids, or is empty", f->path,
                       name);
    return true;
}

static Tensor *input(Probe *p, const char *name)
{
    return graph_input(p->g, name, DT_I32, 2, (long[]){p->B, p->T});
}

static bool record(Probe *p, bool grad, const char *taps)
{
    const Kernels *k = p->m->params.k;
    p->g = graph_new(&(GraphOptions){.k = k, .train = grad, .run = p->a}, p->e);
    if (!p->g) return false;
    p->ids = input(p, "ids");
    p->labels = input(p, "labels");
    p->pos = input(p, "pos");
    Tensor *h = model_hidden(p->g, p->m, &(ModelInputs){.ids = p->ids, .pos = p->pos});
    p->logits = model_logits(p->g, p->m, h);
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    model_loss_caps(&at.a, p->m, NULL);
    p->loss = OP_ATTR(p->g, lm_loss, at, h, model_head(p->g, p->m), p->labels);
    graph_loss(p->g, p->loss, 1.0, "lm");
    graph_keep(p->g, p->logits);
    graph_keep(p->g, p->loss);
    p->n_tap = taps ? graph_taps(p->g, taps, NULL, NULL, 0) : 0;
    p->cap = p->m->params.n + 3 + p->n_tap;
    p->out = arena_alloc(p->a, (size_t)p->cap * sizeof *p->out, p->e);
    p->tap_name = arena_alloc(p->a, (size_t)p->n_tap * sizeof *p->tap_name, p->e);
    p->tap = arena_alloc(p->a, (size_t)p->n_tap * sizeof(Tensor *), p->e);
    if (p->e->code) return false;
    if (taps) graph_taps(p->g, taps, p->tap_name, p->tap, p->n_tap);
    if (taps && !p->n_tap && !graph_err(p->g)->code)
        return err_set(
            p->e, ERR_USAGE,
            "--taps %s matches nothing; taps are embed, layers.N.{attn_in,q,k,v,qkv,attn_mix,attn_out,"
            "mlp_in,mlp_out,out}, final_norm, logits",
            taps);
    for (int i = 0; i < p->n_tap; i++) graph_keep(p->g, p->tap[i]);
    return graph_plan(p->g, p->e);
}

static void add(Probe *p, const char *name, int ndim, const long *dim, const void *data, bool in_out)
{
    if (p->e->code || p->n == p->cap) return;
    OutTensor *o = &p->out[p->n++];
    long n = 1;
    *o = (OutTensor){.name = name, .ndim = ndim, .src = data, .dtype = DT_F32, .in_out = in_out};
    for (int i = 0; i < ndim; i++) {
        o->dim[i] = dim[i];
        n *= dim[i];
    }
    if (p->m->params.k->real == sizeof(float)) return;
    float *f = arena_alloc(p->a, (size_t)n * sizeof *f, p->e);
    for (long i = 0; f && i < n; i++) f[i] = (float)((const double *)data)[i];
    o->src = f;
}

static void add_grads(Probe *p)
{
    const Params *ps = &p->m->params;
    for (int i = 0; i < ps->n; i++) {
        const Param *q = ps->p[i];
        if (q->w.grad)
            add(p, arena_printf(p->a, p->e, "grad.%s", q->name), q->w.ndim, q->w.dim, q->w.grad, q->in_out);
    }
}

static bool run(Probe *p, const TensorFile *f, bool grad, const char *taps)
{
    const Params *ps = &p->m->params;
    long V = p->m->spec.V, rows = p->B * p->T, count = 0;
    if (p->T > p->m->spec.max_pos)
        return err_set(p->e, ERR_USAGE, "%s: %ld tokens in a row, the model has %ld positions", f->path, p->T,
                       p->m->spec.max_pos);
    if ((grad && !params_alloc_grads(&p->m->params, p->e)) || !record(p, grad, taps)) return false;
    int32_t *ids = p->ids->data, *y = p->labels->data, *pos = p->pos->data;
    if (!read_ids(p, f, "input_ids", ids, 0, V, 0)) return false;
    if (p->own_labels) {
        if (!read_ids(p, f, "labels", y, 0, V, -100)) return false;
    } else
        for (long i = 0; i < rows; i++) y[i] = (i + 1) % p->T ? ids[i + 1] : -100;
    for (long i = 0; i < rows; i++) {
        pos[i] = (int32_t)(i % p->T);
        count += y[i] >= 0;
    }
    if (!count)
        return err_set(p->e, ERR_USAGE, "%s: every label is masked (-100): there is no loss", f->path);
    if (grad) {
        p->loss->node->loss_weight = 1 / (double)count; /* gradients of the mean */
        graph_step_begin(p->g);
        graph_micro(p->g);
        graph_step_end(p->g);
    } else graph_forward(p->g);
    double *mean = arena_alloc(p->a, sizeof *mean * 2, p->e);
    if (!mean) return false;
    double total = ((const double *)p->loss->node->stat)[LM_CE] / (double)count;
    if (ps->k->real == sizeof(float)) *(float *)mean = (float)total;
    else *mean = total;
    add(p, "logits", 3, (long[]){p->B, p->T, V}, p->logits->data, false);
    add(p, "nll", 2, (long[]){p->B, p->T}, p->loss->data, false);
    add(p, "loss", 1, (long[]){1}, mean, false);
    if (grad) add_grads(p);
    for (int i = 0; i < p->n_tap; i++) {
        const Tensor *t = p->tap[i];
        add(p, arena_printf(p->a, p->e, "tap.%s", p->tap_name[i]), t->ndim, t->dim, t->data, false);
    }
    return !p->e->code;
}

bool probe(Model *m, const char *in, const char *out, bool grad, const char *taps, Err *e)
{
    Arena a = {.name = "probe"};
    TensorFile f = {0};
    Probe p = {.m = m, .a = &a, .e = e};
    bool ok = formats_open(&f, in, &a, e) && check_input(&p, &f, "input_ids", true) &&
              check_input(&p, &f, "labels", false);
    p.own_labels = ok && formats_find(&f, "labels");
    if (ok && run(&p, &f, grad, taps)) formats_write_safetensors(out, &(OutModel){.n = p.n, .t = p.out}, e);
    graph_free(p.g);
    formats_close(&f);
    arena_free(&a);
    return !e->code;
}
