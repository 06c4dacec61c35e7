/* train/train.h: floor 7. One loop for every recipe; evaluation; checkpoints; arms; probe.
 *
 *   Config *c = config_load(&run, "configs/demo.yaml", n, overrides, &doc, &e);
 *   RunResult r;  train_run(c, &(TrainOptions){0}, &r, &e);
 *
 * Nothing here prints to stdout: text for people goes to the log, results come back as structs and strings.
 */
#ifndef TRAIN_H
#define TRAIN_H
#include <stdio.h>
#include "infer/infer.h"
#include "train/config_impl.h"

/* ---- evaluate.c ---------------------------------------------------------------------------------------- */
typedef struct EvalResult {
    const char *protocol;
    long window;
    /* tokens scored; bytes of text they stand for, 0 for token files */
    int64_t tokens, text_bytes;
    /* mean nats per token; bits_per_byte 0 when text_bytes is 0 */
    double nll, perplexity, bits_per_byte;
    bool against;
    double kl, top1_agreement; /* teacher || model, nats per token; share of equal argmax */
} EvalResult;
typedef struct Evaluator Evaluator;
/* B windows of T tokens at a time; against may be NULL. Plans its own graph once. */
Evaluator *evaluator_new(Model *m, Model *against, long B, long T, Arena *a, Err *e);
void evaluator_free(Evaluator *ev);
/* tokens: one stream. max_batches 0 = all. */
bool evaluator_run(Evaluator *ev, const Tokens *t, int bos, const char *protocol, long window, long stride,
                   int64_t max_batches, EvalResult *out, Err *e);
/* One batch of rows, position for position. ids, targets (B,T), -100 = not scored; nll (B,T) in nats, 0 where
 * not scored; hit (B,T): the target is the most likely token. */
void evaluator_rows(Evaluator *ev, const int32_t *ids, const int32_t *targets, double *nll,
                    unsigned char *hit);
/* product contract, one object */
char *eval_json(const EvalResult *r, const char *model, const char *data, Arena *a, Err *e);

/* ---- tasks.c: scores by the log-likelihood of continuations (docs/tasks.md) ---------------------------- */
typedef struct TaskOptions {
    const char *name, *path; /* hellaswag, lambada or multiple_choice; its file */
    const char *protocol;    /* llm.c, llama.cpp, lm-eval; NULL = by the file */
    const char *details;     /* one JSON line per example, NULL = none */
    int64_t limit;           /* examples at most, 0 = all */
    bool no_bos;             /* lm-eval, llama.cpp: without the BOS the tokenizer adds */
} TaskOptions;
/* One JSON object: task, protocol, examples, acc and acc_norm with their standard errors, perplexity
 * (lambada). Errors name file and line. */
char *task_json(Model *m, const Tokenizer *tk, const TaskOptions *o, Arena *a, Err *e);

/* ---- checkpoint.c: the whole training state, product.md 6.6 and 6.8 ------------------------------------ */
typedef struct TrainState {
    /* evaluated: step of the last evaluation, whose loss is val; best: least val so far; NaN = none */
    int64_t step, n_steps, tokens_seen, samples_seen, evaluated;
    double epoch, best, val;
    const char *data_hash, *run_yaml, *tokenizer_path;
    uint64_t seed;
    int bad_steps, stale_evals;
    Qat *qat;     /* quantisers whose scales belong to the state; NULL = none */
    Lora *lora;   /* adapters; NULL = none */
    Prune *prune; /* masks, the same */
} TrainState;
/* Writes dir/checkpoints/step_XXXXXXXX.h5 (temp, fsync, rename, fsync), then `latest`, then retention of our
 * own names. */
bool checkpoint_save(const char *dir, const CheckpointConfig *c, const Model *m, const Optim *o,
                     const TrainState *s, Arena *a, Err *e);
/* Starting over: removes the files of checkpoint_save from dir/checkpoints, and only those. */
bool checkpoint_clear(const char *dir, Err *e);
/* Newest checkpoint of dir/checkpoints whose envelope holds; a damaged one is skipped with a message. NULL:
 * none. */
const char *checkpoint_find(const char *dir, Arena *a, Err *e);
/* Into a model and optimizer of the same shapes; every tensor checked. o may be NULL (weights only). */
bool checkpoint_load(const char *path, Model *m, Optim *o, TrainState *s, Arena *a, Err *e);

/* What the next stage takes over: weights, and what hangs on them, where the state at path has it. o NULL:
 * moments start afresh. */
bool checkpoint_carry(const char *path, Model *m, Optim *o, TrainState *s, Arena *a, Err *e);

/* ---- run.c --------------------------------------------------------------------------------------------- */
/* One stage of several. from: the state it starts from, a training state; NULL: as the config says. */
typedef struct StageOptions {
    const char *from, *base; /* base: the model to compare with, NULL = none */
    bool no_steps, keep_optimizer;
} StageOptions;
typedef struct StageResult {
    BakeReport file; /* of model.h5, as counted in it */
    EvalResult eval; /* of that file, against the base */
    bool has_eval;
    double decode_tokens_per_s;
} StageResult;
/* resume NULL = run.resume */
typedef struct TrainOptions {
    const char *resume;
    bool overwrite, dry_run, teacher_row; /* teacher_row: the teacher is evaluated too, at the end */
    int n_override;                       /* key=value from the command line, for overrides.txt */
    char *const *override;
    const StageOptions *stage; /* NULL: the run stands alone */
} TrainOptions;
typedef struct RunResult {
    const char *status; /* done, stopped, interrupted */
    int64_t step;
    double loss;
    bool has_eval;
    EvalResult eval, teacher_eval;
    int64_t parameters, teacher_parameters, bytes, teacher_bytes;
    const char *checkpoint, *sample, *teacher_sample;
    double
        sparsity; /* masked share of masked tensors, counted on the last exported file where there is one */
    double seconds, tokens_per_s;
    StageResult stage;
} RunResult;
bool train_run(Config *c, const TrainOptions *o, RunResult *r, Arena *a, Err *e);
/* Threads and kernels as section device asks. NULL: not in this build. */
const Kernels *device_kernels(const DeviceConfig *d, Err *e);
/* Every source of list (n,) as one stream. */
bool tokens_of_sources(Tokens *out, const SourceConfig *list, int n, const DataConfig *d, const Tokenizer *tk,
                       int vocab, Arena *a, Err *e);
/* Teacher and student must read the same ids as the same text: content, not names or paths, is compared. */
bool same_vocabulary(const Model *teacher, const Model *student, const Tokenizer *tk,
                     const TokenizerConfig *how, Arena *a, Err *e);
/* ---- stages.c: the list `stages`, in order, on one state
 * ------------------------------------------------------
 * Stage i works in <output_dir>/stages/NN-name: a run of its own with checkpoints and metrics, its model as
 * model.h5, its row in row.json. Stages whose row is there are not run again. */
typedef struct StageRow {
    const char *arm, *name, *recipe, *status, *file, *checkpoint; /* arm NULL: none */
    int64_t seed, steps, bytes, stored, parameters, nonzeros;
    bool has_eval;
    double perplexity, kl, top1_agreement, decode_tokens_per_s, train_tokens_per_s, seconds;
    bool against;
    int64_t tokens; /* scored */
} StageRow;
typedef struct StageRows {
    int n;
    StageRow *row;      /* the first: the base */
    const char *status; /* of the last stage that ran */
} StageRows;
/* dir: the run's folder. arm and seed as in config_load_arm. base: a row that is known already, or NULL. */
bool train_stages(const char *path, const char *dir, const char *arm, int64_t seed, const TrainOptions *o,
                  const StageRow *base, StageRows *out, Arena *a, Err *e);
/* train_arms where the arms run in stages: rows in arms.jsonl, one table */
bool train_staged_arms(const Config *base, const char *path, const TrainOptions *o, char **table, Arena *a,
                       Err *e);
char *stages_table(const StageRow *row, int n, Arena *a, Err *e);
char *stage_row_json(const StageRow *row, Arena *a, Err *e);

/* Every arm with every seed, same data order; one JSON row each in arms.jsonl; *table = the comparison as
 * text. */
bool train_arms(const char *path, int n_override, char *const *override, const TrainOptions *o, char **table,
                Arena *a, Err *e);
/* set by main's handlers: SIGINT, SIGTERM -> save and stop; SIGUSR1 -> save */
extern volatile int train_signal;
char *memory_report(const Config *c, Arena *a, Err *e); /* the estimate `validate` prints */

/* ---- teacher_cache_write.c: `pare teacher-cache` ------------------------------------------------------- */
typedef struct CacheOptions {
    bool dry_run, overwrite;
} CacheOptions;
typedef struct CacheResult {
    int64_t positions, k, bytes;
    double seconds;
    bool stopped; /* by a signal; the next call goes on */
    bool present; /* it was there already */
} CacheResult;
/* The teacher's distributions over data.train into teacher.cache. Goes on where an interrupted call
 * stopped. */
bool teacher_cache_write(Config *c, const CacheOptions *o, CacheResult *out, Arena *a, Err *e);

/* ---- tokens_h5.c: token files in our HDF5 -------------------------------------------------------------- */
void tokens_h5_enable(void); /* from now on tokens_load reads .h5 */
/* tokenizer_hash_hex may be NULL. */
bool tokens_h5_write(const char *path, const Tokens *t, const char *tokenizer_hash_hex, Arena *a, Err *e);

/* ---- dataverb.c: `pare data tokenize|pack|stats|inspect` ----------------------------------------------- */
typedef struct DataVerb {
    const char *what, *const *path; /* path (n_path,): one config, or files and globs */
    int n_path, n;                  /* n: documents that inspect shows, 0 = 3 */
    char *const *set;               /* (n_set,) overrides */
    int n_set;
    const char *tokenizer, *pattern, *out, *field, *prompt_field, *response_field; /* NULL = not given */
    const char *messages_field, *split;
    bool resume, overwrite; /* tokenize: an error without a cursor; not from the cursor */
} DataVerb;
/* Text for stdout: JSON, or what inspect shows. ERR_INTERRUPTED when a signal stopped it. */
char *data_verb(const DataVerb *v, Arena *a, Err *e);

/* ---- metrics.c: metrics.jsonl, run.log, the progress line ---------------------------------------------- */
typedef struct Metric {
    const char *key;
    double value;
} Metric;
typedef struct Metrics Metrics;
/* clock false: without times, speeds and memory, so that two runs of the same values write the same file. */
Metrics *metrics_open(const char *dir, const LogConfig *c, bool clock, int64_t resumed_step, bool resumed,
                      Arena *a, Err *e);
void metrics_write(Metrics *m, const char *event, int64_t step, const Metric *v, int n);
void metrics_close(Metrics *m);

/* ---- probe.c: one batch through a model, everything written down --------------------------------------- */
bool probe(Model *m, const char *in, const char *out, bool grad, const char *taps, Err *e);
/* ---- compare.c ----------------------------------------------------------------------------------------- */
char *compare_json(const char *a, const char *b, Arena *ar, Err *e);
/* trust_foreign: also HDF5 without our envelope */
char *inspect_json(const char *path, bool trust_foreign, Arena *ar, Err *e);
char *inspect_text(const char *json, Arena *ar, Err *e); /* the same as a table */
/* inspect_cache.c: whether path is a teacher cache; what is in it, as lines or as one JSON object. */
bool cache_is(const char *path);
char *cache_inspect(const char *path, bool json, Arena *a, Err *e);
/* ---- doctor.c: `name value` lines, or one JSON object; *ok: the self-test passed ---- */
char *doctor_report(bool json, bool *ok, Arena *a, Err *e);
/* ---- verbs.c: the command line's verbs, without main ---- */
enum { MAX_ARGS = 256 };
typedef struct Args {
    const char *verb;
    FILE *in, *out; /* results go to out, everything for people to the log */
    Arena *a;
    Err *e;
    int n_pos;
    const char *pos[MAX_ARGS];
    int n_set;
    char *set[MAX_ARGS]; /* key=value overrides, in order */
    int n_opt;
    const char *opt[MAX_ARGS], *value[MAX_ARGS];
} Args;
typedef struct Option {
    const char *name, *value, *help; /* value NULL: a switch; "?": optional, only with = */
    char letter;
} Option;
typedef struct Verb {
    const char *name, *args, *help;
    int min_pos, max_pos;
    int (*run)(Args *); /* the exit code; with x->e set, that error's */
    const Option *opt;
    bool long_run; /* signals save and stop */
} Verb;
extern const Verb verb_table[];
extern const int n_verb_table;
#endif
