/* tests/test_configs.c: every file of configs/ runs: two steps each, with a small evaluation and no
 * samples. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include <glob.h>

TEST(configs, all_run_two_steps)
{
    glob_t g;
    ASSERT_EQ(glob(repo("configs/*.yaml"), 0, NULL, &g), 0);
    ASSERT(g.gl_pathc >= 14);
    for (size_t i = 0; i < g.gl_pathc; i++) {
        const char *path = g.gl_pathv[i];
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
        json_t *o = last_event(in_dir(text_of("run%zu/metrics.jsonl", i)), "train");
        if (!(field(o, "loss") > 0 && field(o, "grad_norm") > 0))
            test_fail(__FILE__, __LINE__, "%s: loss %g, grad_norm %g", path, field(o, "loss"),
                      field(o, "grad_norm"));
    }
    globfree(&g);
}
