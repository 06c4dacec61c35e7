/* compress/distill.c: distillation as loss terms over taps (algorithms 5.1, 5.2; 1503.02531, 1909.10351).
 * loss = ce_weight CE + alpha T^2 KL(p_T || q_T) + sum of weight * feature, all per target token. */
#include "compress/compress.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

LmLossAttr distill_loss(const DistillConfig *c, double label_smoothing, double z_loss)
{
    double T = c->temperature, t2 = c->scale_t2 ? T * T : 1;
    return (LmLossAttr){.a = {.ce_weight = isnan(c->ce_weight) ? fmax(0, 1 - c->alpha) : c->ce_weight,
                              .kd_weight = c->alpha * t2,
                              .temperature = T,
                              .label_smoothing = label_smoothing,
                              .z_loss = z_loss,
                              .kind = LOSS_FORWARD_KL},
                        .chunk = c->chunk_tokens,
                        .top_k = (long)c->top_k,
                        .kd_report = t2};
}

/* Width of a hook point, 0 if the model has no such tap. Layers are checked. */
static long tap_width(const ModelSpec *s, const char *name)
{
    if (!strcmp(name, "embed") || !strcmp(name, "final_norm")) return s->C;
    int layer, used = 0;
    if (sscanf(name, "layers.%d.%n", &layer, &used) != 1 || !used || layer < 0 || layer >= s->L) return 0;
    const char *what = name + used;
    static const char *const wide[] = {"attn_in", "attn_out", "mlp_in", "mlp_out", "out"};
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
        if (!strcmp(what, wide[i])) return s->C;
    if (s->family->name.qkv) return 0;
    if (!strcmp(what, "q")) return s->H * s->D;
    return !strcmp(what, "k") || !strcmp(what, "v") ? s->Hkv * s->D : 0;
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

static bool add_term(Distill *d, const FeatureConfig *f, const char *s, const char *t, Model *student,
                     const Model *teacher, uint64_t seed, int index, Err *e)
{
    long dS = tap_width(&student->spec, s), dT = tap_width(&teacher->spec, t);
    if (!dS || !dT)
        return err_set(
            e, ERR_USAGE,
            "distill.features[%d]: the %s has no hook point \"%s\" (it has %ld layers, numbered from "
            "0); hook points: embed, layers.N.{attn_in,q,k,v,attn_out,mlp_in,"
            "mlp_out,out}, final_norm",
            index, dS ? "teacher" : "student", dS ? t : s, dS ? teacher->spec.L : student->spec.L);
    FeatureTerm *term = &d->term[d->n];
    Arena *run = student->run;
    *term = (FeatureTerm){.cosine = !strcmp(f->loss, "cosine"), .weight = f->weight};
    term->student = arena_printf(run, e, "student.%s", s);
    term->teacher = arena_printf(run, e, "teacher.%s", t);
    term->label = arena_printf(run, e, "loss/feature/%s", s);
    bool linear = !strcmp(f->projector, "linear") || (!strcmp(f->projector, "auto") && dS != dT);
    if (dS != dT && !linear)
        return err_set(
            e, ERR_USAGE,
            "distill.features[%d]: %s is %ld wide, the teacher's %s %ld: set projector: linear (or auto)",
            index, s, dS, t, dT);
    if (linear && !add_projector(d, term, student, dS, dT, seed, e)) return false;
    d->n++;
    return !e->code;
}

bool distill_open(Distill *d, const DistillConfig *c, Model *student, const Model *teacher, uint64_t seed,
                  Err *e)
{
    *d = (Distill){.c = c};
    LayerMap map = {.LS = student->spec.L, .LT = teacher->spec.L};
    if (c->layer_map && !config_is_null(c->layer_map)) map.node = c->layer_map;
    if (map.node && map.node->kind == NODE_SCALAR) map.uniform = !strcmp(map.node->text, "uniform");
    if (map.node && map.node->kind == NODE_SCALAR && !map.uniform && strcmp(map.node->text, "last"))
        return err_set(
            e, ERR_USAGE, "%s:%d:%d: distill.layer_map: \"%s\" is not uniform, last, or a list of pairs",
            map.node->file ? map.node->file : "config", map.node->line, map.node->col, map.node->text);
    d->term = arena_alloc(student->run,
                          (size_t)(c->features.n * (map_length(&map) + 1) + 1) * sizeof *d->term, e);
    for (int i = 0; d->term && i < c->features.n && !e->code; i++) {
        const FeatureConfig *f = &c->features.v[i];
        if (!f->student || !f->teacher)
            return err_set(e, ERR_USAGE,
                           "distill.features[%d]: student and teacher hook points are both required", i);
        bool many = strstr(f->student, "{s}") || strstr(f->teacher, "{t}");
        if (many && !map.node)
            return err_set(e, ERR_USAGE, "distill.features[%d]: {s} and {t} need distill.layer_map", i);
        for (long j = 0; j < (many ? map_length(&map) : 1) && !e->code; j++) {
            long pair[2] = {0, 0};
            if (many && !map_get(&map, j, pair, e)) return false;
            add_term(d, f, fill_template(f->student, "{s}", pair[0], student->run, e),
                     fill_template(f->teacher, "{t}", pair[1], student->run, e), student, teacher, seed, i,
                     e);
        }
    }
    return !e->code;
}

bool distill_features(const Distill *d, Graph *g, Tensor *targets, Err *e)
{
    for (int i = 0; i < d->n; i++) {
        const FeatureTerm *t = &d->term[i];
        Tensor *hs = graph_find(g, t->student), *ht = graph_find(g, t->teacher);
        if (!graph_err(g)->code && (!hs || !ht))
            return err_set(e, ERR_USAGE, "distill.features: the graph has no tap %s",
                           hs ? t->teacher : t->student);
        if (t->projector) hs = OP(g, linear, hs, graph_param(g, &t->projector->w));
        Tensor *loss = t->cosine ? OP(g, cosine, hs, ht, targets) : OP(g, mse, hs, ht, targets);
        graph_loss(g, loss, t->weight, t->label);
    }
    return !e->code;
}
