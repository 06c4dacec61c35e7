/* kernels/layernorm_avx2.c: layernorm.c for AVX2, float; the work is in layernorm_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/layernorm_vec_impl.h"
