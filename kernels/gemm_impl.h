/* kernels/gemm_impl.h: what the parts of the float GEMM share.
 *
 *   gemm.c            portable reference, float and double
 *   table_gemm.c    picks a back end and puts its three functions and the small-M ones into a table
 *   gemm_host.c      cuts a product into pieces fixed by its shape and runs them on all threads
 *   gemm_dnnl.c, gemm_openblas.c              one piece by a library
 *   gemm_builtin.c    one piece by our own blocking and packing
 *   gemm_avx512.c, gemm_avx2.c                the innermost tiles and the small-M kernels
 */
#ifndef KERNELS_GEMM_IMPL_H
#define KERNELS_GEMM_IMPL_H
#include "core/core.h"
#include "kernels/kernels.h"

typedef enum { GEMM_NT, GEMM_NN, GEMM_TN } GemmForm;

/* One piece, on the calling thread: y (m,n; row stride ldy) (+)= A B with k summed.
 * x: (m,k) or, for TN, (k,m); w: (k,n) or, for NT, (n,k); row strides ldx, ldw. m, n, k >= 1. */
typedef void GemmPiece(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w, long ldw,
                       long m, long n, long k, Mode mode);

/* The whole product y (M,N; row stride ldy) (+)= A B by `piece`, in pieces on all threads; K = 0 makes zeros
 * (SET). library: the cut follows from the shape alone; otherwise the piece must give the same bits under any
 * cut. Inside a piece OpenMP is set to one thread, which keeps a library from starting its own. */
void gemm_sliced(GemmPiece *piece, bool library, GemmForm form, void *y, long ldy, const void *x,
                 const void *w, long M, long N, long K, Mode mode);

/* Fills k->gemm_nt, gemm_nn, gemm_tn for instruction set `isa`. blas: "auto" (oneDNN when compiled in and
 * isa is above portable, else builtin), "dnnl", "openblas", "builtin". *name: static text naming what was
 * chosen, versions included. *warning: NULL, or one sentence saying why the wish could not be met and what
 * to do; the auto choice stands then. */
void gemm_install(Kernels *k, Isa isa, const char *blas, const char **name, const char **warning);

/* One instruction set's innermost loops (gemm_tile_impl.h). */
typedef void GemmTile(const float *a, long row, long step, const float *b, long ldb, float *c, long ldc,
                      long k, int lanes, Mode mode);
typedef void GemmPack(float *out, const float *w, long ldw, long n, long k, long width);
typedef struct GemmTiles {
    int rows, lanes, cols; /* the largest tile: rows x (cols vectors of lanes) */
    GemmPack *pack_columns, *pack_transposed;
    GemmTile *tile[2][15]; /* [vectors across - 1][rows] */
    void (*dots[8])(float *y, long ldy, const float *x, long ldx, const float *w, long ldw, long n, long k,
                    Mode mode);
    void (*axpys)(float *y, long ldy, const float *x, long row, long step, const float *w, long ldw, long m,
                  long n, long k, Mode mode);
} GemmTiles;

/* One piece with packing and cache blocking, and one piece of fewer than 8 rows with the weights streamed
 * once. */
void gemm_blocked(const GemmTiles *t, GemmForm form, float *y, long ldy, const float *x, long ldx,
                  const float *w, long ldw, long m, long n, long k, Mode mode);
void gemm_few_rows(const GemmTiles *t, GemmForm form, float *y, long ldy, const float *x, long ldx,
                   const float *w, long ldw, long m, long n, long k, Mode mode);

GemmPiece gemm_piece_dnnl, gemm_piece_openblas, gemm_piece_avx512, gemm_piece_avx2;
GemmPiece gemm_small_avx512, gemm_small_avx2; /* m < 8 */
const char *gemm_dnnl_name(void);             /* "oneDNN 2.6.3 dnnl_sgemm" */
/* Opens the shared library once. NULL when it is absent or runs on a core too old for `isa` (then *warning
 * is set). */
const char *gemm_openblas_name(Isa isa, const char **warning);

/* The reference, from gemm.c. */
void gemm_nt_f32(void *y, const void *x, const void *w, long M, long N, long K, Mode mode);
void gemm_nt_at_f32(void *y, long ldy, const void *x, const void *w, long M, long N, long K);
void gemm_nn_f32(void *y, const void *x, const void *w, long M, long N, long K, Mode mode);
void gemm_tn_f32(void *y, const void *x, const void *w, long M, long N, long K, Mode mode);
#endif
