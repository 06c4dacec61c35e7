/* tests/test_cli.c: the command line as scripts see it (product page 5): exit codes, one JSON object on
 * stdout and nothing else there, help from the tables; and bad input: each with a message that names file and
 * fault, its exit code, and nothing written. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"

#define STORIES "tests/data/stories/stories260K.bin"
#define TINY "tests/data/hf-tiny-llama"

static const char *const verbs[] = {"train", "finetune", "distill", "validate", "config", "eval", "generate",
                                    "probe", "compare",  "inspect", "export",   "import", "data", "doctor"};
enum { N_VERBS = sizeof verbs / sizeof *verbs };

static bool same(const char *a, const char *b) { return a && b && !strcmp(a, b); }
static const char *text_field(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

/* ---- help, verbs, options ---------------------------------------------------------------------------- */

TEST(cli, help_of_every_verb)
{
    Pare p = PARE(ARGS("--help"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.err, "");
    ASSERT_CONTAINS(p.out, "usage: pare");
    for (int i = 0; i < N_VERBS; i++) {
        ASSERT_CONTAINS(p.out, text_of("\n  %-9s ", verbs[i]));
        Pare v = PARE(ARGS(verbs[i], "--help"));
        ASSERT_RAN(v, 0);
        ASSERT_STR(v.err, "");
        ASSERT_CONTAINS(v.out, text_of("usage: pare %s", verbs[i]));
    }
    Pare t = PARE(ARGS("train", "c.yaml", "-h"));
    ASSERT_RAN(t, 0);
    static const char *const option[] = {"--resume", "--steps", "--overwrite", "--dry-run, -n", "--json"};
    for (int i = 0; i < 5; i++) ASSERT_CONTAINS(t.out, option[i]);
    p = PARE(ARGS("--version"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.out, text_of("%s\n", pare_version()));
}

/* Wrong use: exit 2, a line on stderr that says what to do, nothing on stdout. */
TEST(cli, usage_errors)
{
    static const struct {
        const char *args[9], *says;
    } bad[] = {
        {{NULL}, "usage: pare"},
        {{"trian"}, "trian: no such verb (did you mean train?)"},
        {{"generat"}, "did you mean generate?"},
        {{"xyzzy"}, "xyzzy: no such verb; see `pare --help`"},
        {{"--frob"}, "--frob: unknown option"},
        {{"train", "--resum"}, "--resum: unknown option of `pare train` (did you mean --resume?)"},
        {{"eval", STORIES, "--dta", "x"}, "did you mean --data?"},
        {{"eval", STORIES, "--data"}, "--data needs a value"},
        {{"eval", STORIES, "--json=yes"}, "--json takes no value"},
        {{"eval", STORIES, "--data", "README.md", "--tokenizer", "bytes", "--seq-len", "many"},
         "--seq-len: \"many\" is not a whole number"},
        {{"eval"}, "usage: pare eval CONFIG|MODEL"},
        {{"eval", STORIES}, "eval needs --data"},
        {{"compare", STORIES}, "usage: pare compare A B"},
        {{"compare", "a", "b", "c"}, "usage: pare compare A B"},
        {{"inspect"}, "usage: pare inspect FILE"},
        {{"probe", STORIES}, "probe needs --input"},
        {{"export", STORIES, "/nowhere/x", "--format", "gguf"}, "not in this version"},
        {{"export", STORIES, "/nowhere/x", "--dtype", "int8"}, "--dtype int8"},
        {{"data", "tokenise", "--tokenizer", "bytes"}, "data tokenise"},
        {{"data", "encode"}, "--tokenizer"},
        {{"generate", STORIES, "--temp", "-1"}, "--temp: -1 is not from 0 to 100"},
        {{"config", "shwo", "x"}, "config show CONFIG"},
        {{"train", "--arms"}, "--arms needs a config file"},
        {{"eval", STORIES, "--data", "README.md", "--tokenizer", "bytes", "--protocol"}, "--protocol needs"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Pare p = pare_run(&(PareOptions){.args = bad[i].args});
        ASSERT_RAN(p, 2);
        ASSERT_STR(p.out, "");
        ASSERT_CONTAINS(p.err, bad[i].says);
    }
}

/* ---- the contract for scripts ------------------------------------------------------------------------ */

static json_t *json_of(const char *const *args)
{
    Pare p = pare_run(&(PareOptions){.args = args});
    ASSERT_RAN(p, 0);
    ASSERT_MSG(!strchr(p.err, '{'), "JSON on stderr: %s", p.err);
    return one_object(p.out);
}
#define JSON_OF(...) json_of((const char *const[]){__VA_ARGS__, NULL})

TEST(cli, eval_contract)
{
    char *data = in_dir("d.txt");
    put_text(data, "Once upon a time there was a cat. It sat on the mat and slept.\n");
    json_t *o = JSON_OF("eval", STORIES, "--data", data, "--tokenizer", "tests/data/stories/tok512.model",
                        "--seq-len", "16", "--against", "tests/data/stories/stories260K.safetensors",
                        "--json");
    ASSERT_STR(text_field(o, "model"), STORIES);
    ASSERT_STR(text_field(o, "data"), data);
    ASSERT_STR(text_field(o, "protocol"), "val");
    ASSERT(field(o, "tokens") > 16);
    ASSERT_CLOSE(field(o, "perplexity"), exp(field(o, "nll")), 1e-8, 0);
    double bytes = (double)strlen("Once upon a time there was a cat. It sat on the mat and slept.\n");
    ASSERT_CLOSE(field(o, "bits_per_byte"), field(o, "nll") * field(o, "tokens") / log(2) / bytes, 1e-6, 0);
    ASSERT_CLOSE(field(o, "kl"), 0, 0, 1e-9);
    ASSERT_CLOSE(field(o, "top1_agreement"), 1, 0, 0);
    /* token files need no tokenizer; there are no bytes to speak of */
    char *bin = in_dir("d.bin");
    uint16_t t[200];
    for (int i = 0; i < 200; i++) t[i] = (uint16_t)(i % 97);
    put_file(bin, t, sizeof t);
    o = JSON_OF("eval", TINY, "--data", bin, "--protocol", "concat-32", "--json");
    ASSERT_STR(text_field(o, "protocol"), "concat-32");
    ASSERT_EQ((int)field(o, "tokens"), 200 / 32 * 31);
    ASSERT(json_is_null(json_object_get(o, "bits_per_byte")));
    ASSERT(!json_object_get(o, "kl"));
}

TEST(cli, generate_contract)
{
    Pare p = PARE(ARGS("generate", STORIES, "--tokenizer", "tests/data/stories/tok512.model", "-p",
                       "Once upon a time", "-n", "20", "--temp", "0"));
    ASSERT_RAN(p, 0);
    size_t n;
    char *gold = get_file("tests/data/stories/stories260K.greedy200.txt", &n);
    size_t len = strlen(p.out);
    ASSERT(len > 20 && p.out[len - 1] == '\n' && p.out[len - 2] != '\n');
    ASSERT(!strncmp(p.out, gold, len - 1));
    ASSERT_CONTAINS(p.err, "tok/s");
    json_t *o = JSON_OF("generate", STORIES, "--tokenizer", "tests/data/stories/tok512.model", "-p",
                        "Once upon a time", "-n", "20", "--temp", "0", "--json");
    ASSERT_STR(text_of("%s\n", text_field(o, "text")), p.out);
    size_t ids = json_array_size(json_object_get(o, "ids"));
    ASSERT_EQ((double)ids, field(o, "prompt_tokens") + 20);
    ASSERT_EQ((int)json_integer_value(json_array_get(json_object_get(o, "ids"), 0)), 1);
    ASSERT(field(o, "tokens_per_second") > 0);
    p = PARE(ARGS("-q", "generate", STORIES, "--tokenizer", "tests/data/stories/tok512.model", "-p", "", "-n",
                  "3", "--temp", "0"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.err, "");
}

/* Writes a safetensors file with I32 tensors of shape [rows,cols]. */
static void ids_file(const char *path, int rows, int cols, const int32_t *ids, const int32_t *labels)
{
    size_t n = (size_t)(rows * cols) * 4;
    char *head = text_of("{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[%d,%d],\"data_offsets\":[0,%zu]}",
                         rows, cols, n);
    char *more = labels ? text_of(
                              ",\"labels\":{\"dtype\":\"I32\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}}",
                              rows, cols, n, 2 * n)
                        : text_of("}");
    head = text_of("%s%s", head, more);
    uint64_t len = (strlen(head) + 7) / 8 * 8;
    char *file = calloc(1, 8 + len + 2 * n);
    memcpy(file, &len, 8);
    memset(file + 8, ' ', len);
    memcpy(file + 8, head, strlen(head));
    memcpy(file + 8 + len, ids, n);
    if (labels) memcpy(file + 8 + len + n, labels, n);
    put_file(path, file, 8 + len + (labels ? 2 : 1) * n);
    free(file);
}

TEST(cli, probe_contract)
{
    int32_t ids[8] = {1, 5, 9, 2, 7, 3, 96, 0}, labels[8] = {5, -100, 2, 4, -100, -100, 0, 1};
    char *file = in_dir("in.safetensors"), *out = in_dir("out.safetensors");
    for (int own = 0; own < 2; own++) {
        ids_file(file, 2, 4, ids, own ? labels : NULL);
        Pare p = PARE(ARGS("probe", TINY, "--input", file, "--out", out, "--grad", "--taps", "layers.*.out"));
        ASSERT_RAN(p, 0);
        ASSERT_STR(p.out, "");
        Arena a = {.name = "probe"};
        Err e = {0};
        TensorFile f;
        ASSERT(formats_open(&f, out, &a, &e));
        const FileTensor *z = formats_find(&f, "logits"), *nll = formats_find(&f, "nll"),
                         *loss = formats_find(&f, "loss");
        ASSERT(z && nll && loss && z->dtype == DT_F32);
        ASSERT(z->ndim == 3 && z->dim[0] == 2 && z->dim[1] == 4 && z->dim[2] == 97);
        float each[8], mean;
        ASSERT(formats_read_f32(&f, nll, each, &e) && formats_read_f32(&f, loss, &mean, &e));
        double sum = 0;
        int count = 0;
        for (int i = 0; i < 8; i++) {
            bool scored = own ? labels[i] >= 0 : i % 4 != 3;
            ASSERT_EQ(each[i] > 0, scored);
            if (!scored) ASSERT_EQ((double)each[i], 0.0);
            sum += (double)each[i];
            count += scored;
        }
        ASSERT_CLOSE((double)mean, sum / count, 1e-6, 0);
        const FileTensor *g = formats_find(&f, "grad.model.layers.0.self_attn.q_proj.weight");
        ASSERT(g && g->ndim == 2);
        ASSERT(formats_find(&f, "tap.layers.0.out") || formats_find(&f, "tap.student.layers.0.out"));
        formats_close(&f);
        arena_free(&a);
    }
}

TEST(cli, data_contract)
{
    Pare p = PARE(.in = "{\"text\": \"Once upon a time\"}\n{\"text\": \"caf\\u00e9 \\n x\"}\n",
                  ARGS("data", "encode", "--tokenizer", "tests/data/stories/tok512.model"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.err, "");
    ASSERT(!strncmp(p.out, "{\"ids\": [1, ", 12));
    Pare q = PARE(.in = p.out, ARGS("data", "decode", "--tokenizer", "tests/data/stories/tok512.model"));
    ASSERT_RAN(q, 0);
    ASSERT_STR(q.out, "{\"text\": \"Once upon a time\"}\n{\"text\": \"caf\303\251 \\n x\"}\n");
    q = PARE(.in = "{\"text\": \"Hi\"}\n", ARGS("data", "encode", "--tokenizer", "bytes", "--no-bos"));
    ASSERT_RAN(q, 0);
    ASSERT_STR(q.out, "{\"ids\": [72, 105]}\n");
    static const struct {
        const char *verb, *in, *says;
        int rc;
    } bad[] = {
        {"encode", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n", "stdin:2: no \"text\" string", 2},
        {"encode", "{\"text\": \"a\"}\nnonsense\n", "stdin:2:", 2},
        {"encode", "{\"text\": \"\377\"}\n", "stdin:1:", 2},
        {"decode", "{\"ids\": [1, 2]}\n{\"ids\": [1, 257]}\n", "stdin:2: ids[1]", 2},
        {"decode", "{\"ids\": [1.5]}\n", "stdin:1: ids[0]", 2},
        {"decode", "{\"ids\": 3}\n", "stdin:1: no \"ids\" array", 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        p = PARE(.in = bad[i].in, ARGS("data", bad[i].verb, "--tokenizer", "bytes"));
        ASSERT_RAN(p, bad[i].rc);
        ASSERT_CONTAINS(p.err, bad[i].says);
    }
}

TEST(cli, inspect_and_compare_contract)
{
    json_t *o = JSON_OF("inspect", STORIES, "--json");
    ASSERT_STR(text_field(o, "format"), "llama2c");
    ASSERT_STR(text_field(o, "arch"), "llama");
    ASSERT_EQ((long)field(o, "parameters"), 260032);
    json_t *first = json_array_get(json_object_get(o, "tensors"), 0);
    static const char *const key[] = {"name", "shape", "dtype", "encoding", "bytes", "nonzero"};
    for (int i = 0; i < 6; i++) ASSERT_MSG(json_object_get(first, key[i]) != NULL, "no %s", key[i]);
    ASSERT(field(o, "bytes") > 0);
    o = JSON_OF("compare", STORIES, "tests/data/stories/stories260K.safetensors", "--json");
    ASSERT(json_is_true(json_object_get(o, "all_equal")));
    first = json_array_get(json_object_get(o, "tensors"), 0);
    ASSERT(text_field(first, "name") && json_is_true(json_object_get(first, "equal")));
    ASSERT_EQ(field(first, "max_abs") + field(first, "rel_l2"), 0.0);
    /* two models apart: exit 0 whenever both were read, and each tensor's lack is said */
    o = JSON_OF("compare", TINY, "tests/data/hf-tiny-gpt2", "--json");
    ASSERT(json_is_false(json_object_get(o, "all_equal")));
    size_t i;
    json_t *t;
    bool a = false, b = false;
    json_array_foreach(json_object_get(o, "tensors"), i, t)
    {
        a = a || same(text_field(t, "only_in"), "A");
        b = b || same(text_field(t, "only_in"), "B");
    }
    ASSERT(a && b);
}

TEST(cli, export_and_back)
{
    static const char *const out[] = {"m.h5", "m.bin", "m.safetensors", "folder"};
    for (int i = 0; i < 4; i++) {
        Pare p = PARE(ARGS("export", STORIES, in_dir(out[i]), "-n"));
        ASSERT_RAN(p, 0);
        ASSERT(!exists(in_dir(out[i])));
        p = PARE(ARGS("export", STORIES, in_dir(out[i])));
        ASSERT_RAN(p, 0);
        ASSERT_STR(p.out, "");
        json_t *o = JSON_OF("compare", STORIES, in_dir(out[i]), "--json");
        ASSERT(json_is_true(json_object_get(o, "all_equal")));
    }
}

TEST(cli, train_contract)
{
    char *d = tiny_dir("a");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "--json"));
    ASSERT_RAN(p, 0);
    json_t *o = one_object(p.out);
    ASSERT_STR(text_field(o, "status"), "done");
    ASSERT_EQ((int)field(o, "step"), 12);
    ASSERT(exists(text_of("%s/%s", d, text_field(o, "checkpoint"))));
    ASSERT(field(o, "loss") > 0 && field(o, "perplexity") > 1);
    p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.out, "");
    char *e = tiny_dir("b");
    p = PARE(.dir = e, ARGS("train", "c.yaml", "--dry-run"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.out, "");
    ASSERT_CONTAINS(p.err, "nothing was written");
    ASSERT(!exists(text_of("%s/run", e)));
    /* the run's folder stands for its newest checkpoint, and the effective model is what is seen */
    p = PARE(.dir = d, ARGS("compare", "run", "run/checkpoints/step_00000012.h5"));
    ASSERT_RAN(p, 0);
    ASSERT(json_is_true(json_object_get(one_object(p.out), "all_equal")));
    p = PARE(.dir = d, ARGS("eval", "c.yaml", "--json"));
    ASSERT_RAN(p, 0);
    json_t *last = last_event(text_of("%s/run/metrics.jsonl", d), "eval");
    ASSERT_CLOSE(field(one_object(p.out), "nll"), field(last, "loss"), 1e-6, 0);
    p = PARE(.dir = d, ARGS("validate", "c.yaml"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "c.yaml: ok");
    p = PARE(.dir = d, ARGS("config", "show", "c.yaml", "train.batch_size=2"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "batch_size");
    ASSERT_RAN(PARE(ARGS("config", "schema")), 0);
    o = JSON_OF("doctor", "--json");
    ASSERT_CONTAINS(text_field(o, "self-test"), "ok");
}

/* A result that does not reach its file is a failure, whichever verb prints it. */
TEST(cli, full_standard_output)
{
    static const char *const call[][9] = {
        {"--help"},
        {"train", "--help"},
        {"--version"},
        {"inspect", TINY},
        {"inspect", TINY, "--json"},
        {"compare", TINY, TINY},
        {"config", "schema"},
        {"generate", STORIES, "--tokenizer", "tests/data/stories/tok512.model", "-n", "3"},
        {"data", "encode", "--tokenizer", "bytes"},
    };
    for (size_t i = 0; i < sizeof call / sizeof *call; i++) {
        Pare p = PARE(.out = "/dev/full", .in = "{\"text\": \"a\"}\n", .args = call[i]);
        ASSERT_RAN(p, 1);
        ASSERT_CONTAINS(p.err, "writing to standard output failed");
    }
}

/* ---- bad input --------------------------------------------------------------------------------------- */

/* Runs the tiny config with changes; it must fail with rc and both texts, and write nothing. */
static void refused(const char *change, const char *change2, int rc, const char *names, const char *says)
{
    static int number;
    char *d = tiny_dir(text_of("bad%d", number++));
    char *bin = text_of("%s/empty.bin", d), *txt = text_of("%s/empty.txt", d);
    put_text(bin, "");
    put_text(txt, "");
    uint16_t t[64] = {0};
    t[40] = 64;
    put_file(text_of("%s/range.bin", d), t, sizeof t);
    put_file(text_of("%s/short.bin", d), t, 20);
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", change, change2 ? change2 : "run.seed=3"));
    if (p.rc != rc) fprintf(stderr, "with %s %s:\n", change, change2 ? change2 : "");
    ASSERT_RAN(p, rc);
    ASSERT_STR(p.out, "");
    ASSERT_CONTAINS(p.err, names);
    ASSERT_CONTAINS(p.err, says);
    ASSERT_MSG(!exists(text_of("%s/run", d)), "%s: something was written", change);
}

TEST(cli, bad_configs)
{
    refused("data.train[0].path=missing.bin", NULL, 2, "data.train[0].path", "no such file: missing.bin");
    refused("train.batch_sise=3", NULL, 2, "train.batch_sise", "did you mean batch_size");
    refused("train.batch_size=many", NULL, 2, "train.batch_size", "many");
    refused("train.batch_size=0", NULL, 2, "train.batch_size", "1");
    refused("optim.learning_rate=nan", NULL, 2, "optim.learning_rate", "nan");
    refused("run.recipe=distill", NULL, 2, "teacher.path", "required");
    refused("model.freeze=[model.layers.9.*]", NULL, 2, "model.layers.9.*", "no parameter matches");
    /* all at once, with place */
    char *d = tiny_dir("many");
    put_text(text_of("%s/b.yaml", d), "version: 1\nrun: {recipe: pretrain}\ntrain: {btach_size: 2}\n"
                                      "data: {train: [{path: nowhere.bin}], seq_len: -1}\n");
    Pare p = PARE(.dir = d, ARGS("validate", "b.yaml"));
    ASSERT_RAN(p, 2);
    ASSERT_STR(p.out, "");
    ASSERT_CONTAINS(p.err, "b.yaml:3:9: train.btach_size");
    ASSERT_CONTAINS(p.err, "did you mean batch_size");
    ASSERT_CONTAINS(p.err, "b.yaml:4:47: data.seq_len");
    p = PARE(.dir = d, ARGS("train", "missing.yaml"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "missing.yaml: cannot read");
}

TEST(cli, bad_data)
{
    refused("data.train[0].path=empty.bin", NULL, 1, "empty.bin", "no tokens");
    refused("data.train[0].path=short.bin", NULL, 1, "short.bin", "too few for one sample");
    refused("data.train[0].path=range.bin", NULL, 3, "range.bin", "token 40 is 64");
    refused("data.val[0].path=range.bin", NULL, 3, "range.bin", "64");
    refused("data.val[0].split='train[:0%]'", NULL, 1, "data.val", "no tokens");
    refused("data.train[0].path=empty.txt", "data.train[0].format=text", 2, "empty.txt", "needs a tokenizer");
    refused("data.train[0]={path: empty.txt, format: text}", "tokenizer.path=bytes", 2, "bytes",
            "the model's vocabulary only 64");
    refused("data.seq_len=64", "model.init.arch=gpt2", 2, "data.seq_len: ", "32 positions");
    refused("tokenizer.path=missing.model", NULL, 2, "tokenizer.path", "missing.model");
    /* ids and labels of a probe */
    int32_t ids[8] = {1, 2, 3, 97, 1, 2, 3, 4}, good[8] = {1, 2, 3, 4, 5, 6, 7, 8}, masked[8];
    for (int i = 0; i < 8; i++) masked[i] = -100;
    char *in = in_dir("in.safetensors"), *out = in_dir("out.safetensors");
    static const char *const says[] = {"input_ids[3] = 97 is outside the vocabulary of 97",
                                       "every label is masked", "labels[3] = 97"};
    for (int i = 0; i < 3; i++) {
        ids_file(in, 2, 4, i ? good : ids, i == 1 ? masked : i == 2 ? ids : NULL);
        Pare p = PARE(ARGS("probe", TINY, "--input", in, "--out", out));
        ASSERT_RAN(p, 2);
        ASSERT_CONTAINS(p.err, in);
        ASSERT_CONTAINS(p.err, says[i]);
        ASSERT(!exists(out));
    }
    ids_file(in, 1, 4, (const int32_t[]){1, 2, 3, 4}, NULL);
    Pare p = PARE(ARGS("eval", TINY, "--data", in_dir("nothing.bin")));
    ASSERT_RAN(p, 1);
    ASSERT_CONTAINS(p.err, "nothing.bin");
    static const int32_t row[4096];
    ids_file(in, 1, 4096, row, NULL);
    p = PARE(ARGS("probe", TINY, "--input", in, "--out", out));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "4096 tokens in a row");
    p = PARE(ARGS("eval", TINY, "--data", "README.md", "--tokenizer", "bytes"));
    ASSERT_RAN(p, 3);
    ASSERT_CONTAINS(p.err, "README.md");
    ASSERT_CONTAINS(p.err, "the model's vocabulary has 97");
}

/* A copy of a folder of test data with its weights changed. */
static char *broken_model(const char *name, int kind)
{
    char *d = make_dir(name);
    size_t n, m;
    char *config = get_file(TINY "/config.json", &m), *s = get_file(TINY "/model.safetensors", &n);
    ASSERT(config && s);
    put_file(text_of("%s/config.json", d), config, m);
    uint64_t head;
    memcpy(&head, s, 8);
    const uint32_t nan_bits = 0x7fc00000, inf_bits = 0x7f800000;
    if (kind == 0) n -= 100;
    else if (kind == 1) n = 5;
    else if (kind == 2) memcpy(s + 8 + head + 400, &nan_bits, 4);
    else if (kind == 3) memcpy(s + 8 + head + 400, &inf_bits, 4);
    else if (kind == 4) s[8] = 'x';
    else n = 0;
    put_file(text_of("%s/model.safetensors", d), s, n);
    return d;
}

TEST(cli, bad_models)
{
    static const char *const says[] = {"", "", "NaN", "infinity", "", ""};
    for (int kind = 0; kind < 6; kind++) {
        char *d = broken_model(text_of("m%d", kind), kind), *out = in_dir("out.h5");
        Pare p = PARE(ARGS("export", d, out));
        ASSERT_RAN(p, 3);
        ASSERT_STR(p.out, "");
        ASSERT_CONTAINS(p.err, kind == 2 || kind == 3 ? "tensor lm_head.weight" : "model.safetensors");
        ASSERT_CONTAINS(p.err, says[kind]);
        ASSERT(!exists(out));
        char *path = text_of("model.path=%s", d);
        p = PARE(.dir = tiny_dir(text_of("r%d", kind)), ARGS("train", "c.yaml", "~model.init", path));
        ASSERT_RAN(p, 3);
        ASSERT(!exists(in_dir(text_of("r%d/run", kind))));
    }
    Pare p = PARE(ARGS("inspect", in_dir("none.h5")));
    ASSERT_RAN(p, 1);
    ASSERT_CONTAINS(p.err, "none.h5");
    p = PARE(ARGS("inspect", "Makefile"));
    ASSERT(p.rc == 2 || p.rc == 3);
    ASSERT_CONTAINS(p.err, "Makefile");
    put_text(in_dir("fake.h5"), "\211HDF\r\n\032\nnot one of ours");
    p = PARE(ARGS("inspect", in_dir("fake.h5")));
    ASSERT_RAN(p, 3);
    ASSERT_CONTAINS(p.err, "fake.h5");
}

/* Teacher and student, tokenizer and model: one vocabulary, or a refusal that names both. */
TEST(cli, vocabulary_mismatch)
{
    char *teacher = text_of("teacher.path=%s", repo(STORIES));
    refused("run.recipe=distill", teacher, 2, "stories260K.bin", "has 512 tokens, the student 64");
    Pare p = PARE(ARGS("eval", TINY, "--data", "README.md", "--tokenizer", "bytes", "--against", STORIES));
    ASSERT(p.rc == 2 || p.rc == 3);
    /* as many tokens, other content */
    char *d = tiny_dir("a"), *m = in_dir("a/student");
    p = PARE(ARGS("export", STORIES, m, "--tokenizer", "tests/data/stories/tok512.model"));
    ASSERT_RAN(p, 0);
    char *t = in_dir("a/teacher");
    p = PARE(ARGS("export", STORIES, t, "--tokenizer", "tests/data/stories/tok512.model"));
    ASSERT_RAN(p, 0);
    size_t n;
    char *piece = get_file(text_of("%s/tokenizer.model", t), &n), *hit = memmem(piece, n, "once", 4);
    if (!hit) hit = memmem(piece, n, "the", 3);
    ASSERT(hit != NULL);
    hit[0] = 'X';
    put_file(text_of("%s/tokenizer.model", t), piece, n);
    p = PARE(.dir = d, ARGS("train", "c.yaml", "run.recipe=distill", "~model.init", "model.path=student",
                            "teacher.path=teacher", text_of("tokenizer.path=%s/tokenizer.model", m)));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "differ in content");
    ASSERT_CONTAINS(p.err, "tokenizer.must_match_teacher: false");
    ASSERT(!exists(in_dir("a/run")));
}

/* Full disk: the message names the file, exit 1, and no half file stays. */
TEST(cli, full_disk)
{
    static const char *const out[] = {"m.h5", "m.bin", "m.safetensors", "folder/model.safetensors"};
    static const char *const to[] = {"m.h5", "m.bin", "m.safetensors", "folder"};
    for (int i = 0; i < 4; i++) {
        Pare p = PARE(.file_limit = 100000, ARGS("export", STORIES, in_dir(to[i])));
        ASSERT_RAN(p, 1);
        ASSERT_CONTAINS(p.err, out[i]);
        ASSERT_CONTAINS(p.err, "File too large");
        ASSERT(!exists(in_dir(out[i])));
    }
    int32_t ids[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    ids_file(in_dir("in.safetensors"), 2, 4, ids, NULL);
    Pare p = PARE(.file_limit = 1000, ARGS("probe", TINY, "--input", in_dir("in.safetensors"), "--out",
                                           in_dir("out.safetensors")));
    ASSERT_RAN(p, 1);
    ASSERT_CONTAINS(p.err, "out.safetensors");
    ASSERT(!exists(in_dir("out.safetensors")));
    p = PARE(ARGS("export", STORIES, "/dev/full/x.h5"));
    ASSERT_RAN(p, 1);
    /* an old file survives a write that fails */
    p = PARE(ARGS("export", STORIES, in_dir("m.h5")));
    ASSERT_RAN(p, 0);
    p = PARE(.file_limit = 100000, ARGS("export", TINY, in_dir("m.h5")));
    ASSERT(p.rc == 1 || p.rc == 0);
    ASSERT_RAN(PARE(ARGS("inspect", in_dir("m.h5"))), 0);
}
