/* kernels/xent.c: softmax, cross-entropy and distillation loss, gradient in place. Reference, both types.
 * z zt (N,V), targets (N). Per row that counts, with p = softmax(zt/T), q = softmax(z/T), s = softmax(z),
 * l = logsumexp(z), e = label_smoothing:
 *   ce = l - (1-e) z[target] - e mean(z) + z_loss l^2
 *   kd = sum p (log p - log q)           forward KL, Hinton 1503.02531;  entropy = -sum p log p
 *   dz = grad_scale (ce_weight (s (1 + 2 z_loss l) - (1-e) onehot - e/V) + kd_weight (q - p)/T)
 * Other divergences than forward KL: soft_impl.h. A soft-cap c replaces z by c tanh(z/c) first. Logits of
 * -inf have probability 0 (their terms are 0, never NaN). Maxima are subtracted before every exp; sums stand
 * in double; rows are added in order.
 */
#include "kernels/soft_impl.h"
#include "kernels/xent_impl.h"

static REAL capped(REAL z, REAL cap) { return cap > (REAL)0 ? K(softcap)(z, cap) : z; }

static REAL row_max(const REAL *z, long V, REAL cap)
{ /* z (V) */
    REAL m = -(REAL)INFINITY;
    for (long v = 0; v < V; v++) m = z[v] > m ? z[v] : m;
    return capped(m, cap); /* the cap is monotonic */
}

static void ce_sums(const REAL *z, int32_t t, long V, const LossAttr *a, XentSums *s)
{
    const REAL cap = (REAL)a->softcap, m = row_max(z, V, cap); /* z (V) */
    for (long v = 0; v < V; v++) {
        const REAL d = capped(z[v], cap) - m;
        s->s1 += (double)K(s_exp)(d);
        s->total += (double)d;
    }
    s->m = (double)m;
    s->zy = (double)(capped(z[t], cap) - m);
}

static void kd_sums(const REAL *z, const REAL *zt, long V, const LossAttr *a, XentSums *s)
{
    const REAL cap = (REAL)a->softcap, tcap = (REAL)a->teacher_softcap, m = (REAL)s->m;
    const REAL mt = row_max(zt, V, tcap), it = (REAL)(1.0 / a->temperature); /* z zt (V) */
    for (long v = 0; v < V; v++) {
        const REAL d = (capped(z[v], cap) - m) * it, dt = (capped(zt[v], tcap) - mt) * it, ep = K(s_exp)(dt);
        s->sq += (double)K(s_exp)(d);
        s->sp += (double)ep;
        if (ep == (REAL)0) continue; /* p log p -> 0, also where both logits are -inf */
        s->cross += (double)ep * ((double)dt - (double)d);
        s->own += (double)ep * (double)dt;
    }
    s->mt = (double)mt;
}

static void row_grad(REAL *z, const REAL *zt, int32_t t, long V, const LossAttr *a, const XentSums *s,
                     XentFactors f)
{
    const REAL cap = (REAL)a->softcap, tcap = (REAL)a->teacher_softcap, m = (REAL)s->m, mt = (REAL)s->mt;
    const REAL c1 = (REAL)f.c1, c0 = (REAL)f.c0, cq = (REAL)f.cq, cp = (REAL)f.cp; /* z zt (V) */
    const REAL it = (REAL)(zt ? 1.0 / a->temperature : 1.0);
    for (long v = 0; v < V; v++) {
        const REAL y = capped(z[v], cap);
        REAL d = c1 * K(s_exp)(y - m) - c0;
        if (zt) d += cq * K(s_exp)((y - m) * it) - cp * K(s_exp)((capped(zt[v], tcap) - mt) * it);
        if (v == t) d -= (REAL)f.hot;
        z[v] = cap > (REAL)0 ? d * K(softcap_grad)(y, cap) : d;
    }
}

/* One class of a divergence that is not forward KL, from capped logits y and yt. */
static SoftTerm class_term(REAL y, REAL yt, long V, const LossAttr *a, const XentSums *s, double *q)
{
    if (a->kind == LOSS_MSE_LOGITS) {
        const double d = (double)y - (double)yt;
        return (SoftTerm){d * d / (double)V, d};
    }
    const REAL it = (REAL)(1.0 / a->temperature);
    const REAL d = (y - (REAL)s->m) * it, dt = (yt - (REAL)s->mt) * it;
    *q = (double)K(s_exp)(d) / s->sq;
    return soft_term(a->kind, a->mix, (double)K(s_exp)(dt) / s->sp, *q,
                     (double)d - (double)dt - (log(s->sq) - log(s->sp)));
}

static void soft_sums(const REAL *z, const REAL *zt, long V, const LossAttr *a, XentSums *s)
{
    const REAL cap = (REAL)a->softcap, tcap = (REAL)a->teacher_softcap; /* z zt (V) */
    for (long v = 0; v < V; v++) {
        double q;
        const SoftTerm t = class_term(capped(z[v], cap), capped(zt[v], tcap), V, a, s, &q);
        s->soft += t.d;
        s->soft_w += t.w;
    }
}

/* z is still the logits; dz overwrites it. */
static void soft_grad(REAL *z, const REAL *zt, int32_t hot, long V, const LossAttr *a, const XentSums *s,
                      double grad_scale)
{
    const REAL cap = (REAL)a->softcap, tcap = (REAL)a->teacher_softcap; /* z zt (V) */
    const XentFactors f = xent_factors(s, a, V, false, grad_scale);
    const double scale = soft_scale(a, V, grad_scale);
    for (long v = 0; v < V; v++) {
        const REAL y = capped(z[v], cap);
        double q = 0.0;
        const SoftTerm t = class_term(y, capped(zt[v], tcap), V, a, s, &q);
        double d = f.c1 * (double)K(s_exp)(y - (REAL)s->m) - f.c0 + scale * (t.w - q * s->soft_w);
        if (v == hot) d -= f.hot;
        z[v] = (REAL)d * (cap > (REAL)0 ? K(softcap_grad)(y, cap) : (REAL)1);
    }
}

static XentPart row(void *z, const void *zt, int32_t t, long V, const LossAttr *a, double grad_scale)
{
    XentSums s = {0}; /* z zt (V) */
    const bool other = zt && a->kind != LOSS_FORWARD_KL;
    ce_sums(z, t, V, a, &s);
    if (zt) kd_sums(z, zt, V, a, &s);
    if (other) soft_sums(z, zt, V, a, &s);
    if (grad_scale != 0.0 && other) soft_grad(z, zt, t, V, a, &s, grad_scale);
    else if (grad_scale != 0.0) row_grad(z, zt, t, V, a, &s, xent_factors(&s, a, V, zt, grad_scale));
    return xent_part(&s, a, V, zt);
}

void K(xent)(void *z, const void *zt, const int32_t *targets, long N, long V, const LossAttr *a,
             double grad_scale, double *sums, void *nll)
{
    xent_rows(row, sizeof(REAL), z, zt, targets, N, V, a, grad_scale, sums, nll);
}

void K(softmax)(void *y_, const void *x_, long N, long V, double temperature)
{
    REAL *y = y_;                                       /* (N,V); may be x */
    const REAL *x = x_, it = (REAL)(1.0 / temperature); /* (N,V) */
#pragma omp parallel for schedule(static) if (N * V > PAR_MIN)
    for (long i = 0; i < N; i++) {
        REAL *yi = y + i * V;
        const REAL *xi = x + i * V, m = row_max(xi, V, (REAL)0);
        double s = 0.0;
        for (long v = 0; v < V; v++) {
            yi[v] = K(s_exp)((xi[v] - m) * it);
            s += (double)yi[v];
        }
        const REAL inv = (REAL)(1.0 / s);
        for (long v = 0; v < V; v++) yi[v] *= inv;
    }
}
