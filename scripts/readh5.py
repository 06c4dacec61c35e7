#!/usr/bin/env python3
"""Reads a pare checkpoint (.h5) with h5py and NumPy alone, to copy from or to use as it is.

    python scripts/readh5.py FILE.h5                      # kind, step and the tensors
    from readh5 import read
    attrs, tensors = read("FILE.h5")                      # {"model.norm.weight": array, ...}, tied names included

Names are Hugging Face's, shapes as stored: attribute layout is out_in for most, in_out for GPT-2's Conv1D. bfloat16
comes back as float32, the same numbers; quantised and sparse tensors come back decoded. With the xxhash package the
hash of the file is checked as well.
"""
import struct
import sys

import h5py
import numpy as np

try:
    import xxhash
except ImportError:
    xxhash = None


def check_envelope(path):
    """The first 4096 bytes: magic, version, length and hash of what follows, before HDF5 sees a byte."""
    with open(path, "rb") as f:
        head, payload = f.read(4096), f.read()
    if head[:20] != b"pare-checkpoint\n\1\0\0\0":
        raise ValueError(f"{path}: not a pare checkpoint of version 1")
    if len(payload) != struct.unpack_from("<Q", head, 24)[0]:
        raise ValueError(f"{path}: cut short or grown: {len(payload)} bytes after the envelope")
    if xxhash and (xxhash.xxh3_64_digest(head[:504]), xxhash.xxh3_128_digest(payload)) != (head[504:512], head[32:48]):
        raise ValueError(f"{path}: damaged")


def tensor(d):
    """A plain tensor. bfloat16 is read where it lies (contiguous; h5py's own conversion is slow)."""
    if d.attrs.get("dtype") != "bfloat16":
        return d[()]
    with open(d.file.filename, "rb") as f:
        f.seek(d.id.get_offset() or 0)
        return (np.frombuffer(f.read(2 * d.size), "<u2").astype(np.uint32) << 16).view(np.float32).reshape(d.shape)


def float_table(exponent, mantissa, bias, nan=None):
    """All values of a small float by code, sign first; codes from `nan` on are NaN."""
    c = np.arange(1 << (exponent + mantissa))
    e, m = c >> mantissa, (c & ((1 << mantissa) - 1)) / (1 << mantissa)
    v = np.where(e == 0, m * 2.0 ** (1 - bias), (1 + m) * 2.0 ** (e - bias))
    v[slice(nan, None) if nan else slice(0)] = np.nan
    return np.concatenate([v, -v]).astype(np.float32)


E4M3, E5M2, E2M1 = float_table(4, 3, 7, 0x7F), float_table(5, 2, 15, 0x7D), float_table(2, 1, 1)
E5M2[[0x7C, 0xFC]] = np.inf, -np.inf
ELEMENT = {"fp8_e4m3fn": E4M3, "fp8_e5m2": E5M2, "fp4_e2m1": E2M1, "mxfp4": E2M1, "mxfp8": E4M3}


def unpack(codes, bits, rows, cols):
    """(rows, cols) codes, which lie densely in the bits of a row, lowest first."""
    b = np.unpackbits(codes.view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    b = b[:, : b.shape[1] // bits * bits].reshape(rows, -1, bits)
    return (b << np.arange(bits, dtype=np.uint8)).sum(-1, dtype=np.uint8)[:, :cols]


def spread(s, rows, cols, block):
    """A grid of scales, one for each element; the last block of a row may be short."""
    s = np.atleast_2d(s)
    s = np.repeat(s, -(-rows // s.shape[0]), 0)[:rows]
    return np.repeat(s, block if s.shape[1] > 1 else cols, 1)[:, :cols]


def sparse(g, kind, rows, cols):
    out, values = np.zeros((rows, cols), np.float32), tensor(g["values"]).astype(np.float32)
    if kind == "sparse_bitmask":
        out[unpack(g["mask"][()], 1, rows, cols).astype(bool)] = values.ravel()
    else:  # 2:4: two places of two bits for each four columns
        at = unpack(g["meta"][()], 2, rows, cols // 2) + np.repeat(4 * np.arange(cols // 4), 2)
        np.put_along_axis(out, at, values.reshape(rows, -1), 1)
    return out


def quantised(g, kind, rows, cols):
    """element(code) * scale in float32, in the order in which the C program multiplies."""
    a, get = g.attrs, lambda name: g[name][()]
    bits, block = int(a["bits"]), int(a.get("group_size", a.get("block_size", a.get("block_cols", 0))))
    q, up = unpack(np.atleast_2d(get("codes")), bits, rows, cols), lambda s, b=block: spread(s, rows, cols, b)
    if kind == "int_affine":
        zero = up(get("zeros").astype(np.float32)) if "zeros" in g else np.float32(1 << bits) * (q >> (bits - 1))
        return (q.astype(np.float32) - zero) * up(get("scales"))
    if kind == "nf4":
        if "absmax" in g:
            return get("levels")[q] * up(get("absmax"))
        c = get("absmax_codes")
        s = get("absmax_map")[c.ravel()] * np.repeat(get("absmax_scale"), 256)[: c.size] + get("absmax_offset")
        return get("levels")[q] * up(s.reshape(c.shape))
    if kind in ("mxfp4", "mxfp8"):
        return ELEMENT[kind][q] * up(np.exp2(get("scales_e8m0") - 127.0).astype(np.float32), 32)
    if kind == "nvfp4":
        return E2M1[q] * up(E4M3[get("scales_e4m3")], 16) * get("tensor_scale")
    if kind not in ELEMENT:
        raise ValueError(f"{g.name}: encoding {kind} is not known here")
    return ELEMENT[kind][q] * up(get("scales"))


def read(path, group="tensors"):
    """Returns (root attributes, {name: array}) of the tensors below `group`, decoded."""
    def array(d):
        if isinstance(d, h5py.Dataset):
            return tensor(d)
        kind, turned = d.attrs["encoding"], d.attrs.get("layout") == "in_out"
        rows, cols = (int(n) for n in d.attrs["shape"][:: -1 if turned else 1])
        w = (sparse if kind.startswith("sparse") else quantised)(d, kind, rows, cols)
        return w.T if turned else w

    check_envelope(path)
    with h5py.File(path, "r") as f:
        if f.attrs.get("format") != "pare-checkpoint" or not f.attrs.get("complete"):
            raise ValueError(f"{path}: incomplete, or not of this program")
        return dict(f.attrs), {name: array(d) for name, d in f[group].items()}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    attrs, tensors = read(sys.argv[1])
    print(*(f"{k}: {v}" for k, v in sorted(attrs.items())), sep="\n")
    print(*(f"{name:50} {a.dtype!s:8} {list(a.shape)}" for name, a in tensors.items()), sep="\n")
