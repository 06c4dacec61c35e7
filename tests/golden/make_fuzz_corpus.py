#!/usr/bin/env python3
"""Writes tests/fuzz/corpus/<target>/seed-*: small valid files of each kind, where fuzzing starts.
usage: python3 tests/golden/make_fuzz_corpus.py      (needs sentencepiece, gguf, numpy; run in the repository's root)"""
import json, os, struct
import gguf, numpy
from sentencepiece import sentencepiece_model_pb2 as pb

CORPUS = 'tests/fuzz/corpus'


def put(target, name, data):
    os.makedirs(f'{CORPUS}/{target}', exist_ok=True)
    open(f'{CORPUS}/{target}/{name}', 'wb').write(data if isinstance(data, bytes) else data.encode())


def seed(target, name, data): put(target, 'seed-' + name, data)


def safetensors(tensors, data, pad=0, **meta):
    h = json.dumps({**({'__metadata__': meta} if meta else {}), **tensors}, separators=(',', ':')).encode() + b' ' * pad
    return struct.pack('<Q', len(h)) + h + data


def entry(dtype, shape, lo, hi): return {'dtype': dtype, 'shape': shape, 'data_offsets': [lo, hi]}


seed('safetensors', 'one', safetensors({'a': entry('F32', [2, 1], 0, 8)}, b'\0' * 8, format='pt'))
seed('safetensors', 'two', safetensors({'b': entry('BF16', [3], 4, 10), 'a': entry('F32', [], 0, 4), 'z': entry('I64', [0], 10, 10)}, b'\1' * 10, 3))
seed('safetensors', 'empty', safetensors({}, b''))
seed('safetensors', 'gpt2', safetensors({'wte.weight': entry('F16', [2, 2], 0, 8), 'h.0.attn.c_attn.weight': entry('F16', [2, 6], 8, 32)}, b'\2' * 32))
floats = [0.5] * 20
for name, encoding, member, attrs, codes, scales in [
        ('seed-fp8', 'fp8_e4m3fn', 'scales', {'block_cols': 4}, 16, [4, 1]),
        ('seed-int4', 'int_affine', 'scales', {'bits': 4, 'group_size': 2}, 8, [4, 2]),
        ('seed-nf4', 'nf4', 'absmax', {'block_size': 4}, 8, [4, 1]),
        ('regression-block-rows', 'fp8_e4m3fn', 'scales', {'block_rows': -1, 'block_cols': 1}, 16, [1, 4]),
        ('regression-block-size', 'nf4', 'absmax', {'block_size': 2**63 - 1}, 0, [0])]:
    n, levels = 1, []
    for d in scales: n *= d
    if encoding == 'nf4':
        levels = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
                  -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
                  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
    at = codes + 4 * n
    tensors = {'w.codes': entry('U8', [codes], 0, codes), 'w.' + member: entry('F32', scales, codes, at)}
    if levels: tensors['w.levels'] = entry('F32', [16], at, at + 64)
    values = struct.pack(f'<{n + len(levels)}f', *floats[:n], *levels)
    text = json.dumps({'encoding': encoding, 'shape': [4, 4], **attrs})
    put('safetensors', name, safetensors(tensors, bytes(range(codes)) + values, w=text))
dims = 8, 16, 1, 2, 1, 32, 16
n = 32 * 8 + 8 + 8 * 8 + 8 * 4 * 2 + 8 * 8 + 8 + 3 * 8 * 16 + 8 + 16 * 4
seed('safetensors', 'llama2c', struct.pack('<7i', *dims) + b'\0' * (4 * n))
for name, magic, version, width in ('v1', 20240520, 1, 'H'), ('v2', 20240520, 2, 'I'), ('v7', 20240801, 7, 'I'):
    head = struct.pack('<256i', magic, version, 5, *[0] * 253)
    seed('bin', name, head + struct.pack('<5' + width, 1, 2, 50256, 4, 0))
seed('bin', 'nano', struct.pack('<4H', 1, 2, 3, 50256))
for name, kind, change in ('bpe', 2, {}), ('unigram', 1, {}), ('fallback', 2, {'byte_fallback': True}), ('map', 1, {}):
    p = pb.ModelProto()
    for t, s, k in [('<unk>', 0, 2), ('<s>', 0, 3), ('</s>', 0, 3), ('\u2581', -3, 1), ('l', -1, 1), ('ll', -2.5, 1), ('o', -1.5, 1), ('He', -2, 4), ('\u2581w', -4, 5)]:
        p.pieces.add(piece=t, score=s, type=k)
    if name == 'fallback':
        for b in range(256): p.pieces.add(piece=f'<0x{b:02X}>', score=0, type=6)
    p.trainer_spec.model_type, p.trainer_spec.byte_fallback = kind, name == 'fallback'
    if name == 'map':
        unit = [0] * 128
        unit[0], unit[96], unit[98] = 1 << 10, 97 | 1 << 8 | 2 << 10, 1 << 31 | 2
        p.normalizer_spec.precompiled_charsmap = struct.pack('<I128I', 512, *unit) + b'x\0yz\0'
    seed('sentencepiece', name, p.SerializeToString())


def gguf_seed(name, model, pre, tokens, types, scores=None, merges=None):
    path = f'{CORPUS}/tmp.gguf'
    w = gguf.GGUFWriter(path, 'llama')
    w.add_tokenizer_model(model)
    if pre: w.add_tokenizer_pre(pre)
    w.add_token_list(tokens), w.add_token_types(types)
    if scores: w.add_token_scores(scores)
    if merges: w.add_token_merges(merges)
    w.add_uint32('tokenizer.ggml.unknown_token_id', 0), w.add_bool('tokenizer.ggml.add_bos_token', False), w.add_float64('x.f', 1.5)
    w.add_tensor('a', numpy.zeros((1, 32), numpy.float32)), w.add_tensor('b', numpy.ones(3, numpy.float16))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    seed('gguf', name, open(path, 'rb').read())
    os.remove(path)


os.makedirs(CORPUS, exist_ok=True)
gguf_seed('llama', 'llama', 'default', ['<unk>', '\u2581', 'l', 'll'], [2, 1, 1, 1], [0., -1., -2., -3.])
gguf_seed('t5', 't5', None, ['<unk>', '\u2581', 'l', 'll'], [2, 1, 1, 4], [0., -1., -2., -3.])
gguf_seed('gpt2', 'gpt2', 'gpt-2', ['h', 'e', 'l', 'll', '\u0120', '<|end|>'], [1, 1, 1, 1, 1, 3], merges=['l l'])
gguf_seed('bert', 'bert', 'bert-bge', ['[UNK]', '\u2581he', 'llo', '[CLS]'], [3, 1, 1, 3])

cls = {'id': 1, 'content': '[CLS]', 'single_word': False, 'lstrip': False, 'rstrip': True, 'normalized': False, 'special': True}
base = dict(version='1.0', truncation=None, padding=None, added_tokens=[cls], normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None)
bpe = dict(type='BPE', dropout=None, unk_token='<unk>', continuing_subword_prefix=None, end_of_word_suffix=None, fuse_unk=True, byte_fallback=False,
           ignore_merges=False, vocab={'<unk>': 0, '[CLS]': 1, 'l': 2, 'll': 3, 'o': 4, '\u0120': 5}, merges=['l l'])
level = {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True, 'use_regex': True}
split = {'type': 'Split', 'pattern': {'Regex': '\\p{L}+|\\s+(?!\\S)|.'}, 'behavior': 'Isolated', 'invert': False}
meta = {'type': 'Metaspace', 'replacement': '\u2581', 'prepend_scheme': 'always', 'split': True}
post = {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': '[CLS]', 'type_id': 0}}, {'Sequence': {'id': 'A', 'type_id': 0}}],
        'pair': [{'Sequence': {'id': 'A', 'type_id': 0}}], 'special_tokens': {'[CLS]': {'id': '[CLS]', 'ids': [1], 'tokens': ['[CLS]']}}}
uni = dict(type='Unigram', unk_id=0, vocab=[['<unk>', 0.0], ['[CLS]', 0.0], ['\u2581', -1.5], ['l', -2.0], ['ll', -3.0]], byte_fallback=False)
word = dict(type='WordPiece', unk_token='[UNK]', continuing_subword_prefix='##', max_input_chars_per_word=100, vocab={'[UNK]': 0, '[CLS]': 1, 'he': 2, '##llo': 3})
norm = {'type': 'Sequence', 'normalizers': [{'type': 'NFC'}, {'type': 'Prepend', 'prepend': '_'}, {'type': 'Replace', 'pattern': {'String': ' '}, 'content': '\u2581'}]}
dec = {'type': 'Sequence', 'decoders': [{'type': 'Replace', 'pattern': {'String': '\u2581'}, 'content': ' '}, {'type': 'ByteFallback'}, {'type': 'Fuse'},
       {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}]}
for name, j in {'bytes': dict(base, pre_tokenizer={'type': 'Sequence', 'pretokenizers': [split, level]}, decoder=level, post_processor=post, model=bpe),
                'stages': dict(base, normalizer=norm, decoder=dec, model=bpe), 'unigram': dict(base, pre_tokenizer=meta, decoder=meta, model=uni),
                'bert': dict(base, normalizer={'type': 'BertNormalizer', 'clean_text': True, 'handle_chinese_chars': True, 'strip_accents': None, 'lowercase': True},
                             pre_tokenizer={'type': 'BertPreTokenizer'}, decoder={'type': 'WordPiece', 'prefix': '##', 'cleanup': True}, model=word)}.items():
    seed('tokenizer_json', name, json.dumps(j, separators=(',', ':')))
seed('vocab_txt', 'bert', '[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhe\n##llo\nworld\n\'\ns\n')
import base64  # noqa: E402
seed('tiktoken', 'ranks', b''.join(base64.b64encode(t) + b' %d\n' % i for i, t in enumerate([*[bytes([b]) for b in range(256)], b'll', b'He', b'Hell'])))
seed('tiktoken', 'few', 'IQ== 0\nIg== 1\nISI= 2\n')
seed('vocab_json', 'small', json.dumps({'l': 0, 'o': 1, '\u0120': 2, 'w': 3, 'll': 4, '\u0120w': 5, '<|endoftext|>': 6}))
seed('merges_txt', 'small', '#version: 0.2\nl l\nH e\nll o\nHe llo\n')
seed('merges_txt', 'crlf', 'l l\r\nH e\r\n')
seed('tokenizer_config', 'roles', json.dumps({'bos_token': '<s>', 'eos_token': {'content': '</s>', 'lstrip': True}, 'unk_token': None, 'add_bos_token': True,
     'add_eos_token': True, 'add_prefix_space': True, 'chat_template': "{% for m in messages %}{{ '<s>' + m['role'] + '\\n' }}{%- endfor %}\n"}))
seed('tokenizer_config', 'added', json.dumps({'tokenizer_class': 'GPT2Tokenizer', 'added_tokens_decoder': {'7': {'content': '<x>', 'lstrip': False, 'rstrip': True,
     'single_word': True, 'normalized': False, 'special': True}}, 'chat_template': [{'name': 'tool', 'template': 'x'}, {'name': 'default', 'template': '{{ y }}'}]}))
seed('records', 'text', '0{"text": "one"}\n\n{"text": "two \\u00e9 \\ud83d\\ude00"}\n{"text": ""}\n')
seed('records', 'array', '0[{"text": "one"},\n {"text": "two", "n": [1, {"a": "]"}]}]\n')
seed('records', 'prompts', '1{"prompt": "2+2?", "response": "4"}\r\n{"prompt": "", "response": "x"}\n')
seed('records', 'chats', '2{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}, {"role": "assistant", "content": " yes "}]}\n'
     '{"messages": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "<|im_end|>"}]}\n')
seed('records', 'alpaca', '3[{"instruction": "Add.", "input": "1 1", "output": "2"}, {"instruction": "Go", "output": "ok"}]')
seed('index_json', 'two', '{"metadata": {"total_size": 8}, "weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}')
seed('index_json', 'missing', '{"weight_map": {"a": "1.safetensors", "c": "3.safetensors"}}')
for name in 'llama', 'gpt2', 'qwen3', 'mistral': seed('config_json', name, open(f'tests/data/hf-tiny-{name}/config.json', 'rb').read())
# seed-model of h5_envelope is one scalar text written by h5_create and h5_commit.
seed('h5_envelope', 'zero', b'\0' * 600)
seed('config_yaml', 'data', 'train:\n  - {path: a.txt, split: "train[:95%]", weight: 2}\nval: [{path: b.txt}]\nseq_len: 128\nbatch_size: 4\n')
seed('config_yaml', 'anchors', 'version: 1\na: &x {k: [1, 2.5, true, null, "s"]}\nb: *x\ninclude: []\nseq_len: ${oops}\n')
