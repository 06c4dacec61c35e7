/* tests/test_h5.c: HDF5 containers: contents, byte identity, damage, full disks, refusals. */
#include <fcntl.h>
#include <hdf5.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "formats/formats.h"
#include "tests/test.h"

#define STORIES "tests/data/stories/stories260K"
static Arena arena = {.name = "test"};

static const char *at(const char *name)
{
    Err e = {0};
    return path_join(&arena, test_dir(), name, &e);
}

static void put(const char *path, const void *data, size_t bytes)
{
    FILE *f = fopen(path, "wb");
    ASSERT(f != NULL);
    ASSERT_EQ(fwrite(data, 1, bytes, f), bytes);
    ASSERT_EQ(fclose(f), 0);
}

static char *bytes_of(const char *path, size_t *n)
{
    Err e = {0};
    char *p = file_read(&arena, path, n, &e);
    ASSERT_OK(e);
    return p;
}

/* A small file with everything in it: texts, all element types, a tied weight, nested groups, attributes. */
static void write_small(const char *path)
{
    static const DType type[] = {DT_F32, DT_F64, DT_F16, DT_BF16, DT_F8_E4M3, DT_F8_E5M2, DT_I8,  DT_U8,
                                 DT_I16, DT_U16, DT_I32, DT_U32,  DT_I64,     DT_U64,     DT_BOOL};
    unsigned char data[6 * 8];
    const float v[6] = {0, 1, 1, 0, 1, 1};
    const int64_t dim[2] = {2, 3}, big[1] = {70000};
    const uint64_t key[2] = {1, UINT64_MAX};
    Err e = {0};
    H5Out *h = h5_create(path, "train_state", "llama", 123, &arena, &e);
    ASSERT_OK(e);
    h5_text(h, "/config/model_json", "{\"model_type\": \"llama\", \"é\": 1}");
    for (int i = 0; i < DT_COUNT; i++) {
        dtype_from_f32(data, type[i], v, 6);
        h5_tensor(h, arena_printf(&arena, &e, "/tensors/z.%s", dtype_name(type[i])), type[i], 2, dim, data);
    }
    unsigned char *large = arena_alloc(&arena, 70000, &e);
    memset(large, 7, 70000);
    h5_tensor(h, "/tensors/a.big", DT_U8, 1, big, large);
    h5_tensor(h, "/tensors/scalar", DT_F32, 0, NULL, v + 1);
    h5_tensor(h, "/tensors/empty", DT_F32, 2, (const int64_t[]){0, 3}, NULL);
    h5_tensor_layout(h, "/tensors/c_fc.weight", DT_F32, 2, dim, v, true);
    h5_link(h, "/tensors/lm_head.weight", "/tensors/z.F32");
    h5_tensor(h, "/optimizer/m/z.F32", DT_F32, 2, dim, v);
    h5_attr_i64(h, "/", "tokens_seen", INT64_C(1) << 60);
    h5_attr_f64(h, "/optimizer", "eps", 1e-8);
    h5_attr_str(h, "/rng", "name", "philox ✓");
    h5_attr_u64s(h, "/rng", "philox_key", key, 2);
    h5_commit(h, &e);
    ASSERT_OK(e);
}

TEST(h5, contents)
{
    Err e = {0};
    const char *path = at("all.h5"), *name[64];
    write_small(path);
    int64_t step = 0, n = 0;
    ASSERT(h5_check_envelope(path, &step, &e));
    ASSERT_EQ(step, 123);
    H5In *h = h5_open(path, false, &arena, &e);
    ASSERT_OK(e);
    ASSERT_STR(h5_get_str(h, "/", "format", &e), "pare-checkpoint");
    ASSERT_STR(h5_get_str(h, "/", "kind", &e), "train_state");
    ASSERT_STR(h5_get_str(h, "/", "producer", &e), "pare 0.1.0");
    ASSERT_STR(h5_get_str(h, "/", "arch", &e), "llama");
    ASSERT_STR(h5_get_str(h, "/rng", "name", &e), "philox ✓");
    ASSERT(h5_get_i64(h, "/", "tokens_seen", &n, &e) && n == INT64_C(1) << 60);
    ASSERT(h5_get_i64(h, "/", "step", &n, &e) && n == 123);
    ASSERT(h5_get_i64(h, "/", "tensor_count", &n, &e) && n == DT_COUNT + 5);
    ASSERT(h5_get_i64(h, "/", "param_count", &n, &e) && n == DT_COUNT * 6 + 70000 + 1 + 6);
    double eps = 0;
    ASSERT(h5_get_f64(h, "/optimizer", "eps", &eps, &e));
    ASSERT_EQ(eps, 1e-8);
    ASSERT_STR(h5_read_text(h, "/config/model_json", &e), "{\"model_type\": \"llama\", \"é\": 1}");
    ASSERT(h5_has(h, "/optimizer/m/z.F32") && !h5_has(h, "/optimizer/v/z.F32") && h5_has(h, "/") &&
           !h5_has(h, "x"));
    ASSERT_EQ(h5_list(h, "/tensors", name, 64), DT_COUNT + 5);
    ASSERT_STR(name[0], "z.F32"); /* creation order, not the alphabet */
    ASSERT_STR(name[DT_COUNT], "a.big");
    ASSERT_EQ(h5_list(h, "/nothing", name, 64), -1);
    for (int i = 0; i < DT_COUNT; i++) {
        DType t;
        int nd;
        int64_t dim[4];
        unsigned char have[48];
        float v[6];
        char *p = arena_printf(&arena, &e, "/tensors/%s", name[i]);
        ASSERT(h5_tensor_info(h, p, &t, &nd, dim, &e));
        ASSERT(nd == 2 && dim[0] == 2 && dim[1] == 3);
        ASSERT_STR(dtype_name(t), name[i] + 2);
        ASSERT(h5_read_tensor(h, p, t, have, 6 * dtype_size(t), &e));
        dtype_to_f32(v, have, t, 6);
        ASSERT(v[0] == 0 && v[1] == 1 && v[3] == 0 && v[5] == 1);
    }
    unsigned char *large = arena_alloc(&arena, 70000, &e);
    ASSERT(h5_read_tensor(h, "/tensors/a.big", DT_U8, large, 70000, &e));
    ASSERT_EQ(large[69999], 7);
    ASSERT(h5_read_tensor(h, "/tensors/empty", DT_F32, NULL, 0, &e));
    ASSERT_OK(e);
    h5_close(h);
}

TEST(h5, asks_wrongly)
{
    Err e = {0};
    int64_t n;
    float v[6];
    write_small(at("a.h5"));
    H5In *h = h5_open(at("a.h5"), false, &arena, &e);
    ASSERT_OK(e);
    ASSERT(!h5_get_i64(h, "/", "kind", &n, &e));
    ASSERT_CONTAINS(e.msg, "`kind` is not one integer");
    e = (Err){0};
    ASSERT(!h5_get_i64(h, "/none", "x", &n, &e));
    ASSERT_CONTAINS(e.msg, "`/none` has no attribute `x`");
    e = (Err){0};
    ASSERT(!h5_read_text(h, "/tensors/z.F32", &e));
    ASSERT_CONTAINS(e.msg, "is not one string");
    e = (Err){0};
    ASSERT(!h5_read_tensor(h, "/tensors/z.F32", DT_F32, v, 20, &e));
    ASSERT_CONTAINS(e.msg, "holds 24 bytes of F32, 20 bytes of F32 were expected");
    e = (Err){0};
    ASSERT(!h5_read_tensor(h, "/tensors/z.F32", DT_I32, v, 24, &e));
    e = (Err){0};
    ASSERT(!h5_read_tensor(h, "/tensors/none", DT_F32, v, 24, &e));
    ASSERT_CONTAINS(e.msg, "no dataset `/tensors/none`");
    h5_close(h);
}

TEST(h5, same_content_same_bytes)
{
    size_t n, m;
    write_small(at("one.h5"));
    sleep(1);
    write_small(at("two.h5"));
    char *a = bytes_of(at("one.h5"), &n), *b = bytes_of(at("two.h5"), &m);
    ASSERT_EQ(n, m);
    ASSERT_BYTES(a, b, n);
}

/* ---- models -------------------------------------------------------------------------------------------- */

static OutModel model_of(const TensorFile *f)
{
    Err e = {0};
    OutTensor *t = arena_alloc(&arena, ((size_t)f->n + 1) * sizeof *t, &e);
    for (int i = 0; i < f->n; i++) {
        const FileTensor *s = &f->t[i];
        t[i] = (OutTensor){
            .name = s->name, .ndim = s->ndim, .dtype = s->dtype, .in_out = s->in_out, .tied_to = s->tied_to};
        formats_dims(s, t[i].dim);
        float *v = arena_alloc(&arena, s->bytes / dtype_size(s->dtype) * sizeof *v, &e);
        formats_read_f32(f, s, v, &e);
        t[i].src = v;
    }
    ASSERT_OK(e);
    return (OutModel){.n = f->n,
                      .t = t,
                      .arch = f->arch,
                      .config_json = f->config_json,
                      .generation_json = f->generation_json,
                      .tokenizer_path = f->tokenizer_path,
                      .step = 42};
}

static void round_trip(const char *from, bool tie)
{
    TensorFile f, g;
    Err e = {0};
    formats_open(&f, from, &arena, &e);
    ASSERT_OK(e);
    OutModel m = model_of(&f);
    OutTensor *t = (OutTensor *)(uintptr_t)m.t;
    if (tie) t[m.n++] = (OutTensor){.name = "lm_head.weight", .tied_to = "model.embed_tokens.weight"};
    formats_write_h5(at("model.h5"), &m, &e);
    ASSERT_OK(e);
    formats_open(&g, at("model.h5"), &arena, &e);
    ASSERT_OK(e);
    ASSERT_EQ((int)g.format, (int)FMT_HDF5);
    ASSERT_STR(g.kind, "model");
    ASSERT_STR(g.arch, f.arch);
    ASSERT_STR(g.config_json, f.config_json);
    ASSERT_EQ(g.step, 42);
    ASSERT_EQ(g.n, m.n);
    for (int i = 0; i < f.n; i++) {
        const FileTensor *s = formats_find(&g, f.t[i].name);
        ASSERT(s != NULL);
        ASSERT_EQ((int)s->dtype, (int)f.t[i].dtype);
        ASSERT_EQ(s->in_out, f.t[i].in_out);
        float *v = arena_alloc(&arena, s->bytes / dtype_size(s->dtype) * sizeof *v, &e);
        formats_read_f32(&g, s, v, &e);
        ASSERT_OK(e);
        ASSERT_BYTES(v, m.t[i].src, s->bytes / dtype_size(s->dtype) * sizeof *v);
    }
    if (tie) {
        const FileTensor *head = formats_find(&g, "lm_head.weight");
        ASSERT_STR(head->tied_to, "model.embed_tokens.weight");
        ASSERT(head->data == formats_find(&g, "model.embed_tokens.weight")->data);
    }
    formats_close(&g);
    formats_close(&f);
}

TEST(h5, models_round_trip)
{
    round_trip(STORIES ".safetensors", true);
    round_trip(STORIES ".bin", false);
    static const char *const tiny[] = {"gpt2", "gpt2-f16", "llama-bf16", "qwen3"};
    Err e = {0};
    for (int i = 0; i < 4; i++) {
        const char *path = arena_printf(&arena, &e, "tests/data/hf-tiny-%s", tiny[i]);
        ASSERT_MSG(file_exists(path), "%s is missing: it is committed with the tests", path);
        round_trip(path, false);
    }
}

/* An encoded tensor (a group) is one tensor that decodes when read; its attributes are the metadata. */
TEST(h5, encoded_tensors_decode)
{
    const unsigned char codes[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float scales[2] = {0.5f, 2};
    const uint64_t shape[2] = {2, 8};
    Err e = {0};
    H5Out *h = h5_create(at("q.h5"), "model", "llama", 0, &arena, &e);
    h5_tensor(h, "/tensors/w/codes", DT_U8, 2, (const int64_t[]){2, 4}, codes);
    h5_tensor(h, "/tensors/w/scales", DT_F32, 2, (const int64_t[]){2, 1}, scales);
    h5_attr_str(h, "/tensors/w", "encoding", "int_affine");
    h5_attr_u64s(h, "/tensors/w", "shape", shape, 2);
    h5_attr_i64(h, "/tensors/w", "bits", 4);
    h5_commit(h, &e);
    ASSERT_OK(e);
    TensorFile f;
    formats_open(&f, at("q.h5"), &arena, &e);
    ASSERT_OK(e);
    ASSERT_EQ(f.n, 1);
    ASSERT_STR(f.t[0].name, "w");
    ASSERT(f.t[0].encoded != NULL);
    float w[16];
    ASSERT(formats_read_f32(&f, &f.t[0], w, &e));
    for (int i = 0; i < 16; i++) {
        const int code = i % 2 ? 0 : codes[i / 2] < 8 ? codes[i / 2] : codes[i / 2] - 16;
        ASSERT_EQ((double)w[i], (double)((float)code * scales[i / 8]));
    }
    ASSERT_STR(f.metadata_json,
               "{\"w\":\"{\\\"bits\\\":4,\\\"encoding\\\":\\\"int_affine\\\",\\\"shape\\\":[2,8]}\"}");
    formats_close(&f);
}

TEST(h5, refuses_to_write)
{
    const float v[1] = {1};
    Err e = {0};
    OutTensor slash = {.name = "a/b", .ndim = 1, .dim = {1}, .src = v};
    OutModel m = {.n = 1, .t = &slash};
    ASSERT(!formats_write_h5(at("s.h5"), &m, &e));
    ASSERT_CONTAINS(e.msg, "`a/b`");
    e = (Err){0};
    H5Out *h = h5_create(at("s.h5"), "model", NULL, 0, &arena, &e);
    h5_tensor(h, "no-path", DT_F32, 1, (const int64_t[]){1}, v);
    h5_tensor(h, "/tensors/fine", DT_F32, 1, (const int64_t[]){1}, v);
    ASSERT(!h5_commit(h, &e));
    ASSERT_CONTAINS(e.msg, "`no-path` is no path");
    e = (Err){0};
    h = h5_create(at("s.h5"), "model", NULL, 0, &arena, &e);
    h5_tensor(h, "/tensors/a", DT_F32, 1, (const int64_t[]){1}, v);
    h5_tensor(h, "/tensors/a", DT_F32, 1, (const int64_t[]){1}, v);
    ASSERT(!h5_commit(h, &e));
    ASSERT_CONTAINS(e.msg, "cannot write tensor `/tensors/a`");
    e = (Err){0};
    h = h5_create(at("s.h5"), "model", NULL, 0, &arena, &e);
    h5_reserve(h, UINT64_C(1) << 60);
    ASSERT(!h5_commit(h, &e));
    ASSERT_CONTAINS(e.msg, "not enough space");
    ASSERT(!file_exists(at("s.h5")));
    e = (Err){0};
    ASSERT(!h5_create(at("none/s.h5"), "model", NULL, 0, &arena, &e));
    ASSERT_CONTAINS(e.msg, "No such file or directory");
    ASSERT(!h5_commit(NULL, &e));
    char *temp = arena_printf(&arena, &(Err){0}, "%s/s.h5.tmp.%ld", test_dir(), (long)getpid());
    ASSERT(!file_exists(temp));
}

/* ---- damage: all of it is found before HDF5 sees a byte ------------------------------------------------ */

static bool any_hdf5_open(void) { return H5Fget_obj_count((hid_t)H5F_OBJ_ALL, H5F_OBJ_ALL) > 0; }

static void damaged(const char *path, const char *part)
{
    TensorFile f;
    Err e = {0}, e2 = {0};
    ASSERT(!h5_check_envelope(path, NULL, &e));
    ASSERT_EQ((int)e.code, (int)ERR_CORRUPT);
    ASSERT_MSG(strstr(e.msg, part) && strstr(e.msg, path), "expected `%s`, got: %s", part, e.msg);
    ASSERT(!formats_open(&f, path, &arena, &e2));
    ASSERT_STR(e2.msg, e.msg);
    ASSERT(!any_hdf5_open());
}

TEST(h5, every_header_byte_flipped)
{
    size_t n;
    write_small(at("x.h5"));
    char *data = bytes_of(at("x.h5"), &n);
    int fd = open(at("x.h5"), O_WRONLY);
    for (off_t i = 0; i < 4096; i++) {
        char c = (char)(data[i] ^ (1 << (i % 8)));
        ASSERT_EQ(pwrite(fd, &c, 1, i), 1);
        Err e = {0};
        ASSERT_MSG(!h5_check_envelope(at("x.h5"), NULL, &e), "flip of byte %ld was not seen", (long)i);
        ASSERT_CONTAINS(e.msg, "damaged: the first 4096 bytes");
        ASSERT_EQ(pwrite(fd, &data[i], 1, i), 1);
    }
    Err e = {0};
    ASSERT(h5_check_envelope(at("x.h5"), NULL, &e));
    close(fd);
}

TEST(h5, random_bit_flips)
{
    size_t n;
    write_small(at("x.h5"));
    char *data = bytes_of(at("x.h5"), &n);
    int fd = open(at("x.h5"), O_WRONLY);
    for (uint32_t i = 0; i < 300; i++) {
        size_t where = 4096 + rng_u32((RngKey){.seed = 3}, 2 * i) % (n - 4096);
        char c = (char)(data[where] ^ (1 << (rng_u32((RngKey){.seed = 3}, 2 * i + 1) % 8)));
        ASSERT_EQ(pwrite(fd, &c, 1, (off_t)where), 1);
        damaged(at("x.h5"), "damaged: the content");
        ASSERT_EQ(pwrite(fd, &data[where], 1, (off_t)where), 1);
    }
    close(fd);
}

TEST(h5, truncated_and_half_written)
{
    size_t n;
    TensorFile f;
    Err e = {0};
    write_small(at("x.h5"));
    char *data = bytes_of(at("x.h5"), &n);
    for (size_t cut = 0; cut < n; cut += 4096) {
        put(at("x.h5"), data, cut);
        damaged(at("x.h5"), "truncated");
    }
    put(at("x.h5"), data, n - 1);
    damaged(at("x.h5"), "truncated");
    char *more = arena_alloc(&arena, n + 1, &e);
    memcpy(more, data, n);
    put(at("x.h5"), more, n + 1);
    damaged(at("x.h5"), "bytes were appended");
    memset(more, 0, 4096);
    put(at("x.h5"), more, n);
    damaged(at("x.h5"), "half-written");
    put(at("x.h5"), more + 4096, n - 4096);
    damaged(at("x.h5"), "--trust-foreign");
    put(at("plain"), more, n); /* found by the signature at 4096, without the suffix */
    damaged(at("plain"), "half-written");
    formats_open_foreign(&f, at("x.h5"), &arena, &e); /* the same without envelope: readable when trusted */
    ASSERT_OK(e);
    ASSERT(formats_find(&f, "lm_head.weight") != NULL);
    formats_close(&f);
}

/* ---- foreign files ------------------------------------------------------------------------------------- */

static void foreign_refused(const char *path, const char *part)
{
    Err e = {0};
    ASSERT(!h5_open(path, true, &arena, &e));
    ASSERT_EQ((int)e.code, (int)ERR_CORRUPT);
    ASSERT_CONTAINS(e.msg, part);
    ASSERT(!any_hdf5_open());
}

TEST(h5, foreign_objects_are_refused)
{
    const char *path = at("f.h5");
    hsize_t dim = 4, chunk = 2;
    hid_t space = H5Screate_simple(1, &dim, NULL);
    for (int kind = 0; kind < 6; kind++) {
        hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT),
              plist = H5Pcreate(H5P_DATASET_CREATE);
        hid_t d = H5I_INVALID_HID;
        if (kind == 0) H5Lcreate_external("/etc/passwd", "/x", file, "/link", H5P_DEFAULT, H5P_DEFAULT);
        if (kind == 1) {
            H5Pset_chunk(plist, 1, &chunk);
            H5Pset_deflate(plist, 1);
        }
        if (kind == 2) H5Pset_external(plist, "/etc/passwd", 0, 16);
        if (kind == 3) H5Pset_virtual(plist, space, "other.h5", "/d", space);
        if (kind >= 1 && kind <= 3)
            d = H5Dcreate2(file, "/link", H5T_STD_I32LE, space, H5P_DEFAULT, plist, H5P_DEFAULT);
        if (kind == 4) {
            hid_t t = H5Tcopy(H5T_STD_I32LE);
            H5Tcommit2(file, "/link", t, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
            H5Tclose(t);
        }
        if (kind == 5) H5Lcreate_hard(file, "/", file, "/link", H5P_DEFAULT, H5P_DEFAULT);
        if (d >= 0) H5Dclose(d);
        H5Pclose(plist);
        H5Fclose(file);
        static const char *const part[] = {"link to another file",          "compressed or filtered",
                                           "data in other files",           "virtual dataset",
                                           "neither a group nor a dataset", "in a circle"};
        foreign_refused(path, part[kind]);
        Err e = {0};
        ASSERT(!h5_open(path, false, &arena, &e));
        ASSERT_CONTAINS(e.msg, "--trust-foreign");
    }
    H5Sclose(space);
    put(path, "\211HDF\r\n\032\n and then nothing of sense, really nothing", 50);
    foreign_refused(path, "HDF5 cannot open it");
}

/* ---- full disk ----------------------------------------------------------------------------------------- */

TEST(h5, full_disk_keeps_the_old_file)
{
    TensorFile f;
    Err e = {0};
    formats_open(&f, STORIES ".bin", &arena, &e);
    OutModel m = model_of(&f);
    dir_make(at("full"), &e);
    put(at("full/old.h5"), "old", 3);
    ASSERT_OK(e);
    char *temp = arena_printf(&arena, &e, "%s/full/old.h5.tmp.%ld", test_dir(), (long)getpid());
    signal(SIGXFSZ, SIG_IGN);
    bool done = false;
    for (rlim_t size = 65536; !done && size < 4000000; size = size * 9 / 8) {
        struct rlimit limit = {.rlim_cur = size, .rlim_max = RLIM_INFINITY};
        ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
        Err r = {0};
        done = formats_write_h5(at("full/old.h5"), &m, &r);
        ASSERT_MSG(!file_exists(temp), "limit %ld: a temporary file is left", (long)size);
        if (done) {
            ASSERT(h5_check_envelope(at("full/old.h5"), NULL, &r));
            ASSERT(size > 1040000);
            break;
        }
        ASSERT_CONTAINS(r.msg, "full/old.h5");
        ASSERT_CONTAINS(r.msg, "File too large");
        size_t n;
        ASSERT_STR(bytes_of(at("full/old.h5"), &n), "old");
    }
    ASSERT(done);
}
