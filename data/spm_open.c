/* data/spm_open.c: a SentencePiece file as a Tokenizer. */
#include "data/spm_impl.h"
#include <string.h>

static bool encode(const Tokenizer *t, const char *text, size_t bytes, TokenBuf *out, uint64_t *steps,
                   Arena *a, Err *e)
{
    return spm_encode(t->impl, text, bytes, out, steps, a, e);
}

static char *decode(const Tokenizer *t, const int32_t *ids, size_t n, size_t *bytes, Arena *a, Err *e)
{
    return spm_decode(t->impl, ids, n, bytes, a, e);
}

static const char *piece(const Tokenizer *t, int prev, int id, size_t *bytes)
{
    return spm_piece(t->impl, prev, id, bytes);
}

/* Rules, then type, score and text of each piece. */
static bool digest(const Tokenizer *t, TokText *out, Arena *a, Err *e)
{
    const Spm *m = t->impl;
    const char rules[5] = {(char)m->add_dummy_prefix, (char)m->remove_extra_whitespaces,
                           (char)m->escape_whitespaces, (char)m->byte_fallback, (char)m->model_type};
    bool ok = text_put(out, t->ops->kind, strlen(t->ops->kind), a, e) && text_put(out, rules, 5, a, e);
    if (m->map)
        ok = ok && text_put(out, (const char *)m->map->unit, 4 * m->map->n_unit, a, e) &&
             text_put(out, m->map->text, m->map->bytes, a, e);
    for (int i = 0; ok && i < m->vocab; i++) {
        const SpmPiece *s = &m->piece[i];
        char head[9];
        head[0] = (char)s->type;
        memcpy(head + 1, &s->score, 4);
        memcpy(head + 5, &s->bytes, 4);
        ok = text_put(out, head, 9, a, e) && text_put(out, s->text, s->bytes, a, e);
    }
    return ok;
}

const TokenizerOps spm_ops = {"SentencePiece", encode, decode, piece, digest};

bool spm_open(Tokenizer *t, Arena *a, Err *e)
{
    FileMap map;
    Spm *m = arena_alloc(a, sizeof *m, e);
    if (!m || !file_map(&map, t->path, e)) return false;
    *m = (Spm){.path = t->path, .bos = -1, .eos = -1, .unk = -1};
    const bool ok = spm_parse(m, map.data, map.bytes, a, e);
    file_unmap(&map);
    t->impl = m;
    t->ops = &spm_ops;
    t->vocab = m->vocab;
    t->bos = m->bos;
    t->eos = m->eos;
    t->unk = m->unk;
    return ok;
}
