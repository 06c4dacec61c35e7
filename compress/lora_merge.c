/* compress/lora_merge.c: adapters into weights and out again (algorithms 5.16).
 *
 *   merge     W' = round(W + s B A), in float32, rounded once, to the type that is written; zeros of a masked
 *   base stay.
 *             A quantised base: decode, add, quantise by the same rules with new scales; an update below half
 *             a step
 *             leaves a code as it is, so the fraction of codes that changed is reported.
 *   unmerge   round(W' - s B A), only where the content hash proves that this is the base: subtraction is not
 *   exact. */
#include "compress/lora_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Merge {
    const MergeOptions *o;
    Model m;
    TensorFile f;
    Lora *l;
    OutModel out;
    MergeReport *r;
    Arena *a;
    Err *e;
} Merge;

static bool ends(const char *s, const char *tail)
{
    const size_t n = strlen(s), k = strlen(tail);
    return n >= k && !strcmp(s + n - k, tail);
}

static bool write_out(const char *path, const OutModel *m, Err *e)
{
    if (ends(path, ".h5")) return formats_write_h5(path, m, e);
    if (ends(path, ".safetensors")) return formats_write_safetensors(path, m, e);
    return formats_write_hf(path, m, 0, e);
}

/* The type most of the base's numbers have. */
static DType type_of(const TensorFile *f)
{
    int64_t n[DT_COUNT] = {0};
    DType best = DT_F32;
    for (int i = 0; i < f->n; i++) {
        int64_t k = 1;
        for (int d = 0; d < f->t[i].ndim; d++) k *= f->t[i].dim[d];
        if (!f->t[i].encoded) n[f->t[i].dtype] += k;
    }
    if (n[DT_BF16] > n[best]) best = DT_BF16;
    if (n[DT_F16] > n[best]) best = DT_F16;
    return best;
}

static bool load_all(Merge *g)
{
    const MergeOptions *o = g->o;
    Lora **all = arena_alloc(g->a, (size_t)o->n_adapter * sizeof *all, g->e);
    int *use = arena_alloc(g->a, (size_t)o->n_adapter * sizeof *use, g->e);
    g->l = arena_alloc(g->a, (size_t)o->n_adapter * sizeof *g->l, g->e);
    for (int i = 0; g->l && i < o->n_adapter && !g->e->code; i++) {
        const char *name = arena_printf(g->a, g->e, "a%d", i);
        all[i] = &g->l[i];
        use[i] = i;
        if (!lora_load(&g->l[i], &g->m, o->adapter[i], name, o->force, g->e)) return false;
        g->l[i].weight = o->weight[i] * o->scale;
    }
    return !g->e->code && lora_use(all, o->n_adapter, use, o->n_adapter, g->e);
}

static bool changed_by_adapter(const Merge *g, const Param *p)
{
    for (int i = 0; i < g->o->n_adapter; i++)
        for (int j = 0; j < g->l[i].n; j++)
            if (g->l[i].item[j].base == p) return true;
    return false;
}

/* Zeros of the base stay zeros: W' = mask (W + s B A). */
static void keep_zeros(float *w, const float *base, long n)
{
    for (long i = 0; i < n; i++)
        if (base[i] == 0) w[i] = 0;
}

static double distance(const float *w, const float *base, long n)
{
    double diff = 0, norm = 0;
    for (long i = 0; i < n; i++) {
        diff += ((double)w[i] - (double)base[i]) * ((double)w[i] - (double)base[i]);
        norm += (double)base[i] * (double)base[i];
    }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

/* One quantised tensor: new scales, new codes; what part of them moved. */
static bool requantise(Merge *g, const FileTensor *ft, const OutTensor *t, OutTensor *to, int *n,
                       OutGroup *group, double *changed)
{
    const EncodedTensor *c = ft->encoded;
    QuantScales q, old;
    const uint8_t *before;
    const size_t row = quant_row_bytes(&c->spec, c->cols);
    uint8_t *one = arena_alloc(g->a, 2 * (size_t)c->rows * row, g->e);
    if (!one || !formats_scales(&g->f, ft, &old, &before, g->a, g->e) ||
        !quant_scales_alloc(&q, &c->spec, c->rows, c->cols, g->a, g->e))
        return false;
    quant_scales(&q, &c->spec, t->src, c->rows, c->cols);
    quant_encode(one, t->src, &c->spec, &q, c->cols, 0, c->rows);
    long differ = 0;
    const int bits = c->spec.f->bits;
    for (long r = 0; r < c->rows; r++)
        for (long i = 0; i < c->cols; i++) {
            bool same = true;
            for (long b = i * bits; b < (i + 1) * bits; b++)
                same = same && !(((one[(size_t)r * row + (size_t)(b >> 3)] ^
                                   before[(size_t)r * row + (size_t)(b >> 3)]) >>
                                  (b & 7)) &
                                 1);
            differ += !same;
        }
    *changed = (double)differ / (double)(c->rows * c->cols);
    return formats_encode(to, n, group, t->name, t->in_out, t->src, &c->spec, &q, c->rows, c->cols, g->a,
                          g->e);
}

static bool merge_tensors(Merge *g)
{
    OutModel *o = &g->out;
    OutTensor *t = arena_alloc(g->a, (size_t)(o->n * ENCODED_MEMBERS + 1) * sizeof *t, g->e);
    OutGroup *group = arena_alloc(g->a, (size_t)(o->n + 1) * sizeof *group, g->e);
    g->r->row = arena_alloc(g->a, (size_t)(o->n + 1) * sizeof *g->r->row, g->e);
    int n = 0, n_group = 0;
    double codes = 0, moved = 0;
    for (int i = 0; i < o->n && !g->e->code; i++) {
        const OutTensor *x = &o->t[i];
        const Param *p = params_find(&g->m.params, x->name);
        const FileTensor *ft = formats_find(&g->f, x->name);
        const long count = t_numel(&p->w);
        const bool hit = changed_by_adapter(g, p);
        MergeRow *row = &g->r->row[g->r->n];
        *row = (MergeRow){.name = x->name, .changed = NAN};
        if (hit && g->o->keep_zeros) keep_zeros((float *)(uintptr_t)x->src, p->w.data, count);
        if (hit) row->relative = distance(x->src, p->w.data, count);
        if (ft && ft->encoded && !g->o->dense) {
            int members = 0;
            if (!requantise(g, ft, x, &t[n], &members, &group[n_group++], &row->changed)) return false;
            n += members;
            codes += (double)count;
            moved += row->changed * (double)count;
        } else t[n++] = *x;
        g->r->n += hit;
    }
    g->r->changed = codes > 0 ? moved / codes : NAN;
    o->t = t;
    o->n = n;
    o->group = group;
    o->n_group = n_group;
    return !g->e->code;
}

bool lora_merge_file(const char *base, const char *out, const MergeOptions *o, MergeReport *r, Arena *a,
                     Err *e)
{
    Merge g = {.o = o, .r = r, .a = a, .e = e};
    *r = (MergeReport){.changed = NAN};
    DType type = DT_F32;
    bool ok = formats_open(&g.f, base, a, e) && model_open_frozen(&g.m, base, kernels_cpu_f32(), a, e) &&
              load_all(&g);
    if (ok && o->dtype && !dtype_parse(o->dtype, &type))
        ok = err_set(e, ERR_USAGE, "--dtype %s: float32, bfloat16 or float16", o->dtype);
    if (ok && !o->dtype) type = type_of(&g.f);
    const bool folder = !ends(out, ".h5") && !ends(out, ".safetensors");
    for (int i = 0; ok && i < g.f.n; i++)
        if (g.f.t[i].encoded && folder && !o->dense)
            ok = err_set(e, ERR_USAGE,
                         "%s is quantised, and a Hugging Face folder holds no codes of ours: write to .h5 or "
                         ".safetensors, "
                         "or give --dense",
                         base);
    if (ok && model_out(&g.m, &g.out, type, a, e) && merge_tensors(&g) && !o->dry) write_out(out, &g.out, e);
    if (ok) model_close(&g.m);
    formats_close(&g.f);
    return !e->code;
}

/* What model_content_hash gives for a model with these values. */
static const char *hash_of(const OutModel *m, Arena *a, Err *e)
{
    char *all = arena_strdup(a, "", e), hex[33];
    for (int i = 0; all && i < m->n; i++) {
        size_t n = 1;
        for (int d = 0; d < m->t[i].ndim; d++) n *= (size_t)m->t[i].dim[d];
        float *v = arena_alloc(a, n * sizeof *v, e);
        void *stored = arena_alloc(a, n * dtype_size(m->t[i].dtype), e);
        if (e->code) return NULL;
        dtype_from_f32(stored, m->t[i].dtype, m->t[i].src, n);
        dtype_to_f32(v, stored, m->t[i].dtype, n);
        hash128_hex(hex, v, n * sizeof *v);
        all = arena_printf(a, e, "%s%s %s\n", all, m->t[i].name, hex);
    }
    if (!all) return NULL;
    hash128_hex(hex, all, strlen(all));
    return arena_strdup(a, hex, e);
}

static const char *wanted_hash(const Lora *l, const char *adapter, const char *base, Arena *a, Err *e)
{
    Model b;
    if (!base) {
        if (!l->base_hash)
            err_set(e, ERR_USAGE,
                    "%s does not say which base it was trained on, so nothing can prove that subtracting "
                    "gives that base "
                    "back; use your copy of the base (or name it: --base)",
                    adapter);
        return l->base_hash;
    }
    const char *h = model_open_frozen(&b, base, kernels_cpu_f32(), a, e) ? model_content_hash(&b, a, e)
                                                                         : NULL;
    if (h) model_close(&b);
    return h;
}

bool lora_unmerge_file(const char *model, const char *adapter, const char *out, const char *base, Arena *a,
                       Err *e)
{
    Model m;
    Lora l, *all[1] = {&l};
    OutModel o;
    TensorFile f = {0};
    if (!formats_open(&f, model, a, e)) return false;
    const DType type = type_of(&f);
    formats_close(&f);
    if (!model_open_frozen(&m, model, kernels_cpu_f32(), a, e)) return false;
    if (!lora_read(&l, &m, adapter, "a0", e) || !lora_check_start(&l, adapter, e)) return false;
    if (l.dora || l.n_saved)
        return err_set(e, ERR_USAGE, "%s: %s cannot be subtracted; use your copy of the base", adapter,
                       l.dora ? "DoRA rescales rows and" : "it replaced whole tensors and");
    const char *want = wanted_hash(&l, adapter, base, a, e);
    l.weight = -1;
    if (!want || !lora_use(all, 1, (int[]){0}, 1, e) || !model_out(&m, &o, type, a, e)) return false;
    const char *have = hash_of(&o, a, e);
    if (have && strcmp(have, want))
        err_set(e, ERR_FAIL,
                "%s: W' - s B A is not the base bit for bit (content hash %s, the base has %s): rounding "
                "lost it, as it "
                "does almost always. Nothing was written; use your copy of the base",
                model, have, want);
    if (!e->code) write_out(out, &o, e);
    model_close(&m);
    return !e->code;
}
