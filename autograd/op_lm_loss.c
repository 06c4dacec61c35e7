/* autograd/op_lm_loss.c: cross-entropy and distillation fused with the LM head(s), chunked over tokens.
 *   h (...,C)   W (V,C)   targets int32 (...), -100 ignored   ht (...,Ct)   Wt (V,Ct)   out: nll (...) per
 *   token, T = 1
 *   sum over target rows of  ce_weight CE(y, softmax(z)) + kd_weight KL(softmax(zt/T) || softmax(z/T)),  z =
 *   h W^T
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

static bool shape(Node *n, Graph *g)
{
    const Tensor *h = n->in[0], *w = n->in[1], *y = n->in[2], *ht = n->in[3], *wt = n->in[4];
    if (w->ndim != 2 || w->dim[1] != t_last(h) || t_numel(y) != t_rows(h) || y->dtype != DT_I32)
        return graph_error(g, "lm_loss: hidden %s (width %ld), head %s (%ld,%ld), %ld targets", h->name,
                           t_last(h), w->name, w->dim[0], w->dim[1], t_numel(y));
    if (!ht != !wt) return graph_error(g, "lm_loss: a teacher needs both its hidden states and its head");
    if (ht && (t_rows(ht) != t_rows(h) || wt->dim[1] != t_last(ht) || wt->dim[0] != w->dim[0]))
        return graph_error(g, "lm_loss: teacher head %s is (%ld,%ld), student head %s (%ld,%ld)", wt->name,
                           wt->dim[0], wt->dim[1], w->name, w->dim[0], w->dim[1]);
    n->stat_bytes = LM_SUMS * sizeof(double);
    n->scratch_bytes = (size_t)(chunk_rows(n) * w->dim[0]) * graph_kernels(g)->real * (ht ? 2 : 1);
    return graph_out(n, y->ndim, y->dim);
}

static void *row(const void *p, long r, long width, const Kernels *k)
{
    return p ? (char *)(uintptr_t)p + (size_t)(r * width) * k->real : NULL;
}

static void run(const Node *n, const Kernels *k, double g)
{
    const LmLossAttr *at = n->attr;
    const Tensor *h = n->in[0], *w = n->in[1], *ht = n->in[3], *wt = n->in[4];
    long N = t_rows(h), C = t_last(h), V = w->dim[0], step = chunk_rows(n);
    void *z = n->scratch, *zt = ht ? row(z, step, V, k) : NULL;
    double *sums = n->stat;
    memset(sums, 0, LM_SUMS * sizeof *sums);
    for (long r = 0; r < N; r += step) {
        long m = N - r < step ? N - r : step;
        void *hr = row(h->data, r, C, k);
        k->gemm_nt(z, hr, w->data, m, V, C, SET);
        if (ht) k->gemm_nt(zt, row(ht->data, r, t_last(ht), k), wt->data, m, V, t_last(ht), SET);
        k->xent(z, zt, (const int32_t *)n->in[2]->data + r, m, V, &at->a, g, sums,
                row(n->out->data, r, 1, k));
        if (g == 0) continue;
        if (h->grad) k->gemm_nn(row(h->grad, r, C, k), z, w->data, m, C, V, grad_mode(n, 0));
        if (w->grad) k->gemm_tn(w->grad, z, hr, V, C, m, r ? ADD : grad_mode(n, 1));
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
    {"frozen_head", &ce, {{'r', 2, {7, 5}, 0}, {'R', 2, {11, 5}, 0}, {'t', 1, {7}, 11}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_lm_loss = {.name = "lm_loss",
                       .formula = "sum ce_weight CE + kd_weight KL(p_T || q_T), z = h W^T",
                       .n_in = 5,
                       .optional = 24,
                       .attr_size = sizeof(LmLossAttr),
                       .flags = OP_LOSS,
                       .shape = shape,
                       .forward = forward,
                       .backward = backward,
                       .value = value,
                       .parts = parts,
                       .saves = SAVE_IN(0) | SAVE_IN(1) | SAVE_IN(2) | SAVE_IN(3) | SAVE_IN(4),
                       .cases = cases};
