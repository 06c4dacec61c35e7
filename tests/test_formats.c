/* tests/test_formats.c: Hugging Face folders, llama2.c, detection, writing: round trips, and files that
 * lie. */
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>
#include "tests/formats_impl.h"

/* Everything of f as a list to write. */
static OutModel model_of(const TensorFile *f)
{
    Err e = {0};
    OutTensor *t = arena_alloc(&arena, (size_t)f->n * sizeof *t, &e);
    ASSERT_OK(e);
    for (int i = 0; i < f->n; i++) {
        size_t n;
        const FileTensor *s = &f->t[i];
        t[i] = (OutTensor){
            .name = s->name, .ndim = s->ndim, .dtype = s->dtype, .in_out = s->in_out, .tied_to = s->tied_to};
        formats_dims(s, t[i].dim);
        t[i].src = values(f, s, &n);
    }
    return (OutModel){.n = f->n,
                      .t = t,
                      .arch = f->arch,
                      .config_json = f->config_json,
                      .generation_json = f->generation_json,
                      .tokenizer_path = f->tokenizer_path,
                      .step = 7};
}

static void same(const TensorFile *a, const TensorFile *b)
{
    ASSERT_EQ(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        size_t na, nb;
        const FileTensor *t = formats_find(b, a->t[i].name);
        ASSERT_MSG(t != NULL, "%s is missing", a->t[i].name);
        ASSERT_EQ((int)t->dtype, (int)a->t[i].dtype);
        float *x = values(a, &a->t[i], &na), *y = values(b, t, &nb);
        ASSERT_EQ(na, nb);
        ASSERT_BYTES(x, y, na * sizeof *x);
    }
}

/* A difference is reported with its place, not with a megabyte of text. */
static void same_bytes(const char *a, const char *b)
{
    size_t na, nb;
    Err e = {0};
    char *x = file_read(&arena, a, &na, &e), *y = file_read(&arena, b, &nb, &e);
    ASSERT_OK(e);
    ASSERT_EQ(na, nb);
    ASSERT_BYTES(x, y, na);
}

TEST(formats, detection)
{
    refuse("tests/data/no-such-model", ERR_FAIL, "no such file or folder");
    refuse(at("."), ERR_FAIL, "no config.json");
    refuse(bytes_file("x", "GGUF\3\0\0\0", 8), ERR_CORRUPT, "GGUF");
    refuse(bytes_file("y", "PK\3\4abcdefgh", 12), ERR_CORRUPT, "zip archive");
    refuse(bytes_file("z", "\200\2}q\0abcdefg", 12), ERR_CORRUPT, "pickle");
    refuse(bytes_file("hello.txt", "hello, this is a text and no model", 34), ERR_CORRUPT,
           "known are a Hugging Face folder");
    refuse(bytes_file("dir.h5", "hello", 5), ERR_CORRUPT, "truncated");
    refuse(bytes_file("w", "", 0), ERR_CORRUPT, "an empty file");
    refuse(bytes_file("w.bin", "", 0), ERR_CORRUPT, "shorter than its header");
    refuse(bytes_file("w.bin", "GGUF\3\0\0\0", 8), ERR_CORRUPT, "GGUF");
    refuse("/dev/null", ERR_FAIL, "neither a file nor a folder");
    ASSERT_STR(format_name(FMT_LLAMA2C), "llama2c");
    ASSERT_STR(format_name(FMT_HDF5), "hdf5");
}

/* ---- the same model in Meta names, as .bin, as a folder ------------------------------------------------ */

TEST(formats, meta_and_llama2c_agree)
{
    TensorFile meta, bin;
    open_ok(&meta, STORIES ".safetensors");
    open_ok(&bin, STORIES ".bin");
    ASSERT_EQ((int)meta.format, (int)FMT_SAFETENSORS);
    ASSERT_EQ((int)bin.format, (int)FMT_LLAMA2C);
    ASSERT_STR(meta.arch, "llama");
    ASSERT_STR(meta.config_json, bin.config_json);
    ASSERT_CONTAINS(bin.config_json, "\"num_key_value_heads\": 4");
    ASSERT_CONTAINS(bin.config_json, "\"rms_norm_eps\": 1e-5");
    same(&meta, &bin);
    formats_close(&meta);
    formats_close(&bin);
}

/* Stored row (h, 2j+p) is row (h, p D/2 + j) in memory: element by element, with the file's own numbers. */
TEST(formats, q_rows_become_halves)
{
    TensorFile f;
    size_t n;
    open_ok(&f, STORIES ".bin");
    const FileTensor *q = formats_find(&f, "model.layers.2.self_attn.q_proj.weight");
    const FileTensor *k = formats_find(&f, "model.layers.2.self_attn.k_proj.weight");
    ASSERT_EQ(q->unpermute_heads, 8);
    ASSERT_EQ(k->unpermute_heads, 4);
    const FileTensor *each[2] = {q, k};
    for (int w = 0; w < 2; w++) {
        const float *stored = (const float *)(const void *)each[w]->data;
        float *v = values(&f, each[w], &n);
        for (int h = 0; h < each[w]->unpermute_heads; h++)
            for (int j = 0; j < 4; j++)
                for (int p = 0; p < 2; p++)
                    ASSERT_BYTES(v + (h * 8 + p * 4 + j) * 64, stored + (h * 8 + 2 * j + p) * 64,
                                 64 * sizeof(float));
    }
    formats_close(&f);
}

TEST(formats, llama2c_round_trip)
{
    TensorFile f, g;
    Err e = {0};
    open_ok(&f, STORIES ".safetensors");
    OutModel m = model_of(&f);
    formats_write_llama2c(at("again.bin"), &m, &e);
    ASSERT_OK(e);
    size_t n, k;
    char *want = file_read(&arena, STORIES ".bin", &n, &e),
         *have = file_read(&arena, at("again.bin"), &k, &e);
    ASSERT_EQ(n, k);
    size_t tables = 512 * 8 * 4; /* seq x head width x float: cos and sin, at the end */
    ASSERT_BYTES(want, have, n - tables);
    /* PyTorch's vector cosine made the published tables; the C library's differs in a last bit here and
     * there */
    float *a = arena_alloc(&arena, tables, &e), *b = arena_alloc(&arena, tables, &e);
    memcpy(a, want + n - tables, tables);
    memcpy(b, have + n - tables, tables);
    ASSERT_CLOSE_F32(b, a, tables / 4, 0, 1.2e-7);
    open_ok(&g, at("again.bin"));
    same(&f, &g);
    OutModel again = model_of(&g);
    formats_write_llama2c(at("third.bin"), &again, &e);
    ASSERT_OK(e);
    same_bytes(at("again.bin"), at("third.bin"));
}

TEST(formats, llama2c_untied)
{
    TensorFile f, g;
    Err e = {0};
    open_ok(&f, STORIES ".bin");
    OutModel m = model_of(&f);
    OutTensor *t = arena_alloc(&arena, ((size_t)m.n + 1) * sizeof *t, &e);
    memcpy(t, m.t, (size_t)m.n * sizeof *t);
    t[m.n] = t[0];
    t[m.n].name = "lm_head.weight";
    ASSERT_STR(t[0].name, "model.embed_tokens.weight");
    m.t = t;
    m.n++;
    formats_write_llama2c(at("untied.bin"), &m, &e);
    ASSERT_OK(e);
    open_ok(&g, at("untied.bin"));
    ASSERT_EQ(g.n, f.n + 1);
    ASSERT_CONTAINS(g.config_json, "\"tie_word_embeddings\": false");
    size_t n;
    ASSERT_BYTES(values(&g, formats_find(&g, "lm_head.weight"), &n), t[0].src, 512 * 64 * 4);
    t[m.n - 1].tied_to = "model.embed_tokens.weight";
    formats_write_llama2c(at("tied.bin"), &m, &e);
    ASSERT_OK(e);
    open_ok(&g, at("tied.bin"));
    ASSERT_EQ(g.n, f.n);
}

TEST(formats, llama2c_lies)
{
    size_t n;
    Err e = {0};
    char *data = file_read(&arena, STORIES ".bin", &n, &e);
    static const int32_t lie[][2] = {{0, 0},          {0, -64},
                                     {0, 63},         {0, 65},
                                     {0, 128},        {0, 0x7FFFFFFF},
                                     {1, 171},        {1, 0},
                                     {1, 0x7FFFFFFF}, {2, 4},
                                     {2, 6},          {2, 0x7FFFFFFF},
                                     {3, 7},          {3, 0},
                                     {3, 64},         {3, 16},
                                     {4, 3},          {4, 8},
                                     {4, 16},         {5, 513},
                                     {5, -512},       {5, (-0x7FFFFFFF) - 1},
                                     {5, 0},          {6, 511},
                                     {6, 0},          {6, -1},
                                     {6, 0x7FFFFFFF}};
    for (size_t i = 0; i < sizeof lie / sizeof *lie; i++) {
        int32_t keep;
        memcpy(&keep, data + 4 * lie[i][0], 4);
        memcpy(data + 4 * lie[i][0], &lie[i][1], 4);
        put(at("lie.bin"), data, n);
        refuse(at("lie.bin"), ERR_CORRUPT, "llama2.c");
        memcpy(data + 4 * lie[i][0], &keep, 4);
    }
    for (size_t cut = 1; cut < n; cut += cut < 40 ? 1 : 40009) {
        put(at("lie.bin"), data, cut);
        refuse(at("lie.bin"), ERR_CORRUPT, "");
    }
    put(at("lie.bin"), data, n);
    TensorFile f;
    open_ok(&f, at("lie.bin"));
    int32_t magic = 0x616b3432;
    memcpy(data, &magic, 4);
    put(at("lie.bin"), data, n);
    refuse(at("lie.bin"), ERR_CORRUPT, "only version 0");
}

TEST(formats, llama2c_refuses_what_it_cannot_hold)
{
    static const char *const folders[] = {"mistral", "qwen2", "qwen3", "gpt2", "llama-bf16"};
    static const char *const why[] = {"sliding window", "Llama models only", "Llama models only",
                                      "Llama models only", "float32 only"};
    for (int i = 0; i < 5; i++) {
        TensorFile f;
        Err e = {0}, none = {0};
        char *path = arena_printf(&arena, &none, "tests/data/hf-tiny-%s", folders[i]);
        ASSERT_MSG(file_exists(path), "%s is missing: it is committed with the tests", path);
        open_ok(&f, path);
        OutModel m = model_of(&f);
        ASSERT(!formats_write_llama2c(at("no.bin"), &m, &e));
        ASSERT_CONTAINS(e.msg, why[i]);
        ASSERT(!file_exists(at("no.bin")));
    }
}

TEST(formats, meta_to_folder)
{
    TensorFile f, g, s;
    Err e = {0};
    open_ok(&f, STORIES ".safetensors");
    OutModel m = model_of(&f);
    formats_write_hf(at("hf"), &m, 0, &e);
    ASSERT_OK(e);
    open_ok(&g, at("hf"));
    ASSERT_EQ((int)g.format, (int)FMT_HF);
    ASSERT_STR(g.config_json, f.config_json);
    same(&f, &g);
    ASSERT(!formats_write_hf(at("hf"), &m, 100000, &e));
    ASSERT_CONTAINS(e.msg, "already holds model.safetensors");
    e = (Err){0};
    formats_write_hf(at("sharded"), &m, 100000, &e);
    ASSERT_OK(e);
    open_ok(&s, at("sharded"));
    ASSERT(s.n_map > 5);
    same(&f, &s);
    ASSERT_EQ(
        unlink(arena_printf(&arena, &e, "%s/sharded/model-00002-of-%05d.safetensors", test_dir(), s.n_map)),
        0);
    formats_close(&s);
    refuse(at("sharded"), ERR_CORRUPT, "missing shard");
    /* the single file of the folder, opened by itself, finds the config.json beside it */
    open_ok(&s, at("hf/model.safetensors"));
    ASSERT_STR(s.arch, "llama");
    same(&f, &s);
}

TEST(formats, bad_index)
{
    static const char *const index[][2] = {
        {"{\"weight_map\":{\"a\":\"../x.safetensors\"}}", "plain file name"},
        {"{\"weight_map\":{\"a\":3}}", "plain file name"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "plain file name"},
        {"{\"weight_map\":[]}", "no `weight_map`"},
        {"{\"weight_map\":{\"a\":\"s.safetensors\",\"a\":\"s.safetensors\"}}", "duplicate object key"},
        {"{\"weight_map\":{\"b\":\"s.safetensors\"}}", "not listed for this shard"},
        {"[]", "JSON object"},
        {"{\"weight_map\":{\"a\":\"s.safetensors\",\"b\":\"s.safetensors\"}}",
         "lists 2 tensors, the shards hold 1"}};
    Err e = {0};
    dir_make(at("idx"), &e);
    put(at("idx/config.json"), "{\"model_type\":\"llama\"}", 22);
    const char *one = safetensors("{\"a\":" T("1", 0, 4) "}", 4);
    ASSERT_EQ(rename(one, at("idx/s.safetensors")), 0);
    for (size_t i = 0; i < sizeof index / sizeof *index; i++) {
        put(at("idx/model.safetensors.index.json"), index[i][0], strlen(index[i][0]));
        refuse(at("idx"), ERR_CORRUPT, index[i][1]);
    }
    put(at("idx/config.json"), "{\"model_type\":NaN}", 18);
    refuse(at("idx"), ERR_CORRUPT, "config.json:1:");
}

TEST(formats, tiny_folders_round_trip)
{
    static const char *const name[] = {"gpt2",    "gpt2-f16", "llama", "llama-bf16",
                                       "mistral", "qwen2",    "qwen3"};
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        TensorFile f, g;
        Err e = {0};
        char *path = arena_printf(&arena, &e, "tests/data/hf-tiny-%s", name[i]);
        ASSERT_MSG(file_exists(path), "%s is missing: it is committed with the tests", path);
        open_ok(&f, path);
        ASSERT_EQ((int)f.format, (int)FMT_HF);
        ASSERT(f.arch && !strncmp(name[i], f.arch, strlen(f.arch)));
        OutModel m = model_of(&f);
        char *out = arena_printf(&arena, &e, "%s/%s", test_dir(), name[i]);
        formats_write_hf(out, &m, 0, &e);
        ASSERT_OK(e);
        open_ok(&g, out);
        same(&f, &g);
        /* the reference writer's bytes, header included */
        same_bytes(arena_printf(&arena, &e, "%s/model.safetensors", path),
                   arena_printf(&arena, &e, "%s/model.safetensors", out));
        same_bytes(arena_printf(&arena, &e, "%s/config.json", path),
                   arena_printf(&arena, &e, "%s/config.json", out));
    }
}

TEST(formats, gpt2_one_spelling)
{
    TensorFile f, g;
    Err e = {0};
    size_t n;
    ASSERT_MSG(file_exists("tests/data/hf-tiny-gpt2"), "a committed folder is missing");
    open_ok(&f, "tests/data/hf-tiny-gpt2");
    const FileTensor *t = formats_find(&f, "transformer.h.0.attn.c_attn.weight");
    int64_t dim[4];
    formats_dims(t, dim);
    ASSERT(t->in_out && t->dim[0] == 32 && dim[0] == 96 && dim[1] == 32);
    float *v = values(&f, t, &n);
    const float *stored = (const float *)(const void *)t->data;
    for (int o = 0; o < 96; o++)
        for (int i = 0; i < 32; i++) ASSERT_EQ(v[o * 32 + i], stored[i * 96 + o]);
    ASSERT(!formats_find(&f, "transformer.wpe.weight")->in_out);
    ASSERT(!formats_find(&f, "transformer.h.0.attn.c_attn.bias")->in_out);
    /* the original hub file: no prefix, and masks beside the weights */
    OutModel m = model_of(&f);
    OutTensor *bare = arena_alloc(&arena, ((size_t)m.n + 2) * sizeof *bare, &e);
    memcpy(bare, m.t, (size_t)m.n * sizeof *bare);
    for (int i = 0; i < m.n; i++) bare[i].name += strlen("transformer.");
    bare[m.n] = (OutTensor){.name = "h.0.attn.bias", .ndim = 4, .dim = {1, 1, 4, 4}, .src = v};
    bare[m.n + 1] = (OutTensor){.name = "h.0.attn.masked_bias", .src = v};
    m.t = bare;
    m.n += 2;
    formats_write_hf(at("bare"), &m, 0, &e);
    ASSERT_OK(e);
    open_ok(&g, at("bare"));
    same(&f, &g);
    ASSERT_STR(formats_find(&g, "transformer.wte.weight")->stored_name, "wte.weight");
}

/* ---- writing ------------------------------------------------------------------------------------------- */

TEST(formats, element_types)
{
    static const DType type[] = {DT_F32,     DT_F64, DT_F16, DT_BF16, DT_F8_E4M3,
                                 DT_F8_E5M2, DT_I8,  DT_U8,  DT_I64};
    static const char *const name[] = {"f32", "f64", "f16", "bf16", "e4m3", "e5m2", "i8", "u8", "i64"};
    const float v[6] = {0, 1, 2, 3, 4, 96};
    OutTensor t[9];
    Err e = {0};
    TensorFile f;
    for (int i = 0; i < 9; i++)
        t[i] = (OutTensor){.name = name[i], .ndim = 2, .dim = {2, 3}, .src = v, .dtype = type[i]};
    OutModel m = {.n = 9, .t = t, .metadata_json = "{\"what\":\"test\"}"};
    formats_write_safetensors(at("types.safetensors"), &m, &e);
    ASSERT_OK(e);
    open_ok(&f, at("types.safetensors"));
    ASSERT_STR(f.metadata_json, "{\"format\":\"pt\",\"what\":\"test\"}");
    ASSERT(f.arch == NULL && f.config_json == NULL);
    for (int i = 0; i < 9; i++) {
        size_t n;
        const FileTensor *have = formats_find(&f, name[i]);
        ASSERT_EQ((int)have->dtype, (int)type[i]);
        ASSERT_BYTES(values(&f, have, &n), v, sizeof v);
        ASSERT_EQ((uintptr_t)have->data % dtype_size(type[i]), 0u);
    }
    ASSERT_STR(f.t[0].name, "i64"); /* widest first */
}

TEST(formats, writer_refuses)
{
    const float v[4] = {0};
    struct {
        OutTensor t[2];
        int n;
        const char *part;
    } bad[] = {
        {{{.name = "a", .ndim = 1, .dim = {4}}}, 1, "no data given"},
        {{{.name = "", .ndim = 1, .dim = {4}, .src = v}}, 1, "no usable name"},
        {{{.name = "__metadata__", .ndim = 1, .dim = {4}, .src = v}}, 1, "no usable name"},
        {{{.name = "a", .ndim = 1, .dim = {4}, .src = v}, {.name = "a", .ndim = 1, .dim = {4}, .src = v}},
         2,
         "twice"},
        {{{.name = "a", .ndim = 5, .dim = {4}, .src = v}}, 1, "rank 5"},
        {{{.name = "a", .ndim = 1, .dim = {-4}, .src = v}}, 1, "impossible shape"},
        {{{.name = "a", .ndim = 2, .dim = {INT64_MAX, INT64_MAX}, .src = v}}, 1, "impossible shape"},
        {{{.name = "a", .ndim = 1, .dim = {4}, .src = v, .in_out = true}}, 1, "[in,out]"},
        {{{.name = "a", .tied_to = "b"}}, 1, "tied to `b`"},
        {{{.name = "\xff", .ndim = 1, .dim = {4}, .src = v}}, 1, "not UTF-8"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Err e = {0};
        OutModel m = {.n = bad[i].n, .t = bad[i].t};
        ASSERT(!formats_write_safetensors(at("bad.safetensors"), &m, &e));
        ASSERT_CONTAINS(e.msg, bad[i].part);
        ASSERT(!file_exists(at("bad.safetensors")));
    }
}

/* A read-only destination and a full disk: the old file stays as it was, no temporary file is left. */
TEST(formats, full_disk_keeps_the_old_file)
{
    TensorFile f;
    Err e = {0};
    open_ok(&f, STORIES ".bin");
    OutModel m = model_of(&f);
    dir_make(at("full"), &e);
    put(at("full/old.safetensors"), "old", 3);
    put(at("full/old.bin"), "old", 3);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {.rlim_cur = 300000, .rlim_max = 300000};
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ASSERT(!formats_write_safetensors(at("full/old.safetensors"), &m, &e));
    ASSERT_CONTAINS(e.msg, "full/old.safetensors: cannot write: ");
    e = (Err){0};
    ASSERT(!formats_write_llama2c(at("full/old.bin"), &m, &e));
    size_t n;
    e = (Err){0};
    ASSERT_STR(file_read(&arena, at("full/old.safetensors"), &n, &e), "old");
    ASSERT_STR(file_read(&arena, at("full/old.bin"), &n, &e), "old");
    char *temp = arena_printf(&arena, &e, "%s/full/old.safetensors.tmp.%ld", test_dir(), (long)getpid());
    ASSERT(!file_exists(temp));
    m.n = 1;
    ASSERT(!formats_write_safetensors(at("none/x.safetensors"), &m, &e));
    ASSERT_CONTAINS(e.msg, "cannot create");
}

TEST(formats, read_checks_its_arguments)
{
    TensorFile f, g;
    Err e = {0};
    float x[64];
    open_ok(&f, STORIES ".bin");
    open_ok(&g, STORIES ".safetensors");
    ASSERT(!formats_read_f32(&f, NULL, x, &e));
    e = (Err){0};
    ASSERT(!formats_read_f32(&f, &f.t[0], NULL, &e));
    ASSERT_CONTAINS(e.msg, "no destination");
    e = (Err){0};
    ASSERT(!formats_read_f32(&f, &g.t[0], x, &e));
    ASSERT_CONTAINS(e.msg, "another file");
}

/* Allocation number k fails, for every k: an error comes out, nothing else. */
TEST(formats, every_allocation_fails_once)
{
    for (long k = 1; k < 2000; k++) {
        Arena a = {.name = "failing"};
        TensorFile f;
        Err e = {0};
        arena_fail_at(k);
        bool ok = formats_open(&f, STORIES ".safetensors", &a, &e);
        arena_fail_at(0);
        ASSERT_EQ(ok, e.code == ERR_OK);
        if (ok) {
            formats_close(&f);
            arena_free(&a);
            return;
        }
        ASSERT_EQ((int)e.code, (int)ERR_MEMORY);
        arena_free(&a);
    }
    test_fail(__FILE__, __LINE__, "2000 allocations were not enough");
}
