/* kernels/layernorm_avx512.c: layernorm.c for AVX-512, float; the work is in layernorm_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/layernorm_vec_impl.h"
