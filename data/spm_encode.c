/* data/spm_encode.c: text -> ids, exactly as SentencePiece encodes.
 *
 * 1. Normalise: the longest rule of the character map at each place, U+2581 in front (add_dummy_prefix),
 *    spaces become U+2581 (escape_whitespaces), leading, repeated and trailing ones go
 *    (remove_extra_whitespaces), each malformed byte becomes U+FFFD.
 *    A unigram model then finds the best path (unigram.c) and goes on with 4. A BPE model:
 * 2. Cut where no piece can reach across: before a U+2581 behind another character, unless a piece has one
 *    there.
 * 3. Per part: symbols are characters and whole user-defined pieces; a heap gives the adjacent pair whose
 *    joint text is the piece of highest score, leftmost first; each merge adds at most two pairs: n symbols
 *    cost O(n log n).
 * 4. An unused piece falls apart into the two it was merged from. A symbol that is no piece becomes its bytes
 *    (byte_fallback) or the unknown id, one for a whole run.
 */
#include "data/spm_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

/* bytes 0 = merged away */
typedef struct Symbol {
    size_t at;
    uint32_t bytes;
    int32_t prev, next;
    bool fixed;
} Symbol;
typedef struct Pair {
    float score;
    int32_t left, right;
    uint32_t bytes;
} Pair;
typedef struct Coder {
    const Spm *t;
    const char *text;
    size_t bytes; /* normalised, [bytes] */
    Symbol *sym;
    size_t n_sym, cap_sym; /* of the part at hand */
    Pair *heap;
    size_t n_heap, cap_heap; /* best pair first */
    uint32_t *cut;           /* [vocab] left half of an unused piece, bytes; NULL */
    bool after_unknown;      /* the last id stands for an unknown run that may go on */
    uint64_t steps;
    Arena scratch;
    TokenBuf *out;
    Arena *out_arena;
} Coder;

/* ---- normalisation ------------------------------------------------------------------------------------ */

/* One unit of the input: a user-defined piece, what the character map has a rule for, a character or a
 * malformed byte. Returns the bytes it takes. */
static size_t unit_next(const Spm *t, const char *s, size_t n, const char **text, size_t *bytes)
{
    size_t len = t->max_user ? spm_user_match(t, s, n) : 0;
    if (len == 0 && t->map && (len = charsmap_match(t->map, s, n, false, text, bytes)) > 0) return len;
    if (len == 0) len = utf8_next(s, n, NULL);
    *text = len ? s : SPM_BAD;
    *bytes = len ? len : 3;
    return len ? len : 1;
}

/* Room the normalised text needs when no rule makes it longer: spaces and malformed bytes grow to three
 * bytes, one U+2581 comes in front. */
static size_t normal_room(const char *s, size_t n)
{
    size_t room = n + 3;
    for (size_t i = 0; i < n; i++)
        if (s[i] == ' ' || (unsigned char)s[i] >= 0x80) room += 2;
    return room;
}

static bool make_room(TokText *t, size_t more, Arena *a, Err *e)
{
    if (more <= t->cap - t->n) return true;
    const size_t cap = t->cap + t->cap / 2 + more;
    char *p = arena_grow(a, t->s, t->n, cap, e);
    if (!p) return false;
    t->s = p;
    t->cap = cap;
    return true;
}

/* Appends u (bytes,), each space as the model writes it. */
static bool put_unit(const Spm *t, const char *u, size_t bytes, TokText *out, Arena *a, Err *e)
{
    if (!make_room(out, 3 * bytes, a, e)) return false;
    for (size_t i = 0; i < bytes; i++) {
        if (u[i] == ' ' && t->escape_whitespaces) {
            memcpy(out->s + out->n, SPM_SPACE, 3);
            out->n += 3;
        } else out->s[out->n++] = u[i];
    }
    return true;
}

static bool normalise(const Spm *t, const char *s, size_t n, TokText *out, Arena *a, Err *e)
{
    const char *const space = t->escape_whitespaces ? SPM_SPACE : " ", *u;
    const size_t space_bytes = strlen(space);
    size_t bytes;
    while (t->remove_extra_whitespaces && n > 0) {
        const size_t len = unit_next(t, s, n, &u, &bytes);
        if (bytes != 1 || *u != ' ') break;
        s += len;
        n -= len;
    }
    if (n == 0) return true;
    if (!make_room(out, normal_room(s, n), a, e)) return false;
    if (t->add_dummy_prefix && !put_unit(t, " ", 1, out, a, e)) return false;
    bool after_space = t->remove_extra_whitespaces;
    while (n > 0) {
        const size_t len = unit_next(t, s, n, &u, &bytes);
        s += len;
        n -= len;
        while (after_space && bytes > 0 && *u == ' ') {
            u++;
            bytes--;
        }
        if (bytes == 0) continue;
        after_space = t->remove_extra_whitespaces && u[bytes - 1] == ' ';
        if (!put_unit(t, u, bytes, out, a, e)) return false;
    }
    while (t->remove_extra_whitespaces && out->n >= space_bytes &&
           memcmp(out->s + out->n - space_bytes, space, space_bytes) == 0)
        out->n -= space_bytes;
    return true;
}

/* ---- merging ------------------------------------------------------------------------------------------ */

static bool pair_before(const Pair *a, const Pair *b)
{
    return a->score > b->score || (a->score >= b->score && a->left < b->left);
}

static bool heap_push(Coder *c, Pair p, Err *e)
{
    if (c->n_heap == c->cap_heap) {
        const size_t cap = c->cap_heap ? 2 * c->cap_heap : 256;
        Pair *h = arena_grow(&c->scratch, c->heap, c->n_heap * sizeof *h, cap * sizeof *h, e);
        if (!h) return false;
        c->heap = h;
        c->cap_heap = cap;
    }
    size_t i = c->n_heap++;
    for (; i > 0 && pair_before(&p, &c->heap[(i - 1) / 2]); i = (i - 1) / 2, c->steps++)
        c->heap[i] = c->heap[(i - 1) / 2];
    c->heap[i] = p;
    return true;
}

static Pair heap_pop(Coder *c)
{
    const Pair top = c->heap[0], last = c->heap[--c->n_heap];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < c->n_heap; i = k, c->steps++) {
        if (k + 1 < c->n_heap && pair_before(&c->heap[k + 1], &c->heap[k])) k++;
        if (!pair_before(&c->heap[k], &last)) break;
        c->heap[i] = c->heap[k];
    }
    c->heap[i] = last;
    return top;
}

static bool pair_add(Coder *c, int32_t left, int32_t right, Err *e)
{
    if (left < 0 || right < 0 || c->sym[left].fixed || c->sym[right].fixed) return true;
    const size_t bytes = (size_t)c->sym[left].bytes + c->sym[right].bytes;
    c->steps++;
    if (bytes > c->t->max_piece) return true;
    const int32_t id = spm_find(c->t, c->text + c->sym[left].at, bytes);
    if (id < 0 || !spm_mergeable(c->t, id)) return true;
    if (c->cut && c->t->piece[id].type == SPM_UNUSED) c->cut[id] = c->sym[left].bytes;
    return heap_push(c, (Pair){c->t->piece[id].score, left, right, (uint32_t)bytes}, e);
}

static bool merge_all(Coder *c, Err *e)
{
    c->n_heap = 0;
    for (size_t i = 1; i < c->n_sym; i++)
        if (!pair_add(c, (int32_t)i - 1, (int32_t)i, e)) return false;
    while (c->n_heap > 0) {
        const Pair p = heap_pop(c);
        Symbol *l = &c->sym[p.left], *r = &c->sym[p.right];
        if (l->bytes == 0 || r->bytes == 0 || l->bytes + r->bytes != p.bytes) continue;
        l->bytes = p.bytes;
        l->next = r->next;
        if (r->next >= 0) c->sym[r->next].prev = p.left;
        r->bytes = 0;
        if (!pair_add(c, l->prev, p.left, e) || !pair_add(c, p.left, l->next, e)) return false;
    }
    return true;
}

/* ---- parts and ids ------------------------------------------------------------------------------------ */

static bool emit_id(void *to, int32_t id, const char *s, size_t bytes, Err *e)
{
    Coder *c = to;
    const Spm *t = c->t;
    const bool unknown = id == t->unk, run = unknown && c->after_unknown;
    c->after_unknown = unknown && !t->byte_fallback;
    if (!unknown) return tokenbuf_push(c->out, id, c->out_arena, e);
    if (!t->byte_fallback) return run || tokenbuf_push(c->out, id, c->out_arena, e);
    for (size_t i = 0; i < bytes; i++)
        if (!tokenbuf_push(c->out, t->byte_id[(unsigned char)s[i]], c->out_arena, e)) return false;
    return true;
}

static bool emit(Coder *c, const char *s, size_t bytes, Err *e)
{
    const Spm *t = c->t;
    int32_t id = spm_find(t, s, bytes);
    if (id >= 0 && t->piece[id].type == SPM_UNUSED) {
        const uint32_t left = c->cut[id];
        if (left) return emit(c, s, left, e) && emit(c, s + left, bytes - left, e);
        id = -1;
    }
    return emit_id(c, id < 0 ? t->unk : id, s, bytes, e);
}

static bool symbol_add(Coder *c, size_t at, size_t bytes, bool fixed, Err *e)
{
    if (c->n_sym == c->cap_sym) {
        const size_t cap = c->cap_sym ? 2 * c->cap_sym : 64;
        if (cap > (size_t)INT32_MAX)
            return err_set(e, ERR_MEMORY, "encode: one text of more than 2^30 characters; cut it");
        Symbol *s = arena_grow(&c->scratch, c->sym, c->n_sym * sizeof *s, cap * sizeof *s, e);
        if (!s) return false;
        c->sym = s;
        c->cap_sym = cap;
    }
    const int32_t i = (int32_t)c->n_sym++;
    c->sym[i] = (Symbol){at, (uint32_t)bytes, i - 1, -1, fixed};
    if (i > 0) c->sym[i - 1].next = i;
    return true;
}

/* Symbols of the part that starts at byte `at`; returns where the next part starts, SIZE_MAX with e set. */
static size_t part_split(Coder *c, size_t at, Err *e)
{
    bool other = false; /* a character that is not U+2581 was seen */
    c->n_sym = 0;
    while (at < c->bytes) {
        const char *s = c->text + at;
        const size_t left = c->bytes - at, user = c->t->max_user ? spm_user_match(c->t, s, left) : 0;
        const bool space = left >= 3 && memcmp(s, SPM_SPACE, 3) == 0;
        if (c->t->space_cuts && other && space) break;
        other = other || !space;
        size_t bytes = user ? user : utf8_next(s, left, NULL);
        if (bytes == 0) bytes = 1;
        if (!symbol_add(c, at, bytes, user > 0, e)) return SIZE_MAX;
        at += bytes;
    }
    return at;
}

static bool encode_parts(Coder *c, const char *text, size_t bytes, Err *e)
{
    TokText normal = {0};
    if (!normalise(c->t, text, bytes, &normal, &c->scratch, e)) return false;
    c->text = normal.s;
    c->bytes = normal.n;
    if (c->t->model_type == 1) {
        UnigramWork work = {0};
        const bool ok = unigram_best(&c->t->unigram, c->text, c->bytes, &work, &c->scratch, emit_id, c, e);
        c->steps += work.steps;
        return ok;
    }
    if (c->t->has_unused) {
        c->cut = arena_alloc(&c->scratch, (size_t)c->t->vocab * sizeof *c->cut, e);
        if (!c->cut) return false;
    }
    for (size_t at = 0; at < c->bytes;) {
        at = part_split(c, at, e);
        if (at == SIZE_MAX || !merge_all(c, e)) return false;
        for (int32_t i = c->n_sym ? 0 : -1; i >= 0; i = c->sym[i].next)
            if (!emit(c, c->text + c->sym[i].at, c->sym[i].bytes, e)) return false;
    }
    return true;
}

bool spm_encode(const Spm *t, const char *text, size_t bytes, TokenBuf *out, uint64_t *steps, Arena *a,
                Err *e)
{
    Coder c = {.t = t, .scratch = {.name = "encode"}, .out = out, .out_arena = a};
    const size_t n = out->n;
    const bool ok = encode_parts(&c, text, bytes, e);
    if (!ok) out->n = n;
    if (steps) *steps = c.steps;
    arena_free(&c.scratch);
    return ok;
}
