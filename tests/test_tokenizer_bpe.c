/* tests/test_tokenizer_bpe.c: byte-pair tokenizers: GPT-2's own files and vectors, a whole text by its
 * SHA-256, small tokenizer.json files against Hugging Face tokenizers (tests/golden/make_bpe.py), any bytes
 * back, the cost of long words, what is refused. */
#include "data/bpe_impl.h"
#include "data/tokenizer_json_impl.h"
#include "tests/sha256_impl.h"
#include "tests/vectors_impl.h"
#include <math.h>
#include <unistd.h>
#include <zlib.h>

#define DATA "tests/data/"

static const char *folder(Arena *a)
{
    static char dir[64];
    Err e = {0};
    snprintf(dir, sizeof dir, "build/tmp/bpe-%d", (int)getpid());
    ASSERT(dir_make(dir, &e));
    (void)a;
    return dir;
}

/* Unpacks from (gzip) into the test's folder as name; returns the path. */
static const char *unpack(const char *from, const char *name, Arena *a)
{
    Err e = {0};
    char buf[1 << 16];
    TokText all = {0};
    gzFile f = gzopen(from, "rb");
    ASSERT(f);
    for (int n; (n = gzread(f, buf, sizeof buf)) > 0;) ASSERT(text_put(&all, buf, (size_t)n, a, &e));
    gzclose(f);
    const char *path = path_join(a, folder(a), name, &e);
    ASSERT(file_write_atomic(path, all.s, all.n, &e));
    return path;
}

static const char *written(const char *text, const char *name, Arena *a)
{
    Err e = {0};
    const char *path = path_join(a, folder(a), name, &e);
    ASSERT(file_write_atomic(path, text, strlen(text), &e));
    return path;
}

static void clean(Arena *a)
{
    static const char *const name[] = {"encoder.json",      "vocab.bpe",
                                       "vocab.json",        "merges.txt",
                                       "tokenizer.json",    "tokenizer_config.json",
                                       "added_tokens.json", "chat_template.jinja",
                                       "gpt2.tiktoken",     "x.json"};
    Err e = {0};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) unlink(path_join(a, folder(a), name[i], &e));
    rmdir(folder(a));
    arena_free(a);
}

static Tokenizer *open_gpt2(Arena *a)
{
    Err e = {0};
    unpack(DATA "gpt2/vocab.bpe.gz", "vocab.bpe", a);
    Tokenizer *t = tokenizer_open(unpack(DATA "gpt2/encoder.json.gz", "encoder.json", a), a, &e);
    ASSERT_OK(e);
    return t;
}

/* {"text", "ids"} lines: ids, and back to the text when the tokenizer can. */
static int run_jsonl(const Tokenizer *t, const char *path, bool back)
{
    Arena a = {.name = "vectors"};
    Err e = {0};
    int lines = 0;
    char *line, *file = file_read(&a, path, NULL, &e);
    ASSERT_OK(e);
    while ((line = strsep(&file, "\n")) && *line) {
        json_t *o = json_loads(line, JSON_ALLOW_NUL, NULL);
        const json_t *s = json_object_get(o, "text"), *v = json_object_get(o, "ids");
        TokenBuf got = {0};
        size_t bytes;
        ASSERT(s && v);
        ASSERT(tokenizer_encode(t, json_string_value(s), json_string_length(s), false, &got, &a, &e));
        ASSERT_MSG(got.n == json_array_size(v), "`%s`: %zu ids", json_string_value(s), got.n);
        for (size_t i = 0; i < got.n; i++)
            ASSERT_EQ(got.id[i], (int)json_integer_value(json_array_get(v, i)));
        const char *text = tokenizer_decode(t, got.id, got.n, &bytes, &a, &e);
        ASSERT(!back || (bytes == json_string_length(s) && memcmp(text, json_string_value(s), bytes) == 0));
        json_decref(o);
        lines++;
    }
    arena_free(&a);
    return lines;
}

static void run_llama_cpp(const Tokenizer *t, const char *in_path, const char *out_path, int want)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    Arena a = {.name = "vectors"};
    Err e = {0};
    int cases = 0;
    const char *in = file_read(&a, in_path, NULL, &e);
    char *out = file_read(&a, out_path, NULL, &e), *line;
    ASSERT_OK(e);
    for (const char *next; *in || *out; in = next, cases++) {
        const char *end = strstr(in, mark);
        TokenBuf got = {0};
        next = end ? end + strlen(mark) : in + strlen(in);
        line = strsep(&out, "\n");
        ASSERT(tokenizer_encode(t, in, end ? (size_t)(end - in) : strlen(in), false, &got, &a, &e));
        for (size_t i = 0; i < got.n; i++) ASSERT_EQ(got.id[i], (int)strtol(line, &line, 10));
        ASSERT_EQ(line[strspn(line, " ")], 0);
    }
    ASSERT_EQ(cases, want);
    arena_free(&a);
}

static void expect_corpus(const Tokenizer *t, const char *path, size_t n, const char *sha)
{
    Arena a = {.name = "corpus"};
    Err e = {0};
    TokenBuf ids = {0};
    size_t bytes, back;
    char hex[65], *text = file_read(&a, path, &bytes, &e);
    ASSERT_OK(e);
    ASSERT(tokenizer_encode(t, text, bytes, false, &ids, &a, &e));
    ASSERT_EQ(ids.n, n);
    sha256_hex(hex, (const unsigned char *)ids.id, 4 * ids.n);
    ASSERT_STR(hex, sha);
    const char *s = tokenizer_decode(t, ids.id, ids.n, &back, &a, &e);
    ASSERT(s && back == bytes && memcmp(s, text, bytes) == 0);
    arena_free(&a);
}

TEST(tokenizer_bpe, gpt2_files)
{
    Arena a = {.name = "test"};
    const Tokenizer *t = open_gpt2(&a);
    ASSERT_EQ(tokenizer_vocab(t), 50257);
    ASSERT_EQ(tokenizer_bos(t), 50256);
    ASSERT_EQ(tokenizer_eos(t), 50256);
    ASSERT_STR(tokenizer_kind(t), "byte-level BPE");
    ASSERT_EQ(run_jsonl(t, DATA "gpt2/vectors.jsonl", true), 64);
    run_llama_cpp(t, DATA "llama2/ggml-vocab-llama-spm.gguf.inp", DATA "gpt2/ggml-vocab-gpt-2.gguf.out", 46);
    expect_corpus(t, DATA "text/tinystories-valid.txt", 195558,
                  "829e0e20969269279c49f3ee51c3671ddd470f7e54fd05d7f3811a5c90891d6e");
    clean(&a);
}

/* The same tokens as a rank file: other merging tables, equal ids. */
TEST(tokenizer_bpe, gpt2_ranks)
{
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    Arena a = {.name = "test"};
    Err e = {0};
    const Pipeline *p = open_gpt2(&a)->impl;
    TokText all = {0};
    for (int32_t id = 0; id < 50256; id++) {
        const TokSpan x = p->model->piece(p->impl, id);
        char line[1024];
        size_t n = 0;
        for (size_t i = 0; i < x.n; i += 3) {
            unsigned v = 0;
            for (size_t k = 0; k < 3; k++) v = v << 8 | (i + k < x.n ? (unsigned char)x.s[i + k] : 0);
            for (int k = 3; k >= 0; k--) line[n++] = i + (size_t)(3 - k) > x.n ? '=' : digit[v >> 6 * k & 63];
        }
        n += (size_t)snprintf(line + n, sizeof line - n, " %d\n", id);
        ASSERT(text_put(&all, line, n, &a, &e));
    }
    const char *path = path_join(&a, folder(&a), "gpt2.tiktoken", &e);
    ASSERT(file_write_atomic(path, all.s, all.n, &e));
    ASSERT(!tokenizer_open(path, &a, &e));
    ASSERT_CONTAINS(e.msg, "tokenizer.pattern");
    e = (Err){0};
    const TokenizerConfig wrong = {.pattern = "gpt5"}, how = {.pattern = "gpt2"};
    ASSERT(!tokenizer_open_as(path, &wrong, &a, &e));
    ASSERT_CONTAINS(e.msg, "cl100k");
    e = (Err){0};
    const Tokenizer *t = tokenizer_open_as(path, &how, &a, &e);
    ASSERT_OK(e);
    ASSERT_EQ(tokenizer_vocab(t), 50257);
    ASSERT_EQ(run_jsonl(t, DATA "gpt2/vectors.jsonl", true), 64);
    expect_corpus(t, DATA "text/tinystories-valid.txt", 195558,
                  "829e0e20969269279c49f3ee51c3671ddd470f7e54fd05d7f3811a5c90891d6e");
    clean(&a);
}

TEST(tokenizer_bpe, tokenizer_json_of_qwen2)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const Tokenizer *t = tokenizer_open(DATA "tiny-bpe-hf/tiny_bpe_tokenizer.json", &a, &e);
    ASSERT_OK(e);
    ASSERT_EQ(tokenizer_vocab(t), 2003);
    ASSERT_EQ(run_jsonl(t, DATA "tiny-bpe-hf/vectors.jsonl", false), 19);
    json_t *o = json_load_file(DATA "tiny-bpe-hf/chat-vector.json", 0, NULL);
    const char *text = json_string_value(json_object_get(o, "text"));
    TokenBuf got = {0};
    ASSERT(tokenizer_encode(t, text, strlen(text), false, &got, &a, &e));
    ASSERT_EQ(got.n, 188);
    for (size_t i = 0; i < got.n; i++)
        ASSERT_EQ(got.id[i], (int)json_integer_value(json_array_get(json_object_get(o, "ids"), i)));
    json_decref(o);
    arena_free(&a);
}

TEST(tokenizer_bpe, as_in_the_reference) { vectors_run(DATA "tokenizers/bpe.txt", 294); }

/* Any bytes come back from a byte-level vocabulary, valid UTF-8 or not. */
TEST(tokenizer_bpe, random_bytes_come_back)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const Tokenizer *t = tokenizer_open(DATA "tokenizers/bpe-bytelevel.json", &a, &e);
    ASSERT_OK(e);
    for (uint32_t i = 0; i < 400; i++) {
        unsigned char s[600];
        const RngKey key = {.seed = 7, .sample = i};
        const size_t n = rng_u32(key, 1000) % sizeof s;
        for (size_t k = 0; k < n; k++) {
            const uint32_t r = rng_u32(key, (uint32_t)k);
            static const unsigned char some[] = "\xC3\xA9 aA1\xE4\xBD\xA0";
            s[k] = i % 3 == 0   ? (unsigned char)r
                   : i % 3 == 1 ? some[r % 9]
                                : (unsigned char)(r % 5 ? r % 128 : r >> 8);
        }
        Arena one = {.name = "text"};
        TokenBuf ids = {0};
        size_t bytes, joined = 0;
        ASSERT(tokenizer_encode(t, (const char *)s, n, false, &ids, &one, &e));
        const char *back = tokenizer_decode(t, ids.id, ids.n, &bytes, &one, &e);
        ASSERT_MSG(back && bytes == n && memcmp(back, s, n) == 0, "text %u of %zu bytes", i, n);
        for (size_t k = 0, m; k < ids.n; k++, joined += m) {
            const char *p = tokenizer_piece(t, k ? ids.id[k - 1] : -1, ids.id[k], &m);
            ASSERT(joined + m <= n && memcmp(p, s + joined, m) == 0);
        }
        ASSERT_EQ(joined, n);
        arena_free(&one);
    }
    arena_free(&a);
}

/* Other kinds read malformed bytes as U+FFFD each, and never crash. */
TEST(tokenizer_bpe, malformed_text)
{
    static const char *const file[] = {"bpe-fallback.json", "bpe-unk.json",         "bpe-no-decoder.json",
                                       "bpe-flags.json",    "bpe-word-suffix.json", "bpe-missing-bytes.json"};
    for (size_t f = 0; f < 6; f++) {
        Arena a = {.name = "test"};
        Err e = {0};
        const Tokenizer *t = tokenizer_open(arena_printf(&a, &e, DATA "tokenizers/%s", file[f]), &a, &e);
        ASSERT_OK(e);
        for (uint32_t i = 0; i < 100; i++) {
            char s[200];
            for (uint32_t k = 0; k < sizeof s; k++) s[k] = (char)rng_u32((RngKey){.seed = f, .sample = i}, k);
            TokenBuf ids = {0};
            ASSERT(tokenizer_encode(t, s, sizeof s, false, &ids, &a, &e));
            ASSERT(tokenizer_decode(t, ids.id, ids.n, NULL, &a, &e));
        }
        TokenBuf bad = {0}, good = {0};
        ASSERT(tokenizer_encode(t, "a\xC3(\xFF", 4, false, &bad, &a, &e));
        ASSERT(tokenizer_encode(t, "a\xEF\xBF\xBD(\xEF\xBF\xBD", 8, false, &good, &a, &e));
        if (f < 3) ASSERT(bad.n == good.n && memcmp(bad.id, good.id, 4 * bad.n) == 0);
        arena_free(&a);
    }
}

/* At most 40 n log2 n heap moves and look-ups for n equal letters: cut into no words, and into one word. */
TEST(tokenizer_bpe, merge_steps_of_equal_letters)
{
    enum { N = 1 << 17 };
    Arena a = {.name = "test"};
    Err e = {0};
    char *text = arena_alloc(&a, N, &e);
    const Tokenizer *t[2] = {open_gpt2(&a), tokenizer_open(DATA "tokenizers/bpe-random-merges.json", &a, &e)};
    ASSERT_OK(e);
    for (int k = 0; k < 2; k++)
        for (const char *c = "ab =0"; *c; c++) {
            TokenBuf ids = {0};
            uint64_t steps = 0;
            memset(text, *c, N);
            ASSERT(t[k]->ops->encode(t[k], text, N, &ids, &steps, &a, &e));
            ASSERT_MSG((double)steps <= 40.0 * N * log2(N), "`%c`: %llu steps", *c,
                       (unsigned long long)steps);
            ASSERT(k == 1 || ids.n > 0);
        }
    clean(&a);
}

/* Short words look for the best pair each time, long ones keep a heap: the same ids. */
TEST(tokenizer_bpe, long_words_as_short_ones)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const Tokenizer *t = tokenizer_open(DATA "tokenizers/bpe-random-merges.json", &a, &e);
    ASSERT_OK(e);
    const Bpe *b = ((const Pipeline *)t->impl)->impl;
    for (uint32_t i = 0; i < 2000; i++) {
        char s[4 * BPE_LONG_WORD];
        int32_t got[4 * BPE_LONG_WORD], want[4 * BPE_LONG_WORD];
        const size_t n = 1 + i % (4 * BPE_LONG_WORD);
        for (uint32_t k = 0; k < n; k++)
            s[k] = (char)('a' + rng_u32((RngKey){.seed = 1, .sample = i}, k) % 4);
        size_t m = bpe_merge_word(b, s, n, got, NULL, &a, &e), w = n;
        for (size_t k = 0; k < n; k++) want[k] = bpe_find(b, s + k, 1);
        for (;;) {
            uint32_t best = UINT32_MAX;
            size_t at = 0;
            for (size_t k = 0; k + 1 < w; k++) {
                const BpeMerge *x = bpe_merge_of(b, want[k], want[k + 1]);
                if (x && x->rank < best) {
                    best = x->rank;
                    at = k;
                }
            }
            if (best == UINT32_MAX) break;
            want[at] = bpe_merge_of(b, want[at], want[at + 1])->made;
            memmove(want + at + 1, want + at + 2, (w - at - 2) * sizeof *want);
            w--;
        }
        ASSERT_EQ(m, w);
        ASSERT_EQ(memcmp(got, want, m * sizeof *got), 0);
    }
    arena_free(&a);
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]"
#define DOC(parts, model) "{\"version\":\"1.0\"," parts MODEL model "}}"

TEST(tokenizer_bpe, refused_by_name)
{
    static const char *const file[][2] = {
        {DOC("", ",\"dropout\":0.1"), "dropout"},
        {DOC("", ",\"magic\":1"), "model BPE: `magic`"},
        {DOC("\"normalizer\":{\"type\":\"Magic\"},", ""), "normalizer Magic"},
        {DOC("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"ByteLevel\"}]},", ""),
         "normalizer ByteLevel"},
        {DOC("\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"},", ""), "pre_tokenizer UnicodeScripts"},
        {DOC("\"pre_tokenizer\":{\"type\":\"Digits\",\"turbo\":true},", ""), "`turbo`"},
        {DOC("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
             "\"Digits\"}]},",
             ""),
         "a pre-tokenizer behind ByteLevel"},
        {DOC("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\bx\"},\"behavior\":"
             "\"Isolated\"},",
             ""),
         "\\b"},
        {DOC("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x\"},\"behavior\":\"Cubic\"},",
             ""),
         "Cubic"},
        {DOC("\"decoder\":{\"type\":\"CTC\"},", ""), "decoder CTC"},
        {DOC("\"post_processor\":{\"type\":\"Magic\"},", ""), "post_processor Magic"},
        {DOC("\"magic\":1,", ""), "`magic`"},
        {"{\"version\":\"2.0\"," MODEL "}}", "version 2.0"},
        {"{\"version\":\"1.0\",\"model\":{\"type\":\"WordLevel\",\"vocab\":{}}}", "model WordLevel"},
        {DOC("\"added_tokens\":[{\"id\":1,\"content\":\"a\"}],", ""), "in the vocabulary it is 0"},
        {DOC("\"added_tokens\":[{\"id\":9,\"content\":\"<x>\"}],", ""), "the next free one is 3"},
        {DOC("\"added_tokens\":[{\"id\":3,\"content\":7}],", ""), "`content` is not a string"},
        {"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
         "`b` is not in the vocabulary"},
        {"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}",
         "makes `aa`"},
        {"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}",
         "merges[0]"},
        {"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}",
         "same id"},
        {"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":999999999},\"merges\":[]}}",
         "usable id"},
        {"{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}",
         "duplicate"},
        {"{\"version\":", "x.json:1"},
    };
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        Arena a = {.name = "test"};
        Err e = {0};
        const char *path = written(file[i][0], "x.json", &a);
        ASSERT_MSG(!tokenizer_open(path, &a, &e), "accepted %s", file[i][0]);
        ASSERT_MSG(strstr(e.msg, file[i][1]) && strstr(e.msg, "x.json"), "`%s`, want `%s`", e.msg,
                   file[i][1]);
        clean(&a);
    }
}

/* A cut file is refused, at every length; nothing leaks or crashes. */
TEST(tokenizer_bpe, cut_files)
{
    Arena a = {.name = "test"};
    Err e = {0};
    size_t n;
    const char *text = file_read(&a, DATA "tokenizers/bpe-flags.json", &n, &e);
    const char *path = path_join(&a, folder(&a), "x.json", &e);
    for (size_t at = 1; at + 1 < n; at += 97) {
        Arena one = {.name = "cut"};
        Err why = {0};
        ASSERT(file_write_atomic(path, text, at, &e));
        ASSERT(!tokenizer_open(path, &one, &why));
        ASSERT_EQ(why.code, ERR_CORRUPT);
        arena_free(&one);
    }
    clean(&a);
}

TEST(tokenizer_bpe, files_beside)
{
    Arena a = {.name = "test"};
    Err e = {0};
    written("{\"a\":0,\"b\":1,\"ab\":2,\"<e>\":3}", "vocab.json", &a);
    written("#version: 0.2\na b\n", "merges.txt", &a);
    ASSERT(!tokenizer_open(folder(&a), &a, &e));
    ASSERT_CONTAINS(e.msg, "tokenizer.pattern");
    e = (Err){0};
    written("{\"tokenizer_class\":\"XlmTokenizer\"}", "tokenizer_config.json", &a);
    ASSERT(!tokenizer_open(folder(&a), &a, &e));
    ASSERT_CONTAINS(e.msg, "XlmTokenizer");
    e = (Err){0};
    written(
        "{\"tokenizer_class\":\"Qwen2TokenizerFast\",\"bos_token\":null,\"eos_token\":{\"content\":\"<e>\"},"
        "\"chat_template\":[{\"name\":\"tool\",\"template\":\"x\"},{\"name\":\"default\",\"template\":\"{{ y "
        "}}\"}]}",
        "tokenizer_config.json", &a);
    written("{\"<x>\":4}", "added_tokens.json", &a);
    const Tokenizer *t = tokenizer_open(folder(&a), &a, &e);
    ASSERT_OK(e);
    TokenBuf ids = {0};
    ASSERT(tokenizer_encode(t, "ab<x>a<e>", 9, true, &ids, &a, &e));
    static const int32_t want[] = {2, 4, 0, 3};
    ASSERT_EQ(ids.n, 4);
    ASSERT_EQ(memcmp(ids.id, want, sizeof want), 0);
    ASSERT_EQ(tokenizer_vocab(t), 5);
    ASSERT_EQ(tokenizer_bos(t), -1);
    ASSERT_EQ(tokenizer_eos(t), 3);
    ASSERT_STR(tokenizer_chat_template(t), "{{ y }}");
    written("{{ z }}", "chat_template.jinja", &a);
    t = tokenizer_open(folder(&a), &a, &e);
    ASSERT_STR(tokenizer_chat_template(t), "{{ z }}");
    clean(&a);
}

/* add_bos_token and add_eos_token of tokenizer_config.json, as transformers 5 has them for files without a
 * tokenizer.json, and the config beside a tokenizer.model. */
TEST(tokenizer_bpe, frames_of_the_config)
{
    Arena a = {.name = "test"};
    Err e = {0};
    size_t n;
    static const char *const more[] = {"", ",\"add_bos_token\":true",
                                       ",\"add_bos_token\":false,\"add_eos_token\":true",
                                       ",\"add_bos_token\":true,\"add_eos_token\":true"};
    static const char *const bpe[] = {"2", "3 2", "2 4", "3 2 4"}, *const spm[] = {"1 261", "1 261", "261 2",
                                                                                   "1 261 2"};
    const char *model = file_read(&a, DATA "stories/tok512.model", &n, &e);
    for (int kind = 0; kind < 2; kind++) {
        if (kind == 0) {
            written("{\"a\":0,\"b\":1,\"ab\":2,\"<s>\":3,\"</s>\":4}", "vocab.json", &a);
            written("a b\n", "merges.txt", &a);
        } else {
            ASSERT(file_write_atomic(path_join(&a, folder(&a), "tokenizer.model", &e), model, n, &e));
        }
        for (int i = 0; i < 4; i++) {
            TokenBuf ids = {0};
            char got[32] = "";
            written(arena_printf(&a, &e,
                                 "{\"tokenizer_class\":\"GPT2Tokenizer\",\"bos_token\":\"<s>\",\"eos_token\":"
                                 "\"</s>\"%s}",
                                 more[i]),
                    "tokenizer_config.json", &a);
            const Tokenizer *t = tokenizer_open(folder(&a), &a, &e);
            ASSERT_OK(e);
            ASSERT(tokenizer_encode_framed(t, kind ? "a" : "ab", kind ? 1 : 2, &ids, &a, &e));
            for (size_t k = 0; k < ids.n; k++)
                snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", k ? " " : "", ids.id[k]);
            ASSERT_STR(got, kind ? spm[i] : bpe[i]);
        }
    }
    written("{\"eos_token\":\"<|im_end|>\"}", "tokenizer_config.json", &a);
    ASSERT(!tokenizer_open(folder(&a), &a, &e));
    ASSERT_CONTAINS(e.msg, "eos_token `<|im_end|>` of tokenizer_config.json is not a piece of it");
    e = (Err){0};
    written("{\"bos_token\":null}", "tokenizer_config.json", &a);
    ASSERT_EQ(tokenizer_bos(tokenizer_open(folder(&a), &a, &e)), -1);
    written("{\"<s>\":1,\"<tool>\":512}", "added_tokens.json", &a);
    ASSERT(!tokenizer_open(folder(&a), &a, &e));
    ASSERT_CONTAINS(e.msg, "adds `<tool>`, which the model does not have");
    ASSERT(unlink(path_join(&a, folder(&a), "tokenizer.model", &(Err){0})) == 0);
    clean(&a);
}
