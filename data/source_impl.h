/* Private to data/: how a source becomes documents of tokens.
 *
 *   files --reader.c--> pieces (bytes of a document) --document.c, chat.c--> ids and which of them are
 *   trained
 *   --tokens.c--> Tokens in memory, or --tokenize.c--> a .bin file that may be larger than memory
 */
#ifndef SOURCE_IMPL_H
#define SOURCE_IMPL_H
#include "data/data.h"

/* ---- split.c ------------------------------------------------------------------------------------------ */
/* The part of a source that split names: [lo, hi) in percent (kind '%') or bytes ('b'); kind 0 is all of it.
 * Negative bounds count from the end. */
typedef struct Split {
    char kind;
    bool has_lo, has_hi;
    double lo, hi;
} Split;
/* text: NULL, "train", "train[:95%]", "train[95%:]", "train[:1000000b]", "train[-200000b:]"; path for
 * messages. */
bool split_parse(Split *s, const char *text, const char *path, Err *e);
/* Bounds [*lo, *hi) in units of a source of `total` of them; for '%' the share is rounded down. */
void split_range(const Split *s, uint64_t total, uint64_t *lo, uint64_t *hi);

/* ---- token_files.c ------------------------------------------------------------------------ */
typedef struct Paths {
    size_t n;
    const char **v;
} Paths;
/* The files a source's path means: itself if it exists, else its sorted matches as a glob. Error when
 * none. */
bool source_paths(Paths *p, const char *path, Arena *a, Err *e);

typedef enum { FILE_TEXT, FILE_JSON, FILE_LLMC, FILE_NANOGPT, FILE_HDF5 } FileKind;
/* By format ("auto" looks at suffix and first word). Errors: a folder, a compressed file. */
bool source_kind(FileKind *k, const char *path, const char *format, Err *e);
/* The files of a source and their kind, the same for all. Error: text without a tokenizer. */
bool source_open(Paths *p, FileKind *kind, const SourceConfig *s, const Tokenizer *tk, Arena *a, Err *e);
/* Appends the tokens of one .bin file, every header field and id checked (vocab 0 = ids not checked). */
bool token_file_read(TokenBuf *out, const char *path, FileKind k, const char *vocab_check, int vocab,
                     Arena *a, Err *e);
/* width: bytes a token takes in the file, 2 or 4. Appends n ids of p (n * width,) to out. */
bool token_ids_append(TokenBuf *out, const unsigned char *p, size_t width, size_t n, const char *path,
                      const char *vocab_check, int vocab, Arena *a, Err *e);

/* Where a token file's ids lie (bytes from its begin), how wide they are, how many. */
bool token_file_layout(const FileMap *m, const char *path, FileKind k, size_t *at, size_t *width, size_t *n,
                       Err *e);
/* The error of an id that the vocabulary of `limit` lacks. Returns false. */
bool token_beyond(const char *path, size_t at, uint32_t id, uint32_t limit, Err *e);

/* ---- token_map.c: .bin files read where they lie ------------------------------------------------------- */
typedef struct TokenMap TokenMap;
/* The part of the files that s->split names. vocab 0: ids are not checked. */
TokenMap *token_map_open(const Paths *p, FileKind kind, const SourceConfig *s, const DataConfig *d, int vocab,
                         Arena *a, Err *e);
void token_map_close(TokenMap *m); /* NULL allowed */
size_t token_map_count(const TokenMap *m);
/* Tokens [at, at + n) into out (n,); any number of threads. Errors: a file that became shorter or got ids
 * beyond the vocabulary since it was opened. */
bool token_map_get(const TokenMap *m, size_t at, size_t n, int32_t *out, Err *e);
bool token_map_hash(const TokenMap *m, char hex[33], Err *e); /* hash128_hex of all as int32 */

/* Ids with what belongs to them: target (ids.cap,) 1 where the loss counts the token, NULL = everywhere; doc
 * (n_doc,) where documents begin. */
typedef struct Stream {
    TokenBuf ids;
    uint8_t *target;
    size_t target_cap, n_doc, doc_cap;
    size_t *doc;
} Stream;
bool stream_document(Stream *s, Arena *a, Err *e); /* a document begins at the end of s */
/* Ids (n,) behind the stream; target (n,) or NULL. */
bool stream_put(Stream *s, const int32_t *ids, const uint8_t *target, size_t n, Arena *a, Err *e);
/* Our HDF5 token file by the reader that tokens_h5_reader set. Errors: none set, what it says, ids. */
bool token_h5_read(Stream *out, const char *path, const char *vocab_check, int vocab, Arena *a, Err *e);

/* ---- reader.c ----------------------------------------------------------------------------------------- */
/* Bytes s (n,) of one document, where they lie in the file: the whole of it, or of a long text a part that
 * tokenizes as it does in the whole. */
typedef struct Piece {
    const char *s;
    size_t n, file;
    int64_t line; /* of json: the record's first line, from 1 */
    bool first, last;
} Piece;
/* The place behind a piece: enough to go on from in another process. */
typedef struct ReaderAt {
    uint64_t file, offset, line, unit, inside;
} ReaderAt;
typedef struct Reader {
    Paths paths;
    FileKind kind;
    const char *separator, *path;
    size_t piece_bytes; /* texts longer than twice this are cut */
    Split split;
    uint64_t lo, hi;
    FileMap *map; /* (paths.n,) data NULL until opened */
    const Tokenizer *tk;
    ReaderAt at;
    Arena scratch;
} Reader;
/* Only FILE_TEXT and FILE_JSON. */
bool reader_open(Reader *r, const Paths *paths, FileKind kind, const SourceConfig *s, const DataConfig *d,
                 const Tokenizer *tk, Arena *a, Err *e);
void reader_close(Reader *r);
/* The next piece; false at the end (e->code 0) and on an error. A piece is valid until reader_close. */
bool reader_next(Reader *r, Piece *p, Err *e);

/* ---- chat.c ------------------------------------------------------------------------------------------- */
typedef struct Chat Chat; /* a template with the special tokens of a tokenizer */
typedef struct Message {
    const char *role, *text;
    size_t bytes;
} Message;
/* how: data.chat_template. NULL and e->code 0: none is wanted or the tokenizer has none. Errors: a template
 * that is not in the list, named by its hash. */
Chat *chat_open(const char *how, const Tokenizer *tk, Arena *a, Err *e);
const char *chat_name(const Chat *c);
/* Appends the conversation; out->target says what is trained: the assistant's turns with their end token, or
 * with mask false everything. Errors: roles in an order that the template refuses. */
bool chat_encode(const Chat *c, const Message *m, size_t n, bool mask, Stream *out, Arena *a, Err *e);
/* The conversation as text, NUL-terminated, with these texts for the BOS and EOS tokens. */
char *chat_render(const Chat *c, const Message *m, size_t n, const char *bos, const char *eos, Arena *a,
                  Err *e);
/* XXH3-128 of a template without the white space that has no effect, hex. */
bool chat_template_hash(char out[33], const char *text, size_t n, Arena *a, Err *e);

/* ---- document.c --------------------------------------------------------------------------------------- */
typedef enum { DOC_TEXT, DOC_FIELD, DOC_PAIR, DOC_CHAT, DOC_ALPACA } Shape;
typedef struct Rule {
    Shape shape;
    const Tokenizer *tk;
    const Chat *chat;
    const Paths *paths;
    const char *field, *prompt, *response, *messages;
    bool before, after, mask; /* BOS in front, EOS behind; prompts are not trained */
} Rule;
/* Decides the shape by the keys of the source and the first record. */
bool rule_open(Rule *r, const Reader *reader, const SourceConfig *s, const DataConfig *d, Arena *a, Err *e);
bool rule_masks(const Rule *r); /* its documents have targets of their own */
/* Appends one piece's ids to out. *text: bytes of text they stand for. Nothing is appended for an empty
 * document. Errors name file:line and the field. */
bool rule_encode(const Rule *r, const Piece *p, Stream *out, size_t *text, Arena *a, Err *e);

/* ---- batch.c ------------------------------------------------------------------------------------------ */
/* Pieces encoded by all threads, in order. */
typedef struct Encoded {
    Piece piece;
    Stream out;
    size_t text;
    bool bad;
    Err *err;
} Encoded;
enum { BATCH_PIECES = 4096, BATCH_BYTES = 8 << 20 };
typedef struct Batch {
    Encoded *v;
    size_t n;
    ReaderAt end; /* behind the last piece */
    Arena *arena;
    int threads;
} Batch;
bool batch_open(Batch *b, Arena *a, Err *e);
void batch_close(Batch *b);
/* The next pieces, encoded. n 0: the end. Bad records: the first one is the error, or with skip they are
 * marked bad and counted. */
bool batch_next(Batch *b, Reader *r, const Rule *rule, bool skip, Err *e);
#endif
