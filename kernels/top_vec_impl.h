/* kernels/top_vec_impl.h: the passes of top_impl.h in vectors, and mixing teachers. Included by
 * xent_vec_impl.h, whose row_max, row_sums and capped it uses.
 */
#include "kernels/top_impl.h"

static void top_cap_row(void *z_, long V, double cap)
{
    float *z = z_; /* (V) */
    EACH_VECTOR(V, v, k, { vf_put(z + v, capped(vf_get(z + v, k), (float)cap), k); });
}

static double top_row_max(const void *z, long V) { return (double)row_max(z, V, 0.0f); }

static void top_ce_row(XentSums *s, const void *z_, int32_t t, long V, bool smooth)
{
    const float *z = z_; /* (V) */
    const RowConst c = {0.0f, 0.0f, 1.0f, vf_set((float)s->m), vf_set(0.0f), smooth};
    row_sums(s, z, NULL, V, ONLY_CE, &c);
    s->zy = (double)(z[t] - (float)s->m);
}

static double top_exp_sum(const void *z_, long V, double m, double it, double cap, bool only, double below)
{
    const float *z = z_; /* (V) */
    const VF none = vf_set(-INFINITY), edge = vf_set(only ? (float)below : INFINITY);
    VD s = vd_zero();
    EACH_VECTOR(V, v, k, {
        const VF x = vf_get(z + v, k);
        const VF e = vf_exp(
            vf_first((capped(x, (float)cap) - vf_set((float)m)) * vf_set((float)it), none, k));
        s = vd_add(s, only ? vf_only(vf_lt(x, edge), e) : e);
    });
    return vd_sum(s);
}

static void top_grad_row(void *z_, long V, const XentFactors *f, double m, double mr, double it, double cap)
{
    float *z = z_; /* (V) */
    const VF c1 = vf_set((float)f->c1), c0 = vf_set(-(float)f->c0), cq = vf_set((float)f->cq);
    EACH_VECTOR(V, v, k, {
        const VF y = vf_get(z + v, k);
        VF d = vf_fma(c1, vf_exp(y - vf_set((float)m)), c0);
        if (f->cq != 0.0) d = vf_fma(cq, vf_exp((y - vf_set((float)mr)) * vf_set((float)it)), d);
        const VF u = cap > 0.0 ? y / vf_set((float)cap) : vf_set(0.0f);
        vf_put(z + v, d * vf_fnma(u, u, vf_set(1.0f)), k);
    });
}

static const TopPasses passes = {sizeof(float), top_cap_row, top_row_max,
                                 top_ce_row,    top_exp_sum, top_grad_row};

void V(xent_top)(void *z, const int32_t *index, const void *logp, const void *rest, void *room,
                 const int32_t *targets, long N, long V, long k, const LossAttr *a, double grad_scale,
                 double *sums, void *nll)
{
    top_rows(&passes, z, index, logp, rest, room, targets, N, V, k, a, grad_scale, sums, nll);
}

void V(topk)(int32_t *index, void *logp, void *rest, const void *z, long N, long V, long k, double softcap,
             const double *temperature, long nT)
{
    top_choose_rows(&passes, index, logp, rest, z, N, V, k, softcap, temperature, nT);
}

void V(teacher_mix)(void *y_, const void *z_, long N, long V, double weight, double temperature,
                    double softcap, Mode mode)
{
    float *y = y_;                             /* (N,V) */
    const float *z = z_, cap = (float)softcap; /* (N,V) */
    const VF T = vf_set((float)temperature), it = vf_set((float)(1.0 / temperature)), least = vf_set(-3e38f);
#pragma omp parallel for schedule(static) if (N * V > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const float *zi = z + i * V;
        float *yi = y + i * V;
        const double m = (double)row_max(zi, V, cap);
        const double s = top_exp_sum(zi, V, m, 1.0 / temperature, softcap, false, 0.0);
        const VF shift = vf_set((float)(log(weight) - log(s)));
        EACH_VECTOR(V, v, k, {
            const VF b = vf_fma(capped(vf_get(zi + v, k), cap) - vf_set((float)m), it, shift);
            if (mode == SET) {
                vf_put(yi + v, T * b, k);
            } else {
                const VF a = vf_get(yi + v, k) * it;
                const VF less = vf_max(vf_min(a, b), least), most = vf_max(vf_max(a, b), least);
                vf_put(yi + v, T * (most + vf_log1p(vf_exp(less - most))), k);
            }
        });
    }
}
