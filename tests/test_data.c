/* tests/test_data.c: sources and their splits, .bin files and what is wrong with them, the loader's samples and orders, the
 * windows of the perplexity protocols. The TinyStories numbers are those of the protocol's script in PyTorch.
 */
#include "data/source_impl.h"
#include "data/tokenizer_impl.h"
#include "data/utf8_impl.h"
#include "tests/test.h"
#include <stdio.h>
#include <string.h>

#define STORIES "tests/data/stories/tok512.model"
#define TRAIN_TEXT "tests/data/text/tinystories-train.txt"

static Arena arena = {.name = "test"};

static DataConfig data_defaults(void)
{
    return (DataConfig){.eot = "prepend", .vocab_check = "error", .packing = "concat", .on_bad_line = "error"};
}

static SourceConfig source_of(const char *path, const char *split)
{
    return (SourceConfig){.path = path, .format = "auto", .weight = 1, .field = "text", .split = split};
}

static const char *put_file(const char *name, const void *data, size_t n)
{
    Err e = {0};
    const char *path = path_join(&arena, test_dir(), name, &e);
    FILE *f = fopen(path, "wb");
    ASSERT(f && (n == 0 || fwrite(data, 1, n, f) == n) && fclose(f) == 0);
    return path;
}

/* uint16 tokens from, from + 1, ... */
static const char *put_tokens(const char *name, int from, size_t n)
{
    static uint16_t v[4096];
    for (size_t i = 0; i < n; i++) v[i] = (uint16_t)(from + (int)i);
    return put_file(name, v, 2 * n);
}

static Tokenizer *open_tokenizer(const char *path)
{
    Err e = {0};
    Tokenizer *t = tokenizer_open(path, &arena, &e);
    ASSERT_OK(e);
    return t;
}

static Tokens load(const char *path, const char *split, const DataConfig *d, const Tokenizer *tk)
{
    Err e = {0};
    Tokens t;
    const SourceConfig s = source_of(path, split);
    tokens_load(&t, &s, d, tk, 0, &arena, &e);
    ASSERT_OK(e);
    return t;
}

static void expect_error(const char *path, const char *split, const DataConfig *d, const Tokenizer *tk, int vocab,
                         ErrCode code, const char *part)
{
    Err e = {0};
    Tokens t;
    const SourceConfig s = source_of(path, split);
    ASSERT(!tokens_load(&t, &s, d, tk, vocab, &arena, &e));
    ASSERT_MSG(e.code == code && strstr(e.msg, part), "code %d `%s`, want %d `%s`", (int)e.code, e.msg, (int)code, part);
}

static void expect_tokens(const Tokens *t, const int32_t *want, size_t n)
{
    ASSERT_EQ(t->n, n);
    for (size_t i = 0; i < n; i++) ASSERT_MSG(t->id[i] == want[i], "token %zu is %d, want %d", i, t->id[i], want[i]);
}
#define EXPECT_TOKENS(t, ...) expect_tokens(&(t), (const int32_t[]){__VA_ARGS__}, sizeof((int32_t[]){__VA_ARGS__}) / 4)

/* ---- text ------------------------------------------------------------------------------------------------------- */

/* Stories that start in the first 1,000,000 bytes and in the last 200,000: counts and hash from the protocol's script. */
TEST(data, tinystories_protocol)
{
    DataConfig d = data_defaults();
    d.document_separator = "<|endoftext|>";
    const Tokenizer *tk = open_tokenizer(STORIES);
    const Tokens train = load(TRAIN_TEXT, "train[:1000000b]", &d, tk), val = load(TRAIN_TEXT, "train[-200000b:]", &d, tk);
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
    d.document_separator = NULL;                            /* one document, as it is */
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
    static const struct { const char *split, *want; } c[] = {
        {"train", "abbcccdddd"}, {"train[:]", "abbcccdddd"}, {"train[:3b]", "abb"}, {"train[:4b]", "abbccc"},
        {"train[3b:]", "cccdddd"}, {"train[4b:]", "dddd"}, {"train[-7b:]", "cccdddd"}, {"train[-6b:]", "dddd"},
        {"train[-99b:]", "abbcccdddd"}, {"train[:30%]", "abb"}, {"train[30%:]", "cccdddd"}, {"train[:39%]", "abb"},
        {"train[10%:60%]", "bbccc"}, {"train[:-4b]", "abbccc"}, {"train[-70%:-40%]", "ccc"}, {"train[:12.5%]", "a"},
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
    static const char text[] = "ab\xC3\xA9\xE4\xBD\xA0z";       /* 8 bytes: a b 2 3 z */
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
    static const char *const bad[] = {"train[", "train]", "train[:95]", "train[:95%", "train[95%]", "[:5%]", "train[:5%]x", "",
                                      "train[:1.5b]", "train[5%:10b]", "train[:101%]", "train[a:]", "train[::]", "train[:nan%]"};
    const char *path = put_file("t.txt", "abc", 3);
    const DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) expect_error(path, bad[i], &d, tk, 0, ERR_USAGE, "split");
    expect_error(path, "train[3b:]", &d, tk, 0, ERR_FAIL, "no tokens in the part train[3b:]");
    arena_free(&arena);
}

TEST(data, strip_is_pythons)
{
    static const struct { const char *in, *out; } c[] = {
        {"", ""}, {" \t\r\n\v\f", ""}, {"\x1C\x1D\x1E\x1Fx\x1B", "x\x1B"}, {"\xC2\x85\xC2\xA0x\xE2\x80\xA8", "x"},
        {"\xE1\x9A\x80x\xE2\x80\x8B", "x\xE2\x80\x8B"}, {"\xE3\x80\x80 \xE2\x81\x9F", ""}, {"\x80 x \xA0", "\x80 x \xA0"},
        {" \xE2\x80", "\xE2\x80"}, {"a b", "a b"},
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
    expect_error(put_file("a.jsonl", "{}", 2), NULL, &d, tk, 0, ERR_USAGE, ".jsonl sources: not in this version");
    remove(path_join(&arena, test_dir(), "a.jsonl", &(Err){0}));
    put_tokens("b.bin", 0, 4);
    expect_error(glob, NULL, &d, tk, 0, ERR_USAGE, "of different kinds");
    arena_free(&arena);
}

/* ---- .bin -------------------------------------------------------------------------------------------------------- */

static const char *put_llmc(const char *name, int magic, int version, int count, const void *tokens, size_t bytes)
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
    t = load(path_join(&arena, test_dir(), "?.bin", &(Err){0}), NULL, &d, NULL);   /* a glob, in sorted order */
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
    expect_error(put_file("a.bin", "\x88\xD8\x34\x01", 4), NULL, &d, NULL, 0, ERR_CORRUPT, "shorter than llm.c's header");
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

/* ---- loader ------------------------------------------------------------------------------------------------------- */

typedef struct Plan { DataConfig data; SourceConfig source[3]; LoaderOptions o; } Plan;

static Loader *open_loader(Plan *p, const Tokenizer *tk)
{
    Err e = {0};
    p->o.data = &p->data;
    p->o.source = p->source;
    Loader *l = loader_open(&p->o, tk, &arena, &e);
    ASSERT_OK(e);
    return l;
}

/* First id of a sample, after checking that it is T consecutive numbers and their successors. */
static int first_id(const Loader *l, int64_t sample, long T)
{
    static int32_t ids[64], targets[64], pos[64], seg[64];
    ASSERT_EQ(loader_fill(l, sample, ids, targets, pos, seg), T);
    for (long i = 0; i < T; i++) {
        ASSERT_EQ(ids[i], ids[0] + i);
        ASSERT_EQ(targets[i], ids[0] + i + 1);
        ASSERT_EQ(pos[i], i);
        ASSERT_EQ(seg[i], 0);
    }
    return ids[0];
}

TEST(loader, file_order_shares_one_token)
{
    Plan p = {.data = data_defaults(), .o = {.n_source = 2, .seq_len = 4, .vocab = 2000}};
    p.source[0] = source_of(put_tokens("a.bin", 0, 12), NULL);       /* 2 samples: 9 tokens read, 3 dropped */
    p.source[1] = source_of(put_tokens("b.bin", 1000, 5), NULL);     /* T + 1 tokens: one sample */
    const Loader *l = open_loader(&p, NULL);
    ASSERT_EQ(loader_samples(l), 3);
    ASSERT_EQ(loader_tokens(l), 17);
    static const int want[] = {0, 4, 1000, 0, 4, 1000};
    for (int i = 0; i < 6; i++) ASSERT_EQ(first_id(l, i, 4), want[i]);
    p.data.max_samples = 2;
    l = open_loader(&p, NULL);
    ASSERT_EQ(loader_samples(l), 2);
    ASSERT_EQ(first_id(l, 2, 4), 0);
    arena_free(&arena);
}

TEST(loader, shuffle_takes_each_sample_once_per_epoch)
{
    Plan p = {.data = data_defaults(), .o = {.n_source = 2, .seq_len = 4, .vocab = 4096, .seed = 7, .shuffle = true}};
    p.source[0] = source_of(put_tokens("a.bin", 0, 4 * 30 + 1), NULL);
    p.source[1] = source_of(put_tokens("b.bin", 1000, 4 * 20 + 1), NULL);
    const Loader *l = open_loader(&p, NULL);
    p.o.seed = 8;
    const Loader *m = open_loader(&p, NULL);
    int same_epoch = 0, same_seed = 0, in_order = 0;
    for (int epoch = 0; epoch < 3; epoch++) {
        int seen[4096] = {0};
        for (int i = 0; i < 50; i++) {
            const int id = first_id(l, epoch * 50 + i, 4);
            ASSERT_EQ(seen[id]++, 0);
            same_epoch += id == first_id(l, (epoch + 1) * 50 + i, 4);
            same_seed += id == first_id(m, epoch * 50 + i, 4);
            in_order += id == 4 * i;
        }
    }
    ASSERT(same_epoch < 15 && same_seed < 15 && in_order < 15);
    ASSERT_EQ(first_id(l, 123, 4), first_id(l, 123, 4));
    ASSERT_EQ(strlen(loader_hash(l)), 32);
    ASSERT_STR(loader_hash(l), loader_hash(m));
    arena_free(&arena);
}

TEST(loader, weights_set_the_shares)
{
    Plan p = {.data = data_defaults(), .o = {.n_source = 2, .seq_len = 4, .vocab = 4096, .seed = 7, .shuffle = true}};
    p.source[0] = source_of(put_tokens("a.bin", 0, 4 * 30 + 1), NULL);
    p.source[1] = source_of(put_tokens("b.bin", 1000, 4 * 10 + 1), NULL);
    p.source[1].weight = 3;                                  /* of 40 samples an epoch: 10 and 30 */
    const Loader *l = open_loader(&p, NULL);
    ASSERT_EQ(loader_samples(l), 40);
    int count[4096] = {0}, b = 0;
    for (int i = 0; i < 120; i++) {
        const int id = first_id(l, i, 4);
        count[id]++;
        b += id >= 1000;
        ASSERT_MSG(4 * b >= 3 * (i + 1) - 4 && 4 * b <= 3 * (i + 1) + 4, "%d of the first %d from the source of weight 3 of 4", b, i + 1);
    }
    for (int i = 0; i < 30; i++) ASSERT_EQ(count[4 * i], 1);       /* three epochs: once through the large one, */
    for (int i = 0; i < 10; i++) ASSERT_EQ(count[1000 + 4 * i], 9); /* nine times through the small one */
    arena_free(&arena);
}

TEST(loader, windows_with_bos)
{
    Plan p = {.data = data_defaults(), .o = {.n_source = 1, .seq_len = 4, .vocab = 257}};
    p.data.window_bos = true;
    p.data.eot = "none";
    p.source[0] = source_of(put_file("t.txt", "abcdefghijk", 11), NULL);
    const Loader *l = open_loader(&p, open_tokenizer("bytes"));
    ASSERT_EQ(loader_samples(l), 2);
    int32_t ids[4], targets[4];
    ASSERT_EQ(loader_fill(l, 1, ids, targets, NULL, NULL), 4);
    static const int32_t in[] = {256, 'e', 'f', 'g'}, out[] = {'e', 'f', 'g', 'h'};
    ASSERT_BYTES(ids, in, sizeof in);
    ASSERT_BYTES(targets, out, sizeof out);
    arena_free(&arena);
}

TEST(loader, refuses)
{
    static const struct { long T; int n; bool bos; size_t tokens; double weight; ErrCode code; const char *part; } c[] = {
        {4, 2, false, 4, 1, ERR_FAIL, "too few for one sample of data.seq_len 4"},
        {4, 0, false, 9, 1, ERR_USAGE, "no sources"},
        {0, 1, false, 9, 1, ERR_USAGE, "data.seq_len"},
        {4, 1, true, 9, 1, ERR_USAGE, "window_bos: needs a tokenizer"},
        {8, 2, false, 9, 2, ERR_FAIL, "b.bin: 4 tokens are too few"},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Plan p = {.data = data_defaults(), .o = {.n_source = c[i].n, .seq_len = c[i].T}};
        Err e = {0};
        p.data.window_bos = c[i].bos;
        p.source[0] = source_of(put_tokens("a.bin", 0, c[i].tokens), NULL);
        p.source[1] = source_of(put_tokens("b.bin", 0, 4), NULL);
        p.source[1].weight = c[i].weight;
        p.o.data = &p.data;
        p.o.source = p.source;
        ASSERT(!loader_open(&p.o, NULL, &arena, &e));
        ASSERT_MSG(e.code == c[i].code && strstr(e.msg, c[i].part), "case %zu: %s", i, e.msg);
    }
    arena_free(&arena);
}

/* ---- windows of an evaluation ------------------------------------------------------------------------------------ */

/* All windows as text: ids, then `>`, then targets with `.` where not scored; BOS is 0, token i is i + 1. */
static const char *plan_text(const char *protocol, long window, long stride, size_t n, int bos)
{
    static char out[1024];
    static int32_t t[64], ids[64], targets[64];
    Err e = {0};
    int64_t scored = 0;
    char *s = out;
    for (int i = 0; i < 64; i++) t[i] = i + 1;
    const EvalPlan *p = evalplan_open(protocol, window, stride, t, n, bos, &arena, &e);
    ASSERT_OK(e);
    *s = 0;
    for (int64_t i = 0; i < evalplan_count(p); i++) {
        const long len = evalplan_get(p, i, ids, targets);
        for (long j = 0; j < len; j++) s += sprintf(s, "%d ", ids[j]);
        s += sprintf(s, ">");
        for (long j = 0; j < len; j++) s += targets[j] < 0 ? sprintf(s, " .") : sprintf(s, " %d", targets[j]);
        for (long j = 0; j < evalplan_window(p); j++) scored += targets[j] != -100;
        s += sprintf(s, "\n");
    }
    ASSERT_EQ(scored, evalplan_scored(p));
    return out;
}

TEST(evalplan, val)
{
    ASSERT_STR(plan_text("val", 4, 0, 6, 0), "0 1 2 3 > 1 2 3 4\n0 5 > 5 6\n");
    ASSERT_STR(plan_text("val", 4, 0, 8, 0), "0 1 2 3 > 1 2 3 4\n0 5 6 7 > 5 6 7 8\n");
    ASSERT_STR(plan_text("val", 4, 0, 1, 0), "0 > 1\n");
    ASSERT_STR(plan_text("val", 4, 0, 6, -1), "1 2 3 4 > 2 3 4 5\n5 > 6\n");
    ASSERT_STR(plan_text("val", 4, 0, 5, -1), "1 2 3 4 > 2 3 4 5\n");
    arena_free(&arena);
}

TEST(evalplan, concat)
{
    ASSERT_STR(plan_text("concat-3", 0, 0, 8, 0), "1 2 3 > 2 3 .\n4 5 6 > 5 6 .\n");
    ASSERT_STR(plan_text("concat", 3, 0, 8, 0), "1 2 3 > 2 3 .\n4 5 6 > 5 6 .\n");
    Err e = {0};
    static const int32_t t[3000];
    ASSERT_STR(evalplan_name(evalplan_open("concat", 0, 0, t, 3000, -1, &arena, &e)), "concat-2048");
    arena_free(&arena);
}

/* Window 6, stride 2, as the loop of Hugging Face's documentation scores them. */
TEST(evalplan, stride)
{
    ASSERT_STR(plan_text("stride", 6, 2, 9, 0),
               "1 2 3 4 5 6 > 2 3 4 5 6 .\n3 4 5 6 7 8 > . . . 7 8 .\n5 6 7 8 9 > . . . 9 .\n");
    ASSERT_STR(plan_text("stride", 6, 2, 8, 0), "1 2 3 4 5 6 > 2 3 4 5 6 .\n3 4 5 6 7 8 > . . . 7 8 .\n");
    ASSERT_STR(plan_text("stride", 6, 2, 4, 0), "1 2 3 4 > 2 3 4 .\n");
    ASSERT_STR(plan_text("stride", 3, 3, 6, 0), "1 2 3 > 2 3 .\n4 5 6 > 5 6 .\n");
    arena_free(&arena);
}

TEST(evalplan, llamacpp)
{
    ASSERT_STR(plan_text("llamacpp", 6, 0, 13, 0), "0 2 3 4 5 6 > . . . 5 6 .\n0 8 9 10 11 12 > . . . 11 12 .\n");
    ASSERT_STR(plan_text("llamacpp", 6, 0, 11, -1), "1 2 3 4 5 6 > . . . 5 6 .\n");
    static const int32_t t[1100];
    Err e = {0};
    const EvalPlan *p = evalplan_open("llamacpp", 0, 0, t, 1100, 0, &arena, &e);
    ASSERT_EQ(evalplan_scored(p), 2 * 255);
    arena_free(&arena);
}

TEST(evalplan, refuses)
{
    static const struct { const char *protocol; long window, stride; size_t n; const char *part; } c[] = {
        {"wikitext", 4, 0, 9, "unknown protocol `wikitext`"}, {"concat-x", 0, 0, 9, "`concat-x`"},
        {"concat-0", 0, 0, 9, "`concat-0`"}, {"val", 0, 0, 9, "needs a window"}, {"val", -1, 0, 9, "a window of -1"},
        {"val", 4, 0, 0, "too few"}, {"concat-10", 0, 0, 9, "too few"}, {"stride", 4, 5, 9, "from 1 to the window"},
        {"llamacpp", 2, 0, 9, "at least 3"}, {"llamacpp", 10, 0, 9, "too few"}, {"stride", 4, 2, 1, "too few"},
    };
    static const int32_t t[16];
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        Err e = {0};
        ASSERT(!evalplan_open(c[i].protocol, c[i].window, c[i].stride, t, c[i].n, c[i].n ? 0 : -1, &arena, &e));
        ASSERT_CONTAINS(e.msg, c[i].part);
    }
    arena_free(&arena);
}
