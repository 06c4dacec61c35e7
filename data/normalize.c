/* data/normalize.c: the normalizers of tokenizer.json, one character stream to the next. Unicode forms and
 * cases are utf8proc's (Unicode 15). Definitions: the `normalizers` of Hugging Face tokenizers. */
#include "data/pipeline_impl.h"
#include "data/regex_impl.h"
#include "data/utf8_impl.h"
#include <string.h>
#include <utf8proc.h>

static bool put_char(TokText *out, uint32_t c, Arena *a, Err *e)
{
    char s[4];
    return text_put(out, s, utf8_put(s, c), a, e);
}

/* Every boundary in front of an ASCII character is one of the normal form: none composes to the left. So only
 * runs of other characters, with the ASCII one in front of them, go through the tables. */
static size_t plain_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && (unsigned char)s[i] < 0x80) i++;
    return i < n && i > 0 ? i - 1 : i;
}

static bool unicode_form(utf8proc_option_t option, const char *s, size_t n, TokText *out, Arena *a, Err *e)
{
    for (size_t i = 0; i < n;) {
        const size_t run = plain_run(s + i, n - i);
        if (!text_put(out, s + i, run, a, e)) return false;
        size_t end = i += run;
        if (end < n && (unsigned char)s[end] < 0x80) end++;
        while (end < n && (unsigned char)s[end] >= 0x80) end++;
        if (end == i) continue;
        /* U+FDFA: 18 from 3 bytes; without compatibility 3 from 2 at most. */
        const size_t room = (end - i) * (option & UTF8PROC_COMPAT ? 7 : 2) + 32;
        Arena tmp = {.name = "normal form"};
        utf8proc_int32_t *c = arena_alloc(&tmp, room * sizeof *c, e);
        if (!c) return false;
        utf8proc_ssize_t m = utf8proc_decompose((const utf8proc_uint8_t *)s + i, (utf8proc_ssize_t)(end - i),
                                                c, (utf8proc_ssize_t)room, option | UTF8PROC_STABLE);
        if (m >= 0 && m <= (utf8proc_ssize_t)room)
            m = utf8proc_normalize_utf32(c, m, option | UTF8PROC_STABLE);
        bool ok = m >= 0 || err_set(e, ERR_FAIL, "normalizer: %s", utf8proc_errmsg(m));
        for (utf8proc_ssize_t k = 0; ok && k < m; k++) ok = put_char(out, (uint32_t)c[k], a, e);
        arena_free(&tmp);
        if (!ok) return false;
        i = end;
    }
    return true;
}

/* What a one-character rule makes of c: 0, 1 or more characters in to (4,). */
typedef size_t CharRule(const Normalizer *n, uint32_t c, uint32_t *to);

static bool each_char(const Normalizer *n, CharRule *rule, const char *s, size_t bytes, TokText *out,
                      Arena *a, Err *e)
{
    uint32_t c = 0, to[4];
    for (size_t i = 0; i < bytes;) {
        i += utf8_next(s + i, bytes - i, &c);
        const size_t m = rule(n, c, to);
        for (size_t k = 0; k < m; k++)
            if (!put_char(out, to[k], a, e)) return false;
    }
    return true;
}

static size_t lower(const Normalizer *n, uint32_t c, uint32_t *to)
{
    (void)n;
    to[0] = c == 0x130 ? 'i' : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
    to[1] = 0x307;
    return c == 0x130 ? 2 : 1;
}

static utf8proc_category_t category(uint32_t c) { return utf8proc_category((utf8proc_int32_t)c); }

static size_t no_marks(const Normalizer *n, uint32_t c, uint32_t *to)
{
    const utf8proc_category_t k = category(c);
    const bool mark = k == UTF8PROC_CATEGORY_MN ||
                      (n->kind != NORM_BERT && (k == UTF8PROC_CATEGORY_MC || k == UTF8PROC_CATEGORY_ME));
    to[0] = c;
    return !mark;
}

static size_t nmt(const Normalizer *n, uint32_t c, uint32_t *to)
{
    (void)n;
    const bool gone = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F ||
                      c == 0x9F;
    const bool space = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    to[0] = space ? ' ' : c;
    return !gone;
}

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) ||
           (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* BertNormalizer's clean_text and handle_chinese_chars. */
static size_t bert(const Normalizer *n, uint32_t c, uint32_t *to)
{
    const bool blank = c == '\t' || c == '\n' || c == '\r' || char_is_space(c);
    if (n->clean_text) {
        const utf8proc_category_t k = category(c);
        const bool control = k == UTF8PROC_CATEGORY_CC || k == UTF8PROC_CATEGORY_CF ||
                             k == UTF8PROC_CATEGORY_CO || k == UTF8PROC_CATEGORY_CS;
        const bool kept = c == '\t' || c == '\n' || c == '\r';
        if (c == 0 || c == 0xFFFD || (control && !kept)) return 0;
        if (blank) c = ' ';
    }
    const bool chinese = n->chinese && is_chinese(c);
    to[0] = chinese ? ' ' : c;
    to[1] = c;
    to[2] = ' ';
    return chinese ? 3 : 1;
}

static bool bert_apply(const Normalizer *n, const char *s, size_t bytes, TokText *out, Arena *a, Err *e)
{
    TokText one = {0}, two = {0}, three = {0};
    const TokText *now = &one;
    if (!each_char(n, bert, s, bytes, &one, a, e)) return false;
    if (n->strip_accents) {
        if (!unicode_form(UTF8PROC_DECOMPOSE, one.s, one.n, &two, a, e)) return false;
        if (!each_char(n, no_marks, two.s, two.n, &three, a, e)) return false;
        now = &three;
    }
    return n->lower ? each_char(n, lower, now->s, now->n, out, a, e) : text_put(out, now->s, now->n, a, e);
}

static bool strip(const Normalizer *n, const char *s, size_t bytes, TokText *out, Arena *a, Err *e)
{
    uint32_t c = 0;
    size_t lo = 0, hi = bytes, len;
    while (n->left && lo < hi && (len = utf8_next(s + lo, hi - lo, &c), char_is_space(c))) lo += len;
    while (n->right && lo < hi && (len = utf8_last(s + lo, hi - lo, &c), char_is_space(c))) hi -= len;
    return text_put(out, s + lo, hi - lo, a, e);
}

static bool replace(const Normalizer *n, const char *s, size_t bytes, TokText *out, Arena *a, Err *e)
{
    Matcher m = {0};
    size_t from = 0, at = 0, lo, hi;
    int got;
    bool ok = true;
    while (ok && from <= bytes && (got = regex_find(n->regex, &m, s, bytes, from, &lo, &hi, e)) > 0) {
        ok = text_put(out, s + at, lo - at, a, e) && text_put(out, n->to.s, n->to.n, a, e);
        at = hi;
        from = hi > lo ? hi : hi + (hi < bytes ? utf8_next(s + hi, bytes - hi, NULL) : 1);
    }
    matcher_close(&m);
    return ok && !e->code && text_put(out, s + at, bytes - at, a, e);
}

/* A one-byte pattern, the common case: " " -> U+2581. */
static bool replace_byte(const Normalizer *n, const char *s, size_t bytes, TokText *out, Arena *a, Err *e)
{
    for (;;) {
        const char *hit = bytes ? memchr(s, n->from.s[0], bytes) : NULL;
        const size_t run = hit ? (size_t)(hit - s) : bytes;
        if (!text_put(out, s, run, a, e)) return false;
        if (!hit) return true;
        if (!text_put(out, n->to.s, n->to.n, a, e)) return false;
        s = hit + 1;
        bytes -= run + 1;
    }
}

bool normalizer_apply(const Normalizer *n, const char *s, size_t bytes, TokText *out, Arena *a, Err *e)
{
    switch (n->kind) {
    case NORM_NFC: return unicode_form(UTF8PROC_COMPOSE, s, bytes, out, a, e);
    case NORM_NFD: return unicode_form(UTF8PROC_DECOMPOSE, s, bytes, out, a, e);
    case NORM_NFKC: return unicode_form(UTF8PROC_COMPOSE | UTF8PROC_COMPAT, s, bytes, out, a, e);
    case NORM_NFKD: return unicode_form(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, s, bytes, out, a, e);
    case NORM_LOWERCASE: return each_char(n, lower, s, bytes, out, a, e);
    case NORM_STRIP_ACCENTS: return each_char(n, no_marks, s, bytes, out, a, e);
    case NORM_NMT: return each_char(n, nmt, s, bytes, out, a, e);
    case NORM_BERT: return bert_apply(n, s, bytes, out, a, e);
    case NORM_STRIP: return strip(n, s, bytes, out, a, e);
    case NORM_PRECOMPILED: return precompiled_apply(n->map, s, bytes, out, a, e);
    case NORM_PREPEND:
        return bytes == 0 || (text_put(out, n->to.s, n->to.n, a, e) && text_put(out, s, bytes, a, e));
    case NORM_REPLACE:
        return n->from.s && n->from.n == 1 ? replace_byte(n, s, bytes, out, a, e)
                                           : replace(n, s, bytes, out, a, e);
    }
    return err_set(e, ERR_FAIL, "normalizer %d", (int)n->kind);
}
