/* data/token_map.c: token .bin files left where they lie: ids are widened as samples ask for them, so that a
 * training source needs no memory of its own whatever its size. All ids are checked once, when the files are
 * opened.
 */
#include "data/source_impl.h"
#include <string.h>
#include <xxhash.h>

typedef struct MappedFile {
    FileMap map;
    const unsigned char *p; /* (n * width,) */
    size_t width, first, n; /* first: its place among the tokens of all files */
} MappedFile;
struct TokenMap {
    MappedFile *file;
    size_t n_file, lo, n; /* tokens [lo, lo + n) of all are the source */
    uint32_t limit;       /* larger ids become limit - 1 */
};

static uint32_t id_at(const MappedFile *f, size_t i)
{
    const unsigned char *p = f->p + i * f->width;
    const uint32_t low = (uint32_t)p[0] | (uint32_t)p[1] << 8;
    return f->width == 2 ? low : low | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static bool check(const MappedFile *f, const char *path, const char *rule, uint32_t limit, Err *e)
{
    size_t beyond = 0;
    for (size_t i = 0; i < f->n; i++) {
        if (id_at(f, i) < limit) continue;
        if (strcmp(rule, "clip") != 0) return token_beyond(path, i, id_at(f, i), limit, e);
        beyond++;
    }
    if (beyond)
        log_warn("%s: %zu tokens beyond the vocabulary of %u made %u", path, beyond, limit, limit - 1);
    return true;
}

static bool open_files(TokenMap *m, const Paths *p, FileKind kind, const DataConfig *d, Err *e)
{
    size_t total = 0;
    for (; m->n_file < p->n; m->n_file++) {
        MappedFile *f = &m->file[m->n_file];
        size_t at = 0;
        if (!file_map(&f->map, p->v[m->n_file], e)) return false;
        if (!token_file_layout(&f->map, p->v[m->n_file], kind, &at, &f->width, &f->n, e)) {
            file_unmap(&f->map);
            return false;
        }
        f->p = f->map.data + at;
        f->first = total;
        total += f->n;
    }
    for (size_t i = 0; i < p->n; i++)
        if (!check(&m->file[i], p->v[i], d->vocab_check, m->limit, e)) return false;
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
    if (split.kind == 'b')
        err_set(e, ERR_USAGE, "%s: split: token files are cut in percent, not in bytes", p->v[0]);
    if (e->code || !open_files(m, p, kind, d, e)) {
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
    for (size_t i = 0; m && i < m->n_file; i++) file_unmap(&m->file[i].map);
    if (m) m->n_file = 0;
}

size_t token_map_count(const TokenMap *m) { return m->n; }

void token_map_get(const TokenMap *m, size_t at, size_t n, int32_t *out)
{
    const MappedFile *f = m->file;
    for (at += m->lo; n > 0; f++) {
        if (at >= f->first + f->n) continue;
        size_t i = at - f->first, run = f->n - i < n ? f->n - i : n;
        n -= run;
        at += run;
        for (; run > 0; run--) {
            const uint32_t id = id_at(f, i++);
            *out++ = (int32_t)(id < m->limit ? id : m->limit - 1);
        }
    }
}

bool token_map_hash(const TokenMap *m, char hex[33], Err *e)
{
    enum { BLOCK = 4096 };
    int32_t id[BLOCK];
    XXH128_canonical_t c;
    XXH3_state_t *state = XXH3_createState();
    if (!state) return err_set(e, ERR_MEMORY, "out of memory for a hash");
    XXH3_128bits_reset(state);
    for (size_t at = 0, n; at < m->n; at += n) {
        n = m->n - at < BLOCK ? m->n - at : BLOCK;
        token_map_get(m, at, n, id);
        XXH3_128bits_update(state, id, n * sizeof *id);
    }
    XXH128_canonicalFromHash(&c, XXH3_128bits_digest(state));
    XXH3_freeState(state);
    for (int i = 0; i < 16; i++) {
        hex[2 * i] = "0123456789abcdef"[c.digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[c.digest[i] & 15];
    }
    hex[32] = 0;
    return true;
}
