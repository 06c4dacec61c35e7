/* kernels/rmsnorm_avx512.c: rmsnorm.c for AVX-512, float; the work is in rmsnorm_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/rmsnorm_vec_impl.h"
