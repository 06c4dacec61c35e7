/* data/regex_syntax.c: patterns of Oniguruma (Ruby syntax) and Rust's regex crates in PCRE2's words.
 *
 *   \s \S \w \W      by Unicode's own lists: PCRE2's \s has U+180E, its \w lacks marks and connectors
 *   \h \v \uHHHH     hex digits, U+000B, a code point (PCRE2: blanks, vertical space, an error)
 *   \p{Han}          \p{sc:Han}: PCRE2 means Script_Extensions
 *   X{2,3}+          Oniguruma: one or more times X{2,3}; Rust and PCRE2: possessive
 *   X{,3}            X{0,3}
 *   ^ $              Oniguruma: of a line; Rust: of the text
 *
 * What means something else there and has no translation is refused by name: class operations, POSIX
 * classes, word boundaries, back references, options other than i, case-blind letters that fold in pairs.
 */
#include "data/regex_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

#define SPACE_SET                                                                                            \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}"     \
    "\\x{3000}"
/* Alphabetic, marks, decimal numbers, connectors. */
#define WORD_SET                                                                                             \
    "\\p{L}\\p{Nl}\\p{M}\\p{Nd}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}"         \
    "\\x{1F170}-\\x{1F189}"

/* What else each dialect counts: Oniguruma, outside classes only, the numbers of Latin-1; Rust the
 * joiners. */
#define WORD_ONIGURUMA "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
#define WORD_RUST "\\x{200C}\\x{200D}"

typedef struct Reader {
    const char *p, *end, *what, *whole;
    size_t n_whole;
    RegexDialect dialect;
    TokText *out;
    size_t atom; /* where the last atom begins in out */
    size_t group[100];
    int depth;
    int blind; /* depth + 1 at which (?i) was switched on, 0 = off */
    char last; /* last plain character outside classes */
    Arena *a;
    Err *e;
} Reader;

static bool refuse(const Reader *r, const char *name)
{
    return err_set(r->e, ERR_USAGE, "%s: pattern `%.*s`: %s: not in this version", r->what,
                   (int)(r->n_whole < 300 ? r->n_whole : 300), r->whole, name);
}

static bool put(Reader *r, const char *s) { return text_put(r->out, s, strlen(s), r->a, r->e); }

/* \p{...} or \P{...}, p behind the letter. */
static bool property(Reader *r, char letter)
{
    static const char *const category[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc",
                                           "Me", "N",  "Nd", "Nl", "No", "P",  "Pc", "Pd", "Ps",
                                           "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk", "So",
                                           "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co"};
    char name[40], head[4] = {'\\', letter, '{', 0};
    size_t n = 0;
    if (r->p == r->end) return refuse(r, "\\p at the end");
    if (*r->p != '{') {
        if (r->dialect != REGEX_RUST) return refuse(r, "\\p without a brace");
        name[n++] = *r->p++;
    } else {
        for (r->p++; r->p < r->end && *r->p != '}' && n < sizeof name - 1; r->p++) name[n++] = *r->p;
        if (r->p == r->end || *r->p != '}') return refuse(r, "a property without `}`");
        r->p++;
    }
    name[n] = 0;
    const char *plain = name + (name[0] == '^');
    if (plain > name) head[1] = letter == 'p' ? 'P' : 'p';
    bool known = false;
    for (size_t i = 0; i < sizeof category / sizeof *category; i++)
        if (strcmp(plain, category[i]) == 0) known = true;
    return put(r, head) && (known || put(r, "sc:")) && put(r, plain) && put(r, "}");
}

static bool hex_escape(Reader *r, char kind)
{
    char digits[9];
    size_t n = 0, want = kind == 'u' ? 4 : 2;
    const bool brace = r->p < r->end && *r->p == '{' && kind == 'x';
    if (brace) {
        r->p++;
        want = 8;
    }
    while (r->p < r->end && n < want && strchr("0123456789abcdefABCDEF", *r->p)) digits[n++] = *r->p++;
    digits[n] = 0;
    if (n == 0 || (!brace && n < want)) return refuse(r, "a short \\x or \\u");
    if (brace && (r->p == r->end || *r->p++ != '}')) return refuse(r, "\\x{ without `}`");
    if (kind == 'x' && !brace && digits[0] > '7' && r->dialect == REGEX_ONIGURUMA)
        return refuse(r, "\\x of a byte beyond ASCII");
    return put(r, "\\x{") && put(r, digits) && put(r, "}");
}

/* One escape, p behind the backslash. */
static bool escape(Reader *r, bool in_class)
{
    if (r->p == r->end) return refuse(r, "a backslash at the end");
    const char c = *r->p++;
    const bool rust = r->dialect == REGEX_RUST;
    char name[3] = {'\\', c, 0};
    switch (c) {
    case 's': return put(r, in_class ? SPACE_SET : "[" SPACE_SET "]");
    case 'S': return in_class ? refuse(r, "\\S inside a class") : put(r, "[^" SPACE_SET "]");
    case 'w':
        return put(r, in_class ? "" : "[") && put(r, WORD_SET) &&
               put(r, rust       ? WORD_RUST
                      : in_class ? ""
                                 : WORD_ONIGURUMA) &&
               put(r, in_class ? "" : "]");
    case 'W':
        if (in_class) return refuse(r, "\\W inside a class");
        return put(r, "[^" WORD_SET) && put(r, rust ? WORD_RUST "]" : WORD_ONIGURUMA "]");
    case 'd': return put(r, "\\p{Nd}");
    case 'D': return put(r, "\\P{Nd}");
    case 'h': return rust ? refuse(r, name) : put(r, in_class ? "0-9a-fA-F" : "[0-9a-fA-F]");
    case 'v': return put(r, "\\x{B}");
    case 'p':
    case 'P': return property(r, c);
    case 'x':
    case 'u': return hex_escape(r, c);
    case 't':
    case 'n':
    case 'r':
    case 'f':
    case 'a': return put(r, name);
    case 'A':
    case 'z': return in_class ? refuse(r, name) : put(r, name);
    default: break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter) return refuse(r, name);
    if ((unsigned char)c >= 0x80) {
        r->p--;
        const size_t n = utf8_next(r->p, (size_t)(r->end - r->p), NULL);
        if (!text_put(r->out, r->p, n, r->a, r->e)) return false;
        r->p += n;
        return true;
    }
    return put(r, name);
}

/* [...], p behind the bracket. */
static bool class_of(Reader *r)
{
    bool first = true;
    if (!put(r, "[")) return false;
    if (r->p < r->end && *r->p == '^') {
        r->p++;
        if (!put(r, "^")) return false;
    }
    for (; r->p < r->end; first = false) {
        const char c = *r->p++;
        if (c == ']' && !first) return put(r, "]");
        if (c == ']') return refuse(r, "an empty class");
        if (c == '[') return refuse(r, "a class inside a class");
        if (c == '&' && r->p < r->end && *r->p == '&') return refuse(r, "a class operation (&&)");
        if (r->dialect == REGEX_RUST && (c == '-' || c == '~') && r->p < r->end && *r->p == c)
            return refuse(r, "a class operation");
        if (r->blind && (unsigned char)c >= 0x80) return refuse(r, "case-blind letters beyond ASCII");
        if (c == '\\' ? !escape(r, true) : !text_put(r->out, &c, 1, r->a, r->e)) return false;
    }
    return refuse(r, "a class without `]`");
}

/* (, p behind it: which kinds of groups there are. */
static bool group(Reader *r)
{
    static const char *const plain[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    if (r->depth == 99) return refuse(r, "groups more than 99 deep");
    r->group[r->depth++] = r->out->n;
    const size_t left = (size_t)(r->end - r->p);
    if (left == 0 || (*r->p != '?' && *r->p != '*')) return put(r, "(?:");
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        const size_t n = strlen(plain[i]);
        if (left < n || memcmp(r->p, plain[i], n) != 0) continue;
        r->p += n;
        return put(r, "(") && put(r, plain[i]);
    }
    if (left >= 3 && memcmp(r->p, "?i:", 3) == 0) {
        if (!r->blind) r->blind = r->depth;
        r->p += 3;
        return put(r, "(?i:");
    }
    if (left >= 3 && memcmp(r->p, "?i)", 3) == 0 && r->p == r->whole + 1) {
        r->depth--;
        r->blind = -1;
        r->p += 3;
        return put(r, "(?i)");
    }
    return refuse(r, "a group that is not (?:), (?=), (?!), (?<=), (?<!), (?>), (?i:) or ()");
}

/* {n}, {n,}, {,m}, {n,m}, p behind the brace; not a quantifier: false with *is false. */
static bool interval(Reader *r, bool *is)
{
    const char *q = r->p, *const lo = q;
    while (q < r->end && *q >= '0' && *q <= '9') q++;
    const char *const lo_end = q;
    const bool comma = q < r->end && *q == ',';
    if (comma) q++;
    const char *const hi = q;
    while (q < r->end && *q >= '0' && *q <= '9') q++;
    *is = q < r->end && *q == '}' && (lo_end > lo || (comma && q > hi)) && lo_end - lo < 6 && q - hi < 6;
    if (!*is) return false;
    if (lo == lo_end && r->dialect == REGEX_RUST) return refuse(r, "{,n}");
    bool ok = put(r, "{") &&
              (lo_end > lo ? text_put(r->out, lo, (size_t)(lo_end - lo), r->a, r->e) : put(r, "0"));
    ok = ok && (!comma || put(r, ",")) && (!comma || text_put(r->out, hi, (size_t)(q - hi), r->a, r->e)) &&
         put(r, "}");
    r->p = q + 1;
    if (!ok || r->p == r->end || (*r->p != '+' && *r->p != '?') || r->dialect == REGEX_RUST) return ok;
    if (*r->p == '?') return comma ? ok : refuse(r, "{n}?");
    r->p++;
    const size_t n = r->out->n - r->atom;
    if (!put(r, "(?:)+")) return false;
    char *at = r->out->s + r->atom;
    memmove(at + 3, at, n);
    memcpy(at, "(?:", 3);
    memcpy(at + 3 + n, ")+", 2);
    return true;
}

/* Case-blind pairs that Unicode folds to one letter (ss, ff, st, ...): Oniguruma matches the letter too. */
static bool folds_in_pairs(const Reader *r, char c)
{
    static const char *const pair[] = {"ss", "ff", "fi", "fl", "st", "jv", "hv"};
    const char a = (char)(r->last | 0x20), b = (char)(c | 0x20);
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
        if (r->blind && a == pair[i][0] && b == pair[i][1]) return true;
    return false;
}

static bool one(Reader *r)
{
    const char c = *r->p++;
    bool is;
    if (c == '{' && interval(r, &is)) return true;
    if (r->e->code) return false;
    if (c == '{') return refuse(r, "a brace that is no repetition");
    if (c == '*' || c == '+' || c == '?' || c == '|') {
        r->last = 0;
        return text_put(r->out, &c, 1, r->a, r->e);
    }
    if (c == ')') {
        if (r->depth == 0) return refuse(r, "`)` without `(`");
        r->atom = r->group[--r->depth];
        if (r->blind > r->depth) r->blind = 0;
        r->last = 0;
        return put(r, ")");
    }
    r->atom = r->out->n;
    if (r->dialect == REGEX_RUST && (c == '^' || c == '$')) return put(r, c == '^' ? "\\A" : "\\z");
    if (c == '(' || c == '[' || c == '\\') {
        r->last = 0;
        return c == '(' ? group(r) : c == '[' ? class_of(r) : escape(r, false);
    }
    if (r->blind && (unsigned char)c >= 0x80) return refuse(r, "case-blind letters beyond ASCII");
    if (folds_in_pairs(r, c)) return refuse(r, "case-blind letters that fold in pairs");
    r->last = c;
    size_t n = utf8_next(r->p - 1, (size_t)(r->end - r->p) + 1, NULL);
    if (!text_put(r->out, r->p - 1, n, r->a, r->e)) return false;
    r->p += n - 1;
    return true;
}

bool regex_translate(TokText *out, const char *pattern, size_t n, RegexDialect dialect, const char *what,
                     Arena *a, Err *e)
{
    Reader r = {
        .p = pattern, .end = pattern + n, .what = what, .whole = pattern, .n_whole = n, .a = a, .e = e};
    r.dialect = dialect;
    r.out = out;
    if (n > 100000) return refuse(&r, "a pattern longer than 100,000 bytes");
    for (size_t i = 0, len; i < n; i += len)
        if ((len = utf8_next(pattern + i, n - i, NULL)) == 0) return refuse(&r, "malformed UTF-8");
    if (memchr(pattern, 0, n)) return refuse(&r, "a NUL character");
    while (r.p < r.end)
        if (!one(&r)) return false;
    return r.depth == 0 || refuse(&r, "`(` without `)`");
}
