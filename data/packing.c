/* data/packing.c: documents as rows of T positions.
 *
 *   A document of n tokens takes n-1 positions: it reads d[0 .. n-2] and predicts d[1 .. n-1], so that one of
 *   T+1 tokens fills a row. Longer ones by data.too_long: `split` into parts that share one token, `truncate`
 *   to T+1, `skip`, `error`; `auto` splits what is trained everywhere and truncates what has targets of its
 *   own.
 *   pack   first-fit: a part goes into the first row with room for it. A tree over the rows holds the room of
 *          the best row below each node, so that the first fit is found in log2 of the rows (Johnson 1973).
 *   pad    one part a row.
 * Parts without a target are left out and counted.
 */
#include "data/packing_impl.h"
#include <stdlib.h>
#include <string.h>

typedef struct Cutter {
    Part *part;
    size_t n, cap;
    const Tokens *t;
    long T;
    LoaderReport *rep;
    Arena *a;
} Cutter;

/* Targets of the positions [from, from + n). */
static int64_t targets_of(const Tokens *t, size_t from, long n)
{
    int64_t sum = n;
    if (t->target)
        for (long i = sum = 0; i < n; i++) sum += t->target[from + (size_t)i + 1];
    return sum;
}

static bool add_part(Cutter *c, size_t from, long n, Err *e)
{
    const int64_t targets = n > 0 ? targets_of(c->t, from, n) : 0;
    c->rep->targets += targets;
    if (targets == 0) {
        c->rep->nothing_to_learn++;
        return true;
    }
    if (c->n == c->cap) {
        const size_t cap = c->cap ? 2 * c->cap : 256;
        Part *p = arena_grow(c->a, c->part, c->n * sizeof *p, cap * sizeof *p, e);
        if (!p) return false;
        c->part = p;
        c->cap = cap;
    }
    c->part[c->n++] = (Part){from, n, 0};
    return true;
}

static bool add_document(Cutter *c, size_t from, size_t to, const char *rule, Err *e)
{
    const size_t n = to - from, most = (size_t)c->T + 1;
    c->rep->documents++;
    if ((int64_t)n > c->rep->longest) c->rep->longest = (int64_t)n;
    if (n <= most) return add_part(c, from, (long)n - 1, e);
    c->rep->too_long++;
    if (strcmp(rule, "error") == 0)
        return err_set(e, ERR_FAIL,
                       "%s: document %lld has %zu tokens, more than seq_len %ld + 1 (data.too_long: error)",
                       c->t->path, (long long)c->rep->documents, n, c->T);
    if (strcmp(rule, "split") == 0) {
        for (size_t at = from; at + 1 < to; at += (size_t)c->T)
            if (!add_part(c, at, to - at <= most ? (long)(to - at) - 1 : c->T, e)) return false;
        return true;
    }
    const bool skip = strcmp(rule, "skip") == 0;
    c->rep->dropped_tokens += (int64_t)(skip ? n : n - most);
    return skip || add_part(c, from, c->T, e);
}

/* ---- first fit ---------------------------------------------------------------------------------------- */
typedef struct Tree {
    long *room; /* [2 size]: leaf i at size + i, a node holds the larger of its two */
    size_t size;
} Tree;

static size_t first_fit(const Tree *t, long n)
{
    size_t k = 1;
    while (k < t->size) k = 2 * k + (t->room[2 * k] < n);
    return k - t->size;
}

static void take(Tree *t, size_t row, long n)
{
    size_t k = t->size + row;
    t->room[k] -= n;
    for (k /= 2; k > 0; k /= 2) {
        const long x = t->room[2 * k], y = t->room[2 * k + 1];
        t->room[k] = x > y ? x : y;
    }
}

static bool fit(Cutter *c, Arena *scratch, Err *e)
{
    Tree t = {.size = 1};
    while (t.size < c->n) t.size *= 2;
    t.room = arena_alloc(scratch, 2 * t.size * sizeof *t.room, e);
    if (!t.room) return false;
    for (size_t i = 0; i < 2 * t.size; i++) t.room[i] = c->T;
    for (size_t i = 0; i < c->n; i++) {
        const size_t row = first_fit(&t, c->part[i].n);
        c->part[i].row = (int64_t)row;
        take(&t, row, c->part[i].n);
    }
    return true;
}

static int by_row(const void *x, const void *y)
{
    const Part *a = x, *b = y;
    if (a->row != b->row) return a->row < b->row ? -1 : 1;
    return (a->from > b->from) - (a->from < b->from);
}

static bool index_rows(Packing *p, Cutter *c, Arena *a, Err *e)
{
    qsort(c->part, c->n, sizeof *c->part, by_row);
    p->n_row = c->n ? c->part[c->n - 1].row + 1 : 0;
    p->part = c->part;
    p->n_part = c->n;
    p->row = arena_alloc(a, ((size_t)p->n_row + 1) * sizeof *p->row, e);
    if (!p->row) return false;
    for (size_t i = 0; i < c->n; i++) p->row[c->part[i].row + 1] = i + 1;
    return true;
}

bool packing_make(Packing *p, const Tokens *t, long T, bool pad, const char *too_long, LoaderReport *rep,
                  Arena *a, Err *e)
{
    Cutter c = {.t = t, .T = T, .rep = rep, .a = a};
    Arena scratch = {.name = "packing"};
    const size_t all[2] = {0, t->n}, *doc = t->doc ? t->doc : all, n_doc = t->doc ? t->n_doc : 1;
    const char *rule = strcmp(too_long, "auto") != 0 ? too_long : t->target ? "truncate" : "split";
    bool ok = true;
    for (size_t i = 0; ok && i < n_doc; i++) ok = add_document(&c, doc[i], doc[i + 1], rule, e);
    for (size_t i = 0; pad && i < c.n; i++) c.part[i].row = (int64_t)i;
    ok = ok && (pad || c.n == 0 || fit(&c, &scratch, e)) && index_rows(p, &c, a, e);
    arena_free(&scratch);
    return ok;
}

long packing_fill(const Packing *p, const Tokens *t, long T, int64_t i, bool restart, int32_t *ids,
                  int32_t *targets, int32_t *pos, int32_t *seg)
{
    long at = 0, counted = 0;
    for (size_t k = p->row[i]; k < p->row[i + 1]; k++) {
        const Part *x = &p->part[k];
        const int32_t number = (int32_t)(k - p->row[i]) + 1;
        for (long j = 0; j < x->n; j++, at++) {
            const size_t s = x->from + (size_t)j;
            const bool on = !t->target || t->target[s + 1];
            ids[at] = t->id[s];
            targets[at] = on ? t->id[s + 1] : -100;
            counted += on;
            if (pos) pos[at] = (int32_t)(restart ? j : at);
            if (seg) seg[at] = number;
        }
    }
    for (long j = 0; at < T; at++, j++) {
        ids[at] = 0;
        targets[at] = -100;
        if (pos) pos[at] = (int32_t)(restart ? j : at);
        if (seg) seg[at] = 0;
    }
    return counted;
}
