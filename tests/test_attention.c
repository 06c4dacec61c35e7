/* tests/test_attention.c: attention kernels against a T x T definition in double, and against themselves. */
#include <math.h>
#include <omp.h>
#include <string.h>
#include "core/core.h"
#include "kernels/kernels.h"
#include "tests/test.h"

enum { GUARD = 64, EXTRA = 5 }; /* elements around a buffer; columns of a row that belong to nobody */
enum { SEG_NONE, SEG_PACKED, SEG_MIXED, SEG_APART }; /* APART: some queries match no key */

typedef struct Case {
    const char *name;
    long B, Tq, Tkv, H, Hkv, D, q_offset, window;
    bool causal, fused;
    double softcap;
    int seg;
    long spare; /* rows of cache behind Tkv */
} Case;

static const Case cases[] = {
    {"one", 1, 1, 1, 1, 1, 8, 0, 0, true, false, 0, SEG_NONE, 0},
    {"plain 8", 2, 70, 70, 4, 2, 8, 0, 0, true, true, 0, SEG_NONE, 0},
    {"student 12", 1, 65, 65, 3, 3, 12, 0, 0, true, true, 0, SEG_NONE, 0},
    {"not causal 16", 2, 33, 70, 2, 1, 16, 0, 0, false, false, 0, SEG_NONE, 3},
    {"64", 1, 130, 130, 2, 2, 64, 0, 0, true, true, 0, SEG_NONE, 0},
    {"80 soft-cap", 1, 50, 50, 2, 1, 80, 0, 0, true, true, 5, SEG_NONE, 0},
    {"96 window", 1, 150, 150, 1, 1, 96, 0, 20, true, true, 0, SEG_NONE, 0},
    {"128 group of 4", 1, 40, 40, 4, 1, 128, 0, 0, true, true, 0, SEG_NONE, 0},
    {"odd 7", 3, 37, 37, 2, 1, 7, 0, 0, true, true, 0, SEG_NONE, 0},
    {"odd 33 soft-cap", 1, 17, 90, 2, 2, 33, 73, 0, true, false, 30, SEG_NONE, 7},
    {"width 1", 1, 20, 20, 2, 2, 1, 0, 0, true, true, 0, SEG_NONE, 0},
    {"packed", 2, 140, 140, 4, 2, 16, 0, 0, true, true, 0, SEG_PACKED, 0},
    {"packed window", 2, 140, 140, 2, 2, 24, 0, 30, true, true, 0, SEG_PACKED, 0},
    {"mixed segments", 1, 80, 80, 2, 1, 20, 0, 0, false, true, 3, SEG_MIXED, 0},
    {"masked rows by segment", 1, 60, 60, 2, 1, 12, 0, 0, true, true, 0, SEG_APART, 0},
    {"masked rows by window", 1, 100, 40, 2, 1, 16, 0, 10, false, false, 0, SEG_NONE, 2},
    {"masked rows by offset", 1, 50, 50, 1, 1, 16, -20, 0, true, true, 0, SEG_NONE, 0},
    {"window without causal", 1, 90, 90, 1, 1, 8, 0, 25, false, true, 0, SEG_NONE, 0},
    {"decode", 2, 1, 131, 8, 2, 64, 130, 0, true, false, 0, SEG_NONE, 29},
    {"decode odd", 1, 1, 67, 3, 1, 21, 66, 0, true, false, 8, SEG_NONE, 1},
    {"decode window", 1, 3, 200, 2, 2, 12, 197, 50, true, false, 0, SEG_NONE, 5},
    {"decode segments", 2, 5, 90, 6, 3, 40, 85, 0, true, false, 0, SEG_MIXED, 6},
    {"chunk of a prompt", 1, 45, 170, 4, 2, 32, 125, 0, true, false, 0, SEG_NONE, 30},
    {"last tile of one row", 1, 97, 130, 2, 1, 16, 0, 0, true, false, 0, SEG_NONE, 0},
    {"wide 300", 1, 12, 12, 1, 1, 300, 0, 0, true, true, 0, SEG_NONE, 0},
    {"wide 256", 1, 70, 70, 1, 1, 256, 0, 0, true, true, 0, SEG_NONE, 0},
    {"dropout", 3, 70, 70, 4, 2, 16, 0, 0, true, true, 0, SEG_NONE, 0},
    {"dropout soft-cap packed", 2, 40, 40, 2, 1, 12, 0, 9, true, true, 2, SEG_PACKED, 0},
    {"long", 1, SIZED(1024, 260), SIZED(1024, 260), 2, 1, 64, 0, 0, true, true, 0, SEG_NONE, 0},
};
enum { CASES = sizeof cases / sizeof *cases };

/* One problem in double, dense: q dO o dq (B,Tq,H,D)  k v dk dv (B,Tkv,Hkv,D)  lse (B,H,Tq) */
typedef struct Problem {
    Arena arena;
    Err err;
    AttnShape a; /* strides of the kernel's buffers */
    bool fused;
    long nq, nkv, nstat;
    double *q, *k, *v, *dO, *o, *lse, *dq, *dk, *dv;
} Problem;

static double *doubles(Problem *p, long n)
{
    double *x = arena_alloc(&p->arena, (size_t)n * sizeof *x, &p->err);
    ASSERT_OK(p->err);
    return x;
}

/* Numbers that float holds exactly, so that every precision sees the same problem. */
static double *random_numbers(Problem *p, long n, const char *name, double size)
{
    double *x = doubles(p, n);
    for (long i = 0; i < n; i++) {
        RngKey key = {.seed = 5, .stream = rng_stream(name)};
        double u = rng_uniform(key, (uint32_t)(2 * i)) + rng_uniform(key, (uint32_t)(2 * i + 1)) - 1;
        x[i] = (double)(float)(size * 2.4 * u);
    }
    return x;
}

static const int32_t *segments(Problem *p, int kind, long B, long T, long offset, bool query)
{
    int32_t *s = arena_alloc(&p->arena, (size_t)(B * T) * sizeof *s, &p->err);
    ASSERT_OK(p->err);
    for (long i = 0; i < B * T; i++) {
        long pos = i % T + offset;
        s[i] = (int32_t)(kind == SEG_MIXED ? pos * pos % 3 : pos / 37 + i / T);
        if (kind == SEG_APART && query && i % T >= 2 * T / 3) s[i] = -1;
    }
    return s;
}

static bool allowed(const AttnShape *a, long b, long t, long s)
{
    long pos = a->q_offset + t;
    if (a->causal && s > pos) return false;
    if (a->window > 0 && s <= pos - a->window) return false;
    return !a->seg_q || a->seg_q[b * a->Tq + t] == a->seg_kv[b * a->Tkv + s];
}

/* The factor of a probability under dropout, from the words of kernels.h. */
static double kept(const AttnShape *a, long b, long h, long t, long s)
{
    if (a->dropout == 0) return 1;
    RngKey key = {a->seed, a->step, a->stream + (uint32_t)h, a->sample0 + (uint32_t)b};
    return rng_uniform(key, (uint32_t)(t * a->Tkv + s)) >= a->dropout ? 1 / (1 - a->dropout) : 0;
}

/* The definition, row by row with the whole row of scores at hand. */
static void naive_row(Problem *p, long b, long h, long t, double *s, double *ds)
{
    const AttnShape *a = &p->a;
    long D = a->D, hkv = h / (a->H / a->Hkv), at = ((b * a->Tq + t) * a->H + h) * D;
    double top = -INFINITY, sum = 0, delta = 0;
    for (long j = 0; j < a->Tkv; j++) {
        long kv = ((b * a->Tkv + j) * a->Hkv + hkv) * D;
        s[j] = 0;
        for (long d = 0; d < D; d++) s[j] += p->q[at + d] * p->k[kv + d];
        s[j] *= a->scale;
        ds[j] = a->scale;
        if (a->softcap > 0) {
            double u = tanh(s[j] / a->softcap);
            s[j] = a->softcap * u;
            ds[j] *= 1 - u * u;
        }
        if (!allowed(a, b, t, j)) s[j] = -INFINITY;
        top = fmax(top, s[j]);
    }
    for (long j = 0; j < a->Tkv; j++) sum += s[j] = top == -INFINITY ? 0 : exp(s[j] - top);
    p->lse[(b * a->H + h) * a->Tq + t] = top + log(sum);
    if (top == -INFINITY) {
        p->lse[(b * a->H + h) * a->Tq + t] = -INFINITY;
        return;
    }
    for (long j = 0; j < a->Tkv; j++)
        for (long d = 0; d < D; d++)
            p->o[at + d] += s[j] / sum * kept(a, b, h, t, j) *
                            p->v[((b * a->Tkv + j) * a->Hkv + hkv) * D + d];
    for (long d = 0; d < D; d++) delta += p->o[at + d] * p->dO[at + d];
    for (long j = 0; j < a->Tkv; j++) {
        long kv = ((b * a->Tkv + j) * a->Hkv + hkv) * D;
        double prob = s[j] / sum, dp = 0, keep = kept(a, b, h, t, j);
        for (long d = 0; d < D; d++) dp += p->dO[at + d] * p->v[kv + d];
        double g = prob * (keep * dp - delta) * ds[j];
        for (long d = 0; d < D; d++) {
            p->dv[kv + d] += prob * keep * p->dO[at + d];
            p->dk[kv + d] += g * p->q[at + d];
            p->dq[at + d] += g * p->k[kv + d];
        }
    }
}

static Problem problem_make(const Case *c)
{
    Problem p = {.arena = {.name = "attention"}, .fused = c->fused};
    p.a = (AttnShape){.B = c->B,
                      .Tq = c->Tq,
                      .Tkv = c->Tkv,
                      .H = c->H,
                      .Hkv = c->Hkv,
                      .D = c->D,
                      .q_stride = c->H * c->D + EXTRA,
                      .k_stride = c->Hkv * c->D + EXTRA,
                      .v_stride = c->Hkv * c->D + 2 * EXTRA,
                      .o_stride = c->H * c->D + EXTRA,
                      .kv_rows = c->spare ? c->Tkv + c->spare : 0,
                      .scale = 1 / sqrt((double)c->D),
                      .softcap = c->softcap,
                      .q_offset = c->q_offset,
                      .window = c->window,
                      .causal = c->causal,
                      .dropout = strstr(c->name, "dropout") ? 0.25 : 0,
                      .seed = 0x123456789aULL,
                      .step = 3,
                      .stream = 40,
                      .sample0 = 6};
    if (c->fused) p.a.q_stride = p.a.k_stride = p.a.v_stride = (c->H + 2 * c->Hkv) * c->D + EXTRA;
    if (c->seg) {
        p.a.seg_q = segments(&p, c->seg, c->B, c->Tq, c->q_offset, true);
        p.a.seg_kv = segments(&p, c->seg, c->B, c->Tkv, 0, false);
    }
    p.nq = c->B * c->Tq * c->H * c->D;
    p.nkv = c->B * c->Tkv * c->Hkv * c->D;
    p.nstat = c->B * c->H * c->Tq;
    p.q = random_numbers(&p, p.nq, "q", 1.5);
    p.k = random_numbers(&p, p.nkv, "k", 1.5);
    p.v = random_numbers(&p, p.nkv, "v", 1);
    p.dO = random_numbers(&p, p.nq, "dO", 1);
    p.o = doubles(&p, p.nq), p.dq = doubles(&p, p.nq), p.lse = doubles(&p, p.nstat);
    p.dk = doubles(&p, p.nkv), p.dv = doubles(&p, p.nkv);
    double *s = doubles(&p, 2 * c->Tkv);
    for (long i = 0; i < p.nstat; i++)
        naive_row(&p, i / c->Tq / c->H, i / c->Tq % c->H, i % c->Tq, s, s + c->Tkv);
    return p;
}

/* A kernel's buffer of n rows, filled with `fill` all over, guards included; elements of size real. */
typedef struct Buffer {
    char *base;
    size_t real;
    long n;
} Buffer;

static void put(Buffer b, long i, double x)
{
    if (b.real == sizeof(float)) ((float *)(void *)b.base)[i] = (float)x;
    else ((double *)(void *)b.base)[i] = x;
}
static double get(Buffer b, long i)
{
    return b.real == sizeof(float) ? (double)((float *)(void *)b.base)[i] : ((double *)(void *)b.base)[i];
}
static Buffer buffer_make(Problem *p, size_t real, long n, double fill)
{
    Buffer b = {arena_alloc(&p->arena, (size_t)(n + 2 * GUARD) * real, &p->err), real, n + 2 * GUARD};
    ASSERT_OK(p->err);
    for (long i = 0; i < b.n; i++) put(b, i, fill);
    return b;
}

/* A (B,T,heads,D) view into a buffer: element [i] of the dense array lies at index view_at(...). */
typedef struct View {
    Buffer b;
    long first, stride, rows, B, T, width;
} View;

static long view_at(const View *v, long i)
{
    long row = i / v->width, col = i % v->width;
    return v->first + (row / v->T * v->rows + row % v->T) * v->stride + col;
}
static void *view_data(const View *v) { return v->b.base + (size_t)v->first * v->b.real; }
static void view_put(const View *v, const double *x)
{
    for (long i = 0; i < v->B * v->T * v->width; i++) put(v->b, view_at(v, i), x ? x[i] : 7);
}

/* q, k, v (or their gradients) as the case lays them out. What belongs to nobody holds `fill`. */
typedef struct Triple {
    View q, k, v;
} Triple;

static Triple triple_make(Problem *p, size_t real, double fill)
{
    const AttnShape *a = &p->a;
    long rows = a->kv_rows ? a->kv_rows : a->Tkv, wq = a->H * a->D, wkv = a->Hkv * a->D;
    Buffer bq = buffer_make(p, real, a->B * a->Tq * a->q_stride, fill), bk = bq, bv = bq;
    if (!p->fused) {
        bk = buffer_make(p, real, a->B * rows * a->k_stride, fill);
        bv = buffer_make(p, real, a->B * rows * a->v_stride, fill);
    }
    return (Triple){{bq, GUARD, a->q_stride, a->Tq, a->B, a->Tq, wq},
                    {bk, GUARD + (p->fused ? wq : 0), a->k_stride, rows, a->B, a->Tkv, wkv},
                    {bv, GUARD + (p->fused ? wq + wkv : 0), a->v_stride, rows, a->B, a->Tkv, wkv}};
}

/* One run of both kernels. */
typedef struct Run {
    const Kernels *k;
    Triple in, grad;
    View o, dO;
    Buffer lse, delta;
} Run;

static View stat_view(const Problem *p, Buffer b) { return (View){b, GUARD, 1, p->nstat, 1, p->nstat, 1}; }

static void run_forward(Problem *p, Run *r, const double *q, const double *k, const double *v)
{
    const AttnShape *a = &p->a;
    size_t real = r->k->real;
    r->in = triple_make(p, real, NAN);
    view_put(&r->in.q, q), view_put(&r->in.k, k), view_put(&r->in.v, v);
    r->o = (View){buffer_make(p, real, a->B * a->Tq * a->o_stride, -3),
                  GUARD,
                  a->o_stride,
                  a->Tq,
                  a->B,
                  a->Tq,
                  a->H * a->D};
    r->lse = buffer_make(p, real, p->nstat, -3);
    View lse = stat_view(p, r->lse);
    r->k->attention_fwd(view_data(&r->o), view_data(&lse), view_data(&r->in.q), view_data(&r->in.k),
                        view_data(&r->in.v), a);
}

enum { WANT_Q = 1, WANT_K = 2, WANT_V = 4, WANT_ALL = 7 };

static void run_backward(Problem *p, Run *r, int want, Mode mode)
{
    size_t real = r->k->real;
    r->grad = triple_make(p, real, -3);
    if (mode == ADD) view_put(&r->grad.q, NULL), view_put(&r->grad.k, NULL), view_put(&r->grad.v, NULL);
    r->dO = r->o;
    r->dO.b = buffer_make(p, real, p->a.B * p->a.Tq * p->a.o_stride, NAN);
    view_put(&r->dO, p->dO);
    r->delta = buffer_make(p, real, p->nstat, -3);
    View lse = stat_view(p, r->lse), delta = stat_view(p, r->delta);
    r->k->attention_bwd(want & WANT_Q ? view_data(&r->grad.q) : NULL,
                        want & WANT_K ? view_data(&r->grad.k) : NULL,
                        want & WANT_V ? view_data(&r->grad.v) : NULL, view_data(&r->dO), view_data(&r->o),
                        view_data(&lse), view_data(&r->in.q), view_data(&r->in.k), view_data(&r->in.v),
                        view_data(&delta), &p->a, mode, mode, mode);
}

/* |view - base - want| / |want| over the own elements, in the Frobenius norm. */
static double distance(const View *v, const double *want, double base)
{
    double off = 0, size = 0;
    for (long i = 0; i < v->B * v->T * v->width; i++) {
        double e = get(v->b, view_at(v, i)) - base - want[i];
        off += e * e;
        size += want[i] * want[i];
    }
    return size > 0 ? sqrt(off / size) : sqrt(off);
}

/* Every element of the buffer outside the views (n of them) still holds fill. */
static void check_untouched(Problem *p, const View *views, int n, double fill)
{
    Buffer b = views[0].b;
    bool *own = arena_alloc(&p->arena, (size_t)b.n, &p->err);
    ASSERT_OK(p->err);
    for (int j = 0; j < n; j++)
        for (long i = 0; i < views[j].B * views[j].T * views[j].width; i++) own[view_at(&views[j], i)] = true;
    for (long i = 0; i < b.n; i++)
        ASSERT_MSG(own[i] || get(b, i) == fill, "element %ld of %ld written", i, b.n);
}

static void check_forward(Problem *p, Run *r, double tolerance, const char *name)
{
    double e = distance(&r->o, p->o, 0);
    ASSERT_MSG(e <= tolerance, "%s, %s: o is off by %.2e", r->k->name, name, e);
    for (long i = 0; i < p->nstat; i++) {
        double x = get(r->lse, GUARD + i), y = p->lse[i];
        ASSERT_MSG(x == y || fabs(x - y) <= 4 * tolerance * (1 + fabs(y)), "%s, %s: lse[%ld] %.9g, not %.9g",
                   r->k->name, name, i, x, y);
    }
    check_untouched(p, &r->o, 1, -3);
    View lse = stat_view(p, r->lse);
    check_untouched(p, &lse, 1, -3);
}

static void check_backward(Problem *p, Run *r, double base, double tolerance, const char *name)
{
    View g[3] = {r->grad.q, r->grad.k, r->grad.v};
    const double *want[3] = {p->dq, p->dk, p->dv};
    for (int j = 0; j < 3; j++) {
        double e = distance(&g[j], want[j], base);
        ASSERT_MSG(e <= tolerance, "%s, %s: d%c is off by %.2e", r->k->name, name, "qkv"[j], e);
    }
    if (p->fused) check_untouched(p, g, 3, -3);
    for (int j = 0; j < 3 && !p->fused; j++) check_untouched(p, &g[j], 1, -3);
    View delta = stat_view(p, r->delta);
    check_untouched(p, &delta, 1, -3);
}

/* The tables to test; NULL where this CPU or build has none. */
enum { TABLES = 4 };
static const Kernels *table(int i)
{
    if (i == 0) return kernels_ref_f64();
    if (i == 1) return kernels_ref_f32();
    if (i == 2) return kernels_isa_f32(ISA_AVX2, "builtin");
    return kernels_isa_f32(ISA_AVX512, "builtin");
}

/* A fast table must be faster code, or all tests below compare the reference with itself. */
TEST(attention, installed)
{
#if defined(__x86_64__) && !defined(PORTABLE)
    if (cpu_isa() == ISA_PORTABLE) SKIP("the CPU has no AVX2, or PARE_ISA hides it");
    for (int i = 2; i < 2 + (int)cpu_isa(); i++) {
        ASSERT(table(i) != NULL);
        ASSERT(table(i)->attention_fwd != kernels_ref_f32()->attention_fwd);
        ASSERT(table(i)->attention_bwd != kernels_ref_f32()->attention_bwd);
    }
    if (cpu_isa() == ISA_AVX512) ASSERT(table(2)->attention_fwd != table(3)->attention_fwd);
#else
    SKIP("portable build");
#endif
}

/* Against the definition; guards and foreign columns stay as they were; NaN in what must not be read stays
 * out. */
static void against_definition(int first, int last)
{
    for (int c = 0; c < CASES; c++) {
        Problem p = problem_make(&cases[c]);
        for (int i = first; i <= last; i++) {
            Run r = {.k = table(i)};
            if (!r.k) continue;
            bool exact = r.k->real == sizeof(double);
            run_forward(&p, &r, p.q, p.k, p.v);
            check_forward(&p, &r, exact ? 1e-13 : 1e-6, cases[c].name);
            run_backward(&p, &r, WANT_ALL, SET);
            check_backward(&p, &r, 0, exact ? 1e-12 : 2e-6, cases[c].name);
            run_backward(&p, &r, WANT_ALL, ADD);
            /* 7 was there: the rounding of the sum joins. */
            check_backward(&p, &r, 7, exact ? 1e-11 : 2e-5, cases[c].name);
        }
        arena_free(&p.arena);
    }
}

TEST(attention, reference_f64) { against_definition(0, 0); }
TEST(attention, reference_f32) { against_definition(1, 1); }
TEST(attention, avx2)
{
    if (!table(2)) SKIP("no AVX2 here");
    against_definition(2, 2);
}
TEST(attention, avx512)
{
    if (!table(3)) SKIP("no AVX-512 here");
    against_definition(3, 3);
}

static double loss(Problem *p, const double *q, const double *k, const double *v)
{
    Run r = {.k = kernels_ref_f64()};
    double sum = 0;
    run_forward(p, &r, q, k, v);
    for (long i = 0; i < p->nq; i++) sum += get(r.o.b, view_at(&r.o, i)) * p->dO[i];
    return sum;
}

/* <dO, J w> by central differences of the forward against <J' dO, w>, for one random direction w each in q,
 * k, v. */
TEST(attention, gradient_is_the_slope)
{
    for (int c = 0; c < CASES; c++) {
        if (cases[c].Tq > 200) continue;
        Problem p = problem_make(&cases[c]);
        Run r = {.k = kernels_ref_f64()};
        run_forward(&p, &r, p.q, p.k, p.v);
        run_backward(&p, &r, WANT_ALL, SET);
        View g[3] = {r.grad.q, r.grad.k, r.grad.v};
        const double *x[3] = {p.q, p.k, p.v}, h = 1e-5;
        for (int j = 0; j < 3; j++) {
            long n = j ? p.nkv : p.nq;
            const double *w = random_numbers(&p, n, "direction", 1);
            double slope = 0, size = 0, f[2];
            for (long i = 0; i < n; i++) {
                double t = get(g[j].b, view_at(&g[j], i)) * w[i];
                slope += t;
                size += t * t;
            }
            for (int side = 0; side < 2; side++) {
                double *y = doubles(&p, n);
                for (long i = 0; i < n; i++) y[i] = x[j][i] + (side ? h : -h) * w[i];
                f[side] = loss(&p, j == 0 ? y : p.q, j == 1 ? y : p.k, j == 2 ? y : p.v);
            }
            double measured = (f[1] - f[0]) / (2 * h), scale = fmax(fmax(fabs(slope), sqrt(size)), 1);
            ASSERT_MSG(fabs(measured - slope) <= 1e-7 * scale, "%s, d%c: slope %.12g, gradient says %.12g",
                       cases[c].name, "qkv"[j], measured, slope);
        }
        arena_free(&p.arena);
    }
}

static void same_bytes(Buffer a, Buffer b) { ASSERT_BYTES(a.base, b.base, (size_t)a.n * a.real); }

/* The number of threads chooses between schedules, never the bits. */
TEST(attention, bits_do_not_depend_on_threads)
{
    static const int threads[] = {1, 2, 3, 8};
    for (int c = 0; c < CASES; c++)
        for (int i = 1; i < TABLES; i++) {
            if (!table(i) || cases[c].Tq > 200) continue;
            Problem p = problem_make(&cases[c]);
            Run r[4];
            for (int j = 0; j < SIZED(4, 3); j++) {
                r[j] = (Run){.k = table(i)};
                omp_set_num_threads(threads[j]);
                run_forward(&p, &r[j], p.q, p.k, p.v);
                run_backward(&p, &r[j], WANT_ALL, c % 2 ? SET : ADD);
                same_bytes(r[0].o.b, r[j].o.b);
                same_bytes(r[0].lse, r[j].lse);
                same_bytes(r[0].grad.q.b, r[j].grad.q.b);
                same_bytes(r[0].grad.k.b, r[j].grad.k.b);
                same_bytes(r[0].grad.v.b, r[j].grad.v.b);
            }
            arena_free(&p.arena);
        }
}

/* What a query does not see has no influence on it, not even in the last bit. */
TEST(attention, masked_keys_have_no_influence)
{
    const Case c = {"blind", 1, 75, 75, 2, 1, 20, 0, 0, true, true, 0, SEG_NONE, 0};
    const long seen = 41;
    for (int i = 0; i < TABLES; i++) {
        if (!table(i)) continue;
        Problem p = problem_make(&c);
        Run r[2] = {{.k = table(i)}, {.k = table(i)}};
        for (int j = 0; j < 2; j++) {
            for (long n = seen * c.D; j && n < p.nkv; n++) p.v[n] = 1e17 * (p.k[n] = n % 2 ? 1e17 : -1e17);
            run_forward(&p, &r[j], p.q, p.k, p.v);
            run_backward(&p, &r[j], WANT_ALL, SET);
        }
        for (long n = 0; n < seen * c.H * c.D; n++) {
            ASSERT_EQ(get(r[0].o.b, view_at(&r[0].o, n)), get(r[1].o.b, view_at(&r[1].o, n)));
            ASSERT_EQ(get(r[0].grad.q.b, view_at(&r[0].grad.q, n)),
                      get(r[1].grad.q.b, view_at(&r[1].grad.q, n)));
        }
        arena_free(&p.arena);
    }
}

/* Any of dq dk dv may be NULL: the others keep their bits, nothing else is written. */
TEST(attention, outputs_may_be_missing)
{
    for (int c = 0; c < CASES; c += 2)
        for (int i = 0; i < TABLES; i++) {
            if (!table(i) || cases[c].Tq > 200) continue;
            Problem p = problem_make(&cases[c]);
            Run all = {.k = table(i)};
            run_forward(&p, &all, p.q, p.k, p.v);
            Run part = all;
            run_backward(&p, &all, WANT_ALL, SET);
            for (int want = 0; want < WANT_ALL; want++) {
                run_backward(&p, &part, want, SET);
                View g[3] = {part.grad.q, part.grad.k, part.grad.v},
                     full[3] = {all.grad.q, all.grad.k, all.grad.v};
                for (int j = 0; j < 3; j++)
                    for (long e = 0; e < g[j].B * g[j].T * g[j].width; e++) {
                        double x = get(g[j].b, view_at(&g[j], e)), y = get(full[j].b, view_at(&full[j], e));
                        ASSERT_EQ(x, want >> j & 1 ? y : -3.0);
                    }
            }
            arena_free(&p.arena);
        }
}

/* Scores of +-1e4 stay finite; a NaN or an infinity in the input comes out, it is not hidden by a maximum. */
TEST(attention, extreme_numbers)
{
    const Case c = {"extreme", 1, 50, 50, 1, 1, 16, 0, 0, true, true, 0, SEG_NONE, 0};
    for (int i = 0; i < TABLES; i++) {
        if (!table(i)) continue;
        Problem p = problem_make(&c);
        Run r = {.k = table(i)};
        for (long j = 0; j < p.nq; j++) p.q[j] *= 100, p.k[j] *= 100;
        run_forward(&p, &r, p.q, p.k, p.v);
        run_backward(&p, &r, WANT_ALL, SET);
        for (long j = 0; j < p.nq; j++) {
            ASSERT(isfinite(get(r.o.b, view_at(&r.o, j))));
            ASSERT(isfinite(get(r.grad.q.b, view_at(&r.grad.q, j))));
            ASSERT(isfinite(get(r.grad.k.b, view_at(&r.grad.k, j))));
        }
        p.q[20 * c.D + 3] = NAN;
        run_forward(&p, &r, p.q, p.k, p.v);
        for (long t = 0; t < c.Tq; t++) ASSERT_EQ(isnan(get(r.o.b, view_at(&r.o, t * c.D))) != 0, t == 20);
        arena_free(&p.arena);
    }
}
