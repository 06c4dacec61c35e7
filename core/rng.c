/* core/rng.c: Philox4x32-10, a counter-based generator: a number is a function of (key, counter), so it
 * depends on no thread, rank, order or restart.
 *
 *   key = seed (low, high),  counter = (element / 4, step, stream, sample),  word element % 4
 *   normal pair of words w0, w1: r = sqrt(-2 ln((w0 + 1) / 2^32)), t = 2 pi w1 / 2^32  ->  r cos t, r sin t
 *
 * Salmon, Moraes, Dror, Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011. Box and Muller 1958.
 */
#include "core/core.h"

#include <math.h>
#include <string.h>
#include <xxhash.h>

void philox4x32_10(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2])
{
    uint32_t c0 = ctr[0], c1 = ctr[1], c2 = ctr[2], c3 = ctr[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u; /* golden ratio, sqrt(3) - 1: the paper's Weyl sequences */
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

static void words_of(uint32_t out[4], RngKey k, uint32_t quad)
{
    uint32_t key[2] = {(uint32_t)k.seed, (uint32_t)(k.seed >> 32)};
    uint32_t ctr[4] = {quad, k.step, k.stream, k.sample};
    philox4x32_10(out, ctr, key);
}

uint32_t rng_stream(const char *name) { return (uint32_t)hash64(name, strlen(name)); }

uint32_t rng_u32(RngKey k, uint32_t element)
{
    uint32_t w[4];
    words_of(w, k, element / 4);
    return w[element % 4];
}

double rng_uniform(RngKey k, uint32_t element) { return rng_u32(k, element) * 0x1p-32; }

static void normal_pair(double z[2], uint32_t w0, uint32_t w1)
{
    double r = sqrt(-2.0 * log(((double)w0 + 1.0) * 0x1p-32));
    double t = 6.283185307179586476925 * ((double)w1 * 0x1p-32);
    z[0] = r * cos(t);
    z[1] = r * sin(t);
}

void rng_normal_f32(float *dst, size_t n, RngKey k, double mean, double std)
{
    size_t quads = (n + 3) / 4;
#pragma omp parallel for schedule(static) if (quads > 4096)
    for (size_t q = 0; q < quads; q++) {
        uint32_t w[4];
        double z[4];
        words_of(w, k, (uint32_t)q);
        normal_pair(z, w[0], w[1]);
        normal_pair(z + 2, w[2], w[3]);
        for (size_t i = 4 * q; i < n && i < 4 * q + 4; i++) dst[i] = (float)(mean + std * z[i % 4]);
    }
}

void rng_uniform_f32(float *dst, size_t n, RngKey k, double lo, double hi)
{
    size_t quads = (n + 3) / 4;
#pragma omp parallel for schedule(static) if (quads > 4096)
    for (size_t q = 0; q < quads; q++) {
        uint32_t w[4];
        words_of(w, k, (uint32_t)q);
        for (size_t i = 4 * q; i < n && i < 4 * q + 4; i++)
            dst[i] = (float)(lo + (hi - lo) * (w[i % 4] * 0x1p-32));
    }
}

/* A balanced Feistel network on 2h bits, 2^(2h) >= n the smallest such domain; a value outside [0,n) is sent
 * through again until it falls inside (cycle walking: a bijection of the domain restricted so stays one).
 * Domain < 4n, so under four passes on average. Luby, Rackoff 1988; Black, Rogaway 2002. */
uint64_t rng_permute(uint64_t i, uint64_t n, uint64_t seed, uint64_t epoch)
{
    enum { ROUNDS = 8 };
    if (n <= 1 || i >= n) return i < n ? i : 0;
    int h = 1;
    while (h < 32 && (n - 1) >> (2 * h)) h++;
    uint32_t mask = h == 32 ? 0xFFFFFFFFu : (1u << h) - 1;
    /* "perm" in the key keeps these numbers apart from rng_u32's. */
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32) ^ 0x7065726Du};
    do {
        uint32_t left = (uint32_t)(i >> h) & mask, right = (uint32_t)i & mask;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            uint32_t ctr[4] = {right, round, (uint32_t)epoch, (uint32_t)(epoch >> 32)}, w[4];
            philox4x32_10(w, ctr, key);
            uint32_t next = left ^ (w[0] & mask);
            left = right;
            right = next;
        }
        i = ((uint64_t)left << h) | right;
    } while (i >= n);
    return i;
}

uint64_t hash64(const void *p, size_t n) { return XXH3_64bits(p, n); }

void hash128_hex(char out[33], const void *p, size_t n)
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, XXH3_128bits(p, n));
    for (int i = 0; i < 16; i++) {
        out[2 * i] = "0123456789abcdef"[c.digest[i] >> 4];
        out[2 * i + 1] = "0123456789abcdef"[c.digest[i] & 15];
    }
    out[32] = 0;
}
