/* bench/ops.c: every operator of ops.def, forward and backward, alone: time, rate, share of its roof.
 *
 * FLOPs are those of the matrix products (others count as bytes only); bytes are each tensor the formula
 * must read or write, once. roof = max(FLOPs / FMA rate, bytes / triad at that working set); the share is
 * roof / time. Tensors stay as warm as the caches keep them between repetitions.
 */
#include "bench/bench.h"
#include "bench/shapes.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct One {
    Arena a;
    Err e;
    Graph *g;
    Node *node;
    const Kernels *k;
    Tensor *in[MAX_IN];
} One;

static void fill(Tensor *t, const OpCase *c, int j)
{
    char kind = c->in[j].kind;
    RngKey key = {.seed = 7, .stream = (uint32_t)j};
    if (t->dtype != DT_I32) {
        rng_uniform_f32(t->data, (size_t)t_numel(t), key, -1, 1);
        return;
    }
    int32_t *id = t->data; /* (numel) */
    for (long i = 0; i < t_numel(t); i++) {
        if (kind == 'p') id[i] = (int32_t)(i % t_last(t));
        else if (kind == 's') id[i] = (int32_t)((i % t_last(t)) * c->in[j].limit / t_last(t));
        else id[i] = (int32_t)(rng_uniform(key, (uint32_t)i) * (double)c->in[j].limit);
    }
}

/* The node with memory of its own; false when the shapes do not fit. */
static bool open_case(One *o, const Op *op, const OpCase *c)
{
    *o = (One){.a = {.name = "bench"}, .k = kernels_cpu_f32()};
    o->g = graph_new(&(GraphOptions){.k = o->k, .train = true, .run = &o->a}, &o->e);
    for (int j = 0; j < op->n_in && o->g; j++) {
        char kind = c->in[j].kind;
        bool real = kind == 'r' || kind == 'R';
        if (!kind) continue;
        o->in[j] = kind == 'd' ? o->in[0]
                               : graph_input(o->g, "in", real ? DT_F32 : DT_I32, c->in[j].ndim, c->in[j].dim);
        if (!o->in[j]) return false;
        if (kind != 'd') fill(o->in[j], c, j);
        if (kind == 'r') {
            o->in[j]->flags &= ~(unsigned)T_NOGRAD;
            o->in[j]->grad = arena_alloc(&o->a, (size_t)t_numel(o->in[j]) * 4, &o->e);
        }
    }
    Tensor *out = o->g ? graph_record(o->g, op, c->attr, op->n_in, o->in) : NULL;
    if (!out) return false;
    Node *n = o->node = out->node;
    size_t bytes = (size_t)t_numel(out) * 4;
    out->data = op->flags & OP_ALIAS0 ? o->in[0]->data : arena_alloc(&o->a, bytes, &o->e);
    out->grad = arena_alloc(&o->a, bytes, &o->e);
    n->stat = arena_alloc(&o->a, n->stat_bytes, &o->e);
    n->scratch = arena_alloc(&o->a, n->scratch_bytes, &o->e);
    n->loss_weight = 1.0 / 1024;
    /* gradients are set, as for an activation with one reader; a table's rows are added to */
    n->first = op == &op_embedding ? 0u : ~0u;
    for (int j = 1; j < op->n_in && !(op->flags & OP_DISJOINT); j++)
        if (o->in[j] && o->in[j] == o->in[0]) n->first &= ~(1u << j);
    if (!o->e.code) rng_uniform_f32(out->grad, (size_t)t_numel(out), (RngKey){.seed = 9}, -1, 1);
    return !o->e.code;
}

static void close_case(One *o)
{
    graph_free(o->g);
    arena_free(&o->a);
}
static void run_forward(void *o) { ((One *)o)->node->op->forward(((One *)o)->node, ((One *)o)->k); }
static void run_backward(void *o) { ((One *)o)->node->op->backward(((One *)o)->node, ((One *)o)->k); }

/* FLOPs of the matrix products. */
static double flops(const Node *n, bool backward)
{
    const Tensor *x = n->in[0], *w = n->in[1];
    if (n->op == &op_linear) return (backward ? 4.0 : 2.0) * (double)t_rows(x) * (double)t_numel(w);
    if (n->op == &op_lm_loss) {
        double student = (double)t_rows(x) * (double)t_numel(w);
        double teacher = n->in[4] ? (double)t_rows(x) * (double)t_numel(n->in[4]) : 0;
        return (backward ? 6 : 2) * student + 2 * teacher;
    }
    if (n->op == &op_attention) {
        const AttentionAttr *at = n->attr;
        double pairs = (double)x->dim[0] * (double)x->dim[1] * (double)(n->in[1]->dim[1] + 1) / 2;
        return (backward ? 10.0 : 4.0) * pairs * (double)(at->n_head * at->D);
    }
    return 0;
}

static double bytes_of(const Tensor *t) { return t ? 4.0 * (double)t_numel(t) : 0; }

/* Bytes that must move: forward reads what it is given and writes out; backward reads out's gradient and what
 * `saves` says, and writes gradients. A table that is only looked up counts by the rows touched. */
static double bytes(const Node *n, bool backward)
{
    const Op *op = n->op;
    if (op == &op_embedding) return bytes_of(n->out) * (backward ? 3 : 2);
    if (op == &op_slice || op == &op_kv_append) return 2 * bytes_of(op == &op_slice ? n->out : n->in[1]);
    double sum = op->flags & OP_LOSS ? 0 : bytes_of(n->out);
    if (backward && (op->saves & SAVE_OUT)) sum += bytes_of(n->out);
    for (int j = 0; j < op->n_in; j++) {
        const Tensor *t = n->in[j];
        bool again = false;
        for (int i = 0; i < j; i++) again = again || n->in[i] == t;
        if (!t || again) continue;
        if (!backward || (op->saves & SAVE_IN(j))) sum += bytes_of(t);
        if (backward && t->grad) sum += bytes_of(t);
    }
    return sum;
}

static void measure(const Bench *b, One *o, const char *name, bool backward)
{
    const Op *op = o->node->op;
    Stat s = bench_time(backward ? run_backward : run_forward, o, b->quick ? 0.1 : 0.4, 5);
    double f = flops(o->node, backward), by = bytes(o->node, backward);
    double compute = f / b->c->fma, memory = by / bench_bandwidth(b->c, by), roof = fmax(compute, memory);
    char dims[64] = "", rate[32] = "";
    for (int j = 0, at = 0; j < 2; j++)
        for (int d = 0; o->in[j] && d < o->in[j]->ndim && at < (int)sizeof dims - 12; d++)
            at += snprintf(dims + at, sizeof dims - (size_t)at, "%s%ld",
                           d   ? "x"
                           : j ? " "
                               : "",
                           o->in[j]->dim[d]);
    if (f > 0) snprintf(rate, sizeof rate, "%7.1f GFLOP/s", f / s.median / 1e9);
    else snprintf(rate, sizeof rate, "%7.1f GB/s   ", by / s.median / 1e9);
    printf("  %-10s %-11s %-24s %-3s %9.3f ms %4.0f %% %5d  %s %4.0f %% of %s\n", op->name, name, dims,
           backward ? "bwd" : "fwd", 1e3 * s.median, bench_spread(&s), s.n, rate, 100 * roof / s.median,
           compute > memory ? "FMA" : "triad");
    bench_line(
        b,
        "{\"part\": \"ops\", \"op\": \"%s\", \"case\": \"%s\", \"shape\": \"%s\", \"dir\": \"%s\", \"ms\": "
        "%.5f, \"spread\": %.3f, \"n\": %d, \"gflops\": %.2f, \"gbs\": %.2f, \"bound\": \"%s\", "
        "\"of_roof\": %.3f}",
        op->name, name, dims, backward ? "bwd" : "fwd", 1e3 * s.median, bench_spread(&s) / 100, s.n,
        f / s.median / 1e9, by / s.median / 1e9, compute > memory ? "fma" : "triad", roof / s.median);
}

static bool measure_case(const Bench *b, const Op *op, const OpCase *c, const char *name)
{
    One o;
    bool ok = open_case(&o, op, c);
    if (ok) *graph_state(o.g) = (RunState){.seed = 11};
    if (ok) measure(b, &o, name, false);
    if (ok && op->backward) measure(b, &o, name, true);
    close_case(&o);
    fflush(stdout);
    return ok;
}

/* An operator nobody listed: its first case, rows (the first dimension, wherever it stands first) times 256;
 * as it is when that does not fit. */
static bool measure_unlisted(const Bench *b, const Op *op)
{
    if (!op->cases || !op->cases[0].name) return true;
    OpCase c = op->cases[0];
    long rows = c.in[0].dim[0];
    for (int j = 0; j < op->n_in; j++)
        if (c.in[j].kind && c.in[j].dim[0] == rows) c.in[j].dim[0] *= 256;
    return measure_case(b, op, &c, "own x 256") || measure_case(b, op, &op->cases[0], "own case");
}

bool bench_ops(const Bench *b)
{
    bool ok = true;
    bench_threads(b);
    for (int i = 0; i < 32; i++) inv_freq[i] = pow(10000.0, -i / 32.0);
    bench_title("operators: time, spread, n, rate, share of the roof (shapes of in 0 and in 1)");
    for (int i = 0; i < n_all_ops; i++) {
        bool found = false;
        for (int j = 0; j < N_LISTED; j++)
            if (listed[j].op == all_ops[i]) {
                found = true;
                ok = measure_case(b, all_ops[i], &listed[j].c, listed[j].c.name) && ok;
            }
        if (!found) ok = measure_unlisted(b, all_ops[i]) && ok;
    }
    return ok;
}
