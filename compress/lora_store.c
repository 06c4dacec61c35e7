/* compress/lora_store.c: the frozen base of a run, and a teacher. QLoRA (2305.14314): projections inside the
 * blocks become codes while the file is read, one matrix at a time; embeddings, norms, the head and
 * modules_to_save stay as they are.
 *
 *   int8: per row      fp8: E4M3 per row      nf4: blocks of 64      nf4_double: their scales in 8 bits
 * too */
#include "compress/lora_impl.h"
#include <string.h>

static QuantSpec spec_of(const char *word)
{
    if (!strcmp(word, "int8")) return (QuantSpec){.f = &quant_formats[QUANT_int8], .block_rows = 1};
    if (!strcmp(word, "fp8")) return (QuantSpec){.f = &quant_formats[QUANT_fp8_e4m3], .block_rows = 1};
    return (QuantSpec){.f = &quant_formats[QUANT_nf4],
                       .block_rows = 1,
                       .block_cols = 64,
                       .double_quant = !strcmp(word, "nf4_double")};
}

static Site *coded_site(const Model *m, const Param *p, const LoraConfig *c)
{
    for (int i = 0; i < m->n_site; i++) {
        Site *s = &m->site[i];
        bool take = s->w == p && !is_head(m, s->name);
        for (int j = 0; j < c->modules_to_save.n; j++)
            take = take && !module_match(c->modules_to_save.v[j], s->name);
        if (take) return s;
    }
    return NULL;
}

static bool take(Model *m, Param *p, const float *values, void *ctx, bool *taken, Err *e)
{
    const LoraConfig *c = ctx;
    Site *s = coded_site(m, p, c);
    const long rows = p->w.dim[0], cols = p->w.dim[1];
    if (!s) return true;
    QuantStore *q = arena_alloc(m->run, sizeof *q, e);
    if (!q) return false;
    *q = (QuantStore){.spec = spec_of(c->base_quant), .rows = rows, .cols = cols};
    uint8_t *codes = arena_alloc(m->run, (size_t)rows * quant_row_bytes(&q->spec, cols), e);
    char *hex = arena_alloc(m->run, 33, e);
    if (e->code || !quant_scales_alloc(&q->scales, &q->spec, rows, cols, m->run, e)) return false;
    quant_scales(&q->scales, &q->spec, values, rows, cols);
    quant_encode(codes, values, &q->spec, &q->scales, cols, 0, rows);
    hash128_hex(hex, values, (size_t)(rows * cols) * sizeof *values);
    q->codes = codes;
    p->hash = hex;
    p->frozen = true;
    s->q = q;
    *taken = true;
    return true;
}

bool lora_base_open(Model *m, const char *path, const LoraConfig *c, const Kernels *k, Arena *run, Err *e)
{
    const ModelStore st = {.take = take, .ctx = (void *)(uintptr_t)c};
    return model_open_stored(m, path, strcmp(c->base_quant, "none") ? &st : NULL, k, run, e);
}

bool teacher_open(Model *m, const char *path, const char *dtype, const char *quantize, const Kernels *k,
                  Arena *run, Err *e)
{
    LoraConfig c = {.base_quant = quantize};
    const bool coded = strcmp(quantize, "none") != 0;
    const ModelStore st = {.take = coded ? take : NULL, .ctx = &c, .half = !strcmp(dtype, "bfloat16")};
    if (!model_open_stored(m, path, coded || st.half ? &st : NULL, k, run, e)) return false;
    for (int i = 0; i < m->params.n; i++) {
        m->params.p[i]->frozen = true;
        m->params.p[i]->w.flags |= T_NOGRAD;
    }
    return true;
}
