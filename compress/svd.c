/* compress/svd.c: the largest singular triples of a matrix, by LAPACK; of a large one by random projections
 * (0909.4061, algorithm 4.4: Y = (X X^T)^q X G with r + 10 columns, an orthonormal basis Q of Y, then the SVD
 * of Q^T X). */
#include "compress/lora_impl.h"
#include <lapacke.h>
#include <math.h>
#include <string.h>

enum { EXACT = 1536, OVER = 10, POWERS = 4 };

static bool lapack_ok(int info, const char *what, Err *e)
{
    if (info) err_set(e, ERR_FAIL, "LAPACK %s: info %d", what, info);
    return !info;
}

/* A sign for every triple, so that a decomposition is the same wherever it is made: the largest entry of u is
 * positive. */
static void fix_signs(float *u, float *vt, long rows, long cols, long r)
{
    for (long j = 0; j < r; j++) {
        float top = 0;
        for (long i = 0; i < rows; i++)
            if (fabsf(u[i * r + j]) > fabsf(top)) top = u[i * r + j];
        for (long i = 0; top < 0 && i < rows; i++) u[i * r + j] = -u[i * r + j];
        for (long i = 0; top < 0 && i < cols; i++) vt[j * cols + i] = -vt[j * cols + i];
    }
}

/* All of x by the divide-and-conquer driver, in double; then the first r. */
static bool exact(const float *x, long rows, long cols, long r, float *u, float *s, float *vt, Arena *a,
                  Err *e)
{
    const long k = rows < cols ? rows : cols;
    double *w = arena_alloc(a, (size_t)(rows * cols) * sizeof *w, e),
           *U = arena_alloc(a, (size_t)(rows * k) * sizeof *U, e),
           *V = arena_alloc(a, (size_t)(k * cols) * sizeof *V, e),
           *S = arena_alloc(a, (size_t)k * sizeof *S, e);
    if (e->code) return false;
    for (long i = 0; i < rows * cols; i++) w[i] = (double)x[i];
    if (!lapack_ok(LAPACKE_dgesdd(LAPACK_ROW_MAJOR, 'S', (lapack_int)rows, (lapack_int)cols, w,
                                  (lapack_int)cols, S, U, (lapack_int)k, V, (lapack_int)cols),
                   "dgesdd", e))
        return false;
    for (long i = 0; i < rows; i++)
        for (long j = 0; j < r; j++) u[i * r + j] = (float)U[i * k + j];
    for (long i = 0; i < r * cols; i++) vt[i] = (float)V[i];
    for (long j = 0; j < r; j++) s[j] = (float)S[j];
    return true;
}

/* y (n,w) becomes an orthonormal basis of its columns. */
static bool orthonormal(float *y, long n, long w, Arena *a, Err *e)
{
    float *tau = arena_alloc(a, (size_t)w * sizeof *tau, e);
    const lapack_int rows = (lapack_int)n, cols = (lapack_int)w;
    return tau && lapack_ok(LAPACKE_sgeqrf(LAPACK_ROW_MAJOR, rows, cols, y, cols, tau), "sgeqrf", e) &&
           lapack_ok(LAPACKE_sorgqr(LAPACK_ROW_MAJOR, rows, cols, cols, y, cols, tau), "sorgqr", e);
}

static bool randomised(const float *x, long rows, long cols, long r, float *u, float *s, float *vt, Arena *a,
                       Err *e)
{
    const Kernels *k = kernels_cpu_f32();
    const long least = rows < cols ? rows : cols, w = r + OVER < least ? r + OVER : least;
    float *g = arena_alloc(a, (size_t)(cols * w) * sizeof *g, e),
          *y = arena_alloc(a, (size_t)(rows * w) * sizeof *y, e),
          *b = arena_alloc(a, (size_t)(w * cols) * sizeof *b, e),
          *U = arena_alloc(a, (size_t)(w * r) * sizeof *U, e);
    if (e->code) return false;
    rng_normal_f32(g, (size_t)(cols * w), (RngKey){.seed = 1, .stream = rng_stream("svd")}, 0, 1);
    k->gemm_nn(y, x, g, rows, w, cols, SET);
    for (int i = 0; i < POWERS; i++) {
        if (!orthonormal(y, rows, w, a, e)) return false;
        k->gemm_tn(g, x, y, cols, w, rows, SET);
        if (!orthonormal(g, cols, w, a, e)) return false;
        k->gemm_nn(y, x, g, rows, w, cols, SET);
    }
    if (!orthonormal(y, rows, w, a, e)) return false;
    k->gemm_tn(b, y, x, w, cols, rows, SET);
    if (!exact(b, w, cols, r, U, s, vt, a, e)) return false;
    k->gemm_nn(u, y, U, rows, r, w, SET);
    return true;
}

bool svd_top(const float *x, long rows, long cols, long r, float *u, float *s, float *vt, Err *e)
{
    Arena tmp = {.name = "svd"};
    const long least = rows < cols ? rows : cols;
    const bool ok = least > EXACT && r + OVER < least / 4 ? randomised(x, rows, cols, r, u, s, vt, &tmp, e)
                                                          : exact(x, rows, cols, r, u, s, vt, &tmp, e);
    if (ok) fix_signs(u, vt, rows, cols, r);
    arena_free(&tmp);
    return ok;
}
