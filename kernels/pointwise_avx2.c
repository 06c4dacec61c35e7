/* kernels/pointwise_avx2.c: pointwise.c for AVX2, float; the work is in pointwise_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/pointwise_vec_impl.h"
