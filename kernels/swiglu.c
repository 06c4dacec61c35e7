/* kernels/swiglu.c: y = silu(g) u, and its gradients. Reference, float and double.  All (n).
 * dg (+)= dy u silu'(g),  du (+)= dy silu(g);  dg or du may be NULL.  Shazeer 2002.05202
 */
#include "kernels/ref_impl.h"

void K(swiglu_fwd)(void *y_, const void *g_, const void *u_, long n)
{
    REAL *y = y_;                /* (n) */
    const REAL *g = g_, *u = u_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) y[i] = K(silu)(g[i]) * u[i];
}

void K(swiglu_bwd)(void *dg_, void *du_, const void *dy_, const void *g_, const void *u_, long n, Mode mode)
{
    REAL *dg = dg_, *du = du_;              /* (n) or NULL */
    const REAL *dy = dy_, *g = g_, *u = u_; /* (n) */
#pragma omp parallel for schedule(static) if (n > PAR_MIN)
    for (long i = 0; i < n; i++) {
        const REAL d = dy[i], gi = g[i], ui = u[i]; /* read first: dg or du may be dy itself */
        if (dg) put(&dg[i], d * ui * K(silu_grad)(gi), mode);
        if (du) put(&du[i], d * K(silu)(gi), mode);
    }
}
