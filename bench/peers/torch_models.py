"""The models of the PyTorch peers, written as one would for speed: SDPA, fused AdamW, float32, nothing else in the step.

GPT-2 style: learned positions, LayerNorm, fused qkv with bias, tanh GELU, tied head. Llama style: RoPE, RMSNorm, SwiGLU,
grouped key/value heads, no biases, own head. forward(ids, labels) gives the mean loss, logits(ids) the logits.
"""
import json
import os
import resource
import statistics
import time
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F


def peak_rss():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


BASE_RSS = peak_rss()                    # `import torch` alone: the CUDA build takes 0.7 GB before it does anything


@dataclass
class Shape:
    family: str
    n_layer: int
    width: int
    n_head: int
    n_kv_head: int
    ffn: int
    vocab: int
    batch: int
    seq: int


SHAPES = {
    "A": Shape("gpt2", 6, 384, 6, 6, 1536, 50257, 8, 256),
    "B2": Shape("gpt2", 12, 768, 12, 12, 3072, 50257, 4, 256),
    "L": Shape("llama", 12, 768, 12, 4, 2048, 32000, 4, 256),
    "teacher": Shape("gpt2", 6, 768, 12, 12, 3072, 50257, 8, 256),
    "tiny-gpt2": Shape("gpt2", 2, 32, 2, 2, 64, 101, 2, 16),
    "tiny-llama": Shape("llama", 2, 32, 4, 2, 48, 101, 2, 16),
}


class Attention(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.h, self.hkv, self.d = s.n_head, s.n_kv_head, s.width // s.n_head
        bias = s.family == "gpt2"
        self.qkv = nn.Linear(s.width, (self.h + 2 * self.hkv) * self.d, bias=bias)
        self.out = nn.Linear(s.width, s.width, bias=bias)

    def forward(self, x, turn):
        b, t, _ = x.shape
        q, k, v = self.qkv(x).view(b, t, -1, self.d).transpose(1, 2).split([self.h, self.hkv, self.hkv], 1)
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.h != self.hkv)
        return self.out(y.transpose(1, 2).reshape(b, t, -1))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), -1)


class Mlp(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.gated = s.family == "llama"
        self.up = nn.Linear(s.width, s.ffn * (2 if self.gated else 1), bias=not self.gated)
        self.down = nn.Linear(s.ffn, s.width, bias=not self.gated)

    def forward(self, x):
        if not self.gated:
            return self.down(F.gelu(self.up(x), approximate="tanh"))
        g, u = self.up(x).chunk(2, -1)
        return self.down(F.silu(g) * u)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        norm = nn.LayerNorm if s.family == "gpt2" else nn.RMSNorm
        self.norm1, self.attn, self.norm2, self.mlp = norm(s.width, eps=1e-5), Attention(s), norm(s.width, eps=1e-5), Mlp(s)

    def forward(self, x, turn):
        x = x + self.attn(self.norm1(x), turn)
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embed = nn.Embedding(s.vocab, s.width)
        self.position = nn.Embedding(s.seq, s.width) if s.family == "gpt2" else None
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.n_layer))
        self.norm = (nn.LayerNorm if s.family == "gpt2" else nn.RMSNorm)(s.width, eps=1e-5)
        self.head = nn.Linear(s.width, s.vocab, bias=False)
        if s.family == "gpt2":
            self.head.weight = self.embed.weight
        d = s.width // s.n_head
        angle = torch.arange(s.seq).double()[:, None] * 10000.0 ** -(torch.arange(0, d, 2).double() / d)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)

    def logits(self, ids):
        x = self.embed(ids)
        if self.position is not None:
            x = x + self.position.weight
        for block in self.blocks:
            x = block(x, None if self.position is not None else (self.cos, self.sin))
        return self.head(self.norm(x))

    def forward(self, ids, labels):
        return F.cross_entropy(self.logits(ids).flatten(0, 1), labels.flatten())


def optimizer(model, lr=1e-4):
    ps = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW([{"params": [p for p in ps if p.ndim == 2], "weight_decay": 0.1},
                              {"params": [p for p in ps if p.ndim != 2], "weight_decay": 0.0}], lr=lr, betas=(0.9, 0.95), fused=True)


def measure(name, mode, loss_of, model, s, steps, warmup, **more):
    """Runs warmup + steps optimizer steps on random tokens and prints one JSON line. loss_of(ids, labels) -> loss."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads())
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    step_of = torch.compile(loss_of) if mode == "compile" else loss_of
    opt, gen, seconds = optimizer(model), torch.Generator().manual_seed(1), []
    for _ in range(warmup + steps):
        ids = torch.randint(0, s.vocab, (s.batch, s.seq + 1), generator=gen)
        start = time.perf_counter()
        loss = step_of(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        last = loss.item()
        seconds.append(time.perf_counter() - start)
    timed, tokens = seconds[warmup:], s.batch * s.seq
    print(json.dumps({"peer": "torch", "shape": name, "mode": mode, "tokens_per_s": round(tokens / statistics.median(timed), 1),
                      "peak_rss": peak_rss(), "import_rss": BASE_RSS, "steps": steps, "threads": threads,
                      "ms": [round(1e3 * t, 2) for t in timed], "warmup_s": round(sum(seconds[:warmup]), 2), "loss": round(last, 5),
                      "parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__, **asdict(s), **more}), flush=True)


def measure_forward(name, mode, logits, model, s, steps, warmup):
    """The forward pass alone: logits(ids) without gradients, otherwise as measure."""
    threads = int(os.environ.get("OMP_NUM_THREADS") or torch.get_num_threads())
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    gen, seconds = torch.Generator().manual_seed(1), []
    for _ in range(warmup + steps):
        ids = torch.randint(0, s.vocab, (s.batch, s.seq), generator=gen)
        start = time.perf_counter()
        with torch.no_grad():
            logits(ids)
        seconds.append(time.perf_counter() - start)
    timed = seconds[warmup:]
    print(json.dumps({"peer": "torch", "shape": name, "mode": mode, "tokens_per_s": round(s.batch * s.seq / statistics.median(timed), 1),
                      "peak_rss": peak_rss(), "import_rss": BASE_RSS, "steps": steps, "threads": threads,
                      "ms": [round(1e3 * t, 2) for t in timed], "warmup_s": round(sum(seconds[:warmup]), 2),
                      "parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__, **asdict(s)}), flush=True)
