/* tests/fuzz/sentencepiece.c: tokenizer.model, and encoding with what came out. */
#include "data/spm_impl.h"
#include "tests/fuzz/fuzz_impl.h"

FUZZ(sentencepiece, 64)
{
    static const char text[] = "Hello  world, \xE3\x80\x80 caf\xC3\xA9 \xFF <unk> 12";
    Spm m = {.path = "x.model", .bos = -1, .eos = -1, .unk = -1};
    Arena scratch = {.name = "ids"};
    TokenBuf ids = {0};
    if (spm_parse(&m, data, n, a, e) && spm_encode(&m, text, sizeof text - 1, &ids, NULL, &scratch, e)) {
        for (size_t i = 0; i < ids.n; i++)
            if (ids.id[i] < 0 || ids.id[i] >= m.vocab) FUZZ_FAIL("id %d of %d", ids.id[i], m.vocab);
        spm_decode(&m, ids.id, ids.n, NULL, &scratch, e);
    }
    arena_free(&scratch);
}
