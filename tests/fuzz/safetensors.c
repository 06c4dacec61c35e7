/* tests/fuzz/safetensors.c: the reader of model files, safetensors and llama2.c .bin told apart by
 * content. */
#include "formats/formats.h"
#include "tests/fuzz/fuzz_impl.h"

FUZZ(safetensors, 64)
{
    TensorFile f;
    if (!formats_open(&f, fuzz_file("model.safetensors", data, n), a, e)) return;
    for (int i = 0; i < f.n; i++) {
        const FileTensor *t = &f.t[i];
        if (formats_find(&f, t->name) != t) FUZZ_FAIL("`%s` is not found", t->name);
        if (!t->data || !t->bytes) continue;
        const volatile unsigned char *first = t->data, *last = t->data + t->bytes - 1;
        (void)*first, (void)*last; /* read, so that a sanitizer sees */
    }
    formats_close(&f);
}
