#!/usr/bin/env python3
"""Writes tests/data/unigram/: small SentencePiece models with a character map (unigram and BPE; user-defined and unused
pieces, byte fallback, other whitespace rules), their tokenizer.json forms, and vectors.txt, what SentencePiece and Hugging
Face tokenizers make of texts with them; malformed UTF-8 is among SentencePiece's texts.
usage: python3 tests/golden/make_unigram.py        (needs sentencepiece, protobuf, tokenizers; run in the repository's root)
A line of vectors.txt: file <tab> text as hex <tab> ids <tab> decoded text as hex."""
import base64, json, os, random
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import Tokenizer

OUT, TEXT, NFKC = 'tests/data/unigram', 'tests/data/text/tinystories-valid.txt', 'tests/data/unigram/botchan.model'
# A rule's two sides as code points; several begin with another one's left side, one has nothing on its right.
RULES = {'\t': ' ', '\u3000': ' ', 'ﬁ': 'fi', 'ＡＢ': 'x', 'Ａ': 'A', 'e\u0301': '\xe9', '\xe8': 'e', '½': '1⁄2', '㍿': '株式会社', '\u200b': '', '\n': ' ',
         '\r\n': ' ', 'Ⅳ': 'IV', '…': '. . .', 'a\u0300\u0302': 'aa', '<<': '« ', '<<<': ' »'}


def train(name, **how):
    with open(f'{OUT}/rules.tsv', 'w') as f:
        for a, b in RULES.items(): print(' '.join(f'{ord(c):X}' for c in a), ' '.join(f'{ord(c):X}' for c in b), sep='\t', file=f)
    spm.SentencePieceTrainer.train(sentence_iterator=iter(open(TEXT, encoding='utf8').read()[:120000].split('\n')),
        model_prefix=f'{OUT}/{name}', vocab_size=how.pop('vocab_size', 400), normalization_rule_tsv=f'{OUT}/rules.tsv',
        minloglevel=2, num_threads=1, **how)
    for f in f'{OUT}/{name}.vocab', f'{OUT}/rules.tsv': os.remove(f)
    p = pb.ModelProto()
    p.ParseFromString(open(f'{OUT}/{name}.model', 'rb').read())
    return p


def save(p, name):
    p.trainer_spec.ClearField('input'), p.trainer_spec.ClearField('model_prefix')
    open(f'{OUT}/{name}.model', 'wb').write(p.SerializeToString())


def to_json(p, name, fallback):
    model = {'type': 'Unigram', 'unk_id': 0, 'vocab': [[x.piece, x.score] for x in p.pieces], 'byte_fallback': fallback}
    space = {'type': 'Metaspace', 'replacement': '▁', 'prepend_scheme': 'always', 'split': True}
    cmap = base64.b64encode(p.normalizer_spec.precompiled_charsmap).decode()
    norm = {'type': 'Sequence', 'normalizers': [{'type': 'Precompiled', 'precompiled_charsmap': cmap},
            {'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': ' '}]}
    added = [dict(id=i, content=x.piece, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
             for i, x in enumerate(p.pieces) if x.type in (2, 3)]
    decoder = {'type': 'Sequence', 'decoders': [{'type': 'ByteFallback'}, space]} if fallback else space
    j = dict(version='1.0', truncation=None, padding=None, added_tokens=added, normalizer=norm, pre_tokenizer=space,
             post_processor=None, decoder=decoder, model=model)
    os.makedirs(f'{OUT}/{name}', exist_ok=True)
    json.dump(j, open(f'{OUT}/{name}/tokenizer.json', 'w'), ensure_ascii=False, separators=(',', ':'))


def texts(rnd, valid):
    parts = [' ', '  ', 'a', 'the', ' the ', '▁', '😀', '<s>', '<|x|>', '<0x41>', '\n', '\t', '\0', 'lo', 'b', '日本', 'Once upon', '\u3000',
             'little girl', '"Hello," said', 'a b', 'ﬁ', 'Ａ', 'Ｂ', 'é', 'e', '\u0301', '\u0300\u0302', '½', '㍿', '\u200b', '\r\n', 'Ⅳ', '…', 'à̂', '<',
             '<<', '️', '👩‍👩‍👧', '🇩🇪🇩', '각', 'ᄀ', 'ᅡ', 'क्षि', '①', 'ｶﾞ', '<unk>', '.', ',', 'zq', 'x' * 40, '\u2126', 'ǅ', '\ufdfa']
    parts = [p.encode() for p in parts]
    if not valid: parts += [b'\xe2\x96', b'\xc0\x80', b'\xed\xa0\x80', b'\xf4\x90\x80\x80', b'\xff', b'\x80', b'\xe0\x90\x80', b'\xf0\x9f\x98']
    return [b'', b' ', b'   ', b'  two  spaces  '] + [b''.join(rnd.choice(parts) for _ in range(rnd.randrange(1, 14))) for _ in range(90)]


os.makedirs(OUT, exist_ok=True)
plain = train('plain', model_type='unigram')
save(plain, 'plain')
fall = train('fallback', model_type='unigram', byte_fallback=True, vocab_size=600, user_defined_symbols=['<|x|>', 'lo', ' the', '日本', '<<'])
for i, x in enumerate(fall.pieces):
    if x.type == 1 and len(x.piece) > 2 and i % 5 == 0: x.type = 5
save(fall, 'fallback')
keep = train('keep', model_type='unigram', add_dummy_prefix=False, remove_extra_whitespaces=False)
save(keep, 'keep')
save(train('bpe', model_type='bpe', byte_fallback=True, vocab_size=600), 'bpe')
to_json(plain, 'plain-json', False)
for x in fall.pieces:
    if x.type in (4, 5): x.piece, x.type = x.piece + '~', 1
to_json(fall, 'fallback-json', True)
with open(f'{OUT}/vectors.txt', 'w') as f:
    for k, name in enumerate(['botchan', 'plain', 'fallback', 'keep', 'bpe', 'plain-json', 'fallback-json']):
        path, rnd = f'{OUT}/{name}' if name.endswith('json') else f'{OUT}/{name}.model', random.Random(k)
        tk = Tokenizer.from_file(path + '/tokenizer.json') if name.endswith('json') else spm.SentencePieceProcessor(model_file=path)
        for t in texts(rnd, name.endswith('json')):
            ids = tk.encode(t.decode(), add_special_tokens=False).ids if name.endswith('json') else tk.encode(t)
            out = tk.decode(ids)
            out = out if isinstance(out, bytes) else out.encode()
            print(path, t.hex(), ' '.join(map(str, ids)), out.hex(), sep='\t', file=f)
