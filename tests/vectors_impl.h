/* tests/vectors_impl.h: lines of `file <tab> text as hex <tab> ids <tab> decoded text as hex`, as the
 * scripts of tests/golden/ write them, against tokenizer_open, _encode and _decode. */
#ifndef TEST_VECTORS_IMPL_H
#define TEST_VECTORS_IMPL_H
#include "data/data.h"
#include "tests/test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline size_t vectors_unhex(const char *s, char *out)
{
    size_t n = 0;
    for (; s[0] && s[1]; s += 2) {
        const char two[3] = {s[0], s[1], 0};
        out[n++] = (char)strtol(two, NULL, 16);
    }
    out[n] = 0;
    return n;
}

static inline void vectors_line(const Tokenizer *t, char *line, Arena *a)
{
    static char text[1 << 16];
    const char *in = strsep(&line, "\t"), *list = strsep(&line, "\t");
    TokenBuf got = {0};
    size_t n = vectors_unhex(in, text), k = 0, bytes;
    Err e = {0};
    ASSERT_MSG(tokenizer_encode(t, text, n, false, &got, a, &e), "%s: %s", tokenizer_path(t), e.msg);
    for (char *end; *list; list = end + strspn(end, " "), k++) {
        const long want = strtol(list, &end, 10);
        ASSERT_MSG(k < got.n && got.id[k] == want, "%s: `%s`: id %zu is %d, want %ld", tokenizer_path(t),
                   text, k, k < got.n ? got.id[k] : -1, want);
    }
    ASSERT_MSG(k == got.n, "%s: `%s`: %zu ids, want %zu", tokenizer_path(t), text, got.n, k);
    const char *back = tokenizer_decode(t, got.id, got.n, &bytes, a, &e);
    ASSERT_OK(e);
    n = vectors_unhex(line, text);
    ASSERT_MSG(bytes == n && memcmp(back, text, n) == 0, "%s: decoded `%s`, want `%s`", tokenizer_path(t),
               back, text);
}

static inline void vectors_run(const char *file, int want_lines)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Tokenizer *t = NULL;
    int lines = 0;
    const char *open = "";
    char *line, *all = file_read(&a, file, NULL, &e);
    ASSERT_OK(e);
    while ((line = strsep(&all, "\n")) && *line) {
        const char *path = strsep(&line, "\t");
        if (strcmp(path, open) != 0) t = tokenizer_open(open = path, &a, &e);
        ASSERT_OK(e);
        vectors_line(t, line, &a);
        lines++;
    }
    ASSERT_EQ(lines, want_lines);
    arena_free(&a);
}

/* Any bytes are encoded and decoded without an error; valid ones with the text's length back in the ids'
 * reach. */
static inline void vectors_any_bytes(const char *path, uint64_t seed)
{
    Arena a = {.name = "test"};
    Err e = {0};
    char text[200];
    Tokenizer *t = tokenizer_open(path, &a, &e);
    ASSERT_OK(e);
    for (uint32_t k = 0; k < 300; k++) {
        TokenBuf ids = {0};
        const RngKey key = {.seed = seed, .sample = k};
        const size_t n = rng_u32(key, 0) % sizeof text;
        for (size_t i = 0; i < n; i++) {
            const uint32_t r = rng_u32(key, (uint32_t)i + 1);
            text[i] = (char)(r >> 31 ? r : (r & 0x7F)); /* half ASCII, half anything */
        }
        ASSERT_MSG(tokenizer_encode(t, text, n, false, &ids, &a, &e), "%s: %s", path, e.msg);
        for (size_t i = 0; i < ids.n; i++) ASSERT(ids.id[i] >= 0 && ids.id[i] < tokenizer_vocab(t));
        ASSERT_MSG(tokenizer_decode(t, ids.id, ids.n, NULL, &a, &e), "%s: %s", path, e.msg);
    }
    arena_free(&a);
}
#endif
