/* kernels/sgd.c: one step of SGD on n elements, as torch.optim.SGD (decay added to the gradient). Reference.
 *   g' = grad_scale g + wd w;  m = momentum m + g';  w -= lr m      w m g (n); m NULL: momentum 0
 */
#include "kernels/ref_impl.h"

void K(sgd)(void *w_, void *m_, const void *g_, long n, double lr_, double momentum, double wd_,
            double grad_scale)
{
    REAL *w = w_, *m = m_; /* (n), (n) or NULL */
    const REAL *g = g_, lr = (REAL)lr_, mu = (REAL)momentum, wd = (REAL)wd_, gs = (REAL)grad_scale;
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) {
        REAL d = gs * g[i] + wd * w[i];
        if (m) d = m[i] = mu * m[i] + d;
        w[i] -= lr * d;
    }
}
