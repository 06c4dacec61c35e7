/* tests/fuzz/vocab_json.c: vocab.json beside a merges.txt that fits the seeds, and encoding with what came out. */
#include "tests/fuzz/tokenizer_fuzz_impl.h"

FUZZ(vocab_json, 256)
{
    static const TokenizerConfig how = {.pattern = "gpt2"};
    static const char merges[] = "#version: 0.2\nl l\n\xC4\xA0 w\n";
    Tokenizer t = {.path = fuzz_file("vocab.json", data, n), .bos = -1, .eos = -1, .unk = -1, .how = &how};
    fuzz_file("merges.txt", merges, sizeof merges - 1);
    if (vocab_json_open(&t, a, e)) fuzz_tokenizer(&t);
}
