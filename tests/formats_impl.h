/* tests/formats_impl.h: what the tests of file formats share: scratch paths, raw files, opening and
 * refusing. */
#ifndef TEST_FORMATS_IMPL_H
#define TEST_FORMATS_IMPL_H
#include <stdio.h>
#include <string.h>
#include "formats/formats.h"
#include "tests/test.h"

#define STORIES "tests/data/stories/stories260K"
static Arena arena = {.name = "test"};

static inline const char *at(const char *name)
{
    Err e = {0};
    return path_join(&arena, test_dir(), name, &e);
}

static inline void put(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    ASSERT(f != NULL);
    ASSERT_EQ(fwrite(data, 1, bytes, f), bytes);
    ASSERT_EQ(fclose(f), 0);
}

/* One entry of a safetensors header. */
#define T(shape, lo, hi) "{\"dtype\":\"F32\",\"shape\":[" shape "],\"data_offsets\":[" #lo "," #hi "]}"

/* u64 length, header, then `data` zero bytes */
static inline const char *safetensors(const char *header, size_t data)
{
    size_t n = strlen(header);
    Err e = {0};
    unsigned char *p = arena_alloc(&arena, 8 + n + data, &e);
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)((uint64_t)n >> (8 * i));
    memcpy(p + 8, header, n);
    const char *path = at("hostile.safetensors");
    put(path, p, 8 + n + data);
    return path;
}

static inline void refuse(const char *path, ErrCode code, const char *part)
{
    TensorFile f;
    Err e = {0};
    bool ok = formats_open(&f, path, &arena, &e);
    ASSERT_MSG(!ok && e.code, "%s was accepted; expected: %s", path, part);
    ASSERT_MSG(strstr(e.msg, part) && strstr(e.msg, path), "expected `%s`, got: %s", part, e.msg);
    ASSERT_EQ((int)e.code, (int)code);
}

static inline float *values(const TensorFile *f, const FileTensor *t, size_t *n)
{
    Err e = {0};
    int64_t dim[4];
    formats_dims(t, dim);
    *n = 1;
    for (int i = 0; i < 4; i++) *n *= (size_t)dim[i];
    float *v = arena_alloc(&arena, *n * sizeof *v, &e);
    formats_read_f32(f, t, v, &e);
    ASSERT_OK(e);
    return v;
}

static inline void open_ok(TensorFile *f, const char *path)
{
    Err e = {0};
    formats_open(f, path, &arena, &e);
    ASSERT_OK(e);
}

static inline const char *bytes_file(const char *name, const void *data, size_t n)
{
    const char *path = at(name);
    put(path, data, n);
    return path;
}
#endif
