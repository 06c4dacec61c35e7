/* kernels/adamw_avx2.c: the float kernels of adamw.c for AVX2; the work is in adamw_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/adamw_vec_impl.h"
