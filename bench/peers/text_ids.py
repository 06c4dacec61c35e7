"""Other tokenizers on the text that `make bench BENCH=tokenizers` gives pare: one JSON line for each that can.

    python bench/peers/text_ids.py KIND PATH TEXT MODE SECONDS [--cpu-time]

KIND gpt2 or llama3 (GPT-2's merges behind Llama 3's pattern; PATH = vocab.json with merges.txt beside it): tiktoken and
Hugging Face tokenizers. KIND spm: SentencePiece. MODE documents, one, equal: as bench/tokenizers.c says. One thread;
s = median seconds, crc = CRC-32 of the ids as little-endian int32. A package that is not installed gives no line.
"""
import json
import os
import statistics
import sys
import time
import zlib

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
import numpy as np  # noqa: E402

kind, path, text, mode, seconds = sys.argv[1:6]
now = time.process_time if "--cpu-time" in sys.argv else time.perf_counter
text = open(text, encoding="utf-8", newline="").read()
docs = ["a" * 1_000_000] if mode == "equal" else text.split("<|endoftext|>") if mode == "documents" else [text]
SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LLAMA3 = SHORT + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


def tiktoken_encode():
    import tiktoken
    from tokenizers.pre_tokenizers import ByteLevel
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [b for b in range(256) if b not in keep]
    byte = {chr(b): b for b in keep} | {chr(256 + i): b for i, b in enumerate(moved)}
    assert set(byte) == set(ByteLevel.alphabet())
    ranks = {bytes(byte[c] for c in t): i for t, i in json.load(open(path)).items() if t != "<|endoftext|>"}
    enc = tiktoken.Encoding(kind, pat_str=GPT2 if kind == "gpt2" else LLAMA3, mergeable_ranks=ranks, special_tokens={})
    return lambda: [enc.encode_ordinary(d) for d in docs]


def huggingface_encode():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers as pre
    tok = Tokenizer(models.BPE.from_file(path, os.path.join(os.path.dirname(path), "merges.txt")))
    level = pre.ByteLevel(add_prefix_space=False, use_regex=kind == "gpt2")
    tok.pre_tokenizer = level if kind == "gpt2" else pre.Sequence([pre.Split(Regex(LLAMA3), "isolated"), level])
    return lambda: [x.ids for x in tok.encode_batch_fast(docs, add_special_tokens=False)]


def sentencepiece_encode():
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_file=path)
    return lambda: [sp.encode(d) for d in docs]


PEERS = {"tiktoken": tiktoken_encode, "tokenizers": huggingface_encode} if kind != "spm" else \
    {"sentencepiece": sentencepiece_encode}
for engine, make in PEERS.items():
    try:
        encode = make()
    except ImportError as e:
        print(f"{engine}: {e}", file=sys.stderr)
        continue
    ids, took, start = encode(), [], time.perf_counter()
    while not took or time.perf_counter() - start < float(seconds):
        t = now()
        encode()
        took.append(now() - t)
    s = statistics.median(took)
    quart = np.quantile(took, [0.25, 0.75])
    crc = 0
    for d in ids:
        crc = zlib.crc32(np.array(d, "<i4").tobytes(), crc)
    print(json.dumps({"engine": engine, "s": s, "spread": 100 * float(quart[1] - quart[0]) / s, "n": len(took),
                      "ids": sum(map(len, ids)), "crc": crc}), flush=True)
