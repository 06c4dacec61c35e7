/* bench/quant_steps.c: a training step through a quantiser, or with movement pruning, over the plain one,
 * at shape A; the runs take their steps in turn, so that what else the machine does meets them alike.
 *
 * Lower bounds, n the weights concerned. A quantiser must read W and write what it becomes once per
 * optimizer step: 8 n bytes; straight-through gradients need nothing. Movement reads W and scores and
 * writes the masked W (12 n), reads W and dW and writes the scores' gradient (12 n), and updates the scores
 * by AdamW (28 n). All at the triad's rate.
 */
#include "bench/bench.h"
#include "train/run_impl.h"
#include <stdio.h>
#include <string.h>

enum { N_SET_MAX = 6, MAX_STEP = 32 };
typedef struct Way {
    const char *name, *set[N_SET_MAX];
    double bytes; /* per weight and step, beyond the plain step's */
} Way;
static const Way way[] = {
    {"plain", {NULL}, 0},
    {"qat int4 g128", {"qat.enabled=true", "qat.weight=int4", "qat.granularity=group"}, 8},
    {"qat nvfp4", {"qat.enabled=true", "qat.weight=nvfp4"}, 8},
    {"qat fp8_e4m3", {"qat.enabled=true", "qat.weight=fp8_e4m3"}, 8},
    {"movement 0.5",
     {"prune.enabled=true", "prune.method=movement", "prune.sparsity=0.5", "prune.begin_step=0",
      "prune.end_step=1000"},
     52}};
enum { N_WAY = sizeof way / sizeof *way };

static bool setup(Run *r, const Way *w, bool one_thread, Arena *a, Err *e)
{
    char *set[N_SET_MAX + 2], max[] = "train.max_steps=2000", threads[] = "device.threads=1";
    int n = 0;
    set[n++] = max;
    if (one_thread) set[n++] = threads;
    for (int i = 0; i < N_SET_MAX && w->set[i]; i++) set[n++] = arena_strdup(a, w->set[i], e);
    Config *c = e->code ? NULL : config_load(a, "bench/shape-a.yaml", n, set, NULL, e);
    return c && run_setup(r, c, a, e);
}

static double one_step(Run *r, Err *e)
{
    const double start = bench_now();
    bool moved;
    for (long i = 0; i < r->B; i++)
        loader_fill(r->loader, r->st.step * r->B + i, (int32_t *)r->ids->data + i * r->T,
                    (int32_t *)r->targets->data + i * r->T, NULL, NULL, e);
    qat_before(&r->qat, r->st.step);
    graph_step_begin(r->g);
    graph_micro(r->g);
    graph_step_end(r->g);
    qat_after(&r->qat, r->st.step);
    optim_step(r->opt, r->st.step, r->st.n_steps, 1.0 / (double)(r->B * r->T));
    r->st.step++;
    if (r->c->prune.enabled) prune_update(&r->prune, r->st.step, NULL, &moved, e);
    return bench_now() - start;
}

/* Weights inside the blocks: what both methods take. */
static double weights_of(const Run *r)
{
    double n = 0;
    for (int i = 0; i < r->model.n_site; i++)
        if (strcmp(r->model.site[i].name, r->model.spec.family->name.head))
            n += (double)t_numel(&r->model.site[i].w->w);
    return n;
}

bool bench_quant_steps(const Bench *b)
{
    Arena a[N_WAY];
    static Run r[N_WAY];
    static double v[N_WAY][MAX_STEP];
    Err e = {0};
    const int n = b->quick ? 3 : 12;
    memset(a, 0, sizeof a);
    if (!bench_tokens("build/bench/tokens-50257.bin", 50257, 300000)) return false;
    for (int i = 0; i < N_WAY && !e.code; i++) {
        a[i].name = "bench";
        if (setup(&r[i], &way[i], b->cpu_time, &a[i], &e)) one_step(&r[i], &e);
    }
    for (int s = 0; s < n && !e.code; s++)
        for (int i = 0; i < N_WAY && !e.code; i++) v[i][s] = one_step(&r[i], &e);
    if (!e.code) {
        const double w = weights_of(&r[0]), rate = bench_bandwidth(b->c, 8 * w);
        double plain = 0;
        bench_title(
            "training step at shape A, %.1f M weights in its blocks: time, over the plain step, bound",
            w / 1e6);
        for (int i = 0; i < N_WAY; i++) {
            const Stat t = bench_stat(v[i], n);
            if (!i) plain = t.median;
            const double bound = 1 + way[i].bytes * w / rate / plain;
            printf("  %-16s %9.1f ms (spread %.0f %%, n %d)  %6.3fx plain  bound %.3fx  (%.1f ms more, bound "
                   "%.1f)\n",
                   way[i].name, 1e3 * t.median, bench_spread(&t), n, t.median / plain, bound,
                   1e3 * (t.median - plain), 1e3 * (bound - 1) * plain);
            bench_line(
                b,
                "{\"part\": \"quant\", \"what\": \"step\", \"way\": \"%s\", \"ms\": %.2f, \"spread\": %.3f, "
                "\"n\": %d, \"over_plain\": %.4f, \"bound\": %.4f}",
                way[i].name, 1e3 * t.median, bench_spread(&t) / 100, n, t.median / plain, bound);
        }
    }
    for (int i = 0; i < N_WAY; i++) {
        run_free(&r[i]);
        arena_free(&a[i]);
    }
    return bench_ok(&e, "steps");
}
