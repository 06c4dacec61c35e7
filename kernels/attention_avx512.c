/* kernels/attention_avx512.c: attention for float with AVX-512. This file is the vocabulary of 16-lane
 * vectors; the algorithm is in the headers below, shared with AVX2. Formulas and shapes: attention.c. */
#include <immintrin.h>
#include <math.h>
#include "kernels/attention_impl.h"

typedef __m512 vec;
typedef __m512i vint;
typedef __mmask16 vmask;

enum {
    VL = 16, /* lanes */
    MR = 8,  /* rows of a register tile: with two vectors 16 sums, twice what hides the latency of FMA */
    QT = 32, /* queries of a forward tile (lanes) */
    KT = 64, /* keys of a forward tile */
    JT = 64, /* keys of a backward tile (lanes) */
    IT = 32  /* queries of a backward tile */
};

static inline vec v_set(float x) { return _mm512_set1_ps(x); }
static inline vec v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vec x) { _mm512_storeu_ps(p, x); }
static inline vmask v_first(long n) { return (vmask)(n >= VL ? 0xFFFF : (1 << n) - 1); }
static inline vec v_load_some(const float *p, vmask on) { return _mm512_maskz_loadu_ps(on, p); }
static inline void v_store_some(float *p, vmask on, vec x) { _mm512_mask_storeu_ps(p, on, x); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }             /* b where either is NaN */
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); } /* a b + c */
static inline vec v_fnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); } /* c - a b */
static inline vec v_ldexp_or_zero(vmask none, vec a, vec n)
{ /* a 2^n, n whole; 0 on none */
    return _mm512_maskz_scalef_ps((vmask)~none, a, n);
}
static inline float v_sum(vec a) { return _mm512_reduce_add_ps(a); }
static inline float v_top(vec a) { return _mm512_reduce_max_ps(a); }
static inline vint v_int(int32_t x) { return _mm512_set1_epi32(x); }
static inline vint v_load_int(const int32_t *p) { return _mm512_loadu_si512(p); }
static inline vint v_load_int_some(const int32_t *p, vmask on) { return _mm512_maskz_loadu_epi32(on, p); }
static inline vint v_count(int32_t x)
{ /* x, x+1, x+2, ... */
    return _mm512_add_epi32(v_int(x),
                            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}
static inline vmask v_below(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vmask v_equal(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vmask v_outside(vint lo, vint x, vint hi)
{
    return _mm512_cmplt_epi32_mask(x, lo) | _mm512_cmpgt_epi32_mask(x, hi);
}
static inline vmask v_differ(vint a, vint b) { return _mm512_cmpneq_epi32_mask(a, b); }
static inline vmask v_or(vmask a, vmask b) { return a | b; }
static inline vec v_pick(vmask on, vec yes, vec no) { return _mm512_mask_blend_ps(on, no, yes); }
static inline vec v_abs(vec a) { return _mm512_abs_ps(a); }
static inline vec v_sign_of(vec a, vec s)
{ /* |a| with the sign of s */
    __m512 bit = _mm512_set1_ps(-0.0F);
    return _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, s));
}

/* r[i] lane j <-> r[j] lane i, in place: pairs, quads, then 128-bit blocks twice. */
static inline void v_transpose(vec r[VL])
{
    vec t[VL];
    for (int i = 0; i < VL; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < VL; i += 4)
        for (int j = 0; j < 2; j++) {
            __m512d a = _mm512_castps_pd(t[i + j]), b = _mm512_castps_pd(t[i + j + 2]);
            r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    for (int i = 0; i < 4; i++)
        for (int half = 0; half < VL; half += 8) {
            t[half + i] = _mm512_shuffle_f32x4(r[half + i], r[half + i + 4], 0x88);
            t[half + i + 4] = _mm512_shuffle_f32x4(r[half + i], r[half + i + 4], 0xDD);
        }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xDD);
    }
}

#define ISA_NAME(stem) stem##_avx512
#include "kernels/attention_vec_impl.h"
#include "kernels/attention_few_impl.h"
#include "kernels/attention_fwd_impl.h"
#include "kernels/attention_bwd_impl.h"
