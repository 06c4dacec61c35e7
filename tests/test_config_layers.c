/* tests/test_config_layers.c: overrides, environment, includes, interpolation, arms, paths. */
#include "tests/config_load_impl.h"

TEST(config, overrides_win_in_order)
{
    const char *o[] = {"optim.lr=1e-5",
                       "optim.learning_rate=2e-5",
                       "data.train[0].path=*.bin",
                       "+data.train=[{path: b}]",
                       "+data.train={path: c}",
                       "+optim.groups=[{match: [x, 'a.*'], lr: 0.1}]",
                       "~schedule.name",
                       "run.name=\"a b\"",
                       "model.freeze=[no, 1]",
                       "+model.freeze=last",
                       "eval.perplexity.protocol=concat-64",
                       "run.time_limit=null",
                       "data.train[1].weight=3",
                       "data.document_separator=<|endoftext|>"};
    Loaded l;
    load(&l, DOC "optim: {lr: 1}\nschedule: {name: wsd}\nrun: {time_limit: 4h}\n", CFG_COUNT(o), o);
    if (!l.c) test_fail(__FILE__, __LINE__, "%s", l.e.msg);
    ASSERT_EQ(l.c->optim.learning_rate, 2e-5);
    ASSERT_EQ(l.c->data.train.n, 3);
    ASSERT_STR(l.c->data.train.v[0].path, "*.bin");
    ASSERT_STR(l.c->data.train.v[2].path, "c");
    ASSERT_EQ(l.c->data.train.v[1].weight, 3.0);
    ASSERT_STR(l.c->optim.groups.v[0].match.v[1], "a.*");
    ASSERT_EQ(l.c->optim.groups.v[0].learning_rate, 0.1);
    ASSERT_STR(l.c->schedule.name, "cosine");
    ASSERT_STR(l.c->run.name, "a b");
    ASSERT_EQ(l.c->model.freeze.n, 3);
    ASSERT_STR(l.c->model.freeze.v[2], "last");
    ASSERT_STR(l.c->eval.perplexity.protocol, "concat-64");
    ASSERT(l.c->run.time_limit == NULL);
    ASSERT_STR(l.c->data.document_separator, "<|endoftext|>");
    ASSERT_STR(config_node(l.doc, "optim.learning_rate")->origin, "command line");
    arena_free(&l.a);
}

TEST(config, bad_overrides_quote_the_argument)
{
    static const struct {
        const char *arg, *where, *message;
    } c[] = {
        {"optim.lr=fast",
         "1:10: optim.lr: ", "expected a finite number, found \"fast\" (in 'optim.lr=fast')"},
        {"optim.lrr=1", "1:7: optim.lrr: ", "unknown key (did you mean lr?) (in 'optim.lrr=1')"},
        {"optm.lr=1", "1:1: optm.lr: ", "unknown key (did you mean optim?)"},
        {"train", "1:1: ", "expected section.key=value (in 'train')"},
        {"=3", "1:1: ", "expected section.key=value"},
        {"optim.=3", "1:6: optim.: ", "expected section.key"},
        {"data.train[5].path=x", "1:12: data.train[5].path: ", "no such index, the list has 1 entry"},
        {"data.train[0.path=x", "1:12: data.train[0.path: ", "expected section.key"},
        {"run.seed[0]=1", "1:5: run.seed[0]: ", "the list is empty"},
        {"data[0]=1", "1:1: data[0]: ", "data is not a list"},
        {"optim.groups=[{match: *a}]", "1:23: optim.groups[0].match: ", "no anchor"},
        {"optim.groups=[{match: [a]", "1:26: optim.groups: ", "not YAML"},
        {"~optim.lrr", "1:8: optim.lrr: ", "unknown key"},
        {"~optim.lr=3", "1:1: ", "without a value"},
        {"optim.state_dtype=int8", "1:19: optim.state_dtype: ", "not in this version"},
        {"+optim.groups=[{mach: [a], match: [b]}]", "1:17: optim.groups[0].mach: ", "did you mean match?"},
    };
    for (int i = 0; i < CFG_COUNT(c); i++) {
        Loaded l;
        load(&l, DOC, 1, &c[i].arg);
        ASSERT(!l.c && l.doc);
        const char *text = config_error_text(l.doc);
        if (!has_line(text, "<command line>", c[i].where, c[i].message) || count_lines(text) != 1)
            test_fail(__FILE__, __LINE__, "%s: wanted %s...%s, got %s", c[i].arg, c[i].where, c[i].message,
                      text);
        arena_free(&l.a);
    }
}

TEST(config, environment_is_between_file_and_command_line)
{
    setenv("PARE_OPTIM__LEARNING_RATE", "0.5", 1);
    setenv("PARE_EVAL__PERPLEXITY__PROTOCOL", "stride", 1);
    setenv("PARE_TRAIN__MAX_STEPS", "7", 1);
    const char *o[] = {"train.max_steps=9"};
    Loaded l;
    load(&l, DOC "optim: {lr: 1}\ntrain: {max_steps: 8}\n", 1, o);
    if (!l.c) test_fail(__FILE__, __LINE__, "%s", l.e.msg);
    ASSERT_EQ(l.c->optim.learning_rate, 0.5);
    ASSERT_STR(l.c->eval.perplexity.protocol, "stride");
    ASSERT_EQ(l.c->train.max_steps, 9);
    ASSERT_STR(config_node(l.doc, "optim.learning_rate")->origin, "environment");
    arena_free(&l.a);
    setenv("PARE_OPTIM__LERNING_RATE", "1", 1);
    load(&l, DOC, 0, NULL);
    ASSERT(!l.c && has_line(l.e.msg, "<environment>", "1:12: optim.lerning_rate: ", "learning_rate?"));
    arena_free(&l.a);
}

TEST(config, includes_are_under_the_file_in_order)
{
    write_file("one.yaml", "optim: {lr: 0.1, eps: 0.1}\nrun: {name: one, seed: 1}\n");
    write_file("two.yaml", "optim: {learning_rate: 0.2}\nrun: {name: two}\n");
    Loaded l;
    load(&l, "include: [one.yaml, two.yaml]\nrun: {name: main}\n" DOC, 0, NULL);
    if (!l.c) test_fail(__FILE__, __LINE__, "%s", l.e.msg);
    ASSERT_EQ(l.c->optim.learning_rate, 0.2);
    ASSERT_EQ(l.c->optim.eps, 0.1);
    ASSERT_STR(l.c->run.name, "main");
    ASSERT_EQ(l.c->run.seed, 1);
    arena_free(&l.a);
    write_file("one.yaml", "optim: {lr: slow}\n");
    load(&l, "include: [one.yaml]\n" DOC, 0, NULL);
    ASSERT(!l.c && strstr(l.e.msg, "/one.yaml:1:13: optim.lr: "));
    arena_free(&l.a);
    write_file("one.yaml", "include: [two.yaml]\n");
    write_file("two.yaml", "include: [one.yaml]\n");
    load(&l, "include: [one.yaml]\n" DOC, 0, NULL);
    ASSERT(!l.c && strstr(l.e.msg, "/two.yaml:1:11: include: cannot read") && strstr(l.e.msg, "circle"));
    ASSERT_EQ(count_lines(l.e.msg), 1);
    arena_free(&l.a);
    clean("one.yaml");
    clean("two.yaml");
}

TEST(config, interpolation_is_resolved_last)
{
    setenv("CONFIG_TEST_NAME", "from-env", 1);
    const char *o[] = {"model.path=mine", "optim.lr=0.25"};
    Loaded l;
    load(&l,
         "version: 1\nmodel: {path: m}\ndata: {train: [{path: \"${model.path}/t-$x\"}], seq_len: 128}\n"
         "run: {name: \"${env:CONFIG_TEST_NAME}\", output_dir: \"o/${run.name}/${optim.learning_rate}\"}\n"
         "tokenizer: {path: \"${model.path}\"}\nteacher: {path: \"${env:CONFIG_NOT_SET,a,b}\"}\n"
         "eval: {batch_size: \"${train.batch_size}\", generate: {prompts: [\"$${x} ${run.seed}\"]}}\n",
         2, o);
    if (!l.c) test_fail(__FILE__, __LINE__, "%s", l.e.msg);
    ASSERT_STR(l.c->data.train.v[0].path, "mine/t-$x");
    ASSERT_STR(l.c->run.output_dir, "o/from-env/0.25");
    ASSERT_STR(l.c->tokenizer.path, "mine");
    ASSERT_STR(l.c->teacher.path, "a,b");
    ASSERT_EQ(l.c->eval.batch_size, 8);
    ASSERT_STR(l.c->eval.generate.prompts.v[0], "${x} 42");
    arena_free(&l.a);
}

TEST(config, bombs_cost_little)
{
    char text[4096] = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
    for (int i = 1; i < 9; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text),
                 "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i - 1, i - 1, i - 1,
                 i - 1, i - 1, i - 1, i - 1, i - 1);
    Loaded l;
    load(&l, text, 0, NULL);
    ASSERT(!l.c && strstr(l.e.msg, "more than 10000 values"));
    ASSERT(l.a.reserved < 8u << 20);
    arena_free(&l.a);
    snprintf(text, sizeof text, "%s",
             DOC "run: {name: \"${teacher.path}${teacher.path}\", output_dir: x}\nteacher: {path: \""
                 "${tokenizer.path}${tokenizer.path}${tokenizer.path}\"}\ntokenizer: {path: \"");
    for (int i = 0; i < 100; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "${env:PWD,0123456789}");
    snprintf(text + strlen(text), sizeof text - strlen(text), "\"}\n");
    load(&l, text, 0, NULL);
    ASSERT(l.a.reserved < 8u << 20);
    arena_free(&l.a);
}

TEST(config, files_that_are_no_configuration)
{
    Arena a = {.name = "test"};
    Err e = {0};
    ConfigDoc *doc = NULL;
    ASSERT(!config_load(&a, "tests/no-such-file.yaml", 0, NULL, &doc, &e) && !doc);
    ASSERT_EQ((int)e.code, (int)ERR_USAGE);
    ASSERT(strstr(e.msg, "tests/no-such-file.yaml") && strstr(e.msg, "No such file"));
    e = (Err){0};
    ASSERT(!config_load(&a, "tests", 0, NULL, NULL, &e) && strstr(e.msg, "it is a folder"));
    e = (Err){0};
    ASSERT(!config_load(&a, "/dev/zero", 0, NULL, NULL, &e) && strstr(e.msg, "not a plain file"));
    size_t n = (1 << 20) + 1;
    char *big = arena_alloc(&a, n + 1, &(Err){0});
    memset(big, '#', n);
    e = (Err){0};
    ASSERT(!config_load(&a, write_file("big.yaml", big), 0, NULL, NULL, &e) &&
           strstr(e.msg, "larger than 1 MiB"));
    clean("big.yaml");
    arena_free(&a);
}

TEST(config, show_names_the_origin)
{
    const char *o[] = {"train.max_steps=3"};
    Loaded l;
    load(&l, DOC "optim: {lr: 1}\n", 1, o);
    ASSERT(l.c != NULL);
    const char *text = config_show(l.doc, config_section(), l.c, &l.a, &l.e);
    ASSERT(strstr(text, "max_steps: 3  # command line\n"));
    ASSERT(strstr(text, "c.yaml:4\n") && strstr(text, "  eps: 1e-08\n"));
    arena_free(&l.a);
}

TEST(config, arms_are_laid_over_the_file)
{
    const char *text = DOC
        "run: {recipe: distill, seed: 5}\nteacher: {path: t}\noptim: {lr: 1, eps: 0.1}\nseeds: [7, 8]\n"
        "arms:\n  distilled: {}\n  scratch: {run: {recipe: pretrain}, optim: {learning_rate: 2}}\n";
    const char *o[] = {"optim.eps=0.2", "run.seed=6"};
    Loaded l;
    load(&l, text, 2, o);
    if (!l.c) test_fail(__FILE__, __LINE__, "%s", l.e.msg);
    ASSERT_EQ(l.c->n_arm, 2);
    ASSERT_STR(l.c->arm[1], "scratch");
    ASSERT_EQ(l.c->seeds.v[1], 8);
    arena_free(&l.a);
    Arena a = {.name = "test"};
    Err e = {0};
    char *const *over = (char *const *)(uintptr_t)o;
    Config *c = config_load_arm(&a, write_file("c.yaml", text), 2, over, "scratch", 7, NULL, &e);
    if (!c) test_fail(__FILE__, __LINE__, "%s", e.msg);
    ASSERT_STR(c->run.recipe, "pretrain");
    ASSERT_EQ(c->run.seed, 7);
    ASSERT_EQ(c->optim.learning_rate, 2.0);
    ASSERT_EQ(c->optim.eps, 0.2);
    c = config_load_arm(&a, write_file("c.yaml", text), 2, over, "distilled", -1, NULL, &e);
    ASSERT(c != NULL);
    ASSERT_EQ(c->run.seed, 6);
    ASSERT_EQ(c->optim.learning_rate, 1.0);
    ASSERT(!config_load_arm(&a, write_file("c.yaml", text), 0, NULL, "other", 1, NULL, &e));
    ASSERT(strstr(e.msg, "arms.other: no such arm"));
    clean("c.yaml");
    arena_free(&a);
}

TEST(config, paths_are_beside_the_file_or_as_they_are)
{
    write_file("t.txt", "text");
    Loaded l = {.a = {.name = "test"}};
    const char *text =
        "version: 1\nmodel: {path: Makefile}\ndata: {train: [{path: t.txt}, {path: \"t*.txt\"}]}\n";
    l.c = config_load(&l.a, write_file("c.yaml", text), 0, NULL, &l.doc, &l.e);
    if (!l.c) test_fail(__FILE__, __LINE__, "%s", l.e.msg);
    ASSERT(strncmp(l.c->data.train.v[0].path, folder(), strlen(folder())) == 0);
    ASSERT(strncmp(l.c->data.train.v[1].path, folder(), strlen(folder())) == 0);
    ASSERT_STR(l.c->model.path, "Makefile");
    ASSERT(config_check_files(l.c));
    clean("t.txt");
    ASSERT(!config_check_files(l.c));
    ASSERT(has_line(config_error_text(l.doc), l.c->path, "3:23: data.train[0].path: ", "no such file"));
    ASSERT_EQ(config_error_count(l.doc), 2);
    clean("c.yaml");
    arena_free(&l.a);
}

TEST(config, command_line_alone_is_a_document)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const char *o[] = {"model.path=m", "+data.train=[{path: t}]"};
    Config *c = config_load(&a, NULL, 2, (char *const *)(uintptr_t)o, NULL, &e);
    if (!c) test_fail(__FILE__, __LINE__, "%s", e.msg);
    ASSERT_STR(c->model.path, "m");
    ASSERT_STR(c->run.name, "run");
    arena_free(&a);
}
