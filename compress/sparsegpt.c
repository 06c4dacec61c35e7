/* compress/sparsegpt.c: SparseGPT (2301.00774): what is pruned is made good by the columns that follow.
 *
 *   H = 2 X X^T / n    a dead input: H_jj = 1, its column of W = 0    H += .01 mean(diag H)    U upper: H^-1
 *   = U^T U
 *   block of 128 columns: prune the smallest w^2 / U_jj^2 over all rows; N:M: per row, at each M-th column,
 *   of the M
 *   weights as updated so far;   then column by column  err = (w - q) / U_jj,  w_k -= err U_jk  for k > j
 *
 * W (rows,cols), H (cols,cols), all in double. Exactly rows 128 - rint(rows 128 (1 - s)) are pruned per
 * block. */
#include <lapacke.h>
#include "compress/mask_impl.h"
#include <stdlib.h>
#include <string.h>

typedef struct Job {
    double *w;       /* (rows,cols) */
    const double *u; /* (cols,cols) upper */
    uint8_t *keep;   /* (rows,cols) */
    long rows, cols;
    int pattern, of;
} Job;

/* H becomes U. */
static bool factor(double *w, double *h, long rows, long cols, const char *name, Err *e)
{
    double mean = 0;
    const lapack_int n = (lapack_int)cols;
    for (long j = 0; j < cols; j++) {
        if (h[j * cols + j] == 0) {
            h[j * cols + j] = 1;
            for (long r = 0; r < rows; r++) w[r * cols + j] = 0;
        }
        mean += h[j * cols + j] / (double)cols;
    }
    for (long j = 0; j < cols; j++) h[j * cols + j] += 0.01 * mean;
    if (LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', n, h, n) || LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', n, h, n) ||
        LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', n, h, n))
        return err_set(e, ERR_FAIL,
                       "%s: the inputs' Hessian has no Cholesky factor; are the calibration inputs finite?",
                       name);
    return true;
}

static bool choose_block(const Job *j, long at, long width, double sparsity, Arena *tmp, Err *e)
{
    const ArenaMark mark = arena_mark(tmp);
    float *score = arena_alloc(tmp, (size_t)(j->rows * width) * sizeof *score, e);
    uint8_t *keep = arena_alloc(tmp, (size_t)(j->rows * width), e);
    for (long i = 0; keep && i < j->rows * width; i++) {
        const long c = at + i % width;
        const double q = j->w[i / width * j->cols + c] / j->u[c * j->cols + c];
        score[i] = (float)(q * q);
        if (isnan(score[i])) return err_set(e, ERR_FAIL, "column %ld: the score is NaN", c);
    }
    if (keep) units_keep(&(Units){j->rows * width, score, keep}, 1, kept_count(j->rows * width, sparsity));
    for (long r = 0; keep && r < j->rows; r++)
        memcpy(j->keep + r * j->cols + at, keep + r * width, (size_t)width);
    arena_release(tmp, mark);
    return !e->code;
}

/* Of the M weights from column c, the N best of one row; ties by lowest index. */
static void choose_group(const Job *j, const double *w, uint8_t *keep, long c)
{
    memset(keep + c, 0, (size_t)j->of);
    for (int n = 0; n < j->pattern; n++) {
        long best = -1;
        double top = -1;
        for (long k = c; k < c + j->of; k++) {
            const double q = w[k] / j->u[k * j->cols + k];
            if (keep[k] || q * q <= top) continue;
            best = k;
            top = q * q;
        }
        if (best >= 0) keep[best] = 1;
    }
}

/* One row through one block, then its errors onto the columns behind the block. */
static void sweep(const Job *j, long row, long at, long width, double *err)
{
    double *w = j->w + row * j->cols;
    uint8_t *keep = j->keep + row * j->cols;
    const long end = at + width;
    for (long c = at; c < end; c++) {
        const double *u = j->u + c * j->cols;
        if (j->pattern && c % j->of == 0) choose_group(j, w, keep, c);
        err[c - at] = keep[c] ? 0 : w[c] / u[c];
        if (keep[c]) continue;
        w[c] = 0;
        for (long k = c + 1; k < end; k++) w[k] -= err[c - at] * u[k];
    }
    for (long c = at; c < end; c++) {
        const double *u = j->u + c * j->cols;
        for (long k = end; err[c - at] != 0 && k < j->cols; k++) w[k] -= err[c - at] * u[k];
    }
}

bool sparsegpt(double *w, double *h, uint8_t *keep, long rows, long cols, double sparsity, int pattern,
               int of, long block, const char *name, Arena *tmp, Err *e)
{
    const Job j = {w, h, keep, rows, cols, pattern, of};
    if (!factor(w, h, rows, cols, name, e)) return false;
    double *err = arena_alloc(tmp, (size_t)(rows * block) * sizeof *err, e);
    for (long at = 0; err && at < cols; at += block) {
        const long width = cols - at < block ? cols - at : block;
        if (!pattern && !choose_block(&j, at, width, sparsity, tmp, e)) return err_prefix(e, "%s", name);
#pragma omp parallel for schedule(static)
        for (long r = 0; r < rows; r++) sweep(&j, r, at, width, err + r * block);
    }
    return !e->code;
}
