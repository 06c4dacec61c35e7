/* train/stages.c: the list `stages` (product.md 4), run in order on one state. A stage is a run in a folder
 * of its own that starts from the last checkpoint of the one before, always by way of the file: so a rerun
 * after a kill continues with the same bits as an unbroken one. row.json, written last, says that a stage is
 * done. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "train/run_impl.h"

/* ---- a row as JSON, both ways ---- */
static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }
static json_t *text(const char *s) { return s ? json_string(s) : json_null(); }

static double bits_per_weight(const StageRow *w)
{
    return w->parameters ? 8 * (double)w->stored / (double)w->parameters : 0;
}

char *stage_row_json(const StageRow *w, Arena *a, Err *e)
{
    json_t *j = json_pack("{s:o,s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "arm", text(w->arm), "stage",
                          w->name, "recipe", w->recipe, "status", w->status, "seed", (json_int_t)w->seed,
                          "steps", (json_int_t)w->steps, "bytes", (json_int_t)w->bytes, "tensor_bytes",
                          (json_int_t)w->stored, "parameters", (json_int_t)w->parameters, "nonzeros",
                          (json_int_t)w->nonzeros, "bits_per_weight", number(bits_per_weight(w)));
    if (j && w->has_eval) {
        json_object_set_new(j, "perplexity", number(w->perplexity));
        json_object_set_new(j, "tokens", json_integer(w->tokens));
    }
    if (j && w->against) {
        json_object_set_new(j, "kl", number(w->kl));
        json_object_set_new(j, "top1_agreement", number(w->top1_agreement));
    }
    if (j) {
        json_object_set_new(j, "tokens_per_second", number(w->decode_tokens_per_s));
        json_object_set_new(j, "train_tokens_per_second", number(w->train_tokens_per_s));
        json_object_set_new(j, "seconds", number(w->seconds));
        json_object_set_new(j, "file", text(w->file));
        json_object_set_new(j, "checkpoint", text(w->checkpoint));
    }
    char *s = j ? json_dumps(j, JSON_REAL_PRECISION(9)) : NULL, *copy = s ? arena_strdup(a, s, e) : NULL;
    if (!copy) err_set(e, ERR_MEMORY, "a stage's row: out of memory");
    free(s);
    json_decref(j);
    return copy;
}

static double real_of(const json_t *j, const char *key) { return json_number_value(json_object_get(j, key)); }
static int64_t int_of(const json_t *j, const char *key)
{
    return json_integer_value(json_object_get(j, key));
}
static const char *text_of(const json_t *j, const char *key, Arena *a, Err *e)
{
    const char *s = json_string_value(json_object_get(j, key));
    return s ? arena_strdup(a, s, e) : NULL;
}

static bool row_read(StageRow *w, const char *path, Arena *a, Err *e)
{
    size_t bytes;
    char *s = file_read(a, path, &bytes, e);
    json_t *j = s ? json_loadb(s, bytes, 0, NULL) : NULL;
    if (!json_is_object(j)) {
        json_decref(j);
        return err_set(e, ERR_CORRUPT, "%s: not the row of a stage; remove it to run the stage again", path);
    }
    *w = (StageRow){.arm = text_of(j, "arm", a, e),
                    .name = text_of(j, "stage", a, e),
                    .recipe = text_of(j, "recipe", a, e),
                    .status = text_of(j, "status", a, e),
                    .file = text_of(j, "file", a, e),
                    .checkpoint = text_of(j, "checkpoint", a, e),
                    .seed = int_of(j, "seed"),
                    .steps = int_of(j, "steps"),
                    .bytes = int_of(j, "bytes"),
                    .stored = int_of(j, "tensor_bytes"),
                    .parameters = int_of(j, "parameters"),
                    .nonzeros = int_of(j, "nonzeros"),
                    .has_eval = json_object_get(j, "perplexity") != NULL,
                    .against = json_object_get(j, "kl") != NULL,
                    .perplexity = real_of(j, "perplexity"),
                    .kl = real_of(j, "kl"),
                    .top1_agreement = real_of(j, "top1_agreement"),
                    .tokens = int_of(j, "tokens"),
                    .decode_tokens_per_s = real_of(j, "tokens_per_second"),
                    .train_tokens_per_s = real_of(j, "train_tokens_per_second"),
                    .seconds = real_of(j, "seconds")};
    if (!w->name || !w->recipe || !w->status)
        err_set(e, ERR_CORRUPT, "%s: not the row of a stage; remove it to run the stage again", path);
    json_decref(j);
    return !e->code;
}

/* ---- the table ---- */
char *stages_table(const StageRow *row, int n, Arena *a, Err *e)
{
    char *t = arena_printf(a, e, "%-24s %10s %10s %10s %6s %10s %8s %7s %9s %8s\n", "stage", "bytes",
                           "parameters", "non-zeros", "bits", "perplexity", "KL", "top-1", "tokens/s",
                           "seconds");
    for (int i = 0; i < n && t; i++) {
        const StageRow *w = &row[i];
        char name[96], ppl[32] = "-", kl[32] = "-", top[32] = "-";
        if (w->arm && i) snprintf(name, sizeof name, "%.40s/%.40s", w->arm, w->name);
        else snprintf(name, sizeof name, "%.80s", w->name);
        if (w->has_eval) snprintf(ppl, sizeof ppl, "%.3f", w->perplexity);
        if (w->against) {
            snprintf(kl, sizeof kl, "%.4f", w->kl);
            snprintf(top, sizeof top, "%.1f %%", 100 * w->top1_agreement);
        }
        t = arena_printf(a, e, "%s%-24s %10lld %10lld %10lld %6.2f %10s %8s %7s %9.0f %8.1f\n", t, name,
                         (long long)w->bytes, (long long)w->parameters, (long long)w->nonzeros,
                         bits_per_weight(w), ppl, kl, top, w->decode_tokens_per_s, w->seconds);
    }
    return t;
}

/* ---- one after the other ---- */
typedef struct Walk {
    const char *path, *dir, *arm, *base;
    int64_t seed;
    const TrainOptions *o;
    StageRows *out;
    bool again;       /* another arm has shown its header */
    const char *from; /* the state so far: a checkpoint, NULL before the first stage */
    Arena *a;
    Err *e;
} Walk;

static void take(StageRow *w, const RunResult *r, Arena *a, Err *e)
{
    const StageResult *s = &r->stage;
    w->status = arena_strdup(a, r->status, e);
    w->checkpoint = r->checkpoint ? arena_strdup(a, r->checkpoint, e) : NULL;
    w->steps = r->step;
    w->bytes = s->file.bytes;
    w->stored = s->file.stored;
    w->parameters = s->file.parameters;
    w->nonzeros = s->file.nonzeros;
    w->has_eval = s->has_eval;
    w->perplexity = s->eval.perplexity;
    w->against = s->has_eval && s->eval.against;
    w->kl = s->eval.kl;
    w->top1_agreement = s->eval.top1_agreement;
    w->tokens = s->eval.tokens;
    w->decode_tokens_per_s = s->decode_tokens_per_s;
    w->train_tokens_per_s = r->step ? r->tokens_per_s : 0;
    w->seconds = r->seconds;
}

/* A stage that is done, but by another config than the one of today. */
static void warn_if_changed(const Walk *w, const Config *c, const char *dir)
{
    Err none = {0};
    Arena tmp = {.name = "comparison"};
    size_t bytes;
    const char *path = path_join(&tmp, dir, "config.resolved.yaml", &none);
    char *was = path ? file_read(&tmp, path, &bytes, &none) : NULL;
    char *now = was ? config_resolved(c->doc, config_section(), c, &tmp, &none) : NULL;
    if (now && strcmp(was, now))
        log_warn(
            "%s was run with another config (%s tells which); it is kept as it is: --overwrite starts over",
            dir, path);
    (void)w;
    arena_free(&tmp);
}

static bool run_one(Walk *w, int i, const Config *all, Arena *one)
{
    const StageConfig *s = &all->stage[i];
    Err *e = w->e;
    StageRow *row = &w->out->row[w->out->n];
    const char *dir = arena_printf(w->a, e, "%s/stages/%02d-%s", w->dir, i + 1, s->name);
    const char *mark = dir ? path_join(w->a, dir, "row.json", e) : NULL;
    Config *c = mark
                    ? config_load_stage(one, w->path, w->o->n_override, w->o->override, w->arm, w->seed, i, e)
                    : NULL;
    if (!c) return false;
    c->run.output_dir = dir;
    c->run.overwrite = true; /* the folder is ours */
    if (w->o->overwrite && file_exists(mark) && unlink(mark))
        return err_set(e, ERR_FAIL, "%s: cannot be removed", mark);
    if (!w->o->dry_run && file_exists(mark)) {
        warn_if_changed(w, c, dir);
        if (!row_read(row, mark, w->a, e)) return false;
        log_info("stage %d, %s: done before", i + 1, s->name);
    } else {
        const StageOptions so = {w->from, w->base, !s->trains, s->keep_optimizer};
        TrainOptions o = *w->o;
        RunResult r;
        o.stage = &so;
        o.resume = "auto";
        if (!dir_make(dir, e)) return false;
        log_info("stage %d of %d: %s (%s)", i + 1, all->n_stage, s->name, s->recipe);
        /* one header is enough on the screen; every run.log has its own */
        log_show_plain(i == 0 && !w->again);
        const bool ok = train_run(c, &o, &r, one, e);
        log_show_plain(true);
        if (!ok) return false;
        *row = (StageRow){.arm = w->arm, .name = s->name, .recipe = s->recipe, .seed = c->run.seed};
        row->file = path_join(w->a, dir, "model.h5", e);
        take(row, &r, w->a, e);
        if (!strcmp(r.status, "done")) {
            char *json = stage_row_json(row, w->a, e);
            if (json) file_write_atomic(mark, json, strlen(json), e);
        }
    }
    w->from = row->checkpoint;
    w->out->status = row->status;
    w->out->n++;
    return !e->code;
}

/* The model the stages start from: its row, and what theirs are compared with. */
static bool base_row(Walk *w, const Config *c, StageRow *row)
{
    BakeReport b;
    EvalResult v = {0};
    Arena tmp = {.name = "base"};
    Err *e = w->e;
    struct stat st;
    *row = (StageRow){.name = "base", .recipe = "", .status = "done", .file = w->base, .seed = c->run.seed};
    const double start = time_now();
    if (!bake_count(w->base, &b, e)) return false;
    row->bytes = !stat(w->base, &st) && S_ISREG(st.st_mode) ? (int64_t)st.st_size : b.stored;
    row->stored = b.stored;
    row->parameters = b.parameters;
    row->nonzeros = b.nonzeros;
    if (stage_base_eval(c, w->base, &v, &row->decode_tokens_per_s, &tmp, e) && v.tokens) {
        row->has_eval = row->against = true;
        row->perplexity = v.perplexity;
        row->top1_agreement = 1;
        row->tokens = v.tokens;
    }
    row->seconds = time_now() - start;
    arena_free(&tmp);
    return !e->code;
}

static bool write_rows(const char *dir, const char *name, const StageRows *rows, Arena *a, Err *e)
{
    const char *path = path_join(a, dir, name, e);
    char *all = arena_strdup(a, "", e);
    for (int i = 0; i < rows->n && all; i++) {
        char *l = stage_row_json(&rows->row[i], a, e);
        all = l ? arena_printf(a, e, "%s%s\n", all, l) : NULL;
    }
    return all && path && dir_make(dir, e) && file_write_atomic(path, all, strlen(all), e);
}

bool train_stages(const char *path, const char *dir, const char *arm, int64_t seed, const TrainOptions *o,
                  const StageRow *base, StageRows *out, Arena *a, Err *e)
{
    Arena first = {.name = "config"};
    *out = (StageRows){.status = "done"};
    const Config *c = config_load_arm(&first, path, o->n_override, o->override, arm, seed, NULL, e);
    out->row = c ? arena_alloc(a, (size_t)(c->n_stage + 1) * sizeof *out->row, e) : NULL;
    Walk w = {.again = base != NULL,
              .path = path,
              .dir = dir,
              .arm = arm,
              .seed = seed,
              .o = o,
              .out = out,
              .a = a,
              .e = e};
    if (out->row && dir_make(dir, e)) {
        w.base = c->model.path ? c->model.path : c->teacher.path;
        if (w.base && base && base->file && !strcmp(base->file, w.base)) out->row[out->n++] = *base;
        else if (w.base && base_row(&w, c, &out->row[0])) out->n++;
        const char *go_on = o->dry_run ? "dry run" : "done";
        for (int i = 0; i < c->n_stage && !e->code && (!i || !strcmp(out->status, go_on)); i++) {
            Arena one = {.name = "run"};
            if (run_one(&w, i, c, &one) && !o->dry_run) write_rows(dir, "stages.jsonl", out, a, e);
            if (e->code) err_prefix(e, "stage %d (%s)", i + 1, c->stage[i].name);
            log_close();
            arena_free(&one);
        }
    }
    for (int i = 0; i < out->n && !e->code; i++) { /* names outlive the config */
        StageRow *r = &out->row[i];
        r->name = arena_strdup(a, r->name, e);
        r->recipe = arena_strdup(a, r->recipe, e);
        if (r->file) r->file = arena_strdup(a, r->file, e);
        if (r->arm) r->arm = arena_strdup(a, r->arm, e);
    }
    arena_free(&first);
    return !e->code;
}

bool train_staged_arms(const Config *base, const char *path, const TrainOptions *o, char **table, Arena *a,
                       Err *e)
{
    const int n_seed = base->seeds.n ? base->seeds.n : 1;
    StageRows all = {.status = "done"};
    StageRow first;
    for (int i = 0; i < base->n_arm * n_seed && !e->code && !strcmp(all.status, "done"); i++) {
        const char *arm = base->arm[i / n_seed];
        const int64_t seed = base->seeds.n ? base->seeds.v[i % n_seed] : base->run.seed;
        const char *dir = arena_printf(a, e, "%s/%s-seed%lld", base->run.output_dir, arm, (long long)seed);
        StageRows one = {0};
        if (!dir) return false;
        log_info("arm %s, seed %lld", arm, (long long)seed);
        if (!train_stages(path, dir, arm, seed, o, i ? &first : NULL, &one, a, e))
            return err_prefix(e, "arm %s, seed %lld", arm, (long long)seed);
        const int base_row = one.n && !strcmp(one.row[0].name, "base") && !*one.row[0].recipe;
        if (!i && base_row) first = one.row[0];
        const int from = i && base_row; /* the base once */
        StageRow *more = arena_alloc(a, (size_t)(all.n + one.n + 1) * sizeof *more, e);
        if (!more) return false;
        if (all.n) memcpy(more, all.row, (size_t)all.n * sizeof *more);
        if (one.n > from) memcpy(more + all.n, one.row + from, (size_t)(one.n - from) * sizeof *more);
        all = (StageRows){all.n + one.n - from, more, one.status};
        if (!o->dry_run) write_rows(base->run.output_dir, "arms.jsonl", &all, a, e);
    }
    if (!e->code) *table = stages_table(all.row, all.n, a, e);
    return !e->code;
}
