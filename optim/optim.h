/* optim/optim.h: floor 3. AdamW, SGD, schedules, clipping, parameter groups.
 *
 *   Optim *o = optim_new(&cfg, &params, &arena, &e);
 *   StepInfo s = optim_step(o, step, n_steps, 1.0 / targets);     // sums of gradients in, one division,
 *   clip, update
 */
#ifndef OPTIM_H
#define OPTIM_H
#include "autograd/autograd.h"
#include "core/config.h"
typedef struct ParamGroupConfig {
#include "core/config_fields.h"
#include "optim/group.def"
#include "core/config_undef.h"
} ParamGroupConfig;
typedef struct OptimConfig {
#include "core/config_fields.h"
#include "optim/optim.def"
#include "core/config_undef.h"
} OptimConfig;
typedef struct ScheduleConfig {
#include "core/config_fields.h"
#include "optim/schedule.def"
#include "core/config_undef.h"
} ScheduleConfig;
const ConfigSection *param_group_section(void);
const ConfigSection *optim_section(void);
const ConfigSection *schedule_section(void);
/* Factor of the peak learning rate at step t = 0..n_steps-1 (algorithms 5.24). */
double schedule_factor(const ScheduleConfig *s, int64_t t, int64_t n_steps);
typedef struct Optim Optim;
typedef struct StepInfo {
    double grad_norm, lr;
    bool skipped;
} StepInfo;
Optim *optim_new(const OptimConfig *c, const ScheduleConfig *s, double clip, Params *ps, Arena *run, Err *e);
/* skipped: gradient not finite, nothing changed */
StepInfo optim_step(Optim *o, int64_t t, int64_t n_steps, double grad_scale);
/* Another peak learning rate for the parameters that match (projectors). */
void optim_set_lr(Optim *o, const char *glob, double learning_rate);
int64_t optim_updates(const Optim *o); /* t of the bias correction */
void optim_set_updates(Optim *o, int64_t t);
#endif
