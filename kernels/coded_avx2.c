/* kernels/coded_avx2.c: coded.c for AVX2, float; the work is in coded_vec_impl.h. */
#include <string.h>
#include "kernels/vec_avx2_impl.h"

/* 8 elements: 4-bit codes (low nibble first) through two registers, bit 3 chooses; 8-bit ones through
 * memory. */
VFN VF lut4(const uint8_t *p, const float *table)
{
    int four;
    memcpy(&four, p, sizeof four);
    const __m128i b = _mm_cvtsi32_si128(four), low = _mm_set1_epi8(15);
    const __m128i code = _mm_unpacklo_epi8(_mm_and_si128(b, low), _mm_and_si128(_mm_srli_epi16(b, 4), low));
    const __m256i i = _mm256_cvtepu8_epi32(code);
    const __m256 lo = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i),
                 hi = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i);
    return _mm256_blendv_ps(lo, hi, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}
VFN VF lut8(const uint8_t *p, const float *table)
{
    const __m256i code = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
    return _mm256_i32gather_ps(table, code, 4);
}
#include "kernels/coded_vec_impl.h"
