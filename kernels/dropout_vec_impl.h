/* kernels/dropout_vec_impl.h: dropout.c in vectors: DW counters of Philox4x32-10 at once, one per 64-bit lane
 * (only the low halves count). The lanes hold quads 0, 2, 1, 3 (or 0, 4, 1, 5, ...), so two unpackings give
 * the elements in order.
 */

/* Words w[2][VW as 32-bit lanes]: 2 VW = 4 DW elements from quad q0 on. */
VFN void philox(VI out[2], uint32_t q0, uint32_t step, uint32_t stream, uint32_t sample, uint64_t seed)
{
    VI c0 = vi_add(vi_set(q0), vi_even_first()), c1 = vi_set(step), c2 = vi_set(stream), c3 = vi_set(sample);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const VI p0 = vi_mul32(c0, vi_set(0xD2511F53u)), p1 = vi_mul32(c2, vi_set(0xCD9E8D57u));
        c0 = vi_xor3(vi_shr32(p1), c1, vi_set(k0));
        c2 = vi_xor3(vi_shr32(p0), c3, vi_set(k1));
        c1 = p1;
        c3 = p0;
        k0 += 0x9E3779B9u; /* Weyl steps of the paper, as in core/rng.c */
        k1 += 0xBB67AE85u;
    }
    const VI low = vi_set(0xFFFFFFFFu);
    const VI w01 = vi_or(vi_and(c0, low), vi_shl32(c1)), w23 = vi_or(vi_and(c2, low), vi_shl32(c3));
    out[0] = vi_pairs_low(w01, w23);
    out[1] = vi_pairs_high(w01, w23);
}

/* n <= PAR_BLOCK elements of one sample from element e0 (a multiple of 4); kept where u > least. */
static void dropout_run(float *y, const float *x, long n, VF up, uint32_t least, uint32_t e0, uint32_t step,
                        uint32_t stream, uint32_t sample, uint64_t seed, Mode mode)
{
    for (long i = 0; i < n; i += 2 * VW) { /* y x (n) */
        VI u[2];
        philox(u, (e0 + (uint32_t)i) / 4, step, stream, sample, seed);
        for (int h = 0; h < 2; h++) {
            const long at = i + h * VW, left = n - at;
            if (left >= VW)
                vf_store(y + at, vf_only(vi_above(u[h], least), vf_get(x + at, VW) * up), VW, mode);
            else if (left > 0)
                vf_store(y + at, vf_only(vi_above(u[h], least), vf_get(x + at, (int)left) * up), (int)left,
                         mode);
        }
    }
}

void V(dropout)(void *y_, const void *x_, double p, uint64_t seed, uint32_t step, uint32_t stream,
                uint32_t sample0, long samples, long per_sample, Mode mode)
{
    float *y = y_;                               /* (samples, per_sample) */
    const float *x = x_;                         /* (samples, per_sample) */
    const double least = ceil(p * 4294967296.0); /* u >= p 2^32 is u > least - 1 */
    if (least < 1.0) {                           /* p = 0 keeps everything */
        V(scale)(y, 1.0, x, samples * per_sample, mode);
        return;
    }
    const VF up = vf_set((float)(1.0 / (1.0 - p)));
    const uint32_t last_dropped = (uint32_t)(least - 1.0);
    const long runs = (per_sample + PAR_BLOCK - 1) / PAR_BLOCK;
#pragma omp parallel for schedule(static) if (samples * per_sample > PAR_MIN / 4)
    for (long r = 0; r < samples * runs; r++) {
        const long s = r / runs, e0 = r % runs * PAR_BLOCK, at = s * per_sample + e0;
        dropout_run(y + at, x + at, lmin(PAR_BLOCK, per_sample - e0), up, last_dropped, (uint32_t)e0, step,
                    stream, sample0 + (uint32_t)s, seed, mode);
    }
}
