#!/usr/bin/env python3
"""WikiText's raw text (wiki.test.raw) as the perplexity tables of others read it.

    python3 scripts/wikitext.py joined <wiki.test.raw >joined.txt
    python3 scripts/wikitext.py detokenised <wiki.test.raw >detokenised.txt

joined       the lines of the `datasets` package, blank ones empty, with two newlines between each two: the text of the
             GPTQ, AWQ and SmoothQuant papers (their windows: --protocol concat-2048) and of Hugging Face's stride.
detokenised  spaces before punctuation, inside quotes and brackets and around @-@ @,@ @.@ taken out: what GPT-2's paper
             calls invertible detokenisers, by the rules of lm-evaluation-harness' wikitext task.
Both print bytes and SHA-256 to stderr: put them beside the figure.
"""
import hashlib
import re
import sys

REPLACE_FIRST = [("s '", "s'"), (" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."), (" : ", ": "), (" ; ", "; "), (" . ", ". "),
                 (" ! ", "! "), (" ? ", "? "), (" , ", ", ")]
ENCLOSED = [(r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"), ('"', '"'), ("'", "'")]
REPLACE_LAST = [("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \u00b0 ", "\u00b0"), (" \n", "\n"), ("\n ", "\n"),
                (" N ", " 1 "), (" 's", "'s")]


def joined(text):
    return "\n\n".join(line if line.strip() else "" for line in re.findall(r"[^\n]*\n|[^\n]+", text))


def detokenised(text):
    for a, b in REPLACE_FIRST:
        text = text.replace(a, b)
    for left, right in ENCLOSED:
        text = re.sub(rf"({left})\s*([^{right}]*?)\s*({right})", r"\1\2\3", text)
    for a, b in REPLACE_LAST:
        text = text.replace(a, b)
    return text


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in ("joined", "detokenised"):
        sys.exit(__doc__)
    raw = sys.stdin.buffer.read().decode("utf-8")
    out = globals()[sys.argv[1]](raw).encode("utf-8")
    sys.stdout.buffer.write(out)
    print(f"{sys.argv[1]}: {len(out)} bytes, SHA-256 {hashlib.sha256(out).hexdigest()}", file=sys.stderr)
