/* model/spec_write.c: a ModelSpec from model.init, and back into config.json in the spellings of
 * transformers 4 and 5 (formats.md 2.1). */
#include "model/spec_impl.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    s->attn_scale = 1 / sqrt((double)s->D);
    s->window = f->window_pattern ? f->window : 0;
    s->attn_softcap = f->attn_softcap;
    s->final_softcap = f->final_softcap;
    s->rope = (RopeSpec){.theta = c->rope_theta, .factor = 1, .attention_factor = 1};
    s->rope_local = (RopeSpec){.theta = 1e4, .factor = 1, .attention_factor = 1};
    s->rope.original = s->rope_local.original = (double)s->max_pos;
    s->F = c->intermediate_size ? c->intermediate_size : f->learned_pos ? 4 * s->C : 0;
    s->residual_scale = isnan(c->residual_init_scale) ? 1 / sqrt(2.0 * (double)s->L) : c->residual_init_scale;
    if (!strcmp(f->arch, "gpt2") && s->Hkv != s->H)
        return err_set(
            e, ERR_USAGE,
            "model.init: gpt2 has no grouped keys; num_key_value_heads must equal num_attention_heads");
    return spec_check(s, "model.init", e);
}

static json_t *layer_types(const ModelSpec *s)
{
    json_t *v = json_array();
    for (long i = 0; i < s->L; i++) {
        json_array_append_new(v, json_string(spec_sliding(s, i) ? "sliding_attention" : "full_attention"));
    }
    return v;
}

static void token(json_t *o, const char *key, int id)
{
    json_object_set_new(o, key, id >= 0 ? json_integer(id) : json_null());
}

static json_t *cap(double c) { return c > 0 ? json_real(c) : json_null(); }

static void write_gemma(json_t *o, const ModelSpec *s)
{
    double scalar = 1 / (s->attn_scale * s->attn_scale), whole = round(scalar);
    bool is_whole = fabs(scalar - whole) < 1e-9 * scalar; /* a strict reader wants 256, not 256.0 */
    json_object_update_new(
        o, json_pack("{s:s,s:o,s:o,s:o,s:I}", "hidden_activation", "gelu_pytorch_tanh",
                     "query_pre_attn_scalar", is_whole ? json_integer((json_int_t)whole) : json_real(scalar),
                     "attn_logit_softcapping", cap(s->attn_softcap), "final_logit_softcapping",
                     cap(s->final_softcap), "sliding_window_pattern", (json_int_t)s->family->window_pattern));
}

/* The families with rotary positions. */
static void write_rotary(json_t *o, const ModelSpec *s)
{
    const Family *f = s->family;
    bool dynamic = s->rope.kind == ROPE_DYNAMIC;
    json_object_update_new(o, json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:b,s:b,s:f}", "hidden_size",
                                        (json_int_t)s->C, "num_hidden_layers", (json_int_t)s->L,
                                        "num_attention_heads", (json_int_t)s->H, "num_key_value_heads",
                                        (json_int_t)s->Hkv, "head_dim", (json_int_t)s->D, "intermediate_size",
                                        (json_int_t)s->F, "max_position_embeddings",
                                        (json_int_t)(dynamic ? (long)s->rope.original : s->max_pos),
                                        "hidden_act", f->gelu_gate ? "gelu_pytorch_tanh" : "silu",
                                        "rms_norm_eps", s->eps, "attention_bias", (int)s->attention_bias,
                                        "mlp_bias", (int)s->mlp_bias, "attention_dropout", s->attn_dropout));
    rope_write(o, s);
    if (f->gelu_gate) write_gemma(o, s);
    if (f->window_switch) {
        json_object_set_new(o, "use_sliding_window", json_boolean(s->window > 0));
        json_object_set_new(o, "max_window_layers", json_integer(s->window_from));
    }
    if (f->window_switch || f->window_pattern) json_object_set_new(o, "layer_types", layer_types(s));
    if (f->window)
        json_object_set_new(o, "sliding_window", s->window ? json_integer(s->window) : json_null());
}

char *spec_json(const ModelSpec *s, Arena *a, Err *e)
{
    json_t *o = json_object();
    json_object_set_new(o, "architectures", json_pack("[s]", s->family->architecture));
    json_object_set_new(o, "model_type", json_string(s->family->arch));
    if (s->family->learned_pos) {
        json_object_update_new(o, json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:s,s:f,s:f,s:f,s:f}", "n_embd",
                                            (json_int_t)s->C, "n_layer", (json_int_t)s->L, "n_head",
                                            (json_int_t)s->H, "n_positions", (json_int_t)s->max_pos, "n_ctx",
                                            (json_int_t)s->max_pos, "n_inner", (json_int_t)s->F,
                                            "activation_function", s->tanh_gelu ? "gelu_new" : "gelu",
                                            "layer_norm_epsilon", s->eps, "resid_pdrop", s->dropout,
                                            "embd_pdrop", s->embed_dropout, "attn_pdrop", s->attn_dropout));
    } else {
        write_rotary(o, s);
    }
    json_object_update_new(o, json_pack("{s:I,s:b,s:f,s:s,s:s}", "vocab_size", (json_int_t)s->V,
                                        "tie_word_embeddings", (int)s->tied, "initializer_range", s->init_std,
                                        "torch_dtype", "float32", "dtype", "float32"));
    token(o, "bos_token_id", s->bos);
    token(o, "eos_token_id", s->eos);
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(15)), *copy = NULL;
    if (text) copy = arena_printf(a, e, "%s\n", text);
    else err_set(e, ERR_MEMORY, "config.json: out of memory");
    free(text);
    json_decref(o);
    return copy;
}
