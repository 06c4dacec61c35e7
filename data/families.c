/* data/families.c: pipelines by a family's name (families.def). */
#include "data/families_impl.h"
#include <string.h>

static const Family family[] = {
#define FAMILY(name, nfc, digits, dialect, one, two, three, ranks, specials)                                 \
    {#name, nfc, digits, dialect, {one, two, three}, ranks, specials},
#include "data/families.def"
#undef FAMILY
};

const Family *family_named(const char *name, Arena *a, Err *e)
{
    const char *list = "";
    for (size_t i = 0; i < sizeof family / sizeof *family; i++)
        if (strcmp(name, family[i].name) == 0) return &family[i];
    for (size_t i = 0; i < sizeof family / sizeof *family && list; i++)
        list = arena_printf(a, e, "%s%s%s", list, i ? ", " : "", family[i].name);
    err_set(e, ERR_USAGE, "tokenizer.pattern: `%s` is not one of %s", name, list ? list : "");
    return NULL;
}

static bool split(PreTokenizer *x, const char *pattern, RegexDialect dialect, const char *name, Err *e)
{
    x->kind = PRE_SPLIT;
    x->cut = CUT_ISOLATED;
    x->pattern = pattern;
    x->regex = regex_open(pattern, strlen(pattern), dialect, name, e);
    return x->regex != NULL;
}

bool pipeline_preset(Pipeline *p, const char *name, Arena *a, Err *e)
{
    const Family *f = family_named(name, a, e);
    if (!f) return false;
    p->norm = arena_alloc(a, sizeof *p->norm, e);
    p->pre = arena_alloc(a, 5 * sizeof *p->pre, e);
    p->dec = arena_alloc(a, sizeof *p->dec, e);
    if (!p->norm || !p->pre || !p->dec) return false;
    p->n_norm = f->nfc;
    p->norm[0].kind = NORM_NFC;
    p->n_dec = 1;
    p->has_decoder = true;
    p->dec[0] = (Decoder){.kind = DEC_BYTE_LEVEL, .prepend = PREPEND_NEVER};
    p->n_pre = 0;
    if (f->digits) p->pre[p->n_pre++] = (PreTokenizer){.kind = PRE_DIGITS, .individual = f->digits == 1};
    for (int i = 0; i < 3 && f->pattern[i]; i++)
        if (!split(&p->pre[p->n_pre++], f->pattern[i], f->dialect, name, e)) return false;
    PreTokenizer *last = &p->pre[p->n_pre++];
    *last = (PreTokenizer){.kind = PRE_BYTE_LEVEL, .cut = CUT_ISOLATED};
    return f->pattern[0] || byte_level_pattern(last, e);
}
