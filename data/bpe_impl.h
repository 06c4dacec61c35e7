/* Private to data/: byte-pair models in memory, shared by bpe_model.c (building) and bpe_encode.c. */
#ifndef BPE_IMPL_H
#define BPE_IMPL_H
#include "data/pipeline_impl.h"

/* left, right -> made, the lower rank first; left < 0 = free */
typedef struct BpeMerge {
    int32_t left, right, made;
    uint32_t rank;
} BpeMerge;

typedef struct Bpe {
    TokSpan *piece; /* [n_piece] byte-level: raw bytes */
    int32_t n_piece;
    int32_t *slot; /* [slot_mask + 1] piece by hash of its text, -1 = free */
    uint32_t slot_mask;
    BpeMerge *merge; /* [merge_mask + 1] by hash of the pair */
    uint32_t merge_mask;
    uint32_t n_merge;
    unsigned char *whole; /* [n_piece] 1: the text of the piece is this one token */
    int32_t byte_id[256]; /* byte-level: the byte's piece; byte_fallback: <0xHH>; -1 = none */
    bool bytes;           /* symbols are bytes, not characters */
    bool byte_fallback, fuse_unk, ignore_merges;
    bool space_cuts; /* characters: no piece has U+2581 behind another character */
    int32_t unk;
    const char *prefix, *suffix; /* NULL = none */
} Bpe;

/* The merge of a pair of neighbours, NULL = none. */
const BpeMerge *bpe_merge_of(const Bpe *b, int32_t left, int32_t right);
int32_t bpe_find(const void *impl, const char *s, size_t n);
bool bpe_encode(const void *impl, const char *s, size_t n, void **cache, TokenBuf *out, uint64_t *steps,
                Arena *scratch, Arena *a, Err *e);
/* The ids of one word by merging, nothing looked up whole. ids: (n,) room; returns how many, 0 also with
 * e. */
size_t bpe_merge_word(const Bpe *b, const char *s, size_t n, int32_t *ids, uint64_t *steps, Arena *scratch,
                      Err *e);
/* Upper bound of what bpe_merge_word writes for n bytes. */
#define BPE_LONG_WORD 24
#endif
