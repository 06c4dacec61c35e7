/* tests/kernels_impl.h: what a case of tests/test_kernels.c is made of: one run on one table, its inputs (the
 * same floats for every table) and its outputs (guarded, compared).
 *
 *   static void run_copy(Ctx *c) { c->k->copy(out(c, c->a, 1), in(c, c->a, 1), c->a); }
 */
#ifndef KERNELS_IMPL_H
#define KERNELS_IMPL_H
#include "core/core.h"
#include "kernels/kernels.h"
#include "tests/test.h"
#include <math.h>
#include <string.h>

enum { MAX_OUT = 8, GUARD = 64 };
typedef struct Out {
    unsigned char *data;
    size_t n, elem;
} Out;               /* GUARD bytes stand before and behind */
typedef struct Ctx { /* one run of a case on one table */
    const Kernels *k;
    Arena arena;
    Err err;
    int shape; /* which of the list */
    long a, b; /* shape: n = a, or rows a and width b */
    Mode mode;
    bool option; /* a case's own second variant */
    uint32_t stream;
    int n_out;
    Out out[MAX_OUT];
} Ctx;

static inline void *alloc(Ctx *c, size_t bytes)
{
    void *p = arena_alloc(&c->arena, bytes, &c->err);
    if (!p) test_fail(__FILE__, __LINE__, "%s", c->err.msg);
    return p;
}

enum { PERIOD = 8191 }; /* a prime: repeats line up with no row */
/* n elements of the table's type, the same float values for every table. */
static inline void numbers(Ctx *c, void *to, long n, double scale)
{
    float *x = c->k->real == sizeof(float) ? to : alloc(c, (size_t)n * sizeof *x);
    rng_uniform_f32(x, (size_t)(n < PERIOD ? n : PERIOD), (RngKey){.seed = 11, .stream = ++c->stream},
                    -2.0 * scale, 2.0 * scale);
    for (long i = PERIOD; i < n; i++) x[i] = x[i - PERIOD];
    if (c->k->real == sizeof(double))
        for (long i = 0; i < n; i++) ((double *)to)[i] = (double)x[i];
}

static inline void *in(Ctx *c, long n, double scale)
{
    void *p = alloc(c, (size_t)n * c->k->real);
    numbers(c, p, n, scale);
    return p;
}

static inline void *out_bytes(Ctx *c, long n, size_t elem)
{
    ASSERT(c->n_out < MAX_OUT);
    unsigned char *p = alloc(c, (size_t)n * elem + 2 * GUARD);
    memset(p, 0x5a, (size_t)n * elem + 2 * GUARD);
    c->out[c->n_out++] = (Out){p + GUARD, (size_t)n, elem};
    return p + GUARD;
}

/* An output that starts with numbers (what ADD adds to, or what an in-place kernel reads). */
static inline void *out(Ctx *c, long n, double scale)
{
    void *p = out_bytes(c, n, c->k->real);
    numbers(c, p, n, scale);
    return p;
}

static inline double *sums(Ctx *c, long n)
{
    double *s = out_bytes(c, n, sizeof(double));
    for (long i = 0; i < n; i++) s[i] = 0.25;
    return s;
}

static inline int32_t *ids(Ctx *c, long n, long below, bool ignore)
{
    int32_t *p = alloc(c, (size_t)n * sizeof *p);
    const RngKey key = {.seed = 5, .stream = ++c->stream};
    for (long i = 0; i < n; i++) {
        p[i] = (int32_t)(rng_u32(key, (uint32_t)i) % (uint32_t)below);
        if (ignore && i % 5 == 2) p[i] = -100;
    }
    return p;
}

/* |got - want| <= tol (|want| + rms(want)), element by element; where a gradient is what is left of terms of
 * a known size (a row of one element has none), that size counts as rms. */
typedef struct Case {
    const char *name;
    void (*run)(Ctx *c);
    bool rows;
    double tol, size;
} Case;
#define FLAT(fn, tol)                                                                                        \
    {                                                                                                        \
#fn, run_##fn, false, tol, 0                                                                         \
    }
#define ROWS(fn, tol)                                                                                        \
    {                                                                                                        \
#fn, run_##fn, true, tol, 0                                                                          \
    }
#define LEFT(fn, tol, size)                                                                                  \
    {                                                                                                        \
#fn, run_##fn, true, tol, size                                                                       \
    }
#endif
