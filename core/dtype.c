/* core/dtype.c: storage element types and their codecs. Everything works on bit patterns with integers, so
 * results do not depend on the flush-to-zero mode of the threads.
 *
 *   small float, e exponent bits, m mantissa bits, bias b:  E = 0 -> M 2^(1-b-m),  else (1 + M/2^m) 2^(E-b)
 *   F16 5/10 bias 15;  E4M3 4/3 bias 7, no infinity, NaN 0x7F, largest 448;  E5M2 5/2 bias 15, largest 57344
 *
 * Encoding rounds to nearest even in the target's own grid. F16 and BF16 overflow to infinity; the 8-bit
 * types saturate and write NaN of either sign as 0x7F. OCP 8-bit Floating Point Specification 1.0; IEEE
 * 754-2019.
 */
#include "core/codec_impl.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name, *long_name;
    size_t size;
} TYPES[DT_COUNT] = {
    [DT_F32] = {"F32", "float32", 4},
    [DT_F64] = {"F64", "float64", 8},
    [DT_F16] = {"F16", "float16", 2},
    [DT_BF16] = {"BF16", "bfloat16", 2},
    [DT_F8_E4M3] = {"F8_E4M3", "float8_e4m3", 1},
    [DT_F8_E5M2] = {"F8_E5M2", "float8_e5m2", 1},
    [DT_I8] = {"I8", "int8", 1},
    [DT_U8] = {"U8", "uint8", 1},
    [DT_I16] = {"I16", "int16", 2},
    [DT_U16] = {"U16", "uint16", 2},
    [DT_I32] = {"I32", "int32", 4},
    [DT_U32] = {"U32", "uint32", 4},
    [DT_I64] = {"I64", "int64", 8},
    [DT_U64] = {"U64", "uint64", 8},
    [DT_BOOL] = {"BOOL", "bool", 1},
};

size_t dtype_size(DType t) { return (unsigned)t < DT_COUNT ? TYPES[t].size : 0; }
const char *dtype_name(DType t) { return (unsigned)t < DT_COUNT ? TYPES[t].name : "?"; }
const char *dtype_long_name(DType t) { return (unsigned)t < DT_COUNT ? TYPES[t].long_name : "?"; }

bool dtype_parse(const char *name, DType *t)
{
    for (int i = 0; i < DT_COUNT; i++) {
        if (strcmp(name, TYPES[i].name) != 0 && strcmp(name, TYPES[i].long_name) != 0) continue;
        *t = (DType)i;
        return true;
    }
    return false;
}

static inline bool bits_nan(uint32_t u) { return (u & 0x7FFFFFFFu) > 0x7F800000u; }

/* |x| (bits without the sign, not NaN) in a grid of m mantissa bits and the given bias: exponent and mantissa
 * field in one number, rounded to nearest even. The caller compares it with its largest code: overflow comes
 * out larger. */
static inline uint32_t encode_abs(uint32_t abs, int m, int bias)
{
    int s = 23 - m;
    int E = (int)(abs >> 23) - 127 + bias;
    if (E >= 1) {
        uint32_t r = abs - ((uint32_t)(127 - bias) << 23);
        return (r + (1u << (s - 1)) - 1 + ((r >> s) & 1)) >> s;
    }
    int shift = s + 1 - E;
    if (shift > 25) return 0;                      /* below half of the smallest subnormal */
    uint32_t full = (abs & 0x7FFFFFu) | 0x800000u; /* float32 subnormals: returned above */
    return (full + (1u << (shift - 1)) - 1 + ((full >> shift) & 1)) >> shift;
}

/* The float32 bits of exponent field E and mantissa M of such a grid (no special codes). */
static inline uint32_t decode_abs(uint32_t E, uint32_t M, int m, int bias)
{
    if (E) return ((E + (uint32_t)(127 - bias)) << 23) | (M << (23 - m));
    if (!M) return 0;
    int up = __builtin_clz(M) - (31 - m); /* brings the leading one to bit m */
    return ((uint32_t)(127 - bias + 1 - up) << 23) | (((M << up) << (23 - m)) & 0x7FFFFFu);
}

uint16_t bf16_from_f32(float x)
{
    uint32_t u = f32_bits(x);
    if (bits_nan(u)) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7FFFu + ((u >> 16) & 1)) >> 16);
}

float f32_from_bf16(uint16_t x) { return f32_of((uint32_t)x << 16); }

uint16_t f16_from_f32(float x)
{
    uint32_t u = f32_bits(x), sign = (u >> 16) & 0x8000u, abs = u & 0x7FFFFFFFu;
    if (bits_nan(u)) return (uint16_t)(sign | 0x7E00u | ((abs >> 13) & 0x3FFu));
    uint32_t r = encode_abs(abs, 10, 15);
    return (uint16_t)(sign | (r > 0x7C00u ? 0x7C00u : r));
}

float f32_from_f16(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000u) << 16, E = (x >> 10) & 31u, M = x & 0x3FFu;
    if (E == 31) return f32_of(sign | 0x7F800000u | (M << 13));
    return f32_of(sign | decode_abs(E, M, 10, 15));
}

uint8_t e4m3_from_f32(float x)
{
    uint32_t u = f32_bits(x), r;
    if (bits_nan(u)) return 0x7F;
    r = encode_abs(u & 0x7FFFFFFFu, 3, 7);
    return (uint8_t)(((u >> 24) & 0x80u) | (r > 0x7Eu ? 0x7Eu : r));
}

float f32_from_e4m3(uint8_t x)
{
    uint32_t sign = (uint32_t)(x & 0x80u) << 24, E = (x >> 3) & 15u, M = x & 7u;
    if (E == 15 && M == 7) return f32_of(sign | 0x7FC00000u);
    return f32_of(sign | decode_abs(E, M, 3, 7));
}

uint8_t e5m2_from_f32(float x)
{
    uint32_t u = f32_bits(x), r;
    if (bits_nan(u)) return 0x7F;
    r = encode_abs(u & 0x7FFFFFFFu, 2, 15);
    return (uint8_t)(((u >> 24) & 0x80u) | (r > 0x7Bu ? 0x7Bu : r));
}

float f32_from_e5m2(uint8_t x)
{
    uint32_t sign = (uint32_t)(x & 0x80u) << 24, E = (x >> 2) & 31u, M = x & 3u;
    if (E == 31) return f32_of(sign | 0x7F800000u | (M ? 0x400000u | (M << 21) : 0));
    return f32_of(sign | decode_abs(E, M, 2, 15));
}

static int64_t to_signed(float x, double lo, double hi, int64_t min, int64_t max)
{
    if (bits_nan(f32_bits(x))) return 0;
    double r = rint((double)x);
    return r <= lo ? min : r >= hi ? max : (int64_t)r;
}

static uint64_t to_unsigned(float x, double hi, uint64_t max)
{
    if (bits_nan(f32_bits(x))) return 0;
    double r = rint((double)x);
    return r <= 0 ? 0 : r >= hi ? max : (uint64_t)r;
}

/* src need not be aligned: files put tensors anywhere. */
#define EACH_IN(type, expr)                                                                                  \
    for (size_t i = 0; i < n; i++) {                                                                         \
        type v;                                                                                              \
        memcpy(&v, (const unsigned char *)src + i * sizeof v, sizeof v);                                     \
        dst[i] = (expr);                                                                                     \
    }                                                                                                        \
    return true
#define EACH_OUT(type, expr)                                                                                 \
    for (size_t i = 0; i < n; i++) {                                                                         \
        float x = src[i];                                                                                    \
        type v = (type)(expr);                                                                               \
        memcpy((unsigned char *)dst + i * sizeof v, &v, sizeof v);                                           \
    }                                                                                                        \
    return true

bool dtype_to_f32(float *dst, const void *src, DType t, size_t n)
{
    switch (t) {
    case DT_F32:
        if (n) memcpy(dst, src, n * sizeof *dst);
        return true;
    case DT_F64: EACH_IN(double, (float)v);
    case DT_F16: EACH_IN(uint16_t, f32_from_f16(v));
    case DT_BF16: EACH_IN(uint16_t, f32_from_bf16(v));
    case DT_F8_E4M3: EACH_IN(uint8_t, f32_from_e4m3(v));
    case DT_F8_E5M2: EACH_IN(uint8_t, f32_from_e5m2(v));
    case DT_I8: EACH_IN(int8_t, (float)v);
    case DT_U8: EACH_IN(uint8_t, (float)v);
    case DT_I16: EACH_IN(int16_t, (float)v);
    case DT_U16: EACH_IN(uint16_t, (float)v);
    case DT_I32: EACH_IN(int32_t, (float)v);
    case DT_U32: EACH_IN(uint32_t, (float)v);
    case DT_I64: EACH_IN(int64_t, (float)v);
    case DT_U64: EACH_IN(uint64_t, (float)v);
    case DT_BOOL: EACH_IN(uint8_t, v ? 1.0f : 0.0f);
    case DT_COUNT: break;
    }
    return false;
}

bool dtype_from_f32(void *dst, DType t, const float *src, size_t n)
{
    switch (t) {
    case DT_F32:
        if (n) memcpy(dst, src, n * sizeof *src);
        return true;
    case DT_F64: EACH_OUT(double, x);
    case DT_F16: EACH_OUT(uint16_t, f16_from_f32(x));
    case DT_BF16: EACH_OUT(uint16_t, bf16_from_f32(x));
    case DT_F8_E4M3: EACH_OUT(uint8_t, e4m3_from_f32(x));
    case DT_F8_E5M2: EACH_OUT(uint8_t, e5m2_from_f32(x));
    case DT_I8: EACH_OUT(int8_t, to_signed(x, INT8_MIN, INT8_MAX, INT8_MIN, INT8_MAX));
    case DT_U8: EACH_OUT(uint8_t, to_unsigned(x, UINT8_MAX, UINT8_MAX));
    case DT_I16: EACH_OUT(int16_t, to_signed(x, INT16_MIN, INT16_MAX, INT16_MIN, INT16_MAX));
    case DT_U16: EACH_OUT(uint16_t, to_unsigned(x, UINT16_MAX, UINT16_MAX));
    case DT_I32: EACH_OUT(int32_t, to_signed(x, INT32_MIN, INT32_MAX, INT32_MIN, INT32_MAX));
    case DT_U32: EACH_OUT(uint32_t, to_unsigned(x, UINT32_MAX, UINT32_MAX));
    case DT_I64: EACH_OUT(int64_t, to_signed(x, -0x1p63, 0x1p63, INT64_MIN, INT64_MAX));
    case DT_U64: EACH_OUT(uint64_t, to_unsigned(x, 0x1p64, UINT64_MAX));
    case DT_BOOL: EACH_OUT(uint8_t, (f32_bits(x) & 0x7FFFFFFFu) != 0);
    case DT_COUNT: break;
    }
    return false;
}
