/* train/run_impl.h: one run's state, shared by setup.c (building it), run.c (the loop) and console.c (what is
 * shown). */
#ifndef RUN_IMPL_H
#define RUN_IMPL_H
#include "compress/compress.h"
#include "train/train.h"

enum { MAX_PARTS = 64 };
typedef struct Run Run;

/* ---- teacher_cache.c: the teacher out of a file -------------------------------------------------------- */
enum { CACHE_TEMPERATURES = 64 };
typedef struct CacheAbout {
    long V, k, T;
    int64_t sequences;
    char teacher[33], data[33];      /* content hashes */
    const char *tokenizer, *storage; /* its hash, "" without one; "float32", "int8", ... */
    int n_temp;
    double temp[CACHE_TEMPERATURES]; /* 1 first */
} CacheAbout;
typedef struct TeacherCache TeacherCache;
TeacherCache *teacher_cache_open(const char *path, Arena *a, Err *e);
void teacher_cache_close(TeacherCache *t);
const CacheAbout *teacher_cache_about(const TeacherCache *t);
/* Same vocabulary, tokenizer, teacher, data, k and temperatures as the run's; else an error at its key. */
bool teacher_cache_check(const TeacherCache *t, const Run *r, Err *e);
/* index int32 (T,k), logp (T,k), rest (T) of one sequence, at temperature `at`; reals of `real` bytes. */
bool teacher_cache_fill(TeacherCache *t, int64_t sequence, double at, int32_t *index, void *logp, void *rest,
                        size_t real, Err *e);
bool cache_teacher_hash(const char *path, char hex[33], Err *e); /* of its values and its configuration */
const char *cache_storage(const Config *c, Arena *a, Err *e);
bool cache_temperatures(const Run *r, CacheAbout *b, Err *e); /* 1 and every T of the run's steps */
/* ---- on_policy.c: the student's own sequences ---------------------------------------------------------- */
typedef struct OnPolicy OnPolicy;
OnPolicy *on_policy_open(Run *r, Err *e);
void on_policy_close(OnPolicy *p);
bool on_policy_step(const Run *r, int64_t step); /* drawn from (seed, step) */
/* Writes sequences behind the prompts of samples first .. first+B-1 into the run's inputs. Returns the
 * targets. */
long on_policy_fill(OnPolicy *p, int64_t first_sample, Err *e);
/* Mean tokens of the sequences written since the last call; 0 = none. */
double on_policy_length(OnPolicy *p);

/* ---- profile.c: log.profile; NULL or another step: nothing is timed ------------------------------------ */
typedef struct Profile Profile;
Profile *profile_open(const Run *r, Err *e); /* NULL: no step is traced */
void profile_before(Run *r);                 /* a step begins */
/* something of a traced step that is no entry of the graph has gone on since `start` */
void profile_span(Profile *p, const char *what, double start);
bool profile_after(Run *r, double start, Err *e); /* the step that began at `start` is over */
bool profile_close(Run *r, Err *e);               /* writes what there is, once */

struct Run {
    Config *c;
    Arena *a;
    const char *dir;
    const Kernels *k;
    Tokenizer *tk;
    Model model, teacher, more[MAX_TEACHER - 1]; /* more: teachers behind the first */
    bool has_teacher;                            /* in memory */
    int n_more;
    TeacherCache *cache;                     /* or in a file; NULL = not */
    Tensor *top_index, *top_logp, *top_rest; /* what it gives to a step: int32 (B,T,k), (B,T,k), (B,T) */
    Distill distill;
    Qat qat;
    Lora lora;
    Prune prune;
    Calibration calibration; /* of prune; row NULL = the run's own batches */
    double sparsity;
    Loader *loader;
    Prefetch *prefetch;
    double waited; /* seconds the steps since the last line waited for data */
    Graph *g;
    Tensor *ids, *targets, *pos, *seg; /* (B,T); seg: packed documents, else NULL */
    Tensor *lm;                        /* the language-model loss */
    OnPolicy *on_policy;               /* NULL = never */
    double own_length;                 /* mean tokens of this step's own sequences; 0 = none */
    Optim *opt;
    Evaluator *ev;
    Tokens val;
    bool has_val;
    Metrics *metrics;
    Profile *profile;
    TrainState st;
    long B, T, accum;
    int64_t step_tokens;                /* tokens read per optimizer step */
    double flops_per_token, peak_flops; /* teacher's forward counted in; peak 0 = not measured */
    double loss;
    LossPart part[MAX_PARTS];
    int n_part;
    EvalResult eval;
    bool has_eval;
    double started;
    int64_t start_step;
    const char *checkpoint;
};
/* models, data, graph, optimizer; nothing is written */
bool run_open(Run *r, Config *c, Arena *a, Err *e); /* models and data alone */
int64_t run_steps(const Run *r);                    /* by train.max_steps and epochs */
bool run_setup(Run *r, Config *c, Arena *a, Err *e);
/* ---- setup_check.c: false, with the key's place in the config in e ---- */
bool run_key_error(Run *r, Err *e, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
bool run_no_match(Run *r, Err *e, const char *key, const char *glob); /* with the nearest parameter's name */
bool run_fits(Run *r, const Model *m, const char *who, Err *e);       /* data.seq_len in m's positions */
bool run_check(Run *r, Err *e);                                       /* steps, windows of eval, groups */
/* of run_setup: the tokenizer that the config or a model names; data.val */
bool run_tokenizer(Run *r, Err *e);
bool run_val(Run *r, Err *e);
void run_free(Run *r);
/* FLOP/s of large matrix products with k: threads x one thread's rate; about 50 ms the first time. */
double measured_peak(const Kernels *k, Err *e);
void run_header(const Run *r); /* the table of llm.c's kind, into the log */
void run_progress(const Run *r, const StepInfo *s, double dt, bool line);
/* the first prompt's continuation; samples/step_N.txt when logging */
bool run_samples(Run *r, Model *m, const char **text, Err *e);
bool run_evaluate(Run *r, Err *e);
bool run_export(Run *r, Err *e); /* the list `export` */
/* entry i of it with quantize: written to path as `pare quantize` would; *done tells whether it has one */
bool run_export_rounded(Run *r, int i, const char *path, bool *done, Err *e);
bool run_bake(Run *r, const char *path, BakeReport *b, Err *e); /* one HDF5 file, verified and counted */
bool run_stage(Run *r, const StageOptions *o, StageResult *out, Err *e); /* a stage's artefact and its row */
/* config.yaml, config.resolved.yaml, env.json ... */
bool run_folder(Run *r, const TrainOptions *o, bool resuming, Err *e);
/* perplexity and speed of the model at path, with c's evaluation */
bool stage_base_eval(const Config *c, const char *path, EvalResult *out, double *rate, Arena *a, Err *e);
#endif
