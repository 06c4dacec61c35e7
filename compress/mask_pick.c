/* compress/mask_pick.c: from scores to masks: exactly rint(n (1 - s)) units are kept in every scope, ties by
 * lowest index (a threshold would take one too many or leave ties to chance). Units: entries, N of every M
 * along a row, rows, tiles; mask_units.c: heads, neurons, layers. A unit's score: mean of its entries' scores
 * (magnitude: of their squares). */
#include "compress/mask_impl.h"
#include <string.h>

int64_t kept_count(int64_t n, double sparsity) { return (int64_t)rint((double)n * (1 - sparsity)); }

int pattern_of(const char *structure, int *of)
{
    *of = !strcmp(structure, "2:4") ? 4 : !strcmp(structure, "4:8") ? 8 : 0;
    return *of / 2;
}

/* Floats as integers in the same order; both zeros are one. */
static uint32_t order_key(float x)
{
    uint32_t u;
    if (x == 0) return 0x80000000u;
    memcpy(&u, &x, sizeof u);
    return u >> 31 ? ~u : u | 0x80000000u;
}

enum { BINS = 65536 };
/* Which bin of a histogram, from the top, holds the k-th; *k becomes the rank inside it. */
static uint32_t bin_of(const int64_t *count, int64_t *k)
{
    for (uint32_t b = BINS; b-- > 0;) {
        if (*k <= count[b]) return b;
        *k -= count[b];
    }
    return 0;
}

double units_keep(Units *u, int n, int64_t k)
{
    int64_t count[BINS] = {0};
    if (k <= 0) return NAN;
    for (int i = 0; i < n; i++)
        for (long j = 0; j < u[i].n; j++)
            if (!u[i].keep[j]) count[order_key(u[i].score[j]) >> 16]++;
    const uint32_t high = bin_of(count, &k);
    memset(count, 0, sizeof count);
    for (int i = 0; i < n; i++)
        for (long j = 0; j < u[i].n; j++) {
            const uint32_t key = order_key(u[i].score[j]);
            if (!u[i].keep[j] && key >> 16 == high) count[key & 0xffff]++;
        }
    const uint32_t limit = high << 16 | bin_of(count, &k);
    float lowest = 0;
    for (int i = 0; i < n; i++)
        for (long j = 0; j < u[i].n; j++) {
            if (u[i].keep[j]) continue;
            const uint32_t key = order_key(u[i].score[j]);
            const bool tie = key == limit && k > 0;
            if (tie) {
                k--;
                lowest = u[i].score[j];
            }
            u[i].keep[j] = key > limit || tie;
        }
    return (double)lowest;
}

void pick_units(const Prune *p, Units *u, int n, bool global, double sparsity, double *limit)
{
    int64_t total = 0, taken = 0;
    for (int i = 0; i < n; i++) memset(u[i].keep, 0, (size_t)u[i].n);
    for (int i = 0; i < n && !global; i++) limit[i] = units_keep(&u[i], 1, kept_count(u[i].n, sparsity));
    if (!global) return;
    for (int i = 0; i < n; i++) {
        const int64_t least = (int64_t)ceil((double)u[i].n * p->c->layer_floor - 1e-9);
        units_keep(&u[i], 1, least);
        total += u[i].n;
        taken += least;
    }
    const double low = units_keep(u, n, kept_count(total, sparsity) - taken);
    for (int i = 0; i < n; i++) limit[i] = low;
}

/* N best of every M along each row. */
static void pick_pattern(PruneItem *it, const float *score, int keep, int of)
{
    for (long b = 0; b < it->rows * it->cols; b += of) {
        memset(it->keep + b, 0, (size_t)of);
        for (int k = 0; k < keep; k++) {
            int best = -1;
            for (int j = 0; j < of; j++)
                if (!it->keep[b + j] && (best < 0 || score[b + j] > score[b + best])) best = j;
            it->keep[b + best] = 1;
        }
    }
}

static long up(long n, long block) { return (n + block - 1) / block; }

/* Tiles of br x bc; those at the edges are smaller. */
static bool pick_tiles(Prune *p, float *const *score, bool rows, double sparsity, Arena *tmp, Err *e)
{
    const bool square = !strcmp(p->c->method, "magnitude");
    Units *u = arena_alloc(tmp, (size_t)p->n * sizeof *u, e);
    double *limit = arena_alloc(tmp, (size_t)p->n * sizeof *limit, e);
    for (int i = 0; limit && i < p->n; i++) {
        const PruneItem *it = &p->item[i];
        const long br = rows ? 1 : (long)p->c->block_shape.v[0],
                   bc = rows ? it->cols : (long)p->c->block_shape.v[1], wide = up(it->cols, bc),
                   n = up(it->rows, br) * wide;
        double *sum = arena_alloc(tmp, (size_t)n * sizeof *sum, e);
        float *mean = arena_alloc(tmp, (size_t)n * sizeof *mean, e);
        u[i] = (Units){n, mean, arena_alloc(tmp, (size_t)n, e)};
        if (e->code) return false;
        for (long r = 0; r < it->rows; r++)
            for (long c = 0; c < it->cols; c++) {
                const double s = (double)score[i][r * it->cols + c];
                sum[r / br * wide + c / bc] += square && isfinite(s) ? s * s : s;
            }
        for (long t = 0; t < n; t++) {
            const long h = it->rows - t / wide * br, w = it->cols - t % wide * bc;
            mean[t] = (float)(sum[t] / (double)((h < br ? h : br) * (w < bc ? w : bc)));
        }
    }
    if (e->code) return false;
    pick_units(p, u, p->n, p->global, sparsity, limit);
    for (int i = 0; i < p->n; i++) {
        PruneItem *it = &p->item[i];
        const long br = rows ? 1 : (long)p->c->block_shape.v[0],
                   bc = rows ? it->cols : (long)p->c->block_shape.v[1];
        for (long r = 0; r < it->rows; r++)
            for (long c = 0; c < it->cols; c++)
                it->keep[r * it->cols + c] = u[i].keep[r / br * up(it->cols, bc) + c / bc];
        it->limit = limit[i];
    }
    return true;
}

static bool pick_entries(Prune *p, float *const *score, double sparsity, Arena *tmp, Err *e)
{
    const bool by_row = !strcmp(p->c->method, "wanda") && !p->global;
    Units *u = arena_alloc(tmp, (size_t)p->n * sizeof *u, e);
    double *limit = arena_alloc(tmp, (size_t)p->n * sizeof *limit, e);
    if (!limit) return false;
    for (int i = 0; i < p->n; i++) {
        PruneItem *it = &p->item[i];
        u[i] = (Units){it->rows * it->cols, score[i], it->keep};
        limit[i] = NAN;
        for (long r = 0; by_row && r < it->rows; r++) {
            Units row = {it->cols, score[i] + r * it->cols, it->keep + r * it->cols};
            double none;
            pick_units(p, &row, 1, false, sparsity, &none);
        }
    }
    if (!by_row) pick_units(p, u, p->n, p->global, sparsity, limit);
    for (int i = 0; i < p->n; i++) p->item[i].limit = limit[i];
    return true;
}

bool prune_pick(Prune *p, float *const *score, double sparsity, Arena *tmp, Err *e)
{
    int of;
    const char *s = p->c->structure;
    const int pattern = pattern_of(s, &of);
    for (int i = 0; i < p->n; i++)
        for (long j = 0; j < p->item[i].rows * p->item[i].cols; j++)
            if (isnan(score[i][j]))
                return err_set(e, ERR_FAIL, "%s: the %s score of element %ld is NaN; no mask was made",
                               p->item[i].name, p->c->method, j);
    if (!strcmp(s, "unstructured")) return pick_entries(p, score, sparsity, tmp, e);
    if (!strcmp(s, "row") || !strcmp(s, "block")) return pick_tiles(p, score, *s == 'r', sparsity, tmp, e);
    if (!pattern) return pick_grouped(p, score, sparsity, tmp, e);
    for (int i = 0; i < p->n; i++) {
        pick_pattern(&p->item[i], score[i], pattern, of);
        p->item[i].limit = NAN;
    }
    return true;
}
