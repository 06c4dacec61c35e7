/* data/tokenizer.c: opening a tokenizer by its path and what all kinds share.
 *
 * A file's name says its kind; the kind "bytes" is here: ids 0..255 are the bytes, 256 stands before a
 * document and ends one, vocabulary 257.
 */
#include "data/tokenizer_impl.h"
#include <string.h>
#include <sys/stat.h>

const char token_byte_text[256][2] = {
#define B1(i)                                                                                                \
    {                                                                                                        \
        (char)(i), 0                                                                                         \
    }
#define B8(i) B1(i), B1(i + 1), B1(i + 2), B1(i + 3), B1(i + 4), B1(i + 5), B1(i + 6), B1(i + 7)
#define B64(i) B8(i), B8(i + 8), B8(i + 16), B8(i + 24), B8(i + 32), B8(i + 40), B8(i + 48), B8(i + 56)
    B64(0), B64(64), B64(128), B64(192)};

bool tokenbuf_push(TokenBuf *b, int32_t id, Arena *a, Err *e)
{
    if (b->n == b->cap) {
        const size_t cap = b->cap ? 2 * b->cap : 64;
        int32_t *p = arena_grow(a, b->id, b->n * sizeof *p, cap * sizeof *p, e);
        if (!p) return false;
        b->id = p;
        b->cap = cap;
    }
    b->id[b->n++] = id;
    return true;
}

static bool ends_with(const char *s, const char *tail)
{
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && memcmp(s + n - m, tail, m) == 0;
}

static bool is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

typedef bool Opener(Tokenizer *t, Arena *a, Err *e);

/* A file called tokenizer.model or anything else: ranks in lines, or SentencePiece's protobuf. */
static bool model_open(Tokenizer *t, Arena *a, Err *e)
{
    FileMap m;
    if (!file_map(&m, t->path, e)) return false;
    const bool ranks = tiktoken_looks_like(m.data, m.bytes);
    file_unmap(&m);
    return ranks ? tiktoken_open(t, a, e) : spm_open(t, a, e);
}

/* In a folder the first of these names counts. */
static const struct {
    const char *name;
    Opener *open;
} kind[] = {{"tokenizer.json", tokenizer_json_open},
            {"tokenizer.model", model_open},
            {"vocab.json", vocab_json_open},
            {"encoder.json", vocab_json_open},
            {"vocab.txt", vocab_txt_open},
            {".tiktoken", tiktoken_open},
            {".gguf", gguf_vocab_open},
            {".json", tokenizer_json_open}};

/* The file that path means; NULL with e when there is none. */
static const char *file_of(const char *path, Arena *a, Err *e)
{
    if (!is_dir(path)) return path;
    for (size_t i = 0; i < 5; i++) {
        const char *p = path_join(a, path, kind[i].name, e);
        if (!p || file_exists(p)) return p;
    }
    err_set(
        e, ERR_USAGE,
        "tokenizer: %s holds no tokenizer.json, tokenizer.model, vocab.json with merges.txt, encoder.json or "
        "vocab.txt; name the file, or `bytes`",
        path);
    return NULL;
}

static Opener *opener_of(const char *path, Err *e)
{
    if (ends_with(path, ".bin")) {
        err_set(e, ERR_USAGE,
                "tokenizer: %s: llama2.c tokenizer files are not read; give the tokenizer.model beside it",
                path);
        return NULL;
    }
    for (size_t i = 0; i < sizeof kind / sizeof *kind; i++)
        if (ends_with(path, kind[i].name)) return kind[i].open;
    return model_open;
}

bool text_put(TokText *t, const char *s, size_t n, Arena *a, Err *e)
{
    if (n > t->cap - t->n) {
        const size_t cap = t->cap + n > 2 * t->cap ? t->cap + n + 64 : 2 * t->cap;
        char *p = arena_grow(a, t->s, t->n, cap, e);
        if (!p) return false;
        t->s = p;
        t->cap = cap;
    }
    if (n) memcpy(t->s + t->n, s, n);
    t->n += n;
    return true;
}

/* ---- the kind "bytes" ---------------------------------------------------------------------------------- */

static bool bytes_encode(const Tokenizer *t, const char *text, size_t bytes, TokenBuf *out, uint64_t *steps,
                         Arena *a, Err *e)
{
    (void)t, (void)steps;
    for (size_t i = 0; i < bytes; i++)
        if (!tokenbuf_push(out, (unsigned char)text[i], a, e)) return false;
    return true;
}

static char *bytes_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e)
{
    (void)t;
    char *s = arena_alloc(a, n + 1, e);
    size_t m = 0;
    for (size_t i = 0; s && i < n; i++)
        if (ids[i] < 256) s[m++] = (char)ids[i];
    if (bytes) *bytes = m;
    return s;
}

static const char *bytes_piece(const Tokenizer *t, int prev, int id, size_t *bytes)
{
    (void)t, (void)prev;
    *bytes = id < 256;
    return id < 256 ? token_byte_text[id] : "";
}

static bool bytes_digest(const Tokenizer *t, TokText *out, Arena *a, Err *e)
{
    (void)t;
    return text_put(out, "bytes", 5, a, e);
}

static const TokenizerOps bytes_ops = {"bytes", bytes_encode, bytes_decode, bytes_piece, bytes_digest};

static bool bytes_open(Tokenizer *t, Arena *a, Err *e)
{
    (void)a, (void)e;
    t->ops = &bytes_ops;
    t->vocab = 257;
    t->bos = t->eos = 256;
    return true;
}

/* ---- all kinds ----------------------------------------------------------------------------------------- */

static bool content_hash(Tokenizer *t, Err *e)
{
    Arena tmp = {.name = "tokenizer hash"};
    TokText all = {0};
    const int32_t head[3] = {t->vocab, t->bos, t->eos};
    const bool ok = text_put(&all, (const char *)head, sizeof head, &tmp, e) &&
                    t->ops->digest(t, &all, &tmp, e);
    if (ok) hash128_hex(t->hash, all.s, all.n);
    arena_free(&tmp);
    return ok;
}

bool tokenizer_frame(Tokenizer *t, bool bos, bool eos, Arena *a, Err *e)
{
    int32_t *id = arena_alloc(a, 2 * sizeof *id, e);
    if (!id) return false;
    id[0] = t->bos;
    id[1] = t->eos;
    t->framed = true;
    t->before = id;
    t->after = id + 1;
    t->n_before = bos && t->bos >= 0;
    t->n_after = eos && t->eos >= 0;
    return true;
}

/* tokenizer.add_bos: 1 true, 0 false, -1 auto. */
static int bos_rule(const Tokenizer *t)
{
    const char *s = t->how ? t->how->add_bos : NULL;
    return !s || !strcmp(s, "auto") ? -1 : !strcmp(s, "true");
}

Tokenizer *tokenizer_open_as(const char *path, const TokenizerConfig *how, Arena *a, Err *e)
{
    Tokenizer *t = arena_alloc(a, sizeof *t, e);
    if (!t) return NULL;
    const bool bytes = strcmp(path, "bytes") == 0;
    *t = (Tokenizer){.bos = -1, .eos = -1, .unk = -1, .how = how};
    if (!bytes) path = file_of(path, a, e);
    t->path = path ? arena_strdup(a, path, e) : NULL;
    Opener *const open = bytes ? bytes_open : t->path ? opener_of(path, e) : NULL;
    if (!t->path || !open || !open(t, a, e)) return NULL;
    if (bos_rule(t) > 0 && t->bos < 0) {
        err_set(e, ERR_USAGE, "tokenizer.add_bos: true, but %s has no BOS token", t->path);
        return NULL;
    }
    return content_hash(t, e) ? t : NULL;
}

Tokenizer *tokenizer_open(const char *path, Arena *a, Err *e) { return tokenizer_open_as(path, NULL, a, e); }

int tokenizer_vocab(const Tokenizer *t) { return t->vocab; }
int tokenizer_bos(const Tokenizer *t) { return t->bos; }
int tokenizer_eos(const Tokenizer *t) { return t->eos; }
const char *tokenizer_hash(const Tokenizer *t) { return t->hash; }
const char *tokenizer_path(const Tokenizer *t) { return t->path; }
void tokenizer_set_path(Tokenizer *t, const char *path) { t->path = path; }
const char *tokenizer_kind(const Tokenizer *t) { return t->ops->kind; }
const char *tokenizer_chat_template(const Tokenizer *t) { return t->chat_template; }

bool tokenizer_encode(const Tokenizer *t, const char *text, size_t bytes, bool bos, TokenBuf *out, Arena *a,
                      Err *e)
{
    if (bos && t->bos >= 0 && !tokenbuf_push(out, t->bos, a, e)) return false;
    return t->ops->encode(t, text, bytes, out, NULL, a, e);
}

bool tokenizer_adds_bos(const Tokenizer *t)
{
    if (bos_rule(t) >= 0) return bos_rule(t) > 0;
    return t->bos >= 0 && (!t->framed || (t->n_before > 0 && t->before[0] == t->bos));
}

bool tokenizer_document_bos(const Tokenizer *t, bool otherwise)
{
    return bos_rule(t) < 0 ? otherwise : bos_rule(t) > 0;
}

bool tokenizer_encode_framed(const Tokenizer *t, const char *text, size_t bytes, TokenBuf *out, Arena *a,
                             Err *e)
{
    const int rule = bos_rule(t);
    if (!t->framed) return tokenizer_encode(t, text, bytes, rule != 0, out, a, e);
    if (rule > 0 && !(t->n_before && t->before[0] == t->bos) && !tokenbuf_push(out, t->bos, a, e))
        return false;
    for (size_t i = 0; i < t->n_before; i++)
        if ((rule || t->before[i] != t->bos) && !tokenbuf_push(out, t->before[i], a, e)) return false;
    if (!t->ops->encode(t, text, bytes, out, NULL, a, e)) return false;
    for (size_t i = 0; i < t->n_after; i++)
        if (!tokenbuf_push(out, t->after[i], a, e)) return false;
    return true;
}

char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e)
{
    for (size_t i = 0; i < n; i++) {
        if (ids[i] >= 0 && ids[i] < t->vocab) continue;
        err_set(e, ERR_CORRUPT, "decode: id %d at position %zu is outside the vocabulary of %d (%s)", ids[i],
                i, t->vocab, t->path);
        return NULL;
    }
    return t->ops->decode(t, ids, n, bytes, a, e);
}

const char *tokenizer_piece(const Tokenizer *t, int prev, int id, size_t *bytes)
{
    size_t n = 0;
    const char *s = id >= 0 && id < t->vocab ? t->ops->piece(t, prev, id, &n) : "";
    if (bytes) *bytes = n;
    return s;
}
