/* tests/fuzz/config_json.c: a model's config.json: JSON, then the description of the model. */
#include "model/model.h"
#include "tests/fuzz/fuzz_impl.h"

FUZZ(config_json, 64)
{
    ModelSpec s;
    const char *text = arena_strndup(a, (const char *)data, n, e);
    if (text) spec_parse(&s, text, "config.json", a, e);
}
