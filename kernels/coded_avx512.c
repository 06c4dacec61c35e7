/* kernels/coded_avx512.c: coded.c for AVX-512, float; the work is in coded_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"

/* 16 elements: 4-bit codes (low nibble first) through a register, 8-bit ones through memory. */
VFN VF lut4(const uint8_t *p, const float *table)
{
    const __m128i b = _mm_loadl_epi64((const __m128i *)(const void *)p), low = _mm_set1_epi8(15);
    const __m128i code = _mm_unpacklo_epi8(_mm_and_si128(b, low), _mm_and_si128(_mm_srli_epi16(b, 4), low));
    return _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(code), _mm512_loadu_ps(table));
}
VFN VF lut8(const uint8_t *p, const float *table)
{
    const __m512i code = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
    return _mm512_i32gather_ps(code, table, 4);
}
#include "kernels/coded_vec_impl.h"
