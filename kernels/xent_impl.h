/* kernels/xent_impl.h: what the loss kernels have in common: from a row's sums to its losses and the factors
 * of its gradient (formulas at the head of xent.c), and the loop over rows.
 */
#ifndef XENT_IMPL_H
#define XENT_IMPL_H
#include "kernels/ref_impl.h"
#include <string.h>

/* One row: maxima of student and teacher; sums of exp(z-m), exp((z-m)/T), exp((zt-mt)/T); z[target]-m; sum of
 * z-m (with label smoothing); sums over v of exp((zt-mt)/T) times (zt-mt)/T - (z-m)/T and times (zt-mt)/T; of
 * the shares d and w of soft_impl.h. */
typedef struct XentSums {
    double m, mt, s1, sq, sp, zy, total, cross, own, soft, soft_w;
} XentSums;
typedef struct XentPart {
    double ce, kd, entropy, nll;
} XentPart;
/* dz = c1 exp(z-m) - c0 + cq exp((z-m)/T) - cp exp((zt-mt)/T), less hot at the target */
typedef struct XentFactors {
    double c1, c0, cq, cp, hot;
} XentFactors;

static inline XentPart xent_part(const XentSums *s, const LossAttr *a, long V, bool kd)
{
    const double e = a->label_smoothing, log1 = log(s->s1), lse = s->m + log1;
    XentPart p = {.nll = log1 - s->zy};
    p.ce = log1 - (1.0 - e) * s->zy - (e > 0.0 ? e * s->total / (double)V : 0.0) + a->z_loss * lse * lse;
    if (kd) {
        p.kd = a->kind == LOSS_FORWARD_KL ? s->cross / s->sp - log(s->sp) + log(s->sq) : s->soft;
        p.entropy = log(s->sp) - s->own / s->sp;
    }
    return p;
}

static inline XentFactors xent_factors(const XentSums *s, const LossAttr *a, long V, bool kd,
                                       double grad_scale)
{
    const double g = grad_scale * a->ce_weight, gk = kd ? grad_scale * a->kd_weight / a->temperature : 0.0;
    XentFactors f = {.c0 = g * a->label_smoothing / (double)V, .hot = g * (1.0 - a->label_smoothing)};
    f.c1 = g * (1.0 + 2.0 * a->z_loss * (s->m + log(s->s1))) / s->s1;
    if (kd) {
        f.cq = gk / s->sq;
        f.cp = gk / s->sp;
    }
    return f;
}

/* Losses of one row z (V), zt (V) or NULL; its gradient in place of z when grad_scale is not 0. */
typedef XentPart XentRow(void *z, const void *zt, int32_t target, long V, const LossAttr *a,
                         double grad_scale);

/* Adds the parts of n rows, in order. */
static inline void xent_add(double *sums, const XentPart *part, const int32_t *targets, long n)
{
    for (long i = 0; i < n; i++) {
        sums[0] += part[i].ce;
        sums[1] += part[i].kd;
        sums[2] += part[i].entropy;
        sums[3] += targets[i] == IGNORED ? 0.0 : 1.0;
    }
}

/* All rows: z (N,V), zt (N,V) or NULL, nll (N) or NULL, elements of `real` bytes. Parts are added in the
 * order of rows. */
static inline void xent_rows(XentRow *row, size_t real, void *z, const void *zt, const int32_t *targets,
                             long N, long V, const LossAttr *a, double grad_scale, double *sums, void *nll)
{
    const size_t bytes = (size_t)V * real;
    for (long i0 = 0; i0 < N; i0 += SUM_BATCH) {
        const long n = lmin(SUM_BATCH, N - i0);
        XentPart part[SUM_BATCH];
#pragma omp parallel for schedule(static) if (n * V > PAR_MIN)
        for (long i = 0; i < n; i++) {
            char *zi = (char *)z + (size_t)(i0 + i) * bytes;
            const char *ti = zt ? (const char *)zt + (size_t)(i0 + i) * bytes : NULL;
            part[i] = (XentPart){0};
            if (targets[i0 + i] != IGNORED) part[i] = row(zi, ti, targets[i0 + i], V, a, grad_scale);
            else if (grad_scale != 0.0) memset(zi, 0, bytes);
            if (nll && real == sizeof(float)) ((float *)nll)[i0 + i] = (float)part[i].nll;
            else if (nll) ((double *)nll)[i0 + i] = part[i].nll;
        }
        xent_add(sums, part, targets + i0, n);
    }
}
#endif
