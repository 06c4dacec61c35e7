/* kernels/feature_avx2.c: feature.c for AVX2, float; the work is in feature_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/feature_vec_impl.h"
