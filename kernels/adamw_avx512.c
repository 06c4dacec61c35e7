/* kernels/adamw_avx512.c: the float kernels of adamw.c for AVX-512; the work is in adamw_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/adamw_vec_impl.h"
