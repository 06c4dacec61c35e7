/* kernels/fakequant.c: fake quantisation: the number formats of core (codec.c) over a matrix, by rows in
 * parallel.
 *
 *   y = s v(x/s)      clip: y = clamp(x, lo s, hi s), dx = dy 1[lo <= x/s <= hi]       (zero point taken off
 * lo, hi)
 *   step (LSQ, 1902.08153): ds = sum dy (v - x/s) inside, dy lo or dy hi outside, times 1/sqrt(n hi)
 *
 * x, y, dx, dy (N,C); q holds scales (R,G). The codecs are float: doubles are rounded to float on the way
 * in. */
#include "kernels/ref_impl.h"
#include <math.h>

enum { CHUNK = 512 };

static inline const float *as_float(float *buf, const REAL *x, long n)
{
    if (sizeof(REAL) == sizeof(float)) return (const float *)(const void *)x;
    for (long i = 0; i < n; i++) buf[i] = (float)x[i];
    return buf;
}

static inline long block_cols(const QuantSpec *s, long C) { return s->block_cols ? s->block_cols : C; }
static inline long scale_row(const QuantSpec *s, long r) { return s->block_rows ? r / s->block_rows : 0; }

void K(fakequant_scales)(QuantScales *q, const QuantSpec *s, const void *x, long N, long C, float *tmp)
{
    const float *v = x;
    const long n = N * C;
    if (sizeof(REAL) != sizeof(float)) {
        for (long i = 0; i < n; i++) tmp[i] = (float)((const REAL *)x)[i];
        v = tmp;
    }
    float amax = 0;
    if (s->f->scale == SCALE_E4M3) {
        int bad = 0;
#pragma omp parallel for reduction(max : amax) reduction(| : bad) if (n > PAR_MIN)
        for (long b = 0; b < n; b += PAR_BLOCK) {
            const float top = quant_amax(v + b, lmin(PAR_BLOCK, n - b));
            bad |= !isfinite(top);
            amax = top > amax ? top : amax;
        }
        if (bad) amax = INFINITY; /* a NaN would be lost in the comparison */
    }
    quant_tensor_scale(q, s, amax);
#pragma omp parallel for if (n > PAR_MIN)
    for (long r = 0; r < q->R; r++) quant_scale_rows(q, s, v, N, C, r, r + 1);
    quant_scales_end(q, s);
}

/* Blocks are shared out by rows of scales, so each amax has one writer. */
void K(fakequant_amax)(float *amax, const QuantSpec *s, const void *x, long N, long C)
{
    const long G = quant_groups(s, C), R = quant_rows(s, N), bc = block_cols(s, C),
               br = s->block_rows ? s->block_rows : N;
#pragma omp parallel for if (N * C > PAR_MIN)
    for (long R0 = 0; R0 < R; R0++)
        for (long r = R0 * br; r < lmin(N, (R0 + 1) * br); r++)
            for (long c = 0; c < C; c += CHUNK) {
                float buf[CHUNK];
                const long end = lmin(C, c + CHUNK);
                const float *v = as_float(buf, (const REAL *)x + r * C + c, end - c);
                for (long at = c; at < end;) {
                    const long stop = lmin(end, (at / bc + 1) * bc);
                    const float top = quant_amax(v + (at - c), stop - at);
                    float *a = &amax[R0 * G + at / bc];
                    if (isnan(top) || top > *a) *a = top;
                    at = stop;
                }
            }
}

void K(fakequant_fwd)(void *y, const void *x, const QuantSpec *s, const QuantScales *q, long N, long C,
                      Mode mode)
{
    const long bc = block_cols(s, C);
    const bool direct = sizeof(REAL) == sizeof(float) && mode == SET;
#pragma omp parallel for if (N * C > PAR_MIN)
    for (long r = 0; r < N; r++) {
        if (direct) {
            quant_fake(y, x, s, q, C, r, r + 1);
            continue;
        }
        for (long c = 0; c < C;) {
            float buf[CHUNK], out[CHUNK];
            const long n = lmin(lmin(C, (c / bc + 1) * bc) - c, CHUNK);
            const QuantRun run = quant_run(s, q, scale_row(s, r), c / bc);
            quant_fake_run(out, as_float(buf, (const REAL *)x + r * C + c, n), n, s, &run);
            for (long i = 0; i < n; i++) put((REAL *)y + r * C + c + i, (REAL)out[i], mode);
            c += n;
        }
    }
}

void K(fakequant_random)(void *y, const void *x, const QuantSpec *s, const QuantScales *q, long N, long C,
                         RngKey key, long per, Mode mode)
{
    const long bc = block_cols(s, C);
#pragma omp parallel for if (N * C > PAR_MIN)
    for (long r = 0; r < N; r++) {
        RngKey at = key;
        at.sample += (uint32_t)(r / per);
        for (long c = 0; c < C;) {
            float buf[CHUNK], out[CHUNK];
            const long n = lmin(lmin(C, (c / bc + 1) * bc) - c, CHUNK);
            const QuantRun run = quant_run(s, q, scale_row(s, r), c / bc);
            quant_fake_random(out, as_float(buf, (const REAL *)x + r * C + c, n), n, s, &run, at,
                              (uint32_t)(r % per * C + c));
            for (long i = 0; i < n; i++) put((REAL *)y + r * C + c + i, (REAL)out[i], mode);
            c += n;
        }
    }
}

/* What x may be under one scale. */
typedef struct Bounds {
    REAL lo, hi;
} Bounds;
static inline Bounds bounds_of(const QuantSpec *s, const QuantScales *q, long r, long g)
{
    const QuantRun run = quant_run(s, q, scale_row(s, r), g);
    const bool integer = s->f->elem == ELEM_INT;
    return (Bounds){(REAL)(integer ? run.lo : -s->f->max) * (REAL)run.div,
                    (REAL)(integer ? run.hi : s->f->max) * (REAL)run.div};
}

void K(fakequant_clip)(void *y, const void *x, const QuantSpec *s, const QuantScales *q, long N, long C)
{
    const long bc = block_cols(s, C);
#pragma omp parallel for if (N * C > PAR_MIN)
    for (long r = 0; r < N; r++)
        for (long c = 0; c < C; c += bc) {
            const Bounds b = bounds_of(s, q, r, c / bc);
            for (long i = r * C + c; i < r * C + lmin(C, c + bc); i++) {
                const REAL v = ((const REAL *)x)[i];
                ((REAL *)y)[i] = v < b.lo ? b.lo : v > b.hi ? b.hi : v;
            }
        }
}

void K(fakequant_clip_bwd)(void *dx, const void *dy, const void *x, const QuantSpec *s, const QuantScales *q,
                           long N, long C, Mode mode)
{
    const long bc = block_cols(s, C);
#pragma omp parallel for if (N * C > PAR_MIN)
    for (long r = 0; r < N; r++)
        for (long c = 0; c < C; c += bc) {
            const Bounds b = bounds_of(s, q, r, c / bc);
            for (long i = r * C + c; i < r * C + lmin(C, c + bc); i++) {
                const REAL v = ((const REAL *)x)[i], g = ((const REAL *)dy)[i];
                put((REAL *)dx + i, v >= b.lo && v <= b.hi ? g : 0, mode);
            }
        }
}

/* Sum over one row of a block, in double, left to right. */
static double step_row(const REAL *dy, const REAL *x, long n, const QuantSpec *s, const QuantRun *run)
{
    const bool integer = s->f->elem == ELEM_INT;
    const double lo = (double)(integer ? run->lo : -s->f->max), hi = (double)(integer ? run->hi : s->f->max);
    double sum = 0;
    for (long c = 0; c < n; c += CHUNK) {
        float buf[CHUNK], out[CHUNK];
        const long m = lmin(CHUNK, n - c);
        quant_fake_run(out, as_float(buf, x + c, m), m, s, run);
        for (long i = 0; i < m; i++) {
            const double t = (double)x[c + i] / (double)run->div;
            const double d = t < lo ? lo : t > hi ? hi : (double)out[i] / (double)run->div - t;
            sum += (double)dy[c + i] * d;
        }
    }
    return sum;
}

void K(fakequant_step_bwd)(void *ds, const void *dy, const void *x, const QuantSpec *s, const QuantScales *q,
                           long N, long C, Mode mode)
{
    const long bc = block_cols(s, C), br = s->block_rows ? s->block_rows : N;
#pragma omp parallel for if (N * C > PAR_MIN)
    for (long R0 = 0; R0 < q->R; R0++)
        for (long g = 0; g < q->G; g++) {
            const QuantRun run = quant_run(s, q, R0, g);
            const long c = g * bc, n = lmin(C - c, bc), rows = lmin(N - R0 * br, br);
            const double hi = s->f->elem == ELEM_INT ? (double)run.hi : (double)s->f->max;
            double sum = 0;
            for (long r = R0 * br; r < R0 * br + rows; r++)
                sum += step_row((const REAL *)dy + r * C + c, (const REAL *)x + r * C + c, n, s, &run);
            put((REAL *)ds + R0 * q->G + g, (REAL)(sum / sqrt((double)(n * rows) * hi)), mode);
        }
}
