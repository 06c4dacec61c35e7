/* train/report_charts.c: which curves a report draws: losses by term, validation, optimizer, speed,
 * sparsity; the size against the quality. One colour a group; of several seeds each is a thin line and
 * their mean a thick one. */
#include "train/report_impl.h"
#include <math.h>
#include <string.h>

enum { SMOOTH_FROM = 80, MORE_CHARTS = 12 };
#define WIDTH 460
#define HEIGHT 300

typedef struct Named {
    const char *key, *title, *unit;
    bool zero;
    double ratio; /* logarithmic from this span on */
} Named;
static const Named named[] = {
    {"loss/ce", "Cross-entropy (training)", "nats per token", false, 30},
    {"loss/kd", "Distillation loss (training)", "nats per token, with its T²", false, 30},
    {"loss/teacher_entropy", "Teacher's entropy (training)", "nats per token", false, 30},
    {"loss", "Total loss (training)", "as weighted by each run's config", false, 30},
    {"eval/loss", "Validation loss", "nats per token", false, 30},
    {"eval/perplexity", "Validation perplexity", "exp(nats per token)", false, 30},
    {"eval/kl", "KL to the teacher (validation)", "nats per token", false, 30},
    {"eval/top1_agreement", "Top-1 agreement with the teacher (validation)", "share of positions", false,
     INFINITY},
    {"sparsity", "Sparsity", "share of weights that are zero", true, INFINITY},
    {"prune/sparsity", "Sparsity (at pruning events)", "share of weights that are zero", true, INFINITY},
    {"lr", "Learning rate", "", true, INFINITY},
    {"grad_norm", "Gradient norm", "before clipping", false, 30},
    {"tok_s", "Training speed", "tokens per second", true, INFINITY},
    {"mem_bytes", "Peak memory", "bytes", true, INFINITY},
};
static const char *const unseen[] = {"epoch",           "tokens",      "dt_ms",          "mfu",
                                     "data_wait_ms",    "eval/tokens", "eval/mem_bytes", "eval/bits_per_byte",
                                     "prune/mem_bytes", "prune/zeros", "prune/entries",  "eval/dt_ms"};
enum {
    N_NAMED = sizeof named / sizeof *named,
    N_UNSEEN = sizeof unseen / sizeof *unseen,
    EVAL_LOSS = 4,
    EVAL_PPL = 5
};

static const Named *named_find(const char *key)
{
    for (int i = 0; i < N_NAMED; i++)
        if (!strcmp(named[i].key, key)) return &named[i];
    return NULL;
}

static bool is_loss(const char *key) { return !strncmp(key, "loss", 4) && (!key[4] || key[4] == '/'); }
static bool is_eval(const char *key) { return !strncmp(key, "eval/", 5); }

/* Figures that jump from batch to batch; the others are drawn as they are. */
static bool is_noisy(const char *key)
{
    return is_loss(key) || !strcmp(key, "grad_norm") || !strcmp(key, "tok_s");
}

static Points thick(Points p, bool *smoothed, Text *t)
{
    if (p.n <= SMOOTH_FROM) return p;
    *smoothed = true;
    return points_smooth(&p, p.n / 40, t->a, t->e);
}

/* The curves of one figure of one group. */
static void add_group(Chart *c, const Report *r, int g, const char *key, const char *label, int colour,
                      bool *smoothed, Text *t)
{
    const ReportGroup *group = &r->group[g];
    Points *mean = arena_alloc(t->a, (size_t)group->n * sizeof *mean, t->e);
    const Series *first = NULL;
    int n = 0;
    for (int i = 0; mean && i < group->n; i++) {
        const Series *s = run_series(&r->run[group->run[i]], key);
        if (!s || !s->n) continue;
        first = s;
        mean[n++] = series_means(s, t->a, t->e);
        if (group->n > 1) chart_line(c, series_points(s, t->a, t->e), NULL, colour, LINE_THIN, t->a, t->e);
    }
    if (!n || t->e->code) return;
    LineStyle style = is_eval(key) ? LINE_MARKED : LINE_THICK;
    if (n > 1) {
        Points m = points_mean(mean, n, t->a, t->e);
        chart_line(c, is_noisy(key) ? thick(m, smoothed, t) : m, label, colour, style, t->a, t->e);
    } else {
        Points p = series_points(first, t->a, t->e);
        bool noisy = p.n > SMOOTH_FROM && is_noisy(key);
        if (noisy && group->n == 1) chart_line(c, p, NULL, colour, LINE_THIN, t->a, t->e);
        chart_line(c, noisy ? thick(mean[0], smoothed, t) : p, label, colour, style, t->a, t->e);
    }
}

static const char *group_label(const Report *r, int g, Text *t)
{
    const ReportGroup *group = &r->group[g];
    const char *s = group->n > 1 ? arena_printf(t->a, t->e, "%s (%d seeds)", group->name, group->n)
                                 : group->name;
    return s ? s : "";
}

static const char *foot(const Report *r, bool smoothed)
{
    bool seeds = false;
    for (int g = 0; g < r->n_group; g++) seeds = seeds || r->group[g].n > 1;
    return seeds && smoothed ? "thin: each seed; thick: their mean, a running one over a 20th"
           : seeds           ? "thin: each seed; thick: their mean"
           : smoothed        ? "thin: as logged; thick: running mean over a 20th of the points"
                             : NULL;
}

static void add_teacher(Chart *c, const Report *r, Text *t)
{
    for (int i = 0; i < r->n; i++) {
        double ppl = r->run[i].teacher.perplexity;
        if (!isfinite(ppl)) continue;
        c->level[c->n_level++] = (ChartLevel){ppl, arena_printf(t->a, t->e, "teacher %.3g", ppl)};
        return;
    }
}

static int label_count(const Chart *c)
{
    int n = 0;
    for (int i = 0; i < c->n; i++) n += c->line[i].label != NULL;
    return n;
}

static Chart begin(const char *title, const char *unit)
{
    return (Chart){.title = title,
                   .x_label = "step",
                   .y_label = unit && *unit ? unit : NULL,
                   .steps = true,
                   .width = WIDTH,
                   .height = HEIGHT};
}

static void end(Chart *c, const Report *r, bool smoothed, double ratio)
{
    c->foot = foot(r, smoothed);
    chart_scale(c, INFINITY, ratio);
    if (label_count(c) > 4) c->height += 9.0 * (label_count(c) - 4);
}

/* The same curve in every group, as a learning rate often is. */
static const Series *all_same(const Report *r, const char *key)
{
    const Series *a = NULL;
    int n = 0;
    for (int i = 0; i < r->n; i++) {
        const Series *b = run_series(&r->run[i], key);
        if (!b || !b->n) continue;
        if (!a) a = b;
        if (b->n != a->n || memcmp(a->b, b->b, (size_t)a->n * sizeof *a->b)) return NULL;
        n++;
    }
    return n > 1 ? a : NULL;
}

/* One figure, every group. */
static Chart figure(const Report *r, const char *key, Text *t)
{
    const Named *n = named_find(key);
    Chart c = begin(n ? n->title : key, n ? n->unit : "");
    bool smoothed = false;
    c.zero = n && n->zero;
    const Series *same = all_same(r, key);
    if (same) chart_line(&c, series_points(same, t->a, t->e), "all runs", 6, LINE_THICK, t->a, t->e);
    for (int g = 0; g < r->n_group && !same; g++)
        add_group(&c, r, g, key, r->n_group > 1 || r->group[0].n > 1 ? group_label(r, g, t) : NULL, g,
                  &smoothed, t);
    if (c.n && !strcmp(key, "eval/perplexity")) add_teacher(&c, r, t);
    end(&c, r, smoothed, n ? n->ratio : 30);
    if (same) c.foot = NULL;
    return c;
}

/* All terms of one group, and its validation loss as marks. */
static Chart terms(const Report *r, Text *t)
{
    Chart c = begin("Loss by term", "nats per token; features as their own measure");
    bool smoothed = false;
    int colour = 0;
    const ReportRun *run = &r->run[r->group[0].run[0]];
    for (int i = 0; i < run->n_series; i++) {
        const char *key = run->series[i].key;
        if (!is_loss(key)) continue;
        add_group(&c, r, 0, key, key[4] ? key + 5 : "total", colour++, &smoothed, t);
    }
    add_group(&c, r, 0, "eval/loss", "validation", colour, &smoothed, t);
    end(&c, r, smoothed, 30);
    return c;
}

/* More than one place on the x axis: a lone point says nothing that the table does not. */
static bool is_curve(const Chart *c)
{
    for (int i = 0; i < c->n; i++)
        for (int k = 0; k < c->line[i].p.n; k++)
            if (c->line[i].p.x[k] != c->line[0].p.x[0]) return true;
    return false;
}

static bool hidden(const char *key)
{
    for (int i = 0; i < N_UNSEEN; i++)
        if (!strcmp(unseen[i], key)) return true;
    return false;
}

static void draw(Text *t, const Chart *c, bool lone)
{
    if (chart_empty(c) || (!lone && !is_curve(c))) return;
    text_add(t, "<figure>");
    chart_svg(t, c);
    text_add(t, "</figure>\n");
}

static bool is_first(const Report *r, int run, int s)
{
    for (int i = 0; i < run; i++)
        if (run_series(&r->run[i], r->run[run].series[s].key)) return false;
    return true;
}

/* Keys that the table above does not name: feature losses where arms are compared, figures of other
 * sections. */
static void others(Text *t, const Report *r, bool losses)
{
    int drawn = 0;
    for (int i = 0; i < r->n; i++)
        for (int k = 0; k < r->run[i].n_series && drawn < MORE_CHARTS; k++) {
            const char *key = r->run[i].series[k].key;
            if (named_find(key) || hidden(key) || is_loss(key) != losses || !is_first(r, i, k)) continue;
            Chart c = figure(r, key, t);
            draw(t, &c, losses);
            drawn++;
        }
}

void report_charts(Text *t, const Report *r)
{
    const bool one = r->n_group == 1;
    if (one) {
        Chart c = terms(r, t);
        draw(t, &c, true);
    }
    for (int i = 0; i < N_NAMED; i++) {
        if (i == EVAL_LOSS && !one) others(t, r, true);
        if (one && (is_loss(named[i].key) || i == EVAL_LOSS)) continue;
        Chart c = figure(r, named[i].key, t);
        draw(t, &c, is_loss(named[i].key));
    }
    others(t, r, false);
}

void report_picture(Text *t, const Report *r)
{
    Chart c[2];
    if (r->n_group == 1) c[0] = terms(r, t);
    else c[0] = figure(r, "loss/ce", t);
    if (chart_empty(&c[0])) c[0] = figure(r, "loss", t);
    c[1] = figure(r, "eval/perplexity", t);
    if (!is_curve(&c[1])) c[1].n = 0;
    c[0].height = c[1].height = fmax(c[0].height, c[1].height) + 30;
    chart_file(t, r->title, c, 2);
}

static double row_size(const ReportRow *w, bool disk) { return disk ? (double)w->disk : (double)w->bytes; }

static void point(Chart *c, double x, double y, const char *name, int colour, Text *t)
{
    double *v = arena_alloc(t->a, 2 * sizeof *v, t->e);
    if (!v || !(x > 0) || !isfinite(y)) return;
    v[0] = x;
    v[1] = y;
    chart_line(c, (Points){&v[0], &v[1], 1}, name, colour, LINE_MARKS, t->a, t->e);
}

void report_tradeoff(Text *t, const Report *r)
{
    Chart c = {.title = "Size against quality",
               .y_label = "validation perplexity",
               .width = 620,
               .height = 360,
               .name_marks = true};
    bool disk = true;
    for (int g = 0; g < r->n_group; g++) disk = disk && r->run[r->group[g].run[0]].row.disk >= 0;
    c.x_label = disk ? "bytes on disk of the exported file" : "bytes of the weights";
    const ReportRow *teacher = NULL;
    for (int i = 0; i < r->n && !disk && !teacher; i++)
        if (isfinite(r->run[i].teacher.perplexity)) teacher = &r->run[i].teacher;
    for (int g = 0; g < r->n_group; g++) {
        double mean, sd;
        group_stat(r, &r->group[g], offsetof(ReportRow, perplexity), &mean, &sd);
        point(&c, row_size(&r->run[r->group[g].run[0]].row, disk), mean, r->group[g].name, g, t);
    }
    if (teacher) point(&c, row_size(teacher, false), teacher->perplexity, "teacher", 6, t);
    if (!is_curve(&c)) return;
    chart_scale(&c, 8, 8);
    draw(t, &c, true);
}
