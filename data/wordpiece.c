/* data/wordpiece.c: WordPiece (BERT), from tokenizer.json and from vocab.txt.
 *
 *   word -> the longest piece it begins with, then again and again the longest continuation ("##" +
 *   text); a word
 *   with a rest that no piece begins, or of more than max_input_chars_per_word characters, is the unknown
 *   piece
 *
 * Source: Google's BERT tokenization, and Hugging Face tokenizers, whose ids these are.
 */
#include "data/wordpiece_impl.h"
#include "data/bpe_json_impl.h"
#include "data/unigram_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

typedef struct Model {
    Trie trie;
    WordPieceSpec s;
    uint32_t inside; /* node of the prefix, where continuations begin */
    bool has_inside;
} Model;

static size_t characters(const char *s, size_t n)
{
    size_t k = 0;
    for (size_t i = 0, len; i < n; i += len ? len : 1, k++) len = utf8_next(s + i, n - i, NULL);
    return k;
}

/* Bytes of the longest piece from `node` on, 0 = none. */
static size_t longest(const Model *m, uint32_t node, const char *s, size_t n, int32_t *id, uint64_t *steps)
{
    size_t found = 0;
    for (size_t i = 0; i < n && (node = trie_step(&m->trie, node, (unsigned char)s[i])) != 0; i++) {
        ++*steps;
        if (m->trie.value[node] < 0) continue;
        *id = m->trie.value[node];
        found = i + 1;
    }
    return found;
}

static bool encode(const void *impl, const char *s, size_t n, void **cache, TokenBuf *out, uint64_t *steps,
                   Arena *scratch, Arena *a, Err *e)
{
    const Model *m = impl;
    const size_t first = out->n;
    uint64_t count = 0;
    (void)cache, (void)scratch;
    bool known = characters(s, n) <= m->s.max_chars;
    for (size_t at = 0, len; known && at < n; at += len) {
        int32_t id = -1;
        len = at == 0 || m->has_inside ? longest(m, at ? m->inside : 0, s + at, n - at, &id, &count) : 0;
        known = len > 0;
        if (known && !tokenbuf_push(out, id, a, e)) return false;
    }
    if (steps) *steps += count;
    if (known) return true;
    out->n = first;
    return tokenbuf_push(out, m->s.unk, a, e);
}

static TokSpan piece(const void *impl, int32_t id)
{
    const Model *m = impl;
    return id >= 0 && id < m->s.n ? m->s.piece[id] : (TokSpan){0};
}

static int32_t find(const void *impl, const char *s, size_t n)
{
    const Model *m = impl;
    return n ? trie_find(&m->trie, s, n) : -1;
}

static bool digest(const void *impl, TokText *out, Arena *a, Err *e)
{
    const Model *m = impl;
    const uint64_t rules[2] = {m->s.max_chars, (uint64_t)m->s.unk};
    return text_put(out, (const char *)rules, sizeof rules, a, e) &&
           text_put(out, m->s.prefix.s, m->s.prefix.n, a, e);
}

static const PieceModel wordpiece_model = {"WordPiece", encode, piece, find, digest};

bool wordpiece_open(Pipeline *p, const WordPieceSpec *s, const char *where, Arena *a, Err *e)
{
    Model *m = arena_alloc(a, sizeof *m, e);
    if (!m || !trie_open(&m->trie, s->piece, (size_t)s->n, where, a, e)) return false;
    m->s = *s;
    m->has_inside = true;
    for (size_t i = 0; i < s->prefix.n && m->has_inside; i++) {
        m->inside = trie_step(&m->trie, m->inside, (unsigned char)s->prefix.s[i]);
        m->has_inside = m->inside != 0;
    }
    p->model = &wordpiece_model;
    p->impl = m;
    p->n_model = s->n;
    return true;
}

static int32_t piece_id(const WordPieceSpec *w, TokSpan want)
{
    for (int32_t i = 0; want.s && i < w->n; i++)
        if (w->piece[i].s && w->piece[i].n == want.n && memcmp(w->piece[i].s, want.s, want.n) == 0) return i;
    return -1;
}

bool wordpiece_from_json(Tokenizer *t, Pipeline *p, const json_t *m, Arena *a, Err *e)
{
    const JsonSource s = {t->path, a, e};
    WordPieceSpec w = {.max_chars = 100, .prefix = {"##", 2}};
    TokSpan *text;
    if (!src_known(&s, m, "model WordPiece",
                   "type|unk_token|continuing_subword_prefix|max_input_chars_per_word|vocab") ||
        !vocab_from_json(&text, &w.n, json_object_get(m, "vocab"), &s))
        return false;
    w.piece = text;
    const json_t *max = json_object_get(m, "max_input_chars_per_word");
    const TokSpan prefix = src_span(&s, m, "model", "continuing_subword_prefix");
    TokSpan unk = src_span(&s, m, "model", "unk_token");
    if (e->code) return false;
    if (prefix.s) w.prefix = prefix;
    if (!unk.s) unk = (TokSpan){"[UNK]", 5};
    if (max && (!json_is_integer(max) || json_integer_value(max) < 0))
        return err_set(e, ERR_CORRUPT, "%s: model.max_input_chars_per_word is not a count", t->path);
    if (max) w.max_chars = (size_t)json_integer_value(max);
    w.unk = piece_id(&w, unk);
    if (w.unk < 0)
        return err_set(e, ERR_CORRUPT, "%s: the unknown token `%.80s` is not in the vocabulary", t->path,
                       unk.s);
    t->unk = w.unk;
    return wordpiece_open(p, &w, t->path, a, e);
}

/* ---- vocab.txt ----------------------------------------------------------------------------------------- */

static bool add_special(Pipeline *p, const char *name, size_t *cap, int32_t **around, size_t *n, Arena *a,
                        Err *e)
{
    const int32_t id = p->model->find(p->impl, name, strlen(name));
    if (id < 0) return true;
    const TokSpan text = {name, strlen(name)};
    if (around) {
        *around = arena_alloc(a, sizeof **around, e);
        if (!*around) return false;
        **around = id;
        *n = 1;
    }
    return pipeline_add(p, (AddedToken){.id = id, .text = text, .special = true}, cap, a, e);
}

bool wordpiece_bert(Tokenizer *t, Pipeline *p, bool lowercase, bool chinese, int strip_accents, Arena *a,
                    Err *e)
{
    size_t cap = 0;
    p->norm = arena_alloc(a, sizeof *p->norm, e);
    p->pre = arena_alloc(a, sizeof *p->pre, e);
    p->dec = arena_alloc(a, sizeof *p->dec, e);
    if (!p->norm || !p->pre || !p->dec) return false;
    *p->norm = (Normalizer){.kind = NORM_BERT,
                            .clean_text = true,
                            .chinese = chinese,
                            .strip_accents = strip_accents < 0 ? lowercase : strip_accents > 0,
                            .lower = lowercase};
    *p->pre = (PreTokenizer){.kind = PRE_BERT};
    *p->dec = (Decoder){.kind = DEC_WORD_PIECE, .from = {"##", 2}, .cleanup = true};
    p->n_norm = p->n_pre = p->n_dec = 1;
    p->has_decoder = true;
    if (!add_special(p, "[PAD]", &cap, NULL, NULL, a, e) ||
        !add_special(p, "[UNK]", &cap, NULL, NULL, a, e) ||
        !add_special(p, "[CLS]", &cap, &p->before, &p->n_before, a, e) ||
        !add_special(p, "[SEP]", &cap, &p->after, &p->n_after, a, e) ||
        !add_special(p, "[MASK]", &cap, NULL, NULL, a, e))
        return false;
    t->bos = p->n_before ? p->before[0] : -1;
    t->eos = p->n_after ? p->after[0] : -1;
    return true;
}

/* A piece a line, its id the line's number from 0. */
static bool read_lines(WordPieceSpec *w, char *text, size_t bytes, const char *path, Arena *a, Err *e)
{
    size_t n = 0;
    for (size_t i = 0; i < bytes; i++) n += text[i] == '\n' || i + 1 == bytes;
    if (n == 0 || n > (1 << 24)) return err_set(e, ERR_CORRUPT, "%s: %zu lines of pieces", path, n);
    TokSpan *piece = arena_alloc(a, n * sizeof *piece, e);
    if (!piece) return false;
    for (size_t i = 0, k = 0; k < n; k++) {
        const char *end = memchr(text + i, '\n', bytes - i);
        size_t len = end ? (size_t)(end - (text + i)) : bytes - i;
        const size_t next = i + len + 1;
        if (len > 0 && text[i + len - 1] == '\r') len--;
        for (size_t at = 0, c; at < len; at += c)
            if ((c = utf8_next(text + i + at, len - at, NULL)) == 0)
                return err_set(e, ERR_CORRUPT, "%s:%zu: not UTF-8", path, k + 1);
        text[i + len] = 0;
        piece[k] = (TokSpan){text + i, len};
        i = next;
    }
    w->piece = piece;
    w->n = (int32_t)n;
    return true;
}

static bool pieces_once(const Model *m, const char *path, Err *e)
{
    for (int32_t i = 0; i < m->s.n; i++) {
        const TokSpan x = m->s.piece[i];
        const int32_t last = x.n ? trie_find(&m->trie, x.s, x.n) : i;
        if (last != i)
            return err_set(e, ERR_CORRUPT, "%s:%d: `%.80s` stands in line %d, too", path, i + 1, x.s,
                           last + 1);
    }
    return true;
}

bool vocab_txt_open(Tokenizer *t, Arena *a, Err *e)
{
    size_t bytes;
    WordPieceSpec w = {.max_chars = 100, .prefix = {"##", 2}};
    Pipeline *p = arena_alloc(a, sizeof *p, e);
    char *text = file_read(a, t->path, &bytes, e);
    const char *dir = folder_of(t->path, a, e);
    const char *beside = dir ? path_join(a, dir, "tokenizer_config.json", e) : NULL;
    if (!p || !text || !beside || !read_lines(&w, text, bytes, t->path, a, e)) return false;
    w.unk = piece_id(&w, (TokSpan){"[UNK]", 5});
    if (w.unk < 0) return err_set(e, ERR_CORRUPT, "%s: no piece [UNK]: not a WordPiece vocabulary", t->path);
    t->unk = w.unk;
    if (!wordpiece_open(p, &w, t->path, a, e) || !pieces_once(p->impl, t->path, e)) return false;
    const JsonSource s = {beside, a, e};
    json_t *j = json_file(beside, true, e);
    if (e->code) return false;
    const json_t *accents = json_object_get(j, "strip_accents");
    const bool lower = src_flag(&s, j, "tokenizer", "do_lower_case", true);
    const bool chinese = src_flag(&s, j, "tokenizer", "tokenize_chinese_chars", true);
    const int strip = json_is_boolean(accents) ? json_is_true(accents) : -1;
    json_decref(j);
    return !e->code && wordpiece_bert(t, p, lower, chinese, strip, a, e) && pipeline_finish(t, p, a, e);
}
