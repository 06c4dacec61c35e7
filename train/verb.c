/* train/verb.c: what the verbs share: options by name, the model and tokenizer an argument means, results. */
#include "train/verb_impl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *args_get(const Args *x, const char *name, const char *def)
{
    for (int i = x->n_opt - 1; i >= 0; i--)
        if (!strcmp(x->opt[i], name)) return x->value[i] ? x->value[i] : "";
    return def;
}
bool args_has(const Args *x, const char *name) { return args_get(x, name, NULL) != NULL; }

double args_number(Args *x, const char *name, double def)
{
    const char *s = args_get(x, name, NULL);
    double v;
    if (!s) return def;
    if (!config_parse_float(s, &v)) {
        err_set(x->e, ERR_USAGE, "--%s: \"%s\" is not a number", name, s);
        return def;
    }
    return v;
}

int64_t args_int(Args *x, const char *name, int64_t def, int64_t lo, int64_t hi)
{
    const char *s = args_get(x, name, NULL);
    int64_t v;
    if (!s) return def;
    if (config_parse_int(s, &v) && v >= lo && v <= hi) return v;
    if (hi == INT64_MAX)
        err_set(x->e, ERR_USAGE, "--%s: \"%s\" is not a whole number of at least %lld", name, s,
                (long long)lo);
    else
        err_set(x->e, ERR_USAGE, "--%s: \"%s\" is not a whole number from %lld to %lld", name, s,
                (long long)lo, (long long)hi);
    return def;
}

double args_float(Args *x, const char *name, double def, double lo, double hi)
{
    const double v = args_number(x, name, def);
    if (x->e->code || (v >= lo && v <= hi)) return v;
    if (lo == CFG_ABOVE_0) err_set(x->e, ERR_USAGE, "--%s: %g is not above 0 and at most %g", name, v, hi);
    else err_set(x->e, ERR_USAGE, "--%s: %g is not from %g to %g", name, v, lo, hi);
    return def;
}

static const ConfigField *field_of(const ConfigSection *s, const char *key)
{
    int i = 0;
    while (i + 1 < s->n && strcmp(s->field[i].name, key)) i++;
    return &s->field[i];
}

int64_t args_int_key(Args *x, const char *name, const ConfigSection *s, const char *key)
{
    const ConfigField *f = field_of(s, key);
    int64_t def = 0;
    config_parse_int(f->def, &def);
    return args_int(x, name, def, (int64_t)f->lo, f->hi < 0x1p63 ? (int64_t)f->hi : INT64_MAX);
}

double args_float_key(Args *x, const char *name, const ConfigSection *s, const char *key)
{
    const ConfigField *f = field_of(s, key);
    double def = 0;
    config_parse_float(f->def, &def);
    return args_float(x, name, def, f->lo, f->hi);
}

int args_say(Args *x, const char *text)
{
    bool ok = fputs(text, x->out) >= 0 && fputc('\n', x->out) >= 0 && !fflush(x->out);
    if (!ok) err_set(x->e, ERR_FAIL, "writing to standard output failed");
    return ok ? 0 : 1;
}

/* JSON has no NaN and no infinity. */
json_t *args_json_number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

int args_say_json(Args *x, json_t *j)
{
    char *s = json_dumps(j, JSON_REAL_PRECISION(9));
    json_decref(j);
    if (!s) err_set(x->e, ERR_FAIL, "the result cannot be written as JSON");
    int rc = s ? args_say(x, s) : 1;
    free(s);
    return rc;
}

const Kernels *args_kernels(void)
{
    threads_init(0);
    return kernels_cpu_f32();
}

bool args_is_config(const char *path)
{
    size_t n = strlen(path);
    return (n > 5 && !strcmp(path + n - 5, ".yaml")) || (n > 4 && !strcmp(path + n - 4, ".yml"));
}

/* A run's folder stands for its newest checkpoint. */
const char *args_path(Args *x, const char *path)
{
    const char *dir = path_join(x->a, path, "checkpoints", x->e);
    if (!dir || !file_exists(dir)) return path;
    const char *newest = checkpoint_find(path, x->a, x->e);
    return newest ? newest : path;
}

bool args_model(Args *x, Model *m, const char *path)
{
    return model_open_frozen(m, args_path(x, path), args_kernels(), x->a, x->e);
}

/* Says how the weights are held, where some of them are codes. */
static void say_packed(const Model *m)
{
    const WeightBytes b = model_weight_bytes(m);
    if (b.n_packed)
        log_info("%d matrices run packed: %.3f MB of codes and scales, %.3f MB of other weights as floats "
                 "(--dense decodes them all)",
                 b.n_packed, (double)b.packed / 1e6, (double)b.dense / 1e6);
}

bool args_packed(Args *x, Model *m, const char *path, bool dense)
{
    if (dense || args_has(x, "dense")) return args_model(x, m, path);
    if (!model_open_packed(m, args_path(x, path), args_kernels(), x->a, x->e)) return false;
    say_packed(m);
    return true;
}

/* --tokenizer, else the model's own, else tokenizer.model beside the file or one folder up (a run's
 * checkpoints). */
Tokenizer *args_tokenizer_as(Args *x, const Model *m, const TokenizerConfig *how)
{
    const char *path = args_get(x, "tokenizer", m->tokenizer_path);
    static const char *const near[] = {"tokenizer.model", "../tokenizer.model"};
    for (int i = 0; !path && m->path && i < 2; i++) {
        const char *slash = strrchr(m->path, '/');
        const char *dir = slash ? arena_strndup(x->a, m->path, (size_t)(slash - m->path), x->e) : ".";
        const char *p = path_join(x->a, dir, near[i], x->e);
        if (p && file_exists(p)) path = p;
    }
    TokenizerConfig *own = arena_alloc(x->a, sizeof *own, x->e); /* the tokenizer keeps it */
    if (!own || !path) return NULL;
    *own = how ? *how : (TokenizerConfig){0};
    own->pattern = args_get(x, "pattern", own->pattern);
    return model_tokenizer(path, own, x->a, x->e);
}

Tokenizer *args_tokenizer(Args *x, const Model *m) { return args_tokenizer_as(x, m, NULL); }

/* A config's defaults without its file: the data section that eval and encode read text by. */
Config *args_defaults(Args *x)
{
    Config *c = arena_alloc(x->a, sizeof *c, x->e);
    ConfigDoc *d = c ? config_parse(x->a, NULL, x->n_set, x->set, x->e) : NULL;
    if (!d) return NULL;
    config_put_default(d, "data.eot", "none");
    if (!config_fill(d, config_section(), c, x->e)) {
        err_set(x->e, ERR_USAGE, "%s", config_error_text(d));
        return NULL;
    }
    c->doc = d;
    return c;
}
