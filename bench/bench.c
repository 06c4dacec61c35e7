/* bench/bench.c: `make bench`. Runs the parts, each in its own process, and says what else the machine did
 * meanwhile.
 *
 *   build/release/bench [--quick] [--cpu-time] [--wait=S] [--pare=PATH] [--json=PATH] [PART ...]
 *
 * --cpu-time: machine, ops and steps on one thread, by its processor time: what others do on the machine
 * counts less. --wait=S: up to S seconds before each part until others use less than 5 % of the CPUs.
 */
#include "bench/bench.h"
#include "formats/formats.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name, *help;
    Part *run;
} part[] = {{"machine", "ceilings: FMA, GEMM, memory", bench_machine},
            {"ops", "every operator at real shapes, forward and backward", bench_ops},
            {"steps", "where a training step's time goes, by operator", bench_steps},
            {"train", "training beside PyTorch at the shapes A, L and B2", bench_train},
            {"kd", "distillation beside PyTorch", bench_kd},
            {"lora", "adapters beside full training and beside peft", bench_lora},
            {"quant", "packed decode, codecs, steps with quantisers and movement", bench_quant},
            {"io", "checkpoints, start-up", bench_io},
            {"tokenizers", "text to ids, beside tiktoken, tokenizers and SentencePiece", bench_tokenizers}};
enum { N_PART = sizeof part / sizeof *part };

/* Busy seconds of all CPUs since boot; -1 where the system does not tell. */
static double busy_all(void)
{
    double v[8] = {0};
    FILE *f = fopen("/proc/stat", "re");
    if (!f) return -1;
    int n = fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6,
                   v + 7);
    fclose(f);
    return n < 7 ? -1 : (v[0] + v[1] + v[2] + v[5] + v[6]) / (double)sysconf(_SC_CLK_TCK);
}

static double busy_own(void)
{
    double s = 0;
    for (int i = 0; i < 2; i++) {
        struct rusage u;
        getrusage(i ? RUSAGE_CHILDREN : RUSAGE_SELF, &u);
        s += (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    }
    return s;
}

/* Until others leave the machine alone, or the patience is over. */
static void wait_for_quiet(const Bench *b)
{
    double cpus = (double)sysconf(_SC_NPROCESSORS_ONLN), until = time_now() + b->wait;
    while (time_now() < until) {
        double all = busy_all(), t = time_now();
        nanosleep(&(struct timespec){.tv_sec = 2}, NULL);
        if (all < 0 || busy_all() - all < 0.05 * cpus * (time_now() - t)) return;
    }
}

/* One part in a process of its own. */
static bool run_part(const Bench *b, int i)
{
    wait_for_quiet(b);
    double all = busy_all(), own = busy_own(), start = time_now(), load[1] = {-1};
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) return perror("fork"), false;
    if (!pid) {
        bool ok = part[i].run(b);
        fflush(stdout);
        _exit(ok ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    double t = time_now() - start, cpus = (double)sysconf(_SC_NPROCESSORS_ONLN);
    double foreign = all < 0 ? -1 : 100 * ((busy_all() - all) - (busy_own() - own)) / (t * cpus);
    if (getloadavg(load, 1) < 1) load[0] = -1;
    printf("  [%s: %.0f s; other processes used %.0f %% of the CPUs, load average %.2f]\n", part[i].name, t,
           foreign < 0 && foreign > -5 ? 0 : foreign, load[0]);
    bench_line(b,
               "{\"part\": \"%s\", \"what\": \"conditions\", \"seconds\": %.1f, \"foreign_cpu\": %.3f, "
               "\"load_average\": %.2f}",
               part[i].name, t, foreign / 100, load[0]);
    if (status) printf("  [%s: failed]\n", part[i].name);
    return status == 0;
}

static int usage(void)
{
    puts("usage: bench [--quick] [--cpu-time] [--wait=S] [--pare=PATH] [--json=PATH] [PART ...]");
    for (int i = 0; i < N_PART; i++) printf("  %-10s %s\n", part[i].name, part[i].help);
    return 2;
}

int main(int argc, char **argv)
{
    Bench b = {.pare = "build/release/pare", .json = "build/bench.jsonl"};
    bool want[N_PART] = {false}, any = false, ok = true;
    for (int i = 1; i < argc; i++) {
        int k = 0;
        if (!strcmp(argv[i], "--quick")) b.quick = true;
        else if (!strcmp(argv[i], "--cpu-time")) b.cpu_time = true;
        else if (!strncmp(argv[i], "--wait=", 7)) b.wait = strtod(argv[i] + 7, NULL);
        else if (!strncmp(argv[i], "--pare=", 7)) b.pare = argv[i] + 7;
        else if (!strncmp(argv[i], "--json=", 7)) b.json = argv[i] + 7;
        else {
            while (k < N_PART && strcmp(argv[i], part[k].name)) k++;
            if (k == N_PART) return usage();
            want[k] = any = true;
        }
    }
    Err e = {0};
    if (!dir_make("build/bench", &e)) return bench_ok(&e, "build/bench"), 1;
    b.c = mmap(NULL, sizeof *b.c, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (b.c == MAP_FAILED) return perror("mmap"), 1;
    remove(b.json);
    char now[32] = "";
    time_t t = time(NULL);
    struct tm tm;
    if (gmtime_r(&t, &tm)) strftime(now, sizeof now, "%Y-%m-%d %H:%M UTC", &tm);
    printf("%s, %s; medians, spread = quartile distance / median, n = repetitions\n", pare_version(), now);
    bench_line(&b, "{\"part\": \"run\", \"date\": \"%s\", \"quick\": %s, \"cpu_time\": %s}", now,
               b.quick ? "true" : "false", b.cpu_time ? "true" : "false");
    ok = run_part(&b, 0); /* the others need the ceilings */
    for (int i = 1; i < N_PART; i++)
        if (!any || want[i]) ok = run_part(&b, i) && ok;
    printf("results as JSON lines: %s\n", b.json);
    return ok ? 0 : 1;
}
