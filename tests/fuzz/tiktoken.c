/* tests/fuzz/tiktoken.c: a rank file, by a family whose size is not fixed, and encoding with what came out. */
#include "tests/fuzz/tokenizer_fuzz_impl.h"

FUZZ(tiktoken, 256)
{
    static const TokenizerConfig how = {.pattern = "starcoder"};
    Tokenizer t = {.path = fuzz_file("x.tiktoken", data, n), .bos = -1, .eos = -1, .unk = -1, .how = &how};
    tiktoken_looks_like(data, n);
    if (tiktoken_open(&t, a, e)) fuzz_tokenizer(&t);
}
