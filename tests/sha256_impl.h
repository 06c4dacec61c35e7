/* tests/sha256_impl.h: SHA-256 (FIPS 180-4) of token streams, as golden.json of the shared vectors gives
 * it. */
#ifndef TEST_SHA256_IMPL_H
#define TEST_SHA256_IMPL_H
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static inline uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* The first 32 bits of the fractional parts of a root of a prime (FIPS 180-4, 4.2.2 and 5.3.3). */
static inline uint32_t root_bits(int prime, bool cube)
{
    const long double r = cube ? cbrtl(prime) : sqrtl(prime);
    return (uint32_t)((r - floorl(r)) * 4294967296.0L);
}

static inline void sha256_hex(char hex[65], const unsigned char *data, size_t bytes)
{
    uint32_t k[64], h[8], w[64];
    for (int p = 2, n = 0; n < 64; p++) {
        bool prime = true;
        for (int d = 2; d * d <= p; d++)
            if (p % d == 0) prime = false;
        if (prime && n < 8) h[n] = root_bits(p, false);
        if (prime) k[n++] = root_bits(p, true);
    }
    const size_t padded = (bytes + 9 + 63) / 64 * 64;
    for (size_t at = 0; at < padded; at += 64) {
        for (size_t i = 0; i < 64; i++) {
            const size_t j = at + i;
            uint32_t c = j < bytes ? data[j] : j == bytes ? 0x80 : 0;
            if (j >= padded - 8) c = (uint32_t)((uint64_t)bytes * 8 >> 8 * (padded - 1 - j) & 255);
            w[i / 4] = w[i / 4] << 8 | c;
        }
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
        uint32_t s[8];
        memcpy(s, h, sizeof s);
        for (int i = 0; i < 64; i++) {
            const uint32_t a = s[0], e = s[4];
            const uint32_t t1 = s[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & s[5]) ^ (~e & s[6])) +
                                k[i] + w[i];
            const uint32_t t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) +
                                ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
            memmove(s + 1, s, 7 * sizeof *s);
            s[0] = t1 + t2;
            s[4] += t1;
        }
        for (int i = 0; i < 8; i++) h[i] += s[i];
    }
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", h[i]);
}
#endif
