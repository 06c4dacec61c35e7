/* train/inspect_cache.c: `pare inspect` of a teacher cache: what it holds of whom, and how large it is. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "train/run_impl.h"

bool cache_is(const char *path)
{
    Arena tmp = {.name = "inspect"};
    Err none = {0};
    H5In *h = h5_open(path, false, &tmp, &none);
    const char *kind = h ? h5_get_str(h, "/", "kind", &none) : NULL;
    const bool is = kind && !strcmp(kind, "teacher_logits");
    if (h) h5_close(h);
    arena_free(&tmp);
    return is;
}

static char *as_json(const CacheAbout *b, long long bytes, Arena *a, Err *e)
{
    json_t *temperatures = json_array();
    for (int i = 0; i < b->n_temp; i++) json_array_append_new(temperatures, json_real(b->temp[i]));
    json_t *o = json_pack("{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:s,s:s,s:s,s:s}", "format", "hdf5", "kind",
                          "teacher_logits", "bytes", (json_int_t)bytes, "positions",
                          (json_int_t)(b->sequences * b->T), "sequences", (json_int_t)b->sequences, "seq_len",
                          (json_int_t)b->T, "k", (json_int_t)b->k, "vocab_size", (json_int_t)b->V,
                          "temperatures", temperatures, "teacher_hash", b->teacher, "teacher_storage",
                          b->storage, "tokenizer_hash", b->tokenizer, "data_hash", b->data);
    char *s = o ? json_dumps(o, 0) : NULL, *text = s ? arena_strdup(a, s, e) : NULL;
    if (!text) err_set(e, ERR_MEMORY, "out of memory for the result");
    free(s);
    json_decref(o);
    return text;
}

char *cache_inspect(const char *path, bool json, Arena *a, Err *e)
{
    struct stat st;
    TeacherCache *t = teacher_cache_open(path, a, e);
    if (!t) return NULL;
    const CacheAbout *b = teacher_cache_about(t);
    const long long positions = (long long)(b->sequences * b->T);
    const long long bytes = stat(path, &st) ? 0 : (long long)st.st_size;
    char *text = json ? as_json(b, bytes, a, e) : arena_strdup(a, "", e);
    for (int i = 0; text && !json && i < b->n_temp; i++)
        text = arena_printf(a, e, "%s%s%g", text, i ? ", " : "", b->temp[i]);
    if (text && !json)
        text = arena_printf(a, e,
                            "hdf5  teacher_logits  %lld tokens  %.2f MB, %.0f bytes a token\n"
                            "  data          %s: %lld sequences of %ld\n"
                            "  kept          top %ld of %ld tokens%s\n"
                            "  temperatures  %s%s\n"
                            "  teacher       %s, kept as %s\n"
                            "  tokenizer     %s",
                            positions, (double)bytes / 1e6, (double)bytes / (double)positions, b->data,
                            (long long)b->sequences, b->T, b->k, b->V,
                            b->k == b->V ? ", float32" : ", float16", text,
                            b->k == b->V ? " (and any other: nothing is left out)" : "", b->teacher,
                            b->storage, *b->tokenizer ? b->tokenizer : "none");
    teacher_cache_close(t);
    return text;
}
