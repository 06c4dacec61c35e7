/* kernels/dropout.c: y (+)= x / (1-p) where kept, 0 elsewhere; its own backward. Reference, float and double.
 * x y (samples, per_sample). Element e of sample s is kept when rng_u32({seed, step, stream, sample0 + s}, e)
 * >= p 2^32: the mask depends on the global sample and element only, so a second pass, another thread count
 * or rank repeats it.
 */
#include "kernels/ref_impl.h"
#include "core/core.h"

void K(dropout)(void *y_, const void *x_, double p, uint64_t seed, uint32_t step, uint32_t stream,
                uint32_t sample0, long samples, long per_sample, Mode mode)
{
    REAL *y = y_;       /* (samples, per_sample) */
    const REAL *x = x_; /* (samples, per_sample) */
    const REAL up = (REAL)(1.0 / (1.0 - p));
    const double least = p * 4294967296.0;
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    const long quads = (per_sample + 3) / 4; /* one counter gives four elements */
#pragma omp parallel for schedule(static) if (samples * per_sample > PAR_MIN / 4)
    for (long i = 0; i < samples * quads; i++) {
        const long s = i / quads, q = i % quads, n = lmin(4, per_sample - 4 * q), at = s * per_sample + 4 * q;
        const uint32_t ctr[4] = {(uint32_t)q, step, stream, sample0 + (uint32_t)s};
        uint32_t u[4];
        philox4x32_10(u, ctr, key);
        for (long j = 0; j < n; j++) put(&y[at + j], (double)u[j] >= least ? x[at + j] * up : (REAL)0, mode);
    }
}
