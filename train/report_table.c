/* train/report_table.c: the tables of a report, as text cells: sizes and qualities by group, and what each
 * stage cost. Columns that nobody fills are left out. */
#include "train/report_impl.h"
#include <math.h>
#include <string.h>

static bool table_alloc(ReportTable *t, int rows, int cols, const char *const *head, Arena *a, Err *e)
{
    *t = (ReportTable){.n_row = rows, .n_col = cols};
    t->cell = arena_alloc(a, (size_t)((rows + 1) * cols) * sizeof *t->cell, e);
    for (int i = 0; t->cell && i < (rows + 1) * cols; i++) t->cell[i] = i < cols ? head[i] : "";
    return t->cell != NULL;
}

/* What a cell that could not be made leaves is an empty one; the error is in e. */
static const char *or_empty(const char *s) { return s ? s : ""; }

/* Nothing is told by: no text; one run each; nothing pruned; plain float32. */
static bool tells(const char *head, const char *cell)
{
    static const char *const plain[][2] = {{"runs", "1"}, {"zero", "0.0 %"}, {"bits per weight", "32.00"}};
    for (int i = 0; i < 3; i++)
        if (!strcmp(head, plain[i][0]) && !strcmp(cell, plain[i][1])) return false;
    return *cell != 0;
}

static void drop_empty(ReportTable *t)
{
    int kept = 0;
    for (int c = 0; c < t->n_col; c++) {
        bool any = false;
        for (int i = 1; i <= t->n_row; i++) any = any || tells(t->cell[c], t->cell[i * t->n_col + c]);
        if (!any && c) continue;
        for (int i = 0; i <= t->n_row; i++) t->cell[i * t->n_col + kept] = t->cell[i * t->n_col + c];
        kept++;
    }
    for (int i = 0; i <= t->n_row; i++)
        memmove(&t->cell[i * kept], &t->cell[i * t->n_col], (size_t)kept * sizeof *t->cell);
    t->n_col = kept;
}

static const char *stat_cell(const Report *r, const ReportGroup *g, size_t offset, double scale, int digits,
                             const char *unit, Arena *a, Err *e)
{
    double mean, sd;
    int n = group_stat(r, g, offset, &mean, &sd);
    const char *s = number_spread(mean * scale, sd * scale, n, digits, a, e);
    return s && *s && *unit ? or_empty(arena_printf(a, e, "%s %s", s, unit)) : or_empty(s);
}

static const char *count_cell(int64_t v, Arena *a, Err *e)
{
    return v < 0 ? "" : or_empty(number_grouped(v, a, e));
}

static const char *zero_cell(const ReportRow *w, Arena *a, Err *e)
{
    if (w->nonzero < 0 || w->parameters <= 0) return "";
    return or_empty(arena_printf(a, e, "%.1f %%", 100 - 100 * (double)w->nonzero / (double)w->parameters));
}

static const char *status_cell(const Report *r, const ReportGroup *g, Arena *a, Err *e)
{
    const char *first = r->run[g->run[0]].status;
    int same = 0;
    for (int i = 0; i < g->n; i++) same += !strcmp(r->run[g->run[i]].status, first);
    return same == g->n ? first : or_empty(arena_printf(a, e, "%d of %d %s", same, g->n, first));
}

static const char *seconds_cell(const Report *r, const ReportGroup *g, Arena *a, Err *e)
{
    double mean, sd;
    group_stat(r, g, offsetof(ReportRow, seconds), &mean, &sd);
    return or_empty(number_seconds(mean, a, e));
}

enum {
    COL_NAME,
    COL_RUNS,
    COL_STEPS,
    COL_PARAMETERS,
    COL_BYTES,
    COL_DISK,
    COL_ZERO,
    COL_BITS,
    COL_PPL,
    COL_KL,
    COL_TOP1,
    COL_TOK,
    COL_DECODE,
    COL_TIME,
    COL_STATUS,
    N_COL
};

static void group_row(const char **c, const Report *r, const ReportGroup *g, Arena *a, Err *e)
{
    const ReportRow *w = &r->run[g->run[0]].row;
    c[COL_NAME] = g->name;
    c[COL_RUNS] = count_cell(g->n, a, e);
    c[COL_STEPS] = count_cell(w->steps, a, e);
    c[COL_PARAMETERS] = count_cell(w->parameters, a, e);
    c[COL_BYTES] = count_cell(w->bytes, a, e);
    c[COL_DISK] = count_cell(w->disk, a, e);
    c[COL_ZERO] = zero_cell(w, a, e);
    c[COL_BITS] = isfinite(w->bits) ? or_empty(arena_printf(a, e, "%.2f", w->bits)) : "";
    c[COL_PPL] = stat_cell(r, g, offsetof(ReportRow, perplexity), 1, 3, "", a, e);
    c[COL_KL] = stat_cell(r, g, offsetof(ReportRow, kl), 1, 4, "", a, e);
    c[COL_TOP1] = stat_cell(r, g, offsetof(ReportRow, top1), 100, 1, "%", a, e);
    c[COL_TOK] = stat_cell(r, g, offsetof(ReportRow, tok_s), 1, 0, "", a, e);
    c[COL_DECODE] = stat_cell(r, g, offsetof(ReportRow, decode), 1, 0, "", a, e);
    c[COL_TIME] = seconds_cell(r, g, a, e);
    c[COL_STATUS] = status_cell(r, g, a, e);
}

bool report_table(ReportTable *t, const Report *r, Arena *a, Err *e)
{
    static const char *const head[N_COL] = {"model",
                                            "runs",
                                            "steps",
                                            "parameters",
                                            "bytes of weights",
                                            "bytes on disk",
                                            "zero",
                                            "bits per weight",
                                            "perplexity",
                                            "KL to teacher",
                                            "top-1 agreement",
                                            "tokens/s",
                                            "generated tokens/s",
                                            "time",
                                            "status"};
    const ReportRow *teacher = NULL;
    for (int i = 0; i < r->n && !teacher; i++)
        if (isfinite(r->run[i].teacher.perplexity)) teacher = &r->run[i].teacher;
    if (!table_alloc(t, r->n_group + (teacher != NULL), N_COL, head, a, e)) return false;
    int row = 1;
    if (teacher) {
        const char **c = &t->cell[N_COL * row++];
        c[COL_NAME] = "teacher";
        c[COL_PARAMETERS] = count_cell(teacher->parameters, a, e);
        c[COL_BYTES] = count_cell(teacher->bytes, a, e);
        c[COL_PPL] = or_empty(arena_printf(a, e, "%.3f", teacher->perplexity));
    }
    for (int g = 0; g < r->n_group && !e->code; g++)
        group_row(&t->cell[N_COL * row++], r, &r->group[g], a, e);
    drop_empty(t);
    return !e->code;
}

bool report_stages(ReportTable *t, const Report *r, Arena *a, Err *e)
{
    static const char *const head[] = {
        "stage", "steps", "time", "share of the time", "tokens/s", "perplexity", "bytes of weights",
        "zero",  "status"};
    enum { COLS = sizeof head / sizeof *head };
    int n = 0, row = 1;
    double sum = 0;
    for (int i = 0; i < r->n; i++)
        if (r->run[i].stage) {
            n++;
            sum += isfinite(r->run[i].row.seconds) ? r->run[i].row.seconds : 0;
        }
    if (!table_alloc(t, n, COLS, head, a, e)) return false;
    for (int i = 0; i < r->n && !e->code; i++) {
        const ReportRow *w = &r->run[i].row;
        const char **c = &t->cell[COLS * row];
        if (!r->run[i].stage) continue;
        row++;
        c[0] = r->run[i].name;
        c[1] = count_cell(w->steps, a, e);
        c[2] = or_empty(number_seconds(w->seconds, a, e));
        if (sum > 0 && isfinite(w->seconds))
            c[3] = or_empty(arena_printf(a, e, "%.1f %%", 100 * w->seconds / sum));
        if (isfinite(w->tok_s)) c[4] = or_empty(number_spread(w->tok_s, 0, 1, 0, a, e));
        if (isfinite(w->perplexity)) c[5] = or_empty(arena_printf(a, e, "%.3f", w->perplexity));
        c[6] = count_cell(w->bytes, a, e);
        c[7] = zero_cell(w, a, e);
        c[8] = r->run[i].status;
    }
    drop_empty(t);
    return !e->code;
}
