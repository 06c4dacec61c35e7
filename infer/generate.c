/* infer/generate.c: a prompt and its continuation. */
#include "infer/infer.h"
#include <string.h>

bool generate(Generation *out, Model *m, const Tokenizer *tk, const char *prompt, long max_new,
              const SampleOptions *o, Arena *a, Err *e)
{
    TokenBuf ids = {0};
    *out = (Generation){0};
    if (!tk)
        return err_set(e, ERR_USAGE,
                       "generation from text needs a tokenizer: put tokenizer.model beside the model "
                       "or give --tokenizer");
    if (!tokenizer_encode(tk, prompt, strlen(prompt), tokenizer_adds_bos(tk) || !*prompt, &ids, a, e))
        return false;
    if (!ids.n)
        return err_set(e, ERR_USAGE, "the prompt is empty and the tokenizer has no BOS to start from");
    return generate_ids(out, m, tk, ids.id, (long)ids.n, -1, max_new, o, a, e);
}

bool generate_ids(Generation *out, Model *m, const Tokenizer *tk, const int32_t *ids, long n, int stop,
                  long max_new, const SampleOptions *o, Arena *a, Err *e)
{
    *out = (Generation){.n_prompt = n};
    if (tokenizer_vocab(tk) > m->spec.V)
        return err_set(
            e, ERR_USAGE,
            "tokenizer %s has %d tokens, the model's vocabulary %ld: not the model's own; give that with "
            "--tokenizer",
            tokenizer_path(tk), tokenizer_vocab(tk), m->spec.V);
    if (n > m->spec.max_pos)
        return err_set(e, ERR_USAGE, "the prompt has %ld tokens, the model %ld positions", n,
                       m->spec.max_pos);
    long room = m->spec.max_pos - n + 1;
    if (max_new > room) {
        log_warn("only %ld tokens can follow: the model has %ld positions", room, m->spec.max_pos);
        max_new = room;
    }
    int32_t *all = arena_alloc(a, (size_t)(n + max_new + 1) * sizeof *all, e);
    void *work = arena_alloc(a, sample_work_bytes(m->spec.V), e);
    Session *s = session_new(m, n + max_new, a, e);
    double t0 = time_now();
    if (!s || !all || !work || !session_feed(s, ids, n, e)) {
        session_free(s);
        return false;
    }
    memcpy(all, ids, (size_t)n * sizeof *all);
    double t1 = time_now();
    int eos = tokenizer_eos(tk) >= 0 ? tokenizer_eos(tk) : m->spec.eos;
    for (long i = 0; i < max_new && !e->code; i++) {
        int next = sample_token(session_logits(s), m->spec.V, o, all, n, (uint32_t)i, work);
        if (next == eos || next == stop || next == tokenizer_bos(tk)) {
            out->ended = true;
            break;
        }
        all[n++] = next;
        if (i + 1 < max_new) session_feed(s, &all[n - 1], 1, e);
    }
    out->prefill_s = t1 - t0;
    out->decode_s = time_now() - t1;
    out->ids = all;
    out->n = n;
    session_free(s);
    if (!e->code) out->text = tokenizer_decode(tk, all, (size_t)n, &out->text_bytes, a, e);
    return !e->code;
}
