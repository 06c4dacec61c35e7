/* train/report_svg.c: line charts and bars as SVG. Colours are classes, so that one drawing serves light
 * and dark; hues of Okabe and Ito, which people with any colour vision tell apart, and shapes beside them.
 * Text is measured by a guess of its width, on the wide side. */
#include "train/report_impl.h"
#include <math.h>
#include <string.h>

#define FONT "font-family:system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif;"
#define CHAR_WIDTH 6.7 /* of 12 px text */
enum { N_COLOUR = 8, MARKS_LIMIT = 64 };

/* S: stroke, F: fill, of colour i. */
#define HUE(i, c) ".s" #i "{stroke:" c "}.f" #i "{fill:" c "}"
const char *svg_style(void)
{
    return "svg.chart{" FONT "font-size:12px}"
           ".bg{fill:#ffffff}.tt{fill:#1c2128;font-size:14px;font-weight:600}.tx{fill:#4d5761}.nm{fill:#"
           "1c2128}"
           ".gr{stroke:#e3e6ea}.ax{stroke:#8b949e}.lv{stroke:#4d5761;stroke-dasharray:2 3}"
           ".ln{fill:none;stroke-linejoin:round;stroke-linecap:round;stroke-width:2.5}"
           ".thin{stroke-width:1;opacity:.45}.dash{stroke-dasharray:7 4;stroke-width:2}.mk{stroke:#ffffff}"
           ".tr{fill:#eceff2}" HUE(0, "#0072b2") HUE(1, "#d55e00") HUE(2, "#00855f") HUE(3, "#aa4499")
               HUE(4, "#a87400") HUE(5, "#3a93c9") HUE(6, "#5c6670") HUE(
                   7, "#8c4a2f") "@media (prefers-color-scheme:dark){"
                                 ".bg{fill:#161b22}.tt,.nm{fill:#e6edf3}.tx{fill:#a3adb8}.gr{stroke:#2b323b}."
                                 "ax{stroke:#6b7580}"
                                 ".lv{stroke:#a3adb8}.mk{stroke:#161b22}.tr{fill:#262c36}" HUE(0, "#56b4e9")
                                     HUE(1, "#ff9248") HUE(2, "#2dc99a") HUE(3, "#e58fd0") HUE(4, "#e8c33a")
                                         HUE(5, "#93a8ff") HUE(6, "#b3bcc6") HUE(7, "#d2a08a") "}";
}

void chart_line(Chart *c, Points p, const char *label, int colour, LineStyle style, Arena *a, Err *e)
{
    if (!p.n || e->code) return;
    if (c->n == c->cap) {
        int cap = c->cap ? 2 * c->cap : 8;
        c->line = arena_grow(a, c->line, (size_t)c->n * sizeof *c->line, (size_t)cap * sizeof *c->line, e);
        c->cap = cap;
    }
    if (!e->code) c->line[c->n++] = (ChartLine){p, label, colour, style};
}

typedef struct Range {
    double lo, hi;
} Range;

static void range_take(Range *r, double v)
{
    r->lo = fmin(r->lo, v);
    r->hi = fmax(r->hi, v);
}

static Range range_of(const Chart *c, bool y)
{
    Range r = {INFINITY, -INFINITY};
    for (int k = 0; k < c->n; k++)
        for (int i = 0; i < c->line[k].p.n; i++) range_take(&r, y ? c->line[k].p.y[i] : c->line[k].p.x[i]);
    for (int i = 0; y && i < c->n_level; i++) range_take(&r, c->level[i].y);
    return r;
}

bool chart_empty(const Chart *c) { return !c->n; }

void chart_scale(Chart *c, double ratio_x, double ratio_y)
{
    Range x = range_of(c, false), y = range_of(c, true);
    c->log_x = x.lo > 0 && x.hi / x.lo > ratio_x;
    c->log_y = y.lo > 0 && y.hi / y.lo > ratio_y;
}

static double text_width(const char *s)
{
    int n = 0;
    for (; *s; s++) n += (*s & 0xC0) != 0x80;
    return n * CHAR_WIDTH;
}

static void text_at(Text *t, const char *class, const char *anchor, double x, double y, const char *s)
{
    text_add(t, "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\"", class, x, y);
    if (*anchor) text_add(t, " text-anchor=\"%s\"", anchor);
    text_raw(t, ">", 1);
    text_escaped(t, s);
    text_add(t, "</text>\n");
}

/* The plot's rectangle and its axes. */
typedef struct Plot {
    double x, y, w, h;
    Axis ax, ay;
} Plot;

static double px(const Plot *p, double v) { return p->x + p->w * axis_place(&p->ax, v); }
static double py(const Plot *p, double v) { return p->y + p->h * (1 - axis_place(&p->ay, v)); }

/* Circle, square, triangle, diamond. */
static void mark(Text *t, double x, double y, int colour, const char *title)
{
    static const char *const shape[] = {"M%.1f %.1fm-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
                                        "M%.1f %.1fm-3.6-3.6h7.2v7.2h-7.2z", "M%.1f %.1fm0-4.8l4.6 8h-9.2z",
                                        "M%.1f %.1fm0-5l4.6 5l-4.6 5l-4.6-5z"};
    const int k = colour % 4;
    text_add(t, "<path class=\"mk f%d\" d=\"", colour % N_COLOUR);
    if (k == 0) text_add(t, shape[0], x, y);
    else if (k == 1) text_add(t, shape[1], x, y);
    else if (k == 2) text_add(t, shape[2], x, y);
    else text_add(t, shape[3], x, y);
    text_add(t, "\"%s", title ? "><title>" : "/>\n");
    if (!title) return;
    text_escaped(t, title);
    text_add(t, "</title></path>\n");
}

static void stroke(Text *t, const ChartLine *l)
{
    const char *extra = l->style == LINE_THIN                              ? " thin"
                        : l->style == LINE_DASHED || l->colour >= N_COLOUR ? " dash"
                                                                           : "";
    text_add(t, "<path class=\"ln s%d%s\" d=\"M", l->colour % N_COLOUR, extra);
}

static void draw_line(Text *t, const Plot *p, const ChartLine *l, const Chart *c)
{
    const bool marked = (l->style == LINE_MARKS || l->style == LINE_MARKED || l->p.n == 1) &&
                        l->p.n <= MARKS_LIMIT;
    if (l->p.n > 1 && (l->style != LINE_MARKS || !marked)) {
        stroke(t, l);
        for (int i = 0; i < l->p.n; i++)
            text_add(t, "%s%.1f %.1f", i ? " " : "", px(p, l->p.x[i]), py(p, l->p.y[i]));
        text_add(t, "\"/>\n");
    }
    for (int i = 0; marked && i < l->p.n; i++) {
        char title[256];
        snprintf(title, sizeof title, "%s%s%s %.6g: %.6g", l->label ? l->label : "", l->label ? ", " : "",
                 c->x_label, l->p.x[i], l->p.y[i]);
        mark(t, px(p, l->p.x[i]), py(p, l->p.y[i]), l->colour, title);
    }
}

/* Rows of samples and labels below the title; returns where they end. */
static double legend(Text *t, const Chart *c, double x0, double y, bool draw)
{
    double x = x0;
    int shown = 0;
    for (int i = 0; i < c->n; i++) {
        const ChartLine *l = &c->line[i];
        if (!l->label || c->name_marks) continue;
        double w = 26 + text_width(l->label) + 16;
        if (shown++ && x + w > x0 + c->width - 24) {
            x = x0;
            y += 18;
        }
        if (draw && l->style != LINE_MARKS) {
            stroke(t, l);
            text_add(t, "%.1f %.1f h20\"/>\n", x, y - 4);
        }
        if (draw && (l->style == LINE_MARKS || l->style == LINE_MARKED))
            mark(t, x + 10, y - 4, l->colour, NULL);
        if (draw) text_at(t, "nm", "", x + 26, y, l->label);
        x += w;
    }
    return shown ? y + 20 : y;
}

static void axes(Text *t, const Plot *p, const Chart *c)
{
    Arena *a = t->a;
    for (int i = 0; i < p->ay.n; i++) {
        double y = py(p, p->ay.tick[i]);
        text_add(t, "<path class=\"gr\" d=\"M%.1f %.1fh%.1f\"/>\n", p->x, y, p->w);
        text_at(t, "tx", "end", p->x - 7, y + 4, axis_label(&p->ay, p->ay.tick[i], a, t->e));
    }
    for (int i = 0; i < p->ax.n; i++) {
        double x = px(p, p->ax.tick[i]);
        text_add(t, "<path class=\"ax\" d=\"M%.1f %.1fv5\"/>\n", x, p->y + p->h);
        text_at(t, "tx", "middle", x, p->y + p->h + 19, axis_label(&p->ax, p->ax.tick[i], a, t->e));
    }
    text_add(t, "<path class=\"ax\" d=\"M%.1f %.1fh%.1f\"/>\n", p->x, p->y + p->h, p->w);
    text_at(t, "tx", "middle", p->x + p->w / 2, p->y + p->h + 38, c->x_label);
}

typedef struct Box {
    double x0, y0, x1, y1;
} Box;

static bool free_of(const Box *b, int n, Box o)
{
    for (int i = 0; i < n; i++)
        if (o.x0 < b[i].x1 && o.x1 > b[i].x0 && o.y0 < b[i].y1 && o.y1 > b[i].y0) return false;
    return true;
}

/* Each mark's name where it covers neither a mark nor a name: right, left, above or below, ever farther
 * away. */
static void names(Text *t, const Plot *p, const Chart *c)
{
    Box *box = arena_alloc(t->a, (size_t)(2 * c->n + 1) * sizeof *box, t->e);
    int n = 0;
    for (int k = 0; box && k < c->n; k++) {
        double x = px(p, c->line[k].p.x[0]), y = py(p, c->line[k].p.y[0]);
        box[n++] = (Box){x - 5, y - 5, x + 5, y + 5};
    }
    for (int k = 0; box && k < c->n; k++) {
        const char *s = c->line[k].label;
        double x = px(p, c->line[k].p.x[0]), y = py(p, c->line[k].p.y[0]), w = s ? text_width(s) : 0;
        for (int i = 0; s && i < 28; i++) {
            int side = i % 4;
            double far = 2 + 12.0 * (i / 4), up = side == 2   ? -12 - far
                                                  : side == 3 ? 12 + far
                                                  : i / 4 % 2 ? far
                                                              : -far;
            double left = side == 0 ? x + 9 : side == 1 ? x - 9 - w : x - w / 2;
            Box o = {left, y + up - 7, left + w, y + up + 7};
            bool inside = o.x0 >= p->x - 40 && o.x1 <= p->x + p->w + 12 && o.y0 >= p->y - 8 &&
                          o.y1 <= p->y + p->h;
            if ((!inside || !free_of(box, n, o)) && i < 27) continue;
            box[n++] = o;
            text_at(t, "nm", "", left, y + up + 4, s);
            break;
        }
    }
}

static Plot layout(const Chart *c, double x, double top, Text *t)
{
    Range rx = range_of(c, false), ry = range_of(c, true);
    Plot p = {.y = top};
    double bottom = top + c->height, widest = 0;
    if (c->steps) rx.lo = 0;
    if (c->zero) ry.lo = fmin(ry.lo, 0);
    if (c->steps && rx.hi <= 0) rx.hi = 1;
    double rows = legend(t, c, 0, 42, false);
    p.y = top + rows + (c->y_label ? 14 : 0);
    p.h = bottom - p.y - 46 - (c->foot ? 18 : 0);
    axis_make(&p.ay, ry.lo, ry.hi, c->log_y, false, p.h > 150 ? 6 : 4);
    for (int i = 0; i < p.ay.n; i++)
        widest = fmax(widest, text_width(axis_label(&p.ay, p.ay.tick[i], t->a, t->e)));
    p.x = x + widest + 18;
    p.w = x + c->width - 24 - p.x;
    axis_make(&p.ax, rx.lo, rx.hi, c->log_x, c->steps, c->steps && rx.hi < 6 ? (int)ceil(rx.hi) : 6);
    return p;
}

void chart_draw(Text *t, const Chart *c, double x, double y)
{
    if (!c->n) return;
    Plot p = layout(c, x, y, t);
    text_at(t, "tt", "", x + 12, y + 22, c->title);
    legend(t, c, x + 12, y + 42, true);
    if (c->y_label) text_at(t, "tx", "", x + 12, p.y - 10, c->y_label);
    axes(t, &p, c);
    for (int i = 0; i < c->n_level; i++) {
        double ly = py(&p, c->level[i].y);
        text_add(t, "<path class=\"lv\" d=\"M%.1f %.1fh%.1f\"/>\n", p.x, ly, p.w);
        text_at(t, "tx", "end", p.x + p.w - 2, ly - 5, c->level[i].label);
    }
    for (int pass = 0; pass < 2; pass++) /* thin lines below thick ones */
        for (int i = 0; i < c->n; i++)
            if ((c->line[i].style == LINE_THIN) == !pass) draw_line(t, &p, &c->line[i], c);
    if (c->name_marks) names(t, &p, c);
    if (c->foot) text_at(t, "tx", "", x + 12, y + c->height - 10, c->foot);
}

static void open_svg(Text *t, double w, double h, const char *title)
{
    text_add(t,
             "<svg class=\"chart\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" "
             "role=\"img\">\n<title>",
             w, h);
    text_escaped(t, title);
    text_add(t, "</title>\n");
}

void chart_svg(Text *t, const Chart *c)
{
    if (!c->n) return;
    open_svg(t, c->width, c->height, c->title);
    chart_draw(t, c, 0, 0);
    text_add(t, "</svg>\n");
}

void chart_file(Text *t, const char *title, const Chart *c, int n)
{
    double w = 0, h = 0, x = 0;
    for (int i = 0; i < n; i++) {
        w += c[i].n ? c[i].width : 0;
        h = fmax(h, c[i].height);
    }
    open_svg(t, w > 0 ? w : 400, h + 34, title);
    text_add(t, "<style>%s</style>\n<rect class=\"bg\" width=\"100%%\" height=\"100%%\" rx=\"8\"/>\n",
             svg_style());
    text_add(t, "<text class=\"tt\" style=\"font-size:15px\" x=\"12\" y=\"26\">");
    text_escaped(t, title);
    text_add(t, "</text>\n");
    if (w <= 0) text_at(t, "tx", "", 12, 60, "nothing to draw yet");
    for (int i = 0; i < n; i++) {
        chart_draw(t, &c[i], x, 30);
        x += c[i].n ? c[i].width : 0;
    }
    text_add(t, "</svg>\n");
}

void bars_svg(Text *t, const Bars *b)
{
    const double row = 20, width = 520, top = 34;
    double name = 0, value = 0;
    for (int i = 0; i < b->n; i++) {
        name = fmax(name, text_width(b->label[i]));
        value = fmax(value, text_width(b->text[i]));
    }
    double x = 12 + name + 10, w = fmax(width - x - value - 20, 80);
    open_svg(t, x + w + value + 20, top + row * b->n + 10, b->title);
    text_at(t, "tt", "", 12, 20, b->title);
    for (int i = 0; i < b->n; i++) {
        double y = top + row * i, f = b->max > 0 && isfinite(b->value[i]) ? b->value[i] / b->max : 0;
        text_at(t, "nm", "end", x - 8, y + 13, b->label[i]);
        text_add(t, "<rect class=\"tr\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"14\" rx=\"2\"/>\n", x,
                 y + 2, w);
        if (f > 0)
            text_add(t, "<rect class=\"f0\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"14\" rx=\"2\"/>\n",
                     x, y + 2, w * fmin(f, 1));
        text_at(t, "tx", "", x + w + 8, y + 13, b->text[i]);
    }
    text_add(t, "</svg>\n");
}
