/* kernels/gemm_dnnl.c: one piece of a product by oneDNN's dnnl_sgemm (row-major, single thread: see
 * gemm_host.c).
 *
 * Called whole, dnnl_sgemm gives other bits with other thread counts at some shapes; called on pieces with
 * one thread each it cannot. Sizes here are positive and strides at least the row length, so it has nothing
 * to refuse.
 */
#ifdef HAVE_DNNL
#include "kernels/gemm_impl.h"
#include <dnnl.h>

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)

const char *gemm_dnnl_name(void)
{
    return "oneDNN " TEXT(DNNL_VERSION_MAJOR) "." TEXT(DNNL_VERSION_MINOR) "." TEXT(
        DNNL_VERSION_PATCH) " dnnl_sgemm";
}

void gemm_piece_dnnl(GemmForm form, float *y, long ldy, const float *x, long ldx, const float *w, long ldw,
                     long m, long n, long k, Mode mode)
{
    dnnl_sgemm(form == GEMM_TN ? 'T' : 'N', form == GEMM_NT ? 'T' : 'N', m, n, k, 1.0f, x, ldx, w, ldw,
               mode == ADD ? 1.0f : 0.0f, y, ldy);
}
#else
typedef int gemm_dnnl_is_absent;
#endif
