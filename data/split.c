/* data/split.c: `split` of a source, NAME[FROM:TO] with FROM and TO a percentage (95%) or a number of bytes
 * (1000000b), either left out, negative = counted from the end. What the bounds cut is tokens.c's matter.
 */
#include "data/source_impl.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool bad(const char *text, const char *path, Err *e, const char *why)
{
    return err_set(e, ERR_USAGE,
                   "%s: split: `%s` %s; write train[:95%%], train[95%%:], train[:1000000b] or "
                   "train[-200000b:]",
                   path, text, why);
}

/* One bound up to `stop`; an empty one leaves *has false. */
static bool bound(Split *s, const char **p, char stop, bool *has, double *v)
{
    if (**p == stop) {
        (*p)++;
        return true;
    }
    if (**p != '-' && (**p < '0' || **p > '9')) return false;
    char *end;
    errno = 0;
    *v = strtod(*p, &end);
    if (end == *p || errno || !isfinite(*v)) return false;
    const char unit = *end;
    if ((unit != '%' && unit != 'b') || (s->kind && s->kind != unit) || end[1] != stop) return false;
    if (unit == 'b' && (rint(*v) < *v || rint(*v) > *v)) return false;
    s->kind = unit;
    *has = true;
    *p = end + 2;
    return true;
}

bool split_parse(Split *s, const char *text, const char *path, Err *e)
{
    *s = (Split){0};
    const char *p = text ? strchr(text, '[') : NULL;
    if (!text || (!p && *text && !strchr(text, ']'))) return true;
    if (!p || p == text) return bad(text, path, e, "is not understood");
    p++;
    if (!bound(s, &p, ':', &s->has_lo, &s->lo) || !bound(s, &p, ']', &s->has_hi, &s->hi) || *p)
        return bad(text, path, e, "is not understood");
    if (s->kind == '%' && (fabs(s->lo) > 100 || fabs(s->hi) > 100))
        return bad(text, path, e, "asks for more than 100%");
    return true;
}

static uint64_t place(char kind, double v, uint64_t total)
{
    const double n = (double)total, units = kind == '%' ? floor(n * fabs(v) / 100) : fabs(v);
    const uint64_t u = units >= n ? total : (uint64_t)units;
    return v < 0 || (v <= 0 && signbit(v)) ? total - u : u;
}

void split_range(const Split *s, uint64_t total, uint64_t *lo, uint64_t *hi)
{
    *lo = s->has_lo ? place(s->kind, s->lo, total) : 0;
    *hi = s->has_hi ? place(s->kind, s->hi, total) : total;
    if (*hi < *lo) *hi = *lo;
}
