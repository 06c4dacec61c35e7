"""PyTorch training beside ours: one JSON line {shape, mode, tokens_per_s (median step), peak_rss, ...} a run.

    OMP_NUM_THREADS=2 python bench/peers/torch_train.py --shape A --mode eager --steps 10

Shapes A (GPT-2 style 6 x 384, B=8 T=256), B2 (GPT-2 124M, B=4 T=256), L (Llama style 12 x 768, B=4 T=256), and tiny-gpt2 and
tiny-llama to see that it starts. One process a run: peak_rss is the process's. Forward, backward, clip to 1, fused AdamW.
"""
import argparse

import torch
from torch_models import SHAPES, Model, measure

a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
a.add_argument("--shape", choices=[k for k in SHAPES if k != "teacher"], default="A")
a.add_argument("--mode", choices=["eager", "compile"], default="eager")
a.add_argument("--steps", type=int, default=10)
a.add_argument("--warmup", type=int, default=2)
a = a.parse_args()
torch.manual_seed(0)
s = SHAPES[a.shape]
model = Model(s)
measure(a.shape, a.mode, model.forward, model, s, a.steps, a.warmup)
