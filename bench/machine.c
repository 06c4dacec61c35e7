/* bench/machine.c: what the machine can do, measured in the same run: FMA rate per instruction set, the
 * memory's triad at four working sets, and the GEMM's rate at a large square by each way to it. */
#include "bench/bench.h"
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#ifdef HAVE_DNNL
#include <dnnl.h>
#endif

void bench_triad(float *a, const float *b, const float *c, long n)
{
#pragma omp parallel for simd schedule(static)
    for (long i = 0; i < n; i++) a[i] = b[i] + 3.0f * c[i];
}

typedef struct Fma {
    FmaLoop *loop;
    long rounds;
    int threads;
    double flops;
} Fma;

static void run_fma(void *x_)
{
    Fma *x = x_;
    double sum = 0;
#pragma omp parallel num_threads(x->threads) reduction(+ : sum)
    sum += x->loop(x->rounds);
    x->flops = sum;
}

/* The best of the repetitions: a ceiling is what can be reached, whatever else ran. */
static double fma_rate(const Bench *b, const char *name, FmaLoop *loop, int threads)
{
    Fma x = {loop, 200000, threads, 0};
    Stat s = bench_time(run_fma, &x, b->quick ? 0.1 : 0.3, 5);
    if (x.flops <= 0) return 0;
    double best = x.flops / s.low, median = x.flops / s.median;
    printf("  %-28s %2d thread%s %9.1f GFLOP/s (median %.1f, n %d)\n", name, threads, threads > 1 ? "s" : " ",
           best / 1e9, median / 1e9, s.n);
    bench_line(
        b,
        "{\"part\": \"machine\", \"what\": \"%s\", \"threads\": %d, \"gflops\": %.2f, \"median_gflops\": "
        "%.2f, \"n\": %d}",
        name, threads, best / 1e9, median / 1e9, s.n);
    return best;
}

static void measure_fma(const Bench *b)
{
    static const struct {
        const char *name;
        FmaLoop *loop;
        Isa isa;
    } all[] = {
        {"FMA, portable vectors", bench_fma_portable, ISA_PORTABLE},
#if defined(__x86_64__) && !defined(PORTABLE)
        {"FMA, AVX2", bench_fma_avx2, ISA_AVX2},
        {"FMA, AVX-512", bench_fma_avx512, ISA_AVX512}
#endif
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].isa > cpu_isa()) continue;
        double one = fma_rate(b, all[i].name, all[i].loop, 1), n = threads_count();
        b->c->fma = fmax(b->c->fma, n > 1 ? fma_rate(b, all[i].name, all[i].loop, (int)n) : one);
    }
}

typedef struct Triad {
    float *a, *b, *c; /* (n) */
    long n;
} Triad;
static void run_triad(void *x_)
{
    Triad *x = x_;
    bench_triad(x->a, x->b, x->c, x->n);
}

static void measure_memory(const Bench *b, Arena *a, Err *e)
{
    static const double mib[N_SET] = {1.5, 12, 96, 768};
    long most = (long)(mib[N_SET - 1] * 1048576 / 12);
    Triad x = {arena_alloc(a, (size_t)most * 4, e), arena_alloc(a, (size_t)most * 4, e),
               arena_alloc(a, (size_t)most * 4, e), 0};
    for (int i = 0; i < N_SET && !e->code; i++) {
        x.n = (long)(mib[i] * 1048576 / 12);
        Stat s = bench_time(run_triad, &x, b->quick ? 0.1 : 0.3, 5);
        double bytes = 12.0 * (double)x.n;
        b->c->set_bytes[i] = bytes;
        b->c->bw[i] = bytes / s.low;
        printf("  triad over %6.1f MiB          %2d threads %9.1f GB/s (median %.1f, n %d)\n", mib[i],
               threads_count(), b->c->bw[i] / 1e9, bytes / s.median / 1e9, s.n);
        bench_line(
            b,
            "{\"part\": \"machine\", \"what\": \"triad\", \"mib\": %.1f, \"threads\": %d, \"gbs\": %.2f, "
            "\"median_gbs\": %.2f, \"n\": %d}",
            mib[i], threads_count(), b->c->bw[i] / 1e9, bytes / s.median / 1e9, s.n);
    }
}

typedef struct Gemm {
    const Kernels *k; /* NULL: oneDNN called once for the whole product, on its own threads */
    int form;         /* 0 nt, 1 nn, 2 tn */
    float *y, *x, *w; /* (n,n) */
    long n;
} Gemm;

static void run_gemm(void *g_)
{
    Gemm *g = g_;
    long n = g->n;
    if (g->k) {
        void (*f)(void *, const void *, const void *, long, long, long, Mode) = g->form == 0 ? g->k->gemm_nt
                                                                                : g->form == 1
                                                                                    ? g->k->gemm_nn
                                                                                    : g->k->gemm_tn;
        f(g->y, g->x, g->w, n, n, n, SET);
    }
#ifdef HAVE_DNNL
    else
        dnnl_sgemm(g->form == 2 ? 'T' : 'N', g->form == 0 ? 'T' : 'N', n, n, n, 1.0f, g->x, n, g->w, n, 0.0f,
                   g->y, n);
#endif
}

static void measure_gemm(const Bench *b, Arena *a, Err *e)
{
    static const char *form[] = {"x w^T", "x w", "x^T w"};
    long n = b->quick ? 1024 : 2048;
    size_t bytes = (size_t)(n * n) * 4;
    Gemm g = {NULL, 0, arena_alloc(a, bytes, e), arena_alloc(a, bytes, e), arena_alloc(a, bytes, e), n};
    if (e->code) return;
    rng_uniform_f32(g.x, (size_t)(n * n), (RngKey){.seed = 1, .stream = 1}, -1, 1);
    rng_uniform_f32(g.w, (size_t)(n * n), (RngKey){.seed = 1, .stream = 2}, -1, 1);
    const Kernels *own = kernels_cpu_f32();
    const struct {
        const char *name;
        const Kernels *k;
        bool there;
    } way[] = {{kernels_blas_name(), own, true},
               {"builtin", kernels_isa_f32((int)cpu_isa(), "builtin"), true},
               {"dnnl_sgemm, whole", NULL,
#ifdef HAVE_DNNL
                true
#else
                false
#endif
               }};
    for (int i = 0; i < 3; i++) {
        if (!way[i].there || (i && !way[i].k && i < 2)) continue;
        for (g.form = 0, g.k = way[i].k; g.form < 3; g.form++) {
            Stat s = bench_time(run_gemm, &g, b->quick ? 0.2 : 0.6, 3);
            double rate = 2.0 * (double)n * (double)n * (double)n / s.median;
            printf("  GEMM %ld^3 %-5s %-28s %9.1f GFLOP/s, %3.0f %% of FMA (spread %.0f %%, n %d)\n", n,
                   form[g.form], way[i].name, rate / 1e9, 100 * rate / b->c->fma, bench_spread(&s), s.n);
            bench_line(
                b,
                "{\"part\": \"machine\", \"what\": \"gemm\", \"n\": %ld, \"form\": \"%s\", \"by\": \"%s\", "
                "\"gflops\": %.2f, \"of_fma\": %.3f, \"spread\": %.3f, \"reps\": %d}",
                n, form[g.form], way[i].name, rate / 1e9, rate / b->c->fma, bench_spread(&s) / 100, s.n);
        }
    }
}

/* "model name" of /proc/cpuinfo. */
static void cpu_name(char *out, size_t size)
{
    char line[512];
    snprintf(out, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "model name", 10) && strchr(line, ':')) {
            snprintf(out, size, "%s", strchr(line, ':') + 2);
            out[strcspn(out, "\n")] = 0;
            break;
        }
    if (f) fclose(f);
}

bool bench_machine(const Bench *b)
{
    char name[512];
    Arena a = {.name = "bench"};
    Err e = {0};
    bench_threads(b);
    cpu_name(name, sizeof name);
    bench_title("machine: %s, %d threads, kernels %s, GEMM %s", name, threads_count(),
                kernels_cpu_f32()->name, kernels_blas_name());
    printf("  %s\n", cpu_features());
    bench_line(
        b,
        "{\"part\": \"machine\", \"what\": \"cpu\", \"name\": \"%s\", \"threads\": %d, \"kernels\": \"%s\", "
        "\"gemm\": \"%s\", \"features\": \"%s\"}",
        name, threads_count(), kernels_cpu_f32()->name, kernels_blas_name(), cpu_features());
    measure_fma(b);
    measure_memory(b, &a, &e);
    measure_gemm(b, &a, &e);
    arena_free(&a);
    return bench_ok(&e, "machine");
}
