/* bench/measure.c: timing, statistics, output, child processes: what every part of `make bench` uses. */
#include "bench/bench.h"
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Between the two nearest of v (n, sorted). */
static double quantile(const double *v, int n, double q)
{
    double at = q * (n - 1);
    int i = (int)at;
    return i + 1 < n ? v[i] + (at - i) * (v[i + 1] - v[i]) : v[n - 1];
}

Stat bench_stat(double *v, int n)
{
    if (n < 1) return (Stat){NAN, NAN, NAN, 0};
    qsort(v, (size_t)n, sizeof *v, by_value);
    return (Stat){quantile(v, n, 0.5), quantile(v, n, 0.25), quantile(v, n, 0.75), n};
}

static bool cpu_time;
double bench_now(void)
{
    struct timespec t;
    if (!cpu_time) return time_now();
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
void bench_threads(const Bench *b)
{
    cpu_time = b->cpu_time;
    threads_init(cpu_time ? 1 : 0);
}

Stat bench_time(void (*f)(void *), void *x, double budget, int least)
{
    enum { CAP = 4096 };
    double v[CAP], start = bench_now(), t = start;
    f(x);
    double once = bench_now() - t;
    t = bench_now();
    f(x); /* the first call pays for page faults */
    once = fmin(once, bench_now() - t);
    int group = once < 20e-6 ? (int)(20e-6 / fmax(once, 1e-8)) + 1 : 1, n = 0;
    for (start = time_now(); n < CAP && (n < least || time_now() - start < budget); n++) {
        t = bench_now();
        for (int i = 0; i < group; i++) f(x);
        v[n] = (bench_now() - t) / group;
    }
    return bench_stat(v, n);
}

double bench_bandwidth(const Ceilings *c, double bytes)
{
    int best = 0;
    for (int i = 1; i < N_SET; i++)
        if (fabs(log(c->set_bytes[i] / bytes)) < fabs(log(c->set_bytes[best] / bytes))) best = i;
    return c->bw[best];
}

void bench_line(const Bench *b, const char *fmt, ...)
{
    FILE *f = fopen(b->json, "ae");
    if (!f) return;
    va_list ap;
    va_start(ap, fmt);
    vfprintf(f, fmt, ap);
    va_end(ap);
    fputc('\n', f);
    fclose(f);
}

void bench_title(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    putchar('\n');
    vprintf(fmt, ap);
    va_end(ap);
    putchar('\n');
    fflush(stdout);
}

bool bench_ok(const Err *e, const char *what)
{
    if (e->code) printf("  %s: %s\n", what, e->msg);
    return !e->code;
}

static void redirect(const char *path, int to)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd >= 0) dup2(fd, to);
}

Child bench_spawn(char *const argv[], const char *out, const char *err)
{
    double t = time_now();
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) return (Child){.status = -1};
    if (!pid) {
        redirect(out, 1);
        redirect(err, 2);
        execvp(argv[0], argv);
        _exit(127);
    }
    int status = 0;
    struct rusage u = {0};
    wait4(pid, &status, 0, &u);
    return (Child){time_now() - t, (int64_t)u.ru_maxrss * 1024, WIFEXITED(status) ? WEXITSTATUS(status) : -1};
}

bool bench_tokens(const char *path, int vocab, long n)
{
    struct stat s;
    if (!stat(path, &s) && s.st_size == 2 * n) return true;
    FILE *f = fopen(path, "we");
    if (!f) return perror(path), false;
    RngKey key = {.seed = 1, .stream = rng_stream("bench")};
    bool ok = true;
    for (long i = 0; i < n && ok; i++) {
        uint16_t id = (uint16_t)(rng_uniform(key, (uint32_t)i) * vocab);
        ok = fwrite(&id, sizeof id, 1, f) == 1;
    }
    return !fclose(f) && ok;
}
