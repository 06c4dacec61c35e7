/* kernels/gemm_openblas.c: one piece of a product by OpenBLAS, opened at run time.
 *
 * OpenBLAS picks its kernels when it is loaded; releases before 0.3.25 take newer CPUs for a "Prescott"
 * (SSE3) and run at a fifth of the speed. So its choice is read back, and refused with a sentence that says
 * what to do. The variable it obeys is read while loading: setting it from here would be too late, and
 * re-starting the program is the user's call.
 */
#include "kernels/gemm_impl.h"
#include <dlfcn.h>
#include <omp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };
typedef void Sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                   int lda, const float *b, int ldb, float beta, float *c, int ldc);
static Sgemm *sgemm;
static char name[96], refusal[400];

/* The symbol as a function pointer; ISO C has no cast for it. */
static bool find(void *library, const char *symbol, void *function)
{
    void *found = dlsym(library, symbol);
    memcpy(function, &found, sizeof found);
    return found != NULL;
}

/* True when `core`, a name OpenBLAS reports, uses the vector width of isa. */
static bool worthy(const char *core, Isa isa)
{
    static const char *const avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids"}, *const avx2[] = {
                                                                                          "Haswell", "Zen"};
    for (size_t i = 0; i < sizeof avx512 / sizeof *avx512; i++)
        if (!strcasecmp(core, avx512[i])) return true;
    for (size_t i = 0; i < sizeof avx2 / sizeof *avx2; i++)
        if (!strcasecmp(core, avx2[i])) return isa <= ISA_AVX2;
    return isa == ISA_PORTABLE;
}

static bool open_library(void)
{
    static const char *const files[] = {"libopenblas.so.0", "libopenblas.so", "libopenblas.so.3"};
    void *library = NULL;
    for (size_t i = 0; i < sizeof files / sizeof *files && !library; i++)
        library = dlopen(files[i], RTLD_NOW | RTLD_LOCAL);
    char *(*config)(void), *(*core)(void);
    void (*set_threads)(int);
    Sgemm *call;
    if (!library || !find(library, "openblas_get_config", &config) ||
        !find(library, "openblas_get_corename", &core) ||
        !find(library, "openblas_set_num_threads", &set_threads) || !find(library, "cblas_sgemm", &call))
        return false;
    const int threads = omp_get_max_threads();
    set_threads(1); /* the OpenMP flavour passes this on to OpenMP */
    omp_set_num_threads(threads);
    const char *version = config(); /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." */
    const int length = (int)strcspn(version, " ") == 8 ? 9 + (int)strcspn(version + 9, " ") : 8;
    snprintf(name, sizeof name, "%.*s %s", length, version, core());
    sgemm = call;
    return true;
}

const char *gemm_openblas_name(Isa isa, const char **warning)
{
    if (!sgemm && !open_library()) {
        *warning = "OpenBLAS was asked for but libopenblas.so.0 cannot be opened: install it (Debian: "
                   "libopenblas0-openmp) or choose blas auto, dnnl or builtin; going on without it";
        return NULL;
    }
    if (worthy(strrchr(name, ' ') + 1, isa)) return name;
    snprintf(refusal, sizeof refusal,
             "%s is refused: it took this CPU (%s) for an older one and would run several times "
             "too slow; set OPENBLAS_CORETYPE=%s in the environment before starting, or choose blas auto, "
             "dnnl or "
             "builtin; going on without it",
             name, isa_name(isa), isa == ISA_AVX512 ? "SkylakeX" : "Haswell");
    *warning = refusal;
    return NULL;
}

void gemm_piece_openblas(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w,
                         long ldw, long m, long n, long k, Mode mode)
{
    sgemm(ROW_MAJOR, form == GEMM_TN ? TRANS : NO_TRANS, form == GEMM_NT ? TRANS : NO_TRANS, (int)m, (int)n,
          (int)k, 1.0f, x, (int)ldx, w, (int)ldw, mode == ADD ? 1.0f : 0.0f, y, (int)ldy);
}
