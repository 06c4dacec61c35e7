/* tests/test_report.c: `pare report`: pages are well formed and hold the numbers, text cannot break out of
 * them, long runs fit, broken and empty ones say so, and means are those made by hand. */
#define _GNU_SOURCE
#include "tests/pare_impl.h"
#include "train/report_impl.h"

/* ---- a checker of XML's balance ------------------------------------------------------------------------ */
enum { DEPTH = 64, NAME = 32 };

static const char *after_entity(const char *p)
{
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (int i = 0; i < 5; i++)
        if (!strncmp(p, known[i], strlen(known[i]))) return p + strlen(known[i]);
    test_fail(__FILE__, __LINE__, "a bare & before \"%.40s\"", p);
}

/* One tag at p; *depth and the names of what is open change with it. */
static const char *after_tag(const char *p, char open[DEPTH][NAME], int *depth)
{
    const char *from = p;
    bool closing = p[1] == '/', alone = false;
    p += closing ? 2 : 1;
    size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyz0123456789");
    ASSERT_MSG(n > 0 && n < NAME, "no tag's name at \"%.60s\"", from);
    char name[NAME] = {0};
    memcpy(name, p, n);
    for (p += n; *p != '>'; p++) {
        ASSERT_MSG(*p && *p != '<', "a tag without an end: \"%.60s\"", from);
        alone = *p == '/' && p[1] == '>';
        if (*p != '"') continue;
        for (p++; *p != '"'; p++) ASSERT_MSG(*p && *p != '<', "an attribute without an end: \"%.60s\"", from);
    }
    if (closing) {
        ASSERT_MSG(*depth > 0 && !strcmp(open[*depth - 1], name), "</%s> closes <%s>", name,
                   *depth ? open[*depth - 1] : "");
        --*depth;
    } else if (!alone) {
        ASSERT(*depth < DEPTH);
        memcpy(open[(*depth)++], name, NAME);
    }
    return p + 1;
}

static void check_balance(const char *s)
{
    char open[DEPTH][NAME];
    int depth = 0;
    if (!strncmp(s, "<!DOCTYPE html>", 15)) s += 15;
    while (*s) {
        if (*s == '<') s = after_tag(s, open, &depth);
        else if (*s == '&') s = after_entity(s);
        else {
            unsigned char c = (unsigned char)*s++;
            ASSERT_MSG(c >= 0x20 || c == '\n' || c == '\t', "a control character %d", c);
        }
    }
    ASSERT_MSG(depth == 0, "<%s> stays open", open[depth ? depth - 1 : 0]);
}

/* Nothing that a browser would fetch or run. */
static void check_closed(const char *s)
{
    ASSERT(!strstr(s, "<script") && !strstr(s, "http://www.w3.org/1999") && !strstr(s, "https:"));
    ASSERT(!strstr(s, " src=") && !strstr(s, "url(") && !strstr(s, "@import") && !strstr(s, " href="));
}

/* ---- helpers ------------------------------------------------------------------------------------------- */
static Arena arena = {.name = "test"};
static Err err;

static char *page(const char *const *path, int n)
{
    Report r = {0};
    Text t = {.a = &arena, .e = &err};
    ASSERT_MSG(report_read(&r, path, n, &arena, &err), "%s", err.msg);
    report_html(&t, &r);
    ASSERT_OK(err);
    check_balance(t.s);
    check_closed(t.s);
    return t.s;
}

static char *page_of(const char *dir) { return page(&dir, 1); }

static char *picture_of(const char *dir)
{
    Report r = {0};
    Text t = {.a = &arena, .e = &err};
    ASSERT_MSG(report_read(&r, &dir, 1, &arena, &err), "%s", err.msg);
    report_picture(&t, &r);
    ASSERT_OK(err);
    check_balance(t.s);
    check_closed(t.s);
    return t.s;
}

static char *md_of(const char *dir)
{
    Report r = {0};
    Text t = {.a = &arena, .e = &err};
    ASSERT_MSG(report_read(&r, &dir, 1, &arena, &err), "%s", err.msg);
    report_md(&t, &r);
    ASSERT_OK(err);
    return t.s;
}

static void train_line(FILE *f, int step, double ce, double lr)
{
    fprintf(f,
            "{\"t\": 1.5, \"time\": \"x\", \"event\": \"train\", \"step\": %d, \"loss\": %.9g, \"loss/ce\": "
            "%.9g, "
            "\"lr\": %.9g, \"tok_s\": 2000, \"mem_bytes\": 5}\n",
            step, 2 * ce, ce, lr);
}

/* A run folder with n steps of loss 5 - step/n, and an evaluation of this perplexity. */
static char *make_run(const char *name, int n, double ppl)
{
    char *d = make_dir(name);
    FILE *f = fopen(text_of("%s/metrics.jsonl", d), "w");
    ASSERT(f != NULL);
    for (int i = 1; i <= n; i++) train_line(f, i, 5.0 - (double)i / n, 1e-3);
    if (ppl > 0)
        fprintf(f,
                "{\"event\": \"eval\", \"step\": %d, \"loss\": %.9g, \"perplexity\": %.9g, \"kl\": 0.25}\n",
                n, log(ppl), ppl);
    fprintf(f,
            "{\"event\": \"end\", \"step\": %d, \"seconds\": 75.25, \"parameters\": 1234567, \"bytes\": "
            "4938268}\n",
            n);
    fclose(f);
    put_text(text_of("%s/DONE", d), "done\n");
    return d;
}

/* ---- text and series ----------------------------------------------------------------------------------- */
TEST(report, text_is_escaped)
{
    Text t = {.a = &arena, .e = &err};
    text_escaped(&t, "<b a=\"1\">&'\xC3\xA9\x01\xFF|\r\n");
    ASSERT_STR(t.s, "&lt;b a=&quot;1&quot;&gt;&amp;&#39;\xC3\xA9\xEF\xBF\xBD\xEF\xBF\xBD|\n");
    Text long_one = {.a = &arena, .e = &err};
    for (int i = 0; i < 3000; i++) text_add(&long_one, "%d,", 7);
    ASSERT_EQ(long_one.n, 6000u);
    Text cell = {.a = &arena, .e = &err};
    text_cell(&cell, "a|b\nc<");
    ASSERT_STR(cell.s, "a\\|b c&lt;");
    ASSERT_STR(number_grouped(-1234567, &arena, &err), "-1,234,567");
    ASSERT_STR(number_grouped(999, &arena, &err), "999");
    ASSERT_STR(number_spread(13.885, 0.7712, 3, 2, &arena, &err), "13.88 ± 0.77");
    ASSERT_STR(number_seconds(185, &arena, &err), "3 min 05 s");
    ASSERT_STR(number_short(1.5e6, &arena, &err), "1.5M");
    ASSERT_OK(err);
}

TEST(report, series_keeps_peaks_in_bounded_memory)
{
    enum { N = 1000000 };
    Series s = {.key = "loss"};
    for (int i = 0; i < N; i++) series_add(&s, i + 1, i == 777777 ? 99 : i == 123456 ? -7 : 2, &arena, &err);
    ASSERT_OK(err);
    ASSERT_EQ(s.points, (int64_t)N);
    ASSERT(s.n <= SERIES_BUCKETS && s.n >= SERIES_BUCKETS / 2);
    Points p = series_points(&s, &arena, &err), m = series_means(&s, &arena, &err);
    ASSERT(p.n <= 2 * SERIES_BUCKETS + 1);
    double lo = 1.5, hi = 2.5, weighted = 0;
    for (int i = 0; i < p.n; i++) {
        ASSERT(i == 0 || p.x[i] >= p.x[i - 1]);
        if (p.y[i] > hi) {
            hi = p.y[i];
            ASSERT_CLOSE(p.x[i], 777778, 0, 0);
        }
        if (p.y[i] < lo) lo = p.y[i];
    }
    for (int i = 0; i < m.n; i++) weighted += m.y[i] * (double)s.b[i].n;
    ASSERT_CLOSE(hi, 99, 0, 0);
    ASSERT_CLOSE(lo, -7, 0, 0);
    ASSERT_CLOSE(weighted, 2.0 * N + 97 - 9, 1e-12, 0);
    ASSERT_CLOSE(p.x[p.n - 1], N, 0, 0);
}

TEST(report, few_points_stay_as_they_came)
{
    Series s = {.key = "loss"};
    for (int i = 0; i < SERIES_BUCKETS; i++) series_add(&s, i, i * 0.5, &arena, &err);
    series_add(&s, 1000, NAN, &arena, &err);
    series_add(&s, SERIES_BUCKETS - 1, 7, &arena, &err); /* the same step again: the later value */
    Points p = series_points(&s, &arena, &err);
    ASSERT_EQ(p.n, SERIES_BUCKETS);
    for (int i = 0; i < p.n - 1; i++) ASSERT_CLOSE(p.y[i], i * 0.5, 0, 0);
    ASSERT_CLOSE(p.y[p.n - 1], 7, 0, 0);
}

/* By hand: at x = 2 the second curve is half way from 4 to 8; at x = 4 it has ended. */
TEST(report, means_by_hand)
{
    Points p[2] = {{(double[]){1, 2, 3, 4}, (double[]){1, 2, 3, 4}, 4},
                   {(double[]){1, 3}, (double[]){4, 8}, 2}};
    Points m = points_mean(p, 2, &arena, &err);
    ASSERT_EQ(m.n, 3);
    ASSERT_CLOSE(m.y[0], 2.5, 0, 0);
    ASSERT_CLOSE(m.y[1], 4.0, 0, 0);
    ASSERT_CLOSE(m.y[2], 5.5, 0, 0);
    Points s = points_smooth(&p[0], 1, &arena, &err);
    ASSERT_CLOSE(s.y[0], 1, 0, 0);
    ASSERT_CLOSE(s.y[2], 3, 0, 1e-15);
}

TEST(report, axes_have_round_ticks)
{
    Axis x;
    axis_make(&x, 0.13, 0.92, false, false, 5);
    ASSERT_CLOSE(x.tick[0], 0, 0, 0);
    ASSERT_CLOSE(x.tick[x.n - 1], 1, 1e-12, 0);
    ASSERT_STR(axis_label(&x, x.tick[1], &arena, &err), "0.2");
    axis_make(&x, 0, 400, false, true, 6);
    ASSERT_STR(axis_label(&x, x.tick[0], &arena, &err), "0");
    ASSERT_STR(axis_label(&x, x.tick[x.n - 1], &arena, &err), "400");
    axis_make(&x, 0.003, 40, true, false, 6);
    ASSERT(x.n >= 4 && x.n <= 12);
    ASSERT_CLOSE(axis_place(&x, sqrt(x.lo * x.hi)), 0.5, 1e-12, 0);
    const double hard[][2] = {{0, 0}, {5, 5}, {-3, -3}, {1e-300, 1e300}, {-1e300, 1e300}, {1, 1 + 1e-15}};
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 2; k++) {
            if (k && hard[i][0] <= 0) continue;
            axis_make(&x, hard[i][0], hard[i][1], k == 1, false, 6);
            ASSERT(x.hi > x.lo && x.n <= MAX_TICKS);
            ASSERT(isfinite(axis_place(&x, hard[i][0])));
        }
}

/* ---- pages --------------------------------------------------------------------------------------------- */
TEST(report, numbers_are_on_the_page)
{
    const char *d = make_run("run", 40, 13.25);
    make_dir("run/samples");
    put_text(text_of("%s/samples/step_9.txt", d), "older");
    put_text(text_of("%s/samples/step_40.txt", d), "</pre><script>alert(1)</script> & more\n");
    put_text(text_of("%s/env.json", d), "{\"cpu\": \"a<b\", \"threads\": 2}");
    put_text(text_of("%s/config.resolved.yaml", d), "run: {name: \"<x>\"}\n");
    const char *s = page_of(d);
    ASSERT_CONTAINS(s, "13.250");
    ASSERT_CONTAINS(s, "0.2500");
    ASSERT_CONTAINS(s, "1,234,567");
    ASSERT_CONTAINS(s, "4,938,268");
    ASSERT_CONTAINS(s, "<td>2000</td>");
    ASSERT_CONTAINS(s, "75.2 s");
    ASSERT_CONTAINS(s, "&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt; &amp; more");
    ASSERT_CONTAINS(s, "a&lt;b");
    ASSERT_CONTAINS(s, "&quot;&lt;x&gt;&quot;");
    ASSERT_CONTAINS(s, "Loss by term");
    ASSERT_CONTAINS(s, "Learning rate");
    ASSERT(!strstr(s, "older"));
    const char *md = md_of(d);
    ASSERT_CONTAINS(md, "13.250");
    ASSERT_CONTAINS(md, "1,234,567");
    ASSERT(!strstr(md, "<script>"));
}

TEST(report, one_step_and_none)
{
    const char *s = page_of(make_run("one", 1, 0));
    ASSERT_CONTAINS(s, "Loss by term");
    char *d = make_dir("none");
    put_text(text_of("%s/metrics.jsonl", d), "");
    s = page_of(d);
    ASSERT_CONTAINS(s, "No steps are logged yet");
    ASSERT_CONTAINS(s, "not finished");
    ASSERT_CONTAINS(picture_of(d), "nothing to draw yet");
    put_text(text_of("%s/FAILED", d), "the loss is <nan>\n");
    s = page_of(d);
    ASSERT_CONTAINS(s, "the loss is &lt;nan&gt;");
}

TEST(report, broken_lines_are_counted)
{
    char *d = make_dir("broken");
    put_text(text_of("%s/metrics.jsonl", d),
             "{\"event\": \"train\", \"step\": 1, \"loss\": 3.5}\n"
             "{\"event\": \"train\", \"step\": 2, \"lo\n"
             "[1, 2]\n\n"
             "{\"event\": \"train\", \"step\": 3, \"loss\": null, \"nonfinite\": [\"loss\"]}\n"
             "{\"event\": \"train\", \"step\": \"x\", \"loss\": 1}\n"
             "{\"event\": \"train\", \"step\": 4, \"loss\": 2.5}\n{\"event\": \"tra");
    const char *s = page_of(d);
    ASSERT_CONTAINS(s, "4 of 8 lines cannot be read and are left out, the first is line 2");
    ASSERT_CONTAINS(s, "1 lines hold values that are not finite");
    Report r = {0};
    ASSERT(report_read(&r, (const char *[]){d}, 1, &arena, &err));
    const Series *loss = run_series(&r.run[0], "loss");
    ASSERT(loss && loss->points == 2 && loss->last_y == 2.5 && loss->last_x == 4);
}

TEST(report, long_runs_make_small_pages)
{
    char *d = make_run("long", 20000, 9);
    const char *s = page_of(d);
    ASSERT(strlen(s) < 200000);
    ASSERT_CONTAINS(s, "20,000");
}

TEST(report, folders_that_are_none)
{
    Report r = {0};
    char *d = make_dir("empty"), *gone = in_dir("gone");
    ASSERT(!report_read(&r, (const char *[]){gone}, 1, &arena, &err));
    ASSERT_CONTAINS(err.msg, "gone: no such folder");
    err = (Err){0};
    ASSERT(!report_read(&r, (const char *[]){d}, 1, &arena, &err));
    ASSERT_CONTAINS(err.msg, "empty: no run");
    err = (Err){0};
    put_text(text_of("%s/arms.jsonl", d), "");
    ASSERT(!report_read(&r, (const char *[]){d}, 1, &arena, &err));
    ASSERT_CONTAINS(err.msg, "no run is in it yet");
}

/* ---- arms, stages, files ------------------------------------------------------------------------------- */
static char *make_arms(void)
{
    char *d = make_dir("arms");
    const double ppl[2][3] = {{13, 14, 15}, {16, 18, 17}};
    FILE *f = fopen(text_of("%s/arms.jsonl", d), "w");
    ASSERT(f != NULL);
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 3; i++) {
            const char *arm = k ? "scratch" : "kd";
            make_run(text_of("arms/%s-seed%d", arm, i), 20 + i, ppl[k][i]);
            fprintf(f, "{\"arm\": \"%s\", \"seed\": %d, \"status\": \"done\", \"perplexity\": %g}\n", arm, i,
                    ppl[k][i]);
        }
    fprintf(f, "not json\n{\"arm\": \"lost\", \"seed\": 0, \"status\": \"done\", \"perplexity\": 77.5}\n");
    fclose(f);
    return d;
}

TEST(report, arms_stand_side_by_side)
{
    char *d = make_arms();
    const char *s = page_of(d);
    ASSERT_CONTAINS(s, "14.000 ± 1.000");
    ASSERT_CONTAINS(s, "17.000 ± 1.000");
    ASSERT_CONTAINS(s, "kd (3 seeds)");
    ASSERT_CONTAINS(s, "77.500");
    ASSERT_CONTAINS(s, "the folder is not there");
    ASSERT_CONTAINS(s, "line 7 cannot be read");
    ASSERT_CONTAINS(s, "thin: each seed; thick: their mean");
    ASSERT_CONTAINS(picture_of(d), "Cross-entropy (training)");
    /* the same folders, named one by one */
    const char *each[2] = {text_of("%s/kd-seed0", d), text_of("%s/kd-seed2", d)};
    ASSERT_CONTAINS(page(each, 2), "14.000 ± 1.414");
}

/* A safetensors file of one layer (2,4) with three zeros, and an embedding. */
static void put_model(const char *path)
{
    const char *head =
        "{\"model.layers.3.mlp.up_proj.weight\":{\"dtype\":\"F32\",\"shape\":[2,4],\"data_offsets\":[0,32]},"
        "\"model.embed_tokens.weight\":{\"dtype\":\"BF16\",\"shape\":[4,1],\"data_offsets\":[32,40]}} ";
    unsigned char file[512] = {0};
    uint64_t n = strlen(head);
    float w[8] = {1, 0, 2, 0, 3, 0, 4, 5};
    uint16_t v[4] = {0x3f80, 0x3f80, 0x3f80, 0x3f80};
    memcpy(file, &n, 8);
    memcpy(file + 8, head, n);
    memcpy(file + 8 + n, w, 32);
    memcpy(file + 40 + n, v, 8);
    put_file(path, file, 48 + n);
}

TEST(report, stages_cost_and_weights_show)
{
    char *d = make_dir("staged");
    make_dir("staged/stages");
    make_run("staged/stages/01-prune", 10, 40);
    char *b = make_run("staged/stages/02-recover", 30, 6.5);
    make_dir("staged/stages/02-recover/export");
    put_model(text_of("%s/export/model.safetensors", b));
    put_text(text_of("%s/export/notes.txt", b), "no weights");
    put_text(text_of("%s/stages.jsonl", d), "{\"stage\": \"base\", \"perplexity\": 44.5}\n{\"stage\": "
                                            "\"prune\", \"seconds\": 24.75, \"bytes\": 999}\n");
    put_text(text_of("%s/row.json", b),
             "{\"stage\": \"recover\", \"steps\": 31, \"bytes\": 4321, \"tensor_bytes\": 40, "
             "\"tokens_per_second\": 5432, \"nonzeros\": 9}\n");
    const char *s = page_of(d);
    ASSERT_CONTAINS(s, "<td>5432</td>");
    ASSERT_CONTAINS(s, "<td>4,321</td>");
    ASSERT_CONTAINS(s, "<td>44.500</td>");
    ASSERT_CONTAINS(s, "What each stage cost");
    ASSERT_CONTAINS(s, "<td>24.8 s</td><td>24.8 %</td>");
    ASSERT_CONTAINS(s, "<td>75.2 s</td><td>75.2 %</td>");
    ASSERT_CONTAINS(s, "layer 3");
    ASSERT_CONTAINS(s, "37.5 %");
    ASSERT_CONTAINS(s, "25.00 %");               /* 3 of 12 */
    ASSERT_CONTAINS(s, "26.67 bits per weight"); /* 40 bytes, 12 weights */
    ASSERT_CONTAINS(s, "Size against quality");  /* 999 and 40 bytes */
    ASSERT_CONTAINS(md_of(d), "What each stage cost");
}

TEST(report, teacher_is_a_row_and_a_level)
{
    char *d = make_run("taught", 10, 12);
    char *old = get_file(text_of("%s/metrics.jsonl", d), NULL);
    put_text(text_of("%s/metrics.jsonl", d),
             text_of("%s{\"event\": \"eval\", \"step\": 5, \"loss\": 3, \"perplexity\": 20}\n"
                     "{\"event\": \"teacher\", \"step\": 10, \"perplexity\": 4.607, \"parameters\": 260032, "
                     "\"bytes\": 1040128}\n",
                     old));
    const char *s = page_of(d);
    ASSERT_CONTAINS(s, "260,032");
    ASSERT_CONTAINS(s, "teacher 4.61");
    ASSERT_CONTAINS(s, "4.607");
}

TEST(report, program)
{
    char *d = tiny_dir("tiny");
    Pare p = PARE(.dir = d, ARGS("train", "c.yaml"));
    ASSERT_RAN(p, 0);
    p = PARE(.dir = d, ARGS("report", "run", "--svg", "pictures/x.svg", "--title", "A & B"));
    ASSERT_RAN(p, 0);
    ASSERT_STR(p.out, "run/report.html\n");
    char *html = get_file(text_of("%s/run/report.html", d), NULL);
    char *svg = get_file(text_of("%s/pictures/x.svg", d), NULL);
    ASSERT(html && svg && exists(text_of("%s/run/report.md", d)));
    check_balance(html);
    check_closed(html);
    check_balance(svg);
    ASSERT_CONTAINS(html, "<h1>A &amp; B</h1>");
    ASSERT_CONTAINS(html, "Weights, layer by layer");
    ASSERT_CONTAINS(html, "model.layers.1.mlp.up_proj.weight");
    ASSERT_CONTAINS(svg, "validation");
    p = PARE(.dir = d, ARGS("report", "run", "--out", "sub/page.html"));
    ASSERT_RAN(p, 0);
    ASSERT(exists(text_of("%s/sub/page.html", d)) && exists(text_of("%s/sub/page.md", d)));
    p = PARE(.dir = d, ARGS("report", "nowhere"));
    ASSERT_RAN(p, 2);
    ASSERT_CONTAINS(p.err, "nowhere: no such folder");
}
