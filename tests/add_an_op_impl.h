/* tests/add_an_op_impl.h: what docs/add-an-op.md adds to kernels.def and scalar.h, without touching them.
 *
 *   #define REAL float
 *   #define REAL_SUFFIX f32
 *   #include "tests/add_an_op_impl.h"        // kernels/squared_relu.c of the page
 */
#ifndef ADD_AN_OP_IMPL_H
#define ADD_AN_OP_IMPL_H
#include "kernels/kernels.h"

#define KERNEL(fn, args)                                                                                     \
    void fn##_f32 args;                                                                                      \
    void fn##_f64 args;
#include "tests/add_an_op/kernels.def"
#undef KERNEL

#ifdef REAL
#include "kernels/ref_impl.h"
#define SCALAR_T REAL
#define S(name) K(name)
#include "tests/add_an_op/scalar.h"
#undef SCALAR_T
#undef S
#include "tests/add_an_op/squared_relu.c"
#endif
#endif
