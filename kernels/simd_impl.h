/* kernels/simd_impl.h: the list of float kernels that have AVX2 and AVX-512 versions (GEMM and attention install their
 * own, see gemm_impl.h and attention_impl.h). Adding a fast kernel = x_vec_impl.h, x_avx2.c, x_avx512.c and a word here.
 */
#ifndef SIMD_IMPL_H
#define SIMD_IMPL_H
#include "kernels/kernels.h"

#define SIMD_KERNELS(X)

#endif
