/* tests/fuzz/tokenizer_config.c: tokenizer_config.json beside a small vocabulary: roles, flags, added tokens, the chat
 * template and its hash. */
#include "data/source_impl.h"
#include "tests/fuzz/tokenizer_fuzz_impl.h"

FUZZ(tokenizer_config, 256)
{
    static const TokenizerConfig how = {.pattern = "gpt2"};
    static const char vocab[] = "{\"l\":0,\"o\":1,\"H\":2,\"e\":3,\"ll\":4,\"<s>\":5,\"</s>\":6}",
                      merges[] = "l l\n";
    char hash[33];
    Tokenizer t = {.path = fuzz_file("vocab.json", vocab, sizeof vocab - 1),
                   .bos = -1,
                   .eos = -1,
                   .unk = -1,
                   .how = &how};
    fuzz_file("merges.txt", merges, sizeof merges - 1);
    fuzz_file("tokenizer_config.json", data, n);
    if (!vocab_json_open(&t, a, e)) return;
    fuzz_tokenizer(&t);
    if (t.chat_template) chat_template_hash(hash, t.chat_template, strlen(t.chat_template), a, e);
}
