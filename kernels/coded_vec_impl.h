/* kernels/coded_vec_impl.h: coded.c and decode_rows of lora.c in vectors. Codes become floats in registers:
 * 4-bit ones through a table, 8-bit integers by conversion, FP8 by way of half precision (E4M3 comes out
 * 2^8 too small, which goes into the scale), 2 and 3 bits by shifts. A group's sum is scaled once.
 *
 *   coded_dot    y (M,N) = x (M,K) W^T
 *   decode_rows  w (n,K) = W[r0 .. r0+n), bit for bit the reference
 *
 * Blocks whose width is no whole number of bytes go to the reference. The order of a sum
 * depends on K, the blocks, and on whether a row of x is multiplied alone (M = 1, and the last of an odd M:
 * WAYS sums) or with others, so a row's last bits may differ between batches; never between thread
 * counts. */

enum { FEW = 8, WAYS = 4 };
typedef enum { C_TABLE, C_INT8, C_UINT8, C_E4M3, C_E5M2, C_BITS } CodeKind;
typedef struct Reader {
    float table[16]; /* C_TABLE, C_BITS */
    CodeKind kind;
    int bits;
    float gain; /* element = what vf_codes gives times gain */
} Reader;

static void reader_of(Reader *t, const QuantSpec *s)
{
    const QuantElem el = s->f->elem;
    const int n = 1 << s->f->bits;
    *t = (Reader){.bits = s->f->bits, .gain = el == ELEM_E4M3 ? 256.0f : 1.0f};
    t->kind = t->bits == 4      ? C_TABLE
              : t->bits != 8    ? C_BITS
              : el == ELEM_E4M3 ? C_E4M3
              : el == ELEM_E5M2 ? C_E5M2
              : s->asymmetric   ? C_UINT8
                                : C_INT8;
    for (int i = 0; i < n && n <= 16; i++)
        t->table[i] = el == ELEM_E2M1  ? f32_from_e2m1((uint8_t)i)
                      : el == ELEM_NF4 ? nf4_levels()[i]
                                       : (float)(s->asymmetric || i < n / 2 ? i : i - n);
}

/* VW elements from column c of a row's codes, times 1/gain. */
VFN VF vf_codes(const Reader *t, CodeKind kind, const uint8_t *row, long c)
{
    if (kind == C_TABLE) return codes_table(row + c / 2, t->table);
    if (kind == C_INT8) return codes_int8(row + c);
    if (kind == C_UINT8) return codes_uint8(row + c);
    if (kind == C_E4M3) return codes_e4m3(row + c);
    if (kind == C_E5M2) return codes_e5m2(row + c);
    return codes_bits(row + c * t->bits / 8, t->bits, t->table);
}

/* One element, whole. */
static float element_of(const Reader *t, const uint8_t *row, long c)
{
    if (t->kind == C_E4M3) return f32_from_e4m3(row[c]);
    if (t->kind == C_E5M2) return f32_from_e5m2(row[c]);
    if (t->kind == C_INT8) return (float)(int8_t)row[c];
    if (t->kind == C_UINT8) return (float)row[c];
    const long bit = c * t->bits;
    unsigned v = row[bit >> 3];
    if ((bit & 7) + t->bits > 8) v |= (unsigned)row[(bit >> 3) + 1] << 8;
    return t->table[v >> (bit & 7) & ((1u << t->bits) - 1)];
}

static bool whole_bytes(const QuantSpec *s) { return s->f->bits == 8 || s->block_cols * s->f->bits % 8 == 0; }

VFN float vf_total(VF v)
{
    float lane[VW];
    vf_put(lane, v, VW);
    for (int h = VW / 2; h; h /= 2)
        for (int i = 0; i < h; i++) lane[i] += lane[i + h];
    return lane[0];
}

/* What a call's rows share. */
typedef struct Dot {
    const float *x; /* (M,K) */
    const QuantSpec *s;
    const QuantScales *q;
    const Reader *t;
    long K;
} Dot;

/* Row r of W, given by its codes, against M rows of x, M and kind constants of the call. A wide block has
 * WAYS sums at once, narrow ones take turns, so that one addition need not wait for the one before. */
VFN void dot_row(float *y, long N, const Dot *d, const float *x, CodeKind kind, const uint8_t *row, long r,
                 int M)
{
    const QuantSpec *s = d->s;
    const QuantScales *q = d->q;
    const long K = d->K, bc = s->block_cols ? s->block_cols : K;
    const long at = (s->block_rows ? r / s->block_rows : 0) * q->G;
    const float level = q->tensor * d->t->gain;
    VF sum[FEW], more[FEW];
    float rest[FEW] = {0};
    for (int m = 0; m < M; m++) sum[m] = more[m] = vf_set(0);
    for (long c0 = 0, g = 0; c0 < K; c0 += bc, g++) {
        const long c1 = lmin(K, c0 + bc);
        const float scale = quant_scale_at(q, at + g) * level, zero = quant_zero_at(q, at + g);
        const VF z = vf_set(zero), f = vf_set(scale);
        VF part[FEW];
        for (int m = 0; m < M; m++) part[m] = vf_set(0);
        long c = c0;
        if (M == 1 && c1 - c0 >= WAYS * VW) {
            VF way[WAYS];
            for (int u = 0; u < WAYS; u++) way[u] = vf_set(0);
            for (; c + WAYS * VW <= c1; c += WAYS * VW)
                for (int u = 0; u < WAYS; u++) {
                    const VF w = vf_codes(d->t, kind, row, c + u * VW) - z;
                    way[u] = vf_fma(w, vf_get(x + c + u * VW, VW), way[u]);
                }
            part[0] = (way[0] + way[1]) + (way[2] + way[3]);
        }
        for (; c + VW <= c1; c += VW) {
            const VF w = vf_codes(d->t, kind, row, c) - z;
            for (int m = 0; m < M; m++) part[m] = vf_fma(w, vf_get(x + m * K + c, VW), part[m]);
        }
        for (int m = 0; m < M; m++) {
            const VF old = sum[m];
            sum[m] = more[m];
            more[m] = vf_fma(part[m], f, old);
        }
        for (; c < c1; c++) {
            const float w = (element_of(d->t, row, c) - zero) * scale / d->t->gain;
            for (int m = 0; m < M; m++) rest[m] += w * x[m * K + c];
        }
    }
    for (int m = 0; m < M; m++) y[m * N + r] = vf_total(sum[m] + more[m]) + rest[m];
}

VFN void dot_rows(float *y, long N, const Dot *d, CodeKind kind, const uint8_t *row, long r, long M)
{
    long m = 0;
    for (; m + 4 <= M; m += 4) dot_row(y + m * N, N, d, d->x + m * d->K, kind, row, r, 4);
    for (; m + 2 <= M; m += 2) dot_row(y + m * N, N, d, d->x + m * d->K, kind, row, r, 2);
    if (m < M) dot_row(y + m * N, N, d, d->x + m * d->K, kind, row, r, 1);
}

#define EACH_KIND(X) X(C_TABLE) X(C_INT8) X(C_UINT8) X(C_E4M3) X(C_E5M2) X(C_BITS)
#define DOTS(kind)                                                                                           \
    static void dots_##kind(float *y, long N, const Dot *d, const uint8_t *row, long r, long M)              \
    {                                                                                                        \
        dot_rows(y, N, d, kind, row, r, M);                                                                  \
    }
EACH_KIND(DOTS)

void V(coded_dot)(void *y_, const void *x_, const uint8_t *codes, const QuantSpec *s, const QuantScales *q,
                  long M, long N, long K)
{
    static void (*const dots[])(float *, long, const Dot *, const uint8_t *, long, long) = {
#define ENTRY(kind) [kind] = dots_##kind,
        EACH_KIND(ENTRY)};
    if (!whole_bytes(s)) {
        coded_dot_f32(y_, x_, codes, s, q, M, N, K);
        return;
    }
    float *y = y_; /* (M,N) */
    Reader t;
    reader_of(&t, s);
    const Dot d = {x_, s, q, &t, K};
    const size_t bytes = quant_row_bytes(s, K);
#pragma omp parallel for schedule(static) if (N * K > PAR_MIN)
    for (long r = 0; r < N; r++) dots[t.kind](y, N, &d, codes + (size_t)r * bytes, r, M);
}

/* n elements of one block from column c: element * mul * tensor, each rounded as the reference rounds it. */
VFN void decode_block(float *w, const Reader *t, CodeKind kind, const uint8_t *row, long c, long n,
                      const QuantRun *run)
{
    const VF z = vf_set((float)run->zero), mul = vf_set(run->mul), tensor = vf_set(run->tensor),
             gain = vf_set(t->gain);
    long i = 0;
    for (; i + VW <= n; i += VW) vf_put(w + i, (vf_codes(t, kind, row, c + i) * gain - z) * mul * tensor, VW);
    for (; i < n; i++) {
        const float v = element_of(t, row, c + i) - (float)run->zero;
        w[i] = v * run->mul * run->tensor;
    }
}

static void decode_one(float *w, const Reader *t, const uint8_t *row, const QuantSpec *s,
                       const QuantScales *q, long K, long r)
{
    const long bc = s->block_cols ? s->block_cols : K;
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode & ~0x8040u); /* small values count: FTZ and DAZ off, as the codecs have it */
    for (long c = 0, g = 0; c < K; c += bc, g++) {
        const QuantRun run = quant_run(s, q, s->block_rows ? r / s->block_rows : 0, g);
        const long n = lmin(bc, K - c);
        if (isnan(run.div) || run.div == 0) s->f->decode(w + c, row, n, &run); /* no code is looked at */
#define BLOCK(k) else if (t->kind == k) decode_block(w + c, t, k, row, c, n, &run);
        EACH_KIND(BLOCK)
    }
    _mm_setcsr(mode);
}

void V(decode_rows)(void *w_, const uint8_t *codes, const QuantSpec *s, const QuantScales *q, long r0, long n,
                    long K)
{
    if (!whole_bytes(s)) {
        decode_rows_f32(w_, codes, s, q, r0, n, K);
        return;
    }
    float *w = w_; /* (n,K) */
    Reader t;
    reader_of(&t, s);
    const size_t bytes = quant_row_bytes(s, K);
#pragma omp parallel for schedule(static) if (n * K > PAR_MIN)
    for (long i = 0; i < n; i++) decode_one(w + i * K, &t, codes + (size_t)(r0 + i) * bytes, s, q, K, r0 + i);
}
