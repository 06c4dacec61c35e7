/* data/charsmap.c: SentencePiece's precompiled character map, and the `Precompiled` normalizer by it.
 *
 *   u32 bytes of the trie | the trie: u32 units | the replacements, each ended by a NUL
 *
 * The trie is a double array (Darts-clone). A unit u holds
 *   label   u & 0x800000FF            the byte that leads to it; the high bit marks a leaf, never a byte
 *   leaf    u >> 8 & 1                whether a rule ends here: its value is the unit at the node's own place
 *   offset  (u >> 10) << (8 if u & 0x200)   node ^ offset is where the children are: child c at (that) ^ c
 *   value   u & 0x7FFFFFFF            of a leaf: where its replacement begins
 *
 * SentencePiece replaces the longest rule at each place. `Precompiled` of tokenizer.json asks for each
 * grapheme of fewer than 6 bytes, then for each of its characters, and takes the first (shortest) rule, which
 * stands for the whole of what was asked: models were trained so.
 */
#include "data/charsmap_impl.h"
#include "data/pipeline_impl.h"
#include "data/utf8_impl.h"
#include <string.h>
#include <utf8proc.h>

Charsmap *charsmap_open(const char *data, size_t bytes, const char *where, Arena *a, Err *e)
{
    uint32_t trie = 0;
    if (bytes >= 4) memcpy(&trie, data, 4);
    if (trie == 0 || trie % 4 != 0 || trie > bytes - 4) {
        err_set(e, ERR_CORRUPT, "%s: the character map is damaged: a trie of %u bytes in %zu", where, trie,
                bytes);
        return NULL;
    }
    Charsmap *c = arena_alloc(a, sizeof *c, e);
    uint32_t *unit = arena_alloc(a, trie, e);
    char *text = arena_alloc(a, bytes - 4 - trie, e);
    if (!c || !unit || !text) return NULL;
    memcpy(unit, data + 4, trie);
    memcpy(text, data + 4 + trie, bytes - 4 - trie);
    *c = (Charsmap){unit, trie / 4, text, bytes - 4 - trie};
    if (c->bytes == 0 || text[c->bytes - 1] != 0) {
        err_set(e, ERR_CORRUPT, "%s: the character map is damaged: its last replacement has no end", where);
        return NULL;
    }
    return c;
}

static uint32_t unit_offset(uint32_t u) { return (u >> 10) << ((u & 0x200) >> 6); }

size_t charsmap_match(const Charsmap *c, const char *s, size_t n, bool first, const char **text,
                      size_t *bytes)
{
    uint32_t node = unit_offset(c->unit[0]);
    size_t found = 0;
    for (size_t i = 0; i < n && !(found && first); i++) {
        const unsigned char b = (unsigned char)s[i];
        node ^= b;
        if (node >= c->n_unit) break;
        const uint32_t u = c->unit[node];
        if ((u & 0x800000FFu) != b) break;
        node ^= unit_offset(u);
        if (!(u >> 8 & 1)) continue;
        if (node >= c->n_unit) break;
        const uint32_t at = c->unit[node] & 0x7FFFFFFFu;
        if (at >= c->bytes) break;
        found = i + 1;
        *text = c->text + at;
    }
    if (found) *bytes = strlen(*text);
    return found;
}

const void *precompiled_open(const char *charsmap, size_t bytes, Arena *a, Err *e)
{
    return charsmap_open(charsmap, bytes, "Precompiled normalizer", a, e);
}

/* Bytes of the grapheme that starts s (n,), valid UTF-8. */
static size_t grapheme(const char *s, size_t n)
{
    utf8proc_int32_t state = 0;
    uint32_t a = 0, b = 0;
    size_t at = utf8_next(s, n, &a);
    for (size_t len; at > 0 && at < n; at += len, a = b) {
        len = utf8_next(s + at, n - at, &b);
        if (len == 0 || utf8proc_grapheme_break_stateful((int32_t)a, (int32_t)b, &state)) break;
    }
    return at ? at : 1;
}

bool precompiled_apply(const void *map, const char *s, size_t bytes, TokText *out, Arena *a, Err *e)
{
    const char *text;
    size_t n = 0;
    for (size_t at = 0, whole; at < bytes; at += whole) {
        whole = grapheme(s + at, bytes - at);
        if (whole < 6 && charsmap_match(map, s + at, whole, true, &text, &n)) {
            if (!text_put(out, text, n, a, e)) return false;
            continue;
        }
        for (size_t i = at, len; i < at + whole; i += len) {
            len = utf8_next(s + i, at + whole - i, NULL);
            if (len == 0) len = 1;
            const bool hit = charsmap_match(map, s + i, len, true, &text, &n) > 0;
            if (!text_put(out, hit ? text : s + i, hit ? n : len, a, e)) return false;
        }
    }
    return true;
}
