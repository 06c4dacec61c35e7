"""Tiny models made by Hugging Face transformers and what they compute, seeded, in float64.

    python tests/golden/make_models.py          # writes tests/data/hf-tiny-*/ and tests/golden/hf-tiny-*.safetensors

Folders are written by save_pretrained (float32; the -bf16 and -f16 ones in those types). A golden file holds input_ids
(2,16) and labels (2,16) I32 (labels already aligned to the position that predicts them, some -100), and in F64 logits
(2,16,97), nll (2,16; 0 where ignored), loss (mean over counted labels) and grad.<tensor name> of that loss. Names and
layout are the file's own (GPT-2 Conv1D stays [in,out]). hf-tiny-gpt2, -llama and -qwen2 also hold losses (10), before
each step, gnorm (10), before clipping, and step10.<tensor name>: ten AdamW steps on the same batch, lr 1e-3, betas
(.9, .95), eps 1e-8, decay 0.1 on 2-D tensors only, clipped to norm 1.0.

Float64 means everywhere (hf64.py). That this changes nothing but rounding is checked here against the untouched
float32 model.

A GPT-2 key bias has no gradient but round-off (a shift of every score of a row leaves softmax alone), and AdamW makes
steps of any size out of it: the middle third of step10.*.attn.c_attn.bias is meaningful in float64 only.
"""
import json
import os
import shutil
import sys

import torch
import torch.nn.functional as F
import transformers
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
import st  # noqa: E402
from hf64 import make_double, make_single  # noqa: E402

torch.set_num_threads(1)
SEED, V, B, T = 20240608, 97, 2, 16
llama_like = dict(vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                  num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=None,
                  attn_implementation="eager")


def rope(theta):
    return {"rope_type": "default", "rope_theta": theta}


MODELS = {
    "hf-tiny-gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=V, n_positions=32, n_embd=32, n_layer=2, n_head=4, bos_token_id=0,
                                                 eos_token_id=0, attn_implementation="eager"), torch.float32),
    "hf-tiny-llama": (LlamaForCausalLM, LlamaConfig(**llama_like, rms_norm_eps=1e-5, rope_parameters=rope(10000.0),
                                                    tie_word_embeddings=False), torch.float32),
    "hf-tiny-qwen2": (Qwen2ForCausalLM, Qwen2Config(**llama_like, rms_norm_eps=1e-6, rope_parameters=rope(1e6),
                                                    tie_word_embeddings=True), torch.float32),
    "hf-tiny-qwen3": (Qwen3ForCausalLM, Qwen3Config(**llama_like, head_dim=16, rms_norm_eps=1e-6, rope_parameters=rope(1e6),
                                                    tie_word_embeddings=True), torch.float32),
    "hf-tiny-mistral": (MistralForCausalLM, MistralConfig(**llama_like, rms_norm_eps=1e-5, rope_parameters=rope(10000.0),
                                                          sliding_window=5, tie_word_embeddings=False), torch.float32),
}
MODELS["hf-tiny-llama-bf16"] = (*MODELS["hf-tiny-llama"][:2], torch.bfloat16)
MODELS["hf-tiny-gpt2-f16"] = (*MODELS["hf-tiny-gpt2"][:2], torch.float16)


def initialise(model, gen):
    """Far from flat: weights 0.3, biases 0.2, norm gains around 1; float32 values."""
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=gen)
        norm = "norm" in name or ".ln_" in name
        p.data = 1 + 0.2 * r if norm and name.endswith("weight") else (0.3 if p.ndim == 2 else 0.2) * r
    model.tie_weights()


def loss_of(model, ids, labels):
    z = model(input_ids=ids, use_cache=False).logits
    nll = F.cross_entropy(z.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none").view_as(labels)
    return z, nll, nll.sum() / (labels != -100).sum()


def ten_steps(model, ids, labels, out):
    named = list(model.named_parameters())
    opt = torch.optim.AdamW([{"params": [p for _, p in named if p.ndim == 2], "weight_decay": 0.1},
                             {"params": [p for _, p in named if p.ndim != 2], "weight_decay": 0.0}],
                            lr=1e-3, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    losses, norms = [], []
    for _ in range(10):
        opt.zero_grad()
        loss = loss_of(model, ids, labels)[2]
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False))
        losses.append(loss.detach())
        opt.step()
    out["losses"], out["gnorm"] = torch.stack(losses), torch.stack(norms)
    out |= {f"step10.{name}": p.detach().clone() for name, p in named}


def make(name, cls, config, dtype):
    gen = torch.Generator().manual_seed(SEED)
    model = cls(config).eval()
    initialise(model, gen)
    folder = os.path.join(here, "..", "data", name)
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    model = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()

    ids = torch.randint(0, V, (B, T), generator=gen)
    labels = torch.cat([ids[:, 1:], torch.randint(0, V, (B, 1), generator=gen)], 1)
    labels[0, 5], labels[1, :4], labels[1, 15] = -100, -100, -100
    with torch.no_grad():
        plain = loss_of(model, ids, labels)[0]
    make_double(model)
    z, nll, loss = loss_of(model, ids, labels)
    off = (plain.double() - z).abs().max().item()
    assert off < 2e-5 * z.abs().max().item() and z.dtype == torch.float64, (name, off)
    out = {"input_ids": ids.int(), "labels": labels.int(), "logits": z, "nll": nll, "loss": loss.view(1)}
    if dtype == torch.float32:
        loss.backward()
        out |= {f"grad.{k}": p.grad.clone() for k, p in model.named_parameters()}
    out = {k: v.detach().clone() for k, v in out.items()}
    if name in ("hf-tiny-gpt2", "hf-tiny-llama", "hf-tiny-qwen2"):
        ten_steps(model, ids, labels, out)
    file = os.path.join(here, name + ".safetensors")
    st.save(file, out, {"generator": "tests/golden/make_models.py", "seed": str(SEED), "torch": torch.__version__.split("+")[0],
                        "transformers": transformers.__version__, "weights": f"tests/data/{name}",
                        "adamw": json.dumps(dict(steps=10, lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, clip=1.0))})
    make_single(model)
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{name}: loss {loss.item():.6f}, logits {z.min():.2f}..{z.max():.2f}, float32 off by {off:.1e}, "
          f"{size} + {os.path.getsize(file)} bytes" + (f", after ten steps {out['losses'][-1]:.6f}" if "losses" in out else ""))


for key, spec in MODELS.items():
    make(key, *spec)
