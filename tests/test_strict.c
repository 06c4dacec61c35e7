/* tests/test_strict.c: what is given is used or refused: keys, numbers, overrides, options. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include <dirent.h>
#include <pty.h>

/* ---- every key has a reader -------------------------------------------------------------------------- */

static const char *const folder[] = {"core",  "data",    "optim", "compress",
                                     "model", "formats", "infer", "train"};
enum { N_FOLDER = sizeof folder / sizeof *folder };

typedef struct Source {
    char *path, *text;
} Source;
static Source source[1024];
static int n_source;
static char unread[4096];

/* Sources and headers; without the sections themselves and the checks, which read a key only to judge it. */
static void read_sources(const char *suffix)
{
    for (int i = 0; i < N_FOLDER; i++) {
        DIR *d = opendir(folder[i]);
        ASSERT_MSG(d != NULL, "%s: not the root of the sources", folder[i]);
        for (struct dirent *x; (x = readdir(d));) {
            const char *dot = strrchr(x->d_name, '.');
            if (!dot || strcmp(dot, suffix) || n_source == 1024) continue;
            char *path = text_of("%s/%s", folder[i], x->d_name);
            bool section = strstr(path, "config") && strcmp(path, "data/tokenizer_config.c");
            if (section && !strcmp(suffix, ".c")) continue;
            source[n_source++] = (Source){path, get_file(path, NULL)};
        }
        closedir(d);
    }
}

static bool is_word(char c)
{
    return c == '_' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* before key in text, as a whole word at its end. */
static bool holds(const char *text, const char *before, const char *key)
{
    char *what = text_of("%s%s", before, key);
    const size_t n = strlen(what);
    bool found = false;
    for (const char *p = text; !found && (p = strstr(p, what)); p++) found = !is_word(p[n]);
    free(what);
    return found;
}

/* The struct that includes this list, as the headers have it. */
static char *struct_of(const char *def)
{
    char *line = text_of("#include \"%s\"", def), *name = NULL;
    for (int i = 0; i < n_source && !name; i++) {
        const char *at = strstr(source[i].text, line), *brace = at;
        if (!at || strcmp(strrchr(source[i].path, '.'), ".h")) continue;
        while (brace > source[i].text && *brace != '{') brace--;
        const char *end = brace;
        while (end > source[i].text && !is_word(end[-1])) end--;
        const char *begin = end;
        while (begin > source[i].text && is_word(begin[-1])) begin--;
        name = text_of("%.*s", (int)(end - begin), begin);
    }
    free(line);
    return name;
}

/* section.key or section->key anywhere, or .key, ->key in a file that knows the section's struct. */
static bool has_reader(const char *section, const char *type, const char *key)
{
    /* lists whose key has another name than the file */
    if (!strcmp(section, "init_teacher")) section = "init_from_teacher";
    if (!strcmp(section, "teacher_entry")) section = "teachers.v[i]";
    char *dot = text_of("%s.", section), *arrow = text_of("%s->", section);
    bool found = false;
    for (int i = 0; i < n_source && !found; i++) {
        const char *t = source[i].text;
        if (strcmp(strrchr(source[i].path, '.'), ".c")) continue;
        found = holds(t, dot, key) || holds(t, arrow, key) ||
                (type && strstr(t, type) && (holds(t, ".", key) || holds(t, "->", key)));
    }
    free(dot);
    free(arrow);
    return found;
}

static void check_list(const char *path, const char *text, int *keys)
{
    /* kind of line in a list: a key that a run must read. LATER and ONLY are refused or at their default. */
    static const char *const kind[] = {"INT", "FLOAT", "FLOAT_AUTO", "BOOL",  "ENUM",
                                       "STR", "STRS",  "INTS",       "FLOATS"};
    /* Read by train/config*.c alone, or several words for the one thing this version does. */
    static const char *const exception[] = {
        "config.version", "config.include", "config.seeds", "init_teacher.width", "model.attention",
        "device.backend", "dist.enabled",   "dist.backend", "train.loss_scale",
    };
    const char *slash = strrchr(path, '/') + 1;
    char *section = text_of("%.*s", (int)strcspn(slash, "."), slash), *type = struct_of(path);
    for (const char *p = text; (p = strstr(p, "CFG_")); p++) {
        char what[32] = "", key[64] = "";
        if (sscanf(p, "CFG_%31[A-Z_](%63[a-z0-9_]", what, key) != 2 &&
            sscanf(p, "CFG_%31[A-Z_] (%63[a-z0-9_]", what, key) != 2)
            continue;
        bool counts = false;
        for (size_t i = 0; i < sizeof kind / sizeof *kind; i++) counts = counts || !strcmp(what, kind[i]);
        char *full = text_of("%s.%s", section, key);
        for (size_t i = 0; i < sizeof exception / sizeof *exception; i++)
            counts = counts && strcmp(full, exception[i]);
        const char *values = strstr(p, "\", \""); /* of an ENUM: one choice is no choice */
        if (!strcmp(what, "ENUM") && values)
            counts = counts && memchr(values + 4, '|', strcspn(values + 4, "\""));
        if (counts) {
            ++*keys;
            if (!has_reader(section, type, key))
                snprintf(unread + strlen(unread), sizeof unread - strlen(unread), "%s: %s of %s\n", path, key,
                         type ? type : "(no struct)");
        }
        free(full);
    }
    free(section);
    free(type);
}

TEST(strict, every_key_has_a_reader)
{
    int keys = 0;
    read_sources(".c");
    read_sources(".h");
    ASSERT(!has_reader("keep_best", "KeepBestConfig", "made_up") &&
           has_reader("keep_best", "KeepBestConfig", "mode"));
    for (int i = 0; i < N_FOLDER; i++) {
        DIR *d = opendir(folder[i]);
        for (struct dirent *x; d && (x = readdir(d));) {
            const char *dot = strrchr(x->d_name, '.');
            char *path = text_of("%s/%s", folder[i], x->d_name);
            char *text = dot && !strcmp(dot, ".def") ? get_file(path, NULL) : NULL;
            if (text && strstr(text, "\nCFG_")) check_list(path, text, &keys);
            free(text);
            free(path);
        }
        if (d) closedir(d);
    }
    ASSERT_MSG(!*unread, "nothing reads:\n%s", unread);
    ASSERT_MSG(keys > 100, "%d keys: the lists were not found", keys);
    while (n_source) {
        free(source[--n_source].path);
        free(source[n_source].text);
    }
}

/* ---- the command line -------------------------------------------------------------------------------- */

static void says(int rc, const char *part, const char *const *args)
{
    Pare p = pare_run(&(PareOptions){.args = args});
    ASSERT_RAN(p, rc);
    ASSERT_CONTAINS(rc ? p.err : p.out, part);
}
#define SAYS(rc, part, ...) says(rc, part, (const char *const[]){__VA_ARGS__, NULL})

#define STORIES "tests/data/stories/stories260K.bin"
#define TOKENIZER "tests/data/stories/tok512.model"

TEST(strict, numbers_of_options)
{
    static const char *const bad[][2] = {
        {"--top-k", "2.5"}, {"--top-k", "-1"},  {"--top-k", "1e30"},
        {"--seed", "-1"},   {"--seed", "1e30"}, {"--seed", "9223372036854775808"},
        {"--temp", "-0.1"}, {"--temp", "1e30"}, {"--top-p", "0"},
        {"--top-p", "1.5"}, {"--min-p", "2"},   {"--repetition-penalty", "0"},
        {"-n", "-3"},       {"-n", "1.5"},      {"-n", "1e30"},
        {"--temp", "nan"},  {"--n", "many"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        SAYS(2, bad[i][0], "generate", STORIES, "--tokenizer", TOKENIZER, bad[i][0], bad[i][1]);
    SAYS(2, "--limit", "eval", STORIES, "--task", "lambada=x", "--limit", "-1");
    SAYS(2, "--seq-len", "eval", "no-such-model", "--seq-len", "1e30");
    SAYS(2, "--seq-len", "eval", "no-such-model", "--seq-len", "12.5");
    SAYS(2, "--stride", "eval", "no-such-model", "--stride", "-4");
    SAYS(2, "are known", "eval", "no-such-model", "--protocol", "concat-");
    SAYS(2, "are known", "eval", "no-such-model", "--protocol", "wikitext");
    SAYS(2, "--vocab-size", "data", "train-tokenizer", "x", "--vocab-size", "-5", "--out", "y");
    SAYS(2, "--steps", "train", "x.yaml", "--steps", "0");
    SAYS(2, "--steps", "train", "x.yaml", "--steps", "");
    /* all 63 bits of a seed count */
    char *ids[2];
    static const char *const seed[] = {"9223372036854775806", "9223372036854775807"};
    for (int i = 0; i < 2; i++) {
        Pare p = PARE(ARGS("generate", STORIES, "--tokenizer", TOKENIZER, "--temp", "2", "--seed", seed[i],
                           "-n", "24", "--json"));
        ASSERT_RAN(p, 0);
        ids[i] = p.out;
    }
    char *first = json_dumps(json_object_get(one_object(ids[0]), "ids"), 0),
         *second = json_dumps(json_object_get(one_object(ids[1]), "ids"), 0);
    ASSERT(strcmp(first, second));
    free(first);
    free(second);
}

TEST(strict, speed_of_one_token)
{
    Pare p = PARE(ARGS("generate", STORIES, "--tokenizer", TOKENIZER, "-n", "1", "--json"));
    ASSERT_RAN(p, 0);
    ASSERT(json_is_null(json_object_get(one_object(p.out), "tokens_per_second")));
    p = PARE(ARGS("generate", STORIES, "--tokenizer", TOKENIZER, "-n", "4", "--temp", "0", "--json"));
    ASSERT(field(one_object(p.out), "tokens_per_second") > 0);
}

TEST(strict, overrides)
{
    SAYS(2, "takes no overrides", "generate", STORIES, "train.max_steps=3");
    SAYS(2, "takes no overrides", "inspect", STORIES, "a.b=c");
    SAYS(2, "takes no overrides", "compare", STORIES, STORIES, "a.b=c");
    SAYS(1, "x=y: no such file", "inspect", "x=y");
}

TEST(strict, empty_override)
{
    char *d = tiny_dir("r");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "train.max_steps="));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "train.max_steps: no value behind =");
    ASSERT(!exists(in_dir("r/run")));
    p = PARE(.dir = d, ARGS("validate", "c.yaml", "run.time_limit=null"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("validate", "dir/a=1/c.yaml"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "dir/a=1/c.yaml: cannot read");
}

TEST(strict, help_and_color)
{
    SAYS(0, "usage: pare generate", "generate", "--help");
    SAYS(0, "usage: pare generate", "generate", "-p", "x", "-h", "--what");
    Pare p = PARE(ARGS("generate", STORIES, "--tokenizer", TOKENIZER, "-n", "1", "-p", "--help"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.out, "--help");
    ASSERT(!strstr(p.out, "usage:"));
    SAYS(2, "auto and never", "--color=foo", "doctor");
    SAYS(2, "auto and never", "--color=", "doctor");
    SAYS(2, "--tokenizer", "eval", STORIES, "--data", "README.md");
}

/* ---- keys of a run ----------------------------------------------------------------------------------- */

static char *tried(const char *const *args, int rc)
{
    static int number;
    char *d = tiny_dir(text_of("t%d", number++));
    Pare p = pare_run(&(PareOptions){.dir = d, .args = args});
    ASSERT_RAN(p, rc);
    if (rc) ASSERT(!exists(text_of("%s/run", d)));
    return p.err;
}
#define REFUSED(...) tried((const char *const[]){"train", "c.yaml", __VA_ARGS__, NULL}, 2)
#define CHECKED(...) tried((const char *const[]){"validate", "c.yaml", __VA_ARGS__, NULL}, 0)

TEST(strict, setup_errors_have_places)
{
    char *e = REFUSED("model.freeze=[model.norm.weight, model.norm.wieght]");
    ASSERT_CONTAINS(e, "<command line>:1:34: model.freeze[1]: no parameter matches \"model.norm.wieght\" "
                       "(did you mean model.norm.weight?)");
    ASSERT_CONTAINS(REFUSED("optim.groups=[{match: [nothing.*]}]"),
                    "optim.groups[0].match: no parameter matches \"nothing.*\"");
    ASSERT_CONTAINS(REFUSED("eval.perplexity.protocol=concat-500"),
                    "eval.perplexity.protocol: windows of 500 tokens, but data.seq_len is 16");
    ASSERT_CONTAINS(REFUSED("eval.perplexity.window=17"), "eval.perplexity.window: windows of 17");
    CHECKED("eval.perplexity.protocol=concat-16");
    ASSERT_CONTAINS(REFUSED("train.max_steps=5000000000"),
                    "train.max_steps: 5000000000 steps: a run has at most");
    ASSERT_CONTAINS(REFUSED("train.max_steps=0", "train.epochs=1e9"), "train.epochs: ");
    ASSERT_CONTAINS(REFUSED("train.batch_size=1048576", "train.gradient_accumulation_steps=1048576",
                            "data.seq_len=16777216"),
                    "train.batch_size: a step of");
    ASSERT_CONTAINS(REFUSED("train.tokens_per_step=9223372036854775744"), "train.tokens_per_step: a step of");
    ASSERT_CONTAINS(REFUSED("data.train[0].path=~/d.bin"),
                    "data.train[0].path: ~ is not expanded; write ${env:HOME}/d.bin");
    ASSERT_CONTAINS(REFUSED("run.output_dir=~/run"), "run.output_dir: ");
    ASSERT_CONTAINS(CHECKED("data.seq_len=64"), "beyond the model's 32 positions");
}

TEST(strict, seq_len_beyond_positions)
{
    char *d = tiny_dir("r");
    static const char *const kind[] = {"llama", "gpt2"};
    for (int i = 0; i < 2; i++) {
        char *out = text_of("run.output_dir=%s", kind[i]), *arch = text_of("model.init.arch=%s", kind[i]);
        Pare p = PARE(.dir = d,
                      ARGS("train", "c.yaml", "--steps", "1", arch, out, "model.init.num_key_value_heads=2"));
        ASSERT_RAN(p, 0);
        char *path = text_of("model.path=%s/checkpoints/step_00000001.h5", kind[i]);
        p = PARE(.dir = d, ARGS("train", "c.yaml", "--steps", "1", "~model.init", path, "data.seq_len=48",
                                "run.output_dir=longer"));
        ASSERT_RAN(p, i ? 2 : 0);
        if (i) ASSERT_CONTAINS(p.err, ": data.seq_len: 48 is longer than the model's 32 positions");
        else ASSERT_CONTAINS(p.err, "data.seq_len: 48 tokens, beyond the model's 32 positions");
    }
}

TEST(strict, tokenizer_of_another_model)
{
    char *d = tiny_dir("r");
    put_text(text_of("%s/t.txt", d), "a text that is long enough for a sample of sixteen tokens, twice over");
    Pare p = PARE(.dir = d, ARGS("validate", "c.yaml", "tokenizer.path=bytes", "model.init.vocab_size=1000",
                                 "data.train=[{path: t.txt}]", "~data.val"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "less than half of the model's 1000");
}

/* Steps of the files in run/checkpoints, ascending, as "1 2 3". */
static char *steps_kept(const char *dir)
{
    char *out = kept(calloc(1, 4096));
    for (int s = 0; s <= 20; s++)
        if (exists(text_of("%s/run/checkpoints/step_%08d.h5", dir, s)))
            snprintf(out + strlen(out), 16, "%s%d", *out ? " " : "", s);
    return out;
}

TEST(strict, keep_best)
{
    static const char *const mode[] = {"min", "max"};
    for (int max = 0; max < 2; max++) {
        char *d = tiny_dir(mode[max]);
        Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "checkpoint.every_steps=1", "eval.every_steps=1",
                                     "eval.at_start=false", "checkpoint.keep_last=1",
                                     text_of("checkpoint.keep_best={mode: %s, n: 3}", mode[max])));
        ASSERT_RAN(p, 0);
        /* the loss falls from step to step */
        ASSERT_STR(steps_kept(d), max ? "1 2 3 12" : "10 11 12");
        char *best = get_file(text_of("%s/run/checkpoints/best", d), NULL);
        double v[3];
        int s[3];
        ASSERT_EQ(sscanf(best, "step_%d.h5 %lf\nstep_%d.h5 %lf\nstep_%d.h5 %lf", &s[0], &v[0], &s[1], &v[1],
                         &s[2], &v[2]),
                  6);
        ASSERT(max ? s[0] == 1 && v[0] > v[1] && v[1] > v[2] : s[0] == 12 && v[0] < v[1] && v[1] < v[2]);
    }
}

/* The newest of very many, whatever order the folder has. */
TEST(strict, newest_of_many_checkpoints)
{
    Arena a = {.name = "test"};
    Err e = {0};
    char *d = tiny_dir("r");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "--steps", "1"));
    ASSERT_RAN(p, 0);
    char *c = text_of("%s/run/checkpoints", d), *newest = text_of("%s/step_5000000000.h5", c);
    for (int i = 2; i < 5002; i++)
        ASSERT_EQ(symlink("step_00000001.h5", text_of("%s/step_%08d.h5", c, i)), 0);
    ASSERT_EQ(rename(text_of("%s/step_00000001.h5", c), newest), 0);
    ASSERT_EQ(unlink(text_of("%s/latest", c)), 0);
    const char *found = checkpoint_find(text_of("%s/run", d), &a, &e);
    ASSERT_OK(e);
    ASSERT_STR(found, newest);
    arena_free(&a);
}

TEST(strict, deterministic_files)
{
    char *d = tiny_dir("r"), *text[2];
    static const char *const out[] = {"run.output_dir=a", "run.output_dir=b"};
    for (int i = 0; i < 2; i++) {
        Pare p = PARE(.dir = d,
                      ARGS("train", "c.yaml", "run.deterministic=true", out[i], "log.system_every_steps=2"));
        ASSERT_RAN(p, 0);
        text[i] = get_file(text_of("%s/%c/metrics.jsonl", d, "ab"[i]), NULL);
    }
    ASSERT_STR(text[0], text[1]);
    ASSERT(!strstr(text[0], "\"t\"") && !strstr(text[0], "\"time\"") && !strstr(text[0], "tok_s"));
    ASSERT_CONTAINS(text[0], "\"event\": \"train\", \"step\": 12");
    ASSERT_CONTAINS(get_file(text_of("%s/a/run.log", d), NULL), "\nINFO  step 4: ");
}

TEST(strict, log_level)
{
    char *d = tiny_dir("r");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "log.level=error"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.err, "");
    p = PARE(.dir = d, ARGS("-v", "train", "c.yaml", "log.level=error", "--overwrite"));
    ASSERT_RAN(p, 0);
    ASSERT_CONTAINS(p.err, "step 12/12");
}

TEST(strict, console_plain)
{
    int master, slave, keep = dup(STDERR_FILENO);
    char got[256] = "";
    if (openpty(&master, &slave, NULL, NULL, NULL)) SKIP("no pseudo-terminals here");
    dup2(slave, STDERR_FILENO);
    log_shape(true, true);
    log_progress("step 1");
    log_progress("step 2");
    dup2(keep, STDERR_FILENO);
    size_t n = 0;
    while (n + 1 < sizeof got && !strstr(got, "step 2\r\n")) {
        ssize_t more = read(master, got + n, sizeof got - 1 - n);
        ASSERT(more > 0);
        n += (size_t)more;
        got[n] = 0;
    }
    ASSERT_STR(got, "step 1\r\nstep 2\r\n");
}

static int64_t tokenized(const char *dir, const char *bos, const char *eot)
{
    Pare p = PARE(.dir = dir, ARGS("data", "tokenize", "t.txt", "--tokenizer", "bytes", "--overwrite",
                                   "--out", "t.bin", bos, eot));
    ASSERT_RAN(p, 0);
    return (int64_t)field(one_object(p.out), "tokens");
}

TEST(strict, add_bos)
{
    char *d = make_dir("r");
    put_text(text_of("%s/t.txt", d), "hello");
    ASSERT_EQ(tokenized(d, "tokenizer.add_bos=auto", "data.eot=prepend"), 6);
    ASSERT_EQ(tokenized(d, "tokenizer.add_bos=auto", "data.eot=none"), 5);
    ASSERT_EQ(tokenized(d, "tokenizer.add_bos=true", "data.eot=none"), 6);
    ASSERT_EQ(tokenized(d, "tokenizer.add_bos=false", "data.eot=prepend"), 5);
    Arena a = {.name = "test"};
    Err e = {0};
    for (int rule = 0; rule < 3; rule++) { /* prompts: SentencePiece puts its BOS in front */
        static const char *const name[] = {"auto", "true", "false"};
        const TokenizerConfig how = {.add_bos = name[rule]};
        Tokenizer *t = tokenizer_open_as(TOKENIZER, &how, &a, &e);
        TokenBuf ids = {0};
        ASSERT_OK(e);
        ASSERT_EQ(tokenizer_adds_bos(t), rule != 2);
        ASSERT(tokenizer_encode_framed(t, "a", 1, &ids, &a, &e));
        ASSERT_EQ(ids.id[0] == tokenizer_bos(t), rule != 2);
    }
    arena_free(&a);
}

/* ---- files ------------------------------------------------------------------------------------------- */

TEST(strict, probe_takes_every_tap)
{
    char *d = tiny_dir("r");
    Arena a = {.name = "test"};
    Err e = {0};
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "--steps", "1", "model.init.num_hidden_layers=140",
                                 "~data.val", "model.init.hidden_size=4", "model.init.intermediate_size=4"));
    ASSERT_RAN(p, 0);
    static const char in[] =
        "\x40\0\0\0\0\0\0\0{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[1,2],\"data_offsets\":[0,8]}}"
        "\1\0\0\0\2\0\0";
    put_file(text_of("%s/in.safetensors", d), in, sizeof in);
    p = PARE(.dir = d,
             ARGS("probe", "run", "--input", "in.safetensors", "--out", "out.safetensors", "--taps", "*"));
    ASSERT_RAN(p, 0);
    TensorFile f;
    ASSERT(formats_open(&f, text_of("%s/out.safetensors", d), &a, &e));
    ASSERT_MSG(f.n > 1024 + 3, "%d tensors", f.n);
    ASSERT(formats_find(&f, "tap.layers.0.out") && formats_find(&f, "tap.layers.139.out"));
    formats_close(&f);
    arena_free(&a);
}

TEST(strict, foreign_hdf5)
{
    char *d = tiny_dir("r");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml", "--steps", "1"));
    ASSERT_RAN(p, 0);
    size_t n;
    char *data = get_file(text_of("%s/run/checkpoints/step_00000001.h5", d), &n), *x = text_of("%s/x.h5", d);
    put_file(x, data + 4096, n - 4096);
    free(data);
    SAYS(3, "`pare inspect --trust-foreign`", "inspect", x);
    SAYS(0, "model.embed_tokens.weight", "inspect", "--trust-foreign", x);
}

TEST(strict, no_temporary_names)
{
    Err e = {0};
    ASSERT(!file_write_atomic(in_dir("none/x.txt"), "a", 1, &e));
    ASSERT_CONTAINS(e.msg, "none/x.txt: cannot create: No such file");
    ASSERT(!strstr(e.msg, ".tmp"));
}
