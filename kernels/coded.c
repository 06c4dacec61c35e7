/* kernels/coded.c: products with a weight kept as codes and scales, for the few rows of a decoding step: the
 * codes are read once and no float matrix exists. Reference, float and double.
 *
 *   y (M,N) = x (M,K) W^T,   W (N,K) = (element(code) - zero) * scale * tensor      codes (N,
 * quant_row_bytes) */
#include "kernels/ref_impl.h"
#include <string.h>

enum { CHUNK = 256, ROWS = 8 };

/* Codes [c, c+n) of a row's bit stream, one per byte, sign-extended where the format has a sign. */
static void unpack(uint8_t *code, const uint8_t *row, long c, long n, int bits, bool sign)
{
    const unsigned mask = (1u << bits) - 1, top = 1u << (bits - 1);
    for (long i = 0; i < n; i++) {
        const long bit = (c + i) * bits;
        unsigned v = row[bit >> 3];
        if ((bit & 7) + bits > 8) v |= (unsigned)row[(bit >> 3) + 1] << 8;
        v = v >> (bit & 7) & mask;
        code[i] = (uint8_t)(sign && v & top ? v | ~mask : v);
    }
}

/* sum (m) += x (m,K)[:, c:c+n] times the decoded codes. */
static void add_chunk(double *sum, const REAL *x, const uint8_t *row, const QuantSpec *s, const QuantRun *run,
                      long c, long n, long m, long K)
{
    uint8_t code[CHUNK];
    float w[CHUNK];
    unpack(code, row, c, n, s->f->bits, s->f->elem == ELEM_INT && !s->asymmetric);
    s->f->decode(w, code, n, run);
    for (long i = 0; i < m; i++)
        for (long k = 0; k < n; k++) sum[i] += (double)x[i * K + c + k] * (double)w[k];
}

void K(coded_dot)(void *y_, const void *x_, const uint8_t *codes, const QuantSpec *s, const QuantScales *q,
                  long M, long N, long K)
{
    REAL *y = y_;       /* (M,N) */
    const REAL *x = x_; /* (M,K) */
    const long bc = s->block_cols ? s->block_cols : K;
    const size_t bytes = quant_row_bytes(s, K);
#pragma omp parallel for schedule(static) if (N * K > PAR_MIN)
    for (long r = 0; r < N; r++)
        for (long m0 = 0; m0 < M; m0 += ROWS) {
            double sum[ROWS] = {0};
            const long m = lmin(ROWS, M - m0);
            for (long c0 = 0, g = 0; c0 < K; c0 += bc, g++) {
                const QuantRun run = quant_run(s, q, s->block_rows ? r / s->block_rows : 0, g);
                const long c1 = lmin(K, c0 + bc);
                for (long c = c0; c < c1; c += CHUNK)
                    add_chunk(sum, x + m0 * K, codes + (size_t)r * bytes, s, &run, c, lmin(CHUNK, c1 - c), m,
                              K);
            }
            for (long i = 0; i < m; i++) y[(m0 + i) * N + r] = (REAL)sum[i];
        }
}
