/* UTF-8, one character at a time, by SentencePiece's rule of what is valid: no overlong forms, no surrogates,
 * at most U+10FFFF. */
#ifndef UTF8_IMPL_H
#define UTF8_IMPL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* Bytes of the valid character that starts s[0..n), its code point in *cp (may be NULL); 0 = malformed, or
 * nothing there. */
size_t utf8_next(const char *s, size_t n, uint32_t *cp);
/* Narrows *s, *n to the text without leading and trailing white space (Unicode's, as Python's str.strip). */
void utf8_strip(const char **s, size_t *n);
#endif
