/* bench/tokenizers.c: text -> ids, MB/s on one thread, and a line of a million equal letters; beside it
 * tiktoken, Hugging Face tokenizers and SentencePiece on the same files in the same run
 * (bench/peers/text_ids.py), whose ids must be the same: CRC-32 of them as little-endian int32.
 */
#include "bench/bench.h"
#include "data/data.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#define DIR "build/bench/tokenizers/"
#define STORIES "tests/data/text/tinystories-train.txt"
#define OUT "build/bench/child.out"
#define ERR "build/bench/child.err"

/* kind: what the peers make of the path (gpt2; llama3 = GPT-2's merges behind Llama 3's pattern; spm). mode:
 * the text as its documents, as one text, or a million letters `a` in its place. */
static const struct Case {
    const char *name, *kind, *path, *text, *mode;
} cases[] = {
    {"GPT-2, English stories", "gpt2", DIR "vocab.json", STORIES, "documents"},
    {"GPT-2, Shakespeare in one text", "gpt2", DIR "vocab.json", "tests/data/text/tinyshakespeare.txt",
     "one"},
    {"GPT-2, a line of 1,000,000 equal letters", "gpt2", DIR "vocab.json", STORIES, "equal"},
    {"GPT-2's merges, Llama 3's pattern", "llama3", DIR "vocab.json", STORIES, "documents"},
    {"SentencePiece BPE, 32,000 pieces", "spm", "tests/data/llama2/tokenizer.model", STORIES, "documents"},
    {"SentencePiece BPE, a line of 1,000,000 letters", "spm", "tests/data/llama2/tokenizer.model", STORIES,
     "equal"},
    {"SentencePiece unigram, 8,000 pieces", "spm", "tests/data/unigram/botchan.model", STORIES, "documents"},
};
enum { N_CASE = sizeof cases / sizeof *cases };

typedef struct Job {
    const Tokenizer *tk;
    char **doc; /* (n) NUL-terminated */
    size_t *bytes, n, total;
    size_t ids;
    uint32_t crc;
    Err e;
} Job;

/* Unpacks a carried .gz once. */
static bool unpack(const char *from, const char *to, Err *e)
{
    Arena a = {.name = "bench"};
    enum { MOST = 4 << 20 };
    if (file_exists(to)) return true;
    char *s = arena_alloc(&a, MOST, e);
    gzFile f = s ? gzopen(from, "rb") : NULL;
    const int n = f ? gzread(f, s, MOST) : -1;
    if (f) gzclose(f);
    const bool ok = n > 0 && n < MOST ? file_write_atomic(to, s, (size_t)n, e)
                                      : e->code || err_set(e, ERR_FAIL, "%s: cannot be unpacked", from);
    arena_free(&a);
    return ok && !e->code;
}

static bool documents(Job *j, const struct Case *c, Arena *a)
{
    static const char mark[] = "<|endoftext|>";
    size_t n, cap = 1;
    char *s = file_read(a, c->text, &n, &j->e);
    const bool equal = !strcmp(c->mode, "equal"), split = !strcmp(c->mode, "documents");
    if (s && equal && (s = arena_alloc(a, 1000001, &j->e)) != NULL) memset(s, 'a', n = 1000000);
    for (char *p = s; p && split && (p = strstr(p, mark)) != NULL; p += sizeof mark - 1) cap++;
    j->doc = arena_alloc(a, cap * sizeof *j->doc, &j->e);
    j->bytes = arena_alloc(a, cap * sizeof *j->bytes, &j->e);
    j->n = j->total = 0;
    for (char *end; !j->e.code && s; s = end) {
        char *hit = split ? strstr(s, mark) : NULL;
        j->bytes[j->n] = hit ? (size_t)(hit - s) : strlen(s);
        j->total += j->bytes[j->n];
        j->doc[j->n++] = s;
        end = hit ? hit + sizeof mark - 1 : NULL;
    }
    return !j->e.code;
}

static void encode(void *x)
{
    Job *j = x;
    Arena a = {.name = "bench"};
    j->ids = 0;
    j->crc = 0;
    for (size_t i = 0; i < j->n && !j->e.code; i++) {
        const ArenaMark mark = arena_mark(&a);
        TokenBuf ids = {0};
        tokenizer_encode(j->tk, j->doc[i], j->bytes[i], false, &ids, &a, &j->e);
        j->ids += ids.n;
        j->crc = (uint32_t)crc32(j->crc, (const unsigned char *)ids.id, (unsigned)(ids.n * sizeof *ids.id));
        arena_release(&a, mark);
    }
    arena_free(&a);
}

static void row(const Bench *b, const char *name, const char *engine, double mb, double s, double spread,
                int n, const char *more)
{
    printf("  %-46s %-14s %8.1f MB/s %9.1f ms (spread %.0f %%, n %d)%s\n", name, engine, mb / s, 1e3 * s,
           spread, n, more);
    bench_line(b,
               "{\"part\": \"tokenizers\", \"what\": \"%s\", \"engine\": \"%s\", \"mb\": %.3f, \"ms\": %.3f, "
               "\"mbs\": %.2f, \"spread\": %.3f, \"n\": %d}",
               name, engine, mb, 1e3 * s, mb / s, spread / 100, n);
    fflush(stdout);
}

/* What the peers said of this case, one JSON object a line. False when ids differ. */
static bool peers(const Bench *b, const struct Case *c, const Job *j, const char *python)
{
    char *argv[] = {(char *)(uintptr_t)python,
                    (char[]){"bench/peers/text_ids.py"},
                    (char *)(uintptr_t)c->kind,
                    (char *)(uintptr_t)c->path,
                    (char *)(uintptr_t)c->text,
                    (char *)(uintptr_t)c->mode,
                    b->quick ? (char[]){"0.3"} : (char[]){"1"},
                    b->cpu_time ? (char[]){"--cpu-time"} : NULL,
                    NULL};
    const Child child = bench_spawn(argv, OUT, ERR);
    Arena a = {.name = "bench"};
    Err e = {0};
    bool same = true;
    char *text = file_read(&a, OUT, NULL, &e), *line;
    while (text && (line = strsep(&text, "\n")) && *line) {
        json_t *o = json_loads(line, 0, NULL);
        const char *engine = json_string_value(json_object_get(o, "engine"));
        const double crc = json_number_value(json_object_get(o, "crc"));
        const bool equal = crc >= 0 && (uint32_t)crc == j->crc &&
                           (size_t)json_integer_value(json_object_get(o, "ids")) == j->ids;
        if (engine)
            row(b, c->name, engine, (double)j->total / 1e6, json_number_value(json_object_get(o, "s")),
                json_number_value(json_object_get(o, "spread")),
                (int)json_integer_value(json_object_get(o, "n")), equal ? ", same ids" : "  OTHER IDS");
        same = same && equal;
        json_decref(o);
    }
    if (child.status) printf("  %s: peers failed, see " ERR "\n", c->name);
    arena_free(&a);
    return same && child.status == 0;
}

bool bench_tokenizers(const Bench *b)
{
    const char *python = getenv("PEER_PYTHON");
    Arena a = {.name = "bench"};
    Job j = {0};
    bool ok = dir_make(DIR, &j.e) && unpack("tests/data/gpt2/encoder.json.gz", DIR "vocab.json", &j.e) &&
              unpack("tests/data/gpt2/vocab.bpe.gz", DIR "merges.txt", &j.e);
    log_set_level(LOG_WARN);
    bench_threads(b);
    bench_title("tokenizers, one thread, UTF-8 bytes in%s",
                python && *python
                    ? ""
                    : " (PEER_PYTHON=... names a Python with tiktoken, tokenizers, sentencepiece)");
    for (int i = 0; ok && i < N_CASE; i++) {
        const TokenizerConfig how = {.pattern = strcmp(cases[i].kind, "spm") ? cases[i].kind : NULL};
        if (!(j.tk = tokenizer_open_as(cases[i].path, &how, &a, &j.e)) || !documents(&j, &cases[i], &a))
            break;
        const Stat s = bench_time(encode, &j, b->quick ? 0.3 : 1, 3);
        if (j.e.code) break;
        row(b, cases[i].name, "pare", (double)j.total / 1e6, s.median, bench_spread(&s), s.n, "");
        if (python && *python) ok = peers(b, &cases[i], &j, python) && ok;
    }
    arena_free(&a);
    return bench_ok(&j.e, "tokenizers") && ok;
}
