/* data/byte_level.c: GPT-2's letters for bytes. 0x21..0x7E, 0xA1..0xAC, 0xAE..0xFF stand for themselves, the
 * other 68 bytes in order are U+0100, U+0101, ... */
#include "data/pipeline_impl.h"
#include "data/utf8_impl.h"

static bool is_itself(unsigned b) { return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b != 0xAD); }

/* The byte of a letter among U+0100..U+0143. */
static unsigned moved(uint32_t c)
{
    const unsigned k = c - 0x100;
    return k < 33 ? k : k < 67 ? k - 33 + 0x7F : 0xAD;
}

size_t byte_level_letters(const char *s, size_t n, char *to)
{
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned b = (unsigned char)s[i];
        const uint32_t c = is_itself(b) ? b : b < 33 ? 0x100 + b : b == 0xAD ? 0x143 : 0x100 + b - 0x7F + 33;
        m += utf8_put(to + m, c);
    }
    return m;
}

bool byte_level_bytes(const char *s, size_t n, char *to, size_t *m)
{
    uint32_t c = 0;
    *m = 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = utf8_next(s + i, n - i, &c);
        if (len == 0 || c > 0x143 || (c < 0x100 && !is_itself(c))) return false;
        to[(*m)++] = (char)(c < 0x100 ? c : moved(c));
    }
    return true;
}
