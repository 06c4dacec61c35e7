"""Golden values of every op: one torch expression each, float64 arithmetic, seeded. Writes ops.safetensors.

    python tests/golden/make_ops.py            # same bytes every time with the same torch

For op O and case K the file holds `O.K.in0`, `O.K.in1`, ... (F64, or I32 for ids, targets, positions, segments),
`O.K.out`, `O.K.dout` (the cotangent of out) and `O.K.grad<i>` = d<out, dout>/d in<i> for every float input; the
attributes are __metadata__["O.K"], a JSON object. A missing in<i> is a NULL input. Inputs and cotangents are exactly
representable in float32, so both tables can be held to the same numbers. Inputs by op:

    linear     x (..,in), w (out,in), b (out)                  embedding  w (V,C), ids
    add mul    a, b                                            axpy       a, b: out = alpha a + b
    gelu       x; tanh_form                                    swiglu     g, u: out = silu(g) u
    layernorm  x (..,C), w, b; eps                             rmsnorm    x (..,C), w; eps
    rope       x (rows,H,D), pos (rows); theta, d_rot, interleaved, mscale; extra tensor inv_freq (d_rot/2)
    attention  q (B,Tq,H,D), k, v (B,Tkv,Hkv,D), seg_q (B,Tq), seg_kv (B,Tkv); n_head, n_kv_head, head_dim, scale, causal,
               window, softcap, q_offset; extra tensor lse (B,H,Tq), -inf where a row sees no key (out and gradients 0)
    lm_loss    h (N,C), w (V,C), targets (N), ht (N,Ct), wt (V,Ct); the fields of LossAttr, plus alpha, T2 of the recipe;
               extra tensors parts (4) = sums of ce (label smoothing and z-loss in), kd, teacher entropy at T, counted rows,
               and nll (N), 0 where ignored. out = ce_weight ce + kd_weight kd, a sum over rows; ht and wt have no gradient
    mse        a, b (N,C), targets (N): sum over counted rows of mean over C of (a-b)^2
    cosine     a, b (N,C), targets (N): sum over counted rows of 1 - cos(a,b)
    slice      x (..,W); at, width                             kv_append  cache (B,Tmax,W), x (B,T,W), past (1)
    affine     x: out = alpha x + beta                         softcap    x: out = cap tanh(x / cap)
    mask       x: out = x where i % period != 0, else 0; topk_mask x, s: the same, and s gets dy x everywhere
    fakequant  x (..,C); format, block_rows, block_cols, asymmetric, double_quant, rule (of mx scales)
    fakequant_clip the same with standing scales: extra tensors scale, zero; fakequant_step x, s (R,G); fakegrad x
    dropout    x (B,..); p, seed, step, stream, sample0: the mask by a Philox4x32-10 written here from the paper
Not ops: adamw.K and sgd.K hold w0, g (steps,n) and w (steps,n) after each step (adamw also m, v after the last);
schedule.K.factor (N) the learning-rate factors of algorithms 5.24, attributes in the metadata.
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
from number_formats import Back, Through, blocks, clipped, fake, lsq, spec  # noqa: E402

SEED = 20240607
gen.manual_seed(SEED)


# ---- linear, embedding, pointwise ---------------------------------------------------------------------------------------
for key, shape, n_out in [("one", (1, 1), 1), ("odd", (5, 7), 3), ("wide", (33, 65), 18), ("batch", (2, 3, 16), 8)]:
    case(f"linear.{key}", F.linear, [rnd(*shape), rnd(n_out, shape[-1]), None])
    case(f"linear.{key}_bias", F.linear, [rnd(*shape), rnd(n_out, shape[-1]), rnd(n_out)])

case("embedding.repeat", lambda w, i: F.embedding(i, w), [rnd(11, 5), torch.tensor([[3, 0, 10], [3, 3, 7]], dtype=torch.int32)])
case("embedding.one", lambda w, i: F.embedding(i, w), [rnd(1, 1), torch.zeros(1, dtype=torch.int32)])
case("embedding.odd", lambda w, i: F.embedding(i, w), [rnd(40, 17), ints(40, 23)])

for key, shape in [("one", (1,)), ("odd", (3, 37)), ("batch", (2, 5, 16))]:
    case(f"add.{key}", lambda a, b: a + b, [rnd(*shape), rnd(*shape)])
    case(f"mul.{key}", lambda a, b: a * b, [rnd(*shape), rnd(*shape)])
    case(f"axpy.{key}", lambda a, b: 0.375 * a + b, [rnd(*shape), rnd(*shape)], alpha=0.375)
    case(f"swiglu.{key}", lambda g, u: F.silu(g) * u, [rnd(*shape, std=3.0), rnd(*shape)])
    for form in ("tanh", "none"):
        case(f"gelu.{key}_{'tanh' if form == 'tanh' else 'erf'}", lambda x: F.gelu(x, approximate=form), [rnd(*shape, std=2.0)],
             tanh_form=form == "tanh")
far = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 0.5, -0.75, 3.0, -3.0, 5.5, -5.5, 9.0, -9.0, 30.0, -30.0, 100.0, -100.0],
                   dtype=torch.float32).double()
case("gelu.far_tanh", lambda x: F.gelu(x, approximate="tanh"), [far], tanh_form=True)
case("gelu.far_erf", lambda x: F.gelu(x), [far], tanh_form=False)
case("swiglu.far", lambda g, u: F.silu(g) * u, [far, rnd(16)])


# ---- norms ----------------------------------------------------------------------------------------------------------------
def rms(x, w=None, eps=1e-6):
    y = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)
    return y if w is None else y * w


for key, shape in [("one", (1, 1)), ("odd", (5, 7)), ("batch", (2, 3, 33))]:
    c = shape[-1]
    case(f"layernorm.{key}", lambda x, w, b: F.layer_norm(x, (c,), w, b, 1e-5), [rnd(*shape, std=2.0, mean=0.5), rnd(c, std=.2, mean=1), rnd(c)], eps=1e-5)
    case(f"layernorm.{key}_nobias", lambda x, w, b: F.layer_norm(x, (c,), w, None, 1e-6), [rnd(*shape, std=2.0, mean=-1.0), rnd(c, std=.2, mean=1), None], eps=1e-6)
    case(f"rmsnorm.{key}", lambda x, w: rms(x, w, 1e-6), [rnd(*shape, std=2.0), rnd(c, std=.2, mean=1)], eps=1e-6)
case("layernorm.plain", lambda x, w, b: F.layer_norm(x, (12,), None, None, 1e-5), [rnd(4, 12), None, None], eps=1e-5)
case("rmsnorm.plain", lambda x, w: rms(x, None, 1e-5), [rnd(4, 12), None], eps=1e-5)
rows = rnd(5, 16)
rows[1], rows[2], rows[3] = 0.0, 3.25, rows[3] * 1e-4        # all zero, constant, tiny against eps
rows[4, 7] = 1000.0                                           # one huge value
case("layernorm.rows", lambda x, w, b: F.layer_norm(x, (16,), w, b, 1e-5), [rows, rnd(16, std=.2, mean=1), rnd(16)], eps=1e-5)
case("rmsnorm.rows", lambda x, w: rms(x, w, 1e-6), [rows, rnd(16, std=.2, mean=1)], eps=1e-6)


# ---- rope -----------------------------------------------------------------------------------------------------------------
def rope(x, pos, inv_freq, d_rot, interleaved, mscale):
    """By complex multiplication, pair by pair: independent of the usual rotate_half formula."""
    a = pos.double()[:, None, None] * inv_freq
    turn = torch.polar(torch.full_like(a, mscale), a)
    z, rest = x[..., :d_rot], x[..., d_rot:]
    z = z.unflatten(-1, (-1, 2)) if interleaved else z.unflatten(-1, (2, -1)).transpose(-1, -2)
    y = torch.view_as_real(torch.view_as_complex(z.contiguous()) * turn)
    y = y.flatten(-2) if interleaved else y.transpose(-1, -2).flatten(-2)
    return torch.cat([y, rest], -1)


def rope_case(key, n, h, d, pos, d_rot=None, interleaved=False, theta=10000.0, mscale=1.0):
    d_rot = d_rot or d
    inv = theta ** -(torch.arange(0, d_rot, 2, dtype=torch.float64) / d_rot)
    case(f"rope.{key}", lambda x, p: rope(x, p, inv, d_rot, interleaved, mscale), [rnd(n, h, d), pos], n_head=h, head_dim=d,
         d_rot=d_rot, interleaved=interleaved, theta=theta, mscale=mscale)
    tensors[f"rope.{key}.inv_freq"] = inv


run = torch.arange(9, dtype=torch.int32)
rope_case("half", 9, 2, 8, run)
rope_case("half_far", 6, 3, 16, torch.tensor([0, 1, 1000, 8191, 131071, 5], dtype=torch.int32), theta=500000.0)
rope_case("partial", 9, 2, 12, run, d_rot=6)
rope_case("interleaved", 9, 2, 8, run, interleaved=True)
rope_case("interleaved_partial", 4, 1, 10, run[:4] + 3, d_rot=4, interleaved=True)
rope_case("mscale", 5, 2, 6, run[:5], mscale=1.25)
rope_case("one", 1, 1, 2, torch.tensor([1], dtype=torch.int32))


# ---- attention --------------------------------------------------------------------------------------------------------------
def attention(q, k, v, seg_q, seg_kv, scale, causal, window, softcap, q_offset):
    b, tq, h, d = q.shape
    tkv, hkv = k.shape[1], k.shape[2]
    k, v = (t.repeat_interleave(h // hkv, dim=2) for t in (k, v))
    s = torch.einsum("bthd,bshd->bhts", q, k) * scale
    if softcap > 0:
        s = softcap * torch.tanh(s / softcap)
    at = torch.arange(tq)[:, None] + q_offset
    key = torch.arange(tkv)[None, :]
    seen = torch.ones(b, 1, tq, tkv, dtype=torch.bool)
    if causal:
        seen = seen & (key <= at)
    if window > 0:
        seen = seen & (key > at - window)
    if seg_q is not None:
        seen = seen & (seg_q[:, None, :, None] == seg_kv[:, None, None, :])
    some = seen.any(-1, keepdim=True)
    p = torch.softmax(s.masked_fill(~seen, float("-inf")).masked_fill(~some, 0.0), -1).masked_fill(~some, 0.0)
    lse = torch.logsumexp(s.detach().masked_fill(~seen, float("-inf")), -1)
    return torch.einsum("bhts,bshd->bthd", p, v), {"lse": lse}


def attention_case(key, b, tq, tkv, h, hkv, d, causal=True, window=0, softcap=0.0, q_offset=0, seg=None, scale=None, std=1.0):
    scale = d ** -0.5 if scale is None else scale
    ins = [rnd(b, tq, h, d, std=std), rnd(b, tkv, hkv, d, std=std), rnd(b, tkv, hkv, d)] + (list(seg) if seg else [None, None])
    at = dict(scale=scale, causal=causal, window=window, softcap=softcap, q_offset=q_offset)
    case(f"attention.{key}", lambda *x: attention(*x, **at), ins, extra=("lse",), n_head=h, n_kv_head=hkv, head_dim=d, **at)


def seg(*r):
    return torch.tensor(r, dtype=torch.int32)


attention_case("one", 1, 1, 1, 1, 1, 1)
attention_case("causal", 2, 8, 8, 2, 2, 8)
attention_case("odd", 1, 13, 13, 3, 3, 12)
attention_case("long", 1, 83, 83, 1, 1, 16)
attention_case("sharp", 1, 37, 37, 2, 1, 8, std=4.0)
attention_case("full", 2, 7, 7, 2, 2, 4, causal=False)
attention_case("cross", 2, 4, 9, 2, 2, 8, causal=False)
attention_case("gqa", 2, 9, 9, 6, 2, 4)
attention_case("mqa", 1, 10, 10, 4, 1, 6)
attention_case("scale", 1, 6, 6, 2, 2, 8, scale=0.125)
attention_case("window", 1, 15, 15, 2, 2, 8, window=4)
attention_case("window1", 1, 5, 5, 1, 1, 4, window=1)
attention_case("window_full", 1, 9, 9, 1, 1, 4, causal=False, window=3)
attention_case("softcap", 1, 11, 11, 2, 1, 8, softcap=2.5, std=2.0)
attention_case("offset", 2, 3, 11, 4, 2, 8, q_offset=8)
attention_case("offset_window", 1, 5, 12, 2, 2, 4, q_offset=7, window=3)
attention_case("segments", 2, 10, 10, 2, 2, 8, seg=(seg([0, 0, 0, 1, 1, 1, 1, 2, 2, 2], [0] * 5 + [1] * 5),) * 2)
attention_case("masked_row", 1, 6, 6, 2, 1, 4, seg=(seg([0, 0, 7, 1, 1, 1]), seg([0, 0, 0, 1, 1, 1])))
attention_case("masked_window", 1, 3, 4, 1, 1, 4, q_offset=5, window=3)      # the last rows are past every key
attention_case("everything", 2, 21, 33, 6, 3, 12, q_offset=12, window=9, softcap=8.0,
               seg=(seg([0] * 9 + [1] * 12, [0] * 3 + [1] * 18), seg([0] * 21 + [1] * 12, [0] * 15 + [1] * 18)))


# ---- losses ---------------------------------------------------------------------------------------------------------------
def lm_loss(h, w, y, ht, wt, a):
    live = y != -100
    z = F.linear(h, w)
    z = a["softcap"] * torch.tanh(z / a["softcap"]) if a["softcap"] else z
    ce = F.cross_entropy(z, y.long(), ignore_index=-100, reduction="sum", label_smoothing=a["label_smoothing"])
    ce = ce + a["z_loss"] * (torch.logsumexp(z, -1) ** 2)[live].sum()
    kd = ent = torch.zeros((), dtype=torch.float64)
    if ht is not None:
        zt = F.linear(ht, wt).detach()
        zt = a["teacher_softcap"] * torch.tanh(zt / a["teacher_softcap"]) if a["teacher_softcap"] else zt
        lp, lq = (torch.log_softmax(t[live] / a["temperature"], -1) for t in (zt, z))
        kd, ent = F.kl_div(lq, lp, log_target=True, reduction="sum"), -(lp.exp() * lp).sum()
    nll = F.cross_entropy(z.detach(), y.long(), ignore_index=-100, reduction="none")
    parts = torch.stack([ce.detach(), kd.detach(), ent.detach(), live.sum().double()])
    return a["ce_weight"] * ce + a["kd_weight"] * kd, {"parts": parts, "nll": nll}


def loss_case(key, n, c, v, ct=0, alpha=None, temperature=1.0, scale_t2=True, dout=0.75, y=None, std=1.0, **over):
    a = dict(ce_weight=1.0, kd_weight=0.0, temperature=temperature, label_smoothing=0.0, z_loss=0.0, softcap=0.0, teacher_softcap=0.0)
    if ct:
        a["ce_weight"], a["kd_weight"] = 1 - alpha, alpha * (temperature ** 2 if scale_t2 else 1.0)
    a.update(over)
    if y is None:
        y = ints(v, n)
        y[1::4] = -100
    teacher = [rnd(n, ct), rnd(v, ct, std=.7)] if ct else [None, None]
    case(f"lm_loss.{key}", lambda *x: lm_loss(*x, a), [rnd(n, c, std=std), rnd(v, c, std=.7), y] + teacher,
         dout=torch.tensor(dout, dtype=torch.float64), extra=("parts", "nll"), no_grad=(3, 4), alpha=alpha, scale_t2=scale_t2, **a)


loss_case("one", 1, 1, 2, y=seg(1))
loss_case("ce", 9, 6, 11)
loss_case("ce_wide", 33, 19, 301)
loss_case("ce_smooth", 9, 6, 11, label_smoothing=0.1)
loss_case("ce_zloss", 9, 6, 11, z_loss=1e-2)
loss_case("ce_smooth_zloss", 10, 6, 13, label_smoothing=0.2, z_loss=1e-2)
loss_case("ce_softcap", 9, 6, 11, softcap=3.0)
loss_case("ce_large", 6, 4, 9, std=3000.0)
loss_case("ce_ignored", 4, 5, 7, y=torch.full((4,), -100, dtype=torch.int32))
loss_case("kd_t1", 9, 6, 13, ct=10, alpha=0.5, temperature=1.0)
loss_case("kd_t2", 9, 6, 13, ct=10, alpha=0.7, temperature=2.0)
loss_case("kd_t4", 9, 6, 13, ct=4, alpha=0.9, temperature=4.0)
loss_case("kd_only", 9, 6, 13, ct=10, alpha=1.0, temperature=2.0)
loss_case("kd_no_t2", 9, 6, 13, ct=10, alpha=0.5, temperature=2.0, scale_t2=False)
loss_case("kd_wide", 35, 17, 259, ct=23, alpha=0.5, temperature=2.0)
loss_case("kd_all", 9, 6, 13, ct=10, alpha=0.5, temperature=2.0, label_smoothing=0.1, z_loss=1e-3, softcap=4.0, teacher_softcap=5.0)
loss_case("kd_ignored", 3, 4, 7, ct=5, alpha=0.5, temperature=2.0, y=torch.full((3,), -100, dtype=torch.int32))


def rows_of(y):
    return slice(None) if y is None else y != -100


for key, n, c, y in [("one", 1, 1, None), ("all", 5, 7, None), ("some", 6, 17, seg(3, -100, 0, 5, -100, 1)), ("none", 3, 4, seg(-100, -100, -100))]:
    d = torch.tensor(0.75, dtype=torch.float64)
    case(f"mse.{key}", lambda a, b, t: ((a - b) ** 2)[rows_of(t)].mean(-1).sum(), [rnd(n, c), rnd(n, c), y], dout=d)
    case(f"cosine.{key}", lambda a, b, t: (1 - F.cosine_similarity(a, b, dim=-1, eps=0.0))[rows_of(t)].sum(), [rnd(n, c), rnd(n, c), y], dout=d)


# ---- optimizers and schedules -----------------------------------------------------------------------------------------------
def optimizer_case(name, make, n=37, steps=10, **attr):
    w = rnd(n)
    g = rnd(steps, n, std=0.3)
    g[:, 0] = 0.0                                              # a weight that never gets a gradient
    tensors[f"{name}.w0"], tensors[f"{name}.g"] = w.clone(), g
    p = torch.nn.Parameter(w.clone())
    opt, after = make([p]), []
    for t in range(steps):
        for group in opt.param_groups:
            group["lr"] = attr["lr"] * (1.0 if attr["constant"] else (t + 1) / steps)
        p.grad = g[t].clone()
        opt.step()
        after.append(p.detach().clone())
    tensors[f"{name}.w"] = torch.stack(after)
    s = opt.state[p]
    if "exp_avg" in s:
        tensors[f"{name}.m"], tensors[f"{name}.v"] = s["exp_avg"], s["exp_avg_sq"]
    elif s.get("momentum_buffer") is not None:
        tensors[f"{name}.m"] = s["momentum_buffer"]
    attrs[name] = dict(attr, steps=steps)


def adamw_case(key, **a):
    optimizer_case(f"adamw.{key}", lambda p: torch.optim.AdamW(p, lr=a["lr"], betas=(a["beta1"], a["beta2"]), eps=a["eps"],
                                                             weight_decay=a["weight_decay"], foreach=False), **a)


adamw_case("plain", lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, constant=True)
adamw_case("decay", lr=1e-2, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1, constant=True)
adamw_case("ramp", lr=1e-2, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=0.1, constant=False)   # lr (t+1)/steps
for key, mom, wd in [("plain", 0.0, 0.0), ("momentum", 0.9, 0.0), ("momentum_decay", 0.9, 0.01)]:
    optimizer_case(f"sgd.{key}", lambda p: torch.optim.SGD(p, lr=0.05, momentum=mom, weight_decay=wd, foreach=False), lr=0.05,
                   momentum=mom, weight_decay=wd, constant=True)  # decay as torch: g + wd w goes into the momentum


def factor(kind, t, n, w, m, power, decay_ratio, cycles):
    if t < w:
        return (t + 1) / w
    u = (t - w) / (n - w)
    if kind == "constant":
        return 1.0
    if kind == "linear":
        return 1 - (1 - m) * u
    if kind == "cosine":
        u = u * cycles % 1.0 if cycles != 1 else u
        return m + (1 - m) * (1 + math.cos(math.pi * u)) / 2
    if kind == "polynomial":
        return m + (1 - m) * (1 - u) ** power
    if kind == "inverse_sqrt":
        return math.sqrt(max(w, 1) / (t + 1))
    start = n * (1 - decay_ratio)                              # wsd
    return 1.0 if t < start else 1 - (1 - m) * (t - start) / (n - start)


for kind in ("constant", "linear", "cosine", "polynomial", "inverse_sqrt", "wsd"):
    for key, over in [("", {}), ("_nowarm", dict(warmup=0, min_lr_ratio=0.0))] + ([("_cycles", dict(cycles=3))] if kind == "cosine" else []):
        a = dict(steps=100, warmup=10, min_lr_ratio=0.1, power=2.0, decay_ratio=0.2, cycles=1) | over
        tensors[f"schedule.{kind}{key}.factor"] = torch.tensor(
            [factor(kind, t, a["steps"], a["warmup"], a["min_lr_ratio"], a["power"], a["decay_ratio"], a["cycles"]) for t in range(a["steps"])],
            dtype=torch.float64)
        attrs[f"schedule.{kind}{key}"] = dict(a, kind=kind)

# ---- cuts, the cache, dropout (after the rest: the numbers above stay what they were) ---------------------------------------
case("slice.middle", lambda x: x[..., 3:7], [rnd(2, 3, 9)], at=3, width=4)
case("slice.first", lambda x: x[..., :5], [rnd(4, 5)], at=0, width=5)
case("slice.last", lambda x: x[..., 6:], [rnd(3, 7)], at=6, width=1)


def kv_append(cache, x, past):
    return torch.cat([cache[:, :past], x, cache[:, past + x.shape[1]:]], 1)


for key, b, room, n, width, past in [("first", 1, 6, 4, 5, 0), ("middle", 2, 9, 3, 4, 4), ("last", 2, 5, 1, 3, 4)]:
    case(f"kv_append.{key}", lambda c, x, p: kv_append(c, x, int(p)), [rnd(b, room, width), rnd(b, n, width), seg(past)])


def philox(counter, key):
    """Philox4x32-10 (Salmon, Moraes, Dror, Shaw, SC 2011): four words."""
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & low, (a >> 32) ^ c[3] ^ k[1], a & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def dropout_case(key, shape, p, seed, step, stream, sample0):
    n = math.prod(shape[1:])
    keep = [[philox([e // 4, step, stream, sample0 + s], [seed & 0xFFFFFFFF, seed >> 32])[e % 4] >= p * 2.0 ** 32
             for e in range(n)] for s in range(shape[0])]
    mask = torch.tensor(keep, dtype=torch.float64).view(shape) / (1 - p)
    case(f"dropout.{key}", lambda x: x * mask, [rnd(*shape)], p=p, seed=seed, step=step, stream=stream, sample0=sample0)


dropout_case("some", (3, 5, 9), 0.3, 42, 7, 1234567, 11)
dropout_case("most", (1, 37), 0.9, (5 << 32) + 3, 0, 0xFFFFFFFF, 0)
dropout_case("none", (2, 6), 0.0, 1, 2, 3, 4)

for key, shape in [("one", (1,)), ("odd", (3, 37)), ("batch", (2, 5, 16))]:
    case(f"affine.{key}", lambda x: -1.75 * x + 0.625, [rnd(*shape)], alpha=-1.75, beta=0.625)
    case(f"softcap.{key}", lambda x: 2.5 * torch.tanh(x / 2.5), [rnd(*shape, std=3.0)], cap=2.5)
case("softcap.far", lambda x: 30.0 * torch.tanh(x / 30.0), [far], cap=30.0)

# ---- number formats ----------------------------------------------------------------------------------------------------------
for key, shape, a in [("int8_row", (5, 37), spec("int8", 1)), ("int8_tensor", (4, 9), spec("int8")), ("int4_group", (3, 40), spec("int4", 1, 16)),
                      ("int4_zero", (3, 40), spec("int4", 1, 16, asymmetric=True)), ("e4m3_row", (5, 37), spec("fp8_e4m3", 1)),
                      ("e4m3_tiles", (7, 20), spec("fp8_e4m3", 3, 8)), ("e5m2", (2, 3, 19), spec("fp8_e5m2")), ("e2m1", (4, 33), spec("fp4_e2m1", 1, 8)),
                      ("nf4", (3, 70), spec("nf4", 1, 64)), ("nf4_double", (40, 130), spec("nf4", 1, 16, double_quant=True)),
                      ("mxfp8", (3, 70), spec("mxfp8", 1, 32)), ("mxfp4", (3, 70), spec("mxfp4", 1, 32)),
                      ("mxfp4_ceil", (3, 70), spec("mxfp4", 1, 32, rule="ceil")), ("nvfp4", (5, 40), spec("nvfp4", 1, 16))]:
    case(f"fakequant.{key}", lambda x: Through.apply(x, fake(x, a)[0]), [rnd(*shape)], **a)
    if key in ("int8_tensor", "e5m2", "mxfp8"):
        case(f"fakegrad.{key}", lambda x: Back.apply(x, a), [rnd(*shape)], **a)
for key, shape, a, s in [("int8", (7, 33), spec("int8"), 3 * 2.0 ** -8), ("e4m3_row", (3, 19), spec("fp8_e4m3", 1), 5 * 2.0 ** -11),
                         ("int4_group", (4, 40), spec("int4", 1, 16), 7 * 2.0 ** -6)]:
    n = int(blocks(torch.zeros(shape), a["block_rows"], a["block_cols"])[1].max()) + 1
    steps = torch.tensor([s * 2.0 ** (i % 2) for i in range(n)], dtype=torch.float64)
    case(f"fakequant_clip.{key}", lambda x: clipped(x, a, steps), [rnd(*shape)], extra=("scale",), **a)
    case(f"fakequant_step.{key}", lambda x, p: lsq(x, p, a), [rnd(*shape), steps.view(-1, n)], **a)
case("fakequant_clip.int4_zero", lambda x: clipped(x, a, torch.tensor([.125, .0625, .25]), torch.tensor([3., 12., 0.])), [rnd(1, 40)],
     extra=("scale", "zero"), **(a := spec("int4", 1, 16, asymmetric=True)))

# ---- adapters ------------------------------------------------------------------------------------------------------------------
for key, n, k, m, bias in [("bias", (2, 3), 7, 5, True), ("plain", (9,), 33, 140, False)]:
    codes = torch.randint(-127, 128, (m, k), generator=gen).double()
    codes[:, 0] = 127                                         # the largest of a row gives back the scale
    w = codes * 2.0 ** (torch.arange(m).double() % 3 - 8).view(-1, 1)
    case(f"linear_q.{key}", lambda x, b=None: (F.linear(x, w, b), {"w": w}), [rnd(*n, k), rnd(m) if bias else None], extra=("w",))
for key, o, i, r, s in [("half", 7, 9, 3, 0.5), ("wide", 5, 70, 2, 2.0)]:
    case(f"lora_weight.{key}", lambda w, a, b: w + s * b @ a, [rnd(o, i), rnd(r, i), rnd(o, r)], scale=s)
    case(f"dora_scale.{key}", lambda w, a, b, m: m / (w + s * b @ a).detach().norm(dim=1), [rnd(o, i), rnd(r, i), rnd(o, r), rnd(o)],
         no_grad=(0, 1, 2), scale=s)
case("scale_by.columns", lambda x, g, b: x * g + b, [rnd(2, 3, 17), rnd(17), rnd(17)], rows=False)
case("scale_by.rows", lambda x, g: x * g.view(-1, 1), [rnd(5, 9), rnd(5)], rows=True)
for key, shape in (("small", (3, 7)), ("rows", (5, 33))):
    keep = torch.tensor([i % 3 != 0 for i in range(math.prod(shape))], dtype=torch.float64).reshape(shape)
    case(f"mask.{key}", lambda x: torch.where(keep > 0, x, torch.zeros_like(x)), [rnd(*shape)], period=3)
    case(f"topk_mask.{key}", lambda x, s: x * (keep + s - s.detach()), [rnd(*shape), rnd(*shape)], period=3)

meta = {k: json.dumps(v, sort_keys=True) for k, v in attrs.items()}
meta |= {"generator": "tests/golden/make_ops.py", "seed": str(SEED), "torch": torch.__version__.split("+")[0]}
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ops.safetensors")
st.save(path, tensors, meta)
print(f"{path}: {len(attrs)} cases, {len(tensors)} tensors, {os.path.getsize(path)} bytes")

# ---- the op of docs/add-an-op.md, which is in no table: a file of its own ----------------------------------------------------
tensors.clear(), attrs.clear(), gen.manual_seed(SEED)
with open(os.path.join(os.path.dirname(path), "..", "add_an_op", "golden.py"), encoding="utf-8") as page:
    exec(page.read())
st.save(path.replace("ops.", "add-an-op."), tensors, {k: json.dumps(v) for k, v in attrs.items()})
