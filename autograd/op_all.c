/* autograd/op_all.c: the registry, an expansion of ops.def. */
#include "autograd/autograd.h"

const Op *const all_ops[] = {
#define OPDEF(name, out, grad) &op_##name,
#include "autograd/ops.def"
#undef OPDEF
};
const int n_all_ops = (int)(sizeof all_ops / sizeof *all_ops);
