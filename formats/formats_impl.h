/* formats/formats_impl.h: what the readers and writers of this folder share; private to it.
 *
 * Readers append FileTensors to a TensorFile, then names_canonical() gives every tensor its one spelling and
 * names_index() makes formats_find() a binary search. Writers stream through a Sink: temporary file, fsync,
 * rename. */
#ifndef FORMATS_IMPL_H
#define FORMATS_IMPL_H
#include <jansson.h>
#include "formats/formats.h"

typedef struct FormatsImpl {
    H5In *h5;
    const FileTensor **by_name; /* n, sorted by name */
} FormatsImpl;

/* ---- detect.c: growing a TensorFile -------------------------------------------------------------------- */
FileTensor *tensors_add(TensorFile *f, int n, Err *e); /* n zeroed entries behind the present ones */
const FileMap *maps_add(TensorFile *f, const char *path, Err *e);
bool names_index(TensorFile *f, Err *e);                  /* refuses two tensors of one name */
const char *path_dir(Arena *a, const char *path, Err *e); /* folder part, "." when there is none */

/* ---- safetensors.c ------------------------------------------------------------------------------------- */
/* Maps path, checks everything, appends its tensors in file order. */
bool safetensors_read(TensorFile *f, const char *path, Err *e);
/* Printable copy of a name out of a file, control bytes as '?', cut at 160 bytes. buf: 168 bytes. */
const char *name_shown(char *buf, const char *name);

/* ---- hf.c ---------------------------------------------------------------------------------------------- */
bool hf_read(TensorFile *f, const char *dir, Err *e);
/* config.json, generation_config.json and the tokenizer of a folder; all may be absent. */
bool hf_beside(TensorFile *f, const char *dir, Err *e);
/* Sets config_json and arch. */
bool config_take(TensorFile *f, const char *text, const char *where, Err *e);
/* One spelling for all: GPT-2 and Llama prefixes, buffers dropped, Conv1D flagged. */
bool names_canonical(TensorFile *f, Err *e);
/* strict; json_decref it */
json_t *json_object_of(const char *text, size_t bytes, const char *where, Err *e);

/* ---- meta.c: Meta (original Llama) names, and the config.json such files lack -------------------------- */
typedef struct LlamaDims {
    int64_t dim, hidden, layers, heads, kv_heads, vocab, seq;
    double eps, theta;
    bool tied;
} LlamaDims;
bool meta_is(const TensorFile *f);
bool meta_rename(TensorFile *f, Err *e);
char *llama_config_json(const LlamaDims *d, Arena *a, Err *e);

/* ---- llama2c.c ----------------------------------------------------------------------------------------- */
bool llama2c_is(const unsigned char *p, size_t bytes); /* header plausible and every size adds up */
bool llama2c_read(TensorFile *f, const char *path, Err *e);

/* ---- h5model.c, h5read.c ------------------------------------------------------------------------------- */
bool h5model_read(TensorFile *f, const char *path, bool trust_foreign, Err *e);
bool h5_verify(H5In *h, const char *path, const void *data, size_t bytes, Err *e);
/* The stored bytes inside the mapped file (contiguous), else read into the arena. */
const unsigned char *h5_view(H5In *h, const char *path, size_t bytes, Err *e);
typedef enum { H5_NONE, H5_GROUP, H5_DATASET, H5_SOFT } H5Kind;
bool h5_has_tokenizer(H5In *h);
bool h5_owns(const H5In *h, const void *p, size_t bytes); /* inside the mapped file */
H5Kind h5_kind(H5In *h, const char *path);
char *h5_link_target(H5In *h, const char *path, Err *e);
char *h5_attrs_json(H5In *h, const char *path, Err *e); /* {"encoding": "nf4", "shape": [4,8], ...} */
int64_t h5_count(H5In *h, const char *group);           /* links in a group; -1 = no such group */

/* ---- encoded.c ----------------------------------------------------------------------------------------- */
/* Members and attributes of encoded tensors become one FileTensor each. Before names_canonical. */
bool encoded_collect(TensorFile *f, Err *e);
bool encoded_read(const TensorFile *f, const FileTensor *t, float *dst, Err *e);
/* A member's bytes, verified, of the type and size asked for. NULL with e set. And its type, DT_COUNT:
 * none. */
const unsigned char *encoded_bytes(const TensorFile *f, const EncodedTensor *c, const char *name, DType t,
                                   size_t count, Err *e);
DType encoded_dtype(const EncodedTensor *c, const char *name);
/* sparse.c: tensors without their zeros. */
bool sparse_is(const EncodedTensor *c);
bool sparse_read(const TensorFile *f, const FileTensor *t, float *dst, Err *e);
/* A training state keeps master weights: x of tensor t becomes the effective weight, through the quantiser
 * that /qat/<name> describes; unchanged where there is none. */
bool live_quantise(const TensorFile *f, const FileTensor *t, float *x, Err *e);
/* The adapters of a training state, added: those that stand in the weight, or (behind_quantiser) those beside
 * it. */
bool live_lora(const TensorFile *f, const FileTensor *t, float *x, bool behind_quantiser, Err *e);
/* metadata_json with the attributes of the groups; NULL when there is neither. */
const char *encoded_metadata(const OutModel *m, const char *path, Arena *a, Err *e);

/* ---- sink.c: streaming writer and the tensors that go through it --------------------------------------- */
typedef struct Sink {
    int fd;
    size_t used;
    const char *path;
    char *tmp;
    unsigned char *buf;
    Err *e;
} Sink;
bool sink_open(Sink *s, const char *path, uint64_t expect_bytes, Arena *a, Err *e);
void sink_put(Sink *s, const void *p, size_t n);
void sink_tensor(Sink *s, const OutTensor *t);              /* its stored bytes */
bool sink_commit(Sink *s);                                  /* on failure the temporary file is gone */
bool space_check(const char *path, uint64_t bytes, Err *e); /* 1.1 x bytes must be free in path's folder */
bool folder_sync(const char *path, Err *e);                 /* fsync of the folder path lies in */
void out_dims(const OutTensor *t, int64_t dim[4]);          /* as stored */
size_t out_bytes(const OutTensor *t);
/* t itself, or, where its values are pulled, *pulled with them in a (mark and release around it) */
const OutTensor *out_pull(const OutTensor *t, OutTensor *pulled, Arena *a, Err *e);
bool out_check(const OutModel *m, const char *path, Err *e); /* names, sizes, sources; call it first */
void out_fill(const OutTensor *t, size_t first, size_t n, void *dst); /* stored elements [first, first+n) */
bool safetensors_store(const char *path, const OutTensor *const *t, int n, const char *metadata_json, Err *e);
/* pages.c: the pages inside of [p, p + bytes) of a mapping of a file are not needed for now. What reads a
 * large tensor once does so in blocks of PAGES_BLOCK and drops each: no more of it is in memory. */
#define PAGES_BLOCK ((size_t)4 << 20)
void pages_drop(const unsigned char *p, size_t bytes);
#endif
