/* data/tokenizer.c: opening a tokenizer by its path and what all kinds share.
 *
 * Kinds: SentencePiece BPE (tokenizer.model) and "bytes" (ids 0..255 are the bytes, 256 stands before a
 * document and ends one, vocabulary 257). Whatever else lies at the path is refused by its name.
 */
#include "data/tokenizer_impl.h"
#include <string.h>
#include <sys/stat.h>

static const char byte_text[256][2] = {
#define B1(i)                                                                                                \
    {                                                                                                        \
        (char)(i), 0                                                                                         \
    }
#define B8(i)  B1(i), B1(i + 1), B1(i + 2), B1(i + 3), B1(i + 4), B1(i + 5), B1(i + 6), B1(i + 7)
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

/* The tokenizer.model that path means, NULL with e set when it is of a kind not read here. */
static const char *model_path(const char *path, Arena *a, Err *e)
{
    static const char *const later[] = {"tokenizer.json", "vocab.json", "encoder.json", "vocab.txt"};
    if (is_dir(path)) {
        const char *p = path_join(a, path, "tokenizer.model", e);
        if (!p || file_exists(p)) return p;
        for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
            const char *q = path_join(a, path, later[i], e);
            if (!q) return NULL;
            if (file_exists(q)) {
                err_set(e, ERR_USAGE, "tokenizer: %s: not in this version (tokenizer.model is)", q);
                return NULL;
            }
        }
        err_set(e, ERR_USAGE, "tokenizer: %s holds no tokenizer.model; name the file, or `bytes`", path);
        return NULL;
    }
    if (ends_with(path, ".json") || ends_with(path, ".tiktoken") || ends_with(path, ".gguf") ||
        ends_with(path, ".bpe")) {
        err_set(e, ERR_USAGE,
                "tokenizer: %s: this kind is not in this version (tokenizer.model and `bytes` are)", path);
        return NULL;
    }
    if (ends_with(path, ".bin")) {
        err_set(e, ERR_USAGE,
                "tokenizer: %s: llama2.c tokenizer files are not read; give the tokenizer.model beside it",
                path);
        return NULL;
    }
    return path;
}

/* Hash of everything that ids depend on: rules, then type, score and text of each piece. */
static bool content_hash(Tokenizer *t, Err *e)
{
    Arena tmp = {.name = "tokenizer hash"};
    size_t total = 64, n = 0;
    for (int i = 0; i < t->vocab && t->piece; i++) total += 9 + (size_t)t->piece[i].bytes;
    unsigned char *p = arena_alloc(&tmp, total, e);
    if (!p) return false;
    const int32_t head[4] = {(int32_t)t->kind, t->vocab, t->bos, t->eos};
    const unsigned char rules[4] = {t->add_dummy_prefix, t->remove_extra_whitespaces, t->escape_whitespaces,
                                    t->byte_fallback};
    memcpy(p, head, sizeof head);
    memcpy(p + sizeof head, rules, sizeof rules);
    n = sizeof head + sizeof rules;
    for (int i = 0; i < t->vocab && t->piece; i++) {
        const SpmPiece *s = &t->piece[i];
        p[n] = (unsigned char)s->type;
        memcpy(p + n + 1, &s->score, 4);
        memcpy(p + n + 5, &s->bytes, 4);
        memcpy(p + n + 9, s->text, s->bytes);
        n += 9 + s->bytes;
    }
    hash128_hex(t->hash, p, n);
    arena_free(&tmp);
    return true;
}

Tokenizer *tokenizer_open(const char *path, Arena *a, Err *e)
{
    Tokenizer *t = arena_alloc(a, sizeof *t, e);
    if (!t) return NULL;
    if (strcmp(path, "bytes") == 0) {
        *t = (Tokenizer){.kind = TOK_BYTES, .path = "bytes", .vocab = 257, .bos = 256, .eos = 256, .unk = -1};
        return content_hash(t, e) ? t : NULL;
    }
    path = model_path(path, a, e);
    if (!path) return NULL;
    *t = (Tokenizer){.kind = TOK_SPM, .path = arena_strdup(a, path, e), .bos = -1, .eos = -1, .unk = -1};
    FileMap m;
    if (!t->path || !file_map(&m, path, e)) return NULL;
    const bool ok = spm_parse(t, m.data, m.bytes, a, e);
    file_unmap(&m);
    return ok && content_hash(t, e) ? t : NULL;
}

int tokenizer_vocab(const Tokenizer *t) { return t->vocab; }
int tokenizer_bos(const Tokenizer *t) { return t->bos; }
int tokenizer_eos(const Tokenizer *t) { return t->eos; }
const char *tokenizer_hash(const Tokenizer *t) { return t->hash; }
const char *tokenizer_path(const Tokenizer *t) { return t->path; }

bool tokenizer_encode(const Tokenizer *t, const char *text, size_t bytes, bool bos, TokenBuf *out, Arena *a,
                      Err *e)
{
    if (bos && t->bos >= 0 && !tokenbuf_push(out, t->bos, a, e)) return false;
    if (t->kind == TOK_SPM) return spm_encode(t, text, bytes, out, NULL, a, e);
    for (size_t i = 0; i < bytes; i++)
        if (!tokenbuf_push(out, (unsigned char)text[i], a, e)) return false;
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
    if (t->kind == TOK_SPM) return spm_decode(t, ids, n, bytes, a, e);
    char *s = arena_alloc(a, n + 1, e);
    size_t m = 0;
    for (size_t i = 0; s && i < n; i++)
        if (ids[i] < 256) s[m++] = (char)ids[i];
    if (bytes) *bytes = m;
    return s;
}

const char *tokenizer_piece(const Tokenizer *t, int prev, int id, size_t *bytes)
{
    const char *s = "";
    size_t n = 0;
    if (id >= 0 && id < t->vocab && t->kind == TOK_BYTES && id < 256) {
        s = byte_text[id];
        n = 1;
    } else if (id >= 0 && id < t->vocab && t->kind == TOK_SPM) {
        const SpmPiece *p = &t->piece[id];
        const bool byte = p->type == SPM_BYTE;
        s = byte ? byte_text[p->byte] : p->plain;
        n = byte ? 1 : p->plain_bytes;
        const bool first = prev < 0 || prev == t->bos;
        if (!byte && first && t->add_dummy_prefix && n > 0 && memcmp(p->text, SPM_SPACE, 3) == 0) {
            s++;
            n--;
        }
    }
    if (bytes) *bytes = n;
    return s;
}
