/* tests/fuzz/tokenizer_fuzz_impl.h: encodes and decodes with whatever tokenizer came out of a file. */
#ifndef TOKENIZER_FUZZ_IMPL_H
#define TOKENIZER_FUZZ_IMPL_H
#include "data/tokenizer_impl.h"
#include "tests/fuzz/fuzz_impl.h"

/* Errors of encoding (no unknown token, a pattern's limit) are answers, too. */
static inline void fuzz_tokenizer(const Tokenizer *t)
{
    static const char text[] =
        "Hello  world's caf\xC3\xA9\r\n\t12345 \xE3\x80\x80 \xE6\x97\xA5 \xFF <|end|>[CLS] ##ing";
    Arena scratch = {.name = "ids"};
    static Err e;
    TokenBuf ids = {0};
    e.code = ERR_OK;
    if (tokenizer_encode(t, text, sizeof text - 1, true, &ids, &scratch, &e)) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.id[i] < 0 || ids.id[i] >= t->vocab) FUZZ_FAIL("id %d of %d", ids.id[i], t->vocab);
        tokenizer_decode(t, ids.id, ids.n, NULL, &scratch, &e);
    }
    arena_free(&scratch);
}
#endif
