/* kernels/gelu_avx2.c: gelu.c for AVX2, float; the work is in gelu_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/gelu_vec_impl.h"
