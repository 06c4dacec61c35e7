/* kernels/argmax.c: out[i] = the first index of the largest entry of row i.     out int32 (N)   x (N,V) */
#include "kernels/kernels.h"
#include "kernels/ref_impl.h"

void K(argmax)(int32_t *out, const void *xv, long N, long V)
{
    const REAL *x = xv;
#pragma omp parallel for if (N * V > 65536) schedule(static)
    for (long i = 0; i < N; i++) {
        const REAL *row = x + i * V;
        long best = 0;
        for (long j = 1; j < V; j++)
            if (row[j] > row[best]) best = j;
        out[i] = (int32_t)best;
    }
}
