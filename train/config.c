/* train/config.c: config_load: the file and its overrides as a Config, with the rules between keys (product
 * page 4). */
#include <glob.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/config_impl.h"

double config_seconds(const char *text)
{
    static const struct {
        char unit;
        double seconds;
    } units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
    double total = 0;
    for (const char *p = text; p && *p;) {
        char number[32];
        size_t n = strspn(p, "0123456789.");
        double x, factor = p[n] ? -1 : 1; /* a bare number is seconds */
        snprintf(number, sizeof number, "%.*s", (int)n, p);
        for (int i = 0; i < CFG_COUNT(units); i++)
            if (p[n] == units[i].unit) factor = units[i].seconds;
        if (n == 0 || n >= sizeof number || factor < 0 || !config_parse_float(number, &x)) return -1;
        total += x * factor;
        p += n + (p[n] != 0);
    }
    return total;
}

/* ---- rules, one function per section ---------------------------------------------------------------- */
static void check_top(Config *c)
{
    ConfigDoc *d = c->doc;
    if (!config_was_set(d, "version"))
        config_error(d, "version", "required; this program reads `version: 1`");
    if (c->run.time_limit && config_seconds(c->run.time_limit) <= 0)
        config_error(d, "run.time_limit", "\"%.40s\" is not a duration such as 90m, 4h or 1h30m",
                     c->run.time_limit);
    if (c->run.resume && !c->run.resume[0])
        config_error(d, "run.resume", "expected auto, never or a checkpoint");
    if (c->run.output_dir && (!c->run.output_dir[0] || !strncmp(c->run.output_dir, "~/", 2)))
        config_error(d, "run.output_dir", "a folder is required; ~ is not expanded, ${env:HOME} is");
    config_check_teachers(c);
    for (int i = 0; i < c->seeds.n; i++)
        for (int k = 0; k < i; k++)
            if (c->seeds.v[i] == c->seeds.v[k])
                config_error(d, "seeds", "%lld is listed twice", (long long)c->seeds.v[i]);
}

static void check_init_heads(Config *c, const ModelInitConfig *m, bool gpt2)
{
    ConfigDoc *d = c->doc;
    int64_t heads = m->num_attention_heads, kv = m->num_key_value_heads;
    bool written_dim = config_was_set(d, "model.init.head_dim") && m->head_dim > 0;
    if (heads > 0 && m->hidden_size > 0 && !written_dim && m->hidden_size % heads)
        config_error(d, "model.init.num_attention_heads",
                     "%lld heads do not divide hidden_size %lld; give head_dim", (long long)heads,
                     (long long)m->hidden_size);
    if (heads > 0 && kv > 0 && heads % kv)
        config_error(d, "model.init.num_key_value_heads", "must divide num_attention_heads %lld",
                     (long long)heads);
    if (gpt2 && heads > 0 && kv > 0 && kv != heads)
        config_error(d, "model.init.num_key_value_heads", "gpt2 has one per query head (%lld)",
                     (long long)heads);
    if (gpt2 && heads > 0 && written_dim && m->head_dim * heads != m->hidden_size)
        config_error(d, "model.init.head_dim", "gpt2 has hidden_size / num_attention_heads");
    if (!gpt2 && m->head_dim % 2)
        config_error(d, written_dim ? "model.init.head_dim" : "model.init.num_attention_heads",
                     "a head is %lld wide; rotary positions need an even width", (long long)m->head_dim);
}

static void derive_init(Config *c, ModelInitConfig *m, bool gpt2)
{
    const Family *f = family_find(m->arch);
    int64_t heads = m->num_attention_heads;
    if (m->num_key_value_heads == 0) m->num_key_value_heads = heads;
    if (m->head_dim == 0 && heads > 0) m->head_dim = m->hidden_size / heads;
    if (m->intermediate_size == 0 && gpt2) m->intermediate_size = 4 * m->hidden_size;
    if (m->max_position_embeddings == 0) m->max_position_embeddings = c->data.seq_len;
    if (f && f->tied_default && !config_was_set(c->doc, "model.init.tie_word_embeddings"))
        m->tie_word_embeddings = true;
}

static void check_init(Config *c)
{
    ModelInitConfig *m = &c->model.init;
    ConfigDoc *d = c->doc;
    bool gpt2 = m->arch && strcmp(m->arch, "gpt2") == 0;
    if (m->hidden_size == 0) config_error(d, "model.init.hidden_size", "required for a fresh model");
    if (m->num_hidden_layers == 0)
        config_error(d, "model.init.num_hidden_layers", "required for a fresh model");
    if (m->num_attention_heads == 0)
        config_error(d, "model.init.num_attention_heads", "required for a fresh model");
    if (m->intermediate_size == 0 && !gpt2)
        config_error(d, "model.init.intermediate_size", "required for a fresh %s model",
                     m->arch ? m->arch : "");
    derive_init(c, m, gpt2);
    check_init_heads(c, m, gpt2);
    if (c->data.seq_len <= m->max_position_embeddings) return;
    const char *key = config_was_set(d, "data.seq_len") ? "data.seq_len"
                                                        : "model.init.max_position_embeddings";
    if (gpt2)
        config_error(d, key, "sequences of %lld tokens in a model of %lld positions",
                     (long long)c->data.seq_len, (long long)m->max_position_embeddings);
    else
        log_warn("%s: %lld tokens, beyond the model's %lld positions", key, (long long)c->data.seq_len,
                 (long long)m->max_position_embeddings);
}

static void check_model(Config *c)
{
    ConfigDoc *d = c->doc;
    c->model.has_init = config_was_set(d, "model.init");
    c->model.has_teacher = config_was_set(d, "model.init_from_teacher") &&
                           !config_is_null(config_node(d, "model.init_from_teacher"));
    if (c->model.has_teacher) config_check_init_teacher(c);
    else if (c->model.path && c->model.has_init) config_error(d, "model.init", "exclusive with model.path");
    else if (!c->model.path && !c->model.has_init)
        config_error(d, "model.path", "required: a model to load, or model.init for a fresh one");
    else if (c->model.has_init) check_init(c);
}

static void check_sources(Config *c, const char *key, const SourceConfig *s, int n)
{
    for (int i = 0; i < n; i++) {
        char at[64];
        snprintf(at, sizeof at, "%s[%d].path", key, i);
        if (!s[i].path || !s[i].path[0]) config_error(c->doc, at, "required");
    }
}

static void check_data(Config *c)
{
    if (c->data.train.n == 0) config_error(c->doc, "data.train", "at least one source is required");
    check_sources(c, "data.train", c->data.train.v, c->data.train.n);
    check_sources(c, "data.val", c->data.val.v, c->data.val.n);
    if (c->train.early_stopping.patience > 0 && c->data.val.n == 0)
        config_error(c->doc, "train.early_stopping.patience", "needs data.val");
}

static void check_train(Config *c)
{
    TrainConfig *t = &c->train;
    ConfigDoc *d = c->doc;
    int64_t micro = t->batch_size * c->data.seq_len;
    if (t->max_steps == 0 && t->epochs == 0)
        config_error(d, "train.max_steps", "0 steps: give epochs or max_steps");
    /* counts of tokens are exact in a double, and samples of a step in 32 bits */
    const double accum = t->tokens_per_step ? (double)t->tokens_per_step / (double)micro
                                            : (double)t->gradient_accumulation_steps;
    if (accum * (double)micro > 0x1p53 || accum * (double)t->batch_size > UINT32_MAX)
        config_error(d, t->tokens_per_step ? "train.tokens_per_step" : "train.batch_size",
                     "a step of %.0f samples of %lld tokens is too large", accum * (double)t->batch_size,
                     (long long)c->data.seq_len);
    if (t->tokens_per_step == 0) return;
    if (micro <= 0 || t->tokens_per_step % micro) {
        config_error(d, "train.tokens_per_step",
                     "%lld is not a multiple of batch_size %lld times data.seq_len %lld",
                     (long long)t->tokens_per_step, (long long)t->batch_size, (long long)c->data.seq_len);
        return;
    }
    int64_t steps = t->tokens_per_step / micro;
    if (config_was_set(d, "train.gradient_accumulation_steps") && t->gradient_accumulation_steps != steps)
        config_error(d, "train.gradient_accumulation_steps",
                     "exclusive with train.tokens_per_step, which makes it %lld", (long long)steps);
    t->gradient_accumulation_steps = steps;
}

static void check_optim(Config *c)
{
    ConfigDoc *d = c->doc;
    const ScheduleConfig *s = &c->schedule;
    const OptimConfig *o = &c->optim;
    bool pair = o->betas.n == 2;
    for (int i = 0; i < o->betas.n; i++) pair = pair && o->betas.v[i] >= 0 && o->betas.v[i] < 1;
    if (!pair) config_error(d, "optim.betas", "expected two numbers in [0, 1)");
    for (int i = 0; i < o->groups.n; i++) {
        char at[64];
        snprintf(at, sizeof at, "optim.groups[%d].match", i);
        if (o->groups.v[i].match.n == 0) config_error(d, at, "required: globs of parameter names");
    }
    if (s->warmup_steps > 0 && s->warmup_ratio > 0)
        config_error(d, "schedule.warmup_ratio", "exclusive with schedule.warmup_steps");
    if (c->train.max_steps > 0 && s->warmup_steps >= c->train.max_steps)
        config_error(d, "schedule.warmup_steps", "%lld is not less than train.max_steps %lld",
                     (long long)s->warmup_steps, (long long)c->train.max_steps);
    bool wsd = s->name && strcmp(s->name, "wsd") == 0;
    if (wsd && s->warmup_ratio + s->decay_ratio > 1)
        config_error(d, "schedule.decay_ratio", "warmup_ratio and decay_ratio together exceed 1");
}

/* export[i].quantize: a target that holds codes, named as `pare quantize` tells them apart; one quantiser a
 * weight. */
static void check_rounding(Config *c, int i, const char *path_key)
{
    const ExportConfig *x = &c->export.v[i];
    const size_t n = strlen(x->path);
    const bool h5 = n > 3 && !strcmp(x->path + n - 3, ".h5"),
               st = n > 12 && !strcmp(x->path + n - 12, ".safetensors");
    char key[48];
    snprintf(key, sizeof key, "export[%d].quantize", i);
    if (!config_was_set(c->doc, key) || !x->format) return;
    if (!strcmp(x->format, "llama2c")) config_error(c->doc, key, "a llama2c file holds float32 alone");
    else if (strcmp(x->format, h5 ? "hdf5" : st ? "safetensors" : "hf"))
        config_error(c->doc, path_key, "a rounded %s needs a path that ends in %s", x->format,
                     !strcmp(x->format, "hdf5") ? ".h5"
                     : !strcmp(x->format, "hf") ? "no suffix"
                                                : ".safetensors");
    if (c->qat.enabled) config_error(c->doc, key, "qat.enabled: the weights are rounded already");
}

/* What the target's format cannot hold: an adapter that is not there, other floats than its own. */
static void check_holds(Config *c, int i)
{
    const ExportConfig *x = &c->export.v[i];
    char at[48];
    if (!x->format) return;
    const bool adapter = !strcmp(x->format, "peft") || !strcmp(x->format, "adapter");
    snprintf(at, sizeof at, "export[%d].format", i);
    if (adapter && !c->lora.enabled && !config_node(c->doc, "stages") && !config_node(c->doc, "arms"))
        config_error(c->doc, at, "%s holds an adapter; it needs lora.enabled: true", x->format);
    snprintf(at, sizeof at, "export[%d].dtype", i);
    if (!strcmp(x->format, "llama2c") && x->dtype && strcmp(x->dtype, "float32"))
        config_error(c->doc, at, "a llama2c file holds float32 alone");
}

static void check_rest(Config *c)
{
    const PerplexityConfig *p = &c->eval.perplexity;
    if (p->window > 0 && p->stride > p->window)
        config_error(c->doc, "eval.perplexity.stride", "larger than the window %lld", (long long)p->window);
    if (p->protocol && strncmp(p->protocol, "concat-", 7) == 0 && strtoll(p->protocol + 7, NULL, 10) < 2)
        config_error(c->doc, "eval.perplexity.protocol", "a window of at least 2 tokens is needed");
    if (!config_was_set(c->doc, "eval.generate.seed")) c->eval.generate.seed = c->run.seed;
    for (int i = 0; i < c->export.n; i++) {
        char at[64];
        snprintf(at, sizeof at, "export[%d].format", i);
        if (!c->export.v[i].format) config_error(c->doc, at, "required");
        snprintf(at, sizeof at, "export[%d].path", i);
        if (!c->export.v[i].path || !c->export.v[i].path[0]) config_error(c->doc, at, "required");
        else check_rounding(c, i, at);
        check_holds(c, i);
    }
}

/* ---- paths, arms, loading --------------------------------------------------------------------------- */
static void place_path(Config *c, const char *key, const char **path, Arena *a, Err *e)
{
    const char *rest = *path && **path == '~' ? strchr(*path, '/') : NULL; /* only a shell knows ~ */
    if (rest) config_error(c->doc, key, "~ is not expanded; write ${env:HOME}%.80s", rest);
    if (*path) *path = config_path(c->doc, config_node(c->doc, key), *path, a, e);
}

static void place_paths(Config *c, Arena *a, Err *e)
{
    place_path(c, "model.path", &c->model.path, a, e);
    place_path(c, "teacher.path", &c->teacher.path, a, e);
    place_path(c, "teacher.cache", &c->teacher.cache, a, e);
    for (int i = 0; i < c->teachers.n; i++) {
        char at[64];
        snprintf(at, sizeof at, "teachers[%d].path", i);
        place_path(c, at, &c->teachers.v[i].path, a, e);
    }
    /* what asks for one teacher means the first */
    if (c->teachers.n) {
        c->teacher.path = c->teachers.v[0].path;
        c->teacher.dtype = c->teachers.v[0].dtype;
        c->teacher.quantize = c->teachers.v[0].quantize;
    }
    place_path(c, "tokenizer.path", &c->tokenizer.path, a, e);
    if (c->run.resume && strcmp(c->run.resume, "auto") != 0 && strcmp(c->run.resume, "never") != 0)
        place_path(c, "run.resume", &c->run.resume, a, e);
    for (int set = 0; set < 2; set++)
        for (int i = 0; i < (set ? c->data.val.n : c->data.train.n); i++) {
            char at[64];
            snprintf(at, sizeof at, "data.%s[%d].path", set ? "val" : "train", i);
            place_path(c, at, set ? &c->data.val.v[i].path : &c->data.train.v[i].path, a, e);
        }
}

static bool is_arm_name(const char *s)
{
    size_t n = strlen(s);
    return n > 0 && n <= 64 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

static void list_arms(Config *c, Arena *a, Err *e)
{
    const ConfigNode *arms = c->arms;
    if (!arms) return;
    if (arms->kind != NODE_MAP) {
        config_error(c->doc, "arms", "expected a map of names, each with sections below");
        return;
    }
    c->arm = arena_alloc(a, (size_t)arms->n * sizeof *c->arm, e);
    for (int i = 0; c->arm && i < arms->n; i++) {
        char key[96];
        const char *name = arms->key[i]->text;
        snprintf(key, sizeof key, "arms.%.80s", name);
        if (!is_arm_name(name)) config_error(c->doc, key, "an arm's name has letters, digits, _ and -");
        else c->arm[c->n_arm++] = name;
        if (is_arm_name(name) && !config_is_null(arms->item[i]) && arms->item[i]->kind != NODE_MAP)
            config_error(c->doc, key, "expected a map of sections");
    }
}

/* run.name when the file does not say: the stem of its name. */
static void name_run(ConfigDoc *d, const char *path, Arena *a, Err *e)
{
    const char *base = path ? strrchr(path, '/') : NULL;
    base = base ? base + 1 : path ? path : "run";
    const char *dot = strrchr(base, '.');
    size_t n = dot && dot > base ? (size_t)(dot - base) : strlen(base);
    const char *stem = arena_strndup(a, base, n, e);
    if (stem) config_put_default(d, "run.name", stem);
}

bool config_check_files(Config *c)
{
    const char *first = c->teachers.n ? "teachers[0].path" : "teacher.path";
    const char *const key[] = {"model.path", first, "tokenizer.path", "teacher.cache"};
    const char *const path[] = {c->model.path, c->teacher.path, c->tokenizer.path,
                                c->caching ? NULL : c->teacher.cache};
    int before = config_error_count(c->doc);
    for (int i = 0; i < CFG_COUNT(key); i++) {
        bool built_in = i == 2 && path[i] && strcmp(path[i], "bytes") == 0;
        if (path[i] && !built_in && !file_exists(path[i]))
            config_error(c->doc, key[i], "no such file or folder: %s", path[i]);
    }
    for (int i = 1; i < c->teachers.n; i++) {
        char at[64];
        snprintf(at, sizeof at, "teachers[%d].path", i);
        if (c->teachers.v[i].path && !file_exists(c->teachers.v[i].path))
            config_error(c->doc, at, "no such file or folder: %s", c->teachers.v[i].path);
    }
    for (int set = 0; set < 2; set++)
        for (int i = 0; i < (set ? c->data.val.n : c->data.train.n); i++) {
            char at[64];
            const char *source = set ? c->data.val.v[i].path : c->data.train.v[i].path;
            snprintf(at, sizeof at, "data.%s[%d].path", set ? "val" : "train", i);
            glob_t g;
            if (glob(source, 0, NULL, &g) == 0) globfree(&g);
            else config_error(c->doc, at, "no such file: %s", source);
        }
    return config_error_count(c->doc) == before;
}

typedef struct Layers {
    const char *arm; /* NULL: none */
    int64_t seed;    /* < 0: as written */
    int stage;       /* < 0: none */
    const StageConfig *s;
} Layers;

static void lay(ConfigDoc *d, const Layers *y, Arena *a, Err *e)
{
    if (y->arm) config_select(d, arena_printf(a, e, "arms.%s", y->arm));
    if (y->stage >= 0) config_select_stage(d, y->s, y->stage, a, e);
    if (y->seed >= 0) config_put_final(d, arena_printf(a, e, "run.seed=%lld", (long long)y->seed));
}

static Config *load(Arena *a, const char *path, int n, char *const *override, const Layers *y, Err *e)
{
    ConfigDoc *d = config_parse(a, path, n, override, e);
    Config *c = arena_alloc(a, sizeof *c, e);
    if (!d || !c) return NULL;
    name_run(d, path, a, e);
    lay(d, y, a, e);
    if (e->code) return NULL;
    config_fill(d, config_section(), c, e);
    if (e->code) return NULL;
    c->doc = d;
    c->path = path;
    c->at_stage = y->stage;
    if (!config_complete(d)) return c;
    list_arms(c, a, e);
    config_list_stages(c, a, e);
    check_top(c);
    check_model(c);
    check_data(c);
    check_train(c);
    check_optim(c);
    config_check_distill(c);
    lora_check(&c->lora, d);
    if (c->lora.enabled && strcmp(c->lora.base_quant, "none") && !c->model.path)
        config_error(d, "lora.base_quant", "%s: needs model.path: a fresh model has no base to keep as codes",
                     c->lora.base_quant);
    check_rest(c);
    place_paths(c, a, e);
    return e->code ? NULL : c;
}

static Config *finish(Config *c, ConfigDoc **doc, Err *e)
{
    if (doc) *doc = c ? c->doc : NULL;
    if (!c || e->code) return NULL;
    int n = config_error_count(c->doc);
    if (n == 0) return c;
    const char *text = config_error_text(c->doc);
    size_t room = sizeof e->msg - 64, len = strlen(text), fit = len;
    int shown = n;
    if (len >= room) {
        fit = 0;
        shown = 0;
        for (size_t i = 0; i < room; i++)
            if (text[i] == '\n') {
                fit = i;
                shown++;
            }
    }
    if (shown < n) err_set(e, ERR_USAGE, "%.*s\nand %d more", (int)fit, text, n - shown);
    else err_set(e, ERR_USAGE, "%.*s", (int)fit, text);
    return NULL;
}

/* Every stage of c, whose layers are y, loaded for its errors. */
static void load_stages(Config *c, Arena *a, int n, char *const *override, const Layers *y, Err *e)
{
    for (int i = 0; c && i < c->n_stage && !e->code; i++) {
        Config *one = load(a, c->path, n, override, &(Layers){y->arm, y->seed, i, c->stage}, e);
        if (one) config_take_errors(c->doc, one->doc);
    }
}

Config *config_load(Arena *a, const char *path, int n_override, char *const *override, ConfigDoc **doc,
                    Err *e)
{
    const Layers plain = {NULL, -1, -1, NULL};
    Config *c = load(a, path, n_override, override, &plain, e);
    load_stages(c, a, n_override, override, &plain, e);
    for (int i = 0; c && i < c->n_arm; i++) {
        const Layers y = {c->arm[i], -1, -1, NULL};
        Config *arm = load(a, path, n_override, override, &y, e);
        load_stages(arm, a, n_override, override, &y, e);
        if (arm) config_take_errors(c->doc, arm->doc);
    }
    return finish(c, doc, e);
}

Config *config_load_arm(Arena *a, const char *path, int n_override, char *const *override, const char *arm,
                        int64_t seed, ConfigDoc **doc, Err *e)
{
    return finish(load(a, path, n_override, override, &(Layers){arm, seed, -1, NULL}, e), doc, e);
}

Config *config_load_stage(Arena *a, const char *path, int n_override, char *const *override, const char *arm,
                          int64_t seed, int i, Err *e)
{
    Config *all = config_load_arm(a, path, n_override, override, arm, seed, NULL, e);
    if (!all) return NULL;
    return finish(load(a, path, n_override, override, &(Layers){arm, seed, i, all->stage}, e), NULL, e);
}
