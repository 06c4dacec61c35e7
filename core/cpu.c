/* core/cpu.c: what this CPU offers, found once, and the clock.
 *
 *   PARE_ISA=portable|avx2|avx512 lowers the choice; it never raises it above what the CPU and the build
 *   have.
 */
#include "core/core.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if !defined(PORTABLE) && defined(__x86_64__)
#define CPU_X86 1
#include <cpuid.h>
#endif

static struct {
    Isa isa;
    char features[256];
} cpu;
static pthread_once_t cpu_once = PTHREAD_ONCE_INIT;

#ifdef CPU_X86
static void feature(bool have, const char *name)
{
    size_t used = strlen(cpu.features), len = strlen(name);
    if (!have || used + len + 2 > sizeof cpu.features) return;
    if (used) cpu.features[used++] = ' ';
    memcpy(cpu.features + used, name, len + 1);
}

/* The builtin also asks the operating system whether it saves the wide registers; F16C, VNNI and BF16 follow
 * the same registers and are read from CPUID alone. */
static Isa detect(void)
{
    unsigned a, b, c, d, c1 = 0, b7 = 0, c7 = 0, d7 = 0, a71 = 0;
    __builtin_cpu_init();
    if (__get_cpuid(1, &a, &b, &c, &d)) c1 = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        b7 = b;
        c7 = c;
        d7 = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) a71 = a;
    }
    bool f16c = c1 >> 29 & 1, avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c;
    bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    feature(__builtin_cpu_supports("avx2"), "avx2");
    feature(__builtin_cpu_supports("fma"), "fma");
    feature(avx2 && f16c, "f16c");
    feature(avx2 && (a71 >> 4 & 1), "avx_vnni");
    feature(__builtin_cpu_supports("avx512f"), "avx512f");
    feature(avx512 && (b7 >> 30 & 1), "avx512bw");
    feature(avx512 && (b7 >> 17 & 1), "avx512dq");
    feature(avx512 && (b7 >> 31 & 1), "avx512vl");
    feature(avx512 && (c7 >> 11 & 1), "avx512_vnni");
    feature(avx512 && (a71 >> 5 & 1), "avx512_bf16");
    feature(avx512 && (d7 >> 23 & 1), "avx512_fp16");
    feature(avx512 && (d7 >> 22 & 1), "amx_bf16");
    feature(avx512 && (d7 >> 25 & 1), "amx_int8");
    return avx512 ? ISA_AVX512 : avx2 ? ISA_AVX2 : ISA_PORTABLE;
}
#else
static Isa detect(void) { return ISA_PORTABLE; }
#endif

static void cpu_init(void)
{
    cpu.isa = detect();
    if (!cpu.features[0]) memcpy(cpu.features, "portable", sizeof "portable");
    const char *want = getenv("PARE_ISA");
    if (!want || !*want) return;
    Isa isa = ISA_PORTABLE;
    while (isa < ISA_AVX512 && strcmp(want, isa_name(isa)) != 0) isa++;
    if (strcmp(want, isa_name(isa)) != 0)
        log_warn("PARE_ISA=%s is not portable, avx2 or avx512: ignored, using %s", want, isa_name(cpu.isa));
    else if (isa > cpu.isa) log_warn("PARE_ISA=%s is not available here: using %s", want, isa_name(cpu.isa));
    else cpu.isa = isa;
}

Isa cpu_isa(void)
{
    pthread_once(&cpu_once, cpu_init);
    return cpu.isa;
}

const char *cpu_features(void)
{
    pthread_once(&cpu_once, cpu_init);
    return cpu.features;
}

const char *isa_name(Isa isa) { return isa == ISA_AVX512 ? "avx512" : isa == ISA_AVX2 ? "avx2" : "portable"; }

double time_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
