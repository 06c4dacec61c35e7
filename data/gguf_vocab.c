/* data/gguf_vocab.c: the vocabulary inside a GGUF file as a Tokenizer.
 *
 *   tokenizer.ggml.model   becomes
 *   llama                  SentencePiece BPE: tokens, scores, token_type
 *   t5                     SentencePiece unigram, with precompiled_charsmap
 *   gpt2                   byte-level BPE: tokens in ByteLevel's letters, merges; pre names the pattern
 *   bert                   WordPiece: U+2581 in front of what begins a word, nothing in front of
 *                          a continuation
 *
 * token_type: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. gpt2: types 3 and 4 are added
 * tokens. What the header does not say is never guessed: another model, a missing or unknown `pre`
 * without tokenizer.pattern, a list of the wrong type or length are refused by name. Field list:
 * docs/gguf.md of ggml.
 */
#include "data/pipeline_impl.h"
#include "data/spm_impl.h"
#include "data/tokenizer_json_impl.h"
#include "data/utf8_impl.h"
#include "data/wordpiece_impl.h"
#include <math.h>
#include <string.h>

#define KEY(s) "tokenizer.ggml." s

typedef struct Vocab {
    Tokenizer *t;
    Gguf g;
    TokSpan *token; /* [n] copies, NUL behind */
    const GgufValue *type, *score, *merges;
    size_t n;
    Arena *a;
    Err *e;
} Vocab;

static bool refuse(Vocab *v, const char *key, const char *what)
{
    return err_set(v->e, ERR_CORRUPT, "%s: GGUF: %s %s", v->t->path, key, what);
}

/* Copies of a list of strings, NULL with e. */
static TokSpan *strings(Vocab *v, const char *key, size_t *n)
{
    const GgufValue *x = gguf_find(&v->g, key);
    GgufText s;
    if (!x || x->type != GGUF_ARRAY || x->item != GGUF_STRING || x->n == 0 || x->n > (1 << 24)) {
        refuse(v, key, "is not a list of strings");
        return NULL;
    }
    TokSpan *out = arena_alloc(v->a, (size_t)x->n * sizeof *out, v->e);
    char *slab = arena_alloc(v->a, x->bytes + 1, v->e); /* 8 bytes of length make room for each NUL */
    if (!out || !slab) return NULL;
    *n = 0;
    for (size_t at = 0; gguf_string(x, &at, &s); ++*n) {
        for (size_t i = 0, len; i < s.bytes; i += len)
            if ((len = utf8_next(s.s + i, s.bytes - i, NULL)) == 0) {
                refuse(v, key, "has a string that is not UTF-8");
                return NULL;
            }
        if (s.bytes > 65535) {
            refuse(v, key, "has a string of more than 65,535 bytes");
            return NULL;
        }
        memcpy(slab, s.s, s.bytes);
        out[*n] = (TokSpan){slab, s.bytes};
        slab += s.bytes + 1;
    }
    return out;
}

/* A list of n items of one type, NULL when it is not there. */
static const GgufValue *list_of(Vocab *v, const char *key, GgufType item, bool optional)
{
    const GgufValue *x = gguf_find(&v->g, key);
    if (!x && optional) return NULL;
    if (x && x->type == GGUF_ARRAY && x->item == item && x->n == v->n) return x;
    refuse(v, key, x ? "is not a list of one number for each token" : "is missing");
    return NULL;
}

/* "" when it is not there. */
static const char *text_of(Vocab *v, const char *key)
{
    const GgufValue *x = gguf_find(&v->g, key);
    GgufText s;
    size_t at = 0;
    if (!x) return "";
    if (x->type == GGUF_STRING && gguf_string(x, &at, &s) && !memchr(s.s, 0, s.bytes)) {
        const char *copy = arena_strndup(v->a, s.s, s.bytes, v->e);
        return copy ? copy : "";
    }
    refuse(v, key, "is not a text");
    return "";
}

static bool flag(Vocab *v, const char *key, bool fallback)
{
    const GgufValue *x = gguf_find(&v->g, key);
    if (x && x->type != GGUF_BOOL) refuse(v, key, "is not a bool");
    return x && x->type == GGUF_BOOL ? gguf_int(x, 0) != 0 : fallback;
}

/* A token id; fallback when it is not there. */
static int token_id(Vocab *v, const char *key, int fallback)
{
    const GgufValue *x = gguf_find(&v->g, key);
    if (!x) return fallback;
    const int64_t id = x->type == GGUF_U32 || x->type == GGUF_I32 ? gguf_int(x, 0) : -1;
    if (id >= 0 && (uint64_t)id < v->n) return (int)id;
    refuse(v, key, "is no id of the vocabulary");
    return -1;
}

/* add_bos_token and add_eos_token; what they are where the file does not say: as llama.cpp has it. */
static bool framed(Vocab *v, bool bos, bool eos)
{
    bos = flag(v, KEY("add_bos_token"), bos);
    eos = flag(v, KEY("add_eos_token"), eos);
    return !v->e->code && tokenizer_frame(v->t, bos, eos, v->a, v->e);
}

static int type_of(const Vocab *v, size_t id) { return v->type ? (int)gguf_int(v->type, id) : SPM_NORMAL; }

static bool types_known(Vocab *v)
{
    for (size_t i = 0; i < v->n; i++)
        if (type_of(v, i) < SPM_NORMAL || type_of(v, i) > SPM_BYTE)
            return refuse(v, KEY("token_type"), "has a type that is none of 1 to 6");
    return true;
}

static bool pre_is(Vocab *v, const char *model, const char *names)
{
    const char *pre = text_of(v, KEY("pre"));
    const size_t n = strlen(pre);
    if (v->e->code) return false;
    for (const char *s = names; n > 0 && s; s = strchr(s, '|'), s = s ? s + 1 : NULL)
        if (strncmp(s, pre, n) == 0 && (s[n] == '|' || s[n] == 0)) return true;
    return n == 0 || err_set(v->e, ERR_USAGE,
                             "%s: GGUF: tokenizer.ggml.pre `%.80s` of model `%s`: not in this version (%s)",
                             v->t->path, pre, model, names);
}

/* ---- llama, t5 ----------------------------------------------------------------------------------------- */

static bool spm_pieces(Vocab *v, Spm *m)
{
    m->vocab = (int)v->n;
    m->piece = arena_alloc(v->a, v->n * sizeof *m->piece, v->e);
    if (!m->piece) return false;
    for (size_t i = 0; i < v->n; i++) {
        SpmPiece *s = &m->piece[i];
        *s = (SpmPiece){.text = v->token[i].s,
                        .bytes = (uint32_t)v->token[i].n,
                        .score = gguf_f32(v->score, i),
                        .type = (SpmType)type_of(v, i)};
        if (s->bytes == 0) return refuse(v, KEY("tokens"), "has an empty token");
        if (!isfinite(s->score)) return refuse(v, KEY("scores"), "has a score that is not finite");
        if (s->type == SPM_BYTE) m->byte_fallback = true;
    }
    return true;
}

static bool spm_vocab(Vocab *v, bool unigram)
{
    Spm *m = arena_alloc(v->a, sizeof *m, v->e);
    const GgufValue *map = gguf_find(&v->g, KEY("precompiled_charsmap"));
    v->score = list_of(v, KEY("scores"), GGUF_F32, false);
    if (!m || v->e->code || !pre_is(v, unigram ? "t5" : "llama", "default")) return false;
    *m = (Spm){.path = v->t->path,
               .unk = -1,
               .model_type = unigram ? 1 : 2,
               .unk_surface = " \xE2\x81\x87 ",
               .bos_piece = "<s>",
               .eos_piece = "</s>",
               .escape_whitespaces = true};
    m->add_dummy_prefix = flag(v, KEY("add_space_prefix"), true);
    m->remove_extra_whitespaces = flag(v, KEY("remove_extra_whitespaces"), unigram);
    if (map && (map->type != GGUF_ARRAY || (map->item != GGUF_U8 && map->item != GGUF_I8)))
        return refuse(v, KEY("precompiled_charsmap"), "is not a list of bytes");
    if (map && map->bytes > 0 &&
        !(m->map = charsmap_open((const char *)map->data, map->bytes, v->t->path, v->a, v->e)))
        return false;
    if (v->e->code || !spm_pieces(v, m) || !spm_finish(m, v->a, v->e)) return false;
    m->bos = token_id(v, KEY("bos_token_id"), m->bos);
    m->eos = token_id(v, KEY("eos_token_id"), m->eos);
    v->t->impl = m;
    v->t->ops = &spm_ops;
    v->t->vocab = m->vocab;
    v->t->bos = m->bos;
    v->t->eos = m->eos;
    v->t->unk = m->unk;
    return !v->e->code && framed(v, !unigram, unigram);
}

/* ---- gpt2 ---------------------------------------------------------------------------------------------- */

static bool merges_of(Vocab *v, BpeSpec *b)
{
    TokSpan *line = strings(v, KEY("merges"), &b->n_merge);
    TokSpan *left = line ? arena_alloc(v->a, 2 * b->n_merge * sizeof *left, v->e) : NULL;
    if (!left) return false;
    TokSpan *right = left + b->n_merge;
    for (size_t i = 0; i < b->n_merge; i++)
        if (!bpe_merge_split(line[i].s, line[i].n, &left[i], &right[i]))
            return refuse(v, KEY("merges"), "has a merge that is not two tokens");
    b->left = left;
    b->right = right;
    return true;
}

static bool add_tokens(Vocab *v, Pipeline *p)
{
    size_t cap = 0;
    for (size_t i = 0; i < v->n; i++) {
        const int type = type_of(v, i);
        if (type != SPM_CONTROL && type != SPM_USER && type != SPM_UNKNOWN) continue;
        const AddedToken x = {.id = (int32_t)i, .text = v->token[i], .special = type != SPM_USER};
        if (v->token[i].n == 0) return refuse(v, KEY("tokens"), "has an empty added token");
        if (!pipeline_add(p, x, &cap, v->a, v->e)) return false;
    }
    return true;
}

static const struct {
    const char *name, *family;
    bool whole;
} pre_names[] = {
#define PRE(n, f, w) {n, f, w},
#include "data/gguf_pre.def"
#undef PRE
};
enum { N_PRE = (int)(sizeof pre_names / sizeof *pre_names) };

/* What the file says; where it says nothing of use, what tokenizer.pattern says. */
static bool family_of(Vocab *v, const char **family, bool *whole)
{
    const char *name = text_of(v, KEY("pre")), *said = v->t->how ? v->t->how->pattern : NULL;
    int i = 0;
    while (i < N_PRE && strcmp(pre_names[i].name, name) != 0) i++;
    if (v->e->code) return false;
    if (i < N_PRE && said && *said && strcmp(said, pre_names[i].family) != 0)
        return err_set(
            v->e, ERR_USAGE,
            "%s: GGUF: tokenizer.ggml.pre `%s` means the pattern %s, tokenizer.pattern says %s: leave "
            "tokenizer.pattern out",
            v->t->path, name, pre_names[i].family, said);
    if (i == N_PRE && said && *said) { /* whole: as the family's own entry has it */
        for (i = 0; i < N_PRE && strcmp(pre_names[i].family, said) != 0;) i++;
        *family = said;
        *whole = i < N_PRE && pre_names[i].whole;
        return true;
    }
    if (i == N_PRE)
        return err_set(
            v->e, ERR_USAGE,
            "%s: GGUF: tokenizer.ggml.pre %s%.80s%s does not name a split pattern of this version: "
            "set tokenizer.pattern (--pattern) to the model's family (gpt2, llama3, qwen2, ...), or "
            "give the tokenizer.json of the model",
            v->t->path, *name ? "`" : "(missing)", name, *name ? "`" : "");
    *family = pre_names[i].family;
    *whole = pre_names[i].whole;
    return true;
}

static bool bpe_vocab(Vocab *v)
{
    Pipeline *p = arena_alloc(v->a, sizeof *p, v->e);
    BpeSpec b = {.n_piece = (int32_t)v->n, .byte_level = true, .unk = -1};
    TokSpan *piece = arena_alloc(v->a, v->n * sizeof *piece, v->e);
    const char *family = "";
    if (!p || !piece || !family_of(v, &family, &b.ignore_merges) || !pipeline_preset(p, family, v->a, v->e))
        return false;
    for (size_t i = 0; i < v->n; i++)
        if (type_of(v, i) == SPM_NORMAL || type_of(v, i) == SPM_BYTE) piece[i] = v->token[i];
    b.piece = piece;
    if (!merges_of(v, &b) || !bpe_open(p, &b, v->t->path, v->a, v->e) || !add_tokens(v, p)) return false;
    v->t->bos = token_id(v, KEY("bos_token_id"), -1);
    v->t->eos = token_id(v, KEY("eos_token_id"), -1);
    return !v->e->code && pipeline_finish(v->t, p, v->a, v->e) &&
           framed(v, strcmp(family, "llama3") == 0, false);
}

/* ---- bert ---------------------------------------------------------------------------------------------- */

/* The spelling of vocab.txt: without U+2581, or with ## in front; [CLS] and its like as they are. */
static bool bert_piece(Vocab *v, size_t id, TokSpan *out)
{
    const TokSpan x = v->token[id];
    *out = x;
    if (x.n >= 3 && memcmp(x.s, SPM_SPACE, 3) == 0) {
        *out = (TokSpan){x.s + 3, x.n - 3};
    } else if (x.n < 2 || x.s[0] != '[' || x.s[x.n - 1] != ']') {
        char *s = arena_alloc(v->a, x.n + 3, v->e);
        if (s) memcpy(s, "##", 2), memcpy(s + 2, x.s, x.n); /* which may hold a zero byte */
        *out = (TokSpan){s, x.n + 2};
        return s != NULL;
    }
    return true;
}

static bool bert_vocab(Vocab *v)
{
    Pipeline *p = arena_alloc(v->a, sizeof *p, v->e);
    TokSpan *piece = arena_alloc(v->a, v->n * sizeof *piece, v->e);
    WordPieceSpec w = {.piece = piece, .n = (int32_t)v->n, .prefix = {"##", 2}, .max_chars = 100};
    if (!p || !piece || !pre_is(v, "bert", "default|bert-bge|jina-v2-en")) return false;
    for (size_t i = 0; i < v->n; i++)
        if (!bert_piece(v, i, &piece[i])) return false;
    w.unk = token_id(v, KEY("unknown_token_id"), -1);
    if (w.unk < 0) return refuse(v, KEY("unknown_token_id"), "is missing");
    v->t->unk = w.unk;
    return wordpiece_open(p, &w, v->t->path, v->a, v->e) &&
           wordpiece_bert(v->t, p, true, true, -1, v->a, v->e) && pipeline_finish(v->t, p, v->a, v->e);
}

/* ---- opening ------------------------------------------------------------------------------------------- */

static bool vocab_of(Vocab *v)
{
    const char *model = text_of(v, KEY("model"));
    if (v->e->code) return false;
    if (!*model) return refuse(v, KEY("model"), "is missing: a file without vocabulary");
    v->token = strings(v, KEY("tokens"), &v->n);
    if (!v->token) return false;
    v->type = list_of(v, KEY("token_type"), GGUF_I32, true);
    if (v->e->code || !types_known(v)) return false;
    const char *chat = text_of(v, "tokenizer.chat_template");
    v->t->chat_template = *chat ? chat : NULL;
    if (strcmp(model, "llama") == 0) return spm_vocab(v, false);
    if (strcmp(model, "t5") == 0) return spm_vocab(v, true);
    if (strcmp(model, "gpt2") == 0) return bpe_vocab(v);
    if (strcmp(model, "bert") == 0) return bert_vocab(v);
    return err_set(
        v->e, ERR_USAGE,
        "%s: GGUF: tokenizer.ggml.model `%.80s`: not in this version (llama, t5, gpt2 and bert are)",
        v->t->path, model);
}

bool gguf_vocab_open(Tokenizer *t, Arena *a, Err *e)
{
    FileMap map;
    Vocab v = {.t = t, .a = a, .e = e};
    if (!file_map(&map, t->path, e)) return false;
    const bool ok = gguf_read(&v.g, map.data, map.bytes, t->path, a, e) && vocab_of(&v);
    file_unmap(&map);
    return ok && !e->code;
}
