/* kernels/swiglu_avx2.c: swiglu.c for AVX2, float; the work is in swiglu_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/swiglu_vec_impl.h"
