/* data/decode.c: ids -> text by the decoders of tokenizer.json, each a step from a list of pieces to a list
 * of pieces, as the `decoders` of Hugging Face tokenizers; specials are dropped first. Byte-level pieces
 * are raw bytes already. The text is what the bytes are: malformed UTF-8 is given back, not replaced.
 */
#include "data/pipeline_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

typedef struct Pieces {
    TokSpan *v;
    size_t n;
} Pieces;
typedef struct Work {
    const Pipeline *p;
    Arena a;
    Err *e;
} Work;

/* text with every `from` made `to`. */
static bool replaced(Work *w, TokSpan *x, TokSpan from, TokSpan to)
{
    TokText t = {0};
    size_t at = 0;
    for (size_t i = 0; from.n && i + from.n <= x->n;) {
        if (memcmp(x->s + i, from.s, from.n) != 0) {
            i++;
            continue;
        }
        if (!text_put(&t, x->s + at, i - at, &w->a, w->e) || !text_put(&t, to.s, to.n, &w->a, w->e))
            return false;
        at = i += from.n;
    }
    if (at == 0) return true;
    if (!text_put(&t, x->s + at, x->n - at, &w->a, w->e)) return false;
    *x = (TokSpan){t.s, t.n};
    return true;
}

static bool replaced_regex(Work *w, TokSpan *x, const Decoder *d)
{
    const Normalizer n = {.kind = NORM_REPLACE, .regex = d->regex, .to = d->to};
    TokText t = {0};
    if (utf8_valid(x->s, x->n) < x->n) return true;
    if (!normalizer_apply(&n, x->s, x->n, &t, &w->a, w->e)) return false;
    *x = (TokSpan){t.s, t.n};
    return true;
}

static bool fuse(Work *w, Pieces *p)
{
    TokText t = {0};
    for (size_t i = 0; i < p->n; i++)
        if (!text_put(&t, p->v[i].s, p->v[i].n, &w->a, w->e)) return false;
    if (p->n == 0) return true;
    p->v[0] = (TokSpan){t.s, t.n};
    p->n = 1;
    return true;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte of a piece <0xHH>, -1 = another piece. */
static int byte_of(TokSpan x)
{
    if (x.n != 6 || memcmp(x.s, "<0x", 3) != 0 || x.s[5] != '>') return -1;
    const int hi = hex_digit(x.s[3]), lo = hex_digit(x.s[4]);
    return hi < 0 || lo < 0 ? -1 : hi * 16 + lo;
}

/* A run of byte pieces is its text, or U+FFFD for each byte when it is not UTF-8. */
static bool byte_fallback(Work *w, Pieces *p)
{
    size_t m = 0;
    for (size_t i = 0; i < p->n;) {
        size_t n = 0;
        while (i + n < p->n && byte_of(p->v[i + n]) >= 0) n++;
        if (n == 0) {
            p->v[m++] = p->v[i++];
            continue;
        }
        char *s = arena_alloc(&w->a, 3 * n + 1, w->e);
        if (!s) return false;
        for (size_t k = 0; k < n; k++) s[k] = (char)byte_of(p->v[i + k]);
        const bool good = utf8_valid(s, n) == n;
        for (size_t k = 0; !good && k < n; k++) memcpy(s + 3 * k, "\xEF\xBF\xBD", 3);
        p->v[m++] = (TokSpan){s, good ? n : 3 * n};
        i += n;
    }
    p->n = m;
    return true;
}

static void strip(TokSpan *x, const Decoder *d)
{
    const size_t n = d->from.n;
    for (long i = 0; i < d->start && x->n >= n && memcmp(x->s, d->from.s, n) == 0; i++) {
        x->s += n;
        x->n -= n;
    }
    for (long i = 0; i < d->stop && x->n >= n && memcmp(x->s + x->n - n, d->from.s, n) == 0; i++) x->n -= n;
}

static bool cleanup(Work *w, TokSpan *x)
{
    static const char *const rule[][2] = {
        {" .", "."},   {" ?", "?"},           {" !", "!"},   {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
        {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof rule / sizeof *rule; i++)
        if (!replaced(w, x, (TokSpan){rule[i][0], strlen(rule[i][0])},
                      (TokSpan){rule[i][1], strlen(rule[i][1])}))
            return false;
    return true;
}

static bool word_piece(Work *w, TokSpan *x, const Decoder *d, bool first)
{
    if (!first && x->n >= d->from.n && memcmp(x->s, d->from.s, d->from.n) == 0) {
        x->s += d->from.n;
        x->n -= d->from.n;
    } else if (!first) {
        char *s = arena_alloc(&w->a, x->n + 2, w->e);
        if (!s) return false;
        s[0] = ' ';
        memcpy(s + 1, x->s, x->n);
        *x = (TokSpan){s, x->n + 1};
    }
    return !d->cleanup || cleanup(w, x);
}

static bool decoder(Work *w, const Decoder *d, Pieces *p)
{
    const TokSpan none = {"", 0}, space = {" ", 1};
    bool ok = true;
    if (d->kind == DEC_BYTE_LEVEL || d->kind == DEC_FUSE) return fuse(w, p);
    if (d->kind == DEC_BYTE_FALLBACK) return byte_fallback(w, p);
    for (size_t i = 0; ok && i < p->n; i++) {
        TokSpan *x = &p->v[i];
        const bool drop = i == 0 && d->prepend != PREPEND_NEVER;
        if (d->kind == DEC_STRIP) strip(x, d);
        if (d->kind == DEC_REPLACE) ok = d->regex ? replaced_regex(w, x, d) : replaced(w, x, d->from, d->to);
        if (d->kind == DEC_METASPACE) ok = replaced(w, x, d->from, drop ? none : space);
        if (d->kind == DEC_WORD_PIECE) ok = word_piece(w, x, d, i == 0);
        if (d->kind == DEC_BPE) ok = replaced(w, x, d->from, i + 1 == p->n ? none : space);
    }
    return ok;
}

/* The piece of id as the decoders get it. ByteLevel reads an added token's letters as bytes too. */
static bool piece_of(Work *w, int32_t id, TokSpan *x)
{
    const Pipeline *p = w->p;
    const int32_t k = p->added_of[id];
    *x = k >= 0 ? p->added[k].text : p->model->piece(p->impl, id);
    if (!x->s) *x = (TokSpan){"", 0};
    if (k < 0) return true;
    for (size_t i = 0; i < p->n_dec; i++) {
        if (p->dec[i].kind != DEC_BYTE_LEVEL) continue;
        char *s = arena_alloc(&w->a, x->n + 1, w->e);
        size_t n;
        if (!s) return false;
        if (byte_level_bytes(x->s, x->n, s, &n)) *x = (TokSpan){s, n};
    }
    return true;
}

char *pipeline_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e)
{
    Work w = {.p = t->impl, .a = {.name = "decoding"}, .e = e};
    Pieces v = {.v = arena_alloc(&w.a, (n + 1) * sizeof *v.v, e)};
    bool ok = v.v != NULL;
    for (size_t i = 0; ok && i < n; i++) {
        const int32_t k = w.p->added_of[ids[i]];
        const bool hole = k < 0 && (ids[i] >= w.p->n_model || !w.p->model->piece(w.p->impl, ids[i]).s);
        if (!hole && (k < 0 || !w.p->added[k].special)) ok = piece_of(&w, ids[i], &v.v[v.n++]);
    }
    for (size_t i = 0; ok && i < w.p->n_dec; i++) ok = decoder(&w, &w.p->dec[i], &v);
    TokText out = {0};
    for (size_t i = 0; ok && i < v.n; i++)
        ok = (i == 0 || w.p->has_decoder || text_put(&out, " ", 1, a, e)) &&
             text_put(&out, v.v[i].s, v.v[i].n, a, e);
    ok = ok && text_put(&out, "", 1, a, e);
    arena_free(&w.a);
    if (bytes && ok) *bytes = out.n - 1;
    return ok ? out.s : NULL;
}

/* ---- streaming ----------------------------------------------------------------------------------------- */

/* What a piece adds somewhere inside a text: the decoders on it between two empty ones. */
static bool plain_of(Work *w, int32_t id, TokSpan *out, Arena *a)
{
    TokSpan v[3] = {{"", 0}, {"", 0}, {"", 0}};
    const int32_t k = w->p->added_of[id];
    *out = (TokSpan){"", 0};
    if (k >= 0 && w->p->added[k].special) return true;
    if (!piece_of(w, id, &v[1])) return false;
    for (size_t i = 0; i < w->p->n_dec; i++) {
        const Decoder *d = &w->p->dec[i];
        const int byte = d->kind == DEC_BYTE_FALLBACK ? byte_of(v[1]) : -1;
        Pieces p = {v, 3};
        if (byte >= 0) {
            *out = (TokSpan){token_byte_text[byte], 1};
            return true;
        }
        if (d->kind == DEC_FUSE || d->kind == DEC_BYTE_LEVEL || d->kind == DEC_BYTE_FALLBACK) continue;
        if (d->kind == DEC_STRIP && i > 0) continue;
        if (!decoder(w, d, &p)) return false;
    }
    *out = v[1];
    if (w->p->has_decoder && k < 0 && v[1].s == w->p->model->piece(w->p->impl, id).s) return true;
    char *s = arena_alloc(a, v[1].n + 2, w->e);
    if (!s) return false;
    s[0] = ' ';
    memcpy(s + !w->p->has_decoder, v[1].s, v[1].n);
    *out = (TokSpan){s, v[1].n + !w->p->has_decoder};
    return true;
}

bool pipeline_plain(const Tokenizer *t, Pipeline *p, Arena *a, Err *e)
{
    Work w = {.p = p, .a = {.name = "streaming texts"}, .e = e};
    bool ok = (p->plain = arena_alloc(a, ((size_t)t->vocab + 1) * sizeof *p->plain, e)) != NULL;
    p->strip_first = !p->has_decoder;
    for (size_t i = 0; i < p->n_dec; i++) {
        const Decoder *d = &p->dec[i];
        if (d->kind == DEC_WORD_PIECE || (d->kind == DEC_METASPACE && d->prepend != PREPEND_NEVER) ||
            (d->kind == DEC_STRIP && d->start > 0 && d->from.n == 1 && d->from.s[0] == ' '))
            p->strip_first = true;
    }
    for (int32_t id = 0; ok && id < t->vocab; id++) {
        const ArenaMark mark = arena_mark(&w.a);
        ok = plain_of(&w, id, &p->plain[id], a);
        arena_release(&w.a, mark);
    }
    arena_free(&w.a);
    return ok;
}

const char *pipeline_piece(const Tokenizer *t, int prev, int id, size_t *bytes)
{
    const Pipeline *p = t->impl;
    const TokSpan x = p->plain[id];
    const bool cut = p->strip_first && (prev < 0 || prev == t->bos) && x.n > 0 && x.s[0] == ' ';
    *bytes = x.n - cut;
    return x.s + cut;
}
