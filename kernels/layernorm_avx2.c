/* kernels/layernorm_avx2.c: the float kernels of layernorm.c for AVX2; the work is in layernorm_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/layernorm_vec_impl.h"
