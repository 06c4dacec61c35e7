/* train/config_distill.c: the rules between keys of distill, teacher, teachers and
 * model.init_from_teacher. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "train/config_impl.h"

static bool distills(const Config *c) { return c->run.recipe && strcmp(c->run.recipe, "distill") == 0; }

void config_check_teachers(Config *c)
{
    ConfigDoc *d = c->doc;
    if (distills(c) && !c->teacher.path && !c->teachers.n && !c->teacher.cache)
        config_error(d, "teacher.path", "required for run.recipe: distill, unless teacher.cache");
    /* a resolved config has both, the first one twice */
    const char *first = c->teachers.n ? c->teachers.v[0].path : NULL;
    if (c->teacher.path && c->teachers.n && !(first && !strcmp(first, c->teacher.path)))
        config_error(d, "teachers", "exclusive with teacher.path");
    if (c->teachers.n > MAX_TEACHER)
        config_error(d, "teachers", "%d, at most %d", c->teachers.n, MAX_TEACHER);
    for (int i = 0; i < c->teachers.n; i++) {
        char at[64];
        snprintf(at, sizeof at, "teachers[%d].path", i);
        if (!c->teachers.v[i].path) config_error(d, at, "required");
    }
}

void config_check_init_teacher(Config *c)
{
    ConfigDoc *d = c->doc;
    const InitTeacherConfig *t = &c->model.init_from_teacher;
    const ConfigNode *l = t->layers;
    if (c->model.path) config_error(d, "model.init_from_teacher", "exclusive with model.path");
    if (!distills(c)) config_error(d, "model.init_from_teacher", "needs run.recipe: distill and its teacher");
    bool word = l && l->kind == NODE_SCALAR &&
                (strcmp(l->text, "even") == 0 || strcmp(l->text, "first_k") == 0);
    bool list = l && l->kind == NODE_LIST && l->n > 0;
    if (l && !config_is_null(l) && !word && !list)
        config_error(d, "model.init_from_teacher.layers", "expected a list of layers, even, or first_k");
    if (!list && !config_was_set(d, "model.init.num_hidden_layers"))
        config_error(d, "model.init_from_teacher.layers",
                     "how many? list them, or give model.init.num_hidden_layers");
}

/* embed, final_norm, logits, or layers.N.NAME with N a number or, under layer_map, {s} or {t}. */
static bool is_hook(const char *text, const char *placeholder, bool *is_template)
{
    static const char *const plain[] = {"embed", "final_norm", "logits"};
    static const char *const in_layer[] = {"attn_in",    "q",        "k",      "v",       "attn_scores",
                                           "attn_probs", "attn_out", "mlp_in", "mlp_out", "out"};
    *is_template = false;
    for (int i = 0; i < CFG_COUNT(plain); i++)
        if (strcmp(text, plain[i]) == 0) return true;
    if (strncmp(text, "layers.", 7) != 0) return false;
    const char *p = text + 7;
    size_t digits = strspn(p, "0123456789"), len = strlen(placeholder);
    *is_template = strncmp(p, placeholder, len) == 0;
    p += *is_template ? len : digits;
    if ((!*is_template && (digits == 0 || digits > 5)) || *p++ != '.') return false;
    for (int i = 0; i < CFG_COUNT(in_layer); i++)
        if (strcmp(p, in_layer[i]) == 0) return true;
    return false;
}

static const char *last_part(const char *hook)
{
    const char *dot = strrchr(hook, '.');
    return dot ? dot + 1 : hook;
}

/* What a distance can be asked of a pair of hook points. */
static void check_pair(Config *c, int i, const char *const text[2])
{
    const FeatureConfig *f = &c->distill.features.v[i];
    const char *part[2] = {last_part(text[0]), last_part(text[1])};
    bool relation = f->loss && strcmp(f->loss, "relation") == 0, mse = f->loss && strcmp(f->loss, "mse") == 0;
    bool scores = strcmp(part[0], "attn_scores") == 0, probs = strcmp(part[0], "attn_probs") == 0;
    bool qkv = strlen(part[0]) == 1;
    char at[64];
    snprintf(at, sizeof at, "distill.features[%d].loss", i);
    if ((scores || probs || relation || strncmp(part[1], "attn_scores", 11) == 0 ||
         strcmp(part[1], "attn_probs") == 0) &&
        strcmp(part[0], part[1]) != 0)
        config_error(c->doc, at, "%s is matched with %s; these are matched with their own kind", part[0],
                     part[1]);
    else if (scores && !mse) config_error(c->doc, at, "attn_scores are matched by mse");
    else if (probs && !relation)
        config_error(c->doc, at, "attn_probs are matched by relation (KL of the rows)");
    else if (relation && !probs && !qkv) config_error(c->doc, at, "a relation is of q, k, v or attn_probs");
    bool matrix = scores || probs || relation, linear = f->projector && strcmp(f->projector, "linear") == 0;
    snprintf(at, sizeof at, "distill.features[%d].projector", i);
    if (matrix && linear)
        config_error(c->doc, at, "%s needs none: widths may differ", scores ? "attn_scores" : "relation");
    snprintf(at, sizeof at, "distill.features[%d].normalize", i);
    if (matrix && f->normalize)
        config_error(c->doc, at, "is for rows, not for %s", scores ? "attn_scores" : "relation");
    snprintf(at, sizeof at, "distill.features[%d].relation_heads", i);
    if (f->relation_heads && (!relation || probs))
        config_error(c->doc, at, "is for loss: relation of q, k or v");
}

static void check_feature(Config *c, int i)
{
    const FeatureConfig *f = &c->distill.features.v[i];
    const char *text[2] = {f->student, f->teacher};
    bool is_template[2] = {false, false};
    for (int side = 0; side < 2; side++) {
        char at[64];
        snprintf(at, sizeof at, "distill.features[%d].%s", i, side ? "teacher" : "student");
        if (!text[side]) config_error(c->doc, at, "required: a hook point such as layers.3.out");
        else if (!is_hook(text[side], side ? "{t}" : "{s}", &is_template[side]))
            config_error(
                c->doc, at,
                "\"%.60s\" is not a hook point (embed, layers.N.{attn_in,q,k,v,attn_scores,attn_probs,"
                "attn_out,mlp_in,mlp_out,out}, final_norm, logits)",
                text[side]);
        else if (is_template[side] && !c->distill.layer_map)
            config_error(c->doc, at, "a template needs distill.layer_map");
        else if (strcmp(text[side], "logits") == 0)
            config_error(c->doc, at, "logits are matched by distill.loss: mse_logits");
    }
    if (text[0] && text[1]) check_pair(c, i, text);
}

static bool is_layer_number(const ConfigNode *n)
{
    int64_t v;
    return n->kind == NODE_SCALAR && config_parse_int(n->text, &v) && v >= 0 && v < 100000;
}

static void check_layer_map(Config *c)
{
    const ConfigNode *m = c->distill.layer_map;
    bool ok = !m ||
              (m->kind == NODE_SCALAR && (strcmp(m->text, "uniform") == 0 || strcmp(m->text, "last") == 0));
    if (m && m->kind == NODE_LIST) {
        ok = m->n > 0;
        for (int i = 0; i < m->n; i++) {
            const ConfigNode *p = m->item[i];
            ok = ok && p->kind == NODE_LIST && p->n == 2 && is_layer_number(p->item[0]) &&
                 is_layer_number(p->item[1]);
        }
    }
    if (!ok)
        config_error(c->doc, "distill.layer_map",
                     "expected uniform, last, or pairs [[student, teacher], ...]");
}

/* [[step, T], ...]: steps that grow, temperatures in (0, 100]. */
static void check_schedule(Config *c)
{
    const ConfigNode *s = c->distill.temperature_schedule;
    int64_t last = -1;
    if (!s || config_is_null(s)) return;
    bool ok = s->kind == NODE_LIST;
    for (int i = 0; ok && i < s->n; i++) {
        const ConfigNode *p = s->item[i];
        int64_t step = -1;
        double T = 0;
        ok = p->kind == NODE_LIST && p->n == 2 && p->item[0]->kind == NODE_SCALAR &&
             p->item[1]->kind == NODE_SCALAR && config_parse_int(p->item[0]->text, &step) &&
             config_parse_float(p->item[1]->text, &T);
        if (ok && (step <= last || !(T > 0) || T > 100)) {
            config_error(c->doc, "distill.temperature_schedule",
                         "entry %d: steps grow from 0, temperatures are in (0, 100]", i);
            return;
        }
        last = step;
    }
    if (!ok) config_error(c->doc, "distill.temperature_schedule", "expected [[step, T], ...]");
}

/* A cache knows the teacher's distribution over the data's tokens, nothing else of it. */
static void check_cache(Config *c)
{
    const DistillConfig *k = &c->distill;
    if (!c->teacher.cache) return;
    if (k->loss && strcmp(k->loss, "mse_logits") == 0)
        config_error(c->doc, "distill.loss",
                     "mse_logits needs the teacher's logits, teacher.cache has probabilities");
    if (k->on_policy > 0)
        config_error(c->doc, "distill.on_policy",
                     "teacher.cache cannot judge what the student writes: leave it out");
    if (c->teachers.n > 0) config_error(c->doc, "teachers", "teacher.cache holds one teacher");
    if (c->teacher.path) return;
    if (k->features.n > 0)
        config_error(c->doc, "distill.features",
                     "need the teacher's activations: give teacher.path beside teacher.cache");
    if (c->model.has_teacher)
        config_error(c->doc, "model.init_from_teacher",
                     "needs the teacher's values: give teacher.path beside teacher.cache");
    if (c->eval.compare_teacher && config_was_set(c->doc, "eval.compare_teacher"))
        config_error(c->doc, "eval.compare_teacher",
                     "needs the teacher: give teacher.path beside teacher.cache");
}

static void check_on_policy(Config *c)
{
    const DistillConfig *k = &c->distill;
    if (k->on_policy <= 0) return;
    if (!distills(c)) config_error(c->doc, "distill.on_policy", "needs run.recipe: distill");
    if (k->alpha == 0 && k->features.n == 0)
        config_error(c->doc, "distill.on_policy",
                     "needs distill.alpha > 0: nothing else judges what the student writes");
}

/* Raw logits have no temperature, no top-k and no mean of probabilities. */
static void check_logits(Config *c)
{
    DistillConfig *k = &c->distill;
    bool raw = k->loss && strcmp(k->loss, "mse_logits") == 0;
    if (raw && k->top_k)
        config_error(c->doc, "distill.top_k", "distill.loss: mse_logits compares all raw logits");
    if (raw && c->teachers.n > 1)
        config_error(c->doc, "teachers", "distill.loss: mse_logits has one teacher: logits are not averaged");
    if (k->balance && strcmp(k->balance, "match_kd") == 0 && !(k->alpha > 0))
        config_error(c->doc, "distill.balance",
                     "match_kd scales features to the soft loss, whose alpha is 0");
}

void config_check_distill(Config *c)
{
    DistillConfig *k = &c->distill;
    if (isnan(k->ce_weight)) k->ce_weight = k->alpha < 1 ? 1 - k->alpha : 0;
    check_layer_map(c);
    check_schedule(c);
    check_logits(c);
    check_cache(c);
    check_on_policy(c);
    for (int i = 0; i < k->features.n; i++) check_feature(c, i);
    if (c->run.recipe && strcmp(c->run.recipe, "distill") == 0 && k->alpha == 0 && k->ce_weight == 0 &&
        k->features.n == 0)
        config_error(c->doc, "distill.alpha",
                     "alpha and ce_weight are 0 and there are no features: nothing to learn from");
}
