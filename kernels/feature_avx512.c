/* kernels/feature_avx512.c: feature.c for AVX-512, float; the work is in feature_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/feature_vec_impl.h"
