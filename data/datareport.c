/* data/datareport.c: what a source holds, for people to look at before they train. */
#include "data/source_impl.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static json_t *source_stats(const Tokens *t, const DataConfig *d)
{
    const size_t all[2] = {0, t->n}, *doc = t->doc ? t->doc : all, n = t->doc ? t->n_doc : 1;
    size_t longest = 0, shortest = t->n, over = 0, trained = 0, silent = 0;
    for (size_t i = 0; i < n; i++) {
        const size_t len = doc[i + 1] - doc[i];
        size_t on = 0;
        for (size_t k = doc[i]; k < doc[i + 1]; k++) on += !t->target || t->target[k];
        longest = len > longest ? len : longest;
        shortest = len < shortest ? len : shortest;
        over += len > (size_t)d->seq_len + 1;
        trained += on;
        silent += on == 0;
    }
    json_t *o = json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "path", t->path, "documents",
                          (json_int_t)(t->doc ? t->n_doc : 0), "empty", (json_int_t)t->count.empty,
                          "bad_lines", (json_int_t)t->count.bad, "tokens", (json_int_t)t->n, "text_bytes",
                          (json_int_t)t->bytes, "longest", (json_int_t)longest, "shortest",
                          (json_int_t)shortest, "longer_than_seq_len", (json_int_t)over, "without_target",
                          (json_int_t)silent, "trained_tokens", (json_int_t)trained);
    if (o) json_object_set_new(o, "masked_share", json_real(1 - (double)trained / (double)t->n));
    if (o) json_object_set_new(o, "mean", json_real((double)t->n / (double)n));
    if (o && t->bytes) json_object_set_new(o, "bytes_per_token", json_real((double)t->bytes / (double)t->n));
    return o;
}

static json_t *loader_stats(const Loader *l, const DataConfig *d)
{
    const LoaderReport r = loader_report(l);
    return json_pack("{s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:f}", "packing", d->packing, "seq_len",
                     (json_int_t)d->seq_len, "samples", (json_int_t)loader_samples(l), "targets",
                     (json_int_t)r.targets, "too_long", (json_int_t)r.too_long, "dropped_tokens",
                     (json_int_t)r.dropped_tokens, "nothing_to_learn", (json_int_t)r.nothing_to_learn, "fill",
                     r.fill);
}

char *data_stats_json(const SourceConfig *s, int n, const DataConfig *d, const Tokenizer *tk, Arena *a,
                      Err *e)
{
    json_t *o = json_object(), *list = json_array();
    json_object_set_new(o, "sources", list);
    for (int i = 0; i < n && !e->code; i++) {
        Arena one = {.name = "statistics"};
        Tokens t;
        if (tokens_load(&t, &s[i], d, tk, 0, &one, e)) json_array_append_new(list, source_stats(&t, d));
        arena_free(&one);
    }
    Arena all = {.name = "statistics"};
    const LoaderOptions lo = {.data = d, .source = s, .n_source = n, .seq_len = (long)d->seq_len};
    Err few = {0};
    Loader *l = e->code ? NULL : loader_open(&lo, tk, &all, &few);
    if (l) json_object_set_new(o, "samples", loader_stats(l, d));
    else if (!e->code) json_object_set_new(o, "samples", json_string(few.msg));
    loader_close(l);
    arena_free(&all);
    char *text = e->code ? NULL : json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6)), *copy = NULL;
    if (text) copy = arena_strdup(a, text, e);
    else err_set(e, ERR_MEMORY, "out of memory for the statistics");
    free(text);
    json_decref(o);
    return copy;
}

/* ---- inspect ------------------------------------------------------------------------------------------- */
typedef struct Page {
    char *s;
    size_t n, cap;
} Page;

static bool page_put(Page *p, const char *s, size_t n, Arena *a, Err *e)
{
    if (p->n + n + 1 > p->cap) {
        const size_t cap = 2 * (p->n + n) + 256;
        char *q = arena_grow(a, p->s, p->n, cap, e);
        if (!q) return false;
        p->s = q;
        p->cap = cap;
    }
    memcpy(p->s + p->n, s, n);
    p->n += n;
    p->s[p->n] = 0;
    return true;
}

/* One document: what is trained as it is, the rest between guillemets; ids without text as <id>. */
static bool page_document(Page *p, const Tokens *t, size_t from, size_t to, const Tokenizer *tk, Arena *a,
                          Err *e)
{
    bool in = true;
    for (size_t k = from; k < to; k++) {
        const bool on = !t->target || t->target[k];
        size_t n = 0;
        const char *s = tk ? tokenizer_piece(tk, k > from ? t->id[k - 1] : -1, t->id[k], &n) : "";
        if (on != in && !page_put(p, on ? "\xC2\xBB" : "\xC2\xAB", 2, a, e)) return false;
        in = on;
        if (n == 0) {
            const char *name = arena_printf(a, e, "<%d>", t->id[k]);
            if (!name || !page_put(p, name, strlen(name), a, e)) return false;
        } else if (!page_put(p, s, n, a, e)) {
            return false;
        }
    }
    return in || page_put(p, "\xC2\xBB", 2, a, e);
}

char *data_inspect_text(const SourceConfig *s, const DataConfig *d, const Tokenizer *tk, int n, Arena *a,
                        Err *e)
{
    Arena one = {.name = "inspect"};
    Tokens t;
    Page p = {0};
    if (tokens_load(&t, s, d, tk, 0, &one, e)) {
        const size_t all[2] = {0, t.n}, *doc = t.doc ? t.doc : all, m = t.doc ? t.n_doc : 1;
        for (size_t i = 0; i < m && i < (size_t)n && !e->code; i++) {
            const size_t most = doc[i] + (size_t)d->seq_len + 1, to = doc[i + 1] < most ? doc[i + 1] : most;
            size_t on = 0;
            for (size_t k = doc[i]; k < doc[i + 1]; k++) on += !t.target || t.target[k];
            const char *head = arena_printf(a, e, "%s--- document %zu: %zu tokens, %zu trained%s ---\n",
                                            i ? "\n" : "", i + 1, doc[i + 1] - doc[i], on,
                                            to < doc[i + 1] ? " (shown to seq_len)" : "");
            if (!head || !page_put(&p, head, strlen(head), a, e)) break;
            page_document(&p, &t, doc[i], to, tk, a, e);
        }
    }
    arena_free(&one);
    return e->code ? NULL : p.s;
}
