/* kernels/coded_avx512.c: coded.c for AVX-512, float; the work is in coded_vec_impl.h. Sixteen elements at
 * a time. */
#include <math.h>
#include <string.h>
#include "kernels/vec_avx512_impl.h"

VFN VF looked_up(__m512i i, const float *table) { return _mm512_permutexvar_ps(i, _mm512_loadu_ps(table)); }
/* Each lane gets the four bytes that hold its nibble and shifts it down; the permutation takes the low four
 * bits. */
VFN VF codes_table(const uint8_t *p, const float *table)
{
    const __m512i both = _mm512_broadcast_i32x2(_mm_loadl_epi64((const __m128i *)(const void *)p)),
                  word = _mm512_permutexvar_epi32(
                      _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), both),
                  at = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    return looked_up(_mm512_srlv_epi32(word, at), table);
}
/* 16 codes of `bits` bits, low ones first: 8 of them lie in `bits` bytes. */
VFN VF codes_bits(const uint8_t *p, int bits, const float *table)
{
    uint32_t low = 0, high = 0;
    memcpy(&low, p, (size_t)bits);
    memcpy(&high, p + bits, (size_t)bits);
    const __m512i word = _mm512_inserti64x4(_mm512_set1_epi32((int)low), _mm256_set1_epi32((int)high), 1),
                  lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7),
                  code = _mm512_srlv_epi32(word, _mm512_mullo_epi32(lane, _mm512_set1_epi32(bits)));
    return looked_up(_mm512_and_si512(code, _mm512_set1_epi32((1 << bits) - 1)), table);
}
VFN __m128i sixteen(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
VFN VF codes_int8(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen(p))); }
VFN VF codes_uint8(const uint8_t *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixteen(p))); }
/* As halves: sign up, exponent and mantissa below it. */
VFN __m256i halves(const uint8_t *p) { return _mm256_slli_epi16(_mm256_cvtepu8_epi16(sixteen(p)), 8); }
VFN VF codes_e4m3(const uint8_t *p)
{
    const __m256i h = halves(p), sign = _mm256_and_si256(h, _mm256_set1_epi16(INT16_MIN));
    return _mm512_cvtph_ps(_mm256_or_si256(sign, _mm256_srli_epi16(_mm256_slli_epi16(h, 1), 2)));
}
VFN VF codes_e5m2(const uint8_t *p) { return _mm512_cvtph_ps(halves(p)); }
#include "kernels/coded_vec_impl.h"
