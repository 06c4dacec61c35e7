/* tests/test_numbers.c: floor 0: codecs of the storage types over all their codes, random numbers against
 * published vectors. The oracle of the codecs is the definition in double arithmetic, which shares nothing
 * with core/dtype.c.
 */
#include "core/core.h"
#include "tests/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Value of code c with e exponent bits, m mantissa bits and bias b, special codes left aside. */
static double value_of(unsigned c, int e, int m, int b)
{
    int E = (int)(c >> m) & ((1 << e) - 1), M = (int)c & ((1 << m) - 1);
    double v = E ? ldexp(1.0 + ldexp(M, -m), E - b) : ldexp(M, 1 - b - m);
    return (c >> (e + m)) & 1 ? -v : v;
}

static uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

TEST(dtype, all_f16_codes)
{
    for (unsigned c = 0; c < 65536; c++) {
        float x = f32_from_f16((uint16_t)c);
        bool top = (c >> 10 & 31) == 31, nan = top && (c & 0x3FF);
        if (nan) {
            ASSERT(isnan(x));
            ASSERT(isnan(f32_from_f16(f16_from_f32(x))));
            continue;
        }
        double want = top ? (c >> 15 ? -INFINITY : INFINITY) : value_of(c, 5, 10, 15);
        ASSERT_EQ((double)x, want);
        ASSERT_EQ(signbit(x) != 0, (c >> 15) != 0);
        ASSERT_EQ(f16_from_f32(x), c);
    }
}

TEST(dtype, all_bf16_codes)
{
    for (unsigned c = 0; c < 65536; c++) {
        float x = f32_from_bf16((uint16_t)c);
        bool top = (c >> 7 & 255) == 255, nan = top && (c & 0x7F);
        if (nan) {
            ASSERT(isnan(x));
            ASSERT_EQ(bf16_from_f32(x), c | 0x40u);
            continue;
        }
        if (!top) ASSERT_EQ((double)x, value_of(c, 8, 7, 127));
        ASSERT_EQ(bf16_from_f32(x), c);
    }
}

TEST(dtype, all_f8_codes)
{
    for (unsigned c = 0; c < 256; c++) {
        float x = f32_from_e4m3((uint8_t)c), y = f32_from_e5m2((uint8_t)c);
        if ((c & 0x7F) == 0x7F) {
            ASSERT(isnan(x));
            ASSERT_EQ(e4m3_from_f32(x), 0x7F);
        } else {
            ASSERT_EQ((double)x, value_of(c, 4, 3, 7));
            ASSERT_EQ(e4m3_from_f32(x), c);
        }
        if ((c & 0x7F) > 0x7C) {
            ASSERT(isnan(y));
            ASSERT_EQ(e5m2_from_f32(y), 0x7F);
        } else if ((c & 0x7F) == 0x7C) {
            ASSERT(isinf(y) && (y < 0) == (c >> 7 == 1));
            ASSERT_EQ(e5m2_from_f32(y), (c & 0x80) | 0x7B); /* saturates */
        } else {
            ASSERT_EQ((double)y, value_of(c, 5, 2, 15));
            ASSERT_EQ(e5m2_from_f32(y), c);
        }
    }
}

/* formats.md 1.3: the conversions that every oracle agrees on, saturating. */
TEST(dtype, f8_published_table)
{
    static const struct {
        float x;
        int e4m3, e5m2;
    } T[] = {
        {448, 0x7E, 0x5F},
        {449, 0x7E, 0x5F},
        {464, 0x7E, 0x5F},
        {465, 0x7E, -1},
        {1e9f, 0x7E, 0x7B},
        {57344, 0x7E, 0x7B},
        {61439, 0x7E, 0x7B},
        {61440, 0x7E, 0x7B},
        {INFINITY, 0x7E, 0x7B},
        {-INFINITY, 0xFE, 0xFB},
        {NAN, 0x7F, 0x7F},
        {-NAN, 0x7F, 0x7F},
        {0x1p-10f, 0x00, 0x14},
        {0.00097657f, 0x01, 0x14},
        {17, 0x58, 0x4C},
        {19, 0x5A, 0x4D},
        {-0.0f, 0x80, 0x80},
        {0.015625f, 0x08, -1},
        {0.001953125f, 0x01, -1},
        {0.013671875f, 0x07, -1},
        {0x1p-14f, -1, 0x04},
        {0x1p-16f, -1, 0x01},
        {4.57763671875e-05f, -1, 0x03},
        {0x1p-17f, 0x00, 0x00},
        {0x1.000002p-17f, 0x00, 0x01},
        {0x1p-149f, 0x00, 0x00},
    };
    for (size_t i = 0; i < sizeof T / sizeof *T; i++) {
        ASSERT_MSG(T[i].e4m3 < 0 || e4m3_from_f32(T[i].x) == T[i].e4m3, "e4m3(%a) = %#x, want %#x",
                   (double)T[i].x, e4m3_from_f32(T[i].x), (unsigned)T[i].e4m3);
        ASSERT_MSG(T[i].e5m2 < 0 || e5m2_from_f32(T[i].x) == T[i].e5m2, "e5m2(%a) = %#x, want %#x",
                   (double)T[i].x, e5m2_from_f32(T[i].x), (unsigned)T[i].e5m2);
    }
}

typedef struct Grid {
    int e, m, b, max_code;
    bool saturates;
    unsigned (*encode)(float);
} Grid;
static unsigned enc_f16(float x) { return f16_from_f32(x); }
static unsigned enc_bf16(float x) { return bf16_from_f32(x); }
static unsigned enc_e4m3(float x) { return e4m3_from_f32(x); }
static unsigned enc_e5m2(float x) { return e5m2_from_f32(x); }

/* Between each two neighbouring codes: just below the middle goes down, the middle to the even code, just
 * above up. */
static void check_rounding(Grid g)
{
    unsigned sign = 1u << (g.e + g.m);
    for (int c = 0; c < g.max_code; c++) {
        double lo = value_of((unsigned)c, g.e, g.m, g.b), hi = value_of((unsigned)c + 1, g.e, g.m, g.b);
        float mid = (float)((lo + hi) / 2);
        /* below float32's own grid */
        if ((double)mid < (lo + hi) / 2 || (double)mid > (lo + hi) / 2) continue;
        float below = from_bits(bits(mid) - 1), above = from_bits(bits(mid) + 1);
        unsigned even = (unsigned)(c % 2 ? c + 1 : c);
        ASSERT_MSG(g.encode(mid) == even, "middle %a of codes %x, %x -> %x", (double)mid, (unsigned)c,
                   (unsigned)c + 1, g.encode(mid));
        ASSERT_EQ(g.encode(below), (unsigned)c);
        ASSERT_EQ(g.encode(above), (unsigned)c + 1);
        ASSERT_EQ(g.encode(-mid), even | sign);
    }
    double last = value_of((unsigned)g.max_code, g.e, g.m, g.b);
    double step = last - value_of((unsigned)g.max_code - 1, g.e, g.m, g.b);
    float edge = (float)(last + step / 2); /* halfway to the code that is not there */
    ASSERT_EQ(g.encode(from_bits(bits(edge) - 1)), (unsigned)g.max_code);
    ASSERT_EQ(g.encode(edge), (unsigned)g.max_code + (g.saturates ? 0 : 1));
    ASSERT_EQ(g.encode(INFINITY), (unsigned)g.max_code + (g.saturates ? 0 : 1));
}

TEST(dtype, rounds_to_nearest_even)
{
    check_rounding((Grid){5, 10, 15, 0x7BFF, false, enc_f16});
    check_rounding((Grid){8, 7, 127, 0x7F7F, false, enc_bf16});
    check_rounding((Grid){4, 3, 7, 0x7E, true, enc_e4m3});
    check_rounding((Grid){5, 2, 15, 0x7B, true, enc_e5m2});
}

TEST(dtype, nan_stays_nan)
{
    const uint32_t nans[] = {0x7F800001u, 0x7FC00000u, 0x7FFFFFFFu, 0xFF800001u, 0xFFC00000u, 0xFFFFFFFFu};
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
        float x = from_bits(nans[i]);
        ASSERT(isnan(f32_from_f16(f16_from_f32(x))));
        ASSERT(isnan(f32_from_bf16(bf16_from_f32(x))));
        ASSERT_EQ(e4m3_from_f32(x), 0x7F);
        ASSERT_EQ(e5m2_from_f32(x), 0x7F);
    }
}

TEST(dtype, names)
{
    for (int t = 0; t < DT_COUNT; t++) {
        DType u = DT_COUNT;
        ASSERT(dtype_parse(dtype_name((DType)t), &u) && u == (DType)t);
        ASSERT(dtype_parse(dtype_long_name((DType)t), &u) && u == (DType)t);
        ASSERT(dtype_size((DType)t) > 0);
    }
    DType u;
    ASSERT(!dtype_parse("F8_E4M3FNUZ", &u));
    ASSERT_STR(dtype_name(DT_F8_E4M3), "F8_E4M3");
    ASSERT_STR(dtype_long_name(DT_BF16), "bfloat16");
    ASSERT_EQ(dtype_size(DT_COUNT), 0u);
}

/* Every type there and back at an odd address, with the threads' subnormal mode on: codecs do not depend on
 * it. */
TEST(dtype, arrays_round_trip)
{
    static const float x[] = {0, 1, -1, 2, 3.5f, -2.5f, 0.25f, 100, 127, -128};
    /* 3.5 -> 4, -2.5 -> -2: to even */
    static const float whole[] = {0, 1, -1, 2, 4, -2, 0, 100, 127, -128};
    enum { N = sizeof x / sizeof *x };
    unsigned char raw[8 * N + 1];
    float y[N];
    threads_init(1);
    for (int t = 0; t < DT_COUNT; t++) {
        ASSERT(dtype_from_f32(raw + 1, (DType)t, x, N));
        ASSERT(dtype_to_f32(y, raw + 1, (DType)t, N));
        for (int i = 0; i < N; i++) {
            float want = t >= DT_I8 ? whole[i] : x[i];
            bool is_unsigned = t == DT_U8 || t == DT_U16 || t == DT_U32 || t == DT_U64;
            if (is_unsigned && want < 0) want = 0;
            if (t == DT_BOOL) want = x[i] < 0 || x[i] > 0 ? 1 : 0;
            /* 127 is not on that grid, nor 100 on E5M2's */
            if (t == DT_F8_E4M3 && x[i] > 100) want = 128;
            if (t == DT_F8_E4M3 && x[i] >= 100 && x[i] < 101) want = 96;
            if (t == DT_F8_E5M2 && x[i] >= 100) want = x[i] > 100 ? 128 : 96;
            ASSERT_MSG(bits(y[i]) == bits(want) || (y[i] >= want && y[i] <= want), "%s of %g: %g, want %g",
                       dtype_name((DType)t), (double)x[i], (double)y[i], (double)want);
        }
    }
    ASSERT(!dtype_to_f32(y, raw, DT_COUNT, 1));
    float sub = from_bits(1);
    ASSERT(dtype_from_f32(raw, DT_F32, &sub, 1) && dtype_to_f32(y, raw, DT_F32, 1));
    ASSERT_EQ(bits(y[0]), 1u);
    ASSERT_EQ(bits(f32_from_f16(1)), bits(0x1p-24f));
}

TEST(dtype, integers_saturate)
{
    static const float x[] = {1e30f, -1e30f, NAN, INFINITY, -INFINITY};
    int8_t a[5];
    uint16_t b[5];
    int64_t c[5];
    uint64_t d[5];
    ASSERT(dtype_from_f32(a, DT_I8, x, 5) && dtype_from_f32(b, DT_U16, x, 5));
    ASSERT(dtype_from_f32(c, DT_I64, x, 5) && dtype_from_f32(d, DT_U64, x, 5));
    ASSERT(a[0] == 127 && a[1] == -128 && a[2] == 0 && a[3] == 127 && a[4] == -128);
    ASSERT(b[0] == 65535 && b[1] == 0 && b[2] == 0 && b[3] == 65535 && b[4] == 0);
    ASSERT(c[0] == INT64_MAX && c[1] == INT64_MIN && c[2] == 0 && c[4] == INT64_MIN);
    ASSERT(d[0] == UINT64_MAX && d[1] == 0 && d[2] == 0 && d[3] == UINT64_MAX);
}

/* Known answers of the Random123 distribution (kat_vectors, philox4x32-10). */
TEST(rng, philox_published_vectors)
{
    static const uint32_t T[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {~0u, ~0u, ~0u, ~0u, ~0u, ~0u, 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb,
         0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        philox4x32_10(out, T[i], T[i] + 4);
        for (int k = 0; k < 4; k++) ASSERT_EQ(out[k], T[i][6 + k]);
    }
}

TEST(rng, counters_as_documented)
{
    RngKey k = {.seed = 0x1122334455667788ull, .step = 5, .stream = 6, .sample = 7};
    const uint32_t key[2] = {0x55667788u, 0x11223344u};
    for (uint32_t i = 0; i < 40; i++) {
        const uint32_t ctr[4] = {i / 4, 5, 6, 7};
        uint32_t w[4];
        philox4x32_10(w, ctr, key);
        ASSERT_EQ(rng_u32(k, i), w[i % 4]);
        ASSERT_EQ(rng_uniform(k, i), w[i % 4] / 4294967296.0);
    }
    ASSERT_EQ(rng_stream("wte.weight"), (uint32_t)hash64("wte.weight", 10));
    ASSERT_NE(rng_stream("a"), rng_stream("b"));
}

TEST(rng, hashes_published_vectors)
{
    char hex[33];
    ASSERT_EQ(hash64("", 0), 0x2d06800538d394c2ull); /* XXH3 with seed 0 of the empty input */
    hash128_hex(hex, "", 0);
    ASSERT_STR(hex, "99aa06d3014798d86001c324468d497f");
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Kolmogorov-Smirnov distance of sorted draws from a distribution function; 1.95 / sqrt(n) is its 0.1 %
 * point. */
static double ks_distance(float *x, size_t n, double (*cdf)(double))
{
    double worst = 0;
    qsort(x, n, sizeof *x, by_value);
    for (size_t i = 0; i < n; i++) {
        double f = cdf((double)x[i]);
        worst = fmax(worst, fmax(f - (double)i / (double)n, (double)(i + 1) / (double)n - f));
    }
    return worst;
}

static double normal_cdf(double x) { return 0.5 * erfc(-x / sqrt(2.0)); }
static double uniform_cdf(double x) { return (x + 2) / 5; }

TEST(rng, distributions)
{
    enum { N = 200000 };
    static float x[N];
    RngKey k = {.seed = 42, .stream = rng_stream("w")};
    rng_normal_f32(x, N, k, 0, 1);
    double s1 = 0, s2 = 0, cross = 0;
    for (int i = 0; i < N; i++) {
        s1 += (double)x[i];
        s2 += (double)x[i] * (double)x[i];
        if (i) cross += (double)x[i] * (double)x[i - 1];
    }
    ASSERT_CLOSE(s1 / N, 0.0, 0, 4 / sqrt(N));
    ASSERT_CLOSE(s2 / N, 1.0, 0, 4 * sqrt(2.0 / N));
    ASSERT_CLOSE(cross / N, 0.0, 0, 4 / sqrt(N));
    ASSERT(ks_distance(x, N, normal_cdf) < 1.95 / sqrt(N));
    rng_uniform_f32(x, N, k, -2, 3);
    ASSERT(ks_distance(x, N, uniform_cdf) < 1.95 / sqrt(N));
    rng_normal_f32(x, 3, k, 10, 0);
    ASSERT(x[0] >= 10 && x[0] <= 10 && x[2] >= 10 && x[2] <= 10);
}

/* A prefix of a longer draw is the shorter draw, on any number of threads: a number depends on its element
 * only. */
TEST(rng, same_numbers_on_any_number_of_threads)
{
    enum { N = 100001 };
    static float x[N], y[N];
    RngKey k = {.seed = 1, .step = 2, .stream = 3, .sample = 4};
    threads_init(1);
    rng_normal_f32(x, N, k, 0.5, 2);
    threads_init(3);
    rng_normal_f32(y, N, k, 0.5, 2);
    ASSERT_BYTES(x, y, sizeof x);
    memset(y, 0, sizeof y);
    rng_normal_f32(y, 1002, k, 0.5, 2);
    ASSERT_BYTES(x, y, 1002 * sizeof *x);
    ASSERT_EQ(y[1002], 0);
}

TEST(rng, permute_is_a_bijection)
{
    static unsigned char seen[5000];
    for (uint64_t n = 1; n < 5000; n = n < 70 ? n + 1 : n * 2 + 1) {
        for (uint64_t epoch = 0; epoch < 3; epoch++) {
            memset(seen, 0, sizeof seen);
            for (uint64_t i = 0; i < n; i++) {
                uint64_t j = rng_permute(i, n, 42, epoch);
                ASSERT(j < n && !seen[j]);
                seen[j] = 1;
            }
        }
    }
    uint64_t big = 0xFFFFFFFFFFFFull;
    ASSERT(rng_permute(123456789, big, 1, 0) < big);
    ASSERT_NE(rng_permute(5, 4000, 42, 0), rng_permute(5, 4000, 42, 1));
    ASSERT_EQ(rng_permute(5, 4000, 42, 7), rng_permute(5, 4000, 42, 7));
}

/* Where an element goes is even over epochs (chi-squared, 0.1 % points) and neighbours do not stay
 * neighbours. */
TEST(rng, permute_is_even)
{
    static const struct {
        uint64_t n;
        double limit;
    } T[] = {{3, 13.8}, {5, 18.5}, {16, 37.7}, {30, 58.3}};
    for (size_t t = 0; t < sizeof T / sizeof *T; t++) {
        enum { EPOCHS = 20000 };
        uint64_t n = T[t].n;
        for (uint64_t i = 0; i < n; i += n - 1) {
            double count[32] = {0}, chi = 0, want = (double)EPOCHS / (double)n;
            for (uint64_t epoch = 0; epoch < EPOCHS; epoch++) count[rng_permute(i, n, 9, epoch)]++;
            for (uint64_t j = 0; j < n; j++) chi += (count[j] - want) * (count[j] - want) / want;
            ASSERT_MSG(chi < T[t].limit, "n %llu element %llu: chi squared %.1f over %.1f",
                       (unsigned long long)n, (unsigned long long)i, chi, T[t].limit);
        }
    }
    int kept = 0;
    for (uint64_t i = 0; i + 1 < 10000; i++)
        kept += rng_permute(i + 1, 10000, 3, 0) == rng_permute(i, 10000, 3, 0) + 1;
    ASSERT(kept < 10);
}
