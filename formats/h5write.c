/* formats/h5write.c: writing an HDF5 container (product.md 6). Errors are sticky and come out of h5_commit.
 *
 *   tmp file: groups, texts, tensors, content hash, `complete`; H5Fclose; envelope; fsync; rename; fsync
 *
 * Two writes of the same content give the same bytes: no time stamps, links in creation order, contiguous. */
#define _GNU_SOURCE /* fallocate */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>
#include "formats/hdf5_impl.h"

enum { SLACK = 1 << 17 }; /* room for what HDF5 itself writes around one object */

typedef struct Entry {
    const char *path;
    char hash[17];
    struct Entry *next;
} Entry;
typedef struct Tie {
    const char *text;
    struct Tie *next;
} Tie;
struct H5Out {
    hid_t file;
    Arena *a;
    Err err;
    const char *path, *tmp;
    int fd;            /* of the temporary file, to reserve room; -1 where the file system cannot */
    uint64_t reserved; /* bytes from the start that cannot run out of disk any more */
    bool closing;      /* H5Fclose was called: after a failure it must not be called again, it crashes */
    int64_t step, n_entry, n_tie, params, tensors;
    bool params_given;
    Entry *entry;
    Tie *tie, *tie_last;
};

static bool dead(const H5Out *h) { return !h || h->err.code; }

static void lost(H5Out *h, const char *what, const char *object)
{
    h5_error(&h->err, ERR_FAIL, "%s: cannot write %s `%s`", h->path, what, object);
}

/* libhdf5 1.10 does not survive a failed write: H5Fclose, or the program's end, can crash. So room for each
 * object is taken from the file system before HDF5 writes it; the file's length stays HDF5's own business. */
static bool room_take(H5Out *h, uint64_t bytes)
{
    hsize_t now = 0;
    struct rlimit limit;
    if (dead(h)) return false;
    H5Fget_filesize(h->file, &now);
    uint64_t want = (uint64_t)now + bytes + SLACK;
    if (want <= h->reserved) return true;
    /* fallocate does not ask for the limit that write() obeys */
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && want > limit.rlim_cur)
        return err_set(&h->err, ERR_FAIL, "%s: cannot write %.1f MB more: %s", h->path, (double)bytes / 1e6,
                       strerror(EFBIG));
    if (h->fd < 0) return true;
    if (fallocate(h->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)want) == 0) {
        h->reserved = want;
    } else if (errno == ENOSPC || errno == EFBIG || errno == EDQUOT || errno == EIO) {
        err_set(&h->err, ERR_FAIL, "%s: cannot write %.1f MB more: %s", h->path, (double)bytes / 1e6,
                strerror(errno));
    } else {
        close(h->fd); /* a file system without reservations */
        h->fd = -1;
    }
    return !dead(h);
}

static hid_t file_create(const char *tmp)
{
    hid_t fcpl = H5Pcreate(H5P_FILE_CREATE), fapl = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_userblock(fcpl, ENVELOPE);
    H5Pset_link_creation_order(fcpl, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
    H5Pset_obj_track_times(fcpl, 0);
    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG);
    H5Pset_alignment(fapl, 65536, 4096);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(fapl, 0, 1); /* the name is ours alone, and NFS may have no locks */
#endif
    hid_t file = H5Fcreate(tmp, H5F_ACC_TRUNC, fcpl, fapl);
    H5Pclose(fcpl);
    H5Pclose(fapl);
    return file;
}

/* ---- groups and attributes ----------------------------------------------------------------------------- */

/* Makes every group of path[0, n) that is not there. */
static bool groups_make(H5Out *h, const char *path, size_t n)
{
    char part[1024];
    if (n >= sizeof part)
        return err_set(&h->err, ERR_FAIL, "%s: the name `%.80s...` is too long", h->path, path);
    for (size_t i = 1; i <= n; i++) {
        if (i < n && path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (i <= 1 || H5Lexists(h->file, part, H5P_DEFAULT) > 0) continue;
        hid_t gcpl = H5Pcreate(H5P_GROUP_CREATE);
        H5Pset_link_creation_order(gcpl, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED);
        H5Pset_obj_track_times(gcpl, 0);
        hid_t g = H5Gcreate2(h->file, part, H5P_DEFAULT, gcpl, H5P_DEFAULT);
        H5Pclose(gcpl);
        if (g < 0) return h5_error(&h->err, ERR_FAIL, "%s: cannot make group `%s`", h->path, part);
        H5Gclose(g);
    }
    return true;
}

static bool parent_make(H5Out *h, const char *path)
{
    const char *slash = strrchr(path, '/');
    if (*path != '/' || !slash[1])
        return err_set(&h->err, ERR_FAIL, "%s: `%s` is no path inside the file", h->path, path);
    return groups_make(h, path, (size_t)(slash - path));
}

/* n < 0: a scalar. */
static bool attr_on(hid_t object, const char *name, hid_t type, int n, const void *value)
{
    hsize_t count = n < 0 ? 0 : (hsize_t)n;
    if (H5Aexists(object, name) > 0) H5Adelete(object, name);
    hid_t space = n < 0 ? H5Screate(H5S_SCALAR) : H5Screate_simple(1, &count, NULL);
    hid_t attr = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attr >= 0 && H5Awrite(attr, type, value) >= 0;
    if (attr >= 0) ok = H5Aclose(attr) >= 0 && ok;
    H5Sclose(space);
    return ok;
}

static void attr_put(H5Out *h, const char *object, const char *name, hid_t type, int n, const void *value)
{
    if (!room_take(h, 65536)) return;
    if (strcmp(object, "/") && !groups_make(h, object, strlen(object))) return;
    hid_t o = H5Oopen(h->file, object, H5P_DEFAULT);
    if (o < 0 || !attr_on(o, name, type, n, value)) lost(h, "attribute", name);
    if (o >= 0) H5Oclose(o);
}

void h5_attr_i64(H5Out *h, const char *object, const char *name, int64_t v)
{
    if (dead(h)) return;
    if (!strcmp(object, "/") && !strcmp(name, "param_count")) h->params_given = true;
    attr_put(h, object, name, H5T_STD_I64LE, -1, &v);
}

void h5_attr_f64(H5Out *h, const char *object, const char *name, double v)
{
    if (!dead(h)) attr_put(h, object, name, H5T_IEEE_F64LE, -1, &v);
}

void h5_attr_i64s(H5Out *h, const char *object, const char *name, const int64_t *v, int n)
{
    if (!dead(h)) attr_put(h, object, name, H5T_STD_I64LE, n, v);
}

void h5_attr_u64s(H5Out *h, const char *object, const char *name, const uint64_t *v, int n)
{
    if (!dead(h)) attr_put(h, object, name, H5T_STD_U64LE, n, v);
}

void h5_attr_str(H5Out *h, const char *object, const char *name, const char *v)
{
    if (dead(h)) return;
    hid_t type = h5_string_type();
    attr_put(h, object, name, type, -1, &v);
    H5Tclose(type);
}

/* ---- datasets ------------------------------------------------------------------------------------------ */

static hid_t dataset_create(H5Out *h, const char *path, hid_t type, hid_t space)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(dcpl, 0);
    H5Pset_layout(dcpl, H5D_CONTIGUOUS);
    hid_t d = H5Dcreate2(h->file, path, type, space, H5P_DEFAULT, dcpl, H5P_DEFAULT);
    H5Pclose(dcpl);
    return d;
}

void h5_text(H5Out *h, const char *path, const char *utf8)
{
    if (dead(h) || !room_take(h, strlen(utf8)) || !parent_make(h, path)) return;
    hid_t type = h5_string_type(), space = H5Screate(H5S_SCALAR), d = dataset_create(h, path, type, space);
    if (d < 0 || H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &utf8) < 0) lost(h, "text", path);
    if (d >= 0 && H5Dclose(d) < 0) lost(h, "text", path);
    H5Sclose(space);
    H5Tclose(type);
}

bool h5_describe(H5Out *h, hid_t d, const char *path, DType t, uint64_t sum, bool in_out)
{
    Entry *en = arena_alloc(h->a, sizeof *en, &h->err);
    const char *name = en ? arena_strdup(h->a, path, &h->err) : NULL;
    if (!name) return false;
    *en = (Entry){.path = name, .next = h->entry};
    snprintf(en->hash, sizeof en->hash, "%016llx", (unsigned long long)sum);
    h->entry = en;
    h->n_entry++;
    const char *dtype = dtype_long_name(t), *hash = en->hash, *layout = in_out ? "in_out" : "out_in";
    hid_t type = h5_string_type();
    bool ok = attr_on(d, "dtype", type, -1, &dtype) && attr_on(d, "xxh3_64", type, -1, &hash) &&
              attr_on(d, "layout", type, -1, &layout);
    H5Tclose(type);
    return ok;
}

hid_t h5_begin(H5Out *h, const char *path, uint64_t bytes)
{
    return !dead(h) && room_take(h, bytes) && parent_make(h, path) ? h->file : H5I_INVALID_HID;
}

bool h5_fail(H5Out *h, const char *path)
{
    if (!dead(h)) lost(h, "tensor", path);
    return false;
}

void h5_attr_f64s(H5Out *h, const char *object, const char *name, const double *v, int n)
{
    if (!dead(h)) attr_put(h, object, name, H5T_IEEE_F64LE, n, v);
}

void h5_tensor_layout(H5Out *h, const char *path, DType t, int ndim, const int64_t *dim, const void *data,
                      bool in_out)
{
    hsize_t size[4] = {0};
    size_t bytes = dtype_size(t);
    if (dead(h) || !room_take(h, 0) || !parent_make(h, path)) return;
    for (int i = 0; i < ndim && i < 4; i++) {
        size[i] = (hsize_t)dim[i];
        if (dim[i] < 0 || __builtin_mul_overflow(bytes, (size_t)dim[i], &bytes)) ndim = -1;
    }
    if (ndim < 0 || ndim > 4 || (!data && bytes)) {
        err_set(&h->err, ERR_FAIL, "%s: tensor `%s`: impossible shape or no data", h->path, path);
        return;
    }
    if (!room_take(h, bytes)) return;
    hid_t type = h5_type(t), space = ndim ? H5Screate_simple(ndim, size, NULL) : H5Screate(H5S_SCALAR);
    hid_t d = dataset_create(h, path, type, space);
    if (d < 0 || (bytes && H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0) ||
        !h5_describe(h, d, path, t, XXH3_64bits(data, bytes), in_out))
        lost(h, "tensor", path);
    if (d >= 0 && H5Dclose(d) < 0) lost(h, "tensor", path); /* small data is written only now */
    H5Sclose(space);
    H5Tclose(type);
    if (!strncmp(path, "/tensors/", 9)) {
        h->params += (int64_t)(bytes / dtype_size(t));
        h->tensors += !strchr(path + 9, '/');
    }
}

void h5_tensor(H5Out *h, const char *path, DType t, int ndim, const int64_t *dim, const void *data)
{
    h5_tensor_layout(h, path, t, ndim, dim, data, false);
}

static const char *bare(const char *path) { return strncmp(path, "/tensors/", 9) ? path : path + 9; }

void h5_link(H5Out *h, const char *alias, const char *target)
{
    if (dead(h) || !room_take(h, 0) || !parent_make(h, alias)) return;
    Tie *tie = arena_alloc(h->a, sizeof *tie, &h->err);
    if (tie) tie->text = arena_printf(h->a, &h->err, "%s=%s", bare(alias), bare(target));
    if (dead(h)) return;
    hid_t lcpl = H5Pcreate(H5P_LINK_CREATE);
    if (H5Lcreate_soft(target, h->file, alias, lcpl, H5P_DEFAULT) < 0) lost(h, "link", alias);
    H5Pclose(lcpl);
    *(h->tie_last ? &h->tie_last->next : &h->tie) = tie;
    h->tie_last = tie;
    h->n_tie++;
    h->tensors += bare(alias) != alias;
}

void h5_reserve(H5Out *h, uint64_t bytes)
{
    if (!dead(h)) space_check(h->path, bytes, &h->err);
}

/* ---- opening and finishing ----------------------------------------------------------------------------- */

/* created_utc: only from SOURCE_DATE_EPOCH, so that the same content gives the same bytes. */
static void root_attrs(H5Out *h, const char *kind, const char *arch)
{
    const char *epoch = getenv("SOURCE_DATE_EPOCH");
    h5_attr_str(h, "/", "format", "pare-checkpoint");
    h5_attr_i64(h, "/", "format_version", 1);
    h5_attr_i64(h, "/", "format_minor", 0);
    h5_attr_str(h, "/", "kind", kind);
    h5_attr_str(h, "/", "producer", pare_version());
    if (epoch && *epoch) {
        char *end, text[32];
        time_t t = (time_t)strtoll(epoch, &end, 10);
        struct tm utc;
        if (!*end && gmtime_r(&t, &utc) && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc))
            h5_attr_str(h, "/", "created_utc", text);
    }
    if (arch) h5_attr_str(h, "/", "arch", arch);
    h5_attr_i64(h, "/", "step", h->step);
}

H5Out *h5_create(const char *path, const char *kind, const char *arch, int64_t step, Arena *a, Err *e)
{
    H5Out *h = arena_alloc(a, sizeof *h, e);
    if (!h) return NULL;
    h5_quiet();
    *h = (H5Out){.file = H5I_INVALID_HID,
                 .fd = -1,
                 .a = a,
                 .step = step,
                 .path = arena_strdup(a, path, e),
                 .tmp = arena_printf(a, e, "%s.tmp.%ld", path, (long)getpid())};
    if (e->code) return NULL;
    h->file = file_create(h->tmp);
    if (h->file < 0) {
        h5_error(e, ERR_FAIL, "%s: cannot create", h->path);
        unlink(h->tmp);
        return NULL;
    }
    h->fd = open(h->tmp, O_WRONLY | O_CLOEXEC);
    root_attrs(h, kind, arch);
    return h;
}

static int entries_compare(const void *a, const void *b)
{
    return strcmp((*(const Entry *const *)a)->path, (*(const Entry *const *)b)->path);
}

/* XXH3-128 over the sorted lines `path\0xxh3_64\n`. */
static void content_hash(H5Out *h)
{
    size_t bytes = 0, i = 0;
    char hex[33], *text, *at;
    Entry **list = arena_alloc(h->a, (size_t)h->n_entry * sizeof *list, &h->err);
    for (Entry *en = h->entry; en && list; en = en->next) {
        list[i++] = en;
        bytes += strlen(en->path) + 18;
    }
    text = at = arena_alloc(h->a, bytes + 1, &h->err);
    if (dead(h)) return;
    qsort(list, i, sizeof *list, entries_compare);
    for (size_t k = 0; k < i; k++) {
        size_t n = strlen(list[k]->path) + 1;
        memcpy(at, list[k]->path, n);
        memcpy(at + n, list[k]->hash, 16);
        at[n + 16] = '\n';
        at += n + 17;
    }
    hash128_hex(hex, text, bytes);
    h5_attr_str(h, "/", "content_xxh3_128", hex);
}

static void finish_attrs(H5Out *h)
{
    if (!h->params_given) h5_attr_i64(h, "/", "param_count", h->params);
    h5_attr_i64(h, "/", "tensor_count", h->tensors);
    if (h->n_tie && !dead(h)) {
        const char **list = arena_alloc(h->a, (size_t)h->n_tie * sizeof *list, &h->err);
        int n = 0;
        hid_t type = h5_string_type();
        for (Tie *t = h->tie; t && list; t = t->next) list[n++] = t->text;
        if (list) attr_put(h, "/", "tied", type, n, list);
        H5Tclose(type);
    }
    if (!dead(h)) content_hash(h);
    if (!dead(h)) {
        const signed char yes = 1;
        hid_t type = h5_type(DT_BOOL);
        attr_put(h, "/", "complete", type, -1, &yes);
        H5Tclose(type);
    }
}

static void envelope_write(H5Out *h)
{
    unsigned char block[ENVELOPE];
    FileMap m = {0};
    int fd = open(h->tmp, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        err_set(&h->err, ERR_FAIL, "%s: cannot open again: %s", h->tmp, strerror(errno));
        return;
    }
    if (file_map(&m, h->tmp, &h->err)) {
        if (m.bytes <= ENVELOPE) err_set(&h->err, ERR_FAIL, "%s: HDF5 wrote nothing", h->tmp);
        else envelope_build(block, m.data + ENVELOPE, m.bytes - ENVELOPE, h->step);
        file_unmap(&m);
    }
    for (size_t done = 0; done < ENVELOPE && !h->err.code;) {
        ssize_t n = pwrite(fd, block + done, ENVELOPE - done, (off_t)done);
        if (n > 0) done += (size_t)n;
        else if (errno != EINTR)
            err_set(&h->err, ERR_FAIL, "%s: cannot write the envelope: %s", h->path, strerror(errno));
    }
    /* gives back what was reserved behind the end */
    struct stat st;
    if (!h->err.code && (fstat(fd, &st) != 0 || ftruncate(fd, st.st_size) != 0))
        err_set(&h->err, ERR_FAIL, "%s: cannot set its length: %s", h->path, strerror(errno));
    if (!h->err.code && fsync(fd) != 0)
        err_set(&h->err, ERR_FAIL, "%s: cannot sync: %s", h->path, strerror(errno));
    if (close(fd) != 0) err_set(&h->err, ERR_FAIL, "%s: cannot close: %s", h->path, strerror(errno));
}

/* Frees the temporary file's blocks first, so that a full disk does not keep HDF5 from closing. */
static void drop(H5Out *h)
{
    if (h->file >= 0 && !h->closing) {
        if (!h->reserved && truncate(h->tmp, 0) != 0)
            log_debug("%s: cannot truncate: %s", h->tmp, strerror(errno));
        H5Fclose(h->file);
        H5Eclear2(H5E_DEFAULT);
    }
    h->file = H5I_INVALID_HID;
    if (h->fd >= 0) close(h->fd);
    h->fd = -1;
    unlink(h->tmp);
}

void h5_abandon(H5Out *h)
{
    if (!h) return;
    err_set(&h->err, ERR_FAIL, "%s: writing was abandoned", h->path);
    drop(h);
}

bool h5_commit(H5Out *h, Err *e)
{
    if (!h) return err_set(e, ERR_FAIL, "an HDF5 file that could not be created cannot be finished");
    if (!dead(h)) finish_attrs(h);
    if (!dead(h)) {
        h->closing = true;
        if (H5Fclose(h->file) < 0) h5_error(&h->err, ERR_FAIL, "%s: cannot finish", h->path);
        else h->file = H5I_INVALID_HID;
    }
    if (!dead(h)) envelope_write(h);
    if (!dead(h) && rename(h->tmp, h->path) != 0)
        err_set(&h->err, ERR_FAIL, "%s: cannot rename the finished file into place: %s", h->path,
                strerror(errno));
    if (dead(h)) {
        drop(h);
        return err_set(e, h->err.code, "%s", h->err.msg);
    }
    if (h->fd >= 0) close(h->fd);
    return folder_sync(h->path, e);
}
