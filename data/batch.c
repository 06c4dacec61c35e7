/* data/batch.c: pieces of a source, encoded by all threads, handed out in the order of the text. What comes
 * out depends on neither the number of threads nor where a batch ends. */
#include "data/source_impl.h"
#include <omp.h>
#include <stdio.h>
#include <string.h>

bool batch_open(Batch *b, Arena *a, Err *e)
{
    *b = (Batch){.threads = omp_get_max_threads()};
    b->v = arena_alloc(a, BATCH_PIECES * sizeof *b->v, e);
    b->arena = arena_alloc(a, (size_t)(b->threads + 1) * sizeof *b->arena, e);
    for (int i = 0; b->arena && i <= b->threads; i++) b->arena[i].name = "documents";
    return b->arena != NULL;
}

void batch_close(Batch *b)
{
    for (int i = 0; b->arena && i <= b->threads; i++) arena_free(&b->arena[i]);
}

static void encode_one(Encoded *x, const Rule *rule, Arena *a)
{
    Err e = {0};
    x->out = (Stream){0};
    x->text = 0;
    x->bad = !rule_encode(rule, &x->piece, &x->out, &x->text, a, &e);
    if (!x->bad) return;
    Err lost = {0};
    x->err = arena_alloc(a, sizeof e, &lost);
    if (x->err) *x->err = e;
}

/* The first error in the order of the text. Records that are only bad are no error with skip. */
static bool first_error(const Batch *b, bool skip, Err *e)
{
    for (size_t i = 0; i < b->n; i++) {
        const Encoded *x = &b->v[i];
        if (!x->bad) continue;
        if (!x->err) return err_set(e, ERR_MEMORY, "out of memory for a document");
        if (skip && x->err->code == ERR_CORRUPT) continue;
        *e = *x->err;
        if (e->code == ERR_CORRUPT) { /* what one can do about a record; the message says what and where */
            const size_t n = strlen(e->msg);
            snprintf(e->msg + n, sizeof e->msg - n, " (data.on_bad_line: skip leaves such records out)");
        }
        return false;
    }
    return true;
}

bool batch_next(Batch *b, Reader *r, const Rule *rule, bool skip, Err *e)
{
    size_t bytes = 0;
    for (int i = 0; i <= b->threads; i++) arena_free(&b->arena[i]);
    b->n = 0;
    while (b->n < BATCH_PIECES && bytes < BATCH_BYTES && reader_next(r, &b->v[b->n].piece, e))
        bytes += b->v[b->n++].piece.n;
    if (e->code) return false;
    b->end = r->at;
#pragma omp parallel for schedule(dynamic, 1) num_threads(b->threads)
    for (size_t i = 0; i < b->n; i++) encode_one(&b->v[i], rule, &b->arena[omp_get_thread_num()]);
    return first_error(b, skip, e);
}
