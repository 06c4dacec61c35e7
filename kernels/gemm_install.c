/* kernels/gemm_install.c: which GEMM serves a table, and the doors every call goes through.
 *
 * A door takes care of empty sizes (K = 0 makes zeros), sends products of fewer than 8 rows to kernels that stream the
 * weights once, and the rest to the back end in pieces (gemm_slice.c).
 */
#include "kernels/gemm_impl.h"
#include <string.h>

typedef void GemmCall(void *y, const void *x, const void *w, long M, long N, long K, Mode mode);

/* True when nothing is left to multiply: y has no elements, or K = 0 and y was zeroed (SET) or left alone (ADD). */
static bool empty(void *y, long M, long N, long K, Mode mode)
{
    if (M > 0 && N > 0 && K > 0) return false;
    if (M > 0 && N > 0 && mode == SET) memset(y, 0, (size_t)M * (size_t)N * sizeof(float));
    return true;
}

#define DOOR(fn, form, backend)                                                                                       \
    static void fn(void *y, const void *x, const void *w, long M, long N, long K, Mode mode)                         \
    {                                                                                                                 \
        if (!empty(y, M, N, K, mode)) gemm_sliced(gemm_piece_##backend, form, y, x, w, M, N, K, mode);                 \
    }
#define DOORS(backend)                                                                                                \
    DOOR(nt_##backend, GEMM_NT, backend) DOOR(nn_##backend, GEMM_NN, backend) DOOR(tn_##backend, GEMM_TN, backend)

#ifdef HAVE_DNNL
DOORS(dnnl)
#endif

static void put(Kernels *k, GemmCall *nt, GemmCall *nn, GemmCall *tn)
{
    k->gemm_nt = nt;
    k->gemm_nn = nn;
    k->gemm_tn = tn;
}

void gemm_install(Kernels *k, Isa isa, const char *blas, const char **name, const char **warning)
{
    *warning = NULL;
    *name = "builtin portable";
    put(k, gemm_nt_f32, gemm_nn_f32, gemm_tn_f32);
#ifdef HAVE_DNNL
    if (!strcmp(blas, "dnnl") || (!strcmp(blas, "auto") && isa > ISA_PORTABLE)) {
        put(k, nt_dnnl, nn_dnnl, tn_dnnl);
        *name = gemm_dnnl_name();
    }
#endif
}
