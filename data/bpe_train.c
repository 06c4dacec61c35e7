/* data/bpe_train.c: learning a byte-level BPE (Sennrich et al. 2016, on bytes as GPT-2).
 *
 * Words (pre-tokens of a family's pattern, text between special tokens) are counted; then, until the
 * vocabulary is full, the most frequent pair of neighbouring symbols becomes one symbol. Ties: the pair
 * whose byte strings are greater, the left one first. So the result is a function of the text, whatever
 * order files or words come in.
 *
 * Each pair keeps its count and the words it was seen in; a heap holds (count, pair), and an entry that is
 * out of date is put back with the count of now. A merge visits only the words that hold its pair.
 */
#include "data/pipeline_impl.h"
#include "data/train_impl.h"
#include <string.h>

typedef struct Word {
    TokSpan text;
    int64_t count;
    int32_t *sym; /* (n,) */
    uint32_t n;
} Word;
typedef struct Pair {
    int32_t left, right;   /* left < 0: free slot */
    int64_t count, pushed; /* pushed: of the newest entry on the heap */
    uint32_t *word;        /* (n,), some no longer hold the pair */
    uint32_t n, cap;
} Pair;
typedef struct Entry {
    int64_t count;
    int32_t left, right;
} Entry;
typedef struct Trainer {
    Word *word;
    uint32_t n_word, cap_word;
    uint32_t *slot, slots; /* [slots] word + 1 by hash of its text */
    Pair *pair;
    uint32_t pairs, n_pair; /* [pairs] */
    Entry *heap;
    size_t n_heap, cap_heap;
    TokSpan *token; /* [n_token] bytes of each symbol; the first 256 are the bytes */
    int32_t n_token;
    int32_t *name; /* [names] merged symbol by hash of its bytes, 0 = free */
    uint32_t names;
    size_t cap_merge;
    Arena *a;
    Err *e;
} Trainer;

/* ---- words --------------------------------------------------------------------------------------------- */

static bool grow_words(Trainer *t)
{
    const uint32_t cap = t->cap_word ? 2 * t->cap_word : 4096;
    Word *v = arena_grow(t->a, t->word, t->n_word * sizeof *v, cap * sizeof *v, t->e);
    t->slot = arena_alloc(t->a, 2 * (size_t)cap * sizeof *t->slot, t->e);
    if (!v || !t->slot) return false;
    t->word = v;
    t->cap_word = cap;
    t->slots = 2 * cap;
    for (uint32_t w = 0; w < t->n_word; w++) {
        uint32_t i = (uint32_t)hash64(v[w].text.s, v[w].text.n) & (t->slots - 1);
        while (t->slot[i]) i = (i + 1) & (t->slots - 1);
        t->slot[i] = w + 1;
    }
    return true;
}

static bool count_word(const void *impl, const char *s, size_t n, void **cache, TokenBuf *out,
                       uint64_t *steps, Arena *scratch, Arena *a, Err *e)
{
    Trainer *t = *(Trainer *const *)impl;
    (void)cache, (void)out, (void)steps, (void)scratch, (void)a;
    if (t->n_word == t->cap_word && !grow_words(t)) return false;
    uint32_t i = (uint32_t)hash64(s, n) & (t->slots - 1);
    for (; t->slot[i]; i = (i + 1) & (t->slots - 1)) {
        Word *w = &t->word[t->slot[i] - 1];
        if (w->text.n != n || memcmp(w->text.s, s, n) != 0) continue;
        w->count++;
        return true;
    }
    if (n > 1u << 20) return err_set(e, ERR_USAGE, "a word of %zu bytes: not a text to learn from", n);
    Word *w = &t->word[t->n_word];
    char *text = arena_alloc(t->a, n, e);
    *w = (Word){.text = {text, n}, .count = 1, .n = (uint32_t)n};
    w->sym = arena_alloc(t->a, n * sizeof *w->sym, e);
    if (!text || !w->sym) return false;
    memcpy(text, s, n);
    for (size_t k = 0; k < n; k++) w->sym[k] = (unsigned char)s[k];
    t->slot[i] = ++t->n_word;
    return true;
}

static TokSpan no_piece(const void *impl, int32_t id)
{
    (void)impl, (void)id;
    return (TokSpan){NULL, 0};
}

static const PieceModel counter = {.kind = "words", .encode = count_word, .piece = no_piece};

static bool count_files(Trainer *t, const BpeTraining *o)
{
    Pipeline *p = arena_alloc(t->a, sizeof *p, t->e);
    Tokenizer tk = {.path = "training", .bos = -1, .eos = -1, .unk = -1};
    size_t cap = 0;
    if (!p || !pipeline_preset(p, o->pattern, t->a, t->e)) return false;
    p->model = &counter;
    p->impl = &t;
    for (size_t i = 0; i < o->n_special; i++) {
        const AddedToken x = {
            .id = (int32_t)i, .text = {o->special[i], strlen(o->special[i])}, .special = true};
        if (!pipeline_add(p, x, &cap, t->a, t->e)) return false;
    }
    if (!pipeline_finish(&tk, p, t->a, t->e)) return false;
    for (size_t i = 0; i < o->n_path; i++) {
        FileMap m;
        Arena out = {.name = "special tokens"};
        TokenBuf ids = {0};
        if (!file_map(&m, o->path[i], t->e)) return false;
        const bool ok = tk.ops->encode(&tk, m.data ? (const char *)m.data : "", m.bytes, &ids, NULL, &out,
                                       t->e);
        file_unmap(&m);
        arena_free(&out);
        if (!ok) return err_prefix(t->e, "%s", o->path[i]);
    }
    return t->n_word > 0 || err_set(t->e, ERR_USAGE, "train-tokenizer: no text in the files");
}

/* ---- pairs --------------------------------------------------------------------------------------------- */

static int compare(TokSpan a, TokSpan b)
{
    const int c = memcmp(a.s, b.s, a.n < b.n ? a.n : b.n);
    return c ? c : (a.n > b.n) - (a.n < b.n);
}

static bool before(const Trainer *t, Entry a, Entry b)
{
    if (a.count != b.count) return a.count > b.count;
    const int c = compare(t->token[a.left], t->token[b.left]);
    return (c ? c : compare(t->token[a.right], t->token[b.right])) > 0;
}

static bool heap_push(Trainer *t, Entry x)
{
    if (t->n_heap == t->cap_heap) {
        const size_t cap = t->cap_heap ? 2 * t->cap_heap : 4096;
        Entry *v = arena_grow(t->a, t->heap, t->n_heap * sizeof *v, cap * sizeof *v, t->e);
        if (!v) return false;
        t->heap = v;
        t->cap_heap = cap;
    }
    size_t i = t->n_heap++;
    for (; i > 0 && before(t, x, t->heap[(i - 1) / 2]); i = (i - 1) / 2) t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = x;
    return true;
}

static Entry heap_pop(Trainer *t)
{
    const Entry top = t->heap[0], x = t->heap[--t->n_heap];
    size_t i = 0;
    for (size_t kid; (kid = 2 * i + 1) < t->n_heap; i = kid) {
        if (kid + 1 < t->n_heap && before(t, t->heap[kid + 1], t->heap[kid])) kid++;
        if (!before(t, t->heap[kid], x)) break;
        t->heap[i] = t->heap[kid];
    }
    t->heap[i] = x;
    return top;
}

static Pair *pair_slot(Pair *pair, uint32_t pairs, int32_t left, int32_t right)
{
    const uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    uint32_t i = (uint32_t)(h >> 32) & (pairs - 1);
    while (pair[i].left >= 0 && (pair[i].left != left || pair[i].right != right)) i = (i + 1) & (pairs - 1);
    return &pair[i];
}

static bool grow_pairs(Trainer *t)
{
    const uint32_t pairs = t->pairs ? 2 * t->pairs : 8192;
    Pair *v = arena_alloc(t->a, pairs * sizeof *v, t->e);
    if (!v) return false;
    for (uint32_t i = 0; i < pairs; i++) v[i].left = -1;
    for (uint32_t i = 0; i < t->pairs; i++)
        if (t->pair[i].left >= 0) *pair_slot(v, pairs, t->pair[i].left, t->pair[i].right) = t->pair[i];
    t->pair = v;
    t->pairs = pairs;
    return true;
}

static bool pair_add(Trainer *t, int32_t left, int32_t right, int64_t count)
{
    if (2 * t->n_pair >= t->pairs && !grow_pairs(t)) return false;
    Pair *p = pair_slot(t->pair, t->pairs, left, right);
    if (p->left < 0) {
        *p = (Pair){.left = left, .right = right};
        t->n_pair++;
    }
    p->count += count;
    return true;
}

static bool pair_seen(Trainer *t, int32_t left, int32_t right, uint32_t word)
{
    Pair *p = pair_slot(t->pair, t->pairs, left, right);
    if (p->n > 0 && p->word[p->n - 1] == word) return true;
    if (p->n == p->cap) {
        const uint32_t cap = p->cap ? 2 * p->cap : 4;
        uint32_t *v = arena_grow(t->a, p->word, p->n * sizeof *v, cap * sizeof *v, t->e);
        if (!v) return false;
        p->word = v;
        p->cap = cap;
    }
    p->word[p->n++] = word;
    return true;
}

/* Adds (sign 1) or takes back (-1) the pairs of a word; those with made are noted to be in it, all if made
 * < 0. */
static bool word_pairs(Trainer *t, uint32_t w, int sign, int32_t made)
{
    const Word *x = &t->word[w];
    for (uint32_t k = 0; k + 1 < x->n; k++) {
        if (!pair_add(t, x->sym[k], x->sym[k + 1], sign * x->count)) return false;
        const bool fresh = made < 0 || x->sym[k] == made || x->sym[k + 1] == made;
        if (sign > 0 && fresh && !pair_seen(t, x->sym[k], x->sym[k + 1], w)) return false;
    }
    return true;
}

static bool holds(const Word *x, int32_t left, int32_t right)
{
    for (uint32_t k = 0; k + 1 < x->n; k++)
        if (x->sym[k] == left && x->sym[k + 1] == right) return true;
    return false;
}

/* The pair becomes made in one word; its new pairs go on the heap. */
static bool merge_word(Trainer *t, uint32_t w, int32_t left, int32_t right, int32_t made)
{
    Word *x = &t->word[w];
    if (!holds(x, left, right)) return true;
    if (!word_pairs(t, w, -1, made)) return false;
    uint32_t n = 0;
    for (uint32_t k = 0; k < x->n; n++) {
        const bool hit = k + 1 < x->n && x->sym[k] == left && x->sym[k + 1] == right;
        x->sym[n] = hit ? made : x->sym[k];
        k += hit ? 2 : 1;
    }
    x->n = n;
    return word_pairs(t, w, 1, made);
}

static bool push_pair(Trainer *t, Pair *p)
{
    p->pushed = p->count;
    return heap_push(t, (Entry){p->count, p->left, p->right});
}

static bool push_new(Trainer *t, const uint32_t *word, uint32_t n, int32_t made)
{
    for (uint32_t i = 0; i < n; i++) {
        const Word *x = &t->word[word[i]];
        for (uint32_t k = 0; k + 1 < x->n; k++) {
            if (x->sym[k] != made && x->sym[k + 1] != made) continue;
            Pair *p = pair_slot(t->pair, t->pairs, x->sym[k], x->sym[k + 1]);
            if (p->pushed != p->count && !push_pair(t, p)) return false;
        }
    }
    return true;
}

/* The symbol left + right: a new one, or the one with these bytes that another pair made. -1 with e. */
static int32_t join(Trainer *t, int32_t left, int32_t right)
{
    const TokSpan l = t->token[left], r = t->token[right];
    char *s = arena_alloc(t->a, l.n + r.n + 1, t->e);
    if (!s) return -1;
    memcpy(s, l.s, l.n);
    memcpy(s + l.n, r.s, r.n);
    uint32_t i = (uint32_t)hash64(s, l.n + r.n) & (t->names - 1);
    for (; t->name[i]; i = (i + 1) & (t->names - 1)) {
        const TokSpan x = t->token[t->name[i]];
        if (x.n == l.n + r.n && memcmp(x.s, s, x.n) == 0) return t->name[i];
    }
    t->token[t->n_token] = (TokSpan){s, l.n + r.n};
    t->name[i] = t->n_token;
    return t->n_token++;
}

static bool note_merge(Trainer *t, BpeTrained *out, int32_t left, int32_t right)
{
    if (out->n_merge == t->cap_merge) {
        const size_t cap = t->cap_merge ? 2 * t->cap_merge : 1024;
        TokSpan *l = arena_grow(t->a, out->left, out->n_merge * sizeof *l, cap * sizeof *l, t->e);
        TokSpan *r = arena_grow(t->a, out->right, out->n_merge * sizeof *r, cap * sizeof *r, t->e);
        if (!l || !r) return false;
        out->left = l;
        out->right = r;
        t->cap_merge = cap;
    }
    out->left[out->n_merge] = t->token[left];
    out->right[out->n_merge++] = t->token[right];
    return true;
}

static bool merge_all(Trainer *t, Entry top, BpeTrained *out)
{
    const Pair now = *pair_slot(t->pair, t->pairs, top.left, top.right);
    const int32_t made = join(t, top.left, top.right);
    if (made < 0 || !note_merge(t, out, top.left, top.right)) return false;
    for (uint32_t i = 0; i < now.n; i++)
        if (!merge_word(t, now.word[i], top.left, top.right, made)) return false;
    return push_new(t, now.word, now.n, made);
}

static bool learn(Trainer *t, BpeTrained *out, int32_t tokens, int64_t least)
{
    for (uint32_t w = 0; w < t->n_word; w++)
        if (!word_pairs(t, w, 1, -1)) return false;
    for (uint32_t i = 0; i < t->pairs; i++)
        if (t->pair[i].left >= 0 && !push_pair(t, &t->pair[i])) return false;
    while (t->n_token < tokens && t->n_heap > 0) {
        const Entry top = heap_pop(t);
        Pair *p = pair_slot(t->pair, t->pairs, top.left, top.right);
        bool ok = true;
        if (p->count < least) p->pushed = -1;
        else if (p->count == top.count) ok = merge_all(t, top, out);
        else if (p->count < top.count) ok = push_pair(t, p);
        if (!ok) return false;
    }
    return true;
}

bool bpe_train(BpeTrained *out, const BpeTraining *o, Arena *a, Err *e)
{
    Trainer t = {.a = a, .e = e};
    const long least = 256 + (long)o->n_special;
    if (o->vocab < least || o->vocab > 10000000)
        return err_set(e, ERR_USAGE,
                       "train-tokenizer: vocabulary %ld: %ld (bytes and specials) to 10,000,000", o->vocab,
                       least);
    const int32_t tokens = (int32_t)(o->vocab - least) + 256;
    *out = (BpeTrained){0};
    for (t.names = 1024; t.names < 2 * (uint32_t)tokens;) t.names *= 2;
    t.token = arena_alloc(a, ((size_t)tokens + 1) * sizeof *t.token, e);
    t.name = arena_alloc(a, t.names * sizeof *t.name, e);
    if (!t.token || !t.name) return false;
    for (; t.n_token < 256; t.n_token++) t.token[t.n_token] = (TokSpan){token_byte_text[t.n_token], 1};
    if (!count_files(&t, o)) return false;
    out->n_word = t.n_word;
    const bool ok = learn(&t, out, tokens, o->min_count > 1 ? o->min_count : 1);
    out->n_token = t.n_token;
    return ok;
}
