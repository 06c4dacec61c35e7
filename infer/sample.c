/* infer/sample.c: logits to a token. Order: repetition penalty (1909.05858), temperature, top-k, top-p
 * (1904.09751), min-p. */
#include "infer/infer.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct Candidate {
    float p;
    int32_t id;
} Candidate;

size_t sample_work_bytes(long V) { return (size_t)V * (sizeof(Candidate) + sizeof(float)); }

static int by_p(const void *a, const void *b)
{
    const Candidate *x = a, *y = b;
    if (x->p != y->p) return x->p < y->p ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id; /* ties by id: the same order everywhere */
}

static int argmax(const float *z, long V)
{
    long best = 0;
    for (long i = 1; i < V; i++)
        if (z[i] > z[best]) best = i;
    return (int)best;
}

static void penalise(float *z, long V, double penalty, const int32_t *history, long n)
{
    for (long i = 0; i < n; i++) {
        if (history[i] < 0 || history[i] >= V) continue;
        bool seen = false; /* each id once, however often it came */
        for (long j = 0; j < i && !seen; j++) seen = history[j] == history[i];
        float *x = &z[history[i]];
        if (!seen) *x = (float)(*x > 0 ? *x / penalty : *x * penalty);
    }
}

int sample_token(const float *logits, long V, const SampleOptions *o, const int32_t *history, long n_history,
                 uint32_t counter, void *work)
{
    Candidate *c = work;
    float *z = (float *)(c + V);
    memcpy(z, logits, (size_t)V * sizeof *z);
    if (o->repetition_penalty != 1 && o->repetition_penalty > 0)
        penalise(z, V, o->repetition_penalty, history, n_history);
    if (o->temperature <= 0) return argmax(z, V);
    float top = z[argmax(z, V)];
    for (long i = 0; i < V; i++)
        c[i] = (Candidate){(float)exp(((double)z[i] - top) / o->temperature), (int32_t)i};
    qsort(c, (size_t)V, sizeof *c, by_p);
    long n = o->top_k > 0 && o->top_k < V ? (long)o->top_k : V;
    double sum = 0, cut = 0;
    for (long i = 0; i < n; i++) sum += c[i].p;
    if (o->top_p < 1) {
        long m = 0;
        while (m < n && cut < o->top_p * sum) cut += c[m++].p;
        n = m > 0 ? m : 1;
    }
    while (n > 1 && c[n - 1].p < o->min_p * c[0].p) n--;
    sum = 0;
    for (long i = 0; i < n; i++) sum += c[i].p;
    double u = rng_uniform((RngKey){.seed = o->seed, .stream = rng_stream("sample")}, counter) * sum;
    for (long i = 0; i < n; i++) {
        u -= c[i].p;
        if (u < 0) return c[i].id;
    }
    return c[n - 1].id;
}
