/* model/family.c: what distinguishes one family from another, as data. Names: formats.md 4.1, 4.2. */
#include "model/model.h"
#include <string.h>

#define LLAMA_NAMES(qn, kn)                                                                                  \
    {                                                                                                        \
        "model.embed_tokens", NULL, "model.layers.%d.input_layernorm",                                       \
            "model.layers.%d.post_attention_layernorm", "model.norm", "lm_head",                             \
            "model.layers.%d.self_attn.q_proj", "model.layers.%d.self_attn.k_proj",                          \
            "model.layers.%d.self_attn.v_proj", NULL, "model.layers.%d.self_attn.o_proj",                    \
            "model.layers.%d.mlp.gate_proj", "model.layers.%d.mlp.up_proj", "model.layers.%d.mlp.down_proj", \
            qn, kn                                                                                           \
    }

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
              "transformer.h.%d.mlp.c_proj", NULL, NULL}},
    {.arch = "llama",
     .architecture = "LlamaForCausalLM",
     .gated = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES(NULL, NULL)},
    {.arch = "mistral",
     .architecture = "MistralForCausalLM",
     .gated = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES(NULL, NULL)},
    {.arch = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .gated = true,
     .qkv_bias = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES(NULL, NULL)},
    {.arch = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .gated = true,
     .qk_norm = true,
     .eps_default = 1e-6,
     .name = LLAMA_NAMES("model.layers.%d.self_attn.q_norm", "model.layers.%d.self_attn.k_norm")},
};

const Family *family_find(const char *arch)
{
    for (size_t i = 0; arch && i < sizeof families / sizeof *families; i++)
        if (!strcmp(families[i].arch, arch)) return &families[i];
    return NULL;
}

const char *family_list(void) { return "gpt2, llama, mistral, qwen2, qwen3"; }
