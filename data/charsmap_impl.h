/* Private to data/: SentencePiece's precompiled character map (charsmap.c). */
#ifndef CHARSMAP_IMPL_H
#define CHARSMAP_IMPL_H
#include "data/data.h"

typedef struct Charsmap {
    const uint32_t *unit;
    size_t n_unit; /* the trie, [n_unit] */
    const char *text;
    size_t bytes; /* the replacements, each ended by a NUL; (bytes,) */
} Charsmap;
/* data (bytes,): the map as stored in the file, copied. NULL with e set when it is damaged; where names
 * it. */
Charsmap *charsmap_open(const char *data, size_t bytes, const char *where, Arena *a, Err *e);
/* Bytes of the longest (shortest when first) rule that s (n,) starts with and its replacement; 0 = none. */
size_t charsmap_match(const Charsmap *c, const char *s, size_t n, bool first, const char **text,
                      size_t *bytes);
#endif
