/* model/config_impl.h: configuration of the model and of its teacher.
 *
 *   ModelConfig m;  m.path, m.init.hidden_size, m.init.arch ...      // filled by config_load
 * (train/config_impl.h)
 */
#ifndef MODEL_CONFIG_IMPL_H
#define MODEL_CONFIG_IMPL_H
#include "core/config.h"

typedef struct ModelInitConfig {
#include "core/config_fields.h"
#include "model/init.def"
#include "core/config_undef.h"
} ModelInitConfig;
typedef struct InitTeacherConfig {
#include "core/config_fields.h"
#include "model/init_teacher.def"
#include "core/config_undef.h"
} InitTeacherConfig;
typedef struct ModelConfig {
#include "core/config_fields.h"
#include "model/model.def"
#include "core/config_undef.h"
    bool has_init;    /* model.init was given: a fresh model */
    bool has_teacher; /* model.init_from_teacher was given */
} ModelConfig;
typedef struct TeacherConfig {
#include "core/config_fields.h"
#include "model/teacher.def"
#include "core/config_undef.h"
} TeacherConfig;
typedef struct TeacherEntry {
#include "core/config_fields.h"
#include "model/teacher_entry.def"
#include "core/config_undef.h"
} TeacherEntry;
const ConfigSection *model_section(void);
const ConfigSection *init_teacher_section(void);
const ConfigSection *teacher_entry_section(void);
const ConfigSection *model_init_section(void);
const ConfigSection *teacher_section(void);
#endif
