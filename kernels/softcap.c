/* kernels/softcap.c: y = cap tanh(x / cap), and its gradient. Reference, float and double.  All (n).
 * dx (+)= dy (1 - (y/cap)^2); formulas in scalar.h.  Gemma 2: 2408.00118, 2.2.
 */
#include "kernels/ref_impl.h"

void K(softcap_fwd)(void *y_, const void *x_, double cap, long n)
{
    REAL *y = y_;       /* (n) */
    const REAL *x = x_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) y[i] = K(softcap)(x[i], (REAL)cap);
}

void K(softcap_bwd)(void *dx_, const void *dy_, const void *y_, double cap, long n, Mode mode)
{
    REAL *dx = dx_;                /* (n) */
    const REAL *dy = dy_, *y = y_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) put(&dx[i], dy[i] * K(softcap_grad)(y[i], (REAL)cap), mode);
}
