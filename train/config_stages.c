/* train/config_stages.c: the list `stages`: entries {name, recipe, keep_optimizer, sections...}.
 *
 * Sections of an entry lie over the file's for that stage alone; lora, prune and qat describe the state, so
 * they stay for the stages behind it until one says otherwise. */
#include <string.h>

#include "train/config_impl.h"

static const char *const own_key[] = {"name", "recipe", "keep_optimizer"};
static const char *const state_key[] = {"lora", "prune", "qat"};
static const char *const recipes[] = {"pretrain", "finetune", "distill", "prune", "quantize", "export"};
enum { N_TRAINING = 3 };

static const ConfigNode *key_of(const ConfigNode *map, const char *name)
{
    for (int i = 0; i < map->n; i++)
        if (!strcmp(map->key[i]->text, name)) return map->item[i];
    return NULL;
}

static bool is_name(const char *s)
{
    const size_t n = strlen(s);
    return n > 0 && n <= 48 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == n;
}

static void read_recipe(Config *c, int i, const ConfigNode *n, StageConfig *s, Arena *a, Err *e)
{
    const char *at = arena_printf(a, e, n ? "stages[%d].recipe" : "stages[%d]", i);
    const char *text = n && n->kind == NODE_SCALAR ? n->text : "";
    for (int k = 0; k < CFG_COUNT(recipes); k++)
        if (!strcmp(text, recipes[k])) {
            s->recipe = recipes[k];
            s->trains = k < N_TRAINING;
        }
    if (s->recipe || !at) return;
    const char *near = nearest_name(text, recipes, CFG_COUNT(recipes));
    config_error(c->doc, at, "%s%s%s%s", n ? "" : "recipe: required; ",
                 "expected pretrain, finetune, distill, prune, quantize or export",
                 near ? " (did you mean " : "", near ? arena_printf(a, e, "%s?)", near) : "");
}

static void read_flag(Config *c, int i, const ConfigNode *n, bool *out, Arena *a, Err *e)
{
    if (!n) return;
    *out = !strcmp(n->text, "true");
    if (n->kind == NODE_SCALAR && (*out || !strcmp(n->text, "false"))) return;
    const char *at = arena_printf(a, e, "stages[%d].keep_optimizer", i);
    if (at) config_error(c->doc, at, "expected true or false");
}

static bool read_entry(Config *c, int i, const ConfigNode *n, StageConfig *s, Arena *a, Err *e)
{
    const char *at = arena_printf(a, e, "stages[%d]", i), *name_at = arena_printf(a, e, "stages[%d].name", i);
    if (!at || !name_at) return false;
    const int before = config_error_count(c->doc);
    *s = (StageConfig){0};
    if (n->kind != NODE_MAP) {
        config_error(c->doc, at, "expected {name, recipe, and sections}");
        return false;
    }
    const ConfigNode *name = key_of(n, "name");
    if (!name) config_error(c->doc, at, "name: required");
    else if (name->kind != NODE_SCALAR || !is_name(name->text))
        config_error(c->doc, name_at, "a stage's name has letters, digits, _ and -");
    else s->name = name->text;
    for (int k = 0; k < i && s->name; k++)
        if (c->stage[k].name && !strcmp(c->stage[k].name, s->name))
            config_error(c->doc, name_at, "\"%s\" is the name of stage %d already", s->name, k + 1);
    read_recipe(c, i, key_of(n, "recipe"), s, a, e);
    read_flag(c, i, key_of(n, "keep_optimizer"), &s->keep_optimizer, a, e);
    s->own_prune = key_of(n, "prune") != NULL;
    s->own_qat = key_of(n, "qat") != NULL;
    s->own_export = key_of(n, "export") != NULL;
    if (key_of(n, "stages") || key_of(n, "arms"))
        config_error(c->doc, at, "a stage holds no stages and no arms");
    return config_error_count(c->doc) == before;
}

/* What no stage changes again is the run's: it is what the other sections of this stage mean. */
static void settle(Config *c)
{
    const int i = c->at_stage;
    const StageConfig *s = &c->stage[i];
    if (i > 0 && !s->own_qat)
        c->qat.start_step = 0; /* what was hung by an earlier stage acts from the start */
    if (!s->own_export && strcmp(s->recipe, "export") && i + 1 < c->n_stage) c->export.n = 0;
}

void config_list_stages(Config *c, Arena *a, Err *e)
{
    const ConfigNode *list = c->stages;
    if (!list || config_is_null(list)) return;
    if (list->kind != NODE_LIST) {
        config_error(c->doc, "stages", "expected a list of {name, recipe, and sections}");
        return;
    }
    c->stage = arena_alloc(a, (size_t)(list->n + 1) * sizeof *c->stage, e);
    bool ok = c->stage != NULL;
    for (int i = 0; c->stage && i < list->n; i++)
        ok = read_entry(c, i, list->item[i], &c->stage[i], a, e) && ok;
    if (!ok) return;
    c->n_stage = list->n;
    if (c->at_stage >= 0 && c->at_stage < c->n_stage) settle(c);
}

void config_select_stage(ConfigDoc *d, const StageConfig *s, int i, Arena *a, Err *e)
{
    for (int k = 0; k <= i; k++) {
        const char *key = arena_printf(a, e, "stages[%d]", k);
        if (!key) return;
        if (k < i) config_select_part(d, key, state_key, CFG_COUNT(state_key), false);
        else config_select_part(d, key, own_key, CFG_COUNT(own_key), true);
    }
    config_put_final(d, arena_printf(a, e, "run.recipe=%s", s[i].trains ? s[i].recipe : "finetune"));
}
