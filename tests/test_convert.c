/* tests/test_convert.c: one file into another tensor by tensor, with little memory; weights left in the
 * mapping; the tokenizer inside HDF5; what an export folder holds. */
#include "infer/infer.h"
#include "tests/test.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static Arena arena = {.name = "test"};
static Err e;

static const char *at(const char *name) { return path_join(&arena, test_dir(), name, &e); }

static bool convert(const char *in, const char *out, const char *format, DType type, int64_t shard)
{
    ConvertOptions o = {.format = format, .dtype = type, .shard_bytes = shard};
    int n = 0;
    e = (Err){0};
    return model_convert(in, out, &o, &n, &e) && n > 0;
}

static const char *hash_of(const char *path, bool frozen, int64_t *mapped)
{
    Model m;
    bool ok = frozen ? model_open_frozen(&m, path, kernels_cpu_f32(), &arena, &e)
                     : model_open(&m, path, kernels_cpu_f32(), &arena, &e);
    if (!ok) test_fail(__FILE__, __LINE__, "%s: %s", path, e.msg);
    if (mapped) *mapped = m.mapped_bytes;
    const char *h = model_content_hash(&m, &arena, &e);
    model_close(&m);
    return h;
}

/* Folder, shards, HDF5, one file and back: the same parameters; shards below the size asked for. */
TEST(convert, round_trips)
{
    static const char *const model[] = {"gpt2", "gemma3", "llama-yarn"};
    for (int i = 0; i < 3; i++) {
        const char *src = arena_printf(&arena, &e, "tests/data/hf-tiny-%s", model[i]);
        const char *want = hash_of(src, false, NULL), *h5 = at("m.h5");
        const char *shards = at(arena_printf(&arena, &e, "shards%d", i)),
                   *one = at(arena_printf(&arena, &e, "one%d", i));
        ASSERT(convert(src, h5, "hdf5", DT_F32, 0));
        ASSERT_STR(hash_of(h5, false, NULL), want);
        ASSERT(convert(h5, shards, "hf", DT_F32, 20000));
        ASSERT_STR(hash_of(shards, false, NULL), want);
        ASSERT(file_exists(path_join(&arena, shards, "model.safetensors.index.json", &e)));
        ASSERT(convert(shards, one, "hf", DT_F32, 0));
        size_t n, m;
        const char *a = file_read(&arena, path_join(&arena, src, "model.safetensors", &e), &n, &e);
        const char *b = file_read(&arena, path_join(&arena, one, "model.safetensors", &e), &m, &e);
        ASSERT_EQ(n, m);
        ASSERT_BYTES(a, b, n);
        b = file_read(&arena, path_join(&arena, one, "config.json", &e), &m, &e);
        ASSERT_STR(b, file_read(&arena, path_join(&arena, src, "config.json", &e), &n, &e));
    }
}

static void same_file(const char *x, const char *y)
{
    size_t n, m;
    const char *a = file_read(&arena, x, &n, &e), *b = file_read(&arena, y, &m, &e);
    ASSERT_MSG(a && b && n == m && memcmp(a, b, n) == 0, "%s and %s differ", x, y);
}

/* What docs/models.md calls the same bytes, for each element type. */
TEST(convert, the_same_bytes_again)
{
    static const struct {
        const char *name;
        DType type;
    } model[] = {{"gpt2", DT_F32}, {"gpt2-f16", DT_F16}, {"llama-bf16", DT_BF16}};
    for (int i = 0; i < 3; i++) {
        const DType type = model[i].type;
        const char *src = arena_printf(&arena, &e, "tests/data/hf-tiny-%s", model[i].name),
                   *dir = at(arena_printf(&arena, &e, "d%d", i)), *s = at(arena_printf(&arena, &e, "s%d", i)),
                   *t = at(arena_printf(&arena, &e, "t%d", i)),
                   *join = at(arena_printf(&arena, &e, "j%d", i));
        static const char *const file[] = {"model.safetensors", "config.json", "generation_config.json"};
        ASSERT(convert(src, at("1.h5"), "hdf5", type, 0) && convert(at("1.h5"), dir, "hf", type, 0));
        ASSERT(convert(dir, at("2.h5"), "hdf5", type, 0));
        same_file(at("1.h5"), at("2.h5"));
        ASSERT(convert(src, s, "hf", type, 20000) && convert(s, t, "hf", type, 20000) &&
               convert(t, join, "hf", type, 0));
        for (int k = 0; k < 3; k++) {
            same_file(path_join(&arena, src, file[k], &e), path_join(&arena, dir, file[k], &e));
            same_file(path_join(&arena, src, file[k], &e), path_join(&arena, join, file[k], &e));
        }
        DIR *d = opendir(s);
        int shards = 0;
        for (struct dirent *f; d && (f = readdir(d));) {
            if (f->d_name[0] == '.') continue;
            same_file(path_join(&arena, s, f->d_name, &e), path_join(&arena, t, f->d_name, &e));
            shards += strncmp(f->d_name, "model-", 6) == 0;
        }
        if (d) closedir(d);
        ASSERT(shards > 1);
    }
}

/* The written type is the one that config.json names, in either spelling. */
TEST(convert, config_names_the_type)
{
    size_t n;
    ASSERT(convert("tests/data/hf-tiny-llama", at("bf16"), "hf", DT_BF16, 0));
    const char *c = file_read(&arena, at("bf16/config.json"), &n, &e);
    ASSERT_CONTAINS(c, "\"dtype\": \"bfloat16\"");
    char *old = arena_strdup(&arena, c, &e), *key = strstr(old, "\"dtype\": \"bfloat16\"");
    memcpy(key, "\"torch_dtype\":", 14); /* a transformers 4 folder; the rest of the word becomes blanks */
    memcpy(key + 14, " \"\",  ", 5);
    ASSERT(dir_make(at("old"), &e));
    ASSERT(file_write_atomic(at("old/config.json"), c, n, &e));
    const char *w = file_read(&arena, at("bf16/model.safetensors"), &n, &e);
    ASSERT(file_write_atomic(at("old/model.safetensors"), w, n, &e));
    ASSERT(convert(at("old"), at("new"), "hf", DT_F16, 0));
    ASSERT_CONTAINS(file_read(&arena, at("new/config.json"), &n, &e), "\"dtype\": \"float16\"");
}

TEST(convert, refuses_what_open_refuses)
{
    size_t n;
    ASSERT(dir_make(at("bad"), &e));
    char *c = file_read(&arena, "tests/data/hf-tiny-llama/config.json", &n, &e);
    char *size = strstr(c, "\"intermediate_size\": 48");
    memcpy(size, "\"intermediate_size\": 40", 23);
    ASSERT(file_write_atomic(at("bad/config.json"), c, n, &e));
    char *w = file_read(&arena, "tests/data/hf-tiny-llama/model.safetensors", &n, &e);
    ASSERT(file_write_atomic(at("bad/model.safetensors"), w, n, &e));
    ASSERT(!convert(at("bad"), at("out"), "hf", DT_F32, 0));
    ASSERT_CONTAINS(e.msg, "the configuration wants [40,32]");
    memcpy(size, "\"intermediate_size\": 48", 23);
    ASSERT((e = (Err){0}, file_write_atomic(at("bad/config.json"), c, strlen(c), &e)));
    memcpy(w + n - 4, "\x00\x00\xc0\x7f", 4);
    ASSERT(file_write_atomic(at("bad/model.safetensors"), w, n, &e));
    ASSERT(!convert(at("bad"), at("out"), "hf", DT_F32, 0));
    ASSERT_CONTAINS(e.msg, "holds NaN");
    ASSERT(!file_exists(at("out/model.safetensors")));
}

/* A model of 16 x 1 MiB blocks and two tables of vocab KiB, in shards of 4 MiB. */
static void big_model(const char *dir, int vocab)
{
    ModelInitConfig c = {.arch = "llama",
                         .hidden_size = 256,
                         .num_hidden_layers = 16,
                         .num_attention_heads = 4,
                         .intermediate_size = 768,
                         .vocab_size = vocab,
                         .max_position_embeddings = 64,
                         .rope_theta = 1e4,
                         .rms_norm_eps = 1e-5,
                         .initializer_range = 0.02};
    ModelSpec s;
    Model m;
    OutModel o;
    Arena a = {.name = "big"};
    ASSERT(spec_from_init(&s, &c, vocab, 64, &e) && model_fresh(&m, &s, 1, kernels_cpu_f32(), &a, &e));
    ASSERT(model_out(&m, &o, DT_F32, &a, &e) && formats_write_hf(dir, &o, 4 << 20, &e));
    arena_free(&a);
}

static long peak_kb(bool reset)
{
    int fd = reset ? open("/proc/self/clear_refs", O_WRONLY) : -1;
    if (fd >= 0) {
        if (write(fd, "5", 1) != 1) fd = -1;
        else close(fd);
    }
    size_t n;
    const char *status = file_read(&arena, "/proc/self/status", &n, &e);
    const char *line = status ? strstr(status, "VmHWM:") : NULL;
    return line && (!reset || fd >= 0) ? strtol(line + 6, NULL, 10) : -1;
}

/* 52 MB of weights go through with a peak of a shard's size: 4 MiB, and what the libraries take. */
TEST(convert, peak_memory_is_a_shard)
{
    if (SANITIZED) SKIP("the sanitizer keeps what is freed");
    big_model(at("big"), 512);
    long before = peak_kb(true);
    if (before < 0) SKIP("no /proc/self/clear_refs");
    ASSERT(convert(at("big"), at("big2"), "hf", DT_F32, 4 << 20));
    long sharded = peak_kb(false) - before;
    peak_kb(true);
    ASSERT(convert(at("big"), at("one.safetensors"), "safetensors", DT_BF16, 0));
    long single = peak_kb(false) - before;
    ASSERT_MSG(sharded < 12 * 1024 && single < 12 * 1024, "peak %ld and %ld kB of 52 MB", sharded, single);
    ASSERT_STR(hash_of(at("big2"), false, NULL), hash_of(at("big"), false, NULL));
}

/* A table of 16 MiB is in memory once: neither its file's pages nor what it is compared with add to it. */
TEST(convert, peak_memory_is_a_tensor)
{
    if (SANITIZED) SKIP("the sanitizer keeps what is freed");
    big_model(at("big"), 16384);
    static const char *const out[][3] = {{"big", "b", "hf"}, {"b.h5", "b.safetensors", "safetensors"}};
    ASSERT(
        convert(at("big"), at("b.h5"), "hdf5", DT_F32, 0)); /* the library's own memory is above the bound */
    for (int i = 0; i < 2; i++) {
        const long before = peak_kb(true);
        if (before < 0) SKIP("no /proc/self/clear_refs");
        ASSERT(convert(at(out[i][0]), at(out[i][1]), out[i][2], DT_F32, 0));
        const long peak = peak_kb(false) - before;
        ASSERT_MSG(peak < 26 * 1024, "%s: peak %ld kB for a tensor of 16 MiB", out[i][2], peak);
    }
}

/* HDF5 aligns large tensors, so all of them stay in the mapping; what does not fit is converted. */
TEST(convert, frozen_weights_stay_in_the_mapping)
{
    int64_t mapped;
    big_model(at("big"), 512);
    ASSERT(convert(at("big"), at("big.h5"), "hdf5", DT_F32, 0));
    const char *want = hash_of(at("big.h5"), false, &mapped);
    ASSERT_EQ(mapped, (int64_t)0);
    ASSERT_STR(hash_of(at("big.h5"), true, &mapped), want);
    ASSERT_MSG(mapped > 52 * 1000 * 1000, "%lld bytes", (long long)mapped);
    ASSERT(convert(at("big"), at("half.h5"), "hdf5", DT_BF16, 0));
    ASSERT_STR(hash_of(at("half.h5"), true, &mapped), hash_of(at("half.h5"), false, NULL));
    ASSERT_EQ(mapped, (int64_t)0);
    ASSERT_STR(hash_of("tests/data/hf-tiny-gpt2", true, &mapped),
               hash_of("tests/data/hf-tiny-gpt2", false, NULL));
}

/* HDF5 to HDF5 to a folder: the tokenizer comes along, and reads the same ids without a file beside it. */
TEST(convert, tokenizer_travels_inside_hdf5)
{
    static const char text[] = "Once upon a time, Lily's cat sang.";
    size_t n, m;
    int k;
    ConvertOptions o = {.format = "hdf5", .tokenizer_path = "tests/data/stories/tok512.model"};
    ASSERT(model_convert("tests/data/stories/stories260K.bin", at("s.h5"), &o, &k, &e));
    ASSERT(convert(at("s.h5"), at("t.h5"), "hdf5", DT_F32, 0));
    ASSERT(convert(at("t.h5"), at("hf"), "hf", DT_F32, 0));
    const char *a = file_read(&arena, o.tokenizer_path, &n, &e);
    const char *b = file_read(&arena, at("hf/tokenizer.model"), &m, &e);
    ASSERT_EQ(n, m);
    ASSERT_BYTES(a, b, n);
    Model mo;
    ASSERT(model_open(&mo, at("t.h5"), kernels_cpu_f32(), &arena, &e));
    ASSERT_STR(mo.tokenizer_path, at("t.h5"));
    Tokenizer *t = model_tokenizer(mo.tokenizer_path, NULL, &arena, &e);
    ASSERT_OK(e);
    Tokenizer *u = model_tokenizer(o.tokenizer_path, NULL, &arena, &e);
    ASSERT_STR(tokenizer_hash(t), tokenizer_hash(u));
    ASSERT_STR(tokenizer_path(t), at("t.h5"));
    TokenBuf x = {0}, y = {0};
    ASSERT(tokenizer_encode(t, text, strlen(text), true, &x, &arena, &e));
    ASSERT(tokenizer_encode(u, text, strlen(text), true, &y, &arena, &e));
    ASSERT_EQ(x.n, y.n);
    ASSERT_BYTES(x.id, y.id, x.n * sizeof *x.id);
    ASSERT(convert("tests/data/hf-tiny-llama", at("none.h5"), "hdf5", DT_F32, 0));
    ASSERT(!model_tokenizer(at("none.h5"), NULL, &arena, &e));
    ASSERT_CONTAINS(e.msg, "holds no tokenizer");
}

/* Everything that belongs to a folder's tokenizer goes through HDF5 and back, byte for byte. */
TEST(convert, folder_files_survive)
{
    static const char *const file[] = {"tokenizer.json",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "chat_template.jinja",
                                       "vocab.json",
                                       "merges.txt"};
    size_t n;
    ASSERT(dir_make(at("f"), &e));
    static const char *const own[] = {"config.json", "generation_config.json", "model.safetensors"};
    for (int i = 0; i < 3; i++) {
        const char *d = file_read(&arena, path_join(&arena, "tests/data/hf-tiny-llama", own[i], &e), &n, &e);
        ASSERT(file_write_atomic(path_join(&arena, at("f"), own[i], &e), d, n, &e));
    }
    for (int i = 0; i < 6; i++) {
        const char *d = arena_printf(&arena, &e, "{\"file\": %d, \"x\": \"\u00e9\"}\n", i);
        ASSERT(file_write_atomic(path_join(&arena, at("f"), file[i], &e), d, strlen(d), &e));
    }
    ASSERT(convert(at("f"), at("f.h5"), "hdf5", DT_F32, 0));
    ASSERT(convert(at("f.h5"), at("g"), "hf", DT_F32, 0));
    ASSERT(convert(at("f"), at("h"), "hf", DT_F32, 0));
    for (int i = 0; i < 9; i++) {
        const char *name = i < 6 ? file[i] : own[i - 6];
        const char *want = file_read(&arena, path_join(&arena, at("f"), name, &e), &n, &e);
        for (int j = 0; j < 2; j++) {
            size_t m;
            const char *got = file_read(&arena, path_join(&arena, at(j ? "h" : "g"), name, &e), &m, &e);
            if (!got || n != m || memcmp(got, want, n))
                test_fail(__FILE__, __LINE__, "%s is not the same", name);
        }
    }
}

#define INNER "{\"q\": {\"dtype\": \"int8\"}, \"s\": \"\\\"dtype\\\": {\", \"l\": [{\"dtype\": 1}], "
/* The words alone change, however the file is spaced; null is one; a longer key is another key. */
TEST(convert, config_says_the_element_type)
{
    static const char *const text[][2] = {
        {"{\"a\": 1, \"torch_dtype\": \"float32\"}", "{\"a\": 1, \"torch_dtype\": \"bfloat16\"}"},
        {"{\"torch_dtype\":\"float32\",\"dtype\" : null}",
         "{\"torch_dtype\":\"bfloat16\",\"dtype\" : \"bfloat16\"}"},
        {INNER "\"dtype\": null}", INNER "\"dtype\": \"bfloat16\"}"},
        {"{\"x_dtype\": \"float32\"}",
         "{\n  \"torch_dtype\": \"bfloat16\",\n  \"dtype\": \"bfloat16\",\"x_dtype\": \"float32\"}"},
    };
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        ASSERT_STR(formats_config_dtype(text[i][0], DT_BF16, &arena, &e), text[i][1]);
    ASSERT_OK(e);
    arena_free(&arena);
}
