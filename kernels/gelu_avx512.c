/* kernels/gelu_avx512.c: the float kernels of gelu.c for AVX-512; the work is in gelu_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/gelu_vec_impl.h"
