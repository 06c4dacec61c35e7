/* core/codec_element.c: the elements of the number formats, n at a time under one scale.
 *
 *   code = nearest(x / div), ties to even, saturating;   value = element * mul * tensor
 *
 * encode and decode go through codes; fake computes the same value without them, in loops a compiler turns
 * into vectors. The 8-bit casts of encode are dtype.c's; fake's are the ones below: tests compare the two on
 * all 2^32 floats. NaN: E4M3 and E5M2 have a code for it; E2M1 +6 as CUDA; integers and NF4 zero. x (n), y
 * (n), code (n). OCP 8-bit Floating Point 1.0, OCP Microscaling 1.0; NF4: 2305.14314. */
#include "core/codec_impl.h"

#define ABS_MASK 0x7FFFFFFFu
#define INF_BITS 0x7F800000u
#define NAN_BITS 0x7FC00000u

/* Nearest value of a grid with m mantissa bits and smallest normal 2^min_exp, |result| <= max; NaN becomes
 * nan. */
static inline float grid_round(float t, int m, int min_exp, float max, uint32_t nan)
{
    const int s = 23 - m;
    const uint32_t u = f32_bits(t), a = u & ABS_MASK, top = f32_bits(max);
    /* normal numbers: round the mantissa field; the carry goes into the exponent by itself */
    uint32_t r = (a + (1u << (s - 1)) - 1 + ((a >> s) & 1)) & ~((1u << s) - 1);
    /* below: multiples of 2^(min_exp - m), by adding a number whose last bit weighs just that */
    const float magic = f32_of((uint32_t)(127 + min_exp - m + 23) << 23);
    const float small = (f32_of(a) + magic) - magic;
    r = (int32_t)a < ((127 + min_exp) << 23) ? f32_bits(small) : r;
    r = (int32_t)r > (int32_t)top ? top : r;
    r |= u & ~ABS_MASK;
    return f32_of((int32_t)a > (int32_t)INF_BITS ? nan : r);
}

static inline float round_e4m3(float t) { return grid_round(t, 3, -6, 448.0f, NAN_BITS); }
/* 0x7F decoded keeps both mantissa bits */
static inline float round_e5m2(float t) { return grid_round(t, 2, -14, 57344.0f, 0x7FE00000u); }
static inline float round_e2m1(float t) { return grid_round(t, 1, 0, 6.0f, 0x40C00000u); }

uint8_t e2m1_from_f32(float x)
{
    uint32_t u = f32_bits(round_e2m1(x)), a = u & ABS_MASK;
    /* exponent and top mantissa bit, counted from 1.0 = code 2; 0.5 and 0 below it */
    uint32_t code = a >= 0x3F800000u ? (a >> 22) - (0x3F800000u >> 22) + 2 : a != 0;
    return (uint8_t)(code | (u >> 28 & 8u));
}

float f32_from_e2m1(uint8_t x)
{
    static const float level[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    return x & 8 ? -level[x & 7] : level[x & 7];
}

uint8_t e8m0_from_f32(float x)
{
    uint32_t u = f32_bits(x);
    if (u == 0x00400000u) return 0; /* 2^-127 */
    return (u & 0x807FFFFFu) || u == 0 || u >= INF_BITS ? 0xFF : (uint8_t)(u >> 23);
}

float f32_from_e8m0(uint8_t x) { return f32_of(x == 0xFF ? NAN_BITS : x ? (uint32_t)x << 23 : 0x00400000u); }

static void fill_bits(float *y, long n, uint32_t bits)
{
    for (long i = 0; i < n; i++) y[i] = f32_of(bits);
}

/* A scale of NaN spoils its block; a scale of 0 (two tiny levels whose product underflows) empties it. */
static bool no_elements(float *y, long n, const QuantRun *r)
{
    if (isnan(r->div)) fill_bits(y, n, NAN_BITS);
    else if (r->div == 0) fill_bits(y, n, 0);
    else return false;
    return true;
}

/* ---- small floats ---- */
#define SMALL_FLOAT(name, to_code, from_code, rounded)                                                       \
    void quant_encode_##name(uint8_t *code, const float *x, long n, const QuantRun *r)                       \
    {                                                                                                        \
        const bool none = isnan(r->div) || r->div == 0;                                                      \
        if (none) memset(code, 0, (size_t)n);                                                                \
        for (long i = 0; i < n && !none; i++) code[i] = to_code(x[i] / r->div);                              \
    }                                                                                                        \
    void quant_decode_##name(float *y, const uint8_t *code, long n, const QuantRun *r)                       \
    {                                                                                                        \
        if (no_elements(y, n, r)) return;                                                                    \
        for (long i = 0; i < n; i++) y[i] = from_code(code[i]) * r->mul * r->tensor;                         \
    }                                                                                                        \
    void quant_fake_##name(float *y, const float *x, long n, const QuantRun *r)                              \
    {                                                                                                        \
        const float div = r->div, mul = r->mul, tensor = r->tensor;                                          \
        if (no_elements(y, n, r)) return;                                                                    \
        for (long i = 0; i < n; i++) y[i] = rounded(x[i] / div) * mul * tensor;                              \
    }
SMALL_FLOAT(E4M3, e4m3_from_f32, f32_from_e4m3, round_e4m3)
SMALL_FLOAT(E5M2, e5m2_from_f32, f32_from_e5m2, round_e5m2)
SMALL_FLOAT(E2M1, e2m1_from_f32, f32_from_e2m1, round_e2m1)

/* ---- integers ---- */
/* q - zero as a float: clamping to whole bounds before rounding gives the same as after. Adding 1.5 2^23
 * rounds to even below 2^22; what is left of a -0 is dropped, a code has none. */
static inline float int_round(float t, float lo, float hi)
{
    const float magic = 12582912.0f;
    t = t == t ? t : 0.0f;
    t = t < lo ? lo : t;
    t = t > hi ? hi : t;
    return (t + magic) - magic;
}

void quant_encode_INT(uint8_t *code, const float *x, long n, const QuantRun *r)
{
    const bool none = isnan(r->div) || r->div == 0;
    for (long i = 0; i < n; i++) {
        int q = none ? 0 : (int)int_round(x[i] / r->div, r->lo, r->hi);
        code[i] = (uint8_t)(q + r->zero);
    }
}

/* Signed codes come sign-extended to eight bits (packing keeps the low ones). */
void quant_decode_INT(float *y, const uint8_t *code, long n, const QuantRun *r)
{
    const bool is_signed = r->lo + (float)r->zero < 0;
    if (no_elements(y, n, r)) return;
    for (long i = 0; i < n; i++)
        y[i] = (float)((is_signed ? (int)(int8_t)code[i] : (int)code[i]) - r->zero) * r->mul;
}

void quant_fake_INT(float *y, const float *x, long n, const QuantRun *r)
{
    const float div = r->div, lo = r->lo, hi = r->hi;
    if (no_elements(y, n, r)) return;
    for (long i = 0; i < n; i++) y[i] = int_round(x[i] / div, lo, hi) * div;
}

/* ---- NF4 ---- */
static const float levels[16] = {-1.0f,
                                 -0.6961928009986877f,
                                 -0.5250730514526367f,
                                 -0.39491748809814453f,
                                 -0.28444138169288635f,
                                 -0.18477343022823334f,
                                 -0.09105003625154495f,
                                 0.0f,
                                 0.07958029955625534f,
                                 0.16093020141124725f,
                                 0.24611230194568634f,
                                 0.33791524171829224f,
                                 0.44070982933044434f,
                                 0.5626170039176941f,
                                 0.7229568362236023f,
                                 1.0f};
/* bitsandbytes' midpoints; a tie goes to the lower level (formats.md 1.5). */
static const float middle[15] = {-0.8480964004993439f,   -0.6106329262256622f,  -0.4599952697753906f,
                                 -0.33967943489551544f,  -0.23460740596055984f, -0.13791173323988914f,
                                 -0.045525018125772476f, 0.03979014977812767f,  0.1202552504837513f,
                                 0.2035212516784668f,    0.2920137718319893f,   0.3893125355243683f,
                                 0.5016634166240692f,    0.6427869200706482f,   0.8614784181118011f};
enum { NF4_ZERO = 7, CHUNK = 512 };

const float *nf4_levels(void) { return levels; }

void quant_encode_NF4(uint8_t *code, const float *x, long n, const QuantRun *r)
{
    const float div = r->div;
    if (isnan(div) || div == 0) {
        memset(code, NF4_ZERO, (size_t)n);
        return;
    }
    for (long i = 0; i < n; i++) {
        const float t = x[i] / div;
        int c = 0;
        for (int j = 0; j < 15; j++) c += t > middle[j];
        code[i] = (uint8_t)(t == t ? c : NF4_ZERO);
    }
}

void quant_decode_NF4(float *y, const uint8_t *code, long n, const QuantRun *r)
{
    if (no_elements(y, n, r)) return;
    for (long i = 0; i < n; i++) y[i] = levels[code[i] & 15] * r->mul;
}

void quant_fake_NF4(float *y, const float *x, long n, const QuantRun *r)
{
    uint8_t code[CHUNK];
    for (long i = 0; i < n; i += CHUNK) {
        const long m = n - i < CHUNK ? n - i : CHUNK;
        quant_encode_NF4(code, x + i, m, r);
        quant_decode_NF4(y + i, code, m, r);
    }
}
