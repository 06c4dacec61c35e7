/* kernels/vec_avx512_impl.h: the vector words of the *_vec_impl.h kernels, 16 floats wide. The same words as
 * in vec_avx2_impl.h; + - * / work on VF (VW floats) and VX (DW doubles) by themselves (GNU C vectors).
 *
 *   VF x = vf_get(p, k);         // k floats, zeros behind; k == VW is a plain load
 *   vf_put(q, vf_exp(x), k);
 *   VD s = vd_zero(); s = vd_add(s, x); double t = vd_sum(s);        // floats summed in double, fixed order
 */
#ifndef VEC_IMPL_H
#define VEC_IMPL_H
#include <immintrin.h>
#include <stdint.h>
#include "kernels/ref_impl.h"
#include "kernels/simd_impl.h"
#define V(name) name##_avx512
#define VFN static inline __attribute__((always_inline))

typedef float VF __attribute__((vector_size(64))); /* __m512 without its alias mark, so that ? : takes it */
typedef __mmask16 VM;
typedef __m512d VX;
typedef __m512i VI; /* DW lanes of 64 bits */
typedef struct VD {
    __m512d lo, hi;
} VD;
enum { VW = 16, DW = 8 };

VFN VF vf_set(float a) { return _mm512_set1_ps(a); }
VFN VF vf_get(const float *p, int k)
{
    return k == VW ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps((__mmask16)((1u << k) - 1u), p);
}
VFN void vf_put(float *p, VF v, int k)
{
    if (k == VW) _mm512_storeu_ps(p, v);
    else _mm512_mask_storeu_ps(p, (__mmask16)((1u << k) - 1u), v);
}
VFN VF vf_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
VFN VF vf_fnma(VF a, VF b, VF c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
VFN VF vf_sqrt(VF a) { return _mm512_sqrt_ps(a); }
VFN VF vf_abs(VF a) { return _mm512_abs_ps(a); }
VFN VF vf_max(VF a, VF b) { return _mm512_max_ps(a, b); } /* b where either is NaN */
VFN VF vf_min(VF a, VF b) { return _mm512_min_ps(a, b); } /* b where either is NaN */
VFN VM vf_lt(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
VFN VF vf_pick(VM m, VF yes, VF no) { return _mm512_mask_blend_ps(m, no, yes); }
VFN VF vf_only(VM m, VF a) { return _mm512_maskz_mov_ps(m, a); } /* a where m, else 0 */
VFN VF vf_first(VF a, VF rest, int k)
{ /* lanes below k of a, then rest */
    if (k == VW) return a;
    return _mm512_mask_blend_ps((__mmask16)((1u << k) - 1u), rest, a);
}
VFN VF vf_swap_pairs(VF a) { return _mm512_permute_ps(a, 0xB1); } /* lanes 1 0 3 2 ... */
VFN float vf_hmax(VF a) { return _mm512_reduce_max_ps(a); }
/* 1/a to 1 ulp for a in [1,2]: 14 bits, one Newton step (a division of 16 lanes costs 16 cycles). */
VFN VF vf_recip12(VF a)
{
    const VF r = _mm512_rcp14_ps(a);
    return vf_fma(r, vf_fnma(a, r, vf_set(1.0f)), r);
}
/* w = result 2^*e, result in [0.75, 1.5), for positive normal w */
VFN VF vf_split(VF w, VF *e)
{
    const __m512i less = _mm512_sub_epi32(_mm512_castps_si512(w), _mm512_set1_epi32(0x3f400000));
    const __m512i n = _mm512_srai_epi32(less, 23);
    *e = _mm512_cvtepi32_ps(n);
    return _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_castps_si512(w), _mm512_slli_epi32(n, 23)));
}
/* v 2^n for |n| <= 160, n a whole number; right on both ends of the range */
VFN VF vf_scale2(VF v, VF n) { return _mm512_scalef_ps(v, n); }

VFN __m512d vd_low(VF a) { return _mm512_cvtps_pd(_mm512_castps512_ps256(a)); }
VFN __m512d vd_high(VF a)
{
    return _mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)));
}
VFN VD vd_get(const float *p)
{ /* VW floats; converted while loading, which spares the shuffles of vd_low */
    return (VD){_mm512_cvtps_pd(_mm256_loadu_ps(p)), _mm512_cvtps_pd(_mm256_loadu_ps(p + DW))};
}
VFN VD vd_zero(void) { return (VD){_mm512_setzero_pd(), _mm512_setzero_pd()}; }
VFN VD vd_add(VD s, VF a) { return (VD){s.lo + vd_low(a), s.hi + vd_high(a)}; }
VFN VD vd_fma(VD s, VF a, VF b)
{ /* s + a b, the product exact */
    return (VD){_mm512_fmadd_pd(vd_low(a), vd_low(b), s.lo), _mm512_fmadd_pd(vd_high(a), vd_high(b), s.hi)};
}
VFN VD vd_plus(VD s, VD a) { return (VD){s.lo + a.lo, s.hi + a.hi}; }
VFN VD vd_square(VD s, VD a)
{
    return (VD){_mm512_fmadd_pd(a.lo, a.lo, s.lo), _mm512_fmadd_pd(a.hi, a.hi, s.hi)};
}
VFN double vd_sum(VD s) { return _mm512_reduce_add_pd(s.lo + s.hi); }

VFN VX vx_set(double a) { return _mm512_set1_pd(a); }
VFN VX vx_get(const double *p) { return _mm512_loadu_pd(p); }
VFN VX vx_fma(VX a, VX b, VX c) { return _mm512_fmadd_pd(a, b, c); }
VFN VX vx_fnma(VX a, VX b, VX c) { return _mm512_fnmadd_pd(a, b, c); }
VFN VX vx_from_bits(VI a) { return _mm512_castsi512_pd(a); }
VFN VI vx_bits(VX a) { return _mm512_castpd_si512(a); }
VFN VX vx_pick_sign(VI sign, VX yes, VX no)
{ /* yes where the top bit is set */
    return _mm512_mask_blend_pd(_mm512_movepi64_mask(sign), no, yes);
}
VFN void vx_put_floats(float *p, VX a) { _mm256_storeu_ps(p, _mm512_cvtpd_ps(a)); }

VFN VI vi_set(uint64_t a) { return _mm512_set1_epi64((long long)a); }
VFN VI vi_add(VI a, VI b) { return _mm512_add_epi64(a, b); }
VFN VI vi_and(VI a, VI b) { return _mm512_and_si512(a, b); }
VFN VI vi_or(VI a, VI b) { return _mm512_or_si512(a, b); }
VFN VI vi_xor(VI a, VI b) { return _mm512_xor_si512(a, b); }
VFN VI vi_xor3(VI a, VI b, VI c) { return _mm512_ternarylogic_epi64(a, b, c, 0x96); }
VFN VI vi_shr32(VI a) { return _mm512_srli_epi64(a, 32); }
VFN VI vi_shl32(VI a) { return _mm512_slli_epi64(a, 32); }
VFN VI vi_shl62(VI a) { return _mm512_slli_epi64(a, 62); }
VFN VI vi_shl63(VI a) { return _mm512_slli_epi64(a, 63); }
VFN VI vi_mul32(VI a, VI b) { return _mm512_mul_epu32(a, b); } /* low halves, 64-bit product */
VFN VI vi_even_first(void) { return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7); }
VFN VI vi_pairs_low(VI a, VI b) { return _mm512_unpacklo_epi64(a, b); }  /* a0 b0 a2 b2 ... */
VFN VI vi_pairs_high(VI a, VI b) { return _mm512_unpackhi_epi64(a, b); } /* a1 b1 a3 b3 ... */
VFN VM vi_above(VI u, uint32_t least)
{ /* VW words of 32 bits, u > least */
    return _mm512_cmpgt_epu32_mask(u, _mm512_set1_epi32((int)least));
}
#include "kernels/vec_math_impl.h"
#endif
