/* data/tokens.c: one source in memory: its tokens in file order, where its documents begin, what of it is
 * trained. Several files of a glob are read in sorted order as one source. */
#include "data/source_impl.h"
#include <string.h>

/* Adds what a batch made, in order. A document may come in several pieces. */
static bool add_batch(Stream *s, const Batch *b, SourceCount *n, size_t *bytes, Arena *a, Err *e)
{
    for (size_t i = 0; i < b->n; i++) {
        const Encoded *x = &b->v[i];
        const TokenBuf *t = &x->out.ids;
        *bytes += x->text;
        n->bad += x->bad;
        n->empty += !x->bad && x->piece.first && t->n == 0;
        if (t->n == 0) continue;
        n->documents += x->piece.first;
        if (x->piece.first && !stream_document(s, a, e)) return false;
        if (!stream_put(s, t->id, x->out.target, t->n, a, e)) return false;
    }
    return true;
}

/* Files of text or json -> tokens in the scratch arena. */
static bool read_documents(Stream *s, const Paths *p, FileKind kind, const SourceConfig *src,
                           const DataConfig *d, const Tokenizer *tk, Tokens *out, Arena *scratch, Err *e)
{
    Reader r;
    Rule rule;
    Batch b = {0};
    bool ok = reader_open(&r, p, kind, src, d, tk, scratch, e) && rule_open(&rule, &r, src, d, scratch, e) &&
              batch_open(&b, scratch, e);
    while (ok) {
        ok = batch_next(&b, &r, &rule, strcmp(d->on_bad_line, "skip") == 0, e);
        if (!ok || b.n == 0) break;
        ok = add_batch(s, &b, &out->count, &out->bytes, scratch, e);
    }
    batch_close(&b);
    reader_close(&r);
    if (ok && out->count.bad > 0)
        log_warn("%s: %lld of %lld records could not be read and are left out", src->path,
                 (long long)out->count.bad, (long long)(out->count.bad + out->count.documents));
    if (ok && out->count.empty > 0)
        log_info("%s: %lld empty documents are left out", src->path, (long long)out->count.empty);
    return ok;
}

/* Documents that begin inside [lo, hi) of the tokens, moved to begin at 0; the first may have begun
 * before. */
static void cut_documents(Stream *s, uint64_t lo, uint64_t hi)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_doc; i++) {
        const uint64_t end = i + 1 < s->n_doc ? s->doc[i + 1] : UINT64_MAX;
        if (end <= lo || s->doc[i] >= hi) continue;
        s->doc[n++] = s->doc[i] > lo ? s->doc[i] - lo : 0;
    }
    s->n_doc = n;
}

static bool read_token_files(Stream *s, const Paths *p, FileKind kind, const Split *split,
                             const DataConfig *d, int vocab, Arena *scratch, Err *e)
{
    uint64_t lo, hi;
    if (split->kind == 'b')
        return err_set(e, ERR_USAGE, "%s: split: token files are cut in percent, not in bytes", p->v[0]);
    for (size_t i = 0; i < p->n; i++) {
        const bool ok = kind == FILE_HDF5
                            ? token_h5_read(s, p->v[i], d->vocab_check, vocab, scratch, e)
                            : token_file_read(&s->ids, p->v[i], kind, d->vocab_check, vocab, scratch, e);
        if (!ok) return false;
    }
    split_range(split, s->ids.n, &lo, &hi);
    s->ids.n = (size_t)(hi - lo);
    s->ids.id += lo;
    if (s->target) s->target += lo;
    cut_documents(s, lo, hi);
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
            return err_set(
                e, ERR_CORRUPT,
                "%s: token %zu is %d, but the model's vocabulary has %d: not its tokenizer; give the "
                "model's own (--tokenizer, tokenizer.path), or data.vocab_check: clip",
                path, i, t->id[i], vocab);
        t->id[i] = vocab - 1;
    }
    return true;
}

static bool keep(Tokens *out, const Stream *s, const char *path, Arena *a, Err *e)
{
    const size_t n = s->ids.n;
    out->n = n;
    out->path = arena_strdup(a, path, e);
    out->id = arena_alloc(a, n * sizeof *out->id, e);
    if (s->target) out->target = arena_alloc(a, n, e);
    if (s->n_doc) out->doc = arena_alloc(a, (s->n_doc + 1) * sizeof *out->doc, e);
    if (e->code) return false;
    memcpy(out->id, s->ids.id, n * sizeof *out->id);
    if (s->target) memcpy(out->target, s->target, n);
    out->n_doc = s->n_doc;
    if (!s->n_doc) return true;
    memcpy(out->doc, s->doc, s->n_doc * sizeof *out->doc);
    out->doc[s->n_doc] = n;
    return true;
}

static bool load(Tokens *out, const SourceConfig *s, const DataConfig *d, const Tokenizer *tk, int vocab,
                 Arena *a, Arena *scratch, Err *e)
{
    Paths p;
    Split split;
    FileKind kind;
    Stream t = {0};
    if (!split_parse(&split, s->split, s->path, e) || !source_open(&p, &kind, s, tk, scratch, e))
        return false;
    const bool ok = kind == FILE_TEXT || kind == FILE_JSON
                        ? read_documents(&t, &p, kind, s, d, tk, out, scratch, e) &&
                              check_vocab(&t.ids, s->path, d->vocab_check, vocab, e)
                        : read_token_files(&t, &p, kind, &split, d, vocab, scratch, e);
    if (!ok) return false;
    if (t.ids.n == 0)
        return err_set(e, ERR_FAIL, "%s: no tokens%s%s", s->path, s->split ? " in the part " : "",
                       s->split ? s->split : "");
    if (out->count.documents == 0) out->count.documents = (int64_t)t.n_doc;
    return keep(out, &t, s->path, a, e);
}

bool source_open(Paths *p, FileKind *kind, const SourceConfig *s, const Tokenizer *tk, Arena *a, Err *e)
{
    FileKind other;
    if (!s->path || !*s->path) return err_set(e, ERR_USAGE, "data: a source without path");
    if (!source_paths(p, s->path, a, e) || !source_kind(kind, p->v[0], s->format, e)) return false;
    for (size_t i = 1; i < p->n; i++) {
        if (!source_kind(&other, p->v[i], s->format, e)) return false;
        if (other != *kind)
            return err_set(e, ERR_USAGE, "%s: %s and %s are of different kinds; make them two sources",
                           s->path, p->v[0], p->v[i]);
    }
    if ((*kind == FILE_TEXT || *kind == FILE_JSON) && !tk)
        return err_set(e, ERR_USAGE,
                       "%s: text needs a tokenizer: give --tokenizer PATH, or tokenizer.path in the config",
                       s->path);
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

bool tokens_join(Tokens *all, const Tokens *more, Arena *a, Err *e)
{
    const Tokens x = *all, *part[2] = {&x, more};
    const bool targets = x.target || more->target, docs = x.doc && more->doc;
    all->n = 0;
    all->id = arena_alloc(a, (x.n + more->n) * sizeof *all->id, e);
    all->target = targets ? arena_alloc(a, x.n + more->n, e) : NULL;
    all->doc = docs ? arena_alloc(a, (x.n_doc + more->n_doc + 1) * sizeof *all->doc, e) : NULL;
    if (e->code) return false;
    all->n_doc = 0;
    for (int i = 0; i < 2; i++) {
        const Tokens *t = part[i];
        memcpy(all->id + all->n, t->id, t->n * sizeof *t->id);
        if (targets && t->target) memcpy(all->target + all->n, t->target, t->n);
        else if (targets) memset(all->target + all->n, 1, t->n);
        for (size_t k = 0; docs && k < t->n_doc; k++) all->doc[all->n_doc++] = all->n + t->doc[k];
        all->n += t->n;
    }
    if (docs) all->doc[all->n_doc] = all->n;
    all->bytes = x.bytes && more->bytes ? x.bytes + more->bytes : 0;
    all->count = (SourceCount){x.count.documents + more->count.documents, x.count.empty + more->count.empty,
                               x.count.bad + more->count.bad};
    return true;
}
