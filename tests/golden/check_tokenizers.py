"""Compares `pare data encode` with vectors and whole texts that are too large to carry.

    python3 tests/golden/check_tokenizers.py build/release/pare DATA     # DATA/tokenizers, DATA/text
"""
import hashlib, json, struct, subprocess, sys

PARE, DATA = sys.argv[1], sys.argv[2]
TOK, TEXT = DATA + "/tokenizers/", DATA + "/text/"
bad = 0


def encode(tokenizer, texts, *more):
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    r = subprocess.run([PARE, "data", "encode", "--no-bos", "--tokenizer", tokenizer, *more], input=lines, capture_output=True, text=True)
    if r.returncode: sys.exit(r.stderr)
    return [json.loads(l)["ids"] for l in r.stdout.splitlines()]


def check(what, ok):
    global bad
    bad += not ok
    print("ok  " if ok else "FAIL", what)


def vectors(tokenizer, path):
    v = [json.loads(l) for l in open(path)]
    check(f"{tokenizer[len(TOK):]} {path[len(TOK):]}", encode(tokenizer, [o["text"] for o in v]) == [o["ids"] for o in v])


for name in ("gpt2/tokenizer.json", "gpt2/encoder.json"):
    vectors(TOK + name, TOK + "gpt2/vectors.jsonl")
vectors(TOK + "tiny-bpe-hf/tiny_bpe_tokenizer.json", TOK + "tiny-bpe-hf/vectors.jsonl")
for d, f in (("llama2", "tokenizer.model"), ("stories", "tok512.model"), ("sentencepiece-unigram", "test_model.model")):
    vectors(TOK + d + "/" + f, TOK + d + "/vectors.jsonl")
for path in ("gpt2/ggml-vocab-gpt-2", "llama2/ggml-vocab-llama-spm", "bert/ggml-vocab-bert-bge"):  # llama.cpp's texts and ids
    texts = open(TOK + path + ".gguf.inp", encoding="utf-8", newline="").read().split("\n__ggml_vocab_test__\n")
    want = [[int(i) for i in line.split()] for line in open(TOK + path + ".gguf.out")]
    texts = texts[:len(want)]  # an empty text behind the last separator
    check(f"{path}.gguf: {len(want)} texts", encode(TOK + path + ".gguf", texts) == want)
WHERE = {"gpt2": "gpt2/tokenizer.json", "llam": "llama2/tokenizer.model", "stor": "stories/tok512.model", "sent": "sentencepiece-unigram/test_model.model"}
for g in json.load(open(TOK + "golden.json")):
    name = WHERE[g["tokenizer"][:4]]
    path = (TOK + "sentencepiece-unigram/" if g["file"] == "botchan.txt" else TEXT) + g["file"]
    text = open(path, newline=None if "mode" in g else "", encoding="utf-8").read()
    parts = text.split("\n") if "mode" in g else [text]
    if "mode" in g and parts[-1] == "": parts.pop()
    ids = [i for v in encode(TOK + name, parts) for i in v]
    sha = hashlib.sha256(struct.pack(f"<{len(ids)}I", *ids)).hexdigest()
    check(f"{name} {g['file']}: {len(ids)} ids", len(ids) == g["n_tokens"] and sha == g["sha256_of_u32le_ids"])
sys.exit(bad > 0)
