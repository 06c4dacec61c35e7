/* train/report_html.c: the page, one file with nothing outside it and no script; and the same as Markdown
 * without the curves. */
#include "train/report_impl.h"
#include <math.h>
#include <string.h>

static const char page_style[] =
    ":root{color-scheme:light dark;--bg:#f6f8fa;--card:#ffffff;--ink:#1c2128;--soft:#4d5761;--line:#d8dde3}"
    "@media "
    "(prefers-color-scheme:dark){:root{--bg:#0d1117;--card:#161b22;--ink:#e6edf3;--soft:#a3adb8;--line:#"
    "2b323b}}"
    "body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe "
    "UI',Roboto,"
    "Helvetica,Arial,sans-serif}"
    "main{max-width:1240px;margin:0 auto;padding:24px 20px 60px}"
    "h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:34px 0 10px}h3{font-size:15px;margin:20px 0 "
    "4px}"
    "p{margin:4px 0;color:var(--soft)}"
    ".wide{overflow-x:auto;border:1px solid var(--line);border-radius:8px;background:var(--card)}"
    "table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}"
    "th,td{padding:7px 10px;text-align:right;white-space:nowrap;border-top:1px solid var(--line)}"
    "thead th{border-top:0;white-space:normal;vertical-align:bottom;color:var(--soft);font-weight:600}"
    "th:first-child,td:first-child{text-align:left}td:first-child{font-weight:600}"
    ".plain td{text-align:left;white-space:normal;font-weight:400}"
    ".charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr));gap:14px;align-"
    "items:start}"
    "figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:8px;padding:6px}"
    "figure svg{display:block;width:100%;height:auto}.one{max-width:700px}"
    "pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;overflow-x:auto;"
    "font:13px/1.45 ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}"
    "pre.text{white-space:pre-wrap}details{margin:8px 0}summary{cursor:pointer;color:var(--soft)}"
    "li{color:var(--soft)}";

static void heading(Text *t, const char *tag, const char *s)
{
    text_add(t, "<%s>", tag);
    text_escaped(t, s);
    text_add(t, "</%s>\n", tag);
}

static void html_table(Text *t, const ReportTable *table)
{
    text_add(t, "<div class=\"wide\"><table>\n");
    for (int i = 0; i <= table->n_row; i++) {
        text_add(t, i == 0 ? "<thead><tr>" : i == 1 ? "<tbody>\n<tr>" : "<tr>");
        for (int c = 0; c < table->n_col; c++) {
            text_add(t, i ? "<td>" : "<th>");
            text_escaped(t, table->cell[i * table->n_col + c]);
            text_add(t, i ? "</td>" : "</th>");
        }
        text_add(t, i ? "</tr>\n" : "</tr></thead>\n");
    }
    text_add(t, "%s</table></div>\n", table->n_row ? "</tbody>" : "");
}

static void stages(Text *t, const Report *r)
{
    ReportTable table;
    if (!report_stages(&table, r, t->a, t->e) || !table.n_row) return;
    heading(t, "h2", "What each stage cost");
    html_table(t, &table);
}

static void samples(Text *t, const Report *r)
{
    bool any = false;
    for (int g = 0; g < r->n_group; g++) {
        const ReportRun *run = &r->run[r->group[g].run[0]];
        if (!run->sample) continue;
        if (!any) heading(t, "h2", "Samples");
        any = true;
        text_add(t, "<h3>");
        text_escaped(t, run->name);
        text_add(t, ", ");
        text_escaped(t, run->sample_name);
        text_add(t, "</h3>\n<pre class=\"text\">");
        text_escaped(t, run->sample);
        text_add(t, "</pre>\n");
    }
}

static void folded(Text *t, const char *name, const char *what, const char *text)
{
    if (!text || !*text) return;
    text_add(t, "<details><summary>");
    text_escaped(t, name);
    text_add(t, ": %s</summary>\n<pre>", what);
    text_escaped(t, text);
    text_add(t, "</pre></details>\n");
}

static void environment(Text *t, const char *env)
{
    json_t *o = env ? json_loads(env, 0, NULL) : NULL;
    const char *key;
    const json_t *v;
    if (json_object_size(o)) {
        text_add(t, "<div class=\"wide\"><table class=\"plain\"><tbody>\n");
        json_object_foreach(o, key, v)
        {
            text_add(t, "<tr><td>");
            text_escaped(t, key);
            text_add(t, "</td><td>");
            if (json_is_string(v)) text_escaped(t, json_string_value(v));
            else if (json_is_number(v)) text_add(t, "%.10g", json_number_value(v));
            else text_add(t, "%s", json_is_true(v) ? "true" : json_is_false(v) ? "false" : "");
            text_add(t, "</td></tr>\n");
        }
        text_add(t, "</tbody></table></div>\n");
    }
    json_decref(o);
}

/* Environment once where all runs share it; configs of each group's first run. */
static void settings(Text *t, const Report *r)
{
    const char *shown = NULL;
    for (int g = 0; g < r->n_group; g++) {
        const ReportRun *run = &r->run[r->group[g].run[0]];
        if (!run->env || (shown && !strcmp(shown, run->env))) continue;
        if (!shown) heading(t, "h2", "Environment");
        else heading(t, "h3", run->name);
        environment(t, run->env);
        shown = run->env;
    }
    bool any = false;
    for (int g = 0; g < r->n_group; g++) {
        const ReportRun *run = &r->run[r->group[g].run[0]];
        if (!any && run->config) heading(t, "h2", "Configuration");
        any = any || run->config;
        folded(t, run->name, "resolved config", run->config);
        folded(t, run->name, "overrides", run->overrides);
    }
}

static const char *protocol(const Report *r)
{
    for (int i = 0; i < r->n; i++)
        if (r->run[i].row.protocol) return r->run[i].row.protocol;
    return NULL;
}

static void foreword(Text *t, const Report *r)
{
    const char *p = protocol(r);
    bool seeds = false;
    for (int g = 0; g < r->n_group; g++) seeds = seeds || r->group[g].n > 1;
    text_add(t, "%d %s%s", r->n, r->n == 1 ? "run" : "runs",
             r->n_group == r->n ? "" : arena_printf(t->a, t->e, " of %d kinds", r->n_group));
    if (p) {
        text_add(t, "; perplexity by protocol ");
        text_escaped(t, p);
    }
    if (seeds) text_add(t, "; figures are mean ± sample standard deviation over the seeds");
    text_add(t, ". KL in nats per token.");
}

void report_html(Text *t, const Report *r)
{
    ReportTable table;
    if (!report_table(&table, r, t->a, t->e)) return;
    text_add(t, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>");
    text_escaped(t, r->title);
    text_add(t, "</title>\n<style>%s%s</style>\n</head>\n<body>\n<main>\n", page_style, svg_style());
    heading(t, "h1", r->title);
    text_add(t, "<p>");
    foreword(t, r);
    text_add(t, "</p>\n");
    heading(t, "h2", "Sizes and qualities");
    html_table(t, &table);
    text_add(t, "<div class=\"one\" style=\"margin-top:14px\">\n");
    report_tradeoff(t, r);
    text_add(t, "</div>\n");
    stages(t, r);
    heading(t, "h2", "Curves");
    size_t before = t->n;
    text_add(t, "<div class=\"charts\">\n");
    size_t empty = t->n;
    report_charts(t, r);
    if (t->n == empty) t->n = before;
    text_add(t, t->n == before ? "<p>No steps are logged yet.</p>\n" : "</div>\n");
    samples(t, r);
    report_layers(t, r);
    settings(t, r);
    if (r->n_note) {
        heading(t, "h2", "Notes");
        text_add(t, "<ul>\n");
        for (int i = 0; i < r->n_note; i++) heading(t, "li", r->note[i]);
        text_add(t, "</ul>\n");
    }
    text_add(t, "</main>\n</body>\n</html>\n");
}

static void md_table(Text *t, const ReportTable *table)
{
    for (int i = 0; i <= table->n_row; i++) {
        for (int c = 0; c < table->n_col; c++) {
            text_add(t, c ? " | " : "| ");
            text_cell(t, table->cell[i * table->n_col + c]);
        }
        text_add(t, " |\n");
        for (int c = 0; !i && c < table->n_col; c++) text_add(t, c ? "---:|" : "|---|");
        if (!i) text_add(t, "\n");
    }
}

/* Nothing in it is Markdown. */
static void md_code(Text *t, const char *s)
{
    Text one = {.a = t->a, .e = t->e};
    text_escaped(&one, s);
    text_add(t, "<pre>%s</pre>\n", one.s ? one.s : "");
}

void report_md(Text *t, const Report *r)
{
    ReportTable table;
    if (!report_table(&table, r, t->a, t->e)) return;
    text_add(t, "# ");
    text_cell(t, r->title);
    text_add(t, "\n\n");
    foreword(t, r);
    text_add(t, "\n\n");
    md_table(t, &table);
    if (report_stages(&table, r, t->a, t->e) && table.n_row) {
        text_add(t, "\n## What each stage cost\n\n");
        md_table(t, &table);
    }
    for (int g = 0, any = 0; g < r->n_group; g++) {
        const ReportRun *run = &r->run[r->group[g].run[0]];
        if (!run->sample) continue;
        if (!any++) text_add(t, "\n## Samples\n");
        text_add(t, "\n**");
        text_cell(t, run->name);
        text_add(t, "**\n\n");
        md_code(t, run->sample);
    }
    for (int i = 0; i < r->n_note; i++) {
        text_add(t, "%s- ", i ? "" : "\n## Notes\n\n");
        text_cell(t, r->note[i]);
        text_add(t, "\n");
    }
}
