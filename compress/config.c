/* compress/config.c: field tables of the sections distill, lora, prune, qat and quantize (core/config.h). */
#include "compress/compress.h"

static const ConfigField feature_fields[] = {
#define CFG_STRUCT FeatureConfig
#include "core/config_table.h"
#include "compress/feature.def"
#include "core/config_undef.h"
};
CFG_SECTION(feature_section, "features", FeatureConfig, feature_fields, "one pair of matched activations")

static const ConfigField distill_fields[] = {
#define CFG_STRUCT DistillConfig
#include "core/config_table.h"
#include "compress/distill.def"
#include "core/config_undef.h"
};
static const char *const distill_alias[][2] = {
    {"kd_temperature", "temperature"}, {"kd_alpha", "alpha"}, {"kd_ratio", "alpha"},
    {"kd_ce_alpha", "ce_weight"},      {"kd_beta", "beta"},   {"lmbda", "on_policy"},
};
CFG_SECTION_ALIAS(distill_section, "distill", DistillConfig, distill_fields,
                  "what the student learns from the teacher", distill_alias)

static const ConfigField lora_fields[] = {
#define CFG_STRUCT LoraConfig
#include "core/config_table.h"
#include "compress/lora.def"
#include "core/config_undef.h"
};
static const char *const lora_alias[][2] = {
    {"lora_r", "r"},
    {"lora_rank", "r"},
    {"rank", "r"},
    {"lora_alpha", "alpha"},
    {"lora_dropout", "dropout"},
    {"lora_target", "target_modules"},
    {"lora_target_modules", "target_modules"},
};
CFG_SECTION_ALIAS(lora_section, "lora", LoraConfig, lora_fields, "low-rank adapters", lora_alias)

static const ConfigField calibration_fields[] = {
#define CFG_STRUCT CalibrationConfig
#include "core/config_table.h"
#include "compress/calibration.def"
#include "core/config_undef.h"
};
CFG_SECTION(calibration_section, "calibration", CalibrationConfig, calibration_fields,
            "inputs that are measured")

static const ConfigField prune_fields[] = {
#define CFG_STRUCT PruneConfig
#include "core/config_table.h"
#include "compress/prune.def"
#include "core/config_undef.h"
};
CFG_SECTION(prune_section, "prune", PruneConfig, prune_fields, "masks over weights")

static const ConfigField qat_rule_fields[] = {
#define CFG_STRUCT QatRuleConfig
#include "core/config_table.h"
#include "compress/qat_rule.def"
#include "core/config_undef.h"
};
CFG_SECTION(qat_rule_section, "rules", QatRuleConfig, qat_rule_fields, "one exception by name")

static const ConfigField qat_fields[] = {
#define CFG_STRUCT QatConfig
#include "core/config_table.h"
#include "compress/qat.def"
#include "core/config_undef.h"
};
CFG_SECTION(qat_section, "qat", QatConfig, qat_fields, "quantisation in training")

static const ConfigField quantize_rule_fields[] = {
#define CFG_STRUCT QuantizeRuleConfig
#include "core/config_table.h"
#include "compress/quantize_rule.def"
#include "core/config_undef.h"
};
CFG_SECTION(quantize_rule_section, "rules", QuantizeRuleConfig, quantize_rule_fields, "one exception by name")

static const ConfigField quantize_fields[] = {
#define CFG_STRUCT QuantizeConfig
#include "core/config_table.h"
#include "compress/quantize.def"
#include "core/config_undef.h"
};
static const char *const quantize_alias[][2] = {
    {"desc_act", "act_order"},
};
CFG_SECTION_ALIAS(quantize_section, "quantize", QuantizeConfig, quantize_fields,
                  "quantisation after training", quantize_alias)
