/* train/verb_train.c: train, validate, config, doctor. */
#include "train/verb_impl.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* All that a config names and is not there, each at its line. */
static bool files_exist(Config *c, Err *e)
{
    return config_check_files(c) || err_set(e, ERR_USAGE, "%s", config_error_text(c->doc));
}

static int stages(Args *x, const Config *c, const TrainOptions *o)
{
    StageRows rows;
    if (args_has(x, "json"))
        err_set(x->e, ERR_USAGE,
                "a run in stages writes its rows to stages.jsonl in run.output_dir: no --json");
    if (o->resume && strcmp(o->resume, "auto") && strcmp(o->resume, "never"))
        err_set(x->e, ERR_USAGE, "a run in stages goes on where it stopped: no --resume=PATH");
    if (x->e->code || !train_stages(c->path, c->run.output_dir, NULL, -1, o, NULL, &rows, x->a, x->e))
        return 1;
    char *table = stages_table(rows.row, rows.n, x->a, x->e);
    int rc = table ? args_say(x, table) : 1;
    return !strcmp(rows.status, "interrupted") ? ERR_INTERRUPTED : rc;
}

int verb_train(Args *x)
{
    TrainOptions o = {.overwrite = args_has(x, "overwrite"), .dry_run = args_has(x, "dry-run")};
    const char *resume = args_get(x, "resume", NULL);
    if (resume) o.resume = *resume ? resume : "auto";
    if (args_has(x, "steps"))
        x->set[x->n_set++] = arena_printf(x->a, x->e, "train.max_steps=%lld",
                                          (long long)args_int(x, "steps", 1, 1, INT64_MAX));
    if (x->e->code) return 1;
    o.n_override = x->n_set;
    o.override = x->set;
    const char *path = x->n_pos ? x->pos[0] : NULL;
    if (args_has(x, "arms")) {
        char *table = NULL;
        if (!path) err_set(x->e, ERR_USAGE, "train --arms needs a config file");
        if (args_has(x, "json"))
            err_set(x->e, ERR_USAGE,
                    "train --arms writes its rows to arms.jsonl in run.output_dir: no --json");
        if (x->e->code || !train_arms(path, x->n_set, x->set, &o, &table, x->a, x->e)) return 1;
        int rc = args_say(x, table);
        return train_signal & 2 ? ERR_INTERRUPTED : rc;
    }
    Config *c = config_load(x->a, path, x->n_set, x->set, NULL, x->e);
    RunResult r;
    if (!c || !files_exist(c, x->e)) return 1;
    if (c->n_stage) return stages(x, c, &o);
    if (!train_run(c, &o, &r, x->a, x->e)) return 1;
    if (args_has(x, "json")) {
        json_t *j = json_pack("{s:s,s:I,s:o}", "status", r.status, "step", (json_int_t)r.step, "loss",
                              args_json_number(r.loss));
        if (r.has_eval) json_object_set_new(j, "perplexity", args_json_number(r.eval.perplexity));
        if (r.checkpoint) json_object_set_new(j, "checkpoint", json_string(r.checkpoint));
        int rc = args_say_json(x, j);
        if (rc) return rc;
    } else
        log_info("%s at step %lld%s%s", r.status, (long long)r.step, r.checkpoint ? ", checkpoint " : "",
                 r.checkpoint ? r.checkpoint : "");
    return !strcmp(r.status, "interrupted") ? ERR_INTERRUPTED : 0;
}

int verb_teacher_cache(Args *x)
{
    const CacheOptions o = {.dry_run = args_has(x, "dry-run"), .overwrite = args_has(x, "overwrite")};
    Config *c = config_load(x->a, x->pos[0], x->n_set, x->set, NULL, x->e);
    CacheResult r;
    if (!c) return 1;
    c->caching = true;
    if (strcmp(c->run.recipe, "distill") || !c->teacher.path || !c->teacher.cache) {
        err_set(x->e, ERR_USAGE,
                "%s: teacher-cache needs run.recipe: distill, teacher.path (what to read) and "
                "teacher.cache (the file to write)",
                x->pos[0]);
        return 1;
    }
    if (!files_exist(c, x->e) || !teacher_cache_write(c, &o, &r, x->a, x->e)) return 1;
    if (args_has(x, "json")) {
        const int rc = args_say_json(x, json_pack("{s:s,s:I,s:I,s:I,s:f,s:b}", "cache", c->teacher.cache,
                                                  "positions", (json_int_t)r.positions, "k", (json_int_t)r.k,
                                                  "bytes", (json_int_t)r.bytes, "seconds", r.seconds,
                                                  "written", !o.dry_run && !r.stopped));
        if (rc) return rc;
    } else if (!o.dry_run && !r.stopped && !r.present) {
        log_info("wrote %s: %lld positions in %.1f s", c->teacher.cache, (long long)r.positions, r.seconds);
    }
    return r.stopped ? ERR_INTERRUPTED : 0;
}

int verb_validate(Args *x)
{
    Config *c = config_load(x->a, x->pos[0], x->n_set, x->set, NULL, x->e);
    char *text = c && files_exist(c, x->e) ? memory_report(c, x->a, x->e) : NULL;
    if (!text) return 1;
    return args_say(x, text);
}

int verb_config(Args *x)
{
    const char *what = x->pos[0];
    if (!strcmp(what, "schema")) {
        char *help = config_help(config_section(), x->a, x->e);
        return help ? args_say(x, help) : 1;
    }
    if (strcmp(what, "show") || x->n_pos < 2) {
        err_set(x->e, ERR_USAGE, "config show CONFIG, or config schema");
        return 1;
    }
    ConfigDoc *doc = NULL;
    Config *c = config_load(x->a, x->pos[1], x->n_set, x->set, &doc, x->e);
    char *text = c ? config_show(doc, config_section(), c, x->a, x->e) : NULL;
    return text ? args_say(x, text) : 1;
}

int verb_doctor(Args *x)
{
    bool ok;
    char *text = doctor_report(args_has(x, "json"), &ok, x->a, x->e);
    if (!text) return 1;
    int rc = args_say(x, text);
    return rc ? rc : ok ? 0 : 1;
}
