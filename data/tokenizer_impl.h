/* Private to data/: what the kinds of tokenizers share. A Tokenizer is a small core and the operations of its
 * kind: "bytes" (tokenizer.c), SentencePiece's own files (spm_impl.h), and the pipeline of tokenizer.json
 * (pipeline_impl.h), which vocab.json + merges.txt, tiktoken ranks and GGUF vocabularies build as well.
 */
#ifndef TOKENIZER_IMPL_H
#define TOKENIZER_IMPL_H
#include "data/data.h"

/* A growing text in an arena: s (cap,), n bytes used, no NUL behind. */
typedef struct TokText {
    char *s;
    size_t n, cap;
} TokText;
bool text_put(TokText *t, const char *s, size_t n, Arena *a, Err *e);

/* Bytes of a token, a piece, a pattern: s (n,), with a NUL behind where it comes from a file. */
typedef struct TokSpan {
    const char *s;
    size_t n;
} TokSpan;

typedef struct TokenizerOps {
    const char *kind; /* "bytes", "SentencePiece BPE", "byte-level BPE", ... */
    /* Appends the ids of text (bytes,), any bytes, without BOS or EOS. *steps (may be NULL) grows by the heap
     * moves and pair look-ups, for the test of the complexity. */
    bool (*encode)(const Tokenizer *t, const char *text, size_t bytes, TokenBuf *out, uint64_t *steps,
                   Arena *a, Err *e);
    /* ids (n,) are all inside the vocabulary. NUL-terminated; specials are dropped. */
    char *(*decode)(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e);
    /* id is inside the vocabulary; prev < 0: none. */
    const char *(*piece)(const Tokenizer *t, int prev, int id, size_t *bytes);
    /* Appends everything that ids depend on: equal bytes, equal tokenizer. */
    bool (*digest)(const Tokenizer *t, TokText *out, Arena *a, Err *e);
} TokenizerOps;

struct Tokenizer {
    const TokenizerOps *ops;
    void *impl; /* Spm, Pipeline, NULL */
    const char *path;
    char hash[33];
    int vocab, bos, eos, unk;      /* vocab: largest id + 1, added tokens included; -1 = none */
    bool framed;                   /* before and after are the file's own; else it is BOS and nothing */
    const int32_t *before, *after; /* (n_before,), (n_after,): around one text */
    size_t n_before, n_after;
    const char *chat_template;  /* Jinja text beside or in the file, NULL */
    const TokenizerConfig *how; /* NULL: all defaults */
};

/* One reader per kind of file; each sets ops, impl, vocab, bos, eos, unk. Errors name t->path. */
bool spm_open(Tokenizer *t, Arena *a, Err *e);            /* tokenizer.model */
bool tokenizer_json_open(Tokenizer *t, Arena *a, Err *e); /* tokenizer.json */
bool vocab_json_open(Tokenizer *t, Arena *a, Err *e);     /* a folder: vocab.json + merges.txt */
bool tiktoken_open(Tokenizer *t, Arena *a, Err *e);       /* ranks; needs tokenizer.pattern */
bool tiktoken_looks_like(const unsigned char *s, size_t n);
bool gguf_vocab_open(Tokenizer *t, Arena *a, Err *e); /* .gguf */
bool vocab_txt_open(Tokenizer *t, Arena *a, Err *e);  /* vocab.txt (WordPiece) */

/* What stands around one text: the BOS in front, the EOS behind, where the tokenizer has them. */
bool tokenizer_frame(Tokenizer *t, bool bos, bool eos, Arena *a, Err *e);

extern const char token_byte_text[256][2]; /* [b] = byte b, NUL */
bool tokenbuf_push(TokenBuf *b, int32_t id, Arena *a, Err *e);
#endif
