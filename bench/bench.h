/* bench/bench.h: what the parts of `make bench` share: timing, statistics, output, the measured ceilings.
 *
 *   Stat s = bench_time(step, &x, 0.3, 5);              // repeats for 0.3 s, at least 5 times
 *   bench_line("{\"part\": \"ops\", %s}", bench_ms(text, &s));
 *
 * A part runs in a process of its own (bench.c), so its memory and its threads end with it. Numbers are
 * medians; the spread beside them is the distance of the quartiles as a share of the median.
 */
#ifndef BENCH_H
#define BENCH_H
#include "core/core.h"
#include "kernels/kernels.h"

typedef struct Stat {
    double median, low, high; /* seconds: quartiles */
    int n;                    /* repetitions */
} Stat;
/* v (n) is sorted in place. */
Stat bench_stat(double *v, int n);
static inline double bench_spread(const Stat *s) { return 100 * (s->high - s->low) / s->median; } /* % */
/* Seconds: wall clock, or of the calling thread's processor time. */
double bench_now(void);
/* Calls f(x) once to warm up, then until `budget` seconds and `least` repetitions are over; seconds per
 * call. Calls shorter than 20 us are timed in groups. */
Stat bench_time(void (*f)(void *), void *x, double budget, int least);

enum { N_SET = 4 };
/* What this machine can do, measured at the start of the run; shared by all parts. */
typedef struct Ceilings {
    double fma;                         /* FLOP/s of the best instruction set on all threads */
    double set_bytes[N_SET], bw[N_SET]; /* triad: working set, bytes/s on all threads */
} Ceilings;
typedef struct Bench {
    bool quick;
    bool cpu_time;    /* one thread, its processor time: for a machine that others use too */
    double wait;      /* seconds to wait for a quiet machine before each part */
    const char *pare; /* the program */
    const char *json; /* path: one line per result is appended */
    Ceilings *c;
} Bench;
/* threads_init with all threads; under cpu_time with one, whose processor time is the clock from here on. */
void bench_threads(const Bench *b);
/* The triad's rate at the nearest measured working set. */
double bench_bandwidth(const Ceilings *c, double bytes);
/* One JSON object of a result, newline added, to the file of results. */
void bench_line(const Bench *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void bench_title(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Prints and returns false when e holds an error. */
bool bench_ok(const Err *e, const char *what);

/* A program run to its end: stdout and stderr into files. */
typedef struct Child {
    double seconds;
    int64_t peak_rss; /* bytes, of the kernel's account */
    int status;       /* exit status; -1 = could not be started or died of a signal */
} Child;
Child bench_spawn(char *const argv[], const char *out, const char *err);
/* Uniform random ids < vocab, uint16 (nanoGPT .bin), written once. */
bool bench_tokens(const char *path, int vocab, long n);

/* Operations done by one thread in `rounds` rounds: the FMA ceiling per instruction set. 0: not in this CPU
 * or build. */
typedef double FmaLoop(long rounds);
FmaLoop bench_fma_portable, bench_fma_avx2, bench_fma_avx512;
/* a (n) = b (n) + 3 c (n) with the widest vectors of the build's instruction set. */
void bench_triad(float *a, const float *b, const float *c, long n);

/* The parts. */
typedef bool Part(const Bench *b);
Part bench_machine, bench_ops, bench_steps, bench_train, bench_kd, bench_lora, bench_io, bench_tokenizers;
Part bench_quant, bench_quant_steps; /* the second is part of the first */
#endif
