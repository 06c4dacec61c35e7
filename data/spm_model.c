/* data/spm_model.c: SentencePiece tokenizer.model -> pieces and rules.
 *
 * The file is one protobuf message (sentencepiece_model.proto): ModelProto { 1 pieces, 2 trainer_spec,
 * 3 normalizer_spec, 5 denormalizer_spec }. A strict reader of the wire format is all it needs: every length
 * is checked against its message, groups and field number 0 are refused, unknown fields are stepped over.
 * What would change ids and is not done (word and char models, a denormalizer's character map, space as
 * suffix) is refused by name.
 */
#include "data/spm_impl.h"
#include "data/utf8_impl.h"
#include <float.h>
#include <math.h>
#include <string.h>

typedef struct Wire {
    const unsigned char *p, *end;
    const char *path, *message;
} Wire;
/* data[value] for types 1, 2 and 5 */
typedef struct Field {
    uint32_t number, type;
    uint64_t value;
    const unsigned char *data;
} Field;

static bool wire_error(const Wire *w, Err *e, const char *what)
{
    return err_set(e, ERR_CORRUPT, "%s: not a SentencePiece model: %s in %s", w->path, what, w->message);
}

static bool wire_varint(Wire *w, uint64_t *v, Err *e)
{
    *v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (w->p == w->end) return wire_error(w, e, "a number is cut off");
        const unsigned char b = *w->p++;
        if (shift == 63 && b > 1) return wire_error(w, e, "a number is longer than 64 bits");
        *v |= (uint64_t)(b & 0x7F) << shift;
        if (!(b & 0x80)) return true;
    }
    return wire_error(w, e, "a number is longer than 64 bits");
}

/* Next field of the message. False at its end (e untouched) or on error. */
static bool wire_next(Wire *w, Field *f, Err *e)
{
    uint64_t key;
    if (w->p == w->end || !wire_varint(w, &key, e)) return false;
    *f = (Field){.number = (uint32_t)(key >> 3), .type = (uint32_t)(key & 7)};
    if (key >> 32 || f->number == 0) return wire_error(w, e, "bad field number");
    const size_t left = (size_t)(w->end - w->p);
    if (f->type == 0) return wire_varint(w, &f->value, e);
    if (f->type == 2) {
        if (!wire_varint(w, &f->value, e)) return false;
        if (f->value > (uint64_t)(w->end - w->p))
            return wire_error(w, e, "a field is longer than its message");
    } else if (f->type == 1 || f->type == 5) {
        f->value = f->type == 1 ? 8 : 4;
        if (left < f->value) return wire_error(w, e, "a field is cut off");
    } else {
        return wire_error(w, e, "bad wire type");
    }
    f->data = w->p;
    w->p += f->value;
    return true;
}

static bool wire_want(const Wire *w, const Field *f, uint32_t type, Err *e)
{
    return f->type == type || wire_error(w, e, "a field has the wrong type");
}

static Wire wire_sub(const Wire *w, const Field *f, const char *message)
{
    return (Wire){f->data, f->data + f->value, w->path, message};
}

static bool parse_piece(Spm *t, Wire w, int id, Arena *a, Err *e)
{
    SpmPiece *s = &t->piece[id];
    Field f;
    uint64_t type = SPM_NORMAL;
    const char *text = NULL;
    size_t bytes = 0;
    while (wire_next(&w, &f, e)) {
        if (f.number == 1) {
            if (!wire_want(&w, &f, 2, e)) return false;
            text = (const char *)f.data;
            bytes = (size_t)f.value;
        } else if (f.number == 2) {
            if (!wire_want(&w, &f, 5, e)) return false;
            memcpy(&s->score, f.data, 4);
        } else if (f.number == 3) {
            if (!wire_want(&w, &f, 0, e)) return false;
            type = f.value;
        }
    }
    if (e->code) return false;
    if (type < SPM_NORMAL || type > SPM_BYTE)
        return err_set(e, ERR_CORRUPT, "%s: piece %d has unknown type %llu", t->path, id,
                       (unsigned long long)type);
    if (bytes == 0 || bytes > 65535)
        return err_set(e, ERR_CORRUPT, "%s: piece %d is empty or longer than 65,535 bytes", t->path, id);
    if (!isfinite(s->score))
        return err_set(e, ERR_CORRUPT, "%s: piece %d has a score that is not finite", t->path, id);
    for (size_t i = 0, n; i < bytes; i += n)
        if ((n = utf8_next(text + i, bytes - i, NULL)) == 0)
            return err_set(e, ERR_CORRUPT, "%s: piece %d is not UTF-8", t->path, id);
    s->type = (SpmType)type;
    s->bytes = (uint32_t)bytes;
    char *copy = arena_alloc(a, bytes + 1, e); /* a piece may hold a zero byte */
    if (copy) memcpy(copy, text, bytes);
    s->text = copy;
    return copy != NULL;
}

static bool take_string(const Wire *w, const Field *f, const char **out, Arena *a, Err *e)
{
    if (!wire_want(w, f, 2, e)) return false;
    *out = arena_strndup(a, (const char *)f->data, (size_t)f->value, e);
    return *out != NULL;
}

static bool parse_trainer(Spm *t, Wire w, Arena *a, Err *e)
{
    Field f;
    while (wire_next(&w, &f, e)) {
        bool ok = true;
        if (f.number == 3 || f.number == 24 || f.number == 35) ok = wire_want(&w, &f, 0, e);
        if (f.number == 3) t->model_type = f.value <= 4 ? (int)f.value : 0;
        if (f.number == 24 && f.value)
            ok = err_set(e, ERR_USAGE, "%s: treat_whitespace_as_suffix: not in this version", t->path);
        if (f.number == 35) t->byte_fallback = f.value != 0;
        if (f.number == 44) ok = take_string(&w, &f, &t->unk_surface, a, e);
        if (f.number == 46) ok = take_string(&w, &f, &t->bos_piece, a, e);
        if (f.number == 47) ok = take_string(&w, &f, &t->eos_piece, a, e);
        if (!ok) return false;
    }
    return e->code == ERR_OK;
}

/* into: whether its whitespace rules and character map are t's (the denormalizer's do not count). */
static bool parse_normalizer(Spm *t, Wire w, bool into, Arena *a, Err *e)
{
    Field f;
    char name[48] = "unnamed";
    const char *map = NULL;
    size_t map_bytes = 0;
    while (wire_next(&w, &f, e)) {
        if (!wire_want(&w, &f, f.number == 1 || f.number == 2 || f.number == 6 ? 2 : f.type, e)) return false;
        if (f.number >= 3 && f.number <= 5 && !wire_want(&w, &f, 0, e)) return false;
        if (f.number == 1) {
            const size_t n = f.value < sizeof name ? (size_t)f.value : sizeof name - 1;
            memcpy(name, f.data, n);
            name[n] = 0;
        }
        if (f.number == 2) {
            map = (const char *)f.data;
            map_bytes = (size_t)f.value;
        }
        if (f.number == 3 && into) t->add_dummy_prefix = f.value != 0;
        if (f.number == 4 && into) t->remove_extra_whitespaces = f.value != 0;
        if (f.number == 5 && into) t->escape_whitespaces = f.value != 0;
    }
    if (e->code || map_bytes == 0) return e->code == ERR_OK;
    if (!into)
        return err_set(e, ERR_USAGE, "%s: %s `%s` with a character map: not in this version", t->path,
                       w.message, name);
    t->map = charsmap_open(map, map_bytes, t->path, a, e);
    return t->map != NULL;
}

int32_t spm_find(const Spm *t, const char *s, size_t bytes)
{
    for (uint32_t i = (uint32_t)hash64(s, bytes) & t->slot_mask;; i = (i + 1) & t->slot_mask) {
        const int32_t id = t->slot[i];
        if (id < 0 || (t->piece[id].bytes == bytes && memcmp(t->piece[id].text, s, bytes) == 0)) return id;
    }
}

bool spm_mergeable(const Spm *t, int32_t id)
{
    const SpmType k = t->piece[id].type;
    return k == SPM_NORMAL || k == SPM_USER || k == SPM_UNUSED;
}

size_t spm_user_match(const Spm *t, const char *s, size_t bytes)
{
    for (size_t n = bytes < t->max_user ? bytes : t->max_user; n > 0; n--) {
        const int32_t id = spm_find(t, s, n);
        if (id >= 0 && t->piece[id].type == SPM_USER) return n;
    }
    return 0;
}

static bool build_slots(Spm *t, Arena *a, Err *e)
{
    uint32_t cap = 16;
    while (cap < 2 * (uint32_t)t->vocab) cap *= 2;
    t->slot = arena_alloc(a, cap * sizeof *t->slot, e);
    if (!t->slot) return false;
    memset(t->slot, -1, cap * sizeof *t->slot);
    t->slot_mask = cap - 1;
    for (int id = 0; id < t->vocab; id++) {
        const SpmPiece *s = &t->piece[id];
        const int32_t other = spm_find(t, s->text, s->bytes);
        if (other >= 0)
            return err_set(e, ERR_CORRUPT, "%s: pieces %d and %d have the same text", t->path, other, id);
        uint32_t i = (uint32_t)hash64(s->text, s->bytes) & t->slot_mask;
        while (t->slot[i] >= 0) i = (i + 1) & t->slot_mask;
        t->slot[i] = id;
    }
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool add_byte_piece(Spm *t, int id, Err *e)
{
    SpmPiece *s = &t->piece[id];
    const int hi = s->bytes == 6 ? hex_digit(s->text[3]) : -1;
    const int lo = s->bytes == 6 ? hex_digit(s->text[4]) : -1;
    if (hi < 0 || lo < 0 || memcmp(s->text, "<0x", 3) != 0 || s->text[5] != '>')
        return err_set(e, ERR_CORRUPT, "%s: byte piece %d is not named <0x00> to <0xFF>", t->path, id);
    if (!t->byte_fallback)
        return err_set(e, ERR_CORRUPT, "%s: byte piece %d in a model without byte_fallback", t->path, id);
    s->byte = (uint8_t)(16 * hi + lo);
    t->byte_id[s->byte] = id;
    return true;
}

/* Plain text of a piece; a U+2581 behind another character in it makes words depend on each other. */
static bool finish_piece(Spm *t, SpmPiece *s, Arena *a, Err *e)
{
    char *plain = arena_alloc(a, (size_t)s->bytes + 1, e);
    if (!plain) return false;
    uint32_t n = 0;
    bool other = false;
    for (uint32_t i = 0; i < s->bytes;) {
        const bool space = s->bytes - i >= 3 && memcmp(s->text + i, SPM_SPACE, 3) == 0;
        if (space && other && spm_mergeable(t, (int32_t)(s - t->piece))) t->space_cuts = false;
        if (!space) other = true;
        plain[n++] = space ? ' ' : s->text[i];
        i += space ? 3 : 1;
    }
    s->plain = plain;
    s->plain_bytes = n;
    if (s->type == SPM_CONTROL) {
        s->plain = "";
        s->plain_bytes = 0;
    }
    if (s->type == SPM_UNKNOWN) {
        s->plain = t->unk_surface;
        s->plain_bytes = (uint32_t)strlen(t->unk_surface);
    }
    return true;
}

/* A normal piece's score as it is; a user-defined one wins against any pieces it covers; the unknown one
 * costs 10 more than the worst. Reserved and unused pieces are never found in text. */
static bool finish_unigram(Spm *t, Arena *a, Err *e)
{
    TokSpan *text = arena_alloc(a, (size_t)t->vocab * sizeof *text, e);
    double *score = arena_alloc(a, (size_t)t->vocab * sizeof *score, e);
    float least = FLT_MAX, most = FLT_MIN;
    if (!text || !score) return false;
    for (int id = 0; id < t->vocab; id++) {
        const SpmPiece *s = &t->piece[id];
        if (s->type != SPM_NORMAL) continue;
        if (s->score < least) least = s->score;
        if (s->score > most) most = s->score;
    }
    for (int id = 0; id < t->vocab; id++) {
        const SpmPiece *s = &t->piece[id];
        score[id] = s->type == SPM_USER ? (double)((float)s->bytes * most) - 0.1 : (double)s->score;
        if (s->type == SPM_NORMAL || s->type == SPM_USER) text[id] = (TokSpan){s->text, s->bytes};
    }
    t->unigram = (Unigram){
        .score = score, .unk = t->unk, .unk_score = (double)(least - 10.0f), .single = true};
    return trie_open(&t->unigram.trie, text, (size_t)t->vocab, t->path, a, e);
}

bool spm_finish(Spm *t, Arena *a, Err *e)
{
    static const char *const kind[] = {"unknown model type", "unigram", "bpe", "word", "char"};
    if (t->model_type != 1 && t->model_type != 2)
        return err_set(e, ERR_USAGE, "%s: SentencePiece %s: not in this version (unigram and bpe are)",
                       t->path, kind[t->model_type]);
    t->space_cuts = true;
    if (!build_slots(t, a, e)) return false;
    memset(t->byte_id, -1, sizeof t->byte_id);
    for (int id = 0; id < t->vocab; id++) {
        SpmPiece *s = &t->piece[id];
        if (s->type == SPM_UNKNOWN && t->unk >= 0)
            return err_set(e, ERR_CORRUPT, "%s: two unknown pieces, %d and %d", t->path, t->unk, id);
        if (s->type == SPM_UNKNOWN) t->unk = id;
        if (s->type == SPM_BYTE && !add_byte_piece(t, id, e)) return false;
        if (s->type == SPM_USER && s->bytes > t->max_user) t->max_user = s->bytes;
        if (s->type == SPM_UNUSED) t->has_unused = true;
        if (spm_mergeable(t, id) && s->bytes > t->max_piece) t->max_piece = s->bytes;
        if (!finish_piece(t, s, a, e)) return false;
    }
    if (t->unk < 0) return err_set(e, ERR_CORRUPT, "%s: no unknown piece", t->path);
    for (int i = 0; i < 256 && t->byte_fallback; i++)
        if (t->byte_id[i] < 0)
            return err_set(e, ERR_CORRUPT, "%s: byte_fallback without the piece <0x%02X>", t->path,
                           (unsigned)i);
    if (t->has_unused) t->space_cuts = false;
    const int32_t bos = spm_find(t, t->bos_piece, strlen(t->bos_piece));
    const int32_t eos = spm_find(t, t->eos_piece, strlen(t->eos_piece));
    t->bos = bos >= 0 && t->piece[bos].type == SPM_CONTROL ? bos : -1;
    t->eos = eos >= 0 && t->piece[eos].type == SPM_CONTROL ? eos : -1;
    return t->model_type == 2 || finish_unigram(t, a, e);
}

bool spm_parse(Spm *t, const unsigned char *data, size_t bytes, Arena *a, Err *e)
{
    static const unsigned char nothing[1];
    static const char *const message[] = {"", "a piece", "trainer_spec", "normalizer", "", "denormalizer"};
    if (!data) data = nothing;
    Wire w = {data, data + bytes, t->path, "the file"};
    Field f;
    int n = 0, id = 0;
    t->add_dummy_prefix = t->remove_extra_whitespaces = t->escape_whitespaces = true;
    t->model_type = 1;
    t->unk_surface = " \xE2\x81\x87 ";
    t->bos_piece = "<s>";
    t->eos_piece = "</s>";
    while (wire_next(&w, &f, e))
        if (f.number == 1 && ++n > (1 << 24)) return wire_error(&w, e, "more than 2^24 pieces");
    if (e->code) return false;
    if (n == 0) return wire_error(&w, e, "no pieces");
    t->vocab = n;
    t->piece = arena_alloc(a, (size_t)n * sizeof *t->piece, e);
    if (!t->piece) return false;
    w.p = data;
    while (wire_next(&w, &f, e)) {
        if (f.number > 5 || f.number == 4) continue;
        if (!wire_want(&w, &f, 2, e)) return false;
        const Wire sub = wire_sub(&w, &f, message[f.number]);
        const bool ok = f.number == 1   ? parse_piece(t, sub, id++, a, e)
                        : f.number == 2 ? parse_trainer(t, sub, a, e)
                                        : parse_normalizer(t, sub, f.number == 3, a, e);
        if (!ok) return false;
    }
    return spm_finish(t, a, e);
}
