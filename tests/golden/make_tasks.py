"""Log-likelihoods of task examples by transformers, one loop per protocol: tests/golden/tasks.json.

    python tests/golden/make_tasks.py build/release/pare      # exports the stories model to a folder transformers reads

The data are 16 HellaSwag validation examples (MIT), 12 of LAMBADA (CC BY 4.0) and the lines written here.
"""
import json
import os
import re
import subprocess
import sys
import tempfile

import sentencepiece
import torch
from transformers import LlamaForCausalLM

here = os.path.dirname(os.path.abspath(__file__))
data = os.path.join(here, "..", "data")
tasks = os.path.join(data, "tasks")
tk = sentencepiece.SentencePieceProcessor(model_file=os.path.join(data, "stories", "tok512.model"))
with tempfile.TemporaryDirectory() as d:
    subprocess.run([sys.argv[1], "-q", "export", os.path.join(data, "stories", "stories260K.bin"), d + "/hf"], check=True)
    model = LlamaForCausalLM.from_pretrained(d + "/hf", dtype=torch.float64)
LONGEST = model.config.max_position_embeddings

with open(os.path.join(tasks, "hellaswag.jsonl"), "w") as f:
    for o in [
        {"ind": 1, "activity_label": "Making tea", "ctx_a": "[header] How to make tea [title] Boil  water.", "ctx_b": "the Girl [substeps]",
         "ctx": "", "endings": ["pours it  slowly.", "[step] runs away.", "sings a song [title] Loud.", "eats the pot."], "label": 0},
        {"ind": 2, "activity_label": "Playing", "ctx_a": "A boy has a ball [note", "ctx_b": "",
         "ctx": "", "endings": ["He throws it.", "He is sad.", "é è 漢字", "It is big and red and round and it was very fun."], "label": "3"},
    ]:
        f.write(json.dumps(o) + "\n")
with open(os.path.join(tasks, "choice.jsonl"), "w") as f:
    f.write(json.dumps({"question": "Lily likes to play in the", "choices": ["park", "number seven"], "answer": "A"}) + "\n")
    f.write(json.dumps({"query": "Once upon a", "choices": ["time", "dog", "x y z"], "gold": 1}) + "\n")
    f.write(json.dumps({"context": "word " * 700 + "end", "endings": ["one", "two"], "label": 0}) + "\n")


def score(ids, start):
    ids, over = list(ids), max(0, len(ids) - 1 - LONGEST)
    ids, start = ids[over:], max(1, start - over)
    with torch.no_grad():
        lp = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0], -1)
    rows = range(start - 1, len(ids) - 1)
    return (float(sum(lp[i, ids[i + 1]] for i in rows)), len(rows), all(int(lp[i].argmax()) == ids[i + 1] for i in rows))


def bos(text):
    return [tk.bos_id()] + tk.encode(text)


def lm_eval(context, choices):
    return [score(bos(context + c), len(bos(context))) for c in choices]


def llm_c(context, choices):
    c = tk.encode(context)
    return [score(c + tk.encode(e), max(1, len(c))) for e in choices]


def llama_cpp(context, choices):
    ids = [bos(context + e) for e in choices]
    common = 0
    while all(len(x) > common for x in ids) and len({x[common] for x in ids}) == 1:
        common += 1
    return [score(x, common) for x in ids]


def preprocess(text):
    text = text.strip().replace(" [title]", ". ")
    return re.sub("\\[.*?\\]", "", text).replace("  ", " ")


def rows(found, choices, label):
    sums = [f[0] for f in found]
    return {"ll": sums, "tokens": [f[1] for f in found], "greedy": found[0][2], "label": label,
            "pred": max(range(len(sums)), key=lambda i: sums[i])}


out = {}
lines = open(os.path.join(tasks, "hellaswag.txt")).read().splitlines()
hs = [(lines[i], [" " + e for e in lines[i + 2:i + 6]], int(lines[i + 1])) for i in range(0, len(lines), 6)]
for name, f in (("llm.c", llm_c), ("llama.cpp", llama_cpp), ("lm-eval", lm_eval)):
    out["hellaswag.txt/" + name] = [rows(f(c, e), e, y) for c, e, y in hs]
doc = [json.loads(x) for x in open(os.path.join(tasks, "hellaswag.jsonl"))]
out["hellaswag.jsonl/lm-eval"] = []
for o in doc:
    c = preprocess(o["activity_label"] + ": " + o["ctx_a"] + " " + o["ctx_b"].capitalize())
    e = [" " + preprocess(x) for x in o["endings"]]
    out["hellaswag.jsonl/lm-eval"].append(rows(lm_eval(c, e), e, int(o["label"])))
out["lambada.jsonl/lm-eval"] = []
for x in open(os.path.join(tasks, "lambada.jsonl")):
    text = json.loads(x)["text"]
    c, e = " ".join(text.split(" ")[:-1]), " " + text.split(" ")[-1]
    out["lambada.jsonl/lm-eval"].append(rows(lm_eval(c, [e]), [e], 0))
out["choice.jsonl/lm-eval"] = []
for x in open(os.path.join(tasks, "choice.jsonl")):
    o = json.loads(x)
    c = o.get("question") or o.get("query") or o.get("context")
    e = [" " + s for s in o.get("choices") or o.get("endings")]
    out["choice.jsonl/lm-eval"].append(rows(lm_eval(c, e), e, {"A": 0}.get(o.get("answer"), o.get("gold", o.get("label")))))

# Perplexity by protocol, over the first 6,000 tokens of the stories' text.
text = open(os.path.join(data, "text", "tinystories-train.txt"), newline="").read()[:40000]
ids = tk.encode(text)[:6000]


def nll(window, scored):
    with torch.no_grad():
        lp = torch.log_softmax(model(torch.tensor([window])).logits[0], -1)
    return [-float(lp[i, t]) for i, t in scored]


def concat(n):
    return sum((nll(ids[i:i + n], [(j, ids[i + j + 1]) for j in range(n - 1)]) for i in range(0, len(ids) - n + 1, n)), [])


def stride(n, step):
    """https://huggingface.co/docs/transformers/perplexity: tokens not scored before, -100 for the others."""
    found, before = [], 0
    for begin in range(0, len(ids), step):
        end = min(begin + n, len(ids))
        window, new = ids[begin:end], end - before
        found += nll(window, [(j, window[j + 1]) for j in range(len(window) - 1) if j + 1 >= len(window) - new])
        before = end
        if end == len(ids):
            break
    return found


def llamacpp(n):
    found = []
    for i in range(0, len(ids) - n + 1, n):
        window = [tk.bos_id()] + ids[i + 1:i + n]
        found += nll(window, [(j, window[j + 1]) for j in range(n // 2, n - 1)])
    return found


def val(n):
    return sum((nll([tk.bos_id()] + ids[i:i + n][:-1], list(enumerate(ids[i:i + n]))) for i in range(0, len(ids), n)), [])


for name, found in (("concat-256", concat(256)), ("stride", stride(256, 128)), ("llamacpp", llamacpp(256)), ("val", val(256))):
    out["perplexity/" + name] = {"nll": sum(found) / len(found), "tokens": len(found)}
with open(os.path.join(here, "tasks.json"), "w") as f:
    json.dump(out, f, indent=1)
    f.write("\n")
