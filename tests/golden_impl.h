/* tests/golden_impl.h: PyTorch's values of an op (tests/golden/make_ops.py) against ours, forward and
 * gradients.
 *
 *   Golden f;  golden_open(&f, "tests/golden/ops.safetensors");
 *   for (int i = 0; i < f.n; i++) golden_op(&f, f.name[i], op, kernels_ref_f64());     // or fails the test
 *   golden_close(&f);
 *
 * A new op whose attributes are not all zero gets one function here that reads them from the case's metadata.
 */
#ifndef GOLDEN_IMPL_H
#define GOLDEN_IMPL_H
#include "formats/formats.h"
#include "tests/ops_impl.h"
#include <jansson.h>
#include <stdio.h>

enum { GOLDEN_MAX = 512 };
typedef struct Golden {
    Arena a;
    Err e;
    TensorFile f;
    json_t *meta;
    int n;
    const char *name[GOLDEN_MAX]; /* every case: linear.odd, adamw.decay, ... */
} Golden;

static inline void golden_open(Golden *f, const char *path)
{
    *f = (Golden){.a = {.name = "golden"}};
    if (!formats_open(&f->f, path, &f->a, &f->e)) test_fail(__FILE__, __LINE__, "%s", f->e.msg);
    f->meta = json_loads(f->f.metadata_json, 0, NULL);
    ASSERT(f->meta != NULL);
    const char *key;
    json_t *v;
    json_object_foreach(f->meta, key, v)
    {
        if (!strchr(key, '.')) continue; /* generator, seed, torch */
        ASSERT(f->n < GOLDEN_MAX);
        f->name[f->n++] = key;
    }
}

static inline void golden_close(Golden *f)
{
    json_decref(f->meta);
    formats_close(&f->f);
    arena_free(&f->a);
}

/* The case belongs to this op: its name is OP.KEY. */
static inline bool golden_is(const char *name, const char *op)
{
    size_t n = strlen(op);
    return !strncmp(name, op, n) && name[n] == '.';
}

/* NULL where the case has no such tensor. */
static inline const FileTensor *golden_find(const Golden *f, const char *name, const char *part)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", name, part);
    return formats_find(&f->f, key);
}

static inline long golden_numel(const FileTensor *t)
{
    long n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (long)t->dim[i];
    return n;
}

/* The float64 values, in place; fails the test when there are none or not n of them (n < 0: any number). */
static inline const double *golden_f64(const Golden *f, const char *name, const char *part, long n)
{
    const FileTensor *t = golden_find(f, name, part);
    if (!t || t->dtype != DT_F64 || (n >= 0 && golden_numel(t) != n))
        test_fail(__FILE__, __LINE__, "%s.%s is not %ld float64 numbers", name, part, n);
    double *v = arena_alloc((Arena *)(uintptr_t)&f->a, t->bytes + 1, (Err *)(uintptr_t)&f->e);
    ASSERT(v != NULL);
    memcpy(v, t->data, t->bytes);
    return v;
}

/* Attributes of a case, a JSON object in the file's metadata. */
static inline json_t *golden_attr(const Golden *f, const char *name)
{
    json_t *o = json_loads(json_string_value(json_object_get(f->meta, name)), 0, NULL);
    ASSERT(o != NULL);
    return o;
}
static inline double num(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!v) test_fail(__FILE__, __LINE__, "no attribute %s", key);
    return json_is_true(v) ? 1 : json_is_number(v) ? json_number_value(v) : 0;
}

static inline double num_or(const json_t *o, const char *key, double other)
{
    return json_object_get(o, key) ? num(o, key) : other;
}

typedef union GoldenAttr {
    RelationAttr relation;
    AxpyAttr axpy;
    AffineAttr affine;
    SoftcapAttr softcap;
    GeluAttr gelu;
    NormAttr norm;
    RopeAttr rope;
    AttentionAttr attention;
    DropoutAttr dropout;
    SliceAttr slice;
    LmLossAttr lm_loss;
    FakeQuantAttr fakequant;
    LinearQAttr linear_q;
    LoraWeightAttr lora_weight;
    DoraScaleAttr dora_scale;
    ScaleByAttr scale_by;
    MaskAttr mask;
} GoldenAttr;
typedef struct GoldenCase {
    const Golden *f;
    const char *name;
    json_t *at;
    GoldenAttr u;
    RunState state;
    FakeQuantState scales; /* that stand still, if there are any */
} GoldenCase;

static inline void attr_axpy(GoldenCase *c) { c->u.axpy = (AxpyAttr){num(c->at, "alpha")}; }
static inline void attr_affine(GoldenCase *c)
{
    c->u.affine = (AffineAttr){num(c->at, "alpha"), num(c->at, "beta")};
}
static inline void attr_softcap(GoldenCase *c) { c->u.softcap = (SoftcapAttr){num(c->at, "cap")}; }
static inline void attr_gelu(GoldenCase *c) { c->u.gelu = (GeluAttr){num(c->at, "tanh_form") > 0}; }
static inline void attr_norm(GoldenCase *c) { c->u.norm = (NormAttr){num(c->at, "eps")}; }
/* keep of the case's at most 256 weights: every period-th is out. */
static inline void attr_mask(GoldenCase *c)
{
    static uint8_t keep[256];
    static double anchor[256];
    static const MaskState state = {.keep = keep, .anchor = anchor};
    const long period = (long)num(c->at, "period");
    for (long i = 0; i < 256; i++) keep[i] = (uint8_t)(i % period != 0);
    c->u.mask = (MaskAttr){&state};
}
static inline void attr_slice(GoldenCase *c)
{
    c->u.slice = (SliceAttr){(long)num(c->at, "at"), (long)num(c->at, "width")};
}
static inline void attr_rope(GoldenCase *c)
{
    c->u.rope = (RopeAttr){.n_head = (long)num(c->at, "n_head"),
                           .D = (long)num(c->at, "head_dim"),
                           .D_rot = (long)num(c->at, "d_rot"),
                           .interleaved = num(c->at, "interleaved") > 0,
                           .mscale = num(c->at, "mscale"),
                           .inv_freq = golden_f64(c->f, c->name, "inv_freq", -1)};
}
static inline void attr_attention(GoldenCase *c)
{
    c->u.attention = (AttentionAttr){.n_head = (long)num(c->at, "n_head"),
                                     .n_kv_head = (long)num(c->at, "n_kv_head"),
                                     .D = (long)num(c->at, "head_dim"),
                                     .scale = num(c->at, "scale"),
                                     .softcap = num(c->at, "softcap"),
                                     .window = (long)num(c->at, "window"),
                                     .causal = num(c->at, "causal") > 0};
}
static inline void attr_dropout(GoldenCase *c)
{
    c->u.dropout = (DropoutAttr){num(c->at, "p"), (uint32_t)num(c->at, "stream")};
    c->state = (RunState){.seed = (uint64_t)json_integer_value(json_object_get(c->at, "seed")),
                          .step = (uint32_t)num(c->at, "step"),
                          .sample0 = (uint32_t)num(c->at, "sample0")};
}
static inline void attr_lm_loss(GoldenCase *c)
{
    c->u.lm_loss = (LmLossAttr){.a = {.ce_weight = num(c->at, "ce_weight"),
                                      .kd_weight = num(c->at, "kd_weight"),
                                      .temperature = num(c->at, "temperature"),
                                      .label_smoothing = num(c->at, "label_smoothing"),
                                      .z_loss = num(c->at, "z_loss"),
                                      .softcap = num(c->at, "softcap"),
                                      .teacher_softcap = num(c->at, "teacher_softcap"),
                                      .kind = (int)num_or(c->at, "kind", 0),
                                      .mix = num_or(c->at, "mix", 0)},
                                .top_k = (long)num_or(c->at, "top_k", 0),
                                .renormalize = num_or(c->at, "renormalize", 0) > 0};
    const json_t *w = json_object_get(c->at, "weights"), *caps = json_object_get(c->at, "caps");
    for (size_t i = 0; i < json_array_size(w); i++) {
        c->u.lm_loss.weight[i] = json_number_value(json_array_get(w, i));
        c->u.lm_loss.cap[i] = json_number_value(json_array_get(caps, i));
    }
}
static inline void attr_relation(GoldenCase *c)
{
    c->u.relation = (RelationAttr){.kind = num(c->at, "kind") > 0 ? RELATION_SCORES : RELATION_KL,
                                   .student = {(long)num(c->at, "heads"), (long)num(c->at, "kv_heads"),
                                               (long)num(c->at, "D"), num(c->at, "scale")},
                                   .teacher = {(long)num(c->at, "t_heads"), (long)num(c->at, "t_kv_heads"),
                                               (long)num(c->at, "t_D"), num(c->at, "t_scale")},
                                   .window = (long)num(c->at, "window")};
}

static inline float *golden_f32(const GoldenCase *c, const char *part, long *n)
{
    const FileTensor *t = golden_find(c->f, c->name, part);
    if (!t) return NULL;
    *n = golden_numel(t);
    const double *v = golden_f64(c->f, c->name, part, *n);
    float *x = arena_alloc((Arena *)(uintptr_t)&c->f->a, (size_t)*n * sizeof *x, (Err *)(uintptr_t)&c->f->e);
    for (long i = 0; i < *n; i++) x[i] = (float)v[i];
    return x;
}
static inline void attr_fakequant(GoldenCase *c)
{
    const char *rule = json_string_value(json_object_get(c->at, "rule"));
    long n = 0;
    c->u.fakequant = (FakeQuantAttr){
        .spec = {.f = quant_format(json_string_value(json_object_get(c->at, "format"))),
                 .block_rows = (long)num(c->at, "block_rows"),
                 .block_cols = (long)num(c->at, "block_cols"),
                 .asymmetric = num(c->at, "asymmetric") > 0,
                 .double_quant = num(c->at, "double_quant") > 0,
                 .rule = strcmp(rule, "ceil") ? MX_FLOOR : MX_CEIL}};
    float *scale = golden_f32(c, "scale", &n);
    if (!scale) return;
    const QuantSpec *s = &c->u.fakequant.spec;
    const FileTensor *x = golden_find(c->f, c->name, "in0");
    const long cols = (long)x->dim[x->ndim - 1];
    c->scales = (FakeQuantState){.on = true, .keep = true};
    c->scales.q = (QuantScales){.R = quant_rows(s, golden_numel(x) / cols),
                                .G = quant_groups(s, cols),
                                .scale = scale,
                                .zero = golden_f32(c, "zero", &n),
                                .tensor = 1};
    ASSERT_EQ(c->scales.q.R * c->scales.q.G, n);
    c->u.fakequant.state = &c->scales;
}
static inline void attr_lora_weight(GoldenCase *c)
{
    c->u.lora_weight = (LoraWeightAttr){num(c->at, "scale")};
}
static inline void attr_dora_scale(GoldenCase *c)
{
    c->u.dora_scale = (DoraScaleAttr){num(c->at, "scale"), NULL};
}
static inline void attr_scale_by(GoldenCase *c) { c->u.scale_by = (ScaleByAttr){num(c->at, "rows") > 0}; }
/* Extra tensor w: what int8 rows with scales of a power of two decode to, so that encoding finds it again. */
static inline void attr_linear_q(GoldenCase *c)
{
    const FileTensor *t = golden_find(c->f, c->name, "w");
    long n = 0;
    Arena *a = (Arena *)(uintptr_t)&c->f->a;
    Err *e = (Err *)(uintptr_t)&c->f->e;
    const float *w = golden_f32(c, "w", &n);
    QuantStore *q = arena_alloc(a, sizeof *q, e);
    *q = (QuantStore){.spec = {.f = &quant_formats[QUANT_int8], .block_rows = 1},
                      .rows = (long)t->dim[0],
                      .cols = (long)t->dim[1]};
    uint8_t *codes = arena_alloc(a, (size_t)n, e);
    ASSERT(quant_scales_alloc(&q->scales, &q->spec, q->rows, q->cols, a, e));
    quant_scales(&q->scales, &q->spec, w, q->rows, q->cols);
    quant_encode(codes, w, &q->spec, &q->scales, q->cols, 0, q->rows);
    q->codes = codes;
    c->u.linear_q = (LinearQAttr){q};
}

/* How a case's attributes are read; an op whose attributes are all zero needs no reader. */
static const struct GoldenReader {
    const char *op;
    void (*attr)(GoldenCase *c);
} golden_readers[] = {
    {"affine", attr_affine},
    {"softcap", attr_softcap},
    {"axpy", attr_axpy},
    {"gelu", attr_gelu},
    {"layernorm", attr_norm},
    {"rmsnorm", attr_norm},
    {"rope", attr_rope},
    {"attention", attr_attention},
    {"dropout", attr_dropout},
    {"slice", attr_slice},
    {"mask", attr_mask},
    {"topk_mask", attr_mask},
    {"lm_loss", attr_lm_loss},
    {"relation", attr_relation},
    {"linear_q", attr_linear_q},
    {"lora_weight", attr_lora_weight},
    {"dora_scale", attr_dora_scale},
    {"scale_by", attr_scale_by},
    {"fakequant", attr_fakequant},
    {"fakequant_clip", attr_fakequant},
    {"fakequant_step", attr_fakequant},
    {"fakegrad", attr_fakequant},
};

/* Tolerances for float32 (forward, gradients): ops.def's, and of cases that are harder than their op. */
typedef struct GoldenTol {
    const char *name;
    double out, grad;
} GoldenTol;
static const GoldenTol golden_tols[] = {
    /* width 1: dx is 0 by cancellation, and its rounding is multiplied by rstd = 316 and 1000 */
    {"layernorm.one", 5e-7, 1e-4},
    {"layernorm.one_nobias", 5e-7, 2e-3},
    {"attention.sharp", 1e-6, 4e-6}, /* scores of +-60: their own rounding is 4e-6 */
#define OPDEF(op, out, grad) {#op, out, grad},
#include "autograd/ops.def"
#ifdef MORE_OPS /* a list of ops that are not in the registry */
#include MORE_OPS
#endif
#undef OPDEF
};

typedef struct GoldenOp {
    void (*attr)(GoldenCase *c);
    double out, grad;
} GoldenOp;
static inline GoldenOp golden_spec(const Op *op, const char *name)
{
    GoldenOp s = {NULL, 0, 0};
    for (size_t i = 0; i < sizeof golden_readers / sizeof *golden_readers; i++)
        if (!strcmp(golden_readers[i].op, op->name)) s.attr = golden_readers[i].attr;
    if (op->attr_size && !s.attr)
        test_fail(__FILE__, __LINE__, "%s: say in tests/golden_impl.h how its attributes are read", op->name);
    for (size_t i = 0; i < sizeof golden_tols / sizeof *golden_tols; i++) {
        const GoldenTol *t = &golden_tols[i];
        if (strcmp(t->name, name) && strcmp(t->name, op->name)) continue;
        s.out = t->out;
        s.grad = t->grad;
        return s;
    }
    test_fail(__FILE__, __LINE__, "%s: no tolerance in autograd/ops.def", op->name);
}

/* ||have - want|| against tol ||want||; a want that is all rounding is measured against 0.1 per element. */
static inline void golden_close_to(const Bench *b, const char *name, const char *what, const void *have,
                                   const double *want, long n, double tol)
{
    double diff = 0, norm = 0;
    for (long i = 0; i < n; i++) {
        double d = real_get(have, i, b->k) - want[i];
        diff += d * d;
        norm += want[i] * want[i];
    }
    if (b->k->real == sizeof(double)) tol = 1e-12;
    if (!(sqrt(diff) <= tol * fmax(sqrt(norm), 0.1 * sqrt((double)n))))
        test_fail(__FILE__, __LINE__, "%s on %s: %s is off by %.3g of %.3g (%.3g, %.3g allowed)", name,
                  b->k->name, what, sqrt(diff), sqrt(norm), sqrt(diff / norm), tol);
}

/* Leaf j of the op; heads of rope and attention lie in one row. */
static inline Tensor *golden_leaf(Bench *b, const Golden *f, const char *name, int j, bool heads)
{
    char part[16];
    snprintf(part, sizeof part, "in%d", j);
    const FileTensor *t = golden_find(f, name, part);
    if (!t) return NULL;
    long dim[MAX_DIM] = {1};
    int nd = t->ndim;
    for (int i = 0; i < nd; i++) dim[i] = (long)t->dim[i];
    bool ints = t->dtype == DT_I32;
    if (heads && !ints) {
        nd--;
        dim[nd - 1] *= dim[nd];
    }
    Tensor *x = graph_input(b->g, part, ints ? DT_I32 : DT_F64, nd, dim);
    ASSERT(x != NULL);
    if (ints) memcpy(x->data, t->data, t->bytes);
    else {
        const double *v = golden_f64(f, name, part, t_numel(x));
        for (long i = 0; i < t_numel(x); i++) real_put(x->data, i, v[i], b->k);
    }
    snprintf(part, sizeof part, "grad%d", j);
    b->wants[j] = golden_find(f, name, part) != NULL;
    if (b->wants[j]) x->flags &= ~(unsigned)T_NOGRAD;
    return x;
}

/* Attention takes one list of segments and the cache's fill, not q's segments and offset. False: a case of
 * the kernel that the op cannot be asked (rows that see no key). */
static inline bool golden_attention(Bench *b, const GoldenCase *c)
{
    long off = (long)num(c->at, "q_offset"), Tq = b->in[0]->dim[1], Tkv = b->in[1]->dim[1];
    const FileTensor *q = golden_find(c->f, c->name, "in3"), *kv = golden_find(c->f, c->name, "in4");
    b->in[3] = b->in[4] = NULL;
    if ((off && off + Tq != Tkv) || (q && off)) return false;
    if (q && memcmp(q->data, kv->data, q->bytes)) return false;
    if (q) b->in[3] = golden_leaf(b, c->f, c->name, 3, false);
    if (!off) return true;
    b->in[4] = graph_input(b->g, "past", DT_I32, 1, (long[]){1});
    *(int32_t *)b->in[4]->data = (int32_t)off;
    return true;
}

static inline void golden_grads(Bench *b, const GoldenCase *c, double tol)
{
    for (int j = 0; j < b->node->op->n_in; j++) {
        char part[16];
        snprintf(part, sizeof part, "grad%d", j);
        if (!b->wants[j]) continue;
        long n = t_numel(b->in[j]);
        golden_close_to(b, c->name, part, b->in[j]->grad, golden_f64(c->f, c->name, part, n), n, tol);
    }
}

/* A loss: its value, and for lm_loss the sums and the losses per token. */
static inline void golden_loss(Bench *b, const GoldenCase *c, const GoldenOp *s)
{
    double v = b->node->op->value(b->node), want = golden_f64(c->f, c->name, "out", 1)[0];
    double tol = b->k->real == sizeof(double) ? 1e-12 : s->out;
    if (!(fabs(v - want) <= tol * fmax(fabs(want), 1)))
        test_fail(__FILE__, __LINE__, "%s on %s: the loss is %.12g, not %.12g", c->name, b->k->name, v, want);
    if (!golden_find(c->f, c->name, "nll")) return;
    long n = t_numel(b->node->out);
    golden_close_to(b, c->name, "nll", b->node->out->data, golden_f64(c->f, c->name, "nll", n), n, s->out);
    const double *sums = b->node->stat, *parts = golden_f64(c->f, c->name, "parts", LM_SUMS);
    for (int i = 0; i < LM_SUMS; i++)
        if (!(fabs(sums[i] - parts[i]) <= tol * fmax(fabs(parts[i]), 1)))
            test_fail(__FILE__, __LINE__, "%s on %s: sum %d is %.12g, not %.12g", c->name, b->k->name, i,
                      sums[i], parts[i]);
}

/* One case through the op: what PyTorch computed, forward and gradients. Returns whether the op can be
 * asked it. */
static inline bool golden_op(const Golden *f, const char *name, const Op *op, const Kernels *k)
{
    const GoldenOp s = golden_spec(op, name);
    GoldenCase c = {.f = f, .name = name, .at = golden_attr(f, name)};
    Bench b = {.a = {.name = "bench"}, .k = k};
    bool heads = !strcmp(op->name, "rope") || !strcmp(op->name, "attention"), can = true;
    if (s.attr) s.attr(&c);
    b.g = graph_new(&(GraphOptions){.k = k, .train = true, .run = &b.a}, &b.e);
    for (int j = 0; j < op->n_in; j++) b.in[j] = golden_leaf(&b, f, name, j, heads);
    if (num_or(c.at, "same", 0) > 0) b.in[1] = b.in[0]; /* one tensor twice */
    if (!strcmp(op->name, "attention")) can = golden_attention(&b, &c);
    if (can) {
        bench_record(&b, op, &c.u, name);
        *graph_state(b.g) = c.state;
        Tensor *out = b.node->out;
        bool loss = op->flags & OP_LOSS;
        const double *dout = golden_f64(f, name, "dout", loss ? 1 : t_numel(out));
        if (loss) b.node->loss_weight = dout[0];
        for (long i = 0; !loss && i < t_numel(out); i++) real_put(out->grad, i, dout[i], k);
        bench_forward(&b);
        if (loss) golden_loss(&b, &c, &s);
        else
            golden_close_to(&b, name, "out", out->data, golden_f64(f, name, "out", t_numel(out)),
                            t_numel(out), s.out);
        if (op->backward) {
            bench_backward(&b);
            golden_grads(&b, &c, s.grad);
        }
    }
    json_decref(c.at);
    bench_close(&b);
    return can;
}
#endif
