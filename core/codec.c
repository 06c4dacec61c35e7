/* core/codec.c: number formats of compressed tensors: the table, sizes, and whole matrices through a format.
 *
 *   fake(x) == decode(encode(x)), bit for bit: all three walk the same blocks with the same QuantRun, and a
 * format's
 *   fake is proved equal to its decode(encode()) element by element (tests/test_codec.c).
 *
 * Packed codes: one dense little-endian bit stream per row, so 4-bit codes have the low nibble first and
 * 8-bit ones are bytes (product.md 6.3). x (rows,cols); codes (rows, quant_row_bytes). */
#include "core/codec_impl.h"

const QuantFormat quant_formats[] = {
#define CODEC(n, enc, b, el, top, emx, sc, blk, grp)                                                         \
    {.name = #n,                                                                                             \
     .encoding = enc,                                                                                        \
     .bits = b,                                                                                              \
     .emax = emx,                                                                                            \
     .block = blk,                                                                                           \
     .group = grp,                                                                                           \
     .elem = ELEM_##el,                                                                                      \
     .scale = SCALE_##sc,                                                                                    \
     .max = top,                                                                                             \
     .encode = quant_encode_##el,                                                                            \
     .decode = quant_decode_##el,                                                                            \
     .fake = quant_fake_##el},
#include "core/codecs.def"
#undef CODEC
};
const int n_quant_formats = (int)(sizeof quant_formats / sizeof *quant_formats);

const QuantFormat *quant_format(const char *name)
{
    for (int i = 0; name && i < n_quant_formats; i++)
        if (!strcmp(name, quant_formats[i].name)) return &quant_formats[i];
    return NULL;
}

const char *quant_names(void)
{
    return "int8, int4, int3, int2, fp8_e4m3, fp8_e5m2, fp4_e2m1, nf4, mxfp8, mxfp4, nvfp4";
}

const char *mx_rule_name(MxRule r)
{
    return r == MX_CEIL ? "ceil" : r == MX_BUMP_1P75 ? "bump_1p75" : "floor";
}

/* ---- sizes ---- */
static long ceil_div(long a, long b) { return b > 0 ? a / b + (a % b != 0) : 1; }

long quant_rows(const QuantSpec *s, long rows) { return s->block_rows ? ceil_div(rows, s->block_rows) : 1; }
long quant_groups(const QuantSpec *s, long cols) { return s->block_cols ? ceil_div(cols, s->block_cols) : 1; }

long quant_stored_cols(const QuantSpec *s, long cols)
{
    return s->f->block ? quant_groups(s, cols) * s->block_cols : cols;
}

size_t quant_row_bytes(const QuantSpec *s, long cols)
{
    return (size_t)ceil_div(quant_stored_cols(s, cols) * s->f->bits, 8);
}

double quant_bits(const QuantSpec *s, long rows, long cols)
{
    const double n = (double)(quant_rows(s, rows) * quant_groups(s, cols));
    const double scale = s->f->scale == SCALE_F32 ? 4 : 1;
    double bytes = (double)quant_row_bytes(s, cols) * (double)rows + scale * n + (s->asymmetric ? n : 0);
    if (s->f->scale == SCALE_E4M3) bytes += 4;
    if (s->f->elem == ELEM_NF4) bytes += 64;
    if (s->double_quant) bytes += 1024 + 4 + 4 * ceil((double)n / 256) - 3 * n;
    return rows && cols ? 8 * bytes / ((double)rows * (double)cols) : 0;
}

bool quant_scales_alloc(QuantScales *q, const QuantSpec *s, long rows, long cols, Arena *a, Err *e)
{
    *q = (QuantScales){.R = quant_rows(s, rows), .G = quant_groups(s, cols), .tensor = 1};
    const size_t n = (size_t)(q->R * q->G);
    q->scale = arena_alloc(a, n * sizeof(float), e);
    if (s->asymmetric) q->zero = arena_alloc(a, n * sizeof(float), e);
    if (s->double_quant) {
        q->dq_code = arena_alloc(a, n, e);
        q->dq_scale = arena_alloc(a, (n / 256 + 1) * sizeof(float), e);
    }
    return !e->code;
}

/* ---- rows ---- */
QuantRun quant_run(const QuantSpec *s, const QuantScales *q, long row, long group)
{
    const long at = row * q->G + group;
    const float scale = quant_scale_at(q, at);
    QuantRun r = {.div = scale, .mul = scale, .tensor = 1};
    if (s->f->scale == SCALE_E4M3) {
        r.tensor = q->tensor;
        r.div = r.mul * r.tensor;
    }
    if (s->f->elem == ELEM_INT) {
        const int half = 1 << (s->f->bits - 1);
        r.zero = (int)quant_zero_at(q, at);
        r.lo = (float)(s->asymmetric ? -r.zero : s->full ? -half : 1 - half);
        r.hi = (float)(s->asymmetric ? 2 * half - 1 - r.zero : half - 1);
    }
    return r;
}

/* Codes [first, first + n) of a row's bit stream, whose bytes are zero before. */
static void pack(uint8_t *row, long first, const uint8_t *code, long n, int bits)
{
    if (bits == 8) {
        memcpy(row + first, code, (size_t)n);
        return;
    }
    const unsigned mask = (1u << bits) - 1;
    long i = 0;
    for (; bits == 4 && first % 2 == 0 && i + 2 <= n; i += 2)
        row[(first + i) / 2] = (uint8_t)((code[i] & 15u) | (code[i + 1] & 15u) << 4);
    for (; i < n; i++) {
        const long bit = (first + i) * bits;
        const unsigned v = (code[i] & mask) << (bit & 7);
        row[bit >> 3] = (uint8_t)(row[bit >> 3] | v);
        if ((bit & 7) + bits > 8) row[(bit >> 3) + 1] = (uint8_t)(row[(bit >> 3) + 1] | v >> 8);
    }
}

static void unpack(uint8_t *code, const uint8_t *row, long first, long n, int bits, bool sign)
{
    const unsigned mask = (1u << bits) - 1, top = 1u << (bits - 1);
    if (bits == 8) {
        memcpy(code, row + first, (size_t)n);
        return;
    }
    long i = 0;
    for (; bits == 4 && !sign && first % 2 == 0 && i + 2 <= n; i += 2) {
        code[i] = row[(first + i) / 2] & 15u;
        code[i + 1] = row[(first + i) / 2] >> 4;
    }
    for (; i < n; i++) {
        const long bit = (first + i) * bits;
        unsigned v = (unsigned)row[bit >> 3] >> (bit & 7);
        if ((bit & 7) + bits > 8) v |= (unsigned)row[(bit >> 3) + 1] << (8 - (bit & 7));
        v &= mask;
        code[i] = (uint8_t)(sign && (v & top) ? v | ~mask : v);
    }
}

enum { CHUNK = 512 };
/* Walks rows [r0, r1) block by block: `each` runs on n elements from column c, under the scale `run`. */
#define EACH_BLOCK(each)                                                                                     \
    const uint64_t mode = ieee_begin();                                                                      \
    const long bc = s->block_cols ? s->block_cols : cols;                                                    \
    for (long r = r0; r < r1; r++)                                                                           \
        for (long c0 = 0, g = 0; c0 < cols; c0 += bc, g++) {                                                 \
            const QuantRun run = quant_run(s, q, s->block_rows ? r / s->block_rows : 0, g);                  \
            const long c1 = c0 + bc < cols ? c0 + bc : cols;                                                 \
            each                                                                                             \
        }                                                                                                    \
    ieee_end(mode)

void quant_fake(float *y, const float *x, const QuantSpec *s, const QuantScales *q, long cols, long r0,
                long r1)
{
    EACH_BLOCK(s->f->fake(y + r * cols + c0, x + r * cols + c0, c1 - c0, &run););
}

void quant_fake_run(float *y, const float *x, long n, const QuantSpec *s, const QuantRun *r)
{
    const uint64_t mode = ieee_begin();
    s->f->fake(y, x, n, r);
    ieee_end(mode);
}

void quant_encode(uint8_t *codes, const float *x, const QuantSpec *s, const QuantScales *q, long cols,
                  long r0, long r1)
{
    const size_t bytes = quant_row_bytes(s, cols);
    const uint8_t fill = s->f->elem == ELEM_NF4 ? 0x77 : 0; /* a padded element is 0 */
    memset(codes + (size_t)r0 * bytes, 0, (size_t)(r1 - r0) * bytes);
    EACH_BLOCK(for (long c = c0; c < c1; c += CHUNK) {
        uint8_t code[CHUNK];
        const long n = c1 - c < CHUNK ? c1 - c : CHUNK;
        s->f->encode(code, x + r * cols + c, n, &run);
        pack(codes + (size_t)r * bytes, c, code, n, s->f->bits);
    });
    const long stored = quant_stored_cols(s, cols);
    const uint8_t one = fill & 15u;
    for (long r = r0; r < r1 && fill; r++)
        for (long c = cols; c < stored; c++) pack(codes + (size_t)r * bytes, c, &one, 1, s->f->bits);
}

void quant_decode_row(float *y, const uint8_t *row, const QuantSpec *s, const QuantScales *q, long cols,
                      long r0)
{
    const bool sign = s->f->elem == ELEM_INT && !s->asymmetric;
    const long r1 = r0 + 1;
    EACH_BLOCK(for (long c = c0; c < c1; c += CHUNK) {
        uint8_t code[CHUNK];
        const long n = c1 - c < CHUNK ? c1 - c : CHUNK;
        unpack(code, row, c, n, s->f->bits, sign);
        s->f->decode(y + c, code, n, &run);
    });
}

void quant_decode(float *y, const uint8_t *codes, const QuantSpec *s, const QuantScales *q, long cols,
                  long r0, long r1)
{
    const size_t bytes = quant_row_bytes(s, cols);
    for (long r = r0; r < r1; r++) quant_decode_row(y + r * cols, codes + (size_t)r * bytes, s, q, cols, r);
}
