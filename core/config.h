/* core/config.h: YAML onto typed structs generated from .def lists: one list gives struct, defaults, checks
 * and help.
 *
 * A section is declared once, in its owner's folder (optim/optim.def):
 *   CFG_ENUM(name, "adamw", "adamw|adam|sgd", "", "optimizer")   default; accepted; known, not yet; help
 *   CFG_FLOAT(learning_rate, 3e-4, 0, 10, "...")                 default, least, most, help; NAN = unset
 *   CFG_FLOAT_AUTO(residual_init_scale, 1, 0, 1e6, "...")        also `auto`, kept as NAN
 *   CFG_INT(warmup_steps, 0, 0, INT64_MAX, "...")
 *   CFG_BOOL(shuffle, true, "...")
 *   CFG_BOOL_ONLY(tf32, true, "...")                             only the default works yet; _INT, _FLOAT
 *   CFG_STR(path, NULL, "...")                                   NULL = unset
 *   CFG_STRS(freeze, "", "...")                                  list of strings; default "a,b"
 *   CFG_INTS(seeds, "42", 0, INT64_MAX, "...")                   list of integers
 *   CFG_FLOATS(betas, "0.9,0.95", "...")
 *   CFG_MAP(early_stopping, Struct, section, "...")              nested struct
 *   CFG_MAP_OPT(init, Struct, section, "...")                    the same, printed as null unless given
 *   CFG_LIST(groups, Struct, section, "...")                     list of structs
 *   CFG_RAW(arms, "...")                                         kept as a YAML node
 *   CFG_LATER(tasks, "...")                                      known by name, refused so far
 * In a choice list # stands for digits and <number> for any number ("val|concat-#").
 *
 * The struct includes the list between core/config_fields.h and core/config_undef.h, the table of fields does
 * so between core/config_table.h and core/config_undef.h (optim/optim.h, optim/config.c). C types: bool,
 * int64_t, double, const char *, ConfigStrs, ConfigInts, ConfigFloats, Struct, struct { int n; Struct *v; },
 * const ConfigNode *. Was a key written? config_was_set(doc, "section.key"). */
#ifndef CONFIG_H
#define CONFIG_H
#include "core/core.h"
#include <float.h>
#include <math.h>

#define CFG_ABOVE_0 DBL_MIN /* open ends of ranges: (0, ...] and [..., 1) */
#define CFG_BELOW_1 (1.0 - DBL_EPSILON / 2)
#define CFG_ANY_LO (-DBL_MAX)
#define CFG_ANY_HI DBL_MAX
#define CFG_COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

typedef struct ConfigInts {
    int n;
    int64_t *v;
} ConfigInts;
typedef struct ConfigStrs {
    int n;
    const char **v;
} ConfigStrs;
typedef struct ConfigFloats {
    int n;
    double *v;
} ConfigFloats;
typedef struct ConfigNode ConfigNode; /* one YAML node with its place; fields below */
typedef enum { NODE_SCALAR, NODE_LIST, NODE_MAP } NodeKind;
struct ConfigNode {
    NodeKind kind;
    const char *text;
    bool quoted;
    int n;
    ConfigNode **item, **key;
    const char *file;
    int line, col;
    const char *origin;  /* "command line", "environment", "default" or the file */
    const char *written; /* of a key: as written, where text is canonical */
};

typedef enum {
    CFG_T_BOOL,
    CFG_T_INT,
    CFG_T_FLOAT,
    CFG_T_STR,
    CFG_T_ENUM,
    CFG_T_STRS,
    CFG_T_INTS,
    CFG_T_FLOATS,
    CFG_T_MAP,
    CFG_T_LIST,
    CFG_T_RAW,
    CFG_T_LATER
} ConfigType;
typedef struct ConfigSection ConfigSection;
typedef struct ConfigField {
    const char *name;
    ConfigType type;
    size_t offset, size;
    const char *def;
    double lo, hi;
    const char *values, *later, *help;
    const ConfigSection *(*sub)(void);
} ConfigField;
struct ConfigSection {
    const char *name;
    size_t size;
    int n;
    const ConfigField *field;
    const char *help;
    const char *const (*alias)[2]; /* alias[i] = {"lr", "learning_rate"} */
    int n_alias;
};

/* The accessor of a section: CFG_SECTION(optim_section, "optim", OptimConfig, fields, "help"). */
#define CFG_SECTION(fn, title, Struct, fields, help)                                                         \
    const ConfigSection *fn(void)                                                                            \
    {                                                                                                        \
        static const ConfigSection s = {title, sizeof(Struct), CFG_COUNT(fields), fields, help, NULL, 0};    \
        return &s;                                                                                           \
    }
#define CFG_SECTION_ALIAS(fn, title, Struct, fields, help, aliases)                                          \
    const ConfigSection *fn(void)                                                                            \
    {                                                                                                        \
        static const ConfigSection s = {title, sizeof(Struct), CFG_COUNT(fields), fields,                    \
                                        help,  aliases,        CFG_COUNT(aliases)};                          \
        return &s;                                                                                           \
    }

typedef struct ConfigDoc ConfigDoc; /* parsed document: nodes, overrides, errors */
/* Reads the file and what it includes; layers, overrides (`a.b=v`, `+a.b=v`, `~a.b`, `a.b[0].c=v`) and
 * PARE_A__B of the environment are put together by config_fill. path NULL: overrides alone, version 1. NULL
 * only with e set. Errors are collected, all of them, as lines `file:line:col: section.key: message (did you
 * mean ...)`. */
ConfigDoc *config_parse(Arena *a, const char *path, int n_override, char *const *override, Err *e);
/* Before config_fill: a value under all files; an override over everything; the map found at key
 * ("arms.small") over the files, under environment and command line. */
void config_put_default(ConfigDoc *d, const char *key, const char *value);
void config_put_final(ConfigDoc *d, const char *override);
void config_select(ConfigDoc *d, const char *key);
/* The same for some of the map's keys: those in name (n), or (leave) all but those. Later ones lie over
 * earlier ones.
 */
void config_select_part(ConfigDoc *d, const char *key, const char *const *name, int n, bool leave);
/* Defaults, then the document, into out (a struct of sections described by top). Adds errors to the document;
 * false when it holds any. The lookups below are by canonical names and valid afterwards. Once per document.
 */
bool config_fill(ConfigDoc *d, const ConfigSection *top, void *out, Err *e);
bool config_complete(const ConfigDoc *d); /* every file was read: rules between keys make sense */
void config_error(ConfigDoc *d, const char *key, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
bool config_was_set(const ConfigDoc *d, const char *key);
/* key: "data.train[0].path"; NULL = not given. */
const ConfigNode *config_node(const ConfigDoc *d, const char *key);
int config_error_count(const ConfigDoc *d);
const char *config_error_text(const ConfigDoc *d); /* all lines by place, newline-separated */
/* Adds the errors of another parse of the same files and overrides (an arm's) that to does not have yet. */
void config_take_errors(ConfigDoc *to, const ConfigDoc *from);
/* All keys with their values, defaults included, as YAML that parses to the same struct. */
char *config_resolved(const ConfigDoc *d, const ConfigSection *top, const void *values, Arena *a, Err *e);
/* The same with the origin of every value that is not a default as a comment behind it. */
char *config_show(const ConfigDoc *d, const ConfigSection *top, const void *values, Arena *a, Err *e);
/* text, a file or glob, as a path to open: beside the file that says so (else the main file) when it exists
 * there, else as it is. */
const char *config_path(const ConfigDoc *d, const ConfigNode *at, const char *text, Arena *a, Err *e);
bool config_is_null(const ConfigNode *n); /* NULL, or a plain null, ~ or nothing */
/* 10, -3, 1_000, 1e4, 64k = 64000, 64Ki = 65536, 2M, 2Mi, 1G */
bool config_parse_int(const char *text, int64_t *out);
bool config_parse_float(const char *text, double *out); /* finite only; false on overflow and underflow */
/* Text for --help / `pare config schema`. */
char *config_help(const ConfigSection *top, Arena *a, Err *e);
int edit_distance(const char *a, const char *b); /* Damerau-Levenshtein, for "did you mean" */
/* NULL when none is within 2 edits (or 1/3 of its length). */
const char *nearest_name(const char *name, const char *const *names, int n);
bool glob_match(const char *glob, const char *name); /* '*' any run (dots too), '?' one, whole name */
#endif
