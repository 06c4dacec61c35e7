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
void load_warn_unused(const Model *m, const TensorFile *f);
#endif
