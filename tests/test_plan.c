/* tests/test_plan.c: the planner on whole models: what it prints is what is used, nothing is allocated
 * while training, a teacher is dead before its student starts, no logits of a whole batch, out of memory
 * before the first step. */
#include "model/model.h"
#include "optim/optim.h"
#include "tests/plan_impl.h"
#include "train/train.h"
#include <stdio.h>

enum { B = 2, T = 16 };
typedef struct Net {
    Arena a;
    Err e;
    Model m, teacher;
    Graph *g;
    Tensor *ids, *y, *pos;
} Net;
typedef struct NetOptions {
    const char *model, *teacher;
    double dropout;
    bool recompute, keep_all;
    size_t limit;
    long chunk;
} NetOptions;

static void record(Net *n, const NetOptions *o)
{
    Tensor *ht = NULL, *wt = NULL, **in[3] = {&n->ids, &n->y, &n->pos};
    for (int i = 0; i < 3; i++) *in[i] = graph_input(n->g, "in", DT_I32, 2, (long[]){B, T});
    if (o->teacher) {
        graph_scope_nograd(n->g, true);
        graph_prefix(n->g, "teacher.");
        ht = model_hidden(n->g, &n->teacher, &(ModelInputs){.ids = n->ids, .pos = n->pos});
        wt = model_head(n->g, &n->teacher);
        graph_scope_nograd(n->g, false);
    }
    graph_prefix(n->g, "student.");
    Tensor *h = model_hidden(n->g, &n->m, &(ModelInputs){.ids = n->ids, .pos = n->pos, .train = true});
    LmLossAttr at = {.a = {.ce_weight = 0.5, .kd_weight = o->teacher ? 2 : 0, .temperature = 2},
                     .chunk = o->chunk};
    graph_loss(n->g, OP_ATTR(n->g, lm_loss, at, h, model_head(n->g, &n->m), n->y, ht, wt), 1.0, "lm");
}

/* False: the plan was refused; n->e says why. */
static bool net_open(Net *n, const NetOptions *o)
{
    *n = (Net){.a = {.name = "test"}};
    const Kernels *k = kernels_cpu_f32();
    model_open(&n->m, o->model, k, &n->a, &n->e);
    if (o->teacher) model_open(&n->teacher, o->teacher, k, &n->a, &n->e);
    params_alloc_grads(&n->m.params, &n->e);
    ASSERT_OK(n->e);
    for (int i = 0; o->teacher && i < n->teacher.params.n; i++) n->teacher.params.p[i]->w.flags |= T_NOGRAD;
    n->m.spec.dropout = o->dropout;
    n->g = graph_new(&(GraphOptions){.k = k,
                                     .train = true,
                                     .run = &n->a,
                                     .recompute = o->recompute,
                                     .keep_all = o->keep_all,
                                     .memory_limit = o->limit},
                     &n->e);
    record(n, o);
    if (!graph_plan(n->g, &n->e)) return false;
    *graph_state(n->g) = (RunState){.seed = 3, .step = 1};
    for (int i = 0; i < B * T; i++) {
        ((int32_t *)n->ids->data)[i] = i * 7 % 97;
        ((int32_t *)n->y->data)[i] = i % 5 ? (i * 7 + 7) % 97 : -100;
        ((int32_t *)n->pos->data)[i] = i % T;
    }
    return true;
}

static void net_close(Net *n)
{
    graph_free(n->g);
    arena_free(&n->a);
}

static void net_step(Net *n)
{
    graph_step_begin(n->g);
    for (uint32_t i = 0; i < 2; i++) {
        plan_poison(n->g);
        graph_state(n->g)->sample0 = i * B;
        graph_micro(n->g);
    }
    graph_step_end(n->g);
}

static void same_gradients(const Net *a, const Net *b)
{
    for (int i = 0; i < a->m.params.n; i++) {
        const Tensor *x = &a->m.params.p[i]->w, *y = &b->m.params.p[i]->w;
        if (x->grad && memcmp(x->grad, y->grad, (size_t)t_numel(x) * sizeof(float)))
            test_fail(__FILE__, __LINE__, "%s: other bits", x->name);
    }
    ASSERT_EQ(graph_loss_total(a->g), graph_loss_total(b->g));
}

static const NetOptions nets[] = {
    {.model = "tests/data/hf-tiny-gpt2", .dropout = 0.1},
    {.model = "tests/data/hf-tiny-llama"},
    {.model = "tests/data/hf-tiny-qwen2", .dropout = 0.2, .chunk = 5},
    {.model = "tests/data/hf-tiny-llama", .teacher = "tests/data/hf-tiny-gpt2", .chunk = 8},
};
enum { N_NET = 4 };

TEST(plan, nothing_live_is_overwritten)
{
    for (int i = 0; i < N_NET; i++)
        for (int recompute = 0; recompute < 2; recompute++) {
            NetOptions o = nets[i];
            Net n;
            o.recompute = recompute;
            ASSERT(net_open(&n, &o));
            plan_check_buffers(n.g);
            plan_replay(n.g);
            net_close(&n);
        }
}

/* Planned, planned with recompute, and every tensor with memory of its own: the same bits, dropout on;
 * recompute takes less, memory of one's own more. */
TEST(plan, same_bits_in_less_memory)
{
    for (int i = 0; i < N_NET; i++) {
        Net n[3];
        for (int j = 0; j < 3; j++) {
            NetOptions o = nets[i];
            o.recompute = j == 1;
            o.keep_all = j == 2;
            ASSERT(net_open(&n[j], &o));
            net_step(&n[j]);
        }
        same_gradients(&n[0], &n[1]);
        same_gradients(&n[0], &n[2]);
        ASSERT(graph_step_bytes(n[1].g) < graph_step_bytes(n[0].g));
        ASSERT(graph_step_bytes(n[0].g) < graph_step_bytes(n[2].g));
        for (int j = 0; j < 3; j++) net_close(&n[j]);
    }
}

/* The table's numbers are the arena's. */
TEST(plan, memory_printed_is_memory_used)
{
    Net n;
    ASSERT(net_open(&n, &nets[0]));
    char *text = graph_memory_table(n.g, &n.a, &n.e);
    double step, scratch;
    ASSERT(text && sscanf(text, " step arena %lf MB", &step) == 1);
    ASSERT(sscanf(strstr(text, "scratch"), "scratch %lf MB", &scratch) == 1);
    ASSERT_CLOSE(step, (double)n.g->step_bytes / 1e6, 0, 0.0051);
    ASSERT_CLOSE(scratch, (double)n.g->scratch_bytes / 1e6, 0, 0.0051);
    ASSERT_EQ(n.g->step.used, n.g->step.peak);
    ASSERT(n.g->step.used >= n.g->step_bytes + n.g->scratch_bytes);
    ASSERT(n.g->step.used <= n.g->step_bytes + n.g->scratch_bytes + 256);
    size_t largest = 0; /* the first name under the totals is the largest buffer */
    const char *name = "";
    for (int i = 0; i < n.g->n_buffer; i++)
        if (n.g->buffer[i].bytes > largest) {
            largest = n.g->buffer[i].bytes;
            name = n.g->buffer[i].name;
        }
    const char *line = strchr(strstr(text, "scratch"), '\n');
    ASSERT(line && strstr(line, name) == strstr(line, " MB  ") + 5);
    net_close(&n);
}

/* Steps allocate nothing, neither in the graph nor in the optimizer. */
TEST(plan, steps_allocate_nothing)
{
    static double betas[2] = {0.9, 0.95};
    OptimConfig c = {
        .name = "adamw", .learning_rate = 1e-3, .betas = {2, betas}, .eps = 1e-8, .weight_decay = 0.1};
    ScheduleConfig s = {.name = "cosine", .warmup_steps = 2, .cycles = 1};
    Net n;
    ASSERT(net_open(&n, &nets[3]));
    Optim *o = optim_new(&c, &s, 1.0, &n.m.params, &n.a, &n.e);
    ASSERT_OK(n.e);
    size_t used = n.a.used, step = n.g->step.used, own = n.g->own.used;
    arena_fail_at(0);
    for (int t = 0; t < 4; t++) {
        net_step(&n);
        optim_step(o, t, 4, 1.0 / 50);
    }
    ASSERT_EQ(arena_fail_at(0), 0);
    ASSERT_EQ(n.a.used, used);
    ASSERT_EQ(n.g->step.used, step);
    ASSERT_EQ(n.g->own.used, own);
    net_close(&n);
}

/* The whole loop, as `pare train` runs it: twelve steps make as many allocations as six. */
static long allocations(int steps)
{
    Arena a = {.name = "test"};
    Err e = {0};
    ConfigDoc *doc = NULL;
    char dir[300], count[40];
    snprintf(dir, sizeof dir, "run.output_dir=%s/run%d", test_dir(), steps);
    snprintf(count, sizeof count, "train.max_steps=%d", steps);
    char *set[] = {dir,
                   count,
                   "model.path=tests/data/stories/stories260K.bin",
                   "tokenizer.path=tests/data/stories/tok512.model",
                   "+data.train=[{path: tests/data/text/tinystories-valid.txt, format: text, split: "
                   "\"train[:20000b]\"}]",
                   "data.seq_len=32",
                   "train.batch_size=2",
                   "train.gradient_accumulation_steps=2",
                   "log.every_steps=3",
                   "checkpoint.every_steps=0"};
    Config *c = config_load(&a, NULL, (int)(sizeof set / sizeof *set), set, &doc, &e);
    if (!c) test_fail(__FILE__, __LINE__, "%s", doc ? config_error_text(doc) : e.msg);
    RunResult r;
    arena_fail_at(0);
    train_run(c, &(TrainOptions){0}, &r, &a, &e);
    long n = arena_fail_at(0);
    ASSERT_OK(e);
    ASSERT_EQ(r.step, steps);
    arena_free(&a);
    return n;
}

TEST(plan, the_loop_allocates_nothing)
{
    allocations(3); /* the first run of a process also measures the machine */
    long six = allocations(6);
    ASSERT_EQ(allocations(12), six);
}

/* Refused while planning, with the three largest by name, largest first, and nothing of that size taken. */
TEST(plan, out_of_memory_is_refused_before_the_first_step)
{
    Net fits, n;
    NetOptions o = nets[0];
    ASSERT(net_open(&fits, &o));
    size_t need = fits.g->step_bytes + fits.g->scratch_bytes;
    o.limit = need;
    ASSERT(net_open(&n, &o));
    net_close(&n);
    o.limit = need - 1;
    ASSERT(!net_open(&n, &o));
    ASSERT_EQ((int)n.e.code, (int)ERR_MEMORY);
    ASSERT_EQ(n.g->step.reserved, 0);
    size_t last = SIZE_MAX;
    const char *at = strstr(n.e.msg, "the largest: ");
    ASSERT(at != NULL);
    at += strlen("the largest: ");
    for (int i = 0; i < 3; i++) {
        char name[NAME_LEN], what[32];
        double mb;
        ASSERT_EQ(sscanf(at, "%95s %31s %lf MB", name, what, &mb), 3);
        size_t found = 0, larger = 0;
        for (int j = 0; j < n.g->n_buffer; j++) {
            const Buffer *b = &n.g->buffer[j];
            if (!strcmp(b->name, name) && !strcmp(b->what, what) && b->bytes > found) found = b->bytes;
        }
        for (int j = 0; j < n.g->n_buffer; j++) larger += n.g->buffer[j].bytes > found;
        ASSERT(found && found <= last && larger <= (size_t)i);
        last = found;
        at = strchr(at, ',') ? strchr(at, ',') + 2 : "";
    }
    net_close(&fits);
    net_close(&n);
}

/* Distillation: no tensor of B T rows and V columns, of either model; the loss holds `chunk` rows of each. */
TEST(plan, no_logits_of_a_whole_batch)
{
    Net n;
    ASSERT(net_open(&n, &nets[3]));
    long V = n.m.spec.V;
    for (int i = 0; i < n.g->n_tensor; i++) {
        const Tensor *t = n.g->tensor[i];
        if (!(t->flags & T_PARAM) && t_last(t) == V)
            test_fail(__FILE__, __LINE__, "%s has %ld rows of %ld logits", t->name, t_rows(t), V);
    }
    size_t loss = 0;
    for (int i = 0; i < n.g->n_node; i++)
        if (n.g->node[i]->op->flags & OP_LOSS) loss = n.g->node[i]->scratch_bytes;
    ASSERT_EQ(loss, (size_t)(2 * 8 * V) * sizeof(float));
    net_close(&n);
}

/* The teacher's interior is dead before the student starts: both take little more than the larger. */
TEST(plan, teacher_and_student_share_memory)
{
    Net both, student, teacher;
    ASSERT(net_open(&both, &nets[3]));
    ASSERT(net_open(&student, &nets[1]));
    ASSERT(net_open(&teacher, &nets[0]));
    size_t hidden = (size_t)(B * T) * (size_t)both.teacher.spec.C * sizeof(float);
    ASSERT(graph_step_bytes(both.g) <= graph_step_bytes(student.g) + hidden + 512);
    for (int i = 0; i < both.g->n_buffer; i++)
        ASSERT(strncmp(both.g->buffer[i].name, "teacher.", 8) || strcmp(both.g->buffer[i].what, "gradient"));
    net_close(&both);
    net_close(&student);
    net_close(&teacher);
}
