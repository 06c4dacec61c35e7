/* core/config_merge.c: defaults, files, the selected arm, environment and command line laid over each other
 * into one tree of canonical names. A map is merged key by key, anything else is replaced; what comes later
 * wins.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/config_impl.h"

int config_index(const ConfigNode *map, const char *key)
{
    for (int i = 0; map->kind == NODE_MAP && i < map->n; i++)
        if (strcmp(map->key[i]->text, key) == 0) return i;
    return -1;
}

const ConfigField *config_field(const ConfigSection *s, const char *name)
{
    for (int i = 0; s && i < s->n; i++)
        if (strcmp(s->field[i].name, name) == 0) return &s->field[i];
    return NULL;
}

const char *config_canonical(const ConfigSection *s, const char *name)
{
    for (int i = 0; s && i < s->n_alias; i++)
        if (strcmp(s->alias[i][0], name) == 0) return s->alias[i][1];
    return name;
}

const char *config_hint(ConfigDoc *d, const ConfigSection *s, const char *name)
{
    const char *names[256];
    int n = 0;
    for (int i = 0; i < s->n && n < 256; i++) names[n++] = s->field[i].name;
    for (int i = 0; i < s->n_alias && n < 256; i++) names[n++] = s->alias[i][0];
    const char *near = nearest_name(name, names, n), *text = "";
    if (near) text = arena_printf(d->a, d->e, " (did you mean %s?)", near);
    for (int i = 0; !near && d->top && i < d->top->n; i++) {
        const ConfigField *f = &d->top->field[i];
        if (f->type != CFG_T_MAP || f->sub() == s) continue;
        const char *canonical = config_canonical(f->sub(), name);
        if (!config_field(f->sub(), canonical)) continue;
        text = arena_printf(d->a, d->e, " (did you mean %s.%s?)", f->name, canonical);
        break;
    }
    return text ? text : "";
}

/* ---- canonical names -------------------------------------------------------------------------------- */
static void canonicalise(ConfigDoc *d, ConfigNode *map, const ConfigSection *s, const char *prefix)
{
    for (int i = 0; i < map->n; i++) {
        const ConfigNode *key = map->key[i];
        const char *name = config_canonical(s, key->text);
        const char *path = arena_printf(d->a, d->e, "%s%s%s", prefix, prefix[0] ? "." : "", key->text);
        if (!path) return;
        if (name != key->text) {
            int other = config_index(map, name);
            if (other >= 0 && other != i) {
                const ConfigNode *o = map->key[other];
                if (strcmp(o->written, key->text) == 0)
                    continue; /* the same spelling twice is reported already */
                bool later = o->line > key->line || (o->line == key->line && o->col > key->col);
                const char *shown = later ? o->written : key->text;
                path = arena_printf(d->a, d->e, "%s%s%s", prefix, prefix[0] ? "." : "", shown);
                config_error_node(d, later ? o : key, path ? path : "",
                                  "duplicate key, %s at line %d is the same", later ? key->text : o->written,
                                  later ? key->line : o->line);
                continue;
            }
            ConfigNode *renamed = arena_alloc(d->a, sizeof *renamed, d->e);
            if (!renamed) return;
            *renamed = *key;
            renamed->text = name;
            renamed->written = key->text;
            map->key[i] = renamed;
        }
        const ConfigField *f = config_field(s, name);
        ConfigNode *v = map->item[i];
        if (f && f->type == CFG_T_MAP && v->kind == NODE_MAP) canonicalise(d, v, f->sub(), path);
        for (int k = 0; f && f->type == CFG_T_LIST && v->kind == NODE_LIST && k < v->n; k++) {
            const char *item = arena_printf(d->a, d->e, "%s[%d]", path, k);
            if (item && v->item[k]->kind == NODE_MAP) canonicalise(d, v->item[k], f->sub(), item);
        }
    }
}

static void merge(ConfigDoc *d, ConfigNode *to, const ConfigNode *from, const ConfigSection *s)
{
    for (int i = 0; i < from->n; i++) {
        const ConfigField *f = config_field(s, from->key[i]->text);
        int at = config_index(to, from->key[i]->text);
        bool both = at >= 0 && to->item[at]->kind == NODE_MAP && from->item[i]->kind == NODE_MAP;
        if (both && (!f || f->type == CFG_T_MAP || f->type == CFG_T_RAW)) {
            merge(d, to->item[at], from->item[i], f && f->type == CFG_T_MAP ? f->sub() : NULL);
            to->key[at] = from->key[i];
        } else if (at >= 0) {
            to->item[at] = config_copy(d, from->item[i]);
            to->key[at] = from->key[i];
        } else {
            ConfigNode *copy = config_copy(d, from->item[i]);
            if (copy) config_add(d, to, from->key[i], copy);
        }
        if (d->e->code) return;
    }
}

/* ---- overrides -------------------------------------------------------------------------------------- */
static bool starts_structure(char c) { return c == '[' || c == '{' || c == '"' || c == '\''; }

ConfigNode *config_value_node(ConfigDoc *d, int source, const char *text, int col, const char *origin,
                              const char *key)
{
    while (*text == ' ') {
        text++;
        col++;
    }
    if (starts_structure(*text)) return config_yaml(d, source, text, strlen(text), col - 1, origin, key);
    size_t n = strlen(text);
    while (n && text[n - 1] == ' ') n--;
    const char *own = arena_strndup(d->a, text, n, d->e);
    return own ? config_new_node(d, NODE_SCALAR, own, source, 1, col, origin) : NULL;
}

typedef struct Walk {
    ConfigDoc *d;
    const ConfigOverride *o;
    const char *origin;
    const ConfigSection *section; /* of the map that `in` is, NULL inside raw values */
    const ConfigField *field;     /* of the value just reached */
    ConfigNode *in;               /* the map or list that holds it */
    int at;                       /* its index there, -1 = not there */
    const char *name;             /* its canonical key; NULL inside a list */
    const char *written;
    int col;
} Walk;

static bool walk_fail(Walk *w, int col, const char *message, const char *more)
{
    config_error_at(w->d, w->o->source, 1, col, w->o->key, "%s%s", message, more);
    return false;
}

static ConfigNode *new_key(Walk *w)
{
    ConfigNode *key = config_new_node(w->d, NODE_SCALAR, w->name, w->o->source, 1, w->col, w->origin);
    if (key) key->written = w->written;
    return key;
}

/* Puts v where the walk stands. */
static bool place(Walk *w, ConfigNode *v)
{
    if (!v) return false;
    if (w->at >= 0) {
        w->in->item[w->at] = v;
        if (w->name) w->in->key[w->at] = new_key(w);
        return true;
    }
    ConfigNode *key = new_key(w);
    w->at = w->in->n;
    return key && config_add(w->d, w->in, key, v);
}

/* The container at the place reached so far, made when it is missing. */
static ConfigNode *enter(Walk *w, NodeKind kind)
{
    ConfigNode *v = w->at >= 0 ? w->in->item[w->at] : NULL;
    if (v && v->kind == kind) return v;
    if (v && !config_is_null(v)) {
        walk_fail(w, w->col, w->written ? w->written : "this",
                  kind == NODE_MAP ? " has no keys below it" : " is not a list");
        return NULL;
    }
    if (kind == NODE_LIST) {
        walk_fail(w, w->col, "the list is empty; +key=value appends", "");
        return NULL;
    }
    ConfigNode *made = config_new_node(w->d, kind, "", w->o->source, 1, w->col, w->origin);
    return place(w, made) ? made : NULL;
}

static bool step_name(Walk *w, const char *name, int col)
{
    w->col = col;
    w->written = name;
    w->name = config_canonical(w->section, name);
    w->field = config_field(w->section, w->name);
    if (w->section && !w->field) return walk_fail(w, col, "unknown key", config_hint(w->d, w->section, name));
    w->at = config_index(w->in, w->name);
    return true;
}

static bool step_index(Walk *w, const char *digits, int col)
{
    int64_t i = -1;
    ConfigNode *list = enter(w, NODE_LIST);
    if (!list) return false;
    if (!config_parse_int(digits, &i) || i < 0 || i >= list->n) {
        const char *n = arena_printf(w->d->a, w->d->e, "%d%s", list->n, list->n == 1 ? " entry" : " entries");
        return walk_fail(w, col, "no such index, the list has ", n ? n : "");
    }
    w->col = col;
    w->in = list;
    w->at = (int)i;
    w->name = w->written = NULL;
    return true;
}

/* Follows a.b[0].c; afterwards in/at/name say where the last part stands. */
static bool walk(Walk *w)
{
    const char *p = w->o->key;
    bool first = true;
    for (; *p; first = false) {
        bool index = *p == '[';
        size_t len = strcspn(p + index, index ? "]" : ".[");
        int col = w->o->col + 1 + (int)(p - w->o->key) + index;
        const char *part = arena_strndup(w->d->a, p + index, len, w->d->e);
        if (!part) return false;
        if (len == 0 || (index && (p[1 + len] != ']' || first)))
            return walk_fail(w, col, "expected section.key or list[0]", "");
        if (!index && !first) {
            ConfigNode *map = enter(w, NODE_MAP);
            if (!map) return false;
            bool sub = w->field && (w->field->type == CFG_T_MAP || w->field->type == CFG_T_LIST);
            w->section = sub ? w->field->sub() : NULL;
            w->in = map;
        }
        if (!(index ? step_index(w, part, col) : step_name(w, part, col))) return false;
        p += len + (index ? 2 : 0);
        if (*p == '.' && !*++p)
            return walk_fail(w, w->o->col + (int)(p - w->o->key), "expected section.key or list[0]", "");
    }
    return !first || walk_fail(w, 1, "expected section.key=value", "");
}

static void append(Walk *w, ConfigNode *v)
{
    ConfigNode *old = w->at >= 0 ? w->in->item[w->at] : NULL;
    if (config_is_null(old)) {
        bool list = w->field && (w->field->type == CFG_T_LIST || w->field->type == CFG_T_STRS);
        if (list && v->kind != NODE_LIST) {
            ConfigNode *wrap = config_new_node(w->d, NODE_LIST, "", w->o->source, v->line, v->col, w->origin);
            if (!wrap || !config_add(w->d, wrap, NULL, v)) return;
            v = wrap;
        }
        place(w, v);
    } else if (old->kind == NODE_LIST) {
        for (int i = 0; i < (v->kind == NODE_LIST ? v->n : 1); i++)
            config_add(w->d, old, NULL, v->kind == NODE_LIST ? v->item[i] : v);
    } else if (old->kind == NODE_MAP && v->kind == NODE_MAP)
        merge(w->d, old, v, w->field && w->field->type == CFG_T_MAP ? w->field->sub() : NULL);
    else place(w, v);
}

static void apply(ConfigDoc *d, const ConfigOverride *o)
{
    const char *file = d->source[o->source].file;
    bool env = strcmp(file, "<environment>") == 0;
    Walk w = {.d = d,
              .o = o,
              .origin = env ? "environment" : "command line",
              .section = d->top,
              .in = d->root,
              .at = -1};
    if (!walk(&w)) return;
    if (o->mode == '~') {
        if (w.at < 0) return;
        w.in->n--;
        memmove(w.in->item + w.at, w.in->item + w.at + 1, (size_t)(w.in->n - w.at) * sizeof *w.in->item);
        memmove(w.in->key + w.at, w.in->key + w.at + 1, (size_t)(w.in->n - w.at) * sizeof *w.in->key);
        return;
    }
    ConfigNode *v = config_value_node(d, o->source, o->value, o->col + (int)strlen(o->key) + 2, w.origin,
                                      o->key);
    if (!v) return;
    bool sub = w.field && (w.field->type == CFG_T_MAP || w.field->type == CFG_T_LIST);
    if (sub && v->kind == NODE_MAP) canonicalise(d, v, w.field->sub(), o->key);
    for (int i = 0; sub && v->kind == NODE_LIST && i < v->n; i++)
        if (v->item[i]->kind == NODE_MAP) canonicalise(d, v->item[i], w.field->sub(), o->key);
    if (o->mode == '+') append(&w, v);
    else place(&w, v);
}

static bool wanted(const ConfigSelect *x, const char *key)
{
    bool named = false;
    for (int i = 0; i < x->n; i++) named = named || !strcmp(x->name[i], key);
    return named != x->leave;
}

static void select_map(ConfigDoc *d, const ConfigSelect *x)
{
    const ConfigNode *arm = x->key ? config_find(d, x->key, NULL, NULL) : NULL;
    if (!x->key || (arm && config_is_null(arm))) return;
    if (!arm || arm->kind != NODE_MAP) {
        config_error(d, x->key, arm ? "expected a map of sections" : "no such arm");
        return;
    }
    ConfigNode *own = config_copy(d, arm);
    if (!own) return;
    int kept = 0;
    for (int i = 0; i < own->n; i++) {
        if (!wanted(x, own->key[i]->text)) continue;
        own->key[kept] = own->key[i];
        own->item[kept++] = own->item[i];
    }
    own->n = kept;
    canonicalise(d, own, d->top, "");
    merge(d, d->root, own, d->top);
}

void config_put_default(ConfigDoc *d, const char *key, const char *value)
{
    const char *dot = strchr(key, '.');
    int source = d->n_source ? 0 : config_add_source(d, "default", ".", NULL);
    if (!d->defaults) d->defaults = config_new_node(d, NODE_MAP, "", source, 1, 1, "default");
    ConfigNode *in = d->defaults;
    if (in && dot) {
        const char *section = arena_strndup(d->a, key, (size_t)(dot - key), d->e);
        int i = section ? config_index(in, section) : -1;
        ConfigNode *map = i >= 0 ? in->item[i] : config_new_node(d, NODE_MAP, "", source, 1, 1, "default");
        ConfigNode *name = config_new_node(d, NODE_SCALAR, section, source, 1, 1, "default");
        if (i < 0 && map && name) config_add(d, in, name, map);
        in = map;
        key = dot + 1;
    }
    ConfigNode *name = config_new_node(d, NODE_SCALAR, arena_strdup(d->a, key, d->e), source, 1, 1,
                                       "default");
    ConfigNode *v = config_new_node(d, NODE_SCALAR, arena_strdup(d->a, value, d->e), source, 1, 1, "default");
    if (in && name && v) {
        v->quoted = true;
        config_add(d, in, name, v);
    }
}

bool config_merge_all(ConfigDoc *d, const ConfigSection *top)
{
    d->top = top;
    d->root = config_new_node(d, NODE_MAP, "", 0, 1, 1, "default");
    if (!d->root) return false;
    if (d->defaults) merge(d, d->root, d->defaults, top);
    for (int i = 0; i < d->n_layer; i++) {
        canonicalise(d, d->layer[i], top, "");
        merge(d, d->root, d->layer[i], top);
    }
    for (int i = 0; i < d->n_select; i++) select_map(d, &d->select[i]);
    for (int i = 0; i < d->n_over; i++) apply(d, &d->over[i]);
    return !d->e->code;
}
