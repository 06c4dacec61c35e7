/* kernels/scalar.h: pointwise formulas and their derivatives, once, for every back end that computes element
 * by element.
 *
 *   float y = gelu_tanh_f32(x);   double d = gelu_tanh_grad_f64(x);      // C
 *   template code in a .cu file calls the same functions: HD makes them __host__ __device__
 *
 * The file includes itself twice, for float (_f32, expf) and double (_f64, exp); SCALAR_T, S() and M() exist
 * only inside. GELU: Hendrycks & Gimpel 1606.08415. SwiGLU: Shazeer 2002.05202. AdamW: Loshchilov & Hutter
 * 1711.05101.
 */
#ifndef SCALAR_T
#ifndef SCALAR_H
#define SCALAR_H
#include <math.h>
#ifdef __CUDACC__
#define HD __host__ __device__ static inline
#else
#define HD static inline
#endif

#define SCALAR_T float
#define S(name) name##_f32
#define M(fn) fn##f
#include "kernels/scalar.h"
#undef SCALAR_T
#undef S
#undef M
#define SCALAR_T double
#define S(name) name##_f64
#define M(fn) fn
#include "kernels/scalar.h"
#undef SCALAR_T
#undef S
#undef M
#endif
#else

HD SCALAR_T S(s_exp)(SCALAR_T x) { return M(exp)(x); }
HD SCALAR_T S(s_log)(SCALAR_T x) { return M(log)(x); }
HD SCALAR_T S(s_sqrt)(SCALAR_T x) { return M(sqrt)(x); }
HD SCALAR_T S(s_tanh)(SCALAR_T x) { return M(tanh)(x); }

/* 1 / (1 + exp(-x)), with relative accuracy on both tails (exp never overflows). */
HD SCALAR_T S(sigmoid)(SCALAR_T x)
{
    const SCALAR_T e = M(exp)(-M(fabs)(x)), r = (SCALAR_T)1 / ((SCALAR_T)1 + e);
    return x >= (SCALAR_T)0 ? r : e * r;
}
/* s (1-s) without the cancellation of 1-s. */
HD SCALAR_T S(sigmoid_grad)(SCALAR_T x)
{
    const SCALAR_T e = M(exp)(-M(fabs)(x)), r = (SCALAR_T)1 / ((SCALAR_T)1 + e);
    return e * r * r;
}

/* GELU, tanh form: x/2 (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3). */
HD SCALAR_T S(gelu_tanh_arg)(SCALAR_T x)
{
    return x * ((SCALAR_T)1.5957691216057308 + (SCALAR_T)0.07135481627260025 * x * x);
}
HD SCALAR_T S(gelu_tanh)(SCALAR_T x) { return x * S(sigmoid)(S(gelu_tanh_arg)(x)); }
/* s + x s (1-s) (2u)'; where s (1-s) has gone to 0 the product is 0, also where (2u)' overflows. */
HD SCALAR_T S(gelu_tanh_grad)(SCALAR_T x)
{
    const SCALAR_T u2 = S(gelu_tanh_arg)(x), t = S(sigmoid_grad)(u2);
    const SCALAR_T du = (SCALAR_T)1.5957691216057308 + (SCALAR_T)0.21406444881780076 * x * x;
    return t == (SCALAR_T)0 ? S(sigmoid)(u2) : S(sigmoid)(u2) + x * t * du;
}

/* GELU, exact form: x Phi(x), Phi(x) = erfc(-x / sqrt 2) / 2; derivative Phi(x) + x phi(x). */
HD SCALAR_T S(gelu_erf)(SCALAR_T x)
{
    return x * ((SCALAR_T)0.5 * M(erfc)(x * (SCALAR_T)-0.7071067811865476));
}
HD SCALAR_T S(gelu_erf_grad)(SCALAR_T x)
{
    const SCALAR_T phi = (SCALAR_T)0.3989422804014327 * M(exp)((SCALAR_T)-0.5 * x * x);
    return (SCALAR_T)0.5 * M(erfc)(x * (SCALAR_T)-0.7071067811865476) + x * phi;
}

/* SiLU: x sigmoid(x); derivative s + x s (1-s). */
HD SCALAR_T S(silu)(SCALAR_T x) { return x * S(sigmoid)(x); }
HD SCALAR_T S(silu_grad)(SCALAR_T x) { return S(sigmoid)(x) + x * S(sigmoid_grad)(x); }

/* Logit soft-cap: cap tanh(z / cap); derivative in terms of the capped value y: 1 - (y / cap)^2. */
HD SCALAR_T S(softcap)(SCALAR_T z, SCALAR_T cap) { return cap * M(tanh)(z / cap); }
HD SCALAR_T S(softcap_grad)(SCALAR_T y, SCALAR_T cap)
{
    const SCALAR_T t = y / cap;
    return (SCALAR_T)1 - t * t;
}

/* One AdamW element. decay = lr wd, step = lr / c1, rsqrt_c2 = 1 / sqrt(c2), n1 = 1 - b1, n2 = 1 - b2. The
 * decay is subtracted, not folded into a factor 1 - lr wd: in float that factor is off by up to 0.1 % of lr
 * wd at lr wd = 3e-5. */
HD void S(adamw_element)(SCALAR_T *w, SCALAR_T *m, SCALAR_T *v, SCALAR_T g, SCALAR_T b1, SCALAR_T n1,
                         SCALAR_T b2, SCALAR_T n2, SCALAR_T eps, SCALAR_T decay, SCALAR_T step,
                         SCALAR_T rsqrt_c2)
{
    const SCALAR_T m1 = b1 * *m + n1 * g, v1 = b2 * *v + n2 * g * g;
    *m = m1;
    *v = v1;
    *w -= decay * *w + step * m1 / (M(sqrt)(v1) * rsqrt_c2 + eps);
}
#endif
