/* kernels/adamw_avx2.c: adamw.c for AVX2, float; the work is in adamw_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/adamw_vec_impl.h"
