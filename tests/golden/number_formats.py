"""The number formats for make_ops.py: codes by torch's casts, by torch.round and by the tables, in float32; scales from
the definitions (formats.md 1.5, 1.6; LSQ 1902.08153). Independent of core/codec*.c."""
import torch

E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6], dtype=torch.float64)
NF4 = torch.tensor([-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
                    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023,
                    1.0], dtype=torch.float32)
TOP = dict(int8=127, int4=7, fp8_e4m3=448, fp8_e5m2=57344, fp4_e2m1=6, mxfp4=6, mxfp8=448, nvfp4=6)


def dynamic_map():
    """bitsandbytes' 8-bit dynamic map with sign: 0, 1, and +-10^(i-6) midpoints of 2^i parts of [0.1, 1]."""
    v = [0.0, 1.0]
    for i in range(7):
        edge = torch.linspace(0.1, 1, 2 ** i + 1, dtype=torch.float64)
        v += [s * m for m in (10.0 ** (i - 6) * (edge[1:] + edge[:-1]) / 2).tolist() for s in (1, -1)]
    return torch.tensor(sorted(v), dtype=torch.float64).float()


def code(v, fmt, lo, hi):
    """The nearest element of v (float32), ties to even."""
    if fmt.startswith("int"):
        return torch.round(v.clamp(lo, hi))
    if fmt in ("fp8_e4m3", "mxfp8", "fp8_e5m2"):
        return v.clamp(lo, hi).to(torch.float8_e5m2 if fmt == "fp8_e5m2" else torch.float8_e4m3fn).float()
    if fmt == "nf4":
        return NF4[(v.double()[..., None] - NF4.double()).abs().argmin(-1)]
    d = (v.double().abs()[..., None] - E2M1).abs()
    odd = torch.arange(8) % 2 * 1e-12                          # a tie goes to the even code
    return torch.copysign(E2M1[(d + odd).argmin(-1)].float(), v)


def blocks(x, br, bc):
    """x as a matrix, and for each element the block it is in."""
    m = x.reshape(-1, x.shape[-1])
    br, bc = br or m.shape[0], bc or m.shape[1]
    groups = -(-m.shape[1] // bc)
    return m, (torch.arange(m.shape[0]) // br)[:, None] * groups + torch.arange(m.shape[1])[None, :] // bc


def fake(x, a, scale=None, zero=None):
    """x there and back, as float32 computes it; scale (blocks), zero: standing ones, else found."""
    fmt = a["format"]
    m, at = blocks(x.detach().float(), a["block_rows"], a["block_cols"])
    n = int(at.max()) + 1
    own = [m[at == i] for i in range(n)]
    amax, top = torch.stack([o.abs().max() for o in own]), TOP.get(fmt, 1.0)
    tensor, z = torch.ones((), dtype=torch.float32), torch.zeros(n)
    if scale is not None:
        s, z = scale.float(), z if zero is None else zero.float()
    elif fmt == "nvfp4":
        tensor = m.abs().max() / 2688
        s = (amax / (6 * tensor)).clamp(2.0 ** -9, 448).to(torch.float8_e4m3fn).float()
    elif fmt.startswith("mx"):
        e = torch.log2(amax.double())
        e = torch.floor(e) - (2 if fmt == "mxfp4" else 8) if a["rule"] == "floor" else torch.ceil(torch.log2(amax.double() / top))
        s = (2.0 ** e).float()
    elif a["asymmetric"]:
        low = torch.stack([o.min() for o in own]).clamp(max=0)
        s = (torch.stack([o.max() for o in own]).clamp(min=0) - low) / (2 * top + 1)
        z = torch.round(-low / s).clamp(0, 2 * top + 1)
    else:
        s = amax / top
    if a["double_quant"]:
        mean = s.double().mean().float()
        d, levels = s - mean, dynamic_map()
        for b in range(0, n, 256):
            peak = d[b:b + 256].abs().max()
            pick = ((d[b:b + 256] / peak).double()[:, None] - levels.double()).abs().argmin(-1)
            s[b:b + 256] = levels[pick] * peak + mean
    lo, hi = (-z, 2 * top + 1 - z) if a["asymmetric"] else (torch.full((n,), -float(top)), torch.full((n,), float(top)))
    y = code(m / (s * tensor)[at], fmt, lo[at], hi[at]) * s[at] * tensor
    bounds = (lo.double() * s)[at].view(x.shape), (hi.double() * s)[at].view(x.shape)
    return y.double().view(x.shape), bounds


class Through(torch.autograd.Function):
    """Straight through: y forwards, dy backwards."""
    @staticmethod
    def forward(ctx, x, y):
        return y.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy, None


class Back(torch.autograd.Function):
    """x forwards, the format backwards."""
    @staticmethod
    def forward(ctx, x, a):
        ctx.a = a
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return fake(dy, ctx.a)[0], None


def spec(fmt, br=0, bc=0, **over):
    return dict(format=fmt, block_rows=br, block_cols=bc, asymmetric=False, double_quant=False, rule="floor") | over


def clipped(x, a, s, z=None):
    """Inside: x's own derivative; outside: none."""
    y, (lo, hi) = fake(x, a, s, z)
    return Through.apply(torch.minimum(torch.maximum(x, lo), hi), y), {"scale": s.double()} | ({} if z is None else {"zero": z.double()})


def lsq(x, s, a):
    """1902.08153: rounding passed straight through, the gradient of s times 1/sqrt(n hi)."""
    y, _ = fake(x, a, s.detach().flatten())
    m, at = blocks(x, a["block_rows"], a["block_cols"])
    hi, size = float(TOP[a["format"]]), torch.bincount(at.flatten()).double()
    k = 1 / torch.sqrt(size * hi)
    step = s.flatten()
    step = step.detach() + k * (step - step.detach())
    c = (m / step[at]).clamp(-hi, hi)
    q = y.view(m.shape) / step.detach()[at]
    return (Through.apply(c, q) * step[at]).view(x.shape)
