/* compress/lora_impl.h: private to lora*.c. */
#ifndef LORA_IMPL_H
#define LORA_IMPL_H
#include "compress/compress.h"

/* ---- lora_names.c ---- */
/* A glob over the whole path, or a path's end: q_proj, self_attn.q_proj, model.layers.0.self_attn.q_proj. */
bool module_match(const char *pattern, const char *module);
/* "no module matches ...; the nearest is ..." at key. */
bool module_missing(const char *key, const char *pattern, const Model *m, const ConfigDoc *doc, Err *e);
bool lora_at(const ConfigDoc *doc, const char *key, Err *e); /* puts file:line:col before an error; false */
bool is_embedding(const Model *m, const char *module);
bool is_head(const Model *m, const char *module);
const char *module_of(const char *tensor, Arena *a, Err *e); /* without .weight or .bias */
/* The value of the last pattern that matches, or def. */
double pattern_value(const ConfigNode *map, const char *module, double def);

/* ---- lora.c ---- */
void lora_start(Lora *l, Model *m, const char *name);
/* One module with rank r: parameters without values. wants m: dora. */
LoraItem *lora_add(Lora *l, const char *module, long r, double alpha, Err *e);
/* Branches, weights and hooks onto the model; *key: the one to change, where it is refused. */
bool lora_hang(Lora *l, const char **key, Err *e);
void lora_unhang(Model *m);
bool lora_add_start(LoraItem *it, Err *e); /* a0 and b0, without values */
LoraSaved *lora_save_add(Lora *l, Param *p, Err *e);
double lora_scale(const Lora *l, double alpha, long r);

/* ---- lora_branch.c ---- */
Branch lora_branch(LoraItem *it);
Attachment lora_attachment(LoraItem *it);
TensorHook lora_hook(LoraItem *it);
bool is_lora_branch(const Branch *b);
bool is_lora_attachment(const Attachment *a);
bool is_lora_hook(const TensorHook *h);

/* ---- lora_peft.c, lora_h5.c ---- */
bool lora_read_peft(Lora *l, const char *dir, Err *e);
bool lora_read_h5(Lora *l, H5In *h, const char *group, Err *e);
bool lora_check_start(const Lora *l, const char *path, Err *e); /* refuses PiSSA's own, before peft */
bool lora_check_base(const Lora *l, const char *path, bool force, Err *e);
/* floats into a parameter of the model's real type, and back */
void param_put(const Kernels *k, void *dst, const float *src, size_t n);
float *param_floats(const Kernels *k, const void *src, size_t n, Arena *a, Err *e);
#endif
