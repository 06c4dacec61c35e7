/* kernels/swiglu_avx512.c: swiglu.c for AVX-512, float; the work is in swiglu_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/swiglu_vec_impl.h"
