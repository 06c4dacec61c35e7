/* compress/mask_units.c: units that run through several tensors of a layer and go together (algorithms 5.6):
 *
 *   head   rows of q, columns of o; rows of k and v once every head of their group is gone (GQA)
 *   ffn    neuron: row of gate, row of up, column of down            layer   all masked tensors of the layer
 *
 * A unit's score is the mean of its entries' scores (magnitude: of their squares). Biases stay. */
#include "compress/mask_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Unit i is rows (or columns) at + i width .. + width of a tensor. */
typedef struct Strip {
    PruneItem *it;
    const float *score;
    bool cols;
    long at, width;
} Strip;
enum { MAX_STRIPS = 8 };
typedef struct Layer {
    int n, n_kv;
    Strip strip[MAX_STRIPS], kv[4];
} Layer;

int layer_of(const Prune *p, const PruneItem *it)
{
    (void)p;
    for (const char *s = it->site->name; (s = strchr(s, '.'));) {
        char *end;
        const long l = strtol(++s, &end, 10);
        if (end > s && *end == '.') return (int)l;
    }
    return -1;
}

__attribute__((format_arg(1))) static const char *template_of(const char *fmt) { return fmt; }

static bool is_module(const PruneItem *it, const char *fmt, int layer)
{
    char name[NAME_LEN];
    if (!fmt) return false;
    snprintf(name, sizeof name, template_of(fmt), layer);
    return !strcmp(name, it->site->name);
}

static void add(Layer *l, PruneItem *it, const float *score, bool cols, long at, long width)
{
    l->strip[l->n++] = (Strip){it, score, cols, at, width};
}

/* What of item i belongs to the units of its layer. */
static void take(const Prune *p, Layer *l, int layer, PruneItem *it, const float *score)
{
    const ModelSpec *s = &p->m->spec;
    const FamilyNames *n = &s->family->name;
    const bool head = !strcmp(p->c->structure, "head");
    if (!strcmp(p->c->structure, "layer")) add(l, it, score, false, 0, it->rows);
    else if (head && is_module(it, n->q, layer)) add(l, it, score, false, 0, s->D);
    else if (head && is_module(it, n->o, layer)) add(l, it, score, true, 0, s->D);
    else if (head && (is_module(it, n->k, layer) || is_module(it, n->v, layer)))
        l->kv[l->n_kv++] = (Strip){it, score, false, 0, s->D};
    else if (head && is_module(it, n->qkv, layer)) {
        add(l, it, score, false, 0, s->D);
        for (int i = 1; i < 3; i++) l->kv[l->n_kv++] = (Strip){it, score, false, i * s->C, s->D};
    } else if (!head && (is_module(it, n->up, layer) || is_module(it, n->gate, layer)))
        add(l, it, score, false, 0, 1);
    else if (!head && is_module(it, n->down, layer)) add(l, it, score, true, 0, 1);
}

static void span(const Strip *s, long unit, long *r0, long *r1, long *c0, long *c1)
{
    *r0 = s->cols ? 0 : s->at + unit * s->width;
    *r1 = s->cols ? s->it->rows : *r0 + s->width;
    *c0 = s->cols ? s->at + unit * s->width : 0;
    *c1 = s->cols ? *c0 + s->width : s->it->cols;
}

static double unit_score(const Layer *l, long unit, bool square)
{
    double sum = 0, n = 0;
    for (int i = 0; i < l->n; i++) {
        long r0, r1, c0, c1;
        span(&l->strip[i], unit, &r0, &r1, &c0, &c1);
        for (long r = r0; r < r1; r++)
            for (long c = c0; c < c1; c++) {
                const double s = (double)l->strip[i].score[r * l->strip[i].it->cols + c];
                sum += square && isfinite(s) ? s * s : s;
            }
        n += (double)((r1 - r0) * (c1 - c0));
    }
    return sum / n;
}

static void clear(const Strip *s, long unit)
{
    long r0, r1, c0, c1;
    span(s, unit, &r0, &r1, &c0, &c1);
    for (long r = r0; r < r1; r++) memset(s->it->keep + r * s->it->cols + c0, 0, (size_t)(c1 - c0));
}

static void paint(const Prune *p, const Layer *l, const Units *u)
{
    const ModelSpec *s = &p->m->spec;
    for (long i = 0; i < u->n; i++)
        for (int k = 0; k < l->n && !u->keep[i]; k++) clear(&l->strip[k], i);
    const long per = l->n_kv ? s->H / s->Hkv : 0;
    for (long j = 0; l->n_kv && j < s->Hkv; j++) {
        bool alive = false;
        for (long h = j * per; h < (j + 1) * per; h++) alive = alive || u->keep[h];
        for (int k = 0; k < l->n_kv && !alive; k++) clear(&l->kv[k], j);
    }
}

static long units_of(const Prune *p)
{
    const ModelSpec *s = &p->m->spec;
    return !strcmp(p->c->structure, "head") ? s->H : !strcmp(p->c->structure, "ffn") ? s->F : 1;
}

/* head: q and o (or the fused projection and o); ffn: up and down, and gate where there is one. */
static int needed(const Prune *p)
{
    if (!strcmp(p->c->structure, "layer")) return 1;
    return !strcmp(p->c->structure, "ffn") && p->m->spec.family->gated ? 3 : 2;
}

/* Layers are units themselves: one group of them all. */
static bool pick_layers(Prune *p, const Layer *l, double sparsity, Arena *tmp, Err *e)
{
    const long L = p->m->spec.L;
    const bool square = !strcmp(p->c->method, "magnitude");
    float *score = arena_alloc(tmp, (size_t)L * sizeof *score, e);
    Units u = {L, score, arena_alloc(tmp, (size_t)L, e)};
    double limit;
    if (e->code) return false;
    for (long i = 0; i < L; i++) score[i] = l[i].n ? (float)unit_score(&l[i], 0, square) : INFINITY;
    pick_units(p, &u, 1, false, sparsity, &limit);
    for (long i = 0; i < L; i++) paint(p, &l[i], &(Units){1, &score[i], &u.keep[i]});
    return true;
}

static bool pick_inside(Prune *p, const Layer *l, double sparsity, Arena *tmp, Err *e)
{
    const long L = p->m->spec.L, n = units_of(p);
    const bool square = !strcmp(p->c->method, "magnitude");
    Units *u = arena_alloc(tmp, (size_t)L * sizeof *u, e);
    const Layer **of = arena_alloc(tmp, (size_t)L * sizeof *of, e);
    double *limit = arena_alloc(tmp, (size_t)L * sizeof *limit, e);
    int count = 0;
    for (long i = 0; limit && i < L; i++) {
        if (!l[i].n) continue;
        float *score = arena_alloc(tmp, (size_t)n * sizeof *score, e);
        u[count] = (Units){n, score, arena_alloc(tmp, (size_t)n, e)};
        if (e->code) return false;
        for (long j = 0; j < n; j++) score[j] = (float)unit_score(&l[i], j, square);
        of[count++] = &l[i];
    }
    if (e->code) return false;
    pick_units(p, u, count, p->global, sparsity, limit);
    for (int i = 0; i < count; i++) paint(p, of[i], &u[i]);
    return true;
}

bool pick_grouped(Prune *p, float *const *score, double sparsity, Arena *tmp, Err *e)
{
    const long L = p->m->spec.L;
    Layer *l = arena_alloc(tmp, (size_t)L * sizeof *l, e);
    for (int i = 0; l && i < p->n; i++) {
        PruneItem *it = &p->item[i];
        const int at = layer_of(p, it);
        memset(it->keep, 1, (size_t)(it->rows * it->cols));
        it->limit = NAN;
        if (at >= 0 && at < L) take(p, &l[at], at, it, score[i]);
    }
    for (long i = 0; l && i < L; i++)
        if (l[i].n && l[i].n < needed(p))
            return err_set(e, ERR_USAGE,
                           "prune.structure: %s runs through %d tensors of layer %ld, of which include and "
                           "exclude leave %d",
                           p->c->structure, needed(p), i, l[i].n);
    if (!l) return false;
    return !strcmp(p->c->structure, "layer") ? pick_layers(p, l, sparsity, tmp, e)
                                             : pick_inside(p, l, sparsity, tmp, e);
}
