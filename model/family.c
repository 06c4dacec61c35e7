/* model/family.c: what distinguishes one family from another, as data. Names: formats.md 4.1 to 4.3. Defaults
 * are those of transformers' configuration classes. */
#include "model/model.h"
#include <string.h>

#define LLAMA_NAMES(...) LLAMA_NAMES_(__VA_ARGS__)
#define LLAMA_NAMES_(qn, kn)                                                                                 \
    {                                                                                                        \
        "model.embed_tokens", NULL, "model.layers.%d.input_layernorm",                                       \
            "model.layers.%d.post_attention_layernorm", "model.norm", "lm_head",                             \
            "model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",                          \
            "model.layers.%d.self_attn.v_proj", NULL, "model.layers.%d.self_attn.o_proj",                    \
            "model.layers.%d.mlp.gate_proj", "model.layers.%d.mlp.up_proj", "model.layers.%d.mlp.down_proj", \
            qn, kn, NULL, NULL                                                                               \
    }

/* Gemma's norms stand before and behind each branch. */
#define GEMMA_NAMES(...) GEMMA_NAMES_(__VA_ARGS__)
#define GEMMA_NAMES_(qn, kn)                                                                                 \
    {                                                                                                        \
        "model.embed_tokens", NULL, "model.layers.%d.input_layernorm",                                       \
            "model.layers.%d.pre_feedforward_layernorm", "model.norm", "lm_head",                            \
            "model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",                          \
            "model.layers.%d.self_attn.v_proj", NULL, "model.layers.%d.self_attn.o_proj",                    \
            "model.layers.%d.mlp.gate_proj", "model.layers.%d.mlp.up_proj", "model.layers.%d.mlp.down_proj", \
            qn, kn, "model.layers.%d.post_attention_layernorm", "model.layers.%d.post_feedforward_layernorm" \
    }
#define QK_NORMS "model.layers.%d.self_attn.q_norm", "model.layers.%d.self_attn.k_norm"

#define GEMMA                                                                                                \
    .gated = true, .gelu_gate = true, .plus_one = true, .scaled_embed = true, .tied_default = true,          \
    .eps_default = 1e-6, .head_dim = 256, .scalar = 256, .window = 4096

static const Family families[] = {
    {.arch = "gpt2",
     .architecture = "GPT2LMHeadModel",
     .layernorm = true,
     .learned_pos = true,
     .qkv_bias = true,
     .linear_bias = true,
     .in_out = true,
     .tied_default = true,
     .eps_default = 1e-5,
     .name = {"transformer.wte", "transformer.wpe", "transformer.h.%d.ln_1", "transformer.h.%d.ln_2",
              "transformer.ln_f", "lm_head", NULL, NULL, NULL, "transformer.h.%d.attn.c_attn",
              "transformer.h.%d.attn.c_proj", NULL, "transformer.h.%d.mlp.c_fc",
              "transformer.h.%d.mlp.c_proj", NULL, NULL, NULL, NULL}},
    {.arch = "llama",
     .architecture = "LlamaForCausalLM",
     .gated = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES(NULL, NULL)},
    {.arch = "mistral",
     .architecture = "MistralForCausalLM",
     .window = 4096,
     .gated = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES(NULL, NULL)},
    {.arch = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .window = 4096,
     .window_switch = true,
     .gated = true,
     .qkv_bias = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES(NULL, NULL)},
    {.arch = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .window = 4096,
     .window_switch = true,
     .head_dim = 128,
     .gated = true,
     .qk_norm = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES(QK_NORMS)},
    {.arch = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     GEMMA,
     .window_pattern = 2,
     .theta = 1e4,
     .attn_softcap = 50,
     .final_softcap = 30,
     .name = GEMMA_NAMES(NULL, NULL)},
    {.arch = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     GEMMA,
     .window_pattern = 6,
     .theta = 1e6,
     .qk_norm = true,
     .local_rope = true,
     .name = GEMMA_NAMES(QK_NORMS)},
};

const Family *family_find(const char *arch)
{
    for (size_t i = 0; arch && i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].arch, arch)) return &families[i];
    return NULL;
}

const char *family_list(void) { return "gpt2, llama, mistral, qwen2, qwen3, gemma2, gemma3_text"; }
