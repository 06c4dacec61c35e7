/* data/added.c: finding added tokens in a text: leftmost, then longest; single_word discards a match that
 * touches a word character, lstrip and rstrip take the white space beside it. As the AddedVocabulary of
 * Hugging Face tokenizers: a discarded match still uses up its text.
 */
#include "data/pipeline_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

struct AddedIndex {
    const AddedToken *token;
    uint32_t *order;     /* [n] by first byte, longest first within one */
    uint32_t start[257]; /* of each first byte in order */
};

AddedIndex *added_index(const AddedToken *t, size_t n, bool normalized, Arena *a, Err *e)
{
    uint32_t count[256] = {0};
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (t[i].normalized != normalized || t[i].match.n == 0) continue;
        count[(unsigned char)t[i].match.s[0]]++;
        used++;
    }
    if (used == 0) return NULL;
    AddedIndex *x = arena_alloc(a, sizeof *x, e);
    if (!x || !(x->order = arena_alloc(a, used * sizeof *x->order, e))) return NULL;
    x->token = t;
    for (int b = 0; b < 256; b++) x->start[b + 1] = x->start[b] + count[b];
    memset(count, 0, sizeof count);
    for (size_t i = 0; i < n; i++) {
        if (t[i].normalized != normalized || t[i].match.n == 0) continue;
        const unsigned b = (unsigned char)t[i].match.s[0];
        uint32_t *const from = x->order + x->start[b], *k = from + count[b]++;
        while (k > from && t[k[-1]].match.n < t[i].match.n) {
            *k = k[-1];
            k--;
        }
        *k = (uint32_t)i;
    }
    return x;
}

static long match_at(const AddedIndex *x, const char *s, size_t n)
{
    const unsigned b = (unsigned char)*s;
    for (uint32_t k = x->start[b]; k < x->start[b + 1]; k++) {
        const TokSpan m = x->token[x->order[k]].match;
        if (m.n <= n && memcmp(m.s, s, m.n) == 0) return (long)x->order[k];
    }
    return -1;
}

static bool touches_word(const AddedScan *c, size_t lo, size_t hi)
{
    uint32_t before = ' ', after = ' ';
    if (lo > 0) utf8_last(c->s, lo, &before);
    if (hi < c->n) utf8_next(c->s + hi, c->n - hi, &after);
    return char_is_word(before) || char_is_word(after);
}

long added_next(AddedScan *c, size_t *lo)
{
    const AddedIndex *x = c->x;
    uint32_t ch = 0;
    for (size_t i = c->at; i < c->n; i++) {
        const unsigned b = (unsigned char)c->s[i];
        if (x->start[b] == x->start[b + 1]) continue;
        const long k = match_at(x, c->s + i, c->n - i);
        if (k < 0) continue;
        const AddedToken *t = &x->token[k];
        size_t from = i, end = i + t->match.n, len;
        c->at = end;
        i = end - 1;
        if (t->single_word && touches_word(c, from, end)) continue;
        while (t->lstrip && from > c->done && (len = utf8_last(c->s, from, &ch), char_is_space(ch)))
            from -= len;
        while (t->rstrip && end < c->n && (len = utf8_next(c->s + end, c->n - end, &ch), char_is_space(ch)))
            end += len;
        *lo = from > c->done ? from : c->done;
        c->done = end;
        return k;
    }
    c->at = c->n;
    return -1;
}
