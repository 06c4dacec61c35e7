/* train/report_read.c: from folders to runs: which folders, which group each belongs to, metrics.jsonl.
 * Lines that cannot be read are counted and left out; what is missing is simply not shown. */
#include "train/report_impl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

ReportRow report_row_none(void)
{
    return (ReportRow){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN, -1, -1, -1, -1, -1, NULL};
}

void report_note(Report *r, Err *e, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (r->n_note == r->cap_note) {
        int cap = r->cap_note ? 2 * r->cap_note : 16;
        r->note = arena_grow(r->a, r->note, (size_t)r->n_note * sizeof *r->note,
                             (size_t)cap * sizeof *r->note, e);
        r->cap_note = cap;
    }
    char *copy = arena_strdup(r->a, text, e);
    if (copy && !e->code) r->note[r->n_note++] = copy;
}

static void take_number(double *to, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_number(v)) *to = json_number_value(v);
}
static void take_count(int64_t *to, const json_t *o, const char *key)
{
    double v = NAN;
    take_number(&v, o, key);
    if (v >= 0 && v < 9e18) *to = (int64_t)v;
}

void report_row_json(ReportRow *row, const json_t *o)
{
    take_number(&row->perplexity, o, "perplexity");
    take_number(&row->nll, o, "nll");
    take_number(&row->kl, o, "kl");
    take_number(&row->top1, o, "top1_agreement");
    take_number(&row->tok_s, o, "tok_s");
    take_number(&row->seconds, o, "seconds");
    take_number(&row->bits, o, "bits_per_weight");
    take_count(&row->parameters, o, "parameters");
    take_count(&row->bytes, o, "bytes");
    take_count(&row->disk, o, "bytes_on_disk");
    take_count(&row->nonzero, o, "nonzero");
    take_count(&row->steps, o, "step");
    take_count(&row->steps, o, "steps");
    take_count(&row->nonzero, o, "nonzeros");
    take_number(&row->decode, o, "tokens_per_second");
    if (!isfinite(row->tok_s)) take_number(&row->tok_s, o, "train_tokens_per_second");
    if (json_object_get(o, "tensor_bytes")) { /* a stage's row: bytes are the file's */
        row->disk = row->bytes;
        take_count(&row->bytes, o, "tensor_bytes");
    }
    if (row->steps == 0) row->tok_s = NAN;
}

const Series *run_series(const ReportRun *run, const char *key)
{
    for (int i = 0; i < run->n_series; i++)
        if (!strcmp(run->series[i].key, key)) return &run->series[i];
    return NULL;
}

static Series *series_of(ReportRun *run, const char *event, const char *key, Arena *a, Err *e)
{
    char name[160];
    bool train = !strcmp(event, "train");
    snprintf(name, sizeof name, "%s%s%s", train ? "" : event, train ? "" : "/", key);
    Series *s = (Series *)(uintptr_t)run_series(run, name);
    if (s) return s;
    if (run->n_series == MAX_SERIES) {
        run->dropped_keys++;
        return NULL;
    }
    s = &run->series[run->n_series];
    s->key = arena_strdup(a, name, e);
    if (s->key) run->n_series++;
    return s->key ? s : NULL;
}

static void take_event(ReportRun *run, const json_t *o, const char *event, double step, Arena *a, Err *e)
{
    static const char *const curve[] = {"train", "eval", "prune"};
    const char *key;
    const json_t *v;
    if (!strcmp(event, "end")) {
        take_number(&run->row.seconds, o, "seconds");
        take_count(&run->row.parameters, o, "parameters");
        take_count(&run->row.bytes, o, "bytes");
    }
    if (!strcmp(event, "teacher")) report_row_json(&run->teacher, o);
    if (!strcmp(event, "eval")) {
        report_row_json(&run->row, o);
        take_number(&run->row.nll, o, "loss");
    }
    if (json_is_array(json_object_get(o, "nonfinite"))) run->nonfinite++;
    bool drawn = false;
    for (int i = 0; i < 3; i++) drawn = drawn || !strcmp(event, curve[i]);
    if (!drawn) return;
    json_object_foreach((json_t *)(uintptr_t)o, key, v)
    {
        if (!json_is_number(v) || !strcmp(key, "t") || !strcmp(key, "step")) continue;
        Series *s = series_of(run, event, key, a, e);
        if (s) series_add(s, step, json_number_value(v), a, e);
    }
    if (step > (double)run->row.steps) run->row.steps = (int64_t)step;
}

static void read_metrics(ReportRun *run, const char *text, size_t bytes, Arena *a, Err *e)
{
    for (size_t at = 0; at < bytes && !e->code;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t n = end ? (size_t)(end - text) - at : bytes - at;
        run->lines++;
        json_t *o = json_loadb(text + at, n, 0, NULL);
        const json_t *event = json_object_get(o, "event"), *step = json_object_get(o, "step");
        if (json_is_string(event) && json_is_number(step) && json_number_value(step) >= 0)
            take_event(run, o, json_string_value(event), json_number_value(step), a, e);
        else if (n && !run->bad++) run->first_bad = run->lines;
        json_decref(o);
        at += n + 1;
    }
}

static const char *text_at(const ReportRun *run, const char *name, size_t limit, Arena *a, Err *e)
{
    size_t bytes;
    const char *path = path_join(a, run->path, name, e);
    char *s = path && file_exists(path) ? file_read(a, path, &bytes, e) : NULL;
    if (s && bytes > limit) s[limit] = 0;
    return s;
}

/* Speed of the whole run: tokens of its last line over the time its lines took. */
static double speed(const ReportRun *run)
{
    const Series *s = run_series(run, "tok_s");
    double inverse = 0, n = 0;
    for (int i = 0; s && i < s->n; i++) {
        inverse += (double)s->b[i].n * (double)s->b[i].n / s->b[i].y_sum;
        n += (double)s->b[i].n;
    }
    return n > 0 && inverse > 0 ? n / inverse : NAN;
}

bool report_read_run(Report *r, ReportRun *run, Err *e)
{
    Arena *a = r->a;
    const char *path = path_join(a, run->path, "metrics.jsonl", e);
    FileMap m = {0};
    if (path && file_exists(path) && file_map(&m, path, e))
        read_metrics(run, (const char *)m.data, m.bytes, a, e);
    file_unmap(&m);
    if (run->bad)
        report_note(
            r, e,
            "%s/metrics.jsonl: %lld of %lld lines cannot be read and are left out, the first is line %lld",
            run->path, (long long)run->bad, (long long)run->lines, (long long)run->first_bad);
    if (run->nonfinite)
        report_note(r, e,
                    "%s/metrics.jsonl: %lld lines hold values that are not finite; these points are left out",
                    run->path, (long long)run->nonfinite);
    if (run->dropped_keys)
        report_note(r, e, "%s/metrics.jsonl: more than %d figures; the others are not drawn", run->path,
                    MAX_SERIES);
    run->config = text_at(run, "config.resolved.yaml", 1 << 20, a, e);
    run->env = text_at(run, "env.json", 1 << 16, a, e);
    run->overrides = text_at(run, "overrides.txt", 1 << 16, a, e);
    const char *failed = text_at(run, "FAILED", 2000, a, e), *done = path_join(a, run->path, "DONE", e);
    if (failed) report_note(r, e, "%s failed: %s", run->path, failed);
    if (!run->status) run->status = failed ? "failed" : done && file_exists(done) ? "done" : "not finished";
    if (!isfinite(run->row.tok_s)) run->row.tok_s = speed(run);
    if (!e->code) report_read_files(r, run, e);
    return !e->code;
}

static ReportRun *add_run(Report *r, const char *path, const char *name, const char *group, Err *e)
{
    if (r->n == r->cap) {
        int cap = r->cap ? 2 * r->cap : 8;
        r->run = arena_grow(r->a, r->run, (size_t)r->n * sizeof *r->run, (size_t)cap * sizeof *r->run, e);
        r->cap = cap;
    }
    if (e->code) return NULL;
    ReportRun *run = &r->run[r->n++];
    *run = (ReportRun){
        .path = path, .name = name, .group = group, .row = report_row_none(), .teacher = report_row_none()};
    return run;
}

static const char *base_name(const char *path, Arena *a, Err *e)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t from = n;
    while (from && path[from - 1] != '/') from--;
    return n > from ? arena_strndup(a, path + from, n - from, e) : arena_strdup(a, path, e);
}

/* "scratch-seed12" is of the group "scratch". */
static const char *group_name(const char *name, Arena *a, Err *e)
{
    const char *at = NULL;
    for (const char *p = name; (p = strstr(p, "-seed")); p++) at = p;
    if (!at || !at[5] || strspn(at + 5, "0123456789") != strlen(at + 5)) return name;
    return arena_strndup(a, name, (size_t)(at - name), e);
}

/* arms.jsonl: ARM-seedN folders beside it; a row's figures stand where the folder is gone. */
static bool read_arms(Report *r, const char *dir, const char *file, Err *e)
{
    size_t bytes;
    long line = 0;
    char *text = file_read(r->a, file, &bytes, e), *save = NULL;
    for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l && !e->code;
         l = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_loads(l, 0, NULL);
        const char *arm = json_string_value(json_object_get(o, "arm"));
        line++;
        if (arm) {
            long long seed = json_integer_value(json_object_get(o, "seed"));
            const char *name = arena_printf(r->a, e, "%s-seed%lld", arm, seed);
            const char *path = arena_printf(r->a, e, "%s/%s", dir, name);
            ReportRun *run = add_run(r, path, name, arena_strdup(r->a, arm, e), e);
            const char *status = json_string_value(json_object_get(o, "status"));
            if (run && status) run->status = arena_strdup(r->a, status, e);
            if (run) report_row_json(&run->row, o);
            if (run && !dir_exists(path))
                report_note(r, e, "%s: the folder is not there; its row is of arms.jsonl", path);
            if (run) report_read_run(r, run, e);
        } else report_note(r, e, "%s: line %ld cannot be read and is left out", file, line);
        json_decref(o);
    }
    return !e->code;
}

static void stage_rows(Report *r, const char *dir, Err *e)
{
    size_t bytes;
    const char *path = path_join(r->a, dir, "stages.jsonl", e);
    char *text = path && file_exists(path) ? file_read(r->a, path, &bytes, e) : NULL, *save = NULL;
    for (char *l = text ? strtok_r(text, "\n", &save) : NULL; l; l = strtok_r(NULL, "\n", &save)) {
        json_t *o = json_loads(l, 0, NULL);
        const char *stage = json_string_value(json_object_get(o, "stage"));
        for (int i = 0; stage && i < r->n; i++) {
            const char *name = r->run[i].name, *dash = strchr(name, '-');
            if (r->run[i].stage && (!strcmp(name, stage) || (dash && !strcmp(dash + 1, stage))))
                report_row_json(&r->run[i].row, o);
        }
        json_decref(o);
    }
}

/* The model that the stages began with has a row and no folder. */
static void base_row(Report *r, const char *dir, const char *group, Err *e)
{
    size_t bytes;
    const char *path = path_join(r->a, dir, "stages.jsonl", e);
    char *text = path && file_exists(path) ? file_read(r->a, path, &bytes, e) : NULL;
    char *end = text ? strchr(text, '\n') : NULL;
    if (end) *end = 0;
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;
    const char *stage = json_string_value(json_object_get(o, "stage"));
    ReportRun *run = stage && !strcmp(stage, "base") ? add_run(r, dir, group, group, e) : NULL;
    if (run) {
        run->stage = true;
        run->status = "given";
        report_row_json(&run->row, o);
    }
    json_decref(o);
}

/* row.json is the last thing a stage writes. */
static void finished_row(ReportRun *run, Arena *a, Err *e)
{
    const char *text = text_at(run, "row.json", 1 << 16, a, e);
    json_t *o = text ? json_loads(text, 0, NULL) : NULL;
    if (o) report_row_json(&run->row, o);
    json_decref(o);
}

static bool read_stages(Report *r, const char *dir, const char *stages, bool prefix, Err *e)
{
    int n;
    const char **name = dir_names(stages, &n, r->a, e), *of = base_name(dir, r->a, e);
    if (of) base_row(r, dir, prefix ? arena_printf(r->a, e, "%s/base", of) : "base", e);
    for (int i = 0; i < n && !e->code; i++) {
        const char *path = path_join(r->a, stages, name[i], e);
        if (!path || !dir_exists(path)) continue;
        const char *shown = prefix ? arena_printf(r->a, e, "%s/%s", of, name[i]) : name[i];
        ReportRun *run = add_run(r, path, shown, shown, e);
        if (!run) return false;
        run->stage = true;
        report_read_run(r, run, e);
        finished_row(run, r->a, e);
    }
    stage_rows(r, dir, e);
    return !e->code;
}

static bool read_folder(Report *r, const char *dir, int n_folder, Err *e)
{
    if (!dir_exists(dir)) return err_set(e, ERR_USAGE, "%s: no such folder", dir);
    const char *arms = path_join(r->a, dir, "arms.jsonl", e),
               *metrics = path_join(r->a, dir, "metrics.jsonl", e);
    const char *stages = path_join(r->a, dir, "stages", e),
               *config = path_join(r->a, dir, "config.resolved.yaml", e);
    if (e->code) return false;
    if (file_exists(arms)) return read_arms(r, dir, arms, e);
    bool staged = dir_exists(stages);
    if (file_exists(metrics) || (file_exists(config) && !staged)) {
        const char *name = base_name(dir, r->a, e);
        ReportRun *run = name ? add_run(r, dir, name, group_name(name, r->a, e), e) : NULL;
        if (!run || !report_read_run(r, run, e)) return false;
    } else if (!staged)
        return err_set(e, ERR_USAGE,
                       "%s: no run: neither metrics.jsonl nor arms.jsonl nor stages/ is in it; give the "
                       "run.output_dir of a run",
                       dir);
    return !staged || read_stages(r, dir, stages, n_folder > 1, e);
}

static bool make_groups(Report *r, Err *e)
{
    r->group = arena_alloc(r->a, (size_t)(r->n + 1) * sizeof *r->group, e);
    for (int i = 0; i < r->n && !e->code; i++) {
        ReportGroup *g = NULL;
        for (int k = 0; k < r->n_group && !g; k++)
            if (!strcmp(r->group[k].name, r->run[i].group)) g = &r->group[k];
        if (!g) {
            g = &r->group[r->n_group++];
            *g = (ReportGroup){.name = r->run[i].group, .stage = r->run[i].stage};
            g->run = arena_alloc(r->a, (size_t)r->n * sizeof *g->run, e);
        }
        if (g->run) g->run[g->n++] = i;
    }
    return !e->code;
}

bool report_read(Report *r, const char *const *path, int n, Arena *a, Err *e)
{
    const char *title = r->title;
    *r = (Report){.a = a, .title = title};
    for (int i = 0; i < n && !e->code; i++) read_folder(r, path[i], n, e);
    if (e->code) return false;
    if (!r->title) r->title = n == 1 ? base_name(path[0], a, e) : arena_printf(a, e, "%d runs", n);
    if (!r->n) return err_set(e, ERR_USAGE, "%s: nothing to report: no run is in it yet", path[0]);
    return make_groups(r, e);
}

int group_stat(const Report *r, const ReportGroup *g, size_t offset, double *mean, double *sd)
{
    double sum = 0, sq = 0;
    int n = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < g->n; i++) {
            const double v = *(const double *)((const char *)&r->run[g->run[i]].row + offset);
            if (!isfinite(v)) continue;
            if (pass) sq += (v - *mean) * (v - *mean);
            else {
                sum += v;
                n++;
            }
        }
        if (!pass) *mean = n ? sum / n : NAN;
    }
    *sd = n > 1 ? sqrt(sq / (n - 1)) : 0;
    return n;
}
