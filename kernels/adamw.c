/* kernels/adamw.c: one AdamW step on n elements, decoupled decay. Reference, float and double.  1711.05101
 *   g' = grad_scale g;  m = b1 m + (1-b1) g';  v = b2 v + (1-b2) g'^2
 *   w = w - lr wd w - (lr/c1) m / (sqrt(v/c2) + eps)                w m v g (n); c1 = 1-b1^t, c2 = 1-b2^t
 */
#include "kernels/ref_impl.h"

void K(adamw)(void *w_, void *m_, void *v_, const void *g_, long n, double lr, double b1, double b2,
              double eps, double wd, double c1, double c2, double grad_scale)
{
    REAL *w = w_, *m = m_, *v = v_;            /* (n) */
    const REAL *g = g_, gs = (REAL)grad_scale; /* (n) */
    const REAL decay = (REAL)(lr * wd), step = (REAL)(lr / c1), rc2 = (REAL)(1.0 / sqrt(c2));
    const REAL n1 = (REAL)(1.0 - b1), n2 = (REAL)(1.0 - b2);
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) K(adamw_element)
    (&w[i], &m[i], &v[i], g[i] * gs, (REAL)b1, n1, (REAL)b2, n2, (REAL)eps, decay, step, rc2);
}
