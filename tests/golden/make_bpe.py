"""tests/data/tokenizers/bpe-*.json and bpe.txt: small tokenizer.json files, one for each rule of BPE and of added
tokens, with the ids and decoded texts of Hugging Face tokenizers.

    file <tab> text, hex <tab> ids <tab> text of the ids without specials, hex

    python3 tests/golden/make_bpe.py [random texts for each file] [output folder]
"""
import json, os, random, sys
from tokenizers import Tokenizer, models, trainers, pre_tokenizers

N = int(sys.argv[1]) if len(sys.argv) > 1 else 20
OUT = sys.argv[2] if len(sys.argv) > 2 else "tests/data/tokenizers"
rng = random.Random(5)
TEXT = open("tests/golden/make_bpe.py").read() + "the quick brown fox the lazy dog 你好世界 café naïve " * 3


def trained(size, **rules):
    """Vocabulary and merges of a BPE with these rules over TEXT's words; spaces are U+2581 in front."""
    t = Tokenizer(models.BPE(**{k: v for k, v in rules.items() if k in ("unk_token",)}))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    special = rules.pop("special", [])
    affix = {k: rules[k] for k in ("continuing_subword_prefix", "end_of_word_suffix") if k in rules}
    t.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False, **affix))
    m = json.loads(t.to_str())["model"]
    return m["vocab"], m["merges"]


def byte_level(size):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator([TEXT], trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    m = json.loads(t.to_str())["model"]
    return m["vocab"], m["merges"]


def doc(vocab, merges, norm=None, pre=None, dec=None, added=(), post=None, strings=False, **rules):
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab,
             "merges": [" ".join(m) for m in merges] if strings else merges}
    model.update(rules)
    v, free = [], iter(range(len(vocab), len(vocab) + 99))
    for text, flags in added:
        v.append(dict({"id": vocab[text] if text in vocab else next(free), "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                       "normalized": False, "special": True}, **flags))
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": v, "normalizer": norm, "pre_tokenizer": pre,
            "post_processor": post, "decoder": dec, "model": model}


BL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
SP_NORM = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
SP_DEC = {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
                                           {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def files():
    v, m = byte_level(420)
    yield "bytelevel", doc(v, m, pre=BL, dec=BL, strings=True, added=[("<|end|>", {})])
    yield "prefix-space", doc(v, m, pre=dict(BL, add_prefix_space=True), dec=BL, added=[("<|end|>", {}), ("  ", {"special": False, "normalized": True})])
    yield "ignore-merges", doc(dict(v, **{"Ġquickest": len(v), "brownfox": len(v) + 1}), m, pre=BL, dec=BL, ignore_merges=True)
    some = {k: i for i, k in enumerate(k for k in v if k not in "qQzZ(")}
    yield "missing-bytes", doc(some, [p for p in m if all(x in some for x in (*p, "".join(p)))], pre=BL, dec=BL)
    yield "flags", doc(v, m, norm={"type": "Lowercase"}, pre=BL, dec=BL, added=[
        ("<L>", {"lstrip": True}), ("<R>", {"rstrip": True}), ("<B>", {"lstrip": True, "rstrip": True}), ("<N>", {"normalized": True}),
        ("word", {"single_word": True, "special": False}), ("Upper", {"normalized": True, "special": False}), ("<LL>", {}), ("€!", {"special": False}), ("<L", {}), ("zz", {"single_word": True})])
    v, m = trained(400, special=["<unk>"])
    fb = dict(v)
    for b in range(256): fb["<0x%02X>" % b] = len(fb)
    yield "fallback", doc(fb, m, norm=SP_NORM, dec=SP_DEC, byte_fallback=True, fuse_unk=True, unk_token="<unk>", strings=True,
                          added=[("<unk>", {}), ("<s>", {}), ("</s>", {"normalized": True})],
                          post={"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                                "special_tokens": {"<s>": {"id": "<s>", "ids": [len(fb)], "tokens": ["<s>"]}}})
    yield "unk", doc(v, m, pre=META, dec=META, unk_token="<unk>", added=[("<unk>", {})])
    yield "fuse-unk", doc(v, m, pre=META, dec=META, unk_token="<unk>", fuse_unk=True, added=[("<unk>", {})])
    yield "no-decoder", doc(v, m, norm={"type": "NFKC"}, pre={"type": "Whitespace"})
    v, m = trained(400, special=["<unk>"], continuing_subword_prefix="##", unk_token="<unk>")
    yield "subword-prefix", doc(v, m, pre=META, dec={"type": "WordPiece", "prefix": "##", "cleanup": False}, continuing_subword_prefix="##", unk_token="<unk>")
    v, m = trained(400, special=["<unk>"], end_of_word_suffix="</w>", unk_token="<unk>")
    yield "word-suffix", doc(v, m, pre={"type": "WhitespaceSplit"}, dec={"type": "BPEDecoder", "suffix": "</w>"}, end_of_word_suffix="</w>", unk_token="<unk>")
    yield "random-merges", doc(*random_merges("abcd", 9, 120))
    # In wxyz the pair (x, y) is gone once yz is there: w and x join before x and yz.
    yield "order", doc({t: i for i, t in enumerate(["w", "x", "y", "z", "yz", "xy", "wx", "xyz"])}, [["y", "z"], ["x", "y"], ["w", "x"], ["x", "yz"]])
    yield "crossing", doc(*random_merges("ab▁", 7, 80), norm={"type": "Replace", "pattern": {"String": " "}, "content": "▁"})


def random_merges(alphabet, longest, tries):
    """Merges in any order: the better of two may need a worse one first."""
    letters, pairs = {c: i for i, c in enumerate(alphabet)}, []
    for _ in range(tries):
        a, b = rng.choice(list(letters)), rng.choice(list(letters))
        if len(a + b) < longest and a + b not in letters: pairs.append([a, b]); letters[a + b] = len(letters)
    rng.shuffle(pairs)
    return letters, pairs


WORDS = ["the", "quick", " brown", " fox", "word", "words", "sword", "Upper", "upper", "<|end|>", "<L>", "<R>", "<B>", "<n>", "<N>", "<LL>", "€!", "</s>", "<s>",
         "<unk>", "  ", " ", "\n", "café", "你好", "世界", "😀", "qQzZ(", "12", "def doc(v, m):", "▁", "brownfox", " quickest", "_", ".", "É!", "\u0301", "ﬁ", "<L", "zz", "zz", " zz", "zzz"]


def texts(name):
    yield ""
    for _ in range(N):
        if name == "crossing": yield "".join(rng.choice("ab  ") for _ in range(rng.randint(1, 60)))
        elif name == "order": yield "".join(rng.choice(["wxyz", "xyz", "w", "yz"]) for _ in range(20))
        elif name == "random-merges": yield "".join(rng.choice("abcd") for _ in range(rng.randint(1, 60)))
        else: yield "".join(rng.choice(WORDS) for _ in range(rng.randint(1, 12)))


def main():
    lines = []
    for name, d in files():
        text = json.dumps(d, ensure_ascii=False, separators=(",", ":"))
        with open(os.path.join(OUT, f"bpe-{name}.json"), "w") as f: f.write(text)
        t = Tokenizer.from_str(text)
        # tokenizers 0.23 decodes a normalized token as its normalized text and keeps specials among them; the plain
        # meaning is that of the same file with normalized = false.
        plain = Tokenizer.from_str(text.replace('"normalized":true', '"normalized":false'))
        for s in texts(name):
            ids = t.encode(s, add_special_tokens=False).ids
            lines.append((f"tests/data/tokenizers/bpe-{name}.json", s.encode().hex(), " ".join(map(str, ids)), plain.decode(ids).encode().hex()))
    with open(os.path.join(OUT, "bpe.txt"), "w") as f:
        for l in lines: f.write("\t".join(l) + "\n")
    print(len(lines), "lines")


main()
