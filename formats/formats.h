/* formats/formats.h: floor 3. Files: safetensors, Hugging Face folders, llama2.c .bin, our HDF5. Knows names,
 * shapes and bytes; nothing of graphs.
 *
 *   TensorFile f;  formats_open(&f, "model_dir_or_file", &arena, &e);    // any known format, told by content
 *   const FileTensor *t = formats_find(&f, "model.norm.weight");
 *   formats_read_f32(&f, t, dst, &e);                                       // [out,in], q/k rows half-split
 *   formats_close(&f);
 *
 * Names are Hugging Face names, verbatim, whatever the file calls them (Meta and llama2.c names are mapped,
 * their q/k rows un-permuted from interleaved to half-split on reading). GPT-2 Conv1D weights are transposed
 * to [out,in] on reading and back on writing. Strict: every size, offset and count is checked before it is
 * used; the message names file and tensor.
 */
#ifndef FORMATS_H
#define FORMATS_H
#include "core/core.h"

typedef enum { FMT_SAFETENSORS, FMT_HF, FMT_LLAMA2C, FMT_HDF5 } Format;
typedef struct FileTensor {
    const char *name, *stored_name; /* HF name; as in the file */
    DType dtype;
    int ndim;
    int64_t dim[4]; /* as stored */
    size_t bytes;
    const unsigned char *data; /* stored bytes (mapped or read); NULL for HDF5 until read */
    bool in_out;               /* stored [in,out] */
    int unpermute_heads;       /* > 0: rows are interleaved pairs of that many heads */
    const char *tied_to;       /* alias of another tensor (HDF5 soft link) */
    int shard;
    /* codes and scales of product.md 6.3: data is NULL, dtype and dim are what decoding gives, bytes what is
     * stored */
    const struct EncodedTensor *encoded;
} FileTensor;
typedef struct TensorFile {
    Format format;
    const char *path, *dir;
    const char *arch;        /* "llama", "gpt2", ... or NULL (a bag of tensors) */
    const char *config_json; /* HF config.json text (made for llama2.c and Meta files), or NULL */
    const char *generation_json, *tokenizer_path; /* tokenizer found beside the model, or NULL */
    const char *metadata_json;                    /* safetensors __metadata__ */
    const char *kind;                             /* HDF5: model, train_state, ...; else "model" */
    int64_t step;
    int n;
    FileTensor *t;
    FileMap *map;
    int n_map;
    void *impl;
    Arena *arena;
    bool trust_foreign;
} TensorFile;
const char *pare_version(void);    /* "pare 0.1.0": HDF5 attribute `producer` */
const char *format_name(Format f); /* "safetensors", "hf", "llama2c", "hdf5" */
bool formats_open(TensorFile *f, const char *path, Arena *a, Err *e);
/* --trust-foreign: also HDF5 without our envelope. */
bool formats_open_foreign(TensorFile *f, const char *path, Arena *a, Err *e);
void formats_close(TensorFile *f);
const FileTensor *formats_find(const TensorFile *f, const char *name);
/* dims as the memory layout has them ([out,in] for Conv1D). dst: product of dims floats. */
void formats_dims(const FileTensor *t, int64_t dim[4]);
bool formats_read_f32(const TensorFile *f, const FileTensor *t, float *dst, Err *e);
/* pages.c: does the tensor lie in a mapping of its file? And: its pages are not needed for now. */
bool formats_mapped(const TensorFile *f, const FileTensor *t);
void formats_drop(const TensorFile *f, const FileTensor *t);
/* Whether the stored bytes are those that their hash was taken of; formats without hashes: true. */
bool formats_check(const TensorFile *f, const FileTensor *t, Err *e);

/* ---- encoded.c: tensors stored as codes and scales ----------------------------------------------------- */
typedef struct EncodedTensor {
    const char *name, *encoding;
    QuantSpec spec;  /* f NULL: stored without zeros (sparse.c), not as codes */
    long rows, cols; /* [out,in] */
    int n_member;
    const FileTensor *member; /* [n_member], named by their last part */
} EncodedTensor;
/* The scales, as floats, and the packed codes (rows, quant_row_bytes) of an encoded tensor. */
bool formats_scales(const TensorFile *f, const FileTensor *t, QuantScales *q, const uint8_t **codes, Arena *a,
                    Err *e);
/* packed.c: the same as it lies in the file, nothing made float; scales.scale or scales.byte. Valid while f
 * is open. Values that are infinite or NaN are refused. */
typedef struct PackedTensor {
    QuantScales scales;
    const uint8_t *codes; /* (rows, quant_row_bytes) */
    size_t bytes;         /* of codes and scales */
} PackedTensor;
bool formats_packs(const TensorFile *f, const FileTensor *t); /* can t be used so? */
bool formats_packed(const TensorFile *f, const FileTensor *t, PackedTensor *p, Arena *a, Err *e);

/* Writing. One list of tensors; src is float in memory layout, converted to dtype by RNE; in_out transposes
 * back. */
typedef struct OutTensor {
    const char *name;
    int ndim;
    int64_t dim[4];
    const float *src;
    DType dtype;
    bool in_out;
    const char *tied_to; /* stored once: alias of that tensor; src is not read */
    const void *raw;     /* instead of src: the stored bytes (codes); not with in_out */
    /* instead of src: called when its turn comes, gives the values in memory layout; ctx is the caller's */
    bool (*load)(const struct OutTensor *t, float *dst, Err *e);
    const void *ctx;
    const char *member_of; /* a member of that encoded tensor; name is "<member_of>.<member>" */
} OutTensor;
/* The attributes of an encoded tensor as one JSON object (product.md 6.3). */
typedef struct OutGroup {
    const char *name, *attrs_json;
    int64_t parameters; /* logical */
} OutGroup;
typedef struct OutModel {
    int n;
    const OutTensor *t;
    const char *arch, *config_json, *generation_json, *tokenizer_path, *run_yaml;
    int64_t step;
    const char *metadata_json; /* safetensors: more {string: string} beside "format": "pt"; or NULL */
    int n_group;
    const OutGroup *group;
    const char *kind;  /* HDF5: NULL = model */
    struct H5In *also; /* HDF5: groups of that container go along: also_path, NULL at its end */
    const char *const *also_path;
} OutModel;
/* x (rows,cols) under spec and scales as members and group of an OutModel: out [at most ENCODED_MEMBERS], *n
 * of them. in_out: files hold the tensor [in,out] (GPT-2). */
enum { ENCODED_MEMBERS = 6 };
bool formats_encode(OutTensor *out, int *n, OutGroup *group, const char *name, bool in_out, const float *x,
                    const QuantSpec *s, const QuantScales *q, long rows, long cols, Arena *a, Err *e);
/* sparse.c: t (2-D, src) under keep (rows,cols bytes of 0 and 1, [out,in]) as members and group: at most
 * ENCODED_MEMBERS. The form that is smallest; SPARSE_NONE: stored as it is. */
typedef enum { SPARSE_NONE, SPARSE_BITMASK, SPARSE_2_4 } SparseForm;
SparseForm formats_sparse_form(const uint8_t *keep, long rows, long cols, DType dtype);
bool formats_sparse(OutTensor *out, int *n, OutGroup *group, const OutTensor *t, const uint8_t *keep,
                    SparseForm form, Arena *a, Err *e);
bool formats_write_safetensors(const char *path, const OutModel *m, Err *e); /* metadata {"format":"pt"} */
/* config.json with the type that most numbers have, model.safetensors (shards with an index above
 * shard_bytes; 0 = 5 GB), generation_config.json, the tokenizer copied. A folder that holds the other
 * layout (single or shards) is refused. */
bool formats_write_hf(const char *dir, const OutModel *m, int64_t shard_bytes, Err *e);
/* The text of a config.json with the element type that a reader is told: transformers 4's key and 5's. */
const char *formats_config_dtype(const char *json, DType dtype, Arena *a, Err *e);
/* f32 only; refuses what the format cannot hold. */
bool formats_write_llama2c(const char *path, const OutModel *m, Err *e);
bool formats_write_h5(const char *path, const OutModel *m, Err *e); /* kind model, product.md 6 */

/* HDF5 containers (hdf5.c), generic: what checkpoints are made of. All calls from one thread. */
typedef struct H5Out H5Out;
/* Writes path.tmp.PID. After this always h5_commit or h5_abandon. */
H5Out *h5_create(const char *path, const char *kind, const char *arch, int64_t step, Arena *a, Err *e);
void h5_reserve(H5Out *h, uint64_t bytes);                  /* statvfs: 1.1 x bytes must be free */
void h5_text(H5Out *h, const char *path, const char *utf8); /* "/config/model_json": scalar vlen string */
/* Contiguous; attributes dtype, xxh3_64, layout. data: stored bytes, product(dim) x size. Layout: out_in. */
void h5_tensor(H5Out *h, const char *path, DType t, int ndim, const int64_t *dim, const void *data);
void h5_tensor_layout(H5Out *h, const char *path, DType t, int ndim, const int64_t *dim, const void *data,
                      bool in_out);
void h5_link(H5Out *h, const char *alias, const char *target); /* soft link + root attr tied */
/* object "/" = root; groups are made; a second value replaces the first. */
void h5_attr_i64(H5Out *h, const char *object, const char *name, int64_t v);
void h5_attr_f64(H5Out *h, const char *object, const char *name, double v);
void h5_attr_str(H5Out *h, const char *object, const char *name, const char *v);
void h5_attr_i64s(H5Out *h, const char *object, const char *name, const int64_t *v, int n);
void h5_attr_u64s(H5Out *h, const char *object, const char *name, const uint64_t *v, int n);
void h5_attr_f64s(H5Out *h, const char *object, const char *name, const double *v, int n);
/* h5table.c: rows x cols too large for memory, written a run of rows at a time and read so. Chunks of whole
 * rows. h5_table_put takes the next n rows; every row must come, then h5_table_end. Errors: as h5_tensor. */
typedef struct H5Table H5Table;
H5Table *h5_table(H5Out *h, const char *path, DType t, int64_t rows, int64_t cols, Arena *a, Err *e);
void h5_table_put(H5Table *t, const void *data, int64_t n);
void h5_table_end(H5Table *t);
uint64_t h5_table_bytes(DType t, int64_t rows, int64_t cols); /* in the file: whole chunks */
/* Content hash, complete=TRUE, close, user block, fsync, rename, fsync of the folder. Sticky errors come out
 * here; then the temporary file is gone and path is as it was. */
bool h5_commit(H5Out *h, Err *e);
void h5_abandon(H5Out *h); /* instead of h5_commit: nothing is left */
/* h5tokenizer.c: the files of a tokenizer, found at or beside path (a file, or another .h5 that holds them),
 * into the container; `bytes` and NULL leave nothing. */
void h5_put_tokenizer(H5Out *h, const char *path, Arena *a, Err *e);
bool formats_is_h5(const char *path); /* by its name */
/* The other way: the stored files, under the names that Hugging Face tools look for, into a folder. */
bool formats_tokenizer_files(const char *h5_path, const char *dir, Arena *a, Err *e);
typedef struct H5In H5In;
/* path, a tensor or a group with all below it, from one container into another (h5copy.c). */
bool h5_copy(H5Out *to, H5In *from, const char *path, Arena *a, Err *e);
/* Envelope first (magic, length, XXH3-128), only then HDF5. ERR_CORRUPT names the file and tells truncation,
 * damage and half-written apart. trust_foreign: no envelope demanded. */
H5In *h5_open(const char *path, bool trust_foreign, Arena *a, Err *e);
/* All hashes of the envelope, no HDF5 call. */
bool h5_check_envelope(const char *path, int64_t *step, Err *e);
void h5_close(H5In *h);
bool h5_has(H5In *h, const char *path);
char *h5_read_text(H5In *h, const char *path, Err *e); /* NULL and error when absent */
bool h5_tensor_info(H5In *h, const char *path, DType *t, int *ndim, int64_t dim[4], Err *e);
/* Verifies xxh3_64, type and size. */
bool h5_read_tensor(H5In *h, const char *path, DType t, void *dst, size_t bytes, Err *e);
bool h5_get_i64(H5In *h, const char *object, const char *name, int64_t *v, Err *e);
bool h5_get_f64(H5In *h, const char *object, const char *name, double *v, Err *e);
char *h5_get_str(H5In *h, const char *object, const char *name, Err *e);
int h5_get_f64s(H5In *h, const char *object, const char *name, double *v, int cap,
                Err *e); /* count; -1: e set */
/* A dataset of rows x cols elements, any chunks; h5_rows_read: rows [first, first + n) to dst. */
typedef struct H5Rows H5Rows;
H5Rows *h5_rows(H5In *h, const char *path, DType *t, int64_t *rows, int64_t *cols, Arena *a, Err *e);
bool h5_rows_read(H5Rows *r, int64_t first, int64_t n, void *dst, Err *e);
void h5_rows_close(H5Rows *r);
/* x (rows,cols) under spec and scales as the encoded tensor /tensors/<name>. */
void h5_encoded(H5Out *h, const char *name, bool in_out, const float *x, const QuantSpec *s,
                const QuantScales *q, long rows, long cols, Arena *a, Err *e);
/* In creation order; -1 = no such group. */
int h5_list(H5In *h, const char *group, const char **names, int cap);
#endif
