/* kernels/attention_avx2.c: attention for float with AVX2 and FMA. This file is the vocabulary of 8-lane
 * vectors; the algorithm is in the headers below, shared with AVX-512. Formulas and shapes: attention.c. */
#include <immintrin.h>
#include <math.h>
#include "kernels/attention_impl.h"

typedef __m256 vec;
typedef __m256i vint;
typedef __m256i vmask; /* all bits of a lane */

enum {
    VL = 8,  /* lanes */
    MR = 6,  /* rows of a register tile: with two vectors 15 of 16 registers */
    QT = 32, /* queries of a forward tile (lanes) */
    KT = 64, /* keys of a forward tile */
    JT = 64, /* keys of a backward tile (lanes) */
    IT = 32  /* queries of a backward tile */
};

static inline vec v_set(float x) { return _mm256_set1_ps(x); }
static inline vec v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm256_storeu_ps(p, x); }
static inline vint v_int(int32_t x) { return _mm256_set1_epi32(x); }
static inline vint v_count(int32_t x)
{ /* x, x+1, x+2, ... */
    return _mm256_add_epi32(v_int(x), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vmask v_first(long n)
{
    return _mm256_cmpgt_epi32(v_int(n > VL ? VL : (int32_t)n), v_count(0));
}
static inline vec v_load_some(const float *p, vmask on) { return _mm256_maskload_ps(p, on); }
static inline void v_store_some(float *p, vmask on, vec x) { _mm256_maskstore_ps(p, on, x); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }             /* b where either is NaN */
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); } /* a b + c */
static inline vec v_fnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
static inline vec v_ldexp_or_zero(vmask none, vec a, vec n)
{ /* a 2^n, n whole, -126..127; 0 on none */
    __m256i e = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), v_int(127)), 23);
    return _mm256_andnot_ps(_mm256_castsi256_ps(none), _mm256_mul_ps(a, _mm256_castsi256_ps(e)));
}
static inline float v_sum(vec a)
{
    __m128 x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_add_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)));
}
static inline float v_top(vec a)
{
    __m128 x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    x = _mm_max_ps(x, _mm_movehl_ps(x, x));
    return _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)));
}
static inline vint v_load_int(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
static inline vint v_load_int_some(const int32_t *p, vmask on) { return _mm256_maskload_epi32(p, on); }
static inline vmask v_below(vec a, vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)); }
static inline vmask v_equal(vec a, vec b) { return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ)); }
static inline vmask v_or(vmask a, vmask b) { return _mm256_or_si256(a, b); }
static inline vmask v_outside(vint lo, vint x, vint hi)
{
    return v_or(_mm256_cmpgt_epi32(lo, x), _mm256_cmpgt_epi32(x, hi));
}
static inline vmask v_differ(vint a, vint b) { return _mm256_xor_si256(_mm256_cmpeq_epi32(a, b), v_int(-1)); }
static inline vec v_pick(vmask on, vec yes, vec no)
{
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(on));
}
static inline vec v_abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), a); }
static inline vec v_sign_of(vec a, vec s)
{ /* |a| with the sign of s */
    return _mm256_or_ps(v_abs(a), _mm256_and_ps(_mm256_set1_ps(-0.0F), s));
}

/* r[i] lane j <-> r[j] lane i, in place: pairs, quads, then halves. */
static inline void v_transpose(vec r[VL])
{
    vec t[VL];
    for (int i = 0; i < VL; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < VL; i += 4)
        for (int j = 0; j < 2; j++) {
            __m256d a = _mm256_castps_pd(t[i + j]), b = _mm256_castps_pd(t[i + j + 2]);
            r[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            r[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < VL; i++) r[i] = t[i];
}

#define ISA_NAME(stem) stem##_avx2
#include "kernels/attention_vec_impl.h"
#include "kernels/attention_few_impl.h"
#include "kernels/attention_fwd_impl.h"
#include "kernels/attention_bwd_impl.h"
