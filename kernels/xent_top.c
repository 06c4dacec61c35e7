/* kernels/xent_top.c: losses against the k largest of a teacher, choosing them, and mixing teachers.
 * Reference, both types. Formulas: top_impl.h, soft_impl.h, algorithms 5.1.
 *   topk         index (N,k), logp (N,k) = z - logsumexp(z), rest (N,nT) = log sum of the others' p^(1/T)
 *   teacher_mix  y = T log(w softmax(z/T))  or  T log(exp(y/T) + w softmax(z/T)),  y z (N,V)
 */
#include "kernels/top_impl.h"

static REAL capped(REAL z, REAL cap) { return cap > (REAL)0 ? K(softcap)(z, cap) : z; }

static void cap_row(void *z_, long V, double cap)
{
    REAL *z = z_; /* (V) */
    for (long v = 0; v < V; v++) z[v] = K(softcap)(z[v], (REAL)cap);
}

static double row_max(const void *z_, long V)
{
    const REAL *z = z_; /* (V) */
    REAL m = -(REAL)INFINITY;
    for (long v = 0; v < V; v++) m = z[v] > m ? z[v] : m;
    return (double)m;
}

static void ce_row(XentSums *s, const void *z_, int32_t t, long V, bool smooth)
{
    const REAL *z = z_, m = (REAL)s->m; /* (V) */
    for (long v = 0; v < V; v++) {
        s->s1 += (double)K(s_exp)(z[v] - m);
        if (smooth) s->total += (double)(z[v] - m);
    }
    s->zy = (double)(z[t] - m);
}

static double exp_sum(const void *z_, long V, double m, double it, double cap, bool only, double below)
{
    const REAL *z = z_; /* (V) */
    double s = 0.0;
    for (long v = 0; v < V; v++)
        if (!only || !(z[v] >= (REAL)below))
            s += (double)K(s_exp)((capped(z[v], (REAL)cap) - (REAL)m) * (REAL)it);
    return s;
}

static void grad_row(void *z_, long V, const XentFactors *f, double m, double mr, double it, double cap)
{
    REAL *z = z_; /* (V) */
    const REAL c1 = (REAL)f->c1, c0 = (REAL)f->c0, cq = (REAL)f->cq;
    for (long v = 0; v < V; v++) {
        const REAL y = z[v];
        REAL d = c1 * K(s_exp)(y - (REAL)m) - c0;
        if (cq != (REAL)0) d += cq * K(s_exp)((y - (REAL)mr) * (REAL)it);
        z[v] = cap > 0.0 ? d * K(softcap_grad)(y, (REAL)cap) : d;
    }
}

static const TopPasses passes = {sizeof(REAL), cap_row, row_max, ce_row, exp_sum, grad_row};

void K(xent_top)(void *z, const int32_t *index, const void *logp, const void *rest, void *room,
                 const int32_t *targets, long N, long V, long k, const LossAttr *a, double grad_scale,
                 double *sums, void *nll)
{
    top_rows(&passes, z, index, logp, rest, room, targets, N, V, k, a, grad_scale, sums, nll);
}

void K(topk)(int32_t *index, void *logp, void *rest, const void *z, long N, long V, long k, double softcap,
             const double *temperature, long nT)
{
    top_choose_rows(&passes, index, logp, rest, z, N, V, k, softcap, temperature, nT);
}

void K(teacher_mix)(void *y_, const void *z_, long N, long V, double weight, double temperature,
                    double softcap, Mode mode)
{
    REAL *y = y_;       /* (N,V) */
    const REAL *z = z_; /* (N,V) */
    const REAL cap = (REAL)softcap, T = (REAL)temperature, it = (REAL)(1.0 / temperature);
#pragma omp parallel for schedule(static) if (N * V > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const double m = (double)capped((REAL)row_max(z + i * V, V), cap);
        const double s = exp_sum(z + i * V, V, m, 1.0 / temperature, softcap, false, 0.0);
        const REAL shift = (REAL)(log(weight) - log(s));
        for (long j = i * V; j < (i + 1) * V; j++) {
            const REAL b = (capped(z[j], cap) - (REAL)m) * it + shift;
            if (mode == SET) {
                y[j] = T * b;
                continue;
            }
            const REAL a = y[j] * it, top = a > b ? a : b;
            y[j] = T *
                   (top == -(REAL)INFINITY ? top : top + K(s_log)((REAL)1 + K(s_exp)((a > b ? b : a) - top)));
        }
    }
}
