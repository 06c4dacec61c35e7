/* data/unigram_json.c: the "Unigram" model of tokenizer.json.
 *
 *   {"type": "Unigram", "unk_id": 0 | null, "vocab": [[piece, log probability], ...], "byte_fallback": false}
 *
 * Scores are doubles, an unknown character costs 10 more than the worst piece, neighbouring unknown ones are
 * one: looked up once more as a whole, then spelled in <0x..> pieces (byte_fallback), else the unknown id.
 */
#include "data/pipeline_impl.h"
#include "data/unigram_impl.h"
#include <float.h>
#include <math.h>
#include <string.h>

typedef struct Model {
    Unigram u;
    TokSpan *piece; /* [n] */
    size_t n;
    bool byte_fallback;
    int32_t byte_id[256]; /* <0x00> to <0xFF>, -1 = none */
} Model;
/* run, n_run: unknown characters seen and not yet written */
typedef struct Writer {
    const Model *m;
    TokenBuf *out;
    Arena *a;
    const char *run;
    size_t n_run;
} Writer;

static bool run_end(Writer *w, Err *e)
{
    const Model *m = w->m;
    const int32_t id = w->n_run ? trie_find(&m->u.trie, w->run, w->n_run) : -1;
    bool bytes = m->byte_fallback && id < 0;
    for (size_t i = 0; bytes && i < w->n_run; i++) bytes = m->byte_id[(unsigned char)w->run[i]] >= 0;
    if (w->n_run && !bytes && !tokenbuf_push(w->out, id >= 0 ? id : m->u.unk, w->a, e)) return false;
    for (size_t i = 0; bytes && i < w->n_run; i++)
        if (!tokenbuf_push(w->out, m->byte_id[(unsigned char)w->run[i]], w->a, e)) return false;
    w->n_run = 0;
    return true;
}

static bool write_piece(void *to, int32_t id, const char *s, size_t bytes, Err *e)
{
    Writer *w = to;
    if (id != w->m->u.unk) return run_end(w, e) && tokenbuf_push(w->out, id, w->a, e);
    if (w->n_run == 0) w->run = s;
    w->n_run += bytes;
    return true;
}

static bool encode(const void *impl, const char *s, size_t n, void **cache, TokenBuf *out, uint64_t *steps,
                   Arena *scratch, Arena *a, Err *e)
{
    const Model *m = impl;
    UnigramWork *work = *cache ? *cache : arena_alloc(scratch, sizeof *work, e);
    Writer w = {.m = m, .out = out, .a = a};
    if (!work) return false;
    *cache = work;
    const uint64_t before = work->steps;
    if (!unigram_best(&m->u, s, n, work, scratch, write_piece, &w, e) || !run_end(&w, e)) return false;
    if (steps) *steps += work->steps - before;
    return true;
}

static TokSpan piece(const void *impl, int32_t id)
{
    const Model *m = impl;
    return id >= 0 && (size_t)id < m->n ? m->piece[id] : (TokSpan){0};
}

static int32_t find(const void *impl, const char *s, size_t n)
{
    const Model *m = impl;
    return n ? trie_find(&m->u.trie, s, n) : -1;
}

static bool digest(const void *impl, TokText *out, Arena *a, Err *e)
{
    const Model *m = impl;
    const int32_t rules[2] = {m->u.unk, m->byte_fallback};
    return text_put(out, (const char *)rules, sizeof rules, a, e) &&
           text_put(out, (const char *)m->u.score, m->n * sizeof *m->u.score, a, e);
}

static const PieceModel unigram_model = {"Unigram", encode, piece, find, digest};

static bool read_vocab(Model *m, double *score, const json_t *vocab, const char *path, Arena *a, Err *e)
{
    double least = DBL_MAX;
    for (size_t i = 0; i < m->n; i++) {
        const json_t *pair = json_array_get(vocab, i), *text = json_array_get(pair, 0);
        const json_t *p = json_array_get(pair, 1);
        if (json_array_size(pair) != 2 || !json_is_string(text) || !json_is_number(p))
            return err_set(e, ERR_CORRUPT, "%s: model.vocab[%zu] is not [piece, score]", path, i);
        score[i] = json_number_value(p);
        if (!isfinite(score[i]))
            return err_set(e, ERR_CORRUPT, "%s: model.vocab[%zu] has a score that is not finite", path, i);
        if (score[i] < least) least = score[i];
        m->piece[i].n = json_string_length(text);
        char *copy = arena_alloc(a, m->piece[i].n + 1, e);
        if (copy) memcpy(copy, json_string_value(text), m->piece[i].n);
        m->piece[i].s = copy;
        if (!m->piece[i].s) return false;
    }
    m->u.unk_score = least - 10;
    return true;
}

static bool read_rules(Model *m, const json_t *j, const char *path, Err *e)
{
    static const char *const known[] = {"type", "unk_id", "vocab", "byte_fallback"};
    const json_t *unk = json_object_get(j, "unk_id"), *fall = json_object_get(j, "byte_fallback");
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)j, key, v)
    {
        bool hit = false;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) hit = hit || strcmp(key, known[i]) == 0;
        if (!hit) return err_set(e, ERR_USAGE, "%s: Unigram model: key `%s` is not known here", path, key);
    }
    m->u.unk = -1;
    if (unk && !json_is_null(unk)) {
        if (!json_is_integer(unk) || json_integer_value(unk) < 0 || (uint64_t)json_integer_value(unk) >= m->n)
            return err_set(e, ERR_CORRUPT, "%s: model.unk_id is not an id of the %zu pieces", path, m->n);
        m->u.unk = (int32_t)json_integer_value(unk);
    }
    if (fall && !json_is_boolean(fall))
        return err_set(e, ERR_CORRUPT, "%s: model.byte_fallback is not true or false", path);
    m->byte_fallback = json_is_true(fall);
    return true;
}

bool unigram_from_json(Tokenizer *t, Pipeline *p, const json_t *j, Arena *a, Err *e)
{
    const json_t *vocab = json_object_get(j, "vocab");
    Model *m = arena_alloc(a, sizeof *m, e);
    if (!m) return false;
    if (!json_is_array(vocab) || json_array_size(vocab) == 0 || json_array_size(vocab) > INT32_MAX)
        return err_set(e, ERR_CORRUPT, "%s: model.vocab is not a list of [piece, score]", t->path);
    m->n = json_array_size(vocab);
    m->piece = arena_alloc(a, m->n * sizeof *m->piece, e);
    double *score = arena_alloc(a, m->n * sizeof *score, e);
    if (!m->piece || !score || !read_vocab(m, score, vocab, t->path, a, e)) return false;
    m->u.score = score;
    if (!read_rules(m, j, t->path, e) || !trie_open(&m->u.trie, m->piece, m->n, t->path, a, e)) return false;
    for (int b = 0; b < 256; b++) {
        static const char hex[] = "0123456789ABCDEF";
        const char name[6] = {'<', '0', 'x', hex[b >> 4], hex[b & 15], '>'};
        m->byte_id[b] = trie_find(&m->u.trie, name, 6);
    }
    p->model = &unigram_model;
    p->impl = m;
    p->n_model = (int32_t)m->n;
    t->unk = m->u.unk;
    return true;
}
