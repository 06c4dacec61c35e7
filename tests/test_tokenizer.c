/* tests/test_tokenizer.c: SentencePiece BPE against SentencePiece's own ids and texts (vectors of the model
 * folders, of llama.cpp, of tests/golden/make_spm.py, a whole corpus by its SHA-256), the cost of long runs,
 * broken models. */
#include "data/tokenizer_impl.h"
#include "tests/sha256_impl.h"
#include "tests/test.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STORIES "tests/data/stories/tok512.model"
#define LLAMA "tests/data/llama2/tokenizer.model"

typedef struct Bench {
    Arena a;
    Err e;
    Tokenizer *t;
} Bench;

static Bench open_model(const char *path)
{
    Bench b = {.a = {.name = "test"}};
    b.t = tokenizer_open(path, &b.a, &b.e);
    ASSERT_OK(b.e);
    return b;
}

static void expect_ids(Bench *b, const char *what, const char *text, size_t n, const int32_t *want,
                       size_t n_want)
{
    TokenBuf got = {0};
    ASSERT(tokenizer_encode(b->t, text, n, false, &got, &b->a, &b->e));
    ASSERT_MSG(got.n == n_want, "%s: `%.60s`: %zu ids, want %zu", what, text, got.n, n_want);
    for (size_t i = 0; i < n_want; i++)
        ASSERT_MSG(got.id[i] == want[i], "%s: `%.60s`: id %zu is %d, want %d", what, text, i, got.id[i],
                   want[i]);
}

static void expect_text(Bench *b, const char *what, const int32_t *ids, size_t n, const char *want,
                        size_t n_want)
{
    size_t bytes = 0;
    const char *got = tokenizer_decode(b->t, ids, n, &bytes, &b->a, &b->e);
    ASSERT_OK(b->e);
    ASSERT_MSG(bytes == n_want && memcmp(got, want, bytes) == 0, "%s: decoded `%s`, want `%s`", what, got,
               want);
    ASSERT_EQ(got[bytes], 0);
}

/* Numbers of a list up to a character that is neither digit, blank nor comma. */
static size_t numbers(const char *s, int32_t *v)
{
    size_t n = 0;
    for (char *end; s += strspn(s, " ,"), *s >= '0' && *s <= '9'; s = end)
        v[n++] = (int32_t)strtol(s, &end, 10);
    return n;
}

/* The JSON string that follows "key":, unescaped into out; returns its length. */
static size_t json_string(const char *line, const char *key, char *out)
{
    const char *s = strstr(line, key);
    size_t n = 0;
    ASSERT_MSG(s, "no %s", key);
    s = strchr(s + strlen(key), '"') + 1;
    for (; *s != '"'; s++) {
        if (*s != '\\') {
            out[n++] = *s;
            continue;
        }
        s++;
        const char *const from = "nrt", *hit = strchr(from, *s);
        ASSERT_MSG(hit || *s == '"' || *s == '\\', "escape \\%c", *s);
        out[n++] = hit ? "\n\r\t"[hit - from] : *s;
    }
    out[n] = 0;
    return n;
}

static void run_jsonl(const char *model, const char *vectors, int want_lines)
{
    static char text[4096];
    static int32_t ids[4096];
    Bench b = open_model(model);
    int lines = 0;
    char *save, *file = file_read(&b.a, vectors, NULL, &b.e);
    ASSERT_OK(b.e);
    for (char *line = strtok_r(file, "\n", &save); line; line = strtok_r(NULL, "\n", &save), lines++) {
        const size_t n_ids = numbers(strstr(line, "\"ids\": [") + 8, ids),
                     n = json_string(line, "\"text\":", text);
        expect_ids(&b, vectors, text, n, ids, n_ids);
        const size_t m = json_string(line, "\"decoded\":", text);
        expect_text(&b, vectors, ids, n_ids, text, m);
    }
    ASSERT_EQ(lines, want_lines);
    arena_free(&b.a);
}

TEST(tokenizer, stories_vectors) { run_jsonl(STORIES, "tests/data/stories/vectors.jsonl", 16); }
TEST(tokenizer, llama2_vectors) { run_jsonl(LLAMA, "tests/data/llama2/vectors.jsonl", 16); }

TEST(tokenizer, llama_cpp_vectors)
{
    static const char mark[] = "\n__ggml_vocab_test__\n";
    static int32_t ids[4096];
    Bench b = open_model(LLAMA);
    size_t bytes;
    const char *in = file_read(&b.a, "tests/data/llama2/ggml-vocab-llama-spm.gguf.inp", &bytes, &b.e);
    const char *out = file_read(&b.a, "tests/data/llama2/ggml-vocab-llama-spm.gguf.out", NULL, &b.e);
    ASSERT_OK(b.e);
    int cases = 0;
    for (const char *next; *in || *out; in = next, cases++) {
        const char *end = strstr(in, mark);
        next = end ? end + strlen(mark) : in + strlen(in);
        expect_ids(&b, "llama.cpp", in, end ? (size_t)(end - in) : strlen(in), ids, numbers(out, ids));
        out = strchr(out, '\n') + 1;
    }
    ASSERT_EQ(cases, 46);
    arena_free(&b.a);
}

static size_t unhex(const char *s, char *out)
{
    size_t n = 0;
    for (unsigned v; sscanf(s + 2 * n, "%2x", &v) == 1; n++) out[n] = (char)v;
    out[n] = 0;
    return n;
}

/* User-defined and unused pieces, no byte fallback, other whitespace rules, malformed UTF-8: make_spm.py. */
TEST(tokenizer, variants_and_malformed_text)
{
    static char text[4096];
    static int32_t ids[4096];
    Bench b = {.a = {.name = "test"}};
    int lines = 0;
    char *line, *file = file_read(&b.a, "tests/data/spm/vectors.txt", NULL, &b.e);
    ASSERT_OK(b.e);
    while ((line = strsep(&file, "\n")) && *line) {
        const char *model = strsep(&line, "\t"), *in = strsep(&line, "\t"), *list = strsep(&line, "\t");
        if (!b.t || strcmp(tokenizer_path(b.t), model) != 0) b.t = tokenizer_open(model, &b.a, &b.e);
        ASSERT_OK(b.e);
        const size_t n_ids = numbers(list, ids);
        if (*in != '-') expect_ids(&b, model, text, unhex(in, text), ids, n_ids);
        const size_t n = unhex(line, text);
        expect_text(&b, model, ids, n_ids, text, n);
        lines++;
    }
    ASSERT_EQ(lines, 712);
    arena_free(&b.a);
}

/* ---- whole corpus ------------------------------------------------------------------------------------- */

/* Each line on its own, as golden.json of the shared vectors says. */
static void run_golden(const char *model, size_t n_ids, const char *sha)
{
    Bench b = open_model(model);
    TokenBuf ids = {0};
    char hex[65];
    char *line, *file = file_read(&b.a, "tests/data/text/tinystories-valid.txt", NULL, &b.e);
    ASSERT_OK(b.e);
    while ((line = strsep(&file, "\n")))
        ASSERT(tokenizer_encode(b.t, line, strlen(line), false, &ids, &b.a, &b.e));
    ASSERT_EQ(ids.n, n_ids);
    sha256_hex(hex, (const unsigned char *)ids.id, 4 * ids.n);
    ASSERT_STR(hex, sha);
    arena_free(&b.a);
}

TEST(tokenizer, sha256_of_the_tests)
{
    char hex[65];
    sha256_hex(hex, (const unsigned char *)"abc", 3);
    ASSERT_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(tokenizer, corpus_stories)
{
    run_golden(STORIES, 380549, "2143dd26dd7ba44dd9d0504183f1710c95553c1bc428b6dd4601abd5bb85c946");
}

TEST(tokenizer, corpus_llama2)
{
    run_golden(LLAMA, 203273, "572503379b0c2fc50ca76ab70d3460d68a3a5706e585db775de676bc868dfebf");
}

/* ---- cost --------------------------------------------------------------------------------------------- */

TEST(tokenizer, merge_steps_of_equal_letters)
{
    enum { N = 100000 };
    static char text[N];
    Bench b = open_model(LLAMA);
    for (const char *c = "a= -e"; *c; c++) {
        TokenBuf ids = {0};
        uint64_t steps = 0;
        memset(text, *c, N);
        ASSERT(b.t->ops->encode(b.t, text, N, &ids, &steps, &b.a, &b.e));
        ASSERT_MSG(steps >= N, "%c: only %llu steps counted", *c, (unsigned long long)steps);
        ASSERT_MSG((double)steps <= 40.0 * N * log2(N), "%c: %llu steps", *c, (unsigned long long)steps);
        ASSERT(ids.n < N);
    }
    arena_free(&b.a);
}

/* ---- the rest of the interface ------------------------------------------------------------------------ */

TEST(tokenizer, bytes)
{
    Bench b = open_model("bytes");
    TokenBuf ids = {0};
    char all[256];
    for (int i = 0; i < 256; i++) all[i] = (char)i;
    ASSERT(tokenizer_encode(b.t, all, 256, true, &ids, &b.a, &b.e));
    ASSERT_EQ(ids.n, 257);
    ASSERT_EQ(ids.id[0], 256);
    for (int i = 0; i < 256; i++) ASSERT_EQ(ids.id[i + 1], i);
    expect_text(&b, "bytes", ids.id, ids.n, all, 256);
    ASSERT_EQ(tokenizer_vocab(b.t), 257);
    ASSERT_EQ(tokenizer_bos(b.t), 256);
    size_t n;
    ASSERT_EQ(tokenizer_piece(b.t, 256, 'x', &n)[0], 'x');
    ASSERT_EQ(n, 1);
    tokenizer_piece(b.t, 'x', 256, &n);
    ASSERT_EQ(n, 0);
    arena_free(&b.a);
}

TEST(tokenizer, specials_and_identity)
{
    Bench a = open_model(STORIES), b = open_model("tests/data/stories/tok512.model"),
          c = open_model("tests/data/spm/trim.model");
    ASSERT_EQ(tokenizer_vocab(a.t), 512);
    ASSERT_EQ(tokenizer_bos(a.t), 1);
    ASSERT_EQ(tokenizer_eos(a.t), 2);
    ASSERT_EQ(strlen(tokenizer_hash(a.t)), 32);
    ASSERT_STR(tokenizer_hash(a.t), tokenizer_hash(b.t));
    ASSERT(strcmp(tokenizer_hash(a.t), tokenizer_hash(c.t)) != 0);
    Bench d = open_model("tests/data/llama2"); /* a folder */
    ASSERT_EQ(tokenizer_vocab(d.t), 32000);
    TokenBuf ids = {0};
    ASSERT(tokenizer_encode(a.t, "a", 1, true, &ids, &a.a, &a.e));
    ASSERT_EQ(ids.n, 2);
    ASSERT_EQ(ids.id[0], 1);
    ASSERT_EQ(ids.id[1], 261);
    const int32_t out[] = {261, 512}, below[] = {-1};
    ASSERT(!tokenizer_decode(a.t, out, 2, NULL, &a.a, &a.e));
    ASSERT_CONTAINS(a.e.msg, "id 512 at position 1");
    ASSERT(!tokenizer_decode(b.t, below, 1, NULL, &b.a, &b.e));
    ASSERT_EQ(b.e.code, ERR_CORRUPT);
    Bench *const all[] = {&a, &b, &c, &d};
    for (int i = 0; i < 4; i++) arena_free(&all[i]->a);
}

/* Pieces one by one give the text that decoding gives at once. */
TEST(tokenizer, pieces_join_to_the_text)
{
    static const char text[] =
        "Once upon a time, there was a caf\xC3\xA9 \xF0\x9F\x98\x80\nand \xE4\xBD\xA0.";
    Bench b = open_model(LLAMA);
    TokenBuf ids = {0};
    char joined[256];
    size_t n = 0, m;
    ASSERT(tokenizer_encode(b.t, text, strlen(text), true, &ids, &b.a, &b.e));
    for (size_t i = 0; i < ids.n; i++) {
        const char *s = tokenizer_piece(b.t, i ? ids.id[i - 1] : -1, ids.id[i], &m);
        ASSERT_EQ(s[m], 0);
        memcpy(joined + n, s, m);
        n += m;
    }
    joined[n] = 0;
    ASSERT_STR(joined, text);
    arena_free(&b.a);
}

/* ---- broken files ------------------------------------------------------------------------------------- */

static Err open_bytes(const void *data, size_t n, Tokenizer **t)
{
    static char path[512];
    Arena a = {.name = "test"};
    Err e = {0};
    snprintf(path, sizeof path, "%s/x.model", test_dir());
    FILE *f = fopen(path, "wb");
    ASSERT(f && (n == 0 || fwrite(data, 1, n, f) == n) && fclose(f) == 0);
    Tokenizer *got = tokenizer_open(path, &a, &e);
    ASSERT((got == NULL) == (e.code != ERR_OK));
    if (got) {
        TokenBuf ids = {0};
        ASSERT(tokenizer_encode(got, "Hello \xFFworld", 12, true, &ids, &a, &e));
        ASSERT(tokenizer_decode(got, ids.id, ids.n, NULL, &a, &e));
    }
    if (t) *t = got;
    arena_free(&a);
    return e;
}

TEST(tokenizer, truncated_and_flipped_models)
{
    Arena a = {.name = "test"};
    Err e = {0};
    size_t n;
    char *model = file_read(&a, STORIES, &n, &e);
    Tokenizer *t;
    int refused = 0;
    ASSERT_OK(e);
    for (size_t k = 0; k < n; k += k < 64 || k > n - 256 ? 1 : 61) {
        open_bytes(model, k, &t);
        refused += t == NULL;
    }
    ASSERT(refused > 300); /* all but cuts between the last fields */
    for (size_t k = 0; k < 600; k++) {
        const size_t at = k < 200 ? k : k < 400 ? n - 1 - (k - 200) : k * 7919 % n;
        const char old = model[at];
        model[at] = (char)(old ^ (1 << (k % 8)));
        open_bytes(model, n, NULL);
        model[at] = old;
    }
    arena_free(&a);
}

/* A model of the pieces <unk>, <s> and `third`, and a trainer_spec and normalizer_spec as given. */
static size_t small_model(char *out, const char *third, size_t n_third, const char *specs, size_t n_specs)
{
    static const char head[] = "\x0A\x09\x0A\x05<unk>\x18\x02"
                               "\x0A\x07\x0A\x03<s>\x18\x03";
    size_t n = sizeof head - 1;
    memcpy(out, head, n);
    out[n++] = 0x0A;
    out[n++] = (char)n_third;
    memcpy(out + n, third, n_third);
    memcpy(out + n + n_third, specs, n_specs);
    return n + n_third + n_specs;
}

#define A "\x0A\x01\x61"                        /* the text of a piece: a */
#define BPE "\x12\x02\x18\x02"                  /* trainer_spec: model_type */
#define FALLBACK "\x12\x05\x18\x02\x98\x02\x01" /* and byte_fallback */
#define BYTES(s) s, sizeof(s) - 1

TEST(tokenizer, refused_by_name)
{
    typedef struct Case {
        const char *third;
        size_t n3;
        const char *specs;
        size_t ns;
        ErrCode code;
        const char *part;
    } Case;
    static const Case c[] = {
        {BYTES(A), BYTES(BPE), ERR_OK, ""},
        {BYTES(A), BYTES("\x12\x02\x18\x01"), ERR_OK, ""},
        {BYTES(A), BYTES(""), ERR_OK, ""},
        {BYTES(A), BYTES("\x12\x02\x18\x04"), ERR_USAGE, "char: not in this version"},
        {BYTES(A), BYTES("\x12\x02\x18\x03"), ERR_USAGE, "word"},
        {BYTES(A), BYTES("\x12\x05\x18\x02\xC0\x01\x01"), ERR_USAGE, "treat_whitespace_as_suffix"},
        {BYTES(A), BYTES(BPE "\x1A\x08\x0A\x03nfx\x12\x01q"), ERR_CORRUPT, "the character map is damaged"},
        {BYTES(A), BYTES(BPE "\x2A\x08\x0A\x03nfx\x12\x01q"), ERR_USAGE, "denormalizer `nfx`"},
        {BYTES("\x0A\x03<s>"), BYTES(BPE), ERR_CORRUPT, "pieces 1 and 2 have the same text"},
        {BYTES(A "\x18\x02"), BYTES(BPE), ERR_CORRUPT, "two unknown pieces"},
        {BYTES(A "\x18\x07"), BYTES(BPE), ERR_CORRUPT, "unknown type 7"},
        {BYTES("\x0A\x00"), BYTES(BPE), ERR_CORRUPT, "is empty"},
        {BYTES("\x0A\x01\xFF"), BYTES(BPE), ERR_CORRUPT, "is not UTF-8"},
        {BYTES(A "\x15\x00\x00\xC0\x7F"), BYTES(BPE), ERR_CORRUPT, "not finite"},
        {BYTES(A "\x18\x06"), BYTES(FALLBACK), ERR_CORRUPT, "not named <0x00>"},
        {BYTES("\x0A\x06<0x41>\x18\x06"), BYTES(BPE), ERR_CORRUPT, "without byte_fallback"},
        {BYTES("\x0A\x06<0x41>\x18\x06"), BYTES(FALLBACK), ERR_CORRUPT, "without the piece <0x00>"},
        {BYTES("\x0A\x09\x61"), BYTES(BPE), ERR_CORRUPT, "longer than its message"},
        {BYTES("\x0B\x01\x61"), BYTES(BPE), ERR_CORRUPT, "bad wire type"},
        {BYTES(A), BYTES(BPE "\xFF"), ERR_CORRUPT, "cut off"},
    };
    static char buf[256];
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        const Err e = open_bytes(buf, small_model(buf, c[i].third, c[i].n3, c[i].specs, c[i].ns), NULL);
        ASSERT_MSG(e.code == c[i].code, "case %zu: code %d, %s", i, (int)e.code, e.msg);
        if (c[i].code) ASSERT_CONTAINS(e.msg, c[i].part);
    }
    const Err empty = open_bytes("", 0, NULL);
    ASSERT_CONTAINS(empty.msg, "no pieces");
}

TEST(tokenizer, paths_not_read)
{
    static const char *const path[][2] = {{"tok512.bin", "give the tokenizer.model"},
                                          {"tests/data/text", "no tokenizer.json"},
                                          {"tests/data/none.model", "none.model"},
                                          {"tests/data/none.json", "none.json"}};
    for (size_t i = 0; i < sizeof path / sizeof *path; i++) {
        Arena a = {.name = "test"};
        Err e = {0};
        ASSERT(!tokenizer_open(path[i][0], &a, &e));
        ASSERT_CONTAINS(e.msg, path[i][0]);
        ASSERT_CONTAINS(e.msg, path[i][1]);
        arena_free(&a);
    }
}

TEST(tokenizer, out_of_memory)
{
    for (long k = 1; k < 3000; k++) {
        Arena a = {.name = "test"};
        Err e = {0};
        TokenBuf ids = {0};
        arena_fail_at(k);
        Tokenizer *t = tokenizer_open(STORIES, &a, &e);
        const bool ok = t && tokenizer_encode(t, "Once upon", 9, true, &ids, &a, &e) &&
                        tokenizer_decode(t, ids.id, ids.n, NULL, &a, &e);
        arena_fail_at(0);
        ASSERT(ok == (e.code == ERR_OK));
        arena_free(&a);
        if (ok) return;
        ASSERT_EQ(e.code, ERR_MEMORY);
    }
    test_fail(__FILE__, __LINE__, "never succeeds");
}
