/* model/spec_impl.h: reading and writing config.json, shared by spec.c, spec_write.c and rope.c. */
#ifndef SPEC_IMPL_H
#define SPEC_IMPL_H
#include <jansson.h>
#include "model/model.h"

/* One object of config.json; where names the file in messages. */
typedef struct Reader {
    const json_t *root;
    const char *where;
    Err *e;
} Reader;
const json_t *spec_get(const Reader *r, const char *key);  /* NULL when absent or null */
long spec_int(const Reader *r, const char *key, long def); /* def < 0: the key is required */
double spec_real(const Reader *r, const char *key, double def);
bool spec_bool(const Reader *r, const char *key, bool def);
bool spec_check(const ModelSpec *s, const char *where, Err *e);

/* rope_parameters (transformers 5), else rope_theta and rope_scaling (4). After max_pos. */
void rope_read(const Reader *r, ModelSpec *s);
/* Both spellings into config.json's object. */
void rope_write(json_t *o, const ModelSpec *s);
#endif
