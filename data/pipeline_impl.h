/* Private to data/: the pipeline of tokenizer.json as data.
 *
 *   text -> added tokens cut out -> normalizers -> added tokens cut out -> pre-tokenizers -> model -> ids
 *   ids -> pieces, specials dropped -> decoders -> text
 *
 * Sequences are flattened: each stage is one entry of an array. Byte-level models hold and see raw bytes: the
 * ByteLevel stage's letters for bytes exist in files only. Everything is read-only once opened, so any number
 * of threads may encode.
 */
#ifndef PIPELINE_IMPL_H
#define PIPELINE_IMPL_H
#include "data/regex_impl.h"
#include "data/tokenizer_impl.h"
#include <jansson.h>

/* ---- normalizers (normalize.c) ------------------------------------------------------------------------- */
typedef enum {
    NORM_NFC,
    NORM_NFD,
    NORM_NFKC,
    NORM_NFKD,
    NORM_LOWERCASE,
    NORM_STRIP,
    NORM_STRIP_ACCENTS,
    NORM_PREPEND,
    NORM_REPLACE,
    NORM_NMT,
    NORM_BERT,
    NORM_PRECOMPILED
} NormKind;
typedef struct Normalizer {
    NormKind kind;
    bool left, right;                               /* STRIP */
    bool clean_text, chinese, strip_accents, lower; /* BERT */
    TokSpan from, to;                               /* REPLACE by string; PREPEND: to */
    const Regex *regex;                             /* REPLACE by pattern, else NULL */
    const void *map;                                /* PRECOMPILED */
    TokSpan map_bytes;                              /* as in the file, for the digest */
} Normalizer;
/* Appends what n makes of s (bytes, valid UTF-8) to out. */
bool normalizer_apply(const Normalizer *n, const char *s, size_t bytes, TokText *out, Arena *a, Err *e);
/* unigram*.c: SentencePiece's precompiled character map (charsmap, bytes: decoded from base64, kept), and the
 * `Precompiled` normalizer of tokenizer.json by it. */
const void *precompiled_open(const char *charsmap, size_t bytes, Arena *a, Err *e);
bool precompiled_apply(const void *map, const char *s, size_t bytes, TokText *out, Arena *a, Err *e);

/* ---- pre-tokenizers (pretokenize.c) -------------------------------------------------------------------- */
typedef enum {
    PRE_BYTE_LEVEL, /* always last; its pattern, if any, is in regex */
    PRE_SPLIT,
    PRE_DIGITS,
    PRE_METASPACE,
    PRE_WHITESPACE,
    PRE_WHITESPACE_SPLIT,
    PRE_PUNCTUATION,
    PRE_BERT
} PreKind;
typedef enum {
    CUT_REMOVED,
    CUT_ISOLATED,
    CUT_MERGED_WITH_PREVIOUS,
    CUT_MERGED_WITH_NEXT,
    CUT_CONTIGUOUS
} Cut;
typedef enum { PREPEND_ALWAYS, PREPEND_NEVER, PREPEND_FIRST } PrependScheme;
typedef struct PreTokenizer {
    PreKind kind;
    bool add_prefix_space; /* BYTE_LEVEL */
    const Regex *regex;    /* SPLIT by pattern, BYTE_LEVEL with use_regex */
    TokSpan string;        /* SPLIT by string */
    const char *pattern;   /* the pattern as written */
    Cut cut;               /* SPLIT, PUNCTUATION */
    bool invert;           /* SPLIT */
    bool individual;       /* DIGITS */
    TokSpan replacement;   /* METASPACE */
    PrependScheme prepend; /* METASPACE */
    bool split;            /* METASPACE */
} PreTokenizer;

/* ---- models -------------------------------------------------------------------------------------------- */
typedef struct PieceModel {
    const char *kind; /* "BPE", "Unigram", "WordPiece": part of the digest */
    /* Appends the ids of one pre-token s (n,): valid UTF-8, or any bytes for byte-level BPE. scratch: freed
     * after the whole text; *cache: NULL at first, the model's own (in scratch), one text long. */
    bool (*encode)(const void *impl, const char *s, size_t n, void **cache, TokenBuf *out, uint64_t *steps,
                   Arena *scratch, Arena *a, Err *e);
    /* Text of a piece as in the file (byte-level: raw bytes), s NULL when the model has no such id. */
    TokSpan (*piece)(const void *impl, int32_t id);
    int32_t (*find)(const void *impl, const char *s, size_t n); /* -1 = none */
    /* Appends all that ids depend on beyond the pieces (merges, scores, rules). */
    bool (*digest)(const void *impl, TokText *out, Arena *a, Err *e);
} PieceModel;

/* ---- decoders (decode.c) ------------------------------------------------------------------------------- */
typedef enum {
    DEC_BYTE_LEVEL,
    DEC_BYTE_FALLBACK,
    DEC_FUSE,
    DEC_REPLACE,
    DEC_STRIP,
    DEC_METASPACE,
    DEC_WORD_PIECE,
    DEC_BPE /* from = suffix, becomes a space */
} DecKind;
typedef struct Decoder {
    DecKind kind;
    TokSpan from, to;   /* REPLACE; STRIP: from = the character; WORD_PIECE: from = prefix; METASPACE: from =
                              replacement */
    const Regex *regex; /* REPLACE by pattern */
    long start, stop;   /* STRIP */
    bool cleanup;       /* WORD_PIECE */
    PrependScheme prepend; /* METASPACE */
} Decoder;

/* ---- added tokens (added.c) ---------------------------------------------------------------------------- */
typedef struct AddedToken {
    int32_t id;
    TokSpan text;  /* content */
    TokSpan match; /* what is searched for: content, normalized if so flagged */
    bool single_word, lstrip, rstrip, normalized, special;
} AddedToken;
typedef struct AddedIndex AddedIndex; /* the tokens of one of the two searches */

typedef struct Pipeline {
    Normalizer *norm;
    size_t n_norm;
    PreTokenizer *pre;
    size_t n_pre;
    const PieceModel *model;
    void *impl;
    int32_t n_model; /* largest id of the model + 1 */
    Decoder *dec;
    size_t n_dec;
    bool has_decoder; /* false: pieces are joined by a space */
    AddedToken *added;
    size_t n_added;
    AddedIndex *raw, *normal; /* before and after the normalizers, NULL = none */
    bool byte_level;          /* the last pre-tokenizer is BYTE_LEVEL: any bytes can be encoded */
    int32_t *before, *after;  /* the post-processor's ids around a text */
    size_t n_before, n_after;
    int32_t *added_of; /* [vocab] index into added, -1 = a piece of the model */
    bool strip_first;  /* streaming: a space in front of the first piece goes */
    TokSpan *plain;    /* [vocab] what tokenizer_piece gives */
} Pipeline;

/* Makes t a pipeline tokenizer: builds the added tokens' searches, the streaming texts, t->vocab and t->ops.
 * norm, pre, model, impl, n_model, dec, added are set. */
bool pipeline_finish(Tokenizer *t, Pipeline *p, Arena *a, Err *e);

/* One text on its way. */
typedef struct Run {
    const Pipeline *p;
    TokenBuf *out;
    uint64_t *steps;
    Arena *a; /* of out */
    Arena scratch;
    Err *e;
    Matcher m;
    void *cache;
} Run;
/* Appends an added token; text is kept. */
bool pipeline_add(Pipeline *p, AddedToken t, size_t *cap, Arena *a, Err *e);
/* pipeline.c: s (bytes,) through all normalizers; *out may be s itself. */
bool pipeline_normalize(const Pipeline *p, const char *s, size_t bytes, TokSpan *out, Arena *a, Err *e);
/* pretokenize.c: s (n,), n > 0, through the pre-tokenizers from stage on, each part to the model. first: s
 * begins the text. */
bool pretokenize(Run *r, size_t stage, const char *s, size_t n, bool first);
/* added.c: what to search for in one of the two searches; NULL without error when there is nothing. */
AddedIndex *added_index(const AddedToken *t, size_t n, bool normalized, Arena *a, Err *e);
typedef struct AddedScan {
    const AddedIndex *x;
    const char *s; /* (n,) */
    size_t n, at, done;
} AddedScan;
/* The number of the next added token, -1 = none; text [done before the call, *lo) stands in front of it, and
 * done becomes the first byte behind it. */
long added_next(AddedScan *scan, size_t *lo);
/* pretokenize.c: gives a BYTE_LEVEL stage GPT-2's pattern. */
bool byte_level_pattern(PreTokenizer *x, Err *e);
/* decode.c: text of ids (n,) inside the vocabulary. */
char *pipeline_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e);
const char *pipeline_piece(const Tokenizer *t, int prev, int id, size_t *bytes);
/* Fills p->plain, what pipeline_piece gives. */
bool pipeline_plain(const Tokenizer *t, Pipeline *p, Arena *a, Err *e);
/* byte_level.c: ByteLevel's letters. to: at least 2 n bytes / n bytes. bytes_of: false when s has a character
 * that stands for no byte. */
size_t byte_level_letters(const char *s, size_t n, char *to);
bool byte_level_bytes(const char *s, size_t n, char *to, size_t *m);

/* The pre-tokenizers (and normalizer) of a family: "gpt2", "cl100k", "o200k", "llama3", "qwen2", ... Sets
 * norm, pre and the ByteLevel decoder. Error: an unknown name, listing the known ones. */
bool pipeline_preset(Pipeline *p, const char *family, Arena *a, Err *e);

/* ---- the readers of tokenizer.json's "model" ------------------------------------------------------------
 * m: the object; they set p->model, p->impl, p->n_model and t->unk, or refuse by name. */
bool bpe_from_json(Tokenizer *t, Pipeline *p, const json_t *m, Arena *a, Err *e);
bool unigram_from_json(Tokenizer *t, Pipeline *p, const json_t *m, Arena *a, Err *e);
bool wordpiece_from_json(Tokenizer *t, Pipeline *p, const json_t *m, Arena *a, Err *e);

/* ---- BPE (bpe_model.c) --------------------------------------------------------------------------------- */
typedef struct BpeSpec {
    const TokSpan *piece; /* [n_piece] text by id as in the file; s NULL = no such id */
    int32_t n_piece;
    const TokSpan *left, *right; /* [n_merge] by rank, as in the file; NULL: ranks are the ids (tiktoken) */
    size_t n_merge;
    bool byte_level; /* pieces are spelled in ByteLevel's letters */
    bool raw_bytes;  /* pieces are bytes already (tiktoken) */
    bool byte_fallback, fuse_unk, ignore_merges;
    int32_t unk;                 /* -1 = none: characters outside the vocabulary are dropped */
    const char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix, NULL */
} BpeSpec;
/* Sets p->model, p->impl, p->n_model. what: the file, for errors. */
bool bpe_open(Pipeline *p, const BpeSpec *s, const char *what, Arena *a, Err *e);
/* The two halves of a merge written "a b"; false when it is not one. */
bool bpe_merge_split(const char *s, size_t n, TokSpan *left, TokSpan *right);
#endif
