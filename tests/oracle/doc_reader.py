"""Does the reader printed in docs/quantise.md read?   doc_reader.py docs/quantise.md FILE.h5

The indented block that begins with `import h5py` is run as it stands, beside a copy of FILE.h5 under the name that it
opens; its `w` must have the bits that scripts/readh5.py gives for the same tensor.
"""
import os
import re
import shutil
import sys
import tempfile

import numpy as np

sys.path[:0] = [os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "scripts")]
import readh5  # noqa: E402


def main(doc, path):
    lines = open(doc).read().split("\n")
    first = next(i for i, line in enumerate(lines) if line.startswith("    import h5py"))
    code = []
    while lines[first].startswith("    "):
        code.append(lines[first][4:])
        first += 1
    text = "\n".join(code)
    file, name = re.search(r'File\("(.*?)"\)', text).group(1), re.search(r'\["tensors/(.*?)"\]', text).group(1)
    if len(code) > 20:
        sys.exit(f"{doc}: the reader has {len(code)} lines, at most twenty are promised")
    with tempfile.TemporaryDirectory() as work:
        shutil.copy(path, os.path.join(work, file))
        os.chdir(work)
        said = {}
        exec(compile(text, doc, "exec"), said)
        said["f"].close()
        want = readh5.read(file)[1][name]
    if said["w"].shape != want.shape or said["w"].astype(np.float32).tobytes() != want.astype(np.float32).tobytes():
        sys.exit(f"{doc}: its reader and readh5.py differ on {name}")
    print(f"ok   h5py: the {len(code)} lines of {os.path.basename(doc)} read {name} of shape {want.shape}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]))
