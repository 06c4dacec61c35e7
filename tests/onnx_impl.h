/* tests/onnx_impl.h: what the cases of test_onnx.c share: reading a case, the table's numbers, comparing. */
#ifndef ONNX_IMPL_H
#define ONNX_IMPL_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "formats/formats.h"
#include "kernels/kernels.h"

typedef struct Case {
    const Kernels *k;
    const char *name;
    Arena *a;
    Err e;
    TensorFile f;
    double tol;
    bool bad;
} Case;
typedef struct Array {
    double *v;
    long n, dim[4];
    int nd;
    const FileTensor *t;
} Array;

static void blame(Case *c, const char *what, long i, double got, double want)
{
    if (!c->bad)
        fprintf(stderr, "%s (%s): %s[%ld] is %.9g, not %.9g\n", c->name, c->k->name, what, i, got, want);
    c->bad = true;
}

/* ---- reading a case ----------------------------------------------------------------------------------- */
static bool has(const Case *c, const char *name) { return formats_find(&c->f, name) != NULL; }

static double element(const FileTensor *t, long i)
{
    const unsigned char *p = t->data + (size_t)i * dtype_size(t->dtype);
    double d;
    int64_t l;
    int32_t s;
    float f = 0.0f;
    switch (t->dtype) {
    case DT_F64: memcpy(&d, p, 8); return d;
    case DT_I64: memcpy(&l, p, 8); return (double)l;
    case DT_I32: memcpy(&s, p, 4); return s;
    case DT_U8:
    case DT_BOOL: return *p;
    default: dtype_to_f32(&f, p, t->dtype, 1); return (double)f;
    }
}

static Array get(Case *c, const char *name)
{
    Array r = {.t = formats_find(&c->f, name), .n = 1};
    if (!r.t) {
        blame(c, name, -1, NAN, NAN);
        c->bad = true;
        r.n = 0;
    }
    r.nd = r.t ? r.t->ndim : 0;
    for (int i = 0; i < r.nd; i++) r.n *= r.dim[i] = (long)r.t->dim[i];
    r.v = arena_alloc(c->a, (size_t)(r.n + 1) * sizeof *r.v, &c->e);
    for (long i = 0; i < r.n; i++) r.v[i] = element(r.t, i);
    return r;
}

/* A number among the attributes; the metadata holds them as JSON, quoted once or twice. */
static double attr(const Case *c, const char *name, double otherwise)
{
    const size_t n = strlen(name);
    const char *p = c->f.metadata_json ? strstr(c->f.metadata_json, "attributes") : NULL;
    while (p && (p = strstr(p, name))) {
        if (p[-1] == '"' && (p[n] == '"' || p[n] == '\\'))
            return strtod(p + n + strspn(p + n, "\\\": "), NULL);
        p += n;
    }
    return otherwise;
}

/* ---- numbers of the table's type ---------------------------------------------------------------------- */
static void *room(Case *c, long n) { return arena_alloc(c->a, (size_t)(n + 1) * sizeof(double), &c->e); }

static void *up(Case *c, const double *v, long n)
{
    void *p = room(c, n);
    for (long i = 0; i < n; i++)
        if (c->k->real == sizeof(float)) ((float *)p)[i] = (float)v[i];
        else ((double *)p)[i] = v[i];
    return p;
}

static double *down(Case *c, const void *p, long n)
{
    double *v = room(c, n);
    for (long i = 0; i < n; i++)
        v[i] = c->k->real == sizeof(float) ? (double)((const float *)p)[i] : ((const double *)p)[i];
    return v;
}

static void *at(const Case *c, void *p, long i) { return (char *)p + (size_t)i * c->k->real; }

static int32_t *whole(Case *c, Array x)
{
    int32_t *p = room(c, x.n);
    for (long i = 0; i < x.n; i++) p[i] = (int32_t)x.v[i];
    return p;
}

static void check(Case *c, const char *name, const double *got, long n)
{
    const Array want = get(c, name);
    if (want.n != n) blame(c, "number of elements", n, (double)n, (double)want.n);
    for (long i = 0; i < n && i < want.n; i++) /* 1e-6: round-off of intermediate numbers of size one */
        if (!(fabs(got[i] - want.v[i]) <= c->tol * fabs(want.v[i]) + 1e-6))
            blame(c, name, i, got[i], want.v[i]);
}
static void check_up(Case *c, const char *name, const void *got, long n)
{
    check(c, name, down(c, got, n), n);
}

/* x (outer, C, inner) -> (outer, inner, C) and back. */
typedef struct Split {
    long outer, C, inner;
} Split;
static Split split(Array x, long axis)
{
    Split s = {1, 1, 1};
    if (axis < 0) axis += x.nd;
    for (int i = 0; i < x.nd; i++) *(i < axis ? &s.outer : i == axis ? &s.C : &s.inner) *= x.dim[i];
    return s;
}
static double *axis_moved(Case *c, const double *x, Split s, bool back)
{
    double *y = room(c, s.outer * s.C * s.inner);
    for (long o = 0; o < s.outer; o++)
        for (long j = 0; j < s.C; j++)
            for (long i = 0; i < s.inner; i++) {
                const long far = (o * s.C + j) * s.inner + i, last = (o * s.inner + i) * s.C + j;
                if (back) y[far] = x[last];
                else y[last] = x[far];
            }
    return y;
}

/* One operator: feeds a kernel, checks every output. onnx_ops_impl.h */
typedef struct Handler {
    const char *prefix;
    void (*run)(Case *);
} Handler;
#endif
