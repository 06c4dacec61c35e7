/* kernels/xent_avx512.c: xent.c for AVX-512, float; the work is in xent_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/xent_vec_impl.h"
