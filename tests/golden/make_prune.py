"""Pruning fixtures: prune.safetensors, from PyTorch and NumPy alone. python tests/golden/make_prune.py

On tests/data/hf-tiny-llama in float64, 4 rows of 8 ids (ids[i] = (7 i + i^2) mod V), labels the next id of a row, -100 last:
    snip.<tensor>    |w g|, g the mean-loss gradient averaged over two batches of two rows
    taylor.<tensor>  mean over the two batches of |w g|
    wanda.<tensor>   |w| sqrt(mean over rows of sum over positions of x^2), x from the dense model: layer 0 only, since the
                     next layers see the pruned one
On a matrix of its own (24 x 192 under 40 correlated inputs, one of them dead):
    sparsegpt.w, .h           weights and H = 2 X X^T / n
    sparsegpt.<case>.out      SparseGPT, written from the paper (2301.00774): 50 (50 %, blocks of 128), 50whole (one block),
                              24 (2:4); exact-k masks, ties by lowest index
"""
import os
import sys

import numpy as np
import torch

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import hf64  # noqa: E402
import st  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "data", "hf-tiny-llama")
torch.set_num_threads(1)
out = {}


def gradients():
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32, attn_implementation="eager")
    hf64.make_double(model)
    V, B, T = model.config.vocab_size, 4, 8
    n = torch.arange(B * T)
    ids = ((7 * n + n * n) % V).reshape(B, T)
    names = [k for k, p in model.named_parameters() if k.startswith("model.layers") and p.dim() == 2]
    params = dict(model.named_parameters())
    per = []
    for b in range(2):
        model.zero_grad()
        logits = model(input_ids=ids[2 * b:2 * b + 2]).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, V), ids[2 * b:2 * b + 2, 1:].reshape(-1))
        loss.backward()
        per.append({k: params[k].grad.clone() for k in names})
    for k in ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"):
        w = params[k].detach()
        out["snip." + k] = (w * (per[0][k] + per[1][k]) / 2).abs().to(torch.float32)
        out["taylor." + k] = ((w * per[0][k]).abs() / 2 + (w * per[1][k]).abs() / 2).to(torch.float32)
    seen = {}
    hooks = [m.register_forward_hook(lambda m, i, o, k=k: seen.__setitem__(k, i[0].detach()))
             for k, m in model.named_modules() if k.startswith("model.layers.0.") and k.endswith("_proj")]
    model(input_ids=ids)
    for h in hooks:
        h.remove()
    for k in ("model.layers.0.self_attn.o_proj", "model.layers.0.mlp.down_proj"):
        x = seen[k].reshape(B * T, -1)
        out["wanda." + k + ".weight"] = (params[k + ".weight"].detach().abs() * (x.pow(2).sum(0) / B).sqrt()).to(torch.float32)
    hf64.make_single(model)


def keep_best(score, k):
    flat = score.ravel()
    order = np.argsort(-flat, kind="stable")
    keep = np.zeros(flat.size, bool)
    keep[order[:k]] = True
    return keep.reshape(score.shape)


def sparsegpt(W, H, sparsity, block, n_keep=0, m=0):
    W, H = W.copy(), H.copy()
    cols = W.shape[1]
    dead = np.diag(H) == 0
    H[dead, dead] = 1
    W[:, dead] = 0
    H += np.eye(cols) * 0.01 * np.mean(np.diag(H))
    U = np.linalg.cholesky(np.linalg.inv(H)).T
    for i1 in range(0, cols, block):
        i2 = min(i1 + block, cols)
        mask = None
        if not m:
            score = (W[:, i1:i2] ** 2 / np.diag(U)[i1:i2] ** 2).astype(np.float32)
            mask = keep_best(score, int(np.rint(score.size * (1 - sparsity))))
        else:
            mask = np.ones((W.shape[0], i2 - i1), bool)
        err = np.zeros((W.shape[0], i2 - i1))
        for j in range(i1, i2):
            if m and j % m == 0:
                score = W[:, j:j + m] ** 2 / np.diag(U)[j:j + m] ** 2
                for r in range(W.shape[0]):
                    mask[r, j - i1:j - i1 + m] = keep_best(score[r], n_keep)
            q = np.where(mask[:, j - i1], W[:, j], 0)
            err[:, j - i1] = (W[:, j] - q) / U[j, j]
            W[:, j] = q
            W[:, j + 1:i2] -= np.outer(err[:, j - i1], U[j, j + 1:i2])
        W[:, i2:] -= err @ U[i1:i2, i2:]
    return W


def second_order():
    rng = np.random.default_rng(5)
    rows, cols, n = 24, 192, 400
    x = rng.standard_normal((n, 40)) @ rng.standard_normal((40, cols)) + 0.3 * rng.standard_normal((n, cols))
    x[:, 17] = 0
    W = rng.standard_normal((rows, cols)).astype(np.float32).astype(np.float64)
    H = (2 * x.T @ x / n).astype(np.float32).astype(np.float64)
    out["sparsegpt.w"] = torch.tensor(W).float()
    out["sparsegpt.h"] = torch.tensor(H).float()
    for name, args in (("50", (0.5, 128)), ("50whole", (0.5, cols)), ("24", (0.5, 128, 2, 4))):
        out[f"sparsegpt.{name}.out"] = torch.tensor(sparsegpt(W, H, *args)).float()


gradients()
second_order()
path = os.path.join(HERE, "prune.safetensors")
st.save(path, out, {})
print(f"{path}: {len(out)} tensors, {os.path.getsize(path)} bytes")
