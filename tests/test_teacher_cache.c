/* tests/test_teacher_cache.c: a teacher read from a file: what the file holds, that training from it is
 * training with the teacher, that it is written whole whatever interrupts, and that a file of something else
 * is refused. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include "train/run_impl.h"

#define LAST "run/checkpoints/step_00000012.h5"
#define KEYS "model.init.vocab_size=97", "run.recipe=distill", "distill.alpha=0.9", "distill.temperature=2"

static char *in(const char *dir, const char *name) { return text_of("%s/%s", dir, name); }
static const char *teacher_set(void) { return text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama")); }
static const char *cache_set(void) { return text_of("teacher.cache=%s", in_dir("cache.h5")); }

/* `verb` in dir with the common keys, the cache and these overrides. */
static Pare act(const char *verb, const char *dir, const char *const *more)
{
    const char *args[40] = {verb, "c.yaml", KEYS, teacher_set(), cache_set()};
    int n = 8;
    for (int i = 0; more[i]; i++) args[n++] = more[i];
    args[n] = NULL;
    return pare_run(&(PareOptions){.dir = dir, .args = args});
}
#define ACT(verb, dir, ...) act(verb, dir, (const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

static void same_bytes(const char *a, const char *b)
{
    size_t na, nb;
    char *x = get_file(a, &na), *y = get_file(b, &nb);
    ASSERT(x && y);
    ASSERT_EQ(na, nb);
    ASSERT_BYTES(x, y, na);
    free(x);
    free(y);
}

/* Trains from the cache and with the teacher at hand (its k classes in the same arithmetic): the same bits,
 * and the same lines but for what only a teacher at hand can tell. */
static void equals_online(int number, const char *k, const char *const *more)
{
    char *a = tiny_dir(text_of("a%d", number)), *b = tiny_dir(text_of("b%d", number));
    const char *args[16] = {k, "eval.compare_teacher=false"};
    int n = 2;
    for (; more[n - 2]; n++) args[n] = more[n - 2];
    args[n] = NULL;
    Pare p = act("train", a, args);
    ASSERT_RAN(p, 0);
    args[n] = "teacher.cache=null";
    args[n + 1] = NULL;
    p = act("train", b, args);
    ASSERT_RAN(p, 0);
    same_state(in(a, LAST), in(b, LAST));
    ASSERT_STR(events(in(a, "run/metrics.jsonl"), "train"), events(in(b, "run/metrics.jsonl"), "train"));
}

/* Shuffled, three epochs, batches of other sizes than the writer's, accumulation: rows are found by what
 * they are. */
TEST(teacher_cache, equals_online_bit_for_bit)
{
    Pare p = ACT("teacher-cache", tiny_dir("w"), "distill.top_k=97", "train.batch_size=8");
    ASSERT_RAN(p, 0);
    equals_online(1, "distill.top_k=97", (const char *const[]){NULL});
    equals_online(2, "distill.top_k=97",
                  (const char *const[]){"train.batch_size=3", "train.max_steps=12", "data.max_samples=0",
                                        "run.seed=8", NULL});
    equals_online(3, "distill.top_k=97",
                  (const char *const[]){"train.batch_size=31", "train.gradient_accumulation_steps=2",
                                        "distill.temperature=3.5", NULL});
}

/* T moves: with all tokens kept the file knows every T, else those of the run's steps, and no others. */
TEST(teacher_cache, temperatures_that_move)
{
    const char *moves = "distill.temperature_schedule=[[0, 4], [6, 1]]";
    Pare p = ACT("teacher-cache", tiny_dir("w"), "distill.top_k=97");
    ASSERT_RAN(p, 0);
    equals_online(1, "distill.top_k=97", (const char *const[]){moves, NULL});
    unlink(in_dir("cache.h5"));
    p = ACT("teacher-cache", in_dir("w"), "distill.top_k=8", moves);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "7 temperatures");
    p = ACT("train", tiny_dir("c"), moves);
    ASSERT_RAN(p, 0);
    p = ACT("train", tiny_dir("d"), "distill.temperature_schedule=[[0, 4], [9, 1]]");
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "distill.temperature_schedule: the mass outside the top 8 at T = ");
}

/* Against the loss over the whole vocabulary, which sums in another order. */
TEST(teacher_cache, equals_the_full_loss)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = ACT("teacher-cache", a, "distill.top_k=0");
    ASSERT_RAN(p, 0);
    p = ACT("train", a, "train.max_steps=1", "optim.name=sgd", "train.clip_grad_norm=0");
    ASSERT_RAN(p, 0);
    p = ACT("train", b, "train.max_steps=1", "optim.name=sgd", "train.clip_grad_norm=0",
            "teacher.cache=null");
    ASSERT_RAN(p, 0);
    json_t *x = last_event(in(a, "run/metrics.jsonl"), "train"),
           *y = last_event(in(b, "run/metrics.jsonl"), "train");
    static const char *const key[] = {"loss", "loss/ce", "loss/kd", "loss/teacher_entropy", "grad_norm"};
    for (size_t i = 0; i < sizeof key / sizeof *key; i++)
        ASSERT_CLOSE(field(x, key[i]), field(y, key[i]), 1e-6, 1e-8);
}

/* Documents in rows with segments, padded rows, prompts that are masked: the same. */
TEST(teacher_cache, packed_and_padded)
{
    static const char *const packing[] = {"data.packing=pack", "data.packing=pad"};
    const char *data = text_of("data.train=[{path: %s, format: jsonl}]",
                               repo("tests/data/instruct/alpaca.json"));
    for (int i = 0; i < 2; i++) {
        const char *const more[] = {packing[i],
                                    data,
                                    "tokenizer.path=bytes",
                                    "model.init.vocab_size=257",
                                    "data.seq_len=400",
                                    "model.init.max_position_embeddings=512",
                                    "data.too_long=truncate",
                                    "~data.val",
                                    "data.max_samples=12",
                                    text_of("teacher.path=%s", in_dir("t/run/export/t.h5")),
                                    NULL};
        if (!i) {
            Pare t = PARE(.dir = tiny_dir("t"),
                          ARGS("train", "c.yaml", "model.init.vocab_size=257", "train.max_steps=1",
                               "model.init.max_position_embeddings=512",
                               "export=[{format: hdf5, path: t.h5}]"));
            ASSERT_RAN(t, 0);
        }
        unlink(in_dir("cache.h5"));
        const char *args[24] = {"distill.top_k=257"};
        for (int j = 0; more[j]; j++) args[j + 1] = more[j];
        Pare p = act("teacher-cache", tiny_dir("w"), args);
        ASSERT_RAN(p, 0);
        char *d[2] = {tiny_dir(text_of("c%d", i)), tiny_dir(text_of("o%d", i))};
        for (int j = 0; j < 2; j++) {
            int n = 0;
            while (args[n]) n++;
            args[n] = "train.batch_size=3"; /* the writer had 4 */
            args[n + 1] = j ? "teacher.cache=null" : NULL;
            args[n + 2] = NULL;
            p = act("train", d[j], args);
            args[n] = NULL;
            ASSERT_RAN(p, 0);
        }
        same_state(in(d[0], LAST), in(d[1], LAST));
    }
}

/* Fewer classes: halves, so not the same bits; a lower bound of the whole divergence. */
TEST(teacher_cache, top_k_in_halves)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b"), *c = tiny_dir("c");
    Pare p = ACT("teacher-cache", a, "distill.top_k=8");
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "top 8 of 97 as float16");
    p = ACT("train", a, "train.max_steps=1", "distill.top_k=8");
    ASSERT_RAN(p, 0);
    p = ACT("train", b, "train.max_steps=1", "distill.top_k=8", "teacher.cache=null");
    ASSERT_RAN(p, 0);
    p = ACT("train", c, "train.max_steps=1", "teacher.cache=null");
    ASSERT_RAN(p, 0);
    const double cached = field(last_event(in(a, "run/metrics.jsonl"), "train"), "loss/kd");
    const double online = field(last_event(in(b, "run/metrics.jsonl"), "train"), "loss/kd");
    const double full = field(last_event(in(c, "run/metrics.jsonl"), "train"), "loss/kd");
    ASSERT_CLOSE(cached, online, 0, 4 * 5e-4); /* T^2 times what halves cost at most */
    ASSERT(online < full && online > 0.1 * full);
    /* without the key the file's k counts */
    p = ACT("train", a, "train.max_steps=1", "run.overwrite=true", "run.resume=never");
    ASSERT_RAN(p, 0);
    ASSERT_EQ(field(last_event(in(a, "run/metrics.jsonl"), "train"), "loss/kd"), cached);
}

/* What `inspect` says of it: whose, of what, how much. */
TEST(teacher_cache, inspected)
{
    Pare p = ACT("teacher-cache", tiny_dir("w"), "distill.top_k=5", "distill.temperature=3", "--json");
    ASSERT_RAN(p, 0);
    p = PARE(.dir = test_dir(), ARGS("inspect", "cache.h5", "--json"));
    ASSERT_RAN(p, 0);
    json_t *o = one_object(p.out);
    size_t n;
    get_file(in_dir("cache.h5"), &n);
    ASSERT_STR(json_string_value(json_object_get(o, "kind")), "teacher_logits");
    ASSERT_STR(json_string_value(json_object_get(o, "teacher_storage")), "float32");
    ASSERT_EQ((size_t)field(o, "bytes"), n);
    ASSERT_EQ((int)field(o, "positions"), (TINY_TOKENS - 1) / 16 * 16);
    ASSERT(field(o, "k") == 5 && field(o, "vocab_size") == 97 && field(o, "seq_len") == 16);
    ASSERT_EQ(json_number_value(json_array_get(json_object_get(o, "temperatures"), 1)), 3.0);
    p = PARE(.dir = test_dir(), ARGS("inspect", "cache.h5"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "top 5 of 97 tokens, float16");
    ASSERT_CONTAINS(p.out, "temperatures  1, 3\n");
    ASSERT_CONTAINS(p.out, json_string_value(json_object_get(o, "teacher_hash")));
    ASSERT_CONTAINS(p.out, json_string_value(json_object_get(o, "data_hash")));
    put_file(in_dir("cache.h5"), get_file(in_dir("cache.h5"), NULL), n / 2);
    p = PARE(.dir = test_dir(), ARGS("inspect", "cache.h5"));
    ASSERT(p.rc == 3 || p.rc == 2);
}

/* ---- what is in the file ----------------------------------------------------------------------------- */

/* Row by row against softmax in double of the teacher's logits. */
TEST(teacher_cache, rows_are_the_teachers)
{
    enum { K = 5, V = 97, S = 16 };
    Pare p = ACT("teacher-cache", tiny_dir("w"), "distill.top_k=5", "distill.temperature=3", "--json");
    ASSERT_RAN(p, 0);
    ASSERT_EQ((int)field(one_object(p.out), "positions"), (TINY_TOKENS - 1) / S * S);
    Arena a = {.name = "test"};
    Err e = {0};
    Model m;
    TeacherCache *t = teacher_cache_open(in_dir("cache.h5"), &a, &e);
    ASSERT_OK(e);
    const CacheAbout *b = teacher_cache_about(t);
    ASSERT(b->k == K && b->V == V && b->T == S && b->n_temp == 2);
    ASSERT_EQ(b->temp[0], 1.0);
    ASSERT_EQ(b->temp[1], 3.0);
    ASSERT(model_open_frozen(&m, repo("tests/data/hf-tiny-llama"), kernels_ref_f64(), &a, &e));
    Graph *g = graph_new(&(GraphOptions){.k = kernels_ref_f64(), .run = &a}, &e);
    Tensor *ids = graph_input(g, "ids", DT_I32, 2, (long[]){1, S}),
           *pos = graph_input(g, "pos", DT_I32, 2, (long[]){1, S});
    Tensor *z = model_logits(g, &m, model_hidden(g, &m, &(ModelInputs){.ids = ids, .pos = pos}));
    graph_keep(g, z);
    ASSERT(graph_plan(g, &e));
    uint16_t *text = (uint16_t *)(void *)get_file(in_dir("w/d.bin"), NULL);
    static const int64_t rows[] = {0, 77, (TINY_TOKENS - 1) / S - 1};
    for (int q = 0; q < 3; q++) {
        int32_t index[S * K];
        double logp[S * K], rest[2][S];
        for (int i = 0; i < S; i++) {
            ((int32_t *)ids->data)[i] = text[rows[q] * S + i];
            ((int32_t *)pos->data)[i] = i;
        }
        graph_forward(g);
        for (int i = 0; i < 2; i++)
            ASSERT(teacher_cache_fill(t, rows[q], i ? 3 : 1, index, logp, rest[i], sizeof(double), &e));
        for (int r = 0; r < S; r++) {
            const double *zr = (const double *)z->data + r * V;
            double sum = 0, tail[2] = {0, 0};
            for (int v = 0; v < V; v++) sum += exp(zr[v]);
            for (int v = 0; v < V; v++) {
                bool top = false;
                for (int c = 0; c < K; c++) top = top || index[r * K + c] == v;
                for (int i = 0; i < 2 && !top; i++) tail[i] += pow(exp(zr[v]) / sum, i ? 1.0 / 3 : 1);
                if (!top) ASSERT(zr[v] <= zr[index[r * K + K - 1]] + 1e-5);
            }
            for (int c = 0; c < K; c++)
                ASSERT_CLOSE(logp[r * K + c], zr[index[r * K + c]] - log(sum), 1e-3, 1e-4);
            for (int i = 0; i < 2; i++) ASSERT_CLOSE(rest[i][r], log(tail[i]), 1e-5, 1e-5);
        }
    }
    graph_free(g);
    teacher_cache_close(t);
    arena_free(&a);
}

TEST(teacher_cache, dry_run_and_again)
{
    char *d = tiny_dir("w");
    Pare p = ACT("teacher-cache", d, "--dry-run");
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(
        p.err, "124 sequences of 16, top 97 of 97 as float32, 2 temperatures: 1.56 MB (784 bytes a token");
    ASSERT(!exists(in_dir("cache.h5")) && !exists(in_dir("cache.h5.part")));
    p = ACT("teacher-cache", d);
    ASSERT_RAN(p, 0);
    ASSERT(exists(in_dir("cache.h5")) && !exists(in_dir("cache.h5.part")) &&
           !exists(in_dir("cache.h5.part.cursor")));
    p = ACT("teacher-cache", d);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "holds this already");
    p = ACT("teacher-cache", d, "distill.temperature=4");
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "holds something else than this config asks for");
    p = ACT("teacher-cache", d, "distill.temperature=4", "--overwrite");
    ASSERT_RAN(p, 0);
    p = ACT("inspect", d);
    ASSERT(p.rc != 0);
}

/* ---- interruptions ----------------------------------------------------------------------------------- */

/* Killed again and again: at the end the bytes of the file that nothing disturbed. */
TEST(teacher_cache, killed_and_resumed)
{
    char *d = tiny_dir("w"), *other = in_dir("other.h5");
    const char *const keys[] = {"train.batch_size=1", "data.seq_len=4", "distill.top_k=97", NULL};
    Pare p = act("teacher-cache", d, keys);
    ASSERT_RAN(p, 0);
    int kills = 0, resumed = 0;
    for (int start = 0; !exists(other); start++) {
        p = START(.dir = d,
                  ARGS("teacher-cache", "c.yaml", KEYS, teacher_set(), text_of("teacher.cache=%s", other),
                       keys[0], keys[1], keys[2], start % 2 ? "device.threads=2" : "device.threads=1"));
        nap(start < 3 ? 0.02 : 0.06 * start);
        kill(p.pid, SIGKILL);
        pare_wait(&p);
        kills += p.signal == SIGKILL;
        resumed += strstr(p.err, "going on behind") != NULL;
        ASSERT(start < 60);
    }
    fprintf(stderr, "%d kills, %d resumed\n", kills, resumed);
    ASSERT(kills > 0);
    same_bytes(in_dir("cache.h5"), other);
}

/* What stood half-way is continued, not computed again: the certain part is taken as it is. */
TEST(teacher_cache, goes_on_behind_the_cursor)
{
    char *d = tiny_dir("w"), *whole = in_dir("cache.h5"), *other = in_dir("other.h5");
    const char *const keys[] = {"train.batch_size=2", NULL};
    Pare p = act("teacher-cache", d, keys);
    ASSERT_RAN(p, 0);
    /* the parts of a writer that was cut off behind 100 of 124 sequences, made from the whole */
    Arena a = {.name = "test"};
    Err e = {0};
    H5In *h = h5_open(whole, false, &a, &e);
    ASSERT_OK(e);
    const char *key = h5_get_str(h, "/logits", "key", &e);
    static const char *const name[] = {"/logits/topk_index", "/logits/topk_logprob",
                                       "/logits/rest_logsumexp"};
    FILE *f = fopen(in_dir("other.h5.part"), "w");
    for (int i = 0; i < 3; i++) {
        DType t;
        int64_t rows, cols;
        H5Rows *r = h5_rows(h, name[i], &t, &rows, &cols, &a, &e);
        ASSERT_OK(e);
        const size_t bytes = (size_t)(rows * cols) * 4, certain = (size_t)(100 * 16 * cols) * 4;
        char *data = calloc(1, bytes);
        ASSERT(data && h5_rows_read(r, 0, rows, data, &e));
        memset(data + certain, 0x55, bytes - certain);
        ASSERT_EQ(fwrite(data, 1, bytes, f), bytes);
        h5_rows_close(r);
        free(data);
    }
    fclose(f);
    put_text(in_dir("other.h5.part.cursor"),
             text_of("{\"version\": 1, \"key\": \"%s\", \"sequences\": 100}\n", key));
    h5_close(h);
    p = ACT("teacher-cache", d, text_of("teacher.cache=%s", other), keys[0]);
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "going on behind 100 of 124 sequences");
    same_bytes(whole, other);
    arena_free(&a);
}

TEST(teacher_cache, full_disk)
{
    char *d = tiny_dir("w");
    Pare p = PARE(.dir = d, .file_limit = 500000,
                  ARGS("teacher-cache", "c.yaml", KEYS, teacher_set(), cache_set()));
    ASSERT(p.rc == 1 || p.signal == SIGXFSZ);
    ASSERT(!exists(in_dir("cache.h5")));
    p = ACT("teacher-cache", d);
    ASSERT_RAN(p, 0);
}

/* ---- refusals ---------------------------------------------------------------------------------------- */

static void refused(const char *verb, const char *dir, const char *set, const char *where, const char *why)
{
    Pare p = ACT(verb, dir, set, "eval.every_steps=99");
    ASSERT_MSG(p.rc == 2, "%s: exit status %d\n%s", set, p.rc, p.err);
    ASSERT_CONTAINS(p.err, where);
    ASSERT_CONTAINS(p.err, why);
}

TEST(teacher_cache, another_files_are_refused)
{
    char *d = tiny_dir("w");
    Pare p = ACT("teacher-cache", d, "distill.top_k=8");
    ASSERT_RAN(p, 0);
    static const char *const verb[] = {"validate", "train"};
    for (int i = 0; i < 2; i++) {
        refused(verb[i], d, "data.seq_len=8", "teacher.cache: ", "was written for data.seq_len 16, not 8");
        refused(verb[i], d, "data.train=[{path: d.bin, format: bin_nanogpt, split: 'train[:90%]'}]",
                "teacher.cache: ", "was written for other data");
        refused(verb[i], d, "distill.top_k=16", "distill.top_k: ", "holds k = 8");
        refused(verb[i], d, "distill.top_k=0", "distill.top_k: ", "97 classes of 97 are asked for");
        refused(verb[i], d, "distill.temperature=3",
                "distill.temperature: ", "T = 3 is not in teacher.cache");
        refused(verb[i], d, "model.init.vocab_size=98", "teacher.cache: ", "the student has 98");
        refused(verb[i], d, text_of("teacher.path=%s", repo("tests/data/hf-tiny-llama-llama3")),
                "teacher.cache: ", "by another teacher");
        refused(verb[i], d, "distill.loss=mse_logits", "distill.loss", "mse_logits");
    }
    /* one token differs, as many sequences */
    size_t n;
    char *text = get_file(in(d, "d.bin"), &n);
    text[n / 2] ^= 1;
    put_file(in(d, "d.bin"), text, n);
    refused("train", d, "train.max_steps=2", "teacher.cache: ", "was written for other data (content hash");
}

/* The place is the key's in the file. */
TEST(teacher_cache, places_are_told)
{
    char *d = tiny_dir("w");
    Pare p = ACT("teacher-cache", d);
    ASSERT_RAN(p, 0);
    char *c = get_file(in(d, "c.yaml"), NULL);
    put_text(in(d, "c.yaml"), text_of("%steacher:\n  cache: ../cache.h5\ndistill:\n  features:\n"
                                      "    - {student: embed, teacher: embed}\n",
                                      c));
    p = PARE(.dir = d, ARGS("validate", "c.yaml", "model.init.vocab_size=97", "run.recipe=distill"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "c.yaml:21:5");
    ASSERT_CONTAINS(p.err, "distill.features: need the teacher's activations");
    p = PARE(.dir = d, ARGS("validate", "c.yaml", "model.init.vocab_size=97", "run.recipe=distill",
                            "~distill.features", "data.seq_len=8"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "c.yaml:18:10: teacher.cache: ");
    put_text(in(d, "c.yaml"), c);
    p = PARE(.dir = d, ARGS("teacher-cache", "c.yaml"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "teacher-cache needs run.recipe: distill");
}

/* A tokenizer of other content, the same size. */
TEST(teacher_cache, another_tokenizer_is_refused)
{
    char *d = tiny_dir("w");
    const char *t = text_of("teacher.path=%s", in_dir("t/run/export/t.h5"));
    Pare p = PARE(.dir = tiny_dir("t"),
                  ARGS("train", "c.yaml", "model.init.vocab_size=512", "train.max_steps=1",
                       "model.init.max_position_embeddings=512", "export=[{format: hdf5, path: t.h5}]"));
    ASSERT_RAN(p, 0);
    const char *one = text_of("tokenizer.path=%s", repo("tests/data/stories/tok512.model"));
    p = ACT("teacher-cache", d, t, "model.init.vocab_size=512", one);
    ASSERT_RAN(p, 0);
    p = ACT("train", d, t, "model.init.vocab_size=512", one, "eval.generate.prompts=[]", "train.max_steps=1");
    ASSERT_RAN(p, 0);
    p = ACT("train", d, t, "model.init.vocab_size=512", "tokenizer.path=bytes", "run.output_dir=other");
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "was written with another tokenizer");
}

/* No teacher in memory: the file alone is enough, and training never looks for a model. */
TEST(teacher_cache, needs_no_teacher)
{
    char *a = tiny_dir("a"), *b = tiny_dir("b");
    Pare p = ACT("teacher-cache", a);
    ASSERT_RAN(p, 0);
    p = ACT("train", a);
    ASSERT_RAN(p, 0);
    p = PARE(.dir = b, ARGS("train", "c.yaml", KEYS, cache_set()));
    ASSERT_RAN(p, 0);
    same_state(in(a, LAST), in(b, LAST));
    ASSERT(!strstr(p.err, "teacher.linear"));
}
