/* tests/fuzz/index_json.c: model.safetensors.index.json of a folder with two shards. */
#include "formats/formats.h"
#include "tests/fuzz/fuzz_impl.h"

FUZZ(index_json, 64)
{
    static const char
        one[] = "\x38\0\0\0\0\0\0\0{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  "
                "\0\0\0\0",
        two[] = "\x38\0\0\0\0\0\0\0{\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  "
                "\0\0\0\0";
    TensorFile f;
    fuzz_file("1.safetensors", one, sizeof one - 1);
    fuzz_file("2.safetensors", two, sizeof two - 1);
    fuzz_file("config.json", "{}", 2);
    fuzz_file("model.safetensors.index.json", data, n);
    if (!formats_open(&f, fuzz_dir, a, e)) return;
    if (f.n > 2) FUZZ_FAIL("%d tensors of two", f.n);
    formats_close(&f);
}
