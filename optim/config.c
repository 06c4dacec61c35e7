/* optim/config.c: field tables of the sections optim and schedule, made from optim/*.def (core/config.h). */
#include "optim/optim.h"

static const ConfigField param_group_fields[] = {
#define CFG_STRUCT ParamGroupConfig
#include "core/config_table.h"
#include "optim/group.def"
#include "core/config_undef.h"
};
static const char *const param_group_alias[][2] = {
    {"lr", "learning_rate"},
};
static const ConfigSection param_group_table = {"groups", sizeof(ParamGroupConfig), CFG_COUNT(param_group_fields), param_group_fields,
    "one parameter group", param_group_alias, CFG_COUNT(param_group_alias)};
const ConfigSection *param_group_section(void) { return &param_group_table; }

static const ConfigField optim_fields[] = {
#define CFG_STRUCT OptimConfig
#include "core/config_table.h"
#include "optim/optim.def"
#include "core/config_undef.h"
};
static const char *const optim_alias[][2] = {
    {"lr", "learning_rate"},
};
static const ConfigSection optim_table = {"optim", sizeof(OptimConfig), CFG_COUNT(optim_fields), optim_fields,
    "optimizer", optim_alias, CFG_COUNT(optim_alias)};
const ConfigSection *optim_section(void) { return &optim_table; }

static const ConfigField schedule_fields[] = {
#define CFG_STRUCT ScheduleConfig
#include "core/config_table.h"
#include "optim/schedule.def"
#include "core/config_undef.h"
};
static const ConfigSection schedule_table = {"schedule", sizeof(ScheduleConfig), CFG_COUNT(schedule_fields), schedule_fields,
    "learning rate over time", NULL, 0};
const ConfigSection *schedule_section(void) { return &schedule_table; }
