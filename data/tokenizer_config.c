/* data/tokenizer_config.c: what stands beside a vocabulary: tokenizer_config.json (bos_token, eos_token,
 * chat_template), special_tokens_map.json, chat_template.jinja. Without a name of the BOS there: the single
 * id the post-processor puts in front, else the names families use; so for EOS. null means none.
 */
#include "data/tokenizer_json_impl.h"
#include <string.h>

/* "<s>" or {"content": "<s>", ...}; *said: the key is there, null included. */
static const char *token_name(const json_t *o, const char *key, bool *said)
{
    const json_t *v = json_object_get(o, key);
    *said |= v != NULL;
    return json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
}

static int named(const Pipeline *p, const char *const *name, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const int32_t id = pipeline_id(p, name[i], strlen(name[i]));
        if (id >= 0) return id;
    }
    return -1;
}

static bool role(int *id, const Pipeline *p, const json_t *config, const json_t *map, const char *key,
                 const Tokenizer *t, Err *e)
{
    bool said = false;
    const char *name = token_name(config, key, &said);
    if (!said) name = token_name(map, key, &said);
    if (!said) return true;
    *id = name ? pipeline_id(p, name, strlen(name)) : -1;
    if (name && *id < 0)
        return err_set(e, ERR_CORRUPT, "%s: %s `%.80s` beside it is not a token of it", t->path, key, name);
    return true;
}

/* A string, or a list of {"name", "template"} of which "default" counts. */
static const char *template_text(const json_t *v)
{
    if (json_is_string(v)) return json_string_value(v);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *o = json_array_get(v, i);
        const char *name = json_string_value(json_object_get(o, "name"));
        if (name && strcmp(name, "default") == 0) return json_string_value(json_object_get(o, "template"));
    }
    return NULL;
}

static bool chat_template_read(Tokenizer *t, const json_t *config, const char *dir, Arena *a, Err *e)
{
    const char *path = path_join(a, dir, "chat_template.jinja", e);
    if (!path) return false;
    if (file_exists(path)) {
        t->chat_template = file_read(a, path, NULL, e);
        return t->chat_template != NULL;
    }
    const char *text = template_text(json_object_get(config, "chat_template"));
    if (!text) return true;
    t->chat_template = arena_strdup(a, text, e);
    return t->chat_template != NULL;
}

bool tokenizer_config_read(Tokenizer *t, Pipeline *p, const char *dir, Arena *a, Err *e)
{
    static const char *const bos[] = {"<|begin_of_text|>", "<bos>", "<s>", "<|endoftext|>", "[CLS]"};
    static const char *const eos[] = {"<|end_of_text|>", "<eos>", "</s>", "<|endoftext|>", "[SEP]"};
    const char *config_path = path_join(a, dir, "tokenizer_config.json", e);
    const char *map_path = path_join(a, dir, "special_tokens_map.json", e);
    if (!config_path || !map_path) return false;
    json_t *config = json_file(config_path, true, e);
    json_t *map = e->code ? NULL : json_file(map_path, true, e);
    t->bos = p->n_before == 1 ? p->before[0] : named(p, bos, sizeof bos / sizeof *bos);
    t->eos = p->n_after == 1 ? p->after[0] : named(p, eos, sizeof eos / sizeof *eos);
    const bool ok = !e->code && role(&t->bos, p, config, map, "bos_token", t, e) &&
                    role(&t->eos, p, config, map, "eos_token", t, e) &&
                    chat_template_read(t, config, dir, a, e);
    json_decref(config);
    json_decref(map);
    return ok;
}
