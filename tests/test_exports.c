/* tests/test_exports.c: what transformers has read (`make oracle`), byte by byte, without Python: the
 * Hugging Face folders of the same models, written here, have the SHA-256 of tests/golden/exports.sha256. */
#include "model/model.h"
#include "tests/test.h"
#include <dirent.h>
#include <stdio.h>
#include <string.h>

/* ---- SHA-256, FIPS 180-4 ---- */
typedef struct Sha {
    uint32_t h[8];
} Sha;

/* First 32 bits of the fractional parts of the roots of the first primes: of square roots h, of cube roots
 * k. */
static const uint32_t sha_h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha_block(Sha *s, const unsigned char *p)
{
    uint32_t w[64], v[8];
    memcpy(v, s->h, sizeof v);
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | (uint32_t)p[3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (turn(w[i - 15], 7) ^ turn(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (turn(w[i - 2], 17) ^ turn(w[i - 2], 19) ^ w[i - 2] >> 10);
    for (int i = 0; i < 64; i++) {
        uint32_t e = v[4], a = v[0];
        uint32_t t1 = v[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & v[5]) ^ (~e & v[6])) +
                      sha_k[i] + w[i];
        uint32_t t2 = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

static void sha256(char hex[65], const unsigned char *p, size_t n)
{
    Sha s;
    memcpy(s.h, sha_h, sizeof s.h);
    size_t at = 0;
    for (; at + 64 <= n; at += 64) sha_block(&s, p + at);
    unsigned char last[128] = {0};
    size_t rest = n - at, blocks = rest < 56 ? 1 : 2;
    memcpy(last, p + at, rest);
    last[rest] = 0x80;
    for (size_t i = 0; i < 8; i++) last[blocks * 64 - 1 - i] = (unsigned char)((uint64_t)n * 8 >> (8 * i));
    for (size_t i = 0; i < blocks; i++) sha_block(&s, last + 64 * i);
    for (int i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", s.h[i]);
}

TEST(exports, sha256_of_published_texts)
{
    static const char *const two = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    char hex[65];
    sha256(hex, (const unsigned char *)"abc", 3);
    ASSERT_STR(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    sha256(hex, (const unsigned char *)"", 0);
    ASSERT_STR(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256(hex, (const unsigned char *)two, strlen(two));
    ASSERT_STR(hex, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

/* ---- the exports ---- */
static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), m = strlen(with);
    return n >= m && !strcmp(s + n - m, with);
}

/* As tests/oracle/run.sh: a folder's own type, so that the stored bits come back. */
static const char *export_model(const char *name, Arena *a, Err *e)
{
    DType t = ends(name, "-bf16") ? DT_BF16 : ends(name, "-f16") ? DT_F16 : DT_F32;
    const char *from = arena_printf(
        a, e, strncmp(name, "hf-", 3) ? "tests/data/stories/%s.bin" : "tests/data/%s", name);
    const char *to = path_join(a, test_dir(), name, e);
    Model m;
    OutModel o;
    if (from && to && model_open(&m, from, kernels_cpu_f32(), a, e) && model_out(&m, &o, t, a, e))
        formats_write_hf(to, &o, 5000000000, e);
    ASSERT_OK(*e);
    return to;
}

static int count_files(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    ASSERT(d != NULL);
    for (struct dirent *f; (f = readdir(d));) n += f->d_name[0] != '.';
    closedir(d);
    return n;
}

TEST(exports, have_the_bytes_that_transformers_read)
{
    Arena a = {.name = "test"};
    Err e = {0};
    size_t bytes;
    const char *list = file_read(&a, "tests/golden/exports.sha256", &bytes, &e), *folder = NULL;
    char hash[65], name[160], model[160], last[160] = "", have[65];
    int models = 0, files = 0, in_folder = 0, used;
    for (const char *s = list; sscanf(s, "%64s  %159s\n%n", hash, name, &used) == 2; s += used) {
        snprintf(model, sizeof model, "%.*s", (int)strcspn(name, "/"), name);
        if (strcmp(model, last)) {
            if (folder) ASSERT_EQ(count_files(folder), in_folder);
            folder = export_model(model, &a, &e);
            snprintf(last, sizeof last, "%s", model);
            models++;
            in_folder = 0;
        }
        char *text = file_read(&a, path_join(&a, test_dir(), name, &e), &bytes, &e);
        ASSERT_OK(e);
        sha256(have, (const unsigned char *)text, bytes);
        if (strcmp(have, hash))
            test_fail(__FILE__, __LINE__,
                      "%s is not what transformers read: SHA-256 %s, not %s. If the change is meant, `make "
                      "oracle`, "
                      "then tests/oracle/run.sh --write",
                      name, have, hash);
        in_folder++;
        files++;
    }
    ASSERT_EQ(count_files(folder), in_folder);
    ASSERT_EQ(count_files(test_dir()), models);
    ASSERT(models >= 8 && files >= 23);
    arena_free(&a);
}
