/* bench/kd.c: a distillation step at shape A (teacher 6 x 768, CE + KL at T = 2): ours, PyTorch's, and ours
 * against its own parts, the student's plain step and the teacher's forward, each timed alone.
 */
#include "bench/train_impl.h"
#include "compress/compress.h"
#include <stdio.h>

static void forward(void *g) { graph_forward(g); }

/* Seconds of the teacher's forward over one batch, logits included, no loss, nothing else in the process.
 * kept: as float32, bfloat16, or int8 inside the blocks. */
static bool teacher_alone(const Bench *b, int kept, Stat *s)
{
    Arena a = {.name = "bench"};
    Err e = {0};
    Model m;
    Graph *g = NULL;
    const long dim[2] = {8, 256}, n = 8 * 256;
    const LmLossAttr at = {.a = {.ce_weight = 1, .temperature = 1}};
    threads_init(0);
    if (teacher_open(&m, "build/bench/run-teacher/export/teacher", kept == 1 ? "bfloat16" : "float32",
                     kept == 2 ? "int8" : "none", kernels_cpu_f32(), &a, &e) &&
        (g = graph_new(&(GraphOptions){.k = m.params.k, .run = &a}, &e)) != NULL) {
        Tensor *ids = graph_input(g, "ids", DT_I32, 2, dim), *pos = graph_input(g, "pos", DT_I32, 2, dim);
        Tensor *none = graph_input(g, "targets", DT_I32, 2, dim);
        Tensor *h = model_hidden(g, &m, &(ModelInputs){.ids = ids, .pos = pos});
        Tensor *w = model_head(g, &m);
        graph_loss(g, OP_ATTR(g, lm_loss, at, h, w, none), 1.0, "lm");
        if (graph_plan(g, &e)) {
            for (long i = 0; i < n; i++) {
                ((int32_t *)pos->data)[i] = (int32_t)(i % 256);
                ((int32_t *)none->data)[i] = -100;
                ((int32_t *)ids->data)[i] = (int32_t)(rng_uniform((RngKey){.seed = 3}, (uint32_t)i) * 50257);
            }
            *s = bench_time(forward, g, b->quick ? 1 : 6, 3);
        }
    }
    if (g) graph_free(g);
    arena_free(&a);
    return bench_ok(&e, "teacher");
}

/* What a step costs over its parts, the student's plain step and the teacher's forward, both timed alone. */
static void report_ratio(const Bench *b, const Engine *kd, const Engine *student, double teacher)
{
    const double over = kd->stat.median / (student->stat.median + teacher);
    printf("  A   %-14s step / (student's step + teacher's forward %.1f ms) = %.3f\n", kd->name,
           1e3 * teacher, over);
    bench_line(b,
               "{\"part\": \"kd\", \"shape\": \"A\", \"engine\": \"%s\", \"what\": \"ratio\", "
               "\"teacher_ms\": %.3f, \"student_ms\": %.3f, \"over_parts\": %.4f}",
               kd->name, 1e3 * teacher, 1e3 * student->stat.median, over);
}

bool bench_kd(const Bench *b)
{
    enum { KD, BF16, INT8, STUDENT, N_PARE, TORCH = N_PARE, TORCH_STUDENT, TORCH_TEACHER, N };
    static const char *const also[] = {NULL, "teacher.dtype=bfloat16", "teacher.quantize=int8", NULL};
    Engine x[N] = {
        {.name = "pare"},          {.name = "pare bf16"},   {.name = "pare int8"},
        {.name = "pare student"},  {.name = "torch eager"}, {.name = "torch student"},
        {.name = "torch teacher"},
    };
    Engine prepared = {.name = "teacher"};
    Stat teacher[N_PARE] = {{0}};
    const char *python = peer_python(b);
    const int steps = b->quick ? 3 : 8, rounds = b->quick ? 1 : 3;
    bench_title("distillation, shape A with a teacher of 6 x 768%s",
                python ? "" : "; PyTorch: not installed (PEER_PYTHON=... names a Python that has it)");
    if (!bench_tokens("build/bench/tokens-50257.bin", 50257, 300000) ||
        !engine_pare(b, &prepared, "bench/teacher.yaml", "build/bench/run-teacher", NULL, 1))
        return false;
    bool ok = true, peer = python != NULL;
    for (int r = 0; r < rounds && ok; r++) {
        for (int i = 0; i < STUDENT && ok; i++)
            ok = engine_pare(b, &x[i], "bench/kd-a.yaml", "build/bench/run-kd-a", also[i], steps);
        ok = ok && engine_pare(b, &x[STUDENT], "bench/shape-a.yaml", "build/bench/run-a", NULL, steps);
        peer = peer && engine_torch(b, &x[TORCH], python, "bench/peers/torch_kd.py", "A", "eager", steps) &&
               engine_torch(b, &x[TORCH_STUDENT], python, "bench/peers/torch_train.py", "A", "eager",
                            steps) &&
               engine_torch(b, &x[TORCH_TEACHER], python, "bench/peers/torch_kd.py", "A", "teacher", steps);
    }
    for (int i = 0; i < STUDENT && ok; i++) ok = teacher_alone(b, i, &teacher[i]);
    for (int i = 0; i < N; i++) engine_report(b, &x[i], "kd", "A", 8 * 256);
    if (!ok) return false;
    for (int i = 0; i < STUDENT; i++) report_ratio(b, &x[i], &x[STUDENT], teacher[i].median);
    if (!peer) return !python;
    report_ratio(b, &x[TORCH], &x[TORCH_STUDENT], x[TORCH_TEACHER].stat.median);
    for (int i = 0; i < STUDENT; i++)
        printf("  A   %s / PyTorch eager: %.2fx tokens/s, %.2fx of its peak memory\n", x[i].name,
               x[TORCH].stat.median / x[i].stat.median, (double)x[i].peak_rss / (double)x[TORCH].peak_rss);
    return true;
}
