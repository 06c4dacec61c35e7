"""Does transformers take the whole folder that pare exports: weights, tokenizer, chat template, generation config?

    hf_files.py PARE WORK

Makes a small Llama with the byte-level tokenizer of tests/data/instruct, a chat template and a generation config,
exports it (folder to folder, folder to HDF5 to folder, and as shards), and loads both with transformers' Auto classes: ids,
texts, apply_chat_template, the generation config and what generate() answers must be equal, and the files' bytes.
"""
import filecmp
import json
import os
import shutil
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "instruct")
TEXTS = ["Hello  world's caf\u00e9\n 123", "<|im_start|>user\nhi<|im_end|>", ""]
CHAT = [{"role": "user", "content": "Add 2 and 2."}, {"role": "assistant", "content": "4"}, {"role": "user", "content": "And 3?"}]


def make(path):
    torch.manual_seed(3)
    template = next(t for t in json.load(open(os.path.join(DATA, "chat.json"))) if t["name"] == "chatml-qwen2")
    tok = PreTrainedTokenizerFast(tokenizer_file=os.path.join(DATA, "bpe", "tokenizer.json"), bos_token=template["bos"] or None,
                                  eos_token="<|im_end|>", chat_template=template["template"])
    model = LlamaForCausalLM(LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                                         vocab_size=len(tok), max_position_embeddings=128, initializer_range=0.3))
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=12, repetition_penalty=1.3,
                                               eos_token_id=tok.eos_token_id)
    model.save_pretrained(path)
    tok.save_pretrained(path)


def seen(path):
    """What transformers makes of a folder."""
    tok, model = AutoTokenizer.from_pretrained(path), AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    config = GenerationConfig.from_pretrained(path)
    ids = tok.apply_chat_template(CHAT, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        logits, made = model(ids).logits, model.generate(ids)
    return {"ids": [tok(t).input_ids for t in TEXTS], "text": [tok.decode(tok(t).input_ids) for t in TEXTS],
            "chat": tok.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True), "eos": tok.eos_token,
            "generation": config.to_diff_dict(), "logits": logits.numpy().tobytes(), "made": made.tolist()}


def main(pare, work):
    at = lambda name: os.path.join(work, name)  # noqa: E731
    run = lambda *a: subprocess.run([pare, "-q", *a], check=True)  # noqa: E731
    make(at("files"))
    run("export", at("files"), at("files-hf"), "--format", "hf")
    run("import", at("files"), at("files.h5"))
    run("export", at("files.h5"), at("files-h5"), "--format", "hf")
    run("export", at("files.h5"), at("files-shards"), "--format", "hf", "--max-shard-size", "40KB")
    want = seen(at("files"))
    for name in "files-hf", "files-h5", "files-shards":
        got = seen(at(name))
        wrong = [k for k in want if got[k] != want[k]]
        files = [f for f in os.listdir(at("files")) if not f.startswith("model")]
        wrong += [f for f in files if not filecmp.cmp(os.path.join(at("files"), f), os.path.join(at(name), f), shallow=False)]
        if wrong:
            sys.exit(f"{at(name)}: transformers sees other {wrong}")
    for name in "files", "files-hf", "files-h5", "files-shards":
        shutil.rmtree(at(name))
    print(f"ok   transformers: a folder of {', '.join(sorted(files))} and weights, through HDF5 and shards: the same "
          f"ids, chat, generation config, logits and answer")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
