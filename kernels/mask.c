/* kernels/mask.c: a weight under a mask: y = x where keep is 1, else exactly +0.   x y dx dy (n), keep bytes
 * of 0 and 1 (n) A choice, not a product: -1 times 0 would be -0, and a hidden NaN would come through.
 */
#include "kernels/ref_impl.h"

void K(mask)(void *y_, const void *x_, const uint8_t *keep, long n, Mode mode)
{
    REAL *y = y_;       /* (n) */
    const REAL *x = x_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long b = 0; b < n; b += PAR_BLOCK) {
        const long end = lmin(n, b + PAR_BLOCK);
        if (mode == SET)
            for (long i = b; i < end; i++) y[i] = keep[i] ? x[i] : (REAL)0;
        else
            for (long i = b; i < end; i++) y[i] += keep[i] ? x[i] : (REAL)0;
    }
}
