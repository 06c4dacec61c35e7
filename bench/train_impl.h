/* bench/train_impl.h: one training engine measured in rounds, ours or PyTorch's (train.c, kd.c). */
#ifndef BENCH_TRAIN_IMPL_H
#define BENCH_TRAIN_IMPL_H
#include "bench/bench.h"

enum { MAX_MS = 512 };
typedef struct Engine {
    const char *name; /* "pare", "torch eager", "torch compile" */
    bool there;
    double s[MAX_MS]; /* (n) seconds of every timed step, all rounds */
    int n;
    int64_t peak_rss, import_rss; /* bytes; import_rss: of `import torch` alone, 0 for ours */
    double warmup;                /* seconds before the first timed step, PyTorch's own account */
    double data_wait;             /* seconds all timed steps together waited for their batches; pare alone */
    Stat stat;
} Engine;
/* The Python with PyTorch: PEER_PYTHON, else python3; NULL when it cannot import torch. */
const char *peer_python(const Bench *b);
/* One round of `steps` timed steps (after two that are not) by a pare process over `config` and, unless NULL,
 * the override `also`, or by `script` (torch_train.py, torch_kd.py, torch_lora.py) at --shape shape --mode
 * mode. Adds to x; false and a message on failure. */
bool engine_pare(const Bench *b, Engine *x, const char *config, const char *run_dir, const char *also,
                 int steps);
bool engine_torch(const Bench *b, Engine *x, const char *python, const char *script, const char *shape,
                  const char *mode, int steps);
/* Statistics of all rounds, one printed line and one JSON line. part: "train", "kd". */
void engine_report(const Bench *b, Engine *x, const char *part, const char *shape, long tokens);
#endif
