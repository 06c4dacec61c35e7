/* tests/test_tokenizer_stages.c: each normalizer, pre-tokenizer and decoder of tokenizer.json, and the
 * families of data/families.def, against what Hugging Face tokenizers makes of the same texts
 * (tests/golden/make_tokenizers.py); patterns that are refused. */
#include "data/tokenizer_json_impl.h"
#include "tests/test.h"
#include <stdlib.h>
#include <string.h>

/* A model that writes down the parts it is given, in hex. */
static TokText seen;

static void put_hex(TokText *to, const char *s, size_t n, Arena *a, Err *e)
{
    static const char digit[] = "0123456789abcdef";
    for (size_t i = 0; i < n; i++) {
        const unsigned char b = (unsigned char)s[i];
        const char two[2] = {digit[b >> 4], digit[b & 15]};
        ASSERT(text_put(to, two, 2, a, e));
    }
}

static bool record(const void *impl, const char *s, size_t n, void **cache, TokenBuf *out, uint64_t *steps,
                   Arena *scratch, Arena *a, Err *e)
{
    (void)impl, (void)cache, (void)out, (void)steps, (void)scratch;
    if (seen.n) text_put(&seen, ",", 1, a, e);
    put_hex(&seen, s, n, a, e);
    return !e->code;
}

/* Pieces of the decoder's input. */
static TokSpan piece[64];
static TokSpan piece_of(const void *impl, int32_t id)
{
    (void)impl;
    return piece[id];
}
static const PieceModel recorder = {.kind = "recorder", .encode = record, .piece = piece_of};

static size_t unhex(const char *s, char *out)
{
    size_t n = 0;
    for (; s[2 * n] && s[2 * n] != ','; n++) {
        const char two[3] = {s[2 * n], s[2 * n + 1], 0};
        out[n] = (char)strtol(two, NULL, 16);
    }
    return n;
}

static void cut(Pipeline *p, const char *text, size_t n, Arena *a, Err *e)
{
    TokSpan t;
    Run r = {.p = p, .a = a, .scratch = {.name = "test"}, .e = e};
    ASSERT(pipeline_normalize(p, text, n, &t, a, e));
    seen = (TokText){0};
    ASSERT(t.n == 0 || pretokenize(&r, 0, t.s, t.n, true));
    matcher_close(&r.m);
    arena_free(&r.scratch);
}

static void normal(Pipeline *p, const char *text, size_t n, Arena *a, Err *e)
{
    TokSpan t;
    ASSERT(pipeline_normalize(p, text, n, &t, a, e));
    seen = (TokText){0};
    put_hex(&seen, t.s, t.n, a, e);
}

static void decoded(Pipeline *p, const char *list, Arena *a, Err *e)
{
    Tokenizer t = {.impl = p, .bos = -1};
    int32_t ids[64], none[64];
    size_t n = 0, bytes;
    while (list) {
        char *s = arena_alloc(a, strlen(list), e), raw[64];
        size_t m = unhex(list, s), k;
        if (p->n_dec == 1 && p->dec[0].kind == DEC_BYTE_LEVEL && byte_level_bytes(s, m, raw, &k))
            memcpy(s, raw, m = k);
        piece[n] = (TokSpan){s, m};
        ids[n] = (int32_t)n;
        none[n++] = -1;
        list = strchr(list, ',');
        list += list != NULL;
    }
    p->added_of = none;
    p->n_model = (int32_t)n;
    const char *s = pipeline_decode(&t, ids, n, &bytes, a, e);
    ASSERT_OK(*e);
    seen = (TokText){0};
    put_hex(&seen, s, bytes, a, e);
}

static bool stage(Pipeline *p, const char *kind, const char *what, Arena *a, Err *e)
{
    const JsonSource s = {"stages.txt", a, e};
    if (strcmp(kind, "family") == 0) return pipeline_preset(p, what, a, e);
    json_t *o = json_loads(what, JSON_ALLOW_NUL, NULL);
    ASSERT(o);
    const bool ok = *kind == 'p'   ? pretokenizers_from_json(p, o, &s)
                    : *kind == 'n' ? normalizers_from_json(p, o, &s)
                                   : decoders_from_json(p, o, &s);
    json_decref(o);
    return ok;
}

TEST(tokenizer_stages, as_in_the_reference)
{
    Arena a = {.name = "test"}, one = {.name = "line"};
    Err e = {0};
    char *line, *file = file_read(&a, "tests/data/tokenizers/stages.txt", NULL, &e), text[4096];
    const char *kind_now = "", *what_now = "";
    Pipeline p = {0};
    int lines = 0;
    ASSERT_OK(e);
    while ((line = strsep(&file, "\n")) && *line) {
        const char *kind = strsep(&line, "\t"), *what = strsep(&line, "\t"), *in = strsep(&line, "\t");
        if (strcmp(what, what_now) != 0 || strcmp(kind, kind_now) != 0) {
            p = (Pipeline){.model = &recorder};
            ASSERT_MSG(stage(&p, kind, what, &a, &e), "%s %s: %s", kind, what, e.msg);
        }
        kind_now = kind;
        what_now = what;
        if (*kind == 'd') decoded(&p, in, &one, &e);
        else (*kind == 'n' ? normal : cut)(&p, text, unhex(in, text), &one, &e);
        ASSERT_OK(e);
        ASSERT(text_put(&seen, "", 1, &one, &e));
        ASSERT_MSG(strcmp(seen.s, line) == 0, "%s %s\n  of %s\n  is %s\nwant %s", kind, what, in, seen.s,
                   line);
        arena_free(&one);
        lines++;
    }
    ASSERT(lines > 1500);
    arena_free(&a);
}

static void expect_pattern(const char *pattern, RegexDialect dialect, const char *want)
{
    Arena a = {.name = "test"};
    Err e = {0};
    TokText t = {0};
    const bool ok = regex_translate(&t, pattern, strlen(pattern), dialect, "test", &a, &e);
    if (*want == '!') {
        ASSERT_MSG(!ok && strstr(e.msg, want + 1), "`%s`: `%s`, want `%s`", pattern, ok ? "accepted" : e.msg,
                   want + 1);
    } else {
        ASSERT_OK(e);
        ASSERT(text_put(&t, "", 1, &a, &e));
        ASSERT_STR(t.s, want);
    }
    arena_free(&a);
}

TEST(tokenizer_stages, patterns)
{
    expect_pattern("a{2,3}+", REGEX_ONIGURUMA, "(?:a{2,3})+");
    expect_pattern("a{2,3}+", REGEX_RUST, "a{2,3}+");
    expect_pattern("(?:ab|[cd]){,2}+", REGEX_ONIGURUMA, "(?:(?:ab|[cd]){0,2})+");
    expect_pattern("\\p{Han}\\p{^L}", REGEX_ONIGURUMA, "\\p{sc:Han}\\P{L}");
    expect_pattern("^a$", REGEX_ONIGURUMA, "^a$");
    expect_pattern("^a$", REGEX_RUST, "\\Aa\\z");
    expect_pattern("\\u00e9\\h", REGEX_ONIGURUMA, "\\x{00e9}[0-9a-fA-F]");
    expect_pattern("\\bx", REGEX_ONIGURUMA, "!\\b");
    expect_pattern("(a)\\1", REGEX_ONIGURUMA, "!\\1");
    expect_pattern("[a&&b]", REGEX_ONIGURUMA, "!class operation");
    expect_pattern("[[:alpha:]]", REGEX_ONIGURUMA, "!a class inside a class");
    expect_pattern("(?m:.)", REGEX_ONIGURUMA, "!a group");
    expect_pattern("(?i:ss)", REGEX_ONIGURUMA, "!fold in pairs");
    expect_pattern("(?i:é)", REGEX_ONIGURUMA, "!beyond ASCII");
    expect_pattern("a)", REGEX_ONIGURUMA, "!`)` without `(`");
    expect_pattern("(a", REGEX_ONIGURUMA, "!`(` without `)`");
    expect_pattern("[a", REGEX_ONIGURUMA, "!a class without `]`");
    expect_pattern("a{2}?", REGEX_ONIGURUMA, "!{n}?");
}
