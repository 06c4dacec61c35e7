/* tests/kernels_quant_impl.h: cases of the fake-quantisation kernels for tests/test_kernels.c: other number
 * formats at every shape, dynamic scales and ones that stand too low, so that values fall outside. The codecs
 * are float on every table: what is not added to anything is equal bit for bit.
 */
#ifndef KERNELS_QUANT_IMPL_H
#define KERNELS_QUANT_IMPL_H
#include "tests/kernels_impl.h"

/* Two formats a shape, all eight over four shapes. plain: formats with one float scale per block. */
static inline QuantSpec quant_of(const Ctx *c, bool plain)
{
    static const QuantSpec list[] = {
        {.f = &quant_formats[QUANT_int8], .block_rows = 1},
        {.f = &quant_formats[QUANT_fp8_e4m3], .block_rows = 2, .block_cols = 24},
        {.f = &quant_formats[QUANT_fp4_e2m1], .block_rows = 1, .block_cols = 16},
        {.f = &quant_formats[QUANT_fp8_e5m2]},
        {.f = &quant_formats[QUANT_int4], .block_rows = 1, .block_cols = 16, .asymmetric = true},
        {.f = &quant_formats[QUANT_nvfp4], .block_rows = 1, .block_cols = 16},
        {.f = &quant_formats[QUANT_mxfp4], .block_rows = 1, .block_cols = 32, .rule = MX_CEIL},
        {.f = &quant_formats[QUANT_nf4], .block_rows = 1, .block_cols = 64, .double_quant = true},
    };
    const int turn = (2 * c->shape + c->option) % (plain ? 4 : 8);
    return list[turn];
}

static inline float *floats_out(Ctx *c, long n)
{
    float *p = out_bytes(c, n, sizeof *p);
    memset(p, 0, (size_t)n * sizeof *p);
    return p;
}

/* Scales of x, all outputs but tensor compared. */
static inline QuantScales scales_of(Ctx *c, const QuantSpec *s, const void *x)
{
    const long n = quant_rows(s, c->a) * quant_groups(s, c->b);
    QuantScales q = {.R = quant_rows(s, c->a), .G = quant_groups(s, c->b), .scale = floats_out(c, n)};
    if (s->asymmetric) q.zero = floats_out(c, n);
    if (s->double_quant) {
        q.dq_code = alloc(c, (size_t)n);
        q.dq_scale = floats_out(c, n / 256 + 1);
    }
    float *tmp = c->k->real == sizeof(double) ? alloc(c, (size_t)(c->a * c->b) * sizeof *tmp) : NULL;
    c->k->fakequant_scales(&q, s, x, c->a, c->b, tmp);
    return q;
}

/* 0.6 of what would hold everything. */
static inline QuantScales low_scales(Ctx *c, const QuantSpec *s, const void *x)
{
    QuantScales q = scales_of(c, s, x);
    for (long i = 0; i < q.R * q.G; i++) q.scale[i] *= 0.6f;
    return q;
}

static void run_fakequant_scales(Ctx *c)
{
    const QuantSpec s = quant_of(c, false);
    const QuantScales q = scales_of(c, &s, in(c, c->a * c->b, 1));
    *floats_out(c, 1) = q.tensor;
}
/* Also against the definition: both tables compile one source. */
static void run_fakequant_amax(Ctx *c)
{
    const QuantSpec s = quant_of(c, false);
    const long G = quant_groups(&s, c->b), n = quant_rows(&s, c->a) * G, cells = c->a * c->b;
    const long br = s.block_rows ? s.block_rows : c->a, bc = s.block_cols ? s.block_cols : c->b;
    float *amax = floats_out(c, n), *want = alloc(c, (size_t)n * sizeof *want);
    const void *x = in(c, cells, 1);
    amax[0] = want[0] = 1.75f; /* what an earlier forward of the step saw */
    c->k->fakequant_amax(amax, &s, x, c->a, c->b);
    for (long i = 0; i < cells; i++) {
        float *at = &want[i / c->b / br * G + i % c->b / bc];
        const float v = c->k->real == sizeof(float) ? ((const float *)x)[i] : (float)((const double *)x)[i];
        *at = fmaxf(*at, fabsf(v));
    }
    ASSERT(!memcmp(amax, want, (size_t)n * sizeof *want));
}
static void run_fakequant_fwd(Ctx *c)
{
    const QuantSpec s = quant_of(c, false);
    void *x = in(c, c->a * c->b, 1), *y = out(c, c->a * c->b, 1);
    const QuantScales q = scales_of(c, &s, x);
    c->k->fakequant_fwd(y, x, &s, &q, c->a, c->b, c->mode);
}
/* Draws do not depend on who asks: the same rows one at a time. */
static void run_fakequant_random(Ctx *c)
{
    const QuantSpec s = quant_of(c, false);
    const long per = 1 + c->a / 2;
    const RngKey key = {.seed = 3, .step = 5, .stream = 7, .sample = 11};
    void *x = in(c, c->a * c->b, 1), *y = out(c, c->a * c->b, 1);
    const QuantScales q = scales_of(c, &s, x);
    c->k->fakequant_random(y, x, &s, &q, c->a, c->b, key, per, c->mode);
}
static void run_fakequant_clip(Ctx *c)
{
    const QuantSpec s = quant_of(c, false);
    void *x = in(c, c->a * c->b, 1), *y = out(c, c->a * c->b, 1);
    const QuantScales q = low_scales(c, &s, x);
    c->k->fakequant_clip(y, x, &s, &q, c->a, c->b);
}
static void run_fakequant_clip_bwd(Ctx *c)
{
    const QuantSpec s = quant_of(c, false);
    void *x = in(c, c->a * c->b, 1), *dx = out(c, c->a * c->b, 1);
    const QuantScales q = low_scales(c, &s, x);
    c->k->fakequant_clip_bwd(dx, in(c, c->a * c->b, 1), x, &s, &q, c->a, c->b, c->mode);
}
static void run_fakequant_step_bwd(Ctx *c)
{
    const QuantSpec s = quant_of(c, true);
    void *x = in(c, c->a * c->b, 1);
    const QuantScales q = low_scales(c, &s, x);
    void *ds = out(c, q.R * q.G, 1);
    c->k->fakequant_step_bwd(ds, in(c, c->a * c->b, 1), x, &s, &q, c->a, c->b, c->mode);
}
/* Formats of weights kept as codes, two a shape. */
static inline QuantSpec coded_of(const Ctx *c)
{
    static const QuantSpec list[] = {
        {.f = &quant_formats[QUANT_int8], .block_rows = 1},
        {.f = &quant_formats[QUANT_nf4], .block_rows = 1, .block_cols = 64, .double_quant = true},
        {.f = &quant_formats[QUANT_int4], .block_rows = 1, .block_cols = 16, .asymmetric = true},
        {.f = &quant_formats[QUANT_nvfp4], .block_rows = 1, .block_cols = 16},
        {.f = &quant_formats[QUANT_fp8_e4m3], .block_rows = 2, .block_cols = 24},
        {.f = &quant_formats[QUANT_mxfp4], .block_rows = 1, .block_cols = 32, .rule = MX_CEIL},
        {.f = &quant_formats[QUANT_int4], .block_rows = 1},
        {.f = &quant_formats[QUANT_mxfp8], .block_rows = 1, .block_cols = 32},
        {.f = &quant_formats[QUANT_fp8_e5m2]},
        {.f = &quant_formats[QUANT_int3], .block_rows = 1, .block_cols = 64},
        {.f = &quant_formats[QUANT_int8], .block_rows = 1, .block_cols = 32, .asymmetric = true},
        {.f = &quant_formats[QUANT_int2], .block_rows = 1, .block_cols = 32, .asymmetric = true},
        {.f = &quant_formats[QUANT_nf4], .block_rows = 1, .block_cols = 64},
        {.f = &quant_formats[QUANT_int4], .block_rows = 1, .block_cols = 64},
        {.f = &quant_formats[QUANT_fp4_e2m1], .block_rows = 1, .block_cols = 16},
        {.f = &quant_formats[QUANT_int3], .block_rows = 1},
    };
    return list[2 * c->shape + (c->option != 0)];
}

/* Scales of some weights, in the form of a file where that form is bytes. */
static inline QuantScales coded_scales(Ctx *c, const QuantSpec *s)
{
    QuantScales q = {.R = quant_rows(s, c->a), .G = quant_groups(s, c->b), .tensor = 1};
    const long n = q.R * q.G;
    uint8_t *byte = alloc(c, (size_t)n), *zero = alloc(c, (size_t)n);
    for (long i = 0; i < n; i++) zero[i] = (uint8_t)(i * 5 % (1 << s->f->bits));
    if (s->asymmetric) q.zero_byte = zero;
    if (s->f->scale == SCALE_F32 && !s->double_quant) {
        q.scale = alloc(c, (size_t)n * sizeof(float));
        for (long i = 0; i < n; i++) q.scale[i] = 0.013f * (float)(i % 7 + 1);
        return q;
    }
    q.byte = byte;
    q.map = s->double_quant ? dynamic_map() : quant_scale_map(s->f->scale);
    for (long i = 0; i < n; i++) byte[i] = (uint8_t)((s->f->scale == SCALE_E8M0 ? 120 : 40) + i % 11);
    if (s->f->scale == SCALE_E4M3) q.tensor = 0.37f;
    if (!s->double_quant) return q;
    q.dq_scale = alloc(c, (size_t)(n / 256 + 1) * sizeof(float));
    for (long i = 0; i <= n / 256; i++) q.dq_scale[i] = 0.1f * (float)(i + 1);
    q.dq_offset = 0.3f;
    return q;
}

/* Codes (rows of c->a), no NaN and no infinity among them. */
static inline uint8_t *coded_codes(Ctx *c, const QuantSpec *s)
{
    const size_t bytes = (size_t)c->a * quant_row_bytes(s, c->b);
    uint8_t *codes = alloc(c, bytes);
    const bool small = s->f->bits == 8 && s->f->elem != ELEM_INT;
    const size_t mod = s->f->elem == ELEM_E5M2 ? 120 : 126;
    for (size_t i = 0; i < bytes; i++)
        codes[i] = (uint8_t)(small ? i * 37 % mod | (i % 3 ? 0u : 128u) : i * 37 % 251);
    return codes;
}

static void run_coded_dot(Ctx *c)
{
    const QuantSpec s = coded_of(c);
    const long M = 1 + (c->shape + (c->mode == ADD)) % 9, N = c->a, K = c->b;
    const QuantScales q = coded_scales(c, &s);
    c->k->coded_dot(out(c, M * N, 1), in(c, M * K, 1), coded_codes(c, &s), &s, &q, M, N, K);
}
#endif
