"""PyTorch distillation beside ours: teacher 6 x 768 (GPT-2 style), student shape A, (1-alpha) CE + alpha T^2 KL at T = 2.

    OMP_NUM_THREADS=2 python bench/peers/torch_kd.py --mode eager --steps 10         # one JSON line, as torch_train.py

Mean over tokens, forward KL, both sides at T. --mode teacher times the teacher's forward alone, under no_grad, which with the
student's plain step (torch_train.py) is what the step's time is divided by. --shape tiny-gpt2 is there to see that it starts.
"""
import argparse

import torch
import torch.nn.functional as F
from torch_models import SHAPES, Model, measure, measure_forward

a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
a.add_argument("--shape", choices=["A", "tiny-gpt2"], default="A")
a.add_argument("--mode", choices=["eager", "compile", "teacher"], default="eager")
a.add_argument("--steps", type=int, default=10)
a.add_argument("--warmup", type=int, default=2)
a.add_argument("--temperature", type=float, default=2.0)
a.add_argument("--alpha", type=float, default=0.5)
a = a.parse_args()
torch.manual_seed(0)
s = SHAPES[a.shape]
teacher = Model(SHAPES["teacher" if a.shape == "A" else a.shape]).eval().requires_grad_(False)


def loss_of(ids, labels):
    with torch.no_grad():
        zt = teacher.logits(ids).flatten(0, 1)
    z = student.logits(ids).flatten(0, 1)
    kl = F.kl_div(F.log_softmax(z / a.temperature, -1), F.log_softmax(zt / a.temperature, -1), log_target=True, reduction="batchmean")
    return (1 - a.alpha) * F.cross_entropy(z, labels.flatten()) + a.alpha * a.temperature ** 2 * kl


if a.mode == "teacher":
    measure_forward("KD-" + a.shape, a.mode, teacher.logits, teacher, s, a.steps, a.warmup)
else:
    student = Model(s)
    measure("KD-" + a.shape, a.mode, loss_of, student, s, a.steps, a.warmup, teacher_parameters=sum(p.numel() for p in teacher.parameters()))
