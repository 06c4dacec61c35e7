/* core/codec_impl.h: what the codec files share. */
#ifndef CODEC_IMPL_H
#define CODEC_IMPL_H
#include "core/core.h"
#include <math.h>
#include <string.h>
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>
#endif

static inline uint32_t f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline float f32_of(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Codecs are exact on subnormals, training threads flush them: each call switches and switches back. */
static inline uint64_t ieee_begin(void)
{
#if defined(__x86_64__) || defined(__i386__)
    unsigned old = _mm_getcsr();
    _mm_setcsr(old & ~0x8040u); /* FTZ (bit 15) and DAZ (bit 6) off */
    return old;
#elif defined(__aarch64__)
    uint64_t old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" : : "r"(old & ~(UINT64_C(1) << 24)));
    return old;
#else
    return 0;
#endif
}
static inline void ieee_end(uint64_t old)
{
#if defined(__x86_64__) || defined(__i386__)
    _mm_setcsr((unsigned)old);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, %0" : : "r"(old));
#else
    (void)old;
#endif
}

#define QUANT_ELEMENT(name)                                                                                  \
    void quant_encode_##name(uint8_t *code, const float *x, long n, const QuantRun *r);                      \
    void quant_decode_##name(float *y, const uint8_t *code, long n, const QuantRun *r);                      \
    void quant_fake_##name(float *y, const float *x, long n, const QuantRun *r);
QUANT_ELEMENT(INT)
QUANT_ELEMENT(E4M3)
QUANT_ELEMENT(E5M2)
QUANT_ELEMENT(E2M1)
QUANT_ELEMENT(NF4)
#endif
