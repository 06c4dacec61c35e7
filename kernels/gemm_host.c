/* kernels/gemm_host.c: cuts a product into pieces fixed by its shape and runs them on all threads.
 *
 * The number of pieces grows with the work: 1 below 2 MFLOP (starting a team costs more than it brings), then about
 * one per 2 MFLOP up to 16, and one per 0.5 GFLOP up to 64. The grid is the one whose pieces need the least packing:
 * a piece (m,n) packs (m+n) k elements for m n k multiply-adds, so cost ~ 1/m + 1/n, and rows and columns are cut in
 * multiples of 16 where the size allows it.
 */
#include "kernels/gemm_impl.h"
#include <math.h>
#include <omp.h>

enum { UNIT = 16, FIRST_PIECES = 16, MOST_PIECES = 64 };
static const double PIECE_FLOPS = 2e6, LARGE_PIECE_FLOPS = 5e8;

typedef struct Grid { int rows, cols; } Grid;

static int ceil_units(long n) { return n / UNIT > MOST_PIECES ? MOST_PIECES : (int)((n + UNIT - 1) / UNIT); }

/* The cheapest grid of at least `want` pieces (fewer when the shape is too small to be cut so often). */
static Grid choose_grid(long M, long N, double flops)
{
    double want = floor(flops / PIECE_FLOPS);
    if (want > FIRST_PIECES) want = fmax(FIRST_PIECES, floor(flops / LARGE_PIECE_FLOPS));
    if (want > MOST_PIECES) want = MOST_PIECES;
    Grid best = {1, 1};
    if (want < 2) return best;
    const int most_rows = ceil_units(M), most_cols = ceil_units(N);
    double best_cost = INFINITY;
    for (int rows = 1; rows <= most_rows && rows <= (int)want; rows++) {
        int cols = ((int)want + rows - 1) / rows;
        const double missing = cols > most_cols ? (double)cols / most_cols : 1.0;
        if (cols > most_cols) cols = most_cols;
        const double cost = missing * ((double)rows / (double)M + (double)cols / (double)N);
        if (cost < best_cost) { best_cost = cost; best = (Grid){rows, cols}; }
    }
    return best;
}

void gemm_sliced(GemmPiece *piece, GemmForm form, void *y_, const void *x_, const void *w_, long M, long N, long K,
                 Mode mode)
{
    float *y = y_;
    const float *x = x_, *w = w_;
    const long ldx = form == GEMM_TN ? M : K, ldw = form == GEMM_NT ? K : N;
    const Grid grid = choose_grid(M, N, 2.0 * (double)M * (double)N * (double)K);
    const int pieces = grid.rows * grid.cols;
    #pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int p = 0; p < pieces; p++) {
        long i0, i1, j0, j1;
        slice_range(M, UNIT, p / grid.cols, grid.rows, &i0, &i1);
        slice_range(N, UNIT, p % grid.cols, grid.cols, &j0, &j1);
        if (i0 == i1 || j0 == j1) continue;
        const int threads = omp_get_max_threads();
        omp_set_num_threads(1);
        piece(form, y + i0 * N + j0, N, x + (form == GEMM_TN ? i0 : i0 * ldx), ldx,
              w + (form == GEMM_NT ? j0 * ldw : j0), ldw, i1 - i0, j1 - j0, K, mode);
        omp_set_num_threads(threads);
    }
}
