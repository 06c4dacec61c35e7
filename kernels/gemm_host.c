/* kernels/gemm_host.c: cuts a product into pieces and runs them on all threads.
 *
 * Bits must not depend on threads. A library's sums may depend on the size of the piece, so for libraries
 * the cut follows from the shape alone: 1 piece below 4 MFLOP (a team costs more than it brings), then
 * about one per 2 MFLOP up to 8, 16 from 2 GFLOP on, and one per 0.5 GFLOP up to 64; sums over more than
 * 8192 (a vocabulary) get one piece per 64 Ki results, 4 at least, because each piece reads its long
 * operands from memory again. Builtin sums depend on K alone, so there the cut may follow the threads: two
 * pieces each, which packs less.
 *
 * The grid is the one whose pieces need the least packing: a piece (m,n) packs (m+n) k elements for m n k
 * multiply-adds, that is cost ~ rows/M + cols/N, the operand that has to be transposed counting more. */
#include "kernels/gemm_impl.h"
#include <math.h>
#include <omp.h>
#include <string.h>

enum {
    UNIT = 16,
    MOST_PIECES = 64,
    PIECES_PER_THREAD = 2,
    FEW_ROWS = 8,
    LONG_SUM = 8192,
    LONG_SUM_AREA = 65536
};
static const double PIECE_FLOPS = 2e6, LARGE_FLOPS = 2e9, LARGE_PIECE_FLOPS = 5e8, TRANSPOSED = 2.5;

typedef struct Grid {
    int rows, cols;
} Grid;

static int units(long n) { return (int)fmin(MOST_PIECES, ceil((double)n / UNIT)); }

static int wanted_pieces(long M, long N, long K, bool library)
{
    /* Few rows are bound by reading w: they count as 8. */
    const double flops = 2.0 * (double)(M > FEW_ROWS ? M : FEW_ROWS) * (double)N * (double)K;
    double most = flops < LARGE_FLOPS ? 8 : fmax(16, floor(flops / LARGE_PIECE_FLOPS));
    if (K > LONG_SUM) most = fmin(most, fmax(4, floor((double)M * (double)N / LONG_SUM_AREA)));
    if (!library) most = PIECES_PER_THREAD * omp_get_max_threads();
    return (int)fmin(fmin(most, MOST_PIECES), floor(flops / PIECE_FLOPS));
}

/* The cheapest grid of at least `want` pieces (fewer when the shape is too small to be cut so often). */
static Grid choose_grid(GemmForm form, long M, long N, int want)
{
    Grid best = {1, 1};
    if (want < 2) return best;
    const double row_cost = (form == GEMM_NT ? TRANSPOSED : 1.0) / (double)M;
    const double col_cost = (form == GEMM_TN ? TRANSPOSED : 1.0) / (double)N;
    const int most_rows = units(M), most_cols = units(N);
    double best_cost = INFINITY;
    for (int rows = 1; rows <= most_rows && rows <= want; rows++) {
        const int needed = (want + rows - 1) / rows, cols = needed < most_cols ? needed : most_cols;
        const double cost = (rows * row_cost + cols * col_cost) * needed / cols;
        if (cost < best_cost) best_cost = cost, best = (Grid){rows, cols};
    }
    return best;
}

void gemm_sliced(GemmPiece *piece, bool library, GemmForm form, void *y_, long ldy, const void *x_,
                 const void *w_, long M, long N, long K, Mode mode)
{
    float *y = y_;
    const float *x = x_, *w = w_;
    if (M < 1 || N < 1 || K < 1) {
        for (long i = 0; i < M && N > 0 && mode == SET; i++) memset(y + i * ldy, 0, (size_t)N * sizeof *y);
        return;
    }
    const long ldx = form == GEMM_TN ? M : K, ldw = form == GEMM_NT ? K : N;
    const Grid grid = choose_grid(form, M, N, wanted_pieces(M, N, K, library));
    const int pieces = grid.rows * grid.cols;
#pragma omp parallel for schedule(dynamic) if (pieces > 1)
    for (int p = 0; p < pieces; p++) {
        long i0, i1, j0, j1;
        slice_range(M, UNIT, p / grid.cols, grid.rows, &i0, &i1);
        slice_range(N, UNIT, p % grid.cols, grid.cols, &j0, &j1);
        if (i0 == i1 || j0 == j1) continue;
        const int threads = omp_get_max_threads();
        omp_set_num_threads(1);
        piece(form, y + i0 * ldy + j0, ldy, x + (form == GEMM_TN ? i0 : i0 * ldx), ldx,
              w + (form == GEMM_NT ? j0 * ldw : j0), ldw, i1 - i0, j1 - j0, K, mode);
        omp_set_num_threads(threads);
    }
}
