/* kernels/softcap_avx2.c: softcap.c for AVX2, float; the work is in softcap_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/softcap_vec_impl.h"
