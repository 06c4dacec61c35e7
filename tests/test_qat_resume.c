/* tests/test_qat_resume.c: quantisation-aware training that goes on at step 6 of 12 ends with the bits of
 * a run that nothing disturbed: weights, moments, scales, histories, learned steps. Places of errors. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

#define AT(step) text_of("run/checkpoints/step_%08d.h5", step)

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }

static Pare train(const char *dir, const char *const *more)
{
    const char *args[32] = {"train", "c.yaml", "checkpoint.keep_last=9"};
    for (int i = 0; more[i]; i++) args[i + 3] = more[i];
    return pare_run(&(PareOptions){.dir = dir, .args = args});
}

static void copy(const char *from, const char *to)
{
    size_t n;
    char *s = get_file(from, &n);
    ASSERT_MSG(s != NULL, "%s is missing", from);
    put_file(to, s, n);
    free(s);
}

/* What the quantisers remember in two states, bit for bit. Returns how many tensors of the name `part`
 * there were. */
static int same_quantisers(const char *path_a, const char *path_b, const char *part)
{
    static const char *const parts[] = {"scale", "zero", "amax_history", "step_size"};
    Arena a = {.name = "state"};
    Err e = {0};
    H5In *x = h5_open(path_a, false, &a, &e), *y = h5_open(path_b, false, &a, &e);
    ASSERT_OK(e);
    const char *name[128], *other[128];
    int found = 0, n = h5_list(x, "/qat", name, 128);
    ASSERT(n > 0);
    ASSERT_EQ(h5_list(y, "/qat", other, 128), n);
    for (int i = 0; i < n; i++) {
        char *at = text_of("/qat/%s", name[i]);
        int64_t v[2] = {0}, w[2] = {0};
        h5_get_i64(x, at, "keep", &v[0], &e);
        h5_get_i64(x, at, "seen", &v[1], &e);
        h5_get_i64(y, at, "keep", &w[0], &e);
        h5_get_i64(y, at, "seen", &w[1], &e);
        ASSERT_OK(e);
        ASSERT_MSG(v[0] == w[0] && v[1] == w[1], "%s: keep %lld %lld, seen %lld %lld", at, (long long)v[0],
                   (long long)w[0], (long long)v[1], (long long)w[1]);
        for (int j = 0; j < 4; j++) {
            char *tensor = text_of("%s/%s", at, parts[j]);
            if (!h5_has(x, tensor)) continue;
            DType t;
            int nd;
            int64_t d[4] = {1, 1, 1, 1};
            ASSERT(h5_tensor_info(x, tensor, &t, &nd, d, &e));
            size_t bytes = dtype_size(t) * (size_t)(d[0] * (nd > 1 ? d[1] : 1) * (nd > 2 ? d[2] : 1));
            void *p = arena_alloc(&a, bytes, &e), *q = arena_alloc(&a, bytes, &e);
            ASSERT(h5_read_tensor(x, tensor, t, p, bytes, &e) && h5_read_tensor(y, tensor, t, q, bytes, &e));
            ASSERT_MSG(!memcmp(p, q, bytes), "%s differs between %s and %s", tensor, path_a, path_b);
            found += !strcmp(parts[j], part);
        }
    }
    h5_close(x);
    h5_close(y);
    arena_free(&a);
    return found;
}

static void six_of_twelve(const char *part, int at_least, const char *const *more)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = train(a, more);
    ASSERT_RAN(p, 0);
    ASSERT(!mkdir(in(b, "run"), 0700) && !mkdir(in(b, "run/checkpoints"), 0700));
    copy(in(a, AT(6)), in(b, AT(6)));
    copy(in(a, "run/metrics.jsonl"), in(b, "run/metrics.jsonl"));
    p = train(b, more);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "resuming at step 6 from");
    same_state(in(a, AT(12)), in(b, AT(12)));
    int have = same_quantisers(in(a, AT(12)), in(b, AT(12)), part);
    ASSERT_MSG(have >= at_least, "%d tensors %s in the state, %d at least", have, part, at_least);
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "train"), events(in(a, "run/metrics.jsonl"), "train"));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "eval"), events(in(a, "run/metrics.jsonl"), "eval"));
}

TEST(qat_resume, delayed_int8_weights_and_inputs)
{
    six_of_twelve("amax_history", 14,
                  (const char *const[]){"qat.enabled=true", "qat.weight=int8", "qat.activation=int8",
                                        "qat.granularity=tensor", "qat.scale_update=delayed",
                                        "qat.amax_history=4", "qat.start_step=2", NULL});
}

TEST(qat_resume, learned_int8_weights_and_inputs)
{
    six_of_twelve("step_size", 14,
                  (const char *const[]){"qat.enabled=true", "qat.weight=int8", "qat.activation=int8",
                                        "qat.granularity=tensor", "qat.scale_update=learned",
                                        "train.gradient_accumulation_steps=2", NULL});
}

TEST(qat_resume, frozen_scales)
{
    six_of_twelve("scale", 14,
                  (const char *const[]){"qat.enabled=true", "qat.weight=int4", "qat.symmetric=false",
                                        "qat.grad=fp8_e5m2", "qat.freeze_scale_step=4", NULL});
}

/* A value is refused where it stands, not at the head of its section. */
TEST(qat_resume, errors_at_the_value)
{
    static const struct {
        const char *text, *place, *what;
    } bad[] = {
        {"  weight: nvfp4\n  scale_update: delayed\n", "q.yaml:5:", "delayed needs"},
        {"  granularity: block\n  weight: int8\n", "q.yaml:4:", "block is of fp8 formats"},
        {"  ste: lsq\n", "q.yaml:4:", "belong together"},
        {"  weight: nvfp4\n  group_size: 24\n", "q.yaml:5:", "nvfp4 has blocks of 16"},
        {"  weight: int8\n  scale_update: learned\n  rounding: stochastic\n",
         "q.yaml:6:", "stochastic with scale_update: learned"},
        {"  activation: int8\n  scale_update: delayed\n  granularity: token\n",
         "q.yaml:6:", "stand over batches"},
        {"  rules:\n    - match: '*down_proj*'\n      weight: int4\n      granularity: block\n",
         "q.yaml:7:", "block is of fp8 formats"},
        {"  rules:\n    - match: '*down_proj*'\n      weight: mxfp4\n  scale_update: delayed\n",
         "q.yaml:7:", "delayed needs"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char *d = tiny_dir(text_of("d%zu", i)),
             *text = text_of("include: [c.yaml]\nqat:\n  enabled: true\n%s", bad[i].text);
        put_file(in(d, "q.yaml"), text, strlen(text));
        Pare p = PARE(.dir = d, ARGS("train", "q.yaml"));
        ASSERT_RAN(p, 2);
        ASSERT_CONTAINS(p.err, bad[i].place);
        ASSERT_CONTAINS(p.err, bad[i].what);
    }
}
