/* kernels/rope_avx2.c: rope.c for AVX2, float; the work is in rope_vec_impl.h. */
#include "kernels/vec_avx2_impl.h"
#include "kernels/rope_vec_impl.h"
