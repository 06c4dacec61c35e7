/* train/verb_report.c: `pare report RUN...`: one page about runs, and its picture alone for a README. */
#include "train/verb_impl.h"
#include "train/report_impl.h"
#include <string.h>

static bool save(Args *x, const char *path, const Text *t)
{
    const char *slash = strrchr(path, '/');
    const char *dir = slash && slash != path ? arena_strndup(x->a, path, (size_t)(slash - path), x->e) : NULL;
    if (dir && !dir_make(dir, x->e)) return false;
    return !x->e->code && file_write_atomic(path, t->s ? t->s : "", t->n, x->e);
}

/* report.html beside report.md: the suffix is replaced, or put behind a name without one. */
static const char *md_path(Args *x, const char *html)
{
    size_t n = strlen(html);
    if (n > 5 && !strcmp(html + n - 5, ".html")) n -= 5;
    return arena_printf(x->a, x->e, "%.*s.md", (int)n, html);
}

int verb_report(Args *x)
{
    Report r = {.title = args_get(x, "title", NULL)};
    if (!report_read(&r, x->pos, x->n_pos, x->a, x->e)) return 1;
    const char *out = args_get(x, "out", NULL), *svg = args_get(x, "svg", NULL);
    if (!out) out = path_join(x->a, x->pos[0], "report.html", x->e);
    Text html = {.a = x->a, .e = x->e}, md = html, picture = html;
    report_html(&html, &r);
    report_md(&md, &r);
    if (svg) report_picture(&picture, &r);
    const char *beside = out ? md_path(x, out) : NULL;
    if (x->e->code || !save(x, out, &html) || !save(x, beside, &md)) return 1;
    if (svg && !save(x, svg, &picture)) return 1;
    for (int i = 0; i < r.n_note; i++) log_warn("%s", r.note[i]);
    return args_say(x, out);
}
