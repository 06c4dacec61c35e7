/* train/stage_row.c: what a stage leaves: its state as model.h5, and the figures of its row, measured on that
 * file. */
#include <math.h>
#include <string.h>
#include "train/run_impl.h"

enum { DECODED = 64 }; /* tokens generated to time it */

/* Tokens per second, greedy, one sequence, from the file as `pare generate` would run it. */
static double decode_rate(const char *path, const Kernels *k, Err *e)
{
    Arena tmp = {.name = "decode"};
    Model m;
    double rate = 0;
    if (k->real == sizeof(float) && model_open_packed(&m, path, k, &tmp, e)) {
        Session *s = session_new(&m, DECODED + 1, &tmp, e);
        int32_t id = m.spec.bos >= 0 ? m.spec.bos : 0;
        if (s && session_feed(s, &id, 1, e)) { /* the plan is made by now */
            const double start = time_now();
            long n = 0;
            for (; n < DECODED && n + 1 < m.spec.max_pos && !e->code; n++) {
                k->argmax(&id, session_logits(s), 1, m.spec.V);
                session_feed(s, &id, 1, e);
            }
            rate = (double)n / (time_now() - start);
        }
        session_free(s);
        model_close(&m);
    }
    arena_free(&tmp);
    return rate;
}

/* Perplexity of the file on data.val, and how far it is from base. */
static bool evaluate_file(Run *r, const char *path, const char *base, StageResult *out, Err *e)
{
    Arena tmp = {.name = "evaluation"};
    Model m, other, *against = NULL;
    const PerplexityConfig *p = &r->c->eval.perplexity;
    const long B = r->c->eval.batch_size ? (long)r->c->eval.batch_size : r->B;
    bool opened = false;
    if (base && r->has_teacher && r->teacher.path && !strcmp(base, r->teacher.path)) against = &r->teacher;
    else if (base && model_open_frozen(&other, base, r->k, &tmp, e)) {
        opened = true;
        against = &other;
    }
    if (!e->code && model_open_frozen(&m, path, r->k, &tmp, e)) {
        Evaluator *ev = evaluator_new(&m, against, B, r->T, &tmp, e);
        out->has_eval = ev && evaluator_run(ev, &r->val, r->tk ? tokenizer_bos(r->tk) : -1, p->protocol,
                                            (long)p->window, (long)p->stride, r->c->eval.max_batches,
                                            &out->eval, e);
        evaluator_free(ev);
        model_close(&m);
    }
    if (opened) model_close(&other);
    arena_free(&tmp);
    return !e->code || err_prefix(e, "evaluation of %s", path);
}

bool run_stage(Run *r, const StageOptions *o, StageResult *out, Err *e)
{
    *out = (StageResult){0};
    const char *path = path_join(r->a, r->dir, "model.h5", e);
    if (!path || !run_bake(r, path, &out->file, e)) return false;
    if (r->has_val && !evaluate_file(r, path, o->base, out, e)) return false;
    out->decode_tokens_per_s = decode_rate(path, r->k, e);
    return !e->code;
}

bool stage_base_eval(const Config *c, const char *path, EvalResult *out, double *rate, Arena *a, Err *e)
{
    Config copy = *c;
    Run r = {.c = &copy, .a = a, .B = (long)c->train.batch_size, .T = (long)c->data.seq_len};
    StageResult s = {0};
    threads_init((int)c->device.threads);
    r.k = !strcmp(c->device.precision, "float64") ? kernels_ref_f64() : kernels_cpu_f32();
    if (!model_open_frozen(&r.model, path, r.k, a, e)) return false;
    if (run_tokenizer(&r, e) && run_val(&r, e) && r.has_val) evaluate_file(&r, path, NULL, &s, e);
    *out = s.eval;
    if (!e->code) *rate = decode_rate(path, r.k, e);
    model_close(&r.model);
    return !e->code;
}
