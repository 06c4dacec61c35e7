/* formats/h5common.c: HDF5 element types, error text, the envelope that is checked before HDF5 sees a byte.
 *
 * The envelope tells apart: half-written (the block is still zero: it is written last), truncated (shorter
 * than the length it carries), damaged (a hash differs) and foreign (no block at all). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>
#include "formats/hdf5_impl.h"

const char *pare_version(void) { return "pare 0.1.0"; }

typedef struct Reason {
    char text[400];
} Reason;
static _Thread_local Reason reason; /* of the last call that failed: later calls clear HDF5's own stack */

/* Upward: the first entry is where it happened. */
static herr_t reason_of(unsigned n, const H5E_error2_t *err, void *user)
{
    Reason *r = user;
    char minor[128] = "";
    const char *no = err->desc ? strstr(err->desc, "errno = ") : NULL;
    long code = no ? strtol(no + 8, NULL, 10) : 0;
    if (code > 0) {
        snprintf(r->text, sizeof r->text, "%s", strerror((int)code));
        return 1;
    }
    if (n) return 0;
    H5Eget_msg(err->min_num, NULL, minor, sizeof minor);
    snprintf(r->text, sizeof r->text, "HDF5: %s (%s)", err->desc ? err->desc : "?", minor);
    return 0;
}

static herr_t remember(hid_t stack, void *unused)
{
    (void)unused;
    return H5Ewalk2(stack, H5E_WALK_UPWARD, reason_of, &reason);
}

void h5_quiet(void)
{
    /* Files are closed by hand; at exit the library would try again to write what could not be written. Only
     * the first call, before anything else of HDF5, has an effect. */
    H5dont_atexit();
    H5Eset_auto2(H5E_DEFAULT, remember, NULL);
}

bool h5_error(Err *e, ErrCode code, const char *fmt, ...)
{
    char what[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    err_set(e, code, "%s: %s", what, *reason.text ? reason.text : "HDF5 gives no reason");
    *reason.text = 0;
    return false;
}

/* bits, mantissa, exponent, bias of an IEEE-like float; this order of calls is the one HDF5 accepts. */
static hid_t float_type(size_t bytes, size_t mantissa, size_t exponent, size_t bias)
{
    hid_t t = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(t, 8 * bytes - 1, mantissa, exponent, 0, mantissa);
    H5Tset_precision(t, 8 * bytes);
    H5Tset_size(t, bytes);
    H5Tset_ebias(t, bias);
    return t;
}

static hid_t bool_type(void)
{
    const signed char no = 0, yes = 1;
    hid_t t = H5Tenum_create(H5T_STD_I8LE);
    H5Tenum_insert(t, "FALSE", &no);
    H5Tenum_insert(t, "TRUE", &yes);
    return t;
}

/* FP8 goes as uint8 codes: HDF5 would read E4M3's 256 as infinity (product.md 2.2). */
hid_t h5_type(DType t)
{
    switch (t) {
    case DT_F32: return H5Tcopy(H5T_IEEE_F32LE);
    case DT_F64: return H5Tcopy(H5T_IEEE_F64LE);
    case DT_F16: return float_type(2, 10, 5, 15);
    case DT_BF16: return float_type(2, 7, 8, 127);
    case DT_I8: return H5Tcopy(H5T_STD_I8LE);
    case DT_I16: return H5Tcopy(H5T_STD_I16LE);
    case DT_U16: return H5Tcopy(H5T_STD_U16LE);
    case DT_I32: return H5Tcopy(H5T_STD_I32LE);
    case DT_U32: return H5Tcopy(H5T_STD_U32LE);
    case DT_I64: return H5Tcopy(H5T_STD_I64LE);
    case DT_U64: return H5Tcopy(H5T_STD_U64LE);
    case DT_BOOL: return bool_type();
    case DT_U8:
    case DT_F8_E4M3:
    case DT_F8_E5M2: return H5Tcopy(H5T_STD_U8LE);
    case DT_COUNT: break;
    }
    return H5I_INVALID_HID;
}

bool h5_type_parse(hid_t type, DType *t)
{
    for (int i = 0; i < DT_COUNT; i++) {
        if (i == DT_F8_E4M3 || i == DT_F8_E5M2) continue;
        hid_t have = h5_type((DType)i);
        bool same = H5Tequal(type, have) > 0;
        H5Tclose(have);
        if (same) {
            *t = (DType)i;
            return true;
        }
    }
    return false;
}

hid_t h5_string_type(void)
{
    hid_t t = H5Tcopy(H5T_C_S1);
    H5Tset_size(t, H5T_VARIABLE);
    H5Tset_cset(t, H5T_CSET_UTF8);
    return t;
}

/* ---- envelope ------------------------------------------------------------------------------------------ */

static void put64(unsigned char *p, uint64_t v)
{
    for (int i = 0; i < 8; i++) p[i] = (unsigned char)(v >> (8 * i));
}

static uint64_t get64(const unsigned char *p)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

/* XXH3-128 of mapped bytes; a large file's pages go back while it is read. */
static XXH128_hash_t payload_hash(const unsigned char *p, uint64_t bytes)
{
    enum { RUN = 16 << 20 };
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    if (bytes <= 4 * (uint64_t)RUN) return XXH3_128bits(p, bytes);
    XXH3_state_t *state = XXH3_createState();
    if (!state) return XXH3_128bits(p, bytes);
    XXH3_128bits_reset(state);
    for (uint64_t at = 0; at < bytes; at += RUN) {
        uint64_t n = bytes - at < RUN ? bytes - at : RUN;
        XXH3_128bits_update(state, p + at, n);
        uintptr_t lo = ((uintptr_t)(p + at) + page - 1) & ~(page - 1),
                  hi = (uintptr_t)(p + at + n) & ~(page - 1);
        if (lo < hi) madvise((void *)lo, hi - lo, MADV_DONTNEED);
    }
    XXH128_hash_t h = XXH3_128bits_digest(state);
    XXH3_freeState(state);
    return h;
}

void envelope_build(unsigned char *block, const unsigned char *payload, uint64_t bytes, int64_t step)
{
    XXH128_canonical_t h128;
    XXH64_canonical_t h64;
    memset(block, 0, ENVELOPE);
    memcpy(block, ENVELOPE_MAGIC, 16);
    block[AT_VERSION] = 1;
    put64(block + AT_LENGTH, bytes);
    XXH128_canonicalFromHash(&h128, payload_hash(payload, bytes));
    memcpy(block + AT_HASH, &h128, sizeof h128);
    put64(block + AT_STEP, (uint64_t)step);
    XXH64_canonicalFromHash(&h64, XXH3_64bits(block, AT_CHECK));
    memcpy(block + AT_CHECK, &h64, sizeof h64);
}

static bool all_zero(const unsigned char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static bool block_check(const FileMap *m, const char *path, Err *e)
{
    static const unsigned char signature[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    const unsigned char *p = m->data;
    XXH64_canonical_t check;
    if (m->bytes >= 8 && !memcmp(p, signature, 8))
        return err_set(
            e, ERR_CORRUPT,
            "%s: HDF5 without pare's envelope, so not written by pare; if you trust where it comes "
            "from, `pare inspect --trust-foreign` shows what it holds",
            path);
    if (m->bytes < ENVELOPE)
        return err_set(e, ERR_CORRUPT, "%s: truncated: %zu bytes, the envelope alone has %d", path, m->bytes,
                       ENVELOPE);
    if (all_zero(p, ENVELOPE))
        return err_set(e, ERR_CORRUPT,
                       "%s: half-written: the envelope, which is written last, is empty (the writer was "
                       "interrupted); use an earlier checkpoint",
                       path);
    XXH64_canonicalFromHash(&check, XXH3_64bits(p, AT_CHECK));
    if (memcmp(p + AT_CHECK, &check, sizeof check) || !all_zero(p + 512, ENVELOPE - 512) ||
        memcmp(p, ENVELOPE_MAGIC, 16))
        return err_set(
            e, ERR_CORRUPT,
            "%s: damaged: the first %d bytes (pare's envelope) do not match their check sum; use an "
            "earlier checkpoint",
            path, ENVELOPE);
    uint32_t version = (uint32_t)get64(p + AT_VERSION), zero = (uint32_t)(get64(p + AT_VERSION) >> 32);
    if (version != 1 || zero)
        return err_set(e, ERR_CORRUPT, "%s: envelope version %u; this program reads version 1", path,
                       version);
    return true;
}

bool envelope_check(const FileMap *m, const char *path, int64_t *step, Err *e)
{
    XXH128_canonical_t want;
    if (!m->bytes) return err_set(e, ERR_CORRUPT, "%s: truncated: the file is empty", path);
    if (!block_check(m, path, e)) return false;
    uint64_t length = get64(m->data + AT_LENGTH), have = m->bytes - ENVELOPE;
    if (length != have)
        return err_set(e, ERR_CORRUPT,
                       "%s: %s: %llu bytes behind the envelope, %llu were written; use an earlier checkpoint",
                       path, have < length ? "truncated" : "damaged, bytes were appended",
                       (unsigned long long)have, (unsigned long long)length);
    XXH128_canonicalFromHash(&want, payload_hash(m->data + ENVELOPE, have));
    if (memcmp(m->data + AT_HASH, &want, sizeof want))
        return err_set(e, ERR_CORRUPT,
                       "%s: damaged: the content (bytes %d to %zu) does not match its hash; use an earlier "
                       "checkpoint",
                       path, ENVELOPE, m->bytes - 1);
    if (step) *step = (int64_t)get64(m->data + AT_STEP);
    return true;
}

bool h5_check_envelope(const char *path, int64_t *step, Err *e)
{
    FileMap m;
    if (!file_map(&m, path, e)) return false;
    bool ok = envelope_check(&m, path, step, e);
    file_unmap(&m);
    return ok;
}
