/* data/unigram.c: the best segmentation of a text by a unigram language model.
 *
 *   best[0] = 0;   best[j] = max over pieces s[i..j) of best[i] + score(piece),   earliest i wins ties
 *
 * i steps from character to character; where no piece is exactly the character, the unknown piece is, at
 * unk_score. Paths are not kept for the whole text: at a place no piece reaches across all paths meet,
 * and what lies behind it is handed out (the score goes on, since its rounding decides ties).
 * Source: Kudo 2018, and the rules of SentencePiece's unigram_model.cc, whose ids these are.
 */
#include "data/unigram_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

/* ---- trie ---------------------------------------------------------------------------------------------- */

static uint64_t slot_of(const Trie *t, uint64_t key) { return (key * 0x9E3779B97F4A7C15ull >> 20) & t->mask; }

uint32_t trie_step(const Trie *t, uint32_t node, unsigned char byte)
{
    const uint64_t key = (uint64_t)node << 8 | byte;
    for (uint64_t i = slot_of(t, key);; i = (i + 1) & t->mask) {
        const uint64_t s = t->slot[i];
        if (s == 0) return 0;
        if (s >> 28 == key) return (uint32_t)(s & 0xFFFFFFF);
    }
}

static uint32_t trie_grow(Trie *t, uint32_t node, unsigned char byte)
{
    const uint64_t key = (uint64_t)node << 8 | byte;
    uint64_t i = slot_of(t, key);
    while (t->slot[i] != 0) i = (i + 1) & t->mask;
    t->slot[i] = key << 28 | t->n_node;
    t->value[t->n_node] = -1;
    return t->n_node++;
}

bool trie_open(Trie *t, const TokSpan *piece, size_t n, const char *where, Arena *a, Err *e)
{
    size_t total = 1, cap = 64;
    for (size_t i = 0; i < n; i++) total += piece[i].s ? piece[i].n : 0;
    if (total >= (size_t)1 << 28)
        return err_set(e, ERR_CORRUPT, "%s: a vocabulary of %zu bytes (at most 2^28)", where, total);
    while (cap < total + total / 2) cap *= 2;
    *t = (Trie){.slot = arena_alloc(a, cap * sizeof *t->slot, e),
                .mask = cap - 1,
                .value = arena_alloc(a, total * sizeof *t->value, e),
                .n_node = 1};
    if (!t->slot || !t->value) return false;
    t->value[0] = -1;
    for (size_t i = 0; i < n; i++) {
        uint32_t node = 0;
        if (!piece[i].s || piece[i].n == 0) continue;
        for (size_t k = 0; k < piece[i].n; k++) {
            const unsigned char b = (unsigned char)piece[i].s[k];
            const uint32_t next = trie_step(t, node, b);
            node = next ? next : trie_grow(t, node, b);
        }
        t->value[node] = (int32_t)i;
    }
    return true;
}

int32_t trie_find(const Trie *t, const char *s, size_t n)
{
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++)
        if ((node = trie_step(t, node, (unsigned char)s[i])) == 0) return -1;
    return t->value[node];
}

/* ---- best path ----------------------------------------------------------------------------------------- */

/* node[0..k] for k up to `need` exists. */
static bool room(UnigramWork *w, size_t need, Arena *scratch, Err *e)
{
    if (need < w->cap) return true;
    const size_t cap = 2 * need + 256;
    UnigramNode *p = arena_grow(scratch, w->node, w->cap * sizeof *p, cap * sizeof *p, e);
    if (!p) return false;
    w->node = p;
    w->cap = cap;
    return true;
}

/* A piece of `bytes` bytes ends at node t, its path with score `sum`. */
static void offer(const Unigram *u, UnigramNode *t, double sum, int32_t id, size_t bytes)
{
    if (t->bytes && !(sum > t->score)) return;
    *t = (UnigramNode){u->single ? (double)(float)sum : sum, id, (uint32_t)bytes};
}

/* Hands out the path that ends at node `end`, by turning its arcs round, and clears what it passed. */
static bool hand_out(UnigramWork *w, size_t end, const char *s, UnigramEmit *emit, void *to, Err *e)
{
    UnigramNode arc = w->node[end];
    for (size_t at = end; at > 0;) {
        at -= arc.bytes;
        const UnigramNode before = w->node[at];
        w->node[at] = arc;
        arc = before;
    }
    for (size_t at = 0; at < end; at += w->node[at].bytes)
        if (!emit(to, w->node[at].id, s + at, w->node[at].bytes, e)) return false;
    memset(w->node, 0, (end + 1) * sizeof *w->node);
    return true;
}

/* Offers all pieces that begin at s[at]; w->node[0] is s[base]. *reach: the furthest end of a piece yet. */
static bool offer_all(const Unigram *u, const char *s, size_t n, size_t base, size_t at, size_t len,
                      size_t *reach, UnigramWork *w, Arena *scratch, Err *e)
{
    const double from = w->node[at - base].score;
    bool whole = false; /* a piece is exactly the character */
    uint32_t node = 0;
    for (size_t i = at; i < n; i++) {
        node = trie_step(&u->trie, node, (unsigned char)s[i]);
        w->steps++;
        if (node == 0) break;
        const int32_t id = u->trie.value[node];
        if (id < 0) continue;
        if (!room(w, i + 1 - base, scratch, e)) return false;
        offer(u, &w->node[i + 1 - base], from + u->score[id], id, i + 1 - at);
        if (i + 1 > *reach) *reach = i + 1;
        if (i + 1 - at == len) whole = true;
    }
    if (whole) return true;
    if (u->unk < 0)
        return err_set(e, ERR_USAGE,
                       "encode: no piece for the character at byte %zu, and the model has no unknown piece",
                       at);
    if (!room(w, at + len - base, scratch, e)) return false;
    /* SentencePiece adds this one in float: it is rounded before it is compared. */
    const double sum = from + u->unk_score;
    offer(u, &w->node[at + len - base], u->single ? (double)(float)sum : sum, u->unk, len);
    if (at + len > *reach) *reach = at + len;
    return true;
}

bool unigram_best(const Unigram *u, const char *s, size_t n, UnigramWork *w, Arena *scratch,
                  UnigramEmit *emit, void *to, Err *e)
{
    enum { HAND_OUT = 4096 }; /* bytes worth it; shorter ones wait for the end */
    size_t base = 0, reach = 0;
    if (!room(w, 0, scratch, e)) return false;
    for (size_t at = 0, len; at < n; at += len) {
        if (at == reach && at - base >= HAND_OUT && w->node[at - base].id != u->unk) {
            const double score = w->node[at - base].score;
            if (!hand_out(w, at - base, s + base, emit, to, e)) return false;
            w->node[0].score = score;
            base = at;
        }
        len = utf8_next(s + at, n - at, NULL);
        if (len == 0) len = 1;
        if (!offer_all(u, s, n, base, at, len, &reach, w, scratch, e)) return false;
    }
    return n == 0 || hand_out(w, n - base, s + base, emit, to, e);
}
