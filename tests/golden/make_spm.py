#!/usr/bin/env python3
"""Writes tests/data/spm/: variants of stories/tok512.model (user-defined and unused pieces, no byte fallback,
other whitespace rules, a piece across a space) and vectors.txt, what SentencePiece makes of texts with them;
malformed UTF-8 is among the texts.
usage: python3 tests/golden/make_spm.py        (needs sentencepiece and protobuf; run in the repository's root)
A line of vectors.txt: model <tab> text as hex <tab> ids <tab> decoded text as hex. Random ids, to be decoded only, have
`-` as their text."""
import os, random
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb

OUT, STORIES, LLAMA = 'tests/data/spm', 'tests/data/stories/tok512.model', 'tests/data/llama2/tokenizer.model'
USER = {300: ' the', 301: '<|x|>', 302: '▁▁ab', 303: 'lo', 304: '日本', 305: 'a▁b'}


def user(p):
    for piece in p.pieces:
        if piece.piece in USER.values(): piece.piece += '~'
    for i, text in USER.items(): p.pieces[i].piece, p.pieces[i].type = text, 4


def unused(p):
    rnd = random.Random(1)
    for i in range(259, 512):
        if rnd.random() < .3: p.pieces[i].type = 5


def nofallback(p):
    p.trainer_spec.byte_fallback = False
    for i in range(3, 259): p.pieces[i].type = 1


def rules(p):
    n = p.normalizer_spec
    n.add_dummy_prefix = n.remove_extra_whitespaces = n.escape_whitespaces = False


def join(p):
    for piece in p.pieces:
        if piece.piece in ('a▁', '▁▁'): piece.piece += '~'
    p.pieces[310].piece, p.pieces[311].piece, p.pieces[310].score, p.pieces[311].score = 'a▁', 'a▁b', 2, 1


def trim(p):
    p.normalizer_spec.add_dummy_prefix = False


def texts(rnd):
    parts = [b' ', b'  ', b'a', b'the', b' the ', '▁'.encode(), b'\xe2\x96', b'\xc0\x80', b'\xed\xa0\x80', b'\xf4\x90\x80\x80',
             '😀'.encode(), b'<s>', b'<|x|>', b'<0x41>', b'\n', b'\t', b'\0', b'lo', b'b', '日本'.encode(), b'Once upon',
             b'\xff', '\u3000'.encode(), b'little girl', b'"Hello," said', b'a b', b'\x80', b'\xe0\x90\x80', b'\xf0\x9f\x98']
    fixed = [b'', b' ', b'   ', b'\xff', b'\xe2\x96', ' ▁ '.encode(), b'  two  spaces  ', b'a\0b', b'lolo the the<|x|>']
    return fixed + [b''.join(rnd.choice(parts) for _ in range(rnd.randrange(1, 14))) for _ in range(50)]


os.makedirs(OUT, exist_ok=True)
models = [STORIES, LLAMA]
for change in user, unused, nofallback, rules, trim, join:
    p = pb.ModelProto()
    with open(STORIES, 'rb') as f: p.ParseFromString(f.read())
    change(p)
    models.append(f'{OUT}/{change.__name__}.model')
    with open(models[-1], 'wb') as f: f.write(p.SerializeToString())
with open(f'{OUT}/vectors.txt', 'w') as f:
    for k, name in enumerate(models):
        sp, rnd = spm.SentencePieceProcessor(model_file=name), random.Random(k)
        cases = [(t.hex(), sp.encode(t)) for t in texts(rnd)]
        for _ in range(30):
            ids = [rnd.randrange(259 if rnd.random() < .4 else sp.vocab_size()) for _ in range(1 + rnd.randrange(9))]
            cases.append(('-', ids))
        for text, ids in cases:
            out = sp.decode(ids)
            out = out if isinstance(out, bytes) else out.encode()
            print(name, text, ' '.join(map(str, ids)), out.hex(), sep='\t', file=f)
