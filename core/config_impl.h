/* core/config_impl.h: private to core/config_*.c: the document and what its files share. */
#ifndef CONFIG_IMPL_H
#define CONFIG_IMPL_H
#include "core/config.h"

enum {
    CFG_MAX_BYTES = 1 << 20,
    CFG_MAX_DEPTH = 32,
    CFG_MAX_COPIES = 10000,
    CFG_MAX_NODES = 50000,
    CFG_MAX_ERRORS = 200,
    CFG_MAX_FILES = 64,
    CFG_MAX_TEXT = 65536
};

typedef struct ConfigLine {
    int source, line, col;
    const char *text;
} ConfigLine;
typedef struct ConfigSource {
    const char *file, *dir, *suffix;
} ConfigSource; /* suffix quotes an override */
typedef struct ConfigOverride {
    const char *key, *value;
    int source, col;
    char mode;
} ConfigOverride;

enum { CFG_MAX_SELECT = 72 };
typedef struct ConfigSelect {
    const char *key;
    const char *const *name; /* (n) */
    int n;
    bool leave;
} ConfigSelect;

struct ConfigDoc {
    Arena *a;
    Err own, *e; /* e = &own: memory only, the caller's may be gone later */
    const char *path;
    ConfigSelect select[CFG_MAX_SELECT];
    int n_select;
    const ConfigSection *top;
    ConfigNode *root, *defaults; /* root: everything laid together, canonical names */
    ConfigNode **layer;
    int n_layer; /* one map per file, includes first */
    ConfigOverride *over;
    int n_over; /* environment, command line, final ones */
    ConfigSource *source;
    int n_source;
    ConfigLine *error;
    int n_error, n_dropped, n_read_error; /* those before the rules between keys */
    const char *open_file[CFG_MAX_FILES];
    int n_open, n_file;
    bool main_read;
    int n_missing; /* includes that could not be read */
    int n_node, n_copy, n_expand;
    const void *busy[CFG_MAX_DEPTH];
    int n_busy; /* values under interpolation */
};

/* config_yaml.c. Text to nodes; NULL when it cannot be read (an error line is added) or is empty (none is
 * added). */
ConfigNode *config_yaml(ConfigDoc *d, int source, const char *text, size_t bytes, int col0,
                        const char *origin, const char *prefix);
ConfigNode *config_new_node(ConfigDoc *d, NodeKind kind, const char *text, int source, int line, int col,
                            const char *origin);
ConfigNode *config_copy(ConfigDoc *d, const ConfigNode *n);
bool config_add(ConfigDoc *d, ConfigNode *parent, ConfigNode *key, ConfigNode *item); /* key NULL for lists */

/* config_doc.c. An error line at a place: path is the key as written, "" for none. */
void config_error_at(ConfigDoc *d, int source, int line, int col, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));
void config_error_node(ConfigDoc *d, const ConfigNode *n, const char *path, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
int config_add_source(ConfigDoc *d, const char *file, const char *dir, const char *suffix);
/* Node at a canonical path below root, NULL if absent. at: the deepest key or value on the way; written: path
 * as written. */
const ConfigNode *config_find(const ConfigDoc *d, const char *path, const ConfigNode **at,
                              const char **written);

/* config_merge.c */
int config_index(const ConfigNode *map, const char *key);                  /* -1 = absent */
const ConfigField *config_field(const ConfigSection *s, const char *name); /* canonical names only */
const char *config_canonical(const ConfigSection *s, const char *name);    /* name itself when no alias */
/* ` (did you mean x?)` or "" for a name that s does not have; other sections are searched too. */
const char *config_hint(ConfigDoc *d, const ConfigSection *s, const char *name);
bool config_merge_all(ConfigDoc *d, const ConfigSection *top);
ConfigNode *config_value_node(ConfigDoc *d, int source, const char *text, int col, const char *origin,
                              const char *key);

/* config_print.c. A text that grows; p is NUL-terminated once anything was put. */
typedef struct ConfigText {
    Arena *a;
    Err *e;
    char *p;
    size_t n, room;
} ConfigText;
bool config_put(ConfigText *t, const char *text, size_t bytes);
bool config_putf(ConfigText *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* config_interp.c. The node with its ${...} replaced; NULL after an error line. */
const ConfigNode *config_resolve(ConfigDoc *d, const ConfigNode *n, const char *path);
#endif
