/* tests/test_stages.c: stages run in order on one state: rows, carrying over, killed anywhere and run
 * again. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

static const char *const list = "stages:\n"
                                "  - {name: grow, recipe: pretrain}\n"
                                "  - {name: plain, recipe: quantize, qat: {enabled: true, weight: nvfp4}}\n"
                                "  - {name: qat, recipe: finetune, train: {max_steps: 9}}\n"
                                "  - {name: out, recipe: export, export: [{format: safetensors, path: "
                                "m.safetensors}, {format: hdf5, path: m.h5}]}\n";

static char *stages_dir(const char *name, const char *stages)
{
    char *d = tiny_dir(name), *yaml = text_of("%s/c.yaml", d);
    size_t n;
    char *s = get_file(yaml, &n);
    put_text(yaml, text_of("%.*s%s", (int)n, s, stages));
    return d;
}

static json_t *row(const char *dir, const char *stage)
{
    char *s = get_file(text_of("%s/run/stages/%s/row.json", dir, stage), NULL);
    ASSERT_MSG(s != NULL, "no row of %s", stage);
    return json_line(s);
}

static int lines_of(const char *path)
{
    size_t n;
    char *s = get_file(path, &n);
    int lines = 0;
    for (size_t i = 0; s && i < n; i++) lines += s[i] == '\n';
    return lines;
}

static void same_file(const char *a, const char *b)
{
    size_t na, nb;
    char *x = get_file(a, &na), *y = get_file(b, &nb);
    ASSERT_MSG(x && y && na == nb && !memcmp(x, y, na), "%s and %s differ", a, b);
}

TEST(stages, rows_and_rerun)
{
    char *d = stages_dir("s", list);
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ(lines_of(text_of("%s/run/stages.jsonl", d)), 4);
    const char *const names[] = {"grow", "plain", "qat", "out"};
    for (int i = 0; i < 4; i++) ASSERT_CONTAINS(p.out, names[i]);
    json_t *grow = row(d, "01-grow"), *plain = row(d, "02-plain"), *qat = row(d, "03-qat"),
           *out = row(d, "04-out");
    ASSERT_EQ((int)field(grow, "steps"), 12);
    ASSERT_EQ((int)field(plain, "steps"), 0);
    ASSERT_EQ((int)field(qat, "steps"), 9);
    ASSERT(field(grow, "bits_per_weight") == 32 && field(plain, "bits_per_weight") < 25);
    ASSERT(field(plain, "perplexity") != field(grow, "perplexity"));
    ASSERT(field(qat, "perplexity") != field(plain, "perplexity"));
    /* a stage that changes nothing: what it writes is what it got */
    ASSERT(field(out, "perplexity") == field(qat, "perplexity") &&
           field(out, "nonzeros") == field(qat, "nonzeros"));
    ASSERT(exists(text_of("%s/run/stages/04-out/export/m.safetensors", d)));
    ASSERT(!exists(text_of("%s/run/stages/03-qat/export", d)));
    /* bytes in the row are the file's */
    size_t n;
    get_file(text_of("%s/run/stages/02-plain/model.h5", d), &n);
    ASSERT(field(plain, "bytes") == (double)n);
    p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "stage 4, out: done before");
    ASSERT(!strstr(p.err, "step 1/"));
    p = PARE(.dir = d, ARGS("train", "c.yaml", "optim.learning_rate=2e-2"));
    ASSERT_CONTAINS(p.err, "was run with another config");
}

/* Killed when a file has come and started again, once for each: every stage ends with the bits of a run that
 * nothing disturbed. stage: the folders; last: their last checkpoints. NULL ends the lists. */
static void killed_at(const char *stages, const char *const *moment, const char *const *stage,
                      const char *const *last)
{
    char *whole = stages_dir("whole", stages);
    Pare p = PARE(.dir = whole, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    for (int k = 0; moment[k]; k++) {
        char *d = stages_dir(text_of("killed%d", k), stages),
             *seen = text_of("%s/run/stages/%s", d, moment[k]);
        Pare q = START(.dir = d, ARGS("train", "c.yaml"));
        for (int i = 0; i < 20000 && !exists(seen); i++) usleep(500);
        kill(q.pid, SIGKILL);
        waitpid(q.pid, NULL, 0);
        ASSERT_MSG(exists(seen), "%s never came", seen);
        p = PARE(.dir = d, ARGS("train", "c.yaml"));
        ASSERT_RAN(p, 0);
        for (int i = 0; stage[i]; i++) {
            same_state(text_of("%s/run/stages/%s/checkpoints/%s", whole, stage[i], last[i]),
                       text_of("%s/run/stages/%s/checkpoints/%s", d, stage[i], last[i]));
            same_file(text_of("%s/run/stages/%s/model.h5", whole, stage[i]),
                      text_of("%s/run/stages/%s/model.h5", d, stage[i]));
            ASSERT(field(row(d, stage[i]), "perplexity") == field(row(whole, stage[i]), "perplexity"));
        }
    }
}

TEST(stages, killed_in_any_stage)
{
    killed_at(list,
              (const char *const[]){"01-grow/checkpoints/step_00000006.h5", "02-plain/checkpoints/latest",
                                    "03-qat/checkpoints/step_00000003.h5", "03-qat/model.h5",
                                    "04-out/run.log", NULL},
              (const char *const[]){"01-grow", "02-plain", "03-qat", "04-out", NULL},
              (const char *const[]){"step_00000012.h5", "step_00000000.h5", "step_00000009.h5",
                                    "step_00000000.h5"});
}

/* An adapter comes, a mask over it, quantisers behind both: all of it goes along, through kills too. */
static const char *const adapted =
    "stages:\n"
    "  - {name: grow, recipe: pretrain}\n"
    "  - {name: adapt, recipe: finetune, train: {max_steps: 4},"
    " lora: {enabled: true, r: 2, target_modules: all-linear}}\n"
    "  - {name: pruned, recipe: prune, prune: {enabled: true, sparsity: 0.5, schedule: oneshot}}\n"
    "  - {name: qat, recipe: finetune, train: {max_steps: 6}, qat: {enabled: true, weight: int4}}\n"
    "  - {name: out, recipe: export, export: [{format: safetensors, path: m.safetensors}, "
    "{format: peft, path: adapter}]}\n";

TEST(stages, adapters_go_along_killed)
{
    killed_at(adapted,
              (const char *const[]){"02-adapt/checkpoints/step_00000003.h5", "03-pruned/checkpoints/latest",
                                    "04-qat/checkpoints/step_00000003.h5", NULL},
              (const char *const[]){"02-adapt", "03-pruned", "04-qat", "05-out", NULL},
              (const char *const[]){"step_00000004.h5", "step_00000000.h5", "step_00000006.h5",
                                    "step_00000000.h5"});
    char *whole = in_dir("whole");
    json_t *grow = row(whole, "01-grow"), *adapt = row(whole, "02-adapt"), *pruned = row(whole, "03-pruned"),
           *qat = row(whole, "04-qat"), *out = row(whole, "05-out");
    /* merged in every model.h5: as many weights, none of them the adapter's own */
    ASSERT(field(adapt, "parameters") == field(grow, "parameters"));
    ASSERT(field(adapt, "perplexity") != field(grow, "perplexity"));
    const double zeros = field(pruned, "parameters") - field(pruned, "nonzeros");
    ASSERT(zeros > 1000 && field(adapt, "nonzeros") > field(pruned, "nonzeros"));
    ASSERT(field(qat, "parameters") - field(qat, "nonzeros") >= zeros);
    ASSERT(field(qat, "perplexity") != field(pruned, "perplexity"));
    ASSERT(field(out, "perplexity") == field(qat, "perplexity"));
    ASSERT(exists(text_of("%s/run/stages/05-out/export/adapter/adapter_model.safetensors", whole)));
}

static int64_t updates(const char *path)
{
    Arena a = {.name = "state"};
    Err e = {0};
    int64_t v = -1;
    H5In *h = h5_open(path, false, &a, &e);
    ASSERT_OK(e);
    ASSERT(h5_get_i64(h, "/optimizer", "step", &v, &e));
    h5_close(h);
    arena_free(&a);
    return v;
}

TEST(stages, optimizer_afresh_or_kept)
{
    char *d = stages_dir("o",
                         "stages:\n"
                         "  - {name: a, recipe: pretrain}\n"
                         "  - {name: between, recipe: quantize}\n"
                         "  - {name: kept, recipe: pretrain, keep_optimizer: true, train: {max_steps: 3}}\n"
                         "  - {name: afresh, recipe: pretrain, train: {max_steps: 3}}\n");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    ASSERT_EQ((long)updates(text_of("%s/run/stages/03-kept/checkpoints/step_00000003.h5", d)), 15);
    ASSERT_EQ((long)updates(text_of("%s/run/stages/04-afresh/checkpoints/step_00000003.h5", d)), 3);
}

TEST(stages, interrupted_and_stopped)
{
    char *d = stages_dir("i", list), *seen = text_of("%s/run/stages/03-qat/checkpoints/step_00000003.h5", d);
    Pare q = START(.dir = d, ARGS("train", "c.yaml", "train.max_steps=4000"));
    char *first = text_of("%s/run/stages/01-grow/checkpoints/step_00000006.h5", d);
    for (int i = 0; i < 20000 && !exists(first); i++) usleep(500);
    kill(q.pid, SIGINT);

    pare_wait(&q);
    ASSERT_RAN(q, ERR_INTERRUPTED);
    ASSERT(!exists(text_of("%s/run/stages/01-grow/row.json", d)) && !exists(seen));
}

TEST(stages, bad_config)
{
    char *d = stages_dir("b", "stages: [{name: a, recipe: finetune, train: {max_steps: -1}}]\n");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "train.max_steps");
    ASSERT_CONTAINS(p.err, ".yaml:17:");
}

TEST(stages, export_rounded)
{
    char *d = tiny_dir("r");
    Pare p = PARE(.dir = d,
                  ARGS("train", "c.yaml", "export=[{format: hdf5, path: m.h5, quantize: {format: int8}}]"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("quantize", "run", "want.h5", "--format", "int8"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("compare", "run/export/m.h5", "want.h5", "--json"));
    ASSERT_RAN(p, 0);
    ASSERT(!strstr(p.out, "\"equal\": false"));
    p = PARE(.dir = d, ARGS("train", "c.yaml",
                            "export=[{format: hdf5, path: m.safetensors, quantize: {format: int8}}]"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "ends in .h5");
    p = PARE(.dir = d, ARGS("train", "c.yaml", "qat.enabled=true",
                            "export=[{format: hdf5, path: m.h5, quantize: {}}]"));
    ASSERT_RAN(p, 2);
}

/* The page about such a run says of every stage what its row says, and shows the files layer by layer. */
TEST(stages, report_of_a_real_run)
{
    char *d = stages_dir(
        "p", "stages:\n"
             "  - {name: pruned, recipe: prune, prune: {enabled: true, sparsity: 0.5, schedule: oneshot}}\n"
             "  - {name: recovered, recipe: finetune, train: {max_steps: 5}}\n"
             "  - {name: codes, recipe: quantize, qat: {enabled: true, weight: nvfp4}}\n");
    static const char *const stage[] = {"01-pruned", "02-recovered", "03-codes"},
                             *const part[] = {"Size against quality",    "What each stage cost",
                                              "Weights, layer by layer", "layer 1",
                                              "Stored bits per weight",  "nvfp4",
                                              "sparse_bitmask",          "prefers-color-scheme:dark"};
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("report", "run"));
    ASSERT_RAN(p, 0);
    size_t n;
    char *html = get_file(text_of("%s/run/report.html", d), &n),
         *text = get_file(text_of("%s/run/report.md", d), &n);
    for (size_t i = 0; i < sizeof part / sizeof *part; i++) ASSERT_CONTAINS(html, part[i]);
    for (int i = 0; i < 3; i++) {
        json_t *r = row(d, stage[i]);
        char *line = strstr(text, text_of("| %s |", stage[i]));
        ASSERT_MSG(line != NULL, "no row of %s", stage[i]);
        line = text_of("%.*s", (int)strcspn(line, "\n"), line);
        ASSERT_CONTAINS(line,
                        text_of("| %.1f %% |", 100 - 100 * field(r, "nonzeros") / field(r, "parameters")));
        ASSERT_CONTAINS(line, text_of("| %.2f |", field(r, "bits_per_weight")));
        ASSERT_CONTAINS(line, text_of("| %.3f |", field(r, "perplexity")));
        ASSERT_CONTAINS(html, text_of("%.3f", field(r, "perplexity")));
    }
}

/* Masks, made once, hold through training behind them and are zeros of the file. */
TEST(stages, masks_go_along)
{
    char *d = stages_dir(
        "m", "stages:\n"
             "  - {name: pruned, recipe: prune, prune: {enabled: true, sparsity: 0.5, schedule: oneshot}}\n"
             "  - {name: recovered, recipe: finetune, train: {max_steps: 5}}\n"
             "  - {name: codes, recipe: quantize, qat: {enabled: true, weight: nvfp4}}\n");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    const double zeros = field(row(d, "01-pruned"), "parameters") - field(row(d, "01-pruned"), "nonzeros");
    ASSERT(zeros > 1000);
    ASSERT(field(row(d, "02-recovered"), "parameters") - field(row(d, "02-recovered"), "nonzeros") == zeros);
    ASSERT(field(row(d, "03-codes"), "parameters") - field(row(d, "03-codes"), "nonzeros") >= zeros);
    ASSERT(field(row(d, "02-recovered"), "perplexity") != field(row(d, "01-pruned"), "perplexity"));
}
