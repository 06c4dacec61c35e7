/* kernels/coded_avx2.c: coded.c for AVX2, float; the work is in coded_vec_impl.h. Eight elements at a time.
 * */
#include <math.h>
#include <string.h>
#include "kernels/vec_avx2_impl.h"

VFN __m256i bytes_wide(const uint8_t *p)
{
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
}
/* 8 codes of `bits` bits, low ones first, out of `bits` bytes. */
VFN __m256i bits_wide(const uint8_t *p, int bits)
{
    uint32_t word = 0;
    memcpy(&word, p, (size_t)bits);
    const __m256i at = _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(bits));
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)word), at),
                            _mm256_set1_epi32((1 << bits) - 1));
}
/* Bit 3 chooses the half of the table. */
VFN VF looked_up(__m256i i, const float *table)
{
    const __m256 lo = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), i),
                 hi = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), i);
    return _mm256_blendv_ps(lo, hi, _mm256_castsi256_ps(_mm256_slli_epi32(i, 28)));
}
VFN VF codes_table(const uint8_t *p, const float *table) { return looked_up(bits_wide(p, 4), table); }
VFN VF codes_bits(const uint8_t *p, int bits, const float *table)
{
    return looked_up(bits_wide(p, bits), table);
}
VFN VF codes_int8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p)));
}
VFN VF codes_uint8(const uint8_t *p) { return _mm256_cvtepi32_ps(bytes_wide(p)); }
/* As halves: sign up, exponent and mantissa below it. */
VFN __m128i halves(const uint8_t *p)
{
    return _mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)(const void *)p));
}
VFN VF codes_e4m3(const uint8_t *p)
{
    const __m128i h = halves(p), sign = _mm_and_si128(h, _mm_set1_epi16(INT16_MIN));
    return _mm256_cvtph_ps(_mm_or_si128(sign, _mm_srli_epi16(_mm_slli_epi16(h, 1), 2)));
}
VFN VF codes_e5m2(const uint8_t *p) { return _mm256_cvtph_ps(halves(p)); }
#include "kernels/coded_vec_impl.h"
