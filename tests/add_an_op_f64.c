/* tests/add_an_op_f64.c: the kernels of docs/add-an-op.md in double. */
#define REAL double
#define REAL_SUFFIX f64
#include "tests/add_an_op_impl.h"
