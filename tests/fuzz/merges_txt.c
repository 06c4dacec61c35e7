/* tests/fuzz/merges_txt.c: merges.txt beside a vocab.json that fits the seeds, and encoding with what came out. */
#include "tests/fuzz/tokenizer_fuzz_impl.h"

FUZZ(merges_txt, 256)
{
    static const TokenizerConfig how = {.pattern = "gpt2"};
    static const char vocab[] =
        "{\"l\":0,\"o\":1,\"H\":2,\"e\":3,\"ll\":4,\"\xC4\xA0\":5,\"He\":6,\"llo\":7,\"Hello\":8}";
    Tokenizer t = {.path = fuzz_file("vocab.json", vocab, sizeof vocab - 1),
                   .bos = -1,
                   .eos = -1,
                   .unk = -1,
                   .how = &how};
    fuzz_file("merges.txt", data, n);
    if (vocab_json_open(&t, a, e)) fuzz_tokenizer(&t);
}
