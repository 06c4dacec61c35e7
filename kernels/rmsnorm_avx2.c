/* kernels/rmsnorm_avx2.c: the float kernels of rmsnorm.c for AVX2; the work is in rmsnorm_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/rmsnorm_vec_impl.h"
