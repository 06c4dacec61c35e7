/* bench/lora.c: a step of adapters over a step of all weights, in time and peak memory, at shape L: ours,
 * peft's, and ours over an NF4 and an INT8 base; beside the least the arithmetic allows.
 *
 * Bound of time, in FLOPs of the matrix products a token (weights n, adapters a): all weights 6 n, adapters
 * 4 n + 6 a: the forward and the gradient of activations stay, dW goes. What AdamW reads and writes of n
 * weights (28 bytes each) goes too, which may put the measured ratio below that of the FLOPs. Bound of
 * memory: full 16 bytes a weight (weight, gradient, two moments), adapters 4 n + 16 a, activations the same.
 */
#include "bench/train_impl.h"
#include <stdio.h>

/* Shape L (bench/shape-l.yaml): 12 blocks of width 768, key and value width 256, ffn 2048; head of 32000. */
enum { L = 12, C = 768, KV = 256, F = 2048, HEAD = 32000, RANK = 16, TOKENS = 4 * 256 };

typedef struct Counts {
    double inside, head, adapters; /* weights */
} Counts;

static Counts counts(void)
{
    static const int site[][2] = {{C, C}, {C, KV}, {C, KV}, {C, C}, {C, F}, {C, F}, {F, C}};
    Counts n = {.head = (double)HEAD * C};
    for (size_t i = 0; i < sizeof site / sizeof *site; i++) {
        n.inside += (double)L * site[i][0] * site[i][1];
        n.adapters += (double)L * RANK * (site[i][0] + site[i][1]);
    }
    return n;
}

static void report_over(const Bench *b, const Engine *x, const Engine *full)
{
    if (!x->there || !full->there) return;
    const double time = x->stat.median / full->stat.median;
    const double memory = (double)(x->peak_rss - x->import_rss) / (double)(full->peak_rss - full->import_rss);
    printf("  L   %-14s / %-12s: %.3f of its time, %.3f of its peak memory\n", x->name, full->name, time,
           memory);
    bench_line(b,
               "{\"part\": \"lora\", \"shape\": \"L\", \"engine\": \"%s\", \"over\": \"%s\", \"time\": %.4f, "
               "\"memory\": %.4f}",
               x->name, full->name, time, memory);
}

static void report_bound(const Bench *b)
{
    const Counts n = counts();
    const double dense = n.inside + n.head, time = (4 * dense + 6 * n.adapters) / (6 * dense);
    const double state = (4 * (dense + n.head) + 16 * n.adapters) / (16 * (dense + n.head));
    printf(
        "  L   bound of adapters / all weights: %.3f of the FLOPs of products (%.1f of %.1f GFLOP a step), "
        "%.3f of the bytes of weights, gradients and moments (%.2f of %.2f GB)\n",
        time, 1e-9 * TOKENS * (4 * dense + 6 * n.adapters), 1e-9 * TOKENS * 6 * dense, state,
        1e-9 * (4 * (dense + n.head) + 16 * n.adapters), 1e-9 * 16 * (dense + n.head));
    bench_line(b,
               "{\"part\": \"lora\", \"shape\": \"L\", \"what\": \"bound\", \"time\": %.4f, \"state\": %.4f}",
               time, state);
}

bool bench_lora(const Bench *b)
{
    enum { FULL, LORA, NF4, INT8, TORCH_FULL, TORCH_LORA, N };
    static const char *const also[] = {NULL, NULL, "lora.base_quant=nf4", "lora.base_quant=int8"};
    Engine x[N] = {{.name = "pare full"}, {.name = "pare lora"},  {.name = "pare nf4"},
                   {.name = "pare int8"}, {.name = "torch full"}, {.name = "peft lora"}};
    Engine prepared = {.name = "base"};
    const char *python = peer_python(b);
    const int steps = b->quick ? 3 : 8, rounds = b->quick ? 1 : 3;
    bench_title("adapters, shape L, rank %d on every projection of the blocks%s", RANK,
                python ? ""
                       : "; PyTorch: not installed (PEER_PYTHON=... names a Python that has it and peft)");
    if (!bench_tokens("build/bench/tokens-32000.bin", 32000, 300000) ||
        !engine_pare(b, &prepared, "bench/lora-base.yaml", "build/bench/run-lora-base", NULL, 1))
        return false;
    bool ok = true, peer = python != NULL;
    for (int r = 0; r < rounds && ok; r++) {
        ok = engine_pare(b, &x[FULL], "bench/shape-l.yaml", "build/bench/run-l", NULL, steps);
        for (int i = LORA; i <= INT8 && ok; i++)
            ok = engine_pare(b, &x[i], "bench/lora-l.yaml", "build/bench/run-lora-l", also[i], steps);
        peer = peer &&
               engine_torch(b, &x[TORCH_FULL], python, "bench/peers/torch_lora.py", "L", "full", steps) &&
               engine_torch(b, &x[TORCH_LORA], python, "bench/peers/torch_lora.py", "L", "lora", steps);
    }
    for (int i = 0; i < N; i++) engine_report(b, &x[i], "lora", "L", TOKENS);
    report_bound(b);
    report_over(b, &x[LORA], &x[FULL]);
    report_over(b, &x[TORCH_LORA], &x[TORCH_FULL]);
    report_over(b, &x[NF4], &x[LORA]);
    report_over(b, &x[INT8], &x[LORA]);
    report_over(b, &x[LORA], &x[TORCH_LORA]);
    return ok && (peer || !python);
}
