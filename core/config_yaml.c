/* core/config_yaml.c: YAML text to ConfigNodes through libyaml's event interface, which gives every alias,
 * tag and mark.
 *
 * Stricter than YAML: no tabs, no tags, no duplicate keys, one document, keys are plain names; nesting <= 32
 * levels, aliases expand to <= 10,000 values (an alias is a copy, so nothing is shared and nothing can
 * contain itself).
 */
#include <string.h>
#include <yaml.h>

#include "core/config_impl.h"

typedef struct Anchor {
    const char *name;
    ConfigNode *node;
} Anchor;
typedef struct Level {
    const ConfigNode *parent;
    const char *key;
} Level;
typedef struct Yaml {
    ConfigDoc *d;
    yaml_parser_t parser;
    int source, col0;
    const char *origin, *prefix;
    Anchor *anchor;
    int n_anchor, cap_anchor;
    Level level[CFG_MAX_DEPTH + 2];
    int depth;
    bool failed;
} Yaml;

ConfigNode *config_new_node(ConfigDoc *d, NodeKind kind, const char *text, int source, int line, int col,
                            const char *origin)
{
    ConfigNode *n = arena_alloc(d->a, sizeof *n, d->e);
    if (!n) return NULL;
    n->kind = kind;
    n->text = text ? text : "";
    n->file = d->source[source].file;
    n->line = line;
    n->col = col;
    n->origin = origin;
    d->n_node++;
    return n;
}

bool config_add(ConfigDoc *d, ConfigNode *parent, ConfigNode *key, ConfigNode *item)
{
    size_t n = (size_t)parent->n;
    bool full = n == 0 || (n >= 4 && (n & (n - 1)) == 0); /* room is 4, then every power of two */
    if (full) {
        size_t room = n == 0 ? 4 : 2 * n;
        ConfigNode **grown = arena_grow(d->a, parent->item, n * sizeof *grown, room * sizeof *grown, d->e);
        ConfigNode **keys = arena_grow(d->a, parent->key, n * sizeof *keys, room * sizeof *keys, d->e);
        if (!grown || !keys) return false;
        parent->item = grown;
        parent->key = keys;
    }
    parent->item[n] = item;
    parent->key[n] = key;
    parent->n++;
    return true;
}

ConfigNode *config_copy(ConfigDoc *d, const ConfigNode *n)
{
    ConfigNode *c = arena_alloc(d->a, sizeof *c, d->e);
    if (!c) return NULL;
    *c = *n;
    c->n = 0;
    c->item = c->key = NULL;
    for (int i = 0; i < n->n; i++) {
        ConfigNode *item = config_copy(d, n->item[i]);
        if (!item || !config_add(d, c, n->key[i], item)) return NULL;
    }
    return c;
}

static int line_of(yaml_mark_t m) { return (int)m.line + 1; }
static int col_of(const Yaml *y, yaml_mark_t m) { return (int)m.column + 1 + (m.line == 0 ? y->col0 : 0); }

/* Where the reader stands: prefix.section.key[2]. */
static const char *here(Yaml *y)
{
    const char *path = y->prefix;
    for (int i = 0; i < y->depth && path; i++) {
        const Level *l = &y->level[i];
        if (l->parent->kind == NODE_LIST) path = arena_printf(y->d->a, y->d->e, "%s[%d]", path, l->parent->n);
        else if (l->key) path = arena_printf(y->d->a, y->d->e, "%s%s%s", path, path[0] ? "." : "", l->key);
    }
    return path ? path : "";
}

static void fail(Yaml *y, yaml_mark_t m, const char *message)
{
    if (!y->failed) config_error_at(y->d, y->source, line_of(m), col_of(y, m), here(y), "%s", message);
    y->failed = true;
}

static void fail_parser(Yaml *y, const char *text, size_t bytes)
{
    const yaml_parser_t *p = &y->parser;
    int line = line_of(p->problem_mark), col = col_of(y, p->problem_mark);
    if (p->error == YAML_MEMORY_ERROR) {
        err_set(y->d->e, ERR_MEMORY, "libyaml: out of memory");
        return;
    }
    if (p->error == YAML_READER_ERROR) {
        line = col = 1;
        for (size_t i = 0; i < p->problem_offset && i < bytes; i++) {
            if (text[i] == '\n') {
                line++;
                col = 1;
            } else if (((unsigned char)text[i] & 0xc0) != 0x80) col++;
        }
    }
    if (y->prefix[0] && line > 1) {
        line = 1;
        col = y->col0 + (int)bytes + 1;
    } /* behind the end of an override */
    if (!y->failed)
        config_error_at(y->d, y->source, line, col, y->prefix, "not YAML: %s%s%s",
                        p->problem ? p->problem : "?", p->context ? ", " : "", p->context ? p->context : "");
    y->failed = true;
}

static ConfigNode *read_node(Yaml *y, yaml_event_t *ev);

static bool next_event(Yaml *y, yaml_event_t *ev)
{
    if (y->failed || y->d->e->code || y->parser.error != YAML_NO_ERROR) return false;
    return yaml_parser_parse(&y->parser, ev) != 0;
}

static ConfigNode *at_mark(Yaml *y, NodeKind kind, const char *text, yaml_mark_t m)
{
    if (y->d->n_node >= CFG_MAX_NODES) {
        fail(y, m, "more than 50000 values");
        return NULL;
    }
    return config_new_node(y->d, kind, text, y->source, line_of(m), col_of(y, m), y->origin);
}

static bool set_anchor(Yaml *y, const yaml_char_t *name, ConfigNode *n, yaml_mark_t m)
{
    if (!name) return true;
    if (y->n_anchor >= 1000) {
        fail(y, m, "more than 1000 anchors");
        return false;
    }
    if (y->n_anchor == y->cap_anchor) {
        int cap = y->cap_anchor ? 2 * y->cap_anchor : 8;
        y->anchor = arena_grow(y->d->a, y->anchor, (size_t)y->n_anchor * sizeof *y->anchor,
                               (size_t)cap * sizeof *y->anchor, y->d->e);
        if (!y->anchor) return false;
        y->cap_anchor = cap;
    }
    const char *copy = arena_strdup(y->d->a, (const char *)name, y->d->e);
    y->anchor[y->n_anchor++] = (Anchor){copy, n};
    return copy != NULL;
}

static int count_nodes(const ConfigNode *n, int limit)
{
    int total = 1;
    for (int i = 0; i < n->n && total <= limit; i++) total += count_nodes(n->item[i], limit - total);
    return total;
}

static int height(const ConfigNode *n)
{
    int h = 0;
    for (int i = 0; i < n->n; i++) {
        int c = height(n->item[i]);
        h = c > h ? c : h;
    }
    return n->kind == NODE_SCALAR ? 0 : h + 1;
}

static ConfigNode *read_alias(Yaml *y, const yaml_event_t *ev)
{
    const char *name = (const char *)ev->data.alias.anchor;
    for (int i = y->n_anchor - 1; i >= 0; i--) {
        if (strcmp(y->anchor[i].name, name) != 0) continue;
        const ConfigNode *from = y->anchor[i].node;
        y->d->n_copy += count_nodes(from, CFG_MAX_COPIES);
        if (y->d->n_copy > CFG_MAX_COPIES) {
            fail(y, ev->start_mark, "aliases expand to more than 10000 values");
            return NULL;
        }
        if (y->depth + height(from) > CFG_MAX_DEPTH) {
            fail(y, ev->start_mark, "nested deeper than 32 levels");
            return NULL;
        }
        ConfigNode *n = config_copy(y->d, from);
        if (n) {
            n->line = line_of(ev->start_mark);
            n->col = col_of(y, ev->start_mark);
        }
        return n;
    }
    fail(y, ev->start_mark, "this alias has no anchor before it");
    return NULL;
}

static ConfigNode *read_scalar(Yaml *y, const yaml_event_t *ev)
{
    size_t n = ev->data.scalar.length;
    const char *raw = (const char *)ev->data.scalar.value;
    if (ev->data.scalar.tag) {
        fail(y, ev->start_mark, "tags are not read: the key gives the type");
        return NULL;
    }
    if (memchr(raw, 0, n)) {
        fail(y, ev->start_mark, "a zero byte in a value");
        return NULL;
    }
    char *text = arena_strndup(y->d->a, raw, n, y->d->e);
    ConfigNode *node = text ? at_mark(y, NODE_SCALAR, text, ev->start_mark) : NULL;
    if (!node) return NULL;
    node->quoted = ev->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return set_anchor(y, ev->data.scalar.anchor, node, ev->start_mark) ? node : NULL;
}

static bool read_items(Yaml *y, ConfigNode *list)
{
    yaml_event_t ev;
    while (next_event(y, &ev)) {
        bool end = ev.type == YAML_SEQUENCE_END_EVENT;
        ConfigNode *item = end ? NULL : read_node(y, &ev);
        yaml_event_delete(&ev);
        if (end) return true;
        if (!item || !config_add(y->d, list, NULL, item)) return false;
    }
    return false;
}

static int compare_keys(const void *a, const void *b)
{
    const ConfigNode *x = *(ConfigNode *const *)a, *z = *(ConfigNode *const *)b;
    int c = strcmp(x->text, z->text);
    if (c) return c;
    return x->line != z->line ? (x->line < z->line ? -1 : 1) : (x->col > z->col) - (x->col < z->col);
}

/* One line for every key that repeats an earlier one; sorted first, so a large map costs n log n. */
static bool check_duplicates(Yaml *y, const ConfigNode *map)
{
    if (map->n < 2) return true;
    ConfigNode **sorted = arena_alloc(y->d->a, (size_t)map->n * sizeof *sorted, y->d->e);
    if (!sorted) return false;
    memcpy(sorted, map->key, (size_t)map->n * sizeof *sorted);
    qsort(sorted, (size_t)map->n, sizeof *sorted, compare_keys);
    for (int i = 1, first = 0; i < map->n; i++) {
        if (strcmp(sorted[i]->text, sorted[first]->text) != 0) {
            first = i;
            continue;
        }
        y->level[y->depth - 1].key = sorted[i]->text;
        config_error_at(y->d, y->source, sorted[i]->line, sorted[i]->col, here(y),
                        "duplicate key, first written at line %d", sorted[first]->line);
    }
    return true;
}

static bool read_pairs(Yaml *y, ConfigNode *map)
{
    yaml_event_t ev;
    while (next_event(y, &ev)) {
        bool end = ev.type == YAML_MAPPING_END_EVENT;
        y->level[y->depth - 1].key = NULL;
        if (end) {
            yaml_event_delete(&ev);
            return check_duplicates(y, map);
        }
        if (ev.type != YAML_SCALAR_EVENT) fail(y, ev.start_mark, "a key must be a plain name");
        ConfigNode *key = y->failed ? NULL : read_scalar(y, &ev);
        yaml_event_delete(&ev);
        if (!key) return false;
        y->level[y->depth - 1].key = key->written = key->text;
        if (!next_event(y, &ev)) return false;
        ConfigNode *item = read_node(y, &ev);
        yaml_event_delete(&ev);
        if (!item || !config_add(y->d, map, key, item)) return false;
    }
    return false;
}

static ConfigNode *read_node(Yaml *y, yaml_event_t *ev)
{
    if (ev->type == YAML_ALIAS_EVENT) return read_alias(y, ev);
    if (ev->type == YAML_SCALAR_EVENT) return read_scalar(y, ev);
    bool map = ev->type == YAML_MAPPING_START_EVENT;
    const yaml_char_t *tag = map ? ev->data.mapping_start.tag : ev->data.sequence_start.tag;
    const yaml_char_t *anchor = map ? ev->data.mapping_start.anchor : ev->data.sequence_start.anchor;
    if (tag) {
        fail(y, ev->start_mark, "tags are not read: the key gives the type");
        return NULL;
    }
    if (y->depth >= CFG_MAX_DEPTH) {
        fail(y, ev->start_mark, "nested deeper than 32 levels");
        return NULL;
    }
    ConfigNode *n = at_mark(y, map ? NODE_MAP : NODE_LIST, "", ev->start_mark);
    if (!n) return NULL;
    y->level[y->depth++] = (Level){n, NULL};
    bool ok = map ? read_pairs(y, n) : read_items(y, n);
    if (!ok) return NULL;
    y->depth--;
    return set_anchor(y, anchor, n, ev->start_mark) ? n : NULL;
}

/* Tabs look like indentation and are not; anywhere but behind a comment sign they are refused. */
static bool check_tabs(Yaml *y, const char *text, size_t bytes)
{
    int line = 1, col = 1;
    bool comment = false;
    for (size_t i = 0; i < bytes; i++, col++) {
        if (text[i] == '\n') {
            line++;
            col = 0;
            comment = false;
        } else if (text[i] == '#' && (i == 0 || strchr(" \t\n", text[i - 1]))) comment = true;
        else if (((unsigned char)text[i] & 0xc0) == 0x80) col--;
        else if (text[i] == '\t' && !comment) {
            config_error_at(y->d, y->source, line, col + (line == 1 ? y->col0 : 0), y->prefix,
                            "a tab: write spaces, or \"\\t\" inside double quotes");
            return false;
        }
    }
    return true;
}

static ConfigNode *read_document(Yaml *y)
{
    ConfigNode *root = NULL;
    yaml_event_t ev;
    bool done = false;
    while (!done && next_event(y, &ev)) {
        if (ev.type == YAML_STREAM_END_EVENT) done = true;
        else if (ev.type == YAML_DOCUMENT_START_EVENT) {
            if (root) fail(y, ev.start_mark, "a second document: one file holds one configuration");
        } else if (ev.type != YAML_STREAM_START_EVENT && ev.type != YAML_DOCUMENT_END_EVENT)
            root = read_node(y, &ev);
        yaml_event_delete(&ev);
    }
    return done && !y->failed ? root : NULL;
}

ConfigNode *config_yaml(ConfigDoc *d, int source, const char *text, size_t bytes, int col0,
                        const char *origin, const char *prefix)
{
    Yaml y = {.d = d, .source = source, .col0 = col0, .origin = origin, .prefix = prefix};
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        bytes -= 3;
    }
    if (!check_tabs(&y, text, bytes)) return NULL;
    if (!yaml_parser_initialize(&y.parser)) {
        err_set(d->e, ERR_MEMORY, "libyaml: out of memory");
        return NULL;
    }
    yaml_parser_set_input_string(&y.parser, (const unsigned char *)text, bytes);
    yaml_parser_set_encoding(&y.parser, YAML_UTF8_ENCODING);
    ConfigNode *root = read_document(&y);
    if (y.parser.error != YAML_NO_ERROR) fail_parser(&y, text, bytes);
    yaml_parser_delete(&y.parser);
    return y.failed || d->e->code ? NULL : root;
}
