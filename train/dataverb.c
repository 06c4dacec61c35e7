/* train/dataverb.c: `pare data tokenize|pack|stats|inspect` on the sources of a config or on files. */
#include "train/train.h"
#include <stdio.h>
#include <string.h>

static bool is_config(const char *path)
{
    const size_t n = strlen(path);
    return (n > 5 && !strcmp(path + n - 5, ".yaml")) || (n > 4 && !strcmp(path + n - 4, ".yml"));
}

/* The data and tokenizer sections: of a config file, or the defaults with the overrides. */
static Config *settings(const DataVerb *v, Arena *a, Err *e)
{
    if (v->n_path == 1 && is_config(v->path[0])) return config_load(a, v->path[0], v->n_set, v->set, NULL, e);
    Config *c = arena_alloc(a, sizeof *c, e);
    ConfigDoc *d = c ? config_parse(a, NULL, v->n_set, v->set, e) : NULL;
    if (!d) return NULL;
    if (config_fill(d, config_section(), c, e)) return c;
    err_set(e, ERR_USAGE, "%s", config_error_text(d));
    return NULL;
}

static bool sources(const DataVerb *v, Config *c, Arena *a, Err *e)
{
    if (v->n_path == 1 && is_config(v->path[0])) {
        if (c->data.train.n > 0) return true;
        return err_set(e, ERR_USAGE, "%s: no data.train", v->path[0]);
    }
    if (v->n_path < 1) return err_set(e, ERR_USAGE, "data %s needs a config or files", v->what);
    SourceConfig *s = arena_alloc(a, (size_t)v->n_path * sizeof *s, e);
    for (int i = 0; s && i < v->n_path; i++)
        s[i] = (SourceConfig){.path = v->path[i],
                              .format = "auto",
                              .weight = 1,
                              .field = v->field ? v->field : "text",
                              .prompt_field = v->prompt_field,
                              .response_field = v->response_field,
                              .messages_field = v->messages_field,
                              .split = v->split};
    c->data.train.v = s;
    c->data.train.n = v->n_path;
    return s != NULL;
}

static Tokenizer *tokenizer(const DataVerb *v, Config *c, Arena *a, Err *e)
{
    const char *path = v->tokenizer ? v->tokenizer : c->tokenizer.path ? c->tokenizer.path : c->model.path;
    if (v->pattern) c->tokenizer.pattern = v->pattern;
    return path ? model_tokenizer(path, &c->tokenizer, a, e) : NULL;
}

/* ---- tokenize ------------------------------------------------------------------------------------------ */
static void show(double done, int64_t tokens, double seconds)
{
    char line[160];
    snprintf(line, sizeof line, "%5.1f %%  %lld tokens  %.2f M tokens/s", 100 * (done < 1 ? done : 1),
             (long long)tokens, seconds > 0 ? (double)tokens / seconds / 1e6 : 0.0);
    log_progress(line);
}

static char *tokenize(const DataVerb *v, Config *c, const Tokenizer *tk, Arena *a, Err *e)
{
    TokenizeResult r;
    const TokenizeJob job = {.source = c->data.train.v,
                             .n_source = c->data.train.n,
                             .data = &c->data,
                             .tk = tk,
                             .out = v->out,
                             .resume_only = v->resume,
                             .restart = v->overwrite,
                             .stop = &train_signal,
                             .progress = show};
    if (!tokenize_run(&job, &r, e)) return NULL;
    if (r.stopped) {
        err_set(e, ERR_INTERRUPTED, "stopped behind %lld tokens; the same command goes on from %s.part",
                (long long)r.tokens, v->out);
        return NULL;
    }
    return arena_printf(
        a, e,
        "{\"out\": \"%s\", \"tokens\": %lld, \"documents\": %lld, \"empty\": %lld, \"bad_lines\": "
        "%lld, \"resumed_tokens\": %lld, \"seconds\": %.3f}",
        v->out, (long long)r.tokens, (long long)r.documents, (long long)r.empty, (long long)r.bad,
        (long long)r.resumed_tokens, r.seconds);
}

/* ---- pack ---------------------------------------------------------------------------------------------- */
static char *pack(const DataVerb *v, Config *c, const Tokenizer *tk, Arena *a, Err *e)
{
    Tokens all = {0}, t;
    for (int i = 0; i < c->data.train.n; i++) {
        if (!tokens_load(&t, &c->data.train.v[i], &c->data, tk, 0, a, e)) return NULL;
        if (i == 0) all = t;
        else if (!tokens_join(&all, &t, a, e)) return NULL;
    }
    if (!tokens_h5_write(v->out, &all, tk ? tokenizer_hash(tk) : NULL, a, e)) return NULL;
    return arena_printf(a, e, "{\"out\": \"%s\", \"tokens\": %zu, \"documents\": %zu, \"targets\": %s}",
                        v->out, all.n, all.n_doc, all.target ? "true" : "false");
}

static bool ends(const char *s, const char *tail)
{
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

char *data_verb(const DataVerb *v, Arena *a, Err *e)
{
    const bool tokenizes = !strcmp(v->what, "tokenize"), packs = !strcmp(v->what, "pack");
    if ((tokenizes || packs) && !v->out) {
        err_set(e, ERR_USAGE, "data %s needs --out FILE%s", v->what, tokenizes ? ".bin" : ".h5");
        return NULL;
    }
    if (packs && !ends(v->out, ".h5")) {
        err_set(e, ERR_USAGE, "data pack writes .h5 (%s)", v->out);
        return NULL;
    }
    tokens_h5_enable();
    threads_init(0);
    Config *c = settings(v, a, e);
    if (!c || !sources(v, c, a, e)) return NULL;
    Tokenizer *tk = tokenizer(v, c, a, e);
    if (!tk && !e->code && tokenizes) err_set(e, ERR_USAGE, "data tokenize needs --tokenizer PATH");
    if (e->code) return NULL;
    if (c->tokenizer.chat_template && !c->data.chat_template)
        c->data.chat_template = c->tokenizer.chat_template;
    if (tokenizes) return tokenize(v, c, tk, a, e);
    if (packs) return pack(v, c, tk, a, e);
    if (!strcmp(v->what, "stats"))
        return data_stats_json(c->data.train.v, c->data.train.n, &c->data, tk, a, e);
    return data_inspect_text(&c->data.train.v[0], &c->data, tk, v->n > 0 ? v->n : 3, a, e);
}
