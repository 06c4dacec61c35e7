/* kernels/gemm_avx512.c: tiles of 14 x 32 and small-M kernels of the builtin float GEMM, AVX-512 (Skylake-X
 * and later).
 *
 * 28 of the 32 registers hold the tile, two a row of the packed weights, one the broadcast input: 28 fused
 * multiply-adds for 16 loads, so both multiply ports are busy every cycle.
 */
#include <immintrin.h>

#define VEC __m512
#define MASK __mmask16
#define LANES 16
#define ROWS 14
#define COLS 2
#define v_zero() _mm512_setzero_ps()
#define v_set1(f) _mm512_set1_ps(f)
#define v_load(p) _mm512_loadu_ps(p)
#define v_store(p, v) _mm512_storeu_ps(p, v)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_mask(n) ((__mmask16)((1u << (n)) - 1u))
#define v_load_mask(p, m) _mm512_maskz_loadu_ps(m, p)
#define v_store_mask(p, v, m) _mm512_mask_storeu_ps(p, m, v)
#define v_sum(v) _mm512_reduce_add_ps(v)
#include "kernels/gemm_tile_impl.h"

/* The transpose of 16 rows in registers: four rounds of pairwise exchange. */
INLINE void transpose(__m512 r[16])
{
    __m512 t[16];
    UNROLL for (int i = 0; i < 8; i++)
    {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 4; i++) UNROLL for (int h = 0; h < 2; h++)
    {
        const __m512d lo = _mm512_castps_pd(t[4 * i + h]), hi = _mm512_castps_pd(t[4 * i + 2 + h]);
        r[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
        r[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

#include "kernels/gemm_pack_impl.h"

#define EACH_HEIGHT(F, v)                                                                                    \
    F(1, v)                                                                                                  \
    F(2, v)                                                                                                  \
    F(3, v) F(4, v) F(5, v) F(6, v) F(7, v) F(8, v) F(9, v) F(10, v) F(11, v) F(12, v) F(13, v) F(14, v)
EACH_HEIGHT(TILE, 1)
EACH_HEIGHT(TILE, 2)
DOTS(1, 4)
DOTS(2, 4)
DOTS(3, 4)
DOTS(4, 4) DOTS(5, 4) DOTS(6, 4) DOTS(7, 3)

#define NAMED(m, v) tile_##m##_##v,
    static const GemmTiles tiles = {.rows = ROWS,
                                    .lanes = LANES,
                                    .cols = COLS,
                                    .pack_columns = pack_columns,
                                    .pack_transposed = pack_transposed,
                                    .tile = {{NULL, EACH_HEIGHT(NAMED, 1)}, {NULL, EACH_HEIGHT(NAMED, 2)}},
                                    .dots = {NULL, dots_1, dots_2, dots_3, dots_4, dots_5, dots_6, dots_7},
                                    .axpys = axpys};

void gemm_piece_avx512(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w, long ldw,
                       long m, long n, long k, Mode mode)
{
    gemm_blocked(&tiles, form, y, ldy, x, ldx, w, ldw, m, n, k, mode);
}

void gemm_small_avx512(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w, long ldw,
                       long m, long n, long k, Mode mode)
{
    gemm_few_rows(&tiles, form, y, ldy, x, ldx, w, ldw, m, n, k, mode);
}
