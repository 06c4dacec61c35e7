/* autograd/op_attention.c: o = softmax(scale q k^T + mask) v, tiled, no Tq x Tkv anywhere (2205.14135;
 * algorithms 5.20).
 *   q (B,Tq,>= q_at + H D)   k, v (B,Tkv,...)   seg int32 (B,Tkv) or absent   past int32 (1) or absent   o
 *   (B,Tq,H D)
 * q, k and v may be one fused tensor read at different columns. past: tokens before the first query; keys are
 * then rows 0..past+Tq-1 of a cache. Dropout of the probabilities: kernels.h, AttnShape. stat:
 * log-sum-exp (B,H,Tq); scratch: delta of the same size. */
#include "autograd/autograd.h"

static bool shape(Node *n, Graph *g)
{
    const AttentionAttr *at = n->attr;
    const Tensor *q = n->in[0], *k = n->in[1], *v = n->in[2];
    if (q->ndim != 3 || k->ndim != 3 || v->ndim != 3 || k->dim[1] != v->dim[1] || q->dim[0] != k->dim[0] ||
        at->n_head % at->n_kv_head || at->q_at + at->n_head * at->D > t_last(q) ||
        at->k_at + at->n_kv_head * at->D > t_last(k) || at->v_at + at->n_kv_head * at->D > t_last(v))
        return graph_error(
            g, "attention: %ld query and %ld key heads of width %ld do not fit %s (%ld), %s (%ld)",
            at->n_head, at->n_kv_head, at->D, q->name, t_last(q), k->name, t_last(k));
    if (!(at->dropout >= 0 && at->dropout < 1))
        return graph_error(g, "attention: dropout %g is outside [0,1)", at->dropout);
    n->stat_bytes = (size_t)(q->dim[0] * at->n_head * q->dim[1]) * graph_kernels(g)->real;
    n->scratch_bytes = n->stat_bytes;
    return graph_out(n, 3, (long[]){q->dim[0], q->dim[1], at->n_head * at->D});
}

static AttnShape attn_shape(const Node *n)
{
    const AttentionAttr *at = n->attr;
    const Tensor *q = n->in[0], *k = n->in[1], *v = n->in[2], *seg = n->in[3], *past = n->in[4];
    const RunState *run = graph_state(n->g);
    long Tq = q->dim[1], off = past ? *(const int32_t *)past->data : 0;
    return (AttnShape){.B = q->dim[0],
                       .Tq = Tq,
                       .Tkv = past ? off + Tq : k->dim[1],
                       .kv_rows = k->dim[1],
                       .H = at->n_head,
                       .Hkv = at->n_kv_head,
                       .D = at->D,
                       .q_stride = t_last(q),
                       .k_stride = t_last(k),
                       .v_stride = t_last(v),
                       .o_stride = t_last(n->out),
                       .scale = at->scale,
                       .softcap = at->softcap,
                       .dropout = at->dropout,
                       .seed = run->seed,
                       .step = run->step,
                       .stream = at->stream,
                       .sample0 = run->sample0,
                       .q_offset = off,
                       .window = at->window,
                       .causal = at->causal,
                       .seg_q = seg ? seg->data : NULL,
                       .seg_kv = seg ? seg->data : NULL};
}

static void *col(const void *p, long at, const Kernels *k)
{
    return p ? (char *)(uintptr_t)p + (size_t)at * k->real : NULL;
}

static void forward(const Node *n, const Kernels *k)
{
    const AttentionAttr *at = n->attr;
    AttnShape s = attn_shape(n);
    k->attention_fwd(n->out->data, n->stat, col(n->in[0]->data, at->q_at, k),
                     col(n->in[1]->data, at->k_at, k), col(n->in[2]->data, at->v_at, k), &s);
}

static void backward(const Node *n, const Kernels *k)
{
    const AttentionAttr *at = n->attr;
    AttnShape s = attn_shape(n);
    const Tensor *q = n->in[0], *kk = n->in[1], *v = n->in[2];
    k->attention_bwd(col(q->grad, at->q_at, k), col(kk->grad, at->k_at, k), col(v->grad, at->v_at, k),
                     n->out->grad, n->out->data, n->stat, col(q->data, at->q_at, k),
                     col(kk->data, at->k_at, k), col(v->data, at->v_at, k), n->scratch, &s, grad_mode(n, 0),
                     grad_mode(n, 1), grad_mode(n, 2));
}

static const AttentionAttr mha = {2, 2, 8, 0, 0, 0, 0.3535533905932738, 0, 0, true, 0, 0};
static const AttentionAttr gqa = {4, 2, 6, 0, 0, 0, 0.4, 0, 3, true, 0, 0},
                           cap = {2, 1, 5, 0, 0, 0, 0.9, 2.0, 0, true, 0, 0},
                           drop = {4, 2, 6, 0, 0, 0, 0.4, 0, 0, true, 0.3, 77};
static const AttentionAttr fused = {2, 2, 4, 0, 8, 16, 0.5, 0, 0, true, 0, 0},
                           cross = {3, 3, 4, 0, 0, 0, 0.5, 0, 0, false, 0, 0};
static const OpCase cases[] = {
    {"mha", &mha, {{'r', 3, {2, 5, 16}, 0}, {'r', 3, {2, 5, 16}, 0}, {'r', 3, {2, 5, 16}, 0}}},
    {"gqa_window", &gqa, {{'r', 3, {1, 7, 24}, 0}, {'r', 3, {1, 7, 12}, 0}, {'r', 3, {1, 7, 12}, 0}}},
    {"softcap", &cap, {{'r', 3, {2, 4, 10}, 0}, {'r', 3, {2, 4, 5}, 0}, {'r', 3, {2, 4, 5}, 0}}},
    {"dropout", &drop, {{'r', 3, {2, 7, 24}, 0}, {'r', 3, {2, 7, 12}, 0}, {'r', 3, {2, 7, 12}, 0}}},
    {"fused", &fused, {{'r', 3, {2, 6, 24}, 0}, {'d', 3, {0}, 0}, {'d', 3, {0}, 0}}},
    {"segments",
     &mha,
     {{'r', 3, {2, 9, 16}, 0}, {'r', 3, {2, 9, 16}, 0}, {'r', 3, {2, 9, 16}, 0}, {'s', 2, {2, 9}, 3}}},
    {"cross", &cross, {{'r', 3, {1, 3, 12}, 0}, {'r', 3, {1, 8, 12}, 0}, {'r', 3, {1, 8, 12}, 0}}},
    {NULL, NULL, {{0, 0, {0}, 0}}}};

const Op op_attention = {.name = "attention",
                         .formula = "o = softmax(scale q k^T + mask) v",
                         .n_in = 5,
                         .optional = 24,
                         .attr_size = sizeof(AttentionAttr),
                         .flags = OP_DISJOINT | OP_RANDOM,
                         .shape = shape,
                         .forward = forward,
                         .backward = backward,
                         .saves = SAVE_IN(0) | SAVE_IN(1) | SAVE_IN(2) | SAVE_IN(3) | SAVE_OUT,
                         .cases = cases};
