/* kernels/widen.c: a weight kept as bfloat16, as elements: the upper half of a float, exactly.
 *   y (n) = x (n).        Reference, float and double. */
#include "kernels/ref_impl.h"

void K(widen)(void *y_, const uint16_t *x, long n)
{
    REAL *y = y_;
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long b = 0; b < n; b += PAR_BLOCK) {
        const long end = lmin(n, b + PAR_BLOCK);
        for (long i = b; i < end; i++) {
            const union {
                uint32_t u;
                float f;
            } v = {(uint32_t)x[i] << 16};
            y[i] = v.f;
        }
    }
}
