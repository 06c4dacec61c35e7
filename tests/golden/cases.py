"""Seeded cases of ops as tensors and attributes: what make_ops.py and make_kd.py fill and write.

    gen.manual_seed(SEED)
    case("add.one", lambda a, b: a + b, [rnd(1), rnd(1)])      # in0, in1, out, dout, grad0, grad1 into `tensors`
"""
import torch

torch.set_num_threads(1)
gen = torch.Generator()
tensors, attrs = {}, {}


def rnd(*shape, std=1.0, mean=0.0):
    """Normal numbers that float32 holds exactly, as float64."""
    return (torch.randn(*shape, generator=gen, dtype=torch.float32) * std + mean).double()


def ints(hi, *shape):
    return torch.randint(0, hi, shape, generator=gen, dtype=torch.int32)


def case(name, fn, inputs, dout=None, extra=(), no_grad=(), **attr):
    """inputs: list of tensors or None. fn(*inputs) -> out, or (out, {extra tensors})."""
    ins = [t.clone().requires_grad_() if t is not None and t.is_floating_point() and i not in no_grad else t
           for i, t in enumerate(inputs)]
    out, more = fn(*ins) if extra else (fn(*ins), {})
    dout = rnd(*out.shape) if dout is None else dout
    leaves = [t for t in ins if t is not None and t.requires_grad]
    grads = torch.autograd.grad(out, leaves, dout, allow_unused=True)
    for i, t in enumerate(ins):
        if t is None:
            continue
        tensors[f"{name}.in{i}"] = t
        if t.requires_grad:
            g = grads[[id(x) for x in leaves].index(id(t))]
            tensors[f"{name}.grad{i}"] = torch.zeros_like(t) if g is None else g
    tensors[f"{name}.out"], tensors[f"{name}.dout"] = out, dout
    for k in extra:
        tensors[f"{name}.{k}"] = more[k]
    for k in tensors:
        if k.startswith(name + ".") and not k.endswith(".lse") and tensors[k].is_floating_point():
            assert torch.isfinite(tensors[k]).all(), k
    attrs[name] = attr
