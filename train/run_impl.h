/* train/run_impl.h: one run's state, shared by setup.c (building it), run.c (the loop) and console.c (what is
 * shown). */
#ifndef RUN_IMPL_H
#define RUN_IMPL_H
#include "compress/compress.h"
#include "train/train.h"

enum { MAX_PARTS = 64 };
typedef struct Run {
    Config *c;
    Arena *a;
    const char *dir;
    const Kernels *k;
    Tokenizer *tk;
    Model model, teacher;
    bool has_teacher;
    Distill distill;
    Qat qat;
    Loader *loader;
    Prefetch *prefetch;
    double waited; /* seconds the steps since the last line waited for data */
    Graph *g;
    Tensor *ids, *targets, *pos, *seg; /* (B,T); seg: packed documents, else NULL */
    Optim *opt;
    Evaluator *ev;
    Tokens val;
    bool has_val;
    Metrics *metrics;
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
} Run;
/* models, data, graph, optimizer; nothing is written */
bool run_setup(Run *r, Config *c, Arena *a, Err *e);
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
bool run_export(Run *r, Err *e);                               /* the list `export` */
bool run_bake(Run *r, const char *path, BakeReport *b, Err *e); /* one HDF5 file, verified and counted */
bool run_stage(Run *r, const StageOptions *o, StageResult *out, Err *e); /* a stage's artefact and its row */
/* config.yaml, config.resolved.yaml, env.json ... */
bool run_folder(Run *r, const TrainOptions *o, bool resuming, Err *e);
/* perplexity and speed of the model at path, with c's evaluation */
bool stage_base_eval(const Config *c, const char *path, EvalResult *out, double *rate, Arena *a, Err *e);
#endif
