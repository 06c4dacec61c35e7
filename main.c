/* main.c: the command line: the only printf to stdout, the only exit.     pare [-v|-q] VERB [options]
 * [CONFIG] [key=value ...]
 *
 * A verb is one line of `verbs`: name, what follows it, options, function. --help is made from the same
 * lines. Results go to stdout, everything for people to stderr. Exit codes: core/core.h, ErrCode. */
#include "train/train.h"
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_ARGS = 256 };
typedef struct Args {
    const char *verb;
    Arena *a;
    Err *e;
    int n_pos;
    const char *pos[MAX_ARGS];
    int n_set;
    char *set[MAX_ARGS]; /* key=value overrides, in order */
    int n_opt;
    const char *opt[MAX_ARGS], *value[MAX_ARGS];
} Args;
typedef struct Option {
    const char *name, *value, *help;
    char letter;
} Option; /* value NULL: a switch */
typedef struct Verb {
    const char *name, *args, *help;
    int min_pos, max_pos;
    int (*run)(Args *);
    const Option *opt;
} Verb;

static const char *get(const Args *x, const char *name, const char *def)
{
    for (int i = x->n_opt - 1; i >= 0; i--)
        if (!strcmp(x->opt[i], name)) return x->value[i] ? x->value[i] : "";
    return def;
}
static bool has(const Args *x, const char *name) { return get(x, name, NULL) != NULL; }

static double number(Args *x, const char *name, double def)
{
    const char *s = get(x, name, NULL);
    double v;
    if (!s) return def;
    if (!config_parse_float(s, &v)) {
        err_set(x->e, ERR_USAGE, "--%s: \"%s\" is not a number", name, s);
        return def;
    }
    return v;
}

static int fail(const Err *e)
{
    if (e->code == ERR_USAGE && strchr(e->msg, '\n')) fprintf(stderr, "%s\n", e->msg);
    else fprintf(stderr, "pare: %s\n", e->msg);
    return e->code ? (int)e->code : 1;
}

static int say(const char *text)
{
    if (fputs(text, stdout) < 0 || fputc('\n', stdout) < 0 || fflush(stdout)) {
        fprintf(stderr, "pare: writing to standard output failed\n");
        return 1;
    }
    return 0;
}

static const Kernels *kernels(void)
{
    threads_init(0);
    return kernels_cpu_f32();
}

static bool is_config(const char *path)
{
    size_t n = strlen(path);
    return (n > 5 && !strcmp(path + n - 5, ".yaml")) || (n > 4 && !strcmp(path + n - 4, ".yml"));
}

/* A run's folder stands for its newest checkpoint. */
static const char *model_path(Args *x, const char *path)
{
    const char *dir = path_join(x->a, path, "checkpoints", x->e);
    if (!dir || !file_exists(dir)) return path;
    const char *newest = checkpoint_find(path, x->a, x->e);
    return newest ? newest : path;
}

static bool open_model(Args *x, Model *m, const char *path)
{
    return model_open_frozen(m, model_path(x, path), kernels(), x->a, x->e);
}

/* --tokenizer, else the model's own, else tokenizer.model beside the file or one folder up (a run's
 * checkpoints). */
static Tokenizer *open_tokenizer(Args *x, const Model *m)
{
    const char *path = get(x, "tokenizer", m->tokenizer_path);
    static const char *const near[] = {"tokenizer.model", "../tokenizer.model"};
    for (int i = 0; !path && m->path && i < 2; i++) {
        const char *slash = strrchr(m->path, '/');
        const char *dir = slash ? arena_strndup(x->a, m->path, (size_t)(slash - m->path), x->e) : ".";
        const char *p = path_join(x->a, dir, near[i], x->e);
        if (p && file_exists(p)) path = p;
    }
    return path ? model_tokenizer(path, NULL, x->a, x->e) : NULL;
}

/* JSON has no NaN and no infinity. */
static json_t *json_number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static int say_json(json_t *j)
{
    char *s = json_dumps(j, JSON_REAL_PRECISION(9));
    json_decref(j);
    if (!s) fprintf(stderr, "pare: the result cannot be written as JSON\n");
    int rc = s ? say(s) : 1;
    free(s);
    return rc;
}

/* ---- train ---- */
static volatile sig_atomic_t stop_signal; /* the first one that asked to stop, or 0 */

static void on_signal(int sig)
{
    if (sig == SIGUSR1) {
        train_signal |= 1;
        return;
    }
    if (train_signal & 2) _exit(128 + sig); /* the second one does not wait */
    stop_signal = sig;
    train_signal |= 2;
}

/* As a shell reports it: 130 after SIGINT, 143 after SIGTERM. */
static int interrupted(void) { return stop_signal == SIGTERM ? 128 + SIGTERM : ERR_INTERRUPTED; }

static void catch_signals(void)
{
    struct sigaction s = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&s.sa_mask);
    sigaction(SIGINT, &s, NULL);
    sigaction(SIGTERM, &s, NULL);
    sigaction(SIGUSR1, &s, NULL);
}

/* All that a config names and is not there, each at its line. */
static bool files_exist(Config *c, Err *e)
{
    return config_check_files(c) || err_set(e, ERR_USAGE, "%s", config_error_text(c->doc));
}

static int v_train(Args *x)
{
    TrainOptions o = {.overwrite = has(x, "overwrite"), .dry_run = has(x, "dry-run")};
    const char *resume = get(x, "resume", NULL);
    if (resume) o.resume = *resume ? resume : "auto";
    if (has(x, "steps"))
        x->set[x->n_set++] = arena_printf(x->a, x->e, "train.max_steps=%s", get(x, "steps", ""));
    o.n_override = x->n_set;
    o.override = x->set;
    const char *path = x->n_pos ? x->pos[0] : NULL;
    catch_signals();
    if (has(x, "arms")) {
        char *table = NULL;
        if (!path) err_set(x->e, ERR_USAGE, "train --arms needs a config file");
        if (has(x, "json"))
            err_set(x->e, ERR_USAGE,
                    "train --arms writes its rows to arms.jsonl in run.output_dir: no --json");
        if (x->e->code || !train_arms(path, x->n_set, x->set, &o, &table, x->a, x->e)) return fail(x->e);
        int rc = say(table);
        return stop_signal ? interrupted() : rc;
    }
    Config *c = config_load(x->a, path, x->n_set, x->set, NULL, x->e);
    RunResult r;
    if (!c || !files_exist(c, x->e) || !train_run(c, &o, &r, x->a, x->e)) return fail(x->e);
    if (has(x, "json")) {
        json_t *j = json_pack("{s:s,s:I,s:o}", "status", r.status, "step", (json_int_t)r.step, "loss",
                              json_number(r.loss));
        if (r.has_eval) json_object_set_new(j, "perplexity", json_number(r.eval.perplexity));
        if (r.checkpoint) json_object_set_new(j, "checkpoint", json_string(r.checkpoint));
        int rc = say_json(j);
        if (rc) return rc;
    } else
        log_info("%s at step %lld%s%s", r.status, (long long)r.step, r.checkpoint ? ", checkpoint " : "",
                 r.checkpoint ? r.checkpoint : "");
    return !strcmp(r.status, "interrupted") ? interrupted() : 0;
}

static int v_validate(Args *x)
{
    Config *c = config_load(x->a, x->pos[0], x->n_set, x->set, NULL, x->e);
    char *text = c && files_exist(c, x->e) ? memory_report(c, x->a, x->e) : NULL;
    if (!text) return fail(x->e);
    return say(text);
}

static int v_config(Args *x)
{
    const char *what = x->pos[0];
    if (!strcmp(what, "schema")) {
        char *help = config_help(config_section(), x->a, x->e);
        return help ? say(help) : fail(x->e);
    }
    if (strcmp(what, "show") || x->n_pos < 2) {
        err_set(x->e, ERR_USAGE, "config show CONFIG, or config schema");
        return fail(x->e);
    }
    ConfigDoc *doc = NULL;
    Config *c = config_load(x->a, x->pos[1], x->n_set, x->set, &doc, x->e);
    char *text = c ? config_show(doc, config_section(), c, x->a, x->e) : NULL;
    return text ? say(text) : fail(x->e);
}

/* ---- eval ---- */
/* A config's defaults without its file: the data section that eval and encode read text by. */
static Config *defaults(Args *x)
{
    Config *c = arena_alloc(x->a, sizeof *c, x->e);
    ConfigDoc *d = c ? config_parse(x->a, NULL, x->n_set, x->set, x->e) : NULL;
    if (!d) return NULL;
    config_put_default(d, "data.eot", "none");
    if (!config_fill(d, config_section(), c, x->e)) {
        err_set(x->e, ERR_USAGE, "%s", config_error_text(d));
        return NULL;
    }
    return c;
}

static int v_eval(Args *x)
{
    Config *c = is_config(x->pos[0]) ? config_load(x->a, x->pos[0], x->n_set, x->set, NULL, x->e)
                                     : defaults(x);
    if (!c) return fail(x->e);
    const char *path = x->pos[0], *against = get(x, "against", NULL), *data = get(x, "data", NULL);
    if (is_config(path)) {
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
    if (x->e->code || !open_model(x, &m, path) || (against && !open_model(x, &t, against))) return fail(x->e);
    Tokenizer *tk = is_config(x->pos[0]) && c->tokenizer.path && !has(x, "tokenizer")
                        ? model_tokenizer(c->tokenizer.path, &c->tokenizer, x->a, x->e)
                        : open_tokenizer(x, &m);
    if (x->e->code || !tokens_load(&tok, src, &c->data, tk, (int)m.spec.V, x->a, x->e)) return fail(x->e);
    const char *protocol = get(x, "protocol", c->eval.perplexity.protocol);
    long T = (long)number(x, "seq-len",
                          is_config(x->pos[0])    ? (double)c->data.seq_len
                          : m.spec.max_pos < 1024 ? (double)m.spec.max_pos
                                                  : 1024);
    if (!strncmp(protocol, "concat-", 7)) {
        double n;
        if (config_parse_float(protocol + 7, &n)) T = (long)n;
    }
    if (!x->e->code && (T < 2 || T > m.spec.max_pos))
        err_set(x->e, ERR_USAGE, "--seq-len %ld: the model reads 2 to %ld tokens", T, m.spec.max_pos);
    if (x->e->code) return fail(x->e);
    long B = 4096 / T > 0 ? 4096 / T : 1;
    Evaluator *ev = evaluator_new(&m, against ? &t : NULL, B < 32 ? B : 32, T, x->a, x->e);
    EvalResult r;
    if (!ev || !evaluator_run(ev, &tok, tk ? tokenizer_bos(tk) : -1, protocol, T,
                              (long)number(x, "stride", 0), 0, &r, x->e))
        return fail(x->e);
    char *json = eval_json(&r, x->pos[0], src->path, x->a, x->e);
    if (!json) return fail(x->e);
    if (has(x, "json")) return say(json);
    char *text = arena_printf(
        x->a, x->e, "perplexity %.4f (%s, window %ld, %lld tokens, %.4f nat per token)%s", r.perplexity,
        r.protocol, r.window, (long long)r.tokens, r.nll,
        r.against ? arena_printf(x->a, x->e, "\nKL to %s %.5f nat per token, top-1 agreement %.2f %%",
                                 against, r.kl, 100 * r.top1_agreement)
                  : "");
    return text ? say(text) : fail(x->e);
}

/* ---- generate, probe ---- */
static int v_generate(Args *x)
{
    Model m;
    SampleOptions o = {.temperature = number(x, "temp", 0.8),
                       .top_k = (int64_t)number(x, "top-k", 40),
                       .top_p = number(x, "top-p", 0.95),
                       .min_p = number(x, "min-p", 0),
                       .repetition_penalty = number(x, "repetition-penalty", 1),
                       .seed = (uint64_t)number(x, "seed", 42)};
    long n = (long)number(x, "n", 64);
    if (!x->e->code && (o.temperature < 0 || o.top_k < 0 || o.top_p <= 0 || o.top_p > 1 || n < 0))
        err_set(x->e, ERR_USAGE, "generate: temp >= 0, top-k >= 0, 0 < top-p <= 1 and n >= 0 are needed");
    if (x->e->code || !open_model(x, &m, x->pos[0])) return fail(x->e);
    Tokenizer *tk = open_tokenizer(x, &m);
    Generation g;
    if (x->e->code || !generate(&g, &m, tk, get(x, "p", ""), n, &o, x->a, x->e)) return fail(x->e);
    long made = g.n - g.n_prompt;
    double rate = g.decode_s > 0 ? (double)made / g.decode_s : 0;
    if (has(x, "json")) {
        json_t *ids = json_array(), *j = NULL;
        for (long i = 0; i < g.n; i++) json_array_append_new(ids, json_integer(g.ids[i]));
        json_t *text = json_stringn(g.text, g.text_bytes);
        /* sampled bytes need not be UTF-8; ids always hold them */
        if (!text) text = json_null();
        j = json_pack("{s:o,s:o,s:I,s:f}", "text", text, "ids", ids, "prompt_tokens", (json_int_t)g.n_prompt,
                      "tokens_per_second", rate);
        return say_json(j);
    }
    fwrite(g.text, 1, g.text_bytes, stdout);
    fputc('\n', stdout);
    log_info("%ld prompt tokens in %.1f ms (%.0f tok/s), %ld tokens in %.1f ms (%.0f tok/s)", g.n_prompt,
             g.prefill_s * 1e3, (double)g.n_prompt / g.prefill_s, made, g.decode_s * 1e3, rate);
    return 0;
}

static int v_probe(Args *x)
{
    Model m;
    const char *in = get(x, "input", NULL), *out = get(x, "out", NULL);
    if (!in || !out)
        return fail(
            (err_set(x->e, ERR_USAGE, "probe needs --input IN.safetensors and --out OUT.safetensors"), x->e));
    if (!open_model(x, &m, x->pos[0]) || !probe(&m, in, out, has(x, "grad"), get(x, "taps", NULL), x->e))
        return fail(x->e);
    return 0;
}

/* ---- files ---- */
static int v_compare(Args *x)
{
    threads_init(0);
    char *s = compare_json(model_path(x, x->pos[0]), model_path(x, x->pos[1]), x->a, x->e);
    return s ? say(s) : fail(x->e);
}

static int v_inspect(Args *x)
{
    char *s = inspect_json(model_path(x, x->pos[0]), x->a, x->e);
    if (!s) return fail(x->e);
    if (has(x, "json")) return say(s);
    char *text = inspect_text(s, x->a, x->e);
    return text ? say(text) : fail(x->e);
}

static const char *guess_format(const char *out)
{
    size_t n = strlen(out);
    if (n > 3 && !strcmp(out + n - 3, ".h5")) return "hdf5";
    if (n > 12 && !strcmp(out + n - 12, ".safetensors")) return "safetensors";
    if (n > 4 && !strcmp(out + n - 4, ".bin")) return "llama2c";
    return "hf";
}

/* "5GB", "200MB", "4096": bytes, decimal units as the Hugging Face tools count them. */
static double size_bytes(Args *x, const char *name, double def)
{
    static const char *const unit[] = {"B", "KB", "MB", "GB"};
    static const double factor[] = {1, 1e3, 1e6, 1e9};
    const char *s = get(x, name, NULL);
    char *end = NULL;
    if (!s) return def;
    double v = strtod(s, &end);
    int i = !*end ? 0 : 4;
    for (int k = 0; k < 4; k++)
        if (!strcmp(end, unit[k])) i = k;
    if (i < 4) v *= factor[i];
    if (i == 4 || !(v >= 1))
        err_set(x->e, ERR_USAGE, "--%s: \"%s\" is no size such as 5GB or 200MB", name, s);
    return v;
}

static int v_export(Args *x)
{
    const char *out = x->pos[1], *format = get(x, "format", guess_format(out)),
               *dtype = get(x, "dtype", "float32");
    static const char *const known[] = {"hdf5", "safetensors", "hf", "llama2c"};
    bool ok = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok = ok || !strcmp(format, known[i]);
    DType t;
    if (!ok)
        err_set(x->e, ERR_USAGE,
                "--format %s: not in this version; formats are hdf5, safetensors, hf, llama2c", format);
    else if (!dtype_parse(dtype, &t) || (t != DT_F32 && t != DT_BF16 && t != DT_F16))
        err_set(x->e, ERR_USAGE, "--dtype %s: float32, bfloat16 or float16", dtype);
    double shard = size_bytes(x, "max-shard-size", 5e9);
    if (x->e->code) return fail(x->e);
    if (strcmp(format, "llama2c")) {
        ConvertOptions c = {format, get(x, "tokenizer", NULL), t, (int64_t)shard, has(x, "dry-run")};
        int n = 0;
        threads_init(0);
        if (!model_convert(model_path(x, x->pos[0]), out, &c, &n, x->e)) return fail(x->e);
        log_info("%s %s (%s, %s, %d tensors%s)", c.dry_run ? "would write" : "wrote", out, format, dtype, n,
                 c.dry_run ? "" : ", read back and equal");
        return 0;
    }
    Model m;
    OutModel o;
    if (!open_model(x, &m, x->pos[0])) return fail(x->e);
    if (has(x, "tokenizer")) m.tokenizer_path = get(x, "tokenizer", NULL);
    if (!model_out(&m, &o, t, x->a, x->e)) return fail(x->e);
    if (has(x, "dry-run")) {
        log_info("would write %s (%s, %d tensors)", out, format, o.n);
        return 0;
    }
    if (!formats_write_llama2c(out, &o, x->e)) return fail(x->e);
    Model back; /* what was written is read again and compared */
    if (open_model(x, &back, out)) {
        const char *h1 = model_content_hash(&m, x->a, x->e), *h2 = model_content_hash(&back, x->a, x->e);
        if (h1 && h2 && strcmp(h1, h2))
            err_set(x->e, ERR_FAIL, "%s: what was read back differs from what was written", out);
    }
    if (x->e->code) return fail(x->e);
    log_info("wrote %s (%s, %s, %d tensors, read back and equal)", out, format, dtype, o.n);
    return 0;
}

/* ---- quantize ---- */
/* Every --name GLOB as one flow list, quoted: a YAML `*x` is an alias. */
static void globs_override(Args *x, const char *name, const char *key)
{
    const char *list = "";
    for (int i = 0; i < x->n_opt; i++)
        if (!strcmp(x->opt[i], name))
            list = arena_printf(x->a, x->e, "%s%s'%s'", list, *list ? ", " : "", x->value[i]);
    if (*list) x->set[x->n_set++] = arena_printf(x->a, x->e, "%s=[%s]", key, list);
}

static int quantize_json(const QuantizeReport *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->n; i++) {
        const QuantizeRow *w = &r->row[i];
        json_array_append_new(list, json_pack("{s:s,s:s,s:f,s:o,s:f,s:f,s:I}", "name", w->name, "format",
                                              w->format->name, "mse", w->mse, "sqnr_db",
                                              isfinite(w->sqnr_db) ? json_real(w->sqnr_db) : json_null(),
                                              "max_error", w->max_error, "bits_per_weight",
                                              8.0 * (double)w->bytes / (double)w->parameters, "bytes",
                                              (json_int_t)w->bytes));
    }
    json_t *j = json_pack("{s:o,s:I,s:I}", "tensors", list, "bytes_before", (json_int_t)r->bytes_before,
                          "bytes_after", (json_int_t)r->bytes_after);
    char *s = json_dumps(j, JSON_REAL_PRECISION(9));
    const int rc = s ? say(s) : 1;
    free(s);
    json_decref(j);
    return rc;
}

static int v_quantize(Args *x)
{
    static const char *const keys[][2] = {
        {"format", "quantize.format"}, {"method", "quantize.method"}, {"group-size", "quantize.group_size"}};
    for (int i = 0; i < 3; i++) {
        const char *v = get(x, keys[i][0], NULL);
        if (v) x->set[x->n_set++] = arena_printf(x->a, x->e, "%s=%s", keys[i][1], v);
    }
    globs_override(x, "include", "quantize.include");
    globs_override(x, "exclude", "quantize.exclude");
    const char *out = x->pos[1];
    QuantizeReport r;
    const bool dry = has(x, "dry-run");
    Config *c = defaults(x);
    threads_init(0);
    if (!c || !quantize_file(model_path(x, x->pos[0]), out, &c->quantize, dry, &r, x->a, x->e))
        return fail(x->e);
    for (int i = 0; i < r.n; i++) {
        const QuantizeRow *w = &r.row[i];
        log_info("%-48s %-9s %6.3f bits  mse %.3e  sqnr %6.2f dB  max %.3e", w->name, w->format->name,
                 8.0 * (double)w->bytes / (double)w->parameters, w->mse, w->sqnr_db, w->max_error);
    }
    log_info("%s %s: %d tensors quantised, %lld bytes of tensors, before %lld%s",
             dry ? "would write" : "wrote", out, r.n, (long long)r.bytes_after, (long long)r.bytes_before,
             dry ? "" : "; read back, every value equal to its fake-quantised one");
    return has(x, "json") ? quantize_json(&r) : 0;
}

/* ---- data encode, decode ---- */
static char *read_line(FILE *f, Arena *a, size_t *n, Err *e)
{
    char *buf = NULL;
    size_t cap = 0;
    ssize_t got = getline(&buf, &cap, f);
    char *line = got < 0 ? NULL : arena_strndup(a, buf, (size_t)got, e);
    *n = got < 0 ? 0 : (size_t)got;
    free(buf);
    return line;
}

static bool encode_line(Args *x, const Tokenizer *tk, const json_t *o, long line, Arena *a)
{
    const json_t *t = json_object_get(o, "text");
    if (!json_is_string(t)) return err_set(x->e, ERR_USAGE, "stdin:%ld: no \"text\" string", line);
    TokenBuf ids = {0};
    const char *text = json_string_value(t);
    const size_t n = json_string_length(t);
    if (has(x, "no-bos") ? !tokenizer_encode(tk, text, n, false, &ids, a, x->e)
                         : !tokenizer_encode_framed(tk, text, n, &ids, a, x->e))
        return false;
    printf("{\"ids\": [");
    for (size_t i = 0; i < ids.n; i++) printf("%s%d", i ? ", " : "", ids.id[i]);
    printf("]}\n");
    return true;
}

static bool decode_line(Args *x, const Tokenizer *tk, const json_t *o, long line, Arena *a)
{
    const json_t *v = json_object_get(o, "ids");
    size_t n = json_array_size(v), bytes;
    int32_t *ids = arena_alloc(a, (n + 1) * sizeof *ids, x->e);
    if (!json_is_array(v)) return err_set(x->e, ERR_USAGE, "stdin:%ld: no \"ids\" array", line);
    for (size_t i = 0; ids && i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(v, i));
        if (!json_is_integer(json_array_get(v, i)) || id < 0 || id >= tokenizer_vocab(tk))
            return err_set(x->e, ERR_USAGE, "stdin:%ld: ids[%zu] is outside the vocabulary of %d", line, i,
                           tokenizer_vocab(tk));
        ids[i] = (int32_t)id;
    }
    char *text = ids ? tokenizer_decode(tk, ids, n, &bytes, a, x->e) : NULL;
    json_t *s = text ? json_pack("{s:o}", "text", json_stringn_nocheck(text, bytes)) : NULL;
    char *out = s ? json_dumps(s, 0) : NULL;
    if (out) printf("%s\n", out);
    else if (!x->e->code) err_set(x->e, ERR_FAIL, "stdin:%ld: the ids make no valid UTF-8", line);
    free(out);
    json_decref(s);
    return !x->e->code;
}

static int v_data_files(Args *x)
{
    const DataVerb v = {.what = x->pos[0],
                        .path = x->pos + 1,
                        .n_path = x->n_pos - 1,
                        .n = (int)number(x, "n", 0),
                        .set = x->set,
                        .n_set = x->n_set,
                        .tokenizer = get(x, "tokenizer", NULL),
                        .out = get(x, "out", NULL),
                        .field = get(x, "field", NULL),
                        .prompt_field = get(x, "prompt-field", NULL),
                        .response_field = get(x, "response-field", NULL),
                        .split = get(x, "split", NULL),
                        .resume = has(x, "resume"),
                        .overwrite = has(x, "overwrite")};
    catch_signals();
    char *text = x->e->code ? NULL : data_verb(&v, x->a, x->e);
    return text ? say(text) : fail(x->e);
}

/* data train-tokenizer FILES --vocab-size N --out F */
static int v_train_tokenizer(Args *x)
{
    const char *special[64], *out = get(x, "out", NULL);
    char *list = arena_strdup(x->a, get(x, "special", "<|endoftext|>"), x->e);
    BpeTraining o = {.path = (const char *const *)(x->pos + 1), .n_path = (size_t)(x->n_pos - 1)};
    long tokens;
    for (char *s = list; s && *s && o.n_special < 64;) {
        char *comma = strchr(s, ',');
        if (comma) *comma = 0;
        special[o.n_special++] = s;
        s = comma ? comma + 1 : NULL;
    }
    o.special = special;
    o.pattern = get(x, "pattern", "gpt2");
    o.vocab = (long)number(x, "vocab-size", 0);
    if (!x->e->code && (!out || !o.n_path || !o.vocab))
        err_set(x->e, ERR_USAGE, "data train-tokenizer needs FILES, --vocab-size N and --out tokenizer.json");
    if (x->e->code || !tokenizer_train(out, &o, &tokens, x->a, x->e)) return fail(x->e);
    log_info("wrote %s: %ld tokens, cut as %s", out, tokens, o.pattern);
    return 0;
}

static int v_data(Args *x)
{
    static const char *const files[] = {"tokenize", "pack", "stats", "inspect"};
    const char *what = x->pos[0], *path = get(x, "tokenizer", NULL);
    bool enc = !strcmp(what, "encode");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(what, files[i])) return v_data_files(x);
    if (!strcmp(what, "train-tokenizer")) return v_train_tokenizer(x);
    if (!enc && strcmp(what, "decode"))
        err_set(x->e, ERR_USAGE,
                "data %s: encode, decode, tokenize, pack, stats, inspect and train-tokenizer are known",
                what);
    else if (!path) err_set(x->e, ERR_USAGE, "data %s needs --tokenizer PATH", what);
    const TokenizerConfig how = {.pattern = get(x, "pattern", NULL)};
    Tokenizer *tk = x->e->code ? NULL : model_tokenizer(path, &how, x->a, x->e);
    Arena tmp = {.name = "line"};
    for (long line = 1; tk; line++) {
        size_t n;
        char *text = read_line(stdin, &tmp, &n, x->e);
        if (!text) break;
        json_error_t je;
        json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
        bool ok = o ? (enc ? encode_line : decode_line)(x, tk, o, line, &tmp)
                    : err_set(x->e, ERR_USAGE, "stdin:%ld: %s", line, je.text);
        json_decref(o);
        arena_free(&tmp);
        if (!ok) break;
    }
    return x->e->code ? fail(x->e) : 0;
}

/* ---- doctor ---- */
static int v_doctor(Args *x)
{
    bool ok;
    char *text = doctor_report(has(x, "json"), &ok, x->a, x->e);
    if (!text) return fail(x->e);
    int rc = say(text);
    return rc ? rc : ok ? 0 : 1;
}

/* ---- the tables ---- */
#define END                                                                                                  \
    {                                                                                                        \
        NULL, NULL, NULL, 0                                                                                  \
    }
static const Option o_train[] = {
    {"resume", "?", "auto (default) or a checkpoint", 0},
    {"steps", "N", "train.max_steps", 0},
    {"overwrite", NULL, "start over in a folder that holds a run", 0},
    {"dry-run", NULL, "build everything, one step, write nothing", 'n'},
    {"arms", NULL, "run every arm of `arms` with every seed and print the table", 0},
    {"set", "K=V", "an override, as key=value", 0},
    {"json", NULL, "one JSON object on stdout", 0},
    END};
static const Option o_set[] = {{"set", "K=V", "an override, as key=value", 0}, END};
static const Option o_eval[] = {{"data", "FILE", "text or .bin tokens", 0},
                                {"tokenizer", "P", "tokenizer.model", 0},
                                {"seq-len", "N", "window (default: the model's positions, at most 1024)", 0},
                                {"protocol", "P", "val (default), concat-N, stride, llamacpp", 0},
                                {"stride", "N", "of protocol stride", 0},
                                {"against", "TEACHER", "adds KL and top-1 agreement", 0},
                                {"set", "K=V", "an override", 0},
                                {"json", NULL, "one JSON object on stdout", 0},
                                END};
static const Option o_generate[] = {{"p", "TEXT", "prompt (default: BOS alone)", 'p'},
                                    {"n", "N", "new tokens (64)", 'n'},
                                    {"temp", "T", "temperature, 0 = greedy (0.8)", 0},
                                    {"top-k", "K", "0 = off (40)", 0},
                                    {"top-p", "P", "1 = off (0.95)", 0},
                                    {"min-p", "P", "0 = off", 0},
                                    {"repetition-penalty", "R", "1 = off", 0},
                                    {"seed", "S", "of the sampling (42)", 's'},
                                    {"tokenizer", "P", "tokenizer.model", 0},
                                    {"stats", NULL, "speed on stderr (always shown)", 0},
                                    {"json", NULL, "text, ids, speed as JSON", 0},
                                    END};
static const Option o_probe[] = {{"input", "F", "safetensors with input_ids [B,T], labels optional", 0},
                                 {"out", "F", "safetensors to write", 0},
                                 {"grad", NULL, "gradients of the mean loss", 0},
                                 {"taps", "GLOB", "activations by name", 0},
                                 END};
static const Option o_export[] = {
    {"format", "F", "hdf5, safetensors, hf, llama2c (default: by OUT's suffix)", 0},
    {"dtype", "T", "float32, bfloat16, float16", 0},
    {"tokenizer", "P", "copied beside", 0},
    {"dry-run", NULL, "write nothing", 'n'},
    {"verify", NULL, "read back and compare (always done)", 0},
    {"max-shard-size", "N", "hf: files of at most this size, such as 200MB (5GB)", 0},
    END};
static const Option o_quantize[] = {
    {"format", "F", "int8, int4, int3, int2, fp8_e4m3, fp8_e5m2, fp4_e2m1, nf4, mxfp8, mxfp4, nvfp4 (int4)",
     0},
    {"method", "M", "rtn: round to nearest", 0},
    {"group-size", "N", "columns that share a scale; -1 = a row", 0},
    {"include", "GLOB", "tensors (default: all linear ones); repeatable", 0},
    {"exclude", "GLOB", "tensors left alone; repeatable", 0},
    {"dry-run", NULL, "write nothing", 'n'},
    {"set", "K=V", "an override, such as quantize.symmetric=false", 0},
    {"json", NULL, "the table of errors on stdout", 0},
    END};
static const Option o_json[] = {{"json", NULL, "one JSON object on stdout", 0}, END};
static const Option o_data[] = {
    {"tokenizer", "P", "a tokenizer's file, a folder, or bytes", 0},
    {"pattern", "FAMILY", "how a rank file, or train-tokenizer, cuts text (gpt2)", 0},
    {"no-bos", NULL, "encode without what the tokenizer puts around a text", 0},
    {"vocab-size", "N", "train-tokenizer: tokens, specials and bytes included", 0},
    {"special", "A,B", "train-tokenizer: special tokens (<|endoftext|>)", 0},
    {"out", "F", "tokenize: .bin; pack: .h5; train-tokenizer: tokenizer.json", 0},
    {"field", "K", "json key of the text", 0},
    {"prompt-field", "K", "json key of the prompt", 0},
    {"response-field", "K", "json key of the response", 0},
    {"split", "S", "part of the files, as train[:95%]", 0},
    {"resume", NULL, "tokenize: go on from OUT.part, an error when it cannot", 0},
    {"overwrite", NULL, "tokenize: start over even when OUT.part could go on", 0},
    {"n", "N", "inspect: documents shown (3)", 'n'},
    {"set", "K=V", "an override, as key=value", 0},
    {"json", NULL, "stats, tokenize, pack: always JSON", 0},
    END};
static const Verb verbs[] = {
    {"train", "CONFIG [key=value ...]", "run a config", 0, 1, v_train, o_train},
    {"finetune", "CONFIG [key=value ...]", "the same", 0, 1, v_train, o_train},
    {"distill", "CONFIG [key=value ...]", "the same", 0, 1, v_train, o_train},
    {"validate", "CONFIG [key=value ...]", "check a config, all errors at once, and estimate memory", 1, 1,
     v_validate, o_set},
    {"config", "show CONFIG | schema", "resolved values with their origin; every key with its help", 1, 2,
     v_config, o_set},
    {"eval", "CONFIG|MODEL", "perplexity; KL and agreement against a teacher", 1, 1, v_eval, o_eval},
    {"generate", "MODEL", "continue a prompt", 1, 1, v_generate, o_generate},
    {"probe", "MODEL", "one batch: logits, losses, gradients, activations", 1, 1, v_probe, o_probe},
    {"compare", "A B", "tensor-wise difference of two files of any format", 2, 2, v_compare, o_json},
    {"inspect", "FILE", "what a file holds", 1, 1, v_inspect, o_json},
    {"export", "IN OUT", "write a model in another format", 2, 2, v_export, o_export},
    {"import", "IN OUT", "the same, into HDF5 by default suffix", 2, 2, v_export, o_export},
    {"quantize", "IN OUT", "weights as codes and scales: int8 to int2, FP8, FP4, NF4", 2, 2, v_quantize,
     o_quantize},
    {"data", "WHAT [CONFIG|FILES]", "encode, decode, tokenize, pack, stats, inspect, train-tokenizer", 1, 200,
     v_data, o_data},
    {"doctor", "", "CPU, threads, libraries, a self-test", 0, 0, v_doctor, o_json},
};
enum { N_VERB = (int)(sizeof verbs / sizeof *verbs) };

static int usage(FILE *f)
{
    fprintf(f, "pare: trains transformers and makes them small\n"
               "usage: pare [-v|-q] VERB [options] [CONFIG] [key=value ...]\n\n");
    for (int i = 0; i < N_VERB; i++)
        fprintf(f, "  %-9s %-24s %s\n", verbs[i].name, verbs[i].args, verbs[i].help);
    fprintf(f, "\n`pare VERB --help` lists a verb's options; `pare config schema` every key of a config.\n"
               "exit: 0 ok, 1 failure, 2 usage or config, 3 damaged data, 4 out of memory, 5 no device,\n"
               "      130 interrupted after saving (143 by SIGTERM)\n");
    return 0;
}

static int verb_help(const Verb *v)
{
    printf("usage: pare %s %s\n%s\n\n", v->name, v->args, v->help);
    for (const Option *o = v->opt; o->name; o++) {
        char left[64];
        char letter[8] = "";
        if (o->letter) snprintf(letter, sizeof letter, ", -%c", o->letter);
        snprintf(left, sizeof left, "--%s%s%s%s", o->name, letter,
                 o->value ? (*o->value == '?' ? "[=PATH]" : " ") : "",
                 o->value && *o->value != '?' ? o->value : "");
        printf("  %-28s  %s\n", left, o->help);
    }
    return 0;
}

/* --name, --name VALUE, --name=VALUE, -x, -x VALUE. value "?" = optional, only with =. */
static bool take_option(Args *x, const Verb *v, int argc, char **argv, int *i)
{
    const char *s = argv[*i];
    bool is_long = s[1] == '-';
    const char *name = s + (is_long ? 2 : 1), *eq = is_long ? strchr(name, '=') : NULL;
    size_t n = eq ? (size_t)(eq - name) : strlen(name);
    const char *names[64];
    int n_names = 0;
    for (const Option *o = v->opt; o->name; o++) {
        names[n_names++] = o->name;
        bool match = is_long ? strlen(o->name) == n && !strncmp(o->name, name, n)
                             : n == 1 && o->letter == name[0];
        if (!match) continue;
        const char *value = eq ? eq + 1 : NULL;
        if (!o->value && eq) return err_set(x->e, ERR_USAGE, "--%s takes no value", o->name);
        if (o->value && *o->value != '?' && !value) {
            if (*i + 1 >= argc) return err_set(x->e, ERR_USAGE, "%s needs a value (%s)", s, o->value);
            value = argv[++*i];
        }
        if (!strcmp(o->name, "set")) {
            x->set[x->n_set++] = arena_strdup(x->a, value, x->e);
            return !x->e->code;
        }
        x->opt[x->n_opt] = o->name;
        x->value[x->n_opt++] = value;
        return true;
    }
    const char *best = is_long ? nearest_name(name, names, n_names) : NULL;
    return err_set(x->e, ERR_USAGE, "%s: unknown option of `pare %s`%s%s%s; see `pare %s --help`", s, v->name,
                   best ? " (did you mean --" : "", best ? best : "", best ? "?)" : "", v->name);
}

/* key=value is an override unless a file of that name exists; ~key and +key=value always are. */
static bool is_override(const char *s)
{
    if ((s[0] == '~' || s[0] == '+') && s[1] && s[1] != '/') return true;
    const char *eq = strchr(s, '=');
    return eq && eq > s && !file_exists(s);
}

static bool parse(Args *x, const Verb *v, int argc, char **argv)
{
    bool plain = false;
    for (int i = 0; i < argc && !x->e->code; i++) {
        if (x->n_pos + x->n_set + x->n_opt > MAX_ARGS - 8)
            return err_set(x->e, ERR_USAGE, "too many arguments");
        if (!plain && !strcmp(argv[i], "--")) plain = true;
        else if (!plain && argv[i][0] == '-' && argv[i][1]) take_option(x, v, argc, argv, &i);
        else if (is_override(argv[i])) x->set[x->n_set++] = argv[i];
        else x->pos[x->n_pos++] = argv[i];
    }
    if (!x->e->code && (x->n_pos < v->min_pos || x->n_pos > v->max_pos))
        err_set(x->e, ERR_USAGE, "usage: pare %s %s", v->name, v->args);
    return !x->e->code;
}

static int command(int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (!strcmp(argv[i], "-v")) log_set_level(LOG_DEBUG);
        else if (!strcmp(argv[i], "-q")) log_set_level(LOG_WARN);
        else if (!strncmp(argv[i], "--color=", 8)) {
            if (!strcmp(argv[i] + 8, "never")) setenv("NO_COLOR", "1", 1);
        } else if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) return usage(stdout);
        else if (!strcmp(argv[i], "--version")) {
            printf("%s\n", pare_version());
            return 0;
        } else {
            fprintf(stderr, "pare: %s: unknown option; see `pare --help`\n", argv[i]);
            return ERR_USAGE;
        }
    }
    if (i == argc) {
        usage(stderr);
        return ERR_USAGE;
    }
    const char *names[N_VERB];
    const Verb *v = NULL;
    for (int k = 0; k < N_VERB; k++) {
        names[k] = verbs[k].name;
        if (!strcmp(verbs[k].name, argv[i])) v = &verbs[k];
    }
    if (!v) {
        const char *best = nearest_name(argv[i], names, N_VERB);
        fprintf(stderr, "pare: %s: no such verb%s%s%s; see `pare --help`\n", argv[i],
                best ? " (did you mean " : "", best ? best : "", best ? "?)" : "");
        return ERR_USAGE;
    }
    for (int k = i + 1; k < argc; k++)
        if (!strcmp(argv[k], "--help") || !strcmp(argv[k], "-h")) return verb_help(v);
    Arena a = {.name = "program"};
    Err e = {0};
    Args x = {.verb = v->name, .a = &a, .e = &e};
    int rc = parse(&x, v, argc - i - 1, argv + i + 1) ? v->run(&x) : fail(&e);
    arena_free(&a);
    return rc;
}

/* A result that did not reach its file is a failure, whichever verb wrote it. */
int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is a full disk: an error of write, with a message */
    int rc = command(argc, argv);
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (lost && !rc) fprintf(stderr, "pare: writing to standard output failed\n");
    return rc ? rc : lost ? 1 : 0;
}
