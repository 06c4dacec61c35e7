/* kernels/xent_vec_impl.h: xent.c in vectors: a pass for the maxima, one for all sums, one for the gradient.
 * exp is shared where it can be: at T = 1 both distributions of the student are one, at T = 2
 * exp(d) = exp(d/2)^2. Sums: float over RUN vectors per lane, then double, in the order of v.
 */
#include "kernels/soft_impl.h"
#include "kernels/xent_impl.h"

enum { RUN = 8 };
enum { ONLY_CE, KD_T1, KD_T2, KD_ANY }; /* which exponentials a row needs */

VFN VF capped(VF z, float cap) { return cap > 0.0f ? vf_set(cap) * vf_tanh(z / vf_set(cap)) : z; }

/* One logit by the same instructions as its row, so that the largest less itself is 0. */
static float capped_one(float z, float cap)
{
    float y[VW];
    vf_put(y, capped(vf_set(z), cap), VW);
    return y[0];
}

static float row_max(const float *z, long V, float cap)
{ /* z (V) */
    const VF least = vf_set(-INFINITY);
    VF a = least, b = least;
    long v = 0;
    for (; v + 2 * VW <= V; v += 2 * VW) { /* two chains: one would wait for itself */
        a = vf_max(vf_get(z + v, VW), a);
        b = vf_max(vf_get(z + v + VW, VW), b);
    }
    EACH_VECTOR(V - v, i, k, { a = vf_max(vf_first(vf_get(z + v + i, k), least, k), a); });
    return capped_one(vf_hmax(vf_max(a, b)), cap); /* the cap is monotonic */
}

typedef struct Runs {
    VF s1, total, sq, sp, cross, own;
} Runs;
typedef struct RowConst {
    float cap, tcap, it;
    VF m, mt;
    bool smooth;
} RowConst;

/* Adds one vector (k lanes) of the row to the float sums. */
VFN void add_terms(Runs *r, const float *z, const float *zt, int k, int kind, const RowConst *c)
{
    const VF none = vf_set(-INFINITY), zero = vf_set(0.0f);
    const VF d = vf_first(capped(vf_get(z, k), c->cap) - c->m, none, k);
    if (c->smooth) r->total += vf_first(d, zero, k);
    if (kind == ONLY_CE) {
        r->s1 += vf_exp(d);
        return;
    }
    const VF dq = kind == KD_T1 ? d : d * vf_set(c->it), eq = vf_exp(dq);
    const VF dp = vf_first((capped(vf_get(zt, k), c->tcap) - c->mt) * vf_set(c->it), none, k),
             ep = vf_exp(dp);
    const VM some = vf_lt(zero, ep); /* p log p -> 0, also where both logits are -inf */
    r->s1 += kind == KD_T1 ? eq : kind == KD_T2 ? eq * eq : vf_exp(d);
    r->sq += eq;
    r->sp += ep;
    r->cross += vf_only(some, ep * (dp - dq));
    r->own += vf_only(some, ep * dp);
}

VFN void row_sums(XentSums *s, const float *z, const float *zt, long V, int kind, const RowConst *c)
{
    VD s1 = vd_zero(), total = s1, sq = s1, sp = s1, cross = s1, own = s1;
    for (long v0 = 0; v0 < V; v0 += RUN * VW) { /* z zt (V) */
        const long n = lmin(RUN * VW, V - v0);
        const float *zr = z + v0, *tr = kind == ONLY_CE ? NULL : zt + v0;
        const VF o = vf_set(0.0f);
        Runs r = {o, o, o, o, o, o};
        EACH_VECTOR(n, v, k, { add_terms(&r, zr + v, kind == ONLY_CE ? NULL : tr + v, k, kind, c); });
        s1 = vd_add(s1, r.s1);
        if (c->smooth) total = vd_add(total, r.total);
        if (kind == ONLY_CE) continue;
        sq = vd_add(sq, r.sq);
        sp = vd_add(sp, r.sp);
        cross = vd_add(cross, r.cross);
        own = vd_add(own, r.own);
    }
    s->s1 = vd_sum(s1);
    s->total = vd_sum(total);
    s->sq = vd_sum(sq);
    s->sp = vd_sum(sp);
    s->cross = vd_sum(cross);
    s->own = vd_sum(own);
}

VFN void row_grad(float *z, const float *zt, long V, int kind, const RowConst *c, const XentFactors *f)
{
    const VF c1 = vf_set((float)f->c1), c0 = vf_set((float)f->c0), cq = vf_set((float)f->cq),
             cp = vf_set((float)f->cp);
    EACH_VECTOR(V, v, k,
                { /* z zt (V) */
                  const VF y = capped(vf_get(z + v, k), c->cap), d = y - c->m;
                  VF g;
                  if (kind == ONLY_CE) {
                      g = vf_fma(c1, vf_exp(d), vf_set(0.0f) - c0);
                  } else {
                      const VF eq = vf_exp(kind == KD_T1 ? d : d * vf_set(c->it));
                      const VF ep = vf_exp((capped(vf_get(zt + v, k), c->tcap) - c->mt) * vf_set(c->it));
                      const VF e1 = kind == KD_T1 ? eq : kind == KD_T2 ? eq * eq : vf_exp(d);
                      g = vf_fma(c1, e1, vf_fma(cq, eq, vf_fnma(cp, ep, vf_set(0.0f) - c0)));
                  }
                  if (c->cap > 0.0f) {
                      const VF t = y / vf_set(c->cap);
                      g = g * vf_fnma(t, t, vf_set(1.0f));
                  }
                  vf_put(z + v, g, k);
                });
}

#include "kernels/soft_vec_impl.h"

static XentPart row(void *z_, const void *zt, int32_t t, long V, const LossAttr *a, double grad_scale)
{
    const double T = a->temperature;
    const int kind = !zt ? ONLY_CE : T == 1.0 ? KD_T1 : T == 2.0 ? KD_T2 : KD_ANY;
    float *z = z_; /* z zt (V) */
    RowConst c = {(float)a->softcap, (float)a->teacher_softcap, zt ? (float)(1.0 / T) : 1.0f, vf_set(0.0f),
                  vf_set(0.0f),      a->label_smoothing > 0.0};
    XentSums s = {.m = (double)row_max(z, V, c.cap)};
    if (zt) s.mt = (double)row_max(zt, V, c.tcap);
    c.m = vf_set((float)s.m);
    c.mt = vf_set((float)s.mt);
    const float yt = capped_one(z[t], c.cap);
    switch (kind) { /* inlined four times: each loop without branches */
    case ONLY_CE: row_sums(&s, z, NULL, V, ONLY_CE, &c); break;
    case KD_T1: row_sums(&s, z, zt, V, KD_T1, &c); break;
    case KD_T2: row_sums(&s, z, zt, V, KD_T2, &c); break;
    default: row_sums(&s, z, zt, V, KD_ANY, &c);
    }
    s.zy = (double)(yt - (float)s.m);
    const bool other = zt && a->kind != LOSS_FORWARD_KL;
    if (other) {
        const XentFactors f = xent_factors(&s, a, V, false, grad_scale);
        soft_row(&s, z, zt, V, a, &c, grad_scale != 0.0 ? &f : NULL, grad_scale);
        if (grad_scale != 0.0) z[t] -= (float)f.hot * (c.cap > 0.0f ? softcap_grad_f32(yt, c.cap) : 1.0f);
    } else if (grad_scale != 0.0) {
        const XentFactors f = xent_factors(&s, a, V, zt, grad_scale);
        switch (kind) {
        case ONLY_CE: row_grad(z, NULL, V, ONLY_CE, &c, &f); break;
        case KD_T1: row_grad(z, zt, V, KD_T1, &c, &f); break;
        case KD_T2: row_grad(z, zt, V, KD_T2, &c, &f); break;
        default: row_grad(z, zt, V, KD_ANY, &c, &f);
        }
        z[t] -= (float)f.hot * (c.cap > 0.0f ? softcap_grad_f32(yt, c.cap) : 1.0f);
    }
    return xent_part(&s, a, V, zt);
}

void V(xent)(void *z, const void *zt, const int32_t *targets, long N, long V, const LossAttr *a,
             double grad_scale, double *sums, void *nll)
{ /* z zt (N,V), targets nll (N), sums (4) */
    xent_rows(row, sizeof(float), z, zt, targets, N, V, a, grad_scale, sums, nll);
}

void V(softmax)(void *y_, const void *x_, long N, long V, double temperature)
{
    float *y = y_;       /* (N,V); may be x */
    const float *x = x_; /* (N,V) */
    const VF it = vf_set((float)(1.0 / temperature));
#pragma omp parallel for schedule(static) if (N * V > PAR_MIN)
    for (long i = 0; i < N; i++) {
        float *yi = y + i * V;
        const VF m = vf_set(row_max(x + i * V, V, 0.0f));
        VD s = vd_zero();
        EACH_VECTOR(V, v, k, {
            const VF e = vf_exp((vf_first(vf_get(x + i * V + v, k), vf_set(-INFINITY), k) - m) * it);
            vf_put(yi + v, e, k);
            s = vd_add(s, e);
        });
        const VF inv = vf_set((float)(1.0 / vd_sum(s)));
        EACH_VECTOR(V, v, k, { vf_put(yi + v, vf_get(yi + v, k) * inv, k); });
    }
}

#include "kernels/top_vec_impl.h"
