/* train/teacher_cache.c: a teacher read from a file instead of computed (product.md 6.7, algorithms 5.1): the
 * k largest log-probabilities of every position and, for each temperature, the log mass of all other tokens.
 *
 *   /logits/topk_index        I32 [N,k]          N = sequences x seq_len, row = sequence x seq_len + position
 *   /logits/topk_logprob      F16 or F32 [N,k]   natural log at temperature 1, descending
 *   /logits/rest_logsumexp    F32 [N,nT]         log of the sum of p^(1/T) over the others
 *
 * A row is found by its sequence and position, so shuffling, epochs and batches are free. What the file was
 * made of is told by content hashes: of the teacher, of its tokenizer, of all that it read. */
#include "train/run_impl.h"
#include <math.h>
#include <string.h>

struct TeacherCache {
    const char *path;
    H5In *h;
    H5Rows *index, *logp, *rest;
    DType type; /* of logp */
    CacheAbout about;
    uint16_t *half; /* (T,k) */
    float *single;  /* (T, k or nT) */
};

bool cache_teacher_hash(const char *path, char hex[33], Err *e)
{
    Arena tmp = {.name = "teacher hash"};
    Model m = {0};
    const bool ok = model_open_frozen(&m, path, kernels_cpu_f32(), &tmp, e);
    const char *values = ok ? model_content_hash(&m, &tmp, e) : NULL,
               *spec = ok ? spec_json(&m.spec, &tmp, e) : NULL;
    const char *both = values && spec ? arena_printf(&tmp, e, "%s\n%s", values, spec) : NULL;
    if (both) hash128_hex(hex, both, strlen(both));
    model_close(&m);
    arena_free(&tmp);
    return both != NULL;
}

const char *cache_storage(const Config *c, Arena *a, Err *e)
{
    const char *quantize = c->teacher.quantize, *dtype = c->teacher.dtype;
    if (!strcmp(quantize, "none")) return arena_strdup(a, dtype, e);
    return strcmp(dtype, "float32") ? arena_printf(a, e, "%s+%s", quantize, dtype)
                                    : arena_strdup(a, quantize, e);
}

/* "file:line:col: key: " before an error about key. */
static bool at_key(const Config *c, const char *key, Err *e)
{
    const ConfigNode *n = config_node(c->doc, key);
    err_prefix(e, "%s", key);
    return n && n->file ? err_prefix(e, "%s:%d:%d", n->file, n->line, n->col) : false;
}

static bool has_temperature(const CacheAbout *b, double T)
{
    for (int i = 0; i < b->n_temp; i++)
        if (fabs(b->temp[i] - T) <= 1e-12 * T) return true;
    return false;
}

bool cache_temperatures(const Run *r, CacheAbout *b, Err *e)
{
    const DistillConfig *d = &r->c->distill;
    const bool moves = d->temperature_schedule && !config_is_null(d->temperature_schedule);
    const int64_t n = moves ? run_steps(r) : 1;
    b->n_temp = 0;
    b->temp[b->n_temp++] = 1;
    for (int64_t i = 0; i < n; i++) {
        const double T = distill_temperature(d, i);
        if (has_temperature(b, T)) continue;
        if (b->n_temp == CACHE_TEMPERATURES) {
            err_set(
                e, ERR_USAGE,
                "%lld steps of other temperatures; a teacher.cache of top_k tokens holds %d: let T move in "
                "plateaus ([[0, 4], [99, 4], [100, 2]]), or top_k: 0",
                (long long)n, CACHE_TEMPERATURES);
            return at_key(r->c, "distill.temperature_schedule", e);
        }
        b->temp[b->n_temp++] = T;
    }
    return true;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static void read_about(TeacherCache *t, H5In *h, Err *e)
{
    CacheAbout *b = &t->about;
    int64_t vocab = 0, k = 0, T = 0;
    h5_get_i64(h, "/logits", "vocab_size", &vocab, e);
    h5_get_i64(h, "/logits", "k", &k, e);
    h5_get_i64(h, "/logits", "seq_len", &T, e);
    h5_get_i64(h, "/logits", "sequences", &b->sequences, e);
    const char *teacher = h5_get_str(h, "/logits", "teacher_hash", e),
               *data = h5_get_str(h, "/logits", "data_hash", e);
    b->tokenizer = h5_get_str(h, "/logits", "tokenizer_hash", e);
    b->storage = h5_get_str(h, "/logits", "teacher_storage", e);
    b->n_temp = h5_get_f64s(h, "/logits", "temperatures", b->temp, CACHE_TEMPERATURES, e);
    if (e->code) return;
    if (strlen(teacher) != 32 || strlen(data) != 32 || vocab < 1 || k < 1 || k > vocab || vocab > INT32_MAX ||
        T < 1 || T > INT32_MAX || b->sequences < 1 || b->n_temp < 1) {
        err_set(e, ERR_CORRUPT, "%s: the attributes of `/logits` make no sense", t->path);
        return;
    }
    memcpy(b->teacher, teacher, 33);
    memcpy(b->data, data, 33);
    b->V = (long)vocab;
    b->k = (long)k;
    b->T = (long)T;
}

static H5Rows *open_rows(TeacherCache *t, const char *name, DType *type, int64_t cols, Arena *a, Err *e)
{
    int64_t rows = 0, have = 0;
    H5Rows *r = h5_rows(t->h, name, type, &rows, &have, a, e);
    if (r && (rows != t->about.sequences * t->about.T || have != cols))
        err_set(e, ERR_CORRUPT, "%s: `%s` is [%lld,%lld], not [%lld,%lld]", t->path, name, (long long)rows,
                (long long)have, (long long)(t->about.sequences * t->about.T), (long long)cols);
    return r;
}

TeacherCache *teacher_cache_open(const char *path, Arena *a, Err *e)
{
    TeacherCache *t = arena_alloc(a, sizeof *t, e);
    if (!t) return NULL;
    *t = (TeacherCache){.path = path, .h = h5_open(path, false, a, e)};
    if (!t->h) return NULL;
    const char *kind = h5_get_str(t->h, "/", "kind", e);
    DType index = DT_I32, rest = DT_F32;
    if (kind && strcmp(kind, "teacher_logits"))
        err_set(e, ERR_USAGE, "%s: a file of kind `%s`, not teacher_logits: `pare teacher-cache` makes one",
                path, kind);
    if (!e->code) read_about(t, t->h, e);
    if (!e->code) t->index = open_rows(t, "/logits/topk_index", &index, t->about.k, a, e);
    if (!e->code) t->logp = open_rows(t, "/logits/topk_logprob", &t->type, t->about.k, a, e);
    if (!e->code) t->rest = open_rows(t, "/logits/rest_logsumexp", &rest, t->about.n_temp, a, e);
    if (!e->code && (index != DT_I32 || rest != DT_F32 || (t->type != DT_F16 && t->type != DT_F32)))
        err_set(e, ERR_CORRUPT, "%s: tables of unexpected element types", path);
    const size_t cells = (size_t)(t->about.T * t->about.k), tails = (size_t)(t->about.T * t->about.n_temp);
    if (!e->code) t->half = arena_alloc(a, cells * sizeof *t->half, e);
    if (!e->code) t->single = arena_alloc(a, (cells > tails ? cells : tails) * sizeof *t->single, e);
    if (!e->code) return t;
    teacher_cache_close(t);
    return NULL;
}

void teacher_cache_close(TeacherCache *t)
{
    if (!t) return;
    h5_rows_close(t->index);
    h5_rows_close(t->logp);
    h5_rows_close(t->rest);
    h5_close(t->h);
    t->h = NULL;
    t->index = t->logp = t->rest = NULL;
}

const CacheAbout *teacher_cache_about(const TeacherCache *t) { return &t->about; }

static void widen(void *dst, const float *src, size_t n, size_t stride, size_t real)
{
    for (size_t i = 0; i < n; i++) {
        if (real == sizeof(float)) ((float *)dst)[i] = src[i * stride];
        else ((double *)dst)[i] = (double)src[i * stride];
    }
}

bool teacher_cache_fill(TeacherCache *t, int64_t sequence, double T, int32_t *index, void *logp, void *rest,
                        size_t real, Err *e)
{
    const CacheAbout *b = &t->about;
    const int64_t first = sequence * b->T;
    const size_t cells = (size_t)(b->T * b->k), nT = (size_t)b->n_temp;
    int column = 0;
    while (column < b->n_temp - 1 && fabs(b->temp[column] - T) > 1e-12 * T) column++;
    if (!h5_rows_read(t->index, first, b->T, index, e)) return false;
    for (size_t i = 0; i < cells; i++)
        if (index[i] < 0 || index[i] >= b->V)
            return err_set(e, ERR_CORRUPT, "%s: token %d of sequence %lld is outside the vocabulary of %ld",
                           t->path, index[i], (long long)sequence, b->V);
    if (!h5_rows_read(t->logp, first, b->T, t->type == DT_F16 ? (void *)t->half : t->single, e)) return false;
    if (t->type == DT_F16) dtype_to_f32(t->single, t->half, DT_F16, cells);
    widen(logp, t->single, cells, 1, real);
    if (!h5_rows_read(t->rest, first, b->T, t->single, e)) return false;
    widen(rest, t->single + column, (size_t)b->T, nT, real);
    return true;
}

/* ---- is it the right one? ------------------------------------------------------------------------------ */

static bool check_k(const CacheAbout *b, const Config *c, const char *path, Err *e)
{
    const long want = c->distill.top_k ? (long)c->distill.top_k : b->V;
    if (!config_was_set(c->doc, "distill.top_k") || want == b->k) return true;
    err_set(e, ERR_USAGE,
            "%ld classes of %ld are asked for (0 = all); teacher.cache %s holds k = %ld: write it again "
            "with this top_k, or leave the key out",
            want, b->V, path, b->k);
    return at_key(c, "distill.top_k", e);
}

static bool check_temperatures(const CacheAbout *b, const Run *r, const char *path, Err *e)
{
    CacheAbout want;
    if (b->k == b->V) return true; /* nothing is left out: any temperature follows from the file */
    if (!cache_temperatures(r, &want, e)) return false;
    for (int i = 1; i < want.n_temp; i++) {
        if (has_temperature(b, want.temp[i])) continue;
        err_set(e, ERR_USAGE,
                "the mass outside the top %ld at T = %g is not in teacher.cache %s; `pare teacher-cache` "
                "with this config writes it",
                b->k, want.temp[i], path);
        return at_key(r->c, want.n_temp > 2 ? "distill.temperature_schedule" : "distill.temperature", e);
    }
    return true;
}

static bool check_data(const CacheAbout *b, const Run *r, const char *path, Err *e)
{
    char hex[33];
    if (b->T != r->T)
        return err_set(e, ERR_USAGE, "%s was written for data.seq_len %ld, not %ld", path, b->T, r->T);
    if (b->sequences != loader_sequences(r->loader))
        return err_set(e, ERR_USAGE, "%s was written for other data: %lld sequences, data.train has %lld",
                       path, (long long)b->sequences, (long long)loader_sequences(r->loader));
    if (!loader_input_hash(r->loader, hex, e)) return false;
    return !strcmp(hex, b->data) ||
           err_set(e, ERR_USAGE, "%s was written for other data (content hash %s, data.train gives %s)", path,
                   b->data, hex);
}

static bool check_teacher(const CacheAbout *b, const Run *r, const char *path, Err *e)
{
    const Config *c = r->c;
    char hex[33];
    const char *storage = cache_storage(c, r->a, e);
    if (!c->teacher.path || !storage) return !e->code;
    if (!cache_teacher_hash(c->teacher.path, hex, e)) return false;
    if (strcmp(hex, b->teacher))
        return err_set(e, ERR_USAGE,
                       "%s was written by another teacher (content hash %s) than teacher.path %s (%s)", path,
                       b->teacher, c->teacher.path, hex);
    return !strcmp(storage, b->storage) ||
           err_set(e, ERR_USAGE, "%s was written by a teacher stored as %s, this one is %s", path, b->storage,
                   storage);
}

bool teacher_cache_check(const TeacherCache *t, const Run *r, Err *e)
{
    const CacheAbout *b = &t->about;
    if (b->V != r->model.spec.V)
        err_set(e, ERR_USAGE,
                "%s is of a teacher with %ld tokens, the student has %ld: a distillation needs one "
                "vocabulary",
                t->path, b->V, r->model.spec.V);
    else if (r->tk && *b->tokenizer && r->c->tokenizer.must_match_teacher &&
             strcmp(b->tokenizer, tokenizer_hash(r->tk)))
        err_set(e, ERR_USAGE, "%s was written with another tokenizer (content hash %s) than %s (%s)", t->path,
                b->tokenizer, tokenizer_path(r->tk), tokenizer_hash(r->tk));
    else if (check_teacher(b, r, t->path, e)) check_data(b, r, t->path, e);
    if (e->code) return at_key(r->c, "teacher.cache", e);
    return check_k(b, r->c, t->path, e) && check_temperatures(b, r, t->path, e);
}
