/* data/tokenize.c: text and json of any size into one llm.c token file (data/token_files.c has its layout).
 *
 * Pieces are encoded by all cores a batch at a time and appended to OUT.part; beside it OUT.part.cursor says
 * how many tokens are certain and where the reader stood behind them, with a hash of everything that the
 * tokens depend on. A run that finds a cursor of its own hash cuts .part there and goes on. At the end the
 * header is filled in and .part renamed.
 */
#define _GNU_SOURCE
#include "data/source_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 1024, MAGIC = 20240520, CURSOR_VERSION = 1 };
#define CURSOR_SECONDS 0.5

typedef struct Cursor {
    int64_t source;
    ReaderAt at;
    int64_t tokens, documents, empty, bad;
} Cursor;
typedef struct Writer {
    const TokenizeJob *job;
    const char *part, *cursor_path;
    char key[33];
    int fd;
    size_t width;
    Cursor c;
    unsigned char *buffer; /* (buffer_cap,) */
    size_t buffer_cap;
    double started, saved;
    uint64_t bytes_all, bytes_done; /* of all sources' files */
    bool input_error;
    Arena *a;
} Writer;

/* ---- what the output depends on ------------------------------------------------------------------------ */
static const char *describe(const TokenizeJob *job, uint64_t *bytes, Arena *a, Err *e)
{
    const DataConfig *d = job->data;
    const char *s = arena_printf(a, e, "%s %s %s %s %s %d %d\n", tokenizer_hash(job->tk), d->eot,
                                 d->document_separator ? d->document_separator : "-",
                                 d->chat_template ? d->chat_template : "-", d->on_bad_line, d->mask_prompt,
                                 tokenizer_document_bos(job->tk, true) +
                                     tokenizer_document_bos(job->tk, false));
    for (int i = 0; s && i < job->n_source; i++) {
        const SourceConfig *c = &job->source[i];
        Paths p;
        FileKind kind;
        if (!source_open(&p, &kind, c, job->tk, a, e)) return NULL;
        if (kind != FILE_TEXT && kind != FILE_JSON) {
            err_set(e, ERR_USAGE, "%s: holds tokens already", p.v[0]);
            return NULL;
        }
        s = arena_printf(a, e, "%s%s %s %s %s %s\n", s, c->format, c->field, c->split ? c->split : "-",
                         c->prompt_field ? c->prompt_field : "-",
                         c->response_field ? c->response_field : "-");
        for (size_t f = 0; s && f < p.n; f++) {
            struct stat st;
            if (stat(p.v[f], &st) != 0) {
                err_set(e, ERR_FAIL, "%s: %s", p.v[f], strerror(errno));
                return NULL;
            }
            *bytes += (uint64_t)st.st_size;
            s = arena_printf(a, e, "%s%s %lld %lld.%ld\n", s, p.v[f], (long long)st.st_size,
                             (long long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec);
        }
    }
    return s;
}

/* ---- the cursor ---------------------------------------------------------------------------------------- */
static bool cursor_save(Writer *w, Err *e)
{
    const Cursor *c = &w->c;
    if (fdatasync(w->fd) != 0) return err_set(e, ERR_FAIL, "%s: %s", w->part, strerror(errno));
    char text[512];
    const int n = snprintf(
        text, sizeof text,
        "{\"version\": %d, \"key\": \"%s\", \"source\": %lld, \"at\": [%llu, %llu, %llu, %llu, %llu], "
        "\"tokens\": %lld, \"documents\": %lld, \"empty\": %lld, \"bad\": %lld}\n",
        CURSOR_VERSION, w->key, (long long)c->source, (unsigned long long)c->at.file,
        (unsigned long long)c->at.offset, (unsigned long long)c->at.line, (unsigned long long)c->at.unit,
        (unsigned long long)c->at.inside, (long long)c->tokens, (long long)c->documents, (long long)c->empty,
        (long long)c->bad);
    w->saved = time_now();
    return file_write_atomic(w->cursor_path, text, (size_t)n, e);
}

/* Reads the cursor when there is one for this very job. */
static bool cursor_load(Writer *w)
{
    Err none = {0};
    size_t n;
    const char *text = file_exists(w->cursor_path) ? file_read(w->a, w->cursor_path, &n, &none) : NULL;
    json_t *o = text ? json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL) : NULL;
    json_int_t at[5], source, tokens, documents, empty, bad;
    int version;
    const char *key;
    struct stat st;
    const bool ok = o &&
                    json_unpack(o, "{s:i,s:s,s:I,s:[I,I,I,I,I],s:I,s:I,s:I,s:I}", "version", &version, "key",
                                &key, "source", &source, "at", at, at + 1, at + 2, at + 3, at + 4, "tokens",
                                &tokens, "documents", &documents, "empty", &empty, "bad", &bad) == 0 &&
                    version == CURSOR_VERSION && strcmp(key, w->key) == 0 && tokens >= 0 && source >= 0 &&
                    stat(w->part, &st) == 0 &&
                    (uint64_t)st.st_size >= HEADER_BYTES + (uint64_t)tokens * w->width;
    if (ok)
        w->c = (Cursor){
            source, {(uint64_t)at[0], (uint64_t)at[1], (uint64_t)at[2], (uint64_t)at[3], (uint64_t)at[4]},
            tokens, documents,
            empty,  bad};
    json_decref(o);
    return ok;
}

/* ---- writing ------------------------------------------------------------------------------------------- */
static bool write_at(Writer *w, const void *data, size_t n, off_t at, Err *e)
{
    const char *p = data;
    while (n > 0) {
        const ssize_t done = pwrite(w->fd, p, n, at);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0)
            return err_set(e, ERR_FAIL, "%s: %s (what is written stays; run again to go on)", w->part,
                           strerror(done ? errno : ENOSPC));
        p += done;
        n -= (size_t)done;
        at += done;
    }
    return true;
}

static bool append(Writer *w, const TokenBuf *t, Err *e)
{
    const size_t n = t->n * w->width;
    if (n == 0) return true;
    if (n > w->buffer_cap) {
        w->buffer_cap = 2 * n;
        w->buffer = arena_alloc(w->a, w->buffer_cap, e);
        if (!w->buffer) return false;
    }
    for (size_t i = 0; i < t->n; i++)
        for (size_t b = 0; b < w->width; b++)
            w->buffer[i * w->width + b] = (unsigned char)((uint32_t)t->id[i] >> (8 * b));
    if (w->c.tokens + (int64_t)t->n > INT32_MAX)
        return err_set(e, ERR_USAGE,
                       "%s: more than 2^31 - 1 tokens, which llm.c's header cannot count; write parts of the "
                       "source by split",
                       w->job->out);
    if (!write_at(w, w->buffer, n, (off_t)(HEADER_BYTES + (uint64_t)w->c.tokens * w->width), e)) return false;
    w->c.tokens += (int64_t)t->n;
    return true;
}

static bool add_batch(Writer *w, const Batch *b, Err *e)
{
    for (size_t i = 0; i < b->n; i++) {
        const Encoded *x = &b->v[i];
        w->c.bad += x->bad;
        w->c.empty += !x->bad && x->piece.first && x->out.ids.n == 0;
        w->c.documents += x->piece.first && x->out.ids.n > 0;
        w->bytes_done += x->piece.n;
        if (!append(w, &x->out.ids, e)) return false;
    }
    w->c.at = b->end;
    if (w->job->progress)
        w->job->progress(w->bytes_all ? (double)w->bytes_done / (double)w->bytes_all : 1, w->c.tokens,
                         time_now() - w->started);
    return true;
}

/* One source from the cursor on. *stopped: the caller's flag was set. */
static bool one_source(Writer *w, const SourceConfig *s, bool *stopped, Err *e)
{
    Arena scratch = {.name = "tokenize"};
    const DataConfig *d = w->job->data;
    Paths p;
    FileKind kind;
    Reader r = {0};
    Rule rule;
    Batch b = {0};
    w->input_error = true;
    bool ok = source_open(&p, &kind, s, w->job->tk, &scratch, e) &&
              reader_open(&r, &p, kind, s, d, w->job->tk, &scratch, e) &&
              rule_open(&rule, &r, s, d, &scratch, e) && batch_open(&b, &scratch, e);
    if (ok && rule_masks(&rule) && d->mask_prompt)
        ok = err_set(e, ERR_USAGE,
                     "%s: prompts and chats are trained in part, which a .bin cannot say: `pare data pack` "
                     "writes a .h5 that can, or set data.mask_prompt=false",
                     s->path);
    r.at = w->c.at;
    while (ok && !*stopped) {
        ok = batch_next(&b, &r, &rule, strcmp(d->on_bad_line, "skip") == 0, e);
        if (!ok || b.n == 0) break;
        w->input_error = false;
        ok = add_batch(w, &b, e) && (time_now() - w->saved < CURSOR_SECONDS || cursor_save(w, e));
        w->input_error = ok;
        *stopped = w->job->stop && *w->job->stop;
    }
    batch_close(&b);
    reader_close(&r);
    arena_free(&scratch);
    return ok;
}

static bool finish(Writer *w, Err *e)
{
    const int32_t head[3] = {MAGIC, w->width == 2 ? 1 : 2, (int32_t)w->c.tokens};
    unsigned char block[HEADER_BYTES] = {0};
    for (int i = 0; i < 3; i++)
        for (int b = 0; b < 4; b++) block[4 * i + b] = (unsigned char)((uint32_t)head[i] >> (8 * b));
    if (!write_at(w, block, sizeof block, 0, e)) return false;
    if (fsync(w->fd) != 0 || rename(w->part, w->job->out) != 0)
        return err_set(e, ERR_FAIL, "%s: %s", w->job->out, strerror(errno));
    unlink(w->cursor_path);
    return true;
}

static bool run(Writer *w, TokenizeResult *out, Err *e)
{
    const TokenizeJob *job = w->job;
    const char *about = describe(job, &w->bytes_all, w->a, e);
    if (!about) return false;
    hash128_hex(w->key, about, strlen(about));
    w->width = tokenizer_vocab(job->tk) <= 65536 ? 2 : 4;
    const bool found = !job->restart && cursor_load(w);
    if (!found && job->resume_only)
        return err_set(e, ERR_USAGE,
                       "%s: no cursor of the same sources, tokenizer and settings to go on from",
                       w->cursor_path);
    if (found) log_info("%s: going on behind %lld tokens", w->part, (long long)w->c.tokens);
    out->resumed_tokens = w->c.tokens;
    w->fd = open(w->part, O_RDWR | O_CREAT | O_CLOEXEC | (found ? 0 : O_TRUNC), 0666);
    if (w->fd < 0) return err_set(e, ERR_FAIL, "%s: %s", w->part, strerror(errno));
    if (ftruncate(w->fd, (off_t)(HEADER_BYTES + (uint64_t)w->c.tokens * w->width)) != 0)
        return err_set(e, ERR_FAIL, "%s: %s", w->part, strerror(errno));
    bool ok = true;
    while (ok && !out->stopped && w->c.source < job->n_source) {
        ok = one_source(w, &job->source[w->c.source], &out->stopped, e);
        if (!ok || out->stopped) break;
        w->c.source++;
        w->c.at = (ReaderAt){0};
    }
    if (ok && out->stopped) return cursor_save(w, e);
    if (ok && w->c.tokens == 0) ok = err_set(e, ERR_FAIL, "%s: no tokens", job->source[0].path);
    return ok && finish(w, e);
}

bool tokenize_run(const TokenizeJob *job, TokenizeResult *out, Err *e)
{
    Arena a = {.name = "tokenize"};
    Writer w = {.job = job, .fd = -1, .a = &a, .started = time_now()};
    w.saved = w.started;
    *out = (TokenizeResult){0};
    w.part = arena_printf(&a, e, "%s.part", job->out);
    w.cursor_path = arena_printf(&a, e, "%s.part.cursor", job->out);
    const bool ok = w.cursor_path && run(&w, out, e);
    if (w.fd >= 0) close(w.fd);
    if (!ok && w.fd >= 0 && w.input_error) {
        unlink(w.part);
        unlink(w.cursor_path);
    }
    out->tokens = w.c.tokens;
    out->documents = w.c.documents;
    out->empty = w.c.empty;
    out->bad = w.c.bad;
    out->seconds = time_now() - w.started;
    arena_free(&a);
    return ok;
}
