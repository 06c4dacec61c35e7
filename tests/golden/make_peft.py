"""Adapters made by peft on the tiny models, what they compute and their gradients, seeded, in float64.

    python tests/golden/make_peft.py      # tests/data/peft/<variant>/ and tests/golden/peft-<variant>.safetensors

A folder is what save_pretrained writes (float32). A golden file holds input_ids and labels (2,12) I32 (labels aligned, some
-100) and in F64 logits (2,12,97), loss and grad.<key of the folder> for every tensor of the adapter; pissa holds per module
delta.<module> = s B A of peft's start and svals.<module>, the singular values of W. plus.<key>: the rate that
create_loraplus_optimizer(lr=1e-3, ratio 16) gives the parameter (variant plus).
"""
import json
import os
import shutil
import sys
import warnings

import peft
from peft.optimizers import create_loraplus_optimizer
import torch
import transformers
from transformers import AutoModelForCausalLM

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
import st  # noqa: E402
from hf64 import make_double, make_single  # noqa: E402

warnings.filterwarnings("ignore")
torch.set_num_threads(1)
SEED, V, B, T = 20240611, 97, 2, 12
ALL = "all-linear"
VARIANTS = {
    "lora": ("hf-tiny-llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])),
    "rslora": ("hf-tiny-llama", dict(r=9, lora_alpha=6, target_modules=ALL, use_rslora=True)),
    "dora": ("hf-tiny-llama", dict(r=4, lora_alpha=8, target_modules=ALL, use_dora=True)),
    "plus": ("hf-tiny-llama", dict(r=2, lora_alpha=2, target_modules=["embed_tokens", "q_proj", "down_proj"])),
    "pattern": ("hf-tiny-llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "up_proj"],
                                      rank_pattern={"k_proj": 2, "layers.1.mlp.up_proj": 6}, alpha_pattern={r"layers\.\d+.self_attn.q_proj": 3},
                                      modules_to_save=["lm_head", "norm"])),
    "gpt2": ("hf-tiny-gpt2", dict(r=3, lora_alpha=6, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    "gpt2-dora": ("hf-tiny-gpt2", dict(r=3, lora_alpha=6, target_modules=["c_attn", "mlp.c_proj"], use_dora=True, fan_in_fan_out=True)),
    "head": ("hf-tiny-llama", dict(r=4, lora_alpha=8, target_modules=["lm_head", "o_proj"])),
}


def load(name):
    return AutoModelForCausalLM.from_pretrained(os.path.join(here, "..", "data", name), dtype=torch.float32, attn_implementation="eager")


def make(variant, base, config):
    gen = torch.Generator().manual_seed(SEED)
    model = peft.get_peft_model(load(base), peft.LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **config)).eval()
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        r = torch.randn(p.shape, generator=gen)
        p.data = p.data * (1 + 0.2 * r) if "magnitude" in name or "modules_to_save" in name else 0.2 * r
    folder = os.path.join(here, "..", "data", "peft", variant)
    shutil.rmtree(folder, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = f"tests/data/{base}"
    model.save_pretrained(folder)
    os.remove(os.path.join(folder, "README.md"))
    ids = torch.randint(0, V, (B, T), generator=gen)
    labels = torch.cat([ids[:, 1:], torch.randint(0, V, (B, 1), generator=gen)], 1)
    labels[0, 5], labels[1, :3] = -100, -100
    out = {"input_ids": ids.int(), "labels": labels.int()}
    if variant == "plus":
        groups = create_loraplus_optimizer(model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0).param_groups
        rate = {id(p): g["lr"] for g in groups for p in g["params"]}
        for name, p in model.named_parameters():
            if p.requires_grad:
                out["plus." + name.replace(".default", "")] = torch.tensor([rate[id(p)]], dtype=torch.float64)
    make_double(model.get_base_model())
    z = model(input_ids=ids, use_cache=False).logits
    nll = torch.nn.functional.cross_entropy(z.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="sum")
    loss = nll / (labels != -100).sum()
    loss.backward()
    assert z.dtype == torch.float64
    out |= {"logits": z, "loss": loss.view(1)}
    for name, p in model.named_parameters():
        if p.requires_grad:
            key = name.replace(".default", "").replace(".modules_to_save", "").replace("magnitude_vector.weight", "magnitude_vector")
            out["grad." + key] = p.grad
    file = os.path.join(here, f"peft-{variant}.safetensors")
    st.save(file, {k: v.detach().clone() for k, v in out.items()},
            {"generator": "tests/golden/make_peft.py", "peft": peft.__version__, "transformers": transformers.__version__})
    make_single(model.get_base_model())
    size = sum(os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder))
    print(f"{variant}: loss {loss.item():.6f}, {len(out)} tensors, {size} + {os.path.getsize(file)} bytes")


def pissa():
    model = load("hf-tiny-llama")
    weight = {n: m.weight.data.clone() for n, m in model.named_modules() if n.endswith(("q_proj", "down_proj"))}
    model = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights="pissa", target_modules=["q_proj", "down_proj"]))
    out = {}
    for n, w in weight.items():
        m = model.base_model.model.get_submodule(n)
        out["delta." + n] = m.get_delta_weight("default").detach().double()
        out["svals." + n] = torch.linalg.svdvals(w.double())
        assert (m.base_layer.weight + out["delta." + n] - w).abs().max() < 1e-5
    st.save(os.path.join(here, "peft-pissa.safetensors"), out, {"generator": "tests/golden/make_peft.py", "peft": peft.__version__})


for key, spec in VARIANTS.items():
    make(key, *spec)
pissa()
