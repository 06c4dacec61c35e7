/* tests/fuzz/gguf.c: the header of a GGUF file, and the vocabulary in it. */
#include "tests/fuzz/tokenizer_fuzz_impl.h"

FUZZ(gguf, 128)
{
    Gguf g;
    if (gguf_read(&g, data, n, "x.gguf", a, e)) {
        for (size_t i = 0; i < g.n_tensor; i++)
            if (g.tensor[i].bytes &&
                (g.tensor[i].data < data || g.tensor[i].data + g.tensor[i].bytes > data + n))
                FUZZ_FAIL("tensor %zu lies outside", i);
        Tokenizer t = {.path = fuzz_file("x.gguf", data, n), .bos = -1, .eos = -1, .unk = -1};
        if (gguf_vocab_open(&t, a, e)) fuzz_tokenizer(&t);
    }
}
