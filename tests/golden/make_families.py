"""Gemma 2 and 3 and every RoPE scaling, as make_models.py makes the other families, and rope.safetensors.

    python tests/golden/make_families.py     # tests/data/hf-tiny-{gemma2,gemma3,llama-linear,...}, tests/golden/ of the same names

rope.safetensors holds, per configuration C of the table below (published sizes), C.config (U8: config.json as
transformers 4 spells it), C.config5 (as transformers 5 does) and in F64 C.inv_freq, C.scale (1): what transformers
computes in float64; C.length (1) is the sequence length given to it. C.local_inv_freq: of Gemma 3's sliding layers.
"""
import json
import os
import sys

import numpy as np
import torch
import transformers
from transformers import (Gemma2Config, Gemma2ForCausalLM, Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM)

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
import st  # noqa: E402
from hf64 import FLOAT, DoubleTorch  # noqa: E402
from make_models import make  # noqa: E402

V = 53
small = dict(vocab_size=V, hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
             num_key_value_heads=1, head_dim=16, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
             pad_token_id=None, attn_implementation="eager")


def llama(**rope):
    over = {"max_position_embeddings": rope.pop("max_position_embeddings", 64), "num_hidden_layers": 1}
    return (LlamaForCausalLM, LlamaConfig(**small | over, rms_norm_eps=1e-5, rope_parameters=dict(rope_theta=10000.0, **rope),
                                          tie_word_embeddings=True), torch.float32)


gemma = small | dict(num_hidden_layers=3, query_pre_attn_scalar=24, sliding_window=5, rms_norm_eps=1e-6)
MODELS = {
    "hf-tiny-gemma2": (Gemma2ForCausalLM, Gemma2Config(**gemma, attn_logit_softcapping=1.5, final_logit_softcapping=4.0),
                       torch.float32),
    "hf-tiny-gemma3": (Gemma3ForCausalLM, Gemma3TextConfig(
        **gemma, layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
                         "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}), torch.float32),
    "hf-tiny-llama-linear": llama(rope_type="linear", factor=3.0),
    "hf-tiny-llama-dynamic": llama(rope_type="dynamic", factor=4.0, max_position_embeddings=8),
    "hf-tiny-llama-yarn": llama(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0),
    "hf-tiny-llama-llama3": llama(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                  original_max_position_embeddings=16),
}

llama4 = dict(model_type="llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
              num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=131072, rms_norm_eps=1e-5, rope_theta=5e5)
qwen4 = dict(model_type="qwen2", vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28,
             num_attention_heads=28, num_key_value_heads=4, max_position_embeddings=131072, rms_norm_eps=1e-6, rope_theta=1e6)
gemma4 = dict(model_type="gemma3_text", vocab_size=262144, hidden_size=1152, intermediate_size=6912, num_hidden_layers=26,
              num_attention_heads=4, num_key_value_heads=1, head_dim=256, max_position_embeddings=32768, rms_norm_eps=1e-6,
              rope_theta=1e6, rope_local_base_freq=1e4, query_pre_attn_scalar=256, sliding_window=512, sliding_window_pattern=6,
              hidden_activation="gelu_pytorch_tanh")
ROPES = {
    "llama31": (llama4 | dict(rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                original_max_position_embeddings=8192)), None),
    "llama_linear": (llama4 | dict(rope_scaling=dict(type="linear", factor=4.0)), None),
    "llama_dynamic": (llama4 | dict(max_position_embeddings=4096, rope_scaling=dict(type="dynamic", factor=2.0)), 6000),
    "llama_dynamic_short": (llama4 | dict(max_position_embeddings=4096, rope_scaling=dict(type="dynamic", factor=2.0)), 4096),
    "qwen_yarn": (qwen4 | dict(rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=32768)), None),
    "qwen_yarn_mscale": (qwen4 | dict(rope_scaling=dict(type="yarn", factor=40.0, original_max_position_embeddings=4096,
                                                        beta_fast=16, beta_slow=2, mscale=1.0, mscale_all_dim=0.7)), None),
    "qwen_yarn_factor": (qwen4 | dict(rope_scaling=dict(type="yarn", factor=4.0, original_max_position_embeddings=32768,
                                                        attention_factor=1.25, truncate=False)), None),
    "gemma3_1b": (gemma4, None),
    "gemma3_4b": (gemma4 | dict(rope_scaling=dict(rope_type="linear", factor=8.0)), None),
}


def angles(config, length, layer=None):
    rope = config.rope_parameters[layer] if layer else config.rope_parameters
    kw = {"layer_type": layer} if layer else {}
    if rope["rope_type"] == "default":
        d = config.head_dim
        return rope["rope_theta"] ** -(torch.arange(0, d, 2, dtype=torch.float64) / d), 1.0
    return utils.ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, None, seq_len=length, **kw)


if __name__ == "__main__":
    for key, spec in MODELS.items():
        make(key, *spec, generator="tests/golden/make_families.py")
    utils = sys.modules["transformers.modeling_rope_utils"]
    utils.torch, torch.Tensor.float = DoubleTorch("torch"), torch.Tensor.double
    out = {}
    for key, (four, length) in ROPES.items():
        config = transformers.AutoConfig.for_model(**json.loads(json.dumps(four)))
        layer = "full_attention" if four["model_type"] == "gemma3_text" else None
        inv, scale = angles(config, length, layer)
        assert inv.dtype == torch.float64
        out[f"{key}.inv_freq"], out[f"{key}.scale"] = inv, torch.tensor([scale], dtype=torch.float64)
        if layer:
            out[f"{key}.local_inv_freq"] = angles(config, length, "sliding_attention")[0]
        out[f"{key}.length"] = np.array([length or 0], dtype=np.int32)
        five = {k: v for k, v in config.to_dict().items() if k in four or k in ("rope_parameters", "layer_types", "head_dim")}
        for name, c in (("config", four), ("config5", five)):
            out[f"{key}.{name}"] = np.frombuffer(json.dumps(c).encode(), dtype=np.uint8)
    utils.torch, torch.Tensor.float = torch, FLOAT
    path = os.path.join(here, "rope.safetensors")
    st.save(path, out, {"generator": "tests/golden/make_families.py", "transformers": transformers.__version__})
    print(f"{path}: {len(ROPES)} configurations, {os.path.getsize(path)} bytes")
