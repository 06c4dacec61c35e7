/* data/pretokenize.c: the pre-tokenizers of tokenizer.json, streaming: each stage cuts the part it is given
 * and hands every cut to the next stage, the last one to the model. Nothing is stored but the part one
 * behaviour holds back. Definitions: the `pre_tokenizers` of Hugging Face tokenizers.
 */
#include "data/pipeline_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

/* Cuts on their way to the next stage: what a behaviour does with matches and what lies between. */
typedef struct Cutter {
    Run *r;
    size_t next; /* stage */
    const char *s;
    Cut cut;
    bool invert, first;
    size_t lo, hi;  /* held back, nothing when equal */
    bool was_match; /* of the cut before */
} Cutter;

static bool pass(Cutter *c, size_t lo, size_t hi)
{
    return hi == lo || pretokenize(c->r, c->next, c->s + lo, hi - lo, c->first && lo == 0);
}

static bool flush(Cutter *c)
{
    const size_t lo = c->lo, hi = c->hi;
    c->lo = c->hi;
    return pass(c, lo, hi);
}

/* [lo, hi) is the next cut, in order, without holes. */
static bool cut(Cutter *c, size_t lo, size_t hi, bool match)
{
    match ^= c->invert;
    const bool was = c->was_match;
    bool join;
    switch (c->cut) {
    case CUT_REMOVED: return match || pass(c, lo, hi);
    case CUT_ISOLATED: return pass(c, lo, hi);
    case CUT_MERGED_WITH_PREVIOUS: join = match && !was; break;
    case CUT_MERGED_WITH_NEXT: join = !match && was; break;
    case CUT_CONTIGUOUS:
    default: join = match == was; break;
    }
    c->was_match = match;
    if (!join && !flush(c)) return false;
    if (c->lo == c->hi) c->lo = lo;
    c->hi = hi;
    return true;
}

static bool split_regex(Cutter *c, const Regex *x, size_t n)
{
    size_t at = 0, from = 0, lo, hi;
    int got;
    while (from <= n && (got = regex_find(x, &c->r->m, c->s, n, from, &lo, &hi, c->r->e)) > 0) {
        if (lo > at && !cut(c, at, lo, false)) return false;
        if (!cut(c, lo, hi, true)) return false;
        at = hi;
        from = hi > lo ? hi : hi + (hi < n ? utf8_next(c->s + hi, n - hi, NULL) : 1);
    }
    if (c->r->e->code) return false;
    return (at == n || cut(c, at, n, false)) && flush(c);
}

static bool split_string(Cutter *c, TokSpan x, size_t n)
{
    size_t at = 0, i = 0;
    while (i + x.n <= n) {
        const char *hit = memchr(c->s + i, x.s[0], n - x.n - i + 1);
        if (!hit) break;
        i = (size_t)(hit - c->s);
        if (memcmp(hit, x.s, x.n) != 0) {
            i++;
            continue;
        }
        if (i > at && !cut(c, at, i, false)) return false;
        at = i += x.n;
        if (!cut(c, at - x.n, at, true)) return false;
    }
    return (at == n || cut(c, at, n, false)) && flush(c);
}

/* Each character of a class is a match. */
static bool split_chars(Cutter *c, bool (*is)(uint32_t), size_t n)
{
    size_t at = 0;
    uint32_t ch = 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_next(c->s + i, n - i, &ch);
        if (!is(ch)) continue;
        if (i > at && !cut(c, at, i, false)) return false;
        if (!cut(c, i, i + len, true)) return false;
        at = i + len;
    }
    return (at == n || cut(c, at, n, false)) && flush(c);
}

/* `\w+|[^\w\s]+`, the rest dropped. */
static bool words(Cutter *c, size_t n)
{
    int before = 0; /* 0 space, 1 word, 2 other */
    size_t at = 0;
    uint32_t ch = 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_next(c->s + i, n - i, &ch);
        const int kind = char_is_word(ch) ? 1 : char_is_space(ch) ? 0 : 2;
        if (kind != before) {
            if (before && !pass(c, at, i)) return false;
            at = i;
        }
        before = kind;
    }
    return !before || pass(c, at, n);
}

/* BertPreTokenizer: blanks dropped, each punctuation mark alone. */
static bool bert(Cutter *c, size_t n)
{
    size_t at = 0;
    uint32_t ch = 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_next(c->s + i, n - i, &ch);
        const bool space = char_is_space(ch), mark = !space && char_is_punctuation(ch);
        if (!space && !mark) continue;
        if (!pass(c, at, i) || (mark && !pass(c, i, i + len))) return false;
        at = i + len;
    }
    return pass(c, at, n);
}

static bool starts_with(const char *s, size_t n, TokSpan head)
{
    return n >= head.n && memcmp(s, head.s, head.n) == 0;
}

static bool metaspace(const PreTokenizer *p, Cutter *c, size_t n)
{
    Run *r = c->r;
    TokText t = {0};
    const TokSpan x = p->replacement;
    const bool blank = n > 0 && c->s[0] == ' ';
    bool ok = true;
    if (p->prepend != PREPEND_NEVER && (p->prepend == PREPEND_ALWAYS || c->first) && !blank &&
        !starts_with(c->s, n, x))
        ok = text_put(&t, x.s, x.n, &r->scratch, r->e);
    for (size_t i = 0; ok && i < n;) {
        const char *hit = memchr(c->s + i, ' ', n - i);
        const size_t run = hit ? (size_t)(hit - c->s) - i : n - i;
        ok = text_put(&t, c->s + i, run, &r->scratch, r->e) &&
             (!hit || text_put(&t, x.s, x.n, &r->scratch, r->e));
        i += run + (hit != NULL);
    }
    c->s = t.s;
    return ok && (p->split ? split_string(c, x, t.n) : pass(c, 0, t.n));
}

static bool byte_level(const PreTokenizer *p, Cutter *c, size_t n)
{
    TokText t = {0};
    if (p->add_prefix_space && c->s[0] != ' ') {
        if (!text_put(&t, " ", 1, &c->r->scratch, c->r->e) || !text_put(&t, c->s, n, &c->r->scratch, c->r->e))
            return false;
        c->s = t.s;
        n = t.n;
    }
    return p->regex ? split_regex(c, p->regex, n) : pass(c, 0, n);
}

/* Possessive repeats: the same cuts, faster. */
bool byte_level_pattern(PreTokenizer *x, Err *e)
{
    static const char fast[] =
        "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s++$|\\s+(?!\\S)|\\s+";
    x->pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    x->regex = regex_open(fast, sizeof fast - 1, REGEX_RUST, "ByteLevel", e);
    return x->regex != NULL;
}

bool pretokenize(Run *r, size_t stage, const char *s, size_t n, bool first)
{
    if (stage == r->p->n_pre)
        return r->p->model->encode(r->p->impl, s, n, &r->cache, r->out, r->steps, &r->scratch, r->a, r->e);
    const PreTokenizer *p = &r->p->pre[stage];
    Cutter c = {.r = r, .next = stage + 1, .s = s, .cut = p->cut, .invert = p->invert, .first = first};
    switch (p->kind) {
    case PRE_BYTE_LEVEL: c.cut = CUT_ISOLATED; return byte_level(p, &c, n);
    case PRE_SPLIT: return p->regex ? split_regex(&c, p->regex, n) : split_string(&c, p->string, n);
    case PRE_DIGITS:
        c.cut = p->individual ? CUT_ISOLATED : CUT_CONTIGUOUS;
        return split_chars(&c, char_is_number, n);
    case PRE_METASPACE: c.cut = CUT_MERGED_WITH_NEXT; return metaspace(p, &c, n);
    case PRE_WHITESPACE: return words(&c, n);
    case PRE_WHITESPACE_SPLIT: c.cut = CUT_REMOVED; return split_chars(&c, char_is_space, n);
    case PRE_PUNCTUATION: return split_chars(&c, char_is_punctuation, n);
    case PRE_BERT: return bert(&c, n);
    }
    return err_set(r->e, ERR_FAIL, "pre-tokenizer %d", (int)p->kind);
}
