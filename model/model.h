/* model/model.h: floor 4. One transformer builder whose families are data; sites and taps by name.
 *
 *   Model m;  model_open(&m, "model_dir", kernels_cpu_f32(), &run, &e);        // or model_fresh(&m, &spec,
 *   seed, ...)
 *   graph_prefix(g, "student.");
 *   Tensor *h = model_hidden(g, &m, &(ModelInputs){.ids = ids, .pos = pos});   // taps: embed, layers.N.*,
 *   final_norm
 *   Tensor *z = model_logits(g, &m, h);
 *
 * Parameters carry Hugging Face names; in memory every projection is [out,in] and RoPE is half-split. A
 * compression method hangs Attachments on Sites before the graph is recorded; it never opens transformer.c.
 */
#ifndef MODEL_H
#define MODEL_H
#include "autograd/autograd.h"
#include "data/data.h"
#include "formats/formats.h"
#include "model/config_impl.h"

/* Names of one family, printf templates over the layer number; NULL = the family has no such tensor. */
typedef struct FamilyNames {
    const char *embed, *pos, *norm1, *norm2, *final_norm, *head;
    /* module paths, without .weight */
    const char *q, *k, *v, *qkv, *o, *gate, *up, *down, *q_norm, *k_norm;
    const char *attn_post, *mlp_post; /* norms of a branch's output, before it is added (Gemma) */
} FamilyNames;
typedef struct Family {
    const char *arch, *architecture; /* "llama", "LlamaForCausalLM" */
    bool layernorm, learned_pos, gated, qkv_bias, linear_bias, qk_norm, in_out, tied_default;
    bool gelu_gate;     /* the gate goes through gelu (tanh form), not silu */
    bool plus_one;      /* norm weights are stored less 1 */
    bool scaled_embed;  /* embeddings times sqrt(width) */
    bool local_rope;    /* sliding layers have a RoPE base of their own */
    bool window_switch; /* use_sliding_window and max_window_layers decide */
    /* what config.json means where a key is absent; 0 = the family has no such thing */
    long head_dim, window, window_pattern; /* every window_pattern-th layer is a full one */
    double scalar, attn_softcap, final_softcap, eps_default, theta; /* scalar: query_pre_attn_scalar */
    FamilyNames name;
} Family;
const Family *family_find(const char *arch); /* NULL = not known */
const char *family_list(void);               /* "gpt2, llama, ..." */

/* Rotary angles as transformers defines them (modeling_rope_utils; formats.md 4.2). */
typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_YARN, ROPE_LLAMA3 } RopeKind;
typedef struct RopeSpec {
    RopeKind kind;
    double theta, factor;
    double original;             /* positions before the scaling: llama3, yarn, dynamic */
    double low, high;            /* llama3: low_freq_factor, high_freq_factor */
    double beta_fast, beta_slow; /* yarn */
    double attention_factor;     /* of cos and sin: yarn; else 1 */
    bool round_off;              /* yarn: truncate, the ramp's ends at whole dimensions */
} RopeSpec;
/* inv_freq (D/2) for a sequence of `length` tokens; only dynamic looks at the length. */
void rope_frequencies(const RopeSpec *r, long D, long length, double *inv_freq);

typedef struct ModelSpec {
    const Family *family;
    /* vocabulary, width, layers, heads, kv heads, head width, ffn, positions */
    long V, C, L, H, Hkv, D, F, max_pos;
    double eps, init_std, residual_scale;
    double dropout, embed_dropout, attn_dropout; /* of a branch, of the embedding, of probabilities */
    double attn_scale;                           /* of q.k */
    double attn_softcap, final_softcap;          /* 0 = none */
    RopeSpec rope, rope_local;                   /* rope_local: of sliding layers, where family->local_rope */
    long window, window_from;                    /* sliding window (0 = none) of layers >= window_from */
    const unsigned char *layer_sliding;          /* layer_types: 1 = sliding; NULL = window_from decides */
    bool tied, tanh_gelu, attention_bias, mlp_bias;
    int bos, eos; /* -1 = none */
} ModelSpec;
bool spec_sliding(const ModelSpec *s, long layer); /* does the layer see the window only? */
/* From HF config.json text (transformers 4 and 5 spellings). ERR_USAGE names the key that is missing, wrong
 * or beyond us. */
bool spec_parse(ModelSpec *s, const char *config_json, const char *where, Arena *a, Err *e);
bool spec_from_init(ModelSpec *s, const ModelInitConfig *c, long vocab, long seq_len, Err *e);
/* config.json, both spellings of what changed in transformers 5 */
char *spec_json(const ModelSpec *s, Arena *a, Err *e);

/* What compression may hang on one projection. apply records nodes and returns the tensor to use instead. */
typedef struct Attachment Attachment;
struct Attachment {
    const char *kind;
    Tensor *(*apply)(Graph *g, Tensor *t, const Attachment *a);
    void *state;
};
/* What stands beside a projection (adapters): apply records nodes on its input x and its output y and returns
 * the output to use from then on; merge takes the weight and returns the one that would do it alone. */
typedef struct Site Site;
typedef struct Branch Branch;
struct Branch {
    const char *kind;
    bool bias; /* apply gets y without the projection's bias and adds it itself */
    Tensor *(*apply)(Graph *g, Tensor *x, Tensor *y, Site *s, const Branch *b);
    Tensor *(*merge)(Graph *g, Tensor *w, Site *s, const Branch *b);
    void *state;
};
enum { SITE_MAX = 4 };
struct Site {
    const char *name; /* HF module path: model.layers.0.self_attn.q_proj */
    Param *w, *b;     /* w (out,in), b (out) or NULL */
    /* on the weight (mask, then quantiser), on the activation */
    Attachment wx[SITE_MAX], ax[SITE_MAX], yx[SITE_MAX]; /* yx: on the output, before the branches */
    int n_wx, n_ax, n_yx;
    Branch side[SITE_MAX]; /* adapters, in order */
    int n_side;
    const QuantStore *q; /* the frozen weight as codes, w->w.data is NULL; or NULL */
    void *decoded;       /* (out,in) of q as floats, in run, once a graph has asked for it; or NULL */
    size_t decoded_real; /* bytes of one of them */
    Arena *run;          /* the model's */
};

typedef struct Model {
    ModelSpec spec;
    Params params;
    Site *site;
    int n_site;
    double *inv_freq[2]; /* (D/2): of rope, of rope_local */
    const char *config_json, *generation_json, *tokenizer_path, *path;
    Arena *run;
    TensorFile *file;     /* kept open while weights lie in its mapping; NULL = none do */
    int64_t mapped_bytes; /* of them, as float32 */
    int64_t packed_bytes; /* of codes and scales that weights are used by */
    int n_packed;         /* of those weights */
} Model;
Site *model_site(const Model *m, const char *name);
/* Hangs an attachment on every site whose name or weight name matches; returns how many. 0 is for the caller
 * to refuse. */
int model_attach(Model *m, const char *glob, bool on_weight, Attachment a, Err *e);

/* A file's model: spec, parameters, sites; values read, shapes checked, NaN refused (tensor named). */
bool model_open(Model *m, const char *path, const Kernels *k, Arena *run, Err *e);
/* The same for a model whose weights nobody writes (inference, a teacher): float32 weights that lie in the
 * file as memory wants them, on 64 bytes, are used where the file is mapped, read-only. model_close gives
 * it back. */
bool model_open_frozen(Model *m, const char *path, const Kernels *k, Arena *run, Err *e);
/* packed.c: the same, and projections that the file holds as codes and scales are used as such: Site.q, no
 * floats. Tables that are looked up by row (embeddings, a tied head) are floats all the same. */
bool model_open_packed(Model *m, const char *path, const Kernels *k, Arena *run, Err *e);
/* Bytes that the weights take, where they are: as floats (in memory or mapped), and as codes with scales. */
typedef struct WeightBytes {
    int64_t dense, packed;
    int n_packed;
} WeightBytes;
WeightBytes model_weight_bytes(const Model *m);
/* The same with a say in what is kept: take gets the values of a parameter (in memory layout, gone when it
 * returns) and tells by *taken that it keeps them in its own way; the parameter is then read-only and without
 * data. half: matrices that are not taken are kept as bfloat16, and everything else is rounded to it. */
typedef struct ModelStore {
    bool (*take)(Model *m, Param *p, const float *values, void *ctx, bool *taken, Err *e);
    void *ctx;
    bool half;
} ModelStore;
bool model_open_stored(Model *m, const char *path, const ModelStore *st, const Kernels *k, Arena *run,
                       Err *e);
bool model_own(Model *m, Param *p, Err *e); /* a mapped parameter's values copied, so that they can change */
void model_close(Model *m);                 /* of any model; nothing to do for most */
bool model_from_file(Model *m, const TensorFile *f, const Kernels *k, Arena *run, Err *e);
/* Fresh values: N(0, init_std), residual projections times residual_scale, norms 1, biases 0; keyed by tensor
 * name. */
bool model_fresh(Model *m, const ModelSpec *s, uint64_t seed, const Kernels *k, Arena *run, Err *e);
/* ---- init_teacher.c: model.init_from_teacher ---- */
/* The student's shape: the teacher's with what model.init says; *map (L): the teacher's layer of each of its
 * own. doc: for places in messages, may be NULL. */
bool spec_from_teacher(ModelSpec *s, const ModelSpec *t, const ModelConfig *c, const ConfigDoc *doc,
                       long **map, Arena *a, Err *e);
/* Values of a model of that shape from the teacher's; embeddings false: tables and head stay as they are. */
bool model_from_teacher(Model *m, const Model *teacher, const long *map, bool embeddings, Err *e);
int model_freeze(Model *m, const char *glob);                     /* returns how many parameters matched */
int64_t model_bytes(const Model *m);                              /* parameters as float32 */
int64_t model_held(const Model *m);                               /* parameters as they lie in memory */
/* A parameter's values in memory layout, whatever it is kept in: its own floats, or made in a. */
const float *model_floats(const Model *m, const Param *p, Arena *a, Err *e);
const char *model_content_hash(const Model *m, Arena *a, Err *e); /* XXH3-128 over names and values */
/* A view for writers: float values in memory layout, effective weights where sites change them (bake of
 * attachments). */
bool model_out(const Model *m, OutModel *out, DType dtype, Arena *a, Err *e);

/* One file into another ("hdf5", "hf" or "safetensors"), one tensor in memory at a time, read back and
 * compared. shard_bytes: formats_write_hf. tokenizer_path: instead of the file's own. dry_run: checks the
 * source only. */
typedef struct ConvertOptions {
    const char *format, *tokenizer_path;
    DType dtype;
    int64_t shard_bytes;
    bool dry_run;
} ConvertOptions;
bool model_convert(const char *in, const char *out, const ConvertOptions *o, int *n_tensor, Err *e);

/* tokenizer_open_as, whose path may also be a model in HDF5 with the tokenizer inside. */
Tokenizer *model_tokenizer(const char *path, const TokenizerConfig *how, Arena *a, Err *e);

typedef struct ModelInputs {
    Tensor *ids, *pos, *seg;     /* int32 (B,T); seg may be NULL */
    Tensor *past;                /* int32 (1): tokens in the cache; NULL without one */
    Tensor **k_cache, **v_cache; /* per layer (B,Tmax,Hkv D) */
    bool train;                  /* dropout on */
} ModelInputs;
Tensor *model_hidden(Graph *g, Model *m, const ModelInputs *in); /* (B,T,C) after the final norm */
Tensor *model_head(Graph *g, Model *m);                          /* (V,C): the head's effective weight */
/* (B,T,V): only where somebody asks for it by name */
Tensor *model_logits(Graph *g, Model *m, Tensor *hidden);
/* Puts the soft-caps of both models' final logits into a loss (teacher may be NULL): lm_loss and the kernel
 * xent start from uncapped logits. */
void model_loss_caps(LossAttr *a, const Model *student, const Model *teacher);
Tensor *site_weight(Graph *g, Site *s); /* the site's weight after its attachments */
Tensor *site_merged(Graph *g, Site *s); /* and with its branches in it: what a writer stores */
Tensor *site_linear(Graph *g, Tensor *x, Site *s);
#endif
