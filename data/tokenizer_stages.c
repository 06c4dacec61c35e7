/* data/tokenizer_stages.c: normalizers, pre-tokenizers and decoders of tokenizer.json into a Pipeline's
 * arrays. Sequences are flattened. A type or a key not known here is refused by its name.
 */
#include "data/tokenizer_json_impl.h"
#include "data/utf8_impl.h"
#include <string.h>

/* The stages below o: itself, or the members of (nested) Sequences. out NULL: only counts. */
static bool flatten(const json_t *o, const char *part, const char *list, int depth, const json_t **out,
                    size_t *n, const JsonSource *s)
{
    if (!o || json_is_null(o)) return true;
    const char *type = src_type(s, o, part);
    if (!type) return false;
    if (strcmp(type, "Sequence") != 0) {
        if (out) out[*n] = o;
        (*n)++;
        return true;
    }
    const json_t *v = json_object_get(o, list);
    if (!json_is_array(v))
        return err_set(s->e, ERR_CORRUPT, "%s: %s: Sequence without `%s`", s->path, part, list);
    if (depth > 20) return err_set(s->e, ERR_CORRUPT, "%s: %s: Sequences 20 deep", s->path, part);
    for (size_t i = 0; i < json_array_size(v); i++)
        if (!flatten(json_array_get(v, i), part, list, depth + 1, out, n, s)) return false;
    return true;
}

static const json_t **stages_of(const json_t *o, const char *part, const char *list, size_t *n,
                                const JsonSource *s)
{
    *n = 0;
    if (!flatten(o, part, list, 0, NULL, n, s)) return NULL;
    const json_t **v = arena_alloc(s->a, (*n + 1) * sizeof *v, s->e);
    *n = 0;
    return v && flatten(o, part, list, 0, v, n, s) ? v : NULL;
}

/* "pattern": {"Regex": s} or {"String": s}; *text is a string's own text. */
static bool pattern_of(const json_t *o, const char *part, const JsonSource *s, const Regex **regex,
                       TokSpan *text, const char **written)
{

    const json_t *v = json_object_get(o, "pattern");
    const json_t *r = json_object_get(v, "Regex"), *plain = json_object_get(v, "String");
    if (json_object_size(v) != 1 || !json_is_string(r ? r : plain))
        return err_set(s->e, ERR_CORRUPT, "%s: %s: `pattern` is not {\"Regex\": ...} or {\"String\": ...}",
                       s->path, part);
    const TokSpan t = src_span(s, v, part, r ? "Regex" : "String");
    if (!t.s) return false;
    if (t.n == 0) return src_refuse(s, part, "an empty pattern");
    const char *what = arena_printf(s->a, s->e, "%s: %s", s->path, part);
    if (!what) return false;
    *written = t.s;
    *text = r ? (TokSpan){NULL, 0} : t;
    *regex = r ? regex_open(t.s, t.n, REGEX_ONIGURUMA, what, s->e) : regex_open_literal(t.s, t.n, what, s->e);
    return *regex != NULL;
}

/* ---- normalizers --------------------------------------------------------------------------------------- */

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *hit = c ? strchr(digits, c) : NULL;
    return hit ? (int)(hit - digits) : -1;
}

static bool precompiled(Normalizer *n, const json_t *o, const JsonSource *s)
{
    const TokSpan t = src_span(s, o, "Precompiled", "precompiled_charsmap");
    char *map = arena_alloc(s->a, t.n + 4, s->e);
    size_t m = 0;
    unsigned bits = 0, have = 0;
    if (!t.s || !map)
        return err_set(s->e, ERR_CORRUPT, "%s: Precompiled without precompiled_charsmap", s->path);
    for (size_t i = 0; i < t.n && t.s[i] != '='; i++) {
        const int d = base64_digit(t.s[i]);
        if (d < 0) return err_set(s->e, ERR_CORRUPT, "%s: precompiled_charsmap is not base64", s->path);
        bits = bits << 6 | (unsigned)d;
        have += 6;
        if (have < 8) continue;
        have -= 8;
        map[m++] = (char)(bits >> have);
    }
    n->kind = NORM_PRECOMPILED;
    n->map_bytes = (TokSpan){map, m};
    n->map = precompiled_open(map, m, s->a, s->e);
    return n->map != NULL || err_prefix(s->e, "%s", s->path);
}

static bool bert_normalizer(Normalizer *n, const json_t *o, const JsonSource *s)
{
    n->kind = NORM_BERT;
    n->clean_text = src_flag(s, o, "BertNormalizer", "clean_text", true);
    n->chinese = src_flag(s, o, "BertNormalizer", "handle_chinese_chars", true);
    n->lower = src_flag(s, o, "BertNormalizer", "lowercase", true);
    const json_t *accents = json_object_get(o, "strip_accents");
    n->strip_accents = !accents || json_is_null(accents)
                           ? n->lower
                           : src_flag(s, o, "BertNormalizer", "strip_accents", false);
    return src_known(s, o, "BertNormalizer", "type|clean_text|handle_chinese_chars|strip_accents|lowercase");
}

static bool normalizer(Normalizer *n, const json_t *o, const JsonSource *s)
{
    static const struct {
        const char *type;
        NormKind kind;
    } plain[] = {{"NFC", NORM_NFC},
                 {"NFD", NORM_NFD},
                 {"NFKC", NORM_NFKC},
                 {"NFKD", NORM_NFKD},
                 {"Nmt", NORM_NMT},
                 {"Lowercase", NORM_LOWERCASE},
                 {"StripAccents", NORM_STRIP_ACCENTS}};
    const char *type = src_type(s, o, "normalizer"), *written;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        if (strcmp(type, plain[i].type) != 0) continue;
        n->kind = plain[i].kind;
        return src_known(s, o, type, "type");
    }
    if (strcmp(type, "Strip") == 0) {
        n->kind = NORM_STRIP;
        n->left = src_flag(s, o, type, "strip_left", true);
        n->right = src_flag(s, o, type, "strip_right", true);
        return src_known(s, o, type, "type|strip_left|strip_right");
    }
    if (strcmp(type, "Prepend") == 0) {
        n->kind = NORM_PREPEND;
        n->to = src_span(s, o, type, "prepend");
        return n->to.s ? src_known(s, o, type, "type|prepend")
                       : src_refuse(s, "normalizer", "Prepend of nothing");
    }
    if (strcmp(type, "Replace") == 0) {
        n->kind = NORM_REPLACE;
        n->to = src_span(s, o, type, "content");
        return n->to.s ? src_known(s, o, type, "type|pattern|content") &&
                             pattern_of(o, "normalizer Replace", s, &n->regex, &n->from, &written) &&
                             (n->from.s || (n->from = (TokSpan){written, strlen(written)}, true))
                       : src_refuse(s, "normalizer", "Replace without content");
    }
    if (strcmp(type, "BertNormalizer") == 0) return bert_normalizer(n, o, s);
    if (strcmp(type, "Precompiled") == 0)
        return src_known(s, o, type, "type|precompiled_charsmap") && precompiled(n, o, s);
    return src_refuse(s, "normalizer", type);
}

bool normalizers_from_json(Pipeline *p, const json_t *o, const JsonSource *s)
{
    const json_t **v = stages_of(o, "normalizer", "normalizers", &p->n_norm, s);
    p->norm = v ? arena_alloc(s->a, (p->n_norm + 1) * sizeof *p->norm, s->e) : NULL;
    for (size_t i = 0; p->norm && i < p->n_norm; i++)
        if (!normalizer(&p->norm[i], v[i], s)) return false;
    return p->norm != NULL;
}

/* ---- pre-tokenizers ------------------------------------------------------------------------------------ */

static bool cut_of(Cut *cut, const json_t *o, const char *part, Cut fallback, const JsonSource *s)
{
    static const char *const name[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext",
                                       "Contiguous"};
    const TokSpan t = src_span(s, o, part, "behavior");
    *cut = fallback;
    if (!t.s) return !s->e->code;
    for (int i = 0; i < 5; i++) {
        if (strcmp(t.s, name[i]) != 0) continue;
        *cut = (Cut)i;
        return true;
    }
    return src_refuse(s, part, t.s);
}

static bool scheme_of(PrependScheme *out, const json_t *o, const char *part, const JsonSource *s)
{
    const TokSpan t = src_span(s, o, part, "prepend_scheme");
    const json_t *old = json_object_get(o, "add_prefix_space");
    *out = PREPEND_ALWAYS;
    if (t.s && strcmp(t.s, "first") == 0) *out = PREPEND_FIRST;
    else if (t.s && strcmp(t.s, "never") == 0) *out = PREPEND_NEVER;
    else if (t.s && strcmp(t.s, "always") != 0) return src_refuse(s, part, t.s);
    if (json_is_false(old)) *out = PREPEND_NEVER;
    return !s->e->code;
}

static bool replacement_of(TokSpan *out, const json_t *o, const char *part, const JsonSource *s)
{
    *out = src_span(s, o, part, "replacement");
    if (!out->s && !s->e->code) *out = (TokSpan){"\xE2\x96\x81", 3};
    return !s->e->code && (utf8_next(out->s, out->n, NULL) == out->n ||
                           src_refuse(s, part, "a replacement of several characters"));
}

static bool byte_level(PreTokenizer *x, const json_t *o, const JsonSource *s)
{
    x->kind = PRE_BYTE_LEVEL;
    x->cut = CUT_ISOLATED;
    x->add_prefix_space = src_flag(s, o, "ByteLevel", "add_prefix_space", true);
    if (src_flag(s, o, "ByteLevel", "use_regex", true) && !byte_level_pattern(x, s->e)) return false;
    return src_known(s, o, "ByteLevel", "type|add_prefix_space|use_regex|trim_offsets");
}

static bool split(PreTokenizer *x, const json_t *o, const JsonSource *s)
{
    x->kind = PRE_SPLIT;
    x->invert = src_flag(s, o, "Split", "invert", false);
    if (!src_known(s, o, "Split", "type|pattern|behavior|invert") ||
        !cut_of(&x->cut, o, "Split", CUT_ISOLATED, s) ||
        !pattern_of(o, "pre_tokenizer Split", s, &x->regex, &x->string, &x->pattern))
        return false;
    if (x->string.s) x->regex = NULL;
    return true;
}

static bool metaspace(PreTokenizer *x, const json_t *o, const JsonSource *s)
{
    x->kind = PRE_METASPACE;
    x->cut = CUT_MERGED_WITH_NEXT;
    x->split = src_flag(s, o, "Metaspace", "split", true);
    return replacement_of(&x->replacement, o, "Metaspace", s) && scheme_of(&x->prepend, o, "Metaspace", s) &&
           src_known(s, o, "Metaspace", "type|replacement|add_prefix_space|str_rep|prepend_scheme|split");
}

static bool delimiter(PreTokenizer *x, const json_t *o, const JsonSource *s)
{
    x->kind = PRE_SPLIT;
    x->cut = CUT_REMOVED;
    x->string = src_span(s, o, "CharDelimiterSplit", "delimiter");
    x->pattern = x->string.s;
    return x->string.n ? src_known(s, o, "CharDelimiterSplit", "type|delimiter")
                       : src_refuse(s, "pre_tokenizer", "CharDelimiterSplit without a delimiter");
}

static bool pretokenizer(PreTokenizer *x, const json_t *o, const JsonSource *s)
{
    const char *type = src_type(s, o, "pre_tokenizer");
    if (strcmp(type, "ByteLevel") == 0) return byte_level(x, o, s);
    if (strcmp(type, "Split") == 0) return split(x, o, s);
    if (strcmp(type, "Metaspace") == 0) return metaspace(x, o, s);
    if (strcmp(type, "CharDelimiterSplit") == 0) return delimiter(x, o, s);
    if (strcmp(type, "Digits") == 0) {
        x->kind = PRE_DIGITS;
        x->individual = src_flag(s, o, type, "individual_digits", false);
        return src_known(s, o, type, "type|individual_digits");
    }
    if (strcmp(type, "Punctuation") == 0) {
        x->kind = PRE_PUNCTUATION;
        return src_known(s, o, type, "type|behavior") && cut_of(&x->cut, o, type, CUT_ISOLATED, s);
    }
    x->kind = strcmp(type, "Whitespace") == 0        ? PRE_WHITESPACE
              : strcmp(type, "WhitespaceSplit") == 0 ? PRE_WHITESPACE_SPLIT
                                                     : PRE_BERT;
    if (x->kind == PRE_BERT && strcmp(type, "BertPreTokenizer") != 0)
        return src_refuse(s, "pre_tokenizer", type);
    return src_known(s, o, type, "type");
}

bool pretokenizers_from_json(Pipeline *p, const json_t *o, const JsonSource *s)
{
    const json_t **v = stages_of(o, "pre_tokenizer", "pretokenizers", &p->n_pre, s);
    p->pre = v ? arena_alloc(s->a, (p->n_pre + 1) * sizeof *p->pre, s->e) : NULL;
    for (size_t i = 0; p->pre && i < p->n_pre; i++)
        if (!pretokenizer(&p->pre[i], v[i], s) || s->e->code) return false;
    return p->pre != NULL;
}

/* ---- decoders ------------------------------------------------------------------------------------------ */

static bool strip(Decoder *d, const json_t *o, const JsonSource *s)
{
    const json_t *start = json_object_get(o, "start"), *stop = json_object_get(o, "stop");
    d->kind = DEC_STRIP;
    d->from = src_span(s, o, "Strip", "content");
    d->start = (long)json_integer_value(start);
    d->stop = (long)json_integer_value(stop);
    if (!d->from.n || !json_is_integer(start) || !json_is_integer(stop) || d->start < 0 || d->stop < 0)
        return src_refuse(s, "decoder", "Strip without content, start or stop");
    return src_known(s, o, "Strip", "type|content|start|stop");
}

static bool replace(Decoder *d, const json_t *o, const JsonSource *s)
{
    const char *written;
    d->kind = DEC_REPLACE;
    d->to = src_span(s, o, "Replace", "content");
    if (!d->to.s) return src_refuse(s, "decoder", "Replace without content");
    if (!src_known(s, o, "Replace", "type|pattern|content") ||
        !pattern_of(o, "decoder Replace", s, &d->regex, &d->from, &written))
        return false;
    if (d->from.s) d->regex = NULL;
    return true;
}

static bool decoder(Decoder *d, const json_t *o, const JsonSource *s)
{
    const char *type = src_type(s, o, "decoder");
    d->prepend = PREPEND_NEVER;
    if (strcmp(type, "ByteLevel") == 0) {
        d->kind = DEC_BYTE_LEVEL;
        return src_known(s, o, type, "type|add_prefix_space|trim_offsets|use_regex");
    }
    if (strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0) {
        d->kind = *type == 'F' ? DEC_FUSE : DEC_BYTE_FALLBACK;
        return src_known(s, o, type, "type");
    }
    if (strcmp(type, "Strip") == 0) return strip(d, o, s);
    if (strcmp(type, "Replace") == 0) return replace(d, o, s);
    if (strcmp(type, "Metaspace") == 0) {
        d->kind = DEC_METASPACE;
        return replacement_of(&d->from, o, type, s) && scheme_of(&d->prepend, o, type, s) &&
               src_known(s, o, type, "type|replacement|add_prefix_space|str_rep|prepend_scheme|split");
    }
    if (strcmp(type, "WordPiece") == 0) {
        d->kind = DEC_WORD_PIECE;
        d->from = src_span(s, o, type, "prefix");
        if (!d->from.s) d->from = (TokSpan){"##", 2};
        d->cleanup = src_flag(s, o, type, "cleanup", true);
        return src_known(s, o, type, "type|prefix|cleanup");
    }
    if (strcmp(type, "BPEDecoder") == 0) {
        d->kind = DEC_BPE;
        d->from = src_span(s, o, type, "suffix");
        if (!d->from.s) d->from = (TokSpan){"</w>", 4};
        return src_known(s, o, type, "type|suffix");
    }
    return src_refuse(s, "decoder", type);
}

bool decoders_from_json(Pipeline *p, const json_t *o, const JsonSource *s)
{
    const json_t **v = stages_of(o, "decoder", "decoders", &p->n_dec, s);
    p->has_decoder = o && !json_is_null(o);
    p->dec = v ? arena_alloc(s->a, (p->n_dec + 1) * sizeof *p->dec, s->e) : NULL;
    for (size_t i = 0; p->dec && i < p->n_dec; i++)
        if (!decoder(&p->dec[i], v[i], s) || s->e->code) return false;
    return p->dec != NULL;
}
