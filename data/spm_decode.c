/* data/spm_decode.c: ids -> text, exactly as SentencePiece's Decode: pieces joined with U+2581 as space, the
 * space in front of the text dropped (all of them with remove_extra_whitespaces), runs of byte pieces read as
 * UTF-8 with U+FFFD for each malformed byte, control pieces dropped, the unknown piece as its surface.
 */
#include "data/spm_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

typedef struct Plain {
    char *s;
    size_t n;
} Plain;

static void put(Plain *t, const char *s, size_t n)
{
    if (t->s) memcpy(t->s + t->n, s, n);
    t->n += n;
}

/* The characters of a run of byte pieces ids[0..n). */
static void put_bytes(const Spm *t, const int32_t *ids, size_t n, Plain *out)
{
    for (size_t i = 0, len; i < n; i += len ? len : 1) {
        char c[4];
        size_t m = 0;
        for (; m < 4 && i + m < n; m++) c[m] = (char)t->piece[ids[i + m]].byte;
        len = utf8_next(c, m, NULL);
        put(out, len ? c : SPM_BAD, len ? len : 3);
    }
}

/* Appends one piece; returns whether it was a space in front of the text that counts as seen. */
static bool put_piece(const Spm *t, int32_t id, bool front, Plain *out)
{
    const SpmPiece *p = &t->piece[id];
    const char *s = p->plain;
    size_t n = p->plain_bytes;
    bool dropped = false;
    const bool text = p->type != SPM_CONTROL && p->type != SPM_UNKNOWN;
    if (text && front && (t->add_dummy_prefix || t->remove_extra_whitespaces)) {
        dropped = p->bytes >= 3 && memcmp(p->text, SPM_SPACE, 3) == 0;
        if (dropped) {
            s++;
            n--;
        }
        if (t->remove_extra_whitespaces) dropped = false;
    }
    put(out, s, n);
    return dropped;
}

/* With out->s NULL only counts. */
static void decode(const Spm *t, const int32_t *ids, size_t n, Plain *out)
{
    bool front = true, seen = false;
    size_t run = 0;
    for (size_t i = 0; i < n; i++) {
        if (t->piece[ids[i]].type == SPM_BYTE) continue;
        put_bytes(t, ids + run, i - run, out);
        run = i + 1;
        if (seen || out->n > 0) front = false;
        seen = put_piece(t, ids[i], front, out);
    }
    if (run < n) put_bytes(t, ids + run, n - run, out); /* no ids: NULL, to which nothing is added */
}

char *spm_decode(const Spm *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e)
{
    Plain out = {0};
    decode(t, ids, n, &out);
    out.s = arena_alloc(a, out.n + 1, e);
    if (!out.s) return NULL;
    out.n = 0;
    decode(t, ids, n, &out);
    if (bytes) *bytes = out.n;
    return out.s;
}

const char *spm_piece(const Spm *t, int prev, int id, size_t *bytes)
{
    const SpmPiece *p = &t->piece[id];
    const bool byte = p->type == SPM_BYTE, first = prev < 0 || prev == t->bos;
    const char *s = byte ? token_byte_text[p->byte] : p->plain;
    size_t n = byte ? 1 : p->plain_bytes;
    if (!byte && first && t->add_dummy_prefix && n > 0 && memcmp(p->text, SPM_SPACE, 3) == 0) {
        s++;
        n--;
    }
    *bytes = n;
    return s;
}
