/* data/utf8.c: strict UTF-8 steps and stripping. Rules: Unicode 15 table 3-7; white space: the characters of
 * Python's str.isspace (White_Space plus U+001C..U+001F).
 */
#include "data/utf8_impl.h"

static bool is_tail(char c) { return ((unsigned char)c & 0xC0u) == 0x80u; }

size_t utf8_next(const char *s, size_t n, uint32_t *cp)
{
    uint32_t c = 0, tmp;
    if (!cp) cp = &tmp;
    if (n == 0) return 0;
    const unsigned char b = (unsigned char)s[0];
    if (b < 0x80) {
        *cp = b;
        return 1;
    }
    if (b < 0xC2 || b > 0xF4) return 0;
    const size_t len = b < 0xE0 ? 2 : b < 0xF0 ? 3 : 4;
    if (n < len) return 0;
    c = b & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (!is_tail(s[i])) return 0;
        c = c << 6 | ((unsigned char)s[i] & 0x3Fu);
    }
    if (len == 3 && (c < 0x800 || (c >= 0xD800 && c < 0xE000))) return 0;
    if (len == 4 && (c < 0x10000 || c > 0x10FFFF)) return 0;
    *cp = c;
    return len;
}

static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
           c == 0x3000;
}

void utf8_strip(const char **s, size_t *n)
{
    const char *p = *s;
    size_t m = *n, len;
    uint32_t c = 0;
    while ((len = utf8_next(p, m, &c)) > 0 && is_space(c)) {
        p += len;
        m -= len;
    }
    while (m > 0) {
        size_t back = 1;
        while (back < 4 && back < m && is_tail(p[m - back])) back++;
        if (utf8_next(p + m - back, back, &c) != back || !is_space(c)) break;
        m -= back;
    }
    *s = p;
    *n = m;
}
