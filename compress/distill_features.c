/* compress/distill_features.c: which activations of student and teacher are matched, and how (algorithms 5.2;
 * 1909.10351, 2002.10957, 2012.15828). Hook points are taps of the graph; nothing here opens the model's
 * builder. */
#include "compress/compress.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char hook_help[] =
    "embed, layers.N.{attn_in,q,k,v,attn_scores,attn_probs,attn_out,mlp_in,mlp_out,out}, "
    "final_norm";

/* "file:line:col: " before an error about key. */
static bool at_key(const ConfigDoc *doc, const char *key, Err *e)
{
    const ConfigNode *n = doc ? config_node(doc, key) : NULL;
    return n && n->file ? err_prefix(e, "%s:%d:%d", n->file, n->line, n->col) : false;
}

/* A hook point's layer (-1: none) and what of it; NULL if the model has no such layer. */
static const char *hook_part(const ModelSpec *s, const char *name, int *layer)
{
    int used = 0;
    *layer = -1;
    if (!strcmp(name, "embed") || !strcmp(name, "final_norm")) return name;
    if (sscanf(name, "layers.%d.%n", layer, &used) != 1 || !used) return NULL;
    return *layer >= 0 && *layer < s->L ? name + used : NULL;
}

static bool is_scores(const char *part)
{
    return !strncmp(part, "attn_scores", 11) || !strncmp(part, "attn_probs", 10);
}
static bool is_qkv(const char *part) { return part[0] && strchr("qkv", part[0]) && !part[1]; }

/* Width of a hook point's rows, 0 if it has none. */
static long hook_width(const ModelSpec *s, const char *part)
{
    static const char *const wide[] = {"embed",  "final_norm", "attn_in", "attn_out",
                                       "mlp_in", "mlp_out",    "out"};
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (!strcmp(part, wide[i])) return s->C;
    if (!is_qkv(part)) return 0;
    return part[0] == 'q' ? s->H * s->D : s->Hkv * s->D;
}

/* One pair of the map: student layer i, teacher layer; false at the end. */
typedef struct LayerMap {
    const ConfigNode *node;
    bool uniform;
    long LS, LT;
} LayerMap;

static long map_length(const LayerMap *m)
{
    return !m->node ? 0 : m->node->kind == NODE_LIST ? m->node->n : m->uniform ? m->LS : 1;
}

static bool map_get(const LayerMap *m, long i, long pair[2], Err *e)
{
    if (m->node->kind == NODE_LIST) {
        const ConfigNode *p = m->node->item[i];
        int64_t v[2] = {-1, -1};
        bool ok = p->kind == NODE_LIST && p->n == 2;
        for (int j = 0; ok && j < 2; j++)
            ok = p->item[j]->kind == NODE_SCALAR && config_parse_int(p->item[j]->text, &v[j]);
        pair[0] = (long)v[0];
        pair[1] = (long)v[1];
        if (!ok || v[0] < 0 || v[0] >= m->LS || v[1] < 0 || v[1] >= m->LT)
            return err_set(
                e, ERR_USAGE,
                "%s:%d:%d: distill.layer_map: entry %ld must be [student layer 0..%ld, teacher layer "
                "0..%ld]",
                p->file ? p->file : "config", p->line, p->col, i, m->LS - 1, m->LT - 1);
        return true;
    }
    pair[0] = m->uniform ? i : m->LS - 1;
    /* student s <-> teacher (s+1) L_T/L_S - 1, halves up */
    pair[1] = m->uniform ? (long)floor((double)(i + 1) * (double)m->LT / (double)m->LS + 0.5) - 1 : m->LT - 1;
    if (pair[1] < 0) pair[1] = 0;
    return true;
}

/* "layers.{s}.out" with the number put in. */
static const char *fill_template(const char *name, const char *key, long layer, Arena *a, Err *e)
{
    const char *at = strstr(name, key);
    return at ? arena_printf(a, e, "%.*s%ld%s", (int)(at - name), name, layer, at + strlen(key)) : name;
}

static bool add_projector(Distill *d, FeatureTerm *t, Model *student, long dS, long dT, uint64_t seed, Err *e)
{
    Arena *run = student->run;
    const char *name = arena_printf(run, e, "projector.%d.weight", d->n);
    Param *p = name ? params_add(&student->params, name, 2, (long[]){dT, dS}, e) : NULL;
    if (!p) return false;
    p->aux = true;
    p->w.data = arena_alloc(run, (size_t)(dS * dT) * student->params.k->real, e);
    float *v = arena_alloc(run, (size_t)(dS * dT) * sizeof *v, e);
    if (!v || !p->w.data) return false;
    double bound = sqrt(6.0 / (double)(dS + dT)); /* Xavier uniform */
    rng_uniform_f32(v, (size_t)(dS * dT), (RngKey){.seed = seed, .stream = rng_stream(name)}, -bound, bound);
    for (long i = 0; i < dS * dT; i++) {
        if (student->params.k->real == sizeof(float)) ((float *)p->w.data)[i] = v[i];
        else ((double *)p->w.data)[i] = v[i];
    }
    t->projector = p;
    return true;
}

/* q, k or v of a layer: a tap, or columns of the fused projection's. */
static TapPart qkv_part(const ModelSpec *s, const char *prefix, int layer, char which, Arena *a, Err *e)
{
    const bool fused = s->family->name.qkv != NULL;
    TapPart t = {.width = which == 'q' ? s->H * s->D : s->Hkv * s->D};
    t.tap = fused ? arena_printf(a, e, "%s.layers.%d.qkv", prefix, layer)
                  : arena_printf(a, e, "%s.layers.%d.%c", prefix, layer, which);
    t.cut = fused;
    t.at = which == 'q' ? 0 : which == 'k' ? s->C : 2 * s->C;
    return t;
}

/* Attention scores or distributions: queries against keys, as the model itself has them. */
static bool attention_term(FeatureTerm *t, const Model *m[2], const int layer[2], bool probs, Arena *a,
                           Err *e)
{
    static const char *const prefix[2] = {"student", "teacher"};
    RelationSide *side[2] = {&t->relation.student, &t->relation.teacher};
    t->relation.kind = probs ? RELATION_KL : RELATION_SCORES;
    for (int i = 0; i < 2; i++) {
        const ModelSpec *s = &m[i]->spec;
        t->part[i][0] = qkv_part(s, prefix[i], layer[i], 'q', a, e);
        t->part[i][1] = qkv_part(s, prefix[i], layer[i], 'k', a, e);
        *side[i] = (RelationSide){s->H, s->Hkv, s->D, s->attn_scale};
        const long window = spec_sliding(s, layer[i]) ? s->window : 0;
        if (window && (!t->relation.window || window < t->relation.window)) t->relation.window = window;
    }
    if (probs && side[0]->heads != side[1]->heads)
        return err_set(e, ERR_USAGE,
                       "attn_probs needs equal head counts, these are %ld and %ld: match q, k and v by loss: "
                       "relation, or attn_scores (averaged over heads) by loss: mse",
                       side[0]->heads, side[1]->heads);
    return !e->code;
}

/* MiniLM's relations: one of q, k, v against itself, cut into relation heads. */
static bool relation_term(FeatureTerm *t, const Model *m[2], const int layer[2], const char *part[2],
                          int64_t heads, Arena *a, Err *e)
{
    static const char *const prefix[2] = {"student", "teacher"};
    RelationSide *side[2] = {&t->relation.student, &t->relation.teacher};
    const long n = heads ? (long)heads : m[0]->spec.H;
    t->relation.kind = RELATION_KL;
    for (int i = 0; i < 2; i++) {
        t->part[i][0] = t->part[i][1] = qkv_part(&m[i]->spec, prefix[i], layer[i], part[i][0], a, e);
        const long width = t->part[i][0].width, D = width / n;
        if (width % n || !D)
            return err_set(e, ERR_USAGE,
                           "%ld relation heads do not divide the %s's %s of %ld: set relation_heads", n,
                           prefix[i], part[i], width);
        *side[i] = (RelationSide){n, n, D, 1 / sqrt((double)D)};
    }
    return !e->code;
}

/* Rows against rows. */
static bool row_term(Distill *d, FeatureTerm *t, const FeatureConfig *f, const Model *m[2],
                     const int layer[2], const char *part[2], Model *student, uint64_t seed, Err *e)
{
    static const char *const prefix[2] = {"student", "teacher"};
    Arena *run = student->run;
    long width[2];
    const char *const hook[2] = {t->hook[0], t->hook[1]};
    for (int i = 0; i < 2; i++) {
        width[i] = hook_width(&m[i]->spec, part[i]);
        t->part[i][0] = is_qkv(part[i]) ? qkv_part(&m[i]->spec, prefix[i], layer[i], part[i][0], run, e)
                                        : (TapPart){.tap = arena_printf(run, e, "%s.%s", prefix[i], hook[i])};
    }
    t->cosine = !strcmp(f->loss, "cosine");
    t->l1 = !strcmp(f->loss, "l1");
    t->normalize = f->normalize;
    bool linear = !strcmp(f->projector, "linear") || (!strcmp(f->projector, "auto") && width[0] != width[1]);
    if (width[0] != width[1] && !linear)
        return err_set(e, ERR_USAGE, "%s is %ld wide, the teacher's %s %ld: set projector: linear (or auto)",
                       hook[0], width[0], hook[1], width[1]);
    return !linear || add_projector(d, t, student, width[0], width[1], seed, e);
}

static bool add_term(Distill *d, const FeatureConfig *f, const char *hs, const char *ht, Model *student,
                     const Model *teacher, uint64_t seed, Err *e)
{
    const Model *m[2] = {student, teacher};
    const char *hook[2] = {hs, ht}, *part[2];
    const bool relation = !strcmp(f->loss, "relation");
    int layer[2];
    if (!hs || !ht) return false;
    FeatureTerm *t = &d->term[d->n];
    *t = (FeatureTerm){.weight = f->weight, .hook = {hs, ht}};
    t->label = arena_printf(student->run, e, "loss/feature/%s", hs);
    for (int i = 0; i < 2; i++) {
        part[i] = hook_part(&m[i]->spec, hook[i], &layer[i]);
        if (!part[i] || (!hook_width(&m[i]->spec, part[i]) && !is_scores(part[i])))
            return err_set(
                e, ERR_USAGE,
                "the %s has no hook point \"%s\" (it has %ld layers, numbered from 0); hook points: %s",
                i ? "teacher" : "student", hook[i], m[i]->spec.L, hook_help);
    }
    bool ok = is_scores(part[0]) ? attention_term(t, m, layer, relation, student->run, e)
              : relation         ? relation_term(t, m, layer, part, f->relation_heads, student->run, e)
                                 : row_term(d, t, f, m, layer, part, student, seed, e);
    t->is_relation = is_scores(part[0]) || relation;
    d->n++;
    return ok && !e->code;
}

static bool open_feature(Distill *d, int i, const LayerMap *map, Model *student, const Model *teacher,
                         uint64_t seed, Err *e)
{
    const FeatureConfig *f = &d->c->features.v[i];
    if (!f->student || !f->teacher)
        return err_set(e, ERR_USAGE, "student and teacher hook points are both required");
    bool many = strstr(f->student, "{s}") || strstr(f->teacher, "{t}");
    if (many && !map->node) return err_set(e, ERR_USAGE, "{s} and {t} need distill.layer_map");
    for (long j = 0; j < (many ? map_length(map) : 1) && !e->code; j++) {
        long pair[2] = {0, 0};
        if (many && !map_get(map, j, pair, e)) return false;
        add_term(d, f, fill_template(f->student, "{s}", pair[0], student->run, e),
                 fill_template(f->teacher, "{t}", pair[1], student->run, e), student, teacher, seed, e);
    }
    return !e->code;
}

/* What the balance remembers: how many steps, the soft loss, each term; part of the training state. */
static bool open_balance(Distill *d, Model *student, Err *e)
{
    if (strcmp(d->c->balance, "match_kd") || !d->n) return !e->code;
    d->balance = params_add(&student->params, "distill.balance", 1, (long[]){d->n + 2}, e);
    if (!d->balance) return false;
    d->balance->aux = d->balance->frozen = true;
    d->balance->w.data = arena_alloc(student->run, (size_t)(d->n + 2) * student->params.k->real, e);
    return !e->code;
}

bool distill_open(Distill *d, const DistillConfig *c, Model *student, const Model *teacher, uint64_t seed,
                  const ConfigDoc *doc, Err *e)
{
    *d = (Distill){.c = c, .real = student->params.k->real};
    LayerMap map = {.LS = student->spec.L, .LT = teacher->spec.L};
    if (c->layer_map && !config_is_null(c->layer_map)) map.node = c->layer_map;
    if (map.node && map.node->kind == NODE_SCALAR) map.uniform = !strcmp(map.node->text, "uniform");
    if (map.node && map.node->kind == NODE_SCALAR && !map.uniform && strcmp(map.node->text, "last"))
        return err_set(
            e, ERR_USAGE, "%s:%d:%d: distill.layer_map: \"%s\" is not uniform, last, or a list of pairs",
            map.node->file ? map.node->file : "config", map.node->line, map.node->col, map.node->text);
    if (c->top_k > student->spec.V) {
        err_set(e, ERR_USAGE, "distill.top_k: %lld of a vocabulary of %ld", (long long)c->top_k,
                student->spec.V);
        return at_key(doc, "distill.top_k", e);
    }
    d->term = arena_alloc(student->run,
                          (size_t)(c->features.n * (map_length(&map) + 1) + 1) * sizeof *d->term, e);
    for (int i = 0; d->term && i < c->features.n && !e->code; i++) {
        char key[64];
        if (open_feature(d, i, &map, student, teacher, seed, e)) continue;
        snprintf(key, sizeof key, "distill.features[%d]", i);
        if (strstr(e->msg, "distill.layer_map: entry")) return false; /* has its place */
        err_prefix(e, "%s", key);
        return at_key(doc, key, e);
    }
    return !e->code && open_balance(d, student, e);
}
