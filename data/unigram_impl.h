/* Private to data/: the unigram model's core (unigram.c), used for SentencePiece's own files and for
 * tokenizer.json. */
#ifndef UNIGRAM_IMPL_H
#define UNIGRAM_IMPL_H
#include "data/tokenizer_impl.h"

/* Pieces by their bytes: slot = (parent node << 8 | byte) << 28 | child, 0 = free; node 0 is the root. */
typedef struct Trie {
    uint64_t *slot;
    uint64_t mask;
    int32_t *value; /* [n_node] piece that ends here, -1 = none */
    uint32_t n_node;
} Trie;
/* piece [n]: s NULL is left out; of equal texts the last one counts. where: for errors. */
bool trie_open(Trie *t, const TokSpan *piece, size_t n, const char *where, Arena *a, Err *e);
uint32_t trie_step(const Trie *t, uint32_t node, unsigned char byte); /* 0 = no such child */
int32_t trie_find(const Trie *t, const char *s, size_t n);            /* -1 = none */

typedef struct Unigram {
    Trie trie;
    const double *score; /* [pieces] log probability */
    int32_t unk;         /* -1 = none */
    double unk_score;
    bool single; /* the score of a path is kept as float, as SentencePiece does; else double */
} Unigram;
typedef struct UnigramNode {
    double score;
    int32_t id;
    uint32_t bytes; /* of the piece that ends here on the best path, 0 = not reached */
} UnigramNode;
/* Working memory, kept from call to call; all nodes are zero between them. */
typedef struct UnigramWork {
    UnigramNode *node;
    size_t cap;
    uint64_t steps;
} UnigramWork;
/* One piece of the best path, in order of the text. */
typedef bool UnigramEmit(void *to, int32_t id, const char *s, size_t bytes, Err *e);
/* Viterbi over s (n,), valid UTF-8. Error: a character that no piece begins with, where unk is -1. */
bool unigram_best(const Unigram *u, const char *s, size_t n, UnigramWork *w, Arena *scratch,
                  UnigramEmit *emit, void *to, Err *e);
#endif
