/* compress/quantize.c: rounding to nearest (`pare quantize --method rtn`): a file of tensors into a file of
 * codes and scales, one tensor at a time, then the whole read back and compared with fake quantisation bit
 * for bit. Every matrix [out,in]; groups run along in. algorithms 5.7 to 5.10. */
#include "compress/compress.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct Job {
    const QuantizeConfig *c;
    TensorFile in;
    OutTensor *t;
    OutGroup *group;
    uint64_t *hash; /* of each group's fake-quantised values */
    OutModel out;
    QuantizeReport *r;
    Arena *a;
    Err *e;
} Job;

static bool is_float(DType t) { return t == DT_F32 || t == DT_F16 || t == DT_BF16; }

static bool can_quantise(const FileTensor *t) { return t->ndim == 2 && is_float(t->dtype) && !t->tied_to; }

/* The last rule that matches, -1 = none. */
static int rule_of(const QuantizeConfig *c, const char *name)
{
    int hit = -1;
    for (int i = 0; i < c->rules.n; i++)
        if (tensor_match(c->rules.v[i].match, name, 2)) hit = i;
    return hit;
}

static bool flag(const char *rule, bool section) { return rule ? !strcmp(rule, "true") : section; }

/* Whether tensor t is to be quantised, and how. */
static bool chosen(const Job *j, const FileTensor *t, QuantSpec *s)
{
    const QuantizeConfig *c = j->c;
    const int hit = rule_of(c, t->name);
    const QuantizeRuleConfig none = {.group_size = -2}, *r = hit < 0 ? &none : &c->rules.v[hit];
    bool take = c->include.n == 0 && (!j->in.arch || !strcmp(tensor_class(t->name, 2), "linear"));
    for (int i = 0; i < c->include.n; i++) take = take || tensor_match(c->include.v[i], t->name, 2);
    for (int i = 0; i < c->exclude.n; i++) take = take && !tensor_match(c->exclude.v[i], t->name, 2);
    if (hit >= 0) take = r->enabled ? !strcmp(r->enabled, "true") : true;
    if (!take) return false;
    const QuantWords w = {.format = r->format ? r->format : c->format,
                          .granularity = r->granularity ? r->granularity : c->granularity,
                          .scale_rounding = r->scale_rounding ? r->scale_rounding : c->scale_rounding,
                          .group_size = r->group_size != -2 ? r->group_size
                                        : r->format         ? 0
                                                            : c->group_size,
                          .symmetric = flag(r->symmetric, c->symmetric),
                          .full = !strcmp(r->range ? r->range : c->range, "full"),
                          .search = flag(r->clip_search, c->clip_search),
                          .double_quant = flag(r->double_quant, c->double_quant)};
    return quant_spec(s, &w, "quantize", j->e);
}

static bool names_check(const Job *j)
{
    const QuantizeConfig *c = j->c;
    int n = 0;
    const char **name = arena_alloc(j->a, (size_t)(j->in.n + 1) * sizeof *name, j->e);
    for (int i = 0; name && i < j->in.n; i++)
        if (can_quantise(&j->in.t[i])) name[n++] = j->in.t[i].name;
    if (!name || !globs_check(&c->include, "quantize.include", name, n, j->e) ||
        !globs_check(&c->exclude, "quantize.exclude", name, n, j->e))
        return false;
    for (int i = 0; i < c->rules.n; i++) {
        char key[64];
        snprintf(key, sizeof key, "quantize.rules[%d].match", i);
        const char *match = c->rules.v[i].match;
        if (!match) return err_set(j->e, ERR_USAGE, "%s: required: a glob of tensor names", key);
        if (!globs_check(&(ConfigStrs){1, &match}, key, name, n, j->e)) return false;
    }
    return true;
}

static void measure(QuantizeRow *row, const float *x, const float *y, long n)
{
    double err = 0, sig = 0, max = 0;
    for (long i = 0; i < n; i++) {
        const double d = (double)y[i] - (double)x[i];
        err += d * d;
        sig += (double)x[i] * (double)x[i];
        max = fmax(max, fabs(d));
    }
    row->mse = err / (double)n;
    row->sqnr_db = err > 0 ? 10 * log10(sig / err) : INFINITY;
    row->max_error = max;
}

/* One matrix: scales, codes into the output, its row of the table. */
static bool add_quantised(Job *j, const FileTensor *t, const QuantSpec *s)
{
    Arena tmp = {.name = "quantize"};
    int64_t dim[4];
    int n_member = 0;
    formats_dims(t, dim);
    const long rows = (long)dim[0], cols = (long)dim[1], n = rows * cols;
    float *x = arena_alloc(&tmp, (size_t)n * sizeof *x, j->e),
          *y = arena_alloc(&tmp, (size_t)n * sizeof *y, j->e);
    QuantScales q;
    if (y && formats_read_f32(&j->in, t, x, j->e)) {
        for (long i = 0; i < n; i++)
            if (!isfinite(x[i])) {
                err_set(j->e, ERR_CORRUPT, "%s: tensor %s holds %s at element %ld; nothing was written",
                        j->in.path, t->name, isnan(x[i]) ? "NaN" : "infinity", i);
                break;
            }
        if (!j->e->code && quant_scales_alloc(&q, s, rows, cols, j->a, j->e)) {
            quant_scales(&q, s, x, rows, cols);
            quant_fake(y, x, s, &q, cols, 0, rows);
            QuantizeRow *row = &j->r->row[j->r->n];
            *row = (QuantizeRow){.name = t->name, .format = s->f, .parameters = n};
            measure(row, x, y, n);
            OutTensor *m = &j->t[j->out.n];
            OutGroup *g = &j->group[j->out.n_group];
            formats_encode(m, &n_member, g, t->name, t->in_out, x, s, &q, rows, cols, j->a, j->e);
            for (int i = 0; i < n_member; i++)
                row->bytes += (int64_t)dtype_size(m[i].dtype) * (m[i].ndim > 0 ? m[i].dim[0] : 1) *
                              (m[i].ndim > 1 ? m[i].dim[1] : 1);
            j->hash[j->r->n++] = hash64(y, (size_t)n * sizeof *y);
            j->out.n += n_member;
            j->out.n_group++;
            j->r->bytes_after += row->bytes;
        }
    }
    arena_free(&tmp);
    return !j->e->code;
}

/* Anything else goes through as it is: floats by value in their own type, the rest by its bytes. */
static bool add_plain(Job *j, const FileTensor *t)
{
    OutTensor *o = &j->t[j->out.n++];
    int64_t dim[4];
    size_t n = 1;
    *o = (OutTensor){.name = t->name, .ndim = t->ndim, .dtype = t->dtype, .tied_to = t->tied_to};
    j->r->bytes_after += t->tied_to ? 0 : (int64_t)t->bytes;
    formats_dims(t, dim);
    for (int i = 0; i < t->ndim; i++) n *= (size_t)(o->dim[i] = dim[i]);
    if (t->tied_to) return true;
    if (!is_float(t->dtype)) {
        if (t->in_out)
            return err_set(j->e, ERR_USAGE, "%s: tensor %s: %s stored [in,out] is not converted", j->in.path,
                           t->name, dtype_name(t->dtype));
        o->raw = t->data;
        if (!o->raw)
            return err_set(
                j->e, ERR_USAGE,
                "%s: tensor %s: %s in HDF5 is not carried over; use the safetensors file it was made from",
                j->in.path, t->name, dtype_name(t->dtype));
        return true;
    }
    float *x = arena_alloc(j->a, n * sizeof *x, j->e);
    o->src = x;
    o->in_out = t->in_out;
    return x && formats_read_f32(&j->in, t, x, j->e);
}

static bool ends_in(const char *s, const char *tail)
{
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static bool write_out(const Job *j, const char *path)
{
    if (ends_in(path, ".h5")) return formats_write_h5(path, &j->out, j->e);
    if (ends_in(path, ".safetensors")) return formats_write_safetensors(path, &j->out, j->e);
    return formats_write_hf(path, &j->out, 0, j->e);
}

/* What the file decodes to must be what training would have computed with. */
static bool verify(const Job *j, const char *path)
{
    Arena tmp = {.name = "verify"};
    TensorFile f = {0};
    bool ok = formats_open(&f, path, &tmp, j->e);
    for (int i = 0; ok && i < j->r->n; i++) {
        const QuantizeRow *row = &j->r->row[i];
        const FileTensor *t = formats_find(&f, row->name);
        const ArenaMark mark = arena_mark(&tmp);
        float *y = t ? arena_alloc(&tmp, (size_t)row->parameters * sizeof *y, j->e) : NULL;
        if (!t || !t->encoded)
            err_set(j->e, ERR_FAIL, "%s: tensor %s was not found when read back", path, row->name);
        ok = y && formats_read_f32(&f, t, y, j->e);
        if (ok && hash64(y, (size_t)row->parameters * sizeof *y) != j->hash[i])
            ok = err_set(j->e, ERR_FAIL, "%s: tensor %s decodes to other values than were encoded", path,
                         row->name);
        arena_release(&tmp, mark);
    }
    formats_close(&f);
    arena_free(&tmp);
    return ok && !j->e->code;
}

bool quantize_holds(const char *out, Err *e)
{
    const char *slash = strrchr(out, '/'), *base = slash ? slash + 1 : out, *dot = strrchr(base, '.');
    if (!dot || dot == base || (dot[1] >= '0' && dot[1] <= '9')) return true; /* a folder, v1.5 too */
    if (ends_in(out, ".h5") || ends_in(out, ".safetensors")) return true;
    return err_set(e, ERR_USAGE,
                   "%s: a %s file cannot hold these tensors; OUT ends in .h5 or .safetensors, or is a folder "
                   "without a suffix",
                   out, dot);
}

bool quantize_file(const char *in, const char *out, const QuantizeConfig *c, bool dry, QuantizeReport *r,
                   Arena *a, Err *e)
{
    Job j = {.c = c, .r = r, .a = a, .e = e};
    *r = (QuantizeReport){0};
    if (!quantize_holds(out, e)) return false;
    if (!formats_open(&j.in, in, a, e)) return false;
    const size_t n = (size_t)j.in.n + 1;
    j.t = arena_alloc(a, n * ENCODED_MEMBERS * sizeof *j.t, e);
    j.group = arena_alloc(a, n * sizeof *j.group, e);
    j.hash = arena_alloc(a, n * sizeof *j.hash, e);
    r->row = arena_alloc(a, n * sizeof *r->row, e);
    bool ok = !e->code && names_check(&j);
    for (int i = 0; ok && i < j.in.n; i++) {
        const FileTensor *t = &j.in.t[i];
        QuantSpec s;
        const bool take = can_quantise(t) && chosen(&j, t, &s);
        r->bytes_before += t->tied_to ? 0 : (int64_t)t->bytes;
        ok = !e->code && (take ? add_quantised(&j, t, &s) : add_plain(&j, t));
    }
    if (ok && !r->n)
        ok = err_set(e, ERR_USAGE, "%s: no tensor is to be quantised; 2-D float tensors are", in);
    j.out.t = j.t;
    j.out.group = j.group;
    j.out.arch = j.in.arch;
    j.out.config_json = j.in.config_json;
    j.out.generation_json = j.in.generation_json;
    j.out.tokenizer_path = j.in.tokenizer_path;
    j.out.step = j.in.step;
    if (ok && !dry) ok = write_out(&j, out) && verify(&j, out);
    formats_close(&j.in);
    return ok;
}
