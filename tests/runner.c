/* tests/runner.c: runs every TEST linked into this program, each in its own process, and says what failed.
 *
 *   tests [--list] [-k PART] [--jobs N] [--timeout SECONDS] [-v]
 *
 * N tests at a time: as many as cores, at most 4, unless said. Output: a block per failure (with what the
 * test wrote), skips with their reasons, seconds per suite (of the clock, and of the processors with all
 * that a test has started), and the last line `N passed, N failed, N skipped`. Exit status 0 when nothing
 * failed, 1 otherwise, 2 for wrong arguments.
 */
#define _GNU_SOURCE
#include "tests/test.h"

#include <ftw.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_SKIP = 77, MAX_JOBS = 64 };
static Test *first;
static char work_dir[256]; /* of this process's test, "" until asked for */

void test_register(Test *t)
{
    t->next = first;
    first = t;
}

TestValue test_int(long long v) { return (TestValue){.kind = 'i', .i = v, .d = (double)v}; }
TestValue test_uint(unsigned long long v) { return (TestValue){.kind = 'u', .u = v, .d = (double)v}; }
TestValue test_double(double v) { return (TestValue){.kind = 'd', .d = v}; }
TestValue test_pointer(const void *v) { return (TestValue){.kind = 'p', .p = v}; }

void test_fail(const char *file, int line, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fflush(stdout);
    fprintf(stderr, "%s:%d: ", file, line);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    _exit(1);
}

/* The reason is the last line the test writes; the runner shows it. */
void test_skip(const char *why)
{
    fflush(stdout);
    fprintf(stderr, "\n%s", why);
    _exit(EXIT_SKIP);
}

static bool values_equal(TestValue a, TestValue b)
{
    if (a.kind == 'p' && b.kind == 'p') return a.p == b.p;
    if (a.kind == 'p' || b.kind == 'p') { /* a pointer against the integer 0 */
        const TestValue *o = a.kind == 'p' ? &b : &a;
        return (a.kind == 'p' ? a.p : b.p) == NULL && o->d >= 0 && o->d <= 0;
    }
    if (a.kind == 'd' || b.kind == 'd') return a.d >= b.d && a.d <= b.d;
    if (a.kind == b.kind) return a.kind == 'i' ? a.i == b.i : a.u == b.u;
    const TestValue *s = a.kind == 'i' ? &a : &b, *u = a.kind == 'i' ? &b : &a;
    return s->i >= 0 && (unsigned long long)s->i == u->u;
}

static void value_text(char out[64], TestValue v)
{
    if (v.kind == 'i') snprintf(out, 64, "%lld", v.i);
    else if (v.kind == 'u') snprintf(out, 64, "%llu (0x%llx)", v.u, v.u);
    else if (v.kind == 'd') snprintf(out, 64, "%.17g", v.d);
    else snprintf(out, 64, "%p", v.p);
}

void test_eq(const char *file, int line, const char *sa, const char *sb, TestValue a, TestValue b,
             bool want_equal)
{
    char ta[64], tb[64];
    if (values_equal(a, b) == want_equal) return;
    value_text(ta, a);
    value_text(tb, b);
    test_fail(file, line, "%s %s %s\n    left  = %s\n    right = %s", sa, want_equal ? "==" : "!=", sb, ta,
              tb);
}

void test_str(const char *file, int line, const char *sa, const char *sb, const char *a, const char *b)
{
    if (a && b && strcmp(a, b) == 0) return;
    if (!a && !b) return;
    test_fail(file, line, "%s == %s\n    left  = \"%s\"\n    right = \"%s\"", sa, sb, a ? a : "(NULL)",
              b ? b : "(NULL)");
}

void test_contains(const char *file, int line, const char *text, const char *part)
{
    if (text && strstr(text, part)) return;
    test_fail(file, line, "text lacks \"%s\"\n    text = \"%s\"", part, text ? text : "(NULL)");
}

static bool is_close(double a, double b, double rtol, double atol)
{
    if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
    if (isinf(a) || isinf(b)) return isinf(a) && isinf(b) && signbit(a) == signbit(b);
    return fabs(a - b) <= atol + rtol * fabs(b);
}

void test_close(const char *file, int line, const char *sa, const char *sb, double a, double b, double rtol,
                double atol)
{
    if (is_close(a, b, rtol, atol)) return;
    test_fail(file, line,
              "%s close to %s\n    left  = %.17g\n    right = %.17g\n    |difference| = %.3g, allowed %.3g",
              sa, sb, a, b, fabs(a - b), atol + rtol * fabs(b));
}

/* One body for both element types: the pointer that is not NULL is read. */
static void close_arrays(const char *file, int line, const float *af, const float *bf, const double *ad,
                         const double *bd, size_t n, double rtol, double atol)
{
    size_t bad = 0, worst = 0;
    double worst_excess = -1;
    for (size_t i = 0; i < n; i++) {
        double a = af ? (double)af[i] : ad[i], b = bf ? (double)bf[i] : bd[i];
        if (is_close(a, b, rtol, atol)) continue;
        double excess = fabs(a - b) - (atol + rtol * fabs(b));
        if (isnan(excess)) excess = INFINITY;
        bad++;
        if (excess > worst_excess) {
            worst_excess = excess;
            worst = i;
        }
    }
    if (!bad) return;
    double a = af ? (double)af[worst] : ad[worst], b = bf ? (double)bf[worst] : bd[worst];
    test_fail(file, line,
              "%zu of %zu elements differ; worst at [%zu]\n    left  = %.9g\n    right = %.9g\n"
              "    |difference| = %.3g, allowed %.3g",
              bad, n, worst, a, b, fabs(a - b), atol + rtol * fabs(b));
}

void test_close_f32(const char *file, int line, const float *a, const float *b, size_t n, double rtol,
                    double atol)
{
    close_arrays(file, line, a, b, NULL, NULL, n, rtol, atol);
}

void test_close_f64(const char *file, int line, const double *a, const double *b, size_t n, double rtol,
                    double atol)
{
    close_arrays(file, line, NULL, NULL, a, b, n, rtol, atol);
}

void test_bytes(const char *file, int line, const void *a, const void *b, size_t n)
{
    const unsigned char *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i])
            test_fail(file, line, "bytes differ first at [%zu] of %zu: left %02x, right %02x", i, n, x[i],
                      y[i]);
}

/* ---- one test = one process ---------------------------------------------------------------------------- */

static void dir_name(char out[256], pid_t pid)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(out, 256, "%.200s/pare-test-%ld", tmp && *tmp ? tmp : "/tmp", (long)pid);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

const char *test_dir(void)
{
    if (work_dir[0]) return work_dir;
    dir_name(work_dir, getpid());
    /* what a killed runner left under this process id */
    nftw(work_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (mkdir(work_dir, 0700) != 0) test_fail(__FILE__, __LINE__, "cannot make %s", work_dir);
    return work_dir;
}

typedef struct Slot {
    Test *test;
    pid_t pid;
    int out, index; /* index: of the test in the list */
    double start;
} Slot;
typedef struct Seconds {
    double clock, cpu;
} Seconds;
typedef struct Totals {
    int passed, failed, skipped;
} Totals;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool finished;

/* A test that calls exit(0) on the way has not passed. */
static void check_finished(void)
{
    if (finished) return;
    fprintf(stderr, "the process ended before the test did\n");
    _exit(1);
}

static bool slot_start(Slot *s, Test *t, int index)
{
    fflush(stdout);
    fflush(stderr);
    *s = (Slot){.test = t, .index = index, .start = now(), .out = memfd_create("test", MFD_CLOEXEC)};
    if (s->out < 0) return false;
    s->pid = fork();
    if (s->pid == 0) {
        setpgid(0, 0);
        dup2(s->out, STDOUT_FILENO);
        dup2(s->out, STDERR_FILENO);
        setvbuf(stdout, NULL, _IOLBF, 0);
        atexit(check_finished);
        t->run();
        finished = true;
        exit(0); /* not _exit: the sanitizers look for leaks on the way out */
    }
    if (s->pid < 0) close(s->out);
    return s->pid > 0;
}

/* At most this much of a test's output is shown. */
enum { SHOWN = 16384 };

static void print_output(int fd, bool last_line_only)
{
    static char text[SHOWN + 1];
    off_t end = lseek(fd, 0, SEEK_END), from = end > SHOWN ? end - SHOWN : 0;
    ssize_t n = pread(fd, text, SHOWN, from);
    if (n <= 0) return;
    text[n] = 0;
    char *p = text, *nl;
    if (last_line_only && (nl = strrchr(text, '\n'))) p = nl + 1;
    if (from) printf("    [%lld bytes before this are left out]\n", (long long)from);
    while (*p) {
        size_t len = strcspn(p, "\n");
        printf("    %.*s\n", (int)len, p);
        p += len + (p[len] == '\n');
    }
}

static void slot_finish(Slot *s, Seconds took, int status, bool timed_out, double limit, bool verbose,
                        Totals *sum)
{
    Test *t = s->test;
    char dir[256];
    dir_name(dir, s->pid);
    if (access(dir, F_OK) == 0) nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    if (!timed_out && WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        sum->passed++;
        if (verbose) printf("ok   %s.%s (%.3f s, cpu %.3f s)\n", t->suite, t->name, took.clock, took.cpu);
    } else if (!timed_out && WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SKIP) {
        sum->skipped++;
        printf("skip %s.%s:\n", t->suite, t->name);
        print_output(s->out, true);
    } else {
        sum->failed++;
        printf("FAIL %s.%s (%s:%d, %.3f s): ", t->suite, t->name, t->file, t->line, took.clock);
        if (timed_out) printf("no end after %.0f s\n", limit);
        else if (WIFSIGNALED(status))
            printf("signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
        else printf("exit status %d\n", WEXITSTATUS(status));
        print_output(s->out, false);
    }
    fflush(stdout);
    close(s->out);
    s->test = NULL;
}

static double seconds_of(struct timeval t) { return (double)t.tv_sec + 1e-6 * (double)t.tv_usec; }

static bool slot_poll(Slot *s, double limit, bool verbose, Totals *sum, Seconds *seconds)
{
    int status = 0;
    bool timed_out = false;
    struct rusage used = {0};
    pid_t got = wait4(s->pid, &status, WNOHANG, &used);
    if (got == 0 && now() - s->start > limit) {
        timed_out = true;
        kill(-s->pid, SIGKILL);
        got = wait4(s->pid, &status, 0, &used);
    }
    if (got == 0) return false;
    seconds[s->index] = (Seconds){now() - s->start, seconds_of(used.ru_utime) + seconds_of(used.ru_stime)};
    slot_finish(s, seconds[s->index], status, timed_out, limit, verbose, sum);
    return true;
}

static int by_name(const void *a, const void *b)
{
    const Test *x = *(Test *const *)a, *y = *(Test *const *)b;
    int c = strcmp(x->suite, y->suite);
    return c ? c : strcmp(x->name, y->name);
}

static bool chosen(const Test *t, const char *part)
{
    char full[256];
    snprintf(full, sizeof full, "%s.%s", t->suite, t->name);
    return !part || strstr(full, part);
}

static Totals run_all(Test **tests, int n, int jobs, double limit, bool verbose, Seconds *seconds)
{
    Slot slots[MAX_JOBS] = {0};
    Totals sum = {0};
    int next = 0, running = 0;
    while (next < n || running) {
        for (int j = 0; j < jobs && next < n; j++) {
            if (slots[j].test) continue;
            if (slot_start(&slots[j], tests[next], next)) running++;
            else {
                printf("FAIL %s.%s: no process for it\n", tests[next]->suite, tests[next]->name);
                slots[j].test = NULL;
                sum.failed++;
            }
            next++;
        }
        bool any = false;
        for (int j = 0; j < jobs; j++) {
            if (!slots[j].test || !slot_poll(&slots[j], limit, verbose, &sum, seconds)) continue;
            running--;
            any = true;
        }
        if (!any && running) nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
    return sum;
}

static void print_suites(Test **tests, int n, const Seconds *seconds)
{
    double all = 0;
    for (int i = 0; i < n;) {
        Seconds s = {0};
        int from = i;
        for (; i < n && strcmp(tests[i]->suite, tests[from]->suite) == 0; i++) {
            s.clock += seconds[i].clock;
            s.cpu += seconds[i].cpu;
        }
        all += s.cpu;
        printf("%-24s %4d tests %8.2f s, cpu %8.2f s\n", tests[from]->suite, i - from, s.clock, s.cpu);
    }
    printf("cpu %.1f s in all\n", all);
}

/* Tests that use all cores are few; the others wait for disks and for programs they have started. */
static int default_jobs(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < 1 ? 1 : cores < 4 ? (int)cores : 4;
}

static int usage(void)
{
    fprintf(stderr, "usage: tests [--list] [-k PART] [--jobs N] [--timeout SECONDS] [-v]\n");
    return 2;
}

int main(int argc, char **argv)
{
    const char *part = NULL;
    bool list = false, verbose = false;
    int jobs = default_jobs();
    double limit = 120;
    for (int i = 1; i < argc; i++) {
        bool value = i + 1 < argc;
        if (strcmp(argv[i], "--list") == 0) list = true;
        else if (strcmp(argv[i], "-v") == 0) verbose = true;
        else if (strcmp(argv[i], "-k") == 0 && value) part = argv[++i];
        else if (strcmp(argv[i], "--jobs") == 0 && value) jobs = (int)strtol(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--timeout") == 0 && value) limit = strtod(argv[++i], NULL);
        else return usage();
    }
    if (jobs < 1 || jobs > MAX_JOBS || !(limit > 0)) return usage();
    int n = 0;
    for (Test *t = first; t; t = t->next) n += chosen(t, part);
    Test **tests = calloc((size_t)n + 1, sizeof(Test *));
    Seconds *seconds = calloc((size_t)n + 1, sizeof *seconds);
    if (!tests || !seconds) return 1;
    int k = 0;
    for (Test *t = first; t; t = t->next)
        if (chosen(t, part)) tests[k++] = t;
    qsort(tests, (size_t)n, sizeof *tests, by_name);
    Totals sum = {0};
    if (list) {
        for (int i = 0; i < n; i++) printf("%s.%s\n", tests[i]->suite, tests[i]->name);
    } else {
        sum = run_all(tests, n, jobs, limit, verbose, seconds);
        print_suites(tests, n, seconds);
        if (!n) printf("no test has '%s' in its name\n", part ? part : "");
        printf("%d passed, %d failed, %d skipped\n", sum.passed, sum.failed, sum.skipped);
    }
    free(tests);
    free(seconds);
    return sum.failed || (!n && !list) ? 1 : 0;
}
