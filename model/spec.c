/* model/spec.c: config.json to ModelSpec and back (formats.md 2.1, 4.1, 4.2). */
#include "model/model.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reader {
    json_t *root;
    const char *where;
    Err *e;
} Reader;

static const json_t *get(const Reader *r, const char *key)
{
    const json_t *v = json_object_get(r->root, key);
    return v && !json_is_null(v) ? v : NULL;
}

static long get_int(const Reader *r, const char *key, long def)
{
    const json_t *v = get(r, key);
    if (!v) {
        if (def < 0) err_set(r->e, ERR_USAGE, "%s: %s is missing", r->where, key);
        return def;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX) {
        err_set(r->e, ERR_USAGE, "%s: %s must be a whole number from 0 to 2147483647", r->where, key);
        return def;
    }
    return (long)json_integer_value(v);
}

static double get_real(const Reader *r, const char *key, double def)
{
    const json_t *v = get(r, key);
    if (v && !json_is_number(v)) err_set(r->e, ERR_USAGE, "%s: %s must be a number", r->where, key);
    return v && json_is_number(v) ? json_number_value(v) : def;
}

static bool get_bool(const Reader *r, const char *key, bool def)
{
    const json_t *v = get(r, key);
    if (v && !json_is_boolean(v)) err_set(r->e, ERR_USAGE, "%s: %s must be true or false", r->where, key);
    return v && json_is_boolean(v) ? json_is_true(v) : def;
}

/* Token ids may be a list in newer files: the first counts. */
static int get_token(const Reader *r, const char *key)
{
    const json_t *v = get(r, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    return json_is_integer(v) ? (int)json_integer_value(v) : -1;
}

/* rope_parameters (transformers 5), else rope_theta + rope_scaling (4); llama alone was published without the
 * key. */
static void read_rope(const Reader *r, ModelSpec *s)
{
    const json_t *p = get(r, "rope_parameters"), *old = get(r, "rope_scaling");
    const json_t *theta = p ? json_object_get(p, "rope_theta") : get(r, "rope_theta");
    if (!theta) theta = get(r, "rope_theta");
    const json_t *type = json_object_get(p ? p : old, "rope_type");
    if (!type) type = json_object_get(p ? p : old, "type");
    const char *name = type ? json_string_value(type) : NULL;
    if (name && strcmp(name, "default"))
        err_set(r->e, ERR_USAGE, "%s: RoPE scaling \"%s\": not in this version", r->where, name);
    if (json_is_number(theta)) s->rope_theta = json_number_value(theta);
    else if (!strcmp(s->family->arch, "llama")) {
        s->rope_theta = 10000;
        log_warn("%s: no rope_theta; 10000 is taken, as the first Llama models were trained", r->where);
    } else err_set(r->e, ERR_USAGE, "%s: rope_theta is missing", r->where);
}

static void read_windows(const Reader *r, ModelSpec *s, Arena *a)
{
    bool qwen = !strncmp(s->family->arch, "qwen", 4), mistral = !strcmp(s->family->arch, "mistral");
    if (!qwen && !mistral) return;
    s->window = get_int(r, "sliding_window", 0);
    if (qwen && !get_bool(r, "use_sliding_window", false)) s->window = 0;
    s->window_from = qwen ? get_int(r, "max_window_layers", 28) : 0;
    const json_t *types = get(r, "layer_types");
    if (!json_is_array(types) || json_array_size(types) != (size_t)s->L) return;
    unsigned char *flag = arena_alloc(a, (size_t)s->L, r->e);
    for (size_t i = 0; flag && i < (size_t)s->L; i++) {
        const char *t = json_string_value(json_array_get(types, i));
        flag[i] = t && !strcmp(t, "sliding_attention");
    }
    s->layer_sliding = flag;
}

static void read_activation(const Reader *r, ModelSpec *s)
{
    const json_t *v = get(r, s->family->in_out ? "activation_function" : "hidden_act");
    const char *act = v ? json_string_value(v) : NULL;
    if (s->family->gated) {
        if (act && strcmp(act, "silu"))
            err_set(r->e, ERR_USAGE, "%s: hidden_act %s: not in this version", r->where, act);
        return;
    }
    s->tanh_gelu = !act || !strcmp(act, "gelu_new") || !strcmp(act, "gelu_pytorch_tanh");
    if (act && !s->tanh_gelu && strcmp(act, "gelu"))
        err_set(r->e, ERR_USAGE, "%s: activation_function %s: not in this version", r->where, act);
}

static void read_gpt2(const Reader *r, ModelSpec *s)
{
    s->C = get_int(r, "n_embd", -1);
    s->L = get_int(r, "n_layer", -1);
    s->H = s->Hkv = get_int(r, "n_head", -1);
    s->max_pos = get_int(r, "n_positions", get_int(r, "n_ctx", 1024));
    s->F = get_int(r, "n_inner", 4 * s->C);
    s->eps = get_real(r, "layer_norm_epsilon", 1e-5);
    s->dropout = get_real(r, "resid_pdrop", 0.1);
    if (!get_bool(r, "scale_attn_weights", true) || get_bool(r, "scale_attn_by_inverse_layer_idx", false))
        err_set(r->e, ERR_USAGE,
                "%s: scale_attn_by_inverse_layer_idx / scale_attn_weights: not in this version", r->where);
}

static void read_llama(const Reader *r, ModelSpec *s, Arena *a)
{
    s->C = get_int(r, "hidden_size", -1);
    s->L = get_int(r, "num_hidden_layers", -1);
    s->H = get_int(r, "num_attention_heads", -1);
    s->Hkv = get_int(r, "num_key_value_heads", s->H);
    s->F = get_int(r, "intermediate_size", -1);
    s->max_pos = get_int(r, "max_position_embeddings", 2048);
    s->eps = get_real(r, "rms_norm_eps", s->family->eps_default);
    s->attention_bias = get_bool(r, "attention_bias", false);
    s->mlp_bias = get_bool(r, "mlp_bias", false);
    read_rope(r, s);
    read_windows(r, s, a);
}

static bool check(const ModelSpec *s, const char *where, Err *e)
{
    if (e->code) return false;
    if (s->V < 1 || s->C < 1 || s->L < 1 || s->H < 1 || s->Hkv < 1 || s->D < 1 || s->F < 1 || s->max_pos < 1)
        return err_set(e, ERR_USAGE,
                       "%s: vocabulary, width, layers, heads, ffn width and positions must all be at least 1",
                       where);
    if (s->H % s->Hkv)
        return err_set(e, ERR_USAGE, "%s: %ld query heads are no multiple of %ld key-value heads", where,
                       s->H, s->Hkv);
    if (!s->family->learned_pos && s->D % 2)
        return err_set(e, ERR_USAGE, "%s: head width %ld is odd; rotary positions need pairs", where, s->D);
    return true;
}

bool spec_parse(ModelSpec *s, const char *config_json, const char *where, Arena *a, Err *e)
{
    json_error_t je;
    json_t *root = json_loads(config_json, JSON_REJECT_DUPLICATES, &je);
    if (!root)
        return err_set(e, ERR_CORRUPT, "%s: config.json line %d column %d: %s", where, je.line, je.column,
                       je.text);
    Reader r = {root, where, e};
    const json_t *type = get(&r, "model_type");
    const char *arch = type ? json_string_value(type) : NULL;
    *s = (ModelSpec){.family = family_find(arch)};
    if (!s->family) {
        err_set(e, ERR_USAGE, "%s: model_type \"%s\" is not supported; supported are %s", where,
                arch ? arch : "(missing)", family_list());
        json_decref(root);
        return false;
    }
    s->V = get_int(&r, "vocab_size", -1);
    s->init_std = get_real(&r, "initializer_range", 0.02);
    s->residual_scale = 1;
    s->tied = get_bool(&r, "tie_word_embeddings", s->family->tied_default);
    s->bos = get_token(&r, "bos_token_id");
    s->eos = get_token(&r, "eos_token_id");
    if (s->family->learned_pos) read_gpt2(&r, s);
    else read_llama(&r, s, a);
    read_activation(&r, s);
    s->D = e->code || s->H < 1 ? 0 : get_int(&r, "head_dim", s->C / s->H);
    if (s->family->learned_pos && s->H > 0) s->D = s->C / s->H;
    json_decref(root);
    return check(s, where, e);
}

bool spec_from_init(ModelSpec *s, const ModelInitConfig *c, long vocab, long seq_len, Err *e)
{
    const Family *f = family_find(c->arch);
    *s = (ModelSpec){.family = f,
                     .V = c->vocab_size ? c->vocab_size : vocab,
                     .C = c->hidden_size,
                     .L = c->num_hidden_layers,
                     .H = c->num_attention_heads,
                     .Hkv = c->num_key_value_heads ? c->num_key_value_heads : c->num_attention_heads,
                     .max_pos = c->max_position_embeddings ? c->max_position_embeddings : seq_len,
                     .eps = c->rms_norm_eps,
                     .rope_theta = c->rope_theta,
                     .init_std = c->initializer_range,
                     .tied = c->tie_word_embeddings,
                     .tanh_gelu = true,
                     .bos = -1,
                     .eos = -1};
    if (!f)
        return err_set(e, ERR_USAGE, "model.init.arch: %s is not supported; supported are %s", c->arch,
                       family_list());
    if (s->C < 1 || s->L < 1 || s->H < 1)
        return err_set(e, ERR_USAGE,
                       "model.init: hidden_size, num_hidden_layers and num_attention_heads are required");
    if (!c->head_dim && s->C % s->H)
        return err_set(e, ERR_USAGE, "model.init: hidden_size %ld is no multiple of num_attention_heads %ld",
                       s->C, s->H);
    s->D = c->head_dim ? c->head_dim : s->C / s->H;
    s->F = c->intermediate_size ? c->intermediate_size : f->learned_pos ? 4 * s->C : 0;
    s->residual_scale = isnan(c->residual_init_scale) ? 1 / sqrt(2.0 * (double)s->L) : c->residual_init_scale;
    if (!strcmp(f->arch, "gpt2") && s->Hkv != s->H)
        return err_set(
            e, ERR_USAGE,
            "model.init: gpt2 has no grouped keys; num_key_value_heads must equal num_attention_heads");
    return check(s, "model.init", e);
}

static json_t *layer_types(const ModelSpec *s)
{
    json_t *v = json_array();
    for (long i = 0; i < s->L; i++) {
        bool sliding = s->window && (s->layer_sliding ? s->layer_sliding[i] : i >= s->window_from);
        json_array_append_new(v, json_string(sliding ? "sliding_attention" : "full_attention"));
    }
    return v;
}

static void token(json_t *o, const char *key, int id)
{
    json_object_set_new(o, key, id >= 0 ? json_integer(id) : json_null());
}

char *spec_json(const ModelSpec *s, Arena *a, Err *e)
{
    json_t *o = json_object();
    json_object_set_new(o, "architectures", json_pack("[s]", s->family->architecture));
    json_object_set_new(o, "model_type", json_string(s->family->arch));
    if (s->family->learned_pos) {
        json_object_update_new(
            o, json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:f,s:f,s:f}", "n_embd", (json_int_t)s->C,
                         "n_layer", (json_int_t)s->L, "n_head", (json_int_t)s->H, "n_positions",
                         (json_int_t)s->max_pos, "n_ctx", (json_int_t)s->max_pos, "n_inner", (json_int_t)s->F,
                         "activation_function", s->tanh_gelu ? "gelu_new" : "gelu", "layer_norm_epsilon",
                         s->eps, "resid_pdrop", s->dropout, "embd_pdrop", s->dropout, "attn_pdrop", 0.0));
    } else {
        json_object_update_new(
            o,
            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:b,s:b,s:f,s:{s:s,s:f}}", "hidden_size",
                      (json_int_t)s->C, "num_hidden_layers", (json_int_t)s->L, "num_attention_heads",
                      (json_int_t)s->H, "num_key_value_heads", (json_int_t)s->Hkv, "head_dim",
                      (json_int_t)s->D, "intermediate_size", (json_int_t)s->F, "max_position_embeddings",
                      (json_int_t)s->max_pos, "hidden_act", "silu", "rms_norm_eps", s->eps, "attention_bias",
                      (int)s->attention_bias, "mlp_bias", (int)s->mlp_bias, "rope_theta", s->rope_theta,
                      "rope_parameters", "rope_type", "default", "rope_theta", s->rope_theta));
        if (!strncmp(s->family->arch, "qwen", 4)) {
            json_object_set_new(o, "use_sliding_window", json_boolean(s->window > 0));
            json_object_set_new(o, "max_window_layers", json_integer(s->window_from));
            json_object_set_new(o, "layer_types", layer_types(s));
        }
        if (strcmp(s->family->arch, "llama"))
            json_object_set_new(o, "sliding_window", s->window ? json_integer(s->window) : json_null());
    }
    json_object_update_new(o, json_pack("{s:I,s:b,s:f,s:s,s:s}", "vocab_size", (json_int_t)s->V,
                                        "tie_word_embeddings", (int)s->tied, "initializer_range", s->init_std,
                                        "torch_dtype", "float32", "dtype", "float32"));
    token(o, "bos_token_id", s->bos);
    token(o, "eos_token_id", s->eos);
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(12)), *copy = NULL;
    if (text) copy = arena_printf(a, e, "%s\n", text);
    else err_set(e, ERR_MEMORY, "config.json: out of memory");
    free(text);
    json_decref(o);
    return copy;
}
