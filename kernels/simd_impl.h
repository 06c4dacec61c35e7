/* kernels/simd_impl.h: the list of float kernels that have AVX2 and AVX-512 versions (GEMM and attention
 * install their own, see gemm_impl.h and attention_impl.h). Adding a fast kernel = x_vec_impl.h, x_avx2.c,
 * x_avx512.c and a word here.
 */
#ifndef SIMD_IMPL_H
#define SIMD_IMPL_H
#include "kernels/kernels.h"

#define SIMD_KERNELS(X)                                                                                      \
    X(axpby)                                                                                                 \
    X(mul)                                                                                                   \
    X(scale)                                                                                                 \
    X(add_row)                                                                                               \
    X(add_colsum)                                                                                            \
    X(sumsq) X(dropout) X(softcap_fwd) X(softcap_bwd) X(gelu_fwd) X(gelu_bwd) X(swiglu_fwd) X(swiglu_bwd)    \
        X(layernorm_fwd) X(layernorm_bwd) X(rmsnorm_fwd) X(rmsnorm_bwd) X(rope_fwd) X(rope_bwd) X(xent)      \
            X(softmax) X(mse_fwd) X(mse_bwd) X(xent_top) X(topk) X(teacher_mix) X(adamw) X(coded_dot)      \
                X(decode_rows)

#define KERNEL(fn, args)                                                                                     \
    void fn##_avx2 args;                                                                                     \
    void fn##_avx512 args;
#include "kernels/kernels.def"
#undef KERNEL

#endif
