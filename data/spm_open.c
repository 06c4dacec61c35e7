/* data/spm_open.c: a SentencePiece file as a Tokenizer. */
#include "data/spm_impl.h"
#include "data/tokenizer_json_impl.h"
#include <string.h>

static bool encode(const Tokenizer *t, const char *text, size_t bytes, TokenBuf *out, uint64_t *steps,
                   Arena *a, Err *e)
{
    return spm_encode(t->impl, text, bytes, out, steps, a, e);
}

static char *decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e)
{
    return spm_decode(t->impl, ids, n, bytes, a, e);
}

static const char *piece(const Tokenizer *t, int prev, int id, size_t *bytes)
{
    return spm_piece(t->impl, prev, id, bytes);
}

/* Rules, then type, score and text of each piece. */
static bool digest(const Tokenizer *t, TokText *out, Arena *a, Err *e)
{
    const Spm *m = t->impl;
    const char rules[5] = {(char)m->add_dummy_prefix, (char)m->remove_extra_whitespaces,
                           (char)m->escape_whitespaces, (char)m->byte_fallback, (char)m->model_type};
    bool ok = text_put(out, t->ops->kind, strlen(t->ops->kind), a, e) && text_put(out, rules, 5, a, e);
    if (m->map)
        ok = ok && text_put(out, (const char *)m->map->unit, 4 * m->map->n_unit, a, e) &&
             text_put(out, m->map->text, m->map->bytes, a, e);
    for (int i = 0; ok && i < m->vocab; i++) {
        const SpmPiece *s = &m->piece[i];
        char head[9];
        head[0] = (char)s->type;
        memcpy(head + 1, &s->score, 4);
        memcpy(head + 5, &s->bytes, 4);
        ok = text_put(out, head, 9, a, e) && text_put(out, s->text, s->bytes, a, e);
    }
    return ok;
}

const TokenizerOps spm_ops = {"SentencePiece", encode, decode, piece, digest};

/* A role of tokenizer_config.json; a name that the model lacks is a token of another file. */
static bool role(int *id, const json_t *config, const char *key, const Tokenizer *t, Err *e)
{
    const json_t *v = json_object_get(config, key);
    const char *name = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    if (!v) return true;
    *id = name ? spm_find(t->impl, name, strlen(name)) : -1;
    if (name && *id < 0)
        return err_set(
            e, ERR_CORRUPT,
            "%s: %s `%.80s` of tokenizer_config.json is not a piece of it; give the tokenizer.json", t->path,
            key, name);
    return true;
}

/* Tokens beyond the model's would be cut as text. */
static bool no_more_tokens(const Tokenizer *t, const json_t *extra, Err *e)
{
    json_t *o = (json_t *)(uintptr_t)extra;
    for (void *i = json_object_iter(o); i; i = json_object_iter_next(o, i))
        if (spm_find(t->impl, json_object_iter_key(i), strlen(json_object_iter_key(i))) < 0)
            return err_set(
                e, ERR_USAGE,
                "%s: added_tokens.json beside it adds `%.80s`, which the model does not have: not in this "
                "version; give the tokenizer.json",
                t->path, json_object_iter_key(i));
    return true;
}

/* tokenizer_config.json and added_tokens.json in the same folder. Without add_bos_token a text gets the BOS,
 * as SentencePiece models are used; with it, what the keys say. */
static bool beside(Tokenizer *t, Arena *a, Err *e)
{
    const char *dir = folder_of(t->path, a, e);
    const char *config_path = dir ? path_join(a, dir, "tokenizer_config.json", e) : NULL;
    const char *extra_path = dir ? path_join(a, dir, "added_tokens.json", e) : NULL;
    if (!config_path || !extra_path) return false;
    json_t *config = json_file(config_path, true, e);
    json_t *extra = e->code ? NULL : json_file(extra_path, true, e);
    const json_t *bos = json_object_get(config, "add_bos_token"),
                 *eos = json_object_get(config, "add_eos_token");
    bool ok = !e->code && role(&t->bos, config, "bos_token", t, e) &&
              role(&t->eos, config, "eos_token", t, e) && no_more_tokens(t, extra, e);
    if (ok && (json_is_boolean(bos) || json_is_boolean(eos)))
        ok = tokenizer_frame(t, !json_is_false(bos), json_is_true(eos), a, e);
    json_decref(config);
    json_decref(extra);
    return ok;
}

bool spm_open(Tokenizer *t, Arena *a, Err *e)
{
    FileMap map;
    Spm *m = arena_alloc(a, sizeof *m, e);
    if (!m || !file_map(&map, t->path, e)) return false;
    *m = (Spm){.path = t->path, .bos = -1, .eos = -1, .unk = -1};
    const bool ok = spm_parse(m, map.data, map.bytes, a, e);
    file_unmap(&map);
    t->impl = m;
    t->ops = &spm_ops;
    t->vocab = m->vocab;
    t->bos = m->bos;
    t->eos = m->eos;
    t->unk = m->unk;
    return ok && beside(t, a, e);
}
