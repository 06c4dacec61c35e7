/* tests/kernels_loss_impl.h: how test_kernels.c calls the loss kernels; included there, behind its
 * helpers. */
#ifndef KERNELS_LOSS_IMPL_H
#define KERNELS_LOSS_IMPL_H

static void run_xent(Ctx *c)
{
    static const double temperature[] = {1.0, 2.0, 3.0};
    LossAttr at = {.ce_weight = 0.7, .kd_weight = 1.8, .temperature = temperature[c->a % 3]};
    if (c->option) at.label_smoothing = 0.1, at.z_loss = 1e-3, at.softcap = 5.0, at.teacher_softcap = 8.0;
    if (c->mode == ADD) at.kind = (int)(c->a + c->b) % 7, at.mix = 0.3;
    void *z = out(c, c->a * c->b, 3), *zt = c->mode == ADD ? in(c, c->a * c->b, 3) : NULL;
    void *nll = c->a % 2 ? out(c, c->a, 1) : NULL;
    c->k->xent(z, zt, ids(c, c->a, c->b, true), c->a, c->b, &at, c->a == 5 ? 0.0 : 0.125, sums(c, 4), nll);
}
static void run_softmax(Ctx *c)
{
    void *y = out(c, c->a * c->b, 3);
    c->k->softmax(y, c->option ? y : in(c, c->a * c->b, 3), c->a, c->b, 0.8);
}
static void run_mse_fwd(Ctx *c)
{
    const long n = c->a * c->b;
    c->k->mse_fwd(sums(c, 1), in(c, n, 1), in(c, n, 1), c->option ? ids(c, c->a, 9, true) : NULL, c->a, c->b);
}
static void run_mse_bwd(Ctx *c)
{
    const long n = c->a * c->b;
    void *da = out(c, n, 1), *db = c->a % 2 ? out(c, n, 1) : NULL;
    c->k->mse_bwd(da, db, in(c, n, 1), in(c, n, 1), c->option ? ids(c, c->a, 9, true) : NULL, c->a, c->b, 0.3,
                  c->mode, c->mode);
}
static void run_cosine_fwd(Ctx *c)
{
    const long n = c->a * c->b;
    c->k->cosine_fwd(sums(c, 1), in(c, n, 1), in(c, n, 1), c->option ? ids(c, c->a, 9, true) : NULL, c->a,
                     c->b);
}
static void run_cosine_bwd(Ctx *c)
{
    const long n = c->a * c->b;
    void *da = out(c, n, 1), *db = c->a % 2 ? out(c, n, 1) : NULL;
    c->k->cosine_bwd(da, db, in(c, n, 1), in(c, n, 1), c->option ? ids(c, c->a, 9, true) : NULL, c->a, c->b,
                     0.3, c->mode, c->mode);
}
static void run_l1_fwd(Ctx *c)
{
    const long n = c->a * c->b;
    c->k->l1_fwd(sums(c, 1), in(c, n, 1), in(c, n, 1), c->option ? ids(c, c->a, 9, true) : NULL, c->a, c->b);
}
static void run_l1_bwd(Ctx *c)
{
    const long n = c->a * c->b;
    void *da = out(c, n, 1), *db = c->a % 2 ? out(c, n, 1) : NULL;
    c->k->l1_bwd(da, db, in(c, n, 1), in(c, n, 1), c->option ? ids(c, c->a, 9, true) : NULL, c->a, c->b, 0.3,
                 c->mode, c->mode);
}
static void run_unit_fwd(Ctx *c)
{
    c->k->unit_fwd(out(c, c->a * c->b, 1), in(c, c->a * c->b, 1), c->a, c->b);
}
static void run_unit_bwd(Ctx *c)
{
    const long n = c->a * c->b;
    c->k->unit_bwd(out(c, n, 1), in(c, n, 1), in(c, n, 1), c->a, c->b, c->mode);
}

/* The teacher's k largest of rows of the case, the same ids for every table. */
static long pick(Ctx *c, int32_t **index, void **logp, void **rest, double temperature)
{
    const long k = c->b < 4 ? c->b : c->b / 4;
    *index = alloc(c, (size_t)(c->a * k) * sizeof **index);
    *logp = out(c, c->a * k, 1);
    *rest = in(c, c->a, 1);
    c->k->topk(*index, *logp, *rest, in(c, c->a * c->b, 3), c->a, c->b, k, c->option ? 8.0 : 0.0,
               &temperature, 1);
    double *mass = sums(c, c->a); /* the logarithm may be -inf */
    for (long i = 0; i < c->a; i++)
        mass[i] = exp(c->k->real == sizeof(float) ? (double)((float *)*rest)[i] : ((double *)*rest)[i]);
    return k;
}
static void run_xent_top(Ctx *c)
{
    LossAttr at = {
        .ce_weight = 0.7, .kd_weight = 1.8, .temperature = c->a % 2 ? 2 : 3, .kind = (int)(c->a % 6)};
    at.mix = 0.3;
    if (c->option) at.label_smoothing = 0.1, at.z_loss = 1e-3, at.softcap = 5.0;
    int32_t *index;
    void *logp, *rest;
    const long k = pick(c, &index, &logp, &rest, at.temperature);
    const double g = c->a == 5 ? 0.0 : 0.125;
    void *z = g != 0 ? out(c, c->a * c->b, 3) : in(c, c->a * c->b, 3), *room = in(c, c->a * k, 1);
    c->k->xent_top(z, index, logp, c->mode == ADD ? rest : NULL, room, ids(c, c->a, c->b, true), c->a, c->b,
                   k, &at, g, sums(c, 4), out(c, c->a, 1));
}
static void run_topk(Ctx *c)
{
    int32_t *index;
    void *logp, *rest;
    const long k = pick(c, &index, &logp, &rest, 2.0);
    double *as_double = sums(c, c->a * k);
    for (long i = 0; i < c->a * k; i++) as_double[i] = (double)index[i];
}
static void run_teacher_mix(Ctx *c)
{
    c->k->teacher_mix(out(c, c->a * c->b, 3), in(c, c->a * c->b, 3), c->a, c->b, 0.3, 2.0,
                      c->option ? 6.0 : 0.0, c->mode);
}
#endif
