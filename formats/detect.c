/* formats/detect.c: formats_open tells a file by its content, not by its name; finding and reading tensors.
 *
 *   folder                                      Hugging Face
 *   "pare-checkpoint" or the HDF5 signature     HDF5
 *   u64 length and '{'                          safetensors
 *   7 sizes that add up to the file's length    llama2.c
 * A suffix decides only which reader gets to explain what is wrong with a damaged file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "formats/formats_impl.h"

/* what the errors offer instead */
#define KNOWN                                                                                                \
    "a Hugging Face folder (config.json with model.safetensors), .safetensors, pare's own .h5, llama2.c "    \
    ".bin"

const char *format_name(Format f)
{
    switch (f) {
    case FMT_SAFETENSORS: return "safetensors";
    case FMT_HF: return "hf";
    case FMT_LLAMA2C: return "llama2c";
    case FMT_HDF5: return "hdf5";
    }
    return "unknown";
}

FileTensor *tensors_add(TensorFile *f, int n, Err *e)
{
    size_t old = (size_t)f->n * sizeof *f->t;
    FileTensor *t = arena_grow(f->arena, f->t, old, old + (size_t)n * sizeof *t, e);
    if (!t) return NULL;
    f->t = t;
    f->n += n;
    return t + (f->n - n);
}

const FileMap *maps_add(TensorFile *f, const char *path, Err *e)
{
    size_t old = (size_t)f->n_map * sizeof *f->map;
    FileMap *m = arena_grow(f->arena, f->map, old, old + sizeof *m, e);
    if (!m) return NULL;
    f->map = m;
    if (!file_map(&m[f->n_map], path, e)) return NULL;
    return &m[f->n_map++];
}

const char *path_dir(Arena *a, const char *path, Err *e)
{
    const char *slash = strrchr(path, '/');
    if (!slash) return ".";
    return arena_strndup(a, path, slash == path ? 1 : (size_t)(slash - path), e);
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(const FileTensor *const *)a)->name, (*(const FileTensor *const *)b)->name);
}

bool names_index(TensorFile *f, Err *e)
{
    FormatsImpl *im = f->impl;
    im->by_name = arena_alloc(f->arena, (size_t)f->n * sizeof *im->by_name, e);
    if (!im->by_name) return false;
    for (int i = 0; i < f->n; i++) im->by_name[i] = &f->t[i];
    qsort(im->by_name, (size_t)f->n, sizeof *im->by_name, by_name);
    for (int i = 1; i < f->n; i++) {
        char shown[168];
        if (!strcmp(im->by_name[i]->name, im->by_name[i - 1]->name))
            return err_set(e, ERR_CORRUPT, "%s: tensor `%s` is there twice (stored as `%s` and `%s`)",
                           f->path, name_shown(shown, im->by_name[i]->name), im->by_name[i - 1]->stored_name,
                           im->by_name[i]->stored_name);
    }
    return true;
}

const FileTensor *formats_find(const TensorFile *f, const char *name)
{
    const FormatsImpl *im = f->impl;
    FileTensor key = {.name = name}, *k = &key;
    if (!im || !im->by_name || !f->n) return NULL;
    const FileTensor **hit = bsearch(&k, im->by_name, (size_t)f->n, sizeof *im->by_name, by_name);
    return hit ? *hit : NULL;
}

static bool ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

static Format guess_file(const char *path, const FileMap *m, bool *known)
{
    static const unsigned char h5[8] = {0x89, 'H', 'D', 'F', '\r', '\n', 0x1a, '\n'};
    static const size_t places[] = {0, 512, 1024, 2048, 4096}; /* where HDF5 may put its signature */
    *known = true;
    if (m->bytes >= 4 && !memcmp(m->data, "GGUF", 4)) goto unknown;
    if (m->bytes >= 16 && !memcmp(m->data, "pare-checkpoint\n", 16)) return FMT_HDF5;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (m->bytes >= places[i] + 8 && !memcmp(m->data + places[i], h5, 8)) return FMT_HDF5;
    if (ends_in(path, ".h5") || ends_in(path, ".hdf5")) return FMT_HDF5;
    if (ends_in(path, ".safetensors")) return FMT_SAFETENSORS;
    if (llama2c_is(m->data, m->bytes)) return FMT_LLAMA2C;
    if (m->bytes > 8 && m->data[8] == '{') return FMT_SAFETENSORS;
    if (ends_in(path, ".bin")) return FMT_LLAMA2C;
unknown:
    *known = false;
    return FMT_SAFETENSORS;
}

/* What the file is instead, where its first bytes say so. */
static const char *stranger(const FileMap *m)
{
    if (m->bytes >= 4 && !memcmp(m->data, "GGUF", 4)) return "a GGUF file, which this version does not read";
    if (m->bytes >= 4 && !memcmp(m->data, "PK\3\4", 4))
        return "a zip archive (a PyTorch .pt?): save it with safetensors";
    if (m->bytes >= 2 && m->data[0] == 0x80 && m->data[1] >= 2 && m->data[1] <= 5)
        return "a Python pickle, which can run code and is never read: save it with safetensors";
    if (m->bytes >= 6 && !memcmp(m->data, "\x93NUMPY", 6)) return "a NumPy array: save it with safetensors";
    return m->bytes ? "not a model file" : "an empty file";
}

static bool open_plain(TensorFile *f, const char *path, bool *hdf5, Err *e)
{
    FileMap m;
    bool known;
    if (!file_map(&m, path, e)) return false;
    f->format = guess_file(path, &m, &known);
    if (!known) err_set(e, ERR_CORRUPT, "%s: %s; known are %s", path, stranger(&m), KNOWN);
    file_unmap(&m);
    if (e->code) return false;
    *hdf5 = f->format == FMT_HDF5;
    if (*hdf5) return true;
    f->dir = path_dir(f->arena, path, e);
    if (!hf_beside(f, f->dir, e)) return false;
    if (f->format == FMT_LLAMA2C) {
        f->config_json = f->generation_json = f->arch = NULL; /* a .bin says itself what it is */
        return llama2c_read(f, path, e);
    }
    if (!safetensors_read(f, path, e) || !encoded_collect(f, e)) return false;
    return meta_is(f) ? meta_rename(f, e) : names_canonical(f, e);
}

static bool open_any(TensorFile *f, const char *path, bool trust_foreign, Arena *a, Err *e)
{
    struct stat st;
    bool hdf5 = false;
    *f = (TensorFile){.path = path ? arena_strdup(a, path, e) : NULL,
                      .kind = "model",
                      .arena = a,
                      .trust_foreign = trust_foreign};
    f->impl = arena_alloc(a, sizeof(FormatsImpl), e);
    if (e->code) return false;
    if (!path || !*path) return err_set(e, ERR_USAGE, "no model path given");
    if (stat(path, &st) != 0) {
        if (errno == ENOENT || errno == ENOTDIR)
            return err_set(e, ERR_FAIL, "%s: no such file or folder", path);
        return err_set(e, ERR_FAIL, "%s: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode)) {
        f->format = FMT_HF;
        f->dir = f->path;
        if (!hf_read(f, path, e) || !encoded_collect(f, e)) return false;
        if (!(meta_is(f) ? meta_rename(f, e) : names_canonical(f, e))) return false;
    } else if (!S_ISREG(st.st_mode)) {
        return err_set(e, ERR_FAIL, "%s: neither a file nor a folder", path);
    } else {
        if (!open_plain(f, path, &hdf5, e)) return false;
        if (hdf5 &&
            !(h5model_read(f, path, trust_foreign, e) && encoded_collect(f, e) && names_canonical(f, e)))
            return false;
    }
    return names_index(f, e);
}

bool formats_open(TensorFile *f, const char *path, Arena *a, Err *e)
{
    if (open_any(f, path, false, a, e)) return true;
    formats_close(f);
    return false;
}

bool formats_open_foreign(TensorFile *f, const char *path, Arena *a, Err *e)
{
    if (open_any(f, path, true, a, e)) return true;
    formats_close(f);
    return false;
}

void formats_close(TensorFile *f)
{
    FormatsImpl *im = f->impl;
    if (im) h5_close(im->h5);
    for (int i = 0; i < f->n_map; i++) file_unmap(&f->map[i]);
    *f = (TensorFile){0};
}

void formats_dims(const FileTensor *t, int64_t dim[4])
{
    for (int i = 0; i < 4; i++) dim[i] = i < t->ndim ? t->dim[i] : 1;
    if (t->in_out) {
        dim[0] = t->dim[1];
        dim[1] = t->dim[0];
    }
}

/* src [in, out] as stored -> dst [out, in], in tiles of 16 rows so that dst is written in runs. */
static bool read_transposed(const FileTensor *t, float *dst)
{
    const size_t in = (size_t)t->dim[0], out = (size_t)t->dim[1], size = dtype_size(t->dtype);
    float tile[16][64];
    for (size_t i0 = 0; i0 < in; i0 += 16)
        for (size_t o0 = 0; o0 < out; o0 += 64) {
            size_t ni = in - i0 < 16 ? in - i0 : 16, no = out - o0 < 64 ? out - o0 : 64;
            for (size_t i = 0; i < ni; i++)
                if (!dtype_to_f32(tile[i], t->data + ((i0 + i) * out + o0) * size, t->dtype, no))
                    return false;
            for (size_t o = 0; o < no; o++)
                for (size_t i = 0; i < ni; i++) dst[(o0 + o) * in + i0 + i] = tile[i][o];
        }
    return true;
}

/* Rows of each head: stored 2j+p (pairs side by side) -> memory p*D/2+j (halves). */
static bool read_unpermuted(const FileTensor *t, float *dst)
{
    const size_t rows = (size_t)t->dim[0], cols = t->ndim > 1 ? (size_t)t->dim[1] : 1;
    const size_t d = rows / (size_t)t->unpermute_heads, size = dtype_size(t->dtype);
    for (size_t r = 0; r < rows; r++) {
        size_t h = r / d, in_head = r % d, p = in_head / (d / 2), j = in_head % (d / 2);
        const unsigned char *from = t->data + (h * d + 2 * j + p) * cols * size;
        if (!dtype_to_f32(dst + r * cols, from, t->dtype, cols)) return false;
    }
    return true;
}

/* Element by element, a block after the other. */
static bool read_plain(const TensorFile *f, const FileTensor *t, float *dst)
{
    const size_t size = dtype_size(t->dtype), n = t->bytes / size, step = PAGES_BLOCK / size;
    const bool mapped = n > step && formats_mapped(f, t);
    for (size_t i = 0; i < n; i += step) {
        const size_t now = n - i < step ? n - i : step;
        if (!dtype_to_f32(dst + i, t->data + i * size, t->dtype, now)) return false;
        if (mapped) pages_drop(t->data + i * size, now * size);
    }
    return true;
}

bool formats_check(const TensorFile *f, const FileTensor *t, Err *e)
{
    const FormatsImpl *im = f->impl;
    return !im->h5 || h5_verify(im->h5, t->stored_name, t->data, t->bytes, e);
}

/* A training state keeps what it trains: who reads it gets what the run computed with. */
static bool live_weight(const TensorFile *f, const FileTensor *t, float *x, Err *e)
{
    return live_lora(f, t, x, false, e) && live_quantise(f, t, x, e) && live_lora(f, t, x, true, e);
}

bool formats_read_f32(const TensorFile *f, const FileTensor *t, float *dst, Err *e)
{
    if (e->code) return false;
    if (!t) return err_set(e, ERR_FAIL, "%s: no such tensor (formats_read_f32 got NULL)", f->path);
    if (t < f->t || t >= f->t + f->n)
        return err_set(e, ERR_FAIL, "%s: tensor `%s` belongs to another file", f->path, t->name);
    if (!dst) return err_set(e, ERR_FAIL, "%s: tensor `%s`: no destination given", f->path, t->name);
    const FormatsImpl *im = f->impl;
    const bool live = im->h5 && !strcmp(f->kind, "train_state");
    if (t->encoded) return encoded_read(f, t, dst, e) && (!live || live_weight(f, t, dst, e));
    if (!formats_check(f, t, e)) return false;
    if (!t->bytes) return true;
    bool ok = t->in_out            ? read_transposed(t, dst)
              : t->unpermute_heads ? read_unpermuted(t, dst)
                                   : read_plain(f, t, dst);
    if (ok && live) return live_weight(f, t, dst, e);
    return ok || err_set(e, ERR_CORRUPT, "%s: tensor `%s`: %s cannot be read as float", f->path, t->name,
                         dtype_name(t->dtype));
}
