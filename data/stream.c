/* data/stream.c: a growing stream of tokens with its targets and the places where documents begin. */
#include "data/source_impl.h"
#include <string.h>

static bool room(Stream *s, size_t n, bool targets, Arena *a, Err *e)
{
    TokenBuf *b = &s->ids;
    if (b->n + n > b->cap) {
        const size_t cap = b->n + n > 2 * b->cap ? b->n + n + 64 : 2 * b->cap;
        int32_t *id = arena_grow(a, b->id, b->n * sizeof *id, cap * sizeof *id, e);
        if (!id) return false;
        b->id = id;
        b->cap = cap;
    }
    if (!targets || s->target_cap >= b->cap) return true;
    const size_t had = s->target ? s->target_cap : 0;
    uint8_t *t = arena_grow(a, s->target, had < b->n ? had : b->n, b->cap, e);
    if (!t) return false;
    if (had < b->n) memset(t + had, 1, b->n - had);
    s->target = t;
    s->target_cap = b->cap;
    return true;
}

bool stream_put(Stream *s, const int32_t *ids, const uint8_t *target, size_t n, Arena *a, Err *e)
{
    if (!room(s, n, target || s->target, a, e)) return false;
    if (n > 0) memcpy(s->ids.id + s->ids.n, ids, n * sizeof *ids);
    if (n > 0 && target) memcpy(s->target + s->ids.n, target, n);
    else if (n > 0 && s->target) memset(s->target + s->ids.n, 1, n);
    s->ids.n += n;
    return true;
}

bool stream_document(Stream *s, Arena *a, Err *e)
{
    if (s->n_doc == s->doc_cap) {
        const size_t cap = s->doc_cap ? 2 * s->doc_cap : 64;
        size_t *d = arena_grow(a, s->doc, s->n_doc * sizeof *d, cap * sizeof *d, e);
        if (!d) return false;
        s->doc = d;
        s->doc_cap = cap;
    }
    s->doc[s->n_doc++] = s->ids.n;
    return true;
}
