/* Private to data/: SentencePiece models in memory, shared by spm_model.c (reader), spm_encode.c and
 * spm_decode.c. */
#ifndef SPM_IMPL_H
#define SPM_IMPL_H
#include "data/charsmap_impl.h"
#include "data/unigram_impl.h"

#define SPM_SPACE "\xE2\x96\x81" /* U+2581, SentencePiece's visible space, 3 bytes */
#define SPM_BAD "\xEF\xBF\xBD"   /* U+FFFD, what a malformed byte becomes, 3 bytes */

typedef enum { SPM_NORMAL = 1, SPM_UNKNOWN, SPM_CONTROL, SPM_USER, SPM_UNUSED, SPM_BYTE } SpmType;

typedef struct SpmPiece {
    const char *text;
    uint32_t bytes; /* as in the file, NUL behind */
    const char *plain;
    uint32_t plain_bytes; /* decoded: U+2581 made a space, "" for controls */
    float score;
    SpmType type;
    uint8_t byte; /* byte: value of a byte piece */
} SpmPiece;

typedef struct Spm {
    const char *path;
    int vocab, bos, eos, unk;
    SpmPiece *piece; /* [vocab] */
    int32_t *slot;
    uint32_t slot_mask;           /* [slot_mask + 1] piece by hash of its text, -1 = free */
    int32_t byte_id[256];         /* piece of each byte, when byte_fallback */
    uint32_t max_piece, max_user; /* longest piece to merge to / user-defined piece, bytes */
    bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, byte_fallback;
    bool has_unused; /* some piece must be split again after merging */
    bool space_cuts; /* no piece has U+2581 behind another character */
    const char *unk_surface, *bos_piece, *eos_piece;
    int model_type;      /* trainer_spec's: 1 unigram, 2 BPE */
    const Charsmap *map; /* the normalizer's, NULL = identity */
    Unigram unigram;     /* model_type 1 */
} Spm;

/* Builds what encoding needs of the pieces and rules set so far, or refuses. */
bool spm_finish(Spm *t, Arena *a, Err *e);
extern const TokenizerOps spm_ops; /* of an Spm */
/* Reads a tokenizer.model (data[bytes], kept by nobody) into t. Errors name t->path and the field. */
bool spm_parse(Spm *t, const unsigned char *data, size_t bytes, Arena *a, Err *e);
int32_t spm_find(const Spm *t, const char *s, size_t bytes); /* piece with this text, -1 = none */
bool spm_mergeable(const Spm *t, int32_t id);                /* normal, user-defined or unused */
/* Bytes of the longest user-defined piece that s starts with, 0 = none. */
size_t spm_user_match(const Spm *t, const char *s, size_t bytes);
/* Appends the ids of text. *steps (may be NULL) counts heap moves and pair look-ups, for the test of the
 * complexity. */
bool spm_encode(const Spm *t, const char *text, size_t bytes, TokenBuf *out, uint64_t *steps, Arena *a,
                Err *e);
const char *spm_piece(const Spm *t, int prev, int id, size_t *bytes); /* tokenizer_piece */
char *spm_decode(const Spm *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e);
#endif
