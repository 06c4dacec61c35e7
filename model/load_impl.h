/* model/load_impl.h: reading a model's values, shared by load.c and convert.c. */
#ifndef LOAD_IMPL_H
#define LOAD_IMPL_H
#include "model/model.h"

/* Spec, parameters and sites of a file's model; no values, no memory for them. */
bool load_spec(Model *m, const TensorFile *f, const Kernels *k, Arena *run, Err *e);
/* Is the parameter there, in the shape that the configuration wants? Takes over how files store it. */
bool load_check(const TensorFile *f, Param *p, Err *e);
/* Its values as floats in memory layout, every one finite; the file's pages are given back. */
bool load_values(const TensorFile *f, const Param *p, float *dst, Err *e);
/* The same as bfloat16: matrices stay so (mapped where the file has them so), what is smaller is rounded. */
bool load_half(Model *m, Param *p, const TensorFile *f, bool in_place, Err *e);
/* Stored just as the kernels read it, on `align` bytes: then the mapping is the memory. A training state's
 * weights go through what hangs on them first. */
bool load_in_place(const TensorFile *f, const FileTensor *t, DType type, size_t align);
bool load_finite(const float *x, size_t n, const TensorFile *f, const Param *p, Err *e);
/* packed.c: p's site gets the codes and scales of the file, if that is how they lie there. */
bool load_packed(Model *m, Param *p, const TensorFile *f, bool *taken, Err *e);
void load_warn_unused(const Model *m, const TensorFile *f);
#endif
