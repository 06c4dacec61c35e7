/* train/report_series.c: curves of any length in bounded memory, their means over runs, running means. */
#include "train/report_impl.h"
#include <math.h>
#include <string.h>

static void bucket_join(Bucket *b, const Bucket *o)
{
    if (o->y_min < b->y_min) {
        b->y_min = o->y_min;
        b->x_min = o->x_min;
    }
    if (o->y_max > b->y_max) {
        b->y_max = o->y_max;
        b->x_max = o->x_max;
    }
    b->x_sum += o->x_sum;
    b->y_sum += o->y_sum;
    b->n += o->n;
}

static void halve(Series *s)
{
    for (int i = 0; i < s->n / 2; i++) {
        Bucket b = s->b[2 * i];
        bucket_join(&b, &s->b[2 * i + 1]);
        s->b[i] = b;
    }
    s->n /= 2;
    s->width *= 2;
}

bool series_add(Series *s, double x, double y, Arena *a, Err *e)
{
    if (!isfinite(x) || !isfinite(y)) return true;
    if (!s->b) {
        s->b = arena_alloc(a, SERIES_BUCKETS * sizeof *s->b, e);
        s->width = 1;
        if (!s->b) return false;
    }
    const Bucket one = {x, y, x, y, x, y, 1};
    if (s->points && x == s->last_x && s->width == 1) { /* said again, as after a resume: the later word */
        s->b[s->n - 1] = one;
        s->last_y = y;
        return true;
    }
    Bucket *last = s->n ? &s->b[s->n - 1] : NULL;
    if (last && last->n < s->width) bucket_join(last, &one);
    else {
        if (s->n == SERIES_BUCKETS) halve(s);
        s->b[s->n++] = one;
    }
    s->points++;
    s->last_x = x;
    s->last_y = y;
    return true;
}

static Points points_alloc(int cap, Arena *a, Err *e)
{
    Points p = {arena_alloc(a, (size_t)cap * sizeof(double), e),
                arena_alloc(a, (size_t)cap * sizeof(double), e), 0};
    return p;
}

static void put(Points *p, double x, double y)
{
    p->x[p->n] = x;
    p->y[p->n++] = y;
}

Points series_points(const Series *s, Arena *a, Err *e)
{
    Points p = points_alloc(2 * s->n + 1, a, e);
    if (e->code) return (Points){0};
    for (int i = 0; i < s->n; i++) {
        const Bucket *b = &s->b[i];
        bool min_first = b->x_min <= b->x_max;
        if (b->n == 1) {
            put(&p, b->x_min, b->y_min);
            continue;
        }
        put(&p, min_first ? b->x_min : b->x_max, min_first ? b->y_min : b->y_max);
        if (b->x_min != b->x_max) put(&p, min_first ? b->x_max : b->x_min, min_first ? b->y_max : b->y_min);
    }
    if (p.n && p.x[p.n - 1] != s->last_x) put(&p, s->last_x, s->last_y);
    return p;
}

Points series_means(const Series *s, Arena *a, Err *e)
{
    Points p = points_alloc(s->n, a, e);
    for (int i = 0; i < s->n && !e->code; i++)
        put(&p, s->b[i].x_sum / (double)s->b[i].n, s->b[i].y_sum / (double)s->b[i].n);
    return p;
}

/* *from: where the last search ended; places ascend. NAN outside. */
static double value_at(const Points *p, double x, int *from)
{
    while (*from + 1 < p->n && p->x[*from + 1] <= x) ++*from;
    int i = *from;
    if (!p->n || x < p->x[i]) return NAN;
    if (p->x[i] == x) return p->y[i];
    if (i + 1 >= p->n) return NAN;
    double f = (x - p->x[i]) / (p->x[i + 1] - p->x[i]);
    return p->y[i] + f * (p->y[i + 1] - p->y[i]);
}

Points points_mean(const Points *p, int n, Arena *a, Err *e)
{
    Points m = points_alloc(n ? p[0].n : 0, a, e);
    int *from = arena_alloc(a, (size_t)n * sizeof *from, e);
    for (int i = 0; n && i < p[0].n && !e->code; i++) {
        double sum = 0;
        for (int k = 0; k < n; k++) sum += value_at(&p[k], p[0].x[i], &from[k]);
        if (isfinite(sum)) put(&m, p[0].x[i], sum / n);
    }
    return m;
}

Points points_smooth(const Points *p, int half, Arena *a, Err *e)
{
    Points m = points_alloc(p->n, a, e);
    for (int i = 0; i < p->n && !e->code; i++) {
        int h = half < i ? half : i;
        if (h > p->n - 1 - i) h = p->n - 1 - i;
        double sum = 0;
        for (int k = i - h; k <= i + h; k++) sum += p->y[k];
        put(&m, p->x[i], sum / (2 * h + 1));
    }
    return m;
}
