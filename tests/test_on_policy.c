/* tests/test_on_policy.c: a share of the steps learns from what the student itself writes: who writes, what
 * counts, what is logged, and that a resumed run writes the same. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include "train/run_impl.h"

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }

static Pare train(const char *dir, const char *const *more)
{
    const char *args[40] = {"train",
                            "c.yaml",
                            "model.init.vocab_size=97",
                            "run.recipe=distill",
                            text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama")),
                            "distill.max_new_tokens=6"};
    int n = 6;
    for (int i = 0; more[i]; i++) args[n++] = more[i];
    args[n] = NULL;
    return pare_run(&(PareOptions){.dir = dir, .args = args});
}
#define TRAIN(dir, ...) train(dir, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static json_t *lines(const char *dir)
{
    char *text = events(in(dir, "run/metrics.jsonl"), "train");
    json_t *all = kept(json_array());
    for (char *at = text, *line; (line = next_line(&at));) json_array_append(all, json_line(line));
    return all;
}

/* The share is that of the config; data's steps are logged as such; the loss of own steps has no
 * cross-entropy. */
TEST(on_policy, share_and_terms)
{
    char *d = tiny_dir("a");
    Pare p = TRAIN(d, "distill.on_policy=0.5", "train.max_steps=60", "distill.alpha=0.7",
                   "distill.ce_weight=0.4", "eval.every_steps=60");
    ASSERT_RAN(p, 0);
    json_t *all = lines(d), *o;
    size_t i;
    int own = 0;
    json_array_foreach(all, i, o)
    {
        const double kd = field(o, "loss/kd"), ce = field(o, "loss/ce");
        if (field(o, "on_policy") > 0) {
            own++;
            ASSERT_CLOSE(field(o, "loss"), 0.7 * kd, 1e-6, 0);
            ASSERT(field(o, "on_policy_length") > 0 && field(o, "on_policy_length") <= 6);
        } else {
            ASSERT_CLOSE(field(o, "loss"), 0.7 * kd + 0.4 * ce, 1e-6, 0);
            ASSERT(!json_object_get(o, "on_policy_length"));
        }
    }
    ASSERT_EQ((int)json_array_size(all), 60);
    ASSERT(own > 18 && own < 42);
}

/* Share 0: the bits of a run that never heard of it. Share 1: every step. */
TEST(on_policy, ends_of_the_share)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b"), *c = tiny_dir("c");
    Pare p = TRAIN(a, "distill.on_policy=0", "distill.on_policy_temperature=0.3");
    ASSERT_RAN(p, 0);
    p = TRAIN(b, "distill.max_new_tokens=3");
    ASSERT_RAN(p, 0);
    same_state(in(a, "run/checkpoints/step_00000012.h5"), in(b, "run/checkpoints/step_00000012.h5"));
    ASSERT_STR(events(in(a, "run/metrics.jsonl"), "train"), events(in(b, "run/metrics.jsonl"), "train"));
    p = TRAIN(c, "distill.on_policy=1");
    ASSERT_RAN(p, 0);
    json_t *all = lines(c), *o;
    size_t i;
    json_array_foreach(all, i, o) ASSERT_EQ(field(o, "on_policy"), 1.0);
}

/* Stopped after every third step and on: what was written behind the prompts is the same, and threads do
 * not matter. */
TEST(on_policy, resumes_bit_for_bit)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    const char *more[] = {"distill.on_policy=0.5",
                          "train.gradient_accumulation_steps=2",
                          "model.dropout=0.1",
                          NULL,
                          NULL,
                          NULL};
    Pare p = train(a, more);
    ASSERT_RAN(p, 0);
    for (int step = 3; step <= 12; step += 3) {
        more[3] = step % 2 ? "device.threads=2" : "device.threads=1";
        more[4] = step < 12 ? text_of("run.time_limit=%s", "1s") : NULL;
        if (step < 12) more[4] = text_of("train.max_steps=%d", step);
        /* the schedule must be that of the whole run */
        p = TRAIN(b, more[0], more[1], more[2], more[3], "schedule.name=constant",
                  step < 12 ? more[4] : "train.max_steps=12");
        ASSERT_RAN(p, 0);
    }
    char *c = tiny_dir("c");
    p = TRAIN(c, more[0], more[1], more[2], "schedule.name=constant");
    ASSERT_RAN(p, 0);
    same_state(in(b, "run/checkpoints/step_00000012.h5"), in(c, "run/checkpoints/step_00000012.h5"));
    ASSERT_STR(events(in(b, "run/metrics.jsonl"), "train"), events(in(c, "run/metrics.jsonl"), "train"));
    /* another seed writes something else */
    char *x = tiny_dir("x");
    p = TRAIN(x, more[0], more[1], more[2], "schedule.name=constant", "run.seed=4");
    ASSERT_RAN(p, 0);
    ASSERT(strcmp(events(in(x, "run/metrics.jsonl"), "train"), events(in(c, "run/metrics.jsonl"), "train")));
}

/* Chats in rows of their own and rows that several share. */
TEST(on_policy, packed_and_padded)
{
    static const char *const packing[] = {"data.packing=pack", "data.packing=pad", "data.packing=concat"};
    const char *data = text_of("data.train=[{path: %s, format: jsonl}]",
                               repo("tests/data/instruct/alpaca.json"));
    Pare p = PARE(.dir = tiny_dir("t"),
                  ARGS("train", "c.yaml", "model.init.vocab_size=257", "train.max_steps=1",
                       "model.init.max_position_embeddings=512", "export=[{format: hdf5, path: t.h5}]"));
    ASSERT_RAN(p, 0);
    const char *teacher = text_of("teacher.path=%s", in_dir("t/run/export/t.h5"));
    for (int i = 0; i < 3; i++) {
        char *d = tiny_dir(text_of("d%d", i));
        p = TRAIN(d, packing[i], data, teacher, "tokenizer.path=bytes", "model.init.vocab_size=257",
                  "data.seq_len=400", "model.init.max_position_embeddings=512", "data.too_long=truncate",
                  "~data.val", "distill.on_policy=1", "distill.max_new_tokens=12", "train.max_steps=2",
                  "train.batch_size=2");
        ASSERT_RAN(p, 0);
        json_t *o = last_event(in(d, "run/metrics.jsonl"), "train");
        ASSERT(field(o, "on_policy_length") > 1 && field(o, "loss/kd") > 0);
    }
}

/* A run opened in this process, with greedy sampling of 5 tokens. */
static void open_run(Run *r, const char *const *more, Arena *a, Err *e)
{
    char *set[24] = {text_of("model.path=%s", repo("tests/data/hf-tiny-llama")),
                     text_of("~model.init"),
                     text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama")),
                     text_of("run.recipe=distill"),
                     text_of("distill.on_policy=1"),
                     text_of("distill.on_policy_temperature=0"),
                     text_of("distill.max_new_tokens=5"),
                     text_of("data.seq_len=24")};
    int n = 8;
    for (; more[n - 8]; n++) set[n] = text_of("%s", more[n - 8]);
    Config *c = config_load(a, in(tiny_dir("r"), "c.yaml"), n, set, NULL, e);
    ASSERT_MSG(c != NULL, "%s", e->msg);
    ASSERT_MSG(run_setup(r, c, a, e), "%s", e->msg);
}

/* Rows are the data's prompt and what a forward without a cache finds most likely; only that is a target. */
TEST(on_policy, rows_are_prompt_and_continuation)
{
    enum { T = 24, NEW = 5 };
    Arena a = {.name = "test"};
    Err e = {0};
    Run r;
    open_run(&r, (const char *const[]){NULL}, &a, &e);
    const long counted = on_policy_fill(r.on_policy, 7, &e);
    ASSERT_OK(e);
    Graph *g = graph_new(&(GraphOptions){.k = r.k, .run = &a}, &e);
    Tensor *ids = graph_input(g, "ids", DT_I32, 2, (long[]){1, T});
    Tensor *pos = graph_input(g, "pos", DT_I32, 2, (long[]){1, T});
    Tensor *z = model_logits(g, &r.model, model_hidden(g, &r.model, &(ModelInputs){.ids = ids, .pos = pos}));
    graph_keep(g, z);
    ASSERT(graph_plan(g, &e));
    long seen = 0;
    for (long b = 0; b < r.B; b++) {
        int32_t data[T], want[T], *row = (int32_t *)r.ids->data + b * T,
                                  *y = (int32_t *)r.targets->data + b * T;
        loader_fill(r.loader, 7 + b, data, want, pos->data, NULL, &e);
        ASSERT_BYTES(row, data, (T - NEW) * sizeof *row);
        memcpy(ids->data, row, T * sizeof *row);
        graph_forward(g);
        bool ended = false;
        for (long t = 0; t < T; t++) {
            const float *zt = (const float *)z->data + t * 97;
            int best = 0;
            for (int v = 1; v < 97; v++)
                if (zt[v] > zt[best]) best = v;
            const bool on = t >= T - NEW - 1 && t < T - 1 && !ended;
            ASSERT_EQ(y[t], on ? best : -100);
            seen += on;
            ended = ended || (on && best == r.model.spec.eos);
            if (on && t + 1 < T - 1 && !ended) ASSERT_EQ(row[t + 1], best);
        }
    }
    ASSERT(seen > 0);
    ASSERT_EQ(counted, seen);
    /* what the first row writes third ends it from now on */
    r.model.spec.eos = ((int32_t *)r.targets->data)[T - NEW + 1];
    ASSERT(on_policy_fill(r.on_policy, 7, &e) < counted);
    const int32_t *y = r.targets->data;
    long last = T;
    while (y[--last] < 0) {}
    ASSERT_EQ(y[last], r.model.spec.eos);
    ASSERT(last <= T - NEW + 1);
    graph_free(g);
    run_free(&r);
    arena_free(&a);
}

/* Masked prompts are prompts; several documents share a row, each in its own segment with positions of its
 * own. */
TEST(on_policy, prompts_of_packed_documents)
{
    enum { T = 400 };
    Arena a = {.name = "test"};
    Err e = {0};
    Run r;
    Pare p = PARE(.dir = tiny_dir("t"),
                  ARGS("train", "c.yaml", "model.init.vocab_size=257", "train.max_steps=1",
                       "model.init.max_position_embeddings=512", "export=[{format: hdf5, path: t.h5}]"));
    ASSERT_RAN(p, 0);
    put_text(in_dir("chat.jsonl"), "{\"prompt\": \"ab\", \"response\": \"cdefgh\"}\n"
                                   "{\"prompt\": \"ijklm\", \"response\": \"no\"}\n"
                                   "{\"prompt\": \"p\", \"response\": \"qrstuvwxyz\"}\n");
    open_run(&r,
             (const char *const[]){"~model.path", "tokenizer.path=bytes", "data.packing=pack",
                                   "data.seq_len=100", "~teacher.path", "~data.val",
                                   text_of("data.train=[{path: %s, format: jsonl, prompt_field: prompt, "
                                           "response_field: response}]",
                                           in_dir("chat.jsonl")),
                                   text_of("model.path=%s", in_dir("t/run/export/t.h5")),
                                   text_of("teacher.path=%s", in_dir("t/run/export/t.h5")),
                                   "train.batch_size=1", NULL},
             &a, &e);
    const long n = r.T;
    int32_t from[T], want[T], at[T], part[T];
    const long all = loader_fill(r.loader, 0, from, want, at, part, &e);
    ASSERT(all > 0 && r.seg);
    const long counted = on_policy_fill(r.on_policy, 0, &e);
    ASSERT_OK(e);
    const int32_t *ids = r.ids->data, *y = r.targets->data, *pos = r.pos->data, *seg = r.seg->data;
    long out = 0, targets = 0, documents = 0;
    for (long i = 0, j; i < n && part[i]; i = j) {
        for (j = i; j < n && part[j] == part[i]; j++) {}
        long prompt = 0;
        while (want[i + prompt] < 0) prompt++;
        ASSERT_BYTES(ids + out, from + i, (size_t)(prompt + 1) * sizeof *ids);
        for (long t = 0; t < prompt; t++) ASSERT_EQ(y[out + t], -100);
        const long begin = out;
        for (; out < n && seg[out] == seg[begin]; out++) {
            ASSERT_EQ(pos[out], out - begin);
            targets += y[out] >= 0;
            if (out > begin + prompt) ASSERT_EQ(ids[out], y[out - 1]);
        }
        ASSERT(out - begin > prompt && out - begin <= prompt + 5);
        documents++;
    }
    ASSERT_EQ(documents, 3);
    ASSERT_EQ(counted, targets);
    for (; out < n; out++) ASSERT(y[out] == -100 && seg[out] == 0);
    run_free(&r);
    arena_free(&a);
}

/* A student that is its teacher writes what the teacher would: no loss, whatever it writes. */
TEST(on_policy, of_oneself)
{
    char *d = tiny_dir("a");
    Pare p = TRAIN(d, "~model.init", text_of("model.path=%s", repo("tests/data/hf-tiny-llama")),
                   "distill.on_policy=1", "distill.alpha=1", "optim.weight_decay=0", "optim.name=sgd",
                   "train.max_steps=2");
    ASSERT_RAN(p, 0);
    json_t *o = last_event(in(d, "run/metrics.jsonl"), "train");
    ASSERT_CLOSE(field(o, "loss"), 0, 0, 1e-9);
    ASSERT(field(o, "loss/ce") > 0.1);
}

TEST(on_policy, refusals)
{
    char *d = tiny_dir("a");
    Pare p = TRAIN(d, "distill.on_policy=0.5", "teacher.cache=x.h5");
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "distill.on_policy: teacher.cache cannot judge");
    p = TRAIN(d, "distill.on_policy=0.5", "distill.alpha=0");
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "distill.on_policy: needs distill.alpha > 0");
    p = TRAIN(d, "distill.on_policy=1.5");
    ASSERT_RAN(p, 2);
    p = TRAIN(d, "distill.on_policy=0.5", "run.recipe=pretrain");
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "distill.on_policy: needs run.recipe: distill");
}
