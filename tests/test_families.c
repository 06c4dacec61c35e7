/* tests/test_families.c: config.json of transformers 4 and 5, RoPE scaling against transformers, what is
 * refused by name, and files that come in shards. Logits and gradients of whole models: test_model.c. */
#include "model/model.h"
#include "tests/test.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static Arena arena = {.name = "test"};
static Err e;

static bool parse(ModelSpec *s, const char *json)
{
    e = (Err){0};
    return spec_parse(s, json, "config", &arena, &e);
}

static char *text(const TensorFile *f, const char *config, const char *what)
{
    const FileTensor *t = formats_find(f, arena_printf(&arena, &e, "%s.%s", config, what));
    ASSERT(t != NULL);
    return arena_strndup(&arena, (const char *)t->data, t->bytes, &e);
}

static double value(const TensorFile *f, const char *config, const char *what, long i, DType type)
{
    const FileTensor *t = formats_find(f, arena_printf(&arena, &e, "%s.%s", config, what));
    double d;
    int32_t n;
    ASSERT(t != NULL && t->dtype == type && (long)(t->bytes / dtype_size(type)) > i);
    memcpy(type == DT_F64 ? (void *)&d : (void *)&n, t->data + (size_t)i * dtype_size(type),
           dtype_size(type));
    return type == DT_F64 ? d : n;
}

static void same_rope(const RopeSpec *a, const RopeSpec *b)
{
    ASSERT_EQ((int)a->kind, (int)b->kind);
    const double x[] = {a->theta, a->factor, a->low, a->high, a->attention_factor, a->original, a->beta_fast},
                 y[] = {b->theta, b->factor, b->low, b->high, b->attention_factor, b->original, b->beta_fast};
    for (int i = 0; i < 7; i++) ASSERT_CLOSE(x[i], y[i], 1e-14, 0);
}

/* Published configurations in both spellings: frequencies as transformers computes them in float64. */
TEST(families, rope_frequencies)
{
    static const char *const config[] = {
        "llama31",   "llama_linear",     "llama_dynamic",    "llama_dynamic_short",
        "qwen_yarn", "qwen_yarn_mscale", "qwen_yarn_factor", "gemma3_1b",
        "gemma3_4b"};
    TensorFile f = {0};
    ASSERT(formats_open(&f, "tests/golden/rope.safetensors", &arena, &e));
    for (int i = 0; i < 9; i++)
        for (int five = 0; five < 2; five++) {
            ModelSpec s;
            double got[128];
            if (!parse(&s, text(&f, config[i], five ? "config5" : "config")))
                test_fail(__FILE__, __LINE__, "%s: %s", config[i], e.msg);
            rope_frequencies(&s.rope, s.D, (long)value(&f, config[i], "length", 0, DT_I32), got);
            for (long j = 0; j < s.D / 2; j++)
                ASSERT_CLOSE(got[j], value(&f, config[i], "inv_freq", j, DT_F64), 1e-12, 0);
            ASSERT_CLOSE(s.rope.attention_factor, value(&f, config[i], "scale", 0, DT_F64), 1e-12, 0);
            if (!s.family->local_rope) continue;
            rope_frequencies(&s.rope_local, s.D, 0, got);
            for (long j = 0; j < s.D / 2; j++)
                ASSERT_CLOSE(got[j], value(&f, config[i], "local_inv_freq", j, DT_F64), 1e-12, 0);
        }
    formats_close(&f);
}

static void same_spec(const ModelSpec *a, const ModelSpec *b)
{
    ASSERT(a->family == b->family);
    const long x[] = {a->V, a->C,       a->L,      a->H,    a->Hkv, a->D,
                      a->F, a->max_pos, a->window, a->tied, a->bos, a->eos},
               y[] = {b->V, b->C,       b->L,      b->H,    b->Hkv, b->D,
                      b->F, b->max_pos, b->window, b->tied, b->bos, b->eos};
    for (int i = 0; i < 12; i++) ASSERT_EQ(x[i], y[i]);
    for (long l = 0; l < a->L; l++) ASSERT_EQ((int)spec_sliding(a, l), (int)spec_sliding(b, l));
    ASSERT_CLOSE(a->eps, b->eps, 1e-12, 0);
    ASSERT_CLOSE(a->attn_scale, b->attn_scale, 1e-12, 0);
    ASSERT_CLOSE(a->attn_softcap, b->attn_softcap, 1e-12, 0);
    ASSERT_CLOSE(a->final_softcap, b->final_softcap, 1e-12, 0);
    ASSERT_CLOSE(a->attn_dropout, b->attn_dropout, 1e-12, 0);
    if (!a->family->learned_pos) same_rope(&a->rope, &b->rope);
    if (a->family->local_rope) same_rope(&a->rope_local, &b->rope_local);
}

/* What spec_json writes is read as the same model, whichever spelling the reader takes. */
TEST(families, config_round_trip)
{
    static const char *const tiny[] = {"gpt2",          "llama",        "mistral",   "qwen2",
                                       "qwen3",         "gemma2",       "gemma3",    "llama-linear",
                                       "llama-dynamic", "llama-llama3", "llama-yarn"};
    for (int i = 0; i < 11; i++) {
        size_t n;
        ModelSpec a, b;
        const char *path = arena_printf(&arena, &e, "tests/data/hf-tiny-%s/config.json", tiny[i]);
        ASSERT(parse(&a, file_read(&arena, path, &n, &e)));
        char *json = spec_json(&a, &arena, &e);
        ASSERT(json != NULL);
        if (!parse(&b, json)) test_fail(__FILE__, __LINE__, "%s: %s", tiny[i], e.msg);
        same_spec(&a, &b);
        char *four = strstr(json, "\"rope_parameters\"");
        if (!four) continue;
        memcpy(four, "\"x", 2); /* an older reader does not know the key */
        if (!parse(&b, json)) test_fail(__FILE__, __LINE__, "%s: %s", tiny[i], e.msg);
        same_spec(&a, &b);
    }
}

#define SIZES                                                                                                \
    "\"vocab_size\": 256000, \"hidden_size\": 2304, \"intermediate_size\": 9216, \"num_hidden_layers\": 4,"  \
    "\"num_attention_heads\": 8, \"num_key_value_heads\": 4, \"max_position_embeddings\": 8192,"

/* Files of transformers 4 leave out what its classes know: window, pattern, tying, soft-caps, head width. */
TEST(families, old_files_lean_on_defaults)
{
    ModelSpec s;
    ASSERT(parse(&s, "{\"model_type\": \"gemma2\"," SIZES "\"rms_norm_eps\": 1e-6}"));
    ASSERT(s.tied && s.D == 256 && s.window == 4096 && s.attn_softcap == 50 && s.final_softcap == 30);
    ASSERT(spec_sliding(&s, 0) && !spec_sliding(&s, 1) && spec_sliding(&s, 2) && !spec_sliding(&s, 3));
    ASSERT_CLOSE(s.attn_scale, 1.0 / 16, 1e-15, 0);
    ASSERT_CLOSE(s.rope.theta, 1e4, 0, 0);
    ASSERT(parse(&s, "{\"model_type\": \"gemma3_text\"," SIZES "\"sliding_window_pattern\": 3,"
                     "\"query_pre_attn_scalar\": 168, \"final_logit_softcapping\": null}"));
    ASSERT(spec_sliding(&s, 0) && spec_sliding(&s, 1) && !spec_sliding(&s, 2) && spec_sliding(&s, 3));
    ASSERT(s.final_softcap == 0 && s.attn_softcap == 0 && s.rope.theta == 1e6 && s.rope_local.theta == 1e4);
    ASSERT_CLOSE(s.attn_scale, 1 / sqrt(168.0), 1e-15, 0);
    ASSERT(parse(&s, "{\"model_type\": \"mistral\"," SIZES "\"rope_theta\": 1e6}"));
    ASSERT(s.window == 4096 && spec_sliding(&s, 0) && !s.tied && s.D == 288);
    ASSERT(parse(&s, "{\"model_type\": \"mistral\"," SIZES "\"rope_theta\": 1e6, \"sliding_window\": null}"));
    ASSERT(s.window == 0 && !spec_sliding(&s, 0));
    ASSERT(parse(&s, "{\"model_type\": \"qwen3\"," SIZES "\"rope_theta\": 1e6, \"sliding_window\": 64,"
                     "\"use_sliding_window\": true, \"max_window_layers\": 3}"));
    ASSERT(s.D == 128 && s.window == 64 && !spec_sliding(&s, 2) && spec_sliding(&s, 3));
    ASSERT(parse(
        &s, "{\"model_type\": \"gpt2\", \"vocab_size\": 9, \"n_embd\": 8, \"n_layer\": 1, \"n_head\": 2}"));
    ASSERT(s.tied && s.dropout == 0.1 && s.embed_dropout == 0.1 && s.attn_dropout == 0.1 && s.F == 32);
}

#define LLAMA(more) "{\"model_type\": \"llama\"," SIZES "\"rope_theta\": 1e4," more "}"
TEST(families, what_we_do_not_have_is_named)
{
    static const char *const bad[][2] = {
        {"{\"model_type\": \"mamba2\"," SIZES "\"a\": 1}",
         "model_type \"mamba2\" is not supported; supported are gpt2, llama, mistral, qwen2, qwen3, gemma2, "
         "gemma3"},
        {"{\"model_type\": \"gemma3\"," SIZES "\"a\": 1}", "text and images; gemma3_text is"},
        {"{\"a\": 1}", "model_type \"(missing)\""},
        {LLAMA("\"rope_scaling\": {\"type\": \"longrope\", \"factor\": 2}"),
         "RoPE scaling \"longrope\" is not"},
        {LLAMA("\"rope_scaling\": {\"type\": \"su\"}"), "RoPE scaling \"su\""},
        {LLAMA("\"rope_scaling\": {\"type\": \"linear\"}"), "linear: factor = 0 must be above 0"},
        {LLAMA("\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}"), "low_freq_factor"},
        {LLAMA("\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 1e4, "
               "\"partial_rotary_factor\": 0.5}"),
         "partial_rotary_factor"},
        {LLAMA("\"hidden_act\": \"relu\""), "hidden_act \"relu\" is not supported for llama"},
        {"{\"model_type\": \"qwen2\"," SIZES "\"rms_norm_eps\": 1e-6}", "rope_theta is missing"},
        {"{\"model_type\": \"gemma2\"," SIZES "\"hidden_activation\": \"gelu\"}",
         "hidden_activation \"gelu\""},
        {"{\"model_type\": \"gemma2\"," SIZES "\"layer_types\": [\"full_attention\"]}",
         "layer_types must be"},
        {"{\"model_type\": \"qwen3\"," SIZES "\"rope_theta\": 1e6, \"layer_types\": [\"full_attention\", "
         "\"linear_attention\", \"full_attention\", \"full_attention\"]}",
         "layer_types[1] \"linear_attention\""},
        {"{\"model_type\": \"gemma3_text\"," SIZES "\"use_bidirectional_attention\": true}", "bidirectional"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ModelSpec s;
        if (parse(&s, bad[i][0])) test_fail(__FILE__, __LINE__, "accepted: %s", bad[i][0]);
        ASSERT_EQ((int)e.code, (int)ERR_USAGE);
        if (!strstr(e.msg, bad[i][1])) test_fail(__FILE__, __LINE__, "%s: not in: %s", bad[i][1], e.msg);
    }
}
