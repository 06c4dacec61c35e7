/* kernels/adamw_avx512.c: adamw.c for AVX-512, float; the work is in adamw_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/adamw_vec_impl.h"
