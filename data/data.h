/* data/data.h: floor 3. Tokenizers, token streams, the loader.
 *
 *   Tokenizer *tk = tokenizer_open("tok512.model", &arena, &e);
 *   TokenBuf ids = {0};  tokenizer_encode(tk, text, bytes, true, &ids, &arena, &e);
 *   Loader *ld = loader_open(&opts, tk, &arena, &e);
 *   loader_fill(ld, sample, ids, targets, pos, seg, &e);   // pure function of (seed, sample): resumable, any
 *   order
 */
#ifndef DATA_H
#define DATA_H
#include "core/core.h"
#include "core/config.h"

typedef struct TokenizerConfig TokenizerConfig;
typedef struct TokenBuf {
    int32_t *id;
    size_t n, cap;
} TokenBuf;
typedef struct Tokenizer Tokenizer;
/* path: a file or a folder as docs/data.md lists them, or "bytes" (256 byte tokens, 256 = BOS and EOS).
 * how (may be NULL = defaults, kept by the tokenizer): pattern of a rank file, add_bos, add_eos. Errors: what
 * the file needs and is not here, by name; a damaged file. A Tokenizer is read-only: threads may share it. */
Tokenizer *tokenizer_open_as(const char *path, const TokenizerConfig *how, Arena *a, Err *e);
Tokenizer *tokenizer_open(const char *path, Arena *a, Err *e); /* how = NULL */
const char *tokenizer_kind(const Tokenizer *t);                /* "byte-level BPE", ... */
const char *tokenizer_chat_template(const Tokenizer *t);       /* Jinja text of the file or folder, NULL */
int tokenizer_vocab(const Tokenizer *t);
int tokenizer_bos(const Tokenizer *t); /* -1 = none */
int tokenizer_eos(const Tokenizer *t);
const char *tokenizer_hash(const Tokenizer *t); /* XXH3-128 hex of pieces, scores, kinds and rules */
const char *tokenizer_path(const Tokenizer *t);
void tokenizer_set_path(Tokenizer *t,
                        const char *path); /* where it came from, if that is not what was opened */
/* Appends the ids of text (bytes,) to out, behind BOS if bos and the tokenizer has one. */
bool tokenizer_encode(const Tokenizer *t, const char *text, size_t bytes, bool bos, TokenBuf *out, Arena *a,
                      Err *e);
/* The same with what the file itself puts around one text: a post-processor's tokens (none for GPT-2, [CLS]
 * and [SEP] for BERT), SentencePiece's BOS. */
bool tokenizer_encode_framed(const Tokenizer *t, const char *text, size_t bytes, TokenBuf *out, Arena *a,
                             Err *e);
/* Whether that starts with the BOS: what stands before a prompt. Documents get a BOS wherever there is
 * one. */
bool tokenizer_adds_bos(const Tokenizer *t);
/* Whether a document starts with the BOS: as tokenizer.add_bos says, on auto as the caller does. */
bool tokenizer_document_bos(const Tokenizer *t, bool otherwise);
/* The text of ids (n,), NUL-terminated, as SentencePiece's Decode: specials are dropped. *bytes (may be NULL)
 * is its length. Error: an id outside the vocabulary. */
char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e);
/* Text one more token adds after prev (streaming generation; prev < 0: none): the dummy prefix of the first
 * piece is dropped, a byte piece is its raw byte. */
const char *tokenizer_piece(const Tokenizer *t, int prev, int id, size_t *bytes);

/* A question as a chat template (how: data.chat_template) puts it, up to where the answer begins. system may
 * be NULL. *stop: the token that ends a turn, -1 = none of its own. Errors: the tokenizer has no template,
 * roles that it refuses. */
bool chat_prompt(const Tokenizer *tk, const char *how, const char *system, const char *user, TokenBuf *out,
                 int *stop, Arena *a, Err *e);

/* Learns a byte-level BPE of `vocab` tokens (256 bytes and the specials among them) from text files and
 * writes it to out as tokenizer.json. Deterministic: ties go to the greater pair of byte strings. *tokens
 * (may be NULL): how many it has, fewer when no pair occurs min_count times (0 = 1). Specials are cut out of
 * the text. */
typedef struct BpeTraining {
    const char *const *path;
    size_t n_path;
    const char *const *special;
    size_t n_special;
    const char *pattern; /* of data/families.def */
    long vocab, min_count;
} BpeTraining;
bool tokenizer_train(const char *out, const BpeTraining *o, long *tokens, Arena *a, Err *e);

typedef struct SourceConfig {
#include "core/config_fields.h"
#include "data/source.def"
#include "core/config_undef.h"
} SourceConfig;
typedef struct DataConfig {
#include "core/config_fields.h"
#include "data/data.def"
#include "core/config_undef.h"
} DataConfig;
struct TokenizerConfig {
#include "core/config_fields.h"
#include "data/tokenizer.def"
#include "core/config_undef.h"
};
const ConfigSection *source_section(void);
const ConfigSection *data_section(void);
const ConfigSection *tokenizer_section(void);

/* What was read of a source and what was left out. */
typedef struct SourceCount {
    int64_t documents, empty, bad; /* bad: records skipped by on_bad_line */
} SourceCount;
/* All tokens of one source, in file order. */
typedef struct Tokens {
    const char *path;
    int32_t *id;
    size_t n, bytes;
    uint8_t *target; /* (n,) 1 where the loss counts the token; NULL = everywhere */
    size_t *doc;     /* (n_doc + 1,) where documents begin, the last is n; NULL = token file: one stream */
    size_t n_doc;
    SourceCount count;
} Tokens; /* .bin: bytes 0 */
/* Text is tokenised (documents split at document_separator, each stripped, each BOS + ids when eot says so
 * and the tokenizer has one); jsonl, chats and prompts as docs/data.md says, with their targets; .bin: llm.c
 * (20240520 / 20240801) by its magic, else nanoGPT uint16; .h5: our token file. split "train[:95%]" and byte
 * ranges "train[:1000000b]", "train[-200000b:]" cut as docs/data.md says. Token ids >= vocab are an error
 * naming file and position; a record that cannot be read is one naming file, line and field. */
bool tokens_load(Tokens *out, const SourceConfig *s, const DataConfig *d, const Tokenizer *tk, int vocab,
                 Arena *a, Err *e);
/* How a .h5 token file is read: formats/ is no lower floor, so train/tokens_h5.c gives its reader. It fills
 * id, n and, where the file has them, target, doc and n_doc. NULL (at first): such sources are refused. */
typedef bool TokensReader(Tokens *out, const char *path, Arena *a, Err *e);
void tokens_h5_reader(TokensReader *reader);
/* more behind all, as one source. */
bool tokens_join(Tokens *all, const Tokens *more, Arena *a, Err *e);

typedef struct LoaderOptions {
    const DataConfig *data;
    const SourceConfig *source;
    int n_source;
    long seq_len;
    int vocab;
    uint64_t seed;
    bool shuffle;
} LoaderOptions;
typedef struct Loader Loader;
/* Tokens of .bin files stay in them (packing concat), the others are in memory. */
Loader *loader_open(const LoaderOptions *o, const Tokenizer *tk, Arena *a, Err *e);
void loader_close(Loader *l); /* its files, NULL allowed; its memory goes with the arena */
int64_t loader_samples(const Loader *l); /* samples of one epoch */
int64_t loader_tokens(const Loader *l);
long loader_seq_len(const Loader *l);
/* Sample numbers run without end (epoch = sample / samples). Fills one row (T,) of each array: ids, targets
 * (-100 ignored), positions, segments (pos and seg may be NULL). Returns the number of targets counted.
 * Errors (and 0): a .bin file that was changed since it was opened. */
long loader_fill(const Loader *l, int64_t sample, int32_t *ids, int32_t *targets, int32_t *pos, int32_t *seg,
                 Err *e);
/* The rows that samples are drawn from, 0 .. sequences - 1 in the order of the sources: whatever shuffle,
 * seed, epoch and batch are, a sample is one of them. */
int64_t loader_sequences(const Loader *l);
int64_t loader_sequence(const Loader *l, int64_t sample);
long loader_fill_sequence(const Loader *l, int64_t sequence, int32_t *ids, int32_t *targets, int32_t *pos,
                          int32_t *seg, Err *e);
/* XXH3-128 of what a model reads of every sequence: ids, positions, segments. */
bool loader_input_hash(const Loader *l, char hex[33], Err *e);
bool loader_segments(const Loader *l); /* attention must stay inside segments (packing: pack) */
/* What packing did with the documents: those longer than T (split, cut or skipped, by data.too_long), those
 * left out because nothing of them is trained, and the share of positions in use. */
typedef struct LoaderReport {
    int64_t documents, longest, too_long, dropped_tokens, nothing_to_learn, targets;
    double fill;
} LoaderReport;
LoaderReport loader_report(const Loader *l);
const char *loader_hash(const Loader *l); /* content hash of the token streams */

/* ---- prefetch.c: rows are made by threads ahead of the step that reads them ---------------------------- */
typedef struct BatchRows {
    int32_t *ids, *targets, *pos, *seg; /* (B,T); seg NULL unless loader_segments */
    long counted;                       /* targets that count */
} BatchRows;
typedef struct Prefetch Prefetch;
/* B rows a batch; workers threads (0: rows are made when asked for). The bits depend on neither. */
Prefetch *prefetch_open(const Loader *l, long B, int workers, Arena *a, Err *e);
/* The batch of samples first .. first+B-1; valid until the next call. Asked for in order it is ready ahead;
 * any other first starts over there. *waited (may be NULL) grows by the seconds this call had to wait. */
const BatchRows *prefetch_get(Prefetch *p, int64_t first, double *waited, Err *e);
void prefetch_close(Prefetch *p);

/* ---- tokenize.c: text of any size -> .bin -------------------------------------------------------------- */
typedef struct TokenizeJob {
    const SourceConfig *source;
    int n_source;
    const DataConfig *data;
    const Tokenizer *tk;
    const char *out;           /* llm.c .bin; OUT.part and OUT.part.cursor while it is made */
    bool resume_only, restart; /* an error instead of starting over; never go on from a cursor */
    volatile int *stop;        /* non-zero: stop after the next piece and keep the cursor; may be NULL */
    void (*progress)(double done, int64_t tokens, double seconds);
} TokenizeJob;
typedef struct TokenizeResult {
    int64_t tokens, documents, empty, bad, resumed_tokens;
    bool stopped;
    double seconds;
} TokenizeResult;
/* On bad input nothing is left; on a signal, a full disk or a kill .part and cursor stay and the next call
 * goes on from there: the file is the same as without the break. */
bool tokenize_run(const TokenizeJob *job, TokenizeResult *out, Err *e);

/* ---- datareport.c: `data stats`, `data inspect` -------------------------------------------------------- */
/* One JSON text: per source its counts, per loader what packing does. T: data.seq_len. */
char *data_stats_json(const SourceConfig *s, int n, const DataConfig *d, const Tokenizer *tk, Arena *a,
                      Err *e);
/* The first n documents decoded; what is not trained stands between [ and ] marks of their own. */
char *data_inspect_text(const SourceConfig *s, const DataConfig *d, const Tokenizer *tk, int n, Arena *a,
                        Err *e);

/* ---- evalplan.c: the windows of a perplexity, by protocol (t = tokens, n of them) ------------------------
 *   val        N = window. With a BOS (bos >= 0): BOS, t[iN .. iN+N-2], all N scored; the short last window
 *              counts. Without: reads t[iN ..], scores the ones one further.
 *   concat-N   the GPTQ papers': t[iN .. iN+N-1], N-1 scored, last incomplete window dropped; `concat` takes
 *              its N from window, or 2048.
 *   stride     Hugging Face's: windows (1024) that begin every `stride` (512); tokens not scored before are.
 *   llamacpp   t[iN .. iN+N-1] (512) with bos >= 0 written over the first, tokens N/2+1 .. N-1 scored.
 *   documents  each document (prompts and chats) a row of its own, cut at N; scored where it is trained
 * The tokens are used as they are: whether the text's own BOS is among them is the caller's choice.
 */
typedef struct EvalPlan EvalPlan;
/* tokens (n,): kept, not copied. window, stride: 0 = the protocol's default (val has none). Errors: unknown
 * protocol, a window or stride out of range, too few tokens. */
EvalPlan *evalplan_open(const char *protocol, long window, long stride, const int32_t *tokens, size_t n,
                        int bos, Arena *a, Err *e);
/* Protocol `documents` of tokens with targets: t is kept. */
EvalPlan *evalplan_documents(const Tokens *t, long window, Arena *a, Err *e);
const char *evalplan_name(const EvalPlan *p); /* "val", "concat-256", "stride", "llamacpp" */
long evalplan_window(const EvalPlan *p);      /* longest row */
int64_t evalplan_count(const EvalPlan *p);    /* windows */
int64_t evalplan_scored(const EvalPlan *p);   /* targets of all windows */
/* Window i into ids, targets (window,), -100 where not scored and behind a short row. Returns its length. */
long evalplan_get(const EvalPlan *p, int64_t i, int32_t *ids, int32_t *targets);
#endif
