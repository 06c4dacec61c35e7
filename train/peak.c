/* train/peak.c: the denominator of "share of measured peak": the rate of large matrix products here.
 *
 * peak = threads x (rate of one thread, by the processor time it took), so that other work on the machine
 * lowers the share of a run and not the peak it is compared with.
 */
#include "train/run_impl.h"
#include <math.h>
#include <omp.h>
#include <time.h>

static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { CALLS = 3, SMALLEST = 128, LARGEST = 1024 };

/* Squares double while a call stays below 15 ms; the best rate of all. x (LARGEST,LARGEST), y the same. */
static double one_thread(const Kernels *k, const void *x, void *y)
{
    double best = 0, shortest = 0;
    for (long n = SMALLEST; n <= LARGEST && 8 * shortest < 0.015; n *= 2) {
        shortest = INFINITY;
        for (int i = 0; i < CALLS; i++) {
            double t = cpu_now();
            k->gemm_nt(y, x, x, n, n, n, SET);
            shortest = fmin(shortest, fmax(cpu_now() - t, 1e-9));
        }
        best = fmax(best, 2.0 * (double)n * (double)n * (double)n / shortest);
    }
    return best;
}

double measured_peak(const Kernels *k, Err *e)
{
    static const Kernels *known;
    static double rate;
    if (known == k) return rate * threads_count();
    Arena a = {.name = "peak"};
    const size_t bytes = (size_t)LARGEST * LARGEST * k->real;
    char *x = arena_alloc(&a, bytes, e), *y = arena_alloc(&a, bytes, e);
    if (!e->code) {
        omp_set_num_threads(1);
        k->fill(x, 0.5, (long)LARGEST * LARGEST);
        rate = one_thread(k, x, y);
        omp_set_num_threads(threads_count());
        known = k;
    }
    arena_free(&a);
    return e->code ? 0 : rate * threads_count();
}
