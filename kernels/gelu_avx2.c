/* kernels/gelu_avx2.c: the float kernels of gelu.c for AVX2; the work is in gelu_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/gelu_vec_impl.h"
