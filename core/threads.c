/* core/threads.c: how many threads, and what each of them does with subnormal numbers.
 *
 *   count = min(cores of the affinity mask, ceil(cgroup quota / period), OMP_NUM_THREADS where it is set)
 *
 * Subnormals cost up to a hundred cycles each and carry nothing in training: results and inputs below 2^-126
 * count as 0.
 */
#include "core/core.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#if defined(__x86_64__) || defined(__i386__)
#include <xmmintrin.h>

/* GNU OpenMP's idle threads spin for 300,000 pauses (about 14 ms) at each barrier before they sleep: with
 * other work on the machine that is nearly all of a small model's step (measured: 76 ms a step on one thread,
 * 450 on two). The count is read when the library is loaded, so it is set before; the user's own wins. */
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
static void short_spins(void) { setenv("GOMP_SPINCOUNT", "1000", 0); }
__attribute__((section(".preinit_array"), used)) static void (*const before_libraries)(void) = short_spins;
#endif
#endif

static int thread_count = 1;

static void flush_subnormals(void)
{
#if defined(__x86_64__) || defined(__i386__)
    _mm_setcsr(_mm_getcsr() | 0x8040u); /* FTZ (bit 15) and DAZ (bit 6) */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | (1ull << 24)));
#endif
}

/* The first `fields` numbers of a one-line file; "max" reads as -1. False when the file is not there or is
 * otherwise. */
static bool read_numbers(const char *path, double *v, int fields)
{
    char line[128];
    FILE *f = fopen(path, "re");
    if (!f) return false;
    char *got = fgets(line, sizeof line, f);
    fclose(f);
    if (!got) return false;
    char *p = line;
    for (int i = 0; i < fields; i++) {
        char *end;
        while (*p == ' ') p++;
        if (strncmp(p, "max", 3) == 0) {
            v[i] = -1;
            end = p + 3;
        } else {
            v[i] = strtod(p, &end);
        }
        if (end == p) return false;
        p = end;
    }
    return true;
}

/* Cores the group at `dir` (below the mount `root`) may use, 0 = no limit. v2: cpu.max "quota period"; v1:
 * two files. */
static double group_cores(const char *root, const char *dir)
{
    char path[1024];
    double v[2];
    snprintf(path, sizeof path, "%s%s/cpu.max", root, dir);
    if (read_numbers(path, v, 2)) return v[0] > 0 && v[1] > 0 ? v[0] / v[1] : 0;
    snprintf(path, sizeof path, "%s%s/cpu.cfs_quota_us", root, dir);
    if (!read_numbers(path, v, 1) || v[0] <= 0) return 0;
    snprintf(path, sizeof path, "%s%s/cpu.cfs_period_us", root, dir);
    return read_numbers(path, v + 1, 1) && v[1] > 0 ? v[0] / v[1] : 0;
}

/* The tightest quota from our group up to the mount's root; a container sees only its own part of the
 * tree. */
static double tightest(const char *root, const char *dir)
{
    char path[768];
    double best = 0;
    snprintf(path, sizeof path, "%s", dir);
    for (;;) {
        size_t n = strlen(path);
        while (n && path[n - 1] == '/') path[--n] = 0;
        double cores = group_cores(root, path);
        if (cores > 0 && (best <= 0 || cores < best)) best = cores;
        char *slash = strrchr(path, '/');
        if (!slash) return best;
        *slash = 0;
    }
}

static double cgroup_cores(void)
{
    char line[768];
    double best = tightest("/sys/fs/cgroup", ""), v1 = tightest("/sys/fs/cgroup/cpu", "");
    if (v1 > 0 && (best <= 0 || v1 < best)) best = v1;
    FILE *f = fopen("/proc/self/cgroup", "re");
    if (!f) return best;
    while (fgets(line, sizeof line, f)) { /* "0::/a/b" (v2) or "4:cpu,cpuacct:/a/b" (v1) */
        char *names = strchr(line, ':'), *dir = names ? strchr(names + 1, ':') : NULL;
        if (!dir) continue;
        *dir++ = 0;
        dir[strcspn(dir, "\n")] = 0;
        names++;
        double cores = 0;
        if (!*names) cores = tightest("/sys/fs/cgroup", dir);
        else if (strcmp(names, "cpu") == 0 || strncmp(names, "cpu,", 4) == 0 || strstr(names, ",cpu,"))
            cores = tightest("/sys/fs/cgroup/cpu", dir);
        if (cores > 0 && (best <= 0 || cores < best)) best = cores;
    }
    fclose(f);
    return best;
}

/* Which of {all threads, one} a repeated step runs on; both give the same bits. On all of them, a share of
 * the cores' time that is small says that threads wait for each other's turn: then one is tried. */
static struct {
    bool on, one;
    int calls, trial; /* trial: steps left in the other setting */
    double cpu, used, wall, recent, tried;
} pace;

enum { PACE_WINDOW = 4, PACE_EVERY = 64, PACE_TRIAL = 2 };
#define PACE_BUSY 0.6

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void pace_switch(void)
{
    pace.one = !pace.one;
    pace.calls = 0;
    omp_set_num_threads(pace.one ? 1 : thread_count);
}

void threads_pace_begin(void)
{
    if (!pace.on) return;
    if (pace.trial) pace_switch();
    pace.trial = pace.calls = 0;
    pace.cpu = cpu_seconds();
}

void threads_pace(double seconds)
{
    if (!pace.on) return;
    double cpu = cpu_seconds(), used = cpu - pace.cpu;
    pace.cpu = cpu;
    if (pace.trial) {
        pace.tried = pace.trial == PACE_TRIAL || seconds < pace.tried ? seconds : pace.tried;
        if (--pace.trial == 0 && pace.tried > 0.8 * pace.recent) pace_switch();
        return;
    }
    if (pace.calls++ % PACE_WINDOW == 0) {
        pace.used = pace.wall = 0;
        pace.recent = seconds;
    }
    pace.used += used;
    pace.wall += seconds;
    if (seconds < pace.recent) pace.recent = seconds;
    bool try = pace.one ? pace.calls >= PACE_EVERY : pace.used < PACE_BUSY * pace.wall * thread_count;
    if (pace.calls % PACE_WINDOW == 0 && try) {
        pace.trial = PACE_TRIAL;
        pace_switch();
    }
}

int threads_init(int n)
{
    pace.on = n <= 0;
    pace.one = false;
    pace.calls = pace.trial = 0;
    pace.cpu = cpu_seconds();
    if (n <= 0) {
        n = omp_get_num_procs(); /* the affinity mask, also under OMP_PROC_BIND */
        double quota = cgroup_cores();
        if (quota > 0 && quota < n) n = (int)quota + ((double)(int)quota < quota);
        if (getenv("OMP_NUM_THREADS") && omp_get_max_threads() < n) n = omp_get_max_threads();
        if (n < 1) n = 1;
    }
    omp_set_dynamic(0);
    omp_set_num_threads(n);
    flush_subnormals();
#pragma omp parallel num_threads(n)
    flush_subnormals();
    thread_count = n;
    pace.on = pace.on && n > 1;
    return n;
}

int threads_count(void) { return thread_count; }

void slice_range(long n, long unit, int i, int n_slices, long *lo, long *hi)
{
    if (unit < 1) unit = 1;
    long units = n > 0 ? (n - 1) / unit + 1 : 0, each = units / n_slices, rest = units % n_slices;
    long first = i * each + (i < rest ? i : rest), last = first + each + (i < rest);
    *lo = first < units ? first * unit : n;
    *hi = last < units ? last * unit : n;
    if (n <= 0) *lo = *hi = 0;
}
