/* tests/plan_impl.h: a plan replayed without kernels: who holds which bytes, entry by entry of the schedule.
 *
 *   plan_replay(g);       // fails the test where something is read that has been overwritten or never
 * written
 *
 * Every value (a tensor's data, its gradient, a node's statistics) is written somewhere; a write ends every
 * other value it overlaps; a read must find its value whole. What is read is taken from the ops (inputs
 * forward, `saves` backward), not from the planner's own lifetimes.
 */
#ifndef PLAN_IMPL_H
#define PLAN_IMPL_H
#include "autograd/graph_impl.h"
#include "tests/test.h"
#include <string.h>

enum { VALUE_DATA, VALUE_GRAD, VALUE_STAT };
typedef struct Value {
    const char *at;
    size_t bytes;
    bool whole;
} Value;
typedef struct Replay {
    Graph *g;
    Arena a;
    Value *v[3];
    char **data, **stat; /* where a tensor and a node's statistics lie now */
    int entry;
} Replay;

static inline void replay_fail(const Replay *r, const char *what, const char *name)
{
    const Step *s = &r->g->micro.s[r->entry];
    test_fail(__FILE__, __LINE__, "entry %d (%s, act %d): %s of %s was overwritten or never made", r->entry,
              s->n->out->name, (int)s->act, what, name);
}

static inline void replay_read(const Replay *r, int kind, int id, const void *at, const char *name)
{
    static const char *const what[] = {"data", "gradient", "statistics"};
    const Value *v = &r->v[kind][id];
    if (!v->whole || v->at != (const char *)at) replay_fail(r, what[kind], name);
}

static inline void replay_write(Replay *r, int kind, int id, const void *at, size_t bytes)
{
    const char *lo = at, *hi = lo + bytes;
    size_t n[3] = {(size_t)r->g->n_tensor, (size_t)r->g->n_tensor, (size_t)r->g->n_node};
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < n[k]; i++) {
            Value *v = &r->v[k][i];
            if (v->whole && v->at < hi && lo < v->at + v->bytes) v->whole = false;
        }
    r->v[kind][id] = (Value){at, bytes, true};
}

/* Only what a micro-batch makes: leaves and effective weights lie elsewhere and outlive it. */
static inline bool replay_counts(const Tensor *t) { return t && t->node && !t->node->weight_phase; }

/* What a node reads must be whole when it starts and, as kernels write while they read, still when it
 * ends. */
static inline void replay_reads(const Replay *r, const Step *s, bool after)
{
    Node *n = s->n;
    bool back = s->act == ACT_BACKWARD, loss = n->op->flags & OP_LOSS, handed_on = false;
    for (int j = 0; j < n->op->n_in; j++) {
        const Tensor *t = n->in[j];
        handed_on = handed_on || (t && back && t->grad == n->out->grad && (n->op->flags & OP_GRADPASS));
        if (!replay_counts(t) || (back && !(n->op->saves & SAVE_IN(j)))) continue;
        replay_read(r, VALUE_DATA, t->id, r->data[t->id], t->name);
    }
    if (!back || loss) return;
    if (!after || !handed_on) replay_read(r, VALUE_GRAD, n->out->id, n->out->grad, n->out->name);
    if (n->op->saves & SAVE_OUT) replay_read(r, VALUE_DATA, n->out->id, r->data[n->out->id], n->out->name);
    if (n->stat_bytes) replay_read(r, VALUE_STAT, n->id, r->stat[n->id], n->out->name);
}

static inline void replay_forward(Replay *r, const Step *s)
{
    Node *n = s->n;
    replay_write(r, VALUE_DATA, n->out->id, r->data[n->out->id], t_bytes(r->g, n->out));
    if (n->stat_bytes) replay_write(r, VALUE_STAT, n->id, r->stat[n->id], n->stat_bytes);
}

static inline void replay_backward(Replay *r, const Step *s)
{
    Node *n = s->n;
    if (n->op->flags & OP_LOSS)
        replay_write(r, VALUE_DATA, n->out->id, r->data[n->out->id], t_bytes(r->g, n->out));
    for (int j = 0; j < n->op->n_in; j++) {
        Tensor *t = n->in[j];
        if (!replay_counts(t) || !t->grad || !t_wants_grad(t)) continue;
        if (t->grad == n->out->grad && (n->op->flags & OP_GRADPASS)) { /* handed on, nothing is written */
            r->v[VALUE_GRAD][t->id] = (Value){t->grad, t_bytes(r->g, t), true};
            continue;
        }
        if (!(n->first_act >> j & 1u)) replay_read(r, VALUE_GRAD, t->id, t->grad, t->name);
        replay_write(r, VALUE_GRAD, t->id, t->grad, t_bytes(r->g, t));
    }
}

static inline void plan_replay(Graph *g)
{
    Replay r = {.g = g, .a = {.name = "replay"}};
    Err e = {0};
    size_t nt = (size_t)g->n_tensor + 1, nn = (size_t)g->n_node + 1;
    for (int k = 0; k < 3; k++) r.v[k] = arena_alloc(&r.a, (k < 2 ? nt : nn) * sizeof(Value), &e);
    r.data = arena_alloc(&r.a, nt * sizeof *r.data, &e);
    r.stat = arena_alloc(&r.a, nn * sizeof *r.stat, &e);
    ASSERT_OK(e);
    for (int i = 0; i < g->n_node; i++) {
        r.data[g->node[i]->out->id] = g->node[i]->out->data;
        r.stat[i] = g->node[i]->stat;
    }
    for (r.entry = 0; r.entry < g->micro.n; r.entry++) {
        const Step *s = &g->micro.s[r.entry];
        if (s->out_data) r.data[s->n->out->id] = s->out_data;
        if (s->stat) r.stat[s->n->id] = s->stat;
        replay_reads(&r, s, false);
        if (s->act == ACT_BACKWARD) replay_backward(&r, s);
        else replay_forward(&r, s);
        replay_reads(&r, s, true);
    }
    arena_free(&r.a);
}

/* Where the step arena begins, and its bytes: nothing in it may be read by the next micro-batch. */
static inline char *plan_base(const Graph *g) { return (char *)g->node[0]->scratch - g->step_bytes; }
static inline void plan_poison(const Graph *g)
{
    memset(plan_base(g), 0xff, g->step_bytes + g->scratch_bytes);
}

/* Buffers that live at the same time do not overlap; none leaves the arena, whose size is the largest end. */
static inline void plan_check_buffers(const Graph *g)
{
    size_t top = 0, live_top = 0;
    for (int i = 0; i < g->n_buffer; i++) {
        const Buffer *a = &g->buffer[i];
        ASSERT(a->from >= 0 && a->from <= a->to && a->to < g->micro.n && a->offset % 64 == 0);
        if (a->offset + a->bytes > top) top = a->offset + a->bytes;
        for (int j = 0; j < i; j++) {
            const Buffer *b = &g->buffer[j];
            bool together = a->from <= b->to && b->from <= a->to;
            if (together && a->offset < b->offset + b->bytes && b->offset < a->offset + a->bytes)
                test_fail(__FILE__, __LINE__, "%s (%s, entries %d-%d) and %s (%s, %d-%d) overlap", a->name,
                          a->what, a->from, a->to, b->name, b->what, b->from, b->to);
        }
    }
    for (int at = 0; at < g->micro.n; at++) {
        size_t live = 0;
        for (int i = 0; i < g->n_buffer; i++)
            if (g->buffer[i].from <= at && at <= g->buffer[i].to) live += g->buffer[i].bytes;
        if (live > live_top) live_top = live;
    }
    ASSERT_EQ(top, g->step_bytes);
    ASSERT(g->step_bytes >= live_top && g->step_bytes <= live_top + live_top / 2);
}
#endif
