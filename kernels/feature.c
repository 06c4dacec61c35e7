/* kernels/feature.c: losses between hidden states, summed over rows that count. Reference, float and double.
 *   mse    sum over rows of mean((a - b)^2)      da (+)= g 2 (a - b) / C,  db (+)= -that
 *   l1     sum over rows of mean |a - b|         da (+)= g sign(a - b) / C,  db (+)= -that
 *   unit   y = x / |x| by rows                   dx (+)= (dy - y (y.dy)) / |x|
 *   cosine sum over rows of 1 - cos(a, b)        da (+)= -g (b/|b| - cos a/|a|) / |a|,  db with a, b swapped
 * a b da db (N,C), targets (N) or NULL; rows with target -100 count nothing and get gradient 0.
 * A row shorter than COS_EPS has no direction: its cosine is 0 and its gradients are 0.
 */
#include "kernels/ref_impl.h"

static const double COS_EPS = 1e-8; /* the eps of torch cosine_similarity */

static bool counts(const int32_t *targets, long i) { return !targets || targets[i] != IGNORED; }

/* *sum += row(a, b) over the rows of a, b (N,C) that count, in their order. */
static void sum_rows(double *sum, double (*row)(const REAL *, const REAL *, long), const REAL *a,
                     const REAL *b, const int32_t *targets, long N, long C)
{
    for (long i0 = 0; i0 < N; i0 += SUM_BATCH) {
        const long n = lmin(SUM_BATCH, N - i0);
        double part[SUM_BATCH];
#pragma omp parallel for schedule(static) if (n * C > PAR_MIN)
        for (long i = 0; i < n; i++)
            part[i] = counts(targets, i0 + i) ? row(a + (i0 + i) * C, b + (i0 + i) * C, C) : 0.0;
        *sum += sum_in_order(part, n);
    }
}

static double row_mse(const REAL *a, const REAL *b, long C)
{ /* a b (C) */
    double s = 0.0;
    for (long j = 0; j < C; j++) {
        const double d = (double)a[j] - (double)b[j];
        s += d * d;
    }
    return s / (double)C;
}

void K(mse_fwd)(double *sum, const void *a, const void *b, const int32_t *targets, long N, long C)
{
    sum_rows(sum, row_mse, a, b, targets, N, C);
}

void K(mse_bwd)(void *da_, void *db_, const void *a_, const void *b_, const int32_t *targets, long N, long C,
                double g, Mode ma, Mode mb)
{
    REAL *da = da_, *db = db_;   /* (N,C), (N,C) or NULL */
    const REAL *a = a_, *b = b_; /* (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const bool on = counts(targets, i);
        const REAL s = (REAL)(2.0 * g / (double)C);
        for (long j = i * C; j < (i + 1) * C; j++) {
            const REAL d = on ? s * (a[j] - b[j]) : (REAL)0;
            if (da) put(&da[j], d, ma);
            if (db) put(&db[j], -d, mb);
        }
    }
}

typedef struct Cosine {
    double na, nb, cos;
    bool on;
} Cosine; /* lengths, cosine, whether it is defined */
static Cosine cosine(const REAL *a, const REAL *b, long C)
{ /* a b (C) */
    double aa = 0.0, bb = 0.0, ab = 0.0;
    for (long j = 0; j < C; j++) {
        aa += (double)a[j] * (double)a[j];
        bb += (double)b[j] * (double)b[j];
        ab += (double)a[j] * (double)b[j];
    }
    Cosine r = {sqrt(aa), sqrt(bb), 0.0, true};
    if (r.na < COS_EPS || r.nb < COS_EPS) r.on = false;
    else r.cos = ab / (r.na * r.nb);
    return r;
}

static double row_cosine(const REAL *a, const REAL *b, long C) { return 1.0 - cosine(a, b, C).cos; }

void K(cosine_fwd)(double *sum, const void *a, const void *b, const int32_t *targets, long N, long C)
{
    sum_rows(sum, row_cosine, a, b, targets, N, C);
}

void K(cosine_bwd)(void *da_, void *db_, const void *a_, const void *b_, const int32_t *targets, long N,
                   long C, double g, Mode ma, Mode mb)
{
    REAL *da = da_, *db = db_;   /* (N,C), (N,C) or NULL */
    const REAL *a = a_, *b = b_; /* (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const Cosine r = cosine(a + i * C, b + i * C, C);
        const bool on = r.on && counts(targets, i);
        const double ab = on ? -g / (r.na * r.nb) : 0.0;
        const double aa = on ? g * r.cos / (r.na * r.na) : 0.0, bb = on ? g * r.cos / (r.nb * r.nb) : 0.0;
        for (long j = i * C; j < (i + 1) * C; j++) {
            const double x = (double)a[j], y = (double)b[j];
            if (da) put(&da[j], (REAL)(ab * y + aa * x), ma);
            if (db) put(&db[j], (REAL)(ab * x + bb * y), mb);
        }
    }
}

static double row_l1(const REAL *a, const REAL *b, long C)
{ /* a b (C) */
    double s = 0.0;
    for (long j = 0; j < C; j++) s += fabs((double)a[j] - (double)b[j]);
    return s / (double)C;
}

void K(l1_fwd)(double *sum, const void *a, const void *b, const int32_t *targets, long N, long C)
{
    sum_rows(sum, row_l1, a, b, targets, N, C);
}

void K(l1_bwd)(void *da_, void *db_, const void *a_, const void *b_, const int32_t *targets, long N, long C,
               double g, Mode ma, Mode mb)
{
    REAL *da = da_, *db = db_;   /* (N,C), (N,C) or NULL */
    const REAL *a = a_, *b = b_; /* (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        const REAL s = counts(targets, i) ? (REAL)(g / (double)C) : (REAL)0;
        for (long j = i * C; j < (i + 1) * C; j++) {
            const REAL d = a[j] > b[j] ? s : a[j] < b[j] ? -s : (REAL)0;
            if (da) put(&da[j], d, ma);
            if (db) put(&db[j], -d, mb);
        }
    }
}

/* max(|x|, COS_EPS), and whether the row is longer than that. */
static double row_length(const REAL *x, long C, bool *whole)
{ /* x (C) */
    double s = 0.0;
    for (long j = 0; j < C; j++) s += (double)x[j] * (double)x[j];
    *whole = !(sqrt(s) < COS_EPS);
    return *whole ? sqrt(s) : COS_EPS;
}

void K(unit_fwd)(void *y_, const void *x_, long N, long C)
{
    REAL *y = y_;       /* (N,C) */
    const REAL *x = x_; /* (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        bool whole;
        const double r = 1.0 / row_length(x + i * C, C, &whole);
        for (long j = i * C; j < (i + 1) * C; j++) y[j] = (REAL)((double)x[j] * r);
    }
}

void K(unit_bwd)(void *dx_, const void *dy_, const void *x_, long N, long C, Mode mode)
{
    REAL *dx = dx_;                /* (N,C) */
    const REAL *dy = dy_, *x = x_; /* (N,C) */
#pragma omp parallel for schedule(static) if (N * C > PAR_MIN)
    for (long i = 0; i < N; i++) {
        bool whole;
        const double r = 1.0 / row_length(x + i * C, C, &whole);
        double dot = 0.0;
        for (long j = i * C; whole && j < (i + 1) * C; j++) dot += (double)dy[j] * (double)x[j] * r * r;
        for (long j = i * C; j < (i + 1) * C; j++)
            put(&dx[j], (REAL)(r * ((double)dy[j] - dot * (double)x[j])), mode);
    }
}
