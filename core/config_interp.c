/* core/config_interp.c: ${section.key} and ${env:NAME,default} in values. A value that is nothing but one
 * ${section.key} takes that value whole, lists included; inside text the parts are put in. $${ stands for ${.
 */
#include <stdlib.h>
#include <string.h>

#include "core/config_impl.h"

typedef struct Interp {
    ConfigDoc *d;
    const ConfigNode *at;
    const char *path;
} Interp;

static const ConfigNode *expand(Interp *x, const ConfigNode *n);

static bool fail(Interp *x, const char *what, const char *name)
{
    config_error_node(x->d, x->at, x->path, "%s ${%.100s}", what, name);
    return false;
}

static ConfigNode *text_node(Interp *x, const ConfigNode *from, const char *text)
{
    ConfigNode *n = arena_alloc(x->d->a, sizeof *n, x->d->e);
    if (!n || !text) return NULL;
    *n = *from;
    n->text = text;
    return n;
}

/* Canonical path and field of a reference such as optim.lr; false when there is no such key. */
static bool find_field(Interp *x, const char *ref, const char **canonical, const ConfigField **field)
{
    const ConfigSection *s = x->d->top;
    const char *p = ref, *path = "";
    *field = NULL;
    while (*p && path) {
        size_t len = strcspn(p, ".[");
        const char *part = arena_strndup(x->d->a, p, len, x->d->e);
        if (!part) return false;
        const char *name = config_canonical(s, part);
        *field = config_field(s, name);
        if (s && !*field) return false;
        path = arena_printf(x->d->a, x->d->e, "%s%s%s", path, path[0] ? "." : "", name);
        s = *field && ((*field)->type == CFG_T_MAP || (*field)->type == CFG_T_LIST) ? (*field)->sub() : NULL;
        p += len;
        if (*p == '[' && path) {
            size_t index = strcspn(p, "]");
            path = arena_printf(x->d->a, x->d->e, "%s%.*s]", path, (int)index, p);
            p += index;
            p += *p == ']';
        }
        p += *p == '.';
    }
    *canonical = path;
    return path != NULL && *ref != 0;
}

/* The node behind ${ref}, resolved itself. *unset: the key exists and has neither value nor default. */
static const ConfigNode *reference(Interp *x, const char *ref, bool *unset)
{
    const char *path;
    const ConfigField *f;
    if (strncmp(ref, "env:", 4) == 0) {
        const char *comma = strchr(ref, ','), *name = ref + 4;
        name = arena_strndup(x->d->a, name, comma ? (size_t)(comma - name) : strlen(name), x->d->e);
        const char *value = name ? getenv(name) : NULL;
        if (!value && comma) value = comma + 1;
        if (!value) {
            fail(x, "the environment has no value and no default is given for", ref);
            return NULL;
        }
        return text_node(x, x->at, arena_strdup(x->d->a, value, x->d->e));
    }
    if (!find_field(x, ref, &path, &f)) {
        fail(x, "no such key:", ref);
        return NULL;
    }
    const ConfigNode *n = config_find(x->d, path, NULL, NULL);
    if (!config_is_null(n)) return expand(x, n);
    *unset = !f || !f->def || strcmp(f->def, "NAN") == 0 || f->type > CFG_T_ENUM;
    return *unset ? NULL : expand(x, text_node(x, x->at, f->def));
}

static bool put(Interp *x, ConfigText *out, const char *text, size_t bytes)
{
    if (out->n + bytes >= CFG_MAX_TEXT) return fail(x, "longer than 64 KiB with its parts put in:", "...");
    return config_put(out, text, bytes);
}

/* One ${...} at p into out. Returns what follows it, NULL after an error. */
static const char *put_reference(Interp *x, const char *p, ConfigText *out)
{
    const char *end = strchr(p, '}');
    if (!end) {
        fail(x, "no closing brace in", p + 2);
        return NULL;
    }
    const char *ref = arena_strndup(x->d->a, p + 2, (size_t)(end - p - 2), x->d->e);
    bool unset = false;
    const ConfigNode *v = ref ? reference(x, ref, &unset) : NULL;
    if (unset) fail(x, "not set:", ref);
    if (!v) return NULL;
    if (v->kind != NODE_SCALAR) {
        fail(x, "not a single value:", ref);
        return NULL;
    }
    return put(x, out, v->text, strlen(v->text)) ? end + 1 : NULL;
}

/* n is nothing but one reference. */
static const ConfigNode *expand_whole(Interp *x, const ConfigNode *n, const char *ref)
{
    bool unset = false;
    const ConfigNode *v = reference(x, ref, &unset);
    if (v && v->kind != NODE_SCALAR) return v;
    ConfigNode *copy = v || unset ? text_node(x, n, v ? v->text : "") : NULL;
    if (copy) copy->quoted = v && v->quoted;
    return copy;
}

static const ConfigNode *expand_text(Interp *x, const ConfigNode *n)
{
    const char *end = strchr(n->text, '}');
    if (strncmp(n->text, "${", 2) == 0 && end && !end[1]) {
        const char *ref = arena_strndup(x->d->a, n->text + 2, (size_t)(end - n->text - 2), x->d->e);
        return ref ? expand_whole(x, n, ref) : NULL;
    }
    ConfigText out = {.a = x->d->a, .e = x->d->e};
    for (const char *p = n->text; p && *p;) {
        size_t plain = strcspn(p, "$");
        if (!put(x, &out, p, plain)) return NULL;
        p += plain;
        if (strncmp(p, "$${", 3) == 0) p = put(x, &out, "${", 2) ? p + 3 : NULL;
        else if (strncmp(p, "${", 2) == 0) p = put_reference(x, p, &out);
        else if (*p) p = put(x, &out, p, 1) ? p + 1 : NULL;
        if (!p) return NULL;
    }
    return text_node(x, n, out.p);
}

static const ConfigNode *expand(Interp *x, const ConfigNode *n)
{
    ConfigDoc *d = x->d;
    if (!n || n->kind != NODE_SCALAR || !strstr(n->text, "${")) return n;
    for (int i = 0; i < d->n_busy; i++)
        if (d->busy[i] == n->text) {
            fail(x, "values refer to each other in a circle through", "...");
            return NULL;
        }
    if (d->n_busy >= CFG_MAX_DEPTH || ++d->n_expand > CFG_MAX_COPIES) {
        fail(x, "too many references, at", n->text);
        return NULL;
    }
    d->busy[d->n_busy++] = n->text;
    const ConfigNode *v = expand_text(x, n);
    d->n_busy--;
    return v;
}

const ConfigNode *config_resolve(ConfigDoc *d, const ConfigNode *n, const char *path)
{
    Interp x = {d, n, path};
    return expand(&x, n);
}
