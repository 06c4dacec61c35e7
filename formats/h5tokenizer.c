/* formats/h5tokenizer.c: the files of a tokenizer inside an HDF5 container (product.md 6.1): texts below
 * /config, the SentencePiece model as bytes. A model file with them needs no other file to read text. */
#include <string.h>
#include "formats/formats_impl.h"

#define MODEL_AT "/config/tokenizer_model"
static const struct {
    const char *file, *at;
} texts[] = {{"tokenizer.json", "/config/tokenizer_json"},
             {"tokenizer_config.json", "/config/tokenizer_config_json"},
             {"special_tokens_map.json", "/config/special_tokens_map_json"},
             {"added_tokens.json", "/config/added_tokens_json"},
             {"chat_template.jinja", "/config/chat_template"},
             {"vocab.json", "/config/vocab_json"},
             {"merges.txt", "/config/merges_txt"}};
enum { N_TEXT = (int)(sizeof texts / sizeof *texts) };

static bool tail_is(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

bool h5_has_tokenizer(H5In *h)
{
    return h5_has(h, MODEL_AT) || h5_has(h, texts[0].at) || h5_has(h, "/config/vocab_json");
}

static char *read_model(H5In *h, size_t *bytes, Arena *a, Err *e)
{
    DType type;
    int ndim;
    int64_t dim[4];
    if (!h5_tensor_info(h, MODEL_AT, &type, &ndim, dim, e)) return NULL;
    if (type != DT_U8 || ndim != 1) {
        err_set(e, ERR_CORRUPT, "%s is not a row of bytes", MODEL_AT);
        return NULL;
    }
    *bytes = (size_t)dim[0];
    char *data = arena_alloc(a, *bytes + 1, e);
    return data && h5_read_tensor(h, MODEL_AT, DT_U8, data, *bytes, e) ? data : NULL;
}

/* From one container into another, or, with dir, into files. */
static void copy_all(H5In *in, H5Out *out, const char *dir, Arena *a, Err *e)
{
    size_t bytes;
    for (int i = 0; i < N_TEXT && !e->code; i++) {
        const char *text = h5_has(in, texts[i].at) ? h5_read_text(in, texts[i].at, e) : NULL;
        if (!text) continue;
        if (out) h5_text(out, texts[i].at, text);
        else file_write_atomic(path_join(a, dir, texts[i].file, e), text, strlen(text), e);
    }
    char *model = !e->code && h5_has(in, MODEL_AT) ? read_model(in, &bytes, a, e) : NULL;
    if (!model) return;
    if (out) h5_tensor(out, MODEL_AT, DT_U8, 1, &(int64_t){(int64_t)bytes}, model);
    else file_write_atomic(path_join(a, dir, "tokenizer.model", e), model, bytes, e);
}

bool formats_tokenizer_files(const char *h5_path, const char *dir, Arena *a, Err *e)
{
    H5In *in = h5_open(h5_path, false, a, e);
    if (in && !h5_has_tokenizer(in)) err_set(e, ERR_USAGE, "%s: holds no tokenizer", h5_path);
    if (!e->code) copy_all(in, NULL, dir, a, e);
    h5_close(in);
    return !e->code;
}

bool formats_is_h5(const char *path) { return tail_is(path, ".h5") || tail_is(path, ".hdf5"); }

void h5_put_tokenizer(H5Out *h, const char *path, Arena *a, Err *e)
{
    size_t bytes;
    if (!path || e->code || !file_exists(path)) return; /* `bytes` has no file */
    if (formats_is_h5(path)) {
        H5In *in = h5_open(path, false, a, e);
        if (in) copy_all(in, h, NULL, a, e);
        h5_close(in);
        return;
    }
    const char *dir = path_dir(a, path, e);
    bool model = tail_is(path, ".model");
    for (int i = 0; dir && i < N_TEXT && !e->code; i++) {
        /* tokenizer.json by another name is still the one; a foreign one beside a model is not */
        bool own = !i && tail_is(path, ".json") && !tail_is(path, "vocab.json");
        const char *at = own ? path : path_join(a, dir, texts[i].file, e);
        const char *text = at && file_exists(at) ? file_read(a, at, &bytes, e) : NULL;
        if (text && strlen(text) == bytes) h5_text(h, texts[i].at, text);
    }
    if (!model || e->code) return;
    const char *data = file_read(a, path, &bytes, e);
    if (data) h5_tensor(h, MODEL_AT, DT_U8, 1, &(int64_t){(int64_t)bytes}, data);
}
