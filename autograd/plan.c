/* autograd/plan.c: which nodes run, in which order, and where every tensor lies.
 *
 * The schedule of a micro-batch is: forward of all needed nodes in recorded order, then backward in reverse
 * order; with recompute, each segment's interior is run forward again just before its backward. A tensor's
 * data lives from its producer to its last reader; a reader in backward is one whose op's `saves` claims the
 * tensor. Gradients live from the first consumer's backward to the producer's. All of it goes into one step
 * arena (place.c). */
#include "autograd/graph_impl.h"
#include <stdio.h>
#include <string.h>

typedef struct Life {
    int from, to;
} Life; /* schedule positions; from < 0: never */
typedef struct Plan {
    Graph *g;
    Life *data, *again, *grad;       /* per tensor */
    Life *stat;                      /* per node */
    int *fwd_at, *again_at, *bwd_at; /* per node, -1 = not run */
    bool *interior;                  /* per tensor: dropped after forward, made again */
    int *grad_root;                  /* per tensor: whose gradient buffer it shares */
} Plan;

static bool in_loss(const Graph *g, const Node *n)
{
    for (int i = 0; i < g->n_loss; i++)
        if (g->loss[i].n == n) return true;
    return false;
}

/* needed: something kept or a loss depends on it. needs_backward: it lies between a loss and a wanted
 * gradient. */
static void mark_needed(Graph *g)
{
    for (int i = g->n_node - 1; i >= 0; i--) {
        Node *n = g->node[i];
        bool loss = in_loss(g, n);
        n->needed = n->needed || loss || (n->out->flags & T_KEEP);
        n->needs_backward = (n->needs_backward || loss) && t_wants_grad(n->out);
        for (int j = 0; j < n->op->n_in; j++) {
            if (!n->in[j] || !n->in[j]->node) continue;
            if (n->needed) n->in[j]->node->needed = true;
            if (n->needs_backward && t_wants_grad(n->in[j])) n->in[j]->node->needs_backward = true;
        }
    }
}

static void push(Schedule *s, Node *n, Act act) { s->s[s->n++] = (Step){n, act, NULL, NULL}; }
static bool loss_in_backward(const Node *n) { return (n->op->flags & OP_LOSS) && n->needs_backward; }

/* Interior of its segment: made and read (forward) only inside it, and not kept. */
static void mark_interior(Plan *p)
{
    Graph *g = p->g;
    for (int i = 0; i < g->n_node; i++) {
        Node *n = g->node[i];
        p->interior[n->out->id] = g->opt.recompute && n->segment >= 0 && n->needs_backward &&
                                  !n->weight_phase && !(n->out->flags & T_KEEP) && !(n->op->flags & OP_LOSS);
    }
    for (int i = 0; i < g->n_node; i++)
        for (int j = 0; j < g->node[i]->op->n_in; j++) {
            Tensor *t = g->node[i]->in[j];
            if (t && t->node && t->node->segment != g->node[i]->segment) p->interior[t->id] = false;
        }
}

/* Schedules the segment's second forward: every interior tensor that a backward of the segment, or another
 * node that is run again, reads. */
static void push_again(Plan *p, int segment)
{
    Graph *g = p->g;
    bool *want = arena_alloc(&g->own, (size_t)g->n_node, &g->err);
    if (!want) return;
    for (int i = g->n_node - 1; i >= 0; i--) {
        Node *n = g->node[i];
        if (n->segment != segment || !n->needed || n->weight_phase) continue;
        if (p->interior[n->out->id] && n->needs_backward && (n->stat_bytes || (n->op->saves & SAVE_OUT)))
            want[i] = true;
        for (int j = 0; j < n->op->n_in; j++) {
            Tensor *t = n->in[j];
            if (!t || !t->node || !p->interior[t->id]) continue;
            if (want[i] || (n->needs_backward && (n->op->saves & SAVE_IN(j)))) want[t->node->id] = true;
        }
    }
    for (int i = 0; i < g->n_node; i++)
        if (want[i]) push(&g->micro, g->node[i], ACT_AGAIN);
}

static bool make_schedule(Plan *p)
{
    Graph *g = p->g;
    size_t cap = (size_t)g->n_node * 3 + 1;
    Schedule *all[] = {&g->weight_fwd, &g->micro, &g->weight_bwd};
    for (int i = 0; i < 3; i++) {
        all[i]->n = 0;
        all[i]->s = arena_alloc(&g->own, cap * sizeof(Step), &g->err);
        if (!all[i]->s) return false;
    }
    for (int i = 0; i < g->n_node; i++) {
        Node *n = g->node[i];
        if (n->needed && n->weight_phase) push(&g->weight_fwd, n, ACT_FORWARD);
        else if (n->needed && !loss_in_backward(n)) push(&g->micro, n, ACT_FORWARD);
    }
    int segment = -1;
    for (int i = g->n_node - 1; i >= 0; i--) {
        Node *n = g->node[i];
        if (!n->needs_backward) continue;
        if (n->weight_phase) {
            push(&g->weight_bwd, n, ACT_BACKWARD);
            continue;
        }
        if (g->opt.recompute && n->segment >= 0 && n->segment != segment) push_again(p, n->segment);
        segment = n->segment;
        push(&g->micro, n, ACT_BACKWARD);
    }
    return !g->err.code;
}

/* The first writer of each gradient sets it, the others add: no gradient is ever zeroed just to be added
 * to. */
static void mark_first(const Schedule *s, bool *seen)
{
    for (int i = 0; i < s->n; i++) {
        Node *n = s->s[i].n;
        if (s->s[i].act != ACT_BACKWARD) continue;
        unsigned act = 0, par = 0;
        for (int j = 0; j < n->op->n_in; j++) {
            Tensor *t = n->in[j];
            if (!t_wants_grad(t)) continue;
            int same = -1; /* an earlier input that is the same tensor */
            for (int k = 0; k < j && same < 0; k++) same = n->in[k] == t ? k : -1;
            bool disjoint = same >= 0 && (n->op->flags & OP_DISJOINT);
            bool first = disjoint ? ((act | par) >> same & 1u) : !seen[t->id];
            if (first) {
                if (t->flags & (T_PARAM | T_WEIGHT)) par |= 1u << j;
                else act |= 1u << j;
            }
            seen[t->id] = true;
        }
        n->first_act = act;
        n->first_param = par;
    }
}

static void reach(Life *l, int at)
{
    if (l->from < 0) l->from = at;
    if (at > l->to) l->to = at;
}

/* Data lifetimes. A reader that runs again, or backward, after the interior was dropped reads the second
 * life. */
static void data_lives(Plan *p)
{
    Graph *g = p->g;
    for (int at = 0; at < g->micro.n; at++) {
        Step *s = &g->micro.s[at];
        Node *n = s->n;
        bool second = s->act != ACT_FORWARD;
        Tensor *out = n->out;
        if (s->act != ACT_BACKWARD) {
            reach(s->act == ACT_AGAIN ? &p->again[out->id] : &p->data[out->id], at);
            if (p->interior[out->id] && s->act == ACT_FORWARD) p->stat[n->id] = (Life){at, at};
            else if (s->act == ACT_AGAIN) p->stat[n->id] = (Life){at, at};
            else reach(&p->stat[n->id], at);
        } else {
            reach(&p->stat[n->id], at);
            if (n->op->saves & SAVE_OUT || (n->op->flags & OP_LOSS))
                reach(p->again[out->id].from >= 0 ? &p->again[out->id] : &p->data[out->id], at);
        }
        for (int j = 0; j < n->op->n_in; j++) {
            Tensor *t = n->in[j];
            if (!t || !t->node || t->node->weight_phase) continue;
            if (s->act == ACT_BACKWARD && !(n->op->saves & SAVE_IN(j))) continue;
            reach(second && p->interior[t->id] && p->again[t->id].from >= 0 ? &p->again[t->id]
                                                                            : &p->data[t->id],
                  at);
        }
    }
}

/* The root buffer of a tensor's data: kv_append's out lies in its in[0]. */
static Tensor *data_root(Tensor *t)
{
    while (t->node && (t->node->op->flags & OP_ALIAS0)) t = t->node->in[0];
    return t;
}

static void grad_lives(Plan *p)
{
    Graph *g = p->g;
    for (int at = 0; at < g->micro.n; at++) {
        if (g->micro.s[at].act != ACT_BACKWARD) continue;
        Node *n = g->micro.s[at].n;
        if (!(n->op->flags & OP_LOSS)) reach(&p->grad[n->out->id], at);
        for (int j = 0; j < n->op->n_in; j++)
            if (t_wants_grad(n->in[j]) && n->in[j]->node && !n->in[j]->node->weight_phase &&
                n->in[j]->node->needs_backward)
                reach(&p->grad[n->in[j]->id], at);
    }
}

/* Position of the next writer of t's gradient after `at`; INT32_MAX if none. */
static int next_writer(const Plan *p, const Tensor *t, int at)
{
    const Schedule *s = &p->g->micro;
    for (int i = at + 1; i < s->n; i++) {
        if (s->s[i].act != ACT_BACKWARD) continue;
        for (int j = 0; j < s->s[i].n->op->n_in; j++)
            if (s->s[i].n->in[j] == t) return i;
    }
    return INT32_MAX;
}

static int grad_root(const Plan *p, int id)
{
    while (p->grad_root[id] != id) id = p->grad_root[id];
    return id;
}

/* t may share a gradient buffer at `at` if for each tensor there whose gradient is still to be read, nobody
 * writes to the one before the other's reader has run. Not only in[0] and in[1] of one add meet there: adds
 * of adds chain. */
static bool may_share(const Plan *p, const Tensor *t, int root, int at)
{
    const Graph *g = p->g;
    int mine = next_writer(p, t, at), read = p->bwd_at[t->node->id];
    for (int i = 0; i < g->n_tensor; i++) {
        const Tensor *m = g->tensor[i];
        if (!m->node || m == t || grad_root(p, i) != root || p->bwd_at[m->node->id] <= at) continue;
        if (mine <= p->bwd_at[m->node->id] || next_writer(p, m, at) <= read) return false;
    }
    return true;
}

/* A residual add hands its gradient on unchanged: both inputs may share out's buffer, so that backward copies
 * nothing. */
static void share_grads(Plan *p)
{
    Graph *g = p->g;
    if (g->opt.keep_all) return;
    for (int at = 0; at < g->micro.n; at++) {
        Node *n = g->micro.s[at].n;
        if (g->micro.s[at].act != ACT_BACKWARD || !(n->op->flags & OP_GRADPASS) || n->in[0] == n->in[1])
            continue;
        int root = grad_root(p, n->out->id);
        for (int j = 0; j < 2; j++) {
            Tensor *t = n->in[j];
            if (!t_wants_grad(t) || !t->node || t->node->weight_phase || !(n->first_act >> j & 1u)) continue;
            if (!may_share(p, t, root, at)) continue;
            p->grad_root[t->id] = root;
            Life *r = &p->grad[root], *l = &p->grad[t->id];
            if (l->to > r->to) r->to = l->to;
        }
    }
}

static void add_buffer(Graph *g, const char *name, const char *what, size_t bytes, Life l)
{
    g->buffer[g->n_buffer++] = (Buffer){name, what, round64(bytes ? bytes : 1), 0, l.from, l.to};
}

/* One buffer per life; the order here is the order place_all reads them back in. */
static void list_buffers(Plan *p)
{
    Graph *g = p->g;
    int end = g->micro.n - 1;
    for (int i = 0; i < g->n_node; i++) {
        Node *n = g->node[i];
        Tensor *t = n->out;
        if (!n->needed || n->weight_phase || (t->flags & T_KEEP) || (n->op->flags & OP_ALIAS0)) continue;
        if (g->opt.keep_all) p->data[t->id] = p->grad[t->id] = p->stat[n->id] = (Life){0, end};
        if (p->data[t->id].from >= 0) add_buffer(g, t->name, "activation", t_bytes(g, t), p->data[t->id]);
        if (p->again[t->id].from >= 0) add_buffer(g, t->name, "recomputed", t_bytes(g, t), p->again[t->id]);
    }
    for (int i = 0; i < g->n_node; i++) {
        Node *n = g->node[i];
        if (!n->needed || n->weight_phase || !n->stat_bytes || (n->op->flags & OP_LOSS)) continue;
        if (p->again_at[i] >= 0 && p->fwd_at[i] >= 0)
            add_buffer(g, n->out->name, "statistics", n->stat_bytes, (Life){p->fwd_at[i], p->fwd_at[i]});
        add_buffer(g, n->out->name, "statistics", n->stat_bytes, p->stat[i]);
    }
    for (int i = 0; i < g->n_tensor; i++)
        if (p->grad[i].from >= 0 && p->grad_root[i] == i && g->tensor[i]->node)
            add_buffer(g, g->tensor[i]->name, "gradient", t_bytes(g, g->tensor[i]), p->grad[i]);
}

static char *at(Graph *g, char *base, int *b) { return base + g->buffer[(*b)++].offset; }

/* Hands the placed memory out, in the order of list_buffers. */
static void assign(Plan *p, char *base)
{
    Graph *g = p->g;
    int b = 0;
    for (int i = 0; i < g->n_node; i++) {
        Node *n = g->node[i];
        Tensor *t = n->out;
        if (!n->needed || n->weight_phase || (t->flags & T_KEEP) || (n->op->flags & OP_ALIAS0)) continue;
        void *first = p->data[t->id].from >= 0 ? at(g, base, &b) : NULL;
        void *second = p->again[t->id].from >= 0 ? at(g, base, &b) : NULL;
        t->data = first ? first : second;
        if (p->fwd_at[i] >= 0) g->micro.s[p->fwd_at[i]].out_data = t->data;
        if (p->again_at[i] >= 0) g->micro.s[p->again_at[i]].out_data = second;
        if (p->fwd_at[i] < 0 && p->bwd_at[i] >= 0) g->micro.s[p->bwd_at[i]].out_data = t->data;
    }
    for (int i = 0; i < g->n_node; i++) {
        Node *n = g->node[i];
        if (!n->needed || n->weight_phase || !n->stat_bytes || (n->op->flags & OP_LOSS)) continue;
        void *early = p->again_at[i] >= 0 && p->fwd_at[i] >= 0 ? at(g, base, &b) : NULL;
        void *late = at(g, base, &b);
        n->stat = early ? early : late;
        if (p->fwd_at[i] >= 0) g->micro.s[p->fwd_at[i]].stat = n->stat;
        if (p->again_at[i] >= 0) g->micro.s[p->again_at[i]].stat = late;
    }
    for (int i = 0; i < g->n_tensor; i++)
        if (p->grad[i].from >= 0 && p->grad_root[i] == i && g->tensor[i]->node)
            g->tensor[i]->grad = at(g, base, &b);
    for (int i = 0; i < g->n_tensor; i++)
        if (p->grad_root[i] != i) g->tensor[i]->grad = g->tensor[grad_root(p, i)]->grad;
    for (int i = 0; i < g->n_node; i++)
        if (g->node[i]->op->flags & OP_ALIAS0) g->node[i]->out->data = data_root(g->node[i]->out)->data;
}

/* What outlives a micro-batch: kept tensors, effective weights with their gradients, loss statistics. */
static bool keep_tensors(Graph *g)
{
    for (int i = 0; i < g->n_node; i++) {
        Node *n = g->node[i];
        if (!n->needed) continue;
        bool weight = n->weight_phase;
        if ((weight || (n->out->flags & T_KEEP)) && !(n->op->flags & OP_ALIAS0)) {
            n->out->data = arena_alloc(g->opt.run, t_bytes(g, n->out), &g->err);
            g->kept_bytes += t_bytes(g, n->out);
        }
        if (weight && n->needs_backward) {
            n->out->grad = arena_alloc(g->opt.run, t_bytes(g, n->out), &g->err);
            g->kept_bytes += t_bytes(g, n->out);
        }
        if (n->stat_bytes && (weight || (n->op->flags & OP_LOSS)))
            n->stat = arena_alloc(g->opt.run, n->stat_bytes, &g->err);
        if (n->scratch_bytes > g->scratch_bytes) g->scratch_bytes = n->scratch_bytes;
    }
    return !g->err.code;
}

static bool plan_arrays(Plan *p)
{
    Graph *g = p->g;
    size_t nt = (size_t)g->n_tensor + 1, nn = (size_t)g->n_node + 1;
    p->data = arena_alloc(&g->own, nt * 3 * sizeof(Life), &g->err);
    p->stat = arena_alloc(&g->own, nn * sizeof(Life), &g->err);
    p->fwd_at = arena_alloc(&g->own, nn * 3 * sizeof(int), &g->err);
    p->interior = arena_alloc(&g->own, nt, &g->err);
    p->grad_root = arena_alloc(&g->own, nt * sizeof(int), &g->err);
    g->buffer = arena_alloc(&g->own, (nt * 3 + nn * 2) * sizeof(Buffer), &g->err);
    if (g->err.code) return false;
    p->again = p->data + nt;
    p->grad = p->again + nt;
    p->again_at = p->fwd_at + nn;
    p->bwd_at = p->again_at + nn;
    for (size_t i = 0; i < nt * 3; i++) p->data[i] = (Life){-1, -1};
    for (size_t i = 0; i < nn; i++) p->stat[i] = (Life){-1, -1};
    for (size_t i = 0; i < nn * 3; i++) p->fwd_at[i] = -1;
    for (size_t i = 0; i < nt; i++) p->grad_root[i] = (int)i;
    return true;
}

static bool out_of_memory(Graph *g)
{
    Buffer *top[3] = {0};
    for (int i = 0; i < g->n_buffer; i++)
        for (int j = 0; j < 3; j++)
            if (!top[j] || g->buffer[i].bytes > top[j]->bytes) {
                for (int k = 2; k > j; k--) top[k] = top[k - 1];
                top[j] = &g->buffer[i];
                break;
            }
    char names[512] = "";
    for (int j = 0; j < 3 && top[j]; j++) {
        size_t n = strlen(names);
        snprintf(names + n, sizeof names - n, "%s%s %s %.1f MB", j ? ", " : "", top[j]->name, top[j]->what,
                 (double)top[j]->bytes / 1e6);
    }
    return err_set(&g->err, ERR_MEMORY,
                   "a step needs %.1f MB for activations and gradients, %.1f MB are allowed; the largest: "
                   "%s. Lower train.batch_size or data.seq_len, or set model.activation_checkpointing: block",
                   (double)(g->step_bytes + g->scratch_bytes) / 1e6, (double)g->opt.memory_limit / 1e6,
                   names);
}

bool graph_plan(Graph *g, Err *e)
{
    Plan p = {.g = g};
    bool *seen = arena_alloc(&g->own, (size_t)g->n_tensor + 1, &g->err);
    if (!g->err.code && plan_arrays(&p)) {
        mark_needed(g);
        mark_interior(&p);
    }
    if (!g->err.code && make_schedule(&p)) {
        mark_first(&g->micro, seen);
        mark_first(&g->weight_bwd, seen);
        for (int i = 0; i < g->micro.n; i++) {
            Step *s = &g->micro.s[i];
            (s->act == ACT_FORWARD ? p.fwd_at : s->act == ACT_AGAIN ? p.again_at : p.bwd_at)[s->n->id] = i;
        }
        data_lives(&p);
        grad_lives(&p);
        share_grads(&p);
        list_buffers(&p);
        keep_tensors(g);
    }
    if (!g->err.code && plan_place(g->buffer, g->n_buffer, &g->step_bytes, &g->own, &g->err)) {
        g->scratch_bytes = round64(g->scratch_bytes);
        if (g->opt.memory_limit && g->step_bytes + g->scratch_bytes > g->opt.memory_limit) out_of_memory(g);
        char *base = arena_alloc(&g->step, g->step_bytes + g->scratch_bytes + 64, &g->err);
        if (base) {
            assign(&p, base);
            for (int i = 0; i < g->n_node; i++) g->node[i]->scratch = base + g->step_bytes;
            g->planned = true;
        }
    }
    if (g->err.code && e && !e->code) *e = g->err;
    return g->planned;
}
