/* compress/calibration.c: consecutive windows of a text: what scores and Hessians are measured on. */
#include "compress/compress.h"
#include <string.h>

typedef struct Windows {
    EvalPlan *plan;
    long T;
} Windows;

static long window_row(const void *ctx, int64_t i, int32_t *ids, int32_t *targets, int32_t *pos, int32_t *seg)
{
    const Windows *w = ctx;
    const long n = evalplan_get(w->plan, i, ids, targets);
    for (long t = n; t < w->T; t++) {
        ids[t] = 0;
        targets[t] = -100;
    }
    for (long t = 0; t < w->T; t++) pos[t] = (int32_t)t;
    if (seg) memset(seg, 0, (size_t)w->T * sizeof *seg);
    return n;
}

bool calibration_open(Calibration *cal, const CalibrationConfig *c, const DataConfig *d, const Tokenizer *tk,
                      const Model *m, const char *key, Arena *a, Err *e)
{
    *cal = (Calibration){0};
    if (!c->data.path)
        return err_set(e, ERR_USAGE,
                       "%s.calibration.data: a text to measure on is needed, as in "
                       "%s.calibration={data: text.txt, samples: 128, seq_len: 256}",
                       key, key);
    Tokens *t = arena_alloc(a, sizeof *t, e);
    Windows *w = arena_alloc(a, sizeof *w, e);
    if (!w || !tokens_load(t, &c->data, d, tk, (int)m->spec.V, a, e))
        return err_prefix(e, "%s.calibration.data", key);
    w->T = c->seq_len < m->spec.max_pos ? (long)c->seq_len : m->spec.max_pos;
    w->plan = evalplan_open("val", w->T, 0, t->id, t->n, tk ? tokenizer_bos(tk) : -1, a, e);
    if (!w->plan) return err_prefix(e, "%s.calibration.data", key);
    const int64_t n = evalplan_count(w->plan);
    if (n < c->samples)
        log_warn("%s.calibration: %s has %lld windows of %ld tokens, %lld were asked for", key, c->data.path,
                 (long long)n, w->T, (long long)c->samples);
    *cal = (Calibration){window_row, w, w->T, n < c->samples ? n : c->samples, 1, false};
    return true;
}
