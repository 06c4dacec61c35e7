/* infer/session.c: one sequence with its KV cache. The transformer is recorded once per chunk length; all of
 * them read and append to the same cache leaves. A prompt is fed in the largest chunks that fit, the rest
 * token by token. */
#include "infer/infer.h"
#include <string.h>

enum { N_BUCKET = 3 };
static const long bucket_size[N_BUCKET] = {128, 16, 1};

typedef struct Bucket {
    Graph *g;
    Tensor *ids, *pos, *past, *hidden;
} Bucket;
struct Session {
    Model *m;
    Arena *a;
    long capacity, length;
    void **k_data, **v_data; /* per layer (capacity, Hkv D) */
    Bucket bucket[N_BUCKET];
    Graph *head;
    Tensor *head_in, *logits;
    float *out; /* (V) */
};

static Graph *new_graph(Session *s, Err *e)
{
    return graph_new(&(GraphOptions){.k = s->m->params.k, .run = s->a}, e);
}

/* Records the transformer over T tokens at positions past..past+T-1 of the cache. */
static bool record(Session *s, Bucket *b, long T, Err *e)
{
    const ModelSpec *sp = &s->m->spec;
    b->g = new_graph(s, e);
    Tensor **k = arena_alloc(s->a, 2 * (size_t)sp->L * sizeof *k, e), **v = k ? k + sp->L : NULL;
    if (!b->g || !k) return false;
    b->ids = graph_input(b->g, "ids", DT_I32, 2, (long[]){1, T});
    b->pos = graph_input(b->g, "pos", DT_I32, 2, (long[]){1, T});
    b->past = graph_input(b->g, "past", DT_I32, 1, (long[]){1});
    for (long l = 0; l < sp->L && !graph_err(b->g)->code; l++) {
        Tensor **kv[2] = {&k[l], &v[l]};
        void *data[2] = {s->k_data[l], s->v_data[l]};
        for (int i = 0; i < 2; i++) {
            *kv[i] = graph_leaf(b->g, i ? "v_cache" : "k_cache", 3, (long[]){1, s->capacity, sp->Hkv * sp->D},
                                data[i]);
        }
    }
    ModelInputs in = {.ids = b->ids, .pos = b->pos, .past = b->past, .k_cache = k, .v_cache = v};
    b->hidden = model_hidden(b->g, s->m, &in);
    graph_keep(b->g, b->hidden);
    return graph_plan(b->g, e);
}

Session *session_new(Model *m, long capacity, Arena *a, Err *e)
{
    Session *s = arena_alloc(a, sizeof *s, e);
    if (!s) return NULL;
    *s = (Session){.m = m, .a = a, .capacity = capacity < m->spec.max_pos ? capacity : m->spec.max_pos};
    const ModelSpec *sp = &m->spec;
    s->k_data = arena_alloc(a, 2 * (size_t)sp->L * sizeof *s->k_data, e);
    s->out = arena_alloc(a, (size_t)sp->V * sizeof *s->out, e);
    if (e->code) return NULL;
    s->v_data = s->k_data + sp->L;
    size_t bytes = (size_t)(s->capacity * sp->Hkv * sp->D) * m->params.k->real;
    for (long l = 0; l < 2 * sp->L; l++) s->k_data[l] = arena_alloc(a, bytes, e);
    s->head = e->code ? NULL : new_graph(s, e);
    if (!s->head) return NULL;
    s->head_in = graph_input(s->head, "hidden", DT_F32, 3, (long[]){1, 1, sp->C});
    s->logits = model_logits(s->head, m, s->head_in);
    graph_keep(s->head, s->logits);
    if (!graph_plan(s->head, e)) {
        session_free(s);
        return NULL;
    }
    return s;
}

void session_free(Session *s)
{
    if (!s) return;
    for (int i = 0; i < N_BUCKET; i++) graph_free(s->bucket[i].g);
    graph_free(s->head);
}

void session_reset(Session *s) { s->length = 0; }
long session_length(const Session *s) { return s->length; }
const float *session_logits(const Session *s) { return s->out; }

static void run_head(Session *s, const Bucket *b, long row)
{
    long C = s->m->spec.C, V = s->m->spec.V;
    size_t real = s->m->params.k->real;
    memcpy(s->head_in->data, (const char *)b->hidden->data + (size_t)(row * C) * real, (size_t)C * real);
    graph_forward(s->head);
    for (long i = 0; i < V; i++)
        s->out[i] = real == sizeof(float) ? ((const float *)s->logits->data)[i]
                                          : (float)((const double *)s->logits->data)[i];
}

bool session_feed(Session *s, const int32_t *ids, long n, Err *e)
{
    if (s->length + n > s->capacity)
        return err_set(e, ERR_USAGE, "%ld tokens do not fit: the sequence has %ld and may hold %ld", n,
                       s->length, s->capacity);
    for (long i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->m->spec.V)
            return err_set(e, ERR_USAGE, "token id %d is outside the vocabulary of %ld", ids[i],
                           s->m->spec.V);
    for (long done = 0; done < n && !e->code;) {
        int i = 0;
        while (bucket_size[i] > n - done) i++;
        Bucket *b = &s->bucket[i];
        long T = bucket_size[i];
        if (!b->g && !record(s, b, T, e)) break;
        for (long t = 0; t < T; t++) {
            ((int32_t *)b->ids->data)[t] = ids[done + t];
            ((int32_t *)b->pos->data)[t] = (int32_t)(s->length + t);
        }
        *(int32_t *)b->past->data = (int32_t)s->length;
        graph_forward(b->g);
        s->length += T;
        done += T;
        if (done == n) run_head(s, b, T - 1);
    }
    return !e->code;
}
