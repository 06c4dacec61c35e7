/* optim/config.c: field tables of the sections optim and schedule, made from their lists (core/config.h). */
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
CFG_SECTION_ALIAS(param_group_section, "groups", ParamGroupConfig, param_group_fields, "one parameter group",
                  param_group_alias)

static const ConfigField optim_fields[] = {
#define CFG_STRUCT OptimConfig
#include "core/config_table.h"
#include "optim/optim.def"
#include "core/config_undef.h"
};
static const char *const optim_alias[][2] = {
    {"lr", "learning_rate"},
};
CFG_SECTION_ALIAS(optim_section, "optim", OptimConfig, optim_fields, "optimizer", optim_alias)

static const ConfigField schedule_fields[] = {
#define CFG_STRUCT ScheduleConfig
#include "core/config_table.h"
#include "optim/schedule.def"
#include "core/config_undef.h"
};
CFG_SECTION(schedule_section, "schedule", ScheduleConfig, schedule_fields, "learning rate over time")
