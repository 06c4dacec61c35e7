/* tests/test_lora_merge.c: adapters into files and out again: zeros that stay, codes that change, unmerge
 * only where that is exact, a fine-tune as an adapter with the error that singular values give. */
#define _GNU_SOURCE
#include "tests/lora_impl.h"
#include "tests/pare_impl.h"

#define LLAMA "tests/data/hf-tiny-llama"
#define UP "model.layers.0.mlp.up_proj"
enum { ROWS = 48, COLS = 32 };

/* The tiny model with its weights rounded to multiples of `grid` (0 = as they are), one matrix replaced. */
static const char *base_file(const char *name, double grid, const float *up)
{
    LoraBed b;
    OutModel o;
    char *path = in_dir(name);
    lora_plain(&b, LLAMA, kernels_cpu_f32());
    for (int i = 0; i < b.m.params.n; i++) {
        float *w = b.m.params.p[i]->w.data;
        const bool here = !strcmp(b.m.params.p[i]->name, UP ".weight");
        for (long q = 0; q < t_numel(&b.m.params.p[i]->w); q++) {
            if (grid > 0) w[q] = (float)(rint((double)w[q] / grid) * grid + 0.0);
            if (here && up) w[q] = up[q];
        }
    }
    ASSERT(model_out(&b.m, &o, DT_F32, &b.a, &b.e) && formats_write_h5(path, &o, &b.e));
    lora_close(&b);
    return path;
}

/* An adapter of rank r on up_proj of layer 0 with scale 1: delta = B A. a (r,COLS), b (ROWS,r). */
static const char *adapter_of(const char *base, const char *name, long r, const float *A, const float *B)
{
    LoraBed b;
    Lora l;
    Arena a = {.name = "test"};
    char *path = in_dir(name);
    const LoraConfig c = LORA_OF(&a, "target_modules=[" UP "]", text_of("r=%ld", r), text_of("alpha=%ld", r));
    lora_plain(&b, base, kernels_cpu_f32());
    ASSERT_MSG(lora_open(&l, &c, &b.m, 1, NULL, &b.e), "%s", b.e.msg);
    ASSERT_EQ(l.n, 1);
    memcpy(l.item[0].a->w.data, A, (size_t)(r * COLS) * sizeof *A);
    memcpy(l.item[0].b->w.data, B, (size_t)(ROWS * r) * sizeof *B);
    ASSERT_MSG(lora_write_peft(&l, path, &b.e), "%s", b.e.msg);
    lora_close(&b);
    arena_free(&a);
    return path;
}

static const float *tensor_at(const char *path, const char *name)
{
    static TensorFile f;
    static Arena a = {.name = "file"};
    Err e = {0};
    ASSERT_MSG(formats_open(&f, path, &a, &e), "%s", e.msg);
    const FileTensor *t = formats_find(&f, name);
    float *v = arena_alloc(&a, sizeof *v * ROWS * COLS, &e);
    ASSERT(t && formats_read_f32(&f, t, v, &e));
    return v;
}

static MergeReport merged(const char *base, const char *adapter, const char *out, bool keep_zeros)
{
    static Arena a = {.name = "merge"};
    Err e = {0};
    MergeReport r;
    const MergeOptions o = {
        .adapter = &adapter, .weight = (double[]){1}, .n_adapter = 1, .scale = 1, .keep_zeros = keep_zeros};
    ASSERT_MSG(lora_merge_file(base, out, &o, &r, &a, &e), "%s", e.msg);
    return r;
}

/* Small whole numbers and their quarters: sums without rounding. */
static void fill(float *v, long n, int step, float unit)
{
    for (long i = 0; i < n; i++) v[i] = (float)((i * step + 3) % 13 - 6) * unit;
}

TEST(lora_merge, zeros_of_the_base_stay)
{
    float up[ROWS * COLS], A[2 * COLS], B[ROWS * 2];
    fill(up, ROWS * COLS, 5, 0.25f);
    for (int i = 0; i < ROWS * COLS; i += 3) up[i] = 0;
    fill(A, 2 * COLS, 7, 1);
    fill(B, ROWS * 2, 11, 0.5f);
    const char *base = base_file("base.h5", 0, up), *ad = adapter_of(base, "ad", 2, A, B);
    for (int kept = 0; kept < 2; kept++) {
        const char *out = in_dir(kept ? "kept.h5" : "free.h5");
        merged(base, ad, out, kept);
        const float *w = tensor_at(out, UP ".weight");
        for (int i = 0; i < ROWS * COLS; i++) {
            const float d = B[i / COLS * 2] * A[i % COLS] + B[i / COLS * 2 + 1] * A[COLS + i % COLS];
            const float want = kept && up[i] == 0 ? 0 : up[i] + d; /* exact in float */
            ASSERT_MSG(!memcmp(&w[i], &want, sizeof want) || (w[i] == 0 && want == 0), "%d: %g, not %g", i,
                       (double)w[i], (double)want);
        }
    }
}

/* One entry moved by less and by more than half a step of its code: none, one, and the whole column of one
 * of 14 matrices. Rows' largest entries, and with them the scales, are untouched. */
TEST(lora_merge, fraction_of_codes_that_change)
{
    float up[ROWS * COLS], A[COLS] = {0}, B[ROWS] = {0};
    fill(up, ROWS * COLS, 5, 1);
    for (int i = 0; i < ROWS; i++) up[i * COLS] = 127; /* scale 1 */
    const char *base = base_file("base.h5", 0, up), *coded = in_dir("coded.h5");
    Pare p = PARE(.dir = test_dir(), ARGS("quantize", "base.h5", "coded.h5", "--format", "int8"));
    ASSERT_RAN(p, 0);
    double all = 0;
    TensorFile f;
    Arena a = {.name = "file"};
    Err e = {0};
    ASSERT(formats_open(&f, coded, &a, &e));
    for (int i = 0; i < f.n; i++)
        if (f.t[i].encoded) all += (double)(f.t[i].encoded->rows * f.t[i].encoded->cols);
    formats_close(&f);
    ASSERT(all > ROWS * COLS);
    (void)base;
    A[9] = 1;
    static const float size[] = {0.3f, 0.8f, 2};
    static const int changed[] = {0, 1, ROWS};
    for (int i = 0; i < 3; i++) {
        for (int r = 0; r < ROWS; r++) B[r] = r == 5 || i == 2 ? size[i] : 0;
        const char *ad = adapter_of(coded, text_of("ad%d", i), 1, A, B);
        const MergeReport r = merged(coded, ad, in_dir(text_of("out%d.h5", i)), false);
        ASSERT_EQ(r.n, 1);
        ASSERT_STR(r.row[0].name, UP ".weight");
        ASSERT_CLOSE(r.row[0].changed, (double)changed[i] / (ROWS * COLS), 1e-12, 0);
        ASSERT_CLOSE(r.changed, (double)changed[i] / all, 1e-12, 0);
        const float *w = tensor_at(in_dir(text_of("out%d.h5", i)), UP ".weight");
        ASSERT_CLOSE((double)w[5 * COLS + 9], rint((double)(up[5 * COLS + 9] + size[i])), 1e-6, 1e-6);
        /* on the command line: said, and warned of where most is lost */
        p = PARE(.dir = test_dir(), ARGS("merge", "coded.h5", text_of("ad%d", i), "cli.h5"));
        ASSERT_RAN(p, 0);
        ASSERT_CONTAINS(p.err, text_of("%.2f %% of codes changed", 100.0 * changed[i] / (ROWS * COLS)));
        ASSERT_CONTAINS(p.err, text_of("%.2f %% of all codes changed", 100.0 * changed[i] / all));
        ASSERT_CONTAINS(p.err, "is lost; keep it apart, or write --dense");
    }
    /* dense: every number of the sum, and no codes */
    p = PARE(.dir = test_dir(), ARGS("merge", "coded.h5", "ad0", "dense.h5", "--dense"));
    ASSERT_RAN(p, 0);
    const float *w = tensor_at(in_dir("dense.h5"), UP ".weight");
    ASSERT_CLOSE((double)w[5 * COLS + 9], (double)up[5 * COLS + 9] + 0.3, 1e-6, 1e-6);
    p = PARE(.dir = test_dir(), ARGS("merge", "coded.h5", "ad0", "folder"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "a Hugging Face folder holds no codes of ours");
    arena_free(&a);
}

/* Base and adapter on grids that their sum does not leave: back bit for bit. A third somewhere: refused, and
 * nothing is written. */
TEST(lora_merge, unmerge_only_where_it_is_exact)
{
    float A[2 * COLS], B[ROWS * 2];
    fill(A, 2 * COLS, 7, 1);
    fill(B, ROWS * 2, 11, 0x1p-10f);
    const char *base = base_file("base.h5", 0x1p-12, NULL);
    for (int exact = 1; exact >= 0; exact--) {
        if (!exact) B[7] = 1.0f / 3;
        const char *ad = adapter_of(base, text_of("ad%d", exact), 2, A, B), *out = in_dir("merged.h5"),
                   *back = in_dir(text_of("back%d.h5", exact));
        Arena a = {.name = "test"};
        Err e = {0};
        merged(base, ad, out, false);
        Pare p = PARE(.dir = test_dir(), ARGS("compare", "base.h5", "merged.h5", "--json"));
        ASSERT_CONTAINS(p.out, "\"equal\": false");
        const bool ok = lora_unmerge_file(out, ad, back, NULL, &a, &e);
        ASSERT_MSG(ok == exact, "%s", e.msg);
        ASSERT_EQ(exists(back), exact);
        if (exact) {
            p = PARE(.dir = test_dir(), ARGS("compare", "base.h5", "back1.h5", "--json"));
            ASSERT_RAN(p, 0);
            ASSERT(!strstr(p.out, "\"equal\": false"));
        } else {
            ASSERT_EQ((int)e.code, (int)ERR_FAIL);
            ASSERT_CONTAINS(e.msg, "is not the base bit for bit");
            ASSERT_CONTAINS(e.msg, "Nothing was written");
        }
        arena_free(&a);
    }
}

/* What cannot be subtracted says so; an adapter that knows no base needs --base. */
TEST(lora_merge, unmerge_names_what_it_needs)
{
    Pare p = PARE(.dir = repo("."), ARGS("unmerge", LLAMA, "tests/data/peft/dora", in_dir("x.h5")));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "DoRA rescales rows and cannot be subtracted; use your copy of the base");
    p = PARE(.dir = repo("."), ARGS("unmerge", LLAMA, "tests/data/peft/lora", in_dir("x.h5")));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "does not say which base it was trained on");
    ASSERT(!exists(in_dir("x.h5")));
}

/* ---- a fine-tune as an adapter ------------------------------------------------------------------------- */

/* Eigenvalues of x^T x (n,n), by Jacobi's rotations: the squares of x's singular values, largest first. */
static void squares_of(const double *x, long rows, long n, double *value)
{
    static double m[COLS][COLS];
    for (long i = 0; i < n; i++)
        for (long j = 0; j < n; j++) {
            m[i][j] = 0;
            for (long r = 0; r < rows; r++) m[i][j] += x[r * n + i] * x[r * n + j];
        }
    for (int sweep = 0; sweep < 30; sweep++)
        for (long i = 0; i < n; i++)
            for (long j = i + 1; j < n; j++) {
                if (fabs(m[i][j]) < 1e-300) continue;
                const double t = (m[j][j] - m[i][i]) / (2 * m[i][j]),
                             tan = (t >= 0 ? 1 : -1) / (fabs(t) + sqrt(t * t + 1)),
                             c = 1 / sqrt(tan * tan + 1), s = c * tan;
                for (long k = 0; k < n; k++) {
                    const double u = m[k][i], v = m[k][j];
                    m[k][i] = c * u - s * v;
                    m[k][j] = s * u + c * v;
                }
                for (long k = 0; k < n; k++) {
                    const double u = m[i][k], v = m[j][k];
                    m[i][k] = c * u - s * v;
                    m[j][k] = s * u + c * v;
                }
            }
    for (long i = 0; i < n; i++) value[i] = m[i][i];
    for (long i = 0; i < n; i++)
        for (long j = i + 1; j < n; j++)
            if (value[j] > value[i]) {
                const double t = value[i];
                value[i] = value[j];
                value[j] = t;
            }
}

/* Base, and base with up_proj + delta, extracted at rank r: its error; got: B A. */
static double extracted(const double *delta, long r, double *got)
{
    float up[ROWS * COLS];
    Arena a = {.name = "test"};
    Err e = {0};
    Lora l;
    const char *base = base_file("base.h5", 0x1p-10, NULL);
    memcpy(up, tensor_at(base, UP ".weight"), sizeof up);
    for (int i = 0; i < ROWS * COLS; i++) up[i] = (float)((double)up[i] + delta[i]);
    const char *tuned = base_file("tuned.h5", 0x1p-10, up);
    ASSERT_MSG(lora_extract_file(base, tuned, in_dir("peft"), r, &l, &a, &e), "%s", e.msg);
    ASSERT(l.n == 1 && l.n_saved == 0);
    ASSERT_CLOSE(l.item[0].scale, 1, 0, 0);
    const float *A = l.item[0].a->w.data, *B = l.item[0].b->w.data;
    for (long i = 0; i < ROWS * COLS; i++) {
        got[i] = 0;
        for (long q = 0; q < r; q++) got[i] += (double)B[i / COLS * r + q] * (double)A[q * COLS + i % COLS];
    }
    const double error = l.item[0].error;
    arena_free(&a);
    return error;
}

/* 4 u1 v1^T + 3 u2 v2^T with orthonormal sides, by hand: rank 2 gives it back, rank 1 misses 3 of 5. */
TEST(lora_merge, extract_by_hand)
{
    double d[ROWS * COLS] = {0}, got[ROWS * COLS];
    static const int row[2][2] = {{1, 7}, {4, 20}}, col[2][2] = {{0, 3}, {11, 30}};
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < 2; j++) /* (1, ±1)/sqrt 2 on both sides: halves */
                d[row[k][i] * COLS + col[k][j]] = (k ? 3 : 4) * 0.5 * (i && k ? -1 : 1);
    ASSERT_CLOSE(extracted(d, 2, got), 0, 0, 1e-6);
    for (int i = 0; i < ROWS * COLS; i++) ASSERT_CLOSE(got[i], d[i], 0, 1e-5);
    ASSERT_CLOSE(extracted(d, 1, got), 0.6, 1e-5, 0);
    for (int i = 0; i < ROWS * COLS; i++) {
        const bool first = (i / COLS == 1 || i / COLS == 7) && (i % COLS == 0 || i % COLS == 3);
        ASSERT_CLOSE(got[i], first ? 2 : 0, 0, 1e-5);
    }
}

/* A full-rank difference: error = sqrt(sum of the dropped squares / sum of all) = |d - B A| / |d|. */
TEST(lora_merge, extract_errs_by_the_tail)
{
    double d[ROWS * COLS], got[ROWS * COLS], s[COLS];
    float noise[ROWS * COLS];
    rng_normal_f32(noise, ROWS * COLS, (RngKey){.seed = 4}, 0, 0.1);
    for (int i = 0; i < ROWS * COLS; i++) d[i] = rint((double)noise[i] * 1024) / 1024;
    squares_of(d, ROWS, COLS, s);
    for (long r = 1; r <= COLS; r += r < 8 ? 3 : 12) {
        double tail = 0, all = 0, off = 0;
        for (long i = 0; i < COLS; i++) {
            all += s[i];
            tail += i >= r ? s[i] : 0;
        }
        const double error = extracted(d, r, got);
        for (int i = 0; i < ROWS * COLS; i++) off += (got[i] - d[i]) * (got[i] - d[i]);
        ASSERT_CLOSE(error, sqrt(tail / all), 1e-5, 1e-6);
        ASSERT_CLOSE(sqrt(off / all), sqrt(tail / all), 1e-5, 1e-6);
    }
}

TEST(lora_merge, extract_refuses)
{
    const char *base = base_file("base.h5", 0, NULL);
    float up[ROWS * COLS];
    (void)base;
    fill(up, ROWS * COLS, 5, 1);
    base_file("tuned.h5", 0, up);
    Pare p = PARE(.dir = test_dir(), ARGS("extract-lora", "base.h5", "tuned.h5", "ad", "--r", "33"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "--r 33: above the 48 x 32 matrix of " UP);
    ASSERT(!exists(in_dir("ad")));
    p = PARE(.dir = test_dir(), ARGS("extract-lora", "base.h5", "base.h5", "ad"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "there is nothing to extract");
    p = PARE(.dir = test_dir(), ARGS("extract-lora", "base.h5", repo("tests/data/hf-tiny-gpt2"), "ad"));
    ASSERT_RAN(p, 2);
    /* and what it prints is what it found */
    p = PARE(.dir = test_dir(), ARGS("extract-lora", "base.h5", "tuned.h5", "ad", "--r", "32", "--json"));
    ASSERT_RAN(p, 0);
    const json_t *j = json_array_get(json_object_get(one_object(p.out), "modules"), 0);
    ASSERT_STR(json_string_value(json_object_get(j, "module")), UP);
    ASSERT_CLOSE(field(j, "error"), 0, 0, 1e-5);
}

/* ---- the folder says what it holds --------------------------------------------------------------------- */

static json_t *config_of(const char *dir)
{
    json_t *j = json_load_file(in_dir(text_of("%s/config.json", dir)), 0, NULL);
    ASSERT(j != NULL);
    return kept(j);
}

/* A folder's type is its tensors', whatever the base's configuration said, or if it said nothing. */
TEST(lora_merge, folder_names_its_type)
{
    static const struct {
        const char *base, *dtype, *want;
    } c[] = {{LLAMA, NULL, "float32"},
             {LLAMA, "bfloat16", "bfloat16"},
             {LLAMA, "float16", "float16"},
             {"tests/data/hf-tiny-llama-bf16", NULL, "bfloat16"},
             {"tests/data/hf-tiny-llama-bf16", "float32", "float32"}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        char *out = in_dir(text_of("out%zu", i));
        Pare p = PARE(.dir = repo("."), ARGS("merge", c[i].base, "tests/data/peft/lora", out, "--force",
                                             c[i].dtype ? "--dtype" : NULL, c[i].dtype));
        ASSERT_RAN(p, 0);
        const json_t *j = config_of(text_of("out%zu", i));
        ASSERT_STR(json_string_value(json_object_get(j, "dtype")), c[i].want);
        TensorFile f;
        Arena a = {.name = "file"};
        Err e = {0};
        ASSERT(formats_open(&f, out, &a, &e));
        ASSERT_STR(dtype_long_name(f.t[0].dtype), c[i].want);
        formats_close(&f);
        arena_free(&a);
    }
    /* a base that says nothing: both spellings */
    size_t n;
    char *dir = make_dir("mute"), *text = get_file("tests/data/hf-tiny-llama/config.json", &n),
         *at = strstr(text, "  \"dtype\": \"float32\",\n");
    ASSERT(at != NULL);
    const size_t cut = strlen("  \"dtype\": \"float32\",\n");
    memmove(at, at + cut, strlen(at + cut) + 1);
    put_text(text_of("%s/config.json", dir), text);
    text = get_file("tests/data/hf-tiny-llama/model.safetensors", &n);
    put_file(text_of("%s/model.safetensors", dir), text, n);
    Pare p = PARE(.dir = repo("."),
                  ARGS("merge", dir, "tests/data/peft/lora", in_dir("spoken"), "--dtype", "bfloat16"));
    ASSERT_RAN(p, 0);
    const json_t *j = config_of("spoken");
    ASSERT_STR(json_string_value(json_object_get(j, "dtype")), "bfloat16");
    ASSERT_STR(json_string_value(json_object_get(j, "torch_dtype")), "bfloat16");
    p = PARE(.dir = test_dir(), ARGS("inspect", "spoken"));
    ASSERT_RAN(p, 0);
}
