/* train/profile.c: log.profile: where a step's time goes, operator by operator. While `steps` steps from
 * `start` on run, every entry of the graph's schedule, the wait for data and the optimizer are timed by
 * the host's clock; then trace.json (Chrome's trace format, for ui.perfetto.dev or chrome://tracing) is
 * written into the run's folder and the sums go into the log.
 */
#include "train/run_impl.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1024, MAX_ROW = 256, SHOWN = 20 };
typedef struct Event {
    const char *name, *op; /* the tensor's; what was called */
    const char *phase;     /* forward, again, backward, run */
    double start, end;     /* seconds */
} Event;
typedef struct Chunk {
    struct Chunk *next;
    int n;
    Event e[CHUNK];
} Chunk;
struct Profile {
    int64_t from, to; /* steps done before the first traced one, and after the last */
    int64_t traced;
    bool on;
    Arena *a;
    Chunk *first, *last;
    Err err; /* of a callback: told when the trace is written */
};
typedef struct Row {
    const char *op, *phase;
    long calls;
    double seconds;
} Row;

static void add(Profile *p, Event e)
{
    if (!p->last || p->last->n == CHUNK) {
        Chunk *c = arena_alloc(p->a, sizeof *c, &p->err);
        if (!c) return;
        if (p->last) p->last->next = c;
        else p->first = c;
        p->last = c;
    }
    p->last->e[p->last->n++] = e;
}

static void watch(void *ctx, const Node *n, const char *phase, double start, double end)
{
    add(ctx, (Event){n->out->name, n->op->name, phase, start, end});
}

Profile *profile_open(const Run *r, Err *e)
{
    const ProfileConfig *c = &r->c->log.profile;
    Profile *p = c->steps ? arena_alloc(r->a, sizeof *p, e) : NULL;
    if (p) *p = (Profile){.from = c->start, .to = c->start + c->steps, .a = r->a};
    return p;
}

void profile_span(Profile *p, const char *what, double start)
{
    if (p && p->on) add(p, (Event){what, what, "run", start, time_now()});
}

void profile_before(Run *r)
{
    Profile *p = r->profile;
    if (!p || r->st.step < p->from || r->st.step >= p->to) return;
    p->on = true;
    p->traced++;
    graph_state(r->g)->watch = watch;
    graph_state(r->g)->watch_ctx = p;
}

/* Sums by operator and phase, the largest first. Returns how many. */
static int rows_of(const Profile *p, Row *row)
{
    int n = 0;
    for (const Chunk *c = p->first; c; c = c->next)
        for (int i = 0; i < c->n; i++) {
            const Event *e = &c->e[i];
            int k = 0;
            if (!strcmp(e->op, "step")) continue;
            while (k < n && (strcmp(row[k].op, e->op) || strcmp(row[k].phase, e->phase))) k++;
            if (k == MAX_ROW) continue;
            if (k == n) row[n++] = (Row){.op = e->op, .phase = e->phase};
            row[k].calls++;
            row[k].seconds += e->end - e->start;
        }
    for (int i = 1; i < n; i++)
        for (int j = i; j > 0 && row[j].seconds > row[j - 1].seconds; j--) {
            Row t = row[j];
            row[j] = row[j - 1];
            row[j - 1] = t;
        }
    return n;
}

static void print_rows(const Profile *p)
{
    Row row[MAX_ROW];
    double whole = 0, rest = 0;
    int n = rows_of(p, row);
    for (const Chunk *c = p->first; c; c = c->next)
        for (int i = 0; i < c->n; i++)
            if (!strcmp(c->e[i].op, "step")) whole += c->e[i].end - c->e[i].start;
    const double steps = (double)p->traced;
    log_plain("profile of %lld steps, %.3f ms each:", (long long)p->traced, whole * 1e3 / steps);
    log_plain("  %-14s %-8s %10s %12s %7s", "op", "phase", "calls/step", "ms/step", "share");
    for (int i = 0; i < n; i++) {
        if (i >= SHOWN) rest += row[i].seconds;
        else
            log_plain("  %-14s %-8s %10.1f %12.3f %6.1f %%", row[i].op, row[i].phase,
                      (double)row[i].calls / steps, row[i].seconds * 1e3 / steps,
                      100 * row[i].seconds / whole);
    }
    if (n > SHOWN)
        log_plain("  %-14s %-8s %10s %12.3f %6.1f %%", "others", "", "", rest * 1e3 / steps,
                  100 * rest / whole);
}

static json_t *event_json(const Event *e, double origin)
{
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:i, s:i, s:{s:s}}", "name", e->op, "cat", e->phase, "ph",
                     "X", "ts", (e->start - origin) * 1e6, "dur", (e->end - e->start) * 1e6, "pid", 0, "tid",
                     0, "args", "tensor", e->name);
}

static bool write_trace(const Run *r, const Profile *p, Err *e)
{
    json_t *all = json_array();
    bool ok = all != NULL;
    double origin = p->first->e[0].start;
    for (const Chunk *c = p->first; c; c = c->next)
        for (int i = 0; i < c->n; i++)
            if (c->e[i].start < origin) origin = c->e[i].start;
    for (const Chunk *c = p->first; c; c = c->next)
        for (int i = 0; i < c->n; i++)
            ok = ok && json_array_append_new(all, event_json(&c->e[i], origin)) == 0;
    json_t *root = ok ? json_pack("{s:O, s:s}", "traceEvents", all, "displayTimeUnit", "ms") : NULL;
    char *text = root ? json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(12)) : NULL;
    const char *path = path_join(r->a, r->dir, "trace.json", e);
    if (!text) err_set(e, ERR_FAIL, "log.profile: no memory for the trace; trace fewer log.profile.steps");
    else if (path) file_write_atomic(path, text, strlen(text), e);
    free(text);
    json_decref(root);
    json_decref(all);
    return !e->code;
}

bool profile_close(Run *r, Err *e)
{
    Profile *p = r->profile;
    if (!p) return true;
    r->profile = NULL;
    graph_state(r->g)->watch = NULL;
    if (p->err.code) *e = p->err;
    else if (p->first && write_trace(r, p, e)) print_rows(p);
    return !e->code;
}

bool profile_after(Run *r, double start, Err *e)
{
    Profile *p = r->profile;
    profile_span(p, "step", start);
    return !p || r->st.step < p->to || profile_close(r, e);
}
