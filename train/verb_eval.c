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
    const int64_t limit = args_int(x, "limit", 0, 0, INT64_MAX);
    if (x->e->code || !args_packed(x, &m, x->pos[0], false)) return 1;
    TaskOptions o = {.name = arena_strndup(x->a, task, (size_t)(eq - task), x->e),
                     .path = eq + 1,
                     .protocol = args_get(x, "protocol", NULL),
                     .details = args_get(x, "details", NULL),
                     .no_bos = args_has(x, "no-bos"),
                     .limit = limit};
    Tokenizer *tk = args_tokenizer(x, &m);
    char *text = x->e->code ? NULL : task_json(&m, tk, &o, x->a, x->e);
    return text ? args_say(x, text) : 1;
}

/* What an evaluation reads, from a config's file or from the command line alone. */
typedef struct EvalJob {
    const Config *c;
    bool from_file;
    const char *model, *against, *protocol;
    const SourceConfig *source;
    int n_source;
    SourceConfig one; /* --data */
    long T, window, stride;
} EvalJob;

/* The newest checkpoint of the config's run; before there is one, the model it starts from. */
static void job_of_config(Args *x, EvalJob *j)
{
    const Config *c = j->c;
    const char *dir = path_join(x->a, c->run.output_dir, "checkpoints", x->e);
    j->model = dir && file_exists(dir) ? checkpoint_find(c->run.output_dir, x->a, x->e) : NULL;
    if (!j->model && !x->e->code) {
        j->model = c->model.path;
        if (j->model)
            log_info("%s holds no checkpoint: evaluating model.path %s", c->run.output_dir, j->model);
        else
            err_set(x->e, ERR_USAGE, "%s: neither a checkpoint in %s nor model.path", x->pos[0],
                    c->run.output_dir);
    }
    if (!j->against && !strcmp(c->run.recipe, "distill") && c->eval.compare_teacher)
        j->against = c->teacher.path;
}

static bool job_of(Args *x, EvalJob *j, const Config *c)
{
    const char *data = args_get(x, "data", NULL);
    *j = (EvalJob){.c = c,
                   .from_file = args_is_config(x->pos[0]),
                   .model = x->pos[0],
                   .against = args_get(x, "against", NULL),
                   .protocol = args_get(x, "protocol", c->eval.perplexity.protocol),
                   .source = c->data.val.v,
                   .n_source = c->data.val.n,
                   .one = {.path = data,
                           .format = "auto",
                           .weight = 1,
                           .field = args_get(x, "field", "text"),
                           .prompt_field = args_get(x, "prompt-field", NULL),
                           .response_field = args_get(x, "response-field", NULL),
                           .messages_field = args_get(x, "messages-field", NULL),
                           .split = args_get(x, "split", NULL)},
                   .window = (long)c->eval.perplexity.window,
                   .stride = (long)args_number(x, "stride", (double)c->eval.perplexity.stride)};
    if (j->from_file) job_of_config(x, j);
    if (data) j->source = &j->one, j->n_source = 1;
    if (!j->n_source && !x->e->code)
        err_set(x->e, ERR_USAGE, "eval needs --data FILE (text or .bin tokens)%s",
                j->from_file ? ", or data.val in the config" : "");
    return !x->e->code;
}

/* The window: --seq-len, the protocol's own N, data.seq_len where it was written, else the model's
 * positions. */
static bool job_length(Args *x, EvalJob *j, const Model *m)
{
    const bool written = j->from_file || config_was_set(j->c->doc, "data.seq_len");
    const long positions = m->spec.max_pos < 1024 ? m->spec.max_pos : 1024;
    double n;
    j->T = (long)args_number(x, "seq-len", written ? (double)j->c->data.seq_len : (double)positions);
    if (!strncmp(j->protocol, "concat-", 7) && config_parse_float(j->protocol + 7, &n)) j->T = (long)n;
    if (!x->e->code && (j->T < 2 || j->T > m->spec.max_pos))
        err_set(x->e, ERR_USAGE, "--seq-len %ld: the model reads 2 to %ld tokens", j->T, m->spec.max_pos);
    return !x->e->code;
}

static int say_result(Args *x, const EvalJob *j, const EvalResult *r)
{
    if (args_has(x, "json")) {
        char *json = eval_json(r, j->model, j->source->path, x->a, x->e);
        return json ? args_say(x, json) : 1;
    }
    char *text = arena_printf(x->a, x->e,
                              "%s: perplexity %.4f (%s, window %ld, %lld tokens, %.4f nat per token)",
                              j->model, r->perplexity, r->protocol, r->window, (long long)r->tokens, r->nll);
    if (text && r->against)
        text = arena_printf(x->a, x->e, "%s\nKL to %s %.5f nat per token, top-1 agreement %.2f %%", text,
                            j->against, r->kl, 100 * r->top1_agreement);
    return text ? args_say(x, text) : 1;
}

/* What needs neither model nor data to be wrong. */
static bool eval_options(Args *x)
{
    const char *p = args_get(x, "protocol", "val");
    const bool concat = !strncmp(p, "concat-", 7);
    int64_t n = 0;
    if (concat ? !config_parse_int(p + 7, &n) || n < 2 || n > 16777216
               : strcmp(p, "val") && strcmp(p, "stride") && strcmp(p, "llamacpp"))
        err_set(x->e, ERR_USAGE, "--protocol %s: val, concat-N, stride and llamacpp are known", p);
    args_int(x, "seq-len", 2, 2, 16777216);
    args_int(x, "stride", 0, 0, 16777216);
    return !x->e->code;
}

static bool open_model(Args *x, Model *m, const char *path, const Kernels *k)
{
    return (args_has(x, "dense") ? model_open_frozen : model_open_packed)(m, args_path(x, path), k, x->a,
                                                                          x->e);
}

int verb_eval(Args *x)
{
    if (!args_has(x, "task") && !eval_options(x)) return 1;
    if (args_has(x, "task")) return eval_task(x, args_get(x, "task", ""));
    Config *c = args_is_config(x->pos[0]) ? config_load(x->a, x->pos[0], x->n_set, x->set, NULL, x->e)
                                          : args_defaults(x);
    EvalJob j;
    Model m, t;
    Tokens tok = {0};
    EvalResult r;
    if (!c || !job_of(x, &j, c)) return 1;
    const Kernels *k = device_kernels(&c->device, x->e);
    if (!k || !open_model(x, &m, j.model, k) || !args_adapters(x, &m, NULL, NULL)) return 1;
    if (j.against && !open_model(x, &t, j.against, k)) return 1;
    Tokenizer *tk = j.from_file && c->tokenizer.path && !args_has(x, "tokenizer")
                        ? model_tokenizer(c->tokenizer.path, &c->tokenizer, x->a, x->e)
                        : args_tokenizer_as(x, &m, &c->tokenizer);
    if (x->e->code || (j.against && !same_vocabulary(&t, &m, tk, &c->tokenizer, x->a, x->e))) return 1;
    if (!tokens_of_sources(&tok, j.source, j.n_source, &c->data, tk, (int)m.spec.V, x->a, x->e) ||
        !job_length(x, &j, &m))
        return 1;
    const long most = 4096 / j.T > 0 ? 4096 / j.T : 1;
    const long B = j.from_file && c->eval.batch_size ? (long)c->eval.batch_size
                   : j.from_file                     ? (long)c->train.batch_size
                   : most < 32                       ? most
                                                     : 32;
    Evaluator *ev = evaluator_new(&m, j.against ? &t : NULL, B, j.T, x->a, x->e);
    bool ok = ev && evaluator_run(ev, &tok, tk ? tokenizer_bos(tk) : -1, j.protocol,
                                  j.window ? j.window : j.T, j.stride, c->eval.max_batches, &r, x->e);
    evaluator_free(ev);
    if (!ok) return 1;
    return say_result(x, &j, &r);
}

/* One continuation: as JSON, or the text (of a chat: the answer alone) with statistics on stderr. */
static int show(Args *x, const Generation *g, const Model *m, const Tokenizer *tk, const char *adapter,
                bool chat)
{
    long made = g->n - g->n_prompt;
    /* the prompt's pass gives the first of them */
    const double rate = made > 1 && g->decode_s > 0 ? (double)(made - 1) / g->decode_s : NAN;
    size_t bytes = g->text_bytes;
    const char *text = chat ? tokenizer_decode(tk, g->ids + g->n_prompt, (size_t)made, &bytes, x->a, x->e)
                            : g->text;
    if (!text) return 1;
    if (args_has(x, "json")) {
        json_t *ids = json_array(), *t = json_stringn(text, bytes);
        for (long i = 0; i < g->n; i++) json_array_append_new(ids, json_integer(g->ids[i]));
        /* sampled bytes need not be UTF-8; ids always hold them */
        const WeightBytes b = model_weight_bytes(m);
        json_t *j = json_pack("{s:o,s:o,s:I,s:o,s:I,s:I}", "text", t ? t : json_null(), "ids", ids,
                              "prompt_tokens", (json_int_t)g->n_prompt, "tokens_per_second",
                              args_json_number(rate), "packed_bytes", (json_int_t)b.packed, "dense_bytes",
                              (json_int_t)b.dense);
        if (adapter) json_object_set_new(j, "adapter", json_string(adapter));
        return args_say_json(x, j);
    }
    if (adapter) fprintf(x->out, "[%s] ", adapter);
    fwrite(text, 1, bytes, x->out);
    fputc('\n', x->out);
    char speed[48] = "";
    if (isfinite(rate)) snprintf(speed, sizeof speed, " (%.0f tok/s)", rate);
    log_info("%ld prompt tokens in %.1f ms (%.0f tok/s), %ld tokens in %.1f ms%s", g->n_prompt,
             g->prefill_s * 1e3, (double)g->n_prompt / g->prefill_s, made, g->decode_s * 1e3, speed);
    return 0;
}

static int continue_once(Args *x, Model *m, const Tokenizer *tk, const SampleOptions *o, long n,
                         const char *adapter)
{
    const char *prompt = args_get(x, "p", "");
    const bool chat = args_has(x, "chat");
    Generation g;
    TokenBuf ids = {0};
    int stop = -1;
    if (chat && !tk) err_set(x->e, ERR_USAGE, "--chat needs a tokenizer: give --tokenizer");
    if (chat && !x->e->code)
        chat_prompt(tk, args_get(x, "chat-template", NULL), args_get(x, "system", NULL), prompt, &ids, &stop,
                    x->a, x->e);
    if (x->e->code) return 1;
    const bool ok = chat ? generate_ids(&g, m, tk, ids.id, (long)ids.n, stop, n, o, x->a, x->e)
                         : generate(&g, m, tk, prompt, n, o, x->a, x->e);
    return ok ? show(x, &g, m, tk, adapter, chat) : 1;
}

/* --use NAME, repeatable: the same prompt under one adapter after the other (or `none`), the base read
 * once. */
static int continue_each(Args *x, Model *m, const Tokenizer *tk, const SampleOptions *o, long n, Lora **all,
                         int n_all)
{
    int uses = 0;
    for (int i = 0; i < x->n_opt; i++) {
        if (strcmp(x->opt[i], "use")) continue;
        int at = -1;
        for (int k = 0; k < n_all; k++)
            if (!strcmp(all[k]->name, x->value[i])) at = k;
        if (at < 0 && strcmp(x->value[i], "none"))
            return (err_set(x->e, ERR_USAGE, "--use %s: no --adapter has that name", x->value[i]), 1);
        if (!lora_use(all, n_all, &at, at >= 0, x->e) || continue_once(x, m, tk, o, n, x->value[i])) return 1;
        uses++;
    }
    return uses ? 0 : continue_once(x, m, tk, o, n, NULL);
}

int verb_generate(Args *x)
{
    Model m;
    Lora **all;
    int n_all;
    const ConfigSection *s = generate_section();
    SampleOptions o = {.temperature = args_float_key(x, "temp", s, "temperature"),
                       .top_k = args_int_key(x, "top-k", s, "top_k"),
                       .top_p = args_float_key(x, "top-p", s, "top_p"),
                       .min_p = args_float_key(x, "min-p", s, "min_p"),
                       .repetition_penalty = args_float_key(x, "repetition-penalty", s, "repetition_penalty"),
                       .seed = (uint64_t)args_int_key(x, "seed", s, "seed")};
    const long n = (long)args_int(x, "n", 64, 0, 16777216);
    if (x->e->code || !args_packed(x, &m, x->pos[0], false) || !args_adapters(x, &m, &all, &n_all)) return 1;
    Tokenizer *tk = args_tokenizer(x, &m);
    return x->e->code ? 1 : continue_each(x, &m, tk, &o, n, all, n_all);
}

int verb_probe(Args *x)
{
    Model m;
    const char *in = args_get(x, "input", NULL), *out = args_get(x, "out", NULL);
    if (!in || !out)
        return (err_set(x->e, ERR_USAGE, "probe needs --input IN.safetensors and --out OUT.safetensors"), 1);
    /* gradients are of weights, which codes have none of */
    if (!args_packed(x, &m, x->pos[0], args_has(x, "grad")) || !args_adapters(x, &m, NULL, NULL) ||
        !probe(&m, in, out, args_has(x, "grad"), args_get(x, "taps", NULL), x->e))
        return 1;
    return 0;
}
