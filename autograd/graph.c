/* autograd/graph.c: recording. Leaves, nodes, names; every error is sticky and comes out of graph_plan. */
#include "autograd/graph_impl.h"
#include <stdio.h>
#include <string.h>

Graph *graph_new(const GraphOptions *o, Err *e)
{
    Arena own = {.name = "graph"};
    Graph *g = arena_alloc(&own, sizeof *g, e);
    if (!g) return NULL;
    g->opt = *o;
    g->own = own;
    g->step = (Arena){.name = "step"};
    g->segment = -1;
    g->prefix = "";
    return g;
}

void graph_free(Graph *g)
{
    if (!g) return;
    arena_free(&g->step);
    Arena own = g->own; /* the graph itself lies in its own arena */
    arena_free(&own);
}

Err *graph_err(Graph *g) { return &g->err; }
const Kernels *graph_kernels(const Graph *g) { return g->opt.k; }
RunState *graph_state(Graph *g) { return &g->state; }
void graph_scope_nograd(Graph *g, bool on) { g->nograd = on; }
void graph_segment(Graph *g, int segment) { g->segment = segment; }

bool graph_error(Graph *g, const char *fmt, ...)
{
    char msg[sizeof g->err.msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    return err_set(&g->err, ERR_USAGE, "%s", msg);
}

const char *graph_prefix(Graph *g, const char *prefix)
{
    const char *old = g->prefix;
    g->prefix = prefix;
    return old;
}

/* Makes room for one more element; arrays of the graph double in its own arena. */
static void *room(Graph *g, void *v, int n, int *cap, size_t elem)
{
    if (n < *cap) return v;
    int want = *cap ? *cap * 2 : 64;
    void *p = arena_grow(&g->own, v, (size_t)n * elem, (size_t)want * elem, &g->err);
    if (p) *cap = want;
    return p;
}

static bool list_tensor(Graph *g, Tensor *t)
{
    Tensor **v = room(g, g->tensor, g->n_tensor, &g->cap_tensor, sizeof *v);
    if (!v) return false;
    g->tensor = v;
    t->id = g->n_tensor;
    v[g->n_tensor++] = t;
    return true;
}

static Tensor *new_tensor(Graph *g, const char *name, DType dt, int ndim, const long *dim, unsigned flags)
{
    Tensor *t = arena_alloc(&g->own, sizeof *t, &g->err);
    if (!t) return NULL;
    t->name = arena_printf(&g->own, &g->err, "%s%s", g->prefix, name);
    t->dtype = dt;
    t->ndim = ndim;
    t->flags = flags;
    for (int i = 0; i < ndim; i++) t->dim[i] = dim[i];
    return t->name && list_tensor(g, t) ? t : NULL;
}

static DType real_type(const Graph *g) { return g->opt.k->real == sizeof(double) ? DT_F64 : DT_F32; }

Tensor *graph_input(Graph *g, const char *name, DType t, int ndim, const long *dim)
{
    if (g->err.code) return NULL;
    if (t != DT_I32) t = real_type(g);
    Tensor *x = new_tensor(g, name, t, ndim, dim, T_INPUT | T_NOGRAD);
    if (x) x->data = arena_alloc(g->opt.run, t_bytes(g, x), &g->err);
    return x;
}

Tensor *graph_leaf(Graph *g, const char *name, int ndim, const long *dim, void *data)
{
    if (g->err.code) return NULL;
    Tensor *x = new_tensor(g, name, real_type(g), ndim, dim, T_INPUT | T_NOGRAD);
    if (x) x->data = data;
    return x;
}

Tensor *graph_param(Graph *g, Tensor *w)
{
    if (g->err.code) return NULL;
    for (int i = 0; i < g->n_tensor; i++)
        if (g->tensor[i] == w) return w;
    w->flags |= T_PARAM | T_WEIGHT;
    return list_tensor(g, w) ? w : NULL;
}

bool graph_out(Node *n, int ndim, const long *dim)
{
    char name[NAME_LEN];
    snprintf(name, sizeof name, "%s#%d", n->op->name, n->id);
    n->out = new_tensor(n->g, name, real_type(n->g), ndim, dim, 0);
    return n->out != NULL;
}

/* A node's output wants a gradient when the graph trains, the op can give one and some input wants one. */
static void set_flags(Graph *g, Node *n)
{
    bool grad = g->opt.train && !g->nograd && n->op->backward != NULL, any = false, weight = true;
    for (int i = 0; i < n->n_in; i++) {
        if (!n->in[i]) continue;
        any = any || t_wants_grad(n->in[i]);
        weight = weight && (n->in[i]->flags & T_WEIGHT);
    }
    if (!grad || !any) n->out->flags |= T_NOGRAD;
    if (weight && !(n->op->flags & (OP_LOSS | OP_RANDOM))) n->out->flags |= T_WEIGHT;
    n->weight_phase = (n->out->flags & T_WEIGHT) != 0;
}

/* A teacher's head behind the loss's own three inputs has no gradient anyway. */
static bool any_half(const Node *n)
{
    bool any = false;
    const int most = n->op == &op_lm_loss && n->n_in > 3 ? 3 : n->n_in;
    for (int i = 0; i < most; i++) any = any || weight_is_half(n->in[i]);
    return any;
}

/* What rows are read of: the parameter after what hangs on it. */
static Tensor *table_of(Graph *g, Tensor *w)
{
    Tensor *t = w;
    for (const TensorHook *h = w->hook; h && t; h = h->next)
        if (h->in) t = h->in(g, t, h);
    return t;
}

Tensor *graph_record(Graph *g, const Op *op, const void *attr, int n_in, Tensor *const *in)
{
    if (g->err.code) return NULL;
    if (n_in > op->n_in) {
        graph_error(g, "%s takes %d inputs, %d given", op->name, op->n_in, n_in);
        return NULL;
    }
    const TensorHook *hook = op == &op_embedding && n_in == 2 && in[0] ? in[0]->hook : NULL;
    Tensor *const read[2] = {hook ? table_of(g, in[0]) : NULL, hook ? in[1] : NULL};
    if (hook) in = read;
    Node *n = arena_alloc(&g->own, sizeof *n, &g->err);
    Node **v = n ? room(g, g->node, g->n_node, &g->cap_node, sizeof *v) : NULL;
    if (!v) return NULL;
    g->node = v;
    n->op = op;
    n->n_in = n_in;
    n->g = g;
    n->id = g->n_node;
    n->segment = g->segment;
    n->loss_weight = 0;
    for (int i = 0; i < op->n_in; i++) {
        n->in[i] = i < n_in ? in[i] : NULL;
        if (!n->in[i] && !(op->optional >> i & 1u)) {
            graph_error(g, "%s%s#%d: input %d is missing", g->prefix, op->name, n->id, i);
            return NULL;
        }
        if (weight_is_half(n->in[i]) && !(op->halves >> i & 1u)) {
            graph_error(g, "%s%s#%d cannot read %s, which is kept as bfloat16", g->prefix, op->name, n->id,
                        n->in[i]->name);
            return NULL;
        }
    }
    if (op->attr_size) {
        n->attr = arena_alloc(&g->own, op->attr_size, &g->err);
        if (!n->attr) return NULL;
        if (attr) memcpy(n->attr, attr, op->attr_size);
    }
    if (!op->shape(n, g) || g->err.code) {
        if (!g->err.code) graph_error(g, "%s%s#%d: shapes do not fit", g->prefix, op->name, n->id);
        return NULL;
    }
    n->out->node = n;
    set_flags(g, n);
    if (!(n->out->flags & T_NOGRAD) && any_half(n)) {
        graph_error(g, "%s: a weight kept as bfloat16 is for forward passes alone", n->out->name);
        return NULL;
    }
    v[g->n_node++] = n;
    Tensor *out = n->out;
    for (const TensorHook *h = hook; h && out; h = h->next)
        if (h->out) out = h->out(g, out, n->in[1], h);
    return out;
}

Tensor *graph_tap(Graph *g, Tensor *t, const char *fmt, ...)
{
    if (g->err.code || !t) return NULL;
    char name[NAME_LEN];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    Tap *v = room(g, g->tap, g->n_tap, &g->cap_tap, sizeof *v);
    if (!v) return NULL;
    g->tap = v;
    const char *full = arena_printf(&g->own, &g->err, "%s%s", g->prefix, name);
    if (!full) return NULL;
    v[g->n_tap++] = (Tap){full, t};
    if (t->node && strchr(t->name, '#')) t->name = full; /* the first name wins; leaves keep theirs */
    return t;
}

Tensor *graph_find(Graph *g, const char *name)
{
    for (int i = 0; i < g->n_tap; i++)
        if (!strcmp(g->tap[i].name, name)) return g->tap[i].t;
    for (int i = 0; i < g->n_tensor; i++)
        if (!strcmp(g->tensor[i]->name, name)) return g->tensor[i];
    return NULL;
}

int graph_taps(Graph *g, const char *glob, const char **name, Tensor **out, int cap)
{
    int n = 0;
    for (int i = 0; i < g->n_tap; i++) {
        if (!glob_match(glob, g->tap[i].name)) continue;
        if (n < cap) {
            if (name) name[n] = g->tap[i].name;
            if (out) out[n] = g->tap[i].t;
        }
        n++;
    }
    return n;
}

void graph_keep(Graph *g, Tensor *t)
{
    if (t && !g->err.code) t->flags |= T_KEEP;
}

void graph_loss(Graph *g, Tensor *scalar, double weight, const char *label)
{
    if (g->err.code || !scalar) return;
    if (!scalar->node || !(scalar->node->op->flags & OP_LOSS)) {
        graph_error(g, "%s: %s is not the output of a loss op", label, scalar->name);
        return;
    }
    LossTerm *v = room(g, g->loss, g->n_loss, &g->cap_loss, sizeof *v);
    if (!v) return;
    g->loss = v;
    scalar->node->loss_weight = weight;
    v[g->n_loss++] = (LossTerm){scalar->node, weight, arena_strdup(&g->own, label, &g->err)};
}

void graph_loss_weight(Graph *g, const Tensor *scalar, double weight)
{
    for (int i = 0; i < g->n_loss; i++)
        if (g->loss[i].n == scalar->node) g->loss[i].weight = scalar->node->loss_weight = weight;
}

const Node *const *graph_nodes(const Graph *g, int *n)
{
    *n = g->n_node;
    return (const Node *const *)g->node;
}
size_t graph_step_bytes(const Graph *g) { return g->step_bytes; }
