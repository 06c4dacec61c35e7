/* tests/add_an_op_f32.c: the kernels of docs/add-an-op.md in float. */
#define REAL float
#define REAL_SUFFIX f32
#include "tests/add_an_op_impl.h"
