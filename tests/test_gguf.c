/* tests/test_gguf.c: vocabularies inside GGUF files made by the `gguf` package
 * (tests/golden/make_vocabs.py) against the tokenizers they were made of; the strict reader of the header. */
#include "core/core.h"
#include "tests/vectors_impl.h"

TEST(gguf, vectors) { vectors_run("tests/data/gguf/vectors.txt", 441); }

TEST(gguf, any_bytes)
{
    static const char *const name[] = {"llama", "t5", "gpt2", "llama3", "bert"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        char path[64];
        snprintf(path, sizeof path, "tests/data/gguf/%s.gguf", name[i]);
        vectors_any_bytes(path, i);
    }
}

/* What the header of one file says, and its two tensors. */
TEST(gguf, header)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Gguf g;
    size_t n, at = 0;
    GgufText s;
    const unsigned char *file = (unsigned char *)file_read(&a, "tests/data/gguf/llama.gguf", &n, &e);
    ASSERT(gguf_read(&g, file, n, "llama.gguf", &a, &e));
    ASSERT_EQ(g.version, 3u);
    ASSERT_EQ(g.n_tensor, 2);
    ASSERT_EQ(g.tensor[0].dim[0], 32u);
    ASSERT_EQ(g.tensor[0].dim[1], 2u);
    ASSERT_EQ(g.tensor[0].bytes, 256u);
    ASSERT_EQ(g.tensor[1].type, 1u);
    ASSERT_EQ(g.tensor[1].offset, 256u);
    ASSERT_EQ(g.tensor[1].data[1], 0x3C); /* 1.0 as F16 */
    ASSERT_STR(gguf_type_name(12), "Q4_K");
    ASSERT(gguf_type_name(4) == NULL);
    const GgufValue *v = gguf_find(&g, "tokenizer.ggml.tokens");
    ASSERT(v && gguf_string(v, &at, &s));
    ASSERT(s.bytes == 5 && memcmp(s.s, "<unk>", 5) == 0);
    ASSERT_EQ(v->n, 512u);
    ASSERT_EQ(gguf_int(gguf_find(&g, "tokenizer.ggml.eos_token_id"), 0), 2);
    ASSERT(!gguf_find(&g, "tokenizer.ggml.token"));
    ASSERT(!gguf_string(gguf_find(&g, "tokenizer.ggml.scores"), &at, &s));
    arena_free(&a);
}

/* ---- by hand ------------------------------------------------------------------------------------------- */

typedef struct Bytes {
    unsigned char b[4096];
    size_t n;
} Bytes;

static void le(Bytes *x, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++) x->b[x->n++] = (unsigned char)(v >> (8 * i));
}
static void str(Bytes *x, const char *s)
{
    le(x, strlen(s), 8);
    memcpy(x->b + x->n, s, strlen(s));
    x->n += strlen(s);
}
static Bytes begin(uint64_t tensors, uint64_t pairs)
{
    Bytes x = {{'G', 'G', 'U', 'F'}, 4};
    le(&x, 3, 4), le(&x, tensors, 8), le(&x, pairs, 8);
    return x;
}
static void tensor(Bytes *x, const char *name, uint64_t dim, uint32_t type, uint64_t offset)
{
    str(x, name), le(x, 1, 4), le(x, dim, 8), le(x, type, 4), le(x, offset, 8);
}
static void data(Bytes *x, size_t n)
{
    while (x->n % 32) x->b[x->n++] = 0;
    x->n += n;
}

static void header_is(const Bytes *x, const char *part)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Gguf g;
    /* An exact copy, so that a sanitizer sees a read behind the end. */
    unsigned char *copy = malloc(x->n ? x->n : 1);
    memcpy(copy, x->b, x->n);
    const bool ok = gguf_read(&g, copy, x->n, "x.gguf", &a, &e);
    free(copy);
    ASSERT_MSG(ok == (*part == 0), "expected `%s`, got `%s`", part, e.msg);
    ASSERT_CONTAINS(e.msg, part);
    arena_free(&a);
}

TEST(gguf, hostile_headers)
{
    Bytes x = begin(0, 0);
    header_is(&x, "");
    for (size_t n = 0; n < 24; n++) {
        Bytes cut = x;
        cut.n = n;
        header_is(&cut, "truncated");
    }
    x.b[0] = 'X', header_is(&x, "not a GGUF file");
    x = begin(0, 0), x.b[4] = 1, header_is(&x, "version 1 is not read");
    x = begin(0, 0), x.b[4] = 0, x.b[7] = 3, header_is(&x, "big-endian");
    x = begin(0, 0), x.n += 40, header_is(&x, "behind the last tensor");
    x = begin(0, UINT64_MAX), header_is(&x, "do not fit");
    x = begin(UINT64_MAX / 33, 0), header_is(&x, "do not fit");
    x = begin(0, 1), str(&x, "k"), le(&x, 13, 4), le(&x, 0, 8), header_is(&x, "unknown type 13");
    x = begin(0, 1), str(&x, "k"), le(&x, 7, 4), le(&x, 2, 1), header_is(&x, "a bool of 2");
    x = begin(0, 1), str(&x, "k"), le(&x, 9, 4), le(&x, 9, 4), le(&x, 1, 8), header_is(&x, "array of arrays");
    x = begin(0, 1), str(&x, "k"), le(&x, 9, 4), le(&x, 4, 4), le(&x, 1ull << 62, 8),
    header_is(&x, "truncated");
    x = begin(0, 1), str(&x, "k"), le(&x, 9, 4), le(&x, 8, 4), le(&x, 1ull << 62, 8),
    header_is(&x, "truncated");
    x = begin(0, 1), str(&x, "k"), le(&x, 8, 4), le(&x, UINT64_MAX, 8), header_is(&x, "truncated");
    x = begin(0, 1), str(&x, ""), le(&x, 4, 4), le(&x, 0, 8), header_is(&x, "a name of 0 bytes");
    x = begin(0, 1), str(&x, "a b"), le(&x, 4, 4), le(&x, 0, 4), header_is(&x, "printable ASCII");
    x = begin(0, 2);
    for (int i = 0; i < 2; i++) str(&x, "k"), le(&x, 4, 4), le(&x, 0, 4);
    header_is(&x, "two keys are named `k`");
    x = begin(0, 1), str(&x, "general.alignment"), le(&x, 4, 4), le(&x, 24, 4), header_is(&x, "power of two");
    x = begin(0, 1), str(&x, "general.alignment"), le(&x, 10, 4), le(&x, 32, 8),
    header_is(&x, "power of two");
}

TEST(gguf, hostile_tensors)
{
    Bytes x = begin(2, 0);
    tensor(&x, "a", 5, 0, 0), tensor(&x, "b", 32, 2, 32), data(&x, 32 + 18), header_is(&x, "");
    x.n += 14, header_is(&x, "");
    x.n += 1, header_is(&x, "1 bytes behind the last tensor");
    x.n -= 16, header_is(&x, "tensor `b` ends behind the file");
    x = begin(2, 0), tensor(&x, "a", 5, 0, 0), tensor(&x, "b", 32, 2, 20), data(&x, 64);
    header_is(&x, "tensor `b` begins at 20, not at 32");
    x = begin(2, 0), tensor(&x, "a", 5, 0, 0), tensor(&x, "a", 5, 0, 32), data(&x, 64);
    header_is(&x, "two tensors are named `a`");
    x = begin(1, 0), tensor(&x, "a", 33, 2, 0), data(&x, 64), header_is(&x, "no blocks of Q4_0 (32)");
    x = begin(1, 0), tensor(&x, "a", 32, 99, 0), data(&x, 64), header_is(&x, "unknown ggml type 99");
    x = begin(1, 0), tensor(&x, "a", 1ull << 63, 0, 0), data(&x, 64), header_is(&x, "its shape overflows");
    x = begin(1, 0), tensor(&x, "a", 1ull << 60, 0, 0), data(&x, 64), header_is(&x, "ends behind the file");
    x = begin(1, 0), tensor(&x, "a", (1ull << 62) + (1ull << 61), 28, 0), data(&x, 64);
    header_is(&x, "its size overflows");
    x = begin(1, 0), str(&x, "a"), le(&x, 5, 4), x.n += 60, header_is(&x, "5 dimensions");
    x = begin(1, 0), str(&x, "a"), le(&x, 0, 4), x.n += 60, header_is(&x, "0 dimensions");
}

/* ---- vocabularies -------------------------------------------------------------------------------------- */

static void vocab_refused(const Bytes *x, const char *part)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const char *path = path_join(&a, test_dir(), "x.gguf", &e);
    ASSERT(file_write_atomic(path, x->b, x->n, &e));
    ASSERT_MSG(!tokenizer_open(path, &a, &e), "accepted; expected %s", part);
    ASSERT_CONTAINS(e.msg, part);
    ASSERT_CONTAINS(e.msg, path);
    arena_free(&a);
}

static void text_pair(Bytes *x, const char *key, const char *value)
{
    str(x, key), le(x, 8, 4), str(x, value);
}
static void tokens(Bytes *x, const char *key)
{
    str(x, key), le(x, 9, 4), le(x, 8, 4), le(x, 2, 8), str(x, "<unk>"), str(x, "a");
}

#define G "tokenizer.ggml."
TEST(gguf, vocabularies_refused_by_name)
{
    Bytes x = begin(0, 0);
    vocab_refused(&x, G "model is missing");
    x = begin(0, 1), text_pair(&x, G "model", "rwkv"), vocab_refused(&x, G "tokens");
    x = begin(0, 2), text_pair(&x, G "model", "rwkv"), tokens(&x, G "tokens");
    vocab_refused(&x, "`rwkv`: not in this version");
    x = begin(0, 2), text_pair(&x, G "model", "gpt2"), tokens(&x, G "tokens");
    vocab_refused(&x, G "pre (missing)");
    x = begin(0, 3), text_pair(&x, G "model", "gpt2"), tokens(&x, G "tokens"),
    text_pair(&x, G "pre", "viking");
    vocab_refused(&x, "`viking`");
    x = begin(0, 3), text_pair(&x, G "model", "gpt2"), tokens(&x, G "tokens"),
    text_pair(&x, G "pre", "gpt-2");
    vocab_refused(&x, G "merges");
    x = begin(0, 2), text_pair(&x, G "model", "llama"), tokens(&x, G "tokens");
    vocab_refused(&x, G "scores is missing");
    x = begin(0, 3), text_pair(&x, G "model", "llama"), tokens(&x, G "tokens");
    str(&x, G "scores"), le(&x, 9, 4), le(&x, 6, 4), le(&x, 1, 8), le(&x, 0, 4);
    vocab_refused(&x, G "scores is not a list of one number for each token");
    x = begin(0, 3), text_pair(&x, G "model", "bert"), tokens(&x, G "tokens"),
    text_pair(&x, G "pre", "roberta-bpe");
    vocab_refused(&x, "`roberta-bpe` of model `bert`");
    x = begin(0, 3), text_pair(&x, G "model", "bert"), tokens(&x, G "tokens");
    str(&x, G "unknown_token_id"), le(&x, 4, 4), le(&x, 2, 4);
    vocab_refused(&x, G "unknown_token_id is no id");
}

/* What the file leaves open, tokenizer.pattern says; what it says stands. */
static const Tokenizer *opened(const Bytes *x, const char *pattern, const char *refused, Arena *a)
{
    Err e = {0};
    TokenizerConfig *how = arena_alloc(a, sizeof *how, &e);
    const char *path = path_join(a, test_dir(), "p.gguf", &e);
    ASSERT(file_write_atomic(path, x->b, x->n, &e));
    *how = (TokenizerConfig){.pattern = pattern};
    const Tokenizer *t = tokenizer_open_as(path, how, a, &e);
    ASSERT_MSG(!t == (refused != NULL), "%s", e.msg);
    if (refused) ASSERT_CONTAINS(e.msg, refused);
    return t;
}

/* A byte-level vocabulary of `a`, `b`, `1`, `ab`, `11`, <s>; pre NULL: left out; then `more` keys. */
static Bytes bpe(const char *pre, unsigned more)
{
    static const char *const token[] = {"a", "b", "1", "ab", "11", "<s>"};
    Bytes x = begin(0, (pre ? 5u : 4u) + more);
    text_pair(&x, G "model", "gpt2");
    if (pre) text_pair(&x, G "pre", pre);
    str(&x, G "tokens"), le(&x, 9, 4), le(&x, 8, 4), le(&x, 6, 8);
    for (int i = 0; i < 6; i++) str(&x, token[i]);
    str(&x, G "token_type"), le(&x, 9, 4), le(&x, 5, 4), le(&x, 6, 8);
    for (int i = 0; i < 6; i++) le(&x, i == 5 ? 3 : 1, 4);
    str(&x, G "merges"), le(&x, 9, 4), le(&x, 8, 4), le(&x, 2, 8), str(&x, "a b"), str(&x, "1 1");
    return x;
}

static void ids_are(const Tokenizer *t, const char *text, const char *want, Arena *a)
{
    Err e = {0};
    TokenBuf ids = {0};
    char got[64] = "";
    ASSERT(tokenizer_encode_framed(t, text, strlen(text), &ids, a, &e));
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%d ", ids.id[i]);
    ASSERT_STR(got, want);
}

TEST(gguf, pattern_where_the_file_says_none)
{
    Arena a = {.name = "test"};
    static const char *const open[] = {NULL, "default", "viking"};
    for (int i = 0; i < 3; i++) {
        const Bytes x = bpe(open[i], 0);
        opened(&x, NULL, "set tokenizer.pattern", &a);
        opened(&x, "klingon", "`klingon` is not one of gpt2", &a);
        ids_are(opened(&x, "gpt2", NULL, &a), "ab11", "3 4 ", &a);
        ids_are(opened(&x, "qwen2", NULL, &a), "ab11", "3 2 2 ", &a); /* digit by digit */
    }
    const Bytes x = bpe("qwen2", 0);
    ids_are(opened(&x, NULL, NULL, &a), "11", "2 2 ", &a);
    ids_are(opened(&x, "qwen2", NULL, &a), "11", "2 2 ", &a);
    opened(&x, "gpt2", "`qwen2` means the pattern qwen2, tokenizer.pattern says gpt2", &a);
    arena_free(&a);
}

TEST(gguf, flags_of_bos_and_eos)
{
    Arena a = {.name = "test"};
    static const char *const want[] = {"3 ", "5 3 ", "3 5 ", "5 3 5 "};
    for (unsigned i = 0; i < 4; i++) {
        Bytes x = bpe("gpt-2", 4);
        str(&x, G "bos_token_id"), le(&x, 4, 4), le(&x, 5, 4), str(&x, G "eos_token_id"), le(&x, 4, 4),
            le(&x, 5, 4);
        str(&x, G "add_bos_token"), le(&x, 7, 4), le(&x, i & 1, 1);
        str(&x, G "add_eos_token"), le(&x, 7, 4), le(&x, i >> 1, 1);
        ids_are(opened(&x, NULL, NULL, &a), "ab", want[i], &a);
    }
    arena_free(&a);
}
