#!/usr/bin/env python3
"""Reads a pare checkpoint (.h5) with h5py and NumPy alone, to copy from or to use as it is.

    python scripts/readh5.py FILE.h5                      # kind, step and the tensors
    from readh5 import read
    attrs, tensors = read("FILE.h5")                      # {"model.norm.weight": array, ...}, tied names included

Names are Hugging Face's. Arrays have the stored shape: attribute layout is out_in for most, in_out for GPT-2's Conv1D.
bfloat16 comes back as float32, the same numbers. With the xxhash package every hash of the file is checked as well:
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


def read(path, group="tensors"):
    """Returns (root attributes, {name: array}) of the plain tensors below `group`."""
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
                raise ValueError(f"{path}: {d.name} is encoded ({d.attrs.get('encoding')}): export it first")
            out[name] = tensor(d)
        return attrs, out


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.split("\n\n")[1])
    attrs, tensors = read(sys.argv[1])
    print(*(f"{k}: {v}" for k, v in sorted(attrs.items())), sep="\n")
    for name, a in tensors.items():
        print(f"{name:50} {a.dtype!s:8} {list(a.shape)}")
