/* data/bpe_json.c: the "BPE" model of tokenizer.json, and vocabularies {"token": id}.
 *
 *   {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
 *   "end_of_word_suffix": "",
 *    "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": {"a": 0, ...},
 *    "merges": ["a b", ...] or [["a", "b"], ...]}
 */
#include "data/bpe_json_impl.h"
#include <string.h>

/* A copy of all strings of a file costs one allocation. */
typedef struct Slab {
    char *at;
} Slab;

static TokSpan keep(Slab *s, const char *text, size_t n)
{
    const TokSpan t = {s->at, n};
    memcpy(s->at, text, n);
    s->at[n] = 0;
    s->at += n + 1;
    return t;
}

bool vocab_from_json(TokSpan **piece, int32_t *n_piece, const json_t *vocab, const JsonSource *s)
{
    const size_t n = json_object_size(vocab);
    size_t bytes = 1;
    json_int_t top = -1;
    json_t *const v = (json_t *)(uintptr_t)vocab;
    if (!json_is_object(vocab))
        return err_set(s->e, ERR_CORRUPT, "%s: the vocabulary is not an object", s->path);
    for (void *i = json_object_iter(v); i; i = json_object_iter_next(v, i)) {
        const json_t *id = json_object_iter_value(i);
        const json_int_t k = json_is_integer(id) ? json_integer_value(id) : -1;
        if (k < 0 || (uint64_t)k > 16 * (uint64_t)n + 65536)
            return err_set(s->e, ERR_CORRUPT, "%s: token `%.80s` has no usable id", s->path,
                           json_object_iter_key(i));
        if (k > top) top = k;
        bytes += json_object_iter_key_len(i) + 1;
    }
    Slab slab = {arena_alloc(s->a, bytes, s->e)};
    *n_piece = (int32_t)(top + 1);
    *piece = arena_alloc(s->a, ((size_t)*n_piece + 1) * sizeof **piece, s->e);
    if (!slab.at || !*piece) return false;
    for (void *i = json_object_iter(v); i; i = json_object_iter_next(v, i)) {
        TokSpan *x = &(*piece)[json_integer_value(json_object_iter_value(i))];
        if (x->s)
            return err_set(s->e, ERR_CORRUPT, "%s: tokens `%.80s` and `%.80s` have the same id", s->path,
                           x->s, json_object_iter_key(i));
        *x = keep(&slab, json_object_iter_key(i), json_object_iter_key_len(i));
    }
    return true;
}

static bool merge_halves(const json_t *m, TokSpan *left, TokSpan *right)
{
    if (json_is_string(m)) return bpe_merge_split(json_string_value(m), json_string_length(m), left, right);
    const json_t *l = json_array_get(m, 0), *r = json_array_get(m, 1);
    if (json_array_size(m) != 2 || !json_is_string(l) || !json_is_string(r)) return false;
    *left = (TokSpan){json_string_value(l), json_string_length(l)};
    *right = (TokSpan){json_string_value(r), json_string_length(r)};
    return true;
}

/* The halves point into the JSON, which outlives bpe_open. */
static bool merges_from_json(BpeSpec *b, const json_t *merges, Arena *tmp, const JsonSource *s)
{
    const size_t n = json_array_size(merges);
    if (!json_is_array(merges))
        return err_set(s->e, ERR_CORRUPT, "%s: model.merges is not an array", s->path);
    TokSpan *left = arena_alloc(tmp, (n + 1) * sizeof *left, s->e),
            *right = arena_alloc(tmp, (n + 1) * sizeof *right, s->e);
    if (!left || !right) return false;
    for (size_t i = 0; i < n; i++)
        if (!merge_halves(json_array_get(merges, i), &left[i], &right[i]))
            return err_set(s->e, ERR_CORRUPT, "%s: model.merges[%zu] is neither \"a b\" nor [\"a\", \"b\"]",
                           s->path, i);
    b->left = left;
    b->right = right;
    b->n_merge = n;
    return true;
}

static bool unknown_id(BpeSpec *b, const json_t *m, const JsonSource *s)
{
    const TokSpan unk = src_span(s, m, "model", "unk_token");
    b->unk = -1;
    for (int32_t i = 0; unk.s && i < b->n_piece && b->unk < 0; i++)
        if (b->piece[i].s && b->piece[i].n == unk.n && memcmp(b->piece[i].s, unk.s, unk.n) == 0) b->unk = i;
    if (unk.s && b->unk < 0)
        return err_set(s->e, ERR_CORRUPT, "%s: unk_token `%s` is not in the vocabulary", s->path, unk.s);
    return !s->e->code;
}

bool bpe_from_json(Tokenizer *t, Pipeline *p, const json_t *m, Arena *a, Err *e)
{
    const JsonSource s = {t->path, a, e};
    Arena tmp = {.name = "merges"};
    BpeSpec b = {.unk = -1};
    TokSpan *piece;
    const json_t *dropout = json_object_get(m, "dropout");
    if (!src_known(
            &s, m, "model BPE",
            "type|dropout|unk_token|continuing_subword_prefix|end_of_word_suffix|fuse_unk|byte_fallback|"
            "ignore_merges|vocab|merges"))
        return false;
    if (dropout && !json_is_null(dropout) && json_number_value(dropout) != 0.0)
        return src_refuse(&s, "model BPE", "dropout (ids drawn by chance)");
    b.fuse_unk = src_flag(&s, m, "model", "fuse_unk", false);
    b.byte_fallback = src_flag(&s, m, "model", "byte_fallback", false);
    b.ignore_merges = src_flag(&s, m, "model", "ignore_merges", false);
    b.prefix = src_span(&s, m, "model", "continuing_subword_prefix").s;
    b.suffix = src_span(&s, m, "model", "end_of_word_suffix").s;
    b.byte_level = p->n_pre > 0 && p->pre[p->n_pre - 1].kind == PRE_BYTE_LEVEL;
    bool ok = !e->code && vocab_from_json(&piece, &b.n_piece, json_object_get(m, "vocab"), &s);
    b.piece = ok ? piece : NULL;
    ok = ok && unknown_id(&b, m, &s) && merges_from_json(&b, json_object_get(m, "merges"), &tmp, &s) &&
         bpe_open(p, &b, t->path, a, e);
    t->unk = b.unk;
    arena_free(&tmp);
    return ok;
}
