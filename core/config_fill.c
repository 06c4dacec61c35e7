/* core/config_fill.c: the merged tree into typed structs: defaults first, then each value read as its field's
 * type. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_impl.h"

typedef struct AnyList {
    int n;
    void *v;
} AnyList; /* layout of ConfigStrs, ConfigInts, ConfigFloats, list members */

static bool fill_section(ConfigDoc *d, const ConfigSection *s, const ConfigNode *map, char *out,
                         const char *path);

static const char *kind_name(const ConfigNode *n)
{
    if (n->kind == NODE_LIST) return "a list";
    return n->kind == NODE_MAP ? "a map" : "a single value";
}

/* ---- numbers ---------------------------------------------------------------------------------------- */
static const char *range_text(ConfigDoc *d, const ConfigField *f)
{
    bool open_lo = f->lo == CFG_ABOVE_0, open_hi = f->hi == CFG_BELOW_1;
    bool integer = f->type == CFG_T_INT || f->type == CFG_T_INTS;
    bool no_hi = f->hi >= (integer ? (double)INT64_MAX : CFG_ANY_HI);
    double lo = open_lo ? 0 : f->lo, hi = open_hi ? 1 : f->hi;
    const char *text = no_hi      ? arena_printf(d->a, d->e, open_lo ? "above %.15g" : "at least %.15g", lo)
                       : lo == hi ? arena_printf(d->a, d->e, "%.15g", lo)
                                  : arena_printf(d->a, d->e, "in %c%.15g, %.15g%c", open_lo ? '(' : '[', lo,
                                                 hi, open_hi ? ')' : ']');
    return text ? text : "";
}

static bool check_range(ConfigDoc *d, const ConfigField *f, const ConfigNode *v, const char *path, double x)
{
    if (x >= f->lo && x <= f->hi) return true;
    config_error_node(d, v, path, "%s is out of range, must be %s", v->text, range_text(d, f));
    return false;
}

static bool looks_numeric(const char *t)
{
    t += *t == '+' || *t == '-';
    return (*t >= '0' && *t <= '9') || (*t == '.' && t[1] >= '0' && t[1] <= '9');
}

static bool read_int(ConfigDoc *d, const ConfigField *f, const ConfigNode *v, const char *path, int64_t *out)
{
    double x;
    if (v->kind != NODE_SCALAR) {
        config_error_node(d, v, path, "expected a whole number, found %s", kind_name(v));
        return false;
    }
    if (!config_parse_int(v->text, out)) {
        bool huge = looks_numeric(v->text) && strspn(v->text, "+-0123456789_kKMGi") == strlen(v->text) &&
                    strlen(v->text) > 15;
        if (huge || (config_parse_float(v->text, &x) && fabs(x) > 9e15))
            config_error_node(d, v, path, "%.60s is out of range, must be %s", v->text, range_text(d, f));
        else config_error_node(d, v, path, "expected a whole number, found \"%.60s\"", v->text);
        return false;
    }
    return check_range(d, f, v, path, (double)*out);
}

static bool read_float(ConfigDoc *d, const ConfigField *f, const ConfigNode *v, const char *path, double *out)
{
    if (v->kind != NODE_SCALAR) {
        config_error_node(d, v, path, "expected a number, found %s", kind_name(v));
        return false;
    }
    if (f->values && strcmp(v->text, f->values) == 0) {
        *out = NAN;
        return true;
    }
    if (!config_parse_float(v->text, out)) {
        char *end;
        double x = strtod(v->text, &end);
        bool number = looks_numeric(v->text) && !*end && (isinf(x) || fabs(x) < DBL_MIN);
        if (number) config_error_node(d, v, path, "%.60s is out of range for a double", v->text);
        else config_error_node(d, v, path, "expected a finite number, found \"%.60s\"", v->text);
        return false;
    }
    return check_range(d, f, v, path, *out);
}

static bool parse_bool(const char *t, bool *out)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"};
    for (int i = 0; i < CFG_COUNT(yes); i++) {
        *out = strcmp(t, yes[i]) == 0;
        if (*out || strcmp(t, no[i]) == 0) return true;
    }
    return false;
}

static bool not_yet(ConfigDoc *d, const ConfigNode *v, const char *path)
{
    config_error_node(d, v, path, "value %.60s: not in this version", v->text);
    return false;
}

/* ---- enums ------------------------------------------------------------------------------------------ */
/* One choice of a list such as "val|concat-#|<number>": # stands for digits, <number> for any number. */
static bool choice_matches(const char *choice, size_t len, const char *text)
{
    double x;
    if (len == 8 && strncmp(choice, "<number>", 8) == 0) return config_parse_float(text, &x);
    for (size_t i = 0; i < len; i++) {
        size_t digits = choice[i] == '#' ? strspn(text, "0123456789") : 0;
        if (choice[i] == '#' ? digits == 0 || digits > 9 : *text != choice[i]) return false;
        text += choice[i] == '#' ? digits : 1;
    }
    return *text == 0;
}

static bool in_choices(const char *choices, const char *text)
{
    for (const char *p = choices; p && *p;) {
        size_t len = strcspn(p, "|");
        if (choice_matches(p, len, text)) return true;
        p += len + (p[len] == '|');
    }
    return false;
}

static bool read_enum(ConfigDoc *d, const ConfigField *f, const ConfigNode *v, const char *path,
                      const char **out)
{
    if (v->kind != NODE_SCALAR) {
        config_error_node(d, v, path, "expected one of %s, found %s", f->values, kind_name(v));
        return false;
    }
    if (in_choices(f->values, v->text)) {
        *out = v->text;
        return true;
    }
    if (in_choices(f->later, v->text)) return not_yet(d, v, path);
    const char *name[64];
    int n = 0;
    for (const char *p = f->values; *p && n < 64;) {
        size_t len = strcspn(p, "|");
        name[n++] = arena_strndup(d->a, p, len, d->e);
        p += len + (p[len] == '|');
    }
    const char *near = nearest_name(v->text, name, n);
    config_error_node(d, v, path, "\"%.60s\" is not one of %s%s%s%s", v->text, f->values,
                      near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
    return false;
}

/* ---- lists ------------------------------------------------------------------------------------------ */
static size_t item_size(ConfigType t)
{
    return t == CFG_T_STRS ? sizeof(const char *) : t == CFG_T_INTS ? sizeof(int64_t) : sizeof(double);
}

static bool read_item(ConfigDoc *d, const ConfigField *f, const ConfigNode *item, const char *path, char *out)
{
    const ConfigNode *v = config_resolve(d, item, path);
    if (!v) return false;
    if (config_is_null(v)) {
        config_error_node(d, item, path, "an entry is empty");
        return false;
    }
    if (f->type == CFG_T_INTS) return read_int(d, f, v, path, (int64_t *)(void *)out);
    if (f->type == CFG_T_FLOATS) return read_float(d, f, v, path, (double *)(void *)out);
    if (v->kind != NODE_SCALAR) {
        config_error_node(d, v, path, "expected a text, found %s", kind_name(v));
        return false;
    }
    memcpy(out, &v->text, sizeof v->text);
    return true;
}

static bool read_items(ConfigDoc *d, const ConfigField *f, const ConfigNode *v, const char *path, char *out)
{
    if (v->kind != NODE_LIST) {
        config_error_node(d, v, path, "expected a list such as [a, b], found %s", kind_name(v));
        return false;
    }
    bool structs = f->type == CFG_T_LIST, ok = true;
    size_t size = structs ? f->size : item_size(f->type);
    AnyList list = {v->n, arena_alloc(d->a, size * (size_t)v->n, d->e)};
    if (!list.v) return false;
    for (int i = 0; i < v->n; i++) {
        const char *at = arena_printf(d->a, d->e, "%s[%d]", path, i);
        char *slot = (char *)list.v + size * (size_t)i;
        if (!at) return false;
        if (!structs) {
            ok = read_item(d, f, v->item[i], at, slot) && ok;
            continue;
        }
        const ConfigNode *item = config_resolve(d, v->item[i], at);
        if (item && item->kind != NODE_MAP)
            config_error_node(d, item, at, "expected a map of keys, found %s", kind_name(item));
        ok = item && item->kind == NODE_MAP && fill_section(d, f->sub(), item, slot, at) && ok;
    }
    memcpy(out, &list, sizeof list);
    return ok;
}

/* ---- one value -------------------------------------------------------------------------------------- */
static bool read_scalar(ConfigDoc *d, const ConfigField *f, const ConfigNode *v, const char *path, char *out)
{
    bool b;
    const char *text = v->text;
    int64_t i, def_i;
    double x, def_x;
    if (f->type == CFG_T_INT) {
        if (!read_int(d, f, v, path, &i)) return false;
        if (f->later && config_parse_int(f->def, &def_i) && i != def_i) return not_yet(d, v, path);
        memcpy(out, &i, sizeof i);
    } else if (f->type == CFG_T_FLOAT) {
        if (!read_float(d, f, v, path, &x)) return false;
        if (f->later && config_parse_float(f->def, &def_x) && x != def_x) return not_yet(d, v, path);
        memcpy(out, &x, sizeof x);
    } else if (f->type == CFG_T_BOOL) {
        if (v->kind != NODE_SCALAR || !parse_bool(text, &b)) {
            bool one = v->kind == NODE_SCALAR;
            config_error_node(d, v, path, "expected true or false, found %s%.60s%s", one ? "\"" : "",
                              one ? text : kind_name(v), one ? "\"" : "");
            return false;
        }
        if (f->later && b != (strcmp(f->def, "true") == 0)) return not_yet(d, v, path);
        memcpy(out, &b, sizeof b);
    } else if (f->type == CFG_T_ENUM) {
        if (!read_enum(d, f, v, path, &text)) return false;
        memcpy(out, &text, sizeof text);
    } else {
        if (v->kind != NODE_SCALAR) {
            config_error_node(d, v, path, "expected a text, found %s", kind_name(v));
            return false;
        }
        memcpy(out, &text, sizeof text);
    }
    return true;
}

static bool fill_value(ConfigDoc *d, const ConfigField *f, const ConfigNode *node, char *out,
                       const char *path)
{
    bool off;
    if (f->type == CFG_T_RAW) {
        if (!config_is_null(node)) memcpy(out, &node, sizeof node);
        return true;
    }
    const ConfigNode *v = config_resolve(d, node, path);
    if (!v) return false;
    if (config_is_null(v)) return true;
    if (f->type == CFG_T_LATER) {
        if (v->kind == NODE_SCALAR && parse_bool(v->text, &off) && !off) return true;
        config_error_node(d, node, path, "not in this version");
        return false;
    }
    if (f->type == CFG_T_MAP) {
        if (v->kind == NODE_MAP) return fill_section(d, f->sub(), v, out, path);
        const ConfigSection *sub = f->sub();
        if (v->kind == NODE_SCALAR && strcmp(sub->name, "source") == 0) /* a source may be just its path */
            return fill_value(d, &sub->field[0], v, out + sub->field[0].offset, path);
        config_error_node(d, v, path, "expected a map of keys, found %s", kind_name(v));
        return false;
    }
    bool list = f->type == CFG_T_LIST || f->type == CFG_T_STRS || f->type == CFG_T_INTS ||
                f->type == CFG_T_FLOATS;
    return list ? read_items(d, f, v, path, out) : read_scalar(d, f, v, path, out);
}

/* ---- defaults --------------------------------------------------------------------------------------- */
static bool fill_default_list(ConfigDoc *d, const ConfigField *f, char *out)
{
    ConfigNode list = {.kind = NODE_LIST, .file = d->source[0].file, .origin = "default"};
    for (const char *p = f->def; p && *p;) {
        size_t len = strcspn(p, ",");
        const char *text = arena_strndup(d->a, p, len, d->e);
        ConfigNode *item = text ? config_new_node(d, NODE_SCALAR, text, 0, 1, 1, "default") : NULL;
        if (!item || !config_add(d, &list, NULL, item)) return false;
        p += len + (p[len] == ',');
    }
    return read_items(d, f, &list, f->name, out);
}

static bool fill_default(ConfigDoc *d, const ConfigField *f, char *out, const char *path)
{
    if (f->type == CFG_T_LATER || f->type == CFG_T_RAW || f->type == CFG_T_LIST) return true;
    if (f->type == CFG_T_MAP) return fill_section(d, f->sub(), NULL, out, path);
    if (f->type == CFG_T_STRS || f->type == CFG_T_INTS || f->type == CFG_T_FLOATS)
        return fill_default_list(d, f, out);
    if (!f->def) return true;
    if (f->type == CFG_T_FLOAT && strcmp(f->def, "NAN") == 0) {
        double nan = NAN;
        memcpy(out, &nan, sizeof nan);
        return true;
    }
    ConfigNode n = {.kind = NODE_SCALAR,
                    .text = f->def,
                    .quoted = true,
                    .file = d->source[0].file,
                    .line = 1,
                    .col = 1,
                    .origin = "default"};
    int errors = d->n_error;
    const ConfigNode *v = config_resolve(d, &n, path);
    if (!v) d->n_error = errors; /* what a default refers to is reported at its own place */
    return v && read_scalar(d, f, v, path, out);
}

static bool given(const ConfigNode *map, const char *name)
{
    int i = map ? config_index(map, name) : -1;
    return i >= 0 && !config_is_null(map->item[i]);
}

static bool fill_section(ConfigDoc *d, const ConfigSection *s, const ConfigNode *map, char *out,
                         const char *path)
{
    bool ok = true;
    for (int i = 0; i < s->n; i++) {
        const ConfigField *f = &s->field[i];
        const char *at = arena_printf(d->a, d->e, "%s%s%s", path, path[0] ? "." : "", f->name);
        bool replaced = f->type != CFG_T_MAP && given(map, f->name);
        ok = at && (replaced || fill_default(d, f, out + f->offset, at)) && ok;
    }
    for (int i = 0; map && i < map->n; i++) {
        const ConfigNode *key = map->key[i];
        const char *shown = key->written ? key->written : key->text;
        const char *at = arena_printf(d->a, d->e, "%s%s%s", path, path[0] ? "." : "", shown);
        if (!at) return false;
        const ConfigField *f = config_field(s, key->text);
        bool read = f && fill_value(d, f, map->item[i], out + f->offset, at);
        ok = ok && read;
        if (f && !read && f->type != CFG_T_MAP)
            fill_default(d, f, out + f->offset, at); /* so that rules can go on */
        if (f) continue;
        if (config_canonical(s, key->text) == key->text) /* else a second spelling, reported while merging */
            config_error_node(d, key, at, "unknown key%s", config_hint(d, s, key->text));
    }
    return ok;
}

bool config_fill(ConfigDoc *d, const ConfigSection *top, void *out, Err *e)
{
    memset(out, 0, top->size);
    if (d->main_read && config_merge_all(d, top)) fill_section(d, top, d->root, out, "");
    d->n_read_error = d->n_error;
    if (d->own.code) return err_set(e, d->own.code, "%s", d->own.msg);
    return d->n_error == 0;
}
