/* train/evaluate.c: perplexity by a named protocol, KL and top-1 agreement against a teacher, on the same
 * tokens. Hidden states of a batch are kept; logits exist for a chunk of rows at a time, of both models. */
#include "train/train.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { EVAL_CHUNK = 256 };
struct Evaluator {
    Graph *g;
    Model *m, *against;
    long B, T, chunk;
    Tensor *ids, *pos, *h[2], *w[2]; /* hidden (B,T,C), head (V,C): model, teacher */
    void *z[2], *nll, *room;         /* room: for a head kept as bfloat16 */
    int32_t *targets, *top[2];
};

Evaluator *evaluator_new(Model *m, Model *against, long B, long T, Arena *a, Err *e)
{
    Evaluator *ev = arena_alloc(a, sizeof *ev, e);
    if (!ev) return NULL;
    *ev = (Evaluator){.m = m, .against = against, .B = B, .T = T};
    if (against && against->spec.V != m->spec.V) {
        err_set(e, ERR_USAGE, "the vocabularies differ: %ld against %ld tokens; KL has no meaning", m->spec.V,
                against->spec.V);
        return NULL;
    }
    const Kernels *k = m->params.k;
    Graph *g = ev->g = graph_new(&(GraphOptions){.k = k, .run = a}, e);
    if (!g) return NULL;
    ev->ids = graph_input(g, "ids", DT_I32, 2, (long[]){B, T});
    ev->pos = graph_input(g, "pos", DT_I32, 2, (long[]){B, T});
    Model *both[2] = {m, against};
    for (int i = 0; i < 2 && both[i]; i++) {
        graph_prefix(g, i ? "teacher." : "student.");
        ev->h[i] = model_hidden(g, both[i], &(ModelInputs){.ids = ev->ids, .pos = ev->pos});
        ev->w[i] = model_head(g, both[i]);
        graph_keep(g, ev->h[i]);
        if (ev->w[i] && ev->w[i]->node) graph_keep(g, ev->w[i]);
    }
    ev->chunk = B * T < EVAL_CHUNK ? B * T : EVAL_CHUNK;
    ev->targets = arena_alloc(a, (size_t)(B * T) * sizeof *ev->targets, e);
    ev->nll = arena_alloc(a, (size_t)ev->chunk * k->real, e);
    const size_t head[2] = {weight_room(k, ev->w[0]), weight_room(k, ev->w[1])},
                 room = head[0] > head[1] ? head[0] : head[1];
    if (room) ev->room = arena_alloc(a, room, e);
    for (int i = 0; i < 2 && both[i]; i++) {
        ev->z[i] = arena_alloc(a, (size_t)(ev->chunk * m->spec.V) * k->real, e);
        ev->top[i] = arena_alloc(a, (size_t)ev->chunk * sizeof(int32_t), e);
    }
    if (!graph_plan(g, e) || e->code) {
        graph_free(g);
        return NULL;
    }
    for (long i = 0; i < B * T; i++) ((int32_t *)ev->pos->data)[i] = (int32_t)(i % T);
    return ev;
}

void evaluator_free(Evaluator *ev)
{
    if (ev) graph_free(ev->g);
}

typedef struct Sums {
    double nll, kl;
    int64_t tokens, agree;
} Sums;

/* Rows r..r+n of the batch: logits of both models, then the sums over the scored ones. */
static void score_chunk(Evaluator *ev, long r, long n, Sums *s)
{
    const Kernels *k = ev->m->params.k;
    long V = ev->m->spec.V;
    for (int i = 0; i < 2 && ev->h[i]; i++) {
        long C = t_last(ev->h[i]);
        weight_nt(k, ev->z[i], (const char *)ev->h[i]->data + (size_t)(r * C) * k->real, ev->w[i], n,
                  ev->room);
        k->argmax(ev->top[i], ev->z[i], n, V);
    }
    double sums[LM_SUMS] = {0};
    LossAttr a = {.ce_weight = 1, .kd_weight = ev->against ? 1 : 0, .temperature = 1};
    model_loss_caps(&a, ev->m, ev->against);
    k->xent(ev->z[0], ev->against ? ev->z[1] : NULL, ev->targets + r, n, V, &a, 0.0, sums, ev->nll);
    s->nll += sums[LM_CE];
    s->kl += sums[LM_KD];
    for (long i = 0; i < n; i++) {
        if (ev->targets[r + i] < 0) continue;
        s->tokens++;
        if (ev->against) s->agree += ev->top[0][i] == ev->top[1][i];
    }
}

bool evaluator_run(Evaluator *ev, const Tokens *t, int bos, const char *protocol, long window, long stride,
                   int64_t max_batches, EvalResult *out, Err *e)
{
    Arena tmp = {.name = "evaluation"};
    /* Prompts and chats are scored where they are trained, document by document. */
    const bool documents = t->target && t->doc && !strcmp(protocol, "val");
    EvalPlan *p = documents
                      ? evalplan_documents(t, window ? window : ev->T, &tmp, e)
                      : evalplan_open(protocol, window ? window : ev->T, stride, t->id, t->n, bos, &tmp, e);
    if (documents) protocol = "documents";
    if (p && evalplan_window(p) > ev->T)
        err_set(e, ERR_USAGE, "protocol %s reads windows of %ld tokens, this evaluation holds %ld", protocol,
                evalplan_window(p), ev->T);
    Sums s = {0};
    int64_t n = p ? evalplan_count(p) : 0, batches = 0;
    long width = p ? evalplan_window(p) : 0;
    threads_pace_begin();
    for (int64_t i = 0; i < n && !e->code; i += ev->B, batches++) {
        if (max_batches && batches == max_batches) break;
        int32_t *ids = ev->ids->data;
        const double start = time_now();
        for (long b = 0; b < ev->B; b++) {
            long len = i + b < n ? evalplan_get(p, i + b, ids + b * ev->T, ev->targets + b * ev->T) : 0;
            for (long j = len; j < ev->T; j++) {
                ids[b * ev->T + j] = 0;
                ev->targets[b * ev->T + j] = -100;
            }
        }
        graph_forward(ev->g);
        long rows = ev->B * ev->T;
        for (long r = 0; r < rows; r += ev->chunk)
            score_chunk(ev, r, rows - r < ev->chunk ? rows - r : ev->chunk, &s);
        threads_pace(time_now() - start);
    }
    threads_pace_begin();
    arena_free(&tmp);
    if (e->code) return false;
    if (!s.tokens)
        return err_set(e, ERR_USAGE, "%s: nothing to score: %zu tokens make no window of %ld", t->path, t->n,
                       ev->T);
    *out = (EvalResult){.protocol = protocol,
                        .window = width,
                        .tokens = s.tokens,
                        .text_bytes = (int64_t)t->bytes,
                        .nll = s.nll / (double)s.tokens,
                        .against = ev->against != NULL,
                        .kl = s.kl / (double)s.tokens,
                        .top1_agreement = (double)s.agree / (double)s.tokens};
    out->perplexity = exp(out->nll);
    if (t->bytes && !max_batches && !documents)
        out->bits_per_byte = out->nll * (double)t->n / log(2) / (double)t->bytes;
    return true;
}

void evaluator_rows(Evaluator *ev, const int32_t *ids, const int32_t *targets, double *nll,
                    unsigned char *hit)
{
    const long rows = ev->B * ev->T;
    const bool is_float = ev->m->params.k->real == sizeof(float);
    memcpy(ev->ids->data, ids, (size_t)rows * sizeof *ids);
    memcpy(ev->targets, targets, (size_t)rows * sizeof *targets);
    graph_forward(ev->g);
    Sums unused = {0};
    for (long r = 0; r < rows; r += ev->chunk) {
        long n = rows - r < ev->chunk ? rows - r : ev->chunk;
        score_chunk(ev, r, n, &unused);
        for (long i = 0; i < n; i++) {
            const bool scored = targets[r + i] >= 0;
            const double v = is_float ? (double)((const float *)ev->nll)[i] : ((const double *)ev->nll)[i];
            nll[r + i] = scored ? v : 0;
            hit[r + i] = scored && ev->top[0][i] == targets[r + i];
        }
    }
}

/* JSON has no NaN and no infinity. */
static json_t *number(double v) { return isfinite(v) ? json_real(v) : json_null(); }

char *eval_json(const EvalResult *r, const char *model, const char *data, Arena *a, Err *e)
{
    json_t *o = json_pack("{s:s,s:s,s:s,s:I,s:o,s:o}", "model", model, "data", data, "protocol", r->protocol,
                          "tokens", (json_int_t)r->tokens, "nll", number(r->nll), "perplexity",
                          number(r->perplexity));
    if (o) json_object_set_new(o, "window", json_integer(r->window));
    if (o)
        json_object_set_new(o, "bits_per_byte",
                            r->bits_per_byte > 0 ? json_real(r->bits_per_byte) : json_null());
    if (o && r->against) {
        json_object_set_new(o, "kl", number(r->kl));
        json_object_set_new(o, "top1_agreement", number(r->top1_agreement));
    }
    char *s = o ? json_dumps(o, JSON_REAL_PRECISION(10)) : NULL;
    char *text = s ? arena_strdup(a, s, e) : NULL;
    if (!text) err_set(e, ERR_MEMORY, "out of memory for the result");
    free(s);
    json_decref(o);
    return text;
}
