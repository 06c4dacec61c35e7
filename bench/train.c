/* bench/train.c: training tokens/s and peak memory at the shapes A, L and B2, ours and PyTorch's in turn.
 *
 * Every engine is a process of its own; rounds alternate between them so that what else the machine does
 * meets all of them. Same model, batch, fp32, clip to 1, AdamW. Peak memory is the kernel's ru_maxrss of the
 * process, on both sides; PyTorch's is also given without what `import torch` alone takes.
 */
#include "bench/train_impl.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUT "build/bench/child.out"
#define ERR "build/bench/child.err"

const char *peer_python(const Bench *b)
{
    (void)b;
    const char *python = getenv("PEER_PYTHON");
    if (!python || !*python) python = "python3";
    char *argv[] = {(char *)(uintptr_t)python, (char[]){"-c"}, (char[]){"import torch"}, NULL};
    Child c = bench_spawn(argv, OUT, ERR);
    return c.status == 0 ? python : NULL;
}

/* The last lines a failed child wrote. */
static bool failed(const char *name)
{
    Arena a = {.name = "bench"};
    Err e = {0};
    size_t n = 0;
    char *text = file_read(&a, ERR, &n, &e);
    printf("  %s failed: %s\n", name, text ? text + (n > 400 ? n - 400 : 0) : "no output");
    arena_free(&a);
    return false;
}

static void add_step(Engine *x, double seconds)
{
    if (x->n < MAX_MS) x->s[x->n++] = seconds;
}

bool engine_pare(const Bench *b, Engine *x, const char *config, const char *run_dir, const char *also,
                 int steps)
{
    char set[64], path[256];
    snprintf(set, sizeof set, "train.max_steps=%d", steps + 2);
    snprintf(path, sizeof path, "%s/metrics.jsonl", run_dir);
    char *argv[] = {(char *)(uintptr_t)b->pare, (char[]){"train"},
                    (char *)(uintptr_t)config,  set,
                    (char *)(uintptr_t)also,    NULL};
    Child c = bench_spawn(argv, OUT, ERR);
    if (c.status) return failed(x->name);
    Arena a = {.name = "bench"};
    Err e = {0};
    size_t bytes;
    char *text = file_read(&a, path, &bytes, &e);
    for (char *line = text, *end; line && *line; line = end) {
        end = line + strcspn(line, "\n");
        json_t *j = json_loadb(line, (size_t)(end - line), 0, NULL);
        json_t *event = json_object_get(j, "event");
        if (event && json_is_string(event) && !strcmp(json_string_value(event), "train") &&
            json_integer_value(json_object_get(j, "step")) > 2) {
            add_step(x, 1e-3 * json_number_value(json_object_get(j, "dt_ms")));
            x->data_wait += 1e-3 * json_number_value(json_object_get(j, "data_wait_ms"));
        }
        json_decref(j);
        if (*end) end++;
    }
    arena_free(&a);
    if (c.peak_rss > x->peak_rss) x->peak_rss = c.peak_rss;
    x->there = x->n > 0;
    return bench_ok(&e, path);
}

bool engine_torch(const Bench *b, Engine *x, const char *python, const char *script, const char *shape,
                  const char *mode, int steps)
{
    (void)b;
    char n[16];
    snprintf(n, sizeof n, "%d", steps);
    char *argv[] = {(char *)(uintptr_t)python,
                    (char *)(uintptr_t)script,
                    (char[]){"--shape"},
                    (char *)(uintptr_t)shape,
                    (char[]){"--mode"},
                    (char *)(uintptr_t)mode,
                    (char[]){"--steps"},
                    n,
                    NULL};
    Child c = bench_spawn(argv, OUT, ERR);
    json_t *j = c.status ? NULL : json_load_file(OUT, 0, NULL);
    if (!j) return failed(x->name);
    json_t *ms = json_object_get(j, "ms");
    for (size_t i = 0; i < json_array_size(ms); i++)
        add_step(x, 1e-3 * json_number_value(json_array_get(ms, i)));
    int64_t import = json_integer_value(json_object_get(j, "import_rss"));
    if (c.peak_rss > x->peak_rss) x->peak_rss = c.peak_rss;
    if (import > x->import_rss) x->import_rss = import;
    x->warmup = json_number_value(json_object_get(j, "warmup_s"));
    x->there = x->n > 0;
    json_decref(j);
    return x->there;
}

void engine_report(const Bench *b, Engine *x, const char *part, const char *shape, long tokens)
{
    if (!x->there) return;
    x->stat = bench_stat(x->s, x->n);
    double s = x->stat.median;
    char less[48] = "";
    if (x->import_rss)
        snprintf(less, sizeof less, " (%.2f GB without the import)",
                 (double)(x->peak_rss - x->import_rss) / 1e9);
    printf("  %-3s %-14s %8.1f tokens/s %9.1f ms/step (spread %.0f %%, n %d)  peak %.2f GB%s\n", shape,
           x->name, (double)tokens / s, 1e3 * s, bench_spread(&x->stat), x->n, (double)x->peak_rss / 1e9,
           less);
    if (x->data_wait > 0)
        printf("  %-3s %-14s waits %.3f ms of a step for data\n", shape, x->name, 1e3 * x->data_wait / x->n);
    bench_line(
        b,
        "{\"part\": \"%s\", \"shape\": \"%s\", \"engine\": \"%s\", \"tokens_per_s\": %.2f, \"ms\": %.3f, "
        "\"spread\": %.3f, \"n\": %d, \"peak_rss\": %lld, \"import_rss\": %lld, \"warmup_s\": %.1f, "
        "\"data_wait_ms\": %.4f}",
        part, shape, x->name, (double)tokens / s, 1e3 * s, bench_spread(&x->stat) / 100, x->n,
        (long long)x->peak_rss, (long long)x->import_rss, x->warmup, 1e3 * x->data_wait / x->n);
    fflush(stdout);
}

static bool measure(const Bench *b, const char *python, const char *shape, const char *config,
                    const char *run_dir, long tokens)
{
    Engine x[3] = {{.name = "pare"}, {.name = "torch eager"}, {.name = "torch compile"}};
    int steps = b->quick ? 3 : 8, rounds = b->quick ? 1 : 3;
    bool ok = true, live[3] = {true, python != NULL, python != NULL};
    for (int r = 0; r < rounds; r++) {
        live[0] = live[0] && engine_pare(b, &x[0], config, run_dir, NULL, steps);
        for (int i = 1; i < 3; i++)
            live[i] = live[i] && engine_torch(b, &x[i], python, "bench/peers/torch_train.py", shape,
                                              i == 1 ? "eager" : "compile", steps);
    }
    ok = live[0] && (!python || (live[1] && live[2]));
    for (int i = 0; i < 3; i++) engine_report(b, &x[i], "train", shape, tokens);
    const Engine *best = !x[1].there || (x[2].there && x[2].stat.median < x[1].stat.median) ? &x[2] : &x[1];
    if (!x[0].there || !best->there) return ok;
    int64_t least = x[1].there && x[2].there && x[1].peak_rss < x[2].peak_rss ? x[1].peak_rss
                                                                              : best->peak_rss;
    if (x[2].there && x[2].peak_rss < least) least = x[2].peak_rss;
    double speed = best->stat.median / x[0].stat.median, memory = (double)x[0].peak_rss / (double)least;
    printf("  %-3s pare / best PyTorch row (%s): %.2fx tokens/s, %.2fx of the smallest peak memory\n", shape,
           best->name, speed, memory);
    bench_line(
        b,
        "{\"part\": \"train\", \"shape\": \"%s\", \"what\": \"ratio\", \"best\": \"%s\", \"speed\": %.3f, "
        "\"memory\": %.3f}",
        shape, best->name, speed, memory);
    return ok;
}

bool bench_train(const Bench *b)
{
    const char *python = peer_python(b);
    bench_title("training, fp32, random tokens, rounds in turn%s",
                python ? "" : "; PyTorch: not installed (PEER_PYTHON=... names a Python that has it)");
    if (!bench_tokens("build/bench/tokens-50257.bin", 50257, 300000) ||
        !bench_tokens("build/bench/tokens-32000.bin", 32000, 300000))
        return false;
    bool ok = measure(b, python, "A", "bench/shape-a.yaml", "build/bench/run-a", 8 * 256);
    ok = measure(b, python, "L", "bench/shape-l.yaml", "build/bench/run-l", 4 * 256) && ok;
    return measure(b, python, "B2", "bench/shape-b2.yaml", "build/bench/run-b2", 4 * 256) && ok;
}
