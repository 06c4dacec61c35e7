/* data/tokenizer_json.c: tokenizer.json of Hugging Face tokenizers, version 1.0.
 *
 *   {"version", "truncation", "padding", "added_tokens": [...], "normalizer", "pre_tokenizer",
 *   "post_processor",
 *    "decoder", "model": {"type": "BPE" | "Unigram" | "WordPiece", ...}}
 *
 * truncation and padding are the trainer's business and not read. Whatever else a file needs and is not
 * here is refused by its name: a tokenizer that is slightly wrong is worse than none.
 */
#include "data/tokenizer_json_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

/* ---- fields -------------------------------------------------------------------------------------------- */

bool src_refuse(const JsonSource *s, const char *part, const char *kind)
{
    return err_set(s->e, ERR_USAGE, "%s: %s %s: not in this version", s->path, part, kind);
}

const char *src_type(const JsonSource *s, const json_t *o, const char *part)
{
    const char *type = json_string_value(json_object_get(o, "type"));
    if (!type) err_set(s->e, ERR_CORRUPT, "%s: %s without a `type`", s->path, part);
    return type;
}

static bool listed(const char *known, const char *key)
{
    const size_t n = strlen(key);
    for (const char *k = known; k; k = strchr(k, '|')) {
        k += *k == '|';
        if (strncmp(k, key, n) == 0 && (k[n] == '|' || k[n] == 0)) return true;
    }
    return false;
}

bool src_known(const JsonSource *s, const json_t *o, const char *part, const char *known)
{
    json_t *v = (json_t *)(uintptr_t)o;
    if (!json_is_object(o)) return err_set(s->e, ERR_CORRUPT, "%s: %s is not an object", s->path, part);
    for (void *i = json_object_iter(v); i; i = json_object_iter_next(v, i))
        if (!listed(known, json_object_iter_key(i)))
            return err_set(s->e, ERR_USAGE, "%s: %s: `%.80s`: not in this version", s->path, part,
                           json_object_iter_key(i));
    return !s->e->code;
}

TokSpan src_span(const JsonSource *s, const json_t *o, const char *part, const char *key)
{
    const json_t *v = json_object_get(o, key);
    TokSpan t = {NULL, 0};
    if (!v || json_is_null(v)) return t;
    if (!json_is_string(v)) {
        err_set(s->e, ERR_CORRUPT, "%s: %s: `%s` is not a string", s->path, part, key);
        return t;
    }
    t.n = json_string_length(v);
    if (memchr(json_string_value(v), 0, t.n)) {
        err_set(s->e, ERR_USAGE, "%s: %s: `%s` with a NUL character: not in this version", s->path, part,
                key);
        return (TokSpan){NULL, 0};
    }
    t.s = arena_strndup(s->a, json_string_value(v), t.n, s->e);
    return t;
}

bool src_flag(const JsonSource *s, const json_t *o, const char *part, const char *key, bool fallback)
{
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return fallback;
    if (!json_is_boolean(v))
        err_set(s->e, ERR_CORRUPT, "%s: %s: `%s` is neither true nor false", s->path, part, key);
    return json_is_true(v);
}

json_t *json_file(const char *path, bool optional, Err *e)
{
    FileMap m;
    json_error_t why;
    if (optional && !file_exists(path)) return NULL;
    if (!file_map(&m, path, e)) return NULL;
    json_t *o = json_loadb(m.data ? (const char *)m.data : "", m.bytes,
                           JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    file_unmap(&m);
    if (!o) err_set(e, ERR_CORRUPT, "%s:%d:%d: %s", path, why.line, why.column, why.text);
    return o;
}

const char *folder_of(const char *path, Arena *a, Err *e)
{
    const char *slash = strrchr(path, '/');
    return !slash ? "." : slash == path ? "/" : arena_strndup(a, path, (size_t)(slash - path), e);
}

/* ---- added tokens -------------------------------------------------------------------------------------- */

bool pipeline_add(Pipeline *p, AddedToken t, size_t *cap, Arena *a, Err *e)
{
    if (p->n_added == *cap) {
        const size_t more = *cap ? 2 * *cap : 16;
        AddedToken *v = arena_grow(a, p->added, p->n_added * sizeof *v, more * sizeof *v, e);
        if (!v) return false;
        p->added = v;
        *cap = more;
    }
    p->added[p->n_added++] = t;
    return true;
}

/* The model's id of a text as files spell it. */
static int32_t model_id(const Pipeline *p, const char *s, size_t n)
{
    char raw[1024];
    size_t m;
    const bool bytes = p->n_pre > 0 && p->pre[p->n_pre - 1].kind == PRE_BYTE_LEVEL;
    if (!bytes) return p->model->find(p->impl, s, n);
    return n <= sizeof raw && byte_level_bytes(s, n, raw, &m) ? p->model->find(p->impl, raw, m) : -1;
}

int32_t pipeline_id(const Pipeline *p, const char *s, size_t n)
{
    for (size_t i = 0; i < p->n_added; i++)
        if (p->added[i].text.n == n && memcmp(p->added[i].text.s, s, n) == 0) return p->added[i].id;
    return model_id(p, s, n);
}

/* Hugging Face tokenizers numbers tokens that the vocabulary lacks itself, whatever id the file gives: a file
 * where the two differ would be read as two tokenizers. */
static bool added_tokens(Pipeline *p, const json_t *v, const JsonSource *s)
{
    size_t cap = 0;
    int32_t next = 0;
    for (int32_t id = 0; id < p->n_model; id++) next += p->model->piece(p->impl, id).s != NULL;
    if (v && !json_is_null(v) && !json_is_array(v))
        return err_set(s->e, ERR_CORRUPT, "%s: added_tokens is not an array", s->path);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *o = json_array_get(v, i), *id = json_object_get(o, "id");
        const char *part = "added_tokens";
        if (!src_known(s, o, part, "id|content|single_word|lstrip|rstrip|normalized|special")) return false;
        AddedToken t = {.text = src_span(s, o, part, "content"),
                        .single_word = src_flag(s, o, part, "single_word", false),
                        .lstrip = src_flag(s, o, part, "lstrip", false),
                        .rstrip = src_flag(s, o, part, "rstrip", false),
                        .special = src_flag(s, o, part, "special", false)};
        t.normalized = src_flag(s, o, part, "normalized", !t.special);
        const json_int_t k = json_is_integer(id) ? json_integer_value(id) : -1;
        if (s->e->code) return false;
        if (!t.text.s || k < 0 || k > 100000000)
            return err_set(s->e, ERR_CORRUPT, "%s: added_tokens[%zu] without content or a usable id", s->path,
                           i);
        t.id = (int32_t)k;
        const int32_t own = model_id(p, t.text.s, t.text.n), want = own >= 0 ? own : next;
        if (t.id != want)
            return err_set(s->e, ERR_USAGE,
                           "%s: added token `%s` has id %d, but %s %d; number the added tokens without gaps",
                           s->path, t.text.s, t.id,
                           own >= 0 ? "in the vocabulary it is" : "the next free one is", want);
        if (own < 0) next++;
        if (!pipeline_add(p, t, &cap, s->a, s->e)) return false;
    }
    return true;
}

/* ---- post-processors: which ids stand around one text
 * ---------------------------------------------------- */

typedef struct Around {
    TokenBuf before, after;
} Around;

static bool template_ids(Around *x, TokenBuf *to, const json_t *o, const json_t *special, const JsonSource *s)
{
    const char *name = json_string_value(json_object_get(o, "id"));
    const json_t *ids = json_object_get(name ? json_object_get(special, name) : NULL, "ids");
    (void)x;
    if (!json_is_array(ids))
        return err_set(s->e, ERR_CORRUPT, "%s: post_processor: `%s` is not among its special_tokens", s->path,
                       name ? name : "?");
    for (size_t i = 0; i < json_array_size(ids); i++)
        if (!tokenbuf_push(to, (int32_t)json_integer_value(json_array_get(ids, i)), s->a, s->e)) return false;
    return true;
}

static bool template(Around *x, const json_t *o, const JsonSource *s)
{
    const json_t *single = json_object_get(o, "single"), *special = json_object_get(o, "special_tokens");
    size_t texts = 0;
    if (!src_known(s, o, "post_processor TemplateProcessing", "type|single|pair|special_tokens"))
        return false;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *item = json_array_get(single, i), *token = json_object_get(item, "SpecialToken");
        const char *id = json_string_value(json_object_get(json_object_get(item, "Sequence"), "id"));
        if (token && !template_ids(x, texts ? &x->after : &x->before, token, special, s)) return false;
        if (!token && (!id || strcmp(id, "A") != 0)) texts = 2;
        texts += !token;
    }
    return texts == 1 ||
           src_refuse(s, "post_processor", "TemplateProcessing whose `single` has not one text A");
}

/* "cls": ["[CLS]", 101], "sep": ["[SEP]", 102] */
static bool pair_of(Around *x, const json_t *o, const JsonSource *s)
{
    const json_t *cls = json_array_get(json_object_get(o, "cls"), 1),
                 *sep = json_array_get(json_object_get(o, "sep"), 1);
    if (!json_is_integer(cls) || !json_is_integer(sep))
        return err_set(s->e, ERR_CORRUPT, "%s: post_processor without cls or sep", s->path);
    return src_known(s, o, "post_processor", "type|cls|sep|trim_offsets|add_prefix_space") &&
           tokenbuf_push(&x->before, (int32_t)json_integer_value(cls), s->a, s->e) &&
           tokenbuf_push(&x->after, (int32_t)json_integer_value(sep), s->a, s->e);
}

static bool post_processor(Around *x, const json_t *o, const JsonSource *s, int depth)
{
    if (!o || json_is_null(o)) return true;
    const char *type = src_type(s, o, "post_processor");
    if (!type || strcmp(type, "ByteLevel") == 0) return type != NULL;
    if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0)
        return pair_of(x, o, s);
    if (strcmp(type, "TemplateProcessing") == 0) return template(x, o, s);
    const json_t *v = json_object_get(o, "processors");
    if (strcmp(type, "Sequence") != 0 || !json_is_array(v)) return src_refuse(s, "post_processor", type);
    if (depth > 20) return err_set(s->e, ERR_CORRUPT, "%s: post_processor: Sequences 20 deep", s->path);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (x->before.n + x->after.n &&
            strcmp(json_string_value(json_object_get(json_array_get(v, i), "type")) ?: "", "ByteLevel") != 0)
            return src_refuse(s, "post_processor", "Sequence of several that add tokens");
        if (!post_processor(x, json_array_get(v, i), s, depth + 1)) return false;
    }
    return true;
}

/* ---- the file ------------------------------------------------------------------------------------------ */

static bool model(Tokenizer *t, Pipeline *p, const json_t *m, const JsonSource *s)
{
    const char *type = json_string_value(json_object_get(m, "type"));
    if (!json_is_object(m)) return err_set(s->e, ERR_CORRUPT, "%s: no `model`", s->path);
    /* Files of the first versions name no type. */
    if (!type && json_object_get(m, "merges")) type = "BPE";
    else if (!type && json_is_array(json_object_get(m, "vocab"))) type = "Unigram";
    else if (!type && json_object_get(m, "max_input_chars_per_word")) type = "WordPiece";
    if (!type) return err_set(s->e, ERR_CORRUPT, "%s: model without a `type`", s->path);
    if (strcmp(type, "BPE") == 0) return bpe_from_json(t, p, m, s->a, s->e);
    if (strcmp(type, "Unigram") == 0) return unigram_from_json(t, p, m, s->a, s->e);
    if (strcmp(type, "WordPiece") == 0) return wordpiece_from_json(t, p, m, s->a, s->e);
    return src_refuse(s, "model", type);
}

static bool document(Tokenizer *t, Pipeline *p, const json_t *o, const JsonSource *s)
{
    const char *version = json_string_value(json_object_get(o, "version"));
    Around x = {{0}, {0}};
    if (!src_known(
            s, o, "tokenizer.json",
            "version|truncation|padding|added_tokens|normalizer|pre_tokenizer|post_processor|decoder|model"))
        return false;
    if (!version || strcmp(version, "1.0") != 0)
        return err_set(s->e, ERR_USAGE, "%s: version %s: not in this version (1.0 is)", s->path,
                       version ? version : "(none)");
    if (!normalizers_from_json(p, json_object_get(o, "normalizer"), s) ||
        !pretokenizers_from_json(p, json_object_get(o, "pre_tokenizer"), s) ||
        !decoders_from_json(p, json_object_get(o, "decoder"), s) ||
        !model(t, p, json_object_get(o, "model"), s) ||
        !added_tokens(p, json_object_get(o, "added_tokens"), s) ||
        !post_processor(&x, json_object_get(o, "post_processor"), s, 0))
        return false;
    p->before = x.before.id;
    p->n_before = x.before.n;
    p->after = x.after.id;
    p->n_after = x.after.n;
    return pipeline_finish(t, p, s->a, s->e);
}

static bool around_is_inside(const Tokenizer *t, const Pipeline *p, Err *e)
{
    for (size_t i = 0; i < p->n_before + p->n_after; i++) {
        const int32_t id = i < p->n_before ? p->before[i] : p->after[i - p->n_before];
        if (id < 0 || id >= t->vocab)
            return err_set(e, ERR_CORRUPT, "%s: post_processor: id %d is outside the vocabulary of %d",
                           t->path, id, t->vocab);
    }
    return true;
}

bool tokenizer_json_open(Tokenizer *t, Arena *a, Err *e)
{
    const JsonSource s = {t->path, a, e};
    json_t *o = json_file(t->path, false, e);
    Pipeline *p = o ? arena_alloc(a, sizeof *p, e) : NULL;
    const char *dir = folder_of(t->path, a, e);
    const bool ok = p && dir && document(t, p, o, &s) && around_is_inside(t, p, e) &&
                    tokenizer_config_read(t, p, dir, a, e);
    json_decref(o);
    return ok;
}
