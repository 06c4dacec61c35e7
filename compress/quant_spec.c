/* compress/quant_spec.c: from the words of a config to a number format; which tensors they mean (product.md
 * 4). */
#include "compress/compress.h"
#include <string.h>

/* Block of FP8's `block` granularity: 128 x 128 (DeepSeek's recipe, formats.md 1.6). */
enum { BLOCK = 128 };

static const char *auto_granularity(const QuantWords *w, const QuantFormat *f)
{
    const bool wide = f->bits == 8;
    if (w->group_size) return w->group_size < 0 ? "channel" : "group";
    if (w->activation) return "token";
    return wide ? "channel" : "group";
}

bool quant_spec(QuantSpec *s, const QuantWords *w, const char *where, Err *e)
{
    const QuantFormat *f = quant_format(w->format);
    if (!f)
        return err_set(e, ERR_USAGE, "%s: \"%s\" is not a number format; known are %s", where,
                       w->format ? w->format : "", quant_names());
    *s = (QuantSpec){.f = f, .block_rows = 1, .double_quant = w->double_quant, .search = w->search};
    s->rule = !strcmp(w->scale_rounding, "ceil")        ? MX_CEIL
              : !strcmp(w->scale_rounding, "bump_1p75") ? MX_BUMP_1P75
                                                        : MX_FLOOR;
    if (f->scale != SCALE_E8M0 && s->rule != MX_FLOOR)
        return err_set(e, ERR_USAGE, "%s.scale_rounding: %s has no exponent scales; mxfp4 and mxfp8 do",
                       where, f->name);
    s->asymmetric = !w->symmetric;
    s->full = w->full;
    if (f->elem != ELEM_INT && (s->asymmetric || s->full))
        return err_set(e, ERR_USAGE, "%s.%s: %s is symmetric; zero points and ranges are of int formats",
                       where, s->asymmetric ? "symmetric" : "range", f->name);
    if (s->asymmetric && s->full)
        return err_set(e, ERR_USAGE, "%s.range: an asymmetric format always takes its whole range", where);
    if (s->double_quant && f->elem != ELEM_NF4)
        return err_set(e, ERR_USAGE, "%s.double_quant: only nf4's scales are quantised again", where);
    const char *g = w->granularity && strcmp(w->granularity, "auto") ? w->granularity : NULL;
    const long group = w->group_size > 0 ? (long)w->group_size : f->group;
    if (f->block) {
        if (g && strcmp(g, "block") && strcmp(g, "group"))
            return err_set(e, ERR_USAGE, "%s.granularity: %s has blocks along a row, not one scale per %s",
                           where, f->name, g);
        if (f->block > 0 ? w->group_size && w->group_size != f->block : w->group_size < 0)
            return err_set(e, ERR_USAGE, "%s.group_size: %s has blocks of %d", where, f->name, f->group);
        s->block_cols = f->block > 0 ? f->block : group;
        return true;
    }
    if (!g) g = auto_granularity(w, f);
    if (!strcmp(g, "tensor")) s->block_rows = 0;
    else if (!strcmp(g, "group")) s->block_cols = group;
    else if (!strcmp(g, "block")) {
        if (f->elem == ELEM_INT || f->bits != 8)
            return err_set(e, ERR_USAGE,
                           "%s.granularity: block is of fp8 formats; %s takes tensor, channel or group",
                           where, f->name);
        s->block_rows = s->block_cols = BLOCK;
    } else if (!strcmp(g, "token") != w->activation)
        return err_set(e, ERR_USAGE, "%s.granularity: token is of activations, channel of weights", where);
    return true;
}

static bool has(const char *name, const char *part) { return strstr(name, part) != NULL; }

const char *tensor_class(const char *name, int ndim)
{
    if (has(name, "lm_head")) return "lm_head";
    if (has(name, "embed_tokens") || has(name, "wte.") || has(name, "wpe.") || has(name, "embeddings"))
        return "embed_tokens";
    return ndim < 2 || has(name, "norm") || has(name, ".ln_") ? "norms" : "linear";
}

bool tensor_match(const char *glob, const char *name, int ndim)
{
    char module[256];
    const size_t n = strlen(name);
    if (glob_match(glob, name) || !strcmp(glob, tensor_class(name, ndim))) return true;
    if (n <= 7 || n - 7 >= sizeof module || strcmp(name + n - 7, ".weight")) return false;
    memcpy(module, name, n - 7);
    module[n - 7] = 0;
    return glob_match(glob, module);
}

bool globs_check(const ConfigStrs *globs, const char *key, const char *const *name, int n, Err *e)
{
    static const char *const words[] = {"embed_tokens", "lm_head", "norms", "linear"};
    for (int i = 0; i < globs->n; i++) {
        bool any = false;
        for (int j = 0; j < 4; j++) any = any || !strcmp(globs->v[i], words[j]);
        for (int j = 0; j < n && !any; j++) any = tensor_match(globs->v[i], name[j], 2);
        if (any) continue;
        const char *near = nearest_name(globs->v[i], name, n);
        int best = 1 << 20;
        for (int j = 0; j < n && !near; j++) {
            const int d = edit_distance(globs->v[i], name[j]);
            if (d < best) best = d;
        }
        for (int j = 0; j < n && !near; j++)
            if (edit_distance(globs->v[i], name[j]) == best) near = name[j];
        return err_set(e, ERR_USAGE, "%s: no tensor matches \"%s\"; the nearest is %s (of %d)", key,
                       globs->v[i], near ? near : "none", n);
    }
    return true;
}
