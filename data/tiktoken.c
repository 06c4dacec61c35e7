/* data/tiktoken.c: tiktoken's rank files, one "base64-of-the-token rank" a line. A rank is the token's id
 * and the order of merging. Neither the pattern nor the specials are in the file: tokenizer.pattern names
 * the family that brings both; in a file of another size than the family's the specials keep their distance
 * to the last rank.
 */
#include "data/families_impl.h"
#include "data/tokenizer_json_impl.h"
#include <string.h>

static int digit64(char c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Bytes of base64 text s (n,) into to; returns how many, -1 = malformed. */
static long decode64(const char *s, size_t n, char *to)
{
    long m = 0;
    unsigned bits = 0;
    const size_t pad = n > 0 && s[n - 1] == '=' ? (n > 1 && s[n - 2] == '=' ? 2 : 1) : 0;
    if (n == 0 || n % 4 != 0) return -1;
    for (size_t i = 0; i < n; i++) {
        const int d = i < n - pad ? digit64(s[i]) : 0;
        if (d < 0) return -1;
        bits = bits << 6 | (unsigned)d;
        if (i % 4 != 3) continue;
        for (int k = 16; k >= 0; k -= 8) to[m++] = (char)(bits >> k);
        bits = 0;
    }
    return m - (long)pad;
}

bool tiktoken_looks_like(const unsigned char *s, size_t n)
{
    size_t i = 0;
    while (i < n && i < 200 && (digit64((char)s[i]) >= 0 || s[i] == '=')) i++;
    return i >= 4 && i % 4 == 0 && i + 1 < n && s[i] == ' ' && s[i + 1] >= '0' && s[i + 1] <= '9';
}

/* One line -> its token; the bytes go to *raw, which moves on. */
static bool take_line(TokSpan *piece, int32_t cap, const char *s, size_t n, char **raw, long line,
                      const char *path, int32_t *top, Err *e)
{
    const char *blank = memchr(s, ' ', n);
    const long m = blank ? decode64(s, (size_t)(blank - s), *raw) : -1;
    int64_t rank = blank && blank + 1 < s + n ? 0 : -1;
    for (const char *c = blank ? blank + 1 : s + n; c < s + n && rank >= 0; c++)
        rank = *c >= '0' && *c <= '9' && rank < cap ? 10 * rank + (*c - '0') : -1;
    if (m <= 0 || rank < 0 || rank >= cap)
        return err_set(e, ERR_CORRUPT, "%s:%ld: `%.*s` is not a base64 token and its rank", path, line,
                       (int)(n < 80 ? n : 80), s);
    if (piece[rank].s)
        return err_set(e, ERR_CORRUPT, "%s:%ld: rank %d is there twice", path, line, (int)rank);
    (*raw)[m] = 0;
    piece[rank] = (TokSpan){*raw, (size_t)m};
    *raw += m + 3;
    if (rank > *top) *top = (int32_t)rank;
    return true;
}

static bool read_ranks(BpeSpec *b, const char *path, Arena *a, Err *e)
{
    FileMap map;
    size_t lines = 1;
    int32_t top = -1;
    if (!file_map(&map, path, e)) return false;
    const char *s = map.data ? (const char *)map.data : "", *const end = s + map.bytes; /* an empty file */
    for (size_t i = 0; i < map.bytes; i++) lines += s[i] == '\n';
    const int32_t cap = (int32_t)(2 * lines + 1024);
    TokSpan *piece = arena_alloc(a, ((size_t)cap + 1) * sizeof *piece, e);
    char *raw = arena_alloc(a, map.bytes + 4 * lines + 8, e);
    bool ok = piece && raw;
    for (long line = 1; ok && s < end; line++) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        size_t n = (size_t)((stop ? stop : end) - s);
        if (n > 0 && s[n - 1] == '\r') n--;
        ok = n == 0 || take_line(piece, cap, s, n, &raw, line, path, &top, e);
        s = stop ? stop + 1 : end;
    }
    file_unmap(&map);
    b->piece = piece;
    b->n_piece = top + 1;
    return ok;
}

/* "name=id|name=id" of the family, moved to where this file's ranks end. */
static bool specials(Pipeline *p, const Family *f, const BpeSpec *b, Arena *a, Err *e)
{
    const bool hole = b->n_piece > f->ranks && f->ranks > 0 && !b->piece[f->ranks].s;
    const int32_t shift = hole ? 0 : b->n_piece - f->ranks;
    size_t cap = 0;
    for (const char *s = f->specials; *s;) {
        const char *is = strchr(s, '='), *end = strchr(is, '|');
        int32_t id = 0;
        for (const char *c = is + 1; *c && *c != '|'; c++) id = 10 * id + (*c - '0');
        const AddedToken t = {.id = id + shift,
                              .text = {arena_strndup(a, s, (size_t)(is - s), e), (size_t)(is - s)},
                              .special = true};
        if (!t.text.s || !pipeline_add(p, t, &cap, a, e)) return false;
        s = end ? end + 1 : "";
    }
    return true;
}

bool tiktoken_open(Tokenizer *t, Arena *a, Err *e)
{
    const char *name = t->how ? t->how->pattern : NULL;
    if (!name || !*name)
        return err_set(
            e, ERR_USAGE,
            "%s: a rank file holds neither pattern nor specials: set tokenizer.pattern (gpt2, cl100k, "
            "o200k, llama3, qwen2, ...)",
            t->path);
    BpeSpec b = {.unk = -1, .raw_bytes = true, .ignore_merges = true};
    Pipeline *p = arena_alloc(a, sizeof *p, e);
    const Family *f = p ? family_named(name, a, e) : NULL;
    const char *dir = folder_of(t->path, a, e);
    return f && dir && pipeline_preset(p, name, a, e) && read_ranks(&b, t->path, a, e) &&
           bpe_open(p, &b, t->path, a, e) && specials(p, f, &b, a, e) && pipeline_finish(t, p, a, e) &&
           tokenizer_config_read(t, p, dir, a, e);
}
