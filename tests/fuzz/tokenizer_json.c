/* tests/fuzz/tokenizer_json.c: tokenizer.json, and encoding with what came out. */
#include "tests/fuzz/tokenizer_fuzz_impl.h"

FUZZ(tokenizer_json, 256)
{
    Tokenizer t = {.path = fuzz_file("tokenizer.json", data, n), .bos = -1, .eos = -1, .unk = -1};
    if (tokenizer_json_open(&t, a, e)) fuzz_tokenizer(&t);
}
