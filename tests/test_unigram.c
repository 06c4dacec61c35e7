/* tests/test_unigram.c: unigram models and character maps against SentencePiece and Hugging Face tokenizers
 * (vectors by tests/golden/make_unigram.py, a whole book by its hash), and damaged character maps. */
#include "data/spm_impl.h"
#include "tests/vectors_impl.h"

#define BOOK "tests/data/unigram/botchan"

TEST(unigram, vectors) { vectors_run("tests/data/unigram/vectors.txt", 658); }

/* The ids of these 91,227 tokens have the SHA-256 37e9f50c7557... of the shared golden.json. Ties between
 * paths are decided by SentencePiece's rounding to float, which this book has. */
TEST(unigram, whole_book)
{
    Arena a = {.name = "test"};
    Err e = {0};
    TokenBuf ids = {0};
    char *line, *book = file_read(&a, BOOK ".txt", NULL, &e), hex[33];
    const Tokenizer *t = tokenizer_open(BOOK ".model", &a, &e);
    ASSERT_OK(e);
    while ((line = strsep(&book, "\n"))) {
        const size_t n = strcspn(line, "\r");
        ASSERT(tokenizer_encode(t, line, n, false, &ids, &a, &e));
    }
    ASSERT_EQ(ids.n, 91227);
    hash128_hex(hex, ids.id, 4 * ids.n);
    ASSERT_STR(hex, "b04a6a81b22c44aa3bad4380fa015eac");
    arena_free(&a);
}

/* The book as one text, so that paths are handed out in parts while the score goes on: SentencePiece's
 * ids. */
TEST(unigram, whole_book_as_one_text)
{
    Arena a = {.name = "test"};
    Err e = {0};
    TokenBuf ids = {0};
    size_t n;
    char hex[33];
    const char *book = file_read(&a, BOOK ".txt", &n, &e);
    const Tokenizer *t = tokenizer_open(BOOK ".model", &a, &e);
    ASSERT_OK(e);
    ASSERT(tokenizer_encode(t, book, n, false, &ids, &a, &e));
    ASSERT_EQ(ids.n, 104466);
    hash128_hex(hex, ids.id, 4 * ids.n);
    ASSERT_STR(hex, "5fc593c1628ade593108d30591ce8e30");
    arena_free(&a);
}

/* A long text is handed out in parts; its ids are those of one path, whatever the parts. */
TEST(unigram, long_text_needs_little_memory)
{
    enum { N = 1 << 20 };
    static char text[N];
    Arena a = {.name = "test"}, tmp = {.name = "test"};
    Err e = {0};
    const Tokenizer *t = tokenizer_open(BOOK ".model", &a, &e);
    const Spm *m = t ? t->impl : NULL;
    ASSERT_OK(e);
    TokenBuf ids = {0};
    uint64_t steps = 0;
    for (size_t i = 0; i < N; i++) text[i] = "the cat, "[i % 9];
    ASSERT(spm_encode(m, text, N, &ids, &steps, &tmp, &e));
    ASSERT(ids.n > N / 9 && steps < 20ull * N);
    TokenBuf again = {0};
    ASSERT(spm_encode(m, text, 9000, &again, NULL, &tmp, &e));
    for (size_t i = 0; i + 8 < again.n; i++) ASSERT_EQ(ids.id[i], again.id[i]);
    arena_free(&tmp);
    arena_free(&a);
}

TEST(unigram, any_bytes)
{
    static const char *const path[] = {"botchan.model", "fallback.model", "keep.model",
                                       "bpe.model",     "plain-json",     "fallback-json"};
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        char full[64];
        snprintf(full, sizeof full, "tests/data/unigram/%s", path[i]);
        vectors_any_bytes(full, i);
    }
}

static uint32_t leaf(uint32_t label, uint32_t offset) { return label | 1u << 8 | offset << 10; }

TEST(charsmap, a_map_by_hand)
{
    /* root: offset 1; 'a' at 1 ^ 97 = 96; its leaf value at 96 ^ 2 = 98; 'b' below it at 98 ^ 98 = 0: none */
    static uint32_t unit[257];
    Arena a = {.name = "test"};
    Err e = {0};
    char file[4 + sizeof unit + 6];
    const char *text = "";
    size_t n = 0;
    unit[0] = 1u << 10;
    unit[96] = leaf('a', 2);
    unit[98] = 0x80000000u | 2;
    const uint32_t bytes = sizeof unit;
    memcpy(file, &bytes, 4);
    memcpy(file + 4, unit, sizeof unit);
    memcpy(file + 4 + sizeof unit, "x\0yz\0", 6);
    const Charsmap *c = charsmap_open(file, sizeof file, "test", &a, &e);
    ASSERT_OK(e);
    ASSERT_EQ(charsmap_match(c, "ab", 2, false, &text, &n), 1);
    ASSERT_STR(text, "yz");
    ASSERT_EQ(n, 2);
    ASSERT_EQ(charsmap_match(c, "b", 1, false, &text, &n), 0);
    ASSERT_EQ(charsmap_match(c, "", 0, false, &text, &n), 0);
    Err short_e = {0};
    ASSERT(!charsmap_open(file, 4 + sizeof unit, "cut", &a, &short_e));
    ASSERT_CONTAINS(short_e.msg, "no end");
    for (size_t k = 0; k < 4; k++) {
        Err r = {0};
        ASSERT(!charsmap_open(file, k, "cut", &a, &r));
        ASSERT_EQ(r.code, ERR_CORRUPT);
    }
    /* Places outside the trie and the text are no rules. */
    unit[96] = leaf('a', 4000);
    memcpy(file + 4, unit, sizeof unit);
    c = charsmap_open(file, sizeof file, "test", &a, &e);
    ASSERT_EQ(charsmap_match(c, "a", 1, false, &text, &n), 0);
    unit[96] = leaf('a', 2);
    unit[98] = 0x80000000u | 6;
    memcpy(file + 4, unit, sizeof unit);
    c = charsmap_open(file, sizeof file, "test", &a, &e);
    ASSERT_EQ(charsmap_match(c, "a", 1, false, &text, &n), 0);
    arena_free(&a);
}

static void json_refused(const char *model, const char *part)
{
    Arena a = {.name = "test"};
    Err e = {0};
    char path[512], file[1024];
    snprintf(path, sizeof path, "%s/tokenizer.json", test_dir());
    const int n = snprintf(file, sizeof file, "{\"version\":\"1.0\",\"added_tokens\":[],\"model\":%s}",
                           model);
    ASSERT(file_write_atomic(path, file, (size_t)n, &e));
    ASSERT_MSG(!tokenizer_open(path, &a, &e), "accepted: %s", model);
    ASSERT_CONTAINS(e.msg, part);
    ASSERT_CONTAINS(e.msg, path);
    arena_free(&a);
}

TEST(unigram, json_refused_by_name)
{
    json_refused("{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[]}", "model.vocab");
    json_refused("{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",-1.0]]}", "model.unk_id");
    json_refused("{\"type\":\"Unigram\",\"unk_id\":-1,\"vocab\":[[\"a\",-1.0]]}", "model.unk_id");
    json_refused("{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\"]]}", "model.vocab[0]");
    json_refused("{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",\"b\"]]}", "model.vocab[0]");
    json_refused("{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",1.0]],\"alpha\":1}", "`alpha`");
}
