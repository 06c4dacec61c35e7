/* core/config_print.c: typed structs back to YAML (every key, defaults included), and the help text, from the
 * tables. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_impl.h"

typedef struct AnyList {
    int n;
    void *v;
} AnyList;
typedef struct Printer {
    ConfigText t;
    const ConfigDoc *d;
    bool origins;
} Printer;

bool config_put(ConfigText *t, const char *text, size_t bytes)
{
    if (!t->p || t->n + bytes + 1 > t->room) {
        size_t room = 2 * (t->n + bytes) + 256;
        char *p = arena_grow(t->a, t->p, t->n, room, t->e);
        if (!p) return false;
        t->p = p;
        t->room = room;
    }
    if (bytes) memcpy(t->p + t->n, text, bytes);
    t->n += bytes;
    t->p[t->n] = 0;
    return true;
}

bool config_putf(ConfigText *t, const char *fmt, ...)
{
    char buf[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(buf, sizeof buf, fmt, ap);
    va_end(ap);
    return n >= 0 && config_put(t, buf, (size_t)n < sizeof buf ? (size_t)n : sizeof buf - 1);
}

static void print_quoted(ConfigText *t, const char *s, bool escape_references)
{
    config_put(t, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') config_putf(t, "\\%c", c);
        else if (c == '\n') config_put(t, "\\n", 2);
        else if (c == '\t') config_put(t, "\\t", 2);
        else if (c < 32 || c == 127) config_putf(t, "\\x%02x", c);
        else {
            if (escape_references && c == '$' && s[1] == '{') config_put(t, "$", 1);
            config_put(t, s, 1);
        }
    }
    config_put(t, "\"", 1);
}

static void print_str(ConfigText *t, const char *s)
{
    if (s) print_quoted(t, s, true);
    else config_putf(t, "null");
}

static void print_float(ConfigText *t, const ConfigField *f, double x)
{
    char buf[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(buf, sizeof buf, "%.*g", digits, x);
        if (strtod(buf, NULL) == x) break;
    }
    if (isnan(x)) config_putf(t, "%s", f->values ? f->values : "null");
    else config_putf(t, "%s%s", buf, strpbrk(buf, ".e") ? "" : ".0");
}

/* A raw value on one line. Plain stays plain, quoted stays quoted: it is read by type later. */
static void print_raw(ConfigText *t, const ConfigNode *n)
{
    bool map = n->kind == NODE_MAP;
    if (n->kind == NODE_SCALAR) {
        bool safe = !n->quoted && n->text[0] &&
                    strspn(n->text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                    "0123456789_./+") == strlen(n->text);
        if (safe) config_put(t, n->text, strlen(n->text));
        else if (config_is_null(n)) config_putf(t, "null");
        else print_quoted(t, n->text, false);
        return;
    }
    config_put(t, map ? "{" : "[", 1);
    for (int i = 0; i < n->n; i++) {
        if (i) config_put(t, ", ", 2);
        if (map) {
            print_quoted(t, n->key[i]->text, false);
            config_put(t, ": ", 2);
        }
        print_raw(t, n->item[i]);
    }
    config_put(t, map ? "}" : "]", 1);
}

static void print_list(ConfigText *t, const ConfigField *f, const char *at)
{
    AnyList list;
    memcpy(&list, at, sizeof list);
    config_put(t, "[", 1);
    for (int i = 0; i < list.n; i++) {
        if (i) config_put(t, ", ", 2);
        if (f->type == CFG_T_STRS) print_str(t, ((const char **)list.v)[i]);
        else if (f->type == CFG_T_INTS) config_putf(t, "%lld", (long long)((int64_t *)list.v)[i]);
        else print_float(t, f, ((double *)list.v)[i]);
    }
    config_put(t, "]", 1);
}

static void print_value(ConfigText *t, const ConfigField *f, const char *at)
{
    int64_t i;
    double x;
    bool b;
    const char *s;
    const ConfigNode *raw;
    if (f->type == CFG_T_BOOL) {
        memcpy(&b, at, sizeof b);
        config_putf(t, b ? "true" : "false");
    } else if (f->type == CFG_T_INT) {
        memcpy(&i, at, sizeof i);
        config_putf(t, "%lld", (long long)i);
    } else if (f->type == CFG_T_FLOAT) {
        memcpy(&x, at, sizeof x);
        print_float(t, f, x);
    } else if (f->type == CFG_T_STR) {
        memcpy(&s, at, sizeof s);
        print_str(t, s);
    } else if (f->type == CFG_T_ENUM) {
        memcpy(&s, at, sizeof s);
        config_putf(t, "%s", s ? s : "null");
    } else if (f->type == CFG_T_RAW) {
        memcpy(&raw, at, sizeof raw);
        if (raw) print_raw(t, raw);
        else config_putf(t, "null");
    } else print_list(t, f, at);
}

static void print_origin(Printer *p, const char *path)
{
    const ConfigNode *n = p->origins ? config_node(p->d, path) : NULL;
    if (config_is_null(n) || strcmp(n->origin, "default") == 0) return;
    bool file = n->origin == n->file;
    if (file) config_putf(&p->t, "  # %s:%d", n->file, n->line);
    else config_putf(&p->t, "  # %s", n->origin);
}

static void print_section(Printer *p, const ConfigSection *s, const char *at, int indent, const char *path,
                          bool item);

static void print_structs(Printer *p, const ConfigField *f, const char *at, int indent, const char *path)
{
    AnyList list;
    memcpy(&list, at, sizeof list);
    if (list.n == 0) {
        config_putf(&p->t, " []\n");
        return;
    }
    config_putf(&p->t, "\n");
    for (int i = 0; i < list.n; i++) {
        const char *sub = arena_printf(p->t.a, p->t.e, "%s[%d]", path, i);
        if (!sub) return;
        config_putf(&p->t, "%*s- ", indent, "");
        print_section(p, f->sub(), (const char *)list.v + f->size * (size_t)i, indent + 2, sub, true);
    }
}

/* item: the first key follows a dash and is not indented. */
static void print_section(Printer *p, const ConfigSection *s, const char *at, int indent, const char *path,
                          bool item)
{
    for (int i = 0; i < s->n && !p->t.e->code; i++) {
        const ConfigField *f = &s->field[i];
        if (f->type == CFG_T_LATER) continue;
        const char *sub = arena_printf(p->t.a, p->t.e, "%s%s%s", path, path[0] ? "." : "", f->name);
        if (!sub) return;
        if (!item) config_putf(&p->t, "%*s", indent, "");
        item = false;
        config_putf(&p->t, "%s:", f->name);
        bool absent = f->type == CFG_T_MAP && f->values && config_is_null(config_node(p->d, sub));
        if (absent) config_putf(&p->t, " null\n");
        else if (f->type == CFG_T_MAP) {
            config_putf(&p->t, "\n");
            print_section(p, f->sub(), at + f->offset, indent + 2, sub, false);
        } else if (f->type == CFG_T_LIST) print_structs(p, f, at + f->offset, indent, sub);
        else {
            config_put(&p->t, " ", 1);
            print_value(&p->t, f, at + f->offset);
            print_origin(p, sub);
            config_put(&p->t, "\n", 1);
        }
    }
}

static char *print_all(const ConfigDoc *d, const ConfigSection *top, const void *values, bool origins,
                       Arena *a, Err *e)
{
    Printer p = {.t = {.a = a, .e = e}, .d = d, .origins = origins};
    print_section(&p, top, values, 0, "", false);
    return e->code ? NULL : p.t.p;
}

char *config_resolved(const ConfigDoc *d, const ConfigSection *top, const void *values, Arena *a, Err *e)
{
    return print_all(d, top, values, false, a, e);
}

char *config_show(const ConfigDoc *d, const ConfigSection *top, const void *values, Arena *a, Err *e)
{
    return print_all(d, top, values, true, a, e);
}

/* ---- help ------------------------------------------------------------------------------------------- */
static const char *type_name(ConfigType t)
{
    static const char *const name[] = {"bool",   "int",           "float",        "text",
                                       "choice", "list of texts", "list of ints", "list of floats",
                                       "map",    "list of maps",  "value",        "later"};
    return name[t];
}

static void help_range(ConfigText *t, const ConfigField *f)
{
    bool bounded = f->hi < (f->type == CFG_T_INT ? (double)INT64_MAX : CFG_ANY_HI);
    if (f->later && f->type != CFG_T_ENUM) config_putf(t, ", only this in this version");
    else if (f->lo > CFG_ANY_LO && bounded)
        config_putf(t, ", %g to %g", f->lo == CFG_ABOVE_0 ? 0 : f->lo, f->hi);
    else if (f->lo > CFG_ANY_LO) config_putf(t, ", from %g", f->lo == CFG_ABOVE_0 ? 0 : f->lo);
}

static void help_section(ConfigText *t, const ConfigSection *s, int indent)
{
    for (int i = 0; i < s->n; i++) {
        const ConfigField *f = &s->field[i];
        config_putf(t, "%*s%-*s ", indent, "", 30 - indent, f->name);
        if (f->type == CFG_T_LATER) {
            config_putf(t, "%s (not in this version)\n", f->help);
            continue;
        }
        config_putf(t, "%s [%s", f->help, f->type == CFG_T_ENUM ? f->values : type_name(f->type));
        if (f->type == CFG_T_ENUM && f->later && f->later[0]) config_putf(t, "; later %s", f->later);
        bool number = f->type == CFG_T_INT || f->type == CFG_T_FLOAT;
        if (number) help_range(t, f);
        bool has = f->def && f->def[0] && strcmp(f->def, "NAN") != 0;
        if (has) config_putf(t, "; default %s", f->def);
        config_putf(t, "]\n");
        if (f->sub) help_section(t, f->sub(), indent + 2);
    }
    for (int i = 0; i < s->n_alias; i++)
        config_putf(t, "%*s%-*s the same as %s\n", indent, "", 30 - indent, s->alias[i][0], s->alias[i][1]);
}

char *config_help(const ConfigSection *top, Arena *a, Err *e)
{
    ConfigText t = {.a = a, .e = e};
    help_section(&t, top, 0);
    return e->code ? NULL : t.p;
}
