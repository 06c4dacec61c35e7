/* optim/schedule.c: factor of the peak learning rate (algorithms 5.24). t = 0..N-1, W warm-up steps, m =
 * min_lr_ratio: t < W: (t+1)/W; else u = (t-W)/(N-W) and the named curve of u. */
#include "optim/optim.h"
#include <math.h>
#include <string.h>

static int64_t warmup(const ScheduleConfig *s, int64_t n_steps)
{
    return s->warmup_steps ? s->warmup_steps : (int64_t)floor(s->warmup_ratio * (double)n_steps + 1e-9);
}

double schedule_factor(const ScheduleConfig *s, int64_t t, int64_t n_steps)
{
    int64_t W = warmup(s, n_steps), N = n_steps > W ? n_steps : W + 1;
    double m = s->min_lr_ratio, u = (double)(t - W) / (double)(N - W);
    if (t < W) return (double)(t + 1) / (double)W;
    if (u > 1) u = 1;
    if (!strcmp(s->name, "linear")) return 1 - (1 - m) * u;
    if (!strcmp(s->name, "cosine")) {
        double v = u * (double)s->cycles;
        if (s->cycles > 1) v = fmod(v, 1.0);
        return m + (1 - m) * (1 + cos(M_PI * v)) / 2;
    }
    if (!strcmp(s->name, "polynomial")) return m + (1 - m) * pow(1 - u, s->power);
    if (!strcmp(s->name, "inverse_sqrt")) return sqrt((double)(W > 1 ? W : 1) / (double)(t + 1));
    if (!strcmp(s->name, "wsd")) {
        double start = (double)N * (1 - s->decay_ratio), v = ((double)t - start) / ((double)N - start);
        return (double)t <= start ? 1 : 1 - (1 - m) * (v > 1 ? 1 : v);
    }
    return 1; /* constant */
}
