/* data/vocab_json.c: byte-level BPE as two files, vocab.json (or encoder.json) and merges.txt (or vocab.bpe)
 * beside it. They do not say how text is cut: tokenizer.pattern does, else the tokenizer_class of
 * tokenizer_config.json, else the size of GPT-2's own vocabulary; otherwise the files are refused.
 *
 *   merges.txt   "#version: ..." first, then "left right", best first
 */
#include "data/bpe_json_impl.h"
#include "data/families_impl.h"
#include <string.h>

static const char *merges_path(const char *path, Arena *a, Err *e)
{
    static const char *const pair[][2] = {{"encoder.json", "vocab.bpe"}, {"vocab.json", "merges.txt"}};
    for (size_t i = 0; i < 2; i++) {
        const size_t n = strlen(path), m = strlen(pair[i][0]);
        if (n < m || strcmp(path + n - m, pair[i][0]) != 0) continue;
        return arena_printf(a, e, "%.*s%s", (int)(n - m), path, pair[i][1]);
    }
    err_set(e, ERR_USAGE, "%s: a vocabulary is named vocab.json or encoder.json", path);
    return NULL;
}

/* The merges point into text, which is kept in the arena. */
static bool read_merges(BpeSpec *b, const char *path, Arena *a, Err *e)
{
    size_t bytes, lines = 1;
    const char *s = file_read(a, path, &bytes, e);
    if (!s) return false;
    for (size_t i = 0; i < bytes; i++) lines += s[i] == '\n';
    TokSpan *left = arena_alloc(a, lines * sizeof *left, e),
            *right = arena_alloc(a, lines * sizeof *right, e);
    if (!left || !right) return false;
    long line = 0;
    for (const char *end = s + bytes; s < end; line++) {
        const char *stop = memchr(s, '\n', (size_t)(end - s));
        const char *const next = stop ? stop + 1 : end;
        size_t n = (size_t)((stop ? stop : end) - s);
        if (n > 0 && s[n - 1] == '\r') n--;
        const bool skip = n == 0 || (n >= 8 && memcmp(s, "#version", 8) == 0);
        if (!skip && !bpe_merge_split(s, n, &left[b->n_merge], &right[b->n_merge]))
            return err_set(e, ERR_CORRUPT, "%s:%ld: `%.*s` is not two tokens and a space", path, line + 1,
                           (int)(n < 80 ? n : 80), s);
        b->n_merge += !skip;
        s = next;
    }
    b->left = left;
    b->right = right;
    return true;
}

static bool starts(const char *s, const char *head) { return s && strncmp(s, head, strlen(head)) == 0; }

static const char *family_of(const Tokenizer *t, const json_t *config, const BpeSpec *b, Err *e)
{
    const char *class = json_string_value(json_object_get(config, "tokenizer_class"));
    if (t->how && t->how->pattern && *t->how->pattern) return t->how->pattern;
    if (starts(class, "GPT2Tokenizer") || starts(class, "CodeGenTokenizer")) return "gpt2";
    if (starts(class, "Qwen2Tokenizer")) return "qwen2";
    if (!class && (b->n_piece == 50257 || b->n_piece == 50258)) return "gpt2";
    if (class)
        err_set(e, ERR_USAGE, "%s: tokenizer_class %s: not in this version; a tokenizer.json is", t->path,
                class);
    else
        err_set(
            e, ERR_USAGE,
            "%s does not say how text is cut: set tokenizer.pattern (gpt2, qwen2, llama3, ...) or give the "
            "tokenizer.json",
            t->path);
    return NULL;
}

static bool flag(const json_t *o, const char *key) { return json_is_true(json_object_get(o, key)); }

static bool add_named(Pipeline *p, const char *text, int32_t id, const json_t *flags, size_t *cap, Arena *a,
                      Err *e)
{
    for (size_t i = 0; i < p->n_added; i++)
        if (p->added[i].id == id) return true;
    const AddedToken t = {.id = id,
                          .text = {arena_strdup(a, text, e), strlen(text)},
                          .lstrip = flag(flags, "lstrip"),
                          .rstrip = flag(flags, "rstrip"),
                          .single_word = flag(flags, "single_word"),
                          .normalized = flag(flags, "normalized"),
                          .special = !flags || flag(flags, "special")};
    return t.text.s && pipeline_add(p, t, cap, a, e);
}

/* added_tokens_decoder {"50256": {"content", ...}}, added_tokens.json {"<x>": 50257}, the roles. */
static bool added(Tokenizer *t, Pipeline *p, const json_t *config, const json_t *extra, Arena *a, Err *e)
{
    static const char *const roles[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    json_t *v = json_object_get(config, "added_tokens_decoder"), *x = (json_t *)(uintptr_t)extra;
    size_t cap = 0;
    for (void *i = json_object_iter(v); i; i = json_object_iter_next(v, i)) {
        const char *text = json_string_value(json_object_get(json_object_iter_value(i), "content"));
        const char *key = json_object_iter_key(i);
        int64_t id = 0;
        for (const char *c = key; *c && id < 100000000; c++)
            id = *c >= '0' && *c <= '9' ? 10 * id + *c - '0' : 1 << 30;
        if (!text || id > 100000000)
            return err_set(e, ERR_CORRUPT, "%s: added_tokens_decoder: `%.40s` is no id with a content",
                           t->path, key);
        if (!add_named(p, text, (int32_t)id, json_object_iter_value(i), &cap, a, e)) return false;
    }
    for (void *i = json_object_iter(x); i; i = json_object_iter_next(x, i))
        if (!add_named(p, json_object_iter_key(i), (int32_t)json_integer_value(json_object_iter_value(i)),
                       NULL, &cap, a, e))
            return false;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const json_t *r = json_object_get(config, roles[i]);
        const char *text = json_string_value(json_is_object(r) ? json_object_get(r, "content") : r);
        const int32_t id = text ? pipeline_id(p, text, strlen(text)) : -1;
        if (id >= 0 && !add_named(p, text, id, NULL, &cap, a, e)) return false;
    }
    const int32_t end = pipeline_id(p, "<|endoftext|>", 13);
    return end < 0 || add_named(p, "<|endoftext|>", end, NULL, &cap, a, e);
}

static bool open_with(Tokenizer *t, Pipeline *p, const json_t *vocab, const json_t *config,
                      const json_t *extra, Arena *a, Err *e)
{
    const JsonSource s = {t->path, a, e};
    BpeSpec b = {.unk = -1, .byte_level = true};
    TokSpan *piece;
    const char *merges = merges_path(t->path, a, e);
    if (!merges || !vocab_from_json(&piece, &b.n_piece, vocab, &s) || !read_merges(&b, merges, a, e))
        return false;
    b.piece = piece;
    const char *family = family_of(t, config, &b, e);
    if (!family || !pipeline_preset(p, family, a, e)) return false;
    p->pre[p->n_pre - 1].add_prefix_space = flag(config, "add_prefix_space");
    return bpe_open(p, &b, t->path, a, e) && added(t, p, config, extra, a, e) && pipeline_finish(t, p, a, e);
}

bool vocab_json_open(Tokenizer *t, Arena *a, Err *e)
{
    const char *dir = folder_of(t->path, a, e);
    const char *config_path = dir ? path_join(a, dir, "tokenizer_config.json", e) : NULL;
    const char *extra_path = dir ? path_join(a, dir, "added_tokens.json", e) : NULL;
    Pipeline *p = arena_alloc(a, sizeof *p, e);
    if (!config_path || !extra_path || !p) return false;
    json_t *vocab = json_file(t->path, false, e);
    json_t *config = e->code ? NULL : json_file(config_path, true, e);
    json_t *extra = e->code ? NULL : json_file(extra_path, true, e);
    const bool ok = !e->code && open_with(t, p, vocab, config, extra, a, e) &&
                    tokenizer_config_read(t, p, dir, a, e) &&
                    tokenizer_frame(t, flag(config, "add_bos_token"), flag(config, "add_eos_token"), a, e);
    json_decref(vocab);
    json_decref(config);
    json_decref(extra);
    return ok;
}
