/* train/verb_prune.c: `pare prune IN OUT`: masks of one moment, without a config: a model in, the model with
 * zeros out (.h5: as bitmap or 2:4 where smaller), read back and counted.
 * Plain tensors without a config too. */
#include <stdio.h>
#include <string.h>
#include "train/verb_impl.h"

static bool ends_in(const char *s, const char *tail)
{
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static Config *section(Args *x)
{
    static const char *const keys[][2] = {{"method", "prune.method"},
                                          {"sparsity", "prune.sparsity"},
                                          {"structure", "prune.structure"},
                                          {"scope", "prune.scope"},
                                          {"calibration", "prune.calibration.data"},
                                          {"tokenizer", "tokenizer.path"}};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *v = args_get(x, keys[i][0], NULL);
        if (v) x->set[x->n_set++] = arena_printf(x->a, x->e, "%s='%s'", keys[i][1], v);
    }
    args_globs(x, "include", "prune.include");
    args_globs(x, "exclude", "prune.exclude");
    Config *c = args_defaults(x);
    if (!c) return NULL;
    c->prune.enabled = true;
    c->prune.schedule = "oneshot";
    c->prune.begin_step = 0;
    if (!strcmp(c->prune.method, "movement") || !strcmp(c->prune.method, "soft_movement")) {
        err_set(
            x->e, ERR_USAGE,
            "prune.method: %s learns its scores while the model trains: `pare train` with a prune section; "
            "without gradients there are magnitude, random, wanda, sparsegpt",
            c->prune.method);
        return NULL;
    }
    return c;
}

static bool measure(Args *x, Config *c, Prune *p, Model *m)
{
    Calibration cal = {0};
    bool moved;
    if (prune_needs_data(&c->prune)) {
        tokens_h5_enable();
        const char *path = c->tokenizer.path ? c->tokenizer.path : m->tokenizer_path;
        Tokenizer *tk = path ? model_tokenizer(path, &c->tokenizer, x->a, x->e) : NULL;
        if (x->e->code ||
            !calibration_open(&cal, &c->prune.calibration, &c->data, tk, m, "prune", x->a, x->e))
            return false;
        cal.batches = c->prune.snip_batches;
    }
    return prune_update(p, 0, cal.row ? &cal : NULL, &moved, x->e);
}

/* Each tensor in the type it had. */
static bool types_of(Args *x, const TensorFile *f, OutModel *out)
{
    OutTensor *t = arena_alloc(x->a, (size_t)out->n * sizeof *t, x->e);
    for (int i = 0; t && i < out->n; i++) {
        const FileTensor *was = formats_find(f, out->t[i].name);
        t[i] = out->t[i];
        if (was && !was->encoded && (was->dtype == DT_BF16 || was->dtype == DT_F16)) t[i].dtype = was->dtype;
    }
    out->t = t;
    return t != NULL;
}

static bool write_out(Args *x, const Prune *p, const char *path, const OutModel *effective)
{
    OutModel m = *effective;
    if (ends_in(path, ".h5")) return prune_pack(p, &m, x->a, x->e) && formats_write_h5(path, &m, x->e);
    if (ends_in(path, ".safetensors")) return formats_write_safetensors(path, &m, x->e);
    return formats_write_hf(path, &m, 0, x->e);
}

static int say(Args *x, const Prune *p, const PruneCount *n)
{
    json_t *list = json_array();
    for (int i = 0; i < p->n; i++) {
        Prune one = *p;
        one.item = &p->item[i];
        one.n = 1;
        json_array_append_new(list, json_pack("{s:s,s:I,s:f}", "name", p->item[i].name, "entries",
                                              (json_int_t)(p->item[i].rows * p->item[i].cols), "sparsity",
                                              prune_sparsity(&one)));
    }
    return args_say_json(x,
                         json_pack("{s:o,s:I,s:I,s:f}", "tensors", list, "entries", (json_int_t)n->entries,
                                   "zeros", (json_int_t)n->zeros, "sparsity",
                                   n->entries ? (double)n->zeros / (double)n->entries : prune_sparsity(p)));
}

/* IN as a model; a file of tensors without a config as nothing but its matrices, of which bag is true. */
static bool open_in(Args *x, const Config *c, const char *in, Model *m, TensorFile *f, bool *bag)
{
    if (!formats_open(f, in, x->a, x->e)) return false;
    *bag = !f->arch;
    if (!*bag) return model_open(m, in, args_kernels(), x->a, x->e);
    if (prune_needs_data(&c->prune))
        return err_set(x->e, ERR_USAGE,
                       "prune.method: %s runs the model, and %s has no config.json; its weights alone are "
                       "enough for magnitude and random",
                       c->prune.method, in);
    return bag_open(m, f, args_kernels(), x->a, x->e);
}

static bool prune_file(Args *x, TensorFile *f)
{
    const char *in = args_path(x, x->pos[0]), *out = x->pos[1], *masks = args_get(x, "masks", NULL);
    const bool dry = args_has(x, "dry-run");
    Model m;
    Prune p;
    OutModel effective;
    PruneCount n = {0};
    bool bag;
    Config *c = section(x);
    if (!quantize_holds(out, x->e) || !c || !open_in(x, c, in, &m, f, &bag) ||
        !prune_open(&p, &c->prune, &m, (uint64_t)c->run.seed, NULL, x->e) || !measure(x, c, &p, &m))
        return false;
    if (!(bag ? bag_out(&m, f, &effective, x->a, x->e)
              : model_out(&m, &effective, DT_F32, x->a, x->e) && types_of(x, f, &effective)))
        return false;
    if (!dry && (!write_out(x, &p, out, &effective) || !prune_verify(&p, out, &effective, &n, x->e)))
        return false;
    if (!dry && masks && !prune_write_masks(&p, masks, x->a, x->e)) return false;
    if (dry) log_info("would write %s: sparsity %.6f of %d tensors", out, prune_sparsity(&p), p.n);
    else
        log_info("wrote %s: %lld of %lld entries of %d tensors are zero, sparsity %.6f, counted in the file",
                 out, (long long)n.zeros, (long long)n.entries, p.n, (double)n.zeros / (double)n.entries);
    return !args_has(x, "json") || say(x, &p, &n) == 0;
}

int verb_prune(Args *x)
{
    TensorFile f = {0};
    const bool ok = prune_file(x, &f);
    formats_close(&f);
    return ok ? 0 : 1;
}
