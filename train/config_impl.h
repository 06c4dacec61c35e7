/* train/config_impl.h: the whole configuration as one struct: every section of a run, as typed values.
 *
 *   ConfigDoc *doc = NULL;
 *   Config *c = config_load(&run, "configs/demo.yaml", argc, argv, &doc, &e);    // argv: "optim.lr=1e-4",
 * "~model.freeze" if (!c) { log_plain("%s", doc ? config_error_text(doc) : e.msg); return e.code; }
 *
 * Paths in it are ready to be opened (config_path of core/config.h has been applied).
 */
#ifndef TRAIN_CONFIG_IMPL_H
#define TRAIN_CONFIG_IMPL_H
#include "compress/compress.h"
#include "data/data.h"
#include "model/model.h"
#include "optim/optim.h"

typedef struct EarlyStoppingConfig {
#include "core/config_fields.h"
#include "train/early_stopping.def"
#include "core/config_undef.h"
} EarlyStoppingConfig;
typedef struct RunConfig {
#include "core/config_fields.h"
#include "train/run.def"
#include "core/config_undef.h"
} RunConfig;
typedef struct DeviceConfig {
#include "core/config_fields.h"
#include "train/device.def"
#include "core/config_undef.h"
} DeviceConfig;
typedef struct TrainConfig {
#include "core/config_fields.h"
#include "train/train.def"
#include "core/config_undef.h"
} TrainConfig;
typedef struct PerplexityConfig {
#include "core/config_fields.h"
#include "train/perplexity.def"
#include "core/config_undef.h"
} PerplexityConfig;
typedef struct GenerateConfig {
#include "core/config_fields.h"
#include "train/generate.def"
#include "core/config_undef.h"
} GenerateConfig;
typedef struct EvalConfig {
#include "core/config_fields.h"
#include "train/eval.def"
#include "core/config_undef.h"
} EvalConfig;
typedef struct KeepBestConfig {
#include "core/config_fields.h"
#include "train/keep_best.def"
#include "core/config_undef.h"
} KeepBestConfig;
typedef struct CheckpointConfig {
#include "core/config_fields.h"
#include "train/checkpoint.def"
#include "core/config_undef.h"
} CheckpointConfig;
typedef struct ProfileConfig {
#include "core/config_fields.h"
#include "train/profile.def"
#include "core/config_undef.h"
} ProfileConfig;
typedef struct LogConfig {
#include "core/config_fields.h"
#include "train/log.def"
#include "core/config_undef.h"
} LogConfig;
typedef struct ExportConfig {
#include "core/config_fields.h"
#include "train/export.def"
#include "core/config_undef.h"
} ExportConfig;
typedef struct DistConfig {
#include "core/config_fields.h"
#include "train/dist.def"
#include "core/config_undef.h"
} DistConfig;
/* One entry of stages. recipe: pretrain, finetune, distill: trains; prune, quantize: changes without steps;
 * export: changes nothing. */
typedef struct StageConfig {
    const char *name, *recipe;
    bool trains, keep_optimizer;
    bool own_prune, own_qat,
        own_export; /* the entry has that section; else the section goes on from before */
} StageConfig;
/* NAN floats are unset: model.dropout (the model's own), distill.ce_weight is set by config_load. */
typedef struct Config {
#include "core/config_fields.h"
#include "train/config.def"
#include "core/config_undef.h"
    int n_arm; /* names under arms, in the order written */
    const char **arm;
    int n_stage; /* entries of stages */
    StageConfig *stage;
    int at_stage;     /* config_load_stage: which one this is of; else -1 */
    const char *path; /* the file as given; NULL = command line only */
    bool caching;     /* teacher.cache is what will be written */
    ConfigDoc *doc;   /* for config_was_set, config_show and config_resolved */
} Config;
const ConfigSection *config_section(void);
const ConfigSection *early_stopping_section(void);
const ConfigSection *run_section(void);
const ConfigSection *device_section(void);
const ConfigSection *train_section(void);
const ConfigSection *perplexity_section(void);
const ConfigSection *generate_section(void);
const ConfigSection *eval_section(void);
const ConfigSection *keep_best_section(void);
const ConfigSection *checkpoint_section(void);
const ConfigSection *profile_section(void);
const ConfigSection *log_section(void);
const ConfigSection *export_section(void);
const ConfigSection *dist_section(void);

/* Reads path (NULL: overrides alone), checks every key and the rules between keys. NULL on any error:
 * ERR_USAGE, with as many lines of config_error_text as fit in e, and *doc (may be NULL itself) holding all
 * of them. */
Config *config_load(Arena *a, const char *path, int n_override, char *const *override, ConfigDoc **doc,
                    Err *e);
/* The same with the overrides of arms.<arm> laid over the file (NULL: none) and run.seed = seed (< 0: as
 * written); the environment and the command line still win over the arm, the seed over everything. */
Config *config_load_arm(Arena *a, const char *path, int n_override, char *const *override, const char *arm,
                        int64_t seed, ConfigDoc **doc, Err *e);
/* Stage i of the file, or of arm (NULL: none): its overrides over the file's, and what the entries before it
 * say of lora, prune and qat under them. */
Config *config_load_stage(Arena *a, const char *path, int n_override, char *const *override, const char *arm,
                          int64_t seed, int i, Err *e);
/* config_stages.c: reads the list; errors go to c->doc. */
void config_list_stages(Config *c, Arena *a, Err *e);
/* Lays stage i over d, before config_fill. s: what config_list_stages found. */
void config_select_stage(ConfigDoc *d, const StageConfig *s, int i, Arena *a, Err *e);
/* config_distill.c: rules that config_load asks for. */
void config_check_teachers(Config *c);
void config_check_init_teacher(Config *c);
void config_check_distill(Config *c);
/* What model, teacher, tokenizer and data sources name must exist (`pare validate`); adds errors to c->doc.
 */
bool config_check_files(Config *c);
/* run.time_limit "90m", "4h", "1h30m", "45s" or "2d" in seconds; -1 when it does not read so; 0 for NULL. */
double config_seconds(const char *text);
#endif
