/* autograd/place.c: offsets in one arena for buffers with known lifetimes.
 *
 * Largest first, each at the lowest offset where it overlaps no buffer that lives at the same time. Best-fit
 * by size is within a few per cent of the lower bound on transformer graphs (the largest sum of live
 * bytes). */
#include "autograd/graph_impl.h"
#include <stdlib.h>

static int by_size(const void *a, const void *b)
{
    const Buffer *x = *(Buffer *const *)a, *y = *(Buffer *const *)b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    if (x->from != y->from) return x->from < y->from ? -1 : 1;
    return x < y ? -1 : x > y;
}
static int by_offset(const void *a, const void *b)
{
    const Buffer *x = *(Buffer *const *)a, *y = *(Buffer *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* b[0..n): bytes, from, to (schedule positions, both included) in; offset out. total: bytes of the arena. */
bool plan_place(Buffer *b, int n, size_t *total, Arena *a, Err *e)
{
    Buffer **order = arena_alloc(a, (size_t)n * sizeof *order, e);
    Buffer **live = arena_alloc(a, (size_t)n * sizeof *live, e);
    if (!order || !live) return false;
    for (int i = 0; i < n; i++) order[i] = &b[i];
    qsort(order, (size_t)n, sizeof *order, by_size);
    *total = 0;
    for (int i = 0; i < n; i++) {
        Buffer *x = order[i];
        int m = 0;
        for (int j = 0; j < i; j++)
            if (order[j]->from <= x->to && x->from <= order[j]->to) live[m++] = order[j];
        qsort(live, (size_t)m, sizeof *live, by_offset);
        size_t at = 0;
        for (int j = 0; j < m; j++) {
            if (at + x->bytes <= live[j]->offset) break;
            size_t end = live[j]->offset + live[j]->bytes;
            if (end > at) at = end;
        }
        x->offset = at;
        if (at + x->bytes > *total) *total = at + x->bytes;
    }
    return true;
}
