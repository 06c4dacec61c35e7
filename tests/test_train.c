/* tests/test_train.c: the training loop: accumulation, attachments, distillation's limits, early stopping,
 * steps that are not finite, what a run writes down. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }

/* ---- a model in this process ------------------------------------------------------------------------- */

typedef struct Rig {
    Arena a;
    Err e;
    Model m;
    Graph *g;
    Tensor *ids, *y, *pos, mask;
    OptimConfig oc;
    ScheduleConfig sc;
    CheckpointConfig cc;
    double betas[2];
    Optim *o;
    TrainState s;
    long B;
} Rig;
enum { RIG_T = 8, RIG_V = 97 };
#define MASKED "model.layers.0.mlp.up_proj"
#define GRID 16.0f

static Tensor *mask_apply(Graph *g, Tensor *w, const Attachment *a) { return OP(g, mul, w, a->state); }

/* Stand-in quantiser: w rounded to 1/16, its gradient passed straight through. */
static bool round_shape(Node *n, Graph *g)
{
    (void)g;
    return graph_out(n, n->in[0]->ndim, n->in[0]->dim);
}
static void round_forward(const Node *n, const Kernels *k)
{
    (void)k;
    const float *x = n->in[0]->data;
    float *y = n->out->data;
    for (long i = 0; i < t_numel(n->out); i++) y[i] = rintf(x[i] * GRID) / GRID;
}
static void round_backward(const Node *n, const Kernels *k)
{
    (void)k;
    const float *dy = n->out->grad;
    float *dx = n->in[0]->grad;
    for (long i = 0; dx && i < t_numel(n->out); i++) dx[i] = (grad_mode(n, 0) == SET ? 0 : dx[i]) + dy[i];
}
static const Op op_round = {.name = "round",
                            .formula = "rint(16 w) / 16",
                            .n_in = 1,
                            .shape = round_shape,
                            .forward = round_forward,
                            .backward = round_backward};
static Tensor *round_apply(Graph *g, Tensor *w, const Attachment *a)
{
    (void)a;
    return graph_record(g, &op_round, NULL, 1, &w);
}

static void attach(Rig *r)
{
    Site *s = model_site(&r->m, MASKED);
    ASSERT(s != NULL);
    r->mask = (Tensor){.name = "mask",
                       .dtype = DT_F32,
                       .ndim = 2,
                       .dim = {s->w->w.dim[0], s->w->w.dim[1]},
                       .flags = T_NOGRAD | T_PARAM};
    float *v = r->mask.data = arena_alloc(&r->a, (size_t)t_numel(&r->mask) * sizeof(float), &r->e);
    for (long i = 0; i < t_numel(&r->mask); i++) v[i] = i % 3 ? 1 : 0;
    ASSERT_EQ(model_attach(&r->m, "*layers.0.mlp.up_proj*", true, (Attachment){"mask", mask_apply, &r->mask},
                           &r->e),
              1);
    ASSERT(model_attach(&r->m, "*mlp*", true, (Attachment){"round", round_apply, NULL}, &r->e) >= 6);
}

static void rig_open(Rig *r, long B, bool attached)
{
    *r = (Rig){.a = {.name = "rig"},
               .B = B,
               .oc = {.name = "adamw", .learning_rate = 0.01, .eps = 1e-8, .weight_decay = 0.1},
               .sc = {.name = "constant", .power = 1, .cycles = 1},
               .cc = {.keep_last = 2, .save_optimizer = true},
               .betas = {0.9, 0.95},
               .s = {.seed = 1, .best = NAN, .val = NAN}};
    r->oc.betas.v = r->betas;
    r->oc.betas.n = 2;
    threads_init(1);
    ASSERT(model_open(&r->m, "tests/data/hf-tiny-llama", kernels_cpu_f32(), &r->a, &r->e));
    if (attached) attach(r);
    ASSERT(params_alloc_grads(&r->m.params, &r->e));
    r->g = graph_new(&(GraphOptions){.k = kernels_cpu_f32(), .train = true, .run = &r->a}, &r->e);
    Tensor **t[3] = {&r->ids, &r->y, &r->pos};
    for (int i = 0; i < 3; i++) *t[i] = graph_input(r->g, "in", DT_I32, 2, (long[]){B, RIG_T});
    Tensor *h = model_hidden(r->g, &r->m, &(ModelInputs){.ids = r->ids, .pos = r->pos});
    LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    graph_loss(r->g, OP_ATTR(r->g, lm_loss, at, h, model_head(r->g, &r->m), r->y), 1.0, "lm");
    ASSERT_MSG(graph_plan(r->g, &r->e), "%s", r->e.msg);
    for (long i = 0; i < B * RIG_T; i++) ((int32_t *)r->pos->data)[i] = (int32_t)(i % RIG_T);
    r->o = optim_new(&r->oc, &r->sc, 1.0, &r->m.params, &r->a, &r->e);
    ASSERT_OK(r->e);
}

static void rig_close(Rig *r)
{
    graph_free(r->g);
    arena_free(&r->a);
}

/* Rows first .. first + B - 1 of the stream; row i leaves i % 4 x 2 + 1 labels out. Returns the labels. */
static long rig_fill(Rig *r, long first)
{
    long n = 0;
    for (long b = 0; b < r->B; b++)
        for (long t = 0; t < RIG_T; t++) {
            long row = first + b, at = b * RIG_T + t;
            ((int32_t *)r->ids->data)[at] = (int32_t)((row * 31 + t * 7) % RIG_V);
            bool masked = t < row % 4 * 2 + 1;
            ((int32_t *)r->y->data)[at] = masked ? -100 : (int32_t)((row * 31 + t * 7 + 7) % RIG_V);
            n += !masked;
        }
    return n;
}

static StepInfo rig_step(Rig *r, int micros)
{
    long n = 0;
    graph_step_begin(r->g);
    for (int i = 0; i < micros; i++) {
        n += rig_fill(r, r->s.samples_seen + i * r->B);
        graph_micro(r->g);
    }
    graph_step_end(r->g);
    StepInfo info = optim_step(r->o, r->s.step, 100, 1 / (double)n);
    r->s.step++;
    r->s.samples_seen += micros * r->B;
    return info;
}

static void same_params(const Rig *a, const Rig *b)
{
    for (int i = 0; i < a->m.params.n; i++) {
        const Param *p = a->m.params.p[i], *q = b->m.params.p[i];
        size_t bytes = (size_t)t_numel(&p->w) * sizeof(float);
        ASSERT_MSG(!memcmp(p->w.data, q->w.data, bytes), "%s differs", p->name);
        if (p->m) ASSERT_MSG(!memcmp(p->m, q->m, bytes), "m of %s differs", p->name);
        if (p->v) ASSERT_MSG(!memcmp(p->v, q->v, bytes), "v of %s differs", p->name);
    }
}

/* ---- accumulation ------------------------------------------------------------------------------------ */

/* 4 rows at once, or 2 and 2, with other numbers of labels in each half: one division by all of them. */
TEST(train, accumulation_with_masked_labels)
{
    Rig r[2];
    StepInfo info[2];
    for (int i = 0; i < 2; i++) {
        rig_open(&r[i], i ? 2 : 4, false);
        info[i] = rig_step(&r[i], i ? 2 : 1);
    }
    ASSERT_CLOSE(info[1].grad_norm, info[0].grad_norm, 1e-6, 0);
    double diff = 0, norm = 0;
    for (int p = 0; p < r[0].m.params.n; p++) {
        const Tensor *a = &r[0].m.params.p[p]->w, *b = &r[1].m.params.p[p]->w;
        for (long j = 0; j < t_numel(a); j++) {
            double x = (double)((float *)a->grad)[j], d = x - (double)((float *)b->grad)[j];
            diff += d * d;
            norm += x * x;
        }
    }
    ASSERT(norm > 0);
    ASSERT_CLOSE(sqrt(diff / norm), 0, 0, 1e-6);
    for (int i = 0; i < 2; i++) rig_close(&r[i]);
}

TEST(train, accumulation_in_a_run)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = PARE(.dir = a, ARGS("train", "c.yaml", "optim.name=sgd", "optim.learning_rate=0.1"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = b, ARGS("train", "c.yaml", "optim.name=sgd", "optim.learning_rate=0.1",
                            "train.batch_size=2", "train.tokens_per_step=64", "eval.batch_size=4"));
    ASSERT_RAN(p, 0);
    static const char *const kind[] = {"train", "eval"};
    for (int i = 0; i < 2; i++) {
        json_t *x = last_event(in(a, "run/metrics.jsonl"), kind[i]);
        json_t *y = last_event(in(b, "run/metrics.jsonl"), kind[i]);
        ASSERT_CLOSE(field(y, "loss"), field(x, "loss"), 1e-6, 0);
        ASSERT_EQ(field(y, "tokens"), field(x, "tokens"));
        if (!i) ASSERT_CLOSE(field(y, "grad_norm"), field(x, "grad_norm"), 1e-5, 0);
        ASSERT_EQ((int)field(y, "step"), 12);
    }
}

/* ---- attachments: the doorway of the methods to come ------------------------------------------------- */

/* A mask and a quantiser hung on sites by glob go through step, checkpoint, resume and export. */
TEST(train, attachments_survive)
{
    Rig a, b, c, plain;
    rig_open(&a, 2, true);
    rig_open(&b, 2, true);
    rig_open(&c, 2, true);
    rig_open(&plain, 2, false);
    for (int i = 0; i < 6; i++) {
        rig_step(&a, 2);
        rig_step(&plain, 2);
        if (i < 3) rig_step(&b, 2);
    }
    const char *dir = test_dir();
    ASSERT_MSG(checkpoint_save(dir, &b.cc, &b.m, b.o, &b.s, &b.a, &b.e), "%s", b.e.msg);
    const char *path = checkpoint_find(dir, &c.a, &c.e);
    ASSERT(path != NULL);
    ASSERT_MSG(checkpoint_load(path, &c.m, c.o, &c.s, &c.a, &c.e), "%s", c.e.msg);
    ASSERT_EQ(c.s.step, 3);
    for (int i = 0; i < 3; i++) rig_step(&c, 2);
    same_params(&a, &c);
    /* it did train, and otherwise than without them; the masked weights saw no gradient */
    Site *s = model_site(&a.m, MASKED), *q = model_site(&plain.m, MASKED);
    long n = t_numel(&s->w->w);
    ASSERT(memcmp(s->w->w.data, q->w->w.data, (size_t)n * sizeof(float)));
    for (long i = 0; i < n; i++)
        if (i % 3 == 0) ASSERT_EQ((double)((float *)s->w->w.grad)[i], 0.0);
    /* the export holds what the forward pass used */
    OutModel out;
    Model back;
    char *file = in_dir("m.h5");
    ASSERT(model_out(&c.m, &out, DT_F32, &c.a, &c.e));
    ASSERT_MSG(formats_write_h5(file, &out, &c.e), "%s", c.e.msg);
    ASSERT_MSG(model_open(&back, file, kernels_cpu_f32(), &c.a, &c.e), "%s", c.e.msg);
    int rounded = 0;
    for (int i = 0; i < c.m.params.n; i++) {
        const Param *p = c.m.params.p[i], *w = params_find(&back.params, p->name);
        ASSERT(w != NULL);
        bool mlp = strstr(p->name, ".mlp.") != NULL, masked = !strncmp(p->name, MASKED, strlen(MASKED));
        rounded += mlp;
        for (long j = 0; j < t_numel(&p->w); j++) {
            float want = ((float *)p->w.data)[j];
            if (masked) want *= j % 3 ? 1 : 0;
            if (mlp) want = rintf(want * GRID) / GRID;
            ASSERT_EQ((double)((float *)w->w.data)[j], (double)want);
        }
    }
    ASSERT(rounded >= 6);
    Rig *all[] = {&a, &b, &c, &plain};
    for (int i = 0; i < 4; i++) rig_close(all[i]);
}

/* ---- steps that are not finite ----------------------------------------------------------------------- */

/* A gradient with one bad element leaves parameters, moments and the count of updates as they were. */
TEST(train, nonfinite_step_changes_nothing)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    Rig a, b;
    rig_open(&a, 2, false);
    rig_open(&b, 2, false);
    for (int i = 0; i < 2; i++) {
        rig_step(&a, 1);
        rig_step(&b, 1);
    }
    for (int i = 0; i < 3; i++) {
        Param *p = a.m.params.p[a.m.params.n / (i + 1) - 1];
        float *g = p->w.grad, keep = g[1];
        g[1] = bad[i];
        ASSERT(optim_step(a.o, 2, 100, 1).skipped);
        g[1] = keep;
        ASSERT_EQ(optim_updates(a.o), optim_updates(b.o));
        same_params(&a, &b);
    }
    rig_step(&a, 1);
    rig_step(&b, 1);
    same_params(&a, &b);
    rig_close(&a);
    rig_close(&b);
}

/* A run that blows up: skipped steps are said and counted, then it ends, naming a tensor; what was good is
 * kept. */
TEST(train, nonfinite_run_stops)
{
    char *d = tiny_dir("a");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "train.max_steps=3"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("train", "c.yaml", "--json", "train.max_steps=200", "optim.name=sgd",
                            "optim.momentum=0", "train.clip_grad_norm=0", "optim.learning_rate=10",
                            "schedule.name=constant", "eval.every_steps=1000", "checkpoint.every_steps=1000",
                            "--overwrite", "model.init.initializer_range=5", "train.skip_nonfinite=2"));
    ASSERT_RAN(p, 1);
    ASSERT_STR(p.out, "");
    ASSERT_CONTAINS(p.err, "the step is skipped (1 in a row)");
    ASSERT_CONTAINS(p.err, "2 steps in a row gave a gradient that is not finite; the first bad tensor is ");
    ASSERT(!strstr(p.err, "first bad tensor is not in"));
    ASSERT_CONTAINS(p.err, "optim.learning_rate");
    ASSERT_CONTAINS(get_file(in(d, "run/FAILED"), NULL), "first bad tensor is ");
    ASSERT(!exists(in(d, "run/DONE")));
    json_t *o = last_event(in(d, "run/metrics.jsonl"), "train");
    ASSERT(json_is_null(json_object_get(o, "grad_norm")));
    ASSERT(json_array_size(json_object_get(o, "nonfinite")) > 0);
}

/* ---- ends -------------------------------------------------------------------------------------------- */

/* With a learning rate of 0 nothing improves: after the first evaluation two more use the patience up. */
TEST(train, early_stopping)
{
    char *d = tiny_dir("a");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "--json", "optim.learning_rate=0", "eval.every_steps=2",
                                 "train.early_stopping.patience=2", "train.max_steps=100"));
    ASSERT_RAN(p, 0);
    json_t *o = one_object(p.out);
    ASSERT_STR(json_string_value(json_object_get(o, "status")), "stopped");
    ASSERT_EQ((int)field(o, "step"), 6);
    ASSERT_CONTAINS(p.err, "no improvement for 2 evaluations");
    ASSERT(exists(in(d, "run/checkpoints/step_00000006.h5")) && !exists(in(d, "run/DONE")));
    /* with a gain larger than min_delta it would have gone on */
    d = tiny_dir("b");
    p = PARE(.dir = d, ARGS("train", "c.yaml", "--json", "eval.every_steps=2", "train.max_steps=8",
                            "train.early_stopping={patience: 1, min_delta: 0}"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(json_string_value(json_object_get(one_object(p.out), "status")), "done");
    d = tiny_dir("c");
    p = PARE(.dir = d, ARGS("train", "c.yaml", "--json", "eval.every_steps=2", "train.max_steps=8",
                            "train.early_stopping={patience: 1, min_delta: 50}"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ((int)field(one_object(p.out), "step"), 4);
}

TEST(train, time_limit)
{
    char *d = tiny_dir("a");
    Pare p = PARE(.dir = d,
                  ARGS("train", "c.yaml", "--json", "run.time_limit=0.2s", "train.max_steps=1000000",
                       "eval.every_steps=100000000", "checkpoint.every_steps=0"));
    ASSERT_RAN(p, 0);
    json_t *o = one_object(p.out);
    ASSERT_STR(json_string_value(json_object_get(o, "status")), "stopped");
    ASSERT(exists(in(d, json_string_value(json_object_get(o, "checkpoint")))));
    ASSERT(!exists(in(d, "run/DONE")));
}

/* ---- distillation ------------------------------------------------------------------------------------ */

static const char *teacher_set(void) { return text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama")); }

/* alpha 0: the same bits as training without a teacher, whose forward no step runs; evaluations compare. */
TEST(train, distillation_without_weight_is_training)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = PARE(.dir = a, ARGS("train", "c.yaml", "model.init.vocab_size=97"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = b, ARGS("train", "c.yaml", "model.init.vocab_size=97", "run.recipe=distill",
                            teacher_set(), "distill.alpha=0", "distill.temperature=3"));
    ASSERT_RAN(p, 0);
    same_state(in(a, "run/checkpoints/step_00000012.h5"), in(b, "run/checkpoints/step_00000012.h5"));
    json_t *x = last_event(in(a, "run/metrics.jsonl"), "train"),
           *y = last_event(in(b, "run/metrics.jsonl"), "train");
    ASSERT_EQ(field(y, "loss"), field(x, "loss"));
    ASSERT_EQ(field(y, "loss/ce"), field(x, "loss/ce"));
    ASSERT(!json_object_get(y, "loss/kd") && !json_object_get(y, "loss/teacher_entropy"));
    y = last_event(in(b, "run/metrics.jsonl"), "eval");
    ASSERT(field(y, "kl") > 0 && field(y, "top1_agreement") > 0);
    /* the step's memory is that of the student alone, and with a feature only the teacher below it is run */
    p = PARE(.dir = b, ARGS("train", "c.yaml", "model.init.vocab_size=97", "run.recipe=distill",
                            teacher_set(), "distill.alpha=0", "--dry-run"));
    ASSERT_RAN(p, 0);
    ASSERT(!strstr(p.err, "teacher.layers"));
}

/* The student is its teacher: no loss, no gradient, and no step changes it. */
TEST(train, distillation_of_oneself)
{
    char *d = tiny_dir("a");
    const char *self = text_of("model.path=%s", repo("tests/data/hf-tiny-llama"));
    Pare p = PARE(.dir = d,
                  ARGS("train", "c.yaml", "~model.init", self, "run.recipe=distill", teacher_set(),
                       "distill.alpha=1", "distill.ce_weight=0", "optim.weight_decay=0", "train.max_steps=2",
                       "distill.features=[{student: \"layers.{s}.out\", teacher: \"layers.{t}.out\"},"
                       "{student: embed, teacher: embed, loss: cosine}]",
                       "distill.layer_map=uniform", "optim.name=sgd", "optim.momentum=0"));
    ASSERT_RAN(p, 0);
    json_t *o = last_event(in(d, "run/metrics.jsonl"), "train");
    ASSERT_CLOSE(field(o, "loss"), 0, 0, 1e-9);
    ASSERT_CLOSE(field(o, "loss/kd"), 0, 0, 1e-9);
    ASSERT_CLOSE(field(o, "grad_norm"), 0, 0, 1e-6);
    ASSERT(field(o, "loss/ce") > 0.1);
    ASSERT_CLOSE(field(o, "loss/feature/layers.0.out"), 0, 0, 1e-9);
    ASSERT_CLOSE(field(o, "loss/feature/layers.1.out"), 0, 0, 1e-9);
    ASSERT_CLOSE(field(o, "loss/feature/embed"), 0, 0, 1e-6);
    o = last_event(in(d, "run/metrics.jsonl"), "eval");
    ASSERT_CLOSE(field(o, "kl"), 0, 0, 1e-9);
    ASSERT_EQ(field(o, "top1_agreement"), 1.0);
}

/* total = ce_weight ce + alpha kd + weights of features, each logged apart and unweighted; T^2 in kd. */
TEST(train, distillation_terms_add_up)
{
    double kd[2];
    for (int i = 0; i < 2; i++) {
        char *d = tiny_dir(i ? "b" : "a");
        Pare p = PARE(
                .dir = d,
                ARGS("train", "c.yaml", "model.init.vocab_size=97", "run.recipe=distill", teacher_set(),
                     "distill.alpha=0.7", "distill.ce_weight=0.4", "distill.temperature=3",
                     i ? "distill.scale_t2=false" : "distill.scale_t2=true", "optim.learning_rate=0",
                     "distill.features=[{student: \"layers.{s}.out\", teacher: \"layers.{t}.out\", weight: 2,"
                     " projector: linear},{student: final_norm, teacher: final_norm, weight: 0.5,"
                     " loss: cosine, projector: auto}]",
                     "distill.layer_map=[[0, 1], [1, 0]]", "train.max_steps=1",
                     "export=[{format: hdf5, path: m.h5}]"));
        ASSERT_RAN(p, 0);
        json_t *o = last_event(in(d, "run/metrics.jsonl"), "train");
        kd[i] = field(o, "loss/kd");
        double sum = 0.4 * field(o, "loss/ce") + 0.7 * kd[i] +
                     2 * (field(o, "loss/feature/layers.0.out") + field(o, "loss/feature/layers.1.out")) +
                     0.5 * field(o, "loss/feature/final_norm");
        ASSERT_CLOSE(field(o, "loss"), sum, 1e-6, 0);
        ASSERT_CONTAINS(p.err, "feature");
        /* projectors train with the student and stay out of the model */
        Pare q = PARE(.dir = d, ARGS("inspect", "run/checkpoints/step_00000001.h5", "--json"));
        ASSERT_RAN(q, 0);
        q = PARE(.dir = d, ARGS("inspect", "run/export/m.h5", "--json"));
        ASSERT_RAN(q, 0);
        ASSERT(!strstr(q.out, "projector"));
    }
    ASSERT_CLOSE(kd[0], 9 * kd[1], 1e-6, 0);
}

/* ---- what is written --------------------------------------------------------------------------------- */

TEST(train, metrics_fields)
{
    char *d = tiny_dir("a");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "log.every_steps=2", "log.system_every_steps=5"));
    ASSERT_RAN(p, 0);
    char *all = get_file(in(d, "run/metrics.jsonl"), NULL);
    static const char *const key[] = {"t",  "step",      "epoch", "tokens", "loss",
                                      "lr", "grad_norm", "dt_ms", "tok_s",  "mem_bytes"};
    int count = 0;
    bool nine = false; /* significant digits; trailing zeros are not printed */
    double t = 0;
    for (char *at = all, *line; (line = next_line(&at));) {
        json_t *o = json_line(line);
        ASSERT(field(o, "t") >= t);
        t = field(o, "t");
        const char *when = json_string_value(json_object_get(o, "time"));
        ASSERT(when && strlen(when) == 24 && when[10] == 'T' && when[23] == 'Z');
        if (strcmp(json_string_value(json_object_get(o, "event")), "train")) continue;
        count++;
        const char *digits = strstr(line, "\"loss\": ");
        ASSERT(digits != NULL);
        digits += 8;
        for (size_t i = 0; i < sizeof key / sizeof *key; i++) field(o, key[i]);
        ASSERT_EQ((int)field(o, "step"), 2 * count);
        ASSERT_EQ((int)field(o, "tokens"), 2 * count * 64);
        ASSERT_CLOSE(field(o, "epoch"), 2 * count * 4 / 124.0, 1e-8, 0);
        ASSERT_EQ(field(o, "loss"), field(o, "loss/ce"));
        nine = nine || strspn(digits, "0123456789.") >= 10;
    }
    ASSERT_EQ(count, 6);
    ASSERT(nine);
    char *m = in(d, "run/metrics.jsonl");
    ASSERT_EQ((int)field(last_event(m, "eval"), "step"), 12);
    ASSERT_EQ((int)field(last_event(m, "checkpoint"), "step"), 12);
    ASSERT_EQ((int)field(last_event(m, "system"), "step"), 10);
    ASSERT_EQ((int)field(last_event(m, "end"), "step"), 12);
    json_t *o = last_event(m, "eval");
    ASSERT_CLOSE(field(o, "perplexity"), exp(field(o, "loss")), 1e-8, 0);
    static const char *const file[] = {"config.yaml", "config.resolved.yaml", "env.json", "run.log",
                                       "DONE",        "checkpoints/latest"};
    for (size_t i = 0; i < sizeof file / sizeof *file; i++)
        ASSERT_MSG(exists(text_of("%s/run/%s", d, file[i])), "no %s", file[i]);
    ASSERT(kept(json_loads(get_file(in(d, "run/env.json"), NULL), 0, NULL)) != NULL);
    ASSERT_STR(get_file(in(d, "run/config.yaml"), NULL), get_file(in(d, "c.yaml"), NULL));
    ASSERT_CONTAINS(get_file(in(d, "run/run.log"), NULL), "step 12/12 100.0% | loss");
}

/* config.resolved.yaml alone gives the same run, bit for bit, overrides and derived values included. */
TEST(train, resolved_config_runs_again)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = PARE(.dir = a, ARGS("train", "c.yaml", "run.seed=9", "optim.betas=[0.8,0.9]",
                                 "model.dropout=0.1", "+optim.groups=[{match: ['*norm*'], lr_scale: 0.5}]"));
    ASSERT_RAN(p, 0);
    size_t n;
    char *yaml = get_file(in(a, "run/config.resolved.yaml"), &n);
    put_file(in(b, "again.yaml"), yaml, n);
    p = PARE(.dir = b, ARGS("train", "again.yaml"));
    ASSERT_RAN(p, 0);
    same_state(in(a, "run/checkpoints/step_00000012.h5"), in(b, "run/checkpoints/step_00000012.h5"));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "train"), events(in(a, "run/metrics.jsonl"), "train"));
    ASSERT_STR(get_file(in(b, "run/config.resolved.yaml"), NULL), yaml);
}

/* A folder that holds something else is not written into; one that holds a run only when asked. */
TEST(train, folders_are_respected)
{
    char *d = tiny_dir("a");
    ASSERT(!mkdir(in(d, "run"), 0700));
    put_text(in(d, "run/thesis.txt"), "mine");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "run is not empty and holds no run");
    ASSERT_CONTAINS(p.err, "--overwrite");
    ASSERT(!exists(in(d, "run/metrics.jsonl")));
    p = PARE(.dir = d, ARGS("train", "c.yaml", "--overwrite"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(get_file(in(d, "run/thesis.txt"), NULL), "mine");
    char *before = get_file(in(d, "run/metrics.jsonl"), NULL);
    p = PARE(.dir = d, ARGS("train", "c.yaml", "run.resume=never"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "run is not empty");
    ASSERT_STR(get_file(in(d, "run/metrics.jsonl"), NULL), before);
}
