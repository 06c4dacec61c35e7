/* tests/test_wordpiece.c: WordPiece from tokenizer.json and vocab.txt against Hugging Face tokenizers
 * (vectors by tests/golden/make_vocabs.py), what stands around a text, and broken vocabularies. */
#include "data/wordpiece_impl.h"
#include "tests/vectors_impl.h"

TEST(wordpiece, vectors) { vectors_run("tests/data/wordpiece/vectors.txt", 189); }

TEST(wordpiece, any_bytes)
{
    vectors_any_bytes("tests/data/wordpiece/json", 1);
    vectors_any_bytes("tests/data/wordpiece/cased", 2);
}

TEST(wordpiece, cls_and_sep)
{
    Arena a = {.name = "test"};
    Err e = {0};
    TokenBuf ids = {0};
    const Tokenizer *t = tokenizer_open("tests/data/wordpiece/lower", &a, &e);
    ASSERT_OK(e);
    ASSERT(tokenizer_encode(t, "the", 3, true, &ids, &a, &e));
    ASSERT(ids.n >= 2);
    ASSERT_EQ(ids.id[0], 2);
    ASSERT_EQ(tokenizer_bos(t), 2);
    ASSERT_EQ(tokenizer_eos(t), 3);
    arena_free(&a);
}

/* "cased" needs its tokenizer_config.json: without it BERT's default is lower case. */
TEST(wordpiece, config_beside_counts)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const Tokenizer *x = tokenizer_open("tests/data/wordpiece/cased", &a, &e);
    size_t n;
    const char *text = file_read(&a, "tests/data/wordpiece/cased/vocab.txt", &n, &e);
    const char *path = path_join(&a, test_dir(), "vocab.txt", &e);
    ASSERT(file_write_atomic(path, text, n, &e));
    const Tokenizer *y = tokenizer_open(test_dir(), &a, &e);
    ASSERT_OK(e);
    ASSERT(strcmp(tokenizer_hash(x), tokenizer_hash(y)) != 0);
    arena_free(&a);
}

static void refused(const char *vocab, size_t n, const char *part)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const char *path = path_join(&a, test_dir(), "vocab.txt", &e);
    ASSERT(file_write_atomic(path, vocab, n, &e));
    ASSERT_MSG(!tokenizer_open(path, &a, &e), "accepted; expected %s", part);
    ASSERT_CONTAINS(e.msg, part);
    arena_free(&a);
}

TEST(wordpiece, broken_vocabularies)
{
    refused("", 0, "0 lines");
    refused("a\nb\n", 4, "no piece [UNK]");
    refused("[UNK]\na\na\n", 10, "vocab.txt:2: `a` stands in line 3");
    refused("[UNK]\na\xff\n", 9, "vocab.txt:2: not UTF-8");
}
