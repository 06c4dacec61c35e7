/* kernels/rope_avx512.c: rope.c for AVX-512, float; the work is in rope_vec_impl.h. */
#include "kernels/vec_avx512_impl.h"
#include "kernels/rope_vec_impl.h"
