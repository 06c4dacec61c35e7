/* tests/test_data.c: sources and their splits, .bin files and what is wrong with them. The TinyStories
 * numbers are those of the demo protocol's script, which reads the text with Python and SentencePiece.
 */
#include "data/source_impl.h"
#include "data/utf8_impl.h"
#include "tests/data_impl.h"

#define STORIES "tests/data/stories/tok512.model"
#define TRAIN_TEXT "tests/data/text/tinystories-train.txt"

static Tokens load(const char *path, const char *split, const DataConfig *d, const Tokenizer *tk)
{
    Err e = {0};
    Tokens t;
    const SourceConfig s = source_of(path, split);
    tokens_load(&t, &s, d, tk, 0, &arena, &e);
    ASSERT_OK(e);
    return t;
}

static void expect_error(const char *path, const char *split, const DataConfig *d, const Tokenizer *tk,
                         int vocab, ErrCode code, const char *part)
{
    Err e = {0};
    Tokens t;
    const SourceConfig s = source_of(path, split);
    ASSERT(!tokens_load(&t, &s, d, tk, vocab, &arena, &e));
    ASSERT_MSG(e.code == code && strstr(e.msg, part), "code %d `%s`, want %d `%s`", (int)e.code, e.msg,
               (int)code, part);
}

static void expect_tokens(const Tokens *t, const int32_t *want, size_t n)
{
    ASSERT_EQ(t->n, n);
    for (size_t i = 0; i < n; i++)
        ASSERT_MSG(t->id[i] == want[i], "token %zu is %d, want %d", i, t->id[i], want[i]);
}
#define EXPECT_TOKENS(t, ...)                                                                                \
    expect_tokens(&(t), (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / 4)

/* ---- text --------------------------------------------------------------------------------------------- */

/* Stories that start in the first 1,000,000 bytes and in the last 200,000: counts and hash from the
 * protocol's script. */
TEST(data, tinystories_protocol)
{
    DataConfig d = data_defaults();
    d.document_separator = "<|endoftext|>";
    const Tokenizer *tk = open_tokenizer(STORIES);
    const Tokens train = load(TRAIN_TEXT, "train[:1000000b]", &d, tk),
                 val = load(TRAIN_TEXT, "train[-200000b:]", &d, tk);
    char hex[33];
    ASSERT_EQ(train.n / 256, 1906);
    ASSERT_EQ(val.n / 256, 382);
    ASSERT_EQ(val.n / 256 * 256, 97792);
    hash128_hex(hex, train.id, 4 * train.n);
    ASSERT_STR(hex, "f5a390011d43c6bca9a6564dd15cee0c");
    hash128_hex(hex, val.id, 4 * val.n);
    ASSERT_STR(hex, "8f150e0d44ec09153eab604a3dffe930");
    arena_free(&arena);
}

TEST(data, documents_and_end_tokens)
{
    static const char text[] = " ab\n|\xE3\x80\x80\x1C\xC2\xA0|c d|\xFF \xC2\x85";
    const char *path = put_file("t.txt", text, sizeof text - 1);
    const Tokenizer *tk = open_tokenizer("bytes");
    DataConfig d = data_defaults();
    d.document_separator = "|";
    Tokens t = load(path, NULL, &d, tk);
    EXPECT_TOKENS(t, 256, 'a', 'b', 256, 'c', ' ', 'd', 256, 0xFF);
    ASSERT_EQ(t.bytes, 6);
    d.eot = "append";
    t = load(path, NULL, &d, tk);
    EXPECT_TOKENS(t, 'a', 'b', 256, 'c', ' ', 'd', 256, 0xFF, 256);
    d.eot = "none";
    t = load(path, NULL, &d, tk);
    EXPECT_TOKENS(t, 'a', 'b', 'c', ' ', 'd', 0xFF);
    d.document_separator = NULL; /* one document, as it is */
    t = load(path, NULL, &d, tk);
    ASSERT_EQ(t.n, sizeof text - 1);
    arena_free(&arena);
}

TEST(data, eot_of_sentencepiece)
{
    const char *path = put_file("t.txt", "a", 1);
    const Tokenizer *tk = open_tokenizer(STORIES);
    DataConfig d = data_defaults();
    Tokens t = load(path, NULL, &d, tk);
    EXPECT_TOKENS(t, 1, 261);
    d.eot = "append";
    t = load(path, NULL, &d, tk);
    EXPECT_TOKENS(t, 261, 2);
    arena_free(&arena);
}

/* Documents of 1, 2, 3 and 4 bytes, starting at 0, 1, 3, 6 of 10. */
TEST(data, splits_take_whole_documents)
{
    static const struct {
        const char *split, *want;
    } c[] = {
        {"train", "abbcccdddd"},     {"train[:]", "abbcccdddd"}, {"train[:3b]", "abb"},
        {"train[:4b]", "abbccc"},    {"train[3b:]", "cccdddd"},  {"train[4b:]", "dddd"},
        {"train[-7b:]", "cccdddd"},  {"train[-6b:]", "dddd"},    {"train[-99b:]", "abbcccdddd"},
        {"train[:30%]", "abb"},      {"train[30%:]", "cccdddd"}, {"train[:39%]", "abb"},
        {"train[10%:60%]", "bbccc"}, {"train[:-4b]", "abbccc"},  {"train[-70%:-40%]", "ccc"},
        {"train[:12.5%]", "a"},
    };
    const char *path = put_file("t.txt", "a| bb|ccc |dddd", 15);
    const Tokenizer *tk = open_tokenizer("bytes");
    DataConfig d = data_defaults();
    d.document_separator = "|";
    d.eot = "none";
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        const Tokens t = load(path, c[i].split, &d, tk);
        char got[16] = "";
        for (size_t k = 0; k < t.n; k++) got[k] = (char)t.id[k];
        ASSERT_MSG(strcmp(got, c[i].want) == 0, "%s: %s, want %s", c[i].split, got, c[i].want);
    }
    arena_free(&arena);
}

/* Without a separator bytes are cut, never inside a character; the two parts make the whole. */
TEST(data, splits_of_one_text)
{
    static const char text[] = "ab\xC3\xA9\xE4\xBD\xA0z"; /* 8 bytes: a b 2 3 z */
    const char *path = put_file("t.txt", text, 8);
    const Tokenizer *tk = open_tokenizer("bytes");
    DataConfig d = data_defaults();
    d.eot = "none";
    static const size_t left[] = {0, 1, 2, 4, 4, 7, 7, 7, 8};
    for (size_t k = 1; k < 8; k++) {
        char a[32], b[32];
        snprintf(a, sizeof a, "train[:%zub]", k);
        snprintf(b, sizeof b, "train[%zub:]", k);
        const Tokens t = load(path, a, &d, tk), u = load(path, b, &d, tk);
        ASSERT_EQ(t.n, left[k]);
        ASSERT_EQ(t.n + u.n, 8);
        ASSERT_EQ(u.id[0], (unsigned char)text[left[k]]);
    }
    arena_free(&arena);
}

TEST(data, wrong_splits)
{
    static const char *const bad[] = {
        "train[",    "train]",      "train[:95]",   "train[:95%",    "train[95%]",   "[:5%]",
        "",          "train[:5%]x", "train[:1.5b]", "train[5%:10b]", "train[:101%]", "train[101%:]",
        "train[a:]", "train[::]",   "train[:nan%]"};
    const char *path = put_file("t.txt", "abc", 3);
    const DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        expect_error(path, bad[i], &d, tk, 0, ERR_USAGE, "split");
    expect_error(path, "train[3b:]", &d, tk, 0, ERR_FAIL, "no tokens in the part train[3b:]");
    arena_free(&arena);
}

TEST(data, strip_is_pythons)
{
    static const struct {
        const char *in, *out;
    } c[] = {
        {"", ""},
        {" \t\r\n\v\f", ""},
        {"\x1C\x1D\x1E\x1Fx\x1B", "x\x1B"},
        {"\xC2\x85\xC2\xA0x\xE2\x80\xA8", "x"},
        {"\xE1\x9A\x80x\xE2\x80\x8B", "x\xE2\x80\x8B"},
        {"\xE3\x80\x80 \xE2\x81\x9F", ""},
        {"\x80 x \xA0", "\x80 x \xA0"},
        {" \xE2\x80", "\xE2\x80"},
        {"a b", "a b"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        const char *s = c[i].in;
        size_t n = strlen(s);
        utf8_strip(&s, &n);
        ASSERT_EQ(n, strlen(c[i].out));
        ASSERT_BYTES(s, c[i].out, n);
    }
}

TEST(data, wrong_sources)
{
    const DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    const char *empty = put_file("empty.txt", "", 0), *text = put_file("a.txt", "abc", 3);
    const char *glob = path_join(&arena, test_dir(), "*.*", &(Err){0});
    expect_error("tests/data/none.txt", NULL, &d, tk, 0, ERR_FAIL, "tests/data/none.txt: no such file");
    expect_error(empty, NULL, &d, tk, 0, ERR_FAIL, "no tokens");
    expect_error(test_dir(), NULL, &d, tk, 0, ERR_FAIL, "is a folder");
    expect_error(text, NULL, &d, NULL, 0, ERR_USAGE, "text needs a tokenizer");
    expect_error(text, NULL, &d, tk, 98, ERR_CORRUPT, "token 0 is 256, but the model's vocabulary has 98");
    expect_error(NULL, NULL, &d, tk, 0, ERR_USAGE, "without path");
    expect_error(put_file("a.gz", "{}", 2), NULL, &d, tk, 0, ERR_USAGE, ".gz files are not read");
    remove(path_join(&arena, test_dir(), "a.gz", &(Err){0}));
    put_tokens("b.bin", 0, 4);
    expect_error(glob, NULL, &d, tk, 0, ERR_USAGE, "of different kinds");
    arena_free(&arena);
}

/* ---- .bin --------------------------------------------------------------------------------------------- */

static const char *put_llmc(const char *name, int magic, int version, int count, const void *tokens,
                            size_t bytes)
{
    static int32_t file[256 + 1024];
    memset(file, 0, 1024);
    file[0] = magic;
    file[1] = version;
    file[2] = count;
    if (bytes) memcpy(file + 256, tokens, bytes);
    return put_file(name, file, 1024 + bytes);
}

TEST(data, token_files)
{
    const uint16_t narrow[] = {5, 65535, 7};
    const uint32_t wide[] = {5, 128000, 7};
    const DataConfig d = data_defaults();
    Tokens t = load(put_llmc("a.bin", 20240520, 1, 3, narrow, 6), NULL, &d, NULL);
    EXPECT_TOKENS(t, 5, 65535, 7);
    ASSERT_EQ(t.bytes, 0);
    t = load(put_llmc("a.bin", 20240801, 7, 3, wide, 12), NULL, &d, NULL);
    EXPECT_TOKENS(t, 5, 128000, 7);
    t = load(put_llmc("a.bin", 20240520, 2, 3, wide, 12), NULL, &d, NULL);
    EXPECT_TOKENS(t, 5, 128000, 7);
    t = load(put_file("a.bin", narrow, 6), NULL, &d, NULL);
    EXPECT_TOKENS(t, 5, 65535, 7);
    t = load(put_tokens("a.bin", 0, 10), "train[:55%]", &d, NULL);
    EXPECT_TOKENS(t, 0, 1, 2, 3, 4);
    t = load(put_tokens("a.bin", 0, 10), "train[-30%:]", &d, NULL);
    EXPECT_TOKENS(t, 7, 8, 9);
    put_tokens("b.bin", 90, 2);
    t = load(path_join(&arena, test_dir(), "?.bin", &(Err){0}), NULL, &d, NULL); /* a glob, in sorted order */
    EXPECT_TOKENS(t, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 90, 91);
    arena_free(&arena);
}

TEST(data, wrong_token_files)
{
    const uint16_t v[] = {5, 9, 7};
    DataConfig d = data_defaults();
    const char *part = "but 3 tokens in its header make 1030";
    expect_error(put_llmc("a.bin", 20240520, 1, 3, v, 4), NULL, &d, NULL, 0, ERR_CORRUPT, part);
    expect_error(put_llmc("a.bin", 20240520, 1, 2, v, 6), NULL, &d, NULL, 0, ERR_CORRUPT, "make 1028");
    expect_error(put_llmc("a.bin", 20240520, 1, -1, v, 6), NULL, &d, NULL, 0, ERR_CORRUPT, "more than 2^31");
    expect_error(put_llmc("a.bin", 20240520, 7, 3, v, 6), NULL, &d, NULL, 0, ERR_CORRUPT, "version 7");
    expect_error(put_llmc("a.bin", 20240801, 1, 3, v, 6), NULL, &d, NULL, 0, ERR_CORRUPT, "version 1");
    expect_error(put_llmc("a.bin", 20240522, 1, 3, v, 6), NULL, &d, NULL, 0, ERR_USAGE, "eval file");
    expect_error(put_llmc("a.bin", 20240326, 3, 3, v, 6), NULL, &d, NULL, 0, ERR_USAGE, "model file");
    expect_error(put_llmc("a.bin", 20240520, 1, 0, v, 0), NULL, &d, NULL, 0, ERR_FAIL, "no tokens");
    expect_error(put_file("a.bin", v, 5), NULL, &d, NULL, 0, ERR_CORRUPT, "odd number of bytes");
    expect_error(put_file("a.bin", "\x88\xD8\x34\x01", 4), NULL, &d, NULL, 0, ERR_CORRUPT,
                 "shorter than llm.c's header");
    expect_error(put_file("a.bin", v, 6), "train[:2b]", &d, NULL, 0, ERR_USAGE, "cut in percent");
    const char *path = put_llmc("a.bin", 20240520, 1, 3, v, 6);
    expect_error(path, NULL, &d, NULL, 9, ERR_CORRUPT, "a.bin: token 1 is 9, but the vocabulary has 9");
    SourceConfig s = source_of(path, NULL);
    Tokens t;
    Err e = {0};
    d.vocab_check = "clip";
    ASSERT(tokens_load(&t, &s, &d, NULL, 9, &arena, &e));
    EXPECT_TOKENS(t, 5, 8, 7);
    d.vocab_check = "off";
    ASSERT(tokens_load(&t, &s, &d, NULL, 9, &arena, &e));
    EXPECT_TOKENS(t, 5, 9, 7);
    s.format = "bin_llmc";
    s.path = put_file("a.bin", v, 6);
    ASSERT(!tokens_load(&t, &s, &d, NULL, 9, &arena, &e));
    arena_free(&arena);
}
