/* infer/infer.h: floor 6. Generation with a KV cache, sampling.
 *
 *   Session *s = session_new(&model, capacity, &arena, &e);
 *   session_feed(s, ids, n, &e);                          // prompt, in chunks; logits of the last token
 *   int next = sample_token(session_logits(s), V, &opts, history, n_history, counter, &scratch);
 *
 * One sequence; the same transformer builder, recorded with cache leaves, one plan per chunk length (1, 16,
 * 128).
 */
#ifndef INFER_H
#define INFER_H
#include "data/data.h"
#include "model/model.h"

typedef struct SampleOptions {
    double temperature;        /* 0 = greedy: the first of the largest logits */
    int64_t top_k;             /* 0 = off */
    double top_p, min_p;       /* 1, 0 = off */
    double repetition_penalty; /* 1 = off */
    uint64_t seed;
} SampleOptions;
typedef struct Session Session;
/* capacity: tokens the cache holds, at most the model's positions. */
Session *session_new(Model *m, long capacity, Arena *a, Err *e);
void session_free(Session *s);
void session_reset(Session *s);
/* Appends n ids; ERR_USAGE when the cache is full or an id is outside the vocabulary. */
bool session_feed(Session *s, const int32_t *ids, long n, Err *e);
const float *session_logits(const Session *s); /* (V), of the last token fed */
long session_length(const Session *s);
/* logits (V) -> token. history: ids so far (repetition penalty). counter: number of the draw, for the random
 * stream. work: V floats + V int32 of scratch. */
int sample_token(const float *logits, long V, const SampleOptions *o, const int32_t *history, long n_history,
                 uint32_t counter, void *work);
size_t sample_work_bytes(long V);

typedef struct Generation {
    int32_t *ids;
    long n, n_prompt;
    char *text;
    size_t text_bytes;
    double prefill_s, decode_s;
    bool ended;
} Generation;
/* The same behind ids (n,), as a chat template makes them: stop (-1 = none) ends it as an end token does. */
bool generate_ids(Generation *out, Model *m, const Tokenizer *tk, const int32_t *ids, long n, int stop,
                  long max_new, const SampleOptions *o, Arena *a, Err *e);
/* Prompt with its BOS, then up to max_new tokens; an end token stops and is not in ids. tk may be NULL: ids
 * only. */
bool generate(Generation *out, Model *m, const Tokenizer *tk, const char *prompt, long max_new,
              const SampleOptions *o, Arena *a, Err *e);
#endif
