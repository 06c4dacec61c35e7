/* formats/meta.c: Meta (original Llama, llama2.c) names -> Hugging Face names, and a config.json.
 *
 *   tok_embeddings -> model.embed_tokens    layers.N.attention.wq -> model.layers.N.self_attn.q_proj    ...
 * Their RoPE pairs are interleaved (2j, 2j+1): wq and wk are flagged, formats_read_f32 puts the rows into
 * halves. Head counts come from __metadata__ (or a config.json beside the file): they are in no shape. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "formats/formats_impl.h"

bool meta_is(const TensorFile *f)
{
    bool embed = false, wq = false;
    for (int i = 0; i < f->n; i++) {
        embed = embed || !strcmp(f->t[i].name, "tok_embeddings.weight");
        wq = wq || !strcmp(f->t[i].name, "layers.0.attention.wq.weight");
    }
    return embed && wq;
}

char *llama_config_json(const LlamaDims *d, Arena *a, Err *e)
{
    json_t *j = json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:b, s:b, s:f, s:f, s:n, s:{s:s, s:f},"
        " s:b, s:s, s:s, s:i, s:i, s:f, s:f, s:b}",
        "architectures", "LlamaForCausalLM", "model_type", "llama", "hidden_size", (json_int_t)d->dim,
        "intermediate_size", (json_int_t)d->hidden, "num_hidden_layers", (json_int_t)d->layers,
        "num_attention_heads", (json_int_t)d->heads, "num_key_value_heads", (json_int_t)d->kv_heads,
        "head_dim", (json_int_t)(d->dim / d->heads), "vocab_size", (json_int_t)d->vocab,
        "max_position_embeddings", (json_int_t)d->seq, "hidden_act", "silu", "attention_bias", 0, "mlp_bias",
        0, "rms_norm_eps", d->eps, "rope_theta", d->theta, "rope_scaling", "rope_parameters", "rope_type",
        "default", "rope_theta", d->theta, "tie_word_embeddings", (int)d->tied, "torch_dtype", "float32",
        "dtype", "float32", "bos_token_id", 1, "eos_token_id", 2, "initializer_range", 0.02,
        "attention_dropout", 0.0, "use_cache", 1);
    /* 9 digits: 1e-05 prints as itself, and every float32 survives */
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    char *copy = text ? arena_printf(a, e, "%s\n", text) : NULL;
    if (!text) err_set(e, ERR_MEMORY, "out of memory for config.json");
    free(text);
    json_decref(j);
    return copy;
}

/* A number out of __metadata__ (strings there) or of config.json (numbers). */
static bool number(const json_t *j, const char *key, double *out)
{
    const json_t *v = json_object_get(j, key);
    if (json_is_number(v)) {
        *out = json_number_value(v);
        return true;
    }
    const char *s = json_string_value(v);
    char *end;
    if (!s || !*s) return false;
    double x = strtod(s, &end);
    if (*end || !(x > -1e18 && x < 1e18)) return false;
    *out = x;
    return true;
}

static bool count_of(const TensorFile *f, const json_t *meta, const json_t *config, const char *meta_key,
                     const char *config_key, int64_t *out, Err *e)
{
    double x = 0;
    if (!number(meta, meta_key, &x) && !number(config, config_key, &x))
        return err_set(e, ERR_CORRUPT,
                       "%s: Meta names, but neither `%s` in __metadata__ nor %s in a config.json beside it: "
                       "the file alone does not say its head counts",
                       f->path, meta_key, config_key);
    if (!(x >= 1 && x <= 1e6) || x != (double)(int64_t)x)
        return err_set(e, ERR_CORRUPT, "%s: __metadata__ %s = %g is not a count", f->path, meta_key, x);
    *out = (int64_t)x;
    return true;
}

static const char *const layer_names[][2] = {{"attention.wq.weight", "self_attn.q_proj.weight"},
                                             {"attention.wk.weight", "self_attn.k_proj.weight"},
                                             {"attention.wv.weight", "self_attn.v_proj.weight"},
                                             {"attention.wo.weight", "self_attn.o_proj.weight"},
                                             {"attention_norm.weight", "input_layernorm.weight"},
                                             {"ffn_norm.weight", "post_attention_layernorm.weight"},
                                             {"feed_forward.w1.weight", "mlp.gate_proj.weight"},
                                             {"feed_forward.w2.weight", "mlp.down_proj.weight"},
                                             {"feed_forward.w3.weight", "mlp.up_proj.weight"}};

/* HF name of a Meta name; NULL = leave out ("rope.freqs"), or unknown and e set. which: index in
 * layer_names. */
static const char *hf_name(TensorFile *f, const char *name, int64_t *layer, int *which, Err *e)
{
    char *rest, shown[168];
    *which = -1;
    *layer = -1;
    if (!strcmp(name, "tok_embeddings.weight")) return "model.embed_tokens.weight";
    if (!strcmp(name, "norm.weight")) return "model.norm.weight";
    if (!strcmp(name, "output.weight")) return "lm_head.weight";
    if (!strcmp(name, "rope.freqs")) return NULL;
    if (!strncmp(name, "layers.", 7) && name[7] >= '0' && name[7] <= '9') {
        errno = 0;
        long n = strtol(name + 7, &rest, 10);
        for (int i = 0; *rest == '.' && n < 100000 && i < (int)(sizeof layer_names / sizeof *layer_names);
             i++)
            if (!strcmp(rest + 1, layer_names[i][0])) {
                *layer = n;
                *which = i;
                return arena_printf(f->arena, e, "model.layers.%ld.%s", n, layer_names[i][1]);
            }
    }
    err_set(e, ERR_CORRUPT, "%s: tensor `%s` is none of the Meta Llama names", f->path,
            name_shown(shown, name));
    return NULL;
}

static bool dims_of(TensorFile *f, LlamaDims *d, const json_t *meta, const json_t *config, Err *e)
{
    double x;
    if (!count_of(f, meta, config, "n_heads", "num_attention_heads", &d->heads, e) ||
        !count_of(f, meta, config, "n_kv_heads", "num_key_value_heads", &d->kv_heads, e))
        return false;
    d->eps = number(meta, "norm_eps", &x) ? x : 1e-5;
    if (number(meta, "rope_theta", &x)) {
        d->theta = x;
    } else {
        d->theta = 1e4;
        if (!f->config_json) log_warn("%s: no rope_theta in __metadata__, 10000 is taken", f->path);
    }
    if (number(meta, "max_seq_len", &x) && x >= 1) {
        d->seq = (int64_t)x;
    } else {
        d->seq = 2048;
        if (!f->config_json) log_warn("%s: no max_seq_len in __metadata__, 2048 is taken", f->path);
    }
    return true;
}

static bool rename_all(TensorFile *f, LlamaDims *d, Err *e)
{
    int kept = 0;
    d->tied = true;
    for (int i = 0; i < f->n; i++) {
        FileTensor t = f->t[i];
        int which;
        int64_t layer;
        const char *name = hf_name(f, t.name, &layer, &which, e);
        if (e->code) return false;
        if (!name) continue;
        t.name = name;
        if (!strcmp(name, "lm_head.weight")) d->tied = false;
        if (t.ndim == 2 && !strcmp(name, "model.embed_tokens.weight")) {
            d->vocab = t.dim[0];
            d->dim = t.dim[1];
        }
        if (which == 6 && t.ndim == 2) d->hidden = t.dim[0];
        if (layer >= d->layers) d->layers = layer + 1;
        if (which == 0 || which == 1) {
            int64_t heads = which == 0 ? d->heads : d->kv_heads;
            if (t.ndim != 2 || t.dim[0] % (2 * heads))
                return err_set(e, ERR_CORRUPT, "%s: tensor `%s`: its rows are not %lld heads of even width",
                               f->path, t.stored_name, (long long)heads);
            t.unpermute_heads = (int)heads;
        }
        f->t[kept++] = t;
    }
    f->n = kept;
    return true;
}

bool meta_rename(TensorFile *f, Err *e)
{
    LlamaDims d = {0};
    json_t *meta = f->metadata_json ? json_object_of(f->metadata_json, strlen(f->metadata_json), f->path, e)
                                    : NULL;
    json_t *config = f->config_json ? json_object_of(f->config_json, strlen(f->config_json), "config.json", e)
                                    : NULL;
    bool ok = !e->code && dims_of(f, &d, meta, config, e) && rename_all(f, &d, e);
    json_decref(meta);
    json_decref(config);
    if (!ok) return false;
    if (d.dim < 1 || d.dim % d.heads || d.heads % d.kv_heads)
        return err_set(e, ERR_CORRUPT, "%s: width %lld, %lld heads and %lld key/value heads do not divide",
                       f->path, (long long)d.dim, (long long)d.heads, (long long)d.kv_heads);
    if (f->config_json) return true;
    f->arch = "llama";
    f->config_json = llama_config_json(&d, f->arena, e);
    return f->config_json != NULL;
}
