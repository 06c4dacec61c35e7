/* tests/test_tokenizer_train.c: learning a byte-level BPE: the merges and the vocabulary of the reference,
 * the same file whatever order words come in, a file that reads back. */
#define _GNU_SOURCE /* memccpy */
#include "data/train_impl.h"
#include "tests/test.h"
#include "data/pipeline_impl.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DATA "tests/data/bpe-training/"

static const char *const corpus[] = {DATA "corpus.en"};
static const char *const end[] = {"<|endoftext|>"};

static TokText letters(TokSpan x, Arena *a)
{
    Err e = {0};
    TokText t = {.s = arena_alloc(a, 2 * x.n + 1, &e)};
    t.n = byte_level_letters(x.s, x.n, t.s);
    return t;
}

TEST(tokenizer_train, merges_of_the_reference)
{
    Arena a = {.name = "test"};
    Err e = {0};
    BpeTrained t;
    size_t n = 0;
    const BpeTraining o = {corpus, 1, end, 1, "gpt2", 500, 0};
    ASSERT(bpe_train(&t, &o, &a, &e));
    char *line, *file = file_read(&a, DATA "reference-merges.txt", NULL, &e);
    while ((line = strsep(&file, "\n")) && *line) {
        const TokText l = letters(t.left[n], &a), r = letters(t.right[n], &a);
        char got[256];
        snprintf(got, sizeof got, "%.*s %.*s", (int)l.n, l.s, (int)r.n, r.s);
        ASSERT_MSG(strcmp(got, line) == 0, "merge %zu is `%s`, want `%s`", n, got, line);
        n++;
    }
    ASSERT_EQ(n, t.n_merge);
    ASSERT_EQ(n, 243);
    arena_free(&a);
}

TEST(tokenizer_train, file_of_the_reference)
{
    Arena a = {.name = "test"};
    Err e = {0};
    char path[64];
    long tokens;
    const BpeTraining o = {corpus, 1, end, 1, "gpt2", 500, 0};
    snprintf(path, sizeof path, "build/tmp/train-%d.json", (int)getpid());
    ASSERT(dir_make("build/tmp", &e) && tokenizer_train(path, &o, &tokens, &a, &e));
    ASSERT_EQ(tokens, 500);
    json_t *got = json_load_file(path, 0, NULL), *want = json_load_file(DATA "reference-vocab.json", 0, NULL);
    ASSERT(json_equal(json_object_get(json_object_get(got, "model"), "vocab"), want));
    json_decref(got);
    json_decref(want);
    const Tokenizer *t = tokenizer_open(path, &a, &e);
    ASSERT_OK(e);
    ASSERT_EQ(tokenizer_vocab(t), 500);
    ASSERT_EQ(tokenizer_bos(t), 0);
    size_t n, bytes;
    const char *text = file_read(&a, DATA "corpus.en", &n, &e);
    TokenBuf ids = {0};
    ASSERT(tokenizer_encode(t, text, n, false, &ids, &a, &e));
    const char *back = tokenizer_decode(t, ids.id, ids.n, &bytes, &a, &e);
    ASSERT(bytes == n && memcmp(back, text, n) == 0);
    ASSERT(ids.n < n / 2);
    unlink(path);
    arena_free(&a);
}

/* The slow definition: count all pairs anew for each merge. */
TEST(tokenizer_train, as_by_definition)
{
    static const char text[] =
        "aaaa abab abba bbbb aab baa abcabc cab bca aaabbb aaaaaaa <x> ababab ccc cbcb aab";
    Arena a = {.name = "test"};
    Err e = {0};
    char path[64];
    snprintf(path, sizeof path, "build/tmp/train-%d.txt", (int)getpid());
    ASSERT(dir_make("build/tmp", &e) && file_write_atomic(path, text, strlen(text), &e));
    const char *const paths[] = {path}, *const special[] = {"<x>"};
    const BpeTraining o = {paths, 1, special, 1, "gpt2", 300, 0};
    BpeTrained t;
    ASSERT(bpe_train(&t, &o, &a, &e));
    /* words as lists of pieces, cut at the blanks (a blank goes with the word behind it) */
    char word[40][16][16];
    int len[40], words = 0;
    for (const char *s = text; *s;) {
        size_t n = *s == ' ';
        while (s[n] && s[n] != ' ') n++;
        if (strncmp(s, " <x>", 4) == 0) s += 4;
        else {
            len[words] = 0;
            for (size_t i = 0; i < n; i++) snprintf(word[words][len[words]++], 16, "%c", s[i]);
            words++;
            s += n;
        }
        if (strncmp(s, " <x>", 4) == 0) {
            /* the blank in front of the special token is a word of its own */
            len[words] = 1;
            snprintf(word[words++][0], 16, " ");
            s += 4;
        }
    }
    for (size_t m = 0; m < t.n_merge; m++) {
        char l[16] = "", r[16] = "";
        int best = 0;
        for (int w = 0; w < words; w++)
            for (int k = 0; k + 1 < len[w]; k++) {
                int count = 0;
                const char *x = word[w][k], *y = word[w][k + 1];
                for (int v = 0; v < words; v++)
                    for (int j = 0; j + 1 < len[v]; j++)
                        count += !strcmp(word[v][j], x) && !strcmp(word[v][j + 1], y);
                const int order = strcmp(x, l) ? strcmp(x, l) : strcmp(y, r);
                if (count < best || (count == best && order <= 0)) continue;
                best = count;
                memcpy(l, x, 16);
                memcpy(r, y, 16);
            }
        ASSERT_MSG(t.left[m].n == strlen(l) && !memcmp(t.left[m].s, l, strlen(l)) &&
                       t.right[m].n == strlen(r) && !memcmp(t.right[m].s, r, strlen(r)),
                   "merge %zu is `%.*s` `%.*s`, want `%s` `%s`", m, (int)t.left[m].n, t.left[m].s,
                   (int)t.right[m].n, t.right[m].s, l, r);
        for (int w = 0; w < words; w++)
            for (int k = 0; k + 1 < len[w]; k++) {
                if (strcmp(word[w][k], l) != 0 || strcmp(word[w][k + 1], r) != 0) continue;
                memccpy(word[w][k] + strlen(word[w][k]), r, 0, 16 - strlen(word[w][k]));
                memmove(word[w][k + 1], word[w][k + 2], (size_t)(len[w] - k - 2) * 16);
                len[w]--;
            }
    }
    ASSERT(t.n_merge > 25);
    unlink(path);
    arena_free(&a);
}

TEST(tokenizer_train, refused)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const BpeTraining small = {corpus, 1, end, 1, "gpt2", 200, 0},
                      family = {corpus, 1, end, 1, "gpt9", 300, 0};
    ASSERT(!tokenizer_train("build/tmp/x.json", &small, NULL, &a, &e));
    ASSERT_CONTAINS(e.msg, "257 (bytes and specials)");
    e = (Err){0};
    ASSERT(!tokenizer_train("build/tmp/x.json", &family, NULL, &a, &e));
    ASSERT_CONTAINS(e.msg, "gpt9");
    arena_free(&a);
}
