/* train/on_policy.c: on-policy distillation (GKD, 2306.13649; algorithms 5.1): a share of the steps does not
 * learn from the data's text but from what the student itself writes behind the data's prompts, judged by the
 * teacher.
 *
 * A step is on-policy when a number drawn from (seed, step) is below distill.on_policy; its sequences are
 * drawn from (seed, sample, document), so a resumed run writes the same. A prompt is what a document does not
 * train on (a masked prompt), or, where all of it is trained, its beginning. Loss on the written tokens up to
 * the end token and on nothing else; the cross-entropy to one's own words is left out. No gradient goes
 * through the sampling. */
#include "train/run_impl.h"
#include <string.h>

struct OnPolicy {
    Run *r;
    Session *s;
    void *work;      /* of sample_token */
    int32_t *text;   /* (T + 1): prompt and continuation */
    int32_t *source; /* (4,T): the data's row: ids, targets, positions, segments */
    int64_t written, sequences;
};

OnPolicy *on_policy_open(Run *r, Err *e)
{
    const ModelSpec *s = &r->model.spec;
    OnPolicy *p = arena_alloc(r->a, sizeof *p, e);
    if (!p) return NULL;
    *p = (OnPolicy){.r = r, .s = session_new(&r->model, r->T < s->max_pos ? r->T : s->max_pos, r->a, e)};
    p->work = arena_alloc(r->a, sample_work_bytes(s->V), e);
    p->text = arena_alloc(r->a, (size_t)(r->T + 1) * sizeof *p->text, e);
    p->source = arena_alloc(r->a, (size_t)(4 * r->T) * sizeof *p->source, e);
    if (!e->code) return p;
    on_policy_close(p);
    return NULL;
}

void on_policy_close(OnPolicy *p)
{
    if (p) session_free(p->s);
}

bool on_policy_step(const Run *r, int64_t step)
{
    const RngKey key = {
        .seed = (uint64_t)r->c->run.seed, .step = (uint32_t)step, .stream = rng_stream("on_policy")};
    return r->on_policy && rng_uniform(key, 0) < r->c->distill.on_policy;
}

double on_policy_length(OnPolicy *p)
{
    const double mean = p->sequences ? (double)p->written / (double)p->sequences : 0;
    p->written = p->sequences = 0;
    return mean;
}

/* How much of a document (n positions with these targets, in a row of T) is the prompt. */
static long prompt_length(const int32_t *targets, long n, long T, long max_new)
{
    long first = 0;
    while (first < n && targets[first] < 0) first++;
    if (first == n) return 0; /* nothing to learn: padding */
    if (first > 0) return first + 1;
    const long room = T - max_new;
    if (room >= n) return n > 1 ? n / 2 : 1;
    return room > 1 ? room : 1;
}

/* Continues text (n) by at most max_new tokens, the last of them an end token where the student ends. */
static long continue_text(OnPolicy *p, long n, long max_new, uint64_t seed, Err *e)
{
    const Run *r = p->r;
    const SampleOptions o = {.temperature = r->c->distill.on_policy_temperature,
                             .top_p = 1,
                             .repetition_penalty = 1,
                             .seed = seed};
    const int eos = r->tk && tokenizer_eos(r->tk) >= 0 ? tokenizer_eos(r->tk) : r->model.spec.eos;
    session_reset(p->s);
    if (!session_feed(p->s, p->text, n, e)) return n;
    for (long i = 0; i < max_new; i++) {
        const int next = sample_token(session_logits(p->s), r->model.spec.V, &o, p->text, n, (uint32_t)i,
                                      p->work);
        p->text[n++] = next;
        p->written++;
        if (next == eos || i + 1 == max_new) break;
        if (!session_feed(p->s, &p->text[n - 1], 1, e)) break;
    }
    p->sequences++;
    return n;
}

/* The student's row in place of the data's: documents, each prompt and continuation, one after the other
 * where a row has segments, else the first alone. Returns the targets. */
static long fill_row(OnPolicy *p, int64_t sample, int32_t *ids, int32_t *targets, int32_t *pos, int32_t *seg,
                     Err *e)
{
    const Run *r = p->r;
    const long T = r->T, max_new = (long)r->c->distill.max_new_tokens;
    int32_t *from = p->source, *want = from + T, *at = want + T, *part = at + T;
    long out = 0, counted = 0;
    loader_fill(r->loader, sample, from, want, at, seg ? part : NULL, e);
    for (long a = 0, b, document = 0; a < T && out < T && !e->code; a = b, document++) {
        for (b = a + 1; b < T && (!seg || part[b] == part[a]); b++) {}
        const long n = prompt_length(want + a, b - a, T, max_new);
        if (n == 0 || (out > 0 && out + n >= T)) continue;
        const uint64_t mix[3] = {(uint64_t)r->c->run.seed, (uint64_t)sample, (uint64_t)document};
        const long room = T + 1 - out - n, most = room < max_new ? room : max_new;
        memcpy(p->text, from + a, (size_t)n * sizeof *p->text);
        const long all = continue_text(p, n, most, hash64(mix, sizeof mix), e);
        for (long i = 0; i + 1 < all; i++, out++) {
            ids[out] = p->text[i];
            targets[out] = i + 1 < n ? -100 : p->text[i + 1];
            pos[out] = (int32_t)i;
            if (seg) seg[out] = (int32_t)document + 1;
            counted += i + 1 >= n;
        }
    }
    for (long i = 0; out < T; out++, i++) {
        ids[out] = 0;
        targets[out] = -100;
        pos[out] = (int32_t)(seg ? i : out);
        if (seg) seg[out] = 0;
    }
    return counted;
}

long on_policy_fill(OnPolicy *p, int64_t first_sample, Err *e)
{
    const Run *r = p->r;
    long counted = 0;
    for (long b = 0; b < r->B && !e->code; b++) {
        const long at = b * r->T;
        counted += fill_row(p, first_sample + b, (int32_t *)r->ids->data + at,
                            (int32_t *)r->targets->data + at, (int32_t *)r->pos->data + at,
                            r->seg ? (int32_t *)r->seg->data + at : NULL, e);
    }
    if (e->code) err_prefix(e, "distill.on_policy");
    return counted;
}
