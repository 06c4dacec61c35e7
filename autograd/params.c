/* autograd/params.c: the list of parameters, all that formats/, optim/ and checkpoints see. */
#include "autograd/autograd.h"
#include <string.h>

Param *params_add(Params *ps, const char *name, int ndim, const long *dim, Err *e)
{
    if (params_find(ps, name)) {
        err_set(e, ERR_FAIL, "parameter %s is declared twice", name);
        return NULL;
    }
    if (ps->n == ps->cap) {
        int cap = ps->cap ? ps->cap * 2 : 64;
        Param **v = arena_grow(ps->run, ps->p, (size_t)ps->n * sizeof *v, (size_t)cap * sizeof *v, e);
        if (!v) return NULL;
        ps->p = v;
        ps->cap = cap;
    }
    Param *p = arena_alloc(ps->run, sizeof *p, e);
    if (!p) return NULL;
    p->name = arena_strdup(ps->run, name, e);
    p->w = (Tensor){.name = p->name,
                    .dtype = ps->k->real == sizeof(double) ? DT_F64 : DT_F32,
                    .ndim = ndim,
                    .flags = T_PARAM | T_WEIGHT,
                    .id = -1};
    for (int i = 0; i < ndim; i++) p->w.dim[i] = dim[i];
    p->decay = ndim >= 2;
    ps->p[ps->n++] = p;
    return p;
}

Param *params_find(const Params *ps, const char *name)
{
    for (int i = 0; i < ps->n; i++)
        if (!strcmp(ps->p[i]->name, name)) return ps->p[i];
    return NULL;
}

bool params_alloc_grads(Params *ps, Err *e)
{
    for (int i = 0; i < ps->n; i++) {
        Param *p = ps->p[i];
        if (p->frozen) {
            p->w.flags |= T_NOGRAD;
            continue;
        }
        if (!p->tied_to && !p->w.grad)
            p->w.grad = arena_alloc(ps->run, (size_t)t_numel(&p->w) * ps->k->real, e);
    }
    return !e->code;
}

int64_t params_count(const Params *ps, bool trainable_only)
{
    int64_t n = 0;
    for (int i = 0; i < ps->n; i++)
        if (!ps->p[i]->tied_to && !(trainable_only && ps->p[i]->frozen)) n += t_numel(&ps->p[i]->w);
    return n;
}
