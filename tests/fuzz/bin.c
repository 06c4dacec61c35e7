/* tests/fuzz/bin.c: token files: llm.c's by their header, nanoGPT's without one. */
#include "data/source_impl.h"
#include "tests/fuzz/fuzz_impl.h"

FUZZ(bin, 16)
{
    const char *path = fuzz_file("tokens.bin", data, n);
    FileKind kind;
    TokenBuf ids = {0};
    if (!source_kind(&kind, path, "auto", e)) return;
    if (kind != FILE_LLMC && kind != FILE_NANOGPT) return;
    if (!token_file_read(&ids, path, kind, "error", 50257, a, e)) return;
    for (size_t i = 0; i < ids.n; i++)
        if (ids.id[i] < 0 || ids.id[i] >= 50257) FUZZ_FAIL("id %d", ids.id[i]);
}
