/* Private to data/: the WordPiece model (wordpiece.c). */
#ifndef WORDPIECE_IMPL_H
#define WORDPIECE_IMPL_H
#include "data/pipeline_impl.h"

typedef struct WordPieceSpec {
    const TokSpan *piece; /* [n] by id as in the file, kept; s NULL = no such id */
    int32_t n;
    int32_t unk;
    TokSpan prefix;   /* "##" */
    size_t max_chars; /* a longer word is unknown */
} WordPieceSpec;
/* Sets p->model, p->impl, p->n_model. */
bool wordpiece_open(Pipeline *p, const WordPieceSpec *s, const char *where, Arena *a, Err *e);
/* Makes p a BERT pipeline without its model: normalizer, pre-tokenizer, decoder; [CLS] and [SEP] around a
 * text, [PAD], [UNK] and [MASK] as specials, where the model has them. */
bool wordpiece_bert(Tokenizer *t, Pipeline *p, bool lowercase, bool chinese, int strip_accents, Arena *a,
                    Err *e);
#endif
