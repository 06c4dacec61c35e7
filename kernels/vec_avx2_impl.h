/* kernels/vec_avx2_impl.h: the vector words of the *_vec_impl.h kernels, 8 floats wide; meanings in
 * vec_avx512_impl.h. */
#ifndef VEC_IMPL_H
#define VEC_IMPL_H
#include <immintrin.h>
#include <stdint.h>
#include "kernels/ref_impl.h"
#include "kernels/simd_impl.h"
#define V(name) name##_avx2
#define VFN static inline __attribute__((always_inline))

typedef float VF __attribute__((vector_size(32)));
typedef __m256 VM; /* all bits of a lane set or clear */
typedef __m256d VX;
typedef __m256i VI; /* DW lanes of 64 bits */
typedef struct VD {
    __m256d lo, hi;
} VD;
enum { VW = 8, DW = 4 };

VFN __m256i first_lanes(int k)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VFN VF vf_set(float a) { return _mm256_set1_ps(a); }
VFN VF vf_get(const float *p, int k)
{
    return k == VW ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, first_lanes(k));
}
VFN void vf_put(float *p, VF v, int k)
{
    if (k == VW) _mm256_storeu_ps(p, v);
    else _mm256_maskstore_ps(p, first_lanes(k), v);
}
VFN VF vf_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
VFN VF vf_fnma(VF a, VF b, VF c) { return _mm256_fnmadd_ps(a, b, c); }
VFN VF vf_sqrt(VF a) { return _mm256_sqrt_ps(a); }
VFN VF vf_abs(VF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
VFN VF vf_max(VF a, VF b) { return _mm256_max_ps(a, b); }
VFN VF vf_min(VF a, VF b) { return _mm256_min_ps(a, b); }
VFN VM vf_lt(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
VFN VF vf_pick(VM m, VF yes, VF no) { return _mm256_blendv_ps(no, yes, m); }
VFN VF vf_only(VM m, VF a) { return _mm256_and_ps(m, a); }
VFN VF vf_first(VF a, VF rest, int k)
{
    if (k == VW) return a;
    return _mm256_blendv_ps(rest, a, _mm256_castsi256_ps(first_lanes(k)));
}
VFN VF vf_swap_pairs(VF a) { return _mm256_permute_ps(a, 0xB1); }
VFN float vf_hmax(VF a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_shuffle_ps(m, m, 1)));
}
VFN VF vf_recip12(VF a) { return vf_set(1.0f) / a; } /* 5 cycles for 8 lanes: cheap enough */
VFN VF vf_split(VF w, VF *e)
{
    const __m256i less = _mm256_sub_epi32(_mm256_castps_si256(w), _mm256_set1_epi32(0x3f400000));
    const __m256i n = _mm256_srai_epi32(less, 23);
    *e = _mm256_cvtepi32_ps(n);
    return _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_castps_si256(w), _mm256_slli_epi32(n, 23)));
}
VFN VF vf_scale2(VF v, VF n)
{ /* in two halves, so no exponent overflows */
    const __m256i e = _mm256_cvtps_epi32(n), h = _mm256_srai_epi32(e, 1), bias = _mm256_set1_epi32(127);
    const __m256i a = _mm256_slli_epi32(_mm256_add_epi32(h, bias), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, h), bias), 23);
    return v * _mm256_castsi256_ps(a) * _mm256_castsi256_ps(b);
}

VFN __m256d vd_low(VF a) { return _mm256_cvtps_pd(_mm256_castps256_ps128(a)); }
VFN __m256d vd_high(VF a) { return _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)); }
VFN VD vd_get(const float *p)
{
    return (VD){_mm256_cvtps_pd(_mm_loadu_ps(p)), _mm256_cvtps_pd(_mm_loadu_ps(p + DW))};
}
VFN VD vd_zero(void) { return (VD){_mm256_setzero_pd(), _mm256_setzero_pd()}; }
VFN VD vd_add(VD s, VF a) { return (VD){s.lo + vd_low(a), s.hi + vd_high(a)}; }
VFN VD vd_fma(VD s, VF a, VF b)
{
    return (VD){_mm256_fmadd_pd(vd_low(a), vd_low(b), s.lo), _mm256_fmadd_pd(vd_high(a), vd_high(b), s.hi)};
}
VFN VD vd_plus(VD s, VD a) { return (VD){s.lo + a.lo, s.hi + a.hi}; }
VFN VD vd_square(VD s, VD a)
{
    return (VD){_mm256_fmadd_pd(a.lo, a.lo, s.lo), _mm256_fmadd_pd(a.hi, a.hi, s.hi)};
}
VFN double vd_sum(VD s)
{
    const __m256d t = s.lo + s.hi;
    const __m128d u = _mm_add_pd(_mm256_castpd256_pd128(t), _mm256_extractf128_pd(t, 1));
    return _mm_cvtsd_f64(_mm_add_sd(u, _mm_unpackhi_pd(u, u)));
}

VFN VX vx_set(double a) { return _mm256_set1_pd(a); }
VFN VX vx_get(const double *p) { return _mm256_loadu_pd(p); }
VFN VX vx_fma(VX a, VX b, VX c) { return _mm256_fmadd_pd(a, b, c); }
VFN VX vx_fnma(VX a, VX b, VX c) { return _mm256_fnmadd_pd(a, b, c); }
VFN VX vx_from_bits(VI a) { return _mm256_castsi256_pd(a); }
VFN VI vx_bits(VX a) { return _mm256_castpd_si256(a); }
VFN VX vx_pick_sign(VI sign, VX yes, VX no) { return _mm256_blendv_pd(no, yes, _mm256_castsi256_pd(sign)); }
VFN void vx_put_floats(float *p, VX a) { _mm_storeu_ps(p, _mm256_cvtpd_ps(a)); }

VFN VI vi_set(uint64_t a) { return _mm256_set1_epi64x((long long)a); }
VFN VI vi_add(VI a, VI b) { return _mm256_add_epi64(a, b); }
VFN VI vi_and(VI a, VI b) { return _mm256_and_si256(a, b); }
VFN VI vi_or(VI a, VI b) { return _mm256_or_si256(a, b); }
VFN VI vi_xor(VI a, VI b) { return _mm256_xor_si256(a, b); }
VFN VI vi_xor3(VI a, VI b, VI c) { return vi_xor(vi_xor(a, b), c); }
VFN VI vi_shr32(VI a) { return _mm256_srli_epi64(a, 32); }
VFN VI vi_shl32(VI a) { return _mm256_slli_epi64(a, 32); }
VFN VI vi_shl62(VI a) { return _mm256_slli_epi64(a, 62); }
VFN VI vi_shl63(VI a) { return _mm256_slli_epi64(a, 63); }
VFN VI vi_mul32(VI a, VI b) { return _mm256_mul_epu32(a, b); }
VFN VI vi_even_first(void) { return _mm256_setr_epi64x(0, 2, 1, 3); }
VFN VI vi_pairs_low(VI a, VI b) { return _mm256_unpacklo_epi64(a, b); }
VFN VI vi_pairs_high(VI a, VI b) { return _mm256_unpackhi_epi64(a, b); }
VFN VM vi_above(VI u, uint32_t least)
{ /* unsigned order by flipping the top bit */
    const __m256i top = _mm256_set1_epi32(INT32_MIN), l = _mm256_set1_epi32((int)(least ^ 0x80000000u));
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(u, top), l));
}
#include "kernels/vec_math_impl.h"
#endif
