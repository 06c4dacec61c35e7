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
typedef struct ModelConfig {
#include "core/config_fields.h"
#include "model/model.def"
#include "core/config_undef.h"
    bool has_init; /* model.init was given: a fresh model */
} ModelConfig;
typedef struct TeacherConfig {
#include "core/config_fields.h"
#include "model/teacher.def"
#include "core/config_undef.h"
} TeacherConfig;
const ConfigSection *model_section(void);
const ConfigSection *model_init_section(void);
const ConfigSection *teacher_section(void);
#endif
