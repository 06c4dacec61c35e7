/* train/teacher_cache_write.c: `pare teacher-cache`: a teacher's distributions over the training data into a
 * file (train/teacher_cache.c has its layout).
 *
 * Sequence after sequence, batch_size at a time, goes to OUT.part; OUT.part.cursor says how many of them are
 * certain, with a hash of everything they depend on. A run that finds a cursor of its own hash goes on there,
 * and as batches begin at the same sequences the bytes are those of an unbroken run. At the end the tables of
 * OUT.part are copied into HDF5, so for that moment twice the size is needed. */
#include "train/run_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CURSOR_VERSION = 1, COPY_BYTES = 4 << 20 };
#define CURSOR_SECONDS 0.5

typedef struct Table {
    const char *path;
    DType type;
    int64_t cols;
    off_t at; /* in OUT.part */
} Table;
typedef struct Writer {
    Run *r;
    CacheAbout about;
    const char *out, *part, *cursor;
    char key[33];
    int fd;
    Table table[3];     /* index, logp, rest */
    int64_t rows, done; /* of all sequences; sequences that are in OUT.part */
    double saved;
    Graph *g;
    Tensor *ids, *pos, *seg, *h, *w;
    long chunk;
    void *z, *logp, *rest; /* (chunk,V), (chunk,k), (chunk,nT) */
    void *room;            /* for a head kept as bfloat16 */
    int32_t *index, *row;  /* (chunk,k); (T): targets, not needed */
    void *narrow;          /* (chunk,k) as stored */
    Arena *a;
} Writer;

static size_t row_bytes(const Table *t) { return (size_t)t->cols * dtype_size(t->type); }

/* ---- what is written ----------------------------------------------------------------------------------- */

static bool about(Writer *w, Err *e)
{
    Run *r = w->r;
    const Config *c = r->c;
    CacheAbout *b = &w->about;
    b->V = r->teacher.spec.V;
    b->k = c->distill.top_k > 0 ? (long)c->distill.top_k : b->V;
    b->T = r->T;
    b->sequences = loader_sequences(r->loader);
    b->tokenizer = r->tk ? tokenizer_hash(r->tk) : "";
    b->storage = cache_storage(c, w->a, e);
    if (b->k > b->V) return err_set(e, ERR_USAGE, "distill.top_k: %ld of a vocabulary of %ld", b->k, b->V);
    b->temp[b->n_temp++] = 1;
    /* with all tokens kept nothing is outside at any T: a schedule need not be listed */
    if (c->distill.temperature < 1 || c->distill.temperature > 1)
        b->temp[b->n_temp++] = c->distill.temperature;
    if (!cache_teacher_hash(c->teacher.path, b->teacher, e) || !loader_input_hash(r->loader, b->data, e) ||
        (b->k < b->V && !cache_temperatures(r, b, e)))
        return false;
    w->rows = b->sequences * b->T;
    const DType logp = b->k == b->V ? DT_F32 : DT_F16;
    w->table[0] = (Table){"/logits/topk_index", DT_I32, b->k, 0};
    w->table[1] = (Table){"/logits/topk_logprob", logp, b->k, 0};
    w->table[2] = (Table){"/logits/rest_logsumexp", DT_F32, b->n_temp, 0};
    for (int i = 1; i < 3; i++)
        w->table[i].at = w->table[i - 1].at + (off_t)((size_t)w->rows * row_bytes(&w->table[i - 1]));
    /* batch and kernels decide the last bits */
    const char *text = arena_printf(w->a, e, "%ld %ld %ld %lld %s %s %s %s %ld %lld %s", b->V, b->k, b->T,
                                    (long long)b->sequences, b->teacher, b->data, b->tokenizer, b->storage,
                                    r->B, (long long)c->distill.chunk_tokens, r->k->name);
    for (int i = 0; text && i < b->n_temp; i++) text = arena_printf(w->a, e, "%s %.17g", text, b->temp[i]);
    if (text) hash128_hex(w->key, text, strlen(text));
    return text != NULL;
}

static int64_t all_bytes(const Writer *w)
{
    int64_t n = 0;
    for (int i = 0; i < 3; i++) n += (int64_t)h5_table_bytes(w->table[i].type, w->rows, w->table[i].cols);
    return n;
}

/* ---- the cursor ---------------------------------------------------------------------------------------- */

static bool cursor_save(Writer *w, Err *e)
{
    char text[160];
    if (fdatasync(w->fd)) return err_set(e, ERR_FAIL, "%s: %s", w->part, strerror(errno));
    const int n = snprintf(text, sizeof text, "{\"version\": %d, \"key\": \"%s\", \"sequences\": %lld}\n",
                           CURSOR_VERSION, w->key, (long long)w->done);
    w->saved = time_now();
    return file_write_atomic(w->cursor, text, (size_t)n, e);
}

static void cursor_load(Writer *w)
{
    Err none = {0};
    size_t n = 0;
    const char *text = file_exists(w->cursor) ? file_read(w->a, w->cursor, &n, &none) : NULL, *key;
    json_t *o = text ? json_loadb(text, n, 0, NULL) : NULL;
    int version;
    json_int_t done;
    if (o && !json_unpack(o, "{s:i,s:s,s:I}", "version", &version, "key", &key, "sequences", &done) &&
        version == CURSOR_VERSION && !strcmp(key, w->key) && file_exists(w->part) && done >= 0 &&
        done <= w->about.sequences && (done % w->r->B == 0 || done == w->about.sequences))
        w->done = done;
    json_decref(o);
}

static bool write_at(Writer *w, const void *data, size_t n, off_t at, Err *e)
{
    for (const char *p = data; n > 0;) {
        const ssize_t got = pwrite(w->fd, p, n, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return err_set(e, ERR_FAIL, "%s: %s (what is written stays; run again to go on)", w->part,
                           strerror(got ? errno : ENOSPC));
        p += got;
        n -= (size_t)got;
        at += got;
    }
    return true;
}

/* ---- the teacher's forward ----------------------------------------------------------------------------- */

static bool record(Writer *w, Err *e)
{
    Run *r = w->r;
    const long shape[2] = {r->B, r->T}, V = w->about.V, k = w->about.k, rows = r->B * r->T;
    const size_t real = r->k->real;
    w->g = graph_new(&(GraphOptions){.k = r->k, .run = w->a}, e);
    if (!w->g) return false;
    w->ids = graph_input(w->g, "ids", DT_I32, 2, shape);
    w->pos = graph_input(w->g, "pos", DT_I32, 2, shape);
    if (loader_segments(r->loader)) w->seg = graph_input(w->g, "seg", DT_I32, 2, shape);
    graph_prefix(w->g, "teacher.");
    w->h = model_hidden(w->g, &r->teacher, &(ModelInputs){.ids = w->ids, .pos = w->pos, .seg = w->seg});
    w->w = model_head(w->g, &r->teacher);
    graph_keep(w->g, w->h);
    if (w->w && w->w->node) graph_keep(w->g, w->w);
    /* the loss cuts rows so, and a product's last bits may depend on how many rows it has */
    w->chunk = V >= 16384 ? 256 : 1024;
    if (r->c->distill.chunk_tokens < w->chunk) w->chunk = (long)r->c->distill.chunk_tokens;
    if (rows < w->chunk) w->chunk = rows;
    w->z = arena_alloc(w->a, (size_t)(w->chunk * V) * real, e);
    w->logp = arena_alloc(w->a, (size_t)(w->chunk * k) * real, e);
    w->rest = arena_alloc(w->a, (size_t)(w->chunk * w->about.n_temp) * real, e);
    w->room = arena_alloc(w->a, weight_room(r->k, w->w) + 1, e);
    w->index = arena_alloc(w->a, (size_t)(w->chunk * k) * sizeof *w->index, e);
    w->row = arena_alloc(w->a, (size_t)r->T * sizeof *w->row, e);
    const long wide = k > w->about.n_temp ? k : w->about.n_temp;
    w->narrow = arena_alloc(w->a, (size_t)(w->chunk * wide) * 2 * sizeof(float), e);
    return graph_plan(w->g, e);
}

/* n reals as floats or halves, in w->narrow. */
static const void *stored(Writer *w, const void *src, size_t n, DType type)
{
    float *f = w->narrow;
    if (w->r->k->real == sizeof(float)) memcpy(f, src, n * sizeof *f);
    else
        for (size_t i = 0; i < n; i++) f[i] = (float)((const double *)src)[i];
    if (type == DT_F32) return f;
    dtype_from_f32(f + n, type, f, n);
    return f + n;
}

/* Rows of the batch that begins at sequence `first`: `use` rows of positions from r on. */
static bool put_chunk(Writer *w, int64_t first, long r, long n, Err *e)
{
    const CacheAbout *b = &w->about;
    const int64_t at = first * b->T + r;
    const long left = (long)((b->sequences - first) * b->T) - r, use = n < left ? n : left;
    const void *data[3] = {w->index, NULL, NULL};
    for (int i = 0; i < 3 && use > 0; i++) {
        const Table *t = &w->table[i];
        if (i) data[i] = stored(w, i == 1 ? w->logp : w->rest, (size_t)(use * t->cols), t->type);
        if (!write_at(w, data[i], (size_t)use * row_bytes(t), t->at + (off_t)((size_t)at * row_bytes(t)), e))
            return false;
    }
    return true;
}

static bool one_batch(Writer *w, Err *e)
{
    Run *r = w->r;
    const long T = r->T, rows = r->B * T, V = w->about.V, C = t_last(w->h);
    for (long b = 0; b < r->B; b++) {
        const int64_t s = w->done + b < w->about.sequences ? w->done + b : w->about.sequences - 1;
        loader_fill_sequence(r->loader, s, (int32_t *)w->ids->data + b * T, w->row,
                             (int32_t *)w->pos->data + b * T,
                             w->seg ? (int32_t *)w->seg->data + b * T : NULL, e);
    }
    if (e->code) return false;
    graph_forward(w->g);
    for (long at = 0; at < rows; at += w->chunk) {
        const long n = rows - at < w->chunk ? rows - at : w->chunk;
        weight_nt(r->k, w->z, (const char *)w->h->data + (size_t)(at * C) * r->k->real, w->w, n, w->room);
        r->k->topk(w->index, w->logp, w->rest, w->z, n, V, w->about.k, r->teacher.spec.final_softcap,
                   w->about.temp, w->about.n_temp);
        if (!put_chunk(w, w->done, at, n, e)) return false;
    }
    w->done += r->B;
    if (w->done > w->about.sequences) w->done = w->about.sequences;
    return true;
}

static bool compute(Writer *w, bool *stopped, Err *e)
{
    const double start = time_now();
    const int64_t from = w->done, all = w->about.sequences;
    double said = start;
    if (from > 0)
        log_info("%s: going on behind %lld of %lld sequences", w->part, (long long)from, (long long)all);
    w->fd = open(w->part, O_RDWR | O_CREAT | O_CLOEXEC | (from ? 0 : O_TRUNC), 0666);
    if (w->fd < 0) return err_set(e, ERR_FAIL, "%s: %s", w->part, strerror(errno));
    if (w->done < all && !record(w, e)) return false;
    while (w->done < all && !*stopped) {
        const double begun = time_now();
        if (!one_batch(w, e)) return false;
        const double now = time_now();
        threads_pace(now - begun);
        if (now - w->saved > CURSOR_SECONDS && !cursor_save(w, e)) return false;
        if (now - said > 1 || w->done == all) {
            const double rate = (double)((w->done - from) * w->about.T) / (now - start);
            char line[200];
            snprintf(line, sizeof line, "teacher-cache %lld/%lld sequences %.1f%% | %.1fk tok/s | eta %.0f s",
                     (long long)w->done, (long long)all, 100 * (double)w->done / (double)all, rate / 1e3,
                     (double)((all - w->done) * w->about.T) / rate);
            log_progress(line);
            said = now;
        }
        *stopped = train_signal != 0 && w->done < all;
    }
    return cursor_save(w, e);
}

/* ---- into HDF5 ----------------------------------------------------------------------------------------- */

static bool copy_table(Writer *w, H5Out *h, const Table *t, void *buffer, Err *e)
{
    const size_t row = row_bytes(t);
    const int64_t step = COPY_BYTES / (int64_t)row > 0 ? COPY_BYTES / (int64_t)row : 1;
    H5Table *to = h5_table(h, t->path, t->type, w->rows, t->cols, w->a, e);
    for (int64_t r = 0; to && r < w->rows && !e->code; r += step) {
        const int64_t n = w->rows - r < step ? w->rows - r : step;
        size_t want = (size_t)n * row, got = 0;
        while (got < want) {
            const ssize_t m = pread(w->fd, (char *)buffer + got, want - got,
                                    t->at + (off_t)((size_t)r * row + got));
            if (m < 0 && errno == EINTR) continue;
            if (m <= 0) {
                err_set(e, ERR_FAIL, "%s: %s", w->part, m ? strerror(errno) : "shorter than its cursor says");
                break;
            }
            got += (size_t)m;
        }
        if (!e->code) h5_table_put(to, buffer, n);
    }
    h5_table_end(to);
    return !e->code;
}

static bool assemble(Writer *w, Err *e)
{
    const CacheAbout *b = &w->about;
    size_t room = COPY_BYTES;
    for (int i = 0; i < 3; i++)
        if (row_bytes(&w->table[i]) > room) room = row_bytes(&w->table[i]);
    void *buffer = arena_alloc(w->a, room, e);
    H5Out *h = buffer ? h5_create(w->out, "teacher_logits", w->r->teacher.spec.family->arch, 0, w->a, e)
                      : NULL;
    if (!h) return false;
    h5_reserve(h, (uint64_t)all_bytes(w));
    h5_attr_i64(h, "/logits", "vocab_size", b->V);
    h5_attr_i64(h, "/logits", "k", b->k);
    h5_attr_i64(h, "/logits", "seq_len", b->T);
    h5_attr_i64(h, "/logits", "sequences", b->sequences);
    h5_attr_f64s(h, "/logits", "temperatures", b->temp, b->n_temp);
    h5_attr_str(h, "/logits", "teacher_hash", b->teacher);
    h5_attr_str(h, "/logits", "teacher_storage", b->storage);
    h5_attr_str(h, "/logits", "data_hash", b->data);
    h5_attr_str(h, "/logits", "tokenizer_hash", b->tokenizer);
    h5_attr_str(h, "/logits", "key", w->key);
    for (int i = 0; i < 3; i++)
        if (!copy_table(w, h, &w->table[i], buffer, e)) {
            h5_abandon(h);
            return false;
        }
    return h5_commit(h, e);
}

/* ---- the verb ------------------------------------------------------------------------------------------ */

/* 1: OUT is there and just this; 0: nothing is there; -1: something else, an error. */
static int present(Writer *w, Err *e)
{
    Err none = {0};
    if (!file_exists(w->out)) return 0;
    H5In *h = h5_open(w->out, false, w->a, &none);
    const char *key = h ? h5_get_str(h, "/logits", "key", &none) : NULL;
    h5_close(h);
    if (key && !strcmp(key, w->key)) return 1;
    err_set(e, ERR_USAGE,
            "%s is there and holds something else than this config asks for: move it away, or "
            "--overwrite",
            w->out);
    return -1;
}

static bool run(Writer *w, const CacheOptions *o, CacheResult *out, Err *e)
{
    if (!about(w, e)) return false;
    const CacheAbout *b = &w->about;
    *out = (CacheResult){.positions = w->rows, .k = b->k, .bytes = all_bytes(w)};
    log_info("%s: %lld sequences of %ld, top %ld of %ld as %s, %d temperature%s: %.2f MB (%lld bytes a "
             "token; twice "
             "that while it is finished)",
             w->out, (long long)b->sequences, b->T, b->k, b->V, dtype_long_name(w->table[1].type), b->n_temp,
             b->n_temp > 1 ? "s" : "", (double)out->bytes / 1e6, (long long)(out->bytes / w->rows));
    const int there = o->overwrite ? 0 : present(w, e);
    if (there < 0 || o->dry_run) return there >= 0;
    out->present = there > 0;
    if (out->present) {
        log_info("%s holds this already", w->out);
        return true;
    }
    const char *slash = strrchr(w->out, '/');
    const char *dir = slash ? arena_strndup(w->a, w->out, (size_t)(slash - w->out), e) : NULL;
    if (dir && *dir && !dir_make(dir, e)) return false;
    if (!o->overwrite) cursor_load(w);
    if (!compute(w, &out->stopped, e) || out->stopped) return !e->code;
    if (!assemble(w, e)) return false;
    unlink(w->part);
    unlink(w->cursor);
    return true;
}

bool teacher_cache_write(Config *c, const CacheOptions *o, CacheResult *out, Arena *a, Err *e)
{
    Run r;
    const double start = time_now();
    Writer w = {.r = &r, .fd = -1, .a = a, .out = c->teacher.cache, .saved = start};
    *out = (CacheResult){0};
    c->caching = true;
    bool ok = run_open(&r, c, a, e);
    w.part = arena_printf(a, e, "%s.part", w.out);
    w.cursor = arena_printf(a, e, "%s.part.cursor", w.out);
    ok = ok && w.cursor && run(&w, o, out, e);
    out->seconds = time_now() - start;
    if (w.fd >= 0) close(w.fd);
    graph_free(w.g);
    run_free(&r);
    return ok;
}
