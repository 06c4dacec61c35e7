/* formats/h5table.c: datasets of many rows that never are in memory as a whole (teacher logits, product.md
 * 6.7): chunked by whole rows, written in order chunk by chunk, read a run of rows at a time. No filters. The
 * bytes of the file do not depend on how many rows a call hands over. */
#include <string.h>
#include <xxhash.h>
#include "formats/hdf5_impl.h"

enum { CHUNK_ROWS = 4096, CHUNK_BYTES = 16 << 20 };

struct H5Table {
    H5Out *h;
    const char *path;
    DType type;
    hid_t d;
    int64_t rows, done, chunk, held; /* rows: all, written, of a chunk, waiting in buffer */
    size_t row_bytes;
    unsigned char *buffer; /* (chunk, row_bytes) */
    XXH3_state_t *hash;
};

static hid_t table_create(hid_t file, const H5Table *t, hsize_t cols)
{
    const hsize_t size[2] = {(hsize_t)t->rows, cols}, chunk[2] = {(hsize_t)t->chunk, cols};
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE), type = h5_type(t->type);
    hid_t space = H5Screate_simple(2, size, NULL);
    H5Pset_obj_track_times(dcpl, 0);
    H5Pset_chunk(dcpl, 2, chunk);
    H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER);
    hid_t d = H5Dcreate2(file, t->path, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    H5Sclose(space);
    H5Tclose(type);
    H5Pclose(dcpl);
    return d;
}

/* Rows of a chunk. */
static int64_t chunk_of(int64_t rows, size_t row)
{
    int64_t chunk = (int64_t)(CHUNK_BYTES / row);
    if (chunk < 1) chunk = 1;
    if (chunk > CHUNK_ROWS) chunk = CHUNK_ROWS;
    return chunk > rows ? rows : chunk;
}

uint64_t h5_table_bytes(DType type, int64_t rows, int64_t cols)
{
    const size_t row = (size_t)cols * dtype_size(type);
    const int64_t chunk = chunk_of(rows, row);
    return (uint64_t)((rows + chunk - 1) / chunk * chunk) * row;
}

H5Table *h5_table(H5Out *h, const char *path, DType type, int64_t rows, int64_t cols, Arena *a, Err *e)
{
    H5Table *t = arena_alloc(a, sizeof *t, e);
    const size_t row = (size_t)cols * dtype_size(type);
    if (!t || rows < 1 || cols < 1) {
        err_set(e, ERR_FAIL, "%s: a table without rows or columns", path);
        return NULL;
    }
    const int64_t chunk = chunk_of(rows, row);
    *t = (H5Table){.h = h, .path = path, .type = type, .rows = rows, .chunk = chunk, .row_bytes = row};
    t->d = H5I_INVALID_HID;
    t->buffer = arena_alloc(a, (size_t)chunk * row, e);
    if (!t->buffer) return NULL;
    const hid_t file = h5_begin(h, path, h5_table_bytes(type, rows, cols));
    if (file < 0) return t;
    t->d = table_create(file, t, (hsize_t)cols);
    t->hash = XXH3_createState();
    if (t->d < 0 || !t->hash) h5_fail(h, path);
    else XXH3_64bits_reset(t->hash);
    return t;
}

/* What waits goes out as one chunk, zeros behind it. */
static void flush(H5Table *t)
{
    const hsize_t at[2] = {(hsize_t)t->done, 0};
    const size_t used = (size_t)t->held * t->row_bytes, whole = (size_t)t->chunk * t->row_bytes;
    memset(t->buffer + used, 0, whole - used);
    if (t->d >= 0 && H5Dwrite_chunk(t->d, H5P_DEFAULT, 0, at, whole, t->buffer) < 0) {
        h5_fail(t->h, t->path);
        H5Dclose(t->d);
        t->d = H5I_INVALID_HID;
    }
    t->done += t->held;
    t->held = 0;
}

void h5_table_put(H5Table *t, const void *data, int64_t n)
{
    const unsigned char *p = data;
    if (!t || t->d < 0) return;
    XXH3_64bits_update(t->hash, data, (size_t)n * t->row_bytes);
    while (n > 0 && t->done + t->held < t->rows) {
        const int64_t room = t->chunk - t->held, m = n < room ? n : room;
        memcpy(t->buffer + (size_t)t->held * t->row_bytes, p, (size_t)m * t->row_bytes);
        t->held += m;
        p += (size_t)m * t->row_bytes;
        n -= m;
        if (t->held == t->chunk || t->done + t->held == t->rows) flush(t);
    }
}

void h5_table_end(H5Table *t)
{
    if (!t) return;
    if (t->d >= 0) {
        if (t->done != t->rows ||
            !h5_describe(t->h, t->d, t->path, t->type, XXH3_64bits_digest(t->hash), false))
            h5_fail(t->h, t->path);
        if (H5Dclose(t->d) < 0) h5_fail(t->h, t->path);
    }
    XXH3_freeState(t->hash);
    t->hash = NULL;
    t->d = H5I_INVALID_HID;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

struct H5Rows {
    H5In *h;
    const char *path;
    hid_t d, type, space;
    hsize_t rows, cols;
};

H5Rows *h5_rows(H5In *h, const char *path, DType *type, int64_t *rows, int64_t *cols, Arena *a, Err *e)
{
    int ndim;
    int64_t dim[4];
    if (!h5_tensor_info(h, path, type, &ndim, dim, e)) return NULL;
    if (ndim != 2) {
        h5_corrupt(h, e, "is no table of rows and columns", path);
        return NULL;
    }
    H5Rows *r = arena_alloc(a, sizeof *r, e);
    if (!r) return NULL;
    *r = (H5Rows){
        h, path, h5_dataset(h, path, e), h5_type(*type), H5I_INVALID_HID, (hsize_t)dim[0], (hsize_t)dim[1]};
    if (r->d >= 0) r->space = H5Dget_space(r->d);
    *rows = dim[0];
    *cols = dim[1];
    return e->code ? NULL : r;
}

bool h5_rows_read(H5Rows *r, int64_t first, int64_t n, void *dst, Err *e)
{
    const hsize_t at[2] = {(hsize_t)first, 0}, count[2] = {(hsize_t)n, r->cols};
    if (first < 0 || n < 0 || (hsize_t)first > r->rows || (hsize_t)n > r->rows - (hsize_t)first)
        return h5_corrupt(r->h, e, "has not as many rows as it should have", r->path);
    hid_t memory = H5Screate_simple(2, count, NULL);
    const bool ok = H5Sselect_hyperslab(r->space, H5S_SELECT_SET, at, NULL, count, NULL) >= 0 &&
                    H5Dread(r->d, r->type, memory, r->space, H5P_DEFAULT, dst) >= 0;
    H5Sclose(memory);
    return ok || h5_error(e, ERR_CORRUPT, "cannot read `%s`", r->path);
}

void h5_rows_close(H5Rows *r)
{
    if (!r || r->d < 0) return;
    H5Sclose(r->space);
    H5Tclose(r->type);
    H5Dclose(r->d);
    r->d = H5I_INVALID_HID;
}
