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
/* The same matrix through its codes and as decoded floats. */
static void run_coded_dot(Ctx *c)
{
    const QuantSpec s = quant_of(c, false);
    const long M = 1 + c->shape % 9, N = c->a, K = c->b;
    float *w = alloc(c, (size_t)(N * K) * sizeof *w);
    uint8_t *codes = alloc(c, (size_t)N * quant_row_bytes(&s, K));
    rng_normal_f32(w, (size_t)(N * K), (RngKey){.seed = 4, .stream = 2}, 0, 1);
    QuantScales q;
    ASSERT(quant_scales_alloc(&q, &s, N, K, &c->arena, &c->err));
    quant_scales(&q, &s, w, N, K);
    quant_encode(codes, w, &s, &q, K, 0, N);
    c->k->coded_dot(out(c, M * N, 1), in(c, M * K, 1), codes, &s, &q, M, N, K);
}
#endif
