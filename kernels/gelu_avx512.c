/* kernels/gelu_avx512.c: gelu.c for AVX-512, float; the work is in gelu_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/gelu_vec_impl.h"
