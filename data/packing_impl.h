/* Private to data/: documents as rows of T positions (packing.c), used by loader.c. */
#ifndef PACKING_IMPL_H
#define PACKING_IMPL_H
#include "data/source_impl.h"

/* Positions [0, n) of a row part: ids t[from ..], targets one further. */
typedef struct Part {
    size_t from;
    long n;
    int64_t row;
} Part;
typedef struct Packing {
    Part *part; /* in the order of rows, inside a row in the order of the text */
    size_t n_part;
    size_t *row; /* (n_row + 1,) first part of each row */
    int64_t n_row;
} Packing;
/* documents of t into rows of T positions: one each (pad), or first-fit (pack). Counts go to rep. */
bool packing_make(Packing *p, const Tokens *t, long T, bool pad, const char *too_long, LoaderReport *rep,
                  Arena *a, Err *e);
/* Row i: segments number from 1, what is left over is padding (id 0, target -100, segment 0). Returns
 * targets. */
long packing_fill(const Packing *p, const Tokens *t, long T, int64_t i, bool restart, int32_t *ids,
                  int32_t *targets, int32_t *pos, int32_t *seg);
#endif
