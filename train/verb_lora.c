/* train/verb_lora.c: merge, unmerge, extract-lora, and --adapter of the verbs that compute with a model. */
#include "train/verb_impl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "name=path", or a path whose name is its number: 0, 1, ... */
static bool load_one(Args *x, Model *m, Lora *l, const char *text, int number)
{
    const char *eq = strchr(text, '='), *path = eq ? eq + 1 : text;
    const char *name = eq ? arena_strndup(x->a, text, (size_t)(eq - text), x->e)
                          : arena_printf(x->a, x->e, "%d", number);
    return name && lora_load(l, m, args_path(x, path), name, args_has(x, "force"), x->e);
}

bool args_adapters(Args *x, Model *m, Lora ***all, int *n)
{
    int count = 0, use[MAX_ARGS];
    Lora **v = arena_alloc(x->a, (size_t)(x->n_opt + 1) * sizeof *v, x->e);
    for (int i = 0; v && i < x->n_opt; i++) {
        if (strcmp(x->opt[i], "adapter")) continue;
        v[count] = arena_alloc(x->a, sizeof **v, x->e);
        if (!v[count] || !load_one(x, m, v[count], x->value[i], count)) return false;
        use[count] = count;
        count++;
    }
    if (x->e->code) return false;
    if (all) *all = v;
    if (n) *n = count;
    return args_has(x, "use") || lora_use(v, count, use, count, x->e);
}

bool args_adapted(Args *x, Model *m, const char *path, Lora ***all, int *n)
{
    return args_model(x, m, path) && args_adapters(x, m, all, n);
}

/* "1,0.5": one number per adapter. */
static bool weights(Args *x, double *w, int n)
{
    const char *text = args_get(x, "weights", NULL);
    for (int i = 0; i < n; i++) w[i] = 1;
    if (!text) return true;
    int i = 0;
    for (const char *p = text; p; i++) {
        char number[64];
        const char *comma = strchr(p, ',');
        snprintf(number, sizeof number, "%.*s", (int)(comma ? comma - p : (long)strlen(p)), p);
        if (i >= n || !config_parse_float(number, &w[i < n ? i : 0]))
            return err_set(x->e, ERR_USAGE, "--weights %s: %d numbers with commas between them are needed",
                           text, n);
        p = comma ? comma + 1 : NULL;
    }
    return i == n || err_set(x->e, ERR_USAGE, "--weights %s: %d numbers for %d adapters", text, i, n);
}

static int merge_json(Args *x, const MergeReport *r)
{
    json_t *list = json_array();
    for (int i = 0; i < r->n; i++)
        json_array_append_new(list, json_pack("{s:s,s:f,s:o}", "name", r->row[i].name, "relative_change",
                                              r->row[i].relative, "codes_changed",
                                              args_json_number(r->row[i].changed)));
    return args_say_json(
        x, json_pack("{s:o,s:o}", "tensors", list, "codes_changed", args_json_number(r->changed)));
}

int verb_merge(Args *x)
{
    const int n = x->n_pos - 2;
    const char *adapter[MAX_ARGS], *out = x->pos[x->n_pos - 1];
    double w[MAX_ARGS];
    for (int i = 0; i < n; i++) adapter[i] = args_path(x, x->pos[i + 1]);
    MergeOptions o = {.adapter = adapter,
                      .weight = w,
                      .n_adapter = n,
                      .scale = args_number(x, "scale", 1),
                      .dtype = args_get(x, "dtype", NULL),
                      .keep_zeros = args_has(x, "keep-zeros"),
                      .dense = args_has(x, "dense"),
                      .force = args_has(x, "force"),
                      .dry = args_has(x, "dry-run")};
    MergeReport r;
    threads_init(0);
    if (x->e->code || !weights(x, w, n) || !lora_merge_file(args_path(x, x->pos[0]), out, &o, &r, x->a, x->e))
        return 1;
    if (args_has(x, "json")) return merge_json(x, &r);
    for (int i = 0; i < r.n; i++) {
        if (isnan(r.row[i].changed)) log_info("%-56s |dW|/|W| %.3g", r.row[i].name, r.row[i].relative);
        else
            log_info("%-56s |dW|/|W| %.3g, %.2f %% of codes changed", r.row[i].name, r.row[i].relative,
                     100 * r.row[i].changed);
    }
    if (!isnan(r.changed)) {
        log_info("%.2f %% of all codes changed", 100 * r.changed);
        if (r.changed < 0.05)
            log_warn("most of the adapter is below half a quantisation step and is lost; keep it apart, or "
                     "write --dense");
    }
    log_info("%s %s: %d tensors changed", o.dry ? "would write" : "wrote", out, r.n);
    return 0;
}

int verb_unmerge(Args *x)
{
    const char *base = args_get(x, "base", NULL);
    threads_init(0);
    if (!lora_unmerge_file(args_path(x, x->pos[0]), args_path(x, x->pos[1]), x->pos[2],
                           base ? args_path(x, base) : NULL, x->a, x->e))
        return 1;
    log_info("wrote %s: the base, by its content hash", x->pos[2]);
    return 0;
}

int verb_extract_lora(Args *x)
{
    Lora l;
    const int64_t r = args_int(x, "r", 16, 1, 65536);
    threads_init(0);
    if (x->e->code || !lora_extract_file(args_path(x, x->pos[0]), args_path(x, x->pos[1]), x->pos[2], (long)r,
                                         &l, x->a, x->e))
        return 1;
    json_t *list = json_array(), *saved = json_array();
    for (int i = 0; i < l.n; i++) {
        if (!args_has(x, "json"))
            log_info("%-56s r %ld, error %.4f of |dW|", l.item[i].module, l.item[i].r, l.item[i].error);
        json_array_append_new(list, json_pack("{s:s,s:I,s:f}", "module", l.item[i].module, "r",
                                              (json_int_t)l.item[i].r, "error", l.item[i].error));
    }
    for (int i = 0; i < l.n_saved; i++) {
        if (!args_has(x, "json")) log_info("%-56s in full", l.saved[i].p->name);
        json_array_append_new(saved, json_string(l.saved[i].p->name));
    }
    json_t *j = json_pack("{s:o,s:o}", "modules", list, "full", saved);
    if (args_has(x, "json")) return args_say_json(x, j);
    json_decref(j);
    log_info("wrote %s: %d modules, %d tensors in full", x->pos[2], l.n, l.n_saved);
    return 0;
}
