/* tests/test_safetensors.c: the strict reader. Every hostile file is refused with the expected words; legal
 * oddities are read. */
#include "tests/formats_impl.h"

typedef struct Hostile {
    const char *header;
    size_t data;
    const char *part;
} Hostile;
static const Hostile hostile[] = {
    {"[1]", 0, "does not start with '{'"},
    {" {}", 0, "does not start with '{'"},
    {"{", 0, "truncated: 9 bytes"},
    {"{\"a\"", 0, "invalid JSON"},
    {"{}x", 0, "invalid JSON"},
    {"{\"a\":" T("1", 0, 4) ",}", 4, "invalid JSON"},
    {"{\"a\":" T("1", 0, 4) ",\"a\":" T("1", 0, 4) "}", 4, "duplicate object key"},
    {"{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "duplicate object key"},
    {"{\"a\xff\":" T("1", 0, 4) "}", 4, "invalid JSON"},
    {"{\"a\\u0000b\":" T("1", 0, 4) "}", 4, "invalid JSON"},
    {"{\"a\\ud800\":" T("1", 0, 4) "}", 4, "invalid JSON"},
    {"{\"a\":" T("NaN", 0, 4) "}", 4, "invalid JSON"},
    {"{\"a\":" T("99999999999999999999", 0, 4) "}", 4, "invalid JSON"},
    {"{\"\":" T("1", 0, 4) "}", 4, "name is empty"},
    {"{\"a\":3}", 0, "tensor `a`: {dtype, shape, data_offsets}"},
    {"{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor `a`: no `dtype`"},
    {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "tensor `a`: no `dtype`"},
    {"{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype `F33`"},
    {"{\"a\":{\"dtype\":\"f32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype `f32`"},
    {"{\"a\":{\"dtype\":\"float32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[2],\"data_offsets\":[0,1]}}", 1, "dtype F4 is not read"},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no `shape`"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "no `shape`"},
    {"{\"a\":" T("-1", 0, 4) "}", 4, "shape[0] is not a count"},
    {"{\"a\":" T("1.0", 0, 4) "}", 4, "shape[0] is not a count"},
    {"{\"a\":" T("\"1\"", 0, 4) "}", 4, "shape[0] is not a count"},
    {"{\"a\":" T("1,1,1,1,1", 0, 4) "}", 4, "5 dimensions"},
    {"{\"a\":" T("4294967296,4294967296", 0, 0) "}", 0, "overflows"},
    {"{\"a\":" T("4611686018427387904", 0, 0) "}", 0, "overflows"},
    {"{\"a\":" T("9223372036854775807,2,2", 0, 4) "}", 4, "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "`data_offsets` must be"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "`data_offsets` must be"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, "`data_offsets` must be"},
    {"{\"a\":" T("1", 0.0, 4) "}", 4, "two whole numbers"},
    {"{\"a\":" T("1", 4, 0) "}", 4, "reversed or negative"},
    {"{\"a\":" T("1", -4, 0) "}", 4, "reversed or negative"},
    {"{\"a\":" T("2", 0, 8) "}", 4, "behind the 4 bytes of data"},
    {"{\"a\":" T("1", 9223372036854775803, 9223372036854775807) "}", 4, "behind the 4 bytes of data"},
    {"{\"a\":" T("2", 0, 4) "}", 4, "4 bytes are stored, its shape and dtype F32 need 8"},
    {"{\"a\":" T("1", 0, 4) ",\"b\":" T("1", 0, 4) "}", 4, "overlap"},
    {"{\"a\":" T("2", 0, 8) ",\"b\":" T("1", 4, 8) "}", 8, "overlap"},
    {"{\"a\":" T("1", 4, 8) "}", 8, "hole"},
    {"{\"a\":" T("1", 0, 4) ",\"b\":" T("1", 8, 12) "}", 12, "tensor `b`: begins at 8, 4 bytes behind"},
    {"{\"a\":" T("1", 0, 4) "}", 8, "trailing data"},
    {"{}", 1, "trailing data"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, "unknown key `x`"},
    {"{\"__metadata__\":[]}", 0, "`__metadata__` is not an object"},
    {"{\"__metadata__\":{\"a\":1}}", 0, "`__metadata__` entry `a` is not a string"},
    {"{\"a\\u001b[31m\":" T("2", 0, 4) "}", 4, "tensor `a?[31m`"},
};

TEST(safetensors, hostile)
{
    int n = (int)(sizeof hostile / sizeof *hostile);
    ASSERT(n >= 40);
    for (int i = 0; i < n; i++)
        refuse(safetensors(hostile[i].header, hostile[i].data), ERR_CORRUPT, hostile[i].part);
}

TEST(safetensors, hostile_lengths)
{
    refuse(bytes_file("a.safetensors", "", 0), ERR_CORRUPT, "truncated: 0 bytes");
    refuse(bytes_file("b.safetensors", "\2\0\0\0\0\0\0\0{", 9), ERR_CORRUPT, "truncated: 9 bytes");
    refuse(bytes_file("c.safetensors", "\3\0\0\0\0\0\0\0{}", 10), ERR_CORRUPT,
           "the header needs 3 bytes, the file has 2");
    refuse(bytes_file("d.safetensors", "\1\341\365\5\0\0\0\0{}", 10), ERR_CORRUPT, "over the format's limit");
    refuse(bytes_file("e.safetensors", "\377\377\377\377\377\377\377\377{}", 10), ERR_CORRUPT,
           "over the format's limit");
    refuse(bytes_file("f.safetensors", "\370\377\377\377\377\377\377\377{}", 10), ERR_CORRUPT,
           "over the format's limit");
    refuse(bytes_file("g.safetensors", "\0\0\0\0\0\0\0\0{}", 10), ERR_CORRUPT, "does not start with '{'");
}

/* Deep nesting ends in an error, not in a full stack. */
TEST(safetensors, hostile_nesting)
{
    enum { DEEP = 200000 };
    static char header[DEEP + 16];
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEEP);
    refuse(safetensors(header, 0), ERR_CORRUPT, "invalid JSON");
    for (int i = 5; i < DEEP; i += 5) memcpy(header + i, "{\"a\":", 5);
    refuse(safetensors(header, 0), ERR_CORRUPT, "invalid JSON");
    refuse(safetensors("{\"a\":" T("[1]", 0, 4) "}", 4), ERR_CORRUPT, "shape[0] is not a count");
    refuse(safetensors("{\"a\":{\"a\":" T("1", 0, 4) "}}", 4), ERR_CORRUPT, "unknown key `a`");
}

/* Legal, if unusual: unsorted, empty tensors, rank 0, no tensor at all, padding. */
TEST(safetensors, legal_oddities)
{
    TensorFile f;
    open_ok(&f, safetensors("{\"b\":" T("1", 4, 8) ",\"a\":" T("", 0, 4) ",\"z\":" T("0,3", 4, 4) ",\"y\":" T(
                                "0", 8, 8) "}     ",
                            8));
    ASSERT_EQ(f.n, 4);
    ASSERT_STR(f.t[0].name, "a");
    ASSERT_EQ(f.t[0].ndim, 0);
    ASSERT_EQ(formats_find(&f, "z")->bytes, 0u);
    ASSERT(formats_find(&f, "nothing") == NULL);
    size_t n;
    values(&f, formats_find(&f, "z"), &n);
    ASSERT_EQ(n, 0u);
    formats_close(&f);
    open_ok(&f, safetensors("{}", 0));
    ASSERT_EQ(f.n, 0);
    ASSERT(formats_find(&f, "a") == NULL);
    formats_close(&f);
}

TEST(safetensors, many_entries)
{
    Err e = {0};
    enum { N = 100000 };
    char *text = arena_alloc(&arena, N * 70 + 16, &e), *p = text;
    ASSERT_OK(e);
    *p++ = '{';
    for (int i = 0; i < N; i++)
        p += snprintf(p, 70, "%s\"t%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                      i ? "," : "", i, i, i + 1);
    *p++ = '}';
    TensorFile f;
    open_ok(&f, safetensors(text, N));
    ASSERT_EQ(f.n, (int)N);
    ASSERT(formats_find(&f, "t99999") != NULL);
    formats_close(&f);
}

TEST(safetensors, truncated_everywhere)
{
    size_t n;
    Err e = {0};
    char *data = file_read(&arena, STORIES ".safetensors", &n, &e);
    ASSERT_OK(e);
    for (size_t cut = 0; cut < n; cut += cut < 64 ? 1 : cut < 6000 ? 97 : 9973) {
        TensorFile f;
        Err r = {0};
        put(at("cut.safetensors"), data, cut);
        ASSERT_MSG(!formats_open(&f, at("cut.safetensors"), &arena, &r), "cut at %zu was accepted", cut);
        ASSERT_EQ((int)r.code, (int)ERR_CORRUPT);
    }
}
