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
/* Bytes written to dst (4,) for code point c, a valid one. */
size_t utf8_put(char *dst, uint32_t c);
/* Bytes of s[0..n) up to the first malformed one. */
size_t utf8_valid(const char *s, size_t n);
/* Bytes of the character that ends s[0..n), n > 0, valid UTF-8; its code point in *cp. */
size_t utf8_last(const char *s, size_t n, uint32_t *cp);
/* White_Space; numbers (Nd, Nl, No); P or ASCII punctuation; \w of Unicode's UTS 18. */
bool char_is_space(uint32_t c);
bool char_is_number(uint32_t c);
bool char_is_punctuation(uint32_t c);
bool char_is_word(uint32_t c);
/* Narrows *s, *n to the text without leading and trailing white space (Unicode's, as Python's str.strip). */
void utf8_strip(const char **s, size_t *n);
#endif
