/* kernels/dropout_avx512.c: dropout.c for AVX-512, float; the work is in dropout_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/dropout_vec_impl.h"
