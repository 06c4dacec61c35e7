/* core/err.c: the sticky error. The first one set wins; a prefix adds the place while it travels up. */
#include "core/core.h"

#include <stdio.h>
#include <string.h>

bool err_set_at(Err *e, ErrCode code, const char *file, int line, const char *fmt, ...)
{
    if (!e || e->code != ERR_OK) return false;
    e->code = code == ERR_OK ? ERR_FAIL : code;
    e->file = file;
    e->line = line;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    return false;
}

bool err_prefix(Err *e, const char *fmt, ...)
{
    if (!e || e->code == ERR_OK) return false;
    char prefix[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(prefix, sizeof prefix - 2, fmt, ap);
    va_end(ap);
    size_t p = strlen(prefix);
    prefix[p++] = ':';
    prefix[p++] = ' ';
    size_t m = strlen(e->msg);
    /* A very long message loses its tail, not its place. */
    if (m > sizeof e->msg - 1 - p) m = sizeof e->msg - 1 - p;
    memmove(e->msg + p, e->msg, m);
    memcpy(e->msg, prefix, p);
    e->msg[p + m] = 0;
    return false;
}
