/* tests/test_add_an_op.c: docs/add-an-op.md is true: its blocks are the files of tests/add_an_op/, letter
 * by letter, and those, compiled, pass every row of the check table. */
#define MORE_OPS "tests/add_an_op/ops.def"
#include "tests/golden_impl.h"
#include "tests/ops_checks_impl.h"

#define OPDEF(name, out, grad) extern const Op op_##name;
#include "tests/add_an_op/ops.def"
#undef OPDEF

/* In the page's order: our file, the file the page says it belongs in. */
static const char *const block[][2] = {{"scalar.h", "`kernels/scalar.h`"},
                                       {"kernels.def", "`kernels/kernels.def`"},
                                       {"squared_relu.c", "`kernels/squared_relu.c`"},
                                       {"op_squared_relu.c", "`autograd/op_squared_relu.c`"},
                                       {"ops.def", "`autograd/ops.def`"},
                                       {"golden.py", "`tests/golden/make_ops.py`"},
                                       {"kernel_runs.c", "`tests/test_kernels.c`"},
                                       {"kernel_cases.c", "`tests/test_kernels.c`"}};
enum { N_BLOCK = (int)(sizeof block / sizeof *block) };

TEST(add_an_op, page_is_what_is_compiled)
{
    Arena a = {.name = "test"};
    Err e = {0};
    size_t n;
    const char *page = file_read(&a, "docs/add-an-op.md", &n, &e), *at = page;
    ASSERT_OK(e);
    for (int i = 0; i < N_BLOCK; i++) {
        const char *path = arena_printf(&a, &e, "tests/add_an_op/%s", block[i][0]);
        char *text = arena_printf(&a, &e, "```%s\n%s```\n", strstr(path, ".py") ? "python" : "c",
                                  file_read(&a, path, &n, &e));
        ASSERT_OK(e);
        const char *found = strstr(at, text), *named = strstr(page, block[i][1]);
        if (!found) test_fail(__FILE__, __LINE__, "docs/add-an-op.md: no block equals %s in its turn", path);
        ASSERT(named && named < found);
        at = found + strlen(text);
    }
    int blocks = 0; /* those, the commands and the line of use: no other code stands in the page */
    for (const char *s = page; (s = strstr(s, "\n```")); s += 4) blocks++;
    ASSERT_EQ(blocks, 2 * (N_BLOCK + 2));
    arena_free(&a);
}

#define EACH(c) for (const OpCase *c = op_squared_relu.cases; c->name; c++)
TEST(add_an_op, gradcheck) { EACH(c) check_gradcheck(&op_squared_relu, c); }
TEST(add_an_op, accumulate) { EACH(c) check_accumulate(&op_squared_relu, c); }
TEST(add_an_op, poison) { EACH(c) check_poison(&op_squared_relu, c); }
TEST(add_an_op, repeat) { EACH(c) check_repeat(&op_squared_relu, c); }
TEST(add_an_op, parity)
{
    EACH(c)
    {
        check_parity(&op_squared_relu, c, kernels_ref_f32());
        check_parity(&op_squared_relu, c, kernels_cpu_f32());
    }
}

TEST(add_an_op, golden)
{
    Golden f;
    golden_open(&f, "tests/golden/add-an-op.safetensors");
    ASSERT_EQ(f.n, 4);
    for (int i = 0; i < f.n; i++) {
        golden_op(&f, f.name[i], &op_squared_relu, kernels_ref_f64());
        golden_op(&f, f.name[i], &op_squared_relu, kernels_cpu_f32());
    }
    golden_close(&f);
}

/* Recorded, planned and run: the gradient of sum (max(x W^T, 0)^2 - t)^2 / C along itself, by differences. */
static double loss_at(Graph *g)
{
    graph_step_begin(g);
    graph_micro(g);
    graph_step_end(g);
    return graph_loss_total(g);
}

TEST(add_an_op, trains_in_a_planned_graph)
{
    Arena a = {.name = "test"};
    Err e = {0};
    Params ps = {.run = &a, .k = kernels_ref_f64()};
    Param *w = params_add(&ps, "w", 2, (long[]){4, 3}, &e);
    double *v = w->w.data = arena_alloc(&a, 12 * sizeof *v, &e);
    ASSERT(params_alloc_grads(&ps, &e));
    Graph *g = graph_new(&(GraphOptions){.k = ps.k, .train = true, .run = &a}, &e);
    Tensor *x = graph_input(g, "x", DT_F64, 2, (long[]){5, 3}),
           *t = graph_input(g, "t", DT_F64, 2, (long[]){5, 4});
    Tensor *y = OP(g, squared_relu, OP(g, linear, x, graph_param(g, &w->w)));
    graph_loss(g, OP(g, mse, y, t), 1.0, "mse");
    ASSERT(graph_plan(g, &e));
    RngKey key = {.seed = 5};
    for (uint32_t i = 0; i < 20; i++) {
        if (i < 12) v[i] = rng_uniform(key, i) * 2 - 1;
        if (i < 15) ((double *)x->data)[i] = rng_uniform(key, 100 + i) * 2 - 1;
        ((double *)t->data)[i] = rng_uniform(key, 200 + i);
    }
    loss_at(g);
    double grad[12], sq = 0, h = 1e-6, side[2];
    memcpy(grad, w->w.grad, sizeof grad);
    for (int i = 0; i < 12; i++) sq += grad[i] * grad[i];
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < 12; i++) v[i] += (s ? -2 : 1) * h * grad[i];
        side[s] = loss_at(g);
    }
    ASSERT(sq > 1e-3);
    ASSERT_CLOSE((side[0] - side[1]) / (2 * h), sq, 1e-7, 0);
    graph_free(g);
    arena_free(&a);
}
