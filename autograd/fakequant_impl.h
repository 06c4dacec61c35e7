/* autograd/fakequant_impl.h: what the fake-quantisation ops share: which scales a node uses.
 *
 * A node owns room for scales in its stat; scales that must outlive a step (frozen, delayed, of weights) lie
 * in the FakeQuantState that compress/ made. Only a training graph writes there: an evaluation between two
 * steps changes nothing. */
#ifndef FAKEQUANT_IMPL_H
#define FAKEQUANT_IMPL_H
#include "autograd/graph_impl.h"

typedef struct FakeStat {
    QuantScales q; /* the scales this forward used */
    bool on;
} FakeStat;

QuantScales fakequant_own(const Node *n); /* room in stat */
bool fakequant_shape(Node *n, Graph *g);
/* Finds or takes the scales; false: not acting, y = x. */
bool fakequant_scales(const Node *n, const Kernels *k);
void fakequant_forward(const Node *n, const Kernels *k);
/* y (+)= x through the format, under scales q: to the nearest, or at random where the attribute says so and
 * the graph trains. Draws: seed, step, the attribute's stream; of weights by element, else by global sample
 * and element. */
void fakequant_round(const Node *n, const Kernels *k, void *y, const void *x, const QuantScales *q,
                     Mode mode);
static inline const FakeStat *fake_stat(const Node *n) { return n->stat; }
static inline const QuantSpec *fake_spec(const Node *n) { return &((const FakeQuantAttr *)n->attr)->spec; }
/* A gradient that passes unchanged. */
void fakequant_pass(const Node *n, const Kernels *k);
#endif
