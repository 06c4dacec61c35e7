/* autograd/graph_impl.h: the graph's inside, shared by graph.c (recording), plan.c (memory) and run.c. */
#ifndef GRAPH_IMPL_H
#define GRAPH_IMPL_H
#include "autograd/autograd.h"

typedef enum { ACT_FORWARD, ACT_AGAIN, ACT_BACKWARD } Act;
/* where out and stat lie from this entry on */
typedef struct Step {
    Node *n;
    Act act;
    void *out_data, *stat;
} Step;
typedef struct Tap {
    const char *name;
    Tensor *t;
} Tap;
typedef struct LossTerm {
    Node *n;
    double weight;
    const char *label;
} LossTerm;
typedef struct Buffer {
    const char *name, *what;
    size_t bytes, offset;
    int from, to;
} Buffer;
typedef struct Schedule {
    Step *s;
    int n;
} Schedule;

struct Graph {
    GraphOptions opt;
    Arena own, step;
    Err err;
    RunState state;
    Node **node;
    int n_node, cap_node;
    Tensor **tensor;
    int n_tensor, cap_tensor;
    Tap *tap;
    int n_tap, cap_tap;
    LossTerm *loss;
    int n_loss, cap_loss;
    bool nograd, planned;
    int segment;
    const char *prefix;
    Schedule weight_fwd, micro, weight_bwd;
    Buffer *buffer;
    int n_buffer; /* the memory plan, kept for the table */
    size_t step_bytes, scratch_bytes, kept_bytes;
    long micro_count; /* micro-batches since graph_step_begin */
};
static inline bool t_wants_grad(const Tensor *t) { return t && !(t->flags & T_NOGRAD); }
static inline size_t t_bytes(const Graph *g, const Tensor *t)
{
    size_t e = t->dtype == DT_I32 ? sizeof(int32_t) : g->opt.k->real;
    return (size_t)t_numel(t) * e;
}
static inline size_t round64(size_t n) { return (n + 63u) & ~(size_t)63u; }
/* place.c: offsets so that live buffers never overlap */
bool plan_place(Buffer *b, int n, size_t *total, Arena *a, Err *e);
#endif
