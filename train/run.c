/* train/run.c: the loop, one for every recipe. A step is: weight nodes, micro-batches that add up, one
 * division by the step's target tokens, clip, update; then, when due, a line, an evaluation, a checkpoint. */
#include "train/run_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

volatile int train_signal;

enum { SIG_SAVE = 1, SIG_STOP = 2 }; /* what main's handlers put into train_signal */

/* What the teacher said of the rows of a micro-batch. */
static bool fill_cache(Run *r, int64_t first_sample, Err *e)
{
    const size_t real = r->k->real, cells = (size_t)(r->T * t_last(r->top_index));
    for (long b = 0; b < r->B; b++) {
        char *logp = (char *)r->top_logp->data + (size_t)b * cells * real;
        char *rest = (char *)r->top_rest->data + (size_t)(b * r->T) * real;
        if (!teacher_cache_fill(r->cache, loader_sequence(r->loader, first_sample + b),
                                distill_temperature(&r->c->distill, r->st.step),
                                (int32_t *)r->top_index->data + (size_t)b * cells, logp, rest, real, e))
            return false;
    }
    return true;
}

/* Whether this step learns from the student's own words: from nothing but the teacher's view of them. */
static bool begin_own(Run *r)
{
    const bool own = on_policy_step(r, r->st.step);
    if (!r->on_policy) return false;
    LmLossAttr *at = r->lm->node->attr;
    at->a.ce_weight = own ? 0 : r->c->distill.ce_weight;
    return own;
}

/* One micro-batch of rows from the endless sample stream. Returns the targets counted. */
static long fill_batch(Run *r, int64_t first_sample, Err *e)
{
    const BatchRows *rows = prefetch_get(r->prefetch, first_sample, &r->waited, e);
    const size_t bytes = (size_t)(r->B * r->T) * sizeof(int32_t);
    if (!rows) return 0;
    memcpy(r->ids->data, rows->ids, bytes);
    memcpy(r->targets->data, rows->targets, bytes);
    memcpy(r->pos->data, rows->pos, bytes);
    if (r->seg) memcpy(r->seg->data, rows->seg, bytes);
    if (r->top_index && !fill_cache(r, first_sample, e)) return 0;
    return rows->counted;
}

static void add_parts(Run *r, bool first)
{
    LossPart p[MAX_PARTS];
    int n = graph_loss_parts(r->g, p, MAX_PARTS);
    for (int i = 0; i < n; i++) {
        if (first) r->part[i] = p[i];
        else r->part[i].value += p[i].value;
    }
    r->n_part = n;
    r->loss = (first ? 0 : r->loss) + graph_loss_total(r->g);
}

/* Rows of the training stream from the next sample on: what scores are measured on without
 * prune.calibration.data. */
typedef struct StreamRows {
    const Run *r;
    Err *e;
} StreamRows;
static long stream_row(const void *ctx, int64_t i, int32_t *ids, int32_t *targets, int32_t *pos, int32_t *seg)
{
    const StreamRows *s = ctx;
    loader_fill(s->r->loader, s->r->st.samples_seen + i, ids, targets, pos, seg, s->e);
    return s->r->T;
}

/* With r->st.step steps done: new masks when the schedule says so. */
static bool prune_now(Run *r, Err *e)
{
    const PruneConfig *p = &r->c->prune;
    if (!r->prune.n) return true;
    Calibration cal = r->calibration;
    const StreamRows rows = {r, e};
    const bool grads = !strcmp(p->method, "snip") || !strcmp(p->method, "taylor");
    if (!cal.row)
        cal = (Calibration){stream_row, &rows,
                            r->T,       grads ? p->snip_batches * r->B : p->calibration.samples,
                            1,          loader_segments(r->loader)};
    cal.batches = p->snip_batches;
    bool moved;
    double t = time_now();
    if (!prune_update(&r->prune, r->st.step, &cal, &moved, e) || e->code) return false;
    r->sparsity = prune_sparsity(&r->prune);
    const Metric m[3] = {{"sparsity", r->sparsity},
                         {"sparsity/target", r->prune.soft ? NAN : prune_target(&r->prune, r->st.step)},
                         {"seconds", time_now() - t}};
    if (moved && r->metrics) metrics_write(r->metrics, "prune", r->st.step, m, r->prune.soft ? 1 : 3);
    return true;
}

/* soft_movement's term, as a part of the loss. */
static void regularise(Run *r, double targets)
{
    const double term = prune_regularise(&r->prune, r->st.step, targets);
    if (!r->prune.soft || r->n_part == MAX_PARTS) return;
    r->part[r->n_part++] = (LossPart){"loss/prune", term};
    r->loss += term;
}

static StepInfo one_step(Run *r, Err *e)
{
    RunState *s = graph_state(r->g);
    int64_t first = r->st.samples_seen;
    long targets = 0;
    const bool own = begin_own(r);
    s->step = (uint32_t)r->st.step;
    qat_before(&r->qat, r->st.step);
    distill_before(&r->distill, r->g, r->st.step);
    graph_step_begin(r->g);
    for (long a = 0; a < r->accum; a++) {
        const double fill = time_now();
        targets += own ? on_policy_fill(r->on_policy, first + a * r->B, e)
                       : fill_batch(r, first + a * r->B, e);
        profile_span(r->profile, own ? "own sequences" : "data", fill);
        if (e->code) break;
        s->sample0 = (uint32_t)(first + a * r->B); /* wraps: no two of a step are equal */
        if (targets && distill_wants_measure(&r->distill)) {
            graph_micro(r->g);
            add_parts(r, true);
            distill_after(&r->distill, r->g, r->part, r->n_part, (double)targets);
            graph_step_begin(r->g);
        }
        graph_micro(r->g);
        add_parts(r, a == 0);
    }
    graph_step_end(r->g);
    if (r->on_policy) r->own_length = on_policy_length(r->on_policy);
    if (e->code) return (StepInfo){0};
    qat_after(&r->qat, r->st.step);
    if (!targets) {
        err_set(e, ERR_USAGE, "step %lld: every label of the batch is masked; nothing can be learned from it",
                (long long)r->st.step + 1);
        return (StepInfo){0};
    }
    double n = (double)targets;
    distill_after(&r->distill, r->g, r->part, r->n_part, n);
    regularise(r, n);
    r->loss /= n;
    for (int i = 0; i < r->n_part; i++) r->part[i].value /= n;
    const double update = time_now();
    StepInfo info = optim_step(r->opt, r->st.step, r->st.n_steps, 1 / n);
    profile_span(r->profile, "optimizer", update);
    r->st.step++;
    r->st.samples_seen += r->B * r->accum;
    r->st.tokens_seen += r->step_tokens;
    r->st.epoch = (double)r->st.samples_seen / (double)loader_samples(r->loader);
    r->st.bad_steps = info.skipped ? r->st.bad_steps + 1 : 0;
    return info;
}

/* A non-finite gradient changes nothing; several in a row end the run, naming where the first one came
 * from. */
static bool check_finite(Run *r, const StepInfo *info, Err *e)
{
    if (!info->skipped) return true;
    log_warn("step %lld: gradient is not finite (loss %g); the step is skipped (%d in a row)",
             (long long)r->st.step, r->loss, r->st.bad_steps);
    if (r->st.bad_steps < r->c->train.skip_nonfinite) return true;
    RunState *s = graph_state(r->g);
    s->check_finite = true;
    s->first_bad = NULL;
    graph_step_begin(r->g);
    graph_micro(r->g);
    return err_set(e, ERR_FAIL,
                   "%d steps in a row gave a gradient that is not finite; the first bad tensor is %s. Lower "
                   "optim.learning_rate or look at the data (last checkpoint is kept)",
                   r->st.bad_steps, s->first_bad ? s->first_bad : "not in the last batch");
}

static void log_train(Run *r, const StepInfo *info, double dt, int64_t steps)
{
    Metric m[MAX_PARTS + 12];
    int n = 0;
    m[n++] = (Metric){"epoch", r->st.epoch};
    m[n++] = (Metric){"tokens", (double)r->st.tokens_seen};
    m[n++] = (Metric){"loss", r->loss};
    for (int i = 0; i < r->n_part; i++) m[n++] = (Metric){r->part[i].label, r->part[i].value};
    if (r->on_policy) {
        int64_t own = 0;
        for (int64_t s = r->st.step - steps; s < r->st.step; s++) own += on_policy_step(r, s);
        m[n++] = (Metric){"on_policy", (double)own / (double)steps};
        if (r->own_length > 0) m[n++] = (Metric){"on_policy_length", r->own_length};
    }
    m[n++] = (Metric){"lr", info->lr};
    m[n++] = (Metric){"grad_norm", info->grad_norm};
    m[n++] = (Metric){"dt_ms", dt * 1e3};
    m[n++] = (Metric){"tok_s", (double)r->step_tokens / dt};
    m[n++] = (Metric){"data_wait_ms", r->waited * 1e3 / (double)steps};
    if (r->prune.n) m[n++] = (Metric){"sparsity", r->sparsity};
    if (r->peak_flops > 0)
        m[n++] = (Metric){"mfu", r->flops_per_token * (double)r->step_tokens / dt / r->peak_flops};
    metrics_write(r->metrics, "train", r->st.step, m, n);
}

static bool write_result(Run *r, Err *e)
{
    const char *dir = path_join(r->a, r->dir, "eval", e);
    char *text = dir ? eval_json(&r->eval, r->dir, r->val.path, r->a, e) : NULL;
    char *path = text ? arena_printf(r->a, e, "%s/step_%08lld.json", dir, (long long)r->st.step) : NULL;
    return path && dir_make(dir, e) && file_write_atomic(path, text, strlen(text), e);
}

bool run_evaluate(Run *r, Err *e)
{
    if (!r->ev || !r->c->eval.perplexity.enabled) return true;
    const PerplexityConfig *p = &r->c->eval.perplexity;
    int bos = r->tk ? tokenizer_bos(r->tk) : -1;
    if (!evaluator_run(r->ev, &r->val, bos, p->protocol, (long)p->window, (long)p->stride,
                       r->c->eval.max_batches, &r->eval, e))
        return err_prefix(e, "data.val");
    r->has_eval = true;
    Metric m[8] = {
        {"loss", r->eval.nll}, {"perplexity", r->eval.perplexity}, {"tokens", (double)r->eval.tokens}};
    int n = 3;
    if (r->eval.bits_per_byte > 0) m[n++] = (Metric){"bits_per_byte", r->eval.bits_per_byte};
    if (r->eval.against) {
        m[n++] = (Metric){"kl", r->eval.kl};
        m[n++] = (Metric){"top1_agreement", r->eval.top1_agreement};
    }
    metrics_write(r->metrics, "eval", r->st.step, m, n);
    if (!write_result(r, e)) return false;
    char kl[96] = "";
    if (r->eval.against)
        snprintf(kl, sizeof kl, ", KL to the teacher %.4f nat, top-1 agreement %.1f %%", r->eval.kl,
                 100 * r->eval.top1_agreement);
    log_info("step %lld: validation perplexity %.4f (%s, %lld tokens)%s", (long long)r->st.step,
             r->eval.perplexity, p->protocol, (long long)r->eval.tokens, kl);
    return run_samples(r, &r->model, NULL, e);
}

static bool save(Run *r, Err *e)
{
    double t = time_now();
    if (!checkpoint_save(r->dir, &r->c->checkpoint, &r->model, r->opt, &r->st, r->a, e)) return false;
    r->checkpoint = arena_printf(r->a, e, "%s/checkpoints/step_%08lld.h5", r->dir, (long long)r->st.step);
    Metric m[1] = {{"seconds", time_now() - t}};
    metrics_write(r->metrics, "checkpoint", r->st.step, m, 1);
    return !e->code;
}

static bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

static bool evaluation_due(const Run *r)
{
    int64_t s = r->st.step, per_epoch = loader_samples(r->loader) / (r->B * r->accum);
    if (s == r->st.n_steps) return true;
    return due(s, r->c->eval.every_steps ? r->c->eval.every_steps : per_epoch > 0 ? per_epoch : 1);
}

/* Evaluates; early stopping and keep_best look at the same number. *stop: patience is at its end. */
static bool evaluate(Run *r, bool *stop, Err *e)
{
    const EarlyStoppingConfig *s = &r->c->train.early_stopping;
    *stop = false;
    if (!run_evaluate(r, e)) return false;
    r->st.evaluated = r->st.step;
    if (!r->has_eval) return true;
    r->st.val = r->eval.nll;
    if (isnan(r->st.best) || r->eval.nll < r->st.best - s->min_delta) {
        r->st.best = r->eval.nll;
        r->st.stale_evals = 0;
    } else r->st.stale_evals++;
    *stop = s->patience > 0 && r->st.stale_evals >= s->patience;
    if (*stop)
        log_info("step %lld: no improvement for %d evaluations; stopping", (long long)r->st.step,
                 r->st.stale_evals);
    return true;
}

typedef struct Clock {
    double limit, start, last_save;
} Clock;

/* What is due after a step. Returns the status that ends the run, or NULL. */
static const char *after_step(Run *r, Clock *ck, Err *e)
{
    const Config *c = r->c;
    int64_t s = r->st.step;
    bool last = s >= r->st.n_steps, stop = train_signal & SIG_STOP, stale = false;
    const char *status = NULL;
    if (c->run.time_limit && time_now() - ck->start > ck->limit) status = "stopped";
    if (stop) status = "interrupted";
    if (!stop && evaluation_due(r) && !evaluate(r, &stale, e)) return "failed";
    if (stale) status = "stopped";
    bool timed = c->checkpoint.every_minutes > 0 &&
                 time_now() - ck->last_save > 60 * c->checkpoint.every_minutes;
    bool asked = c->checkpoint.save_on_signal && (stop || (train_signal & SIG_SAVE));
    if (last || (status && !stop) || due(s, c->checkpoint.every_steps) || timed || asked) {
        train_signal &= ~SIG_SAVE;
        if (!save(r, e)) return "failed";
        ck->last_save = time_now();
    }
    return last && !status ? "done" : status;
}

static const char *loop(Run *r, Err *e)
{
    Clock ck = {.limit = config_seconds(r->c->run.time_limit), .start = r->started, .last_save = time_now()};
    if (!prune_now(r, e)) return "failed";
    if (r->st.step >= r->st.n_steps) {
        const bool row = r->c->at_stage >= 0; /* a stage's row evaluates what it wrote */
        Metrics *m = r->metrics;
        if (r->st.evaluated == r->st.step) r->metrics = NULL; /* told before that state was saved */
        const bool ok = row || run_evaluate(r, e);
        r->metrics = m;
        if (!ok) return "failed";
        return r->checkpoint || save(r, e) ? "done" : "failed";
    }
    bool stale = false;
    if (r->c->eval.at_start && r->st.step == 0 && !run_evaluate(r, e)) return "failed";
    /* a signal does not wait for the evaluation that its step had coming */
    if (r->st.step > 0 && evaluation_due(r) && r->st.evaluated != r->st.step && !evaluate(r, &stale, e))
        return "failed";
    if (stale) return "stopped";
    double mark = time_now();
    int64_t mark_step = r->st.step;
    for (;;) {
        double start = time_now();
        profile_before(r);
        StepInfo info = one_step(r, e);
        threads_pace(time_now() - start);
        if (e->code || !profile_after(r, start, e) || !check_finite(r, &info, e) || !prune_now(r, e))
            return "failed";
        bool line = due(r->st.step, r->c->log.every_steps);
        if (line || r->st.step == r->st.n_steps) {
            double dt = (time_now() - mark) / (double)(r->st.step - mark_step);
            run_progress(r, &info, dt, true);
            if (line) log_train(r, &info, dt, r->st.step - mark_step);
        }
        if (due(r->st.step, r->c->log.system_every_steps))
            metrics_write(r->metrics, "system", r->st.step, NULL, 0);
        const char *status = after_step(r, &ck, e);
        if (line || status) {
            mark = time_now();
            mark_step = r->st.step;
            r->waited = 0;
        }
        if (status) return status;
    }
}

/* Loads the newest whole checkpoint, or the one asked for. *resumed tells whether there was one. */
static bool resume(Run *r, const char *how, bool *resumed, Err *e)
{
    *resumed = false;
    if (!strcmp(how, "never")) return true;
    const char *path = !strcmp(how, "auto") ? checkpoint_find(r->dir, r->a, e) : how;
    if (e->code || !path) return !e->code;
    int64_t n_steps = r->st.n_steps;
    const char *hash = r->st.data_hash;
    if (!checkpoint_load(path, &r->model, r->opt, &r->st, r->a, e)) return false;
    if (r->st.data_hash && strcmp(hash, r->st.data_hash))
        return err_set(
            e, ERR_USAGE,
            "%s was trained on other data (content hash %s, now %s): resume with the same data.train, "
            "or start a new run.output_dir",
            path, r->st.data_hash, hash);
    r->st.n_steps = n_steps;
    r->st.data_hash = hash;
    r->checkpoint = path;
    log_info("resuming at step %lld from %s", (long long)r->st.step, path);
    *resumed = true;
    return true;
}

/* A stage starts from what the one before left; its own optimizer and schedule, unless asked otherwise. */
static bool carry(Run *r, const StageOptions *s, Err *e)
{
    if (!s || !s->from) return true;
    log_info("starting from %s", s->from);
    Optim *o = s->keep_optimizer || s->no_steps ? r->opt
                                                : NULL; /* a stage without steps hands the moments on */
    return checkpoint_carry(s->from, &r->model, o, &r->st, r->a, e);
}

/* A stage that stopped because it no longer improved is at its end. */
static bool ended(const Run *r, const char *status)
{
    const int patience = (int)r->c->train.early_stopping.patience;
    return !strcmp(status, "done") ||
           (!strcmp(status, "stopped") && patience > 0 && r->st.stale_evals >= patience);
}

static bool teacher_row(Run *r, RunResult *out, Err *e)
{
    if (!r->has_teacher || !r->has_val) return true;
    long B = r->c->eval.batch_size ? (long)r->c->eval.batch_size : r->B;
    Evaluator *ev = evaluator_new(&r->teacher, NULL, B, r->T, r->a, e);
    const PerplexityConfig *p = &r->c->eval.perplexity;
    bool ok = ev &&
              evaluator_run(ev, &r->val, r->tk ? tokenizer_bos(r->tk) : -1, p->protocol, (long)p->window,
                            (long)p->stride, r->c->eval.max_batches, &out->teacher_eval, e);
    evaluator_free(ev);
    out->teacher_parameters = params_count(&r->teacher.params, false);
    out->teacher_bytes = model_held(&r->teacher);
    if (ok) {
        const EvalResult *v = &out->teacher_eval;
        Metric m[5] = {{"loss", v->nll},
                       {"perplexity", v->perplexity},
                       {"tokens", (double)v->tokens},
                       {"parameters", (double)out->teacher_parameters},
                       {"bytes", (double)out->teacher_bytes}};
        metrics_write(r->metrics, "teacher", r->st.step, m, 5);
    }
    return ok && run_samples(r, &r->teacher, &out->teacher_sample, e);
}

static void finish(Run *r, const char *status, const Err *e)
{
    bool ok = !e->code;
    /* stopped or interrupted: neither DONE nor FAILED */
    if (strcmp(status, "done") && ok) return;
    char text[2200];
    int n = snprintf(text, sizeof text, "%s\n", ok ? "done" : e->msg);
    Err ignore = {0};
    const char *path = path_join(r->a, r->dir, ok ? "DONE" : "FAILED", &ignore);
    if (path) file_write_atomic(path, text, (size_t)n, &ignore);
}

/* Section log, as far as the command line leaves it open. */
static void shape_log(const Config *c)
{
    static const char *const name[] = {"error", "warn", "info", "debug"};
    for (int i = 0; i < CFG_COUNT(name); i++)
        if (!strcmp(c->log.level, name[i])) log_default_level((LogLevel)i);
    log_shape(!strcmp(c->log.console, "plain"), !c->run.deterministic);
}

bool train_run(Config *c, const TrainOptions *o, RunResult *out, Arena *a, Err *e)
{
    Run r;
    *out = (RunResult){.status = "failed"};
    shape_log(c);
    bool resumed = false, written = false;
    const char *how = o->overwrite ? "never" : o->resume ? o->resume : c->run.resume;
    if (run_setup(&r, c, a, e) && resume(&r, how, &resumed, e) && (resumed || carry(&r, o->stage, e))) {
        r.start_step = r.st.step;
        if (o->dry_run) {
            run_header(&r);
            if (prune_now(&r, e)) one_step(&r, e);
            if (!e->code)
                log_info("dry run: one step in %.1f s, loss %.4f; nothing was written",
                         time_now() - r.started, r.loss);
            out->status = "dry run";
        } else if (run_folder(&r, o, resumed, e)) {
            written = true;
            r.metrics = metrics_open(r.dir, &c->log, !c->run.deterministic, r.st.step, resumed, a, e);
            r.peak_flops = measured_peak(r.k, e);
            r.profile = profile_open(&r, e);
            run_header(&r);
            if (!e->code) out->status = loop(&r, e);
            if (!e->code) profile_close(&r, e);
            if (!e->code && !strcmp(out->status, "done") && run_samples(&r, &r.model, &out->sample, e))
                run_export(&r, e);
            if (!e->code && !strcmp(out->status, "done") && o->teacher_row) teacher_row(&r, out, e);
            if (!e->code && o->stage && ended(&r, out->status)) {
                out->status = "done";
                run_stage(&r, o->stage, &out->stage, e);
            }
        }
    }
    out->step = r.st.step;
    out->loss = r.loss;
    out->has_eval = r.has_eval;
    out->eval = r.eval;
    out->parameters = params_count(&r.model.params, false);
    out->bytes = model_bytes(&r.model);
    out->sparsity = r.sparsity;
    out->checkpoint = r.checkpoint;
    out->seconds = time_now() - r.started;
    out->tokens_per_s = (double)(r.st.step - r.start_step) * (double)r.step_tokens / out->seconds;
    if (written) {
        if (r.metrics) {
            Metric m[3] = {{"seconds", out->seconds},
                           {"parameters", (double)out->parameters},
                           {"bytes", (double)out->bytes}};
            metrics_write(r.metrics, "end", r.st.step, m, 3);
        }
        finish(&r, out->status, e);
    }
    run_free(&r);
    return !e->code;
}
