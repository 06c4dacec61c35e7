/* kernels/table_cpu.c: the tables of CPU kernels: the reference first, then what is faster on this machine
 * overwrites it.
 *
 * PARE_ISA (core/cpu.c) lowers the instruction set, PARE_BLAS=auto|dnnl|openblas|builtin chooses the float
 * GEMM. Tables are made on first use, by the one host thread, and live as long as the program.
 */
#include "core/core.h"
#include "kernels/attention_impl.h"
#include "kernels/gemm_impl.h"
#include "kernels/ref_impl.h"
#include "kernels/simd_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const Kernels ref_f32 = {
    .name = "f32 reference",
    .real = sizeof(float),
#define KERNEL(fn, args) .fn = fn##_f32,
#include "kernels/kernels.def"
#undef KERNEL
};

static const Kernels ref_f64 = {
    .name = "f64 reference",
    .real = sizeof(double),
#define KERNEL(fn, args) .fn = fn##_f64,
#include "kernels/kernels.def"
#undef KERNEL
};

const Kernels *kernels_ref_f32(void) { return &ref_f32; }
const Kernels *kernels_ref_f64(void) { return &ref_f64; }

static const char *const blas_names[] = {"auto", "dnnl", "openblas", "builtin"};
enum { N_BLAS = 4, N_ISA = 3 };

typedef struct Table {
    Kernels k;
    const char *blas, *warning;
    char name[96];
    bool made;
} Table;
static Table tables[N_ISA][N_BLAS];
static const Table *chosen; /* what kernels_cpu_f32 took */

static int blas_index(const char *blas)
{
    for (int i = 0; i < N_BLAS; i++)
        if (!strcmp(blas, blas_names[i])) return i;
    return -1;
}

static void install(Kernels *k, Isa isa)
{
    (void)isa;
    (void)k;
#if defined(__x86_64__) && !defined(PORTABLE)
#define USE_AVX2(fn) k->fn = fn##_avx2;
#define USE_AVX512(fn) k->fn = fn##_avx512;
    if (isa >= ISA_AVX2) { SIMD_KERNELS(USE_AVX2) }
    if (isa >= ISA_AVX512) { SIMD_KERNELS(USE_AVX512) }
#endif
}

/* The table for isa and blas, whether or not the wish for blas could be met (then warning says so). */
static Table *table(Isa isa, int blas)
{
    Table *t = &tables[isa][blas];
    if (t->made) return t;
    t->k = ref_f32;
    install(&t->k, isa);
    attention_install(&t->k, isa);
    gemm_install(&t->k, isa, blas_names[blas], &t->blas, &t->warning);
    snprintf(t->name, sizeof t->name, "f32 %s, gemm %s", isa_name(isa), t->blas);
    t->k.name = t->name;
    t->made = true;
    return t;
}

const Kernels *kernels_isa_f32(int isa, const char *blas)
{
    const int b = blas_index(blas);
    if (b < 0 || isa < ISA_PORTABLE || isa > (int)cpu_isa()) return NULL;
    const Table *t = table((Isa)isa, b);
    return t->warning && b != blas_index("auto") ? NULL : &t->k;
}

static const Table *best(void)
{
    static const char *const unknown =
        "PARE_BLAS names no GEMM library; it may be auto, dnnl, openblas or builtin. Taken as auto.";
    if (chosen) return chosen;
    const char *wish = getenv("PARE_BLAS");
    const int b = wish && *wish ? blas_index(wish) : blas_index("auto");
    Table *t = table(cpu_isa(), b < 0 ? blas_index("auto") : b);
    if (b < 0) t->warning = unknown;
    chosen = t;
    return chosen;
}

const Kernels *kernels_cpu_f32(void) { return &best()->k; }
const char *kernels_blas_name(void) { return best()->blas; }
const char *kernels_blas_warning(void) { return best()->warning; }
