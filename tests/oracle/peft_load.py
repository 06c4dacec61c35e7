"""Do peft and pare read each other's adapters, and do both compute the same?

    peft_load.py PARE WORK

Theirs: every folder of tests/data/peft (made by peft) is read by `pare probe BASE --adapter`. Ours: the same adapters written
again by `pare export --format peft`, and what short runs of every method leave, are read by peft on transformers' model. Last,
`pare merge` writes Hugging Face folders that transformers reads alone. Logits (theirs in float64) of random ids must be equal
to 1e-5, relative to the largest where that is above 1; a merged folder must name the type of its tensors.
"""
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import peft
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "golden"))
import st  # noqa: E402
from hf64 import make_double, make_single  # noqa: E402

warnings.filterwarnings("ignore")
logging.set_verbosity_error()
logging.disable_progress_bar()
B, T, V = 2, 24, 97
LLAMA, GPT2 = "tests/data/hf-tiny-llama", "tests/data/hf-tiny-gpt2"
RUNS = {
    "lora": (LLAMA, ["target_modules=all-linear", "dropout=0.1"]),
    "rslora": (LLAMA, ["target_modules=all-linear", "use_rslora=true", "alpha=5"]),
    "dora": (LLAMA, ["target_modules=all-linear", "use_dora=true"]),
    "pissa": (LLAMA, ["target_modules=[q_proj, down_proj]", "init=pissa"]),
    "pissa-rslora": (LLAMA, ["init=pissa", "use_rslora=true", "rank_pattern={v_proj: 2}"]),
    "patterns": (LLAMA, ["target_modules=all-linear", "rank_pattern={k_proj: 2, '*.1.mlp.*': 5}", "alpha_pattern={q_proj: 3}",
                         "exclude_modules=['*.0.*.o_proj']", "modules_to_save=[lm_head, norm]"]),
    "tables": (LLAMA, ["target_modules=[embed_tokens, lm_head, v_proj]"]),
    "gpt2": (GPT2, ["target_modules=all-linear", "use_dora=true"]),
    "gpt2-pissa": (GPT2, ["init=pissa"]),
}


def say(pare, *args):
    subprocess.run([pare, "-q", *args], check=True)


def probe(pare, model, ids, work, *more):
    into, out = os.path.join(work, "peft-in.safetensors"), os.path.join(work, "peft-out.safetensors")
    st.save(into, {"input_ids": ids}, {})
    say(pare, "probe", model, "--input", into, "--out", out, *more)
    return st.load(out)[0]["logits"]


def theirs(base, folder, ids):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager", local_files_only=True)
    if folder:
        model = peft.PeftModel.from_pretrained(model, folder)
    inner = make_double((model.get_base_model() if folder else model).eval())
    with torch.no_grad():
        z = model(input_ids=torch.from_numpy(ids).long(), use_cache=False).logits.numpy()
    make_single(inner)
    return z


def same(what, ours, want):
    bound, off = 1e-5 * max(1.0, float(np.abs(want).max())), float(np.abs(ours - want).max())
    if not off <= bound:
        sys.exit(f"{what}: logits differ by {off:.3g}, {bound:.3g} at most")
    return off


def trained(pare, name, base, options, work):
    run = os.path.join(work, f"run-{name}")
    say(pare, "train", os.path.join(work, "lora.yaml"), f"model.path={os.path.abspath(base)}", f"run.output_dir={run}",
        *[f"lora.{o}" for o in options])
    return run


def main(pare, work):
    worst = {"theirs": 0.0, "ours": 0.0, "runs": 0.0, "merged": 0.0}
    ids = np.random.default_rng(11).integers(0, V, (B, T)).astype(np.int32)
    np.random.default_rng(5).integers(0, V, 4000).astype(np.uint16).tofile(os.path.join(work, "ids.bin"))
    with open(os.path.join(work, "lora.yaml"), "w") as f:
        f.write("version: 1\nrun: {recipe: finetune, seed: 2, overwrite: true}\ndevice: {threads: 1}\n"
                "data: {train: [{path: ids.bin, format: bin_nanogpt}], seq_len: 16}\ntrain: {max_steps: 6, batch_size: 4}\n"
                "optim: {learning_rate: 2e-2}\nlora: {enabled: true, r: 4}\nexport: [{format: peft, path: peft}]\n")
    folders = sorted(os.listdir("tests/data/peft"))
    for name in folders:
        folder = os.path.join("tests/data/peft", name)
        with open(os.path.join(folder, "adapter_config.json")) as f:
            base = json.load(f)["base_model_name_or_path"]
        want = theirs(base, folder, ids)
        ours = probe(pare, base, ids, work, "--adapter", folder)
        worst["theirs"] = max(worst["theirs"], same(f"{folder} read by pare", ours, want))
        again = os.path.join(work, f"again-{name}")
        say(pare, "export", base, again, "--adapter", folder, "--format", "peft")
        worst["ours"] = max(worst["ours"], same(f"{folder} written again", ours, theirs(base, again, ids)))
    for name, (base, options) in RUNS.items():
        run = trained(pare, name, base, options, work)
        want = theirs(base, os.path.join(run, "export", "peft"), ids)
        off = float(np.abs(want - theirs(base, None, ids)).max())
        if not off > 1e-2:
            sys.exit(f"{name}: the run has changed nothing ({off:.3g})")
        worst["runs"] = max(worst["runs"], same(f"the state of run {name}", probe(pare, run, ids, work), want))
        for dtype in ("float32", "bfloat16"):
            merged = os.path.join(work, f"merged-{name}-{dtype}")
            say(pare, "merge", base, os.path.join(run, "export", "peft"), merged, "--dtype", dtype)
            with open(os.path.join(merged, "config.json")) as f:
                config = json.load(f)
            if config.get("dtype", config.get("torch_dtype")) != dtype:
                sys.exit(f"{merged}: config.json says {config.get('dtype')}, the tensors are {dtype}")
            model = AutoModelForCausalLM.from_pretrained(merged, dtype="auto", local_files_only=True)
            if model.dtype != getattr(torch, dtype):
                sys.exit(f"{merged}: transformers loads it as {model.dtype}")
            if dtype == "float32":
                worst["merged"] = max(worst["merged"], same(f"{merged} alone", theirs(merged, None, ids), want))
    text = ", ".join(f"{k} {v:.1e}" for k, v in worst.items())
    print(f"ok   peft: {len(folders)} folders of theirs and {len(RUNS)} runs of ours, logits apart at most: {text}")


main(*sys.argv[1:])
