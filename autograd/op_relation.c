/* autograd/op_relation.c: a feature loss between T x T matrices of student and teacher, head by head.
 *   a b (B,T,heads D), (B,T,kv_heads D) of the student, then of the teacher; targets, seg int32 (B,T)
 *   S = scale a b^T for every head, keys t' <= t of the same segment and within the window
 *   scores  sum over target rows t of mean over heads and all T keys of (S - S')^2, unseen keys 0 (TinyBERT
 *           1909.10351); head counts that differ: of the mean over heads
 *   KL      sum over target rows t of mean over heads of KL(softmax S' || softmax S), S' the teacher's: with
 *           a = b MiniLM's relations (2002.10957, 2012.15828), with queries and keys its attention transfer
 *
 * Only a chunk of rows of one head's matrices exists; backward makes them again. Row losses are the kernels
 * mse and xent, products are GEMMs on gathered heads. */
#include "autograd/autograd.h"
#include <math.h>
#include <string.h>

enum { CHUNK = 128, NO_TARGET = -100 };

/* One side's groups of heads: how many, how many heads are taken together, columns of a group. */
typedef struct Group {
    long n, per, width, repeat, D;
    double scale;
} Group;

static Group group(const RelationAttr *at, const RelationSide *s)
{
    const bool same = at->student.heads == at->teacher.heads;
    Group g = {
        .n = same ? s->heads : 1, .per = same ? 1 : s->heads, .repeat = s->heads / s->kv_heads, .D = s->D};
    g.width = g.per * s->D;
    g.scale = s->scale / (double)g.per;
    return g;
}

static bool check_side(const RelationSide *s, const Tensor *a, const Tensor *b, const Tensor *first, Graph *g)
{
    if (s->heads < 1 || s->kv_heads < 1 || s->heads % s->kv_heads || t_last(a) != s->heads * s->D ||
        t_last(b) != s->kv_heads * s->D)
        return graph_error(g, "relation: %s and %s are %ld and %ld wide, not %ld and %ld heads of %ld",
                           a->name, b->name, t_last(a), t_last(b), s->heads, s->kv_heads, s->D);
    if (a->ndim != 3 || b->ndim != 3 || a->dim[0] != first->dim[0] || a->dim[1] != first->dim[1] ||
        b->dim[0] != first->dim[0] || b->dim[1] != first->dim[1])
        return graph_error(g, "relation: %s, %s and %s are not (B,T,...) of the same tokens", first->name,
                           a->name, b->name);
    return true;
}

static long chunk_rows(const Node *n) { return n->in[0]->dim[1] < CHUNK ? n->in[0]->dim[1] : CHUNK; }

static bool shape(Node *n, Graph *g)
{
    const RelationAttr *at = n->attr;
    const Tensor *a = n->in[0];
    if (!check_side(&at->student, a, n->in[1], a, g) || !check_side(&at->teacher, n->in[2], n->in[3], a, g))
        return false;
    if (at->kind == RELATION_KL && at->student.heads != at->teacher.heads)
        return graph_error(g, "relation: %ld heads of %s against %ld of %s", at->student.heads, a->name,
                           at->teacher.heads, n->in[2]->name);
    for (int i = 4; i < 6; i++)
        if (n->in[i] && t_numel(n->in[i]) != t_rows(a))
            return graph_error(g, "relation: %s has %ld entries for %ld rows", n->in[i]->name,
                               t_numel(n->in[i]), t_rows(a));
    const long T = a->dim[1], R = chunk_rows(n), ws = group(at, &at->student).width,
               wt = group(at, &at->teacher).width;
    n->stat_bytes = sizeof(double);
    n->scratch_bytes = (size_t)(T * (3 * ws + 2 * wt) + R * ws + 2 * R * T) * graph_kernels(g)->real +
                       (size_t)(R + T) * sizeof(int32_t);
    return graph_out(n, 1, (long[]){1});
}

typedef struct Work {
    void *a, *b, *at, *bt, *da, *db, *s, *u; /* (T,ws) x2, (T,wt) x2, (R,ws), (T,ws), (R,T) x2 */
    int32_t *row, *from;                     /* (R): 0 or -100; (T): first key seen */
} Work;

static void *move(void *p, long n, const Kernels *k) { return (char *)p + (size_t)n * k->real; }
static void *at_row(const void *p, long r, long w, const Kernels *k)
{
    return move((void *)(uintptr_t)p, r * w, k);
}

static Work cut(const Node *n, const Kernels *k)
{
    const RelationAttr *at = n->attr;
    const long T = n->in[0]->dim[1], R = chunk_rows(n), ws = group(at, &at->student).width,
               wt = group(at, &at->teacher).width;
    Work w = {.a = n->scratch};
    w.b = move(w.a, T * ws, k);
    w.at = move(w.b, T * ws, k);
    w.bt = move(w.at, T * wt, k);
    w.da = move(w.bt, T * wt, k);
    w.db = move(w.da, R * ws, k);
    w.s = move(w.db, T * ws, k);
    w.u = move(w.s, R * T, k);
    w.row = move(w.u, R * T, k);
    w.from = w.row + R;
    return w;
}

/* Column of head i of group g in the second tensor. */
static long key_column(const Group *p, long g, long i) { return (g * p->per + i) / p->repeat * p->D; }

/* a (T,width) = scale times the group's columns of x, b (T,width) those of y. */
static void gather(const Kernels *k, const Group *p, long g, void *a, void *b, const Tensor *x,
                   const Tensor *y, long seq)
{
    const long T = x->dim[1], Wx = t_last(x), Wy = t_last(y);
    for (long t = 0; t < T; t++) {
        const void *xr = move(at_row(x->data, seq * T + t, Wx, k), g * p->width, k);
        const void *yr = at_row(y->data, seq * T + t, Wy, k);
        k->scale(at_row(a, t, p->width, k), p->scale, xr, p->width, SET);
        for (long i = 0; i < p->per; i++)
            k->copy(move(at_row(b, t, p->width, k), i * p->D, k),
                    move((void *)(uintptr_t)yr, key_column(p, g, i), k), p->D);
    }
}

/* First key that each position sees: of its segment, within the window. */
static void first_keys(const Node *n, long seq, int32_t *from)
{
    const RelationAttr *at = n->attr;
    const long T = n->in[0]->dim[1];
    const int32_t *seg = n->in[5] ? (const int32_t *)n->in[5]->data + seq * T : NULL;
    long start = 0;
    for (long t = 0; t < T; t++) {
        if (t && seg && seg[t] != seg[t - 1]) start = t;
        const long near = at->window > 0 ? t - at->window + 1 : 0;
        from[t] = (int32_t)(near > start ? near : start);
    }
}

/* Rows r .. r+R of both matrices over the first K keys; what is not seen is `unseen`. */
static void matrices(const Kernels *k, const Work *w, long r, long R, long K, long ws, long wt, double unseen)
{
    k->gemm_nt(w->s, at_row(w->a, r, ws, k), w->b, R, K, ws, SET);
    k->gemm_nt(w->u, at_row(w->at, r, wt, k), w->bt, R, K, wt, SET);
    for (long i = 0; i < R; i++)
        for (int side = 0; side < 2; side++) {
            void *row = at_row(side ? w->u : w->s, i, K, k);
            k->fill(row, unseen, w->from[r + i]);
            k->fill(move(row, r + i + 1, k), unseen, K - (r + i + 1));
        }
}

/* The loss of a chunk; with g, its gradient in place of w->s. */
static double chunk_loss(const Node *n, const Kernels *k, const Work *w, long R, long K, double g)
{
    const RelationAttr *at = n->attr;
    const double T = (double)n->in[0]->dim[1], heads = (double)group(at, &at->student).n;
    if (at->kind == RELATION_SCORES) {
        double sum = 0; /* the kernel's mean is over K keys */
        const double f = (double)K / (T * heads);
        k->mse_fwd(&sum, w->s, w->u, w->row, R, K);
        if (g != 0) k->mse_bwd(w->s, NULL, w->s, w->u, w->row, R, K, g * f, SET, SET);
        return sum * f;
    }
    const LossAttr kl = {.kd_weight = 1, .temperature = 1};
    double sums[LM_SUMS] = {0};
    k->xent(w->s, w->u, w->row, R, K, &kl, g / heads, sums, NULL);
    return sums[LM_KD] / heads;
}

/* Gradients of one chunk: dA goes to the student's first tensor, dB is collected. */
static void chunk_grad(const Node *n, const Kernels *k, const Work *w, const Group *p, long seq, long g,
                       long r, long R, long K)
{
    const Tensor *a = n->in[0];
    const long T = a->dim[1];
    if (a->grad) k->gemm_nn(w->da, w->s, w->b, R, p->width, K, SET);
    for (long i = 0; a->grad && i < R; i++)
        k->scale(move(at_row(a->grad, seq * T + r + i, t_last(a), k), g * p->width, k), p->scale,
                 at_row(w->da, i, p->width, k), p->width, ADD);
    if (n->in[1]->grad) k->gemm_tn(w->db, w->s, at_row(w->a, r, p->width, k), K, p->width, R, ADD);
}

static void scatter_keys(const Node *n, const Kernels *k, const Work *w, const Group *p, long seq, long g)
{
    const Tensor *b = n->in[1];
    const long T = b->dim[1];
    for (long t = 0; t < T; t++)
        for (long i = 0; i < p->per; i++)
            k->scale(move(at_row(b->grad, seq * T + t, t_last(b), k), key_column(p, g, i), k), 1.0,
                     move(at_row(w->db, t, p->width, k), i * p->D, k), p->D, ADD);
}

static double one_group(const Node *n, const Kernels *k, const Work *w, long seq, long g, double grad)
{
    const RelationAttr *at = n->attr;
    const Group ps = group(at, &at->student), pt = group(at, &at->teacher);
    const long T = n->in[0]->dim[1], step = chunk_rows(n);
    const int32_t *y = n->in[4] ? (const int32_t *)n->in[4]->data + seq * T : NULL;
    const double unseen = at->kind == RELATION_KL ? -INFINITY : 0.0;
    double sum = 0;
    gather(k, &ps, g, w->a, w->b, n->in[0], n->in[1], seq);
    gather(k, &pt, g, w->at, w->bt, n->in[2], n->in[3], seq);
    if (grad != 0) k->fill(w->db, 0.0, T * ps.width);
    for (long r = 0; r < T; r += step) {
        const long R = T - r < step ? T - r : step, K = r + R;
        for (long i = 0; i < R; i++) w->row[i] = y && y[r + i] == NO_TARGET ? NO_TARGET : 0;
        matrices(k, w, r, R, K, ps.width, pt.width, unseen);
        sum += chunk_loss(n, k, w, R, K, grad);
        if (grad != 0) chunk_grad(n, k, w, &ps, seq, g, r, R, K);
    }
    if (grad != 0 && n->in[1]->grad) scatter_keys(n, k, w, &ps, seq, g);
    return sum;
}

static void run(const Node *n, const Kernels *k, double grad)
{
    const RelationAttr *at = n->attr;
    const Work w = cut(n, k);
    double *sum = n->stat;
    *sum = 0;
    for (long seq = 0; seq < n->in[0]->dim[0]; seq++) {
        first_keys(n, seq, w.from);
        for (long g = 0; g < group(at, &at->student).n; g++) *sum += one_group(n, k, &w, seq, g, grad);
    }
}

static void forward(const Node *n, const Kernels *k) { run(n, k, 0.0); }
static void backward(const Node *n, const Kernels *k)
{
    for (int i = 0; i < 2; i++)
        if (n->in[i]->grad && grad_mode(n, i) == SET) k->fill(n->in[i]->grad, 0.0, t_numel(n->in[i]));
    run(n, k, n->loss_weight);
}

static double value(const Node *n) { return *(const double *)n->stat; }

static const RelationAttr values = {RELATION_KL, {2, 2, 3, 0.6}, {2, 2, 5, 0.45}, 0},
                          attention = {RELATION_KL, {4, 2, 2, 0.7}, {4, 4, 3, 0.5}, 3},
                          scores = {RELATION_SCORES, {4, 2, 2, 0.7}, {4, 1, 3, 0.5}, 0},
                          averaged = {RELATION_SCORES, {4, 2, 2, 0.7}, {3, 3, 3, 0.5}, 4},
                          one = {RELATION_SCORES, {1, 1, 1, 1}, {1, 1, 1, 1}, 0};
static const OpCase cases[] = {
    {"values",
     &values,
     {{'r', 3, {2, 5, 6}, 0},
      {'d', 3, {2, 5, 6}, 0},
      {'R', 3, {2, 5, 10}, 0},
      {'R', 3, {2, 5, 10}, 0},
      {'t', 2, {2, 5}, 9},
      {'s', 2, {2, 5}, 2}}},
    {"attention",
     &attention,
     {{'r', 3, {2, 7, 8}, 0}, {'r', 3, {2, 7, 4}, 0}, {'R', 3, {2, 7, 12}, 0}, {'R', 3, {2, 7, 12}, 0}}},
    {"scores",
     &scores,
     {{'r', 3, {1, 131, 8}, 0},
      {'r', 3, {1, 131, 4}, 0},
      {'R', 3, {1, 131, 12}, 0},
      {'R', 3, {1, 131, 3}, 0},
      {'t', 2, {1, 131}, 9}}},
    {"averaged",
     &averaged,
     {{'r', 3, {2, 6, 8}, 0},
      {'r', 3, {2, 6, 4}, 0},
      {'R', 3, {2, 6, 9}, 0},
      {'R', 3, {2, 6, 9}, 0},
      {'t', 2, {2, 6}, 9},
      {'s', 2, {2, 6}, 3}}},
    {"one",
     &one,
     {{'r', 3, {1, 1, 1}, 0}, {'r', 3, {1, 1, 1}, 0}, {'R', 3, {1, 1, 1}, 0}, {'R', 3, {1, 1, 1}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_relation = {.name = "relation",
                        .formula = "sum over rows of KL or MSE between a b^T of student and teacher",
                        .n_in = 6,
                        .optional = 48,
                        .attr_size = sizeof(RelationAttr),
                        .flags = OP_LOSS,
                        .shape = shape,
                        .forward = forward,
                        .backward = backward,
                        .value = value,
                        .saves = SAVE_IN(0) | SAVE_IN(1) | SAVE_IN(2) | SAVE_IN(3) | SAVE_IN(4) | SAVE_IN(5),
                        .cases = cases};
