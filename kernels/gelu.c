/* kernels/gelu.c: GELU, tanh or erf form (scalar.h), and its gradient. Reference, float and double.
 * y = x Phi(x);  dx (+)= dy (Phi(x) + x phi(x)), or the tanh approximation's derivative.  x y dx dy (n)
 */
#include "kernels/ref_impl.h"

void K(gelu_fwd)(void *y_, const void *x_, long n, bool tanh_form)
{
    REAL *y = y_;       /* (n) */
    const REAL *x = x_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) y[i] = tanh_form ? K(gelu_tanh)(x[i]) : K(gelu_erf)(x[i]);
}

void K(gelu_bwd)(void *dx_, const void *dy_, const void *x_, long n, bool tanh_form, Mode mode)
{
    REAL *dx = dx_;                /* (n) */
    const REAL *dy = dy_, *x = x_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++)
        put(&dx[i], dy[i] * (tanh_form ? K(gelu_tanh_grad)(x[i]) : K(gelu_erf_grad)(x[i])), mode);
}
