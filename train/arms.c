/* train/arms.c: every arm of an experiment with every seed, on the same data order; one JSON row each, one
 * table. */
#include "train/train.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Row {
    const char *arm;
    int64_t seed;
    RunResult r;
} Row;

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static char *row_json(const Row *row, Arena *a, Err *e)
{
    const EvalResult *v = &row->r.eval;
    json_t *o = json_pack("{s:s,s:I,s:s,s:I,s:I,s:I}", "arm", row->arm, "seed", (json_int_t)row->seed,
                          "status", row->r.status, "step", (json_int_t)row->r.step, "parameters",
                          (json_int_t)row->r.parameters, "bytes", (json_int_t)row->r.bytes);
    if (!o) {
        err_set(e, ERR_MEMORY, "arms.jsonl: out of memory");
        return NULL;
    }
    json_object_set_new(o, "train_loss", number(row->r.loss));
    if (row->r.has_eval) {
        json_object_set_new(o, "protocol", json_string(v->protocol));
        json_object_set_new(o, "tokens", json_integer(v->tokens));
        json_object_set_new(o, "nll", number(v->nll));
        json_object_set_new(o, "perplexity", number(v->perplexity));
        if (v->against) {
            json_object_set_new(o, "kl", number(v->kl));
            json_object_set_new(o, "top1_agreement", number(v->top1_agreement));
        }
    }
    json_object_set_new(o, "seconds", number(row->r.seconds));
    json_object_set_new(o, "checkpoint", row->r.checkpoint ? json_string(row->r.checkpoint) : json_null());
    char *s = json_dumps(o, JSON_REAL_PRECISION(9)), *copy = s ? arena_strdup(a, s, e) : NULL;
    free(s);
    json_decref(o);
    return copy;
}

typedef struct Stat {
    double mean, sd;
    int n;
} Stat;

/* Mean and sample standard deviation of one figure over the seeds of an arm. */
static Stat stat_of(const Row *row, int n, const char *arm, int what)
{
    double sum = 0, sq = 0;
    Stat s = {0};
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n; i++) {
            if (strcmp(row[i].arm, arm) || !row[i].r.has_eval) continue;
            const EvalResult *v = &row[i].r.eval;
            double x = what == 0 ? v->perplexity : what == 1 ? v->kl : v->top1_agreement * 100;
            if (!pass) {
                sum += x;
                s.n++;
            } else sq += (x - s.mean) * (x - s.mean);
            if (!pass) s.mean = sum / s.n;
        }
    s.sd = s.n > 1 ? sqrt(sq / (s.n - 1)) : 0;
    return s;
}

static char *spread(const Stat *s, int digits, Arena *a, Err *e)
{
    return s->n > 1 ? arena_printf(a, e, "%.*f ± %.*f", digits, s->mean, digits, s->sd)
                    : arena_printf(a, e, "%.*f", digits, s->mean);
}

/* Columns are padded by hand: the ± sign is two bytes but one column. */
static int columns(const char *s)
{
    int n = 0;
    for (; *s; s++) n += (*s & 0xC0) != 0x80;
    return n;
}

static char *cell(const char *text, int width, Arena *a, Err *e)
{
    int pad = width - columns(text);
    return arena_printf(a, e, "%*s%s", pad > 0 ? pad : 0, "", text);
}

static char *line(const char *name, const char *v[5], Arena *a, Err *e)
{
    static const int width[5] = {18, 18, 16, 12, 12};
    char *t = arena_printf(a, e, "%-12s", name);
    for (int i = 0; i < 5 && t; i++) {
        char *c = cell(v[i], width[i], a, e);
        t = c ? arena_printf(a, e, "%s %s", t, c) : NULL;
    }
    return t ? arena_printf(a, e, "%s\n", t) : NULL;
}

static char *table_text(const Config *c, const Row *row, int n, Arena *a, Err *e)
{
    const RunResult *t = NULL;
    for (int i = 0; i < n && !t; i++)
        if (row[i].r.teacher_parameters) t = &row[i].r;
    char *text = line(
        "model", (const char *[]){"perplexity", "KL to teacher", "top-1 agreement", "parameters", "bytes"}, a,
        e);
    if (t && text) {
        const char *v[5] = {arena_printf(a, e, "%.3f", t->teacher_eval.perplexity), "0", "100 %",
                            arena_printf(a, e, "%lld", (long long)t->teacher_parameters),
                            arena_printf(a, e, "%lld", (long long)t->teacher_bytes)};
        char *l = line("teacher", v, a, e);
        text = l ? arena_printf(a, e, "%s%s", text, l) : NULL;
    }
    for (int k = 0; k < c->n_arm && text; k++) {
        const Row *first = NULL;
        for (int i = 0; i < n && !first; i++)
            if (!strcmp(row[i].arm, c->arm[k])) first = &row[i];
        if (!first) continue;
        Stat p = stat_of(row, n, c->arm[k], 0), kl = stat_of(row, n, c->arm[k], 1),
             top = stat_of(row, n, c->arm[k], 2);
        const char *v[5] = {spread(&p, 3, a, e), first->r.eval.against ? spread(&kl, 4, a, e) : "-",
                            first->r.eval.against ? arena_printf(a, e, "%s %%", spread(&top, 1, a, e)) : "-",
                            arena_printf(a, e, "%lld", (long long)first->r.parameters),
                            arena_printf(a, e, "%lld", (long long)first->r.bytes)};
        char *l = line(c->arm[k], v, a, e);
        text = l ? arena_printf(a, e, "%s%s", text, l) : NULL;
    }
    return text;
}

static char *samples_text(const Config *c, const Row *row, int n, char *text, Arena *a, Err *e)
{
    if (text && n && row[0].r.teacher_sample)
        text = arena_printf(a, e, "%s\n-- teacher\n%s\n", text, row[0].r.teacher_sample);
    for (int k = 0; k < c->n_arm && text; k++)
        for (int i = 0; i < n && text; i++)
            if (!strcmp(row[i].arm, c->arm[k]) && row[i].r.sample) {
                text = arena_printf(a, e, "%s\n-- %s (seed %lld)\n%s\n", text, c->arm[k],
                                    (long long)row[i].seed, row[i].r.sample);
                break;
            }
    for (int i = 0; i < n && text; i++)
        if (row[i].r.checkpoint && !i)
            text = arena_printf(a, e, "%s\n-- checkpoint of %s, seed %lld\n%s\n", text, row[i].arm,
                                (long long)row[i].seed, row[i].r.checkpoint);
    return text;
}

/* Everything that any arm names must be there before the first one trains. */
static bool check_files(const Config *base, const char *path, int n_override, char *const *override, Err *e)
{
    for (int i = 0; i < base->n_arm && !e->code; i++) {
        Arena tmp = {.name = "check"};
        Config *c = config_load_arm(&tmp, path, n_override, override, base->arm[i], base->run.seed, NULL, e);
        if (c && !config_check_files(c))
            err_set(e, ERR_USAGE, "%s (arm %s)", config_error_text(c->doc), base->arm[i]);
        arena_free(&tmp);
    }
    return !e->code;
}

/* One arm with one seed. What the row shows is copied: it outlives the run's arena. */
static bool run_arm(Row *row, const Config *base, const char *path, int n_override, char *const *override,
                    const TrainOptions *o, Arena *a, Err *e)
{
    Arena one = {.name = "run"};
    Config *c = config_load_arm(&one, path, n_override, override, row->arm, row->seed, NULL, e);
    if (c) {
        c->run.output_dir = arena_printf(a, e, "%s/%s-seed%lld", base->run.output_dir, row->arm,
                                         (long long)row->seed);
        log_info("arm %s, seed %lld", row->arm, (long long)row->seed);
        train_run(c, o, &row->r, &one, e);
    }
    RunResult *r = &row->r;
    r->sample = r->sample ? arena_strdup(a, r->sample, e) : NULL;
    r->teacher_sample = r->teacher_sample ? arena_strdup(a, r->teacher_sample, e) : NULL;
    r->checkpoint = r->checkpoint ? arena_strdup(a, r->checkpoint, e) : NULL;
    r->eval.protocol = r->eval.protocol ? arena_strdup(a, r->eval.protocol, e) : NULL;
    log_close();
    arena_free(&one);
    return !e->code || err_prefix(e, "arm %s, seed %lld", row->arm, (long long)row->seed);
}

/* Do the arms run in stages? All or none. */
static bool stages_in(const Config *base, const char *path, int n_override, char *const *override,
                      bool *staged, Err *e)
{
    int with = 0;
    for (int i = 0; i < base->n_arm; i++) {
        Arena tmp = {.name = "config"};
        const Config *c = config_load_arm(&tmp, path, n_override, override, base->arm[i], -1, NULL, e);
        with += c && c->n_stage > 0;
        arena_free(&tmp);
        if (e->code) return false;
    }
    *staged = with > 0;
    return !with || with == base->n_arm ||
           err_set(e, ERR_USAGE, "%s: %d of %d arms have stages: give them to all, or to none", path, with,
                   base->n_arm);
}

bool train_arms(const char *path, int n_override, char *const *override, const TrainOptions *o, char **table,
                Arena *a, Err *e)
{
    Config *base = config_load(a, path, n_override, override, NULL, e);
    if (!base) return false;
    if (!base->n_arm)
        return err_set(e, ERR_USAGE, "%s: --arms needs a map `arms:` of name to overrides", path);
    if (!check_files(base, path, n_override, override, e)) return false;
    bool staged = false;
    if (!stages_in(base, path, n_override, override, &staged, e)) return false;
    if (staged) return train_staged_arms(base, path, o, table, a, e);
    int n_seed = base->seeds.n ? base->seeds.n : 1, n = 0;
    Row *row = arena_alloc(a, (size_t)(base->n_arm * n_seed) * sizeof *row, e);
    const char *out = path_join(a, base->run.output_dir, "arms.jsonl", e);
    char *jsonl = arena_strdup(a, "", e);
    for (int i = 0; i < base->n_arm * n_seed && row && jsonl && !e->code; i++) {
        int64_t seed = base->seeds.n ? base->seeds.v[i % n_seed] : base->run.seed;
        row[n] = (Row){.arm = base->arm[i / n_seed], .seed = seed};
        TrainOptions with = *o;
        with.teacher_row = n == 0;
        log_show_plain(n == 0); /* one header is enough on the screen; every run.log has its own */
        run_arm(&row[n], base, path, n_override, override, &with, a, e);
        log_show_plain(true);
        if (e->code) return false;
        char *l = row_json(&row[n], a, e);
        jsonl = l ? arena_printf(a, e, "%s%s\n", jsonl, l) : NULL;
        n++;
        if (jsonl && !o->dry_run && dir_make(base->run.output_dir, e))
            file_write_atomic(out, jsonl, strlen(jsonl), e);
        if (!strcmp(row[n - 1].r.status, "interrupted")) break;
    }
    if (!e->code) *table = samples_text(base, row, n, table_text(base, row, n, a, e), a, e);
    return !e->code;
}
