/* kernels/dropout_avx2.c: dropout.c for AVX2, float; the work is in dropout_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/dropout_vec_impl.h"
