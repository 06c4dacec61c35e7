"""Hugging Face models in float64, all of it, so that a bound of 1e-5 says something about us and not about them.

transformers takes norms, softmax and RoPE angles through float32 on purpose. make_double(model) gives its modelling file
a `torch` whose float32 is float64 and computes inv_freq again; make_single(model) takes that back.
"""
import sys
import types

import torch


class DoubleTorch(types.ModuleType):
    """`torch` as the modelling code sees it, with float32 read as float64."""
    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def make_double(model):
    sys.modules[type(model).__module__].torch = DoubleTorch("torch")
    model.double()
    if hasattr(getattr(model, "model", None), "rotary_emb"):
        c = model.config
        assert c.rope_parameters["rope_type"] == "default", "angles of this rope type would stay float32"
        d = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
        inv = c.rope_parameters["rope_theta"] ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)
        assert torch.allclose(inv, model.model.rotary_emb.inv_freq, rtol=1e-6)
        model.model.rotary_emb.inv_freq = inv
    return model


def make_single(model):
    sys.modules[type(model).__module__].torch = torch
