/* kernels/soft_impl.h: one class of a divergence D(p, q) = sum of d(p, q): its share and what its gradient
 * needs.
 *
 *   x = log q - log p, m = mix p + (1-mix) q, phi(y) = exp(y) - 1 - y >= 0
 *   forward KL    p phi(x)                        reverse KL    q phi(-x)
 *   JSD           mix p phi(log m/p) + (1-mix) q phi(log m/q)
 *   skew KL       p phi(log m/p)                  TVD           p |exp(x) - 1| / 2
 *   symmetric KL  (1-mix) forward + mix reverse
 *
 * Every share is >= 0 and exact where p and q are close (high temperature), where sums of p log p/q cancel.
 * The shares differ from the textbook's by multiples of q - p, which add up to 0 over all classes. Gradient:
 * dD/dz_v = (w_v - q_v W) / T, w = q dD/dq up to a multiple of q, W = sum of w.
 */
#ifndef SOFT_IMPL_H
#define SOFT_IMPL_H
#include "kernels/ref_impl.h"

typedef struct SoftTerm {
    double d, w;
} SoftTerm;

static inline double soft_phi(double y)
{
    if (fabs(y) > 0.01) return expm1(y) - y;
    return y * y * (0.5 + y * (1.0 / 6 + y * (1.0 / 24 + y * (1.0 / 120 + y / 720))));
}

/* p phi(log r/p) for masses p and r with y = log r - log p: r - p - p y. */
static inline double soft_share(double p, double r, double y)
{
    if (p == 0.0) return r;
    return fabs(y) < 0.5 ? p * soft_phi(y) : r - p - p * y;
}

/* log m/p and log m/q for m = b p + (1-b) q. */
static inline void soft_middle(double b, double x, double *mp, double *mq)
{
    if (x <= 0.0) {
        *mp = log1p((1.0 - b) * expm1(x));
        *mq = *mp - x;
    } else {
        *mq = log1p(b * expm1(-x));
        *mp = *mq + x;
    }
}

/* p, q: the masses; x = log q - log p, which counts for nothing where both are 0. */
static inline SoftTerm soft_term(int kind, double b, double p, double q, double x)
{
    SoftTerm t = {0.0, 0.0};
    double mp, mq;
    if (p == 0.0 && q == 0.0) return t;
    const double forward = kind == LOSS_FORWARD_KL ? 1.0 : kind == LOSS_SYMMETRIC_KL ? 1.0 - b : 0.0;
    const double reverse = kind == LOSS_REVERSE_KL ? 1.0 : kind == LOSS_SYMMETRIC_KL ? b : 0.0;
    if (forward > 0.0) {
        t.d += forward * soft_share(p, q, x);
        t.w += forward * (q - p);
    }
    if (reverse > 0.0) {
        t.d += reverse * soft_share(q, p, -x);
        t.w += q > 0.0 ? reverse * q * x : 0.0;
    }
    switch (kind) {
    case LOSS_JSD:
        soft_middle(b, x, &mp, &mq);
        t.d = b * soft_share(p, b * p + (1.0 - b) * q, mp) +
              (1.0 - b) * soft_share(q, b * p + (1.0 - b) * q, mq);
        t.w = q > 0.0 ? -(1.0 - b) * q * mq : 0.0;
        break;
    case LOSS_SKEW_KL:
        soft_middle(b, x, &mp, &mq);
        t.d = soft_share(p, b * p + (1.0 - b) * q, mp);
        t.w = q > 0.0 ? -(1.0 - b) * q * expm1(-mp) : 0.0;
        break;
    case LOSS_TVD:
        t.d = 0.5 * (fabs(x) < 0.5 ? p * fabs(expm1(x)) : fabs(p - q));
        t.w = x > 0.0 ? 0.5 * q : x < 0.0 ? -0.5 * q : 0.0;
        break;
    default: break;
    }
    return t;
}

/* The shares that all kinds have of a row's weight in dz: g kd_weight / T, or 2 g kd_weight / V. */
static inline double soft_scale(const LossAttr *a, long V, double g)
{
    return a->kind == LOSS_MSE_LOGITS ? 2.0 * g * a->kd_weight / (double)V
                                      : g * a->kd_weight / a->temperature;
}
#endif
