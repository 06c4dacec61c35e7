/* optim/optim.c: AdamW (1711.05101, decoupled decay), Adam (L2 in the gradient is not it: Adam = AdamW
 * without decay), SGD with momentum; clipping by the global norm; parameter groups. Gradients come in as sums
 * over the step's target tokens and are divided once, here. */
#include "optim/optim.h"
#include <math.h>
#include <string.h>

typedef struct Group {
    double lr, wd;
    bool own_lr;
} Group;
struct Optim {
    const OptimConfig *c;
    const ScheduleConfig *s;
    Params *ps;
    double clip;
    int64_t updates;
    Group *group; /* per parameter */
};

/* The section's values, then every matching group in order: the last match wins. */
static Group group_of(const OptimConfig *c, const Param *p, bool *used)
{
    Group g = {c->learning_rate, p->decay || c->decay_norm_bias ? c->weight_decay : 0, false};
    for (int i = 0; i < c->groups.n; i++) {
        const ParamGroupConfig *pg = &c->groups.v[i];
        for (int j = 0; j < pg->match.n; j++) {
            if (!glob_match(pg->match.v[j], p->name)) continue;
            used[i] = true;
            if (!isnan(pg->learning_rate)) g.lr = pg->learning_rate;
            g.lr *= pg->lr_scale;
            if (!isnan(pg->weight_decay)) g.wd = pg->weight_decay;
            break;
        }
    }
    return g;
}

Optim *optim_new(const OptimConfig *c, const ScheduleConfig *s, double clip, Params *ps, Arena *run, Err *e)
{
    Optim *o = arena_alloc(run, sizeof *o, e);
    bool *used = arena_alloc(run, (size_t)c->groups.n + 1, e);
    if (!o || !used) return NULL;
    *o = (Optim){.c = c, .s = s, .ps = ps, .clip = clip};
    o->group = arena_alloc(run, (size_t)(ps->n + 1) * sizeof *o->group, e);
    bool sgd = !strcmp(c->name, "sgd");
    for (int i = 0; i < ps->n && !e->code; i++) {
        Param *p = ps->p[i];
        o->group[i] = group_of(c, p, used);
        if (p->frozen || p->tied_to) continue;
        size_t bytes = (size_t)t_numel(&p->w) * ps->k->real;
        if (!sgd || c->momentum > 0) p->m = arena_alloc(run, bytes, e);
        if (!sgd) p->v = arena_alloc(run, bytes, e);
    }
    for (int i = 0; i < c->groups.n && !e->code; i++)
        if (!used[i])
            err_set(e, ERR_USAGE, "optim.groups[%d]: no parameter matches \"%s\"", i,
                    c->groups.v[i].match.n ? c->groups.v[i].match.v[0] : "");
    return e->code ? NULL : o;
}

void optim_set_lr(Optim *o, const char *glob, double learning_rate)
{
    for (int i = 0; i < o->ps->n; i++)
        if (glob_match(glob, o->ps->p[i]->name)) o->group[i].lr = learning_rate;
}

int64_t optim_updates(const Optim *o) { return o->updates; }
void optim_set_updates(Optim *o, int64_t t) { o->updates = t; }

static bool trains(const Param *p) { return !p->frozen && !p->tied_to && p->w.grad; }

StepInfo optim_step(Optim *o, int64_t t, int64_t n_steps, double grad_scale)
{
    const Kernels *k = o->ps->k;
    const OptimConfig *c = o->c;
    double sum = 0, factor = schedule_factor(o->s, t, n_steps);
    for (int i = 0; i < o->ps->n; i++) {
        const Param *p = o->ps->p[i];
        double one = 0;
        if (trains(p)) k->sumsq(&one, p->w.grad, t_numel(&p->w));
        sum += one;
    }
    StepInfo info = {.grad_norm = sqrt(sum) * grad_scale, .lr = c->learning_rate * factor};
    if (!isfinite(info.grad_norm)) {
        info.skipped = true;
        return info;
    }
    if (o->clip > 0) grad_scale *= fmin(1.0, o->clip / (info.grad_norm + 1e-6));
    o->updates++;
    double b1 = c->betas.v[0], b2 = c->betas.v[1];
    double c1 = 1 - pow(b1, (double)o->updates), c2 = 1 - pow(b2, (double)o->updates);
    bool sgd = !strcmp(c->name, "sgd"), adam = !strcmp(c->name, "adam");
    for (int i = 0; i < o->ps->n; i++) {
        Param *p = o->ps->p[i];
        if (!trains(p)) continue;
        double lr = o->group[i].lr * factor, wd = adam ? 0 : o->group[i].wd;
        long n = t_numel(&p->w);
        if (sgd) k->sgd(p->w.data, p->m, p->w.grad, n, lr, c->momentum, wd, grad_scale);
        else k->adamw(p->w.data, p->m, p->v, p->w.grad, n, lr, b1, b2, c->eps, wd, c1, c2, grad_scale);
    }
    return info;
}
