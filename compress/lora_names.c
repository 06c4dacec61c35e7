/* compress/lora_names.c: which modules a word of the section means. PEFT's rule: a name matches a module
 * whose path is the name or ends with `.name`; we also take globs over the whole path. */
#include "compress/lora_impl.h"
#include <stdio.h>
#include <string.h>

bool module_match(const char *pattern, const char *module)
{
    const size_t n = strlen(pattern), k = strlen(module);
    if (strpbrk(pattern, "*?")) return glob_match(pattern, module);
    if (k < n || strcmp(module + k - n, pattern)) return false;
    return k == n || module[k - n - 1] == '.';
}

const char *module_of(const char *tensor, Arena *a, Err *e)
{
    const char *dot = strrchr(tensor, '.');
    const bool tail = dot && (!strcmp(dot, ".weight") || !strcmp(dot, ".bias"));
    return arena_strndup(a, tensor, tail ? (size_t)(dot - tensor) : strlen(tensor), e);
}

bool is_embedding(const Model *m, const char *module)
{
    const FamilyNames *n = &m->spec.family->name;
    return !strcmp(module, n->embed) || (n->pos && !strcmp(module, n->pos));
}

bool is_head(const Model *m, const char *module) { return !strcmp(module, m->spec.family->name.head); }

bool lora_at(const ConfigDoc *doc, const char *key, Err *e)
{
    const ConfigNode *n = doc ? config_node(doc, key) : NULL;
    return n && n->file ? err_prefix(e, "%s:%d:%d", n->file, n->line, n->col) : false;
}

/* The module, or the last part of one, that is nearest in spelling. */
static const char *nearest(const char *pattern, const Model *m, Arena *a, Err *e)
{
    const char *best = NULL;
    int least = 1 << 20;
    for (int i = 0; i < m->params.n; i++) {
        const char *module = module_of(m->params.p[i]->name, a, e);
        for (const char *part = module; part && !e->code;) {
            const int d = edit_distance(pattern, part);
            if (d < least) {
                least = d;
                best = part;
            }
            part = strchr(part, '.');
            if (part) part++;
        }
    }
    return best ? best : "none";
}

bool module_missing(const char *key, const char *pattern, const Model *m, const ConfigDoc *doc, Err *e)
{
    Arena tmp = {.name = "names"};
    const char *near = nearest(pattern, m, &tmp, e);
    err_set(e, ERR_USAGE, "%s: no module of this %s model matches \"%s\"; the nearest is %s (for example %s)",
            key, m->spec.family->arch, pattern, near, m->n_site ? m->site[0].name : "none");
    arena_free(&tmp);
    return lora_at(doc, key, e);
}

double pattern_value(const ConfigNode *map, const char *module, double def)
{
    for (int i = 0; map && map->kind == NODE_MAP && i < map->n; i++) {
        double v;
        if (module_match(map->key[i]->text, module) && config_parse_float(map->item[i]->text, &v)) def = v;
    }
    return def;
}

static void check_pattern(const ConfigNode *map, const char *name, bool whole, ConfigDoc *doc)
{
    char key[256];
    if (config_is_null(map)) return;
    snprintf(key, sizeof key, "lora.%s", name);
    if (map->kind != NODE_MAP) {
        config_error(doc, key, "expected a map of modules, such as {q_proj: 8}");
        return;
    }
    for (int i = 0; i < map->n; i++) {
        double v = 0;
        const char *text = map->item[i]->kind == NODE_SCALAR ? map->item[i]->text : "";
        const bool number = config_parse_float(text, &v);
        if (!number || !(v > 0) || (whole && (v < 1 || v > 1024 || v != (double)(long)v)))
            config_error(doc, key, "%s: \"%.40s\" is not %s", map->key[i]->text, text,
                         whole ? "a rank from 1 to 1024" : "a number above 0");
    }
}

void lora_check(const LoraConfig *c, ConfigDoc *doc)
{
    const ConfigNode *t = c->target_modules;
    if (!c->enabled) return;
    if (!config_is_null(t) && t->kind == NODE_LIST) {
        if (!t->n) config_error(doc, "lora.target_modules", "an empty list: nothing would be trained");
        for (int i = 0; i < t->n; i++)
            if (t->item[i]->kind != NODE_SCALAR || !t->item[i]->text[0])
                config_error(doc, "lora.target_modules", "entry %d is not a name", i);
    } else if (!config_is_null(t) && (t->kind != NODE_SCALAR || strcmp(t->text, "all-linear")))
        config_error(doc, "lora.target_modules", "expected all-linear or a list such as [q_proj, v_proj]");
    check_pattern(c->rank_pattern, "rank_pattern", true, doc);
    check_pattern(c->alpha_pattern, "alpha_pattern", false, doc);
    if (!strcmp(c->init, "pissa") && strcmp(c->base_quant, "none"))
        config_error(doc, "lora.init",
                     "pissa takes its start out of the base, which base_quant: %s cannot hold; use "
                     "kaiming, or base_quant: none",
                     c->base_quant);
    if (!strcmp(c->init, "pissa") && c->use_dora)
        config_error(doc, "lora.init", "pissa and use_dora do not go together");
    if (c->plus_ratio > 0 && c->plus_ratio < 1)
        config_error(doc, "lora.plus_ratio",
                     "the rate of B over that of A is at least 1 (16 is usual); 0 = off");
}
