/* train/verb_data.c: data encode and decode; the others of `data` are data_verb. */
#include "train/verb_impl.h"
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The next line of f with its newline, NULL at the end. */
static char *read_line(FILE *f, Arena *a, size_t *n, Err *e)
{
    size_t cap = 4096;
    char *line = arena_alloc(a, cap, e);
    *n = 0;
    while (line && fgets(line + *n, (int)(cap - *n > INT_MAX ? INT_MAX : cap - *n), f)) {
        /* fgets stops at a newline or the end; a NUL inside the line is found by searching for the newline */
        char *end = memchr(line + *n, '\n', cap - *n - 1);
        if (end) {
            *n = (size_t)(end - line) + 1;
            return line;
        }
        *n += strlen(line + *n);
        if (*n + 1 < cap) break;
        char *more = arena_alloc(a, 2 * cap, e);
        if (more) memcpy(more, line, *n);
        line = more;
        cap *= 2;
    }
    return *n ? line : NULL;
}

static bool encode_line(Args *x, const Tokenizer *tk, const json_t *o, long line, Arena *a)
{
    const json_t *t = json_object_get(o, "text");
    if (!json_is_string(t)) return err_set(x->e, ERR_USAGE, "stdin:%ld: no \"text\" string", line);
    TokenBuf ids = {0};
    const char *text = json_string_value(t);
    const size_t n = json_string_length(t);
    if (args_has(x, "no-bos") ? !tokenizer_encode(tk, text, n, false, &ids, a, x->e)
                              : !tokenizer_encode_framed(tk, text, n, &ids, a, x->e))
        return false;
    fprintf(x->out, "{\"ids\": [");
    for (size_t i = 0; i < ids.n; i++) fprintf(x->out, "%s%d", i ? ", " : "", ids.id[i]);
    fprintf(x->out, "]}\n");
    return true;
}

static bool decode_line(Args *x, const Tokenizer *tk, const json_t *o, long line, Arena *a)
{
    const json_t *v = json_object_get(o, "ids");
    size_t n = json_array_size(v), bytes;
    int32_t *ids = arena_alloc(a, (n + 1) * sizeof *ids, x->e);
    if (!json_is_array(v)) return err_set(x->e, ERR_USAGE, "stdin:%ld: no \"ids\" array", line);
    for (size_t i = 0; ids && i < n; i++) {
        json_int_t id = json_integer_value(json_array_get(v, i));
        if (!json_is_integer(json_array_get(v, i)) || id < 0 || id >= tokenizer_vocab(tk))
            return err_set(x->e, ERR_USAGE, "stdin:%ld: ids[%zu] is outside the vocabulary of %d", line, i,
                           tokenizer_vocab(tk));
        ids[i] = (int32_t)id;
    }
    char *text = ids ? tokenizer_decode(tk, ids, n, &bytes, a, x->e) : NULL;
    json_t *s = text ? json_pack("{s:o}", "text", json_stringn_nocheck(text, bytes)) : NULL;
    char *out = s ? json_dumps(s, 0) : NULL;
    if (out) fprintf(x->out, "%s\n", out);
    else if (!x->e->code) err_set(x->e, ERR_FAIL, "stdin:%ld: the ids make no valid UTF-8", line);
    free(out);
    json_decref(s);
    return !x->e->code;
}

int verb_data_files(Args *x)
{
    const DataVerb v = {.what = x->pos[0],
                        .path = x->pos + 1,
                        .n_path = x->n_pos - 1,
                        .n = (int)args_int(x, "n", 0, 0, INT_MAX),
                        .set = x->set,
                        .n_set = x->n_set,
                        .tokenizer = args_get(x, "tokenizer", NULL),
                        .out = args_get(x, "out", NULL),
                        .field = args_get(x, "field", NULL),
                        .prompt_field = args_get(x, "prompt-field", NULL),
                        .response_field = args_get(x, "response-field", NULL),
                        .messages_field = args_get(x, "messages-field", NULL),
                        .pattern = args_get(x, "pattern", NULL),
                        .split = args_get(x, "split", NULL),
                        .resume = args_has(x, "resume"),
                        .overwrite = args_has(x, "overwrite")};
    char *text = x->e->code ? NULL : data_verb(&v, x->a, x->e);
    return text ? args_say(x, text) : 1;
}

/* data train-tokenizer FILES --vocab-size N --out F */
static int train_tokenizer(Args *x)
{
    const char *special[64], *out = args_get(x, "out", NULL);
    char *list = arena_strdup(x->a, args_get(x, "special", "<|endoftext|>"), x->e);
    BpeTraining o = {.path = (const char *const *)(x->pos + 1), .n_path = (size_t)(x->n_pos - 1)};
    long tokens;
    for (char *s = list; s && *s && o.n_special < 64;) {
        char *comma = strchr(s, ',');
        if (comma) *comma = 0;
        special[o.n_special++] = s;
        s = comma ? comma + 1 : NULL;
    }
    o.special = special;
    o.pattern = args_get(x, "pattern", "gpt2");
    o.vocab = (long)args_int(x, "vocab-size", 0, 1, INT_MAX);
    if (!x->e->code && (!out || !o.n_path || !o.vocab))
        err_set(x->e, ERR_USAGE, "data train-tokenizer needs FILES, --vocab-size N and --out tokenizer.json");
    if (x->e->code || !tokenizer_train(out, &o, &tokens, x->a, x->e)) return 1;
    log_info("wrote %s: %ld tokens, cut as %s", out, tokens, o.pattern);
    return 0;
}

int verb_data(Args *x)
{
    static const char *const files[] = {"tokenize", "pack", "stats", "inspect"};
    const char *what = x->pos[0], *path = args_get(x, "tokenizer", NULL);
    bool enc = !strcmp(what, "encode");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (!strcmp(what, files[i])) return verb_data_files(x);
    if (!strcmp(what, "train-tokenizer")) return train_tokenizer(x);
    if (!enc && strcmp(what, "decode"))
        err_set(x->e, ERR_USAGE,
                "data %s: encode, decode, tokenize, pack, stats, inspect and train-tokenizer are known",
                what);
    else if (!path) err_set(x->e, ERR_USAGE, "data %s needs --tokenizer PATH", what);
    const TokenizerConfig how = {.pattern = args_get(x, "pattern", NULL)};
    Tokenizer *tk = x->e->code ? NULL : model_tokenizer(path, &how, x->a, x->e);
    Arena tmp = {.name = "line"};
    for (long line = 1; tk; line++) {
        size_t n;
        char *text = read_line(x->in, &tmp, &n, x->e);
        if (!text) break;
        json_error_t je;
        json_t *o = json_loadb(text, n, JSON_REJECT_DUPLICATES, &je);
        bool ok = o ? (enc ? encode_line : decode_line)(x, tk, o, line, &tmp)
                    : err_set(x->e, ERR_USAGE, "stdin:%ld: %s", line, je.text);
        json_decref(o);
        arena_free(&tmp);
        if (!ok) break;
    }
    arena_free(&tmp);
    return x->e->code ? 1 : 0;
}
