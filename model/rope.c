/* model/rope.c: rotary frequencies by scaling rule, and their keys in config.json (formats.md 4.2).
 *
 *   default  f_j = theta^(-2j/D)
 *   linear   f_j / factor                                               (position interpolation, 2306.15595)
 *   dynamic  theta (factor L/L0 - (factor-1))^(D/(D-2)) for theta where L > L0 = max_position_embeddings
 *   yarn     f_j ramps to f_j/factor between the dimensions that turn beta_fast and beta_slow times in
 *            L0 positions; cos and sin times attention_factor           (2309.00071)
 *   llama3   wavelength w = 2 pi/f_j: kept below L0/high, f_j/factor above L0/low, a mixture between
 * All in double. */
#include "model/spec_impl.h"
#include <math.h>
#include <string.h>

static const char *const kind_name[] = {"default", "linear", "dynamic", "yarn", "llama3"};
enum { N_KIND = 5 };

static double yarn_dimension(const RopeSpec *r, double turns, double D)
{
    return D * log(r->original / (turns * 2 * M_PI)) / (2 * log(r->theta));
}

/* Share of the interpolated frequency, 0 at the fast end. */
static double yarn_ramp(const RopeSpec *r, double D, double j)
{
    double low = yarn_dimension(r, r->beta_fast, D), high = yarn_dimension(r, r->beta_slow, D);
    if (r->round_off) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, D - 1);
    if (low == high) high += 0.001;
    return fmin(fmax((j - low) / (high - low), 0), 1);
}

static double llama3_frequency(const RopeSpec *r, double f)
{
    double w = 2 * M_PI / f;
    if (w < r->original / r->high) return f;
    if (w > r->original / r->low) return f / r->factor;
    double smooth = (r->original / w - r->low) / (r->high - r->low);
    return (1 - smooth) * f / r->factor + smooth * f;
}

void rope_frequencies(const RopeSpec *r, long D, long length, double *inv_freq)
{
    double theta = r->theta, d = (double)D;
    if (r->kind == ROPE_DYNAMIC && (double)length > r->original)
        theta *= pow(r->factor * (double)length / r->original - (r->factor - 1), d / (d - 2));
    for (long j = 0; j < D / 2; j++) {
        double f = pow(theta, -2.0 * (double)j / d);
        if (r->kind == ROPE_LINEAR) f /= r->factor;
        if (r->kind == ROPE_LLAMA3) f = llama3_frequency(r, f);
        if (r->kind == ROPE_YARN) {
            double ramp = yarn_ramp(r, d, (double)j);
            f = f / r->factor * ramp + f * (1 - ramp);
        }
        inv_freq[j] = f;
    }
}

/* ---- config.json --------------------------------------------------------------------------------------- */

static double yarn_mscale(double factor, double m) { return factor <= 1 ? 1 : 0.1 * m * log(factor) + 1; }

static void read_yarn(const Reader *p, RopeSpec *x)
{
    double m = spec_real(p, "mscale", 0), all = spec_real(p, "mscale_all_dim", 0);
    double factor = m != 0 && all != 0 ? yarn_mscale(x->factor, m) / yarn_mscale(x->factor, all)
                                       : yarn_mscale(x->factor, 1);
    x->attention_factor = spec_real(p, "attention_factor", factor);
    x->beta_fast = spec_real(p, "beta_fast", 32);
    x->beta_slow = spec_real(p, "beta_slow", 1);
    x->round_off = spec_bool(p, "truncate", true);
}

/* Below 1e-300 a power or a logarithm would give what nobody means. */
static void check(const Reader *r, const RopeSpec *x)
{
    const double must[] = {x->theta, x->factor, x->original, x->attention_factor};
    static const char *const name[] = {"rope_theta", "factor", "original_max_position_embeddings",
                                       "attention_factor"};
    for (int i = 0; i < 4; i++)
        if (!(must[i] > 0 && must[i] < 1e300))
            err_set(r->e, ERR_USAGE, "%s: RoPE scaling %s: %s = %g must be above 0", r->where,
                    kind_name[x->kind], name[i], must[i]);
    if (x->kind == ROPE_LLAMA3 && !(x->low > 0 && x->high > x->low))
        err_set(r->e, ERR_USAGE,
                "%s: RoPE scaling llama3 needs 0 < low_freq_factor < high_freq_factor, not %g and %g",
                r->where, x->low, x->high);
    if (x->kind == ROPE_YARN && !(x->beta_slow > 0 && x->beta_fast > 0 && x->theta > 1))
        err_set(r->e, ERR_USAGE, "%s: RoPE scaling yarn needs beta_fast, beta_slow > 0 and rope_theta > 1",
                r->where);
}

/* One set of parameters. p: the object of the scaling (may be NULL); top: config.json. */
static void read_one(const Reader *top, const json_t *p, double theta, const ModelSpec *s, RopeSpec *x)
{
    Reader r = {p, top->where, top->e};
    const json_t *type = p ? spec_get(&r, "rope_type") : NULL;
    if (!type && p) type = spec_get(&r, "type");
    const char *name = type ? json_string_value(type) : "default";
    int kind = 0;
    while (kind < N_KIND && (!name || strcmp(name, kind_name[kind]))) kind++;
    if (kind == N_KIND) {
        err_set(top->e, ERR_USAGE,
                "%s: RoPE scaling \"%s\" is not supported; supported are default, linear, dynamic, yarn and "
                "llama3",
                top->where, name ? name : "(not a string)");
        return;
    }
    *x = (RopeSpec){.kind = (RopeKind)kind, .theta = theta, .factor = 1, .attention_factor = 1};
    x->original = (double)s->max_pos;
    if (p) x->theta = spec_real(&r, "rope_theta", theta);
    if (!(x->theta > 0)) {
        err_set(top->e, ERR_USAGE, "%s: rope_theta is missing", top->where);
        return;
    }
    if (p && spec_real(&r, "partial_rotary_factor", 1) != 1)
        err_set(top->e, ERR_USAGE, "%s: partial_rotary_factor is not supported for %s", top->where,
                s->family->arch);
    if (kind == ROPE_YARN || kind == ROPE_LLAMA3)
        x->original = spec_real(top, "original_max_position_embeddings",
                                spec_real(&r, "original_max_position_embeddings", x->original));
    if (kind != ROPE_DEFAULT) {
        double derived = kind == ROPE_YARN ? (double)s->max_pos / x->original : 0;
        x->factor = spec_real(&r, "factor", derived);
    }
    if (kind == ROPE_LLAMA3) {
        x->low = spec_real(&r, "low_freq_factor", 0);
        x->high = spec_real(&r, "high_freq_factor", 0);
    }
    if (kind == ROPE_YARN) read_yarn(&r, x);
    check(top, x);
}

void rope_read(const Reader *r, ModelSpec *s)
{
    const json_t *now = spec_get(r, "rope_parameters"), *old = spec_get(r, "rope_scaling");
    const json_t *full = json_object_get(now, "full_attention");
    const json_t *local = json_object_get(now, "sliding_attention");
    bool nested = json_is_object(full) || json_is_object(local);
    bool llama = !strcmp(s->family->arch, "llama");
    double theta = spec_real(r, "rope_theta", s->family->theta);
    if (llama && theta == 0 && !(now && json_object_get(now, "rope_theta"))) {
        theta = 10000;
        log_warn("%s: no rope_theta; 10000 is taken, as the first Llama models were trained", r->where);
    }
    if (nested && !s->family->local_rope) {
        err_set(r->e, ERR_USAGE, "%s: rope_parameters by layer type: not for model_type %s", r->where,
                s->family->arch);
        return;
    }
    const json_t *scaling = old ? old : nested ? full : now;
    read_one(r, json_is_object(scaling) ? scaling : NULL,
             old && now ? spec_real(&(Reader){nested ? full : now, r->where, r->e}, "rope_theta", theta)
                        : theta,
             s, &s->rope);
    if (s->family->local_rope)
        read_one(r, json_is_object(local) ? local : NULL, spec_real(r, "rope_local_base_freq", 1e4), s,
                 &s->rope_local);
    /* it is there to run beyond the positions it was trained for */
    if (s->rope.kind == ROPE_DYNAMIC) s->max_pos = (long)((double)s->max_pos * s->rope.factor);
}

static json_t *object_of(const RopeSpec *x, bool with_theta)
{
    json_t *o = json_pack("{s:s}", "rope_type", kind_name[x->kind]);
    if (with_theta) json_object_set_new(o, "rope_theta", json_real(x->theta));
    if (x->kind != ROPE_DEFAULT) json_object_set_new(o, "factor", json_real(x->factor));
    if (x->kind == ROPE_YARN || x->kind == ROPE_LLAMA3)
        json_object_set_new(o, "original_max_position_embeddings", json_integer((json_int_t)x->original));
    if (x->kind == ROPE_LLAMA3)
        json_object_update_new(
            o, json_pack("{s:f,s:f}", "low_freq_factor", x->low, "high_freq_factor", x->high));
    if (x->kind == ROPE_YARN)
        json_object_update_new(o, json_pack("{s:f,s:f,s:f,s:b}", "attention_factor", x->attention_factor,
                                            "beta_fast", x->beta_fast, "beta_slow", x->beta_slow, "truncate",
                                            (int)x->round_off));
    return o;
}

void rope_write(json_t *o, const ModelSpec *s)
{
    json_object_set_new(o, "rope_theta", json_real(s->rope.theta));
    if (s->rope.kind != ROPE_DEFAULT) json_object_set_new(o, "rope_scaling", object_of(&s->rope, false));
    if (!s->family->local_rope) {
        json_object_set_new(o, "rope_parameters", object_of(&s->rope, true));
        return;
    }
    json_object_set_new(o, "rope_local_base_freq", json_real(s->rope_local.theta));
    json_object_set_new(o, "rope_parameters",
                        json_pack("{s:o,s:o}", "full_attention", object_of(&s->rope, true),
                                  "sliding_attention", object_of(&s->rope_local, true)));
}
