/* kernels/vec_math_impl.h: exp, tanh, sigmoid, the normal distribution and sin/cos of a whole vector.
 *
 * Polynomials: weighted minimax fits of our own (Lawson's iteration on 4,000 Chebyshev nodes, 40-digit
 * references). Worst error over every seventh float, against double: exp 1.02 ulp, tanh 1.41, sigmoid 2.8,
 * Phi 5.5 above -3; sin and cos 2e-14 absolute. tests/test_kernels.c holds the kernels made of them to the
 * double reference. Included by vec_avx512_impl.h and vec_avx2_impl.h after their words.
 */
#ifndef VEC_MATH_IMPL_H
#define VEC_MATH_IMPL_H

/* p = v or p += v, k lanes */
VFN void vf_store(float *p, VF v, int k, Mode mode) { vf_put(p, mode == ADD ? vf_get(p, k) + v : v, k); }

/* Statements for every vector of n elements: `at` is the element, `k` the lanes: VW, known when compiling,
 * then the rest. */
#define EACH_VECTOR(n, at, k, ...)                                                                           \
    do {                                                                                                     \
        long at = 0;                                                                                         \
        for (; at + VW <= (n); at += VW) {                                                                   \
            enum { k = VW };                                                                                 \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
        if (at < (n)) {                                                                                      \
            const int k = (int)((n)-at);                                                                     \
            __VA_ARGS__                                                                                      \
        }                                                                                                    \
    } while (0)
/* Statements for blocks of fixed size of n elements (the caller's variable), on all threads when n is worth
 * it. */
#define EACH_BLOCK(lo, len, ...)                                                                             \
    _Pragma("omp parallel for schedule(static) if (n > PAR_MIN)") for (long lo = 0; lo < n; lo += PAR_BLOCK) \
    {                                                                                                        \
        const long len = lmin(PAR_BLOCK, n - lo);                                                            \
        __VA_ARGS__                                                                                          \
    }

/* exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2, exp(r) = 1 + r + r^2 Q(r), Q to 3.1e-9 of
 * exp(r). Arguments are held in [-104, 89], beyond which the result is 0 or inf; the order of max and min
 * lets NaN through. */
VFN VF vf_exp(VF x)
{
    x = vf_min(vf_set(89.0f), vf_max(vf_set(-104.0f), x));
    const VF magic = vf_set(12582912.0f); /* adding 1.5 * 2^23 rounds */
    const VF n = vf_fma(x, vf_set(1.44269504f), magic) - magic;
    VF r = vf_fnma(n, vf_set(0.693359375f), x); /* ln 2, first 9 bits: the product is exact */
    r = vf_fnma(n, vf_set(-2.12194440e-4f), r); /* the rest */
    VF q = vf_set(1.3814539415761828e-3f);
    q = vf_fma(q, r, vf_set(8.36874544620514e-3f));
    q = vf_fma(q, r, vf_set(4.166838899254799e-2f));
    q = vf_fma(q, r, vf_set(1.666652113199234e-1f));
    q = vf_fma(q, r, vf_set(4.999999403953552e-1f));
    q = vf_fma(q * r, r, r);
    return vf_scale2(q + vf_set(1.0f), n);
}

/* exp(x) - 1 - x = x^2 Q(x) for |x| <= ln 2 / 2, to 3.1e-9 of exp(x): where differences would cancel. */
VFN VF vf_phi_small(VF x)
{
    VF q = vf_set(1.3814539415761828e-3f);
    q = vf_fma(q, x, vf_set(8.36874544620514e-3f));
    q = vf_fma(q, x, vf_set(4.166838899254799e-2f));
    q = vf_fma(q, x, vf_set(1.666652113199234e-1f));
    q = vf_fma(q, x, vf_set(4.999999403953552e-1f));
    return q * x * x;
}
/* exp(x) - 1, relatively exact around 0. */
VFN VF vf_expm1(VF x)
{
    return vf_pick(vf_lt(vf_abs(x), vf_set(0.34f)), x + vf_phi_small(x), vf_exp(x) - vf_set(1.0f));
}
/* log(1 + u) for u > -1, relatively exact around 0: 1 + u = 2^e f, f in [0.75, 1.5); log f = r + r^2 P(r), r
 * = f - 1, P to 7e-10 of log f. What rounding 1 + u loses is put back. */
VFN VF vf_log1p(VF u)
{
    const VF one = vf_set(1.0f), w = u + one, lost = (u - (w - one)) / w;
    VF e;
    const VF r = vf_split(w, &e) - one;
    VF p = vf_set(3.731933500863455e-2f);
    p = vf_fma(p, r, vf_set(-9.12681777017357e-2f));
    p = vf_fma(p, r, vf_set(1.17554160598751e-1f));
    p = vf_fma(p, r, vf_set(-1.27500369913098e-1f));
    p = vf_fma(p, r, vf_set(1.4272043251897762e-1f));
    p = vf_fma(p, r, vf_set(-1.6652291374250572e-1f));
    p = vf_fma(p, r, vf_set(1.9999623675333067e-1f));
    p = vf_fma(p, r, vf_set(-2.500029024047175e-1f));
    p = vf_fma(p, r, vf_set(3.333334219450089e-1f));
    p = vf_fma(p, r, vf_set(-4.9999998441473126e-1f));
    /* ln 2 = 0.693359375 - 2.1219444e-4 */
    const VF low = vf_fma(p * r, r, vf_fma(e, vf_set(-2.12194440e-4f), r));
    return vf_fma(e, vf_set(0.693359375f), low) + lost;
}

/* Sum of x and of (x - m)^2 over a row of n floats, in double; two chains each, since one waits for its own
 * additions. */
VFN double row_sum(const float *x, long n)
{
    VD s = vd_zero(), s2 = s;
    long j = 0;
    for (; j + 2 * VW <= n; j += 2 * VW) {
        s = vd_plus(s, vd_get(x + j));
        s2 = vd_plus(s2, vd_get(x + j + VW));
    }
    double t = vd_sum(vd_plus(s, s2));
    for (; j < n; j++) t += (double)x[j];
    return t;
}
VFN double row_squares(const float *x, long n, double m)
{
    const VD less = {vx_set(-m), vx_set(-m)};
    VD s = vd_zero(), s2 = s;
    long j = 0;
    for (; j + 2 * VW <= n; j += 2 * VW) {
        s = vd_square(s, vd_plus(vd_get(x + j), less));
        s2 = vd_square(s2, vd_plus(vd_get(x + j + VW), less));
    }
    double t = vd_sum(vd_plus(s, s2));
    for (; j < n; j++) t += ((double)x[j] - m) * ((double)x[j] - m);
    return t;
}

/* scalar.h's sigmoid and, in *grad, s (1-s), both from e = exp(-|x|). */
VFN VF vf_sigmoid_grad(VF x, VF *grad)
{
    const VF e = vf_exp(vf_set(0.0f) - vf_abs(x)), r = vf_recip12(vf_set(1.0f) + e), er = e * r;
    *grad = er * r;
    return vf_pick(vf_lt(x, vf_set(0.0f)), er, r);
}
VFN VF vf_sigmoid(VF x)
{
    VF grad;
    return vf_sigmoid_grad(x, &grad);
}

/* Below 0.625 an odd polynomial (to 4.4e-9), above 1 - 2/(1 + exp(2|x|)), with the sign put back. */
VFN VF vf_tanh(VF x)
{
    const VF a = vf_abs(x), u = x * x, e = vf_exp(a * vf_set(-2.0f));
    VF p = vf_set(-5.704986862838268e-3f);
    p = vf_fma(p, u, vf_set(2.063908614218235e-2f));
    p = vf_fma(p, u, vf_set(-5.373971536755562e-2f));
    p = vf_fma(p, u, vf_set(1.3331441581249237e-1f));
    p = vf_fma(p, u, vf_set(-3.333328068256378e-1f));
    const VF big = vf_fnma(e * vf_set(2.0f), vf_recip12(vf_set(1.0f) + e), vf_set(1.0f));
    const VF odd = vf_fma(p * u, x, x), neg = vf_set(0.0f) - big;
    return vf_pick(vf_lt(a, vf_set(0.625f)), odd, vf_pick(vf_lt(x, vf_set(0.0f)), neg, big));
}

/* Phi(x) (normal distribution) and, in *density, phi(x) sqrt(2 pi) = exp(-x^2/2).
 * With a = |x|: Phi(-a) = exp(-a^2/2) G(u), u = (a - 3)/(a + 3), G to 6.6e-9 of itself up to a = 13.5, where
 * Phi(-a) < 1e-41; held there. Both tails keep their relative accuracy. */
VFN VF vf_normal(VF x, VF *density)
{
    const VF a = vf_min(vf_set(13.5f), vf_abs(x)), e = vf_exp(x * x * vf_set(-0.5f));
    const VF u = (a - vf_set(3.0f)) / (a + vf_set(3.0f));
    VF g = vf_set(5.41509834874887e-5f);
    g = vf_fma(g, u, vf_set(1.1603759048739448e-4f));
    g = vf_fma(g, u, vf_set(-3.3991134841926396e-4f));
    g = vf_fma(g, u, vf_set(-9.841829305514693e-4f));
    g = vf_fma(g, u, vf_set(2.904702676460147e-3f));
    g = vf_fma(g, u, vf_set(6.132183130830526e-3f));
    g = vf_fma(g, u, vf_set(-4.6213313937187195e-2f));
    g = vf_fma(g, u, vf_set(1.2322501838207245e-1f));
    g = vf_fma(g, u, vf_set(-2.0640261471271515e-1f));
    g = vf_fma(g, u, vf_set(1.2151394784450531e-1f));
    g = g * e;
    *density = e;
    return vf_pick(vf_lt(x, vf_set(0.0f)), g, vf_set(1.0f) - g);
}

/* sin and cos of DW angles, |a| < 2^31: a = k pi/2 + r, |r| <= pi/4, Taylor series to r^13 and r^14 (terms
 * left out below 1e-13), the quarter turn by k mod 4. Adding 1.5 * 2^52 rounds to a whole number and leaves k
 * in the low bits. */
VFN void vx_sincos(VX a, VX *sin, VX *cos)
{
    const VX magic = vx_set(6755399441055744.0), t = vx_fma(a, vx_set(0.63661977236758134308), magic),
             k = t - magic;
    VX r = vx_fnma(k, vx_set(1.57079632679489655800), a);
    r = vx_fnma(k, vx_set(6.12323399573676603587e-17), r);
    const VX u = r * r;
    VX s = vx_set(1.0 / 6227020800.0), c = vx_set(-1.0 / 87178291200.0);
    s = vx_fma(s, u, vx_set(-1.0 / 39916800.0));
    s = vx_fma(s, u, vx_set(1.0 / 362880.0));
    s = vx_fma(s, u, vx_set(-1.0 / 5040.0));
    s = vx_fma(s, u, vx_set(1.0 / 120.0));
    s = vx_fma(s, u, vx_set(-1.0 / 6.0));
    s = vx_fma(s * u, r, r);
    c = vx_fma(c, u, vx_set(1.0 / 479001600.0));
    c = vx_fma(c, u, vx_set(-1.0 / 3628800.0));
    c = vx_fma(c, u, vx_set(1.0 / 40320.0));
    c = vx_fma(c, u, vx_set(-1.0 / 720.0));
    c = vx_fma(c, u, vx_set(1.0 / 24.0));
    c = vx_fma(c, u, vx_set(-0.5));
    c = vx_fma(c, u, vx_set(1.0));
    const VI q = vx_bits(t), odd = vi_shl63(q), two = vi_and(vi_set(2), q),
             two1 = vi_and(vi_set(2), vi_add(q, vi_set(1)));
    *sin = vx_from_bits(vi_xor(vx_bits(vx_pick_sign(odd, c, s)), vi_shl62(two)));
    *cos = vx_from_bits(vi_xor(vx_bits(vx_pick_sign(odd, s, c)), vi_shl62(two1)));
}
#endif
