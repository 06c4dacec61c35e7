/* train/verb_eval.c: eval, generate, probe. */
#include "train/verb_impl.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --task NAME=FILE: accuracy instead of perplexity. */
static int eval_task(Args *x, const char *task)
{
    const char *eq = strchr(task, '=');
    Model m;
    if (!eq || eq == task || !eq[1]) err_set(x->e, ERR_USAGE, "--task %s: write it as NAME=FILE", task);
    if (x->e->code || !args_model(x, &m, x->pos[0])) return 1;
    TaskOptions o = {.name = arena_strndup(x->a, task, (size_t)(eq - task), x->e),
                     .path = eq + 1,
                     .protocol = args_get(x, "protocol", NULL),
                     .details = args_get(x, "details", NULL),
                     .no_bos = args_has(x, "no-bos"),
                     .limit = (int64_t)args_number(x, "limit", 0)};
    Tokenizer *tk = args_tokenizer(x, &m);
    char *text = x->e->code ? NULL : task_json(&m, tk, &o, x->a, x->e);
    return text ? args_say(x, text) : 1;
}

int verb_eval(Args *x)
{
    if (args_has(x, "task")) return eval_task(x, args_get(x, "task", ""));
    Config *c = args_is_config(x->pos[0]) ? config_load(x->a, x->pos[0], x->n_set, x->set, NULL, x->e)
                                          : args_defaults(x);
    if (!c) return 1;
    const char *path = x->pos[0], *against = args_get(x, "against", NULL), *data = args_get(x, "data", NULL);
    if (args_is_config(path)) {
        Err none = {0};
        const char *newest = checkpoint_find(c->run.output_dir, x->a, &none);
        path = newest ? newest : c->model.path;
        if (!against && !strcmp(c->run.recipe, "distill")) against = c->teacher.path;
        if (!path)
            err_set(x->e, ERR_USAGE, "%s: neither a checkpoint in %s nor model.path", x->pos[0],
                    c->run.output_dir);
    }
    SourceConfig one = {.path = data, .format = "auto", .weight = 1, .field = "text"};
    const SourceConfig *src = data ? &one : c->data.val.n ? &c->data.val.v[0] : NULL;
    if (!src && !x->e->code) err_set(x->e, ERR_USAGE, "eval needs --data FILE (text or .bin tokens)");
    Model m, t;
    Tokens tok = {0};
    if (x->e->code || !args_model(x, &m, path) || (against && !args_model(x, &t, against))) return 1;
    Tokenizer *tk = args_is_config(x->pos[0]) && c->tokenizer.path && !args_has(x, "tokenizer")
                        ? model_tokenizer(c->tokenizer.path, &c->tokenizer, x->a, x->e)
                        : args_tokenizer(x, &m);
    if (x->e->code || !tokens_load(&tok, src, &c->data, tk, (int)m.spec.V, x->a, x->e)) return 1;
    const char *protocol = args_get(x, "protocol", c->eval.perplexity.protocol);
    long T = (long)args_number(x, "seq-len",
                               args_is_config(x->pos[0]) ? (double)c->data.seq_len
                               : m.spec.max_pos < 1024   ? (double)m.spec.max_pos
                                                         : 1024);
    if (!strncmp(protocol, "concat-", 7)) {
        double n;
        if (config_parse_float(protocol + 7, &n)) T = (long)n;
    }
    if (!x->e->code && (T < 2 || T > m.spec.max_pos))
        err_set(x->e, ERR_USAGE, "--seq-len %ld: the model reads 2 to %ld tokens", T, m.spec.max_pos);
    if (x->e->code) return 1;
    long B = 4096 / T > 0 ? 4096 / T : 1;
    Evaluator *ev = evaluator_new(&m, against ? &t : NULL, B < 32 ? B : 32, T, x->a, x->e);
    EvalResult r;
    if (!ev || !evaluator_run(ev, &tok, tk ? tokenizer_bos(tk) : -1, protocol, T,
                              (long)args_number(x, "stride", 0), 0, &r, x->e))
        return 1;
    char *json = eval_json(&r, x->pos[0], src->path, x->a, x->e);
    if (!json) return 1;
    if (args_has(x, "json")) return args_say(x, json);
    char *text = arena_printf(
        x->a, x->e, "perplexity %.4f (%s, window %ld, %lld tokens, %.4f nat per token)%s", r.perplexity,
        r.protocol, r.window, (long long)r.tokens, r.nll,
        r.against ? arena_printf(x->a, x->e, "\nKL to %s %.5f nat per token, top-1 agreement %.2f %%",
                                 against, r.kl, 100 * r.top1_agreement)
                  : "");
    return text ? args_say(x, text) : 1;
}

int verb_generate(Args *x)
{
    Model m;
    SampleOptions o = {.temperature = args_number(x, "temp", 0.8),
                       .top_k = (int64_t)args_number(x, "top-k", 40),
                       .top_p = args_number(x, "top-p", 0.95),
                       .min_p = args_number(x, "min-p", 0),
                       .repetition_penalty = args_number(x, "repetition-penalty", 1),
                       .seed = (uint64_t)args_number(x, "seed", 42)};
    long n = (long)args_number(x, "n", 64);
    if (!x->e->code && (o.temperature < 0 || o.top_k < 0 || o.top_p <= 0 || o.top_p > 1 || n < 0))
        err_set(x->e, ERR_USAGE, "generate: temp >= 0, top-k >= 0, 0 < top-p <= 1 and n >= 0 are needed");
    if (x->e->code || !args_model(x, &m, x->pos[0])) return 1;
    Tokenizer *tk = args_tokenizer(x, &m);
    Generation g;
    if (x->e->code || !generate(&g, &m, tk, args_get(x, "p", ""), n, &o, x->a, x->e)) return 1;
    long made = g.n - g.n_prompt;
    double rate = g.decode_s > 0 ? (double)made / g.decode_s : 0;
    if (args_has(x, "json")) {
        json_t *ids = json_array(), *j = NULL;
        for (long i = 0; i < g.n; i++) json_array_append_new(ids, json_integer(g.ids[i]));
        json_t *text = json_stringn(g.text, g.text_bytes);
        /* sampled bytes need not be UTF-8; ids always hold them */
        if (!text) text = json_null();
        j = json_pack("{s:o,s:o,s:I,s:f}", "text", text, "ids", ids, "prompt_tokens", (json_int_t)g.n_prompt,
                      "tokens_per_second", rate);
        return args_say_json(x, j);
    }
    fwrite(g.text, 1, g.text_bytes, x->out);
    fputc('\n', x->out);
    log_info("%ld prompt tokens in %.1f ms (%.0f tok/s), %ld tokens in %.1f ms (%.0f tok/s)", g.n_prompt,
             g.prefill_s * 1e3, (double)g.n_prompt / g.prefill_s, made, g.decode_s * 1e3, rate);
    return 0;
}

int verb_probe(Args *x)
{
    Model m;
    const char *in = args_get(x, "input", NULL), *out = args_get(x, "out", NULL);
    if (!in || !out)
        return (err_set(x->e, ERR_USAGE, "probe needs --input IN.safetensors and --out OUT.safetensors"), 1);
    if (!args_model(x, &m, x->pos[0]) ||
        !probe(&m, in, out, args_has(x, "grad"), args_get(x, "taps", NULL), x->e))
        return 1;
    return 0;
}
