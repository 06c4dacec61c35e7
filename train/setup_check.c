/* train/setup_check.c: what a config asks of the models and data it names: errors at the key's place. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "train/run_impl.h"

bool run_key_error(Run *r, Err *e, const char *key, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    config_error(r->c->doc, key, "%s", text);
    return err_set(e, ERR_USAGE, "%s", config_error_text(r->c->doc));
}

/* Why glob matches no parameter: with the name that it may mean. */
bool run_no_match(Run *r, Err *e, const char *key, const char *glob)
{
    const Params *ps = &r->model.params;
    const char **name = arena_alloc(r->a, (size_t)(ps->n + 1) * sizeof *name, e);
    if (!name) return false;
    for (int i = 0; i < ps->n; i++) name[i] = ps->p[i]->name;
    const char *near = nearest_name(glob, name, ps->n);
    return run_key_error(r, e, key, "no parameter matches \"%.200s\" (%s %s%s)", glob,
                         near ? "did you mean" : "for example", near ? near : name[0], near ? "?" : "");
}

/* Learned positions end; rotary ones go on, with values the model has not seen. */
bool run_fits(Run *r, const Model *m, const char *who, Err *e)
{
    const long room = m->spec.max_pos;
    if (r->T <= room) return true;
    if (m->spec.family->learned_pos)
        return run_key_error(r, e, "data.seq_len", "%ld is longer than the %s's %ld positions", r->T, who,
                             room);
    if (r->c->model.path || m != &r->model) /* of a fresh model check_init has said so */
        log_warn("data.seq_len: %ld tokens, beyond the %s's %ld positions", r->T, who, room);
    return true;
}

/* Steps are counted in 32 bits by the random numbers, tokens in 63 by the state. */
static bool check_steps(Run *r, Err *e)
{
    const int64_t n = run_steps(r);
    const char *key = n == r->c->train.max_steps ? "train.max_steps" : "train.epochs";
    if (n > UINT32_MAX)
        return run_key_error(r, e, key, "%lld steps: a run has at most %u", (long long)n, UINT32_MAX);
    if ((double)n * (double)r->step_tokens > 0x1p62)
        return run_key_error(r, e, key, "%lld steps of %lld tokens: more than can be counted", (long long)n,
                             (long long)r->step_tokens);
    return true;
}

/* Every group names a parameter. */
static bool check_groups(Run *r, Err *e)
{
    for (int i = 0; i < r->c->optim.groups.n; i++) {
        const ConfigStrs *match = &r->c->optim.groups.v[i].match;
        bool used = false;
        char key[64];
        snprintf(key, sizeof key, "optim.groups[%d].match", i);
        for (int j = 0; j < match->n; j++)
            for (int k = 0; k < r->model.params.n && !used; k++)
                used = glob_match(match->v[j], r->model.params.p[k]->name);
        if (!used) return run_no_match(r, e, key, match->v[0]);
    }
    return true;
}

/* The evaluation's windows are held by rows of data.seq_len. */
static bool check_windows(Run *r, Err *e)
{
    const PerplexityConfig *p = &r->c->eval.perplexity;
    const bool concat = !strncmp(p->protocol, "concat-", 7);
    const long long n = concat ? strtoll(p->protocol + 7, NULL, 10) : (long long)p->window;
    if (!r->has_val || !p->enabled || n <= r->T) return true;
    return run_key_error(r, e, concat ? "eval.perplexity.protocol" : "eval.perplexity.window",
                         "windows of %lld tokens, but data.seq_len is %ld", n, r->T);
}

/* Exports whose format the model does not fit into. */
static bool check_exports(Run *r, Err *e)
{
    const ModelSpec *s = &r->model.spec;
    for (int i = 0; i < r->c->export.n; i++) {
        char key[48];
        snprintf(key, sizeof key, "export[%d].format", i);
        if (strcmp(r->c->export.v[i].format, "llama2c")) continue;
        if (strcmp(s->family->arch, "llama"))
            return run_key_error(r, e, key, "a llama2c file holds Llama models only, this one is %s",
                                 s->family->arch);
        if (s->rope.kind != ROPE_DEFAULT || s->window || s->D * s->H != s->C || s->attention_bias)
            return run_key_error(r, e, key,
                                 "a llama2c file has no place for scaled RoPE, a sliding window, biases or "
                                 "another head_dim than hidden_size / heads; hdf5 and safetensors have");
    }
    return true;
}

/* A trace of steps that the run does not have. A stage's length is its own: there it is a hint. */
static bool check_profile(Run *r, Err *e)
{
    const ProfileConfig *p = &r->c->log.profile;
    const int64_t n = run_steps(r);
    if (!p->steps || p->start < n) return true;
    if (r->c->at_stage < 0)
        return run_key_error(r, e, "log.profile.start", "%lld, but the run has %lld steps: none is traced",
                             (long long)p->start, (long long)n);
    log_warn("log.profile.start: %lld, but this stage has %lld steps: none is traced", (long long)p->start,
             (long long)n);
    return true;
}

bool run_check(Run *r, Err *e)
{
    return check_steps(r, e) && check_profile(r, e) && check_windows(r, e) && check_groups(r, e) &&
           check_exports(r, e);
}
