/* compress/mask_impl.h: what the files of pruning share: choosing, scoring, the walk over calibration
 * rows. */
#ifndef MASK_IMPL_H
#define MASK_IMPL_H
#include "compress/compress.h"

/* ---- mask_pick.c ---- */
/* Things that compete. */
typedef struct Units {
    long n;
    const float *score; /* (n) */
    uint8_t *keep;      /* (n): 1 = kept already */
} Units;
/* Keeps k more: the best scores among entries with keep 0, ties by lowest index over the groups in order.
 * Returns the lowest score taken, NAN for none. Scores must not be NaN. */
double units_keep(Units *u, int n, int64_t k);
int64_t kept_count(int64_t n, double sparsity); /* rint(n (1 - s)) */
/* N of N:M from the structure's name, *of = M; 0 = another structure. */
int pattern_of(const char *structure, int *of);
/* Every item's keep from scores (item: (rows,cols)), by the section's structure and scope. */
bool prune_pick(Prune *p, float *const *score, double sparsity, Arena *tmp, Err *e);

/* ---- mask_units.c: heads, ffn neurons, layers: units that run through several tensors ---- */
bool pick_grouped(Prune *p, float *const *score, double sparsity, Arena *tmp, Err *e);
/* The choice among unit groups by scope and floor. */
void pick_units(const Prune *p, Units *u, int n, bool global, double sparsity, double *limit);
int layer_of(const Prune *p, const PruneItem *it); /* -1 = of no layer */

/* ---- score_grad.c, score_inputs.c, sparsegpt.c ---- */
bool score_gradients(Prune *p, const Calibration *cal, float *const *score, Arena *tmp, Err *e);
/* Wanda (score given: |w| times input norms, masks picked layer by layer) or SparseGPT (weights change
 * too). */
bool score_inputs(Prune *p, const Calibration *cal, float *const *score, double sparsity, Arena *tmp, Err *e);
/* W (rows,cols) under Hessian H (cols,cols) = 2 X X^T / n: keep chosen, W changed, its masked entries 0. H is
 * overwritten. pattern N:M or 0. block: columns that are chosen at once (128). */
bool sparsegpt(double *w, double *h, uint8_t *keep, long rows, long cols, double sparsity, int pattern,
               int of, long block, const char *name, Arena *tmp, Err *e);

/* The model's sites with masks only (no quantisers), for scoring; then as they were. */
typedef struct BareSites {
    Site *was;
} BareSites;
bool sites_bare(BareSites *b, Prune *p, Arena *tmp, Err *e);
void sites_restore(const BareSites *b, Prune *p);

double real_at(const void *data, long i, bool f64);
void real_set(void *data, long i, bool f64, double v);
static inline bool prune_f64(const Prune *p) { return p->m->params.k->real == sizeof(double); }
#endif
