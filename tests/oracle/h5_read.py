"""Does h5py read what pare writes?   h5_read.py CHECKPOINT.h5 MODEL [TOKENIZER.model]

MODEL is a Hugging Face folder or a safetensors file with the same weights. Every tensor of it must be in the checkpoint
with the same bits, tied ones through their link, and nothing else; hashes are checked on the way (scripts/readh5.py).
With TOKENIZER.model the checkpoint must hold its bytes, and MODEL's config.json its text.
"""
import os
import sys

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(here, "..", "golden"), os.path.join(here, "..", "..", "scripts")]
import st  # noqa: E402
import readh5  # noqa: E402


def main(checkpoint, model, tokenizer=None):
    want = st.load(os.path.join(model, "model.safetensors") if os.path.isdir(model) else model)[0]
    attrs, got = readh5.read(checkpoint)
    if attrs["kind"] not in ("model", "train_state"):
        sys.exit(f"{checkpoint}: kind {attrs['kind']}")
    tied = dict(t.split("=", 1) for t in np.atleast_1d(attrs.get("tied", [])))
    extra = set(got) - set(want) - set(tied)
    missing = set(want) - set(got)
    wrong = [n for n in want if n in got and (got[n].shape != want[n].shape or got[n].astype(np.float64).tobytes() != want[n].astype(np.float64).tobytes())]
    wrong += [a for a, t in tied.items() if not np.array_equal(got[a], got[t])]
    if extra or missing or wrong:
        sys.exit(f"{checkpoint} against {model}: extra {sorted(extra)}, missing {sorted(missing)}, different {wrong}")
    if tokenizer:
        config = readh5.read(checkpoint, "config")[1]
        if config["tokenizer_model"].tobytes() != open(tokenizer, "rb").read():
            sys.exit(f"{checkpoint}: not the bytes of {tokenizer}")
        if config["model_json"] != open(os.path.join(model, "config.json"), "rb").read():
            sys.exit(f"{checkpoint}: not the text of {model}/config.json")
    print(f"ok   h5py: {len(want)} tensors of {os.path.basename(checkpoint)} equal {model}"
          f"{'' if readh5.xxhash else ' (hashes not checked: no xxhash package)'}")


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
