/* data/evalplan.c: which tokens a perplexity reads and scores, window by window; the protocols are in data.h.
 *
 * Every window is: row[j] = BOS or t[begin + j - shift], target[j] = t[begin + j + 1 - shift], scored for j
 * in [from, to), with shift = 1 where a BOS stands in front (val) and 0 elsewhere.
 */
#include "data/data.h"
#include <stdlib.h>
#include <string.h>

typedef enum { PLAN_VAL, PLAN_CONCAT, PLAN_STRIDE, PLAN_LLAMACPP, PLAN_DOCUMENTS } Protocol;
struct EvalPlan {
    Protocol protocol;
    const char *name;
    const int32_t *t;
    size_t n; /* t (n,) */
    long window, stride;
    int bos;
    int64_t count, scored;
    const Tokens *documents; /* PLAN_DOCUMENTS */
};
typedef struct Row {
    size_t begin;
    long length, from, to;
} Row; /* scored: positions [from, to) */

static Row row_of(const EvalPlan *p, int64_t i)
{
    const bool val = p->protocol == PLAN_VAL, shifted = val && p->bos >= 0;
    const size_t step = (size_t)(p->protocol == PLAN_STRIDE ? p->stride : p->window), W = (size_t)p->window;
    Row r = {.begin = (size_t)i * step};
    const size_t readable = p->n - r.begin - (size_t)(val && !shifted);
    r.length = (long)(readable < W ? readable : W);
    r.to = val ? r.length : r.length - 1;
    if (p->protocol == PLAN_LLAMACPP) r.from = p->window / 2;
    /* The window before ended at begin - stride + window; what lies before that is scored. */
    if (p->protocol == PLAN_STRIDE && i > 0) r.from = p->window - p->stride - 1;
    if (r.from < 0) r.from = 0;
    return r;
}

/* Windows of the plan: all of them read at least one token and score at least one. */
static int64_t windows(const EvalPlan *p)
{
    const size_t W = (size_t)p->window, S = (size_t)p->stride, n = p->n;
    switch (p->protocol) {
    case PLAN_VAL: return (int64_t)((p->bos >= 0 ? n + W - 1 : n + W - 2) / W);
    case PLAN_STRIDE: return n <= W ? 1 : (int64_t)((n - W + S - 1) / S + 1);
    default: return (int64_t)(n / W);
    }
}

/* concat-N: N, 0 = not this protocol, -1 = not a number. */
static long concat_window(const char *s)
{
    char *end;
    if (strncmp(s, "concat-", 7) != 0) return 0;
    const long n = strtol(s + 7, &end, 10);
    return s[7] >= '0' && s[7] <= '9' && *end == 0 && n > 0 ? n : -1;
}

static bool choose(EvalPlan *p, const char *s, Err *e)
{
    const long n = concat_window(s);
    if (strcmp(s, "val") == 0) {
        p->protocol = PLAN_VAL;
        if (p->window == 0) return err_set(e, ERR_USAGE, "eval: protocol val needs a window; set --seq-len");
    } else if (n != 0 || strcmp(s, "concat") == 0) {
        p->protocol = PLAN_CONCAT;
        if (n < 0)
            return err_set(e, ERR_USAGE, "eval: protocol `%s`: what follows concat- is no number of tokens",
                           s);
        if (n > 0) p->window = n;
        if (p->window == 0) p->window = 2048;
    } else if (strcmp(s, "stride") == 0) {
        p->protocol = PLAN_STRIDE;
        if (p->window == 0) p->window = 1024;
        if (p->stride == 0) p->stride = (p->window + 1) / 2;
    } else if (strcmp(s, "llamacpp") == 0) {
        p->protocol = PLAN_LLAMACPP;
        if (p->window == 0) p->window = 512;
    } else {
        return err_set(e, ERR_USAGE,
                       "eval: unknown protocol `%s`; val, concat-N, stride and llamacpp are known", s);
    }
    return true;
}

EvalPlan *evalplan_open(const char *protocol, long window, long stride, const int32_t *tokens, size_t n,
                        int bos, Arena *a, Err *e)
{
    EvalPlan *p = arena_alloc(a, sizeof *p, e);
    if (!p) return NULL;
    *p = (EvalPlan){.t = tokens, .n = n, .window = window, .stride = stride, .bos = bos};
    if (!choose(p, protocol, e)) return NULL;
    p->name = p->protocol == PLAN_CONCAT ? arena_printf(a, e, "concat-%ld", p->window)
                                         : arena_strdup(a, protocol, e);
    if (!p->name) return NULL;
    const long least = p->protocol == PLAN_VAL ? 1 : p->protocol == PLAN_LLAMACPP ? 3 : 2;
    if (p->window < least || p->window > INT32_MAX) {
        err_set(e, ERR_USAGE, "eval: %s: a window of %ld, must be at least %ld", p->name, p->window, least);
        return NULL;
    }
    if (p->protocol == PLAN_STRIDE && (p->stride < 1 || p->stride > p->window)) {
        err_set(e, ERR_USAGE, "eval: stride: %ld, must be from 1 to the window of %ld", p->stride, p->window);
        return NULL;
    }
    if (n > 0) p->count = windows(p);
    for (int64_t i = 0; i < p->count; i++) {
        const Row r = row_of(p, i);
        if (r.to > r.from) p->scored += r.to - r.from;
    }
    if (p->scored == 0) {
        err_set(e, ERR_FAIL, "eval: %s: %zu tokens are too few for one window of %ld", p->name, n, p->window);
        return NULL;
    }
    return p;
}

/* Row i of PLAN_DOCUMENTS reads d[0 .. n-2], at most a window of it. Returns its length. */
static long get_document(const EvalPlan *p, int64_t i, int32_t *ids, int32_t *targets)
{
    const Tokens *t = p->documents;
    const size_t from = t->doc[i], n = t->doc[i + 1] - from - 1;
    const long length = n < (size_t)p->window ? (long)n : p->window;
    for (long j = 0; j < p->window; j++) {
        const size_t at = from + (size_t)j;
        ids[j] = j < length ? t->id[at] : 0;
        targets[j] = j < length && (!t->target || t->target[at + 1]) ? t->id[at + 1] : -100;
    }
    return length;
}

EvalPlan *evalplan_documents(const Tokens *t, long window, Arena *a, Err *e)
{
    EvalPlan *p = arena_alloc(a, sizeof *p, e);
    if (!p) return NULL;
    *p = (EvalPlan){
        .protocol = PLAN_DOCUMENTS, .name = "documents", .documents = t, .window = window, .bos = -1};
    p->count = (int64_t)t->n_doc;
    for (size_t i = 0; i < t->n_doc; i++)
        for (size_t at = t->doc[i]; at + 1 < t->doc[i + 1] && at < t->doc[i] + (size_t)window; at++)
            p->scored += !t->target || t->target[at + 1];
    if (p->scored > 0) return p;
    err_set(e, ERR_FAIL, "%s: nothing to score within a window of %ld", t->path, window);
    return NULL;
}

const char *evalplan_name(const EvalPlan *p) { return p->name; }
long evalplan_window(const EvalPlan *p) { return p->window; }
int64_t evalplan_count(const EvalPlan *p) { return p->count; }
int64_t evalplan_scored(const EvalPlan *p) { return p->scored; }

long evalplan_get(const EvalPlan *p, int64_t i, int32_t *ids, int32_t *targets)
{
    if (p->protocol == PLAN_DOCUMENTS) return get_document(p, i, ids, targets);
    const Row r = row_of(p, i);
    const bool shifted = p->protocol == PLAN_VAL && p->bos >= 0;
    const int32_t *t = p->t + r.begin;
    for (long j = 0; j < p->window; j++) {
        if (j < r.length) ids[j] = !shifted ? t[j] : j > 0 ? t[j - 1] : p->bos;
        else ids[j] = 0;
        targets[j] = j >= r.from && j < r.to ? t[shifted ? j : j + 1] : -100;
    }
    if (p->protocol == PLAN_LLAMACPP && p->bos >= 0) ids[0] = p->bos;
    return r.length;
}
