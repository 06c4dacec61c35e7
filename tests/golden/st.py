"""A safetensors writer and reader of thirty lines with fixed bytes: names sorted, header keys sorted, so that making a
fixture twice gives the same file (the library's own writer does not fix the order of __metadata__)."""
import json
import struct

import numpy as np

NAMES = {"float64": "F64", "float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "uint8": "U8", "bool": "BOOL"}
TYPES = {v: k for k, v in NAMES.items()}


def save(path, tensors, metadata):
    """tensors: name -> numpy array or torch tensor; metadata: name -> str."""
    header = {"__metadata__": {k: metadata[k] for k in sorted(metadata)}}
    body, at = [], 0
    for name in sorted(tensors):
        t = tensors[name]
        a = np.asarray(t.detach().numpy() if hasattr(t, "detach") else t)
        a = a if a.ndim == 0 else np.ascontiguousarray(a)
        header[name] = {"dtype": NAMES[a.dtype.name], "shape": list(a.shape), "data_offsets": [at, at + a.nbytes]}
        body.append(a.tobytes())
        at += a.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(body))


def load(path):
    """Returns (tensors as numpy arrays, metadata). BF16 comes back as float32."""
    raw = open(path, "rb").read()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    meta, out = header.pop("__metadata__", {}), {}
    for name, d in header.items():
        lo, hi = d["data_offsets"]
        piece = raw[8 + n + lo:8 + n + hi]
        if d["dtype"] == "BF16":
            a = (np.frombuffer(piece, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            a = np.frombuffer(piece, TYPES[d["dtype"]])
        out[name] = a.reshape(d["shape"])
    return out, meta
