/* compress/compress.h: floor 5. What makes a model smaller or teaches it: distillation, quantisation-aware
 * training, quantisation, masks, adapters. Methods hang attachments on sites and loss terms on taps before a
 * graph is recorded.
 *
 *   Distill d;  distill_open(&d, &config->distill, doc, &student, &teacher, seed, &e);
 *   Qat q;      qat_open(&q, &config->qat, &student, doc, &e);
 *   ... record teacher and student ...
 *   distill_features(&d, g, targets, seg, &e); */
#ifndef COMPRESS_H
#define COMPRESS_H
#include "core/config.h"
#include "model/model.h"
#include "optim/optim.h"

typedef struct FeatureConfig {
#include "core/config_fields.h"
#include "compress/feature.def"
#include "core/config_undef.h"
} FeatureConfig;
typedef struct DistillConfig {
#include "core/config_fields.h"
#include "compress/distill.def"
#include "core/config_undef.h"
} DistillConfig;
typedef struct LoraConfig {
#include "core/config_fields.h"
#include "compress/lora.def"
#include "core/config_undef.h"
} LoraConfig;
typedef struct CalibrationConfig {
#include "core/config_fields.h"
#include "compress/calibration.def"
#include "core/config_undef.h"
} CalibrationConfig;
typedef struct PruneConfig {
#include "core/config_fields.h"
#include "compress/prune.def"
#include "core/config_undef.h"
} PruneConfig;
typedef struct QatRuleConfig {
#include "core/config_fields.h"
#include "compress/qat_rule.def"
#include "core/config_undef.h"
} QatRuleConfig;
typedef struct QatConfig {
#include "core/config_fields.h"
#include "compress/qat.def"
#include "core/config_undef.h"
} QatConfig;
typedef struct QuantizeRuleConfig {
#include "core/config_fields.h"
#include "compress/quantize_rule.def"
#include "core/config_undef.h"
} QuantizeRuleConfig;
typedef struct QuantizeConfig {
#include "core/config_fields.h"
#include "compress/quantize.def"
#include "core/config_undef.h"
} QuantizeConfig;
const ConfigSection *feature_section(void);
const ConfigSection *distill_section(void);
const ConfigSection *lora_section(void);
const ConfigSection *calibration_section(void);
const ConfigSection *prune_section(void);
const ConfigSection *qat_rule_section(void);
const ConfigSection *qat_section(void);
const ConfigSection *quantize_rule_section(void);
const ConfigSection *quantize_section(void);

/* ---- distill.c, distill_features.c: the distillation terms, as loss nodes and taps; the model knows
 * nothing of them --- */
/* A tap of the graph, or columns [at, at + width) of it. */
typedef struct TapPart {
    const char *tap;
    bool cut;
    long at, width;
} TapPart;
typedef struct FeatureTerm {
    const char *hook[2], *label; /* of student, teacher */
    TapPart part[2][2];          /* student, teacher: rows, or the two sides of a matrix */
    bool cosine, l1, normalize, is_relation;
    RelationAttr relation;
    double weight;
    Param *projector;
    Tensor *loss; /* once recorded */
} FeatureTerm;
typedef struct Distill {
    const DistillConfig *c;
    int n;
    FeatureTerm *term;
    Param *balance; /* balance: match_kd; else NULL */
    Tensor *lm;     /* the language-model loss, set by who records it */
    size_t real;
} Distill;
/* Feature terms of the config: templates expanded by layer_map (algorithms 5.2), layers checked against both
 * models, projectors (d_T,d_S) added to the student's parameters as aux. Call before gradients are allocated.
 * doc: for places in messages, may be NULL. */
bool distill_open(Distill *d, const DistillConfig *c, Model *student, const Model *teacher, uint64_t seed,
                  const ConfigDoc *doc, Err *e);
/* What the language-model loss is made of: ce_weight CE + alpha (T^2) D, at step 0. */
LmLossAttr distill_loss(const DistillConfig *c, double label_smoothing, double z_loss);
/* T of a step: temperature, or the schedule's, linear between its points and flat beyond. */
double distill_temperature(const DistillConfig *c, int64_t step);
/* Adds the feature losses over taps `student.*` and `teacher.*` of the recorded graph, before any other loss.
 * targets seg: int32 (B,T), seg may be NULL. */
bool distill_features(Distill *d, Graph *g, Tensor *targets, Tensor *seg, Err *e);
/* Around optimizer step 0, 1, ...: temperature and weights; what was measured of it (parts summed over
 * targets). With balance: match_kd the first step is measured before it counts: wants_measure, one
 * micro-batch, after. */
void distill_before(const Distill *d, Graph *g, int64_t step);
bool distill_wants_measure(const Distill *d);
void distill_after(const Distill *d, Graph *g, const LossPart *part, int n, double targets);

/* ---- quant_spec.c: number formats from config words, tensors by glob ----------------------------------- */
typedef struct QuantWords {
    const char *format, *granularity, *scale_rounding;
    int64_t group_size; /* 0 = by format, -1 = a whole row */
    bool symmetric, full, double_quant, search, activation;
} QuantWords;
/* where: what the message starts with ("qat"). Granularity auto: product.md 4. */
bool quant_spec(QuantSpec *s, const QuantWords *w, const char *where, Err *e);
/* "embed_tokens", "lm_head", "norms", or "linear" of a tensor's name and rank. */
const char *tensor_class(const char *name, int ndim);
/* A glob over the name, the name without .weight, or a class word. */
bool tensor_match(const char *glob, const char *name, int ndim);
/* Refuses globs (class words aside) that match none of the names, telling the nearest. key: "qat.include". */
bool globs_check(const ConfigStrs *globs, const char *key, const char *const *name, int n, Err *e);

/* ---- quantize.c: rounding to nearest, a file to a file ------------------------------------------------- */
typedef struct QuantizeRow {
    const char *name;
    const QuantFormat *format;
    int64_t parameters, bytes;      /* stored, scales included */
    double mse, sqnr_db, max_error; /* of the decoded tensor */
} QuantizeRow;
typedef struct QuantizeReport {
    int n;
    QuantizeRow *row;
    int64_t bytes_before, bytes_after; /* of all tensors */
} QuantizeReport;
/* IN: any model or bag of tensors; OUT by suffix: .h5, .safetensors, else a Hugging Face folder. What is
 * written is read back: every decoded tensor equals its fake-quantised self bit for bit, or ERR_FAIL. dry:
 * nothing is written. */
bool quantize_file(const char *in, const char *out, const QuantizeConfig *c, bool dry, QuantizeReport *r,
                   Arena *a, Err *e);
/* Refuses an OUT whose suffix names a format that can hold neither codes nor masks. */
bool quantize_holds(const char *out, Err *e);

/* ---- calibration.c: rows of text that scores are measured on
 * -------------------------------------------- */
typedef struct Calibration {
    /* Row i, 0..rows-1, into ids, targets (-100 ignored), pos, seg (T,); seg may be NULL. Returns its
     * length. */
    long (*row)(const void *ctx, int64_t i, int32_t *ids, int32_t *targets, int32_t *pos, int32_t *seg);
    const void *ctx;
    long T;
    int64_t rows, batches; /* batches: rows that make one gradient are rows / batches */
    bool segments;
} Calibration;
/* Consecutive windows of c->data, BOS in front of each where the tokenizer has one (protocol val). key:
 * "prune". */
bool calibration_open(Calibration *cal, const CalibrationConfig *c, const DataConfig *d, const Tokenizer *tk,
                      const Model *m, const char *key, Arena *a, Err *e);

/* ---- bag.c: a file of tensors without a config, as a model of nothing but sites ------------------ */
/* Every float matrix of f is a parameter and a site of its own name; there is no graph of them. */
bool bag_open(Model *m, const TensorFile *f, const Kernels *k, Arena *run, Err *e);
/* All tensors of f in their types; the matrices as model_out gives them. */
bool bag_out(const Model *m, const TensorFile *f, OutModel *out, Arena *a, Err *e);

/* ---- mask.c: masks on sites, from step to step
 * ----------------------------------------------------------- */
typedef struct PruneItem {
    const char *name; /* of the weight: model.layers.0.mlp.up_proj.weight */
    Site *site;       /* a table that is no head: one of its own, outside the model's */
    TensorHook hook;  /* of a table */
    long rows, cols;
    uint8_t *keep; /* (rows,cols) 1 = kept */
    MaskState state;
    Param *score;  /* movement: (rows,cols), aux, prune.<name>.scores */
    double limit;  /* lowest score kept, NAN = not known */
    int64_t moved; /* step of the last mask */
} PruneItem;
typedef struct Prune {
    const PruneConfig *c;
    Model *m;
    uint64_t seed;
    int n;
    PruneItem *item;
    int64_t begin, end, every, done; /* done: step of the last update, -1 = none */
    bool oneshot, cubic, global, movement, soft;
    bool hidden; /* masked weights still have values, which may come back */
    bool again;  /* a stage that prunes further; else masks of the stage before stand */
} Prune;
/* Masks (all kept) on the sites and tables that the section names (a tied head goes with its table), in front
 * of what hangs there already. Call before qat_open and before gradients are allocated. doc: for places in
 * messages, may be NULL. */
bool prune_open(Prune *p, const PruneConfig *c, Model *m, uint64_t seed, const ConfigDoc *doc, Err *e);
/* The schedule in steps. Once, when the length of the run is known. */
bool prune_steps(Prune *p, int64_t n_steps, const ConfigDoc *doc, Err *e);
/* With `step` steps done: new masks if the schedule says so (*moved), once per step. cal may be NULL where no
 * data is needed. Errors: no data, NaN scores. */
bool prune_update(Prune *p, int64_t step, const Calibration *cal, bool *moved, Err *e);
bool prune_needs_data(const PruneConfig *c);       /* snip, taylor, wanda, sparsegpt */
double prune_target(const Prune *p, int64_t step); /* the schedule: share of zeros (soft: the threshold) */
double prune_sparsity(const Prune *p);             /* masked entries over all entries of masked tensors */
/* soft_movement: adds `targets` times the regulariser's gradient to the scores' and returns its value (times
 * targets). */
double prune_regularise(Prune *p, int64_t step, double targets);
/* /masks and /prune of a checkpoint; masked weights that still have values: prune_effective gives what
 * /tensors holds. */
void prune_save(const Prune *p, H5Out *h, Arena *a, Err *e);
bool prune_load(Prune *p, H5In *h, Arena *a, Err *e);
/* The masks another stage has left, where the file has any: they stand, or are where p->again goes on
 * from. */
bool prune_carry(Prune *p, H5In *h, Arena *a, Err *e);
/* (rows,cols) of the graph's type, or NULL: the parameter's own values are effective. */
const void *prune_effective(const Prune *p, const Param *w, Arena *a, Err *e);
/* A file of kind masks. */
bool prune_write_masks(const Prune *p, const char *path, Arena *a, Err *e);

/* ---- mask_pack.c: masked tensors as bitmap or 2:4 where that is smaller
 * ---------------------------------- */
bool prune_pack(const Prune *p, OutModel *out, Arena *a, Err *e);
typedef struct PruneCount {
    int64_t entries, zeros;
} PruneCount;
/* Reads path back: masked tensors are as effective says, bit for bit (plain ones after rounding to their
 * type; those of another encoding: by their zeros), or ERR_FAIL. Counts their zeros in the file. */
bool prune_verify(const Prune *p, const char *path, const OutModel *effective, PruneCount *count, Err *e);

/* ---- qat.c: quantisers on sites, in training
 * ------------------------------------------------------------ */
/* One quantiser: of a site's weight, its input, or the gradient of its output. */
typedef struct QatItem {
    const char *name; /* model.layers.0.mlp.up_proj.weight, and .input or .grad behind it */
    Site *site;       /* NULL: a table that is no head either */
    Param *w;         /* of a weight */
    TensorHook hook;  /* of a table */
    FakeQuantAttr attr;
    FakeQuantState own, *state; /* state: own, or another item's where both only wait for the same step */
    const Op *op;
    Param *step; /* learned step sizes (R,G), aux */
    bool delayed;
    int64_t start, freeze, history, seen;
    float *ring; /* (history, R G): amax of the last steps */
} QatItem;
typedef struct Qat {
    const QatConfig *c;
    int n, cap;
    QatItem *item;
} Qat;
/* Quantisers on the sites that the section names, behind what hangs there already (a mask), and on the tables
 * if it wants them. Call before gradients are allocated. doc: for places in messages, may be NULL. */
bool qat_open(Qat *q, const QatConfig *c, Model *m, const ConfigDoc *doc, Err *e);
/* Around the forwards and backwards of optimizer step 0, 1, ...: what acts, and how scales move. */
void qat_before(Qat *q, int64_t step);
void qat_after(Qat *q, int64_t step);
/* /qat/<name> of a checkpoint, at `step` steps done. */
void qat_save(const Qat *q, H5Out *h);
bool qat_load(Qat *q, H5In *h, int64_t step, Arena *a, Err *e);
/* From another stage's state: the scales and histories of quantisers that were there already and are the
 * same. */
bool qat_carry(Qat *q, H5In *h, Err *e);
/* Reads path back: its encoded tensors decode to what model_out gave, bit for bit, or ERR_FAIL. */
bool packed_verify(const char *path, const OutModel *effective, Err *e);
/* qat_pack.c: sites whose weights are quantised, packed: codes and scales instead of floats in out, made by
 * model_out. What they decode to is the effective weight, bit for bit. */
bool qat_pack(const Qat *q, const Model *m, OutModel *out, Arena *a, Err *e);

/* ---- bake.c: the state as a model file
 * ------------------------------------------------------------------- */
typedef struct BakeState {
    const Model *m;
    const Qat *q; /* may be NULL */
} BakeState;
typedef struct BakeReport {
    int64_t bytes, stored; /* of the file; of its tensors: codes, scales, masks */
    int64_t parameters, nonzeros;
} BakeReport;
/* out: packed where quantisers or masks act; effective: the same as floats. */
bool bake(const BakeState *s, DType dtype, OutModel *out, OutModel *effective, Arena *a, Err *e);
/* format: hdf5, safetensors, hf, llama2c. */
bool bake_write(const char *path, const char *format, const OutModel *m, int64_t shard_bytes, Err *e);
/* Reads path back: values are effective's, logits the state's, bit for bit, or ERR_FAIL. Counts what the file
 * holds. */
bool bake_verify(const BakeState *s, const char *path, const OutModel *effective, BakeReport *r, Err *e);
bool bake_count(const char *path, BakeReport *r, Err *e); /* of any model file */

/* ---- lora*.c: adapters (algorithms 5.15, 5.16) --------------------------------------------------------- */
/* What one module has: W + scale B A, rows rescaled to m under DoRA. An embedding's a is (V,r), its b
 * (C,r). */
typedef struct LoraItem {
    const char *module; /* model.layers.0.self_attn.q_proj */
    struct Lora *of;
    Site *site;  /* NULL: an embedding */
    Param *base; /* the frozen weight */
    long r;
    double alpha, scale;
    Param *a, *b, *m; /* (r,in), (out,r), (out) or NULL */
    Param *a0, *b0;   /* PiSSA: where they started, already taken out of the base */
    bool in_weight;   /* its site wants a weight (mask, quantiser, head): no branch, no dropout */
    TensorHook hook;
    double error; /* of extract: |dW - s B A| / |dW| */
} LoraItem;
/* A tensor trained in full. values: the adapter's, own: the base's, where both are in memory (a loaded
 * adapter). */
typedef struct LoraSaved {
    Param *p;
    void *values, *own;
} LoraSaved;
typedef struct Lora {
    const char *name;
    Model *m;
    const LoraConfig *c; /* of a run; NULL: loaded */
    long r;
    double alpha, dropout, weight; /* weight: of this adapter in a sum, 1 */
    bool rslora, dora, respect_mask;
    bool train;                        /* dropout acts in what is recorded now */
    const char *base_hash, *base_path; /* NULL = not known */
    int n, cap, n_saved;
    LoraItem *item;
    LoraSaved *saved;
} Lora;
/* Adapters of the section on m: parameters added (aux), everything else but modules_to_save frozen, the
 * branches hung behind what is there already. Call last, before gradients are allocated. doc: for places in
 * messages, may be NULL. */
bool lora_open(Lora *l, const LoraConfig *c, Model *m, uint64_t seed, const ConfigDoc *doc, Err *e);
/* The rules between keys that need no model; adds errors to doc. */
void lora_check(const LoraConfig *c, ConfigDoc *doc);
/* The base of a run: mapped, or coded on the way in when base_quant asks for it. */
bool lora_base_open(Model *m, const char *path, const LoraConfig *c, const Kernels *k, Arena *run, Err *e);
/* A model that only teaches, frozen. dtype: float32 (mapped where the file has it so) or bfloat16; quantize:
 * none, int8, nf4 or fp8, of the projections inside the blocks, everything else stays as dtype says. */
bool teacher_open(Model *m, const char *path, const char *dtype, const char *quantize, const Kernels *k,
                  Arena *run, Err *e);
void lora_train(Lora *l, bool on); /* around the recording of a training graph */
/* Learning rates: lora.learning_rate, and LoRA+'s groups. lr: optim.learning_rate. */
void lora_rates(const Lora *l, Optim *o, double lr);
bool lora_owns(const Param *p); /* is it an adapter's? */
/* Of all loaded adapters those with the n numbers in use act; several add up, exactly. Graphs recorded before
 * keep what they were. */
bool lora_use(Lora *const *all, int n_all, const int *use, int n, Err *e);

/* A PEFT folder, an adapter file (.h5) or a training state, onto m, not yet in use. force: another base is
 * taken too. */
bool lora_load(Lora *l, Model *m, const char *path, const char *name, bool force, Err *e);
/* The same without asking whether m is the adapter's base: only names and shapes must fit. */
bool lora_read(Lora *l, Model *m, const char *path, const char *name, Err *e);
bool lora_write_peft(const Lora *l, const char *dir, Err *e);
bool lora_write_h5(const Lora *l, const char *path, Err *e); /* kind adapter, product.md 6.5 */
void lora_save(const Lora *l, H5Out *h, Err *e);             /* into a training state */
bool lora_resume(Lora *l, H5In *h, Err *e);                  /* back from one; another base is refused */
/* The sum of adapters as one, ranks concatenated: exact. DoRA has no such sum. */
bool lora_concat(Lora *out, Lora *const *l, int n, const char *name, Model *m, Err *e);

/* U S V^T of x (rows,cols), the r largest: u (rows,r), s (r), vt (r,cols); exact, or by random projections
 * (Halko et al. 0909.4061: 10 more columns, 4 power iterations) where min(rows,cols) is above 1536. */
bool svd_top(const float *x, long rows, long cols, long r, float *u, float *s, float *vt, Err *e);

typedef struct MergeRow {
    const char *name;
    double changed;  /* of a quantised tensor: the fraction of codes that differ; NAN = not quantised */
    double relative; /* |dW| / |W| */
} MergeRow;
typedef struct MergeOptions {
    const char *const *adapter;
    const double *weight; /* [n_adapter] */
    int n_adapter;
    double scale;
    const char *dtype; /* NULL = as the base has it */
    bool keep_zeros, dense, force, dry;
} MergeOptions;
typedef struct MergeReport {
    int n;
    MergeRow *row;
    double changed; /* over all quantised tensors; NAN = none */
} MergeReport;
/* Base and adapters into one file (by suffix .h5, .safetensors, else an HF folder). A quantised base stays
 * quantised by the same rules with new scales, unless dense. */
bool lora_merge_file(const char *base, const char *out, const MergeOptions *o, MergeReport *r, Arena *a,
                     Err *e);
/* The base back from a merged model, only where its content hash proves it. base: NULL, or a model whose hash
 * counts. */
bool lora_unmerge_file(const char *model, const char *adapter, const char *out, const char *base, Arena *a,
                       Err *e);
/* tuned - base as an adapter of rank r with scale 1; what is no projection ships in full. Lora's items hold
 * errors. */
bool lora_extract_file(const char *base, const char *tuned, const char *out, long r, Lora *l, Arena *a,
                       Err *e);
/* ---- delta.c: what training changed, as a file that goes onto its base and off it again ---------------- */
typedef struct DeltaReport {
    const char *base_hash, *tuned_hash;
    int tensors, changed;           /* of the model; those whose values differ */
    int64_t values, changed_values; /* of all tensors */
    int64_t bytes;                  /* of the delta's file (make) */
    bool state;                     /* quantisers, masks or adapters go along */
} DeltaReport;
/* TUNED - BASE. Both are models of the same tensors in any format, or TUNED a training state: its masks,
 * scales and adapters are stored as they are. Encoded tensors are refused. */
bool delta_make(const char *base, const char *tuned, const char *out, DeltaReport *r, Err *e);
/* BASE + DELTA into out (.h5, .safetensors or a folder; .h5 alone can hold a state). Another base is
 * refused. */
bool delta_apply(const char *base, const char *delta, const char *out, DeltaReport *r, Err *e);
/* What delta_apply wrote back into the base. */
bool delta_revert(const char *tuned, const char *delta, const char *out, DeltaReport *r, Err *e);
/* The file's hashes; with base (may be NULL) also that it fits, and gives the tuned model's content hash. */
bool delta_verify(const char *delta, const char *base, DeltaReport *r, Err *e);
#endif
