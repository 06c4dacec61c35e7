/* train/tasks.c: accuracy by the log-likelihood of continuations.
 *
 *   lm-eval    whole = encode(context + choice), context = encode(context); the tokens behind the context's
 *   are scored.
 *              acc: largest sum; acc_norm: largest sum / characters of the choice (without its leading space)
 *   llm.c      encode(context) then encode(choice), no BOS; acc: largest sum; acc_norm: largest mean
 *   llama.cpp  encode(context + choice); tokens behind the choices' common prefix; acc: largest sum,
 *   acc_norm: mean
 *
 * Sources: EleutherAI/lm-evaluation-harness tasks hellaswag and lambada_openai, karpathy/llm.c
 * dev/data/hellaswag.py, ggml-org/llama.cpp tools/perplexity (--hellaswag). A context that does not fit loses
 * its beginning, as in lm-eval. */
#include "train/tasks_impl.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One continuation: tokens id[0..n), of which id[from..n) are scored. */
typedef struct Request {
    int32_t *id;
    long n, from;
    double ll;
    bool greedy;
} Request;
typedef struct Task {
    Model *m;
    const Tokenizer *tk;
    const Examples *x;
    Request *r; /* of all examples, in order */
    long n;
    bool bos;
    Arena *a;
    Err *e;
} Task;

static bool encode(Task *t, const char *text, bool bos, TokenBuf *out)
{
    return tokenizer_encode(t->tk, text, strlen(text), bos, out, t->a, t->e);
}

static bool joined(Task *t, const char *context, const char *choice, bool bos, TokenBuf *out)
{
    char *text = arena_printf(t->a, t->e, "%s%s", context, choice);
    return text && encode(t, text, bos, out);
}

/* The tokens of every choice, and where scoring begins in each. */
static bool encode_example(Task *t, const Example *x, Request *r)
{
    const bool bos = t->bos, llmc = !strcmp(t->x->protocol, "llm.c");
    TokenBuf context = {0};
    if (!encode(t, x->context, bos && !llmc, &context)) return false;
    long common = -1;
    for (int i = 0; i < x->n; i++) {
        TokenBuf all = {0};
        if (llmc) {
            if (!encode(t, x->context, false, &all) || !encode(t, x->choice[i], false, &all)) return false;
        } else if (!joined(t, x->context, x->choice[i], bos, &all)) return false;
        r[i] = (Request){.id = all.id, .n = (long)all.n, .from = (long)context.n};
        long same = 0;
        while (same < r[0].n && same < r[i].n && r[0].id[same] == r[i].id[same]) same++;
        if (i && (common < 0 || same < common)) common = same;
    }
    if (!strcmp(t->x->protocol, "llama.cpp"))
        for (int i = 0; i < x->n; i++) r[i].from = common;
    for (int i = 0; i < x->n; i++) {
        if (r[i].from < 1) r[i].from = 1; /* the first token has nothing before it */
        if (r[i].from >= r[i].n)
            return err_set(t->e, ERR_USAGE, "line %ld: choice %d adds no token of its own", x->line, i);
    }
    return true;
}

static bool encode_all(Task *t)
{
    for (long i = 0; i < t->x->n; i++) t->n += t->x->v[i].n;
    t->r = arena_alloc(t->a, (size_t)t->n * sizeof *t->r, t->e);
    Request *at = t->r;
    const int vocab = (int)t->m->spec.V;
    for (long i = 0; i < t->x->n && at; i++) {
        if (!encode_example(t, &t->x->v[i], at)) return false;
        for (int c = 0; c < t->x->v[i].n; c++, at++) {
            long over = at->n - 1 - t->m->spec.max_pos; /* the last token is only predicted */
            if (over > 0) {
                at->id += over;
                at->n -= over;
                at->from = at->from > over ? at->from - over : 1;
            }
            for (long k = 0; k < at->n; k++)
                if (at->id[k] >= vocab)
                    return err_set(t->e, ERR_USAGE, "token %d of the tokenizer: the model has %d", at->id[k],
                                   vocab);
        }
    }
    return t->r != NULL;
}

static void put_row(const Request *q, long T, int32_t *ids, int32_t *targets)
{
    for (long j = 0; j < T; j++) {
        ids[j] = q && j + 1 < q->n ? q->id[j] : 0;
        targets[j] = q && j + 1 >= q->from && j + 1 < q->n ? q->id[j + 1] : -100;
    }
}

/* Scores the requests whose length lies in (shortest, T + 1], T tokens a row. */
static bool score_length(Task *t, long shortest, long T)
{
    Arena tmp = {.name = "task"};
    long B = 4096 / T < 1 ? 1 : 4096 / T > 32 ? 32 : 4096 / T, n = 0;
    long *which = arena_alloc(&tmp, (size_t)t->n * sizeof *which, t->e);
    for (long i = 0; which && i < t->n; i++)
        if (t->r[i].n - 1 > shortest && t->r[i].n - 1 <= T) which[n++] = i;
    Evaluator *ev = n ? evaluator_new(t->m, NULL, B, T, &tmp, t->e) : NULL;
    size_t cells = (size_t)(B * T);
    int32_t *ids = arena_alloc(&tmp, cells * sizeof *ids, t->e),
            *targets = arena_alloc(&tmp, cells * sizeof *targets, t->e);
    double *nll = arena_alloc(&tmp, cells * sizeof *nll, t->e);
    unsigned char *hit = arena_alloc(&tmp, cells, t->e);
    for (long i = 0; ev && hit && !t->e->code && i < n; i += B) {
        for (long b = 0; b < B; b++)
            put_row(i + b < n ? &t->r[which[i + b]] : NULL, T, ids + b * T, targets + b * T);
        evaluator_rows(ev, ids, targets, nll, hit);
        for (long b = 0; b < B && i + b < n; b++) {
            Request *q = &t->r[which[i + b]];
            q->ll = 0;
            q->greedy = true;
            for (long j = q->from - 1; j + 1 < q->n; j++) {
                q->ll -= nll[b * T + j];
                q->greedy = q->greedy && hit[b * T + j];
            }
        }
    }
    evaluator_free(ev);
    arena_free(&tmp);
    return !t->e->code;
}

static bool score_all(Task *t)
{
    long longest = 0;
    for (long i = 0; i < t->n; i++) longest = t->r[i].n - 1 > longest ? t->r[i].n - 1 : longest;
    for (long below = 0, T = 32; below < longest; below = T, T *= 2) {
        if (T > t->m->spec.max_pos) T = t->m->spec.max_pos;
        if (!score_length(t, below, T)) return false;
    }
    return true;
}

static long characters(const char *s)
{
    long n = 0;
    for (; *s; s++) n += ((unsigned char)*s & 0xC0) != 0x80;
    return n;
}

typedef struct Score {
    double acc, norm, ll;
} Score;

/* First of the largest, as numpy's and torch's argmax. */
static int best_of(const Task *t, const Example *x, const Request *r, bool norm)
{
    int best = 0;
    double top = -INFINITY;
    for (int i = 0; i < x->n; i++) {
        double by = !norm ? 1
                    : strcmp(t->x->protocol, "lm-eval")
                        ? (double)(r[i].n - r[i].from)
                        : (double)characters(x->choice[i] + (x->choice[i][0] == ' '));
        if (r[i].ll / by > top) top = r[i].ll / by, best = i;
    }
    return best;
}

static json_t *details_of(const Example *x, const Request *r, int pred, int norm)
{
    json_t *ll = json_array(), *tokens = json_array();
    for (int i = 0; i < x->n; i++) {
        json_array_append_new(ll, json_real(r[i].ll));
        json_array_append_new(tokens, json_integer(r[i].n - r[i].from));
    }
    json_t *o = json_pack("{s:I,s:o,s:o}", "line", (json_int_t)x->line, "loglikelihood", ll, "tokens",
                          tokens);
    if (x->n == 1) json_object_set_new(o, "greedy", json_boolean(r[0].greedy));
    else {
        json_object_set_new(o, "label", json_integer(x->label));
        json_object_set_new(o, "pred", json_integer(pred));
        json_object_set_new(o, "pred_norm", json_integer(norm));
    }
    return o;
}

static Score sum_up(Task *t, FILE *details)
{
    Score s = {0};
    const Request *r = t->r;
    for (long i = 0; i < t->x->n; r += t->x->v[i].n, i++) {
        const Example *x = &t->x->v[i];
        int pred = best_of(t, x, r, false), norm = best_of(t, x, r, true);
        s.acc += x->n == 1 ? r[0].greedy : pred == x->label;
        s.norm += x->n > 1 && norm == x->label;
        s.ll += r[0].ll;
        if (!details) continue;
        json_t *o = details_of(x, r, pred, norm);
        char *line = json_dumps(o, JSON_REAL_PRECISION(9));
        if (line) fprintf(details, "%s\n", line);
        free(line);
        json_decref(o);
    }
    return s;
}

/* Of a mean of zeros and ones over n examples, with n - 1 below the root as lm-eval has it. */
static double standard_error(double p, double n) { return n > 1 ? sqrt(p * (1 - p) / (n - 1)) : 0; }

char *task_json(Model *m, const Tokenizer *tk, const TaskOptions *o, Arena *a, Err *e)
{
    Examples x;
    if (!tk) err_set(e, ERR_USAGE, "a task needs a tokenizer: --tokenizer PATH");
    if (e->code || !examples_read(&x, o, a, e)) return NULL;
    Task t = {.m = m, .tk = tk, .x = &x, .bos = tokenizer_adds_bos(tk) && !o->no_bos, .a = a, .e = e};
    if (!encode_all(&t)) {
        err_prefix(e, "%s", o->path);
        return NULL;
    }
    if (!score_all(&t)) return NULL;
    FILE *details = o->details ? fopen(o->details, "we") : NULL;
    if (o->details && !details) {
        err_set(e, ERR_FAIL, "%s: cannot be opened for writing", o->details);
        return NULL;
    }
    const Score s = sum_up(&t, details);
    if (details && fclose(details)) err_set(e, ERR_FAIL, "%s: could not be written", o->details);
    const double n = (double)x.n;
    json_t *j = json_pack("{s:s,s:s,s:s,s:I,s:f,s:f}", "task", o->name, "data", o->path, "protocol",
                          x.protocol, "examples", (json_int_t)x.n, "acc", s.acc / n, "acc_stderr",
                          standard_error(s.acc / n, n));
    if (j && strcmp(o->name, "lambada")) {
        json_object_set_new(j, "acc_norm", json_real(s.norm / n));
        json_object_set_new(j, "acc_norm_stderr", json_real(standard_error(s.norm / n, n)));
    } else if (j) json_object_set_new(j, "perplexity", json_real(exp(-s.ll / n)));
    char *text = j ? json_dumps(j, JSON_REAL_PRECISION(9)) : NULL,
         *copy = text && !e->code ? arena_strdup(a, text, e) : NULL;
    if (!copy) err_set(e, ERR_MEMORY, "out of memory for the result");
    free(text);
    json_decref(j);
    return copy;
}
