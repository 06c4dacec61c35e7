#!/usr/bin/env python3
"""Reads a pare checkpoint (.h5) with h5py and NumPy alone, to copy from or to use as it is.

    python scripts/readh5.py FILE.h5                      # kind, step and the tensors
    from readh5 import read
    attrs, tensors = read("FILE.h5")                      # {"model.norm.weight": array, ...}, tied names included

Names are Hugging Face's. Arrays have the stored shape: attribute layout is out_in for most, in_out for GPT-2's Conv1D.
bfloat16 comes back as float32, the same numbers; codes and scales (product.md 6.3) come back decoded. With the xxhash package every hash of the file is checked as well:
the envelope in the first 4096 bytes, each tensor, and the content.
"""
import struct
import sys

import h5py
import numpy as np

try:
    import xxhash
except ImportError:
    xxhash = None

MAGIC, BLOCK = b"pare-checkpoint\n", 4096


def check_envelope(path):
    """Magic, version, length and hash of the payload, before HDF5 sees a byte. Returns the step."""
    with open(path, "rb") as f:
        head, payload = f.read(BLOCK), f.read()
    if head[:16] != MAGIC:
        raise ValueError(f"{path}: not a pare checkpoint")
    if struct.unpack_from("<I", head, 16)[0] != 1:
        raise ValueError(f"{path}: an envelope of another version")
    if len(payload) != struct.unpack_from("<Q", head, 24)[0]:
        raise ValueError(f"{path}: cut short or grown: {len(payload)} bytes after the envelope")
    if xxhash:
        if xxhash.xxh3_64_digest(head[:504]) != head[504:512]:
            raise ValueError(f"{path}: the envelope is damaged")
        if xxhash.xxh3_128_digest(payload) != head[32:48]:
            raise ValueError(f"{path}: the contents are damaged")
    return struct.unpack_from("<Q", head, 48)[0]


def widen_bf16(raw):
    return (raw.astype(np.uint32) << 16).view(np.float32)


def stored_bytes(d):
    """The dataset's bytes as they lie in the file: contiguous and little-endian."""
    at = d.id.get_offset()
    if at is None or d.size == 0:
        return b""
    with open(d.file.filename, "rb") as f:
        f.seek(at)                       # h5py counts from the start of the file, user block included
        return f.read(d.size * d.dtype.itemsize if not is_bf16(d) else 2 * d.size)


def is_bf16(d):
    return d.attrs.get("dtype") == "bfloat16"


def tensor(d):
    raw = stored_bytes(d)
    if xxhash and raw and "xxh3_64" in d.attrs and xxhash.xxh3_64_hexdigest(raw) != d.attrs["xxh3_64"]:
        raise ValueError(f"{d.file.filename}: {d.name} is damaged")
    return widen_bf16(np.frombuffer(raw, "<u2")).reshape(d.shape) if is_bf16(d) else d[()]


def content_hash(f):
    lines = []
    f.visititems(lambda name, d: lines.append(b"/" + name.encode() + b"\0" + d.attrs["xxh3_64"].encode() + b"\n")
                 if isinstance(d, h5py.Dataset) and "xxh3_64" in d.attrs else None)
    return xxhash.xxh3_128_hexdigest(b"".join(sorted(lines)))


def float_table(exponent, mantissa, bias, top=None):
    """All values of a small float, by code; sign first. top: the code of NaN (and beyond)."""
    n, out = 1 << (exponent + mantissa), []
    for c in range(2 * n):
        e, m = c % n >> mantissa, c % (1 << mantissa)
        v = m * 2.0 ** (1 - bias - mantissa) if e == 0 else (1 + m / (1 << mantissa)) * 2.0 ** (e - bias)
        out.append(np.nan if top is not None and c % n >= top else -v if c >= n else v)
    return np.array(out, np.float32)


E4M3, E5M2, E2M1 = float_table(4, 3, 7, 0x7F), float_table(5, 2, 15, 0x7D), float_table(2, 1, 1)
E5M2[[0x7C, 0xFC]] = np.inf, -np.inf


def unpack(codes, bits, rows, cols):
    """Dense little-endian bit stream per row -> (rows, cols) unsigned."""
    if bits == 8:
        return codes.view(np.uint8)[:, :cols]
    b = np.unpackbits(codes, axis=1, bitorder="little")
    b = b[:, : b.shape[1] // bits * bits].reshape(rows, -1, bits)
    return (b * (1 << np.arange(bits, dtype=np.uint8))).sum(-1).astype(np.uint8)[:, :cols]


def spread(s, rows, cols, block):
    """A grid of scales, one per element; the last block of a row may be short."""
    s = np.atleast_2d(s)
    s = np.repeat(s, -(-rows // s.shape[0]), 0)[:rows]
    return np.repeat(s, block if block > 0 else cols, 1)[:, :cols] if s.shape[1] > 1 else np.repeat(s, cols, 1)


def decoded(g):
    """An encoded tensor: element(code) * scale, in float32, in the order the C program multiplies."""
    a, kind = g.attrs, g.attrs["encoding"]
    shape = [int(n) for n in a["shape"]]
    rows, cols = shape[::-1] if a.get("layout") == "in_out" else shape
    if kind in ("sparse_bitmask", "sparse_2_4"):
        out = sparse(g, kind, rows, cols)
        return out.T if a.get("layout") == "in_out" else out
    bits, get = int(a["bits"]), lambda name: g[name][()]
    q = unpack(np.atleast_2d(get("codes")), bits, rows, cols)
    if kind == "int_affine":
        e = q.astype(np.float32)
        block = int(a["group_size"])
        if "zeros" in g:
            e = e - spread(get("zeros").astype(np.float32), rows, cols, block)
        else:
            e = np.where(q >= 1 << (bits - 1), e - np.float32(1 << bits), e)
        w = e * spread(get("scales"), rows, cols, block)
    elif kind in ("fp8_e4m3fn", "fp8_e5m2"):
        w = (E4M3 if kind == "fp8_e4m3fn" else E5M2)[q] * spread(get("scales"), rows, cols, int(a["block_cols"]))
    elif kind == "nf4":
        if "absmax" in g:
            s = get("absmax")
        else:
            c = get("absmax_codes")
            part = get("absmax_map")[c.ravel()] * np.repeat(get("absmax_scale"), 256)[: c.size]
            s = (part + get("absmax_offset")).reshape(c.shape)
        w = get("levels")[q] * spread(s, rows, cols, int(a["block_size"]))
    elif kind == "fp4_e2m1":
        w = E2M1[q] * spread(get("scales"), rows, cols, int(a["group_size"]))
    elif kind in ("mxfp4", "mxfp8"):
        s = np.exp2(get("scales_e8m0").astype(np.float64) - 127).astype(np.float32)
        w = (E2M1 if kind == "mxfp4" else E4M3)[q] * spread(s, rows, cols, 32)
    elif kind == "nvfp4":
        w = E2M1[q] * spread(E4M3[get("scales_e4m3")], rows, cols, 16) * get("tensor_scale")
    else:
        raise ValueError(f"{g.name}: encoding {kind} is not known here")
    return w.T if a.get("layout") == "in_out" else w


def sparse(g, kind, rows, cols):
    out = np.zeros((rows, cols), np.float32)
    v = tensor(g["values"]).astype(np.float32)
    if kind == "sparse_bitmask":
        keep = np.unpackbits(g["mask"][()], axis=1, bitorder="little")[:, :cols].astype(bool)
        out[keep] = v.ravel()
        return out
    m = g["meta"][()]
    m = np.stack([m & 15, m >> 4], -1).reshape(rows, -1)[:, : cols // 4]
    at = np.stack([m & 3, m >> 2], -1) + 4 * np.arange(cols // 4)[None, :, None]
    np.put_along_axis(out, at.reshape(rows, -1), v.reshape(rows, -1), 1)
    return out


def read(path, group="tensors"):
    """Returns (root attributes, {name: array}) of the tensors below `group`, decoded."""
    check_envelope(path)
    with h5py.File(path, "r") as f:
        attrs = dict(f.attrs)
        if attrs.get("format") != "pare-checkpoint" or not attrs.get("complete"):
            raise ValueError(f"{path}: incomplete, or not of this program")
        if xxhash and "content_xxh3_128" in attrs and content_hash(f) != attrs["content_xxh3_128"]:
            raise ValueError(f"{path}: the content hash differs")
        out = {}
        for name, d in f[group].items():
            if isinstance(d, h5py.Group):
                out[name] = decoded(d)
            else:
                out[name] = tensor(d)
        return attrs, out


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    attrs, tensors = read(sys.argv[1])
    print(*(f"{k}: {v}" for k, v in sorted(attrs.items())), sep="\n")
    for name, a in tensors.items():
        print(f"{name:50} {a.dtype!s:8} {list(a.shape)}")
