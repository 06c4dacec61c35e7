/* autograd/op_lm_loss.c: cross-entropy and distillation fused with the LM head(s), chunked over tokens.
 *   h (...,C)   W (V,C)   targets int32 (...), -100 ignored   teachers: ht (...,Ct) Wt (V,Ct), up to six
 *   out: nll (...) per token, T = 1
 *   sum over target rows of  ce_weight CE(y, softmax(z)) + kd_weight D(softmax(zt/T), softmax(z/T)); z = h
 *   W^T
 *
 * D: forward KL or another divergence (kernels/soft_impl.h), over the vocabulary, over the teacher's top_k
 * and one class of all others, or over the top_k alone. Several teachers: their weighted mean of
 * probabilities at T. A cache instead of teachers: ids (...,k), log-probabilities (...,k), log mass of the
 * others at T (...).
 *
 * No (tokens,V) tensor exists: a chunk of rows of z and zt lies in scratch; dz, dh and dW are made from it in
 * the same pass, so in training forward is part of backward and the logits GEMM runs once. Definitions:
 * algorithms 5.1. */
#include "autograd/autograd.h"
#include <string.h>

/* Rows alive at a time: enough for the GEMM to be efficient, few enough to stay small against the weights. */
static long chunk_rows(const Node *n)
{
    const LmLossAttr *at = n->attr;
    long rows = t_rows(n->in[0]), V = n->in[1]->dim[0], want = V >= 16384 ? 256 : 1024;
    if (at->chunk > 0 && at->chunk < want) want = at->chunk;
    return rows < want ? rows : want;
}

static int teachers(const Node *n)
{
    int count = 0;
    const LmLossAttr *at = n->attr;
    while (!at->cached && count < MAX_TEACHER && n->in[3 + 2 * count]) count++;
    return count;
}

/* The classes of the divergence; 0: all of the vocabulary. */
static long classes(const Node *n)
{
    const LmLossAttr *at = n->attr;
    return at->cached ? t_last(n->in[3]) : teachers(n) ? at->top_k : 0;
}

static bool check_teachers(const Node *n, Graph *g)
{
    const Tensor *h = n->in[0], *w = n->in[1];
    for (int i = 0; i < MAX_TEACHER; i++) {
        const Tensor *ht = n->in[3 + 2 * i], *wt = n->in[4 + 2 * i];
        if (!ht != !wt) return graph_error(g, "lm_loss: a teacher needs both its hidden states and its head");
        if (ht && (t_rows(ht) != t_rows(h) || wt->dim[1] != t_last(ht) || wt->dim[0] != w->dim[0]))
            return graph_error(g, "lm_loss: teacher head %s is (%ld,%ld), student head %s (%ld,%ld)",
                               wt->name, wt->dim[0], wt->dim[1], w->name, w->dim[0], w->dim[1]);
    }
    return true;
}

static bool check_cache(const Node *n, Graph *g)
{
    const Tensor *h = n->in[0], *w = n->in[1], *index = n->in[3], *logp = n->in[4], *rest = n->in[5];
    if (!index || !logp || index->dtype != DT_I32 || t_rows(index) != t_rows(h) ||
        t_numel(logp) != t_numel(index) || (rest && t_numel(rest) != t_rows(h)))
        return graph_error(
            g, "lm_loss: a cached teacher needs ids and log-probabilities (%ld,k), and (%ld) of rest",
            t_rows(h), t_rows(h));
    return t_last(index) <= w->dim[0] ||
           graph_error(g, "lm_loss: the cached teacher holds %ld of %ld tokens", t_last(index), w->dim[0]);
}

/* Bytes for a head that is kept as bfloat16, at the end of the scratch. */
static size_t head_room(const Node *n, const Kernels *k)
{
    size_t most = weight_room(k, n->in[1]);
    for (int i = 0; i < teachers(n); i++) {
        const size_t one = weight_room(k, n->in[4 + 2 * i]);
        if (one > most) most = one;
    }
    return most;
}

static bool shape(Node *n, Graph *g)
{
    const LmLossAttr *at = n->attr;
    const Tensor *h = n->in[0], *w = n->in[1], *y = n->in[2];
    if (w->ndim != 2 || w->dim[1] != t_last(h) || t_numel(y) != t_rows(h) || y->dtype != DT_I32)
        return graph_error(g, "lm_loss: hidden %s (width %ld), head %s (%ld,%ld), %ld targets", h->name,
                           t_last(h), w->name, w->dim[0], w->dim[1], t_numel(y));
    if (at->cached ? !check_cache(n, g) : !check_teachers(n, g)) return false;
    if (classes(n) > w->dim[0] || (classes(n) && at->a.kind == LOSS_MSE_LOGITS))
        return graph_error(g, "lm_loss: top_k %ld of a vocabulary of %ld, or of logits", classes(n),
                           w->dim[0]);
    n->stat_bytes = LM_SUMS * sizeof(double);
    const long rows = chunk_rows(n), V = w->dim[0], k = classes(n);
    const int heads = teachers(n) > 1 ? 3 : teachers(n) + 1;
    const size_t real = graph_kernels(g)->real;
    n->scratch_bytes = (size_t)(rows * V) * real * (size_t)heads;
    if (k) n->scratch_bytes += (size_t)(rows * (2 * k + 1)) * real + (size_t)(rows * k) * sizeof(int32_t);
    n->scratch_bytes = (n->scratch_bytes + 63) / 64 * 64 + head_room(n, graph_kernels(g));
    return graph_out(n, y->ndim, y->dim);
}

static void *row(const void *p, long r, long width, const Kernels *k)
{
    return p ? (char *)(uintptr_t)p + (size_t)(r * width) * k->real : NULL;
}

/* One chunk's memory: rows of student, teacher and a further teacher, and of the classes. */
typedef struct Chunk {
    void *z, *zt, *more, *logp, *rest, *room, *head;
    int32_t *index;
} Chunk;

static Chunk cut(const Node *n, const Kernels *k)
{
    const long rows = chunk_rows(n), V = n->in[1]->dim[0], top = classes(n);
    const int count = teachers(n);
    Chunk c = {.z = n->scratch};
    void *at = row(c.z, rows, V, k);
    if (count) c.zt = at, at = row(at, rows, V, k);
    if (count > 1) c.more = at, at = row(at, rows, V, k);
    c.logp = at;
    c.room = row(c.logp, rows, top, k);
    c.rest = row(c.room, rows, top, k);
    c.index = row(c.rest, rows, 1, k);
    c.head = (char *)n->scratch + n->scratch_bytes - head_room(n, k);
    return c;
}

/* Teacher logits of m rows from r on; of several teachers those of the mean of their probabilities. */
static void teach(const Node *n, const Kernels *k, const Chunk *c, long r, long m)
{
    const LmLossAttr *at = n->attr;
    const int count = teachers(n);
    const long V = n->in[1]->dim[0];
    for (int i = 0; i < count; i++) {
        const Tensor *ht = n->in[3 + 2 * i], *wt = n->in[4 + 2 * i];
        const long C = t_last(ht);
        void *to = count > 1 ? c->more : c->zt;
        weight_nt(k, to, row(ht->data, r, C, k), wt, m, c->head);
        if (count > 1)
            k->teacher_mix(c->zt, to, m, V, at->weight[i], at->a.temperature, at->cap[i], i ? ADD : SET);
    }
}

/* Losses of a chunk; dz in place of z. */
static void losses(const Node *n, const Kernels *k, const Chunk *c, long r, long m, double g)
{
    const LmLossAttr *at = n->attr;
    LossAttr a = at->a;
    const long V = n->in[1]->dim[0], top = classes(n);
    const int32_t *y = (const int32_t *)n->in[2]->data + r;
    void *nll = row(n->out->data, r, 1, k);
    if (teachers(n) > 1) a.teacher_softcap = 0; /* teacher_mix has applied each teacher's */
    if (!top) {
        k->xent(c->z, c->zt, y, m, V, &a, g, n->stat, nll);
        return;
    }
    const int32_t *index = c->index;
    const void *logp = c->logp, *rest = at->renormalize ? NULL : c->rest;
    if (at->cached) {
        index = (const int32_t *)n->in[3]->data + r * top;
        logp = row(n->in[4]->data, r, top, k);
        rest = n->in[5] && !at->renormalize ? row(n->in[5]->data, r, 1, k) : NULL;
    } else {
        k->topk(c->index, c->logp, c->rest, c->zt, m, V, top, a.teacher_softcap, &a.temperature, 1);
    }
    k->xent_top(c->z, index, logp, rest, c->room, y, m, V, top, &a, g, n->stat, nll);
}

static void run(const Node *n, const Kernels *k, double g)
{
    const Tensor *h = n->in[0], *w = n->in[1];
    const long N = t_rows(h), C = t_last(h), V = w->dim[0], step = chunk_rows(n);
    const Chunk c = cut(n, k);
    memset(n->stat, 0, LM_SUMS * sizeof(double));
    for (long r = 0; r < N; r += step) {
        const long m = N - r < step ? N - r : step;
        void *hr = row(h->data, r, C, k);
        weight_nt(k, c.z, hr, w, m, c.head);
        teach(n, k, &c, r, m);
        losses(n, k, &c, r, m, g);
        if (g == 0) continue;
        if (h->grad) k->gemm_nn(row(h->grad, r, C, k), c.z, w->data, m, C, V, grad_mode(n, 0));
        if (w->grad) k->gemm_tn(w->grad, c.z, hr, V, C, m, r ? ADD : grad_mode(n, 1));
    }
}

static void forward(const Node *n, const Kernels *k) { run(n, k, 0.0); }
static void backward(const Node *n, const Kernels *k)
{
    if (n->loss_weight != 0) {
        run(n, k, n->loss_weight);
        return;
    }
    /* a weight of 0 still reports its value, and its gradient is 0, not unset */
    run(n, k, 0.0);
    for (int i = 0; i < 2; i++)
        if (n->in[i]->grad && grad_mode(n, i) == SET) k->fill(n->in[i]->grad, 0.0, t_numel(n->in[i]));
}

static double value(const Node *n)
{
    const LmLossAttr *at = n->attr;
    const double *s = n->stat;
    return at->a.ce_weight * s[LM_CE] + at->a.kd_weight * s[LM_KD];
}

static int parts(const Node *n, LossPart *out, int cap)
{
    const LmLossAttr *at = n->attr;
    const double *s = n->stat, factor = at->kd_report > 0 ? at->kd_report : 1;
    int m = 0;
    if (m < cap) out[m++] = (LossPart){"loss/ce", s[LM_CE]};
    if (n->in[3] && m < cap) out[m++] = (LossPart){"loss/kd", factor * s[LM_KD]};
    if (n->in[3] && m < cap) out[m++] = (LossPart){"loss/teacher_entropy", s[LM_ENTROPY]};
    return m;
}

#define TEACHER(C)                                                                                           \
    {'R', 2, {5, C}, 0}, { 'R', 2, {17, C}, 0 }
#define PLAIN(kind_, mix_, T)                                                                                \
    {                                                                                                        \
        .a = {.ce_weight = 0.2, .kd_weight = 0.8 * T, .temperature = T, .kind = kind_, .mix = mix_},         \
        .chunk = 3                                                                                           \
    }
#define TOP(kind_, mix_, T, k)                                                                               \
    {                                                                                                        \
        .a = {.ce_weight = 0.2,                                                                              \
              .kd_weight = 0.8 * T,                                                                          \
              .temperature = T,                                                                              \
              .kind = kind_,                                                                                 \
              .mix = mix_,                                                                                   \
              .softcap = 4},                                                                                 \
        .chunk = 2, .top_k = k                                                                               \
    }
static const LmLossAttr reverse = PLAIN(LOSS_REVERSE_KL, 0, 2), jsd = PLAIN(LOSS_JSD, 0.3, 3),
                        symmetric = PLAIN(LOSS_SYMMETRIC_KL, 0.4, 1), tvd = PLAIN(LOSS_TVD, 0, 2),
                        skew = PLAIN(LOSS_SKEW_KL, 0.1, 2), raw = PLAIN(LOSS_MSE_LOGITS, 0, 2),
                        top_kl = TOP(LOSS_FORWARD_KL, 0, 2, 4), top_jsd = TOP(LOSS_JSD, 0.5, 3, 1),
                        top_all = TOP(LOSS_REVERSE_KL, 0, 2, 17),
                        few = {.a = {.kd_weight = 2, .temperature = 2}, .top_k = 5, .renormalize = true},
                        two = {.a = {.ce_weight = 0.2, .kd_weight = 0.8, .temperature = 2},
                               .weight = {0.25, 0.75},
                               .cap = {0, 3}};
static const LmLossAttr ce = {.a = {.ce_weight = 1, .temperature = 1}, .chunk = 3},
                        smooth =
                            {.a = {.ce_weight = 1, .temperature = 1, .label_smoothing = 0.1, .z_loss = 0.01}},
                        kd = {.a = {.ce_weight = 0.3, .kd_weight = 0.7 * 4, .temperature = 2}, .chunk = 4},
                        kd1 = {.a = {.ce_weight = 0.1, .kd_weight = 0.9, .temperature = 1}};
static const OpCase cases[] = {
    {"ce", &ce, {{'r', 2, {7, 5}, 0}, {'r', 2, {11, 5}, 0}, {'t', 1, {7}, 11}}},
    {"smooth_z", &smooth, {{'r', 2, {4, 3}, 0}, {'r', 2, {6, 3}, 0}, {'t', 1, {4}, 6}}},
    {"kd_T2",
     &kd,
     {{'r', 3, {2, 5, 6}, 0},
      {'r', 2, {13, 6}, 0},
      {'t', 2, {2, 5}, 13},
      {'R', 3, {2, 5, 8}, 0},
      {'R', 2, {13, 8}, 0}}},
    {"kd_T1",
     &kd1,
     {{'r', 2, {5, 6}, 0},
      {'r', 2, {17, 6}, 0},
      {'t', 1, {5}, 17},
      {'R', 2, {5, 6}, 0},
      {'R', 2, {17, 6}, 0}}},
#define STUDENT                                                                                              \
    {'r', 2, {5, 6}, 0}, {'r', 2, {17, 6}, 0}, { 't', 1, {5}, 17 }
    {"reverse", &reverse, {STUDENT, TEACHER(7)}},
    {"jsd", &jsd, {STUDENT, TEACHER(7)}},
    {"symmetric", &symmetric, {STUDENT, TEACHER(7)}},
    {"tvd", &tvd, {STUDENT, TEACHER(7)}},
    {"skew", &skew, {STUDENT, TEACHER(7)}},
    {"mse_logits", &raw, {STUDENT, TEACHER(7)}},
    {"top_kl", &top_kl, {STUDENT, TEACHER(7)}},
    {"top_jsd", &top_jsd, {STUDENT, TEACHER(7)}},
    {"top_all", &top_all, {STUDENT, TEACHER(7)}},
    {"top_renormalized", &few, {STUDENT, TEACHER(7)}},
    {"two_teachers", &two, {STUDENT, TEACHER(7), TEACHER(3)}},
    {"one_token",
     &top_jsd,
     {{'r', 2, {1, 1}, 0}, {'r', 2, {2, 1}, 0}, {'t', 1, {1}, 1}, {'R', 2, {1, 1}, 0}, {'R', 2, {2, 1}, 0}}},
    {"frozen_head", &ce, {{'r', 2, {7, 5}, 0}, {'R', 2, {11, 5}, 0}, {'t', 1, {7}, 11}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_lm_loss = {.name = "lm_loss",
                       .formula = "sum ce_weight CE + kd_weight D(p_T, q_T), z = h W^T",
                       .n_in = 3 + 2 * MAX_TEACHER,
                       .optional = 0x7ff8,
                       .halves = 0x5552, /* heads */
                       .attr_size = sizeof(LmLossAttr),
                       .flags = OP_LOSS,
                       .shape = shape,
                       .forward = forward,
                       .backward = backward,
                       .value = value,
                       .parts = parts,
                       .saves = 0x7fff,
                       .cases = cases};
