/* compress/compress.h: floor 5. What makes a model smaller: configuration of distillation, LoRA, pruning, quantisation.
 *
 *   const DistillConfig *d = &config->distill;
 *   loss = d->ce_weight * ce + d->alpha * (d->scale_t2 ? d->temperature * d->temperature : 1) * kd;
 */
#ifndef COMPRESS_H
#define COMPRESS_H
#include "core/config.h"

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
#endif
