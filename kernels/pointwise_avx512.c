/* kernels/pointwise_avx512.c: pointwise.c for AVX-512, float; the work is in pointwise_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/pointwise_vec_impl.h"
