/* Tasks and perplexity protocols against transformers (tests/golden/make_tasks.py), example by example. */
#include "tests/test.h"
#include "train/train.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define STORIES "tests/data/stories/"

typedef struct Setting {
    Arena a;
    Err e;
    Model m;
    Tokenizer *tk;
    json_t *want;
} Setting;

static void open_stories(Setting *s)
{
    *s = (Setting){.a = {.name = "test"}};
    threads_init(1);
    ASSERT(model_open(&s->m, STORIES "stories260K.bin", kernels_cpu_f32(), &s->a, &s->e));
    s->tk = tokenizer_open(STORIES "tok512.model", &s->a, &s->e);
    s->want = json_load_file("tests/golden/tasks.json", 0, NULL);
    ASSERT(s->tk && s->want);
}

static void close_stories(Setting *s)
{
    json_decref(s->want);
    arena_free(&s->a);
}

/* One line of details against one of the fixture: sums to 5e-6 relative (float32 against float64). */
static void same_example(const json_t *want, const json_t *got)
{
    const json_t *ll = json_object_get(want, "ll"), *mine = json_object_get(got, "loglikelihood");
    ASSERT_EQ(json_array_size(ll), json_array_size(mine));
    ASSERT(json_equal(json_object_get(want, "tokens"), json_object_get(got, "tokens")));
    for (size_t i = 0; i < json_array_size(ll); i++)
        ASSERT_CLOSE(json_number_value(json_array_get(mine, i)), json_number_value(json_array_get(ll, i)),
                     5e-6, 1e-5);
    if (json_array_size(ll) == 1)
        ASSERT(json_equal(json_object_get(want, "greedy"), json_object_get(got, "greedy")));
    else {
        ASSERT(json_equal(json_object_get(want, "pred"), json_object_get(got, "pred")));
        ASSERT(json_equal(json_object_get(want, "label"), json_object_get(got, "label")));
    }
}

static void task_equals(Setting *s, const char *name, const char *file, const char *protocol)
{
    const char *details = arena_printf(&s->a, &s->e, "%s/details.jsonl", test_dir());
    TaskOptions o = {.name = name,
                     .path = arena_printf(&s->a, &s->e, "tests/data/tasks/%s", file),
                     .protocol = protocol,
                     .details = details};
    char *text = task_json(&s->m, s->tk, &o, &s->a, &s->e);
    ASSERT_MSG(text, "%s", s->e.msg);
    const json_t *want = json_object_get(s->want, arena_printf(&s->a, &s->e, "%s/%s", file, protocol));
    FILE *f = fopen(details, "r");
    ASSERT(f && json_array_size(want) > 0);
    double right = 0;
    for (size_t i = 0; i < json_array_size(want); i++) {
        json_t *got = json_loadf(f, JSON_DISABLE_EOF_CHECK, NULL);
        const json_t *w = json_array_get(want, i);
        ASSERT(got);
        same_example(w, got);
        right += json_array_size(json_object_get(w, "ll")) == 1
                     ? json_is_true(json_object_get(w, "greedy"))
                     : json_equal(json_object_get(w, "pred"), json_object_get(w, "label"));
        json_decref(got);
    }
    fclose(f);
    json_t *all = json_loads(text, 0, NULL);
    ASSERT_CLOSE(json_number_value(json_object_get(all, "acc")), right / (double)json_array_size(want), 0,
                 1e-9);
    json_decref(all);
}

TEST(tasks, hellaswag_by_three_protocols)
{
    Setting s;
    open_stories(&s);
    task_equals(&s, "hellaswag", "hellaswag.txt", "llm.c");
    task_equals(&s, "hellaswag", "hellaswag.txt", "llama.cpp");
    task_equals(&s, "hellaswag", "hellaswag.txt", "lm-eval");
    task_equals(&s, "hellaswag", "hellaswag.jsonl", "lm-eval");
    close_stories(&s);
}

TEST(tasks, lambada_and_multiple_choice)
{
    Setting s;
    open_stories(&s);
    task_equals(&s, "lambada", "lambada.jsonl", "lm-eval");
    task_equals(&s, "multiple_choice", "choice.jsonl", "lm-eval");
    close_stories(&s);
}

TEST(tasks, perplexity_by_protocol)
{
    Setting s;
    open_stories(&s);
    size_t bytes;
    char *text = file_read(&s.a, "tests/data/text/tinystories-train.txt", &bytes, &s.e);
    TokenBuf ids = {0};
    ASSERT(text && tokenizer_encode(s.tk, text, 40000, false, &ids, &s.a, &s.e) && ids.n >= 6000);
    const Tokens t = {.path = "stories", .id = ids.id, .n = 6000};
    Evaluator *ev = evaluator_new(&s.m, NULL, 8, 256, &s.a, &s.e);
    ASSERT(ev);
    static const char *const protocol[] = {"val", "concat-256", "stride", "llamacpp"};
    for (int i = 0; i < 4; i++) {
        EvalResult r;
        ASSERT_MSG(
            evaluator_run(ev, &t, tokenizer_bos(s.tk), protocol[i], 256, i == 2 ? 128 : 0, 0, &r, &s.e), "%s",
            s.e.msg);
        const json_t *w = json_object_get(s.want, arena_printf(&s.a, &s.e, "perplexity/%s", protocol[i]));
        ASSERT_EQ(r.tokens, json_integer_value(json_object_get(w, "tokens")));
        ASSERT_CLOSE(r.nll, json_number_value(json_object_get(w, "nll")), 1e-5, 0);
    }
    evaluator_free(ev);
    close_stories(&s);
}

static void refused(Setting *s, const char *name, const char *protocol, const char *content,
                    const char *message)
{
    const char *path = arena_printf(&s->a, &s->e, "%s/task.txt", test_dir());
    FILE *f = fopen(path, "w");
    ASSERT(f && fputs(content, f) >= 0 && !fclose(f));
    Err e = {0};
    char *got = task_json(&s->m, s->tk, &(TaskOptions){.name = name, .path = path, .protocol = protocol},
                          &s->a, &e);
    ASSERT(!got && e.code);
    ASSERT_CONTAINS(e.msg, message);
}

TEST(tasks, bad_files_are_refused_at_their_line)
{
    Setting s;
    open_stories(&s);
    refused(&s, "hellaswag", NULL, "context\n7\na\nb\nc\nd\n", "task.txt:2: ");
    refused(&s, "hellaswag", NULL, "context\n1\na\nb\n", "ends inside an example");
    refused(&s, "hellaswag", NULL, "{\"ctx_a\": \"x\"}\n", "task.txt:1: a HellaSwag line needs");
    refused(&s, "lambada", NULL, "{\"text\": \"two words\"}\n{\"text\": \"one\"}\n", "task.txt:2: ");
    refused(&s, "lambada", NULL, "{\"text\": \"two words\"}\n{\n", "task.txt:2: ");
    refused(&s, "lambada", "llm.c", "{\"text\": \"two words\"}\n", "scored by lm-eval only");
    refused(&s, "multiple_choice", NULL,
            "{\"question\": \"q\", \"choices\": [\"a\", \"b\"], \"answer\": 2}\n", "task.txt:1: the answer");
    refused(&s, "mmlu", NULL, "x", "--task mmlu: hellaswag, lambada and multiple_choice are known");
    refused(&s, "hellaswag", "elm", "x", "--protocol elm");
    refused(&s, "hellaswag", NULL, "\n\n", "holds no examples");
    close_stories(&s);
}
