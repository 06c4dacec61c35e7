/* Private to data/: the parts of tokens.c (text), token_files.c (.bin), split.c. */
#ifndef SOURCE_IMPL_H
#define SOURCE_IMPL_H
#include "data/data.h"

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

typedef struct Paths {
    size_t n;
    const char **v;
} Paths;
/* The files a source's path means: itself if it exists, else its sorted matches as a glob. Error when none.
 * */
bool source_paths(Paths *p, const char *path, Arena *a, Err *e);

typedef enum { FILE_TEXT, FILE_LLMC, FILE_NANOGPT } FileKind;
/* By format ("auto" looks at suffix and first word). Errors: a folder, a kind not in this version. */
bool source_kind(FileKind *k, const char *path, const char *format, Err *e);
/* Appends the tokens of one .bin file, every header field and id checked (vocab 0 = ids not checked). */
bool token_file_read(TokenBuf *out, const char *path, FileKind k, const char *vocab_check, int vocab,
                     Arena *a, Err *e);
#endif
