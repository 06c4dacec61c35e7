"""PyTorch with peft beside our LoRA: one JSON line as torch_train.py. Shape L, adapters of rank r on every projection of the blocks.

    OMP_NUM_THREADS=2 python bench/peers/torch_lora.py --mode lora --steps 10        # --mode full: all weights, the same model

The peers' qkv and gate/up are fused, as one would write them for speed: 4 adapters a block where pare has 7, a little less work.
--shape tiny-llama is there to see that it starts.
"""
import argparse

import torch
from peft import LoraConfig, get_peft_model
from torch_models import SHAPES, Model, measure

a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
a.add_argument("--shape", choices=["L", "tiny-llama"], default="L")
a.add_argument("--mode", choices=["full", "lora"], default="lora")
a.add_argument("--steps", type=int, default=10)
a.add_argument("--warmup", type=int, default=2)
a.add_argument("--rank", type=int, default=16)
a = a.parse_args()
torch.manual_seed(0)
s = SHAPES[a.shape]
model = Model(s)
if a.mode == "lora":
    model = get_peft_model(model, LoraConfig(r=a.rank, lora_alpha=2 * a.rank, target_modules=["qkv", "out", "up", "down"]))
measure(a.shape, a.mode, model.forward, model, s, a.steps, a.warmup, trained=sum(p.numel() for p in model.parameters() if p.requires_grad))
