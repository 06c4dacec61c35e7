/* train/verb_files.c: compare, inspect, export, import, quantize. */
#include "train/verb_impl.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int verb_compare(Args *x)
{
    threads_init(0);
    char *s = compare_json(args_path(x, x->pos[0]), args_path(x, x->pos[1]), x->a, x->e);
    return s ? args_say(x, s) : 1;
}

int verb_inspect(Args *x)
{
    const char *path = args_path(x, x->pos[0]);
    if (path && cache_is(path)) {
        char *about = cache_inspect(path, args_has(x, "json"), x->a, x->e);
        return about ? args_say(x, about) : 1;
    }
    char *s = inspect_json(path, args_has(x, "trust-foreign"), x->a, x->e);
    if (!s) return 1;
    if (args_has(x, "json")) return args_say(x, s);
    char *text = inspect_text(s, x->a, x->e);
    return text ? args_say(x, text) : 1;
}

static bool tail_is(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n > m && !strcmp(s + n - m, tail);
}

/* By OUT's suffix; a name without one is a folder. import's default is HDF5. An unknown suffix names no
 * format. */
static const char *guess_format(const Args *x, const char *out)
{
    static const char *const by[][2] = {
        {".h5", "hdf5"},     {".hdf5", "hdf5"}, {".safetensors", "safetensors"},
        {".bin", "llama2c"}, {".gguf", "gguf"}, {".onnx", "onnx"}};
    for (size_t i = 0; i < sizeof by / sizeof *by; i++)
        if (tail_is(out, by[i][0])) return by[i][1];
    const char *base = strrchr(out, '/'), *dot = strrchr(base ? base : out, '.');
    if (dot && !(dot[1] >= '0' && dot[1] <= '9')) return dot;
    return !strcmp(x->verb, "import") ? "hdf5" : "hf";
}

/* Writing over what is being read would lose it. */
static bool other_file(Args *x, const char *in, const char *out)
{
    struct stat a, b;
    if (stat(in, &a) || stat(out, &b) || a.st_dev != b.st_dev || a.st_ino != b.st_ino) return true;
    return err_set(x->e, ERR_USAGE, "%s: OUT is IN; give another name", out);
}

/* "5GB", "200MB", "4096": bytes, decimal units as the Hugging Face tools count them. */
static double size_bytes(Args *x, const char *name, double def)
{
    static const char *const unit[] = {"B", "KB", "MB", "GB"};
    static const double factor[] = {1, 1e3, 1e6, 1e9};
    const char *s = args_get(x, name, NULL);
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

static bool write_as(const char *format, const char *out, const OutModel *o, int64_t shard, Err *e)
{
    if (!strcmp(format, "hdf5")) return formats_write_h5(out, o, e);
    if (!strcmp(format, "hf")) return formats_write_hf(out, o, shard, e);
    if (!strcmp(format, "llama2c")) return formats_write_llama2c(out, o, e);
    return formats_write_safetensors(out, o, e);
}

/* The adapter of a training state (or of --adapter, on the model it belongs to) alone. */
static int export_adapter(Args *x, const char *out, const char *format)
{
    Model m;
    Lora own, **all, *l = &own;
    int n = 0;
    if (x->e->code || !args_adapted(x, &m, x->pos[0], &all, &n)) return 1;
    if (n > 1 && !lora_concat(&own, all, n, "default", &m, x->e)) return 1;
    if (n == 1) l = all[0];
    if (!n && !lora_read(&own, &m, args_path(x, x->pos[0]), "default", x->e)) return 1;
    if (args_has(x, "dry-run")) return (log_info("would write %s (%s, %d modules)", out, format, l->n), 0);
    if (!(strcmp(format, "peft") ? lora_write_h5(l, out, x->e) : lora_write_peft(l, out, x->e))) return 1;
    log_info("wrote %s (%s, %d modules)", out, format, l->n);
    return 0;
}

int verb_export(Args *x)
{
    const char *out = x->pos[1], *format = args_get(x, "format", guess_format(x, out)),
               *dtype = args_get(x, "dtype", "float32");
    static const char *const known[] = {"hdf5", "safetensors", "hf", "llama2c", "peft", "adapter"};
    bool ok = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) ok = ok || !strcmp(format, known[i]);
    DType t;
    if (!ok)
        err_set(
            x->e, ERR_USAGE,
            "%s%s: not in this version; formats are hdf5, safetensors, hf, llama2c, peft, adapter (--format)",
            args_has(x, "format") ? "--format " : "OUT's suffix means format ", format);
    else if (!dtype_parse(dtype, &t) || (t != DT_F32 && t != DT_BF16 && t != DT_F16))
        err_set(x->e, ERR_USAGE, "--dtype %s: float32, bfloat16 or float16", dtype);
    double shard = size_bytes(x, "max-shard-size", 5e9);
    if (x->e->code || !other_file(x, args_path(x, x->pos[0]), out)) return 1;
    if (!strcmp(format, "peft") || !strcmp(format, "adapter")) return export_adapter(x, out, format);
    if (strcmp(format, "llama2c") && !args_has(x, "adapter")) {
        ConvertOptions c = {format, args_get(x, "tokenizer", NULL), t, (int64_t)shard,
                            args_has(x, "dry-run")};
        int n = 0;
        threads_init(0);
        if (!model_convert(args_path(x, x->pos[0]), out, &c, &n, x->e)) return 1;
        log_info("%s %s (%s, %s, %d tensors%s)", c.dry_run ? "would write" : "wrote", out, format, dtype, n,
                 c.dry_run ? "" : ", read back and equal");
        return 0;
    }
    Model m;
    OutModel o;
    if (!args_adapted(x, &m, x->pos[0], NULL, NULL)) return 1;
    if (args_has(x, "tokenizer")) m.tokenizer_path = args_get(x, "tokenizer", NULL);
    if (!model_out(&m, &o, t, x->a, x->e)) return 1;
    if (args_has(x, "dry-run")) {
        log_info("would write %s (%s, %d tensors)", out, format, o.n);
        return 0;
    }
    if (!write_as(format, out, &o, (int64_t)shard, x->e)) return 1;
    if (strcmp(format, "llama2c")) {
        log_info("wrote %s (%s, %s, %d tensors, adapters merged)", out, format, dtype, o.n);
        return 0;
    }
    Model back; /* what was written is read again and compared */
    if (args_model(x, &back, out)) {
        const char *h1 = model_content_hash(&m, x->a, x->e), *h2 = model_content_hash(&back, x->a, x->e);
        if (h1 && h2 && strcmp(h1, h2))
            err_set(x->e, ERR_FAIL, "%s: what was read back differs from what was written", out);
    }
    if (x->e->code) return 1;
    log_info("wrote %s (%s, %s, %d tensors, read back and equal)", out, format, dtype, o.n);
    return 0;
}

/* Every --name GLOB as one flow list, quoted: a YAML `*x` is an alias. */
void args_globs(Args *x, const char *name, const char *key)
{
    const char *list = "";
    for (int i = 0; i < x->n_opt; i++)
        if (!strcmp(x->opt[i], name))
            list = arena_printf(x->a, x->e, "%s%s'%s'", list, *list ? ", " : "", x->value[i]);
    if (*list) x->set[x->n_set++] = arena_printf(x->a, x->e, "%s=[%s]", key, list);
}

static int quantize_json(Args *x, const QuantizeReport *r)
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
    return args_say_json(x, j);
}

int verb_quantize(Args *x)
{
    static const char *const keys[][2] = {
        {"format", "quantize.format"}, {"method", "quantize.method"}, {"group-size", "quantize.group_size"}};
    for (int i = 0; i < 3; i++) {
        const char *v = args_get(x, keys[i][0], NULL);
        if (v) x->set[x->n_set++] = arena_printf(x->a, x->e, "%s=%s", keys[i][1], v);
    }
    args_globs(x, "include", "quantize.include");
    args_globs(x, "exclude", "quantize.exclude");
    const char *out = x->pos[1];
    QuantizeReport r;
    const bool dry = args_has(x, "dry-run");
    Config *c = args_defaults(x);
    threads_init(0);
    if (!c || !quantize_file(args_path(x, x->pos[0]), out, &c->quantize, dry, &r, x->a, x->e)) return 1;
    for (int i = 0; i < r.n; i++) {
        const QuantizeRow *w = &r.row[i];
        log_info("%-48s %-9s %6.3f bits  mse %.3e  sqnr %6.2f dB  max %.3e", w->name, w->format->name,
                 8.0 * (double)w->bytes / (double)w->parameters, w->mse, w->sqnr_db, w->max_error);
    }
    log_info("%s %s: %d tensors quantised, %lld bytes of tensors, before %lld%s",
             dry ? "would write" : "wrote", out, r.n, (long long)r.bytes_after, (long long)r.bytes_before,
             dry ? "" : "; read back, every value equal to its fake-quantised one");
    return args_has(x, "json") ? quantize_json(x, &r) : 0;
}
