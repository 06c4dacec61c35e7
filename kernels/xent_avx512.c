/* kernels/xent_avx512.c: the float kernels of xent.c for AVX-512; the work is in xent_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/xent_vec_impl.h"
