/* core/codec_scale.c: the scale of a block from its values, by the rule of the format.
 *
 *   FP8, E2M1, narrow integers   s = amax / max                      full-range ones   s = amax / (2^(b-1) -
 * 1/2)
 *   asymmetric integers          s = (hi - lo) / (2^b - 1), z = round(-lo / s), lo <= 0 <= hi
 *   NF4                          s = amax; double quantisation: s - mean(s) on the 8-bit dynamic map, blocks
 * of 256
 *   MX                           s = 2^e, e by the named rule        NVFP4   s = E4M3(amax / (6 t)), t =
 * amax_all / 2688
 *
 * Exponents come from bits, never from log2f. A zero block has s = 1 (MX: 2^-127). x (rows,cols), scale
 * (R,G). algorithms 5.7 to 5.10; OCP MX v1.0; 2305.14314. */
#include "core/codec_impl.h"

#define NAN_SCALE 0x7FC00000u
enum { DQ_BLOCK = 256, MAP = 256, SEARCH = 10 };

float quant_amax(const float *x, long n)
{
    int32_t top = 0;
    for (long i = 0; i < n; i++) {
        int32_t a = (int32_t)(f32_bits(x[i]) & 0x7FFFFFFFu);
        top = a > top ? a : top;
    }
    return f32_of((uint32_t)top);
}

/* A quotient that underflowed to 0 is a zero block's; one whose largest element would overflow is taken
 * down. */
static float usable(float s, float max)
{
    if (!(s > 0)) return 1.0f;
    return isinf(s * max) ? nextafterf(s, 0) : s;
}

static float mx_scale(const QuantSpec *s, float amax)
{
    int e;
    const float f = frexpf(amax, &e); /* amax = f 2^e, f in [0.5, 1) */
    if (amax == 0) return f32_from_e8m0(0);
    if (s->rule == MX_CEIL) {
        int em;
        const float fm = frexpf(s->f->max, &em);
        e = e - em + (f > fm);
    } else {
        /* E2M1 and E4M3 alike: compressed-tensors' rule */
        e = e - 1 - s->f->emax + (s->rule == MX_BUMP_1P75 && f >= 0.875f);
    }
    e = e < -127 ? -127 : e > 127 ? 127 : e;
    return f32_from_e8m0((uint8_t)(e + 127));
}

void quant_scale_of(const QuantSpec *s, float lo, float hi, float tensor, float *scale, float *zero)
{
    const uint64_t mode = ieee_begin();
    const float amax = fmaxf(fabsf(lo), fabsf(hi)), half = (float)(1 << (s->f->bits - 1));
    if (zero) *zero = 0;
    if (!isfinite(lo) || !isfinite(hi) || !isfinite(tensor)) {
        *scale = f32_of(NAN_SCALE);
    } else if (s->f->scale == SCALE_E8M0) {
        *scale = mx_scale(s, amax);
    } else if (s->f->scale == SCALE_E4M3) {
        const float t = amax / (6.0f * tensor);
        *scale = amax == 0 ? 1.0f : f32_from_e4m3(e4m3_from_f32(t < 0x1p-9f ? 0x1p-9f : t));
    } else if (s->f->elem == ELEM_INT && s->asymmetric) {
        const float q = 2 * half - 1, low = fminf(lo, 0), range = fmaxf(hi, 0) - low;
        *scale = usable(isinf(range) ? (float)(((double)fmaxf(hi, 0) - (double)low) / (double)q) : range / q,
                        1);
        if (zero) *zero = fminf(fmaxf(rintf(-low / *scale), 0), q);
    } else {
        const float max = s->f->elem == ELEM_INT && s->full ? half - 0.5f : s->f->max;
        *scale = usable(amax / max, s->f->max);
    }
    ieee_end(mode);
}

void quant_tensor_scale(QuantScales *q, const QuantSpec *s, float amax)
{
    q->tensor = 1;
    if (s->f->scale != SCALE_E4M3) return;
    const uint64_t mode = ieee_begin();
    const float t = amax / (6.0f * 448.0f);
    q->tensor = !isfinite(amax) ? f32_of(NAN_SCALE) : t > 0 ? t : 1.0f;
    ieee_end(mode);
}

/* ---- one block ---- */
typedef struct Block {
    const float *x; /* (rows, width) at a distance of stride */
    long rows, width, stride;
} Block;

static void block_range(const Block *b, bool both, float *lo, float *hi)
{
    float amax = 0, low = 0, high = 0;
    for (long r = 0; r < b->rows; r++) {
        const float *x = b->x + r * b->stride;
        const float top = quant_amax(x, b->width);
        if (!isfinite(top)) {
            *lo = *hi = top;
            return;
        }
        amax = top > amax ? top : amax;
        for (long i = 0; both && i < b->width; i++) {
            low = x[i] < low ? x[i] : low;
            high = x[i] > high ? x[i] : high;
        }
    }
    *lo = both ? low : -amax;
    *hi = both ? high : amax;
}

static double block_error(const Block *b, const QuantFormat *f, const QuantRun *run)
{
    float y[512];
    double sum = 0;
    for (long r = 0; r < b->rows; r++)
        for (long i = 0; i < b->width; i += 512) {
            const float *x = b->x + r * b->stride + i;
            const long n = b->width - i < 512 ? b->width - i : 512;
            f->fake(y, x, n, run);
            for (long j = 0; j < n; j++) {
                const double d = (double)y[j] - (double)x[j];
                sum += d * d;
            }
        }
    return sum;
}

static void block_scale(QuantScales *q, const QuantSpec *s, const Block *b, long row, long group)
{
    float lo, hi, best_scale = 1, best_zero = 0;
    const long at = row * q->G + group;
    double best = INFINITY;
    block_range(b, s->asymmetric, &lo, &hi);
    for (int i = 0; i < (s->search && isfinite(lo) ? SEARCH : 1); i++) {
        const float shrink = 1.0f - (float)i / 20.0f;
        float zero = 0;
        quant_scale_of(s, lo * shrink, hi * shrink, q->tensor, &q->scale[at], &zero);
        if (q->zero) q->zero[at] = zero;
        if (!s->search || !isfinite(lo)) return;
        const QuantRun run = quant_run(s, q, row, group);
        const double err = block_error(b, s->f, &run);
        if (err < best) {
            best = err;
            best_scale = q->scale[at];
            best_zero = zero;
        }
    }
    q->scale[at] = best_scale;
    if (q->zero) q->zero[at] = best_zero;
}

void quant_scale_rows(QuantScales *q, const QuantSpec *s, const float *x, long rows, long cols, long r0,
                      long r1)
{
    const uint64_t mode = ieee_begin();
    const long br = s->block_rows ? s->block_rows : rows, bc = s->block_cols ? s->block_cols : cols;
    for (long R = r0; R < r1; R++)
        for (long G = 0; G < q->G; G++) {
            const long row = R * br, col = G * bc;
            const Block b = {x + row * cols + col, rows - row < br ? rows - row : br,
                             cols - col < bc ? cols - col : bc, cols};
            block_scale(q, s, &b, R, G);
        }
    ieee_end(mode);
}

/* ---- double quantisation ---- */
/* 0, 1 and +-10^(i-6) c, c the midpoints of 2^i equal parts of [0.1, 1], i = 0..6; sorted. The 127 pairs
 * stand symmetric about the 0, the 1 comes last. */
const float *dynamic_map(void)
{
    static float map[MAP];
    static bool made;
    if (made) return map;
    int n = 0;
    double tens = 1e-6;
    for (int i = 0; i <= 6; i++, tens *= 10)
        for (int j = 0; j < 1 << i; j++) {
            const double c = 0.1 + 0.9 * ((double)j + 0.5) / (double)(1 << i);
            map[128 + n] = (float)(tens * c);
            map[126 - n++] = -(float)(tens * c);
        }
    map[127] = 0;
    map[255] = 1;
    made = true;
    return map;
}

const float *quant_scale_map(QuantScaleKind k)
{
    static float e8m0[MAP], e4m3[MAP];
    static bool made;
    for (int i = 0; i < MAP && !made; i++) {
        e8m0[i] = f32_from_e8m0((uint8_t)i);
        e4m3[i] = f32_from_e4m3((uint8_t)i);
    }
    made = true;
    return k == SCALE_E8M0 ? e8m0 : e4m3;
}

static uint8_t map_nearest(float x)
{
    const float *map = dynamic_map();
    int lo = 0, hi = MAP - 1;
    while (hi - lo > 1) {
        const int mid = (lo + hi) / 2;
        if (map[mid] <= x) lo = mid;
        else hi = mid;
    }
    return (uint8_t)((double)x - (double)map[lo] <= (double)map[hi] - (double)x ? lo : hi);
}

void quant_scales_end(QuantScales *q, const QuantSpec *s)
{
    if (!s->double_quant) return;
    const uint64_t mode = ieee_begin();
    const long n = q->R * q->G;
    const float *map = dynamic_map();
    double sum = 0;
    for (long i = 0; i < n; i++) sum += (double)q->scale[i];
    q->dq_offset = n ? (float)(sum / (double)n) : 0;
    for (long b = 0; b < n; b += DQ_BLOCK) {
        const long end = n - b < DQ_BLOCK ? n : b + DQ_BLOCK;
        float top = 0;
        for (long i = b; i < end; i++) top = fmaxf(top, fabsf(q->scale[i] - q->dq_offset));
        q->dq_scale[b / DQ_BLOCK] = isfinite(q->dq_offset) ? top : f32_of(NAN_SCALE);
        for (long i = b; i < end; i++) {
            const float d = q->scale[i] - q->dq_offset;
            q->dq_code[i] = isfinite(d) && top > 0 ? map_nearest(d / top) : MAP / 2 - 1;
            const float part = map[q->dq_code[i]] * q->dq_scale[b / DQ_BLOCK];
            q->scale[i] = part + q->dq_offset;
        }
    }
    ieee_end(mode);
}

void quant_scales(QuantScales *q, const QuantSpec *s, const float *x, long rows, long cols)
{
    quant_tensor_scale(q, s, s->f->scale == SCALE_E4M3 ? quant_amax(x, rows * cols) : 0);
    quant_scale_rows(q, s, x, rows, cols, 0, q->R);
    quant_scales_end(q, s);
}
