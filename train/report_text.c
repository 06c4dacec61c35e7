/* train/report_text.c: text that grows, escaped text, numbers as people read them. */
#include "train/report_impl.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static bool room(Text *t, size_t more)
{
    if (t->e->code) return false;
    if (t->n + more + 1 <= t->cap) return true;
    size_t cap = t->cap ? t->cap : 4096;
    while (cap < t->n + more + 1) cap *= 2;
    char *s = arena_grow(t->a, t->s, t->n, cap, t->e);
    if (!s) return false;
    t->s = s;
    t->cap = cap;
    return true;
}

void text_raw(Text *t, const char *s, size_t n)
{
    if (!room(t, n)) return;
    memcpy(t->s + t->n, s, n);
    t->n += n;
    t->s[t->n] = 0;
}

void text_add(Text *t, const char *fmt, ...)
{
    for (int pass = 0; pass < 2 && room(t, 128); pass++) {
        va_list ap;
        va_start(ap, fmt);
        size_t left = t->cap - t->n;
        int n = vsnprintf(t->s + t->n, left, fmt, ap);
        va_end(ap);
        if (n >= 0 && (size_t)n < left) {
            t->n += (size_t)n;
            return;
        }
        t->s[t->n] = 0;
        if (n < 0 || !room(t, (size_t)n)) return;
    }
}

/* Bytes of the UTF-8 character at s that XML may hold, 0 = none. */
static int utf8_length(const unsigned char *s)
{
    if (s[0] < 0x80) return s[0] >= 0x20 || s[0] == '\n' || s[0] == '\t' ? 1 : 0;
    int n = s[0] >= 0xC2 && s[0] < 0xE0 ? 2 : (s[0] & 0xF0) == 0xE0 ? 3 : s[0] >= 0xF0 && s[0] < 0xF5 ? 4 : 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    if (n == 3 && ((s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xED && s[1] > 0x9F))) return 0;
    if (n == 3 && s[0] == 0xEF && s[1] == 0xBF && s[2] > 0xBD) return 0;
    if (n == 4 && ((s[0] == 0xF0 && s[1] < 0x90) || (s[0] == 0xF4 && s[1] > 0x8F))) return 0;
    return n;
}

static const char *entity(char c)
{
    return c == '&'    ? "&amp;"
           : c == '<'  ? "&lt;"
           : c == '>'  ? "&gt;"
           : c == '"'  ? "&quot;"
           : c == '\'' ? "&#39;"
                       : NULL;
}

void text_escaped(Text *t, const char *s)
{
    while (s && *s && !t->e->code) {
        const char *ent = entity(*s);
        int n = utf8_length((const unsigned char *)s);
        if (ent) text_raw(t, ent, strlen(ent));
        else if (n) text_raw(t, s, (size_t)n);
        else if (*s != '\r') text_raw(t, "\xEF\xBF\xBD", 3);
        s += n ? n : 1;
    }
}

void text_cell(Text *t, const char *s)
{
    Text one = {.a = t->a, .e = t->e};
    text_escaped(&one, s);
    for (const char *p = one.s; p && *p; p++) {
        if (*p == '|') text_raw(t, "\\|", 2);
        else text_raw(t, *p == '\n' ? " " : p, 1);
    }
}

char *number_grouped(int64_t v, Arena *a, Err *e)
{
    char digits[32], out[48];
    int n = snprintf(digits, sizeof digits, "%lld", (long long)v), k = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0 && digits[i - 1] != '-') out[k++] = ',';
        out[k++] = digits[i];
    }
    return arena_strndup(a, out, (size_t)k, e);
}

char *number_short(double v, Arena *a, Err *e)
{
    static const struct {
        double unit;
        const char *name;
    } scale[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
    double m = fabs(v);
    if (m < 1e15 && m >= 1e4)
        for (int i = 0; i < 4; i++)
            if (m >= scale[i].unit) return arena_printf(a, e, "%.4g%s", v / scale[i].unit, scale[i].name);
    return arena_printf(a, e, "%.4g", v == 0 ? 0.0 : v);
}

char *number_spread(double mean, double sd, int n, int digits, Arena *a, Err *e)
{
    if (!n || !isfinite(mean)) return arena_strdup(a, "", e);
    if (fabs(mean) >= 1e4 && n > 1 && fabs(mean) < 1e15)
        return arena_printf(a, e, "%s ± %s", number_grouped(llround(mean), a, e),
                            number_grouped(llround(sd), a, e));
    if (fabs(mean) >= 1e4)
        return fabs(mean) < 1e15 ? number_grouped(llround(mean), a, e) : number_short(mean, a, e);
    return n > 1 ? arena_printf(a, e, "%.*f ± %.*f", digits, mean, digits, sd)
                 : arena_printf(a, e, "%.*f", digits, mean);
}

char *number_seconds(double s, Arena *a, Err *e)
{
    if (!(s >= 0) || s > 1e12) return arena_strdup(a, "", e);
    if (s < 100) return arena_printf(a, e, "%.1f s", s);
    int64_t n = llround(s);
    if (n < 3600) return arena_printf(a, e, "%lld min %02lld s", (long long)(n / 60), (long long)(n % 60));
    return arena_printf(a, e, "%lld h %02lld min", (long long)(n / 3600), (long long)(n / 60 % 60));
}
