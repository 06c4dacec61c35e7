"""Optimizers, clipping and schedules as torch and transformers compute them. Writes optim.safetensors.

    python tests/golden/make_optim.py

groups.*: a model of four tensors (2-D wq (5,3) and emb (7,3), 1-D norm (5) and bias (3)) through ten steps, in float64:
groups.g.<name> (10,n) the gradients, groups.w0.<name>, groups.w.<name> (10,n) after each step, groups.gnorm (10) before
clipping to 1.0. AdamW, lr 1e-2; decay 0.1 on 2-D tensors only; emb: a tenth of the learning rate; wq: decay 0.02.
adam.*, sgd.*: the same gradients, nothing clipped, all tensors one group, no decay; sgd with momentum 0.8.
schedule.<kind>.<W>: the learning-rate factor of the named transformers or torch scheduler for steps 0..N-1, N = 40.
transformers warms up as t / W, pare as (t + 1) / W: factors are comparable from step W on (inverse_sqrt: from step W on,
one step later); metadata holds N.
"""
import json
import math
import os
import sys

import torch
import transformers as tr

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import st  # noqa: E402

torch.set_num_threads(1)
SEED, STEPS, N = 20240611, 10, 40
gen = torch.Generator().manual_seed(SEED)
SHAPES = {"wq": (5, 3), "emb": (7, 3), "norm": (5,), "bias": (3,)}
tensors, meta = {}, {"generator": "tests/golden/make_optim.py", "seed": str(SEED), "torch": torch.__version__.split("+")[0],
                     "transformers": tr.__version__, "schedule_steps": str(N)}
w0 = {k: torch.randn(s, generator=gen, dtype=torch.float64) for k, s in SHAPES.items()}
grads = {k: torch.randn(STEPS, *s, generator=gen, dtype=torch.float64) * 0.4 for k, s in SHAPES.items()}
for g in grads.values():
    g[4:7] *= 0.01                                       # three steps under the clip
    g[7:] *= 20.0                                        # three far over it


def run(name, make, clip):
    p = {k: torch.nn.Parameter(v.clone()) for k, v in w0.items()}
    opt, norms, after = make(p), [], {k: [] for k in p}
    for t in range(STEPS):
        for k in p:
            p[k].grad = grads[k][t].clone()
        if clip:
            norms.append(torch.nn.utils.clip_grad_norm_(p.values(), clip, foreach=False))
        opt.step()
        for k in p:
            after[k].append(p[k].detach().flatten().clone())
    for k in p:
        tensors[f"{name}.w.{k}"] = torch.stack(after[k])
    if clip:
        tensors[f"{name}.gnorm"] = torch.stack(norms)


for k in SHAPES:
    tensors[f"groups.w0.{k}"], tensors[f"groups.g.{k}"] = w0[k].flatten(), grads[k].flatten(1)
run("groups", lambda p: torch.optim.AdamW([{"params": [p["wq"]], "lr": 1e-2, "weight_decay": 0.02},
                                           {"params": [p["emb"]], "lr": 1e-3, "weight_decay": 0.1},
                                           {"params": [p["norm"], p["bias"]], "lr": 1e-2, "weight_decay": 0.0}],
                                          betas=(0.9, 0.95), eps=1e-8, foreach=False), clip=1.0)
run("adam", lambda p: torch.optim.Adam(p.values(), lr=1e-2, betas=(0.85, 0.99), eps=1e-7, foreach=False), clip=0)
run("sgd", lambda p: torch.optim.SGD(p.values(), lr=3e-2, momentum=0.8, foreach=False), clip=0)


def factors(make):
    opt = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    s, out = make(opt), []
    for _ in range(N + 1):
        out.append(opt.param_groups[0]["lr"])
        opt.step()
        s.step()
    return torch.tensor(out, dtype=torch.float64)


for w in (0, 7):
    for kind, make in {
            "constant": lambda o: tr.get_constant_schedule_with_warmup(o, w),
            "linear": lambda o: tr.get_linear_schedule_with_warmup(o, w, N),
            "cosine": lambda o: tr.get_cosine_schedule_with_warmup(o, w, N),
            "cosine_min": lambda o: tr.get_cosine_with_min_lr_schedule_with_warmup(o, w, N, min_lr_rate=0.1),
            "cosine_restarts": lambda o: tr.get_cosine_with_hard_restarts_schedule_with_warmup(o, w, N, num_cycles=3),
            "polynomial": lambda o: tr.get_polynomial_decay_schedule_with_warmup(o, w, N, lr_end=0.1, power=2.0),
            "wsd": lambda o: tr.get_wsd_schedule(o, w, 10, num_training_steps=N, decay_type="linear", min_lr_ratio=0.1),
    }.items():
        tensors[f"schedule.{kind}.{w}"] = factors(make)
tensors["schedule.inverse_sqrt.7"] = factors(lambda o: tr.get_inverse_sqrt_schedule(o, 7))
tensors["schedule.linear_min.0"] = factors(lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.1, total_iters=N))
tensors["schedule.cosine_torch.0"] = factors(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, N, eta_min=0.1))

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "optim.safetensors")
st.save(path, tensors, meta)
print(f"{path}: {len(tensors)} tensors, {os.path.getsize(path)} bytes")
