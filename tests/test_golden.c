/* tests/test_golden.c: every op against PyTorch (tests/golden/make_ops.py): forward, gradients, statistics,
 * on every table of kernels this CPU can run. */
#include "tests/golden_impl.h"

static const char *const ops_file = "tests/golden/ops.safetensors";
static const char *const kd_file = "tests/golden/kd.safetensors"; /* make_kd.py: distillation */
enum { MAX_TABLE = 16 };

/* The references, and each instruction set with each GEMM library there is. */
static int all_tables(const Kernels **t)
{
    static const char *const blas[] = {"builtin", "dnnl", "openblas"};
    int n = 0;
    t[n++] = kernels_ref_f64();
    t[n++] = kernels_ref_f32();
    for (int isa = ISA_PORTABLE; isa <= (int)cpu_isa(); isa++)
        for (int b = 0; b < 3; b++) {
            const Kernels *k = kernels_isa_f32(isa, blas[b]);
            if (k) t[n++] = k;
        }
    t[n++] = kernels_cpu_f32();
    return n;
}

static const Op *op_of(const char *name)
{
    for (int i = 0; i < n_all_ops; i++)
        if (golden_is(name, all_ops[i]->name)) return all_ops[i];
    return NULL;
}

/* Cases that are no op's: optimizers and schedules (test_optim.c). */
static bool not_an_op(const char *name)
{
    return golden_is(name, "adamw") || golden_is(name, "sgd") || golden_is(name, "schedule");
}

/* Every case of a file; those an op cannot be asked are counted in *past_op. */
static int all_cases(const char *path, int *past_op)
{
    Golden f;
    golden_open(&f, path);
    const Kernels *table[MAX_TABLE];
    int n_table = all_tables(table), done = 0;
    for (int i = 0; i < f.n; i++) {
        if (not_an_op(f.name[i])) continue;
        const Op *op = op_of(f.name[i]);
        if (!op) test_fail(__FILE__, __LINE__, "%s: no op of that name in ops.def", f.name[i]);
        bool can = true;
        for (int t = 0; t < n_table; t++) can = golden_op(&f, f.name[i], op, table[t]);
        done += can;
        *past_op += !can;
    }
    golden_close(&f);
    return done;
}

TEST(golden, every_case_on_every_table)
{
    int past_op = 0;
    ASSERT(all_cases(ops_file, &past_op) >= 90);
    ASSERT_EQ(past_op, 3); /* attention.masked_row, masked_window, everything: below, on the kernel */
}

TEST(golden, every_distillation_case_on_every_table)
{
    int past_op = 0;
    ASSERT(all_cases(kd_file, &past_op) >= 60);
    ASSERT_EQ(past_op, 0);
}

TEST(golden, every_op_has_a_case)
{
    Golden f, kd;
    golden_open(&f, ops_file);
    golden_open(&kd, kd_file);
    for (int i = 0; i < n_all_ops; i++) {
        int n = 0;
        for (int j = 0; j < f.n; j++) n += golden_is(f.name[j], all_ops[i]->name);
        for (int j = 0; j < kd.n; j++) n += golden_is(kd.name[j], all_ops[i]->name);
        if (!n) test_fail(__FILE__, __LINE__, "%s: no case in tests/golden/make_ops.py", all_ops[i]->name);
    }
    golden_close(&f);
    golden_close(&kd);
}

/* The attention kernel itself: any segments, any offset, rows that see no key; and the log-sum-exp it
 * leaves. */
static void attention_kernel(const Golden *f, const char *name, const Kernels *k)
{
    static const char *const in[] = {"in0", "in1", "in2"}, *const grad[] = {"grad0", "grad1", "grad2"};
    Bench b = {.a = {.name = "bench"}, .k = k};
    json_t *at = golden_attr(f, name);
    const GoldenOp spec = golden_spec(&op_attention, name);
    const FileTensor *q = golden_find(f, name, "in0"), *kv = golden_find(f, name, "in1");
    const FileTensor *sq = golden_find(f, name, "in3"), *skv = golden_find(f, name, "in4");
    long B = (long)q->dim[0], Tq = (long)q->dim[1], H = (long)q->dim[2], D = (long)q->dim[3];
    long n[4] = {golden_numel(q), golden_numel(kv), golden_numel(kv), golden_numel(q)};
    void *x[4], *dx[3], *o = arena_alloc(&b.a, (size_t)n[0] * k->real, &b.e);
    for (int i = 0; i < 4; i++) {
        const double *v = golden_f64(f, name, i < 3 ? in[i] : "dout", n[i]);
        x[i] = arena_alloc(&b.a, (size_t)n[i] * k->real, &b.e);
        for (long j = 0; j < n[i]; j++) real_put(x[i], j, v[j], k);
        if (i < 3) dx[i] = arena_alloc(&b.a, (size_t)n[i] * k->real, &b.e);
    }
    void *lse = arena_alloc(&b.a, (size_t)(B * H * Tq) * k->real, &b.e);
    void *delta = arena_alloc(&b.a, (size_t)(B * H * Tq) * k->real, &b.e);
    AttnShape s = {.B = B, .Tq = Tq, .Tkv = (long)kv->dim[1], .H = H, .Hkv = (long)kv->dim[2], .D = D};
    s.q_stride = s.o_stride = H * D;
    s.k_stride = s.v_stride = s.Hkv * D;
    s.scale = num(at, "scale");
    s.softcap = num(at, "softcap");
    s.q_offset = (long)num(at, "q_offset");
    s.window = (long)num(at, "window");
    s.causal = num(at, "causal") > 0;
    s.seg_q = sq ? (const int32_t *)(const void *)sq->data : NULL;
    s.seg_kv = skv ? (const int32_t *)(const void *)skv->data : NULL;
    k->attention_fwd(o, lse, x[0], x[1], x[2], &s);
    golden_close_to(&b, name, "kernel's out", o, golden_f64(f, name, "out", n[0]), n[0], spec.out);
    const double *want = golden_f64(f, name, "lse", B * H * Tq);
    for (long i = 0; i < B * H * Tq; i++) {
        double have = real_get(lse, i, k), tol = k->real == sizeof(double) ? 1e-12 : 1e-6;
        if (isinf(want[i])) ASSERT(isinf(have) && have < 0);
        else ASSERT_CLOSE(have, want[i], tol, 4 * tol);
    }
    k->attention_bwd(dx[0], dx[1], dx[2], x[3], o, lse, x[0], x[1], x[2], delta, &s, SET, SET, SET);
    for (int i = 0; i < 3; i++)
        golden_close_to(&b, name, grad[i], dx[i], golden_f64(f, name, grad[i], n[i]), n[i], spec.grad);
    json_decref(at);
    arena_free(&b.a);
}

TEST(golden, attention_kernel_on_every_table)
{
    Golden f;
    golden_open(&f, ops_file);
    const Kernels *table[MAX_TABLE];
    int n_table = all_tables(table), done = 0;
    for (int i = 0; i < f.n; i++) {
        if (!golden_is(f.name[i], "attention")) continue;
        for (int t = 0; t < n_table; t++) attention_kernel(&f, f.name[i], table[t]);
        done++;
    }
    ASSERT(done >= 20);
    golden_close(&f);
}
