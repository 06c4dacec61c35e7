/* kernels/squared_relu.c: y = max(x, 0)^2 (scalar.h) and its gradient. Reference, float and double.
 * dx (+)= 2 max(x, 0) dy.  x y dx dy (n)
 */
#include "kernels/ref_impl.h"

void K(squared_relu_fwd)(void *y_, const void *x_, long n)
{
    REAL *y = y_;       /* (n) */
    const REAL *x = x_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) y[i] = K(squared_relu)(x[i]);
}

void K(squared_relu_bwd)(void *dx_, const void *dy_, const void *x_, long n, Mode mode)
{
    REAL *dx = dx_;                /* (n) */
    const REAL *dy = dy_, *x = x_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) put(&dx[i], dy[i] * K(squared_relu_grad)(x[i]), mode);
}
