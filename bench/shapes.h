/* bench/shapes.h: the shapes at which operators are measured: those of GPT-2 124M and a Llama of the same
 * width, 1,024 tokens a micro-batch. An operator that is not listed is measured at its first own case with
 * the rows multiplied, so a new one shows up by itself.
 */
#ifndef BENCH_SHAPES_H
#define BENCH_SHAPES_H
#include "autograd/autograd.h"

static double inv_freq[32]; /* (D/2), filled by ops.c */
static const GeluAttr gelu_tanh = {true};
static const NormAttr norm_eps = {1e-5};
static const AxpyAttr axpy_half = {0.5};
static const DropoutAttr dropout_tenth = {0.1, 5};
static const SliceAttr slice_key = {768, 768};
static const RopeAttr rope_12 = {.n_head = 12, .D = 64, .D_rot = 64, .mscale = 1.0, .inv_freq = inv_freq};
static const AttentionAttr mha_12 = {
    .n_head = 12, .n_kv_head = 12, .D = 64, .k_at = 768, .v_at = 1536, .scale = 0.125, .causal = true};
static const AttentionAttr gqa_12_4 = {.n_head = 12, .n_kv_head = 4, .D = 64, .scale = 0.125, .causal = true};
static const LmLossAttr loss_ce = {.a = {.ce_weight = 1, .temperature = 1}};
static const LmLossAttr loss_kd = {.a = {.ce_weight = 0.5, .kd_weight = 2, .temperature = 2}};

static const struct {
    const Op *op;
    OpCase c;
} listed[] = {
    {&op_linear, {"qkv", NULL, {{'r', 2, {1024, 768}, 0}, {'r', 2, {2304, 768}, 0}, {'r', 1, {2304}, 0}}}},
    {&op_linear, {"square", NULL, {{'r', 2, {1024, 768}, 0}, {'r', 2, {768, 768}, 0}, {'r', 1, {768}, 0}}}},
    {&op_linear, {"up", NULL, {{'r', 2, {1024, 768}, 0}, {'r', 2, {3072, 768}, 0}, {'r', 1, {3072}, 0}}}},
    {&op_linear, {"down", NULL, {{'r', 2, {1024, 3072}, 0}, {'r', 2, {768, 3072}, 0}, {'r', 1, {768}, 0}}}},
    {&op_linear, {"narrow", NULL, {{'r', 2, {2048, 384}, 0}, {'r', 2, {384, 384}, 0}}}},
    {&op_embedding, {"gpt2", NULL, {{'r', 2, {50257, 768}, 0}, {'i', 2, {4, 256}, 50257}}}},
    {&op_add, {"residual", NULL, {{'r', 2, {1024, 768}, 0}, {'r', 2, {1024, 768}, 0}}}},
    {&op_axpy, {"residual", &axpy_half, {{'r', 2, {1024, 768}, 0}, {'r', 2, {1024, 768}, 0}}}},
    {&op_mul, {"ffn", NULL, {{'r', 2, {1024, 2048}, 0}, {'r', 2, {1024, 2048}, 0}}}},
    {&op_gelu, {"ffn", &gelu_tanh, {{'r', 2, {1024, 3072}, 0}}}},
    {&op_swiglu, {"ffn", NULL, {{'r', 2, {1024, 2048}, 0}, {'r', 2, {1024, 2048}, 0}}}},
    {&op_layernorm, {"block", &norm_eps, {{'r', 2, {1024, 768}, 0}, {'r', 1, {768}, 0}, {'r', 1, {768}, 0}}}},
    {&op_rmsnorm, {"block", &norm_eps, {{'r', 2, {1024, 768}, 0}, {'r', 1, {768}, 0}}}},
    {&op_rope, {"heads", &rope_12, {{'r', 3, {4, 256, 768}, 0}, {'p', 2, {4, 256}, 0}}}},
    {&op_attention, {"T256", &mha_12, {{'r', 3, {4, 256, 2304}, 0}, {'d', 3, {0}, 0}, {'d', 3, {0}, 0}}}},
    {&op_attention, {"T1024", &mha_12, {{'r', 3, {2, 1024, 2304}, 0}, {'d', 3, {0}, 0}, {'d', 3, {0}, 0}}}},
    {&op_attention,
     {"12/4 heads",
      &gqa_12_4,
      {{'r', 3, {4, 256, 768}, 0}, {'r', 3, {4, 256, 256}, 0}, {'r', 3, {4, 256, 256}, 0}}}},
    {&op_dropout, {"p0.1", &dropout_tenth, {{'r', 3, {4, 256, 768}, 0}}}},
    {&op_lm_loss,
     {"ce 50257", &loss_ce, {{'r', 2, {1024, 768}, 0}, {'r', 2, {50257, 768}, 0}, {'t', 1, {1024}, 50257}}}},
    {&op_lm_loss,
     {"kd 50257",
      &loss_kd,
      {{'r', 2, {1024, 384}, 0},
       {'r', 2, {50257, 384}, 0},
       {'t', 1, {1024}, 50257},
       {'R', 2, {1024, 768}, 0},
       {'R', 2, {50257, 768}, 0}}}},
    {&op_mse, {"features", NULL, {{'r', 2, {1024, 768}, 0}, {'R', 2, {1024, 768}, 0}}}},
    {&op_cosine, {"features", NULL, {{'r', 2, {1024, 768}, 0}, {'R', 2, {1024, 768}, 0}}}},
    {&op_kv_append,
     {"prompt", NULL, {{'R', 3, {4, 1024, 768}, 0}, {'R', 3, {4, 256, 768}, 0}, {'i', 1, {1}, 700}}}},
    {&op_slice, {"key", &slice_key, {{'R', 3, {4, 256, 2304}, 0}}}},
};
enum { N_LISTED = sizeof listed / sizeof *listed };
#endif
