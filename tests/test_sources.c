/* tests/test_sources.c: json sources, their errors, long texts cut between words, .h5 token files, and
 * `data tokenize` with its cursor. */
#include "data/source_impl.h"
#include "tests/data_impl.h"
#include "train/train.h"
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static Tokens load(SourceConfig s, const DataConfig *d, const Tokenizer *tk)
{
    Err e = {0};
    Tokens t;
    tokens_load(&t, &s, d, tk, 0, &arena, &e);
    ASSERT_OK(e);
    return t;
}

static void expect_error(SourceConfig s, const DataConfig *d, const Tokenizer *tk, ErrCode code,
                         const char *part)
{
    Err e = {0};
    Tokens t;
    ASSERT(!tokens_load(&t, &s, d, tk, 0, &arena, &e));
    ASSERT_MSG(e.code == code && strstr(e.msg, part), "code %d `%s`, want %d `%s`", (int)e.code, e.msg,
               (int)code, part);
}

/* Document i as text: ids below 256 are bytes, 256 is `#`; what is not trained is in upper case. */
static const char *doc_text(const Tokens *t, size_t i)
{
    static char out[4][512];
    static int turn;
    char *s = out[turn++ % 4];
    size_t n = 0;
    for (size_t k = t->doc[i]; k < t->doc[i + 1] && n < 511; k++) {
        const int c = t->id[k] == 256 ? '#' : t->id[k];
        const bool on = !t->target || t->target[k];
        s[n++] = (char)(!on && c >= 'a' && c <= 'z' ? c - 32 : !on && c == '#' ? '~' : c);
    }
    s[n] = 0;
    return s;
}

static SourceConfig text_source(const char *name, const char *text)
{
    return source_of(put_file(name, text, strlen(text)), NULL);
}

/* ---- json --------------------------------------------------------------------------------------------- */
TEST(sources, jsonl_field)
{
    const DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    SourceConfig s = text_source(
        "a.jsonl", "{\"text\": \"ab\"}\r\n\n  {\"x\": 1, \"text\": \"\"}\n{\"text\": \"c\\u00e9\\u0000\"}");
    Tokens t = load(s, &d, tk);
    ASSERT_EQ(t.n_doc, 2);
    ASSERT_EQ(t.count.documents, 2);
    ASSERT_EQ(t.count.empty, 1);
    ASSERT_EQ(t.bytes, 6);
    ASSERT_STR(doc_text(&t, 0), "#ab");
    ASSERT_EQ(t.n, 8);
    ASSERT_EQ(t.id[7], 0); /* an escaped NUL is a byte like others */
    ASSERT(!t.target);
    s = text_source("b.json",
                    "[{\"a\": {\"b\": [{\"c\": \"x[,]\"}]}},\n {\"a\": {\"b\": [{\"c\": \"\\\"y}\"}]}}\n]\n");
    s.field = "a.b.0.c";
    t = load(s, &d, tk);
    ASSERT_EQ(t.n_doc, 2);
    ASSERT_STR(doc_text(&t, 0), "#x[,]");
    ASSERT_STR(doc_text(&t, 1), "#\"y}");
    arena_free(&arena);
}

TEST(sources, json_errors_name_the_line)
{
    static const struct {
        const char *name, *text, *part;
    } c[] = {
        {"a.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\n", "a.jsonl:2: field `text` is a number"},
        {"a.jsonl", "{\"text\": \"a\"}\n\n{\"txt\": \"b\"}\n", "a.jsonl:3: field `text` is missing"},
        {"a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"\n", "a.jsonl:2: no valid JSON"},
        {"a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"\xFF\"}\n", "a.jsonl:2: no valid JSON"},
        {"a.jsonl", "{\"text\": \"a\"}\n\"b\"\n", "a.jsonl:2: a record is a string"},
        {"a.jsonl", "{\"text\": \"a\", \"text\": \"b\"}\n", "a.jsonl:1: no valid JSON"},
        {"a.json", "[{\"text\": \"a\"},\n\n {\"text\": null}]", "a.json:3: field `text` is null"},
        {"a.json", "[{\"text\": \"a\"}\n {\"text\": \"b\"}]", "a.json:2: no valid JSON"},
        {"a.json", "[{\"text\": \"a\"},\n]", "a.json:2: an array of records needs"},
        {"a.json", "[{\"text\": \"a\"}", "a.json:1: an array of records needs"},
        {"a.json", "[{\"text\": \"a\"}]\nx", "a.json:2: text behind the end"},
        {"a.json", "[{\"text\": \"a\"},\n {\"text\": \n\n ?}]", "a.json:4: no valid JSON"},
        {"a.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
         "a.jsonl:1: field `messages`: has no assistant turn"},
        {"a.jsonl", "{\"messages\": [{\"role\": \"bot\", \"content\": \"a\"}]}",
         "field `messages.0.role` is `bot`"},
        {"a.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": [1]}]}",
         "field `messages.0.content` is an array"},
        {"a.jsonl", "{\"prompt\": \"a\", \"completion\": \"\"}", "field `completion`: is empty"},
    };
    DataConfig d = data_defaults();
    d.chat_template = "chatml";
    const Tokenizer *tk = open_tokenizer("bytes");
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        expect_error(text_source(c[i].name, c[i].text), &d, tk, ERR_CORRUPT, c[i].part);
    expect_error(text_source("a.jsonl", "{\"q\": \"a\", \"r\": 1}"), &d, tk, ERR_USAGE,
                 "its fields are q, r: name one as `field`");
    d.chat_template = NULL;
    expect_error(text_source("a.jsonl", "{\"messages\": []}"), &d, tk, ERR_USAGE,
                 "set data.chat_template: chatml");
    SourceConfig s = text_source("a.jsonl", "{\"q\": \"a\"}");
    s.prompt_field = "q";
    expect_error(s, &d, tk, ERR_USAGE, "go together");
    s = source_of(s.path, "train[:5b]");
    expect_error(s, &d, tk, ERR_USAGE, "cut in percent");
    arena_free(&arena);
}

TEST(sources, bad_lines_are_counted)
{
    DataConfig d = data_defaults();
    d.on_bad_line = "skip";
    const Tokenizer *tk = open_tokenizer("bytes");
    const Tokens t = load(text_source("a.jsonl", "?\n{\"text\": \"a\"}\n{\"text\": 1}\n{\"text\": \"b\"}\n{"),
                          &d, tk);
    ASSERT_EQ(t.n_doc, 2);
    ASSERT_EQ(t.count.bad, 3);
    arena_free(&arena);
}

TEST(sources, json_splits_are_records)
{
    const DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    SourceConfig s = text_source(
        "a.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"text\": \"c\"}\n{\"text\": \"d\"}\n");
    s.split = "train[:75%]";
    ASSERT_EQ(load(s, &d, tk).n_doc, 3);
    s.split = "train[-25%:]";
    const Tokens t = load(s, &d, tk);
    ASSERT_EQ(t.n_doc, 1);
    ASSERT_STR(doc_text(&t, 0), "#d");
    arena_free(&arena);
}

/* ---- what is trained ---------------------------------------------------------------------------------- */
TEST(sources, prompt_and_response)
{
    DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    SourceConfig s = text_source("a.jsonl", "{\"q\": \"what? \", \"a\": \"that\"}\n");
    s.prompt_field = "q";
    s.response_field = "a";
    Tokens t = load(s, &d, tk);
    ASSERT_STR(doc_text(&t, 0), "~WHAT? that#");
    d.mask_prompt = false;
    t = load(s, &d, tk);
    ASSERT_STR(doc_text(&t, 0), "#what? that#");
    d.mask_prompt = true;
    d.chat_template = "zephyr";
    t = load(s, &d, tk);
    ASSERT_STR(doc_text(&t, 0), "<|USER|>\nWHAT? ~\n<|ASSISTANT|>\nthat#\n");
    arena_free(&arena);
}

TEST(sources, carried_files)
{
    DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    Tokens t = load(source_of("tests/data/instruct/alpaca.json", NULL), &d, tk);
    ASSERT_EQ(t.n_doc, 24);
    const char *first = doc_text(&t, 0);
    ASSERT_CONTAINS(first, "\n\n~~~ INPUT:\nFREIND --> FRIEND\n\n~~~ RESPONSE:\nThe spelling");
    d.chat_template = "chatml";
    t = load(source_of("tests/data/instruct/conversations.json", NULL), &d, tk);
    ASSERT_EQ(t.n_doc, 24);
    const char *turn = doc_text(&t, 2);
    ASSERT_CONTAINS(turn,
                    "<|IM_START|>USER\nWHAT IS UP?<|IM_END|>\n<|IM_START|>ASSISTANT\nHello! How can I help "
                    "you today?<|im_end|>\n<|IM_START|>USER\nWHO ARE YOU?");
    SourceConfig s = source_of("tests/data/instruct/gsm8k.jsonl", NULL);
    s.prompt_field = "question";
    s.response_field = "answer";
    ASSERT_EQ(load(s, &d, tk).n_doc, 24);
    arena_free(&arena);
}

/* ---- long texts --------------------------------------------------------------------------------------- */
/* Pieces of 4 KB encoded alone are the ids of the whole, for a tokenizer that merges across words' spaces. */
TEST(sources, cut_texts_keep_their_ids)
{
    static const char *const kinds[] = {"bytes", "tests/data/stories/tok512.model",
                                        "tests/data/llama2/tokenizer.model"};
    for (size_t i = 0; i < 3; i++) {
        Err e = {0};
        const Tokenizer *tk = open_tokenizer(kinds[i]);
        const SourceConfig s = source_of("tests/data/text/tinystories-valid.txt", "x[:100000b]");
        DataConfig d = data_defaults();
        d.eot = "append";
        const Tokens want = load(s, &d, tk);
        Paths p;
        FileKind kind;
        Reader r;
        Rule rule;
        Piece piece;
        Stream got = {0};
        int pieces = 0;
        ASSERT(source_open(&p, &kind, &s, tk, &arena, &e) &&
               reader_open(&r, &p, kind, &s, &d, tk, &arena, &e));
        ASSERT(rule_open(&rule, &r, &s, &d, &arena, &e));
        r.piece_bytes = 4096;
        while (reader_next(&r, &piece, &e)) {
            size_t bytes;
            ASSERT(rule_encode(&rule, &piece, &got, &bytes, &arena, &e));
            pieces++;
        }
        reader_close(&r);
        ASSERT(pieces >= 18);
        ASSERT_EQ(got.ids.n, want.n);
        ASSERT_BYTES(got.ids.id, want.id, want.n * 4);
        arena_free(&arena);
    }
}

/* ---- .h5 ---------------------------------------------------------------------------------------------- */
TEST(sources, hdf5_keeps_targets_and_documents)
{
    Err e = {0};
    DataConfig d = data_defaults();
    d.chat_template = "chatml";
    const Tokenizer *tk = open_tokenizer("bytes");
    const Tokens t = load(source_of("tests/data/instruct/conversations.json", NULL), &d, tk);
    const char *path = path_join(&arena, test_dir(), "t.h5", &e);
    ASSERT(tokens_h5_write(path, &t, tokenizer_hash(tk), &arena, &e));
    expect_error(source_of(path, NULL), &d, NULL, ERR_USAGE, "reads no HDF5");
    tokens_h5_enable();
    const Tokens u = load(source_of(path, NULL), &d, NULL);
    ASSERT_EQ(u.n, t.n);
    ASSERT_EQ(u.n_doc, t.n_doc);
    ASSERT_BYTES(u.id, t.id, t.n * 4);
    ASSERT_BYTES(u.target, t.target, t.n);
    ASSERT_BYTES(u.doc, t.doc, (t.n_doc + 1) * sizeof *t.doc);
    const SourceConfig s = source_of(path, NULL);
    Tokens v;
    ASSERT(!tokens_load(&v, &s, &d, NULL, 100, &arena, &e));
    ASSERT_CONTAINS(e.msg, "but the vocabulary has 100");
    arena_free(&arena);
}

/* ---- data tokenize ------------------------------------------------------------------------------------ */
static volatile int stop_now;
static int64_t stop_behind;
static void stop_after(double done, int64_t tokens, double seconds)
{
    (void)done, (void)seconds;
    if (tokens > stop_behind) stop_now = 1;
}

/* 40 files' worth of stories in one json-lines file, several batches long. */
static const char *big_jsonl(long records)
{
    const char *path = path_join(&arena, test_dir(), "big.jsonl", &(Err){0});
    FILE *f = fopen(path, "wb");
    ASSERT(f);
    for (long i = 0; i < records; i++)
        fprintf(f, "{\"id\": %ld, \"text\": \"Story %ld: once upon a time there were %ld mice.\"}\n", i, i,
                i * i);
    fclose(f);
    return path;
}

static const char *bytes_of(const char *path, size_t *n)
{
    Err e = {0};
    const char *s = file_read(&arena, path, n, &e);
    ASSERT_OK(e);
    return s;
}

TEST(tokenize, resumes_to_the_same_bytes)
{
    enum { N_DOC = SIZED(16000, 8000) };
    Err e = {0};
    DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("tests/data/stories/tok512.model");
    const SourceConfig s = source_of(big_jsonl(N_DOC), NULL);
    TokenizeJob job = {
        .source = &s, .n_source = 1, .data = &d, .tk = tk, .stop = &stop_now, .progress = stop_after};
    TokenizeResult r;
    size_t n, m;
    job.out = path_join(&arena, test_dir(), "whole.bin", &e);
    stop_behind = INT64_MAX;
    ASSERT(tokenize_run(&job, &r, &e));
    ASSERT_EQ(r.documents, N_DOC);
    const char *want = bytes_of(job.out, &n);
    ASSERT_EQ(n, 1024 + 2 * (size_t)r.tokens);
    const Tokens t = load(s, &d, tk), u = load(source_of(job.out, NULL), &d, NULL);
    ASSERT_EQ(t.n, u.n);
    ASSERT_BYTES(t.id, u.id, t.n * 4);
    job.out = path_join(&arena, test_dir(), "parts.bin", &e);
    int runs = 0;
    for (r.stopped = true; r.stopped; runs++) {
        stop_now = 0;
        stop_behind = r.tokens / 2 * (runs > 0);
        ASSERT(runs < 30);
        ASSERT_MSG(tokenize_run(&job, &r, &e), "%s", e.msg);
        ASSERT_EQ(file_exists(job.out), !r.stopped);
        if (runs > 0) ASSERT(r.resumed_tokens > 0);
    }
    ASSERT(runs > 2);
    const char *got = bytes_of(job.out, &m);
    ASSERT_EQ(n, m);
    ASSERT_BYTES(got, want, n);
    ASSERT(!file_exists(arena_printf(&arena, &e, "%s.part", job.out)));
    ASSERT(!file_exists(arena_printf(&arena, &e, "%s.part.cursor", job.out)));
    arena_free(&arena);
}

/* A process that is killed anywhere leaves what the next one goes on from. */
TEST(tokenize, survives_a_kill)
{
    Err e = {0};
    const DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("tests/data/stories/tok512.model");
    const SourceConfig s = source_of(big_jsonl(SIZED(40000, 8000)), NULL);
    TokenizeJob job = {.source = &s, .n_source = 1, .data = &d, .tk = tk};
    TokenizeResult r;
    job.out = path_join(&arena, test_dir(), "killed.bin", &e);
    for (int i = 0; i < 4; i++) {
        const pid_t child = fork();
        ASSERT(child >= 0);
        if (child == 0) {
            Err own = {0};
            _exit(!tokenize_run(&job, &r, &own));
        }
        usleep((useconds_t)(60000 + 90000 * i));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    ASSERT_MSG(tokenize_run(&job, &r, &e), "%s", e.msg);
    size_t n, m;
    const char *got = bytes_of(job.out, &n);
    job.out = path_join(&arena, test_dir(), "whole.bin", &e);
    ASSERT(tokenize_run(&job, &r, &e));
    const char *want = bytes_of(job.out, &m);
    ASSERT_EQ(n, m);
    ASSERT_BYTES(got, want, n);
    arena_free(&arena);
}

TEST(tokenize, bad_input_leaves_nothing)
{
    Err e = {0};
    const DataConfig d = data_defaults();
    const Tokenizer *tk = open_tokenizer("bytes");
    SourceConfig s = text_source("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 2}\n");
    TokenizeJob job = {.source = &s,
                       .n_source = 1,
                       .data = &d,
                       .tk = tk,
                       .out = path_join(&arena, test_dir(), "bad.bin", &e)};
    TokenizeResult r;
    ASSERT(!tokenize_run(&job, &r, &e));
    ASSERT_CONTAINS(e.msg, "bad.jsonl:2: field `text`");
    ASSERT(!file_exists(job.out) && !file_exists(arena_printf(&arena, &(Err){0}, "%s.part", job.out)));
    e = (Err){0};
    s = text_source("p.jsonl", "{\"prompt\": \"a\", \"completion\": \"b\"}");
    ASSERT(!tokenize_run(&job, &r, &e));
    ASSERT_CONTAINS(e.msg, "`pare data pack`");
    e = (Err){0};
    job.resume_only = true;
    ASSERT(!tokenize_run(&job, &r, &e));
    ASSERT_CONTAINS(e.msg, "no cursor");
    arena_free(&arena);
}
