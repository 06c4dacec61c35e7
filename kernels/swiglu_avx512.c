/* kernels/swiglu_avx512.c: the float kernels of swiglu.c for AVX-512; the work is in swiglu_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/swiglu_vec_impl.h"
