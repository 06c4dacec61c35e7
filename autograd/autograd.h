/* autograd/autograd.h: floor 2. A graph that is recorded once, planned, then run many times.
 *
 *   Graph *g = graph_new(&(GraphOptions){.k = kernels_cpu_f32(), .train = true}, &e);
 *   Tensor *x = graph_input(g, "ids", DT_I32, 2, (long[]){B, T});
 *   Tensor *y = OP(g, linear, h, w, b);      // records a node; does nothing after the first error
 *   graph_loss(g, OP_ATTR(g, mse, (MseAttr){...}, y, t), 1.0, "mse");
 *   graph_plan(g, &e);                       // liveness, offsets, the memory table; errors come out here
 *   graph_step_begin(g); graph_micro(g); ...; graph_step_end(g);
 *
 * Tensors are row-major and contiguous. Parameters live in the run arena, activations in one planned step
 * arena. */
#ifndef AUTOGRAD_H
#define AUTOGRAD_H
#include "core/core.h"
#include "core/config.h"
#include "kernels/kernels.h"

enum { MAX_DIM = 4, MAX_IN = 16, NAME_LEN = 96, MAX_TEACHER = 6 };
typedef struct Node Node;
typedef struct Graph Graph;
typedef struct Tensor Tensor;
/* What hangs on a parameter that is read by row: `in` takes the parameter and returns what rows are read of,
 * `out` takes y = rows `ids` of it and returns what stands for y from then on (either may be NULL: nothing
 * changes); `merge` takes the parameter and returns the one that would give the same. */
typedef struct TensorHook TensorHook;
struct TensorHook {
    Tensor *(*in)(Graph *g, Tensor *w, const TensorHook *h);
    Tensor *(*out)(Graph *g, Tensor *y, Tensor *ids, const TensorHook *h);
    Tensor *(*merge)(Graph *g, Tensor *w, const TensorHook *h);
    void *state;
    TensorHook *next;
};
/* T_WEIGHT: depends on params only */
enum { T_PARAM = 1, T_INPUT = 2, T_KEEP = 4, T_NOGRAD = 8, T_WEIGHT = 16 };

struct Tensor {
    const char *name; /* hierarchical: student.layers.3.mlp.up */
    /* DT_F32 / DT_F64 = the graph's real type; DT_I32 for ids, positions, segments; DT_BF16: frozen */
    DType dtype;
    int ndim;
    long dim[MAX_DIM];
    void *data, *grad; /* grad NULL: not wanted */
    Node *node;        /* producer, NULL for leaves */
    unsigned flags;
    int id; /* index in the graph's tensor list */
    TensorHook *hook;
};
static inline long t_numel(const Tensor *t)
{
    long n = 1;
    for (int i = 0; i < t->ndim; i++) n *= t->dim[i];
    return n;
}
static inline long t_last(const Tensor *t) { return t->ndim ? t->dim[t->ndim - 1] : 1; }
static inline long t_rows(const Tensor *t) { return t_last(t) ? t_numel(t) / t_last(t) : 0; }

/* What backward reads: these stay alive (and nothing else does; the poison test holds an op to it). */
#define SAVE_IN(i) (1u << (i))
#define SAVE_OUT (1u << 16)
enum {
    OP_ALIAS0 = 1,   /* out shares the data of in[0] (no copy) */
    OP_GRADPASS = 2, /* backward hands out's gradient on unchanged to in[0] and in[1] */
    /* the same tensor may come in several times; backward writes disjoint parts */
    OP_DISJOINT = 4,
    /* scalar loss: in training its forward is part of backward (one pass over logits) */
    OP_LOSS = 8,
    OP_RANDOM = 16
};

/* Shapes for every test, in the op's own file; the last one has name NULL. kind: 'r' real, 'i' integer in
 * [0,limit), 't' integer target in [0,limit) with some -100, 'p' positions 0..n-1 per row, 's' non-decreasing
 * segment ids, 0 absent; 'd' the same tensor as in[0] (fused qkv). A capital letter: no gradient is asked
 * for. */
typedef struct OpCase {
    const char *name;
    const void *attr;
    struct {
        char kind;
        int ndim;
        long dim[MAX_DIM];
        long limit;
    } in[MAX_IN];
} OpCase;
/* unweighted, summed over target tokens */
typedef struct LossPart {
    const char *label;
    double value;
} LossPart;
typedef struct Op {
    const char *name, *formula; /* formula: one line for `make ops` */
    int n_in;
    unsigned optional; /* bit i: in[i] may be NULL */
    unsigned saves, flags;
    unsigned halves; /* bit i: in[i] may be a weight kept as bfloat16 */
    size_t attr_size;
    /* sets out's dims (graph_out), n->stat_bytes, n->scratch_bytes; errors via graph_error */
    bool (*shape)(Node *n, Graph *g);
    void (*forward)(const Node *n, const Kernels *k);
    void (*backward)(const Node *n, const Kernels *k); /* NULL: not differentiable */
    /* straight-through ops: the smooth forward that backward differentiates */
    void (*surrogate)(const Node *n, const Kernels *k);
    /* OP_LOSS: the scalar, summed over target tokens */
    double (*value)(const Node *n);
    /* OP_LOSS: named parts; NULL = one part under graph_loss's label */
    int (*parts)(const Node *n, LossPart *out, int cap);
    const OpCase *cases;
} Op;

struct Node {
    const Op *op;
    Tensor *in[MAX_IN], *out;
    int n_in, id, segment; /* segment >= 0: a recompute unit (one block) */
    void *attr;            /* the op's own small struct, copied */
    void *stat;
    size_t stat_bytes; /* what forward leaves for backward (rstd, lse, loss parts) */
    void *scratch;
    size_t scratch_bytes; /* valid during one call */
    /* bit i: this backward is the first writer of in[i]->grad: SET, else ADD */
    unsigned first;
    /* of activations (every micro-batch), of parameters (first micro-batch of a step) */
    unsigned first_act, first_param;
    bool weight_phase, needs_backward, needed; /* set by the planner */
    double loss_weight;                        /* OP_LOSS: the gradient that comes in */
    Graph *g;
};
static inline Mode grad_mode(const Node *n, int i) { return (n->first >> i) & 1u ? SET : ADD; }

/* What changes from step to step, read by ops (dropout keys, loss scales). */
typedef struct RunState {
    uint64_t seed;
    uint32_t step, sample0;
    bool check_finite;
    const char *first_bad;
    /* told of every entry of the schedule, when set: phase forward, again or backward; seconds of time_now */
    void (*watch)(void *ctx, const Node *n, const char *phase, double start, double end);
    void *watch_ctx;
} RunState;

/* keep_all: every tensor has its own memory (tests, probes). run: where inputs and kept tensors live. */
typedef struct GraphOptions {
    const Kernels *k;
    bool train, recompute, keep_all;
    Arena *run;
    size_t memory_limit;
} GraphOptions;
Graph *graph_new(const GraphOptions *o, Err *e);
void graph_free(Graph *g);
Err *graph_err(Graph *g);
/* sticky; returns false */
bool graph_error(Graph *g, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const Kernels *graph_kernels(const Graph *g);
RunState *graph_state(Graph *g);

/* Leaves. A parameter's data (and grad, when trainable) belong to the caller. */
/* data in the run arena, kept */
Tensor *graph_input(Graph *g, const char *name, DType t, int ndim, const long *dim);
/* A leaf over memory of the caller's (a KV cache), of the graph's real type. */
Tensor *graph_leaf(Graph *g, const char *name, int ndim, const long *dim, void *data);
/* registers a Params tensor */
Tensor *graph_param(Graph *g, Tensor *w);
/* nodes recorded while on have no gradients (teacher) */
void graph_scope_nograd(Graph *g, bool on);
void graph_segment(Graph *g, int segment); /* -1 = none */
Tensor *graph_record(Graph *g, const Op *op, const void *attr, int n_in, Tensor *const *in);
#define TENSORS(...)                                                                                         \
    (int)(sizeof((Tensor *[]){__VA_ARGS__}) / sizeof(Tensor *)), (Tensor *[]) { __VA_ARGS__ }
#define OP(g, o, ...) graph_record((g), &op_##o, NULL, TENSORS(__VA_ARGS__))
#define OP_ATTR(g, o, at, ...) graph_record((g), &op_##o, &(at), TENSORS(__VA_ARGS__))
bool graph_out(Node *n, int ndim, const long *dim); /* called by shape(): makes n->out */

/* Names. tap() only names a tensor; whoever finds and uses it keeps it alive. */
Tensor *graph_tap(Graph *g, Tensor *t, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
Tensor *graph_find(Graph *g, const char *name);
/* the count, whatever cap is */
int graph_taps(Graph *g, const char *glob, const char **name, Tensor **out, int cap);
void graph_keep(Graph *g, Tensor *t); /* survives the whole run (probe, generate) */
/* "student." before every name recorded from now on; returns the old */
const char *graph_prefix(Graph *g, const char *prefix);

/* total = sum of weight * value */
void graph_loss(Graph *g, Tensor *scalar, double weight, const char *label);
/* another weight from now on, between steps */
void graph_loss_weight(Graph *g, const Tensor *scalar, double weight);

/* Plan and run. */
bool graph_plan(Graph *g, Err *e);
size_t graph_step_bytes(const Graph *g);
/* the plan as text: largest tensors by name */
char *graph_memory_table(const Graph *g, Arena *a, Err *e);
char *graph_print(const Graph *g, Arena *a, Err *e); /* the schedule, one line per entry */
void graph_forward(Graph *g);                        /* weight nodes and forward, no gradients */
void graph_step_begin(Graph *g);                     /* weight nodes forward */
/* forward + backward of one micro-batch; gradients add up */
void graph_micro(Graph *g);
void graph_step_end(Graph *g);                             /* weight nodes backward */
int graph_loss_parts(Graph *g, LossPart *out, int cap);    /* of the last micro-batch */
double graph_loss_total(Graph *g);                         /* weighted sum, last micro-batch */
bool graph_check_finite(Graph *g, const char **first_bad); /* --check-finite */
const Node *const *graph_nodes(const Graph *g, int *n);

/* Parameters: all that formats/, optim/ and checkpoints see. */
typedef struct Param {
    const char *name; /* HF tensor name, verbatim */
    Tensor w;         /* data and grad in the run arena */
    int group;
    bool frozen, decay; /* decay: weight decay applies (2-D and not a score) */
    /* part of the training state, not of the model (projectors): never exported */
    bool aux;
    bool in_out;    /* files store it [in,out] (GPT-2 Conv1D); memory is [out,in] */
    bool read_only; /* frozen for good: w.data lies in a file's mapping, or is NULL and codes stand for it */
    const char *hash;    /* of values that are no longer in memory: XXH3-128, hex */
    const char *tied_to; /* shares data with this parameter: written once */
    void *m, *v;         /* moments */
} Param;
typedef struct Params {
    Param **p;
    int n, cap;
    Arena *run;
    const Kernels *k;
    Err err;
} Params;
Param *params_add(Params *ps, const char *name, int ndim, const long *dim, Err *e);
Param *params_find(const Params *ps, const char *name);
bool params_alloc_grads(Params *ps, Err *e); /* for every unfrozen parameter */
int64_t params_count(const Params *ps, bool trainable_only);

/* ---- weight.c: a weight in the type it is kept in: the graph's, or bfloat16 (frozen, forward only) ---- */
bool weight_is_half(const Tensor *w);
size_t weight_room(const Kernels *k, const Tensor *w); /* bytes of scratch that weight_nt wants; 0 = none */
/* y (M,N) = x (M,K) W^T;   y (n,C) = W[ids] */
void weight_nt(const Kernels *k, void *y, const void *x, const Tensor *w, long M, void *room);
void weight_rows(const Kernels *k, void *y, const Tensor *w, const int32_t *ids, long n);

/* The ops' own small structs. */
typedef struct AxpyAttr {
    double alpha;
} AxpyAttr; /* y = alpha a + b */
typedef struct AffineAttr {
    double alpha, beta;
} AffineAttr; /* y = alpha x + beta */
typedef struct SoftcapAttr {
    double cap;
} SoftcapAttr;
typedef struct GeluAttr {
    bool tanh_form;
} GeluAttr;
typedef struct NormAttr {
    double eps;
} NormAttr;
typedef struct RopeAttr {
    long n_head, D, D_rot;
    bool interleaved;
    double mscale;
    const double *inv_freq;
} RopeAttr;
/* first column of q, k, v in their rows */
typedef struct AttentionAttr {
    long n_head, n_kv_head, D;
    long q_at, k_at, v_at;
    double scale, softcap;
    long window;
    bool causal;
    double dropout; /* of the probabilities */
    uint32_t stream;
} AttentionAttr;
typedef struct DropoutAttr {
    double p;
    uint32_t stream;
} DropoutAttr;
typedef struct SliceAttr {
    long at, width;
} SliceAttr;
/* chunk: rows of logits alive at a time. kd_report: factor of the reported loss/kd (T^2 when it is scaled so;
 * 0 = 1). top_k: the teacher's largest that count, 0 = all; renormalize: without the others, else with them
 * as one class. weight, cap: share and soft-cap of each of several teachers, whose probabilities at T are
 * averaged. cached: no teacher heads; in[3] ids (N,k), in[4] log-probabilities (N,k), in[5] log mass of the
 * others at T (N). */
typedef struct LmLossAttr {
    LossAttr a;
    long chunk;
    double kd_report;
    long top_k;
    bool renormalize, cached;
    double weight[MAX_TEACHER], cap[MAX_TEACHER];
} LmLossAttr;
/* Attention-like matrices of student and teacher, head by head (op_relation.c): group g of a side reads the
 * columns [a_at + g width, ...) of its first tensor and of its second the columns of key head (g per + i) /
 * repeat. */
typedef enum { RELATION_KL, RELATION_SCORES } RelationKind;
typedef struct RelationSide {
    long heads, kv_heads, D; /* of the two tensors: widths heads D and kv_heads D */
    double scale;
} RelationSide;
typedef struct RelationAttr {
    RelationKind kind;
    RelationSide student, teacher;
    long window; /* keys a position sees, 0 = all before it */
} RelationAttr;
/* What a quantiser remembers from step to step; its owner is compress/qat.c. */
typedef struct FakeQuantState {
    bool on;       /* acts; else y = x */
    bool keep;     /* q's scales are the ones to use; else every forward finds its own */
    QuantScales q; /* scales that outlive a step; scale NULL: none */
    float *amax;   /* (R,G): largest magnitudes of this step's forwards, or NULL */
} FakeQuantState;
/* x (...,C) as a matrix of rows. state NULL: always on, scales found at every forward. */
typedef struct FakeQuantAttr {
    QuantSpec spec;
    FakeQuantState *state;
    bool random;     /* training rounds up or down at random, keyed by stream; else to the nearest */
    uint32_t stream; /* of the draws */
} FakeQuantAttr;
/* A frozen matrix (rows,cols) kept as codes and scales, decoded a few rows at a time. */
typedef struct QuantStore {
    QuantSpec spec;
    QuantScales scales;
    const uint8_t *codes; /* (rows, quant_row_bytes) */
    long rows, cols;
} QuantStore;
/* rows decoded at a time; rows of x from which that beats reading the codes once for each few of them */
enum { STORE_TILE = 128, CODED_ROWS = 8 };
typedef struct LinearQAttr {
    const QuantStore *w;
} LinearQAttr;
typedef struct LoraWeightAttr {
    double scale;
} LoraWeightAttr;
typedef struct DoraScaleAttr {
    double scale;
    const QuantStore *w; /* instead of in[0] */
} DoraScaleAttr;
typedef struct ScaleByAttr {
    bool rows; /* one factor per row, else per column */
} ScaleByAttr;
/* A mask: its owner is compress/mask.c, which moves it between steps. keep (numel of w): bytes of 0 and 1. */
typedef struct MaskState {
    const uint8_t *keep;
    bool dense;     /* gradients as if every entry were kept (scores of entries that may come back) */
    double *anchor; /* (numel) forward leaves the scores here, for topk_mask's surrogate; NULL: not asked */
} MaskState;
typedef struct MaskAttr {
    const MaskState *state;
} MaskAttr;
enum { LM_CE, LM_KD, LM_ENTROPY, LM_COUNT, LM_SUMS }; /* stat of lm_loss: sums in double */

extern const Op *const all_ops[];
extern const int n_all_ops;
#define OPDEF(name, out, grad) extern const Op op_##name;
#include "autograd/ops.def"
#undef OPDEF
#endif
