/* Private to data/: the patterns of tokenizers through PCRE2.
 *
 * Patterns are written for Oniguruma in its Ruby syntax (tokenizer.json) or for Rust's fancy-regex
 * (tiktoken); regex_translate rewrites what PCRE2 reads otherwise and refuses, by name, what it cannot say.
 * Compiled patterns are kept for the life of the process, one for each text: JIT code has no arena.
 */
#ifndef REGEX_IMPL_H
#define REGEX_IMPL_H
#include "data/tokenizer_impl.h"

typedef struct Regex Regex;
typedef enum { REGEX_ONIGURUMA, REGEX_RUST } RegexDialect;
/* pattern (n,); what: file and place, for errors. */
const Regex *regex_open(const char *pattern, size_t n, RegexDialect dialect, const char *what, Err *e);
const Regex *regex_open_literal(const char *s, size_t n, const char *what, Err *e);
/* The pattern as PCRE2 reads it, for tests. */
bool regex_translate(TokText *out, const char *pattern, size_t n, RegexDialect dialect, const char *what,
                     Arena *a, Err *e);

/* One thread's matching state; close frees it. */
typedef struct Matcher {
    void *data, *context, *stack;
} Matcher;
void matcher_close(Matcher *m);
/* The leftmost match of r in s (n,), valid UTF-8, at or behind from: 1 with [*lo, *hi), 0 = none, -1 with
 * e. */
int regex_find(const Regex *r, Matcher *m, const char *s, size_t n, size_t from, size_t *lo, size_t *hi,
               Err *e);
#endif
