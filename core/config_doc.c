/* core/config_doc.c: the configuration document: files and their includes, error lines, lookup by key. */
#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/config_impl.h"

/* ---- error lines ------------------------------------------------------------------------------------ */
int config_add_source(ConfigDoc *d, const char *file, const char *dir, const char *suffix)
{
    size_t n = (size_t)d->n_source;
    ConfigSource *grown = arena_grow(d->a, d->source, n * sizeof *grown, (n + 1) * sizeof *grown, d->e);
    char *own = arena_strdup(d->a, file, d->e); /* each source has its own pointer: nodes are found by it */
    if (!grown || !own) return 0;
    d->source = grown;
    d->source[n] = (ConfigSource){own, dir, suffix};
    return d->n_source++;
}

static int source_of(const ConfigDoc *d, const ConfigNode *n)
{
    for (int i = 0; i < d->n_source; i++)
        if (d->source[i].file == n->file) return i;
    return 0;
}

static void add_line(ConfigDoc *d, ConfigLine l)
{
    for (int i = 0; i < d->n_error; i++) {
        const ConfigLine *o = &d->error[i];
        if (o->source == l.source && o->line == l.line && o->col == l.col && strcmp(o->text, l.text) == 0)
            return;
    }
    if (d->n_error >= CFG_MAX_ERRORS) {
        d->n_dropped++;
        return;
    }
    if (!d->error) d->error = arena_alloc(d->a, CFG_MAX_ERRORS * sizeof *d->error, d->e);
    if (d->error) d->error[d->n_error++] = l;
}

static void add_message(ConfigDoc *d, int source, int line, int col, const char *path, const char *fmt,
                        va_list ap)
{
    char message[1024];
    vsnprintf(message, sizeof message, fmt, ap);
    for (char *c = message; *c; c++)
        if ((unsigned char)*c < 32) *c = ' ';
    const ConfigSource *s = &d->source[source];
    char *text = arena_printf(d->a, d->e, "%s:%d:%d: %.300s%s%s%s", s->file, line, col, path,
                              path[0] ? ": " : "", message, s->suffix ? s->suffix : "");
    if (text) add_line(d, (ConfigLine){source, line, col, text});
}

void config_error_at(ConfigDoc *d, int source, int line, int col, const char *path, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_message(d, source, line, col, path, fmt, ap);
    va_end(ap);
}

void config_error_node(ConfigDoc *d, const ConfigNode *n, const char *path, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    add_message(d, source_of(d, n), n->line, n->col, path, fmt, ap);
    va_end(ap);
}

void config_error(ConfigDoc *d, const char *key, const char *fmt, ...)
{
    const ConfigNode *at = NULL;
    const char *written = key;
    const ConfigNode *value = config_find(d, key, &at, &written);
    if (value) at = value;
    for (int i = 0; at && i < (value ? d->n_error : d->n_read_error);
         i++) { /* not judged again once refused */
        const ConfigLine *l = &d->error[i];
        if (l->source == source_of(d, at) && l->line == at->line && l->col == at->col) return;
    }
    va_list ap;
    va_start(ap, fmt);
    add_message(d, at ? source_of(d, at) : 0, at ? at->line : 1, at ? at->col : 1, written, fmt, ap);
    va_end(ap);
}

void config_take_errors(ConfigDoc *to, const ConfigDoc *from)
{
    for (int i = 0; i < from->n_error; i++) add_line(to, from->error[i]);
    to->n_dropped += from->n_dropped;
}

int config_error_count(const ConfigDoc *d) { return d->n_error; }

static int compare_lines(const void *a, const void *b)
{
    const ConfigLine *x = *(const ConfigLine *const *)a, *y = *(const ConfigLine *const *)b;
    if (x->source != y->source) return x->source < y->source ? -1 : 1;
    if (x->line != y->line) return x->line < y->line ? -1 : 1;
    if (x->col != y->col) return x->col < y->col ? -1 : 1;
    return x < y ? -1 : x > y;
}

const char *config_error_text(const ConfigDoc *d)
{
    const ConfigLine *order[CFG_MAX_ERRORS];
    size_t bytes = 128;
    for (int i = 0; i < d->n_error; i++) {
        order[i] = &d->error[i];
        bytes += strlen(d->error[i].text) + 1;
    }
    qsort(order, (size_t)d->n_error, sizeof order[0], compare_lines);
    Err e = {0};
    char *text = arena_alloc(d->a, bytes, &e);
    if (!text) return "out of memory";
    size_t n = 0;
    for (int i = 0; i < d->n_error; i++)
        n += (size_t)snprintf(text + n, bytes - n, "%s%s", i ? "\n" : "", order[i]->text);
    if (d->n_dropped) snprintf(text + n, bytes - n, "\nand %d more", d->n_dropped);
    return text;
}

/* ---- lookup ----------------------------------------------------------------------------------------- */
/* Whole number in front of ']', -1 when there is none. */
static int index_of(const char *text)
{
    int64_t v = -1;
    char digits[12];
    snprintf(digits, sizeof digits, "%.*s", (int)strcspn(text, "]"), text);
    return config_parse_int(digits, &v) && v >= 0 && v < INT_MAX ? (int)v : -1;
}

const ConfigNode *config_find(const ConfigDoc *d, const char *path, const ConfigNode **at,
                              const char **written)
{
    const ConfigNode *n = d->root;
    const char *p = path, *shown = "";
    bool missing = !n;
    while (*p && n) {
        size_t len = strcspn(p + (*p == '['), ".[]");
        if (*p == '[') {
            int i = index_of(p + 1);
            missing = missing || n->kind != NODE_LIST || i < 0 || i >= n->n;
            shown = arena_printf(d->a, d->e, "%s[%.*s]", shown, (int)len, p + 1);
            if (!missing) {
                n = n->item[i];
                if (at) *at = n;
            }
            p += 1 + len;
            p += *p == ']';
        } else {
            char name[128];
            snprintf(name, sizeof name, "%.*s", (int)len, p);
            int i = missing || n->kind != NODE_MAP ? -1 : config_index(n, name);
            missing = i < 0;
            const char *as = missing || !n->key[i]->written ? name : n->key[i]->written;
            shown = arena_printf(d->a, d->e, "%s%s%s", shown, shown[0] ? "." : "", as);
            if (!missing) {
                bool last = !p[len];
                if (at) *at = last ? n->item[i] : n->key[i];
                n = n->item[i];
            }
            p += len;
        }
        if (!shown) return NULL;
        p += *p == '.';
    }
    if (written) *written = shown;
    return missing ? NULL : n;
}

const ConfigNode *config_node(const ConfigDoc *d, const char *key) { return config_find(d, key, NULL, NULL); }

bool config_is_null(const ConfigNode *n)
{
    static const char *const nulls[] = {"", "null", "Null", "NULL", "~"};
    if (!n) return true;
    for (int i = 0; i < CFG_COUNT(nulls) && n->kind == NODE_SCALAR && !n->quoted; i++)
        if (strcmp(n->text, nulls[i]) == 0) return true;
    return false;
}

bool config_was_set(const ConfigDoc *d, const char *key)
{
    const ConfigNode *n = config_node(d, key);
    return !config_is_null(n) && strcmp(n->origin, "default") != 0;
}

/* ---- files ------------------------------------------------------------------------------------------ */
static const char *folder_of(ConfigDoc *d, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return ".";
    return slash == path ? "/" : arena_strndup(d->a, path, (size_t)(slash - path), d->e);
}

static const char *found_beside(const char *dir, const char *text, Arena *a, Err *e)
{
    if (text[0] == '/' || !dir || strcmp(dir, ".") == 0) return NULL;
    const char *joined = path_join(a, dir, text, e);
    if (!joined) return NULL;
    if (file_exists(joined)) return joined;
    glob_t g;
    bool hit = strpbrk(text, "*?[") && glob(joined, 0, NULL, &g) == 0;
    if (hit) globfree(&g);
    return hit ? joined : NULL;
}

const char *config_path(const ConfigDoc *d, const ConfigNode *at, const char *text, Arena *a, Err *e)
{
    if (!text || !text[0]) return text;
    const char *here = at ? d->source[source_of(d, at)].dir : NULL;
    const char *found = found_beside(here, text, a, e);
    if (!found) found = found_beside(d->source[0].dir, text, a, e);
    return found ? found : text;
}

static void load_file(ConfigDoc *d, const char *path, const ConfigNode *at);

static void load_includes(ConfigDoc *d, ConfigNode *map)
{
    int i = config_index(map, "include");
    if (i < 0) return;
    ConfigNode *list = map->item[i];
    map->item[i] = map->item[map->n - 1];
    map->key[i] = map->key[map->n - 1];
    map->n--;
    if (config_is_null(list)) return;
    if (list->kind != NODE_LIST) {
        config_error_node(d, list, "include", "expected a list of files");
        return;
    }
    for (int k = 0; k < list->n; k++) {
        const ConfigNode *item = list->item[k];
        if (item->kind != NODE_SCALAR || config_is_null(item))
            config_error_node(d, item, "include", "expected the name of a file");
        else load_file(d, config_path(d, item, item->text, d->a, d->e), item);
    }
}

/* NULL when the file can be read as a configuration, else why not. */
static const char *refuse_file(const char *path)
{
    struct stat s;
    if (stat(path, &s) != 0) return strerror(errno);
    if (S_ISDIR(s.st_mode)) return "it is a folder";
    if (!S_ISREG(s.st_mode)) return "it is not a plain file";
    if (s.st_size > CFG_MAX_BYTES) return "it is larger than 1 MiB";
    return access(path, R_OK) == 0 ? NULL : strerror(errno);
}

static void add_layer(ConfigDoc *d, ConfigNode *map)
{
    size_t n = (size_t)d->n_layer;
    ConfigNode **grown = arena_grow(d->a, d->layer, n * sizeof *grown, (n + 1) * sizeof *grown, d->e);
    if (!grown) return;
    d->layer = grown;
    d->layer[d->n_layer++] = map;
}

bool config_complete(const ConfigDoc *d) { return d->main_read && d->n_missing == 0; }

static void load_text(ConfigDoc *d, const char *path, const char *text, size_t bytes)
{
    int source = config_add_source(d, path, folder_of(d, path), NULL);
    int errors = d->n_error;
    ConfigNode *map = config_yaml(d, source, text, bytes, 0, d->source[source].file, "");
    bool empty = map ? config_is_null(map) : d->n_error == errors;
    bool sections = map && map->kind == NODE_MAP;
    if (map && !empty && !sections)
        config_error_node(d, map, "", "expected sections, `name:` each with its keys below");
    if (!empty && !sections) {
        d->n_missing++;
        return;
    }
    if (source == 0) d->main_read = true;
    if (sections) {
        load_includes(d, map);
        add_layer(d, map);
    }
}

/* at: the include that names the file, NULL for the main one, whose absence is d->e's error. */
static void load_file(ConfigDoc *d, const char *path, const ConfigNode *at)
{
    char real[PATH_MAX];
    if (d->e->code || !path) return;
    const char *why = refuse_file(path);
    if (!why && !realpath(path, real)) why = strerror(errno);
    for (int i = 0; !why && i < d->n_open; i++)
        if (strcmp(d->open_file[i], real) == 0) why = "files include each other in a circle";
    if (!why && (d->n_file >= CFG_MAX_FILES || d->n_open >= CFG_MAX_DEPTH)) why = "more than 64 files";
    if (why && at) {
        config_error_node(d, at, "include", "cannot read %s: %s", path, why);
        d->n_missing++;
    } else if (why) err_set(d->e, ERR_USAGE, "%s: cannot read this configuration: %s", path, why);
    if (why) return;
    size_t bytes = 0;
    char *text = file_read(d->a, path, &bytes, d->e);
    const char *name = arena_strdup(d->a, real, d->e);
    if (!text || !name) return;
    d->open_file[d->n_open++] = name;
    d->n_file++;
    load_text(d, path, text, bytes);
    d->n_open--;
}

static void add_override(ConfigDoc *d, ConfigOverride o)
{
    size_t n = (size_t)d->n_over;
    ConfigOverride *grown = arena_grow(d->a, d->over, n * sizeof *grown, (n + 1) * sizeof *grown, d->e);
    if (!grown) return;
    d->over = grown;
    d->over[d->n_over++] = o;
}

static void read_override(ConfigDoc *d, const char *arg)
{
    const char *suffix = arena_printf(d->a, d->e, " (in '%.200s')", arg);
    int source = config_add_source(d, "<command line>", d->path ? folder_of(d, d->path) : ".", suffix);
    char mode = *arg == '+' || *arg == '~' ? *arg : '=';
    const char *key = arg + (mode != '='), *eq = strchr(key, '=');
    if (mode == '~' ? eq != NULL : eq == NULL) {
        config_error_at(d, source, 1, 1, "",
                        mode == '~' ? "a reset is ~section.key, without a value"
                                    : "expected section.key=value");
        return;
    }
    size_t len = eq ? (size_t)(eq - key) : strlen(key);
    const char *name = arena_strndup(d->a, key, len, d->e),
               *value = arena_strdup(d->a, eq ? eq + 1 : "", d->e);
    if (eq && !eq[1])
        config_error_at(d, source, 1, (int)(eq - arg) + 1, name ? name : "",
                        "no value behind =; write %s=null for the default", name ? name : "");
    else if (name && value) add_override(d, (ConfigOverride){name, value, source, (int)(key - arg), mode});
}

extern char **environ;

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* PARE_OPTIM__LEARNING_RATE=1e-4: two underscores part section and key; variables without them are not ours.
 */
static void read_environment(ConfigDoc *d)
{
    const char *found[256];
    int n = 0;
    for (char **v = environ; v && *v; v++) {
        const char *eq = strchr(*v, '='), *two = strstr(*v, "__");
        if (strncmp(*v, "PARE_", 5) == 0 && eq && two && two < eq && two > *v + 5 && n < CFG_COUNT(found))
            found[n++] = *v;
    }
    qsort(found, (size_t)n, sizeof found[0], compare_text);
    for (int i = 0; i < n; i++) {
        const char *suffix = arena_printf(d->a, d->e, " (in '%.200s')", found[i]);
        int source = config_add_source(d, "<environment>", d->path ? folder_of(d, d->path) : ".", suffix);
        char key[256];
        size_t k = 0;
        const char *c = found[i] + 5;
        for (; *c != '=' && k + 1 < sizeof key; c++) {
            bool dot = c[0] == '_' && c[1] == '_';
            key[k++] = dot ? '.' : (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
            c += dot;
        }
        key[k] = 0;
        const char *eq = strchr(found[i], '='), *name = arena_strdup(d->a, key, d->e);
        const char *value = arena_strdup(d->a, eq + 1, d->e);
        if (name && value) add_override(d, (ConfigOverride){name, value, source, 5, '='});
    }
}

ConfigDoc *config_parse(Arena *a, const char *path, int n_override, char *const *override, Err *e)
{
    ConfigDoc *d = arena_alloc(a, sizeof *d, e);
    if (!d) return NULL;
    d->a = a;
    d->e = &d->own;
    d->path = path;
    if (path) load_file(d, path, NULL);
    else load_text(d, "<no file>", "version: 1\n", strlen("version: 1\n"));
    if (d->own.code) {
        err_set(e, d->own.code, "%s", d->own.msg);
        return NULL;
    }
    read_environment(d);
    for (int i = 0; i < n_override; i++) read_override(d, override[i]);
    if (d->own.code) err_set(e, d->own.code, "%s", d->own.msg);
    return e->code ? NULL : d;
}

void config_put_final(ConfigDoc *d, const char *override) { read_override(d, override); }

void config_select_part(ConfigDoc *d, const char *key, const char *const *name, int n, bool leave)
{
    if (d->n_select == CFG_MAX_SELECT) {
        config_error(d, key, "more than %d layers of overrides", CFG_MAX_SELECT);
        return;
    }
    d->select[d->n_select++] = (ConfigSelect){arena_strdup(d->a, key, d->e), name, n, leave};
}

void config_select(ConfigDoc *d, const char *key) { config_select_part(d, key, NULL, 0, true); }
