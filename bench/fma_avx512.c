/* bench/fma_avx512.c: see fma_impl.h. */
#include "bench/bench.h"

#define WIDTH 64
#define NAME bench_fma_avx512
#include "bench/fma_impl.h"
