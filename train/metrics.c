/* train/metrics.c: metrics.jsonl, one flushed object per event; 9 significant digits, so a float32 survives.
 * On resume, events behind the resumed step are cut off (the old file stays as metrics.jsonl.bak), a
 * half-written last line too. */
#include "train/train.h"
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

struct Metrics {
    FILE *f;
    double start;
    bool clock; /* write what the clock and the machine say */
};

/* Length of the prefix whose whole lines all have step <= limit, copied line by line into out. */
static size_t keep_lines(const char *text, size_t bytes, int64_t limit, char *out)
{
    size_t kept = 0;
    for (size_t at = 0; at < bytes;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        if (!end) break;
        size_t n = (size_t)(end - text) - at + 1;
        json_t *o = json_loadb(text + at, n, 0, NULL);
        const json_t *s = json_object_get(o, "step");
        if (json_is_integer(s) && json_integer_value(s) <= limit) {
            memcpy(out + kept, text + at, n);
            kept += n;
        }
        json_decref(o);
        at += n;
    }
    return kept;
}

Metrics *metrics_open(const char *dir, const LogConfig *c, bool clock, int64_t resumed_step, bool resumed,
                      Arena *a, Err *e)
{
    Metrics *m = arena_alloc(a, sizeof *m, e);
    const char *path = path_join(a, dir, "metrics.jsonl", e);
    if (!m || !path) return NULL;
    m->start = time_now();
    m->clock = clock;
    if (!c->jsonl) return m;
    if (resumed && file_exists(path)) {
        Arena tmp = {.name = "metrics"};
        size_t bytes;
        char *old = file_read(&tmp, path, &bytes, e), *kept = old ? arena_alloc(&tmp, bytes + 1, e) : NULL;
        const char *bak = kept ? arena_printf(&tmp, e, "%s.bak", path) : NULL;
        if (bak && file_write_atomic(bak, old, bytes, e))
            file_write_atomic(path, kept, keep_lines(old, bytes, resumed_step, kept), e);
        arena_free(&tmp);
        if (e->code) return NULL;
    }
    m->f = fopen(path, resumed ? "a" : "w");
    if (!m->f) {
        err_set(e, ERR_FAIL, "%s: cannot be opened for writing", path);
        return NULL;
    }
    return m;
}

/* What differs between two runs of the same values. */
static bool is_measured(const char *key)
{
    static const char *const measured[] = {"dt_ms", "tok_s", "data_wait_ms", "mfu", "seconds"};
    for (size_t i = 0; i < sizeof measured / sizeof *measured; i++)
        if (!strcmp(key, measured[i])) return true;
    return false;
}

static void put_time(const Metrics *m)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    struct tm tm;
    gmtime_r(&ts.tv_sec, &tm);
    char when[32];
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
    fprintf(m->f, "\"t\": %.3f, \"time\": \"%s.%03ldZ\", ", time_now() - m->start, when,
            ts.tv_nsec / 1000000);
}

void metrics_write(Metrics *m, const char *event, int64_t step, const Metric *v, int n)
{
    if (!m || !m->f) return;
    fputc('{', m->f);
    if (m->clock) put_time(m);
    fprintf(m->f, "\"event\": \"%s\", \"step\": %lld", event, (long long)step);
    bool bad = false;
    for (int i = 0; i < n; i++) {
        if (!m->clock && is_measured(v[i].key)) continue;
        if (!isfinite(v[i].value)) {
            fprintf(m->f, ", \"%s\": null", v[i].key);
            bad = true;
        } else if (v[i].value == floor(v[i].value) && fabs(v[i].value) < 1e15)
            fprintf(m->f, ", \"%s\": %.0f", v[i].key, v[i].value);
        else fprintf(m->f, ", \"%s\": %.9g", v[i].key, v[i].value);
    }
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    if (m->clock) fprintf(m->f, ", \"mem_bytes\": %lld", (long long)u.ru_maxrss * 1024);
    if (bad) {
        const char *sep = "";
        fprintf(m->f, ", \"nonfinite\": [");
        for (int i = 0; i < n; i++)
            if (!isfinite(v[i].value) && (m->clock || !is_measured(v[i].key))) {
                fprintf(m->f, "%s\"%s\"", sep, v[i].key);
                sep = ", ";
            }
        fprintf(m->f, "]");
    }
    fprintf(m->f, "}\n");
    fflush(m->f);
}

void metrics_close(Metrics *m)
{
    if (m && m->f) fclose(m->f);
    if (m) m->f = NULL;
}
