/* kernels/coded_vec_impl.h: coded.c in vectors, for 4- and 8-bit codes in groups of whole vectors; the rest
 * goes to the reference. Elements come from a table of 16 or 256 floats; a group's sum is scaled once.
 *   y (M,N) = x (M,K) W^T */

enum { FEW = 8 };
typedef struct Table {
    float v[256];
    int bits;
} Table;

static void table_of(Table *t, const QuantSpec *s)
{
    t->bits = s->f->bits;
    for (int i = 0; i < 1 << t->bits; i++) {
        const int half = 1 << (t->bits - 1);
        t->v[i] = s->f->elem == ELEM_E4M3   ? f32_from_e4m3((uint8_t)i)
                  : s->f->elem == ELEM_E5M2 ? f32_from_e5m2((uint8_t)i)
                  : s->f->elem == ELEM_E2M1 ? f32_from_e2m1((uint8_t)i)
                  : s->f->elem == ELEM_NF4  ? nf4_levels()[i]
                                            : (float)(s->asymmetric || i < half ? i : i - 2 * half);
    }
}

VFN float vf_total(VF v)
{
    float lane[VW], s = 0;
    vf_put(lane, v, VW);
    for (int h = VW / 2; h; h /= 2)
        for (int i = 0; i < h; i++) lane[i] += lane[i + h];
    s = lane[0];
    return s;
}

/* One row of W against M rows of x. M is a constant where this is called, so that sums stay in registers. */
VFN void dot_row(float *y, long N, const float *x, const uint8_t *row, const QuantSpec *s,
                 const QuantScales *q, const Table *t, long r, int M, long K)
{
    const long bc = s->block_cols ? s->block_cols : K, at = (s->block_rows ? r / s->block_rows : 0) * q->G;
    VF sum[FEW];
    float rest[FEW] = {0};
    for (int m = 0; m < M; m++) sum[m] = vf_set(0);
    for (long c0 = 0, g = 0; c0 < K; c0 += bc, g++) {
        const long c1 = lmin(K, c0 + bc);
        const float scale = q->scale[at + g] * q->tensor, zero = q->zero ? q->zero[at + g] : 0;
        const VF z = vf_set(zero), f = vf_set(scale);
        VF part[FEW];
        for (int m = 0; m < M; m++) part[m] = vf_set(0);
        long c = c0;
        for (; c + VW <= c1; c += VW) {
            const VF w = (t->bits == 4 ? lut4(row + c / 2, t->v) : lut8(row + c, t->v)) - z;
            for (int m = 0; m < M; m++) part[m] = vf_fma(w, vf_get(x + m * K + c, VW), part[m]);
        }
        for (int m = 0; m < M; m++) sum[m] = vf_fma(part[m], f, sum[m]);
        for (; c < c1; c++) {
            const unsigned code = t->bits == 4 ? (unsigned)row[c / 2] >> (c % 2 * 4) & 15u : row[c];
            for (int m = 0; m < M; m++) rest[m] += (t->v[code] - zero) * scale * x[m * K + c];
        }
    }
    for (int m = 0; m < M; m++) y[m * N + r] = vf_total(sum[m]) + rest[m];
}

void V(coded_dot)(void *y_, const void *x_, const uint8_t *codes, const QuantSpec *s, const QuantScales *q,
                  long M, long N, long K)
{
    float *y = y_;       /* (M,N) */
    const float *x = x_; /* (M,K) */
    const int bits = s->f->bits;
    if ((bits != 4 && bits != 8) || (s->block_cols && s->block_cols % 2)) {
        coded_dot_f32(y, x, codes, s, q, M, N, K);
        return;
    }
    Table t;
    table_of(&t, s);
    const size_t bytes = quant_row_bytes(s, K);
#pragma omp parallel for schedule(static) if (N * K > PAR_MIN)
    for (long r = 0; r < N; r++) {
        const uint8_t *row = codes + (size_t)r * bytes;
        for (long m = 0; m < M; m += FEW) {
            float *to = y + m * N;
            const float *from = x + m * K;
            const long n = lmin(FEW, M - m);
            if (n == 1) dot_row(to, N, from, row, s, q, &t, r, 1, K);
            else if (n == 2) dot_row(to, N, from, row, s, q, &t, r, 2, K);
            else if (n <= 4) {
                dot_row(to, N, from, row, s, q, &t, r, 2, K);
                if (n == 4) dot_row(to + 2 * N, N, from + 2 * K, row, s, q, &t, r, 2, K);
                else dot_row(to + 2 * N, N, from + 2 * K, row, s, q, &t, r, 1, K);
            } else if (n == FEW) dot_row(to, N, from, row, s, q, &t, r, FEW, K);
            else
                for (long i = 0; i < n; i++) dot_row(to + i * N, N, from + i * K, row, s, q, &t, r, 1, K);
        }
    }
}
