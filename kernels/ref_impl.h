/* kernels/ref_impl.h: what every kernel file of this folder shares: names, block sizes, declarations.
 *
 * A reference file is compiled twice, -DREAL=float -DREAL_SUFFIX=f32 and -DREAL=double -DREAL_SUFFIX=f64:
 *   void K(gelu_fwd)(void *y, const void *x, long n, bool tanh_form)        // gelu_fwd_f32, gelu_fwd_f64
 *
 * Order of sums. Threads share out rows or blocks whose size is fixed here, never by the number of threads; a
 * sum over blocks collects one double per block on the stack and adds them in order. So bits do not depend on
 * threads.
 */
#ifndef REF_IMPL_H
#define REF_IMPL_H
#include "kernels/kernels.h"
#include "kernels/scalar.h"

enum {
    PAR_MIN = 32768,  /* elements below which a call stays on one thread: a fork costs as much (5 us) */
    PAR_BLOCK = 8192, /* elements of one block of an elementwise kernel or a sum: 32 KiB of float */
    SUM_BATCH = 512,  /* blocks or rows whose partial sums stand on the stack at once */
    COL_TILE = 64,    /* columns of one column-sum tile */
    IGNORED = -100    /* target id of a row that does not count */
};

static inline long lmin(long a, long b) { return a < b ? a : b; }
static inline double sum_in_order(const double *part, long n)
{
    double s = 0.0;
    for (long i = 0; i < n; i++) s += part[i];
    return s;
}

#define KERNEL(fn, args)                                                                                     \
    void fn##_f32 args;                                                                                      \
    void fn##_f64 args;
#include "kernels/kernels.def"
#undef KERNEL

#ifdef REAL
#define K_PASTE2(name, suffix) name##_##suffix
#define K_PASTE(name, suffix) K_PASTE2(name, suffix)
#define K(name) K_PASTE(name, REAL_SUFFIX)
/* y = v or y += v */
static inline void put(REAL *y, REAL v, Mode mode) { *y = mode == ADD ? *y + v : v; }
#endif
#endif
