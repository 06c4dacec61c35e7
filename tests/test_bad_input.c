/* tests/test_bad_input.c: what people feed the program by mistake, through the program: every message says
 * what, where and what to do; and the records of `eval --data` and `data` on the command line. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

#define TINY "tests/data/hf-tiny-llama"
#define STORIES "tests/data/stories/stories260K.bin"
#define TOK512 "tests/data/stories/tok512.model"

static json_t *evaluated(const char *const *args)
{
    Pare p = pare_run(&(PareOptions){.args = args});
    ASSERT_RAN(p, 0);
    return one_object(p.out);
}
#define JSON_OF(...) evaluated((const char *const[]){__VA_ARGS__, NULL})

/* Fails with code, and says all of these. */
#define REFUSED(code, what, where, todo, ...)                                                                \
    do {                                                                                                     \
        Pare p_ = PARE(ARGS(__VA_ARGS__));                                                                   \
        ASSERT_RAN(p_, code);                                                                                \
        ASSERT_STR(p_.out, "");                                                                              \
        ASSERT_CONTAINS(p_.err, what);                                                                       \
        ASSERT_CONTAINS(p_.err, where);                                                                      \
        ASSERT_CONTAINS(p_.err, todo);                                                                       \
    } while (0)

TEST(bad_input, tokenizer_of_another_model)
{
    char *bin = in_dir("ids.bin"), *text = in_dir("a.txt");
    const uint16_t ids[] = {1, 2, 3, 97, 5, 6, 7, 8};
    put_file(bin, ids, sizeof ids);
    put_text(text, "Once upon a time there was a cat. It sat on the mat.\n");
    REFUSED(3, "but the model's vocabulary has 97", "a.txt: token 0 is", "give the model's own (--tokenizer",
            "eval", TINY, "--data", text, "--tokenizer", "tests/data/llama2/tokenizer.model");
    REFUSED(2, "has 512 tokens, the model's vocabulary 97", "tok512.model", "--tokenizer", "generate", TINY,
            "-p", "a", "--tokenizer", TOK512);
    REFUSED(3, "token 3 is 97, but the vocabulary has 97", "ids.bin", "data.vocab_check: clip", "eval", TINY,
            "--data", bin);
    REFUSED(2, "a rank file holds neither pattern nor specials", "x.tiktoken", "set tokenizer.pattern",
            "eval", TINY, "--data", text, "--tokenizer",
            (put_text(in_dir("x.tiktoken"), "IQ== 0\nIg== 1\n"), in_dir("x.tiktoken")));
}

/* Copies `from` behind the tensors of a shard, under the name that the tensor has in another one. */
static void tensor_twice(const char *shard, const char *name, const char *data, size_t bytes)
{
    size_t n;
    char *s = get_file(shard, &n);
    uint64_t head;
    memcpy(&head, s, 8);
    const size_t payload = n - 8 - head;
    size_t end = 8 + head;
    while (s[end - 1] != '}') end--;
    char *more = text_of(",\"%s\":{\"dtype\":\"F32\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}}", name,
                         bytes / 4, payload, payload + bytes);
    const uint64_t size = (end - 9 + strlen(more) + 7) / 8 * 8;
    char *out = calloc(1, 8 + size + payload + bytes);
    memcpy(out, &size, 8);
    memset(out + 8, ' ', size);
    memcpy(out + 8, s + 8, end - 9);
    memcpy(out + end - 1, more, strlen(more));
    memcpy(out + 8 + size, s + 8 + head, payload);
    memcpy(out + 8 + size + payload, data, bytes);
    put_file(shard, out, 8 + size + payload + bytes);
    free(out);
}

TEST(bad_input, shards)
{
    char *d = in_dir("shards"), *second = in_dir("shards/model-00002-of-00005.safetensors");
    Pare p = PARE(ARGS("-q", "export", TINY, d, "--format", "hf", "--max-shard-size", "20KB"));
    ASSERT_RAN(p, 0);
    size_t n;
    char *keep = get_file(second, &n);
    tensor_twice(second, "lm_head.weight", keep + n - 16, 16);
    REFUSED(3, "`lm_head.weight` is in this shard too", "model-00002-of-00005.safetensors",
            "write the shards again", "inspect", d);
    put_file(second, keep, n);
    p = PARE(ARGS("-q", "inspect", d));
    ASSERT_RAN(p, 0);
    ASSERT(remove(second) == 0);
    REFUSED(3, "missing shard", "model-00002-of-00005.safetensors", "incomplete download", "export", d,
            in_dir("o.h5"));
    ASSERT(!exists(in_dir("o.h5")));
    char *s = get_file(TINY "/model.safetensors", &n), *hit = memmem(s, n, "\"F32\"", 5);
    ASSERT(hit);
    hit[2] = '9';
    char *one = in_dir("dtype.safetensors");
    put_file(one, s, n);
    REFUSED(3, "unknown dtype `F92`", "dtype.safetensors: tensor `", "save the tensor as F32", "inspect",
            one);
}

TEST(bad_input, records)
{
    char *bad = in_dir("bad.jsonl"), *chat = in_dir("chat.jsonl"), *out = in_dir("o.bin");
    put_text(bad, "{\"text\":\"one\"}\n{\"text\":\"\"}\n{\"text\":\"two\"\n{\"txt\":\"three\"}\n");
    put_text(chat, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\","
                   "\"content\":\"yo\"}]}\n"
                   "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}\n");
    REFUSED(3, "no valid JSON", "bad.jsonl:3:", "data.on_bad_line: skip", "-q", "data", "tokenize", bad,
            "--tokenizer", "bytes", "--out", out);
    ASSERT(!exists(out) && !exists(in_dir("o.bin.part")));
    Pare p = PARE(
        ARGS("data", "tokenize", bad, "--tokenizer", "bytes", "--out", out, "data.on_bad_line=skip"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "\"documents\": 1, \"empty\": 1, \"bad_lines\": 2");
    p = PARE(ARGS("data", "stats", bad, "--tokenizer", "bytes", "data.on_bad_line=skip", "data.seq_len=2"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "bad.jsonl: 2 of 3 records could not be read and are left out");
    ASSERT_CONTAINS(p.err, "bad.jsonl: 1 empty documents are left out");
    REFUSED(3, "no assistant turn", "chat.jsonl:2: field `messages`", "data.on_bad_line: skip", "-q", "data",
            "stats", chat, "--tokenizer", "bytes", "data.chat_template=zephyr");
    p = PARE(ARGS("data", "stats", chat, "--tokenizer", "bytes", "data.chat_template=zephyr",
                  "data.on_bad_line=skip", "data.seq_len=8"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "\"bad_lines\": 1");
    REFUSED(2, "needs a template and bytes has none", "chat.jsonl", "set data.chat_template", "data", "stats",
            chat, "--tokenizer", "bytes");
    put_file(in_dir("chat_template.jinja"), "{{ strange }}", 13);
    size_t n;
    char *model = get_file(TOK512, &n);
    put_file(in_dir("tokenizer.model"), model, n);
    REFUSED(2, "is not among those known", "tokenizer.model (hash dd3bb32548aad3c9fa2f3dca06727f0d)",
            "set data.chat_template to the one it stands for (chatml,", "data", "stats", chat, "--tokenizer",
            test_dir());
}

TEST(bad_input, long_documents)
{
    char *text = in_dir("long.txt");
    char words[1200] = "";
    for (size_t i = 0; i < 200; i++) memcpy(words + 5 * i, "once ", 5);
    put_text(text, words);
    char *d = tiny_dir("long"), *path = text_of("data.train[0]={path: %s}", text);
    const char *const set[] = {"train",
                               "c.yaml",
                               path,
                               "~data.val",
                               "~model.init",
                               text_of("model.path=%s", repo(STORIES)),
                               text_of("tokenizer.path=%s", repo(TOK512)),
                               "data.packing=pack"};
    Pare p = PARE(.dir = d, ARGS(set[0], set[1], set[2], set[3], set[4], set[5], set[6], set[7],
                                 "data.too_long=error"));
    ASSERT(p.rc != 0);
    ASSERT_CONTAINS(p.err, "long.txt: document 1 has ");
    ASSERT_CONTAINS(p.err, "more than seq_len ");
    ASSERT_CONTAINS(p.err, "data.too_long: error");
    p = PARE(.dir = d, ARGS(set[0], set[1], set[2], set[3], set[4], set[5], set[6], set[7],
                            "data.too_long=truncate", "train.max_steps=1"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "1 of 1 documents are longer than seq_len");
    ASSERT_CONTAINS(p.err, "tokens are cut off");
}

/* Prompts count nothing: two files that differ in their prompts' names alone, and one without prompts. */
TEST(bad_input, eval_reads_records)
{
    char *qa = in_dir("qa.jsonl"), *plain = in_dir("t.jsonl");
    put_text(qa, "{\"q\": \"Once upon a time\", \"a\": {\"b\": \" there was a cat.\"}}\n"
                 "{\"q\": \"The dog\", \"a\": {\"b\": \" sat on the mat.\"}}\n");
    put_text(plain,
             "{\"body\": \"Once upon a time there was a cat.\"}\n{\"body\": \"The dog sat on the mat.\"}\n");
    json_t *o = JSON_OF("eval", STORIES, "--data", qa, "--prompt-field", "q", "--response-field", "a.b",
                        "--tokenizer", TOK512, "--seq-len", "32", "--json");
    const double answers = field(o, "tokens");
    ASSERT_STR(json_string_value(json_object_get(o, "protocol")), "documents");
    o = JSON_OF("eval", STORIES, "--data", qa, "--prompt-field", "q", "--response-field", "a.b",
                "--tokenizer", TOK512, "--seq-len", "32", "--split", "train[:50%]", "--json");
    ASSERT(field(o, "tokens") > 0 && field(o, "tokens") < answers);
    o = JSON_OF("eval", STORIES, "--data", plain, "--field", "body", "--tokenizer", TOK512, "--seq-len", "16",
                "--json");
    ASSERT(field(o, "tokens") > answers);
    REFUSED(2, "no field `text`", "t.jsonl:1", "its fields are body: name one as `field`", "eval", STORIES,
            "--data", plain, "--tokenizer", TOK512, "--field", "text");
    /* a pattern for the vocabularies that do not say how they cut */
    char ranks[8192] = "";
    for (unsigned b = 0; b < 256; b++) { /* each byte's rank is the byte, `ab` is 256 */
        static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const size_t n = strlen(ranks);
        snprintf(ranks + n, sizeof ranks - n, "%c%c== %u\n", digit[b >> 2], digit[b << 4 & 63], b);
    }
    put_text(in_dir("x.tiktoken"), text_of("%sYWI= 256\n", ranks));
    Pare p = PARE(.in = "{\"text\": \"ab a\"}\n",
                  ARGS("data", "encode", "--tokenizer", in_dir("x.tiktoken"), "--pattern", "gpt2"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.out, "{\"ids\": [256, 32, 97]}\n");
    put_text(in_dir("ab.txt"), "ab a");
    p = PARE(ARGS("data", "tokenize", in_dir("ab.txt"), "--tokenizer", in_dir("x.tiktoken"), "--pattern",
                  "gpt2", "--out", in_dir("ab.bin"), "data.eot=none"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "\"tokens\": 3");
    REFUSED(3, "", "ab.txt: token 0 is 256", "the model's vocabulary has 97", "eval", TINY, "--data",
            in_dir("ab.txt"), "--tokenizer", in_dir("x.tiktoken"), "--pattern", "gpt2");
}
