/* Private to data/: {"token": id} objects, shared by bpe_json.c and vocab_json.c. */
#ifndef BPE_JSON_IMPL_H
#define BPE_JSON_IMPL_H
#include "data/tokenizer_json_impl.h"
/* Texts by id, [*n_piece], holes NULL, all kept in s->a. Errors: an id that is none, twice, or far beyond the
 * number of tokens. */
bool vocab_from_json(TokSpan **piece, int32_t *n_piece, const json_t *vocab, const JsonSource *s);
#endif
