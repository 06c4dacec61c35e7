/* tests/test_gemm.c: matrix products of every back end against the double reference: values, edges, guard
 * bytes, and equal bits for every number of threads. Rounding bound: quality.md C.2 (rel-Frobenius 1e-6 up
 * to K = 4096). */
#include "core/core.h"
#include "kernels/gemm_impl.h"
#include "kernels/ref_impl.h"
#include "tests/test.h"
#include <dlfcn.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

typedef void Call(void *y, const void *x, const void *w, long M, long N, long K, Mode mode);
typedef struct Shape {
    long M, N, K;
} Shape;
enum { GUARD = 32, FORMS = 3 };
static const unsigned char GUARD_BYTE = 0x5a;

static Call *call_of(const Kernels *k, int form)
{
    return form == 0 ? k->gemm_nt : form == 1 ? k->gemm_nn : k->gemm_tn;
}

/* Back ends this machine offers, by number; false behind the last, NULL name when not available here. */
static bool backend(int i, Kernels *k, const char **name)
{
    static const struct {
        Isa isa;
        const char *blas;
    } all[] = {{ISA_PORTABLE, "builtin"},  {ISA_AVX2, "builtin"},   {ISA_AVX512, "builtin"},
               {ISA_PORTABLE, "dnnl"},     {ISA_AVX2, "dnnl"},      {ISA_AVX512, "dnnl"},
               {ISA_PORTABLE, "openblas"}, {ISA_AVX512, "openblas"}};
    if (i >= (int)(sizeof all / sizeof *all)) return false;
    *name = NULL;
    if (all[i].isa > cpu_isa()) return true;
    const char *warning;
    gemm_install(k, all[i].isa, all[i].blas, name, &warning);
    if (warning) *name = NULL;
    return true;
}

static float *numbers(Arena *a, size_t n, uint32_t stream, Err *e)
{
    float *x = arena_alloc(a, n * sizeof *x, e);
    ASSERT(x);
    rng_normal_f32(x, n, (RngKey){.seed = 7, .stream = stream}, 0.0, 1.0);
    return x;
}

static double *widened(Arena *a, const float *x, size_t n, Err *e)
{
    double *y = arena_alloc(a, n * sizeof *y, e);
    ASSERT(y);
    for (size_t i = 0; i < n; i++) y[i] = x[i];
    return y;
}

/* One problem and what the double reference makes of it. */
typedef struct Problem {
    Arena a;
    Shape s;
    int form;
    Mode mode;
    const float *x, *w, *start; /* start (M,N): what y holds where mode is ADD */
    double *want;               /* (M,N) */
} Problem;

static Problem problem_make(int form, Shape s, Mode mode)
{
    Problem p = {.a = {.name = "test"}, .s = s, .form = form, .mode = mode};
    Err e = {0};
    const size_t ny = (size_t)(s.M * s.N), nx = (size_t)(s.M * s.K), nw = (size_t)(s.N * s.K);
    p.x = numbers(&p.a, nx, 1, &e);
    p.w = numbers(&p.a, nw, 2, &e);
    p.start = numbers(&p.a, ny, 3, &e);
    p.want = widened(&p.a, p.start, ny, &e);
    static Call *const reference[FORMS] = {gemm_nt_f64, gemm_nn_f64, gemm_tn_f64};
    reference[form](p.want, widened(&p.a, p.x, nx, &e), widened(&p.a, p.w, nw, &e), s.M, s.N, s.K, mode);
    return p;
}

/* The product between guard bytes: distance from the double reference, relative to its norm. */
static void check_values(Problem *p, const Kernels *k, const char *name)
{
    Err e = {0};
    const Shape s = p->s;
    const size_t ny = (size_t)(s.M * s.N);
    unsigned char *room = arena_alloc(&p->a, ny * sizeof(float) + 2 * GUARD, &e);
    ASSERT(room);
    memset(room, GUARD_BYTE, ny * sizeof(float) + 2 * GUARD);
    float *y = (float *)(void *)(room + GUARD);
    if (p->mode == ADD) memcpy(y, p->start, ny * sizeof *y);
    call_of(k, p->form)(y, p->x, p->w, s.M, s.N, s.K, p->mode);
    for (size_t i = 0; i < GUARD; i++)
        if (room[i] != GUARD_BYTE || room[GUARD + ny * sizeof *y + i] != GUARD_BYTE)
            test_fail(__FILE__, __LINE__, "%s form %d M %ld N %ld K %ld: wrote outside y", name, p->form, s.M,
                      s.N, s.K);
    double far = 0, norm = 0;
    for (size_t i = 0; i < ny; i++) {
        far += (y[i] - p->want[i]) * (y[i] - p->want[i]);
        norm += p->want[i] * p->want[i];
    }
    if (!(sqrt(far) <= 1e-6 * sqrt(norm)))
        test_fail(__FILE__, __LINE__, "%s form %d M %ld N %ld K %ld mode %d: relative distance %g", name,
                  p->form, s.M, s.N, s.K, (int)p->mode, sqrt(far / norm));
}

static void check_all_forms(const Shape *shapes, size_t n_shapes)
{
    Kernels k;
    const char *name;
    for (size_t s = 0; s < n_shapes; s++)
        for (int form = 0; form < FORMS; form++)
            for (int mode = 0; mode < 2; mode++) {
                Problem p = problem_make(form, shapes[s], mode ? ADD : SET);
                for (int b = 0; backend(b, &k, &name); b++)
                    if (name) check_values(&p, &k, name);
                arena_free(&p.a);
            }
}

TEST(gemm, values_at_odd_sizes)
{
    static const Shape shapes[] = {
        {1, 1, 1},    {1, 5, 3},    {2, 17, 9},    {3, 33, 31},    {4, 65, 16},    {5, 3, 100},
        {6, 40, 7},   {7, 129, 65}, {8, 1, 13},    {9, 31, 1},     {13, 16, 17},   {14, 32, 64},
        {15, 33, 65}, {29, 47, 33}, {64, 172, 64}, {97, 101, 103}, {1, 1000, 777}, {170, 450, 390}};
    check_all_forms(shapes, sizeof shapes / sizeof *shapes);
}

TEST(gemm, values_at_long_sums)
{
    static const Shape shapes[] = {
        {33, 50, 4096}, {5, 70, 4096}, {1, 40, 4096}, {200, 30, 1025}, {1024, 48, 64}};
    check_all_forms(shapes, sizeof shapes / sizeof *shapes);
}

TEST(gemm, empty_sizes)
{
    Kernels k;
    const char *name;
    const float x[6] = {1, 2, 3, 4, 5, 6};
    for (int b = 0; backend(b, &k, &name); b++)
        for (int form = 0; name && form < FORMS; form++) {
            float y[6] = {9, 9, 9, 9, 9, 9};
            call_of(&k, form)(y, x, x, 0, 3, 2, SET);
            call_of(&k, form)(y, x, x, 2, 0, 3, SET);
            call_of(&k, form)(y, x, x, 2, 3, 0, ADD);
            for (int i = 0; i < 6; i++) ASSERT_EQ(y[i], 9.0f);
            call_of(&k, form)(y, x, x, 2, 2, 0, SET);
            for (int i = 0; i < 6; i++) ASSERT_EQ(y[i], i < 4 ? 0.0f : 9.0f);
        }
}

TEST(gemm, bits_do_not_depend_on_threads)
{
    static const Shape shapes[] = {{1024, 64, 64},   {1024, 172, 64},  {512, 768, 768},
                                   {48, 40, 3000},   {1, 3000, 768},   {5, 3000, 768},
                                   {384, 384, 2048}, {1030, 100, 385}, {8, 16, 12000}};
    static const int threads[] = {1, 2, 3, 8};
    Kernels k;
    const char *name;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        Arena a = {.name = "test"};
        Err e = {0};
        const Shape z = shapes[s];
        if (SANITIZED && z.M * z.N * z.K > 100000000) continue; /* more pieces of the kind the others have */
        const size_t ny = (size_t)(z.M * z.N);
        const float *x = numbers(&a, (size_t)(z.M * z.K), 1, &e),
                    *w = numbers(&a, (size_t)(z.N * z.K), 2, &e);
        float *y = arena_alloc(&a, ny * sizeof *y, &e), *want = arena_alloc(&a, ny * sizeof *want, &e);
        ASSERT(y && want);
        for (int b = 0; backend(b, &k, &name); b++)
            for (int form = 0; name && form < FORMS; form++)
                for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
                    omp_set_num_threads(threads[t]);
                    call_of(&k, form)(t ? y : want, x, w, z.M, z.N, z.K, SET);
                    if (t && memcmp(y, want, ny * sizeof *y))
                        test_fail(__FILE__, __LINE__,
                                  "%s form %d M %ld N %ld K %ld: other bits with %d threads", name, form, z.M,
                                  z.N, z.K, threads[t]);
                    ASSERT_EQ(omp_get_max_threads(), threads[t]);
                }
        arena_free(&a);
    }
}

/* In place of a product: each element of a piece gets the piece's size and whether one thread is left. */
static void piece_that_signs(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w,
                             long ldw, long m, long n, long k, Mode mode)
{
    (void)form, (void)x, (void)ldx, (void)w, (void)ldw, (void)k, (void)mode;
    for (long i = 0; i < m; i++)
        for (long j = 0; j < n; j++)
            y[i * ldy + j] = (float)(m * 1000 + n) + (omp_get_max_threads() == 1 ? 0.0f : 0.5f);
}

TEST(gemm, pieces_for_a_library_follow_from_the_shape_and_leave_it_one_thread)
{
    static const Shape shapes[] = {
        {8, 8, 8}, {8, 16, 12000}, {300, 200, 100}, {256, 384, 1152}, {1000, 777, 3000}};
    static const int threads[] = {1, 2, 3, 8};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int form = 0; form < FORMS; form++) {
            Arena a = {.name = "test"};
            Err e = {0};
            const Shape z = shapes[s];
            const size_t ny = (size_t)(z.M * z.N);
            float *first = arena_alloc(&a, ny * sizeof *first, &e);
            float *y = arena_alloc(&a, ny * sizeof *y, &e);
            ASSERT(first && y);
            for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
                omp_set_num_threads(threads[t]);
                gemm_sliced(piece_that_signs, true, (GemmForm)form, t ? y : first, z.N, y, y, z.M, z.N, z.K,
                            SET);
                for (size_t i = 0; i < ny; i++) {
                    const float sign = t ? y[i] : first[i];
                    ASSERT_EQ(sign, first[i]);
                    ASSERT(sign >= 1001.0f && sign == floorf(sign));
                }
            }
            arena_free(&a);
        }
}

/* Sums of the builtin GEMM run in an order fixed by K: a row comes out the same alone among 8 or among 100.
 */
TEST(gemm, builtin_rows_do_not_depend_on_their_neighbours)
{
    enum { M = 100, N = 90, K = 900 };
    Arena a = {.name = "test"};
    Err e = {0};
    const float *x = numbers(&a, M * K, 1, &e), *w = numbers(&a, N * K, 2, &e);
    float *all = arena_alloc(&a, M * N * sizeof *all, &e), *some = arena_alloc(&a, M * N * sizeof *some, &e);
    ASSERT(all && some);
    for (int isa = ISA_PORTABLE; isa <= (int)cpu_isa(); isa++) {
        Kernels k;
        const char *name, *warning;
        gemm_install(&k, (Isa)isa, "builtin", &name, &warning);
        k.gemm_nt(all, x, w, M, N, K, SET);
        k.gemm_nt(some, x + 50 * K, w, 9, N, K, SET);
        ASSERT(!memcmp(all + 50 * N, some, 9 * N * sizeof *some));
    }
    arena_free(&a);
}

/* Into some columns of a wider matrix: what gemm_nt gives, nothing beside them. */
TEST(gemm, nt_into_columns)
{
    static const Shape shapes[] = {{1, 5, 3},    {7, 33, 65},     {9, 1, 40},
                                   {64, 90, 31}, {200, 130, 300}, {5, 4, 0}};
    Kernels k;
    const char *name;
    for (int b = 0; backend(b, &k, &name); b++)
        for (size_t s = 0; name && s < sizeof shapes / sizeof *shapes; s++) {
            Arena a = {.name = "test"};
            Err e = {0};
            const Shape z = shapes[s];
            const long wide = z.N + 7;
            const float *x = numbers(&a, (size_t)(z.M * z.K + 1), 1, &e);
            const float *w = numbers(&a, (size_t)(z.N * z.K + 1), 2, &e);
            float *y = arena_alloc(&a, (size_t)(z.M * z.N) * sizeof *y, &e);
            float *all = arena_alloc(&a, (size_t)(z.M * wide) * sizeof *all, &e);
            ASSERT(y && all);
            for (long i = 0; i < z.M * wide; i++) all[i] = -77.0f;
            k.gemm_nt(y, x, w, z.M, z.N, z.K, SET);
            k.gemm_nt_at(all + 3, wide, x, w, z.M, z.N, z.K);
            for (long i = 0; i < z.M * wide; i++) {
                const long c = i % wide - 3;
                ASSERT_EQ(all[i], c >= 0 && c < z.N ? y[i / wide * z.N + c] : -77.0f);
            }
            arena_free(&a);
        }
}

TEST(gemm, nan_and_infinity_reach_the_result)
{
    Kernels k;
    const char *name;
    enum { M = 20, N = 24, K = 40 };
    for (int b = 0; backend(b, &k, &name); b++)
        for (int form = 0; name && form < FORMS; form++) {
            float x[M * K], w[N * K], y[M * N];
            for (int i = 0; i < M * K; i++) x[i] = 0.0f;
            for (int i = 0; i < N * K; i++) w[i] = 1.0f;
            for (int i = 0; i < M * N; i++) y[i] = NAN;
            w[0] = INFINITY;
            call_of(&k, form)(y, x, w, M, N, K, SET);
            ASSERT(isnan(y[0]));
            ASSERT_EQ(y[M * N - 1], 0.0f);
        }
}

/* OpenBLAS chooses its core while it is loaded: a test can choose for it only before that. */
static void load_openblas_as(const char *core)
{
    if (cpu_isa() == ISA_PORTABLE) SKIP("any OpenBLAS core is good enough for this CPU");
    if (dlopen("libopenblas.so.0", RTLD_NOW | RTLD_NOLOAD)) SKIP("OpenBLAS was loaded with the program");
    setenv("OPENBLAS_CORETYPE", core, 1);
}

TEST(gemm, an_unworthy_openblas_is_refused_with_the_remedy)
{
    Kernels k = {0};
    const char *name, *warning;
    load_openblas_as("Prescott");
    gemm_install(&k, cpu_isa(), "openblas", &name, &warning);
    ASSERT(warning && name && k.gemm_nt);
    if (strstr(warning, "cannot be opened")) SKIP("no OpenBLAS on this machine");
    if (strstr(warning, "built without")) SKIP("built without the OpenBLAS loader");
    ASSERT(strstr(warning, "Prescott") && strstr(warning, "OPENBLAS_CORETYPE="));
}

TEST(gemm, a_worthy_openblas_serves)
{
    Kernels k = {0};
    const char *name, *warning;
    load_openblas_as(cpu_isa() == ISA_AVX512 ? "SkylakeX" : "Haswell");
    gemm_install(&k, cpu_isa(), "openblas", &name, &warning);
    if (warning && !strstr(warning, "is refused")) SKIP("no OpenBLAS on this machine or in this build");
    if (warning && !strstr(warning, "Prescott")) SKIP("this OpenBLAS has no kernels for this CPU");
    ASSERT(!warning);
    ASSERT(strstr(name, "OpenBLAS"));
    for (int form = 0; form < FORMS; form += 2) {
        Problem p = problem_make(form, (Shape){100, 70, 300}, form ? SET : ADD);
        check_values(&p, &k, name);
        arena_free(&p.a);
    }
}
