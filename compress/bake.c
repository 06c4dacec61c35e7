/* compress/bake.c: what training computed with, as a file: attachments folded into effective weights, codes
 * and scales packed, masks as bitmaps where that is smaller. A baked file is read back: every value is the
 * training graph's bit for bit (after rounding to the stored type), and so are the logits of a fixed batch
 * through the same kernels. */
#include "compress/compress.h"
#include <math.h>
#include <string.h>
#include <sys/stat.h>

bool bake(const BakeState *s, DType dtype, OutModel *out, OutModel *effective, Arena *a, Err *e)
{
    if (!model_out(s->m, out, dtype, a, e)) return false;
    *effective = *out;
    return !s->q || !s->q->n || qat_pack(s->q, s->m, out, a, e);
}

bool bake_write(const char *path, const char *format, const OutModel *m, int64_t shard_bytes, Err *e)
{
    if (!strcmp(format, "hdf5")) return formats_write_h5(path, m, e);
    if (!strcmp(format, "hf")) return formats_write_hf(path, m, shard_bytes, e);
    if (!strcmp(format, "llama2c")) return formats_write_llama2c(path, m, e);
    return formats_write_safetensors(path, m, e);
}

/* ---- reading back ---- */
static int64_t file_bytes(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISREG(st.st_mode) ? (int64_t)st.st_size : 0;
}

/* One tensor of the file against its effective values; counts what is not zero. */
static bool same_tensor(const TensorFile *f, const OutTensor *t, BakeReport *r, Err *e)
{
    Arena tmp = {.name = "verify"};
    const FileTensor *have = formats_find(f, t->name);
    size_t n = 1;
    for (int d = 0; d < t->ndim; d++) n *= (size_t)t->dim[d];
    float *x = arena_alloc(&tmp, n * sizeof *x, e), *y = arena_alloc(&tmp, n * sizeof *y, e);
    if (!have) err_set(e, ERR_FAIL, "%s: tensor %s was not found when read back", f->path, t->name);
    if (!e->code && formats_read_f32(f, have, y, e)) {
        memcpy(x, t->src, n * sizeof *x);
        if (!have->encoded && t->dtype != DT_F32) {
            dtype_from_f32(y, t->dtype, x, n);
            dtype_to_f32(x, y, t->dtype, n);
            formats_read_f32(f, have, y, e);
        }
        if (!e->code && memcmp(x, y, n * sizeof *x))
            err_set(e, ERR_FAIL, "%s: tensor %s decodes to other values than training computed with", f->path,
                    t->name);
        for (size_t i = 0; i < n; i++) r->nonzeros += y[i] != 0;
        r->parameters += (int64_t)n;
        r->stored += (int64_t)have->bytes;
    }
    arena_free(&tmp);
    return !e->code;
}

bool bake_count(const char *path, BakeReport *r, Err *e)
{
    Arena tmp = {.name = "count"};
    TensorFile f = {0};
    *r = (BakeReport){.bytes = file_bytes(path)};
    bool ok = formats_open(&f, path, &tmp, e);
    for (int i = 0; ok && i < f.n; i++) {
        const FileTensor *t = &f.t[i];
        const ArenaMark mark = arena_mark(&tmp);
        size_t n = 1;
        for (int d = 0; d < t->ndim; d++) n *= (size_t)t->dim[d];
        if (t->tied_to) continue;
        float *y = arena_alloc(&tmp, n * sizeof *y, e);
        ok = y && formats_read_f32(&f, t, y, e);
        for (size_t k = 0; ok && k < n; k++) r->nonzeros += y[k] != 0;
        r->parameters += (int64_t)n;
        r->stored += (int64_t)t->bytes;
        arena_release(&tmp, mark);
    }
    if (!r->bytes) r->bytes = r->stored; /* a folder */
    formats_close(&f);
    arena_free(&tmp);
    return ok && !e->code;
}

/* A site's branches as part of its weight, the way a file holds them. */
static Tensor *branches(Graph *g, Tensor *w, const Attachment *a)
{
    Site *s = a->state;
    for (int i = 0; i < s->n_side; i++) w = s->side[i].merge(g, w, s, &s->side[i]);
    return w;
}

/* Logits (T,V) of a fixed batch. Files hold weights: attachments on activations are left out, adapters
 * merged. */
static const void *logits_of(const Model *m, long T, Arena *a, Err *e)
{
    Model plain = *m;
    plain.site = arena_alloc(a, (size_t)(m->n_site + 1) * sizeof *plain.site, e);
    Graph *g = plain.site ? graph_new(&(GraphOptions){.k = m->params.k, .run = a}, e) : NULL;
    if (!g) return NULL;
    for (int i = 0; i < m->n_site; i++) {
        plain.site[i] = m->site[i];
        plain.site[i].n_ax = plain.site[i].n_yx = plain.site[i].n_side = 0;
        if (!m->site[i].n_side) continue;
        if (plain.site[i].n_wx == SITE_MAX) {
            err_set(e, ERR_USAGE,
                    "%s: more than %d attachments; name it in fewer groups of the configuration",
                    m->site[i].name, SITE_MAX);
            break;
        }
        plain.site[i].wx[plain.site[i].n_wx++] = (Attachment){"merged", branches, &m->site[i]};
    }
    Tensor *ids = graph_input(g, "ids", DT_I32, 2, (long[]){1, T}),
           *pos = graph_input(g, "pos", DT_I32, 2, (long[]){1, T});
    const ModelInputs in = {.ids = ids, .pos = pos};
    Tensor *z = model_logits(g, &plain, model_hidden(g, &plain, &in));
    graph_keep(g, z);
    if (!graph_plan(g, e)) {
        graph_free(g);
        return NULL;
    }
    const RngKey key = {.seed = 1, .stream = rng_stream("bake")};
    for (long t = 0; t < T; t++) {
        ((int32_t *)ids->data)[t] = (int32_t)(rng_u32(key, (uint32_t)t) % (uint32_t)m->spec.V);
        ((int32_t *)pos->data)[t] = (int32_t)t;
    }
    graph_forward(g);
    const void *data = z->data;
    graph_free(g);
    return data;
}

/* An adapter of a table is added row by row while training and once for all in a file: not the same bits. */
static bool has_row_adapter(const Model *m)
{
    for (int i = 0; i < m->params.n; i++)
        for (const TensorHook *h = m->params.p[i]->w.hook; h; h = h->next)
            if (h->out) return true;
    return false;
}

static bool close_enough(const float *x, const float *y, size_t n)
{
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        s += (double)x[i] * (double)x[i];
    }
    return d <= 1e-10 * s; /* 1e-5 relative (quality.md C.2) */
}

static bool same_logits(const BakeState *s, const char *path, Err *e)
{
    Arena tmp = {.name = "logits"};
    Model back;
    const long T = s->m->spec.max_pos < 32 ? s->m->spec.max_pos : 32;
    const size_t bytes = (size_t)(T * s->m->spec.V) * s->m->params.k->real;
    const bool comparable = s->m->params.k->real == sizeof(float);
    if (comparable && model_open(&back, path, s->m->params.k, &tmp, e)) {
        const void *want = logits_of(s->m, T, &tmp, e), *have = want ? logits_of(&back, T, &tmp, e) : NULL;
        if (have && (has_row_adapter(s->m) ? !close_enough(want, have, bytes / sizeof(float))
                                           : memcmp(want, have, bytes) != 0))
            err_set(e, ERR_FAIL, "%s: the model read back gives other logits than the one in training", path);
    }
    arena_free(&tmp);
    return !e->code;
}

bool bake_verify(const BakeState *s, const char *path, const OutModel *effective, BakeReport *r, Err *e)
{
    Arena tmp = {.name = "verify"};
    TensorFile f = {0};
    bool exact = true; /* float32, with a config.json beside it: the file can be run as it is */
    *r = (BakeReport){.bytes = file_bytes(path)};
    if (formats_open(&f, path, &tmp, e)) {
        for (int i = 0; i < effective->n && !e->code; i++) same_tensor(&f, &effective->t[i], r, e);
        for (int i = 0; i < effective->n; i++) exact = exact && effective->t[i].dtype == DT_F32;
        exact = exact && f.config_json;
    }
    if (!r->bytes) r->bytes = r->stored;
    formats_close(&f);
    arena_free(&tmp);
    return !e->code && (!exact || same_logits(s, path, e));
}
