#!/usr/bin/env python3
"""Writes tests/data/wordpiece/ (a small BERT tokenizer as tokenizer.json, as a folder with vocab.txt, and a cased one) and
tests/data/gguf/ (the small tokenizers inside GGUF files), each with vectors.txt of what Hugging Face tokenizers and
SentencePiece make of texts with them.
usage: python3 tests/golden/make_vocabs.py     (needs tokenizers, transformers, sentencepiece, gguf; run in the repository's
root, after make_spm.py and make_unigram.py)
WordPiece's trainer draws ties by chance: commit all files of one run together.
A line of vectors.txt: file <tab> text as hex <tab> ids <tab> decoded text as hex."""
import json, os, random
import gguf, numpy
import sentencepiece as spm
from sentencepiece import sentencepiece_model_pb2 as pb
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers, Regex, AddedToken

TEXT, WORDS, GGUF = 'tests/data/text/tinystories-valid.txt', 'tests/data/wordpiece', 'tests/data/gguf'
LINES = open(TEXT, encoding='utf8').read()[:120000].split('\n')
EXTRA = ['été Ünï ñandú ¡hola! ĀB', '日本語 中文', 'Ελλάδα ΣΊΣΥΦΟΣ', 'x² ½ ﬁ', 'İstanbul ẞ'] * 4
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PARTS = [' ', '  ', 'a', 'The', ' the ', '▁', '😀', '[CLS]', '[MASK] ', '[UNK]', '##', '##ing', '\n', '\t', '\0', 'lo', '日本', 'Once upon', '\u3000', '�',
         'little girl', '"Hello," said', 'ﬁ', 'É', 'e', '\u0301', '½', '㍿', '\u200b', '\r\n', 'Ⅳ', '…', '<|x|>', '👩‍👩‍👧', '각', 'क्षि', '.', '$', 'can\'t', "I'LL",
         'z' * 101, 'y' * 100, 'İ', 'ẞ', 'ΣΊΣΥΦΟΣ', '\u00ad', '\u2028', '\u0085', '12345', '3.14', '𠀀', '¿', '«', 'Ǆ', '\x7f', '\ue000', '\u0378', '<|end|>']


def texts(seed, bad=False):
    rnd = random.Random(seed)
    parts = [p.encode() for p in PARTS] + ([b'\xff', b'\xe2\x96', b'\x80', b'\xf0\x9f\x98'] if bad else [])
    return [b'', b' ', b'  two  spaces  '] + [b''.join(rnd.choice(parts) for _ in range(rnd.randrange(1, 12))) for _ in range(60)]


def vectors(f, path, tk, seed):
    plain = isinstance(tk, Tokenizer)
    for t in texts(seed, not plain):
        ids = tk.encode(t.decode(), add_special_tokens=False).ids if plain else tk.encode(t)
        out = tk.decode(ids)
        print(path, t.hex(), ' '.join(map(str, ids)), (out if isinstance(out, bytes) else out.encode()).hex(), sep='\t', file=f)


def bert(lower):
    tk = Tokenizer(models.WordPiece(unk_token='[UNK]', max_input_chars_per_word=100))
    tk.normalizer, tk.pre_tokenizer = normalizers.BertNormalizer(lowercase=lower), pre_tokenizers.BertPreTokenizer()
    tk.decoder = decoders.WordPiece()
    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    tk.train_from_iterator(LINES + EXTRA, trainers.WordPieceTrainer(vocab_size=700, special_tokens=special, show_progress=False))
    tk.post_processor = processors.BertProcessing(('[SEP]', 3), ('[CLS]', 2))
    return tk


def vocab_txt(tk, folder, **config):
    os.makedirs(folder, exist_ok=True)
    vocab = sorted(tk.get_vocab().items(), key=lambda x: x[1])
    open(folder + '/vocab.txt', 'w').write(''.join(t + '\n' for t, _ in vocab))
    if config: json.dump(config, open(folder + '/tokenizer_config.json', 'w'))


def write_gguf(name, arch, model, pre, tokens, types, scores=None, merges=None, **more):
    w = gguf.GGUFWriter(f'{GGUF}/{name}.gguf', arch)
    w.add_tokenizer_model(model)
    if pre: w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types(types)
    if scores: w.add_token_scores(scores)
    if merges: w.add_token_merges(merges)
    for key, v in more.items():
        if key == 'charsmap': w.add_precompiled_charsmap(v)
        elif isinstance(v, bool): w.add_bool('tokenizer.ggml.' + key, v)
        else: w.add_uint32('tokenizer.ggml.' + key, v)
    w.add_chat_template('{{ messages }}')
    w.add_tensor('token_embd.weight', numpy.zeros((2, 32), numpy.float32))
    w.add_tensor('blk.0.x', numpy.ones(3, numpy.float16))
    w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()
    return f'{GGUF}/{name}.gguf'


def from_spm(name, path, model):
    p = pb.ModelProto()
    p.ParseFromString(open(path, 'rb').read())
    n, more = p.normalizer_spec, {}
    if n.precompiled_charsmap: more['charsmap'] = n.precompiled_charsmap
    return write_gguf(name, 'llama', model, 'default', [x.piece for x in p.pieces], [x.type for x in p.pieces], [x.score for x in p.pieces],
                      add_space_prefix=n.add_dummy_prefix, remove_extra_whitespaces=n.remove_extra_whitespaces, bos_token_id=1, eos_token_id=2,
                      unknown_token_id=0, **more)


def byte_bpe(pattern):
    tk = Tokenizer(models.BPE(ignore_merges=bool(pattern)))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not pattern)
    tk.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), 'isolated'), level]) if pattern else level
    tk.decoder = decoders.ByteLevel()
    tk.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tk.add_special_tokens([AddedToken('<|end|>', special=True, normalized=False)])
    tk.add_tokens([AddedToken('<|x|>', normalized=False)])
    return tk


def from_bpe(name, tk, pre):
    j = json.loads(tk.to_str())
    vocab = sorted(tk.get_vocab().items(), key=lambda x: x[1])
    added = {a['id']: 3 if a['special'] else 4 for a in j['added_tokens']}
    merges = [m if isinstance(m, str) else ' '.join(m) for m in j['model']['merges']]
    return write_gguf(name, 'gpt2', 'gpt2', pre, [t for t, _ in vocab], [added.get(i, 1) for _, i in vocab], merges=merges,
                      eos_token_id=len(vocab) - 2)


def from_bert(name, tk):
    def phantom(t): return t if t[0] + t[-1] == '[]' else t[2:] if t.startswith('##') else '▁' + t
    vocab = sorted(tk.get_vocab().items(), key=lambda x: x[1])
    return write_gguf(name, 'bert', 'bert', 'bert-bge', [phantom(t) for t, _ in vocab], [1] * len(vocab), unknown_token_id=1, padding_token_id=0,
                      cls_token_id=2, seperator_token_id=3, mask_token_id=4, token_type_count=2)


for d in f'{WORDS}/json', GGUF: os.makedirs(d, exist_ok=True)
lower, cased = bert(True), bert(False)
lower.save(f'{WORDS}/json/tokenizer.json', pretty=False)
vocab_txt(lower, f'{WORDS}/lower')
vocab_txt(cased, f'{WORDS}/cased', do_lower_case=False, tokenize_chinese_chars=True, strip_accents=None, model_max_length=512)
for tk in lower, cased: tk.add_special_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'])
with open(f'{WORDS}/vectors.txt', 'w') as f:
    for k, (path, tk) in enumerate([('json', Tokenizer.from_file(f'{WORDS}/json/tokenizer.json')), ('lower', lower), ('cased', cased)]):
        vectors(f, f'{WORDS}/{path}', tk, k)
with open(f'{GGUF}/vectors.txt', 'w') as f:
    stories, plain = 'tests/data/stories/tok512.model', 'tests/data/unigram/fallback.model'
    for name, path, model in ('llama', stories, 'llama'), ('t5', plain, 't5'), ('keep', 'tests/data/unigram/keep.model', 't5'):
        vectors(f, from_spm(name, path, model), spm.SentencePieceProcessor(model_file=path), 7)
    for name, pattern, pre in ('gpt2', None, 'gpt-2'), ('llama3', LLAMA3, 'llama-bpe'), ('qwen2', LLAMA3.replace('{1,3}', ''), 'qwen2'):
        tk = byte_bpe(pattern)
        if name == 'qwen2': tk.normalizer, tk.model.ignore_merges = normalizers.NFC(), False
        vectors(f, from_bpe(name, tk, pre), tk, 8)
    vectors(f, from_bert('bert', lower), lower, 9)
