/* compress/compress.h: floor 5. What makes a model smaller: configuration of distillation, LoRA, pruning,
 * quantisation.
 *
 *   const DistillConfig *d = &config->distill;
 *   loss = d->ce_weight * ce + d->alpha * (d->scale_t2 ? d->temperature * d->temperature : 1) * kd;
 */
#ifndef COMPRESS_H
#define COMPRESS_H
#include "core/config.h"
#include "model/model.h"

typedef struct FeatureConfig {
#include "core/config_fields.h"
#include "compress/feature.def"
#include "core/config_undef.h"
} FeatureConfig;
typedef struct DistillConfig {
#include "core/config_fields.h"
#include "compress/distill.def"
#include "core/config_undef.h"
} DistillConfig;
typedef struct LoraConfig {
#include "core/config_fields.h"
#include "compress/lora.def"
#include "core/config_undef.h"
} LoraConfig;
typedef struct PruneConfig {
#include "core/config_fields.h"
#include "compress/prune.def"
#include "core/config_undef.h"
} PruneConfig;
typedef struct QatConfig {
#include "core/config_fields.h"
#include "compress/qat.def"
#include "core/config_undef.h"
} QatConfig;
typedef struct QuantizeConfig {
#include "core/config_fields.h"
#include "compress/quantize.def"
#include "core/config_undef.h"
} QuantizeConfig;
const ConfigSection *feature_section(void);
const ConfigSection *distill_section(void);
const ConfigSection *lora_section(void);
const ConfigSection *prune_section(void);
const ConfigSection *qat_section(void);
const ConfigSection *quantize_section(void);

/* ---- distill.c: the distillation terms, as loss nodes and taps; the model knows nothing of them
 * ------------------- */
typedef struct FeatureTerm {
    const char *student, *teacher, *label;
    bool cosine;
    double weight;
    Param *projector;
} FeatureTerm;
typedef struct Distill {
    const DistillConfig *c;
    int n;
    FeatureTerm *term;
} Distill;
/* Feature terms of the config: templates expanded by layer_map (algorithms 5.2), layers checked against both
 * models, projectors (d_T,d_S) added to the student's parameters as aux. Call before gradients are allocated.
 */
bool distill_open(Distill *d, const DistillConfig *c, Model *student, const Model *teacher, uint64_t seed,
                  Err *e);
/* What the language-model loss is made of: ce_weight CE + alpha (T^2) KL. */
LmLossAttr distill_loss(const DistillConfig *c, double label_smoothing, double z_loss);
/* Adds the feature losses over taps `student.*` and `teacher.*` of the recorded graph. targets: int32 (B,T).
 */
bool distill_features(const Distill *d, Graph *g, Tensor *targets, Err *e);
#endif
