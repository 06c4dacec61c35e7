/* data/token_map.c: token .bin files left where they lie: ids are read and widened as samples ask for them,
 * so that a training source needs no memory of its own whatever its size. All ids are checked once, when the
 * files are opened, and again whenever they are read: a file may change under a run that takes days. They are
 * read and not mapped, as a mapped file that becomes shorter would end the process.
 */
#include "data/source_impl.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

enum { HEADER = 1024, BLOCK = 16384 }; /* bytes, tokens */
typedef struct OpenFile {
    const char *path;
    int fd;
    size_t at, width, first, n; /* at: bytes before token 0; first: its place among the tokens of all files */
} OpenFile;
struct TokenMap {
    OpenFile *file;
    size_t n_file, lo, n; /* tokens [lo, lo + n) of all are the source */
    uint32_t limit;       /* larger ids become limit - 1, or are an error */
    bool clip;
};

/* Bytes [at, at + n) of f into p (n,). */
static bool read_at(const OpenFile *f, size_t at, size_t n, unsigned char *p, Err *e)
{
    for (size_t done = 0; done < n;) {
        const ssize_t got = pread(f->fd, p + done, n - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return err_set(e, ERR_FAIL, "%s: cannot read byte %zu: %s", f->path, at + done, strerror(errno));
        if (got == 0)
            return err_set(e, ERR_FAIL,
                           "%s: ends at byte %zu, and there were more when it was opened: the file became "
                           "shorter while it was read; put it back as it was and go on with --resume",
                           f->path, at + done);
        done += (size_t)got;
    }
    return true;
}

/* Tokens [i, i + n) of f into out (n,), whatever they are: the bytes at the end of out, widened from its
 * begin on. */
static bool read_ids(const OpenFile *f, size_t i, size_t n, uint32_t *out, Err *e)
{
    unsigned char *p = (unsigned char *)out + n * (sizeof *out - f->width);
    if (!read_at(f, f->at + i * f->width, n * f->width, p, e)) return false;
    for (size_t k = 0; k < n; k++, p += f->width) {
        const uint32_t low = (uint32_t)p[0] | (uint32_t)p[1] << 8;
        out[k] = f->width == 2 ? low : low | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    }
    return true;
}

static bool check(const TokenMap *m, const OpenFile *f, Err *e)
{
    uint32_t id[BLOCK];
    size_t beyond = 0;
    for (size_t at = 0, n; at < f->n; at += n) {
        n = f->n - at < BLOCK ? f->n - at : BLOCK;
        if (!read_ids(f, at, n, id, e)) return false;
        for (size_t i = 0; i < n; i++) {
            if (id[i] < m->limit) continue;
            if (!m->clip) return token_beyond(f->path, at + i, id[i], m->limit, e);
            beyond++;
        }
    }
    if (beyond)
        log_warn("%s: %zu tokens beyond the vocabulary of %u made %u", f->path, beyond, m->limit,
                 m->limit - 1);
    return true;
}

/* A source of very many files needs more descriptors than a shell gives at first. */
static int open_retry(const char *path)
{
    struct rlimit most;
    int fd;
    while ((fd = open(path, O_RDONLY | O_CLOEXEC)) < 0) {
        if (errno == EINTR) continue;
        if (errno != EMFILE || getrlimit(RLIMIT_NOFILE, &most) || most.rlim_cur >= most.rlim_max) break;
        most.rlim_cur = most.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &most)) break;
    }
    return fd;
}

static bool open_one(OpenFile *f, FileKind kind, Err *e)
{
    unsigned char header[HEADER];
    struct stat st;
    if (f->fd < 0 || fstat(f->fd, &st))
        return err_set(e, ERR_FAIL, "%s: cannot open for reading: %s%s", f->path, strerror(errno),
                       errno == EMFILE ? " (a training source keeps its .bin files open: ulimit -n)" : "");
    const FileMap m = {header, (size_t)st.st_size};
    return read_at(f, 0, m.bytes < HEADER ? m.bytes : HEADER, header, e) &&
           token_file_layout(&m, f->path, kind, &f->at, &f->width, &f->n, e);
}

static bool open_files(TokenMap *m, const Paths *p, FileKind kind, Arena *a, Err *e)
{
    size_t total = 0;
    while (m->n_file < p->n) {
        OpenFile *f = &m->file[m->n_file];
        if (!(f->path = arena_strdup(a, p->v[m->n_file], e))) return false;
        f->fd = open_retry(f->path);
        m->n_file++;
        if (!open_one(f, kind, e)) return false;
        f->first = total;
        total += f->n;
    }
    for (size_t i = 0; i < p->n; i++)
        if (!check(m, &m->file[i], e)) return false;
    m->n = total;
    return true;
}

TokenMap *token_map_open(const Paths *p, FileKind kind, const SourceConfig *s, const DataConfig *d, int vocab,
                         Arena *a, Err *e)
{
    Split split;
    uint64_t lo, hi;
    TokenMap *m = arena_alloc(a, sizeof *m, e);
    if (!m || !(m->file = arena_alloc(a, p->n * sizeof *m->file, e)) ||
        !split_parse(&split, s->split, s->path, e))
        return NULL;
    const bool off = strcmp(d->vocab_check, "off") == 0 || vocab <= 0;
    m->limit = off ? (uint32_t)INT32_MAX + 1u : (uint32_t)vocab;
    m->clip = strcmp(d->vocab_check, "clip") == 0;
    if (split.kind == 'b')
        err_set(e, ERR_USAGE, "%s: split: token files are cut in percent, not in bytes", p->v[0]);
    if (e->code || !open_files(m, p, kind, a, e)) {
        token_map_close(m);
        return NULL;
    }
    split_range(&split, m->n, &lo, &hi);
    m->lo = (size_t)lo;
    m->n = (size_t)(hi - lo);
    return m;
}

void token_map_close(TokenMap *m)
{
    for (size_t i = 0; m && i < m->n_file; i++)
        if (m->file[i].fd >= 0) close(m->file[i].fd);
    if (m) m->n_file = 0;
}

size_t token_map_count(const TokenMap *m) { return m->n; }

/* The ids of a file, which all were in the vocabulary when it was opened, or clip. */
static bool check_again(const TokenMap *m, const OpenFile *f, size_t at, uint32_t *id, size_t n, Err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (id[i] < m->limit) continue;
        if (!m->clip)
            return err_set(
                e, ERR_CORRUPT,
                "%s: token %zu is %u now, and the vocabulary has %u: the file was changed while it "
                "was read; put it back as it was and go on with --resume",
                f->path, at + i, id[i], m->limit);
        id[i] = m->limit - 1;
    }
    return true;
}

bool token_map_get(const TokenMap *m, size_t at, size_t n, int32_t *out, Err *e)
{
    if (at > m->n || n > m->n - at)
        return err_set(e, ERR_FAIL, "%s: tokens %zu to %zu asked for, but the source has %zu",
                       m->file[0].path, at, at + n, m->n);
    at += m->lo;
    for (const OpenFile *f = m->file; n > 0; f++) {
        if (at >= f->first + f->n) continue;
        const size_t i = at - f->first, run = f->n - i < n ? f->n - i : n;
        if (!read_ids(f, i, run, (uint32_t *)out, e) || !check_again(m, f, i, (uint32_t *)out, run, e))
            return false;
        n -= run;
        at += run;
        out += run;
    }
    return true;
}

bool token_map_hash(const TokenMap *m, char hex[33], Err *e)
{
    int32_t id[BLOCK];
    XXH128_canonical_t c;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return err_set(e, ERR_MEMORY, "out of memory for a hash");
    XXH3_128bits_reset(state);
    for (size_t at = 0, n; at < m->n; at += n) {
        n = m->n - at < BLOCK ? m->n - at : BLOCK;
        if (!token_map_get(m, at, n, id, e)) break;
        XXH3_128bits_update(state, id, n * sizeof *id);
    }
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    for (int i = 0; i < 16; i++) {
        hex[2 * i] = "0123456789abcdef"[c.digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[c.digest[i] & 15];
    }
    hex[32] = 0;
    return !e->code;
}
