/* data/reader.c: the files of a text or json source, one document at a time, from any place on.
 *
 * What split cuts:
 *   text with a document_separator   documents, by where they start in the stripped documents joined, empty
 *                                    ones left out: [lo:hi] takes those with lo <= start < hi
 *   text without one                 the file's bytes, each bound moved on to the next character
 *   json                             records (percentages only), counted over all files
 * Json is lines with a value each (blank lines are skipped), or one array whose elements are the records.
 *
 * A text much longer than piece_bytes is cut between two words, where the ids of both sides, each encoded
 * alone, are the ids of both together: tried on a stretch around the place, the next places are tried when
 * it fails. Cuts depend on the text alone, so that every run makes the same pieces.
 */
#define _GNU_SOURCE /* memmem */
#include "data/source_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

enum { CUT_CONTEXT = 2048, CUT_TRIES = 256, PIECE_BYTES = 1 << 20 };

typedef struct Range {
    const char *s;
    size_t n;
} Range;

static bool load_file(Reader *r, size_t f, Range *out, Err *e)
{
    if (!r->map[f].data && !file_map(&r->map[f], r->paths.v[f], e)) return false;
    *out = (Range){(const char *)r->map[f].data, r->map[f].bytes};
    return true;
}

/* ---- json --------------------------------------------------------------------------------------------- */
static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

static bool is_array(Range t)
{
    size_t i = 0;
    while (i < t.n && blank(t.s[i])) i++;
    return i < t.n && t.s[i] == '[';
}

/* End of the value that begins at i: strings and nesting are followed, nothing else is checked. */
static size_t value_end(Range t, size_t i)
{
    long depth = 0;
    bool in_string = false;
    for (; i < t.n; i++) {
        const char c = t.s[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0) return i;
            depth--;
        } else if (c == ',' && depth == 0) {
            return i;
        }
    }
    return t.n;
}

static void count_lines(ReaderAt *at, const char *s, size_t n)
{
    const char *end = s + n;
    while (n > 0 && (s = memchr(s, '\n', (size_t)(end - s)))) {
        at->line++;
        if (++s == end) return;
    }
}

/* Passes over white space (and with an array over what stands between elements). */
static bool skip_to_element(Reader *r, Range t, bool *end, Err *e)
{
    ReaderAt *at = &r->at;
    bool comma = false;
    *end = false;
    for (; at->offset < t.n; at->offset++) {
        const char c = t.s[at->offset];
        if (c == '\n') at->line++;
        if (blank(c)) continue;
        if (c == '[' && !at->inside) {
            at->inside = 1;
        } else if (c == ',' && at->inside == 2 && !comma) {
            comma = true;
        } else if (c == ']') {
            if (comma) break;
            *end = true;
            for (size_t i = at->offset + 1; i < t.n; i++) {
                if (t.s[i] == '\n') at->line++;
                if (!blank(t.s[i]))
                    return err_set(e, ERR_CORRUPT, "%s:%llu: text behind the end of the array",
                                   r->paths.v[at->file], (unsigned long long)at->line + 1);
            }
            return true;
        } else {
            if (at->inside == 2 && !comma) break;
            return true;
        }
    }
    return err_set(e, ERR_CORRUPT, "%s:%llu: an array of records needs `,` or `]` here", r->paths.v[at->file],
                   (unsigned long long)at->line + 1);
}

static bool next_element(Reader *r, Range t, Piece *p, bool *end, Err *e)
{
    if (!skip_to_element(r, t, end, e)) return false;
    if (*end) return true;
    ReaderAt *at = &r->at;
    const size_t from = at->offset, to = value_end(t, from);
    *p = (Piece){t.s + from, to - from, at->file, (int64_t)at->line + 1, true, true};
    count_lines(at, t.s + from, to - from);
    at->offset = to;
    at->inside = 2;
    while (p->n > 0 && blank(p->s[p->n - 1])) p->n--;
    return true;
}

static void next_line(Reader *r, Range t, Piece *p, bool *end)
{
    ReaderAt *at = &r->at;
    *end = true;
    while (at->offset < t.n) {
        const char *s = t.s + at->offset, *nl = memchr(s, '\n', t.n - at->offset);
        size_t n = nl ? (size_t)(nl - s) : t.n - at->offset;
        at->offset += n + (nl != NULL);
        at->line++;
        while (n > 0 && blank(*s)) s++, n--;
        while (n > 0 && blank(s[n - 1])) n--;
        if (n == 0) continue;
        *p = (Piece){s, n, at->file, (int64_t)at->line, true, true};
        *end = false;
        return;
    }
}

static bool next_json(Reader *r, Range t, Piece *p, bool *end, Err *e)
{
    if (is_array(t)) {
        if (!next_element(r, t, p, end, e)) return false;
    } else {
        next_line(r, t, p, end);
    }
    if (!*end) r->at.unit++;
    return true;
}

/* ---- text --------------------------------------------------------------------------------------------- */
/* Whether ids of a stretch t (n,) cut at k are those of its two sides; drop: the space at k belongs to
 * neither. */
static bool cut_holds(Reader *r, const char *t, size_t n, size_t k, size_t drop, Err *e)
{
    const ArenaMark m = arena_mark(&r->scratch);
    TokenBuf whole = {0}, two = {0};
    Arena *a = &r->scratch;
    const bool ok = tokenizer_encode(r->tk, t, n, false, &whole, a, e) &&
                    tokenizer_encode(r->tk, t, k, false, &two, a, e) &&
                    tokenizer_encode(r->tk, t + k + drop, n - k - drop, false, &two, a, e);
    const bool same = ok && whole.n == two.n && memcmp(whole.id, two.id, whole.n * sizeof *two.id) == 0;
    arena_release(a, m);
    return same;
}

static bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/* Bytes of the first piece of t (n,); *drop: of the space behind it that no piece has. */
static size_t cut_piece(Reader *r, const char *t, size_t n, size_t *drop, Err *e)
{
    *drop = 0;
    if (n < 2 * r->piece_bytes) return n;
    int tries = 0;
    for (size_t i = r->piece_bytes; i + 2 < n && tries < CUT_TRIES && !e->code; i++) {
        if (t[i] != ' ' || !letter(t[i - 1]) || !letter(t[i + 1])) continue;
        const size_t before = i < CUT_CONTEXT ? i : CUT_CONTEXT;
        size_t len = before + CUT_CONTEXT < n - (i - before) ? before + CUT_CONTEXT : n - (i - before);
        tries++;
        for (size_t d = 0; d < 2; d++)
            if (cut_holds(r, t + i - before, len, before, d, e)) {
                *drop = d;
                return i;
            }
    }
    return n;
}

/* A document [from, to) of the file as pieces: the next one. */
static void give_text(Reader *r, Range t, uint64_t from, uint64_t to, Piece *p, Err *e)
{
    ReaderAt *at = &r->at;
    size_t drop;
    const size_t n = cut_piece(r, t.s + from, to - from, &drop, e);
    *p = (Piece){t.s + from, n, at->file, 0, !at->inside, from + n == to};
    at->offset = from + n + drop;
    at->inside = !p->last;
}

static uint64_t clamp(uint64_t v, uint64_t lo, uint64_t hi) { return v < lo ? lo : v > hi ? hi : v; }

/* Text without a separator: the file's part of [lo, hi). at.unit is where the file begins. */
static void next_plain(Reader *r, Range t, Piece *p, bool *end, Err *e)
{
    ReaderAt *at = &r->at;
    uint64_t from = clamp(r->lo, at->unit, at->unit + t.n) - at->unit;
    uint64_t to = r->hi >= at->unit + t.n ? t.n : clamp(r->hi, at->unit, at->unit + t.n) - at->unit;
    while (from < t.n && ((unsigned char)t.s[from] & 0xC0u) == 0x80u) from++;
    while (to < t.n && ((unsigned char)t.s[to] & 0xC0u) == 0x80u) to++;
    if (at->inside) from = at->offset;
    *end = from >= to || (!at->inside && at->offset > 0);
    if (*end) at->unit += t.n;
    else give_text(r, t, from, to, p, e);
}

/* The next document between separators, stripped; at.unit counts the bytes of those before it. */
static void next_separated(Reader *r, Range t, Piece *p, bool *end, Err *e)
{
    ReaderAt *at = &r->at;
    const size_t m = strlen(r->separator);
    *end = true;
    while (at->offset < t.n) {
        const char *s = t.s + at->offset, *hit = memmem(s, t.n - at->offset, r->separator, m);
        size_t n = hit ? (size_t)(hit - s) : t.n - at->offset;
        const uint64_t next = at->offset + n + (hit ? m : 0);
        if (at->inside) {
            const char *body = s;
            size_t stripped = n;
            utf8_strip(&body, &stripped);
            n = (size_t)(body + stripped - s);
        } else {
            utf8_strip(&s, &n);
        }
        const uint64_t from = (uint64_t)(s - t.s), start = at->unit;
        const bool take = at->inside || (n > 0 && start >= r->lo && start < r->hi);
        if (!at->inside) at->unit += n;
        if (take) {
            give_text(r, t, from, from + n, p, e);
            if (p->last) at->offset = next;
            *end = false;
            return;
        }
        at->offset = next;
    }
}

/* ---- the reader --------------------------------------------------------------------------------------- */
static bool step(Reader *r, Piece *p, Err *e)
{
    while (r->at.file < r->paths.n) {
        Range t;
        bool end = false;
        if (!load_file(r, r->at.file, &t, e)) return false;
        if (r->kind == FILE_JSON) {
            if (!next_json(r, t, p, &end, e)) return false;
        } else if (r->separator) {
            next_separated(r, t, p, &end, e);
        } else {
            next_plain(r, t, p, &end, e);
        }
        if (e->code) return false;
        if (!end) return true;
        r->at = (ReaderAt){.file = r->at.file + 1, .unit = r->at.unit};
    }
    return false;
}

/* Units of the whole source, for a split that counts in shares or from the end. */
static bool measure(Reader *r, uint64_t *total, Err *e)
{
    *total = 0;
    if (r->kind == FILE_TEXT && !r->separator) {
        for (size_t f = 0; f < r->paths.n; f++) {
            Range t;
            if (!load_file(r, f, &t, e)) return false;
            *total += t.n;
        }
        return true;
    }
    Piece p;
    const size_t piece = r->piece_bytes;
    r->lo = 0;
    r->hi = UINT64_MAX;
    r->piece_bytes = SIZE_MAX / 4;
    while (step(r, &p, e)) *total = r->at.unit;
    *total = r->at.unit;
    r->at = (ReaderAt){0};
    r->piece_bytes = piece;
    return !e->code;
}

bool reader_open(Reader *r, const Paths *paths, FileKind kind, const SourceConfig *s, const DataConfig *d,
                 const Tokenizer *tk, Arena *a, Err *e)
{
    const char *sep = kind == FILE_TEXT && d->document_separator && *d->document_separator
                          ? d->document_separator
                          : NULL;
    *r = (Reader){.paths = *paths,
                  .kind = kind,
                  .separator = sep,
                  .path = s->path,
                  .piece_bytes = PIECE_BYTES,
                  .hi = UINT64_MAX,
                  .tk = tk,
                  .scratch = {.name = "reader"}};
    r->map = arena_alloc(a, paths->n * sizeof *r->map, e);
    if (!r->map || !split_parse(&r->split, s->split, s->path, e)) return false;
    if (!r->split.kind) return true;
    if (kind == FILE_JSON && r->split.kind == 'b')
        return err_set(e, ERR_USAGE, "%s: split: json records are cut in percent, not in bytes", s->path);
    uint64_t total;
    if (!measure(r, &total, e)) return false;
    split_range(&r->split, total, &r->lo, &r->hi);
    return true;
}

bool reader_next(Reader *r, Piece *p, Err *e)
{
    while (step(r, p, e)) {
        const uint64_t record = r->at.unit - 1;
        if (r->kind != FILE_JSON || (record >= r->lo && record < r->hi)) return true;
    }
    return false;
}

void reader_close(Reader *r)
{
    for (size_t f = 0; f < r->paths.n && r->map; f++)
        if (r->map[f].data) file_unmap(&r->map[f]);
    arena_free(&r->scratch);
}
