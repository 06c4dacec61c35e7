/* kernels/pointwise_avx2.c: the float kernels of pointwise.c for AVX2; the work is in pointwise_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/pointwise_vec_impl.h"
