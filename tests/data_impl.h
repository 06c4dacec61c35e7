/* tests/data_impl.h: what test_data.c and test_loader.c share: options, small files, tokenizers. */
#ifndef TESTS_DATA_IMPL_H
#define TESTS_DATA_IMPL_H
#include "data/data.h"
#include "tests/test.h"
#include <stdio.h>
#include <string.h>

static Arena arena = {.name = "test"};

__attribute__((unused)) static DataConfig data_defaults(void)
{
    return (DataConfig){.eot = "prepend",
                        .vocab_check = "error",
                        .packing = "concat",
                        .on_bad_line = "error",
                        .too_long = "auto",
                        .mask_prompt = true,
                        .reset_position_ids = true};
}

__attribute__((unused)) static SourceConfig source_of(const char *path, const char *split)
{
    return (SourceConfig){.path = path, .format = "auto", .weight = 1, .field = "text", .split = split};
}

__attribute__((unused)) static const char *put_file(const char *name, const void *data, size_t n)
{
    Err e = {0};
    const char *path = path_join(&arena, test_dir(), name, &e);
    FILE *f = fopen(path, "wb");
    ASSERT(f && (n == 0 || fwrite(data, 1, n, f) == n) && fclose(f) == 0);
    return path;
}

/* uint16 tokens from, from + 1, ... */
__attribute__((unused)) static const char *put_tokens(const char *name, int from, size_t n)
{
    static uint16_t v[4096];
    for (size_t i = 0; i < n; i++) v[i] = (uint16_t)(from + (int)i);
    return put_file(name, v, 2 * n);
}

__attribute__((unused)) static Tokenizer *open_tokenizer(const char *path)
{
    Err e = {0};
    Tokenizer *t = tokenizer_open(path, &arena, &e);
    ASSERT_OK(e);
    return t;
}
#endif
