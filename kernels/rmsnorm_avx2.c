/* kernels/rmsnorm_avx2.c: rmsnorm.c for AVX2, float; the work is in rmsnorm_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/rmsnorm_vec_impl.h"
