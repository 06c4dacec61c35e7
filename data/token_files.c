/* data/token_files.c: token .bin files.
 *
 *   llm.c    header of 256 x int32, then the tokens; [2] is their number
 *            [0] 20240520: [1] version 1 uint16, version 2 uint32      [0] 20240801: [1] version 7 uint32
 *   nanoGPT  no header, uint16
 * All little endian. The file's size must be exactly what its header says.
 */
#include "data/source_impl.h"
#include <glob.h>
#include <string.h>
#include <sys/stat.h>

enum { HEADER = 1024 };
enum { MAGIC_GPT2 = 20240520, MAGIC_LLAMA = 20240801, MAGIC_EVAL = 20240522, MAGIC_MODEL = 20240326 };

static uint32_t word(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bool source_paths(Paths *p, const char *path, Arena *a, Err *e)
{
    *p = (Paths){.n = 1};
    glob_t g = {0};
    const bool self = file_exists(path);
    if (!self) {
        const int rc = glob(path, 0, NULL, &g);
        if (rc == GLOB_NOMATCH)
            return err_set(e, ERR_FAIL, "%s: no such file (and no file matches it as a glob)", path);
        if (rc) return err_set(e, ERR_FAIL, "%s: cannot look for files that match", path);
        p->n = g.gl_pathc;
    }
    p->v = arena_alloc(a, p->n * sizeof *p->v, e);
    for (size_t i = 0; p->v && i < p->n; i++)
        if (!(p->v[i] = arena_strdup(a, self ? path : g.gl_pathv[i], e))) p->v = NULL;
    globfree(&g);
    return p->v != NULL;
}

static bool has_suffix(const char *path, const char *suffix)
{
    const size_t n = strlen(path), m = strlen(suffix);
    return n >= m && memcmp(path + n - m, suffix, m) == 0;
}

bool source_kind(FileKind *k, const char *path, const char *format, Err *e)
{
    static const char *const later[] = {".parquet", ".gz", ".zst", ".xz", ".bz2", ".zip", ".arrow"};
    static const char *const json[] = {".jsonl", ".json", ".ndjson"}, *const h5[] = {".h5", ".hdf5"};
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return err_set(e, ERR_FAIL, "%s: is a folder; name its files, as %s/*.txt", path, path);
    *k = FILE_TEXT;
    if (strcmp(format, "text") == 0) return true;
    *k = FILE_LLMC;
    if (strcmp(format, "bin_llmc") == 0) return true;
    *k = FILE_NANOGPT;
    if (strcmp(format, "bin_nanogpt") == 0) return true;
    *k = FILE_JSON;
    if (strcmp(format, "jsonl") == 0) return true;
    *k = FILE_HDF5;
    if (strcmp(format, "hdf5") == 0) return true;
    if (strcmp(format, "auto") != 0) return err_set(e, ERR_USAGE, "%s: format `%s`: unknown", path, format);
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (has_suffix(path, later[i]))
            return err_set(e, ERR_USAGE, "%s: %s files are not read; unpack it to text, jsonl or .bin", path,
                           later[i]);
    for (size_t i = 0; i < 2; i++)
        if (has_suffix(path, h5[i])) return true;
    *k = FILE_JSON;
    for (size_t i = 0; i < sizeof json / sizeof *json; i++)
        if (has_suffix(path, json[i])) return true;
    FileMap m;
    if (!file_map(&m, path, e)) return false;
    const uint32_t magic = m.bytes >= 4 ? word(m.data) : 0;
    file_unmap(&m);
    const bool bin = has_suffix(path, ".bin");
    if (bin && (magic == MAGIC_EVAL || magic == MAGIC_MODEL))
        return err_set(e, ERR_USAGE, "%s: is an llm.c %s file, not tokens", path,
                       magic == MAGIC_EVAL ? "eval" : "model");
    *k = magic == MAGIC_GPT2 || magic == MAGIC_LLAMA ? FILE_LLMC : bin ? FILE_NANOGPT : FILE_TEXT;
    return true;
}

bool token_file_layout(const FileMap *m, const char *path, FileKind k, size_t *at, size_t *width, size_t *n,
                       Err *e)
{
    if (k == FILE_NANOGPT) {
        *at = 0;
        *width = 2;
        *n = m->bytes / 2;
        if (m->bytes % 2)
            return err_set(e, ERR_CORRUPT, "%s: odd number of bytes (%zu) in a file of uint16 tokens", path,
                           m->bytes);
        return true;
    }
    if (m->bytes < HEADER)
        return err_set(e, ERR_CORRUPT, "%s: %zu bytes, shorter than llm.c's header of 1024", path, m->bytes);
    const uint32_t magic = word(m->data), version = word(m->data + 4), count = word(m->data + 8);
    if (magic != MAGIC_GPT2 && magic != MAGIC_LLAMA)
        return err_set(e, ERR_CORRUPT, "%s: magic %u is no llm.c token file (20240520 or 20240801)", path,
                       magic);
    const bool wide = magic == MAGIC_LLAMA ? version == 7 : version == 2;
    if (!wide && (magic == MAGIC_LLAMA || version != 1))
        return err_set(e, ERR_CORRUPT, "%s: version %u of llm.c token file %u is not known", path, version,
                       magic);
    if (count > INT32_MAX)
        return err_set(e, ERR_CORRUPT, "%s: %u tokens in the header, more than 2^31 - 1", path, count);
    *at = HEADER;
    *width = wide ? 4 : 2;
    *n = count;
    const size_t want = HEADER + *width * (size_t)count;
    if (m->bytes != want)
        return err_set(e, ERR_CORRUPT, "%s: %zu bytes, but %u tokens in its header make %zu", path, m->bytes,
                       count, want);
    return true;
}

bool token_beyond(const char *path, size_t at, uint32_t id, uint32_t limit, Err *e)
{
    return err_set(
        e, ERR_CORRUPT,
        "%s: token %zu is %u, but the vocabulary has %u (wrong tokenizer, or data.vocab_check: clip)", path,
        at, id, limit);
}

bool token_ids_append(TokenBuf *out, const unsigned char *p, size_t width, size_t n, const char *path,
                      const char *check, int vocab, Arena *a, Err *e)
{
    if (out->n + n > out->cap) {
        int32_t *id = arena_grow(a, out->id, out->n * sizeof *id, (out->n + n) * sizeof *id, e);
        if (!id) return false;
        out->id = id;
        out->cap = out->n + n;
    }
    const bool off = strcmp(check, "off") == 0 || vocab <= 0, clip = strcmp(check, "clip") == 0;
    const uint32_t limit = off ? (uint32_t)INT32_MAX + 1u : (uint32_t)vocab;
    size_t clipped = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = width == 2 ? (uint32_t)p[2 * i] | (uint32_t)p[2 * i + 1] << 8 : word(p + 4 * i);
        if (id >= limit && !clip) return token_beyond(path, i, id, limit, e);
        if (id >= limit) {
            id = limit - 1;
            clipped++;
        }
        out->id[out->n++] = (int32_t)id;
    }
    if (clipped)
        log_warn("%s: %zu tokens beyond the vocabulary of %u made %u", path, clipped, limit, limit - 1);
    return true;
}

bool token_file_read(TokenBuf *out, const char *path, FileKind k, const char *vocab_check, int vocab,
                     Arena *a, Err *e)
{
    FileMap m;
    size_t at = 0, width = 0, n = 0;
    if (!file_map(&m, path, e)) return false;
    bool ok = token_file_layout(&m, path, k, &at, &width, &n, e);
    ok = ok && (n == 0 || token_ids_append(out, m.data + at, width, n, path, vocab_check, vocab, a, e));
    file_unmap(&m);
    return ok;
}

static TokensReader *h5_reader;
void tokens_h5_reader(TokensReader *reader) { h5_reader = reader; }

bool token_h5_read(Stream *out, const char *path, const char *vocab_check, int vocab, Arena *a, Err *e)
{
    Tokens t = {0};
    if (!h5_reader) return err_set(e, ERR_USAGE, "%s: this program reads no HDF5 token files", path);
    if (!h5_reader(&t, path, a, e)) return false;
    const size_t had = out->ids.n;
    TokenBuf checked = {0};
    if (t.n == 0) return true;
    if (!token_ids_append(&checked, (const unsigned char *)t.id, sizeof *t.id, t.n, path, vocab_check, vocab,
                          a, e) ||
        !stream_put(out, checked.id, t.target, t.n, a, e))
        return false;
    for (size_t i = 0; i < t.n_doc; i++) {
        out->ids.n = had + t.doc[i];
        if (!stream_document(out, a, e)) return false;
    }
    out->ids.n = had + t.n;
    return true;
}
