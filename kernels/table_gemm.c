/* kernels/table_gemm.c: which GEMM serves a table, and the doors every call goes through.
 *
 * A door sends products of fewer than 8 rows to kernels that stream the weights once, and cuts the rest into
 * pieces for the back end (gemm_host.c).
 */
#include "kernels/gemm_impl.h"
#include <string.h>

enum { FEW_ROWS = 8 };

#define DOOR(fn, form, piece, library, few, reference)                                                       \
    static void fn(void *y, const void *x, const void *w, long M, long N, long K, Mode mode)                 \
    {                                                                                                        \
        GemmPiece *const small = few;                                                                        \
        if (M >= FEW_ROWS) gemm_sliced(piece, library, form, y, N, x, w, M, N, K, mode);                     \
        else if (small) gemm_sliced(small, false, form, y, N, x, w, M, N, K, mode);                          \
        else reference(y, x, w, M, N, K, mode);                                                              \
    }
#define DOOR_AT(fn, piece, library, few)                                                                     \
    static void fn(void *y, long ldy, const void *x, const void *w, long M, long N, long K)                  \
    {                                                                                                        \
        GemmPiece *const small = few;                                                                        \
        if (M >= FEW_ROWS) gemm_sliced(piece, library, GEMM_NT, y, ldy, x, w, M, N, K, SET);                 \
        else if (small) gemm_sliced(small, false, GEMM_NT, y, ldy, x, w, M, N, K, SET);                      \
        else gemm_nt_at_f32(y, ldy, x, w, M, N, K);                                                          \
    }
#define DOORS(name, piece, library, small)                                                                   \
    DOOR(nt_##name, GEMM_NT, piece, library, small, gemm_nt_f32)                                             \
    DOOR(nn_##name, GEMM_NN, piece, library, small, gemm_nn_f32)                                             \
    DOOR(tn_##name, GEMM_TN, piece, library, small, gemm_tn_f32)                                             \
    DOOR_AT(nt_at_##name, piece, library, small)                                                             \
    static void put_##name(Kernels *k)                                                                       \
    {                                                                                                        \
        k->gemm_nt = nt_##name, k->gemm_nn = nn_##name, k->gemm_tn = tn_##name;                              \
        k->gemm_nt_at = nt_at_##name;                                                                        \
    }

/* Fast back ends beside small-M kernels of each instruction set; the reference serves small M without one. */
#if defined(__x86_64__) && !defined(PORTABLE)
DOORS(avx512, gemm_piece_avx512, false, gemm_small_avx512)
DOORS(avx2, gemm_piece_avx2, false, gemm_small_avx2)
#define LIBRARY_DOORS(name)                                                                                  \
    DOORS(name, gemm_piece_##name, true, NULL)                                                               \
    DOORS(name##_avx2, gemm_piece_##name, true, gemm_small_avx2)                                             \
    DOORS(name##_avx512, gemm_piece_##name, true, gemm_small_avx512)                                         \
    static void install_##name(Kernels *k, Isa isa)                                                          \
    {                                                                                                        \
        if (isa == ISA_AVX512) put_##name##_avx512(k);                                                       \
        else if (isa == ISA_AVX2) put_##name##_avx2(k);                                                      \
        else put_##name(k);                                                                                  \
    }
#else
#define LIBRARY_DOORS(name)                                                                                  \
    DOORS(name, gemm_piece_##name, true, NULL)                                                               \
    static void install_##name(Kernels *k, Isa isa) { (void)isa, put_##name(k); }
#endif
#ifndef BLAS_BUILTIN
LIBRARY_DOORS(openblas)
#endif
#ifdef HAVE_DNNL
LIBRARY_DOORS(dnnl)
#endif

static const char *install_builtin(Kernels *k, Isa isa)
{
    k->gemm_nt = gemm_nt_f32, k->gemm_nn = gemm_nn_f32, k->gemm_tn = gemm_tn_f32;
    k->gemm_nt_at = gemm_nt_at_f32;
#if defined(__x86_64__) && !defined(PORTABLE)
    if (isa == ISA_AVX512) return put_avx512(k), "builtin avx512";
    if (isa == ISA_AVX2) return put_avx2(k), "builtin avx2";
#endif
    (void)isa;
    return "builtin portable";
}

/* oneDNN when it is compiled in and `wanted`, else builtin. */
static const char *install_auto(Kernels *k, Isa isa, bool wanted)
{
#ifdef HAVE_DNNL
    if (wanted) return install_dnnl(k, isa), gemm_dnnl_name();
#endif
    (void)wanted;
    return install_builtin(k, isa);
}

#define ABSENT(what, how)                                                                                    \
    what " was asked for but this program was built without it: build again with " how                       \
         ", or choose another blas; going on with the automatic choice"

void gemm_install(Kernels *k, Isa isa, const char *blas, const char **name, const char **warning)
{
    *warning = NULL;
    if (!strcmp(blas, "builtin")) {
        *name = install_builtin(k, isa);
        return;
    }
#ifndef BLAS_BUILTIN
    if (!strcmp(blas, "openblas") && (*name = gemm_openblas_name(isa, warning)) != NULL) {
        install_openblas(k, isa);
        return;
    }
#endif
    *name = install_auto(k, isa, isa > ISA_PORTABLE || !strcmp(blas, "dnnl"));
#ifndef HAVE_DNNL
    if (!strcmp(blas, "dnnl")) *warning = ABSENT("oneDNN", "libdnnl-dev");
#endif
#ifdef BLAS_BUILTIN
    if (!strcmp(blas, "openblas")) *warning = ABSENT("the OpenBLAS loader", "without BLAS=builtin");
#endif
}
