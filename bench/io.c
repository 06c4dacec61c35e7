/* bench/io.c: checkpoint writing and reading, opening a model, start-up. Files lie in build/bench
 * (so on the disk of the checkout); reads come from the page cache, writes include fsync.
 */
#include "bench/bench.h"
#include "train/run_impl.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static double megabytes(const char *path)
{
    struct stat s;
    return stat(path, &s) ? 0 : (double)s.st_size / 1e6;
}

static void rate(const Bench *b, const char *what, double mb, const Stat *s)
{
    printf("  %-44s %8.1f MB %9.1f ms %9.1f MB/s (spread %.0f %%, n %d)\n", what, mb, 1e3 * s->median,
           mb / s->median, bench_spread(s), s->n);
    bench_line(
        b,
        "{\"part\": \"io\", \"what\": \"%s\", \"mb\": %.3f, \"ms\": %.3f, \"mbs\": %.2f, \"spread\": %.3f, "
        "\"n\": %d}",
        what, mb, 1e3 * s->median, mb / s->median, bench_spread(s) / 100, s->n);
    fflush(stdout);
}

typedef struct State {
    Run r;
    Arena a;
    Err e;
    const char *path;
} State;

static void save(void *x_)
{
    State *x = x_;
    Arena a = {.name = "bench"};
    checkpoint_save("build/bench/run-io", &x->r.c->checkpoint, &x->r.model, x->r.opt, &x->r.st, &a, &x->e);
    arena_free(&a);
}
static void load(void *x_)
{
    State *x = x_;
    Arena a = {.name = "bench"};
    checkpoint_load(x->path, &x->r.model, x->r.opt, &x->r.st, &a, &x->e);
    arena_free(&a);
}
static void open_model(void *x_)
{
    State *x = x_;
    Arena a = {.name = "bench"};
    Model m;
    model_open(&m, x->path, kernels_cpu_f32(), &a, &x->e);
    arena_free(&a);
}

static bool checkpoints(const Bench *b)
{
    State x = {.a = {.name = "bench"}};
    char *set[] = {(char[]){"run.output_dir=build/bench/run-io"}, (char[]){"checkpoint.save_optimizer=true"}};
    Config *c = config_load(&x.a, "bench/shape-a.yaml", 2, set, NULL, &x.e);
    int least = b->quick ? 2 : 5;
    if (c && run_setup(&x.r, c, &x.a, &x.e)) {
        x.path = "build/bench/run-io/checkpoints/step_00000000.h5";
        Stat w = bench_time(save, &x, 0, least), r = bench_time(load, &x, 0, least);
        double mb = megabytes(x.path);
        rate(b, "checkpoint of shape A with moments, write", mb, &w);
        rate(b, "checkpoint of shape A with moments, read", mb, &r);
        OutModel out;
        x.path = "build/bench/run-io/model.safetensors";
        if (model_out(&x.r.model, &out, DT_F32, &x.a, &x.e) &&
            formats_write_hf("build/bench/run-io/hf", &out, 0, &x.e)) {
            x.path = "build/bench/run-io/hf";
            Stat o = bench_time(open_model, &x, 0, least);
            rate(b, "model of shape A, open (safetensors)",
                 megabytes("build/bench/run-io/hf/model.safetensors"), &o);
        }
    }
    run_free(&x.r);
    arena_free(&x.a);
    return bench_ok(&x.e, "checkpoints");
}

/* Wall-clock of whole processes. */
static bool start_up(const Bench *b)
{
    char *const help[] = {(char *)(uintptr_t)b->pare, (char[]){"--help"}, NULL};
    char *const check[] = {(char *)(uintptr_t)b->pare, (char[]){"validate"}, (char[]){"configs/demo.yaml"},
                           NULL};
    char *const eval[] = {(char *)(uintptr_t)b->pare,
                          (char[]){"generate"},
                          (char[]){"tests/data/stories/stories260K.bin"},
                          (char[]){"--n"},
                          (char[]){"1"},
                          (char[]){"--tokenizer"},
                          (char[]){"tests/data/stories/tok512.model"},
                          NULL};
    const struct {
        const char *what;
        char *const *argv;
    } run[] = {
        {"pare --help", help}, {"pare validate configs/demo.yaml", check}, {"pare generate, 1 token", eval}};
    bool ok = true;
    for (size_t i = 0; i < sizeof run / sizeof *run; i++) {
        enum { MOST = 20 };
        double s[MOST];
        int n = b->quick ? 5 : MOST, bad = 0;
        for (int j = 0; j < n; j++) {
            Child c = bench_spawn(run[i].argv, "build/bench/child.out", "build/bench/child.err");
            s[j] = c.seconds;
            bad += c.status != 0;
        }
        Stat t = bench_stat(s, n);
        printf("  %-44s %20.2f ms (spread %.0f %%, n %d)%s\n", run[i].what, 1e3 * t.median, bench_spread(&t),
               n, bad ? "  FAILED" : "");
        bench_line(b, "{\"part\": \"io\", \"what\": \"%s\", \"ms\": %.3f, \"spread\": %.3f, \"n\": %d}",
                   run[i].what, 1e3 * t.median, bench_spread(&t) / 100, n);
        ok = ok && !bad;
    }
    return ok;
}

bool bench_io(const Bench *b)
{
    log_set_level(LOG_WARN);
    bench_title("files, start-up");
    if (!bench_tokens("build/bench/tokens-50257.bin", 50257, 300000)) return false;
    bool ok = start_up(b); /* before this process has grown */
    threads_init(0);
    return checkpoints(b) && ok;
}
