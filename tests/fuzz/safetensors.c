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
        if (t->encoded && t->encoded->rows * t->encoded->cols <= 1 << 16) {
            float *x = arena_alloc(a, sizeof *x << 16, e);
            PackedTensor p;
            if (x && formats_read_f32(&f, t, x, e) && formats_packs(&f, t)) formats_packed(&f, t, &p, a, e);
            *e = (Err){0};
        }
        if (!t->data || !t->bytes) continue;
        const volatile unsigned char *first = t->data, *last = t->data + t->bytes - 1;
        (void)*first, (void)*last; /* read, so that a sanitizer sees */
    }
    formats_close(&f);
}
