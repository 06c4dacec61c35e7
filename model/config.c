/* model/config.c: field tables of the sections model and teacher (core/config.h). */
#include "model/config_impl.h"

static const ConfigField model_init_fields[] = {
#define CFG_STRUCT ModelInitConfig
#include "core/config_table.h"
#include "model/init.def"
#include "core/config_undef.h"
};
CFG_SECTION(model_init_section, "init", ModelInitConfig, model_init_fields,
            "a fresh model, in names of Hugging Face config.json")

static const ConfigField init_teacher_fields[] = {
#define CFG_STRUCT InitTeacherConfig
#include "core/config_table.h"
#include "model/init_teacher.def"
#include "core/config_undef.h"
};
CFG_SECTION(init_teacher_section, "init_from_teacher", InitTeacherConfig, init_teacher_fields,
            "a student made of its teacher's parts")

static const ConfigField teacher_entry_fields[] = {
#define CFG_STRUCT TeacherEntry
#include "core/config_table.h"
#include "model/teacher_entry.def"
#include "core/config_undef.h"
};
CFG_SECTION(teacher_entry_section, "teachers", TeacherEntry, teacher_entry_fields, "one of several teachers")

static const ConfigField model_fields[] = {
#define CFG_STRUCT ModelConfig
#include "core/config_table.h"
#include "model/model.def"
#include "core/config_undef.h"
};
CFG_SECTION(model_section, "model", ModelConfig, model_fields, "the student, or the model that is trained")

static const ConfigField teacher_fields[] = {
#define CFG_STRUCT TeacherConfig
#include "core/config_table.h"
#include "model/teacher.def"
#include "core/config_undef.h"
};
CFG_SECTION(teacher_section, "teacher", TeacherConfig, teacher_fields, "the model that teaches")
