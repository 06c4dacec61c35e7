/* bench/kd.c: a distillation step at shape A (teacher 6 x 768, CE + KL at T = 2): ours, PyTorch's, and ours
 * against its own parts, the student's plain step and the teacher's forward, each timed alone.
 */
#include "bench/train_impl.h"
#include "model/model.h"
#include <stdio.h>

static void forward(void *g) { graph_forward(g); }

/* Seconds of the teacher's forward over one batch, logits and loss included, nothing else in the process. */
static bool teacher_alone(const Bench *b, Stat *s)
{
    Arena a = {.name = "bench"};
    Err e = {0};
    Model m;
    Graph *g = NULL;
    const long dim[2] = {8, 256}, n = 8 * 256;
    const LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    threads_init(0);
    if (model_open(&m, "build/bench/run-teacher/export/teacher", kernels_cpu_f32(), &a, &e) &&
        (g = graph_new(&(GraphOptions){.k = m.params.k, .run = &a}, &e)) != NULL) {
        Tensor *ids = graph_input(g, "ids", DT_I32, 2, dim), *pos = graph_input(g, "pos", DT_I32, 2, dim);
        Tensor *h = model_hidden(g, &m, &(ModelInputs){.ids = ids, .pos = pos});
        Tensor *w = model_head(g, &m);
        graph_loss(g, OP_ATTR(g, lm_loss, at, h, w, ids), 1.0, "lm");
        if (graph_plan(g, &e)) {
            for (long i = 0; i < n; i++) {
                ((int32_t *)pos->data)[i] = (int32_t)(i % 256);
                ((int32_t *)ids->data)[i] = (int32_t)(rng_uniform((RngKey){.seed = 3}, (uint32_t)i) * 50257);
            }
            *s = bench_time(forward, g, b->quick ? 1 : 6, 3);
        }
    }
    if (g) graph_free(g);
    arena_free(&a);
    return bench_ok(&e, "teacher");
}

bool bench_kd(const Bench *b)
{
    const char *python = peer_python(b);
    Engine prepared = {.name = "teacher"}, kd = {.name = "pare"}, student = {.name = "pare student"};
    Engine torch = {.name = "torch eager"};
    Stat teacher = {0};
    int steps = b->quick ? 3 : 8, rounds = b->quick ? 1 : 3;
    bench_title("distillation, shape A with a teacher of 6 x 768%s",
                python ? "" : "; PyTorch: not installed");
    if (!bench_tokens("build/bench/tokens-50257.bin", 50257, 300000) ||
        !engine_pare(b, &prepared, "bench/teacher.yaml", "build/bench/run-teacher", 1))
        return false;
    bool ok = true, peer = python != NULL;
    for (int r = 0; r < rounds && ok; r++) {
        ok = engine_pare(b, &kd, "bench/kd-a.yaml", "build/bench/run-kd-a", steps) &&
             engine_pare(b, &student, "bench/shape-a.yaml", "build/bench/run-a", steps);
        peer = peer && engine_torch(b, &torch, python, "bench/peers/torch_kd.py", "A", "eager", steps);
    }
    ok = ok && teacher_alone(b, &teacher);
    engine_report(b, &kd, "kd", "A", 8 * 256);
    engine_report(b, &torch, "kd", "A", 8 * 256);
    engine_report(b, &student, "kd", "A", 8 * 256);
    if (!ok) return false;
    double parts = student.stat.median + teacher.median;
    printf("  A   teacher's forward alone %.1f ms (spread %.0f %%, n %d)\n", 1e3 * teacher.median,
           bench_spread(&teacher), teacher.n);
    printf("  A   distillation step / (student's step + teacher's forward) = %.3f\n", kd.stat.median / parts);
    bench_line(
        b,
        "{\"part\": \"kd\", \"shape\": \"A\", \"what\": \"ratio\", \"teacher_ms\": %.3f, \"over_parts\": "
        "%.4f, \"speed\": %.3f}",
        1e3 * teacher.median, kd.stat.median / parts, torch.there ? torch.stat.median / kd.stat.median : 0.0);
    if (torch.there)
        printf("  A   pare / PyTorch eager: %.2fx tokens/s, %.2fx of its peak memory\n",
               torch.stat.median / kd.stat.median, (double)kd.peak_rss / (double)torch.peak_rss);
    return !python || peer;
}
