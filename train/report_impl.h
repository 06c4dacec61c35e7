/* train/report_impl.h: what the files of `pare report` share: text that grows, charts, and runs as read.
 *
 *   Report r;  Text html = {.a = a, .e = e};
 *   report_read(&r, paths, n, a, e) && report_html(&html, &r);
 */
#ifndef REPORT_IMPL_H
#define REPORT_IMPL_H
#include "train/train.h"
#include <jansson.h>

/* ---- report_text.c ------------------------------------------------------------------------------------- */
typedef struct Text {
    Arena *a;
    Err *e;
    char *s; /* NUL-terminated once something was added */
    size_t n, cap;
} Text;
void text_raw(Text *t, const char *s, size_t n);
void text_add(Text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* For HTML, XML and attributes: & < > and quotes as entities; bytes that are no UTF-8, and controls, as
 * U+FFFD. */
void text_escaped(Text *t, const char *s);
/* For a Markdown table: | and line ends cannot break it, < and & cannot become HTML. */
void text_cell(Text *t, const char *s);
char *number_grouped(int64_t v, Arena *a, Err *e); /* 100,944 */
char *number_short(double v, Arena *a, Err *e);    /* axes: 0.25, 12k, 1.5M, 2e-05 */
char *number_spread(double mean, double sd, int n, int digits, Arena *a, Err *e); /* 13.89 ± 0.77 */
char *number_seconds(double s, Arena *a, Err *e); /* 8.2 s, 3 min 05 s, 2 h 10 min */

/* ---- report_series.c: points in bounded memory --------------------------------------------------------- */
enum { SERIES_BUCKETS = 512 };
/* Consecutive points: the least and the greatest with their places, and the sums. */
typedef struct Bucket {
    double x_min, y_min, x_max, y_max, x_sum, y_sum;
    int64_t n;
} Bucket;
/* Up to SERIES_BUCKETS points are kept as they came; then every two buckets become one, again and again,
 * so that any length fits and no peak is lost. */
typedef struct Series {
    const char *key; /* "loss/ce"; of evaluations "eval/loss"; of prune events "prune/sparsity" */
    Bucket *b;
    int n;
    int64_t width, points; /* points a bucket takes; all of them */
    double last_x, last_y;
} Series;
typedef struct Points {
    double *x, *y;
    int n;
} Points;
bool series_add(Series *s, double x, double y, Arena *a, Err *e);
Points series_points(const Series *s, Arena *a, Err *e); /* as they came, or least and greatest by bucket */
Points series_means(const Series *s, Arena *a, Err *e);  /* one point a bucket */
/* At the places of the first series, as far as all reach: the mean of all, between points on straight
 * lines. */
Points points_mean(const Points *p, int n, Arena *a, Err *e);
/* Centred running mean over 2 half + 1 points, fewer at the ends. */
Points points_smooth(const Points *p, int half, Arena *a, Err *e);

/* ---- report_read.c, report_files.c --------------------------------------------------------------------- */
enum { MAX_SERIES = 64 };
typedef struct ReportTensor {
    const char *name, *encoding;
    int64_t parameters, nonzero, bytes;
} ReportTensor;
/* A file of weights. disk: its size, or that of a folder's files. */
typedef struct ReportFile {
    const char *path, *format;
    int64_t parameters, nonzero, bytes, disk;
    ReportTensor *tensor;
    int n_tensor;
} ReportFile;
/* Figures are NAN, and counts -1, where nothing tells them. */
typedef struct ReportRow {
    double perplexity, nll, kl, top1, tok_s, seconds, bits, decode; /* decode: tokens/s of generation */
    int64_t parameters, bytes, disk, nonzero, steps;
    const char *protocol;
} ReportRow;
typedef struct ReportRun {
    const char *path, *name, *group, *status;
    Series series[MAX_SERIES];
    int n_series;
    int64_t lines, bad, first_bad, nonfinite, dropped_keys;
    ReportRow row, teacher;
    const char *config, *env, *overrides, *sample, *sample_name, *teacher_name;
    ReportFile *file; /* exports, else the newest checkpoint */
    int n_file;
    bool exported, stage;
} ReportRun;
typedef struct ReportGroup {
    const char *name;
    int *run, n; /* indices */
    bool stage;
} ReportGroup;
typedef struct Report {
    const char *title;
    ReportRun *run;
    int n, cap;
    ReportGroup *group;
    int n_group;
    const char **note;
    int n_note, cap_note;
    Arena *a;
} Report;
void report_note(Report *r, Err *e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Run folders, folders of arms, runs with stages. An error names the folder that is none of these. */
bool report_read(Report *r, const char *const *path, int n, Arena *a, Err *e);
/* One folder's metrics.jsonl, config, environment, sample and files. */
bool report_read_run(Report *r, ReportRun *run, Err *e);
void report_read_files(Report *r, ReportRun *run, Err *e);
ReportRow report_row_none(void);
void report_row_json(ReportRow *row, const json_t *o); /* figures of an arms.jsonl or stages.jsonl row */
const Series *run_series(const ReportRun *run, const char *key);
/* Mean and sample standard deviation of a figure over a group's runs that have it; returns how many have. */
int group_stat(const Report *r, const ReportGroup *g, size_t offset, double *mean, double *sd);
/* Names of DIR's entries, sorted, without those that begin with a dot. */
const char **dir_names(const char *dir, int *n, Arena *a, Err *e);
bool dir_exists(const char *path);

/* ---- report_svg.c: the writer -------------------------------------------------------------------------- */
typedef enum { LINE_THICK, LINE_THIN, LINE_DASHED, LINE_MARKS, LINE_MARKED } LineStyle;
typedef struct ChartLine {
    Points p;
    const char *label; /* in the legend; NULL = not there */
    int colour;        /* 0..7; shape of the marks too */
    LineStyle style;
} ChartLine;
/* A level across the plot, with its name. */
typedef struct ChartLevel {
    double y;
    const char *label;
} ChartLevel;
typedef struct Chart {
    const char *title, *x_label, *y_label, *foot; /* foot: a line below, may be NULL */
    double width, height;
    ChartLine *line;
    int n, cap;
    ChartLevel level[4];
    int n_level;
    bool zero;         /* the y axis begins at 0 */
    bool steps;        /* the x axis counts from 0 in whole numbers */
    bool log_y, log_x; /* set by chart_scale */
    bool name_marks;   /* labels beside the marks instead of a legend */
} Chart;
void chart_line(Chart *c, Points p, const char *label, int colour, LineStyle style, Arena *a, Err *e);
/* Logarithmic where all values are above 0 and span more than `ratio`. */
void chart_scale(Chart *c, double ratio_x, double ratio_y);
bool chart_empty(const Chart *c);
/* The chart with its corner at (x,y) of the surrounding <svg>. */
void chart_draw(Text *t, const Chart *c, double x, double y);
/* A whole <svg>, for a page that has svg_style() in its head. */
void chart_svg(Text *t, const Chart *c);
/* One file of its own with the charts beside each other. */
void chart_file(Text *t, const char *title, const Chart *c, int n);
/* Horizontal bars, 0 to max. value NAN: no bar. */
typedef struct Bars {
    const char *title, *unit;
    const char *const *label;
    const double *value;
    const char *const *text; /* at the bar's end */
    int n;
    double max;
} Bars;
void bars_svg(Text *t, const Bars *b);
const char *svg_style(void); /* CSS of charts, in light and dark */

/* ---- report_ticks.c ------------------------------------------------------------------------------------ */
enum { MAX_TICKS = 24 };
typedef struct Axis {
    double lo, hi, tick[MAX_TICKS];
    int n;
    bool log;
} Axis;
/* Ticks at 1, 2 or 5 times a power of ten (logarithmic: at those of each decade), about `want` of them;
 * the range reaches over lo and hi to the next tick unless exact. */
void axis_make(Axis *x, double lo, double hi, bool is_log, bool exact, int want);
double axis_place(const Axis *x, double v); /* 0 at lo, 1 at hi */
/* With as many digits as tell the ticks apart. */
const char *axis_label(const Axis *x, double v, Arena *a, Err *e);

/* ---- report_charts.c, report_layers.c, report_html.c, report_md.c
 * --------------------------------------- */
void report_charts(Text *t, const Report *r);
void report_picture(Text *t, const Report *r); /* training and validation side by side, for --svg */
void report_layers(Text *t, const Report *r);  /* sparsity and bits by layer; files */
void report_tradeoff(Text *t, const Report *r);
typedef struct ReportTable {
    const char **cell; /* (n_row + 1, n_col): the first row is the head */
    int n_row, n_col;
} ReportTable;
bool report_table(ReportTable *t, const Report *r, Arena *a, Err *e);
bool report_stages(ReportTable *t, const Report *r, Arena *a, Err *e); /* n_row 0 = no stages */
void report_html(Text *t, const Report *r);
void report_md(Text *t, const Report *r);
#endif
