/* tests/test_delta.c: delta artefacts: there and back is byte-exact, the wrong base and damage are
 * refused. */
#define _GNU_SOURCE
#include "compress/compress.h"
#include "tests/pare_impl.h"

enum { ROWS = 24, COLS = 40 };

static void write_model(const char *path, uint64_t seed, float share, DType type)
{
    static float w[2][ROWS * COLS];
    OutTensor t[3];
    Err e = {0};
    for (int i = 0; i < 2; i++) {
        rng_normal_f32(w[i], ROWS * COLS, (RngKey){.seed = 1, .stream = (uint32_t)i}, 0, 1);
        for (int k = 0; k < ROWS * COLS; k++) {
            const RngKey key = {.seed = seed, .stream = 9 + (uint32_t)i};
            if (seed && rng_uniform(key, (uint32_t)k) < share) w[i][k] = -w[i][k];
            if (type == DT_BF16) w[i][k] = f32_from_bf16(bf16_from_f32(w[i][k]));
        }
        t[i] = (OutTensor){
            .name = i ? "b.weight" : "a.weight", .ndim = 2, .dim = {ROWS, COLS}, .src = w[i], .dtype = type};
    }
    t[2] = (OutTensor){.name = "tie", .tied_to = "a.weight", .ndim = 2, .dim = {ROWS, COLS}, .dtype = type};
    const OutModel m = {.n = formats_is_h5(path) ? 3 : 2, .t = t};
    ASSERT(formats_is_h5(path) ? formats_write_h5(path, &m, &e) : formats_write_safetensors(path, &m, &e));
    ASSERT_OK(e);
}

static void same_file(const char *a, const char *b)
{
    size_t na, nb;
    char *x = get_file(a, &na), *y = get_file(b, &nb);
    ASSERT_MSG(x && y && na == nb && !memcmp(x, y, na), "%s and %s differ", a, b);
}

static void there_and_back(const char *suffix, float share, DType type)
{
    DeltaReport r;
    Err e = {0};
    char *base = in_dir(text_of("base%s", suffix)), *tuned = in_dir(text_of("tuned%s", suffix)),
         *d = in_dir("d.h5"), *there = in_dir(text_of("there%s", suffix)),
         *back = in_dir(text_of("back%s", suffix));
    write_model(base, 0, 0, type);
    write_model(tuned, 5, share, type);
    ASSERT(delta_make(base, tuned, d, &r, &e));
    ASSERT_OK(e);
    ASSERT_EQ(r.tensors, 2);
    ASSERT(delta_verify(d, NULL, &r, &e) && delta_verify(d, base, &r, &e));
    ASSERT(delta_apply(base, d, there, &r, &e));
    same_file(there, tuned);
    ASSERT(delta_revert(there, d, back, &r, &e));
    same_file(back, base);
    ASSERT_OK(e);
}

TEST(delta, there_and_back)
{
    static const float share[] = {0, 0.01f, 0.3f, 1};
    for (int i = 0; i < 4; i++) {
        there_and_back(".h5", share[i], DT_F32);
        there_and_back(".safetensors", share[i], DT_F32);
        there_and_back(".h5", share[i], DT_BF16);
    }
}

TEST(delta, few_changes_make_a_small_file)
{
    DeltaReport few, all;
    Err e = {0};
    char *base = in_dir("base.h5"), *tuned = in_dir("tuned.h5");
    write_model(base, 0, 0, DT_F32);
    write_model(tuned, 5, 0.01f, DT_F32);
    ASSERT(delta_make(base, tuned, in_dir("few.h5"), &few, &e));
    write_model(tuned, 5, 1, DT_F32);
    ASSERT(delta_make(base, tuned, in_dir("all.h5"), &all, &e));
    ASSERT(few.changed_values > 0 && few.changed_values < 60 && all.changed_values == 2 * ROWS * COLS);
    ASSERT(few.bytes < all.bytes - 2 * ROWS * COLS * 3);
}

TEST(delta, refuses)
{
    DeltaReport r;
    Err e = {0};
    char *base = in_dir("base.h5"), *tuned = in_dir("tuned.h5"), *d = in_dir("d.h5"), *out = in_dir("out.h5");
    write_model(base, 0, 0, DT_F32);
    write_model(tuned, 5, 0.5f, DT_F32);
    ASSERT(delta_make(base, tuned, d, &r, &e));
    ASSERT(!delta_apply(tuned, d, out, &r, &e) && e.code == ERR_USAGE);
    ASSERT_CONTAINS(e.msg, "is not the base of");
    e = (Err){0};
    ASSERT(!delta_revert(base, d, out, &r, &e) && e.code == ERR_USAGE);
    ASSERT_CONTAINS(e.msg, "is not the tuned model of");
    e = (Err){0};
    ASSERT(!delta_verify(base, NULL, &r, &e) && !exists(out));
    ASSERT_CONTAINS(e.msg, "not a delta");
    e = (Err){0};
    ASSERT(!delta_make(base, "tests/data/stories/stories260K.bin", out, &r, &e) && e.code == ERR_USAGE);
    size_t n;
    char *s = get_file(d, &n);
    s[n / 2] ^= 1;
    put_file(d, s, n);
    e = (Err){0};
    ASSERT(!delta_verify(d, NULL, &r, &e) && e.code == ERR_CORRUPT);
    e = (Err){0};
    ASSERT(!delta_apply(base, d, out, &r, &e) && e.code == ERR_CORRUPT && !exists(out));
}

/* A state with quantisers: applied, it reads as the model that was trained; reverted, it is the base
 * again. */
TEST(delta, training_state)
{
    char *d = tiny_dir("t");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "eval.perplexity.enabled=false"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("import", "run", "base.h5"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("train", "c.yaml", "~model.init", "model.path=base.h5", "qat.enabled=true",
                            "qat.weight=nvfp4", "run.output_dir=tuned", "run.recipe=finetune"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("delta", "make", "base.h5", "tuned", "d.h5"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "masks, scales or adapters beside them");
    p = PARE(.dir = d, ARGS("delta", "apply", "base.h5", "d.h5", "there.safetensors"));
    ASSERT_RAN(p, 2);
    p = PARE(.dir = d, ARGS("delta", "apply", "base.h5", "d.h5", "there.h5"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("compare", "there.h5", "tuned/checkpoints/step_00000012.h5", "--json"));
    ASSERT_RAN(p, 0);
    ASSERT(!strstr(p.out, "\"equal\": false"));
    p = PARE(.dir = d, ARGS("compare", "there.h5", "base.h5", "--json"));
    ASSERT(strstr(p.out, "\"equal\": false"));
    p = PARE(.dir = d, ARGS("delta", "revert", "there.h5", "d.h5", "back.h5"));
    ASSERT_RAN(p, 0);
    same_file(text_of("%s/base.h5", d), text_of("%s/back.h5", d));
}
