/* data/bpe_encode.c: byte-pair encoding of one pre-token.
 *
 * Symbols (bytes, or characters) are merged by the pair of lowest rank, leftmost first, until no pair has a
 * merge. Up to BPE_LONG_WORD symbols: look for the lowest each time. More: a heap of (rank, position) over a
 * linked list; an entry counts only while its pair still has that rank. Each merge adds at most two
 * entries, so n symbols cost O(n log n).
 *
 * A word that is one piece, and merges to it, is one look-up; the others go through a cache one text long.
 */
#include "data/bpe_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

#define NO_RANK UINT32_MAX
#define CACHE_BYTES 36
#define CACHE_IDS 12
#define CACHE_SMALL 256u
#define CACHE_LARGE 8192u
#define SPACE_LETTER "\xE2\x96\x81"

typedef struct CacheEntry {
    uint8_t bytes, n;
    char word[CACHE_BYTES];
    int32_t id[CACHE_IDS];
} CacheEntry;
typedef struct Cache {
    CacheEntry *entry; /* [mask + 1] */
    uint32_t mask, misses;
} Cache;

typedef struct Node {
    int32_t id, prev, next;
    uint32_t rank; /* of the pair with next */
} Node;

static uint32_t rank_of(const Bpe *b, int32_t left, int32_t right)
{
    const BpeMerge *m = bpe_merge_of(b, left, right);
    return m ? m->rank : NO_RANK;
}

/* ---- symbols ------------------------------------------------------------------------------------------- */

static int32_t symbol_id(const Bpe *b, const char *s, size_t n, bool first, bool last)
{
    char text[320];
    if ((first || !b->prefix) && (!last || !b->suffix)) return bpe_find(b, s, n);
    size_t m = 0;
    if (!first && b->prefix) {
        m = strlen(b->prefix);
        memcpy(text, b->prefix, m);
    }
    memcpy(text + m, s, n);
    m += n;
    if (last && b->suffix) {
        memcpy(text + m, b->suffix, strlen(b->suffix));
        m += strlen(b->suffix);
    }
    return bpe_find(b, text, m);
}

static bool all_bytes(const Bpe *b, const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (b->byte_id[(unsigned char)s[i]] < 0) return false;
    return b->byte_fallback;
}

/* Characters of the word -> ids (n,). Unknown ones become the unknown id, one for a run if fuse_unk; as in
 * the reference the pending one comes behind bytes that stand in for a character. */
static size_t char_symbols(const Bpe *b, const char *s, size_t n, int32_t *ids)
{
    size_t m = 0;
    bool pending = false;
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_next(s + i, n - i, NULL);
        if (len == 0) len = 1;
        const int32_t id = symbol_id(b, s + i, len, i == 0, i + len == n);
        const bool plain = (i == 0 || !b->prefix) && (i + len < n || !b->suffix);
        if (id >= 0) {
            if (pending) ids[m++] = b->unk;
            pending = false;
            ids[m++] = id;
        } else if (plain && all_bytes(b, s + i, len)) {
            for (size_t k = 0; k < len; k++) ids[m++] = b->byte_id[(unsigned char)s[i + k]];
        } else if (b->unk >= 0) {
            if (pending && !b->fuse_unk) ids[m++] = b->unk;
            pending = true;
        }
    }
    if (pending) ids[m++] = b->unk;
    return m;
}

static size_t symbols(const Bpe *b, const char *s, size_t n, int32_t *ids)
{
    size_t m = 0;
    bool pending = false;
    if (!b->bytes) return char_symbols(b, s, n, ids);
    for (size_t i = 0; i < n; i++) {
        const int32_t id = b->byte_id[(unsigned char)s[i]];
        if (pending && (id >= 0 || !b->fuse_unk)) ids[m++] = b->unk;
        pending = id < 0 && b->unk >= 0;
        if (id >= 0) ids[m++] = id;
    }
    if (pending) ids[m++] = b->unk;
    return m;
}

/* ---- merging ------------------------------------------------------------------------------------------- */

static size_t merge_short(const Bpe *b, int32_t *id, size_t n, uint64_t *steps)
{
    uint32_t rank[BPE_LONG_WORD];
    uint64_t count = n;
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        count += n;
        if (rank[best] == NO_RANK) break;
        id[best] = bpe_merge_of(b, id[best], id[best + 1])->made;
        memmove(id + best + 1, id + best + 2, (n - best - 2) * sizeof *id);
        if (n - best > 2) memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        n--;
        if (best + 1 < n) rank[best] = rank_of(b, id[best], id[best + 1]);
        if (best > 0) rank[best - 1] = rank_of(b, id[best - 1], id[best]);
    }
    if (steps) *steps += count;
    return n;
}

typedef struct Heap {
    uint64_t *key; /* rank << 32 | position, least first */
    size_t n;
    uint64_t steps;
} Heap;

static void sift_down(Heap *h, size_t i, uint64_t x)
{
    for (size_t kid; (kid = 2 * i + 1) < h->n; i = kid) {
        if (kid + 1 < h->n && h->key[kid + 1] < h->key[kid]) kid++;
        if (h->key[kid] >= x) break;
        h->key[i] = h->key[kid];
        h->steps++;
    }
    h->key[i] = x;
}

static void heap_push(Heap *h, uint64_t x)
{
    size_t i = h->n++;
    for (; i > 0 && h->key[(i - 1) / 2] > x; i = (i - 1) / 2) {
        h->key[i] = h->key[(i - 1) / 2];
        h->steps++;
    }
    h->key[i] = x;
}

static uint64_t heap_pop(Heap *h)
{
    const uint64_t top = h->key[0];
    if (--h->n > 0) sift_down(h, 0, h->key[h->n]);
    return top;
}

static void new_pair(const Bpe *b, Heap *h, Node *node, int32_t at)
{
    Node *const x = &node[at];
    x->rank = x->next < 0 ? NO_RANK : rank_of(b, x->id, node[x->next].id);
    h->steps++;
    if (x->rank != NO_RANK) heap_push(h, (uint64_t)x->rank << 32 | (uint32_t)at);
}

static void merge_at(const Bpe *b, Heap *h, Node *node, int32_t at)
{
    Node *const x = &node[at], *const y = &node[x->next];
    x->id = bpe_merge_of(b, x->id, y->id)->made;
    y->rank = NO_RANK;
    x->next = y->next;
    if (x->next >= 0) node[x->next].prev = at;
    new_pair(b, h, node, at);
    if (x->prev >= 0) new_pair(b, h, node, x->prev);
}

/* Entries die when their pair changes; when they are most of the heap's room, three per symbol, none can be
 * left over: each merge removes a symbol and adds two. */
static size_t merge_long(const Bpe *b, int32_t *id, size_t n, uint64_t *steps, Arena *scratch, Err *e)
{
    const ArenaMark mark = arena_mark(scratch);
    if (n > INT32_MAX / 4) {
        err_set(e, ERR_FAIL, "a word of %zu symbols is too long to encode", n);
        return 0;
    }
    Node *node = arena_alloc(scratch, n * sizeof *node, e);
    Heap h = {.key = node ? arena_alloc(scratch, 3 * n * sizeof *h.key, e) : NULL};
    if (!h.key) return 0;
    for (size_t i = 0; i < n; i++)
        node[i] = (Node){id[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1, NO_RANK};
    for (size_t i = 0; i + 1 < n; i++) {
        node[i].rank = rank_of(b, id[i], id[i + 1]);
        if (node[i].rank != NO_RANK) h.key[h.n++] = (uint64_t)node[i].rank << 32 | i;
    }
    for (size_t i = h.n / 2; i-- > 0;) sift_down(&h, i, h.key[i]);
    while (h.n > 0) {
        const uint64_t top = heap_pop(&h);
        const int32_t at = (int32_t)(uint32_t)top;
        if (node[at].rank == (uint32_t)(top >> 32)) merge_at(b, &h, node, at);
    }
    size_t m = 0;
    for (int32_t i = 0; i >= 0; i = node[i].next) id[m++] = node[i].id;
    if (steps) *steps += h.steps + n;
    arena_release(scratch, mark);
    return m;
}

size_t bpe_merge_word(const Bpe *b, const char *s, size_t n, int32_t *ids, uint64_t *steps, Arena *scratch,
                      Err *e)
{
    const size_t m = symbols(b, s, n, ids);
    if (m < 2) return m;
    return m <= BPE_LONG_WORD ? merge_short(b, ids, m, steps) : merge_long(b, ids, m, steps, scratch, e);
}

/* ---- words --------------------------------------------------------------------------------------------- */

static bool push_all(TokenBuf *out, const int32_t *id, size_t n, Arena *a, Err *e)
{
    for (size_t i = 0; i < n; i++)
        if (!tokenbuf_push(out, id[i], a, e)) return false;
    return true;
}

/* The entry a word may lie in; the cache is small until it has earned more. */
static CacheEntry *cache_entry(void **slot, const char *s, size_t n, Arena *scratch, Err *e)
{
    Cache *c = *slot;
    const bool grow = c && c->misses > 1024 && c->mask + 1 < CACHE_LARGE;
    if (!c || grow) {
        const uint32_t size = grow ? CACHE_LARGE : CACHE_SMALL;
        c = arena_alloc(scratch, sizeof *c, e);
        if (!c || !(c->entry = arena_alloc(scratch, size * sizeof *c->entry, e))) return NULL;
        c->mask = size - 1;
        *slot = c;
    }
    return &c->entry[(uint32_t)hash64(s, n) & c->mask];
}

static bool merge_and_push(const Bpe *b, const char *s, size_t n, CacheEntry *keep, TokenBuf *out,
                           uint64_t *steps, Arena *scratch, Arena *a, Err *e)
{
    int32_t few[64];
    const ArenaMark mark = arena_mark(scratch);
    int32_t *ids = n <= 64 ? few : arena_alloc(scratch, n * sizeof *ids, e);
    if (!ids) return false;
    const size_t m = bpe_merge_word(b, s, n, ids, steps, scratch, e);
    if (keep && m <= CACHE_IDS) {
        keep->bytes = (uint8_t)n;
        keep->n = (uint8_t)m;
        memcpy(keep->word, s, n);
        memcpy(keep->id, ids, m * sizeof *ids);
    }
    const bool ok = !e->code && push_all(out, ids, m, a, e);
    if (n > 64) arena_release(scratch, mark);
    return ok;
}

static bool word(const Bpe *b, const char *s, size_t n, void **cache, TokenBuf *out, uint64_t *steps,
                 Arena *scratch, Arena *a, Err *e)
{
    const int32_t id = bpe_find(b, s, n);
    if (id >= 0 && b->whole[id]) return tokenbuf_push(out, id, a, e);
    if (n > CACHE_BYTES) return merge_and_push(b, s, n, NULL, out, steps, scratch, a, e);
    CacheEntry *x = cache_entry(cache, s, n, scratch, e);
    if (!x) return false;
    if (x->bytes == n && memcmp(x->word, s, n) == 0) return push_all(out, x->id, x->n, a, e);
    ((Cache *)*cache)->misses++;
    return merge_and_push(b, s, n, x, out, steps, scratch, a, e);
}

bool bpe_encode(const void *impl, const char *s, size_t n, void **cache, TokenBuf *out, uint64_t *steps,
                Arena *scratch, Arena *a, Err *e)
{
    const Bpe *b = impl;
    const int32_t id = b->ignore_merges ? bpe_find(b, s, n) : -1;
    if (id >= 0) return tokenbuf_push(out, id, a, e);
    if (!b->space_cuts) return word(b, s, n, cache, out, steps, scratch, a, e);
    size_t from = 0;
    for (size_t i = 1; i + 2 < n; i++) {
        if (s[i] != SPACE_LETTER[0] || memcmp(s + i, SPACE_LETTER, 3) != 0) continue;
        if (i < from + 3 || memcmp(s + i - 3, SPACE_LETTER, 3) != 0) {
            if (!word(b, s + from, i - from, cache, out, steps, scratch, a, e)) return false;
            from = i;
        }
        i += 2;
    }
    return word(b, s + from, n - from, cache, out, steps, scratch, a, e);
}
