/* tests/test_plan_ops.c: the planner on small graphs: what `saves` keeps alive and nothing else,
 * weight-phase nodes once a step, and random graphs against the same graphs with memory of its own for
 * every tensor. */
#include "tests/ops_impl.h"
#include "tests/plan_impl.h"

/* ---- liveness follows `saves` ---- */
static int copies, copies_back;
static bool same_shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}
static void copy_forward(const Node *n, const Kernels *k)
{
    copies++;
    k->scale(n->out->data, 1.0, n->in[0]->data, t_numel(n->out), SET);
}
static void copy_backward(const Node *n, const Kernels *k)
{
    copies_back++;
    if (n->in[0]->grad) k->scale(n->in[0]->grad, 1.0, n->out->grad, t_numel(n->out), grad_mode(n, 0));
}
static const Op op_plain = {
    .name = "plain", .n_in = 1, .shape = same_shape, .forward = copy_forward, .backward = copy_backward};
static const Op op_saves_in = {.name = "saves_in",
                               .n_in = 1,
                               .shape = same_shape,
                               .forward = copy_forward,
                               .backward = copy_backward,
                               .saves = SAVE_IN(0)};
static const Op op_saves_out = {.name = "saves_out",
                                .n_in = 1,
                                .shape = same_shape,
                                .forward = copy_forward,
                                .backward = copy_backward,
                                .saves = SAVE_OUT};

typedef struct Small {
    Arena a;
    Err e;
    Params ps;
    Graph *g;
} Small;

static void small_open(Small *s, const Kernels *k, bool recompute, bool keep_all)
{
    *s = (Small){.a = {.name = "small"}};
    s->ps = (Params){.run = &s->a, .k = k};
    s->g = graph_new(
        &(GraphOptions){.k = k, .train = true, .run = &s->a, .recompute = recompute, .keep_all = keep_all},
        &s->e);
}
static void small_close(Small *s)
{
    graph_free(s->g);
    arena_free(&s->a);
}
static Tensor *leaf(Small *s, const char *name, int ndim, const long *dim, uint64_t seed)
{
    Param *p = params_add(&s->ps, name, ndim, dim, &s->e);
    ASSERT(p != NULL);
    p->w.data = arena_alloc(&s->a, (size_t)t_numel(&p->w) * s->ps.k->real, &s->e);
    p->w.grad = arena_alloc(&s->a, (size_t)t_numel(&p->w) * s->ps.k->real, &s->e);
    for (long i = 0; i < t_numel(&p->w); i++)
        real_put(p->w.data, i,
                 rng_uniform((RngKey){.seed = seed, .stream = rng_stream(name)}, (uint32_t)i) * 2 - 1,
                 s->ps.k);
    return graph_param(s->g, &p->w);
}
static Tensor *input(Small *s, const char *name, long rows, long width, uint64_t seed)
{
    Tensor *t = graph_input(s->g, name, DT_F64, 2, (long[]){rows, width});
    for (long i = 0; i < t_numel(t); i++)
        real_put(t->data, i,
                 rng_uniform((RngKey){.seed = seed, .stream = rng_stream(name)}, (uint32_t)i) * 2 - 1,
                 s->ps.k);
    return t;
}

/* A chain of n nodes of one op; step bytes of its plan, and of the middle tensor where it dies. */
static size_t chain(const Op *op, int n, int *dies, int *entries)
{
    Small s;
    small_open(&s, kernels_ref_f64(), false, false);
    Tensor *x = OP(s.g, linear, input(&s, "x", 8, 16, 1), leaf(&s, "w", 2, (long[]){16, 16}, 1));
    for (int i = 0; i < n; i++) x = graph_tap(s.g, graph_record(s.g, op, NULL, 1, &x), "x%d", i);
    graph_loss(s.g, OP(s.g, mse, x, input(&s, "t", 8, 16, 2)), 1.0, "mse");
    ASSERT(graph_plan(s.g, &s.e));
    plan_check_buffers(s.g);
    plan_replay(s.g);
    size_t bytes = graph_step_bytes(s.g);
    *entries = s.g->micro.n;
    for (int i = 0; i < s.g->n_buffer; i++)
        if (!strcmp(s.g->buffer[i].name, "x2") && !strcmp(s.g->buffer[i].what, "activation"))
            *dies = s.g->buffer[i].to;
    small_close(&s);
    return bytes;
}

/* linear 0, x0..x(n-1) 1..n, then the loss at n+1 and backward of x(n-1) at n+2, ..., of x0 at 2n+1. */
TEST(plan_ops, saves_decide_how_long_a_tensor_lives)
{
    int dies = -1, entries;
    size_t short_chain = chain(&op_plain, 6, &dies, &entries);
    ASSERT_EQ(entries, 2 * 6 + 3);
    ASSERT_EQ(dies, 4); /* read by x3's forward, by nobody's backward */
    ASSERT_EQ(chain(&op_plain, 12, &dies, &entries), short_chain);
    size_t six = chain(&op_saves_in, 6, &dies, &entries);
    ASSERT_EQ(dies, 8 + 2); /* x3's backward: loss 7, x5 8, x4 9, x3 10 */
    chain(&op_saves_out, 6, &dies, &entries);
    ASSERT_EQ(dies, 8 + 3); /* its own backward */
    ASSERT_EQ(chain(&op_saves_in, 12, &dies, &entries) - six, (size_t)(6 * 8 * 16) * sizeof(double));
}

/* ---- weight phase ---- */
TEST(plan_ops, weight_nodes_run_once_a_step)
{
    Small s[2];
    for (int i = 0; i < 2; i++) { /* the second by hand: W used as it is, no weight node */
        small_open(&s[i], kernels_ref_f64(), false, false);
        Tensor *w = leaf(&s[i], "w", 2, (long[]){6, 5}, 1), *x = input(&s[i], "x", 4, 5, 1);
        if (!i) w = graph_record(s[i].g, &op_plain, NULL, 1, (Tensor *[]){OP(s[i].g, mul, w, w)});
        else w = OP(s[i].g, mul, w, w);
        graph_loss(s[i].g, OP(s[i].g, mse, OP(s[i].g, linear, x, w), input(&s[i], "t", 4, 6, 2)), 1.0, "mse");
        ASSERT(graph_plan(s[i].g, &s[i].e));
        ASSERT_EQ(s[i].g->weight_fwd.n, i ? 1 : 2);
        ASSERT_EQ(s[i].g->weight_bwd.n, i ? 1 : 2);
        ASSERT_EQ(s[i].g->micro.n, 3); /* linear, loss, linear's backward */
        for (int step = 0; step < 2; step++) {
            copies = copies_back = 0;
            graph_step_begin(s[i].g);
            for (int m = 0; m < 3; m++) {
                plan_poison(s[i].g);
                graph_micro(s[i].g);
            }
            graph_step_end(s[i].g);
            ASSERT_EQ(copies, i ? 0 : 1);
            ASSERT_EQ(copies_back, i ? 0 : 1);
        }
    }
    const Tensor *a = &s[0].ps.p[0]->w, *b = &s[1].ps.p[0]->w;
    ASSERT_BYTES(a->grad, b->grad, 30 * sizeof(double));
    double three = ((double *)a->grad)[7];
    graph_step_begin(s[0].g); /* one micro-batch: a third of it, and no trace of the step before */
    graph_micro(s[0].g);
    graph_step_end(s[0].g);
    ASSERT_CLOSE(((double *)a->grad)[7], three / 3, 1e-14, 0);
    small_close(&s[0]);
    small_close(&s[1]);
}

/* ---- random graphs ---- */
enum { ROWS = 4, WIDTH = 6, MAX_T = 40 };
typedef struct Dice {
    uint64_t seed;
    uint32_t n;
} Dice;
static int roll(Dice *d, int sides)
{
    return (int)(rng_u32((RngKey){.seed = d->seed, .stream = 99}, d->n++) % (uint32_t)sides);
}

static Tensor *random_node(Small *s, Dice *d, Tensor **t, int n, Tensor **w, int n_w)
{
    static const GeluAttr gelu = {true};
    static const AxpyAttr axpy = {0.7};
    static const NormAttr norm = {1e-5};
    DropoutAttr drop = {0.25, (uint32_t)n};
    int far = roll(d, 3) ? n - 1 : roll(d, n);
    Tensor *a = t[far], *b = t[roll(d, n)];
    switch (roll(d, 10)) {
    case 0: return OP_ATTR(s->g, gelu, gelu, a);
    case 1: return OP(s->g, add, a, b);
    case 2: return OP_ATTR(s->g, axpy, axpy, a, b);
    case 3: return OP(s->g, mul, a, b);
    case 4: return OP_ATTR(s->g, rmsnorm, norm, a, NULL);
    case 5: return OP_ATTR(s->g, layernorm, norm, a, NULL, NULL);
    case 6: return OP_ATTR(s->g, dropout, drop, a);
    case 7: return OP(s->g, swiglu, a, b);
    case 8: return OP(s->g, add, b, a);
    default: return OP(s->g, linear, a, w[roll(d, n_w)]);
    }
}

/* The same graph for the same seed: blocks of a few nodes, effective weights, one to three losses, some
 * tensors kept. */
static void random_graph(Small *s, uint64_t seed, bool recompute, bool keep_all)
{
    Dice d = {.seed = seed};
    Tensor *t[MAX_T], *w[4];
    small_open(s, seed % 2 ? kernels_ref_f64() : kernels_cpu_f32(), recompute, keep_all);
    for (int i = 0; i < 3; i++)
        w[i] = leaf(s, (const char *[]){"w0", "w1", "w2"}[i], 2, (long[]){WIDTH, WIDTH}, seed);
    w[3] = OP(s->g, mul, w[0], w[1]);
    t[0] = OP(s->g, linear, input(s, "x", ROWS, WIDTH, seed), w[2]);
    int n = 1, blocks = 1 + roll(&d, 4);
    for (int b = 0; b < blocks; b++) {
        int nodes = 1 + roll(&d, 8);
        graph_segment(s->g, roll(&d, 4) ? b : -1);
        for (int i = 0; i < nodes; i++, n++) t[n] = random_node(s, &d, t, n, w, 4);
    }
    graph_segment(s->g, -1);
    Tensor *y = input(s, "y", ROWS, WIDTH, seed);
    graph_loss(s->g, OP(s->g, mse, t[n - 1], y), 0.5, "mse");
    if (roll(&d, 2)) graph_loss(s->g, OP(s->g, cosine, t[roll(&d, n)], y), 2.0, "cosine");
    if (roll(&d, 3) == 0) graph_loss(s->g, OP(s->g, mse, t[n - 1], t[roll(&d, n)]), 1.0, "between");
    if (roll(&d, 3) == 0) graph_keep(s->g, t[roll(&d, n)]);
    graph_plan(s->g, &s->e);
    ASSERT_OK(s->e);
    *graph_state(s->g) = (RunState){.seed = seed, .step = 1};
}

static void random_step(Small *s)
{
    graph_step_begin(s->g);
    for (uint32_t m = 0; m < 2; m++) {
        if (!s->g->opt.keep_all) plan_poison(s->g);
        graph_state(s->g)->sample0 = m * ROWS;
        graph_micro(s->g);
    }
    graph_step_end(s->g);
}

TEST(plan_ops, random_graphs_equal_those_with_memory_of_their_own)
{
    int smaller = 0, again = 0;
    for (uint64_t seed = 1; seed <= 250; seed++) {
        Small s[3];
        for (int i = 0; i < 3; i++) {
            random_graph(&s[i], seed, i == 1, i == 2);
            if (i < 2) {
                plan_check_buffers(s[i].g);
                plan_replay(s[i].g);
            }
            random_step(&s[i]);
        }
        for (int i = 0; i < 2; i++) {
            for (int p = 0; p < 3; p++) {
                const Tensor *a = &s[i].ps.p[p]->w, *b = &s[2].ps.p[p]->w;
                if (memcmp(a->grad, b->grad, (size_t)t_numel(a) * s[i].ps.k->real))
                    test_fail(__FILE__, __LINE__, "seed %d, %s: the gradient of %s has other bits", (int)seed,
                              i ? "recomputed" : "planned", a->name);
            }
            ASSERT_EQ(graph_loss_total(s[i].g), graph_loss_total(s[2].g));
            for (int j = 0; j < s[i].g->n_node; j++) {
                const Tensor *a = s[i].g->node[j]->out, *b = s[2].g->node[j]->out;
                if (a->flags & T_KEEP) ASSERT_BYTES(a->data, b->data, (size_t)t_numel(a) * s[i].ps.k->real);
            }
        }
        for (int j = 0; j < s[1].g->micro.n; j++) again += s[1].g->micro.s[j].act == ACT_AGAIN;
        smaller += graph_step_bytes(s[0].g) < graph_step_bytes(s[2].g);
        for (int i = 0; i < 3; i++) small_close(&s[i]);
    }
    ASSERT_MSG(smaller == 250 && again > 400, "%d graphs smaller, %d entries run again", smaller, again);
}
