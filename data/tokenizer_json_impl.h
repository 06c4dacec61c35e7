/* Private to data/: reading tokenizer.json (tokenizer_json.c: the file, added tokens, post-processor;
 * tokenizer_stages.c: normalizers, pre-tokenizers, decoders; bpe_json.c: the BPE model). */
#ifndef TOKENIZER_JSON_IMPL_H
#define TOKENIZER_JSON_IMPL_H
#include "data/pipeline_impl.h"

/* Where messages come from, and where what is kept goes. */
typedef struct JsonSource {
    const char *path;
    Arena *a;
    Err *e;
} JsonSource;

/* "type" of an object, NULL with e when it has none. part: "normalizer", ... */
const char *src_type(const JsonSource *s, const json_t *o, const char *part);
/* Refuses, by name, a key that `known` ("type|left|right") does not list. */
bool src_known(const JsonSource *s, const json_t *o, const char *part, const char *known);
/* A string kept in the arena; s NULL when there is none; e when it is something else. */
TokSpan src_span(const JsonSource *s, const json_t *o, const char *part, const char *key);
bool src_flag(const JsonSource *s, const json_t *o, const char *part, const char *key, bool fallback);
/* Refuses "part kind: why". Returns false. */
bool src_refuse(const JsonSource *s, const char *part, const char *kind);

bool normalizers_from_json(Pipeline *p, const json_t *o, const JsonSource *s);
bool pretokenizers_from_json(Pipeline *p, const json_t *o, const JsonSource *s);
bool decoders_from_json(Pipeline *p, const json_t *o, const JsonSource *s);

/* tokenizer_config.c: BOS, EOS and chat template from the files in the folder dir (tokenizer_config.json,
 * special_tokens_map.json, chat_template.jinja), else by the names families use. */
bool tokenizer_config_read(Tokenizer *t, Pipeline *p, const char *dir, Arena *a, Err *e);
/* The folder of a path, "." when it names none. */
const char *folder_of(const char *path, Arena *a, Err *e);
/* A whole JSON file, NULL with e; NULL without e when optional and not there. The caller drops it. */
json_t *json_file(const char *path, bool optional, Err *e);
/* The added token with this text, else the model's piece; -1 = none. */
int32_t pipeline_id(const Pipeline *p, const char *s, size_t n);
#endif
