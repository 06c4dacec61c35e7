/* tests/fuzz/vocab_txt.c: BERT's vocab.txt, and encoding with what came out. */
#include "tests/fuzz/tokenizer_fuzz_impl.h"

FUZZ(vocab_txt, 256)
{
    Tokenizer t = {.path = fuzz_file("vocab.txt", data, n), .bos = -1, .eos = -1, .unk = -1};
    if (vocab_txt_open(&t, a, e)) fuzz_tokenizer(&t);
}
