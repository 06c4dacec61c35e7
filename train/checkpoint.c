/* train/checkpoint.c: the whole training state as HDF5 (product.md 6.6), written by the protocol of 6.8.
 * Everything random is counter-based, so seed, step and sample number are the whole of the random state. */
#include "train/train.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void put_at(H5Out *h, const char *path, const Param *p, const void *data, const Kernels *k)
{
    int64_t dim[MAX_DIM];
    for (int i = 0; i < p->w.ndim; i++) dim[i] = p->w.dim[i];
    if (path && data) h5_tensor(h, path, k->real == sizeof(double) ? DT_F64 : DT_F32, p->w.ndim, dim, data);
}

static void put(H5Out *h, const char *group, const Param *p, const void *data, const Kernels *k, Arena *a,
                Err *e)
{
    put_at(h, arena_printf(a, e, "%s/%s", group, p->name), p, data, k);
}

/* What a parameter of training remembers lies with the rest of its method, under the tensor's name:
 * qat.<tensor>.step_size in /qat, prune.<tensor>.scores in /prune/scores. */
static const char *path_of(const Param *p, Arena *a, Err *e)
{
    const size_t n = strlen(p->name), step = strlen(".step_size"), scores = strlen(".scores");
    if (!p->aux) return arena_printf(a, e, "/tensors/%s", p->name);
    if (n > step + 4 && !strncmp(p->name, "qat.", 4) && !strcmp(p->name + n - step, ".step_size"))
        return arena_printf(a, e, "/qat/%.*s/step_size", (int)(n - step - 4), p->name + 4);
    if (n > scores + 6 && !strncmp(p->name, "prune.", 6))
        return arena_printf(a, e, "/prune/scores/%.*s", (int)(n - scores - 6), p->name + 6);
    return arena_printf(a, e, "/aux/%s", p->name);
}

/* A base that is kept as codes (QLoRA) is stored as codes. */
static void put_coded(H5Out *h, const Model *m, const Param *p, Err *e)
{
    const QuantStore *q = NULL;
    for (int i = 0; i < m->n_site; i++)
        if (m->site[i].w == p) q = m->site[i].q;
    Arena tmp = {.name = "codes"};
    float *x = q ? arena_alloc(&tmp, (size_t)(q->rows * q->cols) * sizeof *x, e) : NULL;
    if (x) {
        quant_decode(x, q->codes, &q->spec, &q->scales, q->cols, 0, q->rows);
        h5_encoded(h, p->name, p->in_out, x, &q->spec, &q->scales, q->rows, q->cols, &tmp, e);
    }
    arena_free(&tmp);
}

static void put_state(H5Out *h, const TrainState *s)
{
    h5_attr_i64(h, "/", "tokens_seen", s->tokens_seen);
    h5_attr_f64(h, "/", "epoch", s->epoch);
    h5_attr_u64s(h, "/rng", "philox_key", (uint64_t[]){s->seed, 0}, 2);
    h5_attr_u64s(h, "/rng", "philox_counter",
                 (uint64_t[]){0, (uint64_t)s->step, 0, (uint64_t)s->samples_seen}, 4);
    h5_attr_f64(h, "/data_state", "epoch", s->epoch);
    h5_attr_i64(h, "/data_state", "sample_index", s->samples_seen);
    h5_attr_i64(h, "/data_state", "tokens_seen", s->tokens_seen);
    h5_attr_i64(h, "/data_state", "permutation_seed", (int64_t)s->seed);
    h5_attr_str(h, "/data_state", "content_hash", s->data_hash ? s->data_hash : "");
    h5_attr_i64(h, "/schedule", "n_steps", s->n_steps);
    h5_attr_i64(h, "/schedule", "bad_steps", s->bad_steps);
    h5_attr_f64(h, "/best", "val_loss", s->best);
    h5_attr_i64(h, "/best", "stale_evals", s->stale_evals);
    h5_attr_i64(h, "/best", "evaluated", s->evaluated);
    h5_attr_f64(h, "/best", "last_loss", s->val);
}

static bool write_state(const char *path, const CheckpointConfig *c, const Model *m, const Optim *o,
                        const TrainState *s, Arena *a, Err *e)
{
    H5Out *h = h5_create(path, "train_state", m->spec.family->arch, s->step, a, e);
    if (!h) return false;
    const Params *ps = &m->params;
    if (m->config_json) h5_text(h, "/config/model_json", m->config_json);
    if (m->generation_json) h5_text(h, "/config/generation_json", m->generation_json);
    if (s->run_yaml) h5_text(h, "/config/run_yaml", s->run_yaml);
    if (m->tokenizer_path) h5_attr_str(h, "/config", "tokenizer_path", m->tokenizer_path);
    h5_put_tokenizer(h, m->tokenizer_path, a, e);
    Arena tmp = {.name = "masked"};
    for (int i = 0; i < ps->n; i++) {
        const ArenaMark mark = arena_mark(&tmp);
        const void *masked = s->prune ? prune_effective(s->prune, ps->p[i], &tmp, e) : NULL;
        if (!ps->p[i]->w.data) put_coded(h, m, ps->p[i], e);
        else if (!lora_owns(ps->p[i]))
            put_at(h, path_of(ps->p[i], a, e), ps->p[i], masked ? masked : ps->p[i]->w.data, ps->k);
        arena_release(&tmp, mark);
    }
    arena_free(&tmp);
    if (c->save_optimizer && o) {
        for (int i = 0; i < ps->n; i++) {
            put(h, "/optimizer/m", ps->p[i], ps->p[i]->m, ps->k, a, e);
            put(h, "/optimizer/v", ps->p[i], ps->p[i]->v, ps->k, a, e);
        }
        h5_attr_i64(h, "/optimizer", "step", optim_updates(o));
    }
    put_state(h, s);
    if (s->qat) qat_save(s->qat, h);
    if (s->lora) lora_save(s->lora, h, e);
    if (s->prune) prune_save(s->prune, h, a, e);
    return h5_commit(h, e);
}

/* step_00000012.h5 -> 12, any other name -> -1. */
static int64_t step_of(const char *name)
{
    const size_t digits = strncmp(name, "step_", 5) ? 0 : strspn(name + 5, "0123456789");
    if (!digits || digits > 18 || strcmp(name + 5 + digits, ".h5")) return -1;
    return strtoll(name + 5, NULL, 10);
}

static int descending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Steps of all files of our naming in dir, newest first. */
static int64_t *list_steps(const char *dir, int *count, Arena *a, Err *e)
{
    DIR *d = opendir(dir);
    size_t n = 0, cap = 64;
    int64_t *step = d ? arena_alloc(a, cap * sizeof *step, e) : NULL;
    for (struct dirent *x; step && (x = readdir(d));) {
        if (step_of(x->d_name) < 0) continue;
        if (n == cap) {
            step = arena_grow(a, step, cap * sizeof *step, 2 * cap * sizeof *step, e);
            cap *= 2;
        }
        if (step) step[n++] = step_of(x->d_name);
    }
    if (d) closedir(d);
    *count = step ? (int)n : 0;
    if (*count) qsort(step, n, sizeof *step, descending);
    return step;
}

/* The checkpoints kept for their metric, best first. */
typedef struct Best {
    int n;
    struct {
        int64_t step;
        double value;
    } * v;
} Best;

/* Of the steps up to now keeps the keep_last newest, the best and multiples of keep_every; removes only files
 * of our own naming. Later steps are another continuation's (the run went back): not ours to judge. */
static void retain(const char *dir, const CheckpointConfig *c, int64_t now, const Best *best, Arena *a,
                   Err *e)
{
    int n, newer = 0;
    int64_t *step = list_steps(dir, &n, a, e);
    while (newer < n && step[newer] > now) newer++;
    for (int i = newer; i < n; i++) {
        bool keep = i - newer < c->keep_last || (c->keep_every && step[i] % c->keep_every == 0);
        for (int k = 0; k < best->n; k++) keep = keep || step[i] == best->v[k].step;
        if (keep) continue;
        const char *path = arena_printf(a, e, "%s/step_%08lld.h5", dir, (long long)step[i]);
        if (path && unlink(path)) log_warn("%s: could not be removed", path);
    }
}

/* What a process that was killed while writing leaves: step_X.h5.tmp.PID, latest.tmp-PID-N, best.tmp-PID-N.
 * Nobody else writes here, so all but our own number are dead. all: the finished files too. */
static void sweep(const char *dir, bool all)
{
    char own[32], path[4096];
    snprintf(own, sizeof own, ".%ld", (long)getpid());
    DIR *d = opendir(dir);
    for (struct dirent *x; d && (x = readdir(d));) {
        const char *name = x->d_name, *tmp = strstr(name, ".tmp");
        bool ours = !strncmp(name, "step_", 5) || !strncmp(name, "latest", 6) || !strncmp(name, "best", 4);
        bool dead = ours && tmp && (tmp[4] == '.' || tmp[4] == '-') && strcmp(tmp + 4, own);
        if (all && (step_of(name) >= 0 || !strcmp(name, "latest") || !strcmp(name, "best"))) dead = true;
        int n = dead ? snprintf(path, sizeof path, "%s/%s", dir, name) : 0;
        if (n > 0 && n < (int)sizeof path && unlink(path)) log_warn("%s: could not be removed", path);
    }
    if (d) closedir(d);
}

bool checkpoint_clear(const char *run, Err *e)
{
    Arena tmp = {.name = "checkpoint"};
    const char *dir = path_join(&tmp, run, "checkpoints", e);
    if (dir) sweep(dir, true);
    arena_free(&tmp);
    return !e->code;
}

/* Puts a step where its value belongs; the earlier of equal values is the better. */
static void best_add(Best *b, const KeepBestConfig *k, int64_t step, double value)
{
    int at = 0;
    const bool max = !strcmp(k->mode, "max");
    while (at < b->n && (max ? b->v[at].value >= value : b->v[at].value <= value)) at++;
    if (at >= k->n) return;
    if (b->n < k->n) b->n++;
    memmove(&b->v[at + 1], &b->v[at], (size_t)(b->n - 1 - at) * sizeof *b->v);
    b->v[at].step = step;
    b->v[at].value = value;
}

/* `best`: lines "step_XXXXXXXX.h5 value" of files that are there; this step's is put among them when it was
 * evaluated. */
static Best keep_best(const char *dir, const KeepBestConfig *k, const TrainState *s, Arena *a, Err *e)
{
    const char *path = path_join(a, dir, "best", e);
    Err none = {0};
    char *old = path && file_exists(path) ? file_read(a, path, NULL, &none) : NULL;
    Best b = {.v = arena_alloc(a, (size_t)(k->n + 1) * sizeof *b.v, e)};
    if (e->code) return (Best){0};
    for (const char *line = old; line && *line; line += strcspn(line, "\n"), line += *line == '\n') {
        char file[64];
        double value;
        if (sscanf(line, "%63s %lf", file, &value) != 2 || step_of(file) < 0) continue;
        if (step_of(file) == s->step && s->evaluated == s->step) continue;
        const char *there = path_join(a, dir, file, e);
        if (there && file_exists(there)) best_add(&b, k, step_of(file), value);
    }
    if (s->evaluated == s->step && !isnan(s->val)) best_add(&b, k, s->step, s->val);
    char *text = arena_strdup(a, "", e);
    for (int i = 0; text && i < b.n; i++)
        text = arena_printf(a, e, "%sstep_%08lld.h5 %.9g\n", text, (long long)b.v[i].step, b.v[i].value);
    if (text && *text && (!old || strcmp(old, text))) file_write_atomic(path, text, strlen(text), e);
    return b;
}

bool checkpoint_save(const char *run, const CheckpointConfig *c, const Model *m, const Optim *o,
                     const TrainState *s, Arena *unused, Err *e)
{
    (void)unused;
    Arena tmp = {.name = "checkpoint"};
    const char *dir = path_join(&tmp, run, "checkpoints", e);
    char name[64];
    snprintf(name, sizeof name, "step_%08lld.h5", (long long)s->step);
    const char *path = dir ? path_join(&tmp, dir, name, e) : NULL,
               *latest = dir ? path_join(&tmp, dir, "latest", e) : NULL;
    if (path && latest && dir_make(dir, e) && write_state(path, c, m, o, s, &tmp, e)) {
        char *text = arena_printf(&tmp, e, "%s\n", name);
        if (text && file_write_atomic(latest, text, strlen(text), e)) {
            Best best = {0};
            if (c->keep_best.n > 0) best = keep_best(dir, &c->keep_best, s, &tmp, e);
            if (!e->code) retain(dir, c, s->step, &best, &tmp, e);
            sweep(dir, false);
        }
    }
    if (e->code) err_prefix(e, "checkpoint at step %lld", (long long)s->step);
    arena_free(&tmp);
    return !e->code;
}

/* The step that `latest` names; without a readable one, any may be the newest. */
static int64_t latest_step(const char *dir, Arena *a, Err *e)
{
    const char *path = path_join(a, dir, "latest", e);
    size_t bytes;
    Err none = {0};
    char *name = path && file_exists(path) ? file_read(a, path, &bytes, &none) : NULL;
    if (name) name[strcspn(name, "\r\n")] = 0;
    int64_t step = name ? step_of(name) : -1;
    return step < 0 ? INT64_MAX : step;
}

/* From `latest` back; the steps behind it, which a run that went back has left, only when nothing else is
 * whole. */
const char *checkpoint_find(const char *run, Arena *a, Err *e)
{
    const char *dir = path_join(a, run, "checkpoints", e);
    int n = 0;
    int64_t *step = dir ? list_steps(dir, &n, a, e) : NULL;
    int64_t latest = n ? latest_step(dir, a, e) : 0;
    for (int i = 0; i < 2 * n; i++) {
        if ((step[i % n] > latest) != (i >= n)) continue;
        const char *path = arena_printf(a, e, "%s/step_%08lld.h5", dir, (long long)step[i % n]);
        Err bad = {0};
        int64_t at;
        if (path && h5_check_envelope(path, &at, &bad)) return path;
        log_warn("skipping a damaged checkpoint: %s", bad.msg);
    }
    if (n && !e->code)
        err_set(e, ERR_CORRUPT,
                "%s: none of the %d checkpoints is whole; move them away, or start over with --overwrite",
                dir, n);
    return NULL;
}

static bool get_at(H5In *h, const char *path, const Param *p, void *data, const Kernels *k, Err *e)
{
    DType t;
    int ndim;
    int64_t dim[4];
    if (!path || !h5_tensor_info(h, path, &t, &ndim, dim, e)) return false;
    DType want = k->real == sizeof(double) ? DT_F64 : DT_F32;
    bool same = ndim == p->w.ndim && t == want;
    for (int i = 0; same && i < ndim; i++) same = dim[i] == p->w.dim[i];
    if (!same)
        return err_set(e, ERR_USAGE, "%s does not have the shape or type this configuration gives the tensor",
                       path);
    return h5_read_tensor(h, path, t, data, (size_t)t_numel(&p->w) * k->real, e);
}

static bool get(H5In *h, const char *group, const Param *p, void *data, const Kernels *k, Arena *a, Err *e)
{
    return get_at(h, arena_printf(a, e, "%s/%s", group, p->name), p, data, k, e);
}

static void get_state(H5In *h, TrainState *s, Err *e)
{
    int64_t v = 0;
    if (h5_get_i64(h, "/", "step", &v, e)) s->step = v;
    if (h5_get_i64(h, "/", "tokens_seen", &v, e)) s->tokens_seen = v;
    if (h5_get_i64(h, "/data_state", "sample_index", &v, e)) s->samples_seen = v;
    h5_get_f64(h, "/", "epoch", &s->epoch, e);
    if (h5_get_i64(h, "/data_state", "permutation_seed", &v, e) && (uint64_t)v != s->seed)
        err_set(e, ERR_USAGE,
                "run.seed is %llu, the checkpoint's run had %lld: data order and initialisation would differ",
                (unsigned long long)s->seed, (long long)v);
    s->data_hash = h5_get_str(h, "/data_state", "content_hash", e);
    if (h5_get_i64(h, "/schedule", "bad_steps", &v, e)) s->bad_steps = (int)v;
    h5_get_f64(h, "/best", "val_loss", &s->best, e);
    if (h5_get_i64(h, "/best", "stale_evals", &v, e)) s->stale_evals = (int)v;
    if (h5_get_i64(h, "/best", "evaluated", &v, e)) s->evaluated = v;
    h5_get_f64(h, "/best", "last_loss", &s->val, e);
}

bool checkpoint_load(const char *path, Model *m, Optim *o, TrainState *s, Arena *a, Err *e)
{
    H5In *h = h5_open(path, false, a, e);
    if (!h) return false;
    const Params *ps = &m->params;
    for (int i = 0; i < ps->n && !e->code; i++) {
        const Param *p = ps->p[i];
        if (!lora_owns(p) && !p->read_only) get_at(h, path_of(p, a, e), p, p->w.data, ps->k, e);
        if (o && p->m) get(h, "/optimizer/m", p, p->m, ps->k, a, e);
        if (o && p->v) get(h, "/optimizer/v", p, p->v, ps->k, a, e);
    }
    int64_t updates = 0;
    if (o && !e->code && h5_get_i64(h, "/optimizer", "step", &updates, e)) optim_set_updates(o, updates);
    if (!e->code) get_state(h, s, e);
    if (!e->code && s->prune && o) prune_load(s->prune, h, a, e);
    if (!e->code && o && h5_has(h, "/masks") && !(s->prune && s->prune->n))
        err_set(e, ERR_USAGE,
                "the checkpoint has masks, the config no prune section: its zeros would be lost");
    if (!e->code && s->qat && o) qat_load(s->qat, h, s->step, a, e);
    if (!e->code && s->lora) lora_resume(s->lora, h, e);
    h5_close(h);
    if (e->code) err_prefix(e, "%s", path);
    return !e->code;
}

bool checkpoint_carry(const char *path, Model *m, Optim *o, TrainState *s, Arena *a, Err *e)
{
    H5In *h = h5_open(path, false, a, e);
    if (!h) return false;
    const Params *ps = &m->params;
    int64_t updates = 0;
    for (int i = 0; i < ps->n && !e->code; i++) {
        Param *p = ps->p[i];
        if (lora_owns(p)) continue; /* come together, below */
        if (!p->w.data) {
            err_set(
                e, ERR_USAGE,
                "lora.base_quant: %s is kept as codes of model.path and cannot take over a stage's values",
                p->name);
            break;
        }
        const char *at = path_of(p, a, e), *moment = arena_printf(a, e, "/optimizer/m/%s", p->name);
        if (e->code) break;
        /* what hangs on the model may be new in this stage */
        if (model_own(m, p, e) && (!p->aux || h5_has(h, at))) get_at(h, at, p, p->w.data, ps->k, e);
        if (!o || !h5_has(h, moment)) continue;
        if (p->m) get(h, "/optimizer/m", p, p->m, ps->k, a, e);
        if (p->v) get(h, "/optimizer/v", p, p->v, ps->k, a, e);
    }
    if (o && !e->code && h5_get_i64(h, "/optimizer", "step", &updates, e)) optim_set_updates(o, updates);
    if (!e->code && s->prune) prune_carry(s->prune, h, a, e);
    if (!e->code && s->qat) qat_carry(s->qat, h, e);
    if (!e->code && s->lora && s->lora->n && h5_has(h, "/lora")) lora_resume(s->lora, h, e);
    h5_close(h);
    if (e->code) err_prefix(e, "%s", path);
    return !e->code;
}
