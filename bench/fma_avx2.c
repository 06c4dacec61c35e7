/* bench/fma_avx2.c: see fma_impl.h. */
#include "bench/bench.h"

#define WIDTH 32
#define NAME bench_fma_avx2
#include "bench/fma_impl.h"
