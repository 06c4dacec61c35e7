"""Fixture of tests/test_codec.c: casts by PyTorch's float8 types, codes and scales of the block formats by NumPy from
exact tables, LSQ and straight-through gradients by PyTorch autograd.     python tests/golden/make_codec.py

The quantisers here are written from the definitions (docs of the formats), in another way than core/codec*.c: values
are compared with all values of the grid in float64, scales are float32 arithmetic. Seeded; about 90 KB."""
import numpy as np, torch
from safetensors.numpy import save_file

rng = np.random.default_rng(7)
out = {}
f32 = np.float32
x = np.concatenate([rng.standard_normal(3000), rng.standard_normal(1000) * 200, rng.standard_normal(600) * 1e-3,
                    np.array([0, -0.0, 448, 449, 464, 465, 1e9, 57344, 61439, 61440, 17, 19, 2**-10, 0.00097657, 2**-16, 2**-17,
                              2**-9, 2**-6, 1e-30, -1e-30, -464, -61440, 3e38, -3e38])]).astype(f32)
out["cast.x"] = x
t = torch.from_numpy(x)
out["cast.e4m3"] = t.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
out["cast.e5m2"] = t.clamp(-57344, 57344).to(torch.float8_e5m2).view(torch.uint8).numpy()

E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6])
E4M3 = torch.arange(0, 127, dtype=torch.uint8).view(torch.float8_e4m3fn).double().numpy()


def nearest(v, grid):
    """index of the nearest value, ties to the even index; v >= 0 float64"""
    d = np.abs(v[..., None] - grid)
    i = d.argmin(-1)
    j = np.minimum(i + 1, len(grid) - 1)
    tie = np.take_along_axis(d, i[..., None], -1)[..., 0] == np.take_along_axis(d, j[..., None], -1)[..., 0]
    return np.where(tie & (i != j) & (i % 2 == 1), j, i)


def small(v, grid, sign):
    c = nearest(np.abs(v.astype(np.float64)), grid)
    return (c | np.where(np.signbit(v), sign, 0)).astype(np.uint8)


def pack4(c):
    c = c & 15
    return (c[:, ::2] | c[:, 1::2] << 4).astype(np.uint8)


R, C = 12, 160
w = (rng.standard_normal((R, C)) * 0.05).astype(f32)
w[3, 16:32] = 0
w[4, 32:64] *= f32(1e-6)
w[5, :32] *= f32(300)
w[6, 5] = f32(2.0)
out["w"] = w
amax = np.abs(w).max(1, keepdims=True)
s = amax / f32(127)
out["int8.codes"] = np.clip(np.rint(w / s), -127, 127).astype(np.int8)
out["int8.scales"] = s
g = w.reshape(R, -1, 32)
gm = np.abs(g).max(2, keepdims=True)
s = np.where(gm == 0, f32(1), gm / f32(7)).astype(f32)
out["int4.codes"] = pack4(np.clip(np.rint(g / s), -7, 7).astype(np.int8).view(np.uint8).reshape(R, C))
out["int4.scales"] = s[..., 0]
s = np.where(gm == 0, f32(1), gm / f32(7.5)).astype(f32)
out["int4full.codes"] = pack4(np.clip(np.rint(g / s), -8, 7).astype(np.int8).view(np.uint8).reshape(R, C))
lo, hi = np.minimum(g.min(2, keepdims=True), 0), np.maximum(g.max(2, keepdims=True), 0)
s = ((hi - lo) / f32(15)).astype(f32)
s = np.where(s == 0, f32(1), s)
z = np.clip(np.rint(-lo / s), 0, 15)
out["int4asym.codes"] = pack4(np.clip(np.rint(g / s) + z, 0, 15).astype(np.uint8).reshape(R, C))
out["int4asym.scales"], out["int4asym.zeros"] = s[..., 0], z[..., 0].astype(np.uint8)
s = amax / f32(448)
out["fp8_e4m3.codes"] = (torch.from_numpy(w / s).clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8).numpy())

# NVFP4: t = amax / 2688, block scale E4M3 of amax_b / (6 t) within [2^-9, 448], codes by the rounded product
b = w.reshape(R, -1, 16)
bm = np.abs(b).max(2, keepdims=True)
t = f32(np.abs(w).max() / f32(2688))
s1 = np.clip(bm / (f32(6) * t), f32(2**-9), f32(448)).astype(f32)
sc = nearest(s1.astype(np.float64), E4M3)
sc = np.where(bm == 0, 0x38, sc).astype(np.uint8)
d = (E4M3[sc].astype(f32) * t).astype(f32)
out["nvfp4.codes"] = pack4(small((b / d).reshape(R, C), E2M1, 8))
out["nvfp4.scales"], out["nvfp4.tensor"] = sc[..., 0], np.array(t, f32).reshape(1)
for name, rule in (("floor", lambda m, e, top: e - 2), ("ceil", lambda m, e, top: np.ceil(np.log2(top / 6.0))),
                   ("bump", lambda m, e, top: e - 2 + (m >= 1.75))):
    top = gm.astype(np.float64)
    e = np.floor(np.log2(np.where(top == 0, 1, top)))
    m = np.where(top == 0, 1, top) / 2.0**e
    e = np.clip(np.where(top == 0, -127, rule(m, e, np.where(top == 0, 1, top))), -127, 127)
    out[f"mxfp4_{name}.scales"] = (e[..., 0] + 127).astype(np.uint8)
    out[f"mxfp4_{name}.codes"] = pack4(small((g / (2.0**e).astype(f32)).reshape(R, C), E2M1, 8))
LEVELS = np.array([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
                   -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                   0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0], f32)
n = w[:, :128].reshape(R, -1, 64)
nm = np.abs(n).max(2, keepdims=True)
q = (n / nm).astype(np.float64)
out["nf4.codes"] = pack4(np.abs(q[..., None] - LEVELS.astype(np.float64)).argmin(-1).astype(np.uint8).reshape(R, 128))
out["nf4.absmax"] = nm[..., 0]

# LSQ by autograd: y = s (q - z) with the rounding passed straight through, gradient of s times 1/sqrt(n hi)
for name, hi_, shape in (("lsq8", 127, (1, 1)), ("lsq4", 7, (R, 1))):
    wt = torch.from_numpy(w[:, :40].copy()).double().requires_grad_()
    st = torch.full(shape, 0.01 if hi_ == 127 else 0.008, dtype=torch.float32).double().requires_grad_()
    u = torch.from_numpy(rng.standard_normal((R, 40)).astype(f32)).double()
    v = wt / st
    c = v.clamp(-hi_, hi_)
    y = (c + (c.round() - c).detach()) * st
    (y * u).sum().backward()
    numel = wt.numel() / st.numel()
    out[name + ".dy"], out[name + ".dx"] = u.float().numpy(), wt.grad.float().numpy()
    out[name + ".ds"] = (st.grad / (numel * hi_) ** 0.5).float().numpy()
save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, "tests/golden/codec.safetensors",
          {"torch": torch.__version__, "numpy": np.__version__, "seed": "7"})
print(sum(v.nbytes for v in out.values()), "bytes")
