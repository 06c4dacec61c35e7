/* formats/hf.c: a Hugging Face folder: config.json, model.safetensors or shards with an index,
 * generation_config.json, a tokenizer. And one spelling of names for all: GPT-2 with `transformer.`, Llama
 * with `model.`, whatever the file left out. */
#include <stdlib.h>
#include <string.h>
#include "formats/formats_impl.h"

bool config_take(TensorFile *f, const char *text, const char *where, Err *e)
{
    json_t *j = json_object_of(text, strlen(text), where, e);
    if (!j) return false;
    const json_t *type = json_object_get(j, "model_type");
    if (type && !json_is_string(type)) {
        err_set(e, ERR_CORRUPT, "%s: `model_type` is not a string", where);
    } else {
        f->config_json = text;
        f->arch = type ? arena_strdup(f->arena, json_string_value(type), e) : NULL;
    }
    json_decref(j);
    return !e->code;
}

/* Text of dir/name; NULL without error when there is no such file. */
static const char *optional_text(TensorFile *f, const char *dir, const char *name, const char **path, Err *e)
{
    size_t bytes;
    *path = path_join(f->arena, dir, name, e);
    if (!*path || !file_exists(*path)) return NULL;
    const char *text = file_read(f->arena, *path, &bytes, e);
    if (text && strlen(text) != bytes) {
        err_set(e, ERR_CORRUPT, "%s: holds a zero byte, not a text", *path);
        return NULL;
    }
    return text;
}

bool hf_beside(TensorFile *f, const char *dir, Err *e)
{
    static const char *const tokenizers[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    const char *path;
    if (!dir) return false;
    const char *config = optional_text(f, dir, "config.json", &path, e);
    if (config && !config_take(f, config, path, e)) return false;
    f->generation_json = optional_text(f, dir, "generation_config.json", &path, e);
    for (size_t i = 0; i < sizeof tokenizers / sizeof *tokenizers && !f->tokenizer_path && !e->code; i++) {
        path = path_join(f->arena, dir, tokenizers[i], e);
        if (path && file_exists(path)) f->tokenizer_path = path;
    }
    return !e->code;
}

/* The value of a key of the outermost object of a JSON text that parses, and its length; NULL where the key
 * is not there. Words in strings and keys of inner objects are others. */
static const char *value_of(const char *json, const char *key, size_t *n)
{
    const size_t len = strlen(key);
    int depth = 0;
    for (const char *at = json; *at; at++) {
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        if (*at != '"') continue;
        const char *word = at;
        for (at++; *at && *at != '"'; at++) at += *at == '\\' && at[1];
        if (!*at) return NULL;
        const char *v = at + 1 + strspn(at + 1, " \t\r\n");
        if (depth != 1 || *v != ':' || (size_t)(at + 1 - word) != len || memcmp(word, key, len)) continue;
        v += 1 + strspn(v + 1, " \t\r\n");
        const char *end = *v == '"' ? strchr(v + 1, '"') : NULL;
        *n = end ? (size_t)(end + 1 - v) : strcspn(v, ",} \t\r\n");
        return v;
    }
    return NULL;
}

/* Only the values change (a word, or null), nothing else of the file's own text; a text without either key
 * gets both, as first ones. */
const char *formats_config_dtype(const char *json, DType dtype, Arena *a, Err *e)
{
    static const char *const key[] = {"\"torch_dtype\"", "\"dtype\""};
    const char *word = dtype_long_name(dtype), *brace = json ? strchr(json, '{') : NULL;
    bool any = false;
    for (int i = 0; i < 2 && brace && json; i++) {
        size_t n = 0;
        const char *at = value_of(json, key[i], &n);
        any = any || at;
        if (at) json = arena_printf(a, e, "%.*s\"%s\"%s", (int)(at - json), json, word, at + n);
    }
    if (any || !brace) return json;
    return arena_printf(a, e, "{\n  %s: \"%s\",\n  %s: \"%s\",%s", key[0], word, key[1], word, brace + 1);
}

/* ---- names --------------------------------------------------------------------------------------------- */

static bool tail_is(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static bool has(const TensorFile *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (!strcmp(f->t[i].name, name)) return true;
    return false;
}

/* Causal masks and RoPE tables that old writers saved beside the weights. */
static bool is_buffer(const char *name, bool gpt2)
{
    if (gpt2) return tail_is(name, ".attn.bias") || tail_is(name, ".attn.masked_bias");
    return tail_is(name, ".rotary_emb.inv_freq");
}

static bool is_conv1d(const char *name)
{
    return tail_is(name, ".c_attn.weight") || tail_is(name, ".c_proj.weight") ||
           tail_is(name, ".c_fc.weight");
}

bool names_canonical(TensorFile *f, Err *e)
{
    bool bare_gpt2 = has(f, "wte.weight"), gpt2 = bare_gpt2 || has(f, "transformer.wte.weight");
    bool bare_llama = has(f, "embed_tokens.weight");
    const char *prefix = bare_gpt2 ? "transformer." : bare_llama ? "model." : NULL;
    int kept = 0;
    for (int i = 0; i < f->n && !e->code; i++) {
        FileTensor t = f->t[i];
        if (is_buffer(t.name, gpt2)) continue;
        if (prefix && strncmp(t.name, prefix, strlen(prefix)) && strncmp(t.name, "lm_head.", 8))
            t.name = arena_printf(f->arena, e, "%s%s", prefix, t.name);
        if (f->format != FMT_HDF5) t.in_out = gpt2 && t.ndim == 2 && t.name && is_conv1d(t.name);
        f->t[kept++] = t;
    }
    f->n = kept;
    return !e->code;
}

/* ---- shards -------------------------------------------------------------------------------------------- */

/* A shard's name stays inside the folder. */
static bool plain_name(const char *s) { return *s && *s != '.' && !strchr(s, '/') && strlen(s) < 256; }

static bool read_shard(TensorFile *f, const char *dir, const char *index, const char *file, const json_t *map,
                       Err *e)
{
    int first = f->n;
    const char *path = path_join(f->arena, dir, file, e);
    char shown[168];
    if (!path) return false;
    if (!file_exists(path))
        return err_set(e, ERR_CORRUPT, "%s: missing shard: %s names it (incomplete download?)", path, index);
    if (!safetensors_read(f, path, e)) return false;
    for (int i = first; i < f->n; i++) {
        const char *in = json_string_value(json_object_get(map, f->t[i].name));
        if (in && strcmp(in, file))
            return err_set(
                e, ERR_CORRUPT,
                "%s: tensor `%s` is in this shard too, %s has it in %s: a tensor twice; fetch or write the "
                "shards again",
                path, name_shown(shown, f->t[i].name), index, in);
        if (!in)
            return err_set(e, ERR_CORRUPT, "%s: tensor `%s` is not listed for this shard in %s", path,
                           name_shown(shown, f->t[i].name), index);
    }
    return true;
}

static bool read_shards(TensorFile *f, const char *dir, const char *index, const json_t *map, Err *e)
{
    const char *name;
    json_t *v;
    char shown[168];
    json_t *seen = json_object();
    json_object_foreach((json_t *)(uintptr_t)map, name, v)
    {
        const char *file = json_string_value(v);
        if (!file || !plain_name(file)) {
            err_set(e, ERR_CORRUPT, "%s: tensor `%s`: its shard is not a plain file name", index,
                    name_shown(shown, name));
            break;
        }
        if (json_object_get(seen, file)) continue;
        if (json_object_set_new(seen, file, json_true()) != 0)
            err_set(e, ERR_MEMORY, "%s: out of memory", index);
        if (!read_shard(f, dir, index, file, map, e)) break;
    }
    json_decref(seen);
    if (e->code) return false;
    /* every tensor of every shard is in the map, so fewer of them means that one named is in none */
    if ((size_t)f->n != json_object_size(map))
        return err_set(e, ERR_CORRUPT, "%s: lists %zu tensors, the shards hold %d", index,
                       json_object_size(map), f->n);
    return true;
}

bool hf_read(TensorFile *f, const char *dir, Err *e)
{
    if (!hf_beside(f, dir, e)) return false;
    if (!f->config_json)
        return err_set(e, ERR_FAIL, "%s: no config.json in this folder: not a Hugging Face model", dir);
    const char *single = path_join(f->arena, dir, "model.safetensors", e), *index;
    if (!single) return false;
    if (file_exists(single)) return safetensors_read(f, single, e);
    const char *text = optional_text(f, dir, "model.safetensors.index.json", &index, e);
    if (e->code) return false;
    if (!text) {
        const char *pickle = path_join(f->arena, dir, "pytorch_model.bin", e);
        return err_set(e, ERR_FAIL,
                       "%s: neither model.safetensors nor model.safetensors.index.json in this folder%s", dir,
                       pickle && file_exists(pickle)
                           ? " (pytorch_model.bin is a pickle and is never read: save it with "
                             "safetensors)"
                           : "");
    }
    json_t *j = json_object_of(text, strlen(text), index, e);
    if (!j) return false;
    const json_t *map = json_object_get(j, "weight_map");
    bool ok = json_is_object(map) ? read_shards(f, dir, index, map, e)
                                  : err_set(e, ERR_CORRUPT, "%s: no `weight_map` object", index);
    json_decref(j);
    return ok;
}
