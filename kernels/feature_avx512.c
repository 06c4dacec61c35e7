/* kernels/feature_avx512.c: the float kernels of feature.c for AVX-512; the work is in feature_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/feature_vec_impl.h"
