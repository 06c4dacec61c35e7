/* kernels/gemm_builtin.c: cache blocking and packing of the builtin float GEMM (one piece, one thread).
 *
 *   for blocks of k: for blocks of columns: pack w -> B (panels of one tile's width, k-major)
 *       for blocks of rows: pack x -> A;  for panels of B: for tiles of rows: tile
 *
 * A panel of B (kc x 32) stays in the first-level cache while the rows of A (in the second level) pass by.
 * The packed copies live in one buffer per thread. After K. Goto, R. van de Geijn, "Anatomy of
 * high-performance matrix multiplication", ACM TOMS 34(3), 2008. The blocking of k depends on K alone and
 * each element's sum runs in order: any cut of m and n gives the same bits.
 */
#include "kernels/gemm_impl.h"
#include <string.h>

enum { K_MOST = 384, M_MOST = 168, N_MOST = 448, FEW_COLS = 256 };
static _Thread_local _Alignas(64) float packed_a[M_MOST * 8 / 6 * (K_MOST + 16)];
static _Thread_local _Alignas(64) float packed_b[N_MOST * K_MOST];

static long min_long(long a, long b) { return a < b ? a : b; }
/* The largest of equal parts of n that are at most `most`, rounded up to `unit`. */
static long even_part(long n, long most, long unit)
{
    const long parts = (n + most - 1) / most, part = (n + parts - 1) / parts;
    return min_long(most, (part + unit - 1) / unit * unit);
}

/* A product's operands and the part of them at hand. */
typedef struct Job {
    const GemmTiles *t;
    GemmForm form;
    const float *x, *w;
    long ldx, ldw;
    float *y;
    long ldy;
} Job;

/* Rows [*lo, *hi) of tile q of n_tiles over m rows: tiles of equal height, give or take one row. */
static void tile_rows(long m, long n_tiles, long q, long *lo, long *hi)
{
    *lo = m * q / n_tiles;
    *hi = m * (q + 1) / n_tiles;
}

/* Columns [j0, j0+n) of w, terms [p0, p0+k), to packed_b: panels of (k, width) one behind the other. */
static void pack_b(const Job *job, long j0, long n, long p0, long k, long width)
{
    const GemmTiles *t = job->t;
    for (long j = 0; j < n; j += width) {
        float *out = packed_b + j * k;
        const long cols = min_long(width, n - j);
        if (job->form == GEMM_NT)
            t->pack_transposed(out, job->w + (j0 + j) * job->ldw + p0, job->ldw, cols, k, width);
        else t->pack_columns(out, job->w + p0 * job->ldw + j0 + j, job->ldw, cols, k, width);
    }
}

/* A block of x as the tiles read it: element (i,p) of a tile at its start + i*row + p*step; tile q starts
 * at at + q*tall, or, when tall is 0, at its first row. x stays where it is for few columns, unless its
 * rows would share one cache set. */
typedef struct Block {
    const float *at;
    long row, step, tall;
} Block;

static Block pack_a(const Job *job, long i0, long m, long n_tiles, long p0, long k, long n)
{
    const GemmTiles *t = job->t;
    if (job->form != GEMM_TN && n <= FEW_COLS && job->ldx % 1024 != 0)
        return (Block){job->x + i0 * job->ldx + p0, job->ldx, 1, 0};
    if (job->form == GEMM_TN && n <= FEW_COLS && job->ldx <= FEW_COLS)
        return (Block){job->x + p0 * job->ldx + i0, 1, job->ldx, 0};
    if (job->form != GEMM_TN) {
        const long row = k + 16;
        for (long i = 0; i < m; i++)
            memcpy(packed_a + i * row, job->x + (i0 + i) * job->ldx + p0, (size_t)k * sizeof(float));
        return (Block){packed_a, row, 1, 0};
    }
    const long step = (t->rows + t->lanes - 1) / t->lanes * t->lanes;
    for (long q = 0, lo, hi; q < n_tiles; q++) {
        tile_rows(m, n_tiles, q, &lo, &hi);
        t->pack_columns(packed_a + q * step * k, job->x + p0 * job->ldx + i0 + lo, job->ldx, hi - lo, k,
                        step);
    }
    return (Block){packed_a, 1, step, step * k};
}

/* y block (m, n) at c (+)= packed A times packed B. */
static void multiply(const Job *job, Block a, long m, long n_tiles, float *c, long n, long k, long width,
                     Mode mode)
{
    const GemmTiles *t = job->t;
    for (long j = 0; j < n; j += width) {
        const long cols = min_long(width, n - j), vectors = (cols + t->lanes - 1) / t->lanes;
        const int last = (int)(cols - (vectors - 1) * t->lanes);
        for (long q = 0, lo, hi; q < n_tiles; q++) {
            tile_rows(m, n_tiles, q, &lo, &hi);
            const float *at = a.at + (a.tall ? q * a.tall : lo * a.row);
            t->tile[vectors - 1][hi - lo](at, a.row, a.step, packed_b + j * k, width, c + lo * job->ldy + j,
                                          job->ldy, k, last, mode);
        }
    }
}

void gemm_blocked(const GemmTiles *t, GemmForm form, float *y, long ldy, const float *x, long ldx,
                  const float *w, long ldw, long m, long n, long k, Mode mode)
{
    const Job job = {t, form, x, w, ldx, ldw, y, ldy};
    const long width = (long)t->cols * t->lanes;
    const long kc = even_part(k, K_MOST, 8), nc = even_part(n, N_MOST, width),
               mc = even_part(m, M_MOST, t->rows);
    for (long p0 = 0; p0 < k; p0 += kc)
        for (long j0 = 0; j0 < n; j0 += nc) {
            const long kn = min_long(kc, k - p0), nn = min_long(nc, n - j0);
            pack_b(&job, j0, nn, p0, kn, width);
            for (long i0 = 0; i0 < m; i0 += mc) {
                const long mn = min_long(mc, m - i0), n_tiles = (mn + t->rows - 1) / t->rows;
                const Block a = pack_a(&job, i0, mn, n_tiles, p0, kn, nn);
                multiply(&job, a, mn, n_tiles, y + i0 * ldy + j0, nn, kn, width, p0 ? ADD : mode);
            }
        }
}

void gemm_few_rows(const GemmTiles *t, GemmForm form, float *y, long ldy, const float *x, long ldx,
                   const float *w, long ldw, long m, long n, long k, Mode mode)
{
    if (form == GEMM_NT) t->dots[m](y, ldy, x, ldx, w, ldw, n, k, mode);
    else if (form == GEMM_NN) t->axpys(y, ldy, x, ldx, 1, w, ldw, m, n, k, mode);
    else t->axpys(y, ldy, x, 1, ldx, w, ldw, m, n, k, mode);
}
