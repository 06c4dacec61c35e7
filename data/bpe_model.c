/* data/bpe_model.c: a byte-pair model from pieces and merges, as files spell them (BpeSpec).
 *
 * Byte-level pieces are stored as raw bytes. A merge (a, b) makes the piece a + b (b without
 * continuing_subword_prefix). Rank files have no merges: any two pieces whose joint text is a piece merge,
 * with that piece's id as rank, so every cut of every piece into two pieces is a merge.
 */
#include "data/bpe_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

#define SPACE_LETTER "\xE2\x96\x81"

static uint64_t mix(int32_t left, int32_t right)
{
    uint64_t x = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return x ^ x >> 29;
}

const BpeMerge *bpe_merge_of(const Bpe *b, int32_t left, int32_t right)
{
    for (uint32_t i = (uint32_t)mix(left, right) & b->merge_mask;; i = (i + 1) & b->merge_mask) {
        const BpeMerge *m = &b->merge[i];
        if (m->left < 0) return NULL;
        if (m->left == left && m->right == right) return m;
    }
}

int32_t bpe_find(const void *impl, const char *s, size_t n)
{
    const Bpe *b = impl;
    for (uint32_t i = (uint32_t)hash64(s, n) & b->slot_mask;; i = (i + 1) & b->slot_mask) {
        const int32_t id = b->slot[i];
        if (id < 0 || (b->piece[id].n == n && memcmp(b->piece[id].s, s, n) == 0)) return id;
    }
}

static TokSpan bpe_piece(const void *impl, int32_t id)
{
    const Bpe *b = impl;
    return id >= 0 && id < b->n_piece ? b->piece[id] : (TokSpan){NULL, 0};
}

static bool put_number(TokText *out, uint64_t x, Arena *a, Err *e)
{
    return text_put(out, (const char *)&x, sizeof x, a, e);
}

/* The merges by rank: equal lists give equal bytes whatever the table's order. */
static bool bpe_digest(const void *impl, TokText *out, Arena *a, Err *e)
{
    const Bpe *b = impl;
    const char rules[5] = {(char)b->bytes, (char)b->byte_fallback, (char)b->fuse_unk, (char)b->ignore_merges,
                           0};
    uint64_t sum = 0, xor = 0;
    for (uint32_t i = 0; i <= b->merge_mask; i++) {
        const BpeMerge *m = &b->merge[i];
        if (m->left < 0) continue;
        const uint64_t h = hash64(m, sizeof *m);
        sum += h;
        xor ^= h * 0x9E3779B97F4A7C15u;
    }
    const char *const prefix = b->prefix ? b->prefix : "", *const suffix = b->suffix ? b->suffix : "";
    return text_put(out, rules, sizeof rules, a, e) && put_number(out, (uint64_t)(int64_t)b->unk, a, e) &&
           put_number(out, b->n_merge, a, e) && put_number(out, sum, a, e) && put_number(out, xor, a, e) &&
           text_put(out, prefix, strlen(prefix) + 1, a, e) && text_put(out, suffix, strlen(suffix) + 1, a, e);
}

static const PieceModel bpe_model = {"BPE", bpe_encode, bpe_piece, bpe_find, bpe_digest};

bool bpe_merge_split(const char *s, size_t n, TokSpan *left, TokSpan *right)
{
    const char *blank = n ? memchr(s, ' ', n) : NULL;
    if (!blank || blank == s || blank + 1 == s + n) return false;
    *left = (TokSpan){s, (size_t)(blank - s)};
    *right = (TokSpan){blank + 1, n - left->n - 1};
    return !memchr(right->s, ' ', right->n);
}

/* ---- pieces -------------------------------------------------------------------------------------------- */

static void put_slot(Bpe *b, int32_t id)
{
    const TokSpan t = b->piece[id];
    uint32_t i = (uint32_t)hash64(t.s, t.n) & b->slot_mask;
    while (b->slot[i] >= 0) i = (i + 1) & b->slot_mask;
    b->slot[i] = id;
}

/* A piece with a letter that stands for no byte keeps its text and is never matched. */
static bool take_pieces(Bpe *b, const BpeSpec *s, const char *what, Arena *a, Err *e)
{
    uint32_t cap = 16;
    while (cap < 2 * (uint32_t)s->n_piece) cap *= 2;
    b->piece = arena_alloc(a, ((size_t)s->n_piece + 1) * sizeof *b->piece, e);
    b->slot = arena_alloc(a, cap * sizeof *b->slot, e);
    size_t room = 1;
    for (int32_t id = 0; id < s->n_piece; id++) room += s->byte_level ? s->piece[id].n + 1 : 0;
    char *raw = arena_alloc(a, room, e);
    if (!b->piece || !b->slot || !raw) return false;
    memset(b->slot, -1, cap * sizeof *b->slot);
    b->slot_mask = cap - 1;
    for (int32_t id = 0; id < s->n_piece; id++) {
        TokSpan t = s->piece[id];
        if (!t.s) continue;
        if (t.n == 0) continue;
        if (t.n > 65535) return err_set(e, ERR_CORRUPT, "%s: token %d has %zu bytes", what, id, t.n);
        bool usable = true;
        b->piece[id] = t;
        if (s->byte_level) {
            size_t n;
            usable = byte_level_bytes(t.s, t.n, raw, &n);
            if (usable) raw[n] = 0;
            if (usable) b->piece[id] = (TokSpan){raw, n};
            if (usable) raw += n + 1;
        }
        if (!usable) continue;
        t = b->piece[id];
        const int32_t other = bpe_find(b, t.s, t.n);
        if (other >= 0)
            return err_set(e, ERR_CORRUPT, "%s: tokens %d and %d have the same text", what, other, id);
        put_slot(b, id);
    }
    return true;
}

static bool take_bytes(Bpe *b, const BpeSpec *s, const char *what, Err *e)
{
    static const char hex[] = "0123456789ABCDEF";
    int missing = 0;
    memset(b->byte_id, -1, sizeof b->byte_id);
    for (unsigned v = 0; v < 256; v++) {
        const char byte = (char)v, text[6] = {'<', '0', 'x', hex[v >> 4], hex[v & 15], '>'};
        b->byte_id[v] = b->bytes ? bpe_find(b, &byte, 1) : b->byte_fallback ? bpe_find(b, text, 6) : -1;
        missing += b->byte_id[v] < 0;
    }
    if (b->bytes && b->byte_fallback && missing)
        return err_set(e, ERR_USAGE,
                       "%s: byte_fallback of a byte-level vocabulary without all bytes: not in this version",
                       what);
    if (s->raw_bytes && missing)
        return err_set(e, ERR_CORRUPT, "%s: %d of the 256 bytes have no rank", what, missing);
    return true;
}

/* ---- merges -------------------------------------------------------------------------------------------- */

static bool merge_room(Bpe *b, size_t n, Arena *a, Err *e)
{
    size_t cap = 16;
    while (cap < 2 * n) cap *= 2;
    if (cap > (size_t)1 << 30) return err_set(e, ERR_MEMORY, "%zu merges are too many", n);
    b->merge = arena_alloc(a, cap * sizeof *b->merge, e);
    if (!b->merge) return false;
    b->merge_mask = (uint32_t)(cap - 1);
    for (size_t i = 0; i < cap; i++) b->merge[i].left = -1;
    return true;
}

/* A pair listed twice counts where it stands last, as in the reference. */
static void put_merge(Bpe *b, BpeMerge m)
{
    uint32_t i = (uint32_t)mix(m.left, m.right) & b->merge_mask;
    while (b->merge[i].left >= 0 && (b->merge[i].left != m.left || b->merge[i].right != m.right))
        i = (i + 1) & b->merge_mask;
    b->n_merge += b->merge[i].left < 0;
    b->merge[i] = m;
}

static int32_t merge_piece(const Bpe *b, const BpeSpec *s, TokSpan t, Arena *tmp, Err *e)
{
    if (!s->byte_level) return bpe_find(b, t.s, t.n);
    char *raw = arena_alloc(tmp, t.n + 1, e);
    size_t n;
    return raw && byte_level_bytes(t.s, t.n, raw, &n) ? bpe_find(b, raw, n) : -1;
}

static bool take_merge(Bpe *b, const BpeSpec *s, size_t i, const char *what, Arena *tmp, Err *e)
{
    const TokSpan l = s->left[i], r = s->right[i];
    const int32_t left = merge_piece(b, s, l, tmp, e), right = merge_piece(b, s, r, tmp, e);
    const size_t skip = b->prefix ? strlen(b->prefix) : 0;
    if (e->code) return false;
    if (left < 0 || right < 0 || skip > r.n)
        return err_set(e, ERR_CORRUPT, "%s: merge %zu, `%.*s %.*s`: `%.*s` is not in the vocabulary", what, i,
                       (int)l.n, l.s, (int)r.n, r.s, (int)(left < 0 ? l : r).n, (left < 0 ? l : r).s);
    TokText made = {0};
    if (!text_put(&made, l.s, l.n, tmp, e) || !text_put(&made, r.s + skip, r.n - skip, tmp, e)) return false;
    const int32_t id = merge_piece(b, s, (TokSpan){made.s, made.n}, tmp, e);
    if (id < 0)
        return e->code ? false
                       : err_set(e, ERR_CORRUPT, "%s: merge %zu makes `%.*s`, which is not in the vocabulary",
                                 what, i, (int)made.n, made.s);
    put_merge(b, (BpeMerge){left, right, id, (uint32_t)i});
    return true;
}

static bool listed_merges(Bpe *b, const BpeSpec *s, const char *what, Arena *a, Err *e)
{
    Arena tmp = {.name = "merges"};
    bool ok = merge_room(b, s->n_merge, a, e);
    for (size_t i = 0; ok && i < s->n_merge; i++) {
        const ArenaMark mark = arena_mark(&tmp);
        ok = take_merge(b, s, i, what, &tmp, e);
        arena_release(&tmp, mark);
    }
    arena_free(&tmp);
    return ok;
}

/* Counts the cuts of all pieces, or puts them in. */
static size_t each_cut(Bpe *b, bool put)
{
    size_t count = 0;
    for (int32_t id = 0; id < b->n_piece; id++) {
        const TokSpan t = b->piece[id];
        for (size_t k = 1; t.s && k < t.n; k++) {
            const int32_t left = bpe_find(b, t.s, k);
            const int32_t right = left < 0 ? -1 : bpe_find(b, t.s + k, t.n - k);
            if (right < 0) continue;
            count++;
            if (put) put_merge(b, (BpeMerge){left, right, id, (uint32_t)id});
        }
    }
    return count;
}

/* ---- what encoding looks up ---------------------------------------------------------------------------- */

/* Parts may be cut in front of U+2581 when no piece has it behind another character and it is itself a piece,
 * so that no merge and no run of unknown characters crosses. */
static bool cuts_at_spaces(const Bpe *b)
{
    if (b->bytes || b->prefix || b->suffix || bpe_find(b, SPACE_LETTER, 3) < 0) return false;
    for (int32_t id = 0; id < b->n_piece; id++) {
        const TokSpan t = b->piece[id];
        bool other = false;
        for (size_t i = 0; t.s && i < t.n;) {
            const bool space = t.n - i >= 3 && memcmp(t.s + i, SPACE_LETTER, 3) == 0;
            if (space && other) return false;
            other |= !space;
            i += space ? 3 : 1;
        }
    }
    return true;
}

static bool find_whole(Bpe *b, Arena *a, Err *e)
{
    Arena tmp = {.name = "whole words"};
    b->whole = arena_alloc(a, (size_t)b->n_piece + 1, e);
    bool ok = b->whole != NULL;
    for (int32_t id = 0; ok && id < b->n_piece; id++) {
        const TokSpan t = b->piece[id];
        if (!t.s || (b->ignore_merges && !b->space_cuts)) continue;
        const ArenaMark mark = arena_mark(&tmp);
        int32_t *ids = arena_alloc(&tmp, t.n * sizeof *ids, e);
        ok = ids != NULL;
        b->whole[id] = ok && bpe_merge_word(b, t.s, t.n, ids, NULL, &tmp, e) == 1 && ids[0] == id;
        arena_release(&tmp, mark);
    }
    arena_free(&tmp);
    return ok && !e->code;
}

bool bpe_open(Pipeline *p, const BpeSpec *s, const char *what, Arena *a, Err *e)
{
    Bpe *b = arena_alloc(a, sizeof *b, e);
    if (!b) return false;
    const size_t affix = (s->prefix ? strlen(s->prefix) : 0) + (s->suffix ? strlen(s->suffix) : 0);
    if (affix > 300)
        return err_set(e, ERR_USAGE, "%s: continuing_subword_prefix or end_of_word_suffix beyond 300 bytes",
                       what);
    *b = (Bpe){.n_piece = s->n_piece,
               .bytes = s->byte_level || s->raw_bytes,
               .byte_fallback = s->byte_fallback,
               .fuse_unk = s->fuse_unk,
               .ignore_merges = s->ignore_merges,
               .unk = s->unk,
               .prefix = s->prefix && *s->prefix ? s->prefix : NULL,
               .suffix = s->suffix && *s->suffix ? s->suffix : NULL};
    if ((b->bytes || b->byte_fallback) && (b->prefix || b->suffix))
        return err_set(
            e, ERR_USAGE,
            "%s: continuing_subword_prefix or end_of_word_suffix in a model of bytes: not in this version",
            what);
    if (!take_pieces(b, s, what, a, e) || !take_bytes(b, s, what, e)) return false;
    if (s->left ? !listed_merges(b, s, what, a, e) : !merge_room(b, each_cut(b, false), a, e)) return false;
    if (!s->left) each_cut(b, true);
    b->space_cuts = cuts_at_spaces(b);
    p->model = &bpe_model;
    p->impl = b;
    p->n_model = s->n_piece;
    return find_whole(b, a, e);
}
