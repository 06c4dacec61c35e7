/* data/pipeline.c: text -> ids through a Pipeline.
 *
 * Malformed bytes: a byte-level model encodes each run of them as a part of its own, so that decoding gives
 * them back; other models see U+FFFD for each, as SentencePiece does.
 */
#include "data/pipeline_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

bool pipeline_normalize(const Pipeline *p, const char *s, size_t bytes, TokSpan *out, Arena *a, Err *e)
{
    *out = (TokSpan){s, bytes};
    for (size_t i = 0; i < p->n_norm; i++) {
        TokText t = {0};
        if (!text_put(&t, "", 0, a, e) || !normalizer_apply(&p->norm[i], out->s, out->n, &t, a, e))
            return false;
        *out = (TokSpan){t.s ? t.s : "", t.n};
    }
    return true;
}

/* Text between added tokens of the second search. */
static bool gap(Run *r, const char *s, size_t n, bool first)
{
    return n == 0 || pretokenize(r, 0, s, n, first);
}

static bool normalized(Run *r, const char *s, size_t n, bool first)
{
    TokSpan t;
    if (n == 0) return true;
    if (!pipeline_normalize(r->p, s, n, &t, &r->scratch, r->e)) return false;
    AddedScan scan = {.x = r->p->normal, .s = t.s, .n = t.n};
    size_t lo = 0;
    while (scan.x) {
        const size_t from = scan.done;
        const long k = added_next(&scan, &lo);
        if (k < 0) break;
        if (!gap(r, t.s + from, lo - from, first && from == 0)) return false;
        if (!tokenbuf_push(r->out, r->p->added[k].id, r->a, r->e)) return false;
    }
    return gap(r, t.s + scan.done, t.n - scan.done, first && scan.done == 0);
}

/* Valid UTF-8. */
static bool segment(Run *r, const char *s, size_t n, bool first)
{
    AddedScan scan = {.x = r->p->raw, .s = s, .n = n};
    size_t lo = 0;
    while (scan.x) {
        const size_t from = scan.done;
        const long k = added_next(&scan, &lo);
        if (k < 0) break;
        if (!normalized(r, s + from, lo - from, first && from == 0)) return false;
        if (!tokenbuf_push(r->out, r->p->added[k].id, r->a, r->e)) return false;
    }
    return normalized(r, s + scan.done, n - scan.done, first && scan.done == 0);
}

static size_t malformed_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && utf8_next(s + i, n - i, NULL) == 0) i++;
    return i;
}

/* Each malformed byte -> U+FFFD. */
static bool repaired(Run *r, const char *s, size_t n, TokText *out)
{
    while (n > 0) {
        const size_t good = utf8_valid(s, n), bad = malformed_run(s + good, n - good);
        if (!text_put(out, s, good, &r->scratch, r->e)) return false;
        for (size_t i = 0; i < bad; i++)
            if (!text_put(out, "\xEF\xBF\xBD", 3, &r->scratch, r->e)) return false;
        s += good + bad;
        n -= good + bad;
    }
    return true;
}

static bool run(Run *r, const char *s, size_t n)
{
    size_t good = utf8_valid(s, n);
    if (good < n && !r->p->byte_level) {
        TokText t = {0};
        return repaired(r, s, n, &t) && segment(r, t.s, t.n, true);
    }
    for (bool first = true;; first = false) {
        if (!segment(r, s, good, first)) return false;
        if (good == n) return true;
        const size_t bad = malformed_run(s + good, n - good);
        if (!pretokenize(r, r->p->n_pre, s + good, bad, false)) return false;
        s += good + bad;
        n -= good + bad;
        good = utf8_valid(s, n);
    }
}

static bool encode(const Tokenizer *t, const char *text, size_t bytes, TokenBuf *out, uint64_t *steps,
                   Arena *a, Err *e)
{
    Run r = {.p = t->impl, .out = out, .steps = steps, .a = a, .scratch = {.name = "encoding"}, .e = e};
    const bool ok = run(&r, text, bytes);
    matcher_close(&r.m);
    arena_free(&r.scratch);
    return ok && !e->code;
}

/* ---- the digest ---------------------------------------------------------------------------------------- */

typedef struct Sink {
    TokText *out;
    Arena *a;
    Err *e;
} Sink;

static bool number(Sink *s, int64_t x) { return text_put(s->out, (const char *)&x, sizeof x, s->a, s->e); }

static bool span(Sink *s, TokSpan x)
{
    return number(s, x.s ? (int64_t)x.n : -1) && text_put(s->out, x.s, x.n, s->a, s->e);
}

static bool stages(Sink *s, const Pipeline *p)
{
    bool ok = number(s, (int64_t)p->n_norm);
    for (size_t i = 0; ok && i < p->n_norm; i++) {
        const Normalizer *n = &p->norm[i];
        ok = number(s, n->kind) &&
             number(s, n->left + 2 * n->right + 4 * n->clean_text + 8 * n->chinese + 16 * n->strip_accents +
                           32 * n->lower) &&
             span(s, n->from) && span(s, n->to) && span(s, n->map_bytes) && number(s, n->regex != NULL);
    }
    ok = ok && number(s, (int64_t)p->n_pre);
    for (size_t i = 0; ok && i < p->n_pre; i++) {
        const PreTokenizer *x = &p->pre[i];
        const char *pattern = x->pattern ? x->pattern : "";
        ok = number(s, x->kind) &&
             number(s, x->add_prefix_space + 2 * x->invert + 4 * x->individual + 8 * x->split) &&
             span(s, x->string) && span(s, x->replacement) && number(s, x->cut) && number(s, x->prepend) &&
             number(s, x->regex != NULL) && span(s, (TokSpan){pattern, strlen(pattern)});
    }
    return ok;
}

static bool digest(const Tokenizer *t, TokText *out, Arena *a, Err *e)
{
    const Pipeline *p = t->impl;
    Sink s = {out, a, e};
    bool ok = span(&s, (TokSpan){p->model->kind, strlen(p->model->kind)}) && stages(&s, p);
    for (size_t i = 0; ok && i < p->n_added; i++) {
        const AddedToken *k = &p->added[i];
        ok = number(&s, k->id) && span(&s, k->text) &&
             number(&s, k->single_word + 2 * k->lstrip + 4 * k->rstrip + 8 * (p->n_norm && k->normalized));
    }
    for (int32_t id = 0; ok && id < p->n_model; id++) ok = span(&s, p->model->piece(p->impl, id));
    return ok && p->model->digest(p->impl, out, a, e);
}

/* ---- opening ------------------------------------------------------------------------------------------- */

static const TokenizerOps ops[] = {
    {"byte-level BPE", encode, pipeline_decode, pipeline_piece, digest},
    {"BPE", encode, pipeline_decode, pipeline_piece, digest},
    {"Unigram", encode, pipeline_decode, pipeline_piece, digest},
    {"WordPiece", encode, pipeline_decode, pipeline_piece, digest},
};

static const TokenizerOps *ops_of(const Pipeline *p)
{
    for (size_t i = 1; i < sizeof ops / sizeof *ops; i++)
        if (strcmp(ops[i].kind, p->model->kind) == 0) return i == 1 && p->byte_level ? &ops[0] : &ops[i];
    return &ops[1];
}

/* Added tokens in the order of their ids, each id once; what is searched for. */
static bool finish_added(Tokenizer *t, Pipeline *p, Arena *a, Err *e)
{
    for (size_t i = 1; i < p->n_added; i++) {
        const AddedToken x = p->added[i];
        size_t k = i;
        for (; k > 0 && p->added[k - 1].id > x.id; k--) p->added[k] = p->added[k - 1];
        p->added[k] = x;
    }
    t->vocab = p->n_model;
    for (size_t i = 0; i < p->n_added; i++) {
        AddedToken *x = &p->added[i];
        if (x->id < 0 || x->id > 100000000)
            return err_set(e, ERR_CORRUPT, "%s: added token `%s` has id %d", t->path, x->text.s, x->id);
        if (i > 0 && p->added[i - 1].id == x->id)
            return err_set(e, ERR_CORRUPT, "%s: two added tokens have id %d", t->path, x->id);
        if (x->id >= t->vocab) t->vocab = x->id + 1;
        x->match = x->text;
        if (x->normalized && !pipeline_normalize(p, x->text.s, x->text.n, &x->match, a, e)) return false;
    }
    p->raw = added_index(p->added, p->n_added, false, a, e);
    p->normal = added_index(p->added, p->n_added, true, a, e);
    p->added_of = arena_alloc(a, ((size_t)t->vocab + 1) * sizeof *p->added_of, e);
    if (e->code) return false;
    for (int i = 0; i < t->vocab; i++) p->added_of[i] = -1;
    for (size_t i = 0; i < p->n_added; i++) p->added_of[p->added[i].id] = (int32_t)i;
    return true;
}

bool pipeline_finish(Tokenizer *t, Pipeline *p, Arena *a, Err *e)
{
    for (size_t i = 0; i < p->n_pre; i++) {
        const bool bytes = p->pre[i].kind == PRE_BYTE_LEVEL;
        if (bytes && i + 1 < p->n_pre)
            return err_set(e, ERR_USAGE, "%s: a pre-tokenizer behind ByteLevel: not in this version",
                           t->path);
        p->byte_level |= bytes;
    }
    t->impl = p;
    t->ops = ops_of(p);
    t->framed = true;
    t->before = p->before;
    t->n_before = p->n_before;
    t->after = p->after;
    t->n_after = p->n_after;
    return finish_added(t, p, a, e) && pipeline_plain(t, p, a, e);
}
