"""Hugging Face models in float64, all of it, so that a bound of 1e-5 says something about us and not about them.

transformers takes norms, softmax and RoPE angles through float32 on purpose. make_double(model) gives its modelling file
a `torch` whose float32 is float64, makes Tensor.float mean double and computes the rotary angles again; make_single(model)
takes that back.
"""
import sys
import types

import torch


FLOAT = torch.Tensor.float


class DoubleTorch(types.ModuleType):
    """`torch` as the modelling code sees it, with float32 read as float64."""
    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def modules(model):
    return [sys.modules[type(model).__module__], sys.modules["transformers.modeling_rope_utils"]]


def make_double(model):
    for m in modules(model):
        m.torch = DoubleTorch("torch")
    torch.Tensor.float = torch.Tensor.double
    torch.set_default_dtype(torch.float64)          # what Python numbers become inside rules that take a tensor's length
    model.double()
    inner = getattr(model, "model", None)
    if hasattr(inner, "rotary_emb"):
        old = {k: v.double() for k, v in inner.rotary_emb.named_buffers()}
        inner.rotary_emb = type(inner.rotary_emb)(model.config)
        for k, v in inner.rotary_emb.named_buffers():
            same = "original" not in k or torch.allclose(v, old[k], rtol=1e-6)  # inv_freq itself may follow the length
            assert v.dtype == torch.float64 and same, k
    if hasattr(getattr(inner, "embed_tokens", None), "embed_scale"):
        inner.embed_tokens.embed_scale = torch.tensor(inner.embed_tokens.scalar_embed_scale, dtype=torch.float64)
    return model


def make_single(model):
    for m in modules(model):
        m.torch = torch
    torch.Tensor.float = FLOAT
    torch.set_default_dtype(torch.float32)
