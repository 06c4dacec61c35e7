/* tests/test_configs.c: every file of configs/ runs: two steps each, with a small evaluation and no samples.
 * A config whose data or models are the user's says in lines `# stand-in: key=value ...` what the test uses
 * instead; STANDIN is a folder with models that the test makes. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include <glob.h>

/* Every stage has left a row with a perplexity, and those that train have taken two steps. */
static void stages_ran(const char *dir, const char *path)
{
    size_t n;
    char *at = get_file(text_of("%s/stages.jsonl", dir), &n);
    int rows = 0, trained = 0;
    ASSERT_MSG(at != NULL, "%s: no rows", path);
    for (char *line; (line = next_line(&at)); rows++) {
        json_t *o = json_loads(line, 0, NULL);
        ASSERT_MSG(field(o, "perplexity") > 1 && field(o, "bytes") > 0, "%s: %s", path, line);
        trained += field(o, "steps") == 2;
        json_decref(o);
    }
    ASSERT_MSG(rows >= 4 && trained >= 1, "%s: %d rows, %d stages trained", path, rows, trained);
}

TEST(configs, all_run_two_steps)
{
    glob_t g;
    ASSERT_EQ(glob(repo("configs/*.yaml"), 0, NULL, &g), 0);
    ASSERT(g.gl_pathc >= 14);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        const char *path = g.gl_pathv[i];
        if (strstr(get_file(path, NULL), "# stand-in: ")) continue;
        char *dir = text_of("%s/run%zu", test_dir(), i);
        const char *cache = strstr(get_file(path, NULL), "\n  cache:") ? "teacher.cache=cache.h5" : NULL;
        const char *small[] = {"data.seq_len=64", "data.train[0].split=train[:40000b]", "train.batch_size=1"};
        Pare p = {0};
        if (cache)
            p = PARE(.dir = test_dir(), ARGS("teacher-cache", path, small[0], small[1], small[2], cache));
        if (p.rc) test_fail(__FILE__, __LINE__, "%s: %s", path, p.err);
        p = PARE(.dir = test_dir(),
                 ARGS("train", path, text_of("run.output_dir=%s", dir), "train.max_steps=2", small[0],
                      small[1], small[2], "data.val[0].split=train[-4000b:]", "eval.max_batches=1",
                      "eval.every_steps=0", "eval.generate.max_new_tokens=2", "log.every_steps=1",
                      "distill.max_new_tokens=8", cache));
        if (p.rc) test_fail(__FILE__, __LINE__, "%s: %s", path, p.err);
        if (strstr(get_file(path, NULL), "\nstages:")) {
            stages_ran(dir, path);
            continue;
        }
        json_t *o = last_event(in_dir(text_of("run%zu/metrics.jsonl", i)), "train");
        if (!(field(o, "loss") > 0 && field(o, "grad_norm") > 0))
            test_fail(__FILE__, __LINE__, "%s: loss %g, grad_norm %g", path, field(o, "loss"),
                      field(o, "grad_norm"));
        json_decref(o);
    }
    globfree(&g);
}

/* A model of twelve layers as a Hugging Face folder, one step old, below dir. */
static void make_models(const char *dir)
{
    put_text(
        text_of("%s/c.yaml", dir),
        text_of("version: 1\nrun: {recipe: pretrain, output_dir: %s/run}\n"
                "tokenizer: {path: tests/data/tiny-bpe-hf/tiny_bpe_tokenizer.json}\n"
                "model: {init: {arch: llama, hidden_size: 32, num_hidden_layers: 12, num_attention_heads: 4,"
                " intermediate_size: 48, max_position_embeddings: 256, tie_word_embeddings: true}}\n"
                "data: {train: [{path: tests/data/text/tinystories-train.txt, split: 'train[:20000b]'}],"
                " seq_len: 64}\n"
                "train: {max_steps: 1, batch_size: 1}\n"
                "export: [{format: hf, path: %s/twelve-layers}]\n",
                dir, dir));
    Pare p = PARE(.dir = repo("."), ARGS("train", text_of("%s/c.yaml", dir)));
    ASSERT_RAN(p, 0);
}

/* The overrides of the stand-in lines, one by one; returns how many there are. */
static int stand_ins(const char *config, const char *dir, const char **out, int cap)
{
    static const char mark[] = "# stand-in: ";
    int n = 0;
    char *text = get_file(config, NULL);
    for (char *at = text, *line; (line = next_line(&at));) {
        if (strncmp(line, mark, sizeof mark - 1)) continue;
        char *save = NULL;
        for (char *w = strtok_r(line + sizeof mark - 1, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
            char *here = strstr(w, "STANDIN");
            ASSERT(n < cap);
            out[n++] = here ? text_of("%.*s%s%s", (int)(here - w), w, dir, here + strlen("STANDIN")) : w;
        }
    }
    return n;
}

TEST(configs, with_stand_ins_run_two_steps)
{
    enum { MOST = 40 };
    glob_t g;
    int ran = 0;
    make_models(test_dir());
    ASSERT_EQ(glob(repo("configs/*.yaml"), 0, NULL, &g), 0);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        const char *args[MOST + 12] = {"train", g.gl_pathv[i]};
        int n = stand_ins(g.gl_pathv[i], test_dir(), args + 2, MOST);
        if (!n) continue;
        n += 2;
        args[n++] = text_of("run.output_dir=%s/stand-in%zu", test_dir(), i);
        static const char *const always[] = {"train.max_steps=2", "log.every_steps=1", "eval.every_steps=0",
                                             "eval.max_batches=1", "eval.generate.max_new_tokens=2"};
        for (int k = 0; k < 5; k++) args[n++] = always[k];
        Pare p = pare_run(&(PareOptions){.dir = repo("."), .args = args});
        if (p.rc) test_fail(__FILE__, __LINE__, "%s: %s", g.gl_pathv[i], p.err);
        json_t *o = last_event(text_of("%s/stand-in%zu/metrics.jsonl", test_dir(), i), "train");
        if (!(field(o, "loss") > 0 && field(o, "grad_norm") > 0))
            test_fail(__FILE__, __LINE__, "%s: loss %g", g.gl_pathv[i], field(o, "loss"));
        json_decref(o);
        ran++;
    }
    globfree(&g);
    ASSERT(ran >= 3);
}
