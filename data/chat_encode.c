/* data/chat_encode.c: a conversation as tokens. Special tokens of the template's literal parts become their
 * ids; what lies between two of them, literal or not, is encoded in one piece, so that the ids are those of
 * the rendered text. A message that spells a special token never becomes one.
 *
 * Trained: the assistant's texts with what ends their turns. Where a trained part begins inside an encoded
 * piece, the first trained token is the first one that the text in front, encoded alone, does not have: a
 * token that spans the border is trained.
 */
#include "data/chat_impl.h"
#include <string.h>

typedef struct Run {
    char *s;
    size_t n, cap;
    size_t *edge; /* bytes at which trained changes, the first at 0 */
    bool *on;
    size_t n_edge, edge_cap;
} Run;

static bool run_add(Run *r, const char *s, size_t n, bool trained, Arena *a, Err *e)
{
    if (r->n + n > r->cap) {
        const size_t cap = r->n + n + 256 > 2 * r->cap ? r->n + n + 256 : 2 * r->cap;
        char *p = arena_grow(a, r->s, r->n, cap, e);
        if (!p) return false;
        r->s = p;
        r->cap = cap;
    }
    if (r->n_edge == r->edge_cap) {
        const size_t cap = r->edge_cap ? 2 * r->edge_cap : 16;
        size_t *p = arena_grow(a, r->edge, r->n_edge * sizeof *p, cap * sizeof *p, e);
        bool *q = arena_grow(a, r->on, r->n_edge * sizeof *q, cap * sizeof *q, e);
        if (!q) return false;
        r->edge = p;
        r->on = q;
        r->edge_cap = cap;
    }
    if (r->n_edge == 0 || r->on[r->n_edge - 1] != trained) {
        r->edge[r->n_edge] = r->n;
        r->on[r->n_edge++] = trained;
    }
    memcpy(r->s + r->n, s, n);
    r->n += n;
    return true;
}

static bool is_special(const Chat *c, int32_t id)
{
    size_t n = 1;
    if (id == tokenizer_bos(c->tk) || id == tokenizer_eos(c->tk)) return true;
    for (int i = 0; i < c->n_special; i++)
        if (c->special_id[i] == id) return true;
    tokenizer_piece(c->tk, tokenizer_bos(c->tk) == 0, id, &n); /* behind another token, not BOS */
    return n == 0;
}

/* Text (n,) that must hold no special token: where the tokenizer finds one, the text is cut behind the first
 * byte of it and both sides are encoded apart. */
static bool encode_plain(const Chat *c, const char *s, size_t n, TokenBuf *out, Arena *a, Err *e)
{
    while (n > 0) {
        const size_t had = out->n;
        if (!tokenizer_encode(c->tk, s, n, false, out, a, e)) return false;
        size_t at = 0, k = had;
        for (; k < out->n && !is_special(c, out->id[k]); k++) {
            size_t bytes;
            tokenizer_piece(c->tk, k > had ? out->id[k - 1] : -1, out->id[k], &bytes);
            at += bytes;
        }
        if (k == out->n) return true;
        out->n = had;
        if (n == 1) return err_set(e, ERR_CORRUPT, "a message holds a byte that is a special token");
        if (at >= n - 1) at = n / 2 ? n / 2 - 1 : 0;
        if (!encode_plain(c, s, at + 1, out, a, e)) return false;
        s += at + 1;
        n -= at + 1;
    }
    return true;
}

/* Ids of the run that its first `bytes` bytes, encoded alone, have too. *clean: all of theirs. */
static bool shared(const Chat *c, const Run *r, size_t bytes, const TokenBuf *all, size_t *n, bool *clean,
                   Arena *a, Err *e)
{
    TokenBuf part = {0};
    *n = 0;
    if (!encode_plain(c, r->s, bytes, &part, a, e)) return false;
    while (*n < part.n && *n < all->n && part.id[*n] == all->id[*n]) ++*n;
    *clean = *n == part.n;
    return true;
}

static bool run_flush(const Chat *c, Run *r, Stream *out, Arena *a, Err *e)
{
    TokenBuf ids = {0};
    if (r->n == 0) return true;
    if (!encode_plain(c, r->s, r->n, &ids, a, e)) return false;
    uint8_t *mark = arena_alloc(a, ids.n + 1, e);
    if (!mark) return false;
    size_t from = 0;
    for (size_t k = 0; k < r->n_edge; k++) {
        size_t to = ids.n;
        bool clean = true;
        if (k + 1 < r->n_edge) {
            if (!shared(c, r, r->edge[k + 1], &ids, &to, &clean, a, e)) return false;
            if (r->on[k] && !clean && to < ids.n) to++;
        }
        for (size_t i = from; i < to; i++) mark[i] = r->on[k];
        if (to > from) from = to;
    }
    r->n = r->n_edge = 0;
    return stream_put(out, ids.id, mark, ids.n, a, e);
}

/* The special token that s (n,) begins with: its bytes, 0 = none. */
static size_t special_at(const Chat *c, const char *s, size_t n, int32_t *id)
{
    size_t best = 0;
    if (n > 0 && (*s == CHAT_BOS[0] || *s == CHAT_EOS[0])) {
        *id = *s == CHAT_BOS[0] ? tokenizer_bos(c->tk) : tokenizer_eos(c->tk);
        return 1;
    }
    for (int i = 0; i < c->n_special; i++) {
        const size_t m = strlen(c->special[i]);
        if (m <= best || m > n || memcmp(s, c->special[i], m) != 0) continue;
        best = m;
        *id = c->special_id[i];
    }
    return best;
}

static bool put_literal(const Chat *c, Run *r, const ChatPart *p, Stream *out, bool mask, Arena *a, Err *e)
{
    size_t from = 0, i = 0;
    while (i < p->n) {
        int32_t id = -1;
        const size_t m = special_at(c, p->s + i, p->n - i, &id);
        if (m == 0) {
            i++;
            continue;
        }
        const uint8_t mark = p->trained || !mask;
        if (i > from && !run_add(r, p->s + from, i - from, mark, a, e)) return false;
        if (!run_flush(c, r, out, a, e)) return false;
        if (id >= 0 && !stream_put(out, &id, &mark, 1, a, e)) return false;
        from = i += m;
    }
    return from == p->n || run_add(r, p->s + from, p->n - from, p->trained || !mask, a, e);
}

bool chat_encode(const Chat *c, const Message *m, size_t n, bool mask, Stream *out, Arena *a, Err *e)
{
    ChatPart *part;
    size_t n_part;
    Run r = {0};
    if (!chat_parts(c->style, m, n, &part, &n_part, a, e)) return false;
    for (size_t i = 0; i < n_part; i++) {
        const ChatPart *p = &part[i];
        if (p->literal ? !put_literal(c, &r, p, out, mask, a, e)
                       : !run_add(&r, p->s, p->n, p->trained || !mask, a, e))
            return false;
    }
    return run_flush(c, &r, out, a, e);
}

/* llama2's lead-in is the model's own to write; every other template's stands in front of the answer. */
bool chat_prompt(const Tokenizer *tk, const char *how, const char *system, const char *user, TokenBuf *out,
                 int *stop, Arena *a, Err *e)
{
    ChatPart *part;
    size_t n_part, n = 0;
    Run r = {0};
    Stream all = {0};
    Message m[2];
    const Chat *c = chat_open(how, tk, a, e);
    if (!c && !e->code)
        err_set(e, ERR_USAGE,
                "%s has no chat template: name one of the known ones, or a .jinja file, by --chat-template "
                "(in a config: data.chat_template)",
                tokenizer_path(tk));
    if (!c) return false;
    if (system) m[n++] = (Message){"system", system, strlen(system)};
    m[n++] = (Message){"user", user, strlen(user)};
    if (!chat_parts(c->style, m, n, &part, &n_part, a, e)) return false;
    for (size_t i = 0; i < n_part; i++)
        if (part[i].literal ? !put_literal(c, &r, &part[i], &all, true, a, e)
                            : !run_add(&r, part[i].s, part[i].n, false, a, e))
            return false;
    const ChatPart lead = {c->style->assistant, strlen(c->style->assistant), true, false};
    if (!(c->style->flags & CHAT_LEAD) && !put_literal(c, &r, &lead, &all, true, a, e)) return false;
    int32_t id = -1;
    const char *end = c->style->end + strspn(c->style->end, " ");
    *stop = special_at(c, end, strlen(end), &id) ? id : -1;
    if (!run_flush(c, &r, &all, a, e)) return false;
    *out = all.ids;
    return true;
}
