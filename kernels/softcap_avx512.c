/* kernels/softcap_avx512.c: softcap.c for AVX-512, float; the work is in softcap_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/softcap_vec_impl.h"
