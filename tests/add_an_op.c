/* tests/add_an_op.c: the op of docs/add-an-op.md. Its kernels are in no table: k->squared_relu_fwd(...)
 * becomes a call of the float or the double one, which is what a table's entry would be. */
#include "autograd/autograd.h"
#include "tests/add_an_op_impl.h"

#define squared_relu_fwd(...)                                                                                \
    real == sizeof(double) ? squared_relu_fwd_f64(__VA_ARGS__) : squared_relu_fwd_f32(__VA_ARGS__)
#define squared_relu_bwd(...)                                                                                \
    real == sizeof(double) ? squared_relu_bwd_f64(__VA_ARGS__) : squared_relu_bwd_f32(__VA_ARGS__)
#define OPDEF(name, out, grad) extern const Op op_##name;
#include "tests/add_an_op/ops.def"
#undef OPDEF
#include "tests/add_an_op/op_squared_relu.c"
