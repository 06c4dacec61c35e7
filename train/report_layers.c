/* train/report_layers.c: sparsity and bits per weight, layer by layer and tensor by tensor, of each file
 * of weights that a run left. */
#include "train/report_impl.h"
#include <math.h>
#include <string.h>

enum { MAX_FILES = 12, MAX_ROWS = 1000 };

typedef struct Layer {
    const char *name;
    int64_t parameters, nonzero, bytes;
} Layer;

/* "model.layers.12.mlp.up_proj.weight" is of "layer 12"; a tensor outside the layers is of its own name. */
static const char *layer_name(const char *tensor, Arena *a, Err *e)
{
    for (const char *p = tensor; (p = strchr(p, '.')); p++) {
        size_t n = strspn(p + 1, "0123456789");
        if (n && p[1 + n] == '.') return arena_printf(a, e, "layer %.*s", (int)n, p + 1);
    }
    size_t n = strlen(tensor);
    if (n > 7 && !strcmp(tensor + n - 7, ".weight")) n -= 7;
    const char *from = !strncmp(tensor, "model.", 6) ? tensor + 6 : tensor;
    return arena_strndup(a, from, n - (size_t)(from - tensor), e);
}

static Layer *layers_of(const ReportFile *f, int *n, Arena *a, Err *e)
{
    Layer *l = arena_alloc(a, (size_t)(f->n_tensor + 1) * sizeof *l, e);
    *n = 0;
    for (int i = 0; l && i < f->n_tensor && !e->code; i++) {
        const ReportTensor *t = &f->tensor[i];
        const char *name = layer_name(t->name, a, e);
        if (!name) break;
        int k = *n - 1;
        while (k >= 0 && strcmp(l[k].name, name)) k--;
        if (k < 0) l[k = (*n)++] = (Layer){.name = name};
        l[k].parameters += t->parameters;
        l[k].nonzero += t->nonzero;
        l[k].bytes += t->bytes;
    }
    return l;
}

static double sparsity(int64_t nonzero, int64_t parameters)
{
    return parameters ? 1 - (double)nonzero / (double)parameters : NAN;
}
static double bits(int64_t bytes, int64_t parameters)
{
    return parameters ? 8.0 * (double)bytes / (double)parameters : NAN;
}

static void bars_of(Text *t, const Layer *l, int n, bool of_bits)
{
    Arena *a = t->a;
    const char **label = arena_alloc(a, (size_t)n * sizeof *label, t->e);
    const char **text = arena_alloc(a, (size_t)n * sizeof *text, t->e);
    double *value = arena_alloc(a, (size_t)n * sizeof *value, t->e);
    Bars b = {.title = of_bits ? "Stored bits per weight" : "Weights that are zero",
              .label = label,
              .value = value,
              .text = text,
              .n = n,
              .max = of_bits ? 1 : 100};
    for (int i = 0; i < n && !t->e->code; i++) {
        label[i] = l[i].name;
        value[i] = of_bits ? bits(l[i].bytes, l[i].parameters)
                           : 100 * sparsity(l[i].nonzero, l[i].parameters);
        text[i] = arena_printf(a, t->e, of_bits ? "%.2f" : "%.1f %%", value[i]);
        if (of_bits && value[i] > b.max) b.max = value[i];
    }
    if (t->e->code) return;
    text_add(t, "<figure>");
    bars_svg(t, &b);
    text_add(t, "</figure>\n");
}

static bool bits_differ(const Layer *l, int n)
{
    for (int i = 1; i < n; i++)
        if (fabs(bits(l[i].bytes, l[i].parameters) - bits(l[0].bytes, l[0].parameters)) > 5e-3) return true;
    return false;
}

static void tensors(Text *t, const ReportFile *f)
{
    text_add(t,
             "<details><summary>%d tensors</summary>\n<div class=\"wide\"><table><thead><tr><th>tensor</th>"
             "<th>stored as</th><th>weights</th><th>bytes</th><th>zero</th><th>bits per "
             "weight</th></tr></thead><tbody>\n",
             f->n_tensor);
    for (int i = 0; i < f->n_tensor && i < MAX_ROWS; i++) {
        const ReportTensor *x = &f->tensor[i];
        text_add(t, "<tr><td>");
        text_escaped(t, x->name);
        text_add(t, "</td><td>");
        text_escaped(t, x->encoding);
        text_add(t, "</td><td>%s</td><td>%s</td><td>%.1f %%</td><td>%.2f</td></tr>\n",
                 number_grouped(x->parameters, t->a, t->e), number_grouped(x->bytes, t->a, t->e),
                 100 * sparsity(x->nonzero, x->parameters), bits(x->bytes, x->parameters));
    }
    text_add(t, "</tbody></table></div>\n");
    if (f->n_tensor > MAX_ROWS) text_add(t, "<p>The first %d are shown.</p>\n", MAX_ROWS);
    text_add(t, "</details>\n");
}

static void one_file(Text *t, const ReportRun *run, const ReportFile *f)
{
    int n;
    Layer *l = layers_of(f, &n, t->a, t->e);
    text_add(t, "<h3>");
    text_escaped(t, run->name);
    const char *slash = strrchr(f->path, '/');
    text_add(t, ": ");
    text_escaped(t, slash ? slash + 1 : f->path);
    text_add(
        t, "</h3>\n<p>%s, %s weights in %s bytes (file: %s bytes), %.2f bits per weight, %.2f %% zero</p>\n",
        f->format, number_grouped(f->parameters, t->a, t->e), number_grouped(f->bytes, t->a, t->e),
        number_grouped(f->disk, t->a, t->e), bits(f->bytes, f->parameters),
        100 * sparsity(f->nonzero, f->parameters));
    if (!l || !n || t->e->code) return;
    const bool zeros = sparsity(f->nonzero, f->parameters) >= 5e-4, mixed = bits_differ(l, n);
    if (zeros || mixed) text_add(t, "<div class=\"charts\">\n");
    if (zeros) bars_of(t, l, n, false);
    if (mixed) bars_of(t, l, n, true);
    if (zeros || mixed) text_add(t, "</div>\n");
    tensors(t, f);
}

void report_layers(Text *t, const Report *r)
{
    int shown = 0;
    for (int i = 0; i < r->n; i++)
        for (int k = 0; k < r->run[i].n_file && shown < MAX_FILES; k++) {
            const ReportFile *f = &r->run[i].file[k];
            if (f->parameters <= 0) continue;
            if (!shown++) text_add(t, "<h2>Weights, layer by layer</h2>\n");
            one_file(t, &r->run[i], f);
        }
}
