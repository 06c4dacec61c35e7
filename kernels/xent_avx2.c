/* kernels/xent_avx2.c: xent.c for AVX2, float; the work is in xent_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/xent_vec_impl.h"
