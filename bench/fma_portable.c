/* bench/fma_portable.c: see fma_impl.h. */
#include "bench/bench.h"

#define WIDTH 16
#define NAME bench_fma_portable
#include "bench/fma_impl.h"
