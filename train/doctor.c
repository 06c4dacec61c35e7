/* train/doctor.c: what this build and this machine offer, and a self-test, as `pare doctor` shows it. */
#include "train/train.h"
#include <jansson.h>
#include <stdlib.h>

/* FLOP/s of the GEMM that training uses; the best of five. */
static double gemm_rate(const Kernels *k, Arena *a, Err *e)
{
    enum { N = 768 };
    float *v = arena_alloc(a, (size_t)(3 * N * N) * sizeof *v, e);
    double best = 0;
    for (int i = 0; v && i < 3 * N * N; i++) v[i] = (float)(i % 7) - 3;
    for (int r = 0; v && r < 5; r++) {
        double t = time_now();
        k->gemm_nt(v, v + N * N, v + 2 * N * N, N, N, N, SET);
        double rate = 2.0 * N * N * N / (time_now() - t);
        if (rate > best) best = rate;
    }
    return best;
}

static bool philox_ok(void)
{
    uint32_t out[4], ctr[4] = {0}, key[2] = {0};
    philox4x32_10(out, ctr, key);
    return out[0] == 0x6627e8d5u && out[3] == 0x9b00dbd8u;
}

static char *as_json(const char *const row[][2], size_t n, Arena *a, Err *e)
{
    json_t *j = json_object();
    for (size_t i = 0; i < n; i++)
        if (row[i][1]) json_object_set_new(j, row[i][0], json_string(row[i][1]));
    char *s = json_dumps(j, 0), *text = s ? arena_strdup(a, s, e) : NULL;
    if (!text) err_set(e, ERR_MEMORY, "out of memory for the report");
    free(s);
    json_decref(j);
    return text;
}

char *doctor_report(bool json, bool *ok, Arena *a, Err *e)
{
    threads_init(0);
    const Kernels *k = kernels_cpu_f32();
    double gflops = gemm_rate(k, a, e) / 1e9;
    const char *threads = arena_printf(a, e, "%d", threads_count()),
               *speed = arena_printf(a, e, "%.1f GFLOP/s at 768 x 768 x 768", gflops);
    *ok = philox_ok();
    const char *const row[][2] = {
        {"cpu", cpu_features()},       {"isa", isa_name(cpu_isa())},
        {"threads", threads},          {"kernels", k->name},
        {"gemm", kernels_blas_name()}, {"warning", kernels_blas_warning()},
        {"gemm speed", speed},         {"gpu", "none: this version computes on the CPU"},
        {"families", family_list()},   {"self-test", *ok ? "Philox4x32-10 ok" : "Philox4x32-10 WRONG"}};
    size_t n = sizeof row / sizeof *row;
    if (e->code) return NULL;
    if (json) return as_json(row, n, a, e);
    char *text = arena_strdup(a, "", e);
    for (size_t i = 0; i < n && text; i++)
        if (row[i][1]) text = arena_printf(a, e, "%s%s%-10s %s", text, i ? "\n" : "", row[i][0], row[i][1]);
    return text;
}
