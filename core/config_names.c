/* core/config_names.c: nearness of names, globs, numbers as people write them. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/config_impl.h"

enum { LONGEST = 64 };

/* Insertions, deletions, replacements and swaps of neighbours (optimal string alignment). Names longer than
 * 64 characters are as far apart as the longer one is long. */
int edit_distance(const char *a, const char *b)
{
    int row[3][LONGEST + 1];
    int n = (int)strnlen(a, LONGEST + 1), m = (int)strnlen(b, LONGEST + 1);
    if (n > LONGEST || m > LONGEST) return strcmp(a, b) == 0 ? 0 : (int)(n > m ? strlen(a) : strlen(b));
    for (int j = 0; j <= m; j++) row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *cur = row[i % 3], *up = row[(i + 2) % 3], *up2 = row[(i + 1) % 3];
        cur[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < best) best = up[j] + 1;
            if (cur[j - 1] + 1 < best) best = cur[j - 1] + 1;
            bool swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            if (swap && up2[j - 2] + 1 < best) best = up2[j - 2] + 1;
            cur[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *nearest_name(const char *name, const char *const *names, int n)
{
    const char *best = NULL;
    int len = (int)strnlen(name, LONGEST + 1), least = len / 3 > 2 ? len / 3 : 2;
    if (least >= len) least = len - 1;
    for (int i = 0; i < n; i++) {
        int dist = names[i] ? edit_distance(name, names[i]) : LONGEST;
        if (dist > least || (best && dist == least)) continue;
        best = names[i];
        least = dist;
    }
    return best;
}

/* Linear: on a mismatch only the last '*' takes one character more. */
bool glob_match(const char *glob, const char *name)
{
    const char *star = NULL, *resume = NULL;
    while (*name) {
        if (*glob == '*') {
            star = glob++;
            resume = name;
        } else if (*glob == '?' || *glob == *name) {
            glob++;
            name++;
        } else if (star) {
            glob = star + 1;
            name = ++resume;
        } else return false;
    }
    while (*glob == '*') glob++;
    return *glob == 0;
}

/* Copies digits without the underscores between them. Returns what follows, NULL when there is no digit or
 * one stands wrong. */
static const char *take_digits(const char *p, char **out, const char *end)
{
    const char *start = p;
    for (; isdigit((unsigned char)*p) || *p == '_'; p++) {
        bool between = p > start && isdigit((unsigned char)p[-1]) && isdigit((unsigned char)p[1]);
        if (*p == '_' && !between) return NULL;
        if (*p == '_') continue;
        if (*out >= end) return NULL;
        *(*out)++ = *p;
    }
    return p;
}

/* [+-]digits[.digits][e[+-]digits] into buf as strtod reads it; *kind: 0 integer, 1 exponent only, 2 with a
 * point. */
static const char *take_number(const char *p, char *buf, size_t room, int *kind)
{
    char *out = buf, *end = buf + room - 1;
    *kind = 0;
    if (*p == '+' || *p == '-') *out++ = *p++;
    const char *whole = p;
    p = take_digits(p, &out, end);
    if (!p) return NULL;
    bool digits = p > whole;
    if (*p == '.') {
        *kind = 2;
        if (out < end) *out++ = *p;
        const char *part = ++p;
        p = take_digits(p, &out, end);
        if (!p) return NULL;
        digits = digits || p > part;
    }
    if (!digits) return NULL;
    if (*p == 'e' || *p == 'E') {
        if (*kind == 0) *kind = 1;
        if (out < end) *out++ = *p++;
        if ((*p == '+' || *p == '-') && out < end) *out++ = *p++;
        const char *power = p;
        p = take_digits(p, &out, end);
        if (!p || p == power) return NULL;
    }
    *out = 0;
    return p;
}

bool config_parse_float(const char *text, double *out)
{
    char buf[128];
    int kind;
    const char *rest = take_number(text, buf, sizeof buf, &kind);
    if (!rest || *rest) return false;
    errno = 0;
    double v = strtod(buf, NULL);
    if (errno == ERANGE || !isfinite(v)) return false;
    *out = v;
    return true;
}

static bool suffix_factor(const char *s, int64_t *factor)
{
    static const struct {
        const char *name;
        int64_t factor;
    } known[] = {
        {"", 1},      {"k", 1000},  {"K", 1000},     {"M", 1000000},  {"G", 1000000000},
        {"Ki", 1024}, {"ki", 1024}, {"Mi", 1 << 20}, {"Gi", 1 << 30},
    };
    for (int i = 0; i < CFG_COUNT(known); i++)
        if (strcmp(s, known[i].name) == 0) {
            *factor = known[i].factor;
            return true;
        }
    return false;
}

bool config_parse_int(const char *text, int64_t *out)
{
    char buf[128];
    int kind;
    int64_t factor = 1, v;
    const char *rest = take_number(text, buf, sizeof buf, &kind);
    if (!rest || kind == 2 || !suffix_factor(rest, &factor)) return false;
    const char *digits = buf + (*buf == '+' || *buf == '-');
    if (digits[0] == '0' && isdigit((unsigned char)digits[1])) return false;
    errno = 0;
    if (kind == 1) {
        double x = strtod(buf, NULL);
        if (errno || x != floor(x) || fabs(x) > 9007199254740992.0 || factor != 1) return false;
        v = (int64_t)x;
    } else {
        long long x = strtoll(buf, NULL, 10);
        if (errno) return false;
        v = x;
    }
    return !__builtin_mul_overflow(v, factor, out);
}
