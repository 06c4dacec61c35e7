/* tests/test_ops.c: every op of ops.def through every row of the check table (architecture, Tests). */
#include "tests/ops_checks_impl.h"

TEST(ops, gradcheck) { EACH_CASE(op, c) check_gradcheck(op, c); }
TEST(ops, accumulate) { EACH_CASE(op, c) check_accumulate(op, c); }
TEST(ops, poison) { EACH_CASE(op, c) check_poison(op, c); }

TEST(ops, parity)
{
    const Kernels *table[] = {kernels_ref_f32(), kernels_isa_f32(ISA_AVX2, "builtin"),
                              kernels_isa_f32(ISA_AVX512, "builtin"), kernels_cpu_f32()};
    for (size_t t = 0; t < sizeof table / sizeof *table; t++) {
        if (!table[t]) continue;
        EACH_CASE(op, c) check_parity(op, c, table[t]);
    }
}

TEST(ops, repeat) { EACH_CASE(op, c) check_repeat(op, c); }

/* A harness that cannot fail proves nothing: an op with a flipped sign, a lying `saves` and `=` for `+=` must
 * turn red. */
static void wrong_sign(const Node *n, const Kernels *k)
{
    k->scale(n->in[0]->grad, -1.0, n->out->grad, t_numel(n->out), ADD);
}
static void right_forward(const Node *n, const Kernels *k)
{
    k->scale(n->out->data, 1.0, n->in[0]->data, t_numel(n->out), SET);
}
static bool same_shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}
static const OpCase one_case[] = {{"x", NULL, {{'r', 1, {5}, 0}}}, {NULL, NULL, {{0, 0, {0}, 0}}}};

TEST(ops, harness_sees_a_flipped_sign)
{
    Op bad = {.name = "bad",
              .n_in = 1,
              .shape = same_shape,
              .forward = right_forward,
              .backward = wrong_sign,
              .cases = one_case};
    Bench b;
    bench_open(&b, &bad, one_case, kernels_ref_f64());
    bench_forward(&b);
    bench_backward(&b);
    double want = dot_v(&b), h = 1e-5;
    shift(&b, h);
    double up = bench_scalar(&b);
    shift(&b, -2 * h);
    double have = (up - bench_scalar(&b)) / (2 * h);
    ASSERT(fabs(want - have) > 1e-3);
    bench_close(&b);
}
