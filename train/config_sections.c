/* train/config_sections.c: field tables of the sections that train owns, and of the whole file
 * (core/config.h). */
#include "train/config_impl.h"

static const ConfigField early_stopping_fields[] = {
#define CFG_STRUCT EarlyStoppingConfig
#include "core/config_table.h"
#include "train/early_stopping.def"
#include "core/config_undef.h"
};
CFG_SECTION(early_stopping_section, "early_stopping", EarlyStoppingConfig, early_stopping_fields,
            "stop when a metric no longer improves")

static const ConfigField run_fields[] = {
#define CFG_STRUCT RunConfig
#include "core/config_table.h"
#include "train/run.def"
#include "core/config_undef.h"
};
static const char *const run_alias[][2] = {
    {"resume_from_checkpoint", "resume"},
};
CFG_SECTION_ALIAS(run_section, "run", RunConfig, run_fields, "what to do and where to write", run_alias)

static const ConfigField device_fields[] = {
#define CFG_STRUCT DeviceConfig
#include "core/config_table.h"
#include "train/device.def"
#include "core/config_undef.h"
};
CFG_SECTION(device_section, "device", DeviceConfig, device_fields, "where to compute")

static const ConfigField train_fields[] = {
#define CFG_STRUCT TrainConfig
#include "core/config_table.h"
#include "train/train.def"
#include "core/config_undef.h"
};
static const char *const train_alias[][2] = {
    {"num_train_epochs", "epochs"},
    {"num_epochs", "epochs"},
    {"max_iters", "max_steps"},
    {"num_iterations", "max_steps"},
    {"per_device_train_batch_size", "batch_size"},
    {"micro_batch_size", "batch_size"},
    {"grad_accum", "gradient_accumulation_steps"},
    {"max_grad_norm", "clip_grad_norm"},
    {"grad_clip", "clip_grad_norm"},
};
CFG_SECTION_ALIAS(train_section, "train", TrainConfig, train_fields, "length of the run and size of a step",
                  train_alias)

static const ConfigField perplexity_fields[] = {
#define CFG_STRUCT PerplexityConfig
#include "core/config_table.h"
#include "train/perplexity.def"
#include "core/config_undef.h"
};
CFG_SECTION(perplexity_section, "perplexity", PerplexityConfig, perplexity_fields, "perplexity protocol")

static const ConfigField generate_fields[] = {
#define CFG_STRUCT GenerateConfig
#include "core/config_table.h"
#include "train/generate.def"
#include "core/config_undef.h"
};
CFG_SECTION(generate_section, "generate", GenerateConfig, generate_fields, "samples written during training")

static const ConfigField eval_fields[] = {
#define CFG_STRUCT EvalConfig
#include "core/config_table.h"
#include "train/eval.def"
#include "core/config_undef.h"
};
static const char *const eval_alias[][2] = {
    {"eval_steps", "every_steps"},
};
CFG_SECTION_ALIAS(eval_section, "eval", EvalConfig, eval_fields, "evaluation during training", eval_alias)

static const ConfigField keep_best_fields[] = {
#define CFG_STRUCT KeepBestConfig
#include "core/config_table.h"
#include "train/keep_best.def"
#include "core/config_undef.h"
};
CFG_SECTION(keep_best_section, "keep_best", KeepBestConfig, keep_best_fields,
            "the checkpoints kept for their metric")

static const ConfigField checkpoint_fields[] = {
#define CFG_STRUCT CheckpointConfig
#include "core/config_table.h"
#include "train/checkpoint.def"
#include "core/config_undef.h"
};
static const char *const checkpoint_alias[][2] = {
    {"save_steps", "every_steps"},
};
CFG_SECTION_ALIAS(checkpoint_section, "checkpoint", CheckpointConfig, checkpoint_fields,
                  "when to save and what to keep", checkpoint_alias)

static const ConfigField profile_fields[] = {
#define CFG_STRUCT ProfileConfig
#include "core/config_table.h"
#include "train/profile.def"
#include "core/config_undef.h"
};
CFG_SECTION(profile_section, "profile", ProfileConfig, profile_fields, "steps that are timed")

static const ConfigField log_fields[] = {
#define CFG_STRUCT LogConfig
#include "core/config_table.h"
#include "train/log.def"
#include "core/config_undef.h"
};
static const char *const log_alias[][2] = {
    {"logging_steps", "every_steps"},
};
CFG_SECTION_ALIAS(log_section, "log", LogConfig, log_fields, "what is logged", log_alias)

static const ConfigField export_fields[] = {
#define CFG_STRUCT ExportConfig
#include "core/config_table.h"
#include "train/export.def"
#include "core/config_undef.h"
};
CFG_SECTION(export_section, "export", ExportConfig, export_fields, "one model written at the end")

static const ConfigField dist_fields[] = {
#define CFG_STRUCT DistConfig
#include "core/config_table.h"
#include "train/dist.def"
#include "core/config_undef.h"
};
CFG_SECTION(dist_section, "dist", DistConfig, dist_fields, "several processes")

static const ConfigField config_fields[] = {
#define CFG_STRUCT Config
#include "core/config_table.h"
#include "train/config.def"
#include "core/config_undef.h"
};
CFG_SECTION(config_section, "config", Config, config_fields, "pare configuration, version 1")
