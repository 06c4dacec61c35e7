/* train/verb_impl.h: what the verbs share. A verb returns its exit code; with an error in x->e, main shows it
 * and exits with its code. */
#ifndef VERB_IMPL_H
#define VERB_IMPL_H
#include "train/train.h"
#include <jansson.h>

const char *args_get(const Args *x, const char *name, const char *def); /* the last --name, "" for a switch */
bool args_has(const Args *x, const char *name);
double args_number(Args *x, const char *name, double def);
/* --name within [lo, hi], exactly; anything else is an error. _key: default and range are those of a config's
 * key. */
int64_t args_int(Args *x, const char *name, int64_t def, int64_t lo, int64_t hi);
double args_float(Args *x, const char *name, double def, double lo, double hi);
int64_t args_int_key(Args *x, const char *name, const ConfigSection *s, const char *key);
double args_float_key(Args *x, const char *name, const ConfigSection *s, const char *key);
int args_say(Args *x, const char *text); /* one result and a newline; 0, or 1 with x->e set */
int args_say_json(Args *x, json_t *j);   /* takes the reference */
json_t *args_json_number(double v);
const Kernels *args_kernels(void);
bool args_is_config(const char *path);
const char *args_path(Args *x, const char *path); /* a run's folder stands for its newest checkpoint */
bool args_model(Args *x, Model *m, const char *path);
/* The same, codes used as they are unless dense or --dense. */
bool args_packed(Args *x, Model *m, const char *path, bool dense);
/* The same with every --adapter on it, in use. all (may be NULL): the *n of them. */
bool args_adapters(Args *x, Model *m, Lora ***all, int *n);
bool args_adapted(Args *x, Model *m, const char *path, Lora ***all, int *n);
/* --tokenizer, read as --pattern and `how` (may be NULL) say; without it the model's own. NULL without an
 * error: there is none. */
Tokenizer *args_tokenizer(Args *x, const Model *m);
Tokenizer *args_tokenizer_as(Args *x, const Model *m, const TokenizerConfig *how);
/* Every --name GLOB as one override of key. */
void args_globs(Args *x, const char *name, const char *key);
Config *args_defaults(Args *x); /* a config's defaults with the overrides, without a file */

int verb_train(Args *x);
int verb_teacher_cache(Args *x);
int verb_validate(Args *x);
int verb_config(Args *x);
int verb_doctor(Args *x), verb_report(Args *x);
int verb_eval(Args *x);
int verb_generate(Args *x);
int verb_probe(Args *x);
int verb_compare(Args *x);
int verb_inspect(Args *x);
int verb_export(Args *x);
int verb_quantize(Args *x);
int verb_prune(Args *x);
int verb_delta(Args *x);
int verb_data(Args *x);
int verb_merge(Args *x);
int verb_unmerge(Args *x);
int verb_extract_lora(Args *x);
#endif
