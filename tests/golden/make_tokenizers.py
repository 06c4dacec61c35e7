"""tests/data/tokenizers/stages.txt: what each normalizer, pre-tokenizer and decoder of Hugging Face tokenizers makes
of tricky texts, and where the families of data/families.def cut (the patterns of their published tokenizer.json;
cl100k and o200k through tiktoken's own pattern as well).

    kind <tab> json or family name <tab> input, hex <tab> output: hex, pieces joined by commas

    python3 tests/golden/make_tokenizers.py [random texts for each stage] [output file]
"""
import json, random, sys, unicodedata
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

N = int(sys.argv[1]) if len(sys.argv) > 1 else 6
OUT = sys.argv[2] if len(sys.argv) > 2 else "tests/data/tokenizers/stages.txt"
rng = random.Random(4)

bs = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
letter = {b: chr(b) for b in bs}
for b in range(256):
    if b not in letter:
        letter[b] = chr(256 + sum(1 for k in letter.values() if ord(k) > 255))
byte = {c: b for b, c in letter.items()}

POOLS = ["abcxyzABCXYZ", "  \t\n\r", "0123456789", "'.,!?-_/()[]{}:;\"#", "éÀñßİſKÅﬁ", "你好世界日本語テストひらがな", "😀👩\u200d🚀🇩🇪",
         "\u00a0\u1680\u2003\u2028\u202f\u205f\u3000\u180e\u200b\ufeff\u0085\x1c", "e\u0301a\u0308\u0323o\u20dd\u0903", "²³¼Ⅻ٣४①〇",
         "한국어각", "ЖёЙΣςσ", "\u0000\u0007\u200e\ue000", "ⓐ🄰_‿", "ກຳ\u0e33", "▁"]
FIXED = ["Hello, world!", "I'm you'LL we'VE 'S '\u017f it's 'tis", "  two  spaces   and tabs\t\t\n\n  x \n", "price: 1234567.89 €",
         "def f(x):\n    return x**2  # café\n", "你好，世界！123", "\r\n\r\n a\r\n", "   ", "\n", "a", "HTTPServer fooBar iPhone ABCdef",
         "e\u0301 \u1e69 \u1109\u1161\u11bc \ufb01 \u2126", "don't DON'T Don\u2019t", "a▁b ▁▁c", "x\u00a0y\u3000z", " a.b ,c!! d?? ''", "##ing <0x41>"]


def texts(n, fixed=10):
    yield from rng.sample(FIXED, fixed)
    for _ in range(n):
        yield "".join(rng.choice(rng.choice(POOLS)) for _ in range(rng.randint(1, 24)))


def hexs(parts):
    return ",".join(p.hex() for p in parts)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DEEPSEEK3 = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""


def split(p, behavior="Isolated", invert=False, key="Regex"):
    return {"type": "Split", "pattern": {key: p}, "behavior": behavior, "invert": invert}


def sequence(*v):
    return {"type": "Sequence", "pretokenizers": list(v)}


def bl(regex=False, prefix=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


DIGIT = {"type": "Digits", "individual_digits": True}
FAMILIES = {"gpt2": (None, bl(True)), "cl100k": (None, sequence(split(LLAMA3), bl())), "o200k": (None, sequence(split(O200K), bl())),
            "llama3": (None, sequence(split(LLAMA3), bl())), "qwen2": ("NFC", sequence(split(QWEN2), bl())),
            "neox": ("NFC", bl(True)), "starcoder": (None, sequence(DIGIT, bl(True))), "smollm": (None, sequence(DIGIT, bl(True))),
            "tekken": (None, sequence(split(TEKKEN), bl())),
            "deepseek3": (None, sequence(split(r"\p{N}{1,3}"), split("[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK3), bl()))}
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PRE = [bl(True), bl(True, True), bl(False, True), bl(), sequence(split(LLAMA3), bl(False, True)), DIGIT,
       {"type": "Digits", "individual_digits": False}, {"type": "Whitespace"}, {"type": "WhitespaceSplit"}, {"type": "BertPreTokenizer"},
       sequence({"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}),
       {"type": "CharDelimiterSplit", "delimiter": " "}, split(r"\w+"), split(r"[\w']+|\d", "Removed", True), split(r"\s{2,}"),
       split(r"\p{Han}{1,2}+|\p{N}{,2}x"), split(r"^\s|.$|\h"), split(r"\s*"), split(r"(?<=\p{L})\p{M}|(?i:k)|[^\S]")] + [
       split(r"\s+", b, i) for b in BEHAVIORS for i in (False, True)] + [split("  ", b, key="String") for b in BEHAVIORS] + [
       {"type": "Punctuation", "behavior": b} for b in BEHAVIORS] + [
       {"type": "Metaspace", "replacement": "▁", "prepend_scheme": p, "split": s} for p in ("first", "always", "never") for s in (True, False)]
PRE = [p for p in PRE if "[^\\S]" not in json.dumps(p).replace("\\\\", "\\")]
NORM = [{"type": t} for t in ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt")] + [
    {"type": "Strip", "strip_left": l, "strip_right": r} for l, r in ((True, True), (True, False), (False, True))] + [
    {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    {"type": "Replace", "pattern": {"String": "''"}, "content": "\""}, {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
    {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]},
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}] + [
    {"type": "BertNormalizer", "clean_text": c, "handle_chinese_chars": h, "strip_accents": s, "lowercase": l}
    for c, h, s, l in ((True, True, None, True), (True, False, None, False), (False, True, True, False), (False, False, False, True))]
META = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
DEC = [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "Fuse"}, META,
       dict(META, prepend_scheme="never"), {"type": "WordPiece", "prefix": "##", "cleanup": True},
       {"type": "WordPiece", "prefix": "##", "cleanup": False}, {"type": "BPEDecoder", "suffix": "</w>"}, {"type": "ByteFallback"},
       {"type": "Strip", "content": "a", "start": 2, "stop": 0}, {"type": "Strip", "content": "b", "start": 0, "stop": 1}, {"type": "Replace", "pattern": {"Regex": "[ab]+"}, "content": "-"},
       {"type": "Sequence", "decoders": [{"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                                         {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}]
PIECES = ["▁Hello", "▁", "world", "##ing", "un", "##aff", ".", "!", "n't", "'s", "do not", "<0xE4>", "<0xBD>", "<0xA0>", "<0x41>", "<0xff>", "a", "aab", "ba",
          "end</w>", "mid", "▁▁x", " ", "Ġthe", "Ã©", "é", "你", "'", "?", ","]


def part(key, o):
    """One stage alone, out of the JSON that whole tokenizers are read from."""
    t = Tokenizer.from_str(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                                       "pre_tokenizer": None, "post_processor": None, "decoder": None, key: o,
                                       "model": {"type": "BPE", "vocab": {}, "merges": []}}))
    return getattr(t, key)


def cuts(norm, pre, text, letters):
    if norm: text = unicodedata.normalize(norm, text)
    pieces = [p for p, _ in pre.pre_tokenize_str(text)]
    return [bytes(byte[c] for c in p) if letters else p.encode() for p in pieces if p]


def main():
    lines = []
    for name, (norm, o) in FAMILIES.items():
        pre = part("pre_tokenizer", o)
        for t in texts(3 * N, len(FIXED)): lines.append(("family", name, t.encode().hex(), hexs(cuts(norm, pre, t, True))))
    for o in PRE:
        pre, s = part("pre_tokenizer", o), json.dumps(o)
        for t in texts(N): lines.append(("pre", s, t.encode().hex(), hexs(cuts(None, pre, t, "ByteLevel" in s))))
    for o in NORM:
        norm = part("normalizer", o)
        for t in texts(2 * N): lines.append(("norm", json.dumps(o), t.encode().hex(), norm.normalize_str(t).encode().hex()))
    for o in DEC:
        dec = part("decoder", o)
        for _ in range(3 * N):
            # Hugging Face's ByteLevel makes malformed text U+FFFD, pare gives the bytes.
            v = [rng.choice([p for p in PIECES if p != "é" or o["type"] != "ByteLevel"]) for _ in range(rng.randint(1, 7))]
            lines.append(("dec", json.dumps(o), hexs([p.encode() for p in v]), dec.decode(v).encode().hex()))
    with open(OUT, "w") as f:
        for l in lines: f.write("\t".join(l) + "\n")
    print(len(lines), "lines")


main()
