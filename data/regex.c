/* data/regex.c: compiling and matching with PCRE2 (UTF, UCP, JIT). See regex_impl.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/regex_impl.h"
#include <pcre2.h>
#include <pthread.h>
#include <string.h>

struct Regex {
    Regex *next;
    char *text; /* (n,) as PCRE2 reads it */
    size_t n;
    pcre2_code *code;
    bool jit;
};

/* A file made to hold many patterns must not fill the memory with code. */
#define MAX_PATTERNS 1024

static struct {
    pthread_mutex_t lock;
    Arena arena;
    Regex *first;
    int n;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER, .arena = {.name = "patterns"}};

static Regex *compile(const char *text, size_t n, const char *what, Err *e)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[160];
    if (kept.n == MAX_PATTERNS) {
        err_set(e, ERR_FAIL, "%s: more than %d different patterns in one process", what, MAX_PATTERNS);
        return NULL;
    }
    Regex *r = arena_alloc(&kept.arena, sizeof *r, e);
    if (!r || !(r->text = arena_strndup(&kept.arena, text, n, e))) return NULL;
    r->n = n;
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (!c) {
        err_set(e, ERR_MEMORY, "%s: out of memory for a pattern", what);
        return NULL;
    }
    pcre2_set_newline(c, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(c, 100);
    r->code = pcre2_compile((PCRE2_SPTR)text, n,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, c);
    pcre2_compile_context_free(c);
    if (!r->code) {
        pcre2_get_error_message(code, why, sizeof why);
        err_set(e, ERR_USAGE, "%s: pattern `%.200s`: PCRE2 at %zu: %s", what, text, (size_t)at,
                (const char *)why);
        return NULL;
    }
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE) == 0;
    return r;
}

static const Regex *open_text(const char *text, size_t n, const char *what, Err *e)
{
    pthread_mutex_lock(&kept.lock);
    Regex *r = kept.first;
    while (r && (r->n != n || memcmp(r->text, text, n) != 0)) r = r->next;
    if (!r && (r = compile(text, n, what, e))) {
        r->next = kept.first;
        kept.first = r;
        kept.n++;
    }
    pthread_mutex_unlock(&kept.lock);
    return r;
}

const Regex *regex_open(const char *pattern, size_t n, RegexDialect dialect, const char *what, Err *e)
{
    Arena tmp = {.name = "pattern"};
    TokText text = {0};
    const Regex *r = NULL;
    if (regex_translate(&text, pattern, n, dialect, what, &tmp, e) && text_put(&text, "", 1, &tmp, e))
        r = open_text(text.s, text.n - 1, what, e);
    arena_free(&tmp);
    return r;
}

const Regex *regex_open_literal(const char *s, size_t n, const char *what, Err *e)
{
    Arena tmp = {.name = "pattern"};
    TokText text = {0};
    const Regex *r = NULL;
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) {
        const bool special = s[i] > 0 && strchr("\\^$.[]|()?*+{}-#", s[i]);
        ok = (!special || text_put(&text, "\\", 1, &tmp, e)) && text_put(&text, s + i, 1, &tmp, e);
    }
    if (ok && text_put(&text, "", 1, &tmp, e)) r = open_text(text.s, text.n - 1, what, e);
    arena_free(&tmp);
    return r;
}

void matcher_close(Matcher *m)
{
    pcre2_match_data_free(m->data);
    pcre2_match_context_free(m->context);
    pcre2_jit_stack_free(m->stack);
    *m = (Matcher){0};
}

static bool matcher_open(Matcher *m, Err *e)
{
    m->data = pcre2_match_data_create(1, NULL);
    m->context = pcre2_match_context_create(NULL);
    if (!m->data || !m->context) return err_set(e, ERR_MEMORY, "out of memory for matching patterns");
    pcre2_set_match_limit(m->context, UINT32_MAX);
    return true;
}

static int match(const Regex *r, const Matcher *m, const char *s, size_t n, size_t from)
{
    if (r->jit) return pcre2_jit_match(r->code, (PCRE2_SPTR)s, n, from, 0, m->data, m->context);
    return pcre2_match(r->code, (PCRE2_SPTR)s, n, from, PCRE2_NO_UTF_CHECK, m->data, m->context);
}

int regex_find(const Regex *r, Matcher *m, const char *s, size_t n, size_t from, size_t *lo, size_t *hi,
               Err *e)
{
    if (!m->data && !matcher_open(m, e)) return -1;
    int got = match(r, m, s, n, from);
    if (got == PCRE2_ERROR_JIT_STACKLIMIT && !m->stack) {
        m->stack = pcre2_jit_stack_create((size_t)1 << 20, (size_t)256 << 20, NULL);
        pcre2_jit_stack_assign(m->context, NULL, m->stack);
        got = match(r, m, s, n, from);
    }
    if (got == PCRE2_ERROR_NOMATCH) return 0;
    if (got < 0) {
        PCRE2_UCHAR why[160];
        pcre2_get_error_message(got, why, sizeof why);
        err_set(e, ERR_FAIL, "pattern `%.200s` on a text of %zu bytes: PCRE2: %s", r->text, n,
                (const char *)why);
        return -1;
    }
    const PCRE2_SIZE *v = pcre2_get_ovector_pointer(m->data);
    *lo = v[0];
    *hi = v[1];
    return 1;
}
