/* tests/test_codec.c: number formats against exact tables, PyTorch's float8 types and hand-computed scales;
 * and fake(x) == decode(encode(x)), bit for bit, for every format. */
#include "formats/formats.h"
#include "tests/test.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint32_t bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static float from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, 4);
    return x;
}

/* ---- casts against an exact slow reference ---- */
/* Values of the non-negative codes in double, from the definition of formats.md 1.1. */
typedef struct Grid {
    const char *format;
    int e, m, bias, n; /* n codes 0..n-1 are finite */
    double value[128];
    int nan;    /* code of NaN */
    float nanv; /* its value */
} Grid;

static void grid_make(Grid *g)
{
    for (int c = 0; c < g->n; c++) {
        int E = c >> g->m, M = c & ((1 << g->m) - 1);
        g->value[c] = E ? ldexp(1 + ldexp(M, -g->m), E - g->bias) : ldexp(M, 1 - g->bias - g->m);
    }
}

/* Nearest code to |x|, ties to the even one, beyond the last value the last code: all in exact doubles. */
static int grid_nearest(const Grid *g, double a)
{
    int lo = 0, hi = g->n - 1;
    if (a >= g->value[hi]) return hi;
    while (hi - lo > 1) {
        int mid = (lo + hi) / 2;
        if (g->value[mid] <= a) lo = mid;
        else hi = mid;
    }
    double down = a - g->value[lo], up = g->value[hi] - a; /* exact: at most 53 bits apart */
    return down < up || (down == up && lo % 2 == 0) ? lo : hi;
}

static long check_chunk(const Grid *g, const QuantFormat *f, const float *x, long n)
{
    enum { N = 4096 };
    float y[N], z[N];
    uint8_t code[N];
    const QuantRun one = {.div = 1, .mul = 1, .tensor = 1};
    f->fake(y, x, n, &one);
    f->encode(code, x, n, &one);
    f->decode(z, code, n, &one);
    for (long i = 0; i < n; i++) {
        int sign = bits(x[i]) >> 31 ? 1 : 0, want;
        float value;
        if (isnan(x[i])) {
            want = g->nan;
            value = g->nanv;
        } else {
            int c = grid_nearest(g, fabs((double)x[i]));
            want = c | sign << (g->e + g->m);
            value = sign ? -(float)g->value[c] : (float)g->value[c];
        }
        if (code[i] != want || bits(y[i]) != bits(value) || bits(z[i]) != bits(value)) return i;
    }
    return -1;
}

static void check_grid(Grid *g)
{
    enum { N = 4096 };
    const QuantFormat *f = quant_format(g->format);
    ASSERT(f != NULL);
    grid_make(g);
    static float x[N];
    long n = 0;
    /* every value and every middle, seven neighbours on both sides, both signs */
    for (int c = 0; c < g->n; c++)
        for (int half = 0; half < 2; half++) {
            double v = half ? (g->value[c] + (c + 1 < g->n ? g->value[c + 1] : 2 * g->value[c])) / 2
                            : g->value[c];
            for (int d = -7; d <= 7; d++)
                for (uint32_t s = 0; s < 2; s++) {
                    if (bits((float)v) == 0 && d < 0) continue;
                    x[n++] = from_bits((bits((float)v) + (uint32_t)d) | s << 31);
                    if (n == N) {
                        ASSERT_EQ(check_chunk(g, f, x, n), -1);
                        n = 0;
                    }
                }
        }
    ASSERT_EQ(check_chunk(g, f, x, n), -1);
    /* every bit pattern when asked (make exhaustive), else every 5003rd */
    const uint64_t all = UINT64_C(1) << 32, step = getenv("PARE_EXHAUSTIVE") ? 1 : 5003;
    const long chunks = (long)((all / step + N - 1) / N);
    int64_t bad = -1;
#pragma omp parallel for schedule(dynamic, 64)
    for (long b = 0; b < chunks; b++) {
        float v[N];
        long m = 0;
        for (; m < N && ((uint64_t)b * N + (uint64_t)m) * step < all; m++)
            v[m] = from_bits((uint32_t)(((uint64_t)b * N + (uint64_t)m) * step));
        long at = check_chunk(g, f, v, m);
#pragma omp critical
        if (at >= 0 && bad < 0) bad = (int64_t)bits(v[at]);
    }
    if (bad >= 0) test_fail(__FILE__, __LINE__, "%s: float 0x%08llx", g->format, (unsigned long long)bad);
}

TEST(codec, exhaustive_e4m3)
{
    check_grid(&(Grid){"fp8_e4m3", 4, 3, 7, 127, {0}, 0x7F, from_bits(0x7FC00000)});
}
TEST(codec, exhaustive_e5m2)
{
    check_grid(&(Grid){"fp8_e5m2", 5, 2, 15, 124, {0}, 0x7F, from_bits(0x7FE00000)});
}
TEST(codec, exhaustive_e2m1) { check_grid(&(Grid){"fp4_e2m1", 2, 1, 1, 8, {0}, 7, 6.0f}); }

TEST(codec, e8m0)
{
    for (int c = 0; c < 255; c++) {
        ASSERT_EQ((double)f32_from_e8m0((uint8_t)c), ldexp(1, c - 127));
        ASSERT_EQ((int)e8m0_from_f32(f32_from_e8m0((uint8_t)c)), c);
    }
    ASSERT(isnan(f32_from_e8m0(0xFF)));
    ASSERT_EQ((int)e8m0_from_f32(NAN), 0xFF);
    ASSERT_EQ((int)e8m0_from_f32(1.5f), 0xFF);
    ASSERT_EQ((int)e8m0_from_f32(0.0f), 0xFF);
    ASSERT_EQ((int)e8m0_from_f32(-2.0f), 0xFF);
}

/* ---- fake == decode(encode) ---- */
enum { ROWS = 37, COLS = 150 };

static void fill(float *x, int kind, long n)
{
    rng_normal_f32(x, (size_t)n, (RngKey){.seed = 5, .stream = (uint32_t)kind}, 0, 1);
    RngKey key = {.seed = 6, .stream = (uint32_t)kind};
    for (long i = 0; i < n; i++) {
        uint32_t r = rng_u32(key, (uint32_t)i);
        if (kind == 1) x[i] = from_bits(r);                       /* any float, NaN and infinities too */
        if (kind == 2) x[i] = ldexpf(x[i], (int)(r % 240) - 140); /* all magnitudes, subnormal too */
        if (kind == 3) x[i] = (float)((int)(r % 33) - 16) / 4;    /* ties */
        if (kind == 4) x[i] = r % 3 ? 0.0f : -0.0f;               /* zeros of both signs */
        if (kind == 5) x[i] = from_bits(r & 0x800000FFu);         /* tiny subnormals */
        if (kind == 6) x[i] = ldexpf(x[i], 124);                  /* near the top: some overflow */
        if (kind == 7 && (r & 1023) == 0) x[i] = r & 1024 ? INFINITY : NAN;
    }
}
enum { KINDS = 8 };

static void same_bits(const QuantSpec *s, const char *what, int kind)
{
    Arena a = {.name = "codec"};
    Err e = {0};
    float *x = arena_alloc(&a, sizeof(float) * ROWS * COLS, &e),
          *y = arena_alloc(&a, sizeof(float) * ROWS * COLS, &e),
          *z = arena_alloc(&a, sizeof(float) * ROWS * COLS, &e);
    uint8_t *codes = arena_alloc(&a, ROWS * quant_row_bytes(s, COLS), &e);
    QuantScales q;
    fill(x, kind, ROWS * COLS);
    ASSERT(quant_scales_alloc(&q, s, ROWS, COLS, &a, &e));
    quant_scales(&q, s, x, ROWS, COLS);
    quant_fake(y, x, s, &q, COLS, 0, ROWS);
    quant_encode(codes, x, s, &q, COLS, 0, ROWS);
    quant_decode(z, codes, s, &q, COLS, 0, ROWS);
    for (long i = 0; i < ROWS * COLS; i++)
        if (bits(y[i]) != bits(z[i]))
            test_fail(__FILE__, __LINE__, "%s %s kind %d: x[%ld] = %a: fake %a, decoded %a", s->f->name, what,
                      kind, i, (double)x[i], (double)y[i], (double)z[i]);
    arena_free(&a);
}

/* Every format with every grid of scales and every option it takes. */
static void each_spec(void (*f)(const QuantSpec *, const char *, int))
{
    for (int i = 0; i < n_quant_formats; i++) {
        const QuantFormat *q = &quant_formats[i];
        for (int kind = 0; kind < KINDS; kind++) {
            if (q->block > 0) {
                for (int r = 0; r < (q->scale == SCALE_E8M0 ? 3 : 1); r++)
                    f(&(QuantSpec){.f = q, .block_rows = 1, .block_cols = q->block, .rule = (MxRule)r},
                      "block", kind);
                f(&(QuantSpec){.f = q, .block_rows = 1, .block_cols = q->block, .search = true}, "search",
                  kind);
                continue;
            }
            f(&(QuantSpec){.f = q, .block_rows = 1, .block_cols = 64}, "group 64", kind);
            f(&(QuantSpec){.f = q, .block_rows = 1, .block_cols = 7}, "group 7", kind);
            if (q->elem == ELEM_NF4) {
                f(&(QuantSpec){.f = q, .block_rows = 1, .block_cols = 64, .double_quant = true}, "double",
                  kind);
                continue;
            }
            f(&(QuantSpec){.f = q}, "tensor", kind);
            f(&(QuantSpec){.f = q, .block_rows = 1}, "channel", kind);
            f(&(QuantSpec){.f = q, .block_rows = 16, .block_cols = 64}, "16x64", kind);
            f(&(QuantSpec){.f = q, .block_rows = 1, .search = true}, "search", kind);
            if (q->elem != ELEM_INT) continue;
            f(&(QuantSpec){.f = q, .block_rows = 1, .full = true}, "full", kind);
            f(&(QuantSpec){.f = q, .block_rows = 1, .block_cols = 32, .asymmetric = true}, "asymmetric",
              kind);
        }
    }
}

TEST(codec, fake_is_decode_of_encode) { each_spec(same_bits); }

/* The same with the flush-to-zero mode of training threads. */
TEST(codec, fake_is_decode_of_encode_flushing)
{
    threads_init(1);
    each_spec(same_bits);
}

/* ---- properties ---- */
static void properties(const QuantSpec *s, const char *what, int kind)
{
    if (kind == 1 || kind == 6 || kind == 7 || kind == 5) return; /* finite blocks with room above */
    Arena a = {.name = "codec"};
    Err e = {0};
    long n = ROWS * COLS;
    float *x = arena_alloc(&a, sizeof(float) * (size_t)n, &e),
          *y = arena_alloc(&a, sizeof(float) * (size_t)n, &e),
          *z = arena_alloc(&a, sizeof(float) * (size_t)n, &e);
    fill(x, kind, n);
    QuantScales q;
    ASSERT(quant_scales_alloc(&q, s, ROWS, COLS, &a, &e));
    quant_scales(&q, s, x, ROWS, COLS);
    quant_fake(y, x, s, &q, COLS, 0, ROWS);
    quant_fake(z, y, s, &q, COLS, 0, ROWS); /* under the same scales: again the same */
    for (long i = 0; i < n; i++)
        if (bits(y[i]) != bits(z[i]))
            test_fail(__FILE__, __LINE__, "%s %s kind %d: not idempotent: %a -> %a -> %a", s->f->name, what,
                      kind, (double)x[i], (double)y[i], (double)z[i]);
    for (long r = 0; r < ROWS; r++) /* monotone within a block */
        for (long c = 1; c < COLS; c++) {
            long i = r * COLS + c;
            if (s->block_cols && c % s->block_cols == 0) continue;
            if ((x[i] >= x[i - 1] && y[i] < y[i - 1]) || (x[i] <= x[i - 1] && y[i] > y[i - 1]))
                test_fail(__FILE__, __LINE__, "%s %s: not monotone at %ld", s->f->name, what, i);
        }
    bool odd = s->f->elem != ELEM_NF4 && !s->asymmetric && !s->full && !s->search;
    if (odd) { /* -x gives -y; fresh scales of y give y */
        for (long i = 0; i < n; i++) z[i] = -x[i];
        quant_scales(&q, s, z, ROWS, COLS);
        quant_fake(z, z, s, &q, COLS, 0, ROWS);
        for (long i = 0; i < n; i++) ASSERT_EQ((double)z[i], -(double)y[i]);
    }
    if ((odd || s->f->elem == ELEM_NF4) && !s->double_quant && !s->search && kind != 2 &&
        s->rule != MX_BUMP_1P75) {
        quant_scales(&q, s, y, ROWS, COLS);
        quant_fake(z, y, s, &q, COLS, 0, ROWS);
        for (long i = 0; i < n; i++)
            if (bits(y[i]) != bits(z[i]))
                test_fail(__FILE__, __LINE__, "%s %s kind %d: fresh scale moves %a to %a", s->f->name, what,
                          kind, (double)y[i], (double)z[i]);
    }
    arena_free(&a);
}
TEST(codec, idempotent_monotone_odd) { each_spec(properties); }

/* A block with NaN or an infinity decodes to NaN, its neighbours are untouched. */
TEST(codec, not_finite)
{
    for (int i = 0; i < n_quant_formats; i++)
        for (int k = 0; k < 2; k++) {
            const QuantFormat *f = &quant_formats[i];
            QuantSpec s = {.f = f, .block_rows = 1, .block_cols = f->block > 0 ? f->block : 32};
            float x[128], y[128];
            Arena a = {.name = "codec"};
            Err e = {0};
            QuantScales q;
            for (int j = 0; j < 128; j++) x[j] = (float)(j % 9) - 4;
            x[70] = k ? -INFINITY : NAN;
            quant_scales_alloc(&q, &s, 1, 128, &a, &e);
            quant_scales(&q, &s, x, 1, 128);
            quant_fake(y, x, &s, &q, 128, 0, 1);
            for (int j = 0; j < 128; j++) {
                bool hit = f->scale == SCALE_E4M3 || j / s.block_cols == 70 / s.block_cols;
                ASSERT_EQ((int)isnan(y[j]), (int)hit);
            }
            arena_free(&a);
        }
}

/* ---- scales by hand ---- */
static float scale1(const QuantSpec *s, const float *x, long n, float *zero, float *tensor)
{
    Arena a = {.name = "codec"};
    Err e = {0};
    QuantScales q;
    quant_scales_alloc(&q, s, 1, n, &a, &e);
    quant_scales(&q, s, x, 1, n);
    float v = q.scale[0];
    if (zero) *zero = q.zero ? q.zero[0] : 0;
    if (tensor) *tensor = q.tensor;
    arena_free(&a);
    return v;
}

TEST(codec, scales_by_hand)
{
    float x[32] = {0.5f, -3, 1.75f}, zero, t;
    QuantSpec s = {.f = quant_format("int8"), .block_rows = 1};
    ASSERT_EQ((double)scale1(&s, x, 32, NULL, NULL), (double)(3.0f / 127));
    s.full = true;
    ASSERT_EQ((double)scale1(&s, x, 32, NULL, NULL), (double)(3.0f / 127.5f));
    s = (QuantSpec){.f = quant_format("int4"), .block_rows = 1, .asymmetric = true};
    ASSERT_EQ((double)scale1(&s, x, 32, &zero, NULL), (double)(4.75f / 15));
    ASSERT_EQ((double)zero, 9.0); /* 3 / 0.31667 = 9.47 */
    s = (QuantSpec){.f = quant_format("fp8_e4m3")};
    ASSERT_EQ((double)scale1(&s, x, 32, NULL, NULL), (double)(3.0f / 448));
    s = (QuantSpec){.f = quant_format("nvfp4"), .block_rows = 1, .block_cols = 16};
    ASSERT_EQ((double)scale1(&s, x, 32, NULL, &t), 448.0);
    ASSERT_EQ((double)t, (double)(3.0f / 2688));
    float zeros[32] = {0};
    ASSERT_EQ((double)scale1(&s, zeros, 32, NULL, &t), 1.0);
    ASSERT_EQ((double)t, 1.0);
    float far[32] = {100, 1}; /* a block 2^-20 of the largest: its scale is held at 2^-9 */
    for (int i = 16; i < 32; i++) far[i] = 1e-4f;
    Arena a = {.name = "codec"};
    Err e = {0};
    QuantScales q;
    quant_scales_alloc(&q, &s, 1, 32, &a, &e);
    quant_scales(&q, &s, far, 1, 32);
    ASSERT_EQ((double)q.scale[1], 0x1p-9);
    arena_free(&a);
    /* mx: amax, exponent under floor, ceil, bump_1p75 (E2M1: largest 6 = 1.5 2^2) */
    static const struct {
        float amax;
        int e[3];
    } mx[] = {{6, {0, 0, 0}},
              {6.001f, {0, 1, 0}},
              {7, {0, 1, 1}},
              {6.99f, {0, 1, 0}},
              {8, {1, 1, 1}},
              {5, {0, 0, 0}},
              {3.9999998f, {-1, 0, 0}},
              {4, {0, 0, 0}},
              {1, {-2, -2, -2}},
              {0.75f, {-3, -3, -3}},
              {0x1p-149f, {-127, -127, -127}},
              {0, {-127, -127, -127}},
              {0x1p127f, {125, 125, 125}}};
    for (size_t i = 0; i < sizeof mx / sizeof *mx; i++)
        for (int r = 0; r < 3; r++) {
            float v[32] = {0, -mx[i].amax};
            QuantSpec m = {.f = quant_format("mxfp4"), .block_rows = 1, .block_cols = 32, .rule = (MxRule)r};
            double have = (double)scale1(&m, v, 32, NULL, NULL), want = ldexp(1, mx[i].e[r]);
            if (have != want)
                test_fail(__FILE__, __LINE__, "%s of %g: %g, wanted %g", mx_rule_name((MxRule)r),
                          (double)mx[i].amax, have, want);
        }
}

/* Codes of a row: low nibble first, two's complement, short streams of 3 bits, NF4's padding. */
TEST(codec, packing_by_hand)
{
    float one = 1, x4[5] = {1, -1, 7, -7, 3}, x3[5] = {1, -1, 3, -3, 2}, e2[2] = {1, 6};
    QuantScales q = {.R = 1, .G = 1, .scale = &one, .tensor = 1};
    QuantSpec s = {.f = quant_format("int4"), .block_rows = 1};
    uint8_t b[32];
    quant_encode(b, x4, &s, &q, 5, 0, 1);
    ASSERT_EQ((int)quant_row_bytes(&s, 5), 3);
    ASSERT_EQ(b[0], 0xF1);
    ASSERT_EQ(b[1], 0x97);
    ASSERT_EQ(b[2], 0x03);
    s.f = quant_format("int3");
    quant_encode(b, x3, &s, &q, 5, 0, 1); /* 001 111 011 101 010, ascending */
    ASSERT_EQ((int)quant_row_bytes(&s, 5), 2);
    ASSERT_EQ(b[0] | b[1] << 8, 1 | 7 << 3 | 3 << 6 | 5 << 9 | 2 << 12);
    s.f = quant_format("fp4_e2m1");
    quant_encode(b, e2, &s, &q, 2, 0, 1);
    ASSERT_EQ(b[0], 0x72); /* formats.md 1.4 */
    s = (QuantSpec){.f = quant_format("nf4"), .block_rows = 1, .block_cols = 8};
    const float tie[2] = {0.03979014977812767f, -0.045525018125772476f}; /* the lower level of each pair */
    quant_encode(b, tie, &s, &q, 2, 0, 1);
    ASSERT_EQ(b[0], 0x67);
    float x1[1] = {1};
    quant_encode(b, x1, &s, &q, 1, 0, 1);
    ASSERT_EQ((int)quant_row_bytes(&s, 1), 4);
    ASSERT_EQ(b[0], 0x7F);
    ASSERT_EQ(b[3], 0x77);
}

/* The dynamic map: sorted, widest gap 2 x 0.00703 (quality.md C.2), ends -0.99297 and 1; double quantisation
 * stays within half of it. */
TEST(codec, double_quantisation)
{
    const float *m = dynamic_map();
    for (int i = 1; i < 256; i++) ASSERT(m[i] > m[i - 1]);
    ASSERT_CLOSE((double)m[0], -0.99296875, 0, 1e-7);
    ASSERT_EQ((double)m[127], 0.0);
    ASSERT_EQ((double)m[255], 1.0);
    ASSERT_CLOSE((double)m[128], 5.5e-7, 0, 1e-12);
    Arena a = {.name = "codec"};
    Err e = {0};
    enum { R = 64, C = 640 };
    float *x = arena_alloc(&a, sizeof(float) * R * C, &e);
    rng_normal_f32(x, R * C, (RngKey){.seed = 3}, 0, 1);
    QuantSpec s = {.f = quant_format("nf4"), .block_rows = 1, .block_cols = 64};
    QuantScales p, d;
    quant_scales_alloc(&p, &s, R, C, &a, &e);
    quant_scales(&p, &s, x, R, C);
    s.double_quant = true;
    quant_scales_alloc(&d, &s, R, C, &a, &e);
    quant_scales(&d, &s, x, R, C);
    for (int i = 0; i < R * C / 64; i++)
        ASSERT(fabsf(p.scale[i] - d.scale[i]) <= 0.00704f * d.dq_scale[i / 256]);
    ASSERT_CLOSE(quant_bits(&s, R, C), 4 + 8.0 / 64 + 8.0 * (64 + 1024 + 4 + 4 * 3) / (R * C), 1e-12, 0);
    arena_free(&a);
}
