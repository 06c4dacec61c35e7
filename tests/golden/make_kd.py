"""Golden values of distillation: divergences, top-k classes, several teachers, feature losses. Writes kd.safetensors.

    python tests/golden/make_kd.py             # same bytes every time with the same torch

Layout, tensors and metadata as in make_ops.py. Inputs by op:

    lm_loss    h (N,C), w (V,C), targets (N), then up to three teachers (N,Ct), (V,Ct); kind (0 forward_kl, 1 reverse_kl, 2 jsd,
               3 symmetric_kl, 4 tvd, 5 skew_kl, 6 mse_logits), mix, top_k, renormalize, weights and caps of the teachers;
               extra tensors parts (4) = sums of ce, divergence, teacher entropy over the classes, counted rows, and nll (N)
    l1         a, b (N,C), targets (N): sum over counted rows of mean over C of |a-b|
    unit       x: x / |x| by rows
    relation   a (B,T,heads D), b (B,T,kv_heads D), those of the teacher, targets (B,T), seg (B,T); kind 0 KL, 1 scores;
               same: a = b, and its whole gradient stands under grad0
"""
import json
import math
import os
import sys

import torch
import torch.nn.functional as F

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import st  # noqa: E402
from cases import attrs, case, gen, ints, rnd, tensors  # noqa: E402

SEED = 20240608
gen.manual_seed(SEED)


def ids(*rows):
    return torch.tensor(rows, dtype=torch.int32)


def rows_of(y):
    return slice(None) if y is None else y != -100


# ---- distillation: divergences, top-k classes, several teachers, feature losses (algorithms 5.1, 5.2) ----------------------
def divergence(kind, lp, lq, mix):
    """Sum over rows and classes from log-probabilities, by the textbook."""
    p, q = lp.exp(), lq.exp()
    kl = lambda a, b: F.kl_div(b, a, log_target=True, reduction="sum")                 # KL(a || b)
    if mix is not None:
        lm = torch.logsumexp(torch.stack([lp + math.log(mix), lq + math.log(1 - mix)]), 0) if 0 < mix < 1 else None
    return {"forward_kl": lambda: kl(lp, lq), "reverse_kl": lambda: kl(lq, lp),
            "jsd": lambda: mix * kl(lp, lm) + (1 - mix) * kl(lq, lm),
            "symmetric_kl": lambda: (1 - mix) * kl(lp, lq) + mix * kl(lq, lp),
            "tvd": lambda: 0.5 * (p - q).abs().sum(), "skew_kl": lambda: kl(lp, lm)}[kind]()


KINDS = ["forward_kl", "reverse_kl", "jsd", "symmetric_kl", "tvd", "skew_kl", "mse_logits"]


def soft_loss(ins, a):
    h, w, y, teachers = ins[0], ins[1], ins[2], [t for t in ins[3:]]
    live, T = y != -100, a["temperature"]
    capped = lambda z, c: c * torch.tanh(z / c) if c else z
    z = capped(F.linear(h, w), a["softcap"])
    zt = [capped(F.linear(teachers[i], teachers[i + 1]).detach(), c) for i, c in zip(range(0, len(teachers), 2), a["caps"])]
    ce = F.cross_entropy(z, y.long(), ignore_index=-100, reduction="sum", label_smoothing=a["label_smoothing"])
    ps = sum(wt * torch.softmax(t / T, -1) for wt, t in zip(a["weights"], zt))[live]
    lp, lq = ps.log(), torch.log_softmax(z / T, -1)[live]
    if a["top_k"]:
        at = zt[0][live].topk(a["top_k"], -1).indices
        out = torch.ones_like(lp).scatter(-1, at, 0.0).bool()
        def classes(l):
            top = l.gather(-1, at)
            if a["renormalize"]:
                return torch.log_softmax(top, -1)
            if not out.any():
                return top
            return torch.cat([top, torch.logsumexp(l.masked_fill(~out, float("-inf")), -1, keepdim=True)], -1)
        lp, lq = classes(lp), classes(lq)
    ent = -(lp.exp() * lp).sum()
    kd = ((z - zt[0])[live] ** 2).mean(-1).sum() if a["kind"] == "mse_logits" else divergence(a["kind"], lp, lq, a["mix"])
    nll = F.cross_entropy(z.detach(), y.long(), ignore_index=-100, reduction="none")
    parts = torch.stack([ce.detach(), kd.detach(), ent.detach(), live.sum().double()])
    return a["ce_weight"] * ce + a["kd_weight"] * kd, {"parts": parts, "nll": nll}


def soft_case(key, kind, n=6, c=5, v=13, ct=(7,), mix=None, temperature=2.0, weights=(1.0,), caps=(0.0,), std=1.0, **over):
    a = dict(ce_weight=0.3, kd_weight=0.7 * temperature ** 2, temperature=temperature, label_smoothing=0.0, z_loss=0.0, softcap=0.0,
             kind=kind, mix=mix, top_k=0, renormalize=False, weights=list(weights), caps=list(caps)) | over
    y = ints(v, n)
    y[1::4] = -100
    ins = [rnd(n, c, std=std), rnd(v, c, std=.7), y] + [t for w in ct for t in (rnd(n, w), rnd(v, w, std=.7))]
    case(f"lm_loss.{key}", lambda *x: soft_loss(x, a), ins, dout=torch.tensor(0.75, dtype=torch.float64), extra=("parts", "nll"),
         no_grad=range(3, 20), **(a | dict(kind=KINDS.index(kind), mix=mix or 0.0, teacher_softcap=caps[0])))


for kind, mix in [("reverse_kl", None), ("jsd", 0.5), ("symmetric_kl", 0.3), ("tvd", None), ("skew_kl", 0.1), ("mse_logits", None)]:
    for key, over in [("t1", dict(temperature=1.0)), ("t3", dict(temperature=3.0)), ("wide", dict(n=6, c=5, v=67, ct=(3,))),
                      ("all", dict(softcap=4.0, caps=(5.0,), label_smoothing=0.1))]:
        soft_case(f"{kind}_{key}", kind, mix=mix, **over)
    if kind != "mse_logits":
        soft_case(f"{kind}_top4", kind, mix=mix, top_k=4)
        soft_case(f"{kind}_hot", kind, mix=mix, temperature=50.0)
        soft_case(f"{kind}_sharp", kind, mix=mix, temperature=0.5, std=4.0)
for mix in (0.1, 0.9):
    soft_case(f"jsd_{mix}", "jsd", mix=mix)
soft_case("top1", "forward_kl", top_k=1)
soft_case("top4", "forward_kl", top_k=4, temperature=3.0)
soft_case("top_wide", "forward_kl", n=7, c=5, v=101, ct=(3,), top_k=64, softcap=6.0, caps=(5.0,), label_smoothing=0.1)
soft_case("top_all", "forward_kl", top_k=13)
soft_case("top_sharp", "forward_kl", top_k=4, temperature=0.5, std=4.0)
soft_case("top_renormalized", "forward_kl", top_k=5, renormalize=True)
soft_case("top_renormalized_jsd", "jsd", mix=0.5, top_k=5, renormalize=True, temperature=1.0)
soft_case("teachers2", "forward_kl", ct=(7, 4), weights=(0.25, 0.75), caps=(0.0, 0.0))
soft_case("teachers3", "reverse_kl", ct=(3, 7, 4), weights=(0.5, 0.2, 0.3), caps=(0.0, 5.0, 0.0), temperature=1.0)

for key, n, c, y in [("one", 1, 1, None), ("all", 5, 7, None), ("some", 6, 17, ids(3, -100, 0, 5, -100, 1)), ("none", 3, 4, ids(-100, -100, -100))]:
    case(f"l1.{key}", lambda a, b, t: (a - b).abs()[rows_of(t)].mean(-1).sum(), [rnd(n, c), rnd(n, c), y],
         dout=torch.tensor(0.75, dtype=torch.float64))
for key, shape in [("odd", (5, 13)), ("batch", (2, 3, 16)), ("wide", (3, 67))]:
    case(f"unit.{key}", lambda x: F.normalize(x, dim=-1, eps=1e-8), [rnd(*shape)])


def relation(a, b, at, bt, y, sg, o):
    B, T = a.shape[:2]
    def matrix(x, k, heads, kv, scale):
        x, k = x.unflatten(-1, (heads, -1)), k.unflatten(-1, (kv, -1)).repeat_interleave(heads // kv, dim=2)
        return scale * torch.einsum("bthd,bshd->bhts", x, k)
    s, u = matrix(a, b, o["heads"], o["kv_heads"], o["scale"]), matrix(at, bt, o["t_heads"], o["t_kv_heads"], o["t_scale"])
    t = torch.arange(T)
    seen = (t[None] <= t[:, None])[None]
    if o["window"]:
        seen = seen & (t[None] > t[:, None] - o["window"])[None]
    if sg is not None:
        seen = seen & (sg[:, :, None] == sg[:, None, :])
    seen, live = seen[:, None].expand(B, 1, T, T), torch.ones(B, T).bool() if y is None else y != -100
    if o["kind"] == 1:
        if o["heads"] != o["t_heads"]:
            s, u = s.mean(1, keepdim=True), u.mean(1, keepdim=True)
        rows = F.mse_loss(s.masked_fill(~seen, 0.0), u.masked_fill(~seen, 0.0), reduction="none").mean(-1).mean(1)
    else:
        ls, lu = (torch.log_softmax(x.masked_fill(~seen, float("-inf")), -1) for x in (s, u))
        rows = torch.where(seen, lu.exp() * (lu - ls), torch.zeros((), dtype=torch.float64)).sum(-1).mean(1)
    return rows[live].sum()


def relation_case(key, kind, b, t, d, dt, heads, kv, t_heads, t_kv, same=False, window=0, y=None, sg=None):
    o = dict(kind=kind, heads=heads, kv_heads=kv, t_heads=t_heads, t_kv_heads=t_kv, D=d, t_D=dt, scale=d ** -0.5, t_scale=dt ** -0.5,
             window=window, same=same)
    a, at = rnd(b, t, heads * d), rnd(b, t, t_heads * dt)
    ins = [a, a if same else rnd(b, t, kv * d), at, at if same else rnd(b, t, t_kv * dt), y, sg]
    dout = torch.tensor(0.75, dtype=torch.float64)
    if same:                                                  # one tensor twice: the gradient stands under in0
        case(f"relation.{key}", lambda x, xt, yy, ss: relation(x, x, xt, xt, yy, ss, o), [a, at, y, sg], dout=dout, no_grad=(1,), **o)
        for name, at_ in [("in5", "in3"), ("in4", "in2"), ("in2", "in1")]:
            if f"relation.{key}.{at_}" in tensors:
                tensors[f"relation.{key}.{name}"] = tensors.pop(f"relation.{key}.{at_}")
        if f"relation.{key}.in2" in tensors:
            tensors[f"relation.{key}.in3"] = tensors[f"relation.{key}.in2"]
    else:
        case(f"relation.{key}", lambda *x: relation(*x, o), ins, dout=dout, no_grad=(2, 3), **o)


relation_case("qq", 0, 2, 7, 3, 5, 4, 4, 4, 4, same=True)
relation_case("vv_masked", 0, 2, 9, 4, 2, 3, 3, 3, 3, same=True, y=ids([1, -100, 2, 3, 4, 5, 6, -100, 0], [0] * 9),
              sg=ids([0, 0, 0, 1, 1, 1, 1, 2, 2], [0] * 5 + [1] * 4))
relation_case("attention", 0, 1, 11, 4, 6, 4, 2, 4, 1, window=5)
relation_case("scores", 1, 2, 6, 4, 3, 4, 2, 4, 4, y=ids([1, -100, 2, 3, 4, 5], [0] * 6))
relation_case("scores_averaged", 1, 2, 6, 4, 3, 4, 2, 6, 3, sg=ids([0, 0, 0, 1, 1, 1], [0] * 6))
relation_case("scores_long", 1, 1, 133, 2, 2, 1, 1, 1, 1, window=40)
relation_case("one", 1, 1, 1, 1, 1, 1, 1, 1, 1)

meta = {k: json.dumps(v, sort_keys=True) for k, v in attrs.items()}
meta |= {"generator": "tests/golden/make_kd.py", "seed": str(SEED), "torch": torch.__version__.split("+")[0]}
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "kd.safetensors")
st.save(path, tensors, meta)
print(f"{path}: {len(attrs)} cases, {len(tensors)} tensors, {os.path.getsize(path)} bytes")
