/* kernels/soft_vec_impl.h: soft_impl.h in vectors: the divergences other than forward KL, for whole rows of
 * logits. The shares are those of soft_impl.h with 0.34 as the edge between series and difference. Included
 * by xent_vec_impl.h, whose row constants it uses.
 */

/* What a row's masses are: p = exp(dt) ip, q = exp(d) iq, x = d - dt - less. */
typedef struct SoftConst {
    float ip, iq, less, mix;
} SoftConst;
typedef struct SoftVec {
    VF d, w;
} SoftVec;

/* p phi(log r/p), y = log r - log p; r where p is 0. */
VFN VF share(VF p, VF r, VF y)
{
    const VF none = vf_set(0.0f);
    const VF far = r - p - vf_only(vf_lt(none, p), p * y);
    return vf_pick(vf_lt(vf_abs(y), vf_set(0.34f)), p * vf_phi_small(y), far);
}

/* log m/p and log m/q for m = b p + (1-b) q, x = log q - log p. */
VFN void middle(float b, VF x, VF *mp, VF *mq)
{
    const VM up = vf_lt(vf_set(0.0f), x);
    const VF part = vf_pick(up, vf_set(b), vf_set(1.0f - b));
    const VF l = vf_log1p(part * vf_expm1(vf_set(0.0f) - vf_abs(x)));
    *mp = vf_pick(up, l + x, l);
    *mq = vf_pick(up, l, l - x);
}

VFN SoftVec soft_vec(int kind, const SoftConst *c, VF p, VF q, VF x)
{
    const VF none = vf_set(0.0f), b = vf_set(c->mix), nb = vf_set(1.0f - c->mix), m = b * p + nb * q;
    const VM some_q = vf_lt(none, q);
    SoftVec t = {none, none};
    VF mp, mq;
    switch (kind) {
    case LOSS_REVERSE_KL:
        t.d = share(q, p, none - x);
        t.w = vf_only(some_q, q * x);
        break;
    case LOSS_SYMMETRIC_KL:
        t.d = nb * share(p, q, x) + b * share(q, p, none - x);
        t.w = nb * (q - p) + b * vf_only(some_q, q * x);
        break;
    case LOSS_JSD:
        middle(c->mix, x, &mp, &mq);
        t.d = b * share(p, m, mp) + nb * share(q, m, mq);
        t.w = vf_only(some_q, (none - nb) * q * mq);
        break;
    case LOSS_SKEW_KL:
        middle(c->mix, x, &mp, &mq);
        t.d = share(p, m, mp);
        t.w = vf_only(some_q, (none - nb) * q * vf_expm1(none - mp));
        break;
    default: /* LOSS_TVD */
        t.d = vf_set(0.5f) * vf_pick(vf_lt(vf_abs(x), vf_set(0.34f)), p * vf_abs(vf_expm1(x)), vf_abs(p - q));
        t.w = vf_set(0.5f) * vf_pick(vf_lt(none, x), q, vf_only(vf_lt(x, none), none - q));
        break;
    }
    /* both masses 0: nothing, whatever x is */
    const VM any = vf_lt(none, p + q);
    t.d = vf_pick(any, t.d, p + q); /* keeps a NaN */
    t.w = vf_only(any, t.w);
    return t;
}

/* One vector (k lanes) of a row: its shares and q. */
VFN SoftVec soft_at(int kind, const float *z, const float *zt, int k, const RowConst *r, const SoftConst *c,
                    VF *q)
{
    const VF none = vf_set(-INFINITY), it = vf_set(r->it);
    const VF d = vf_first((capped(vf_get(z, k), r->cap) - r->m) * it, none, k);
    const VF dt = vf_first((capped(vf_get(zt, k), r->tcap) - r->mt) * it, none, k);
    *q = vf_exp(d) * vf_set(c->iq);
    return soft_vec(kind, c, vf_exp(dt) * vf_set(c->ip), *q, d - dt - vf_set(c->less));
}

VFN void soft_sums(int kind, XentSums *s, const float *z, const float *zt, long V, const RowConst *r,
                   const SoftConst *c)
{
    VD d = vd_zero(), w = d; /* z zt (V) */
    EACH_VECTOR(V, v, k, {
        VF q;
        const SoftVec t = soft_at(kind, z + v, zt + v, k, r, c, &q);
        d = vd_add(d, t.d);
        w = vd_add(w, t.w);
    });
    s->soft = vd_sum(d);
    s->soft_w = vd_sum(w);
}

VFN void soft_grad(int kind, float *z, const float *zt, long V, const RowConst *r, const SoftConst *c,
                   const XentFactors *f, double scale, double w)
{
    const VF c1 = vf_set((float)f->c1), c0 = vf_set((float)f->c0), g = vf_set((float)scale),
             W = vf_set((float)w);
    EACH_VECTOR(V, v, k, { /* z zt (V) */
                           const VF y = capped(vf_get(z + v, k), r->cap);
                           VF q;
                           const SoftVec t = soft_at(kind, z + v, zt + v, k, r, c, &q);
                           VF dz = vf_fma(c1, vf_exp(y - r->m),
                                          vf_fma(g, vf_fnma(q, W, t.w), vf_set(0.0f) - c0));
                           if (r->cap > 0.0f) {
                               const VF u = y / vf_set(r->cap);
                               dz = dz * vf_fnma(u, u, vf_set(1.0f));
                           }
                           vf_put(z + v, dz, k);
    });
}

/* The squared difference of raw logits: 1/V sum (y - yt)^2, dz = scale (y - yt). */
static void raw_row(XentSums *s, float *z, const float *zt, long V, const RowConst *r, const XentFactors *f,
                    double scale)
{
    VD sum = vd_zero(); /* z zt (V) */
    EACH_VECTOR(V, v, k, {
        const VF y = capped(vf_get(z + v, k), r->cap);
        const VF d = vf_first(y - capped(vf_get(zt + v, k), r->tcap), vf_set(0.0f), k);
        sum = vd_fma(sum, d, d);
        if (f) {
            VF dz = vf_fma(vf_set((float)f->c1), vf_exp(y - r->m),
                           vf_fma(vf_set((float)scale), d, vf_set(-(float)f->c0)));
            const VF u = r->cap > 0.0f ? y / vf_set(r->cap) : vf_set(0.0f);
            dz = dz * vf_fnma(u, u, vf_set(1.0f));
            vf_put(z + v, dz, k);
        }
    });
    s->soft = vd_sum(sum) / (double)V;
}

#define SOFT_KIND(X)                                                                                         \
    case X: {                                                                                                \
        soft_sums(X, s, z, zt, V, r, &c);                                                                    \
        if (f) soft_grad(X, z, zt, V, r, &c, f, scale, s->soft_w);                                           \
    } break;

/* Divergences of one row behind its sums; f NULL: no gradient. */
static void soft_row(XentSums *s, float *z, const float *zt, long V, const LossAttr *a, const RowConst *r,
                     const XentFactors *f, double g)
{
    const double scale = soft_scale(a, V, g); /* z zt (V) */
    const SoftConst c = {(float)(1.0 / s->sp), (float)(1.0 / s->sq), (float)(log(s->sq) - log(s->sp)),
                         (float)a->mix};
    switch (a->kind) {
        SOFT_KIND(LOSS_REVERSE_KL)
        SOFT_KIND(LOSS_SYMMETRIC_KL)
        SOFT_KIND(LOSS_JSD)
        SOFT_KIND(LOSS_SKEW_KL)
        SOFT_KIND(LOSS_TVD)
    default: raw_row(s, z, zt, V, r, f, scale);
    }
}
