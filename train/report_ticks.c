/* train/report_ticks.c: axes: round numbers, linear or logarithmic. */
#include "train/report_impl.h"
#include <math.h>

/* The step of 1, 2 or 5 times a power of ten nearest above span / want. */
static double round_step(double span, int want)
{
    double raw = span / want, power = pow(10, floor(log10(raw))), f = raw / power;
    return power * (f <= 1.0001 ? 1 : f <= 2.0001 ? 2 : f <= 5.0001 ? 5 : 10);
}

static void linear_ticks(Axis *x, bool exact, int want)
{
    double step = round_step(x->hi - x->lo, want);
    double first = exact ? ceil(x->lo / step - 1e-9) : floor(x->lo / step + 1e-9);
    double last = exact ? floor(x->hi / step + 1e-9) : ceil(x->hi / step - 1e-9);
    for (double k = first; k <= last && x->n < MAX_TICKS; k++) x->tick[x->n++] = k == 0 ? 0 : k * step;
    if (exact || !x->n) return;
    x->lo = x->tick[0];
    x->hi = x->tick[x->n - 1];
}

/* 1, 2, 5 of each decade, 3 and 7 too where there is hardly one; only every k-th power of ten where decades
 * are many. */
static void log_ticks(Axis *x, int want)
{
    static const double few[] = {1, 2, 5}, many[] = {1, 2, 3, 5, 7};
    int d0 = (int)floor(log10(x->lo)), d1 = (int)ceil(log10(x->hi)), decades = d1 - d0;
    int parts = 1, every = 1;
    if (x->hi / x->lo < 20) parts = 5;
    else if (3 * decades <= want + 3) parts = 3;
    else every = (decades + want - 1) / want;
    for (int d = d0; d <= d1; d++)
        for (int i = 0; i < parts && x->n < MAX_TICKS; i++) {
            double v = (parts == 5 ? many : few)[i] * pow(10, d);
            if ((d - d0) % every == 0 && v >= x->lo * 0.999 && v <= x->hi * 1.001) x->tick[x->n++] = v;
        }
}

void axis_make(Axis *x, double lo, double hi, bool is_log, bool exact, int want)
{
    *x = (Axis){.lo = lo, .hi = hi, .log = is_log};
    if (!(hi - lo > 1e-9 * fabs(hi))) {
        double room = lo == 0 ? 1 : fabs(lo) * 0.1;
        x->lo = is_log ? lo / 2 : lo - room;
        x->hi = is_log ? lo * 2 : lo + room;
    }
    if (!is_log) {
        linear_ticks(x, exact, want);
        return;
    }
    if (!exact) {
        double room = fmin(exp(0.04 * (log(x->hi) - log(x->lo))), 10);
        x->lo /= room;
        x->hi *= room;
    }
    log_ticks(x, want);
}

double axis_place(const Axis *x, double v)
{
    return x->log ? (log(v) - log(x->lo)) / (log(x->hi) - log(x->lo)) : (v - x->lo) / (x->hi - x->lo);
}

const char *axis_label(const Axis *x, double v, Arena *a, Err *e)
{
    double largest = fabs(x->hi) > fabs(x->lo) ? fabs(x->hi) : fabs(x->lo);
    if (x->log || x->n < 2 || largest >= 1e4 || largest < 1e-3) return number_short(v, a, e);
    int digits = (int)-floor(log10(x->tick[1] - x->tick[0]) + 1e-9);
    return arena_printf(a, e, "%.*f", digits > 0 ? digits : 0, v);
}
