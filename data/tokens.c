/* data/tokens.c: one source -> its tokens in file order. What split cuts:
 *
 *   text with a document_separator   documents, by where they start in the stripped documents joined, empty
 *                                    ones left out: [lo:hi] takes those with lo <= start < hi
 *   text without one                 the file's bytes, each bound moved on to the next character
 *   .bin                             tokens (percentages only)
 *
 * Several files of a glob are read in sorted order as one source.
 */
#define _GNU_SOURCE /* memmem */
#include "data/source_impl.h"
#include "data/tokenizer_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

typedef struct Span {
    const char *s;
    size_t n;
} Span;
typedef struct Spans {
    Span *v;
    size_t n, cap;
    uint64_t bytes;
} Spans;

static bool spans_add(Spans *d, Span s, Arena *a, Err *e)
{
    if (s.n == 0) return true;
    if (d->n == d->cap) {
        const size_t cap = d->cap ? 2 * d->cap : 64;
        Span *v = arena_grow(a, d->v, d->n * sizeof *v, cap * sizeof *v, e);
        if (!v) return false;
        d->v = v;
        d->cap = cap;
    }
    d->v[d->n++] = s;
    d->bytes += s.n;
    return true;
}

/* The documents of one file's text. */
static bool documents(Spans *d, Span text, const char *separator, Arena *a, Err *e)
{
    const size_t m = separator ? strlen(separator) : 0;
    if (m == 0) return spans_add(d, text, a, e);
    for (;;) {
        const char *hit = text.n ? memmem(text.s, text.n, separator, m) : NULL;
        Span doc = {text.s, hit ? (size_t)(hit - text.s) : text.n};
        utf8_strip(&doc.s, &doc.n);
        if (!spans_add(d, doc, a, e)) return false;
        if (!hit) return true;
        text.n -= (size_t)(hit - text.s) + m;
        text.s = hit + m;
    }
}

static bool inside_character(Span s, uint64_t at)
{
    return at < s.n && ((unsigned char)s.s[at] & 0xC0u) == 0x80u;
}

/* Keeps what the split names of d: whole documents, or a piece of each file. */
static void cut(Spans *d, const Split *split, bool by_document)
{
    uint64_t lo, hi, start = 0;
    split_range(split, d->bytes, &lo, &hi);
    size_t kept = 0;
    for (size_t i = 0; i < d->n; i++) {
        Span s = d->v[i];
        const uint64_t end = start + s.n;
        if (!by_document) {
            uint64_t from = lo <= start ? 0 : (lo < end ? lo : end) - start;
            uint64_t to = hi >= end ? s.n : (hi > start ? hi : start) - start;
            while (inside_character(s, from)) from++;
            while (inside_character(s, to)) to++;
            s = (Span){s.s + from, from < to ? (size_t)(to - from) : 0};
        } else if (start < lo || start >= hi) {
            s.n = 0;
        }
        if (s.n) d->v[kept++] = s;
        start = end;
    }
    d->n = kept;
}

static bool encode_documents(TokenBuf *out, const Spans *d, const char *eot, const Tokenizer *tk,
                             size_t *bytes, Arena *a, Err *e)
{
    const bool before = strcmp(eot, "prepend") == 0;
    const bool after = strcmp(eot, "append") == 0 && tokenizer_eos(tk) >= 0;
    for (size_t i = 0; i < d->n; i++) {
        if (!tokenizer_encode(tk, d->v[i].s, d->v[i].n, before, out, a, e)) return false;
        if (after && !tokenbuf_push(out, tokenizer_eos(tk), a, e)) return false;
        *bytes += d->v[i].n;
    }
    return true;
}

/* Files of text -> tokens in the scratch arena. */
static bool read_text(TokenBuf *out, const Paths *p, const Split *split, const DataConfig *d,
                      const Tokenizer *tk, size_t *bytes, Arena *scratch, Err *e)
{
    Spans docs = {0};
    size_t opened = 0;
    FileMap *map = arena_alloc(scratch, p->n * sizeof *map, e);
    bool ok = map != NULL;
    while (ok && opened < p->n) {
        ok = file_map(&map[opened], p->v[opened], e);
        if (!ok) break;
        const Span text = {(const char *)map[opened].data, map[opened].bytes};
        opened++;
        ok = documents(&docs, text, d->document_separator, scratch, e);
    }
    if (ok) cut(&docs, split, d->document_separator && *d->document_separator);
    ok = ok && encode_documents(out, &docs, d->eot, tk, bytes, scratch, e);
    while (opened > 0) file_unmap(&map[--opened]);
    return ok;
}

static bool read_files(TokenBuf *out, const Paths *p, FileKind kind, const Split *split, const DataConfig *d,
                       int vocab, Arena *scratch, Err *e)
{
    uint64_t lo, hi;
    if (split->kind == 'b')
        return err_set(e, ERR_USAGE, "%s: split: token files are cut in percent, not in bytes", p->v[0]);
    for (size_t i = 0; i < p->n; i++)
        if (!token_file_read(out, p->v[i], kind, d->vocab_check, vocab, scratch, e)) return false;
    split_range(split, out->n, &lo, &hi);
    out->n = (size_t)(hi - lo);
    out->id += lo;
    return true;
}

/* Tokens of a text stand under the same rule as those of a file. */
static bool check_vocab(TokenBuf *t, const char *path, const char *check, int vocab, Err *e)
{
    if (vocab <= 0 || strcmp(check, "off") == 0) return true;
    const bool clip = strcmp(check, "clip") == 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->id[i] < vocab) continue;
        if (!clip)
            return err_set(e, ERR_CORRUPT,
                           "%s: token %zu is %d, but the model's vocabulary has %d: not its tokenizer", path,
                           i, t->id[i], vocab);
        t->id[i] = vocab - 1;
    }
    return true;
}

static bool load(Tokens *out, const SourceConfig *s, const DataConfig *d, const Tokenizer *tk, int vocab,
                 Arena *a, Arena *scratch, Err *e)
{
    Paths p;
    Split split;
    FileKind kind, other;
    TokenBuf t = {0};
    if (!split_parse(&split, s->split, s->path, e) || !source_paths(&p, s->path, scratch, e)) return false;
    if (!source_kind(&kind, p.v[0], s->format, e)) return false;
    for (size_t i = 1; i < p.n; i++) {
        if (!source_kind(&other, p.v[i], s->format, e)) return false;
        if (other != kind)
            return err_set(e, ERR_USAGE, "%s: %s and %s are of different kinds; make them two sources",
                           s->path, p.v[0], p.v[i]);
    }
    if (kind == FILE_TEXT && !tk)
        return err_set(e, ERR_USAGE, "%s: text needs a tokenizer; set tokenizer.path", s->path);
    const bool ok = kind == FILE_TEXT ? read_text(&t, &p, &split, d, tk, &out->bytes, scratch, e) &&
                                            check_vocab(&t, s->path, d->vocab_check, vocab, e)
                                      : read_files(&t, &p, kind, &split, d, vocab, scratch, e);
    if (!ok) return false;
    if (t.n == 0)
        return err_set(e, ERR_FAIL, "%s: no tokens%s%s", s->path, s->split ? " in the part " : "",
                       s->split ? s->split : "");
    out->n = t.n;
    out->path = arena_strdup(a, s->path, e);
    out->id = arena_alloc(a, t.n * sizeof *t.id, e);
    if (!out->path || !out->id) return false;
    memcpy(out->id, t.id, t.n * sizeof *t.id);
    return true;
}

bool tokens_load(Tokens *out, const SourceConfig *s, const DataConfig *d, const Tokenizer *tk, int vocab,
                 Arena *a, Err *e)
{
    Arena scratch = {.name = "source"};
    *out = (Tokens){0};
    if (!s->path || !*s->path) return err_set(e, ERR_USAGE, "data: a source without path");
    const bool ok = load(out, s, d, tk, vocab, a, &scratch, e);
    arena_free(&scratch);
    return ok;
}
