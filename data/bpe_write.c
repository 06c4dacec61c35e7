/* data/bpe_write.c: a learned BPE as tokenizer.json. Merges are written "a b", the form that old and new
 * readers know: ByteLevel's letters have no space. */
#include "data/families_impl.h"
#include "data/train_impl.h"
#include <string.h>

typedef struct Out {
    TokText text;
    Arena *a;
    Err *e;
} Out;

static int put_chunk(const char *s, size_t n, void *to)
{
    Out *o = to;
    return text_put(&o->text, s, n, o->a, o->e) ? 0 : -1;
}

static json_t *byte_level_json(bool regex)
{
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                     "use_regex", regex);
}

static json_t *pre_tokenizer_json(const Family *f)
{
    json_t *v = json_array();
    if (f->digits)
        json_array_append_new(v,
                              json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", f->digits == 1));
    for (int i = 0; i < 3 && f->pattern[i]; i++)
        json_array_append_new(v, json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                           f->pattern[i], "behavior", "Isolated", "invert", 0));
    json_array_append_new(v, byte_level_json(!f->pattern[0]));
    if (json_array_size(v) > 1) return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", v);
    json_t *one = json_incref(json_array_get(v, 0));
    json_decref(v);
    return one;
}

/* ByteLevel's letters of left and right joined, with sep between. */
static json_t *letters(TokSpan left, const char *sep, TokSpan right, Arena *tmp, Err *e)
{
    char *s = arena_alloc(tmp, 2 * (left.n + right.n) + 2, e);
    if (!s) return NULL;
    size_t n = byte_level_letters(left.s, left.n, s);
    if (*sep) s[n++] = *sep;
    n += byte_level_letters(right.s, right.n, s + n);
    return json_stringn(s, n);
}

static bool put_vocab(json_t *vocab, json_t *merges, const BpeTrained *t, const BpeTraining *o, Arena *tmp,
                      Err *e)
{
    const TokSpan none = {"", 0};
    json_int_t id = 0;
    for (size_t i = 0; i < o->n_special; i++) json_object_set_new(vocab, o->special[i], json_integer(id++));
    for (int round = 0; round < 2; round++)
        for (unsigned b = 0; b < 256; b++) {
            const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD);
            if (itself != (round == 0)) continue;
            json_t *s = letters((TokSpan){token_byte_text[b], 1}, "", none, tmp, e);
            if (s) json_object_set_new(vocab, json_string_value(s), json_integer(id++));
            json_decref(s);
        }
    for (size_t i = 0; i < t->n_merge; i++) {
        json_t *s = letters(t->left[i], "", t->right[i], tmp, e);
        /* Two pairs can make the same token: it keeps its first id. */
        if (s && !json_object_get(vocab, json_string_value(s)))
            json_object_set_new(vocab, json_string_value(s), json_integer(id++));
        json_decref(s);
        s = letters(t->left[i], " ", t->right[i], tmp, e);
        if (s) json_array_append_new(merges, s);
    }
    return !e->code;
}

static json_t *added_json(const BpeTraining *o)
{
    json_t *v = json_array();
    for (size_t i = 0; i < o->n_special; i++)
        json_array_append_new(v, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)i, "content",
                                           o->special[i], "single_word", 0, "lstrip", 0, "rstrip", 0,
                                           "normalized", 0, "special", 1));
    return v;
}

bool bpe_write(const char *path, const BpeTrained *t, const BpeTraining *o, Arena *a, Err *e)
{
    const Family *f = family_named(o->pattern, a, e);
    if (!f) return false;
    if (f->dialect != REGEX_ONIGURUMA && strcmp(f->name, "o200k") != 0)
        return err_set(e, ERR_USAGE,
                       "train-tokenizer: tokenizer.json cannot say the pattern of %s; llama3 cuts alike",
                       f->name);
    Arena tmp = {.name = "tokenizer.json"};
    Out out = {.a = &tmp, .e = e};
    json_t *vocab = json_object(), *merges = json_array();
    bool ok = put_vocab(vocab, merges, t, o, &tmp, e);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}", "type", "BPE", "dropout",
                              "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                              "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);
    json_t *norm = f->nfc ? json_pack("{s:s}", "type", "NFC") : json_null();
    json_t *root = json_pack("{s:s, s:n, s:n, s:o, s:o, s:o, s:o, s:o, s:o}", "version", "1.0", "truncation",
                             "padding", "added_tokens", added_json(o), "normalizer", norm, "pre_tokenizer",
                             pre_tokenizer_json(f), "post_processor", byte_level_json(true), "decoder",
                             byte_level_json(true), "model", model);
    if (ok && (!root || json_dump_callback(root, put_chunk, &out, JSON_INDENT(2)) != 0))
        ok = err_set(e, ERR_FAIL, "train-tokenizer: the vocabulary makes no JSON");
    ok = ok && text_put(&out.text, "\n", 1, &tmp, e) && file_write_atomic(path, out.text.s, out.text.n, e);
    json_decref(root);
    arena_free(&tmp);
    return ok;
}

bool tokenizer_train(const char *out, const BpeTraining *o, long *tokens, Arena *a, Err *e)
{
    Arena tmp = {.name = "learning a tokenizer"};
    BpeTrained t;
    const bool ok = bpe_train(&t, o, &tmp, e) && bpe_write(out, &t, o, a, e);
    if (ok && tokens) *tokens = (long)t.n_token + (long)o->n_special;
    arena_free(&tmp);
    return ok;
}
