/* tests/test_fuzz_corpus.c: every committed input of tests/fuzz/corpus/<target>/ (seeds, and inputs that
 * once failed, named regression-*) through its fuzz target, without libFuzzer. */
#include "tests/fuzz/bin.c"
#include "tests/fuzz/config_json.c"
#include "tests/fuzz/config_yaml.c"
#include "tests/fuzz/gguf.c"
#include "tests/fuzz/h5_envelope.c"
#include "tests/fuzz/index_json.c"
#include "tests/fuzz/merges_txt.c"
#include "tests/fuzz/records.c"
#include "tests/fuzz/safetensors.c"
#include "tests/fuzz/sentencepiece.c"
#include "tests/fuzz/tiktoken.c"
#include "tests/fuzz/tokenizer_config.c"
#include "tests/fuzz/tokenizer_json.c"
#include "tests/fuzz/vocab_json.c"
#include "tests/fuzz/vocab_txt.c"
#include "tests/test.h"
#include <dirent.h>

/* Each file as it is, cut short at some places, and with some bits flipped. */
static void replay(const char *target, void (*run)(const unsigned char *, size_t))
{
    Arena a = {.name = "test"};
    Err e = {0};
    const char *dir = path_join(&a, "tests/fuzz/corpus", target, &e);
    DIR *d = opendir(dir);
    int files = 0;
    ASSERT_MSG(d, "no %s", dir);
    for (struct dirent *f; (f = readdir(d));) {
        size_t n;
        if (f->d_name[0] == '.') continue;
        unsigned char *data = (unsigned char *)file_read(&a, path_join(&a, dir, f->d_name, &e), &n, &e);
        ASSERT_OK(e);
        files++;
        run(data, n);
        for (size_t k = 0; k < 24 && n > 0; k++) {
            const size_t at = k * 7919 % n;
            unsigned char *cut = malloc(at + 1); /* exact, so that a sanitizer sees a read behind the end */
            ASSERT(cut);
            memcpy(cut, data, at);
            run(cut, at);
            free(cut);
            data[at] ^= (unsigned char)(1u << (k % 8));
            run(data, n);
            data[at] ^= (unsigned char)(1u << (k % 8));
        }
    }
    closedir(d);
    ASSERT(files > 0);
    arena_free(&a);
}

#define REPLAY(name)                                                                                         \
    TEST(fuzz_corpus, name) { replay(#name, fuzz_##name); }
REPLAY(safetensors)
REPLAY(bin)
REPLAY(sentencepiece)
REPLAY(gguf)
REPLAY(tokenizer_json)
REPLAY(vocab_txt)
REPLAY(config_json)
REPLAY(h5_envelope)
REPLAY(config_yaml)
REPLAY(tiktoken)
REPLAY(vocab_json)
REPLAY(merges_txt)
REPLAY(tokenizer_config)
REPLAY(records)
REPLAY(index_json)
