"""Does transformers read what pare exports, and do both compute the same?

    hf_load.py PARE ORIGINAL EXPORTED WORK

ORIGINAL is any model pare reads, EXPORTED the folder `PARE export ORIGINAL EXPORTED --format hf` wrote, WORK a folder for
scratch files. transformers must find every weight of its model in EXPORTED and no other; its logits (float64) for
random ids must equal `PARE probe` of ORIGINAL and of EXPORTED; for a Hugging Face ORIGINAL the stored tensors must be the
same bits. Bounds of quality.md C.2: logits 1e-5, relative to the largest when that is above 1; loss 1e-6 relative.
"""
import os
import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM
from transformers.utils import logging

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "golden"))
import st  # noqa: E402
from hf64 import make_double  # noqa: E402

B, T = 2, 24
logging.set_verbosity_error()
logging.disable_progress_bar()


def probe(pare, model, ids, work):
    into, out = os.path.join(work, "probe-in.safetensors"), os.path.join(work, "probe-out.safetensors")
    st.save(into, {"input_ids": ids}, {})
    subprocess.run([pare, "-q", "probe", model, "--input", into, "--out", out], check=True)
    return st.load(out)[0]


def same_tensors(original, exported):
    a, b = (st.load(os.path.join(p, "model.safetensors"))[0] for p in (original, exported))
    bad = [n for n in set(a) | set(b) if n not in a or n not in b or a[n].shape != b[n].shape or a[n].tobytes() != b[n].tobytes()]
    if bad:
        sys.exit(f"{exported}: not the tensors of {original}: {sorted(bad)}")


def main(pare, original, exported, work):
    model, info = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32, attn_implementation="eager",
                                                       output_loading_info=True, local_files_only=True)
    problems = {k: v for k, v in info.items() if v}
    if problems:
        sys.exit(f"{exported}: transformers says {problems}")
    ids = np.random.default_rng(7).integers(0, model.config.vocab_size, (B, T)).astype(np.int32)
    with torch.no_grad():
        z = make_double(model.eval())(input_ids=torch.from_numpy(ids).long(), use_cache=False).logits
    loss = F.cross_entropy(z[:, :-1].flatten(0, 1), torch.from_numpy(ids[:, 1:]).long().flatten()).item()
    z = z.numpy()
    bound, worst = 1e-5 * max(1.0, float(np.abs(z).max())), 0.0
    for path in (original, exported):
        ours = probe(pare, path, ids, work)
        worst = max(worst, float(np.abs(ours["logits"] - z).max()))
        off = abs(float(ours["loss"].ravel()[0]) - loss) / loss
        if not worst <= bound or not off <= 1e-6:
            sys.exit(f"{path}: logits off by {worst:.2e} (bound {bound:.1e}), loss by {off:.2e} relative (bound 1e-6)")
    if os.path.isdir(original):
        same_tensors(original, exported)
    print(f"ok   transformers: {os.path.basename(os.path.normpath(original))}, logits within {worst:.1e}, loss {loss:.6f}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])
