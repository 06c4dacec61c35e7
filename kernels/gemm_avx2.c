/* kernels/gemm_avx2.c: tiles of 6 x 16 and small-M kernels of the builtin float GEMM, AVX2 + FMA (Haswell,
 * Zen and later).
 *
 * 12 of the 16 registers hold the tile, two a row of the packed weights, one the broadcast input.
 */
#include <immintrin.h>
#include <stdint.h>

#define VEC __m256
#define MASK __m256i
#define LANES 8
#define ROWS 6
#define COLS 2
#define v_zero() _mm256_setzero_ps()
#define v_set1(f) _mm256_set1_ps(f)
#define v_load(p) _mm256_loadu_ps(p)
#define v_store(p, v) _mm256_storeu_ps(p, v)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_mask(n) _mm256_loadu_si256((const __m256i *)(const void *)(lane_on + 8 - (n)))
#define v_load_mask(p, m) _mm256_maskload_ps(p, m)
#define v_store_mask(p, v, m) _mm256_maskstore_ps(p, m, v)
static const int32_t lane_on[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};

static inline float v_sum(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
#include "kernels/gemm_tile_impl.h"

/* The transpose of 8 rows in registers: three rounds of pairwise exchange. */
INLINE void transpose(__m256 r[8])
{
    __m256 t[8];
    UNROLL for (int i = 0; i < 4; i++)
    {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 2; i++) UNROLL for (int h = 0; h < 2; h++)
    {
        r[4 * i + 2 * h] = _mm256_shuffle_ps(t[4 * i + h], t[4 * i + 2 + h], 0x44);
        r[4 * i + 2 * h + 1] = _mm256_shuffle_ps(t[4 * i + h], t[4 * i + 2 + h], 0xee);
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        t[i] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2f128_ps(r[i], r[i + 4], 0x31);
    }
    UNROLL for (int i = 0; i < 8; i++) r[i] = t[i];
}
#include "kernels/gemm_pack_impl.h"

#define EACH_HEIGHT(F, v) F(1, v) F(2, v) F(3, v) F(4, v) F(5, v) F(6, v)
EACH_HEIGHT(TILE, 1)
EACH_HEIGHT(TILE, 2)
DOTS(1, 4)
DOTS(2, 4)
DOTS(3, 3)
DOTS(4, 2) DOTS(5, 2) DOTS(6, 2) DOTS(7, 1)

#define NAMED(m, v) tile_##m##_##v,
    static const GemmTiles tiles = {.rows = ROWS,
                                    .lanes = LANES,
                                    .cols = COLS,
                                    .pack_columns = pack_columns,
                                    .pack_transposed = pack_transposed,
                                    .tile = {{NULL, EACH_HEIGHT(NAMED, 1)}, {NULL, EACH_HEIGHT(NAMED, 2)}},
                                    .dots = {NULL, dots_1, dots_2, dots_3, dots_4, dots_5, dots_6, dots_7},
                                    .axpys = axpys};

void gemm_piece_avx2(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w, long ldw,
                     long m, long n, long k, Mode mode)
{
    gemm_blocked(&tiles, form, y, ldy, x, ldx, w, ldw, m, n, k, mode);
}

void gemm_small_avx2(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w, long ldw,
                     long m, long n, long k, Mode mode)
{
    gemm_few_rows(&tiles, form, y, ldy, x, ldx, w, ldw, m, n, k, mode);
}
