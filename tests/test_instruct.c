/* tests/test_instruct.c: instruct tuning from end to end, through the program: chats and Alpaca records in a
 * chat template, answers alone trained, packed, with adapters; the loss on the set falls; the run is
 * evaluated, written as a PEFT folder, merged, exported, and asked what it was taught. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

#define TOK repo("tests/data/tiny-bpe-hf/tiny_bpe_tokenizer.json")
static const char *const said[][2] = {{"Who are you?", "I am a small model."},
                                      {"What is red?", "Red is a colour."},
                                      {"Say hello.", "Hello, my friend!"},
                                      {"Count to three.", "One, two, three."}};

/* A base whose folder has a chat template: some steps of stories, ChatML's text from the fixture. */
static void make_base(const char *d)
{
    json_t *all = kept(json_load_file("tests/data/instruct/chat.json", 0, NULL)), *t;
    size_t i;
    put_text(
        text_of("%s/pre.yaml", d),
        text_of("version: 1\nrun: {recipe: pretrain, output_dir: pre, seed: 1}\ndevice: {threads: 1}\n"
                "tokenizer: {path: %s}\n"
                "model: {init: {arch: llama, hidden_size: 48, num_hidden_layers: 2, num_attention_heads: 4,\n"
                "  intermediate_size: 96, max_position_embeddings: 128, initializer_range: 0.08}}\n"
                "data: {train: [{path: %s, split: 'train[:60000b]'}], seq_len: 64}\n"
                "train: {max_steps: 30, batch_size: 4}\noptim: {learning_rate: 1e-2}\n"
                "export: [{format: hf, path: base}]\n",
                TOK, repo("tests/data/text/tinystories-train.txt")));
    Pare p = PARE(.dir = d, ARGS("train", "pre.yaml"));
    ASSERT_RAN(p, 0);
    json_array_foreach(all, i, t) if (!strcmp(json_string_value(json_object_get(t, "name")), "chatml"))
        put_text(text_of("%s/pre/export/base/chat_template.jinja", d),
                 json_string_value(json_object_get(t, "template")));
    ASSERT(exists(text_of("%s/pre/export/base/chat_template.jinja", d)));
}

static void put_chats(const char *d, bool alpaca)
{
    char *text = text_of("%s", "");
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        text = alpaca ? text_of("%s{\"instruction\": \"%s\", \"input\": \"\", \"output\": \"%s\"}\n", text,
                                said[i][0], said[i][1])
                      : text_of("%s{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}, "
                                "{\"role\": \"assistant\", \"content\": \"%s\"}]}\n",
                                text, said[i][0], said[i][1]);
    put_text(text_of("%s/chats.jsonl", d), text);
}

/* configs/chat-lora.yaml on four conversations, which it may learn by heart. */
static void tune(const char *d, const char *more)
{
    Pare p = PARE(.dir = d, ARGS("train", repo("configs/chat-lora.yaml"), "run.output_dir=run",
                                 "model.path=pre/export/base", "data.train[0].path=chats.jsonl",
                                 "data.train[0].split=train[:100%]", "data.val[0].path=chats.jsonl",
                                 "data.val[0].split=train[:100%]", "data.seq_len=64", "train.batch_size=1",
                                 "train.gradient_accumulation_steps=1", "train.epochs=1000",
                                 "train.max_steps=80", "optim.learning_rate=1e-2", "lora.dropout=0",
                                 "lora.modules_to_save=[embed_tokens, lm_head]", "eval.every_steps=40",
                                 "eval.generate.prompts=[What is red?]", "eval.generate.max_new_tokens=24",
                                 "device.threads=1", more));
    ASSERT_RAN(p, 0);
}

static double loss_of(const char *d, const char *model, const char *adapter)
{
    Pare p = PARE(.dir = d, ARGS("eval", model, "--data", "chats.jsonl", "--seq-len", "64", "--json",
                                 adapter ? "--adapter" : NULL, adapter));
    ASSERT_RAN(p, 0);
    return field(one_object(p.out), "nll");
}

static void from_end_to_end(const char *name, bool alpaca)
{
    char *d = make_dir(name);
    make_base(d);
    put_chats(d, alpaca);
    tune(d, NULL);
    /* the run's own numbers: first evaluation, last */
    char *log = events(text_of("%s/run/metrics.jsonl", d), "eval");
    const json_t *first = kept(json_loads(next_line(&log), 0, NULL)),
                 *last = last_event(text_of("%s/run/metrics.jsonl", d), "eval");
    const double before = field(first, "loss"), after = field(last, "loss");
    ASSERT_MSG(after < 0.1 && before > 3, "loss from %g to %g", before, after);
    ASSERT_CONTAINS(get_file(text_of("%s/run/samples/step_80.txt", d), NULL), said[1][1]);
    /* the state, the adapter on its base, the merged folder, its export: one function */
    const double state = loss_of(d, "run", NULL);
    ASSERT_CLOSE(state, after, 1e-5, 1e-6);
    Pare p = PARE(.dir = d, ARGS("export", "run", "adapter", "--format", "peft"));
    ASSERT_RAN(p, 0);
    ASSERT_CLOSE(loss_of(d, "pre/export/base", "adapter"), state, 1e-4, 1e-6);
    ASSERT_CLOSE(loss_of(d, "pre/export/base", NULL), before, 1e-5, 0);
    p = PARE(.dir = d, ARGS("merge", "pre/export/base", "adapter", "merged"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("export", "merged", "last", "--format", "hf", "--dtype", "bfloat16"));
    ASSERT_RAN(p, 0);
    ASSERT_CLOSE(loss_of(d, "merged", NULL), state, 1e-4, 1e-6);
    ASSERT_CLOSE(loss_of(d, "last", NULL), state, 0.2, 1e-2);
    /* asked, each answers as it was taught; the base does not */
    for (size_t i = 0; i < 4; i++) {
        p = PARE(.dir = d, ARGS("generate", "last", "--chat", "-p", said[i][0], "-n", "24", "--temp", "0"));
        ASSERT_RAN(p, 0);
        ASSERT_STR(p.out, text_of("%s\n", said[i][1]));
    }
    p = PARE(.dir = d, ARGS("generate", "pre/export/base", "--adapter", "adapter", "--chat", "-p", said[0][0],
                            "-n", "24", "--temp", "0"));
    ASSERT_STR(p.out, text_of("%s\n", said[0][1]));
    p = PARE(.dir = d,
             ARGS("generate", "pre/export/base", "--chat", "-p", said[0][0], "-n", "24", "--temp", "0"));
    ASSERT_RAN(p, 0);
    ASSERT(!strstr(p.out, said[0][1]));
}
TEST(instruct, chats_from_end_to_end) { from_end_to_end("chats", false); }
TEST(instruct, alpaca_from_end_to_end) { from_end_to_end("alpaca", true); }

/* Questions for samples need a template. */
TEST(instruct, samples_need_a_template)
{
    char *d = make_dir("t");
    put_chats(d, true);
    Pare p = PARE(.dir = d, ARGS("train", repo("configs/chat-lora.yaml"), "run.output_dir=run",
                                 text_of("model.path=%s", repo("tests/data/stories/stories260K.bin")),
                                 text_of("tokenizer.path=%s", repo("tests/data/stories/tok512.model")),
                                 "data.train[0].path=chats.jsonl", "data.train[0].split=train[:100%]",
                                 "data.val[0].path=chats.jsonl", "data.val[0].split=train[:100%]",
                                 "data.seq_len=256", "train.max_steps=2"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "chat-lora.yaml:43:11: eval.generate.chat: ");
    ASSERT_CONTAINS(p.err, "has no chat template");
}
