/* model/spec.c: config.json to ModelSpec (formats.md 2.1, 4.1 to 4.3). */
#include "model/spec_impl.h"
#include <math.h>
#include <string.h>

const json_t *spec_get(const Reader *r, const char *key)
{
    const json_t *v = json_object_get(r->root, key);
    return v && !json_is_null(v) ? v : NULL;
}

long spec_int(const Reader *r, const char *key, long def)
{
    const json_t *v = spec_get(r, key);
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

double spec_real(const Reader *r, const char *key, double def)
{
    const json_t *v = spec_get(r, key);
    if (v && !json_is_number(v)) err_set(r->e, ERR_USAGE, "%s: %s must be a number", r->where, key);
    return v && json_is_number(v) ? json_number_value(v) : def;
}

bool spec_bool(const Reader *r, const char *key, bool def)
{
    const json_t *v = spec_get(r, key);
    if (v && !json_is_boolean(v)) err_set(r->e, ERR_USAGE, "%s: %s must be true or false", r->where, key);
    return v && json_is_boolean(v) ? json_is_true(v) : def;
}

/* Token ids may be a list in newer files: the first counts. */
static int get_token(const Reader *r, const char *key)
{
    const json_t *v = spec_get(r, key);
    if (json_is_array(v)) v = json_array_get(v, 0);
    return json_is_integer(v) ? (int)json_integer_value(v) : -1;
}

bool spec_sliding(const ModelSpec *s, long layer)
{
    if (s->layer_sliding) return s->layer_sliding[layer] != 0;
    if (s->family->window_pattern) return (layer + 1) % s->family->window_pattern != 0;
    return s->window > 0 && layer >= s->window_from;
}

/* One flag a layer: layer_types (transformers 5), else the family's pattern. */
static void read_layer_types(const Reader *r, ModelSpec *s, Arena *a)
{
    const json_t *types = spec_get(r, "layer_types");
    long pattern = spec_int(r, "sliding_window_pattern", s->family->window_pattern);
    if (!types && pattern == s->family->window_pattern) return;
    if (!types && !pattern) {
        err_set(r->e, ERR_USAGE, "%s: sliding_window_pattern must be at least 1", r->where);
        return;
    }
    if (types && (!json_is_array(types) || json_array_size(types) != (size_t)s->L)) {
        err_set(r->e, ERR_USAGE, "%s: layer_types must be a list of num_hidden_layers (%ld) names", r->where,
                s->L);
        return;
    }
    unsigned char *flag = arena_alloc(a, (size_t)s->L, r->e);
    for (long i = 0; flag && i < s->L; i++) {
        const char *t = types ? json_string_value(json_array_get(types, (size_t)i)) : NULL;
        flag[i] = types ? t && !strcmp(t, "sliding_attention") : (i + 1) % pattern != 0;
        if (types && !flag[i] && (!t || strcmp(t, "full_attention")))
            err_set(r->e, ERR_USAGE,
                    "%s: layer_types[%ld] \"%s\" is not supported; sliding_attention and full_attention are",
                    r->where, i, t ? t : "(not a string)");
    }
    s->layer_sliding = flag;
}

static void read_windows(const Reader *r, ModelSpec *s, Arena *a)
{
    const Family *f = s->family;
    if (!f->window) return;
    bool given = json_object_get(r->root, "sliding_window") != NULL;
    s->window = given ? spec_int(r, "sliding_window", 0) : f->window;
    if (f->window_switch) {
        if (!spec_bool(r, "use_sliding_window", false)) s->window = 0;
        s->window_from = spec_int(r, "max_window_layers", 28);
    }
    if (f->window_switch || f->window_pattern) read_layer_types(r, s, a);
}

/* Gemma names its activation hidden_activation; hidden_act beside it never counted. */
static void read_activation(const Reader *r, ModelSpec *s)
{
    const Family *f = s->family;
    const char *key = f->in_out ? "activation_function" : f->gelu_gate ? "hidden_activation" : "hidden_act";
    const json_t *v = spec_get(r, key);
    const char *act = v ? json_string_value(v) : NULL;
    if (v && !act) err_set(r->e, ERR_USAGE, "%s: %s must be a string", r->where, key);
    if (!act) act = f->in_out ? "gelu_new" : f->gelu_gate ? "gelu_pytorch_tanh" : "silu";
    bool tanh = !strcmp(act, "gelu_new") || !strcmp(act, "gelu_pytorch_tanh");
    bool ok = f->gelu_gate ? tanh : f->gated ? !strcmp(act, "silu") : tanh || !strcmp(act, "gelu");
    s->tanh_gelu = tanh;
    if (!ok) err_set(r->e, ERR_USAGE, "%s: %s \"%s\" is not supported for %s", r->where, key, act, f->arch);
}

static void read_gpt2(const Reader *r, ModelSpec *s)
{
    s->C = spec_int(r, "n_embd", -1);
    s->L = spec_int(r, "n_layer", -1);
    s->H = s->Hkv = spec_int(r, "n_head", -1);
    s->max_pos = spec_int(r, "n_positions", spec_int(r, "n_ctx", 1024));
    s->F = spec_int(r, "n_inner", 4 * s->C);
    s->eps = spec_real(r, "layer_norm_epsilon", 1e-5);
    s->dropout = spec_real(r, "resid_pdrop", 0.1);
    s->embed_dropout = spec_real(r, "embd_pdrop", 0.1);
    s->attn_dropout = spec_real(r, "attn_pdrop", 0.1);
    if (!spec_bool(r, "scale_attn_weights", true) || spec_bool(r, "scale_attn_by_inverse_layer_idx", false))
        err_set(r->e, ERR_USAGE,
                "%s: scale_attn_by_inverse_layer_idx / scale_attn_weights: not in this version", r->where);
}

/* A soft-cap: absent = the family's, null = none. */
static double cap(const Reader *r, const char *key, double def)
{
    const json_t *v = json_object_get(r->root, key);
    return v && json_is_null(v) ? 0 : spec_real(r, key, def);
}

static void read_llama(const Reader *r, ModelSpec *s, Arena *a)
{
    s->C = spec_int(r, "hidden_size", -1);
    s->L = spec_int(r, "num_hidden_layers", -1);
    s->H = spec_int(r, "num_attention_heads", -1);
    s->Hkv = spec_int(r, "num_key_value_heads", s->H);
    s->F = spec_int(r, "intermediate_size", -1);
    s->max_pos = spec_int(r, "max_position_embeddings", 2048);
    s->eps = spec_real(r, "rms_norm_eps", s->family->eps_default);
    s->attention_bias = spec_bool(r, "attention_bias", false);
    s->mlp_bias = spec_bool(r, "mlp_bias", false);
    s->attn_dropout = spec_real(r, "attention_dropout", 0);
    if (spec_bool(r, "use_bidirectional_attention", false))
        err_set(r->e, ERR_USAGE, "%s: use_bidirectional_attention is not supported", r->where);
    if (s->family->scalar > 0) { /* transformers' Gemma 3 never reads the first */
        if (s->family->attn_softcap > 0)
            s->attn_softcap = cap(r, "attn_logit_softcapping", s->family->attn_softcap);
        s->final_softcap = cap(r, "final_logit_softcapping", s->family->final_softcap);
    }
    rope_read(r, s);
    if (!r->e->code) read_windows(r, s, a);
}

bool spec_check(const ModelSpec *s, const char *where, Err *e)
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
    const json_t *type = spec_get(&r, "model_type");
    const char *arch = type ? json_string_value(type) : NULL;
    *s = (ModelSpec){.family = family_find(arch)};
    if (!s->family) {
        err_set(e, ERR_USAGE, "%s: model_type \"%s\" is not supported%s; supported are %s", where,
                arch ? arch : "(missing)",
                arch && !strcmp(arch, "gemma3") ? " (text and images; gemma3_text is)" : "", family_list());
        json_decref(root);
        return false;
    }
    s->V = spec_int(&r, "vocab_size", -1);
    s->init_std = spec_real(&r, "initializer_range", 0.02);
    s->residual_scale = 1;
    s->tied = spec_bool(&r, "tie_word_embeddings", s->family->tied_default);
    s->bos = get_token(&r, "bos_token_id");
    s->eos = get_token(&r, "eos_token_id");
    if (s->family->learned_pos) read_gpt2(&r, s);
    else read_llama(&r, s, a);
    read_activation(&r, s);
    if (!e->code && s->H > 0) {
        const Family *f = s->family;
        s->D = f->learned_pos ? s->C / s->H
                              : spec_int(&r, "head_dim", f->head_dim ? f->head_dim : s->C / s->H);
        double scalar = f->scalar > 0 ? spec_real(&r, "query_pre_attn_scalar", f->scalar) : (double)s->D;
        if (!(scalar > 0)) err_set(e, ERR_USAGE, "%s: query_pre_attn_scalar must be above 0", where);
        s->attn_scale = 1 / sqrt(scalar);
    }
    json_decref(root);
    return spec_check(s, where, e);
}
