/* Private to data/: learning a byte-level BPE (bpe_train.c) and writing it (bpe_write.c). */
#ifndef TRAIN_IMPL_H
#define TRAIN_IMPL_H
#include "data/tokenizer_impl.h"

/* Merges best first: left and right (n_merge,), raw bytes. */
typedef struct BpeTrained {
    TokSpan *left, *right;
    size_t n_merge;
    int32_t n_token; /* bytes and merged ones */
    uint32_t n_word; /* different words counted */
} BpeTrained;
bool bpe_train(BpeTrained *out, const BpeTraining *o, Arena *a, Err *e);
/* tokenizer.json: specials first, the bytes in ByteLevel's order, then the merged tokens. */
bool bpe_write(const char *path, const BpeTrained *t, const BpeTraining *o, Arena *a, Err *e);
#endif
