/* core/codec_random.c: number formats with rounding at random instead of to the nearest value:
 *
 *   t = x / div between the neighbours a < b of the grid:  b with probability (t - a) / (b - a), else a
 *
 * so the mean over draws is x wherever the scale holds it (beyond the largest element it saturates, as
 * nearest does). Draws are Philox, keyed by (seed, step, stream, sample, element): no thread, order or
 * restart changes them. What comes out is a value of the format: encoding it rounds nothing. x, y (n).
 * Gupta et al. 2015, "Deep Learning with Limited Numerical Precision". */
#include "core/codec_impl.h"

/* A grid with m mantissa bits, smallest normal 2^min_exp, |t| <= max. Sign and size apart: the grid is
 * symmetric. */
static float pick_float(float t, int m, int min_exp, float max, double u)
{
    const float a = fabsf(t);
    int e = 0;
    if (a >= max) return copysignf(max, t);
    frexpf(a, &e);
    e = a == 0 || e - 1 < min_exp ? min_exp : e - 1;
    const float unit = ldexpf(1, e - m), way = a / unit, low = floorf(way);
    return copysignf((low + ((double)(way - low) > u ? 1.0f : 0.0f)) * unit, t);
}

static float pick_int(float t, float lo, float hi, double u)
{
    t = t < lo ? lo : t > hi ? hi : t;
    const float low = floorf(t);
    return low + ((double)(t - low) > u ? 1.0f : 0.0f);
}

static float pick_level(float t, double u)
{
    const float *level = nf4_levels();
    int i = 0;
    if (t <= level[0]) return level[0];
    if (t >= level[15]) return level[15];
    while (level[i + 1] <= t) i++;
    const double way = ((double)t - (double)level[i]) / ((double)level[i + 1] - (double)level[i]);
    return level[i + (way > u)];
}

static float pick(const QuantFormat *f, float t, const QuantRun *r, double u)
{
    switch (f->elem) {
    case ELEM_E4M3: return pick_float(t, 3, -6, f->max, u);
    case ELEM_E5M2: return pick_float(t, 2, -14, f->max, u);
    case ELEM_E2M1: return pick_float(t, 1, 0, f->max, u);
    case ELEM_NF4: return pick_level(t, u);
    case ELEM_INT: break;
    }
    return pick_int(t, r->lo, r->hi, u);
}

void quant_fake_random(float *y, const float *x, long n, const QuantSpec *s, const QuantRun *r, RngKey key,
                       uint32_t first)
{
    const uint64_t mode = ieee_begin();
    const float mul = s->f->elem == ELEM_INT ? r->div : r->mul,
                tensor = s->f->elem == ELEM_INT || s->f->elem == ELEM_NF4 ? 1.0f : r->tensor;
    for (long i = 0; i < n; i++) {
        const float t = x[i] / r->div;
        if (isnan(t) || isnan(r->div) || r->div == 0) s->f->fake(y + i, x + i, 1, r);
        else y[i] = pick(s->f, t, r, rng_uniform(key, first + (uint32_t)i)) * mul * tensor;
    }
    ieee_end(mode);
}
