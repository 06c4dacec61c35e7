/* formats/h5read.c: reading an HDF5 container.
 *
 * The envelope is verified over the mapped file before any HDF5 call. Then every object is looked at once:
 * groups, soft links and datasets, contiguous, compact or plain chunked, nothing else (external links and
 * files, virtual datasets and filters are refused). Contiguous data is read out of the mapping. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include "formats/hdf5_impl.h"

enum { DEPTH_MAX = 8, OBJECTS_MAX = 1 << 20, TEXT_MAX = 1 << 28 };
struct H5In {
    hid_t file;
    FileMap map;
    const char *path;
    Arena *a;
    bool foreign;
    int64_t objects;
};

bool h5_corrupt(const H5In *h, Err *e, const char *what, const char *object)
{
    char shown[168];
    return err_set(e, ERR_CORRUPT, "%s: `%s` %s", h->path, name_shown(shown, object), what);
}

/* ---- the look at every object -------------------------------------------------------------------------- */

static bool dataset_allowed(H5In *h, hid_t d, const char *name, Err *e)
{
    hid_t plist = H5Dget_create_plist(d);
    H5D_layout_t layout = H5Pget_layout(plist);
    int filters = H5Pget_nfilters(plist), files = layout == H5D_CONTIGUOUS ? H5Pget_external_count(plist) : 0;
    H5Pclose(plist);
    if (layout == H5D_VIRTUAL)
        return h5_corrupt(h, e, "is a virtual dataset, which reads other files: refused", name);
    if (layout != H5D_CONTIGUOUS && layout != H5D_COMPACT && layout != H5D_CHUNKED)
        return h5_corrupt(h, e, "has an unknown layout: refused", name);
    if (files != 0) return h5_corrupt(h, e, "keeps its data in other files: refused", name);
    if (filters != 0)
        return h5_corrupt(h, e, "is compressed or filtered, which this version does not read", name);
    return true;
}

static bool group_allowed(H5In *h, hid_t group, int depth, Err *e);

static bool object_allowed(H5In *h, hid_t group, const char *name, int depth, Err *e)
{
    hid_t o = H5Oopen(group, name, H5P_DEFAULT);
    if (o < 0) return h5_error(e, ERR_CORRUPT, "%s: cannot open `%s`", h->path, name);
    H5I_type_t type = H5Iget_type(o);
    bool ok = type == H5I_GROUP     ? group_allowed(h, o, depth + 1, e)
              : type == H5I_DATASET ? dataset_allowed(h, o, name, e)
                                    : h5_corrupt(h, e, "is neither a group nor a dataset: refused", name);
    H5Oclose(o);
    return ok;
}

static bool group_allowed(H5In *h, hid_t group, int depth, Err *e)
{
    H5G_info_t info;
    char name[1024];
    if (depth > DEPTH_MAX)
        return err_set(e, ERR_CORRUPT, "%s: groups are nested too deep, or in a circle", h->path);
    if (H5Gget_info(group, &info) < 0) return h5_error(e, ERR_CORRUPT, "%s: cannot list a group", h->path);
    for (hsize_t i = 0; i < info.nlinks; i++) {
        H5L_info_t link;
        ssize_t n = H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_NATIVE, i, name, sizeof name,
                                       H5P_DEFAULT);
        if (++h->objects > OBJECTS_MAX) return err_set(e, ERR_CORRUPT, "%s: too many objects", h->path);
        if (n <= 0 || n >= (ssize_t)sizeof name || H5Lget_info(group, name, &link, H5P_DEFAULT) < 0)
            return h5_error(e, ERR_CORRUPT, "%s: cannot read a link", h->path);
        if (link.type == H5L_TYPE_SOFT) continue; /* followed by name only, inside this file */
        if (link.type != H5L_TYPE_HARD) return h5_corrupt(h, e, "is a link to another file: refused", name);
        if (!object_allowed(h, group, name, depth, e)) return false;
    }
    return true;
}

/* ---- opening ------------------------------------------------------------------------------------------- */

static bool root_ok(H5In *h, Err *e)
{
    signed char yes = 0;
    int64_t version;
    hid_t g = H5Gopen2(h->file, "/", H5P_DEFAULT);
    if (g < 0) return h5_error(e, ERR_CORRUPT, "%s: no root group", h->path);
    bool ok = group_allowed(h, g, 0, e);
    H5Gclose(g);
    if (!ok || h->foreign) return ok;
    if (!h5_get_i64(h, "/", "format_version", &version, e)) return false;
    if (version > 1)
        return err_set(e, ERR_CORRUPT, "%s: format_version %lld; this program reads version 1", h->path,
                       (long long)version);
    hid_t attr = H5Aexists(h->file, "complete") > 0 ? H5Aopen(h->file, "complete", H5P_DEFAULT)
                                                    : H5I_INVALID_HID;
    hid_t type = h5_type(DT_BOOL);
    ok = attr >= 0 && H5Aread(attr, type, &yes) >= 0 && yes == 1;
    H5Tclose(type);
    if (attr >= 0) H5Aclose(attr);
    return ok || err_set(e, ERR_CORRUPT,
                         "%s: half-written: it has no `complete` mark; use an earlier checkpoint", h->path);
}

H5In *h5_open(const char *path, bool trust_foreign, Arena *a, Err *e)
{
    H5In *h = arena_alloc(a, sizeof *h, e);
    if (!h) return NULL;
    *h = (H5In){.file = H5I_INVALID_HID, .path = arena_strdup(a, path, e), .a = a};
    if (!file_map(&h->map, path, e)) return NULL;
    bool ours = h->map.bytes >= 16 && !memcmp(h->map.data, ENVELOPE_MAGIC, 16);
    h->foreign = trust_foreign && !ours;
    if (!h->foreign && !envelope_check(&h->map, path, NULL, e)) {
        file_unmap(&h->map);
        return NULL;
    }
    h5_quiet();
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG);
#if H5_VERSION_GE(1, 10, 7)
    H5Pset_file_locking(fapl, 0, 1);
#endif
    h->file = H5Fopen(path, H5F_ACC_RDONLY, fapl);
    H5Pclose(fapl);
    if (h->file < 0) h5_error(e, ERR_CORRUPT, "%s: HDF5 cannot open it", path);
    if (h->file < 0 || !root_ok(h, e)) {
        h5_close(h);
        return NULL;
    }
    return h;
}

void h5_close(H5In *h)
{
    if (!h) return;
    if (h->file >= 0) H5Fclose(h->file);
    h->file = H5I_INVALID_HID;
    file_unmap(&h->map);
}

/* ---- looking around ------------------------------------------------------------------------------------ */

/* H5Lexists wants every group on the way to exist. */
bool h5_has(H5In *h, const char *path)
{
    char part[1024];
    size_t n = strlen(path);
    if (!n || n >= sizeof part || *path != '/') return false;
    for (size_t i = 1; i <= n; i++) {
        if (i < n && path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = 0;
        if (i > 1 && H5Lexists(h->file, part, H5P_DEFAULT) <= 0) return false;
    }
    return n == 1 || H5Oexists_by_name(h->file, path, H5P_DEFAULT) > 0;
}

H5Kind h5_kind(H5In *h, const char *path)
{
    H5L_info_t link;
    if (H5Lget_info(h->file, path, &link, H5P_DEFAULT) < 0) return H5_NONE;
    if (link.type == H5L_TYPE_SOFT) return H5_SOFT;
    hid_t o = H5Oopen(h->file, path, H5P_DEFAULT);
    if (o < 0) return H5_NONE;
    H5Kind kind = H5Iget_type(o) == H5I_GROUP ? H5_GROUP : H5_DATASET;
    H5Oclose(o);
    return kind;
}

char *h5_link_target(H5In *h, const char *path, Err *e)
{
    char target[1024] = "";
    H5L_info_t link;
    if (H5Lget_info(h->file, path, &link, H5P_DEFAULT) < 0 || link.u.val_size >= sizeof target ||
        H5Lget_val(h->file, path, target, sizeof target, H5P_DEFAULT) < 0) {
        h5_error(e, ERR_CORRUPT, "%s: cannot read link `%s`", h->path, path);
        return NULL;
    }
    return arena_strdup(h->a, target, e);
}

int64_t h5_count(H5In *h, const char *group)
{
    H5G_info_t info;
    hid_t g = h5_has(h, group) ? H5Gopen2(h->file, group, H5P_DEFAULT) : H5I_INVALID_HID;
    if (g < 0) return -1;
    bool ok = H5Gget_info(g, &info) >= 0;
    H5Gclose(g);
    return ok ? (int64_t)info.nlinks : -1;
}

int h5_list(H5In *h, const char *group, const char **names, int cap)
{
    char name[1024];
    unsigned order = 0;
    int64_t n = h5_count(h, group);
    Err e = {0};
    if (n < 0) return -1;
    hid_t g = H5Gopen2(h->file, group, H5P_DEFAULT), plist = H5Gget_create_plist(g);
    H5Pget_link_creation_order(plist, &order);
    H5_index_t by = order & H5P_CRT_ORDER_INDEXED ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME;
    int got = 0;
    for (; got < n && got < cap; got++) {
        if (H5Lget_name_by_idx(g, ".", by, H5_ITER_INC, (hsize_t)got, name, sizeof name, H5P_DEFAULT) <= 0)
            break;
        if (!(names[got] = arena_strdup(h->a, name, &e))) break;
    }
    H5Pclose(plist);
    H5Gclose(g);
    return got;
}

/* ---- attributes ---------------------------------------------------------------------------------------- */

static hid_t attr_open(H5In *h, const char *object, const char *name, Err *e)
{
    hid_t a = H5I_INVALID_HID;
    if (e->code) return a;
    if (h5_has(h, object) && H5Aexists_by_name(h->file, object, name, H5P_DEFAULT) > 0)
        a = H5Aopen_by_name(h->file, object, name, H5P_DEFAULT, H5P_DEFAULT);
    if (a < 0) err_set(e, ERR_CORRUPT, "%s: `%s` has no attribute `%s`", h->path, object, name);
    return a;
}

static bool attr_number(H5In *h, const char *object, const char *name, hid_t memory, H5T_class_t want,
                        void *v, Err *e)
{
    hid_t a = attr_open(h, object, name, e);
    if (a < 0) return false;
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    H5T_class_t have = H5Tget_class(type);
    bool ok = H5Sget_simple_extent_npoints(space) == 1 && have == want && H5Aread(a, memory, v) >= 0;
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(a);
    return ok || err_set(e, ERR_CORRUPT, "%s: `%s`: attribute `%s` is not one %s", h->path, object, name,
                         want == H5T_INTEGER ? "integer" : "float");
}

bool h5_get_i64(H5In *h, const char *object, const char *name, int64_t *v, Err *e)
{
    return attr_number(h, object, name, H5T_NATIVE_INT64, H5T_INTEGER, v, e);
}

bool h5_get_f64(H5In *h, const char *object, const char *name, double *v, Err *e)
{
    return attr_number(h, object, name, H5T_NATIVE_DOUBLE, H5T_FLOAT, v, e);
}

int h5_get_f64s(H5In *h, const char *object, const char *name, double *v, int cap, Err *e)
{
    hid_t a = attr_open(h, object, name, e);
    if (a < 0) return -1;
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    const hssize_t n = H5Sget_simple_extent_npoints(space);
    const bool ok = n >= 0 && n <= cap && H5Tget_class(type) == H5T_FLOAT &&
                    (n == 0 || H5Aread(a, H5T_NATIVE_DOUBLE, v) >= 0);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(a);
    if (ok) return (int)n;
    err_set(e, ERR_CORRUPT, "%s: `%s`: attribute `%s` is no list of at most %d floats", h->path, object, name,
            cap);
    return -1;
}

/* A scalar string, of either kind, out of an attribute (is_attr) or a dataset. */
static char *string_of(H5In *h, hid_t id, bool is_attr, const char *what, Err *e)
{
    hid_t type = is_attr ? H5Aget_type(id) : H5Dget_type(id),
          space = is_attr ? H5Aget_space(id) : H5Dget_space(id);
    char *copy = NULL, *text = NULL;
    size_t size = H5Tget_size(type);
    if (H5Tget_class(type) != H5T_STRING || H5Sget_simple_extent_npoints(space) != 1 || size > TEXT_MAX) {
        h5_corrupt(h, e, "is not one string", what);
    } else if (H5Tis_variable_str(type) > 0) {
        hid_t memory = H5Tcopy(type);
        herr_t r = is_attr ? H5Aread(id, memory, &text)
                           : H5Dread(id, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, &text);
        if (r < 0 || (text && strlen(text) > TEXT_MAX))
            h5_error(e, ERR_CORRUPT, "%s: cannot read `%s`", h->path, what);
        else copy = arena_strdup(h->a, text ? text : "", e);
        if (text) H5free_memory(text);
        H5Tclose(memory);
    } else if ((copy = arena_alloc(h->a, size + 1, e))) {
        herr_t r = is_attr ? H5Aread(id, type, copy) : H5Dread(id, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, copy);
        if (r < 0) {
            h5_error(e, ERR_CORRUPT, "%s: cannot read `%s`", h->path, what);
            copy = NULL;
        }
    }
    H5Sclose(space);
    H5Tclose(type);
    return copy;
}

char *h5_get_str(H5In *h, const char *object, const char *name, Err *e)
{
    hid_t a = attr_open(h, object, name, e);
    if (a < 0) return NULL;
    char *text = string_of(h, a, true, name, e);
    H5Aclose(a);
    return text;
}

/* One attribute as a JSON value: string, number, or list of integers. NULL for other kinds. */
static json_t *attr_json(H5In *h, hid_t a, const char *name, Err *e)
{
    int64_t v[64];
    double x;
    json_t *j = NULL;
    hid_t type = H5Aget_type(a), space = H5Aget_space(a);
    H5T_class_t class = H5Tget_class(type);
    hssize_t n = H5Sget_simple_extent_npoints(space);
    bool scalar = H5Sget_simple_extent_type(space) == H5S_SCALAR;
    if (class == H5T_STRING && n == 1) {
        const char *s = string_of(h, a, true, name, e);
        j = s ? json_string(s) : NULL;
    } else if (class == H5T_FLOAT && n == 1 && H5Aread(a, H5T_NATIVE_DOUBLE, &x) >= 0) {
        j = json_real(x);
    } else if (class == H5T_INTEGER && n >= 0 && n <= 64 && H5Aread(a, H5T_NATIVE_INT64, v) >= 0) {
        j = scalar ? json_integer(v[0]) : json_array();
        for (hssize_t i = 0; i < n && !scalar; i++) json_array_append_new(j, json_integer(v[i]));
    }
    H5Sclose(space);
    H5Tclose(type);
    return j;
}

char *h5_attrs_json(H5In *h, const char *path, Err *e)
{
    hid_t o = H5Oopen(h->file, path, H5P_DEFAULT);
    json_t *all = json_object();
    for (hsize_t i = 0; o >= 0; i++) {
        char name[256];
        hid_t a = H5Aopen_by_idx(o, ".", H5_INDEX_NAME, H5_ITER_INC, i, H5P_DEFAULT, H5P_DEFAULT);
        if (a < 0) break;
        json_t *j = H5Aget_name(a, sizeof name, name) > 0 ? attr_json(h, a, name, e) : NULL;
        if (j) json_object_set_new(all, name, j);
        H5Aclose(a);
    }
    H5Eclear2(H5E_DEFAULT);
    if (o >= 0) H5Oclose(o);
    char *text = json_dumps(all, JSON_COMPACT | JSON_SORT_KEYS);
    char *copy = text ? arena_strdup(h->a, text, e) : NULL;
    free(text);
    json_decref(all);
    return copy;
}

/* ---- datasets ------------------------------------------------------------------------------------------ */

hid_t h5_dataset(H5In *h, const char *path, Err *e)
{
    hid_t d = H5I_INVALID_HID;
    if (e->code) return d;
    if (h5_has(h, path)) d = H5Dopen2(h->file, path, H5P_DEFAULT);
    H5Eclear2(H5E_DEFAULT);
    if (d < 0) err_set(e, ERR_CORRUPT, "%s: no dataset `%s`", h->path, path);
    return d;
}

char *h5_read_text(H5In *h, const char *path, Err *e)
{
    hid_t d = h5_dataset(h, path, e);
    if (d < 0) return NULL;
    char *text = string_of(h, d, false, path, e);
    H5Dclose(d);
    return text;
}

/* FP8 codes are uint8 to HDF5; the attribute says what they are. */
static bool dtype_of(H5In *h, hid_t d, const char *path, DType *t, Err *e)
{
    hid_t type = H5Dget_type(d);
    bool known = h5_type_parse(type, t);
    H5Tclose(type);
    if (!known) return h5_corrupt(h, e, "has an element type this version does not read", path);
    if (H5Aexists(d, "dtype") > 0) {
        DType said;
        const char *name = h5_get_str(h, path, "dtype", e);
        if (!name) return false;
        bool f8 = dtype_parse(name, &said) && *t == DT_U8 && (said == DT_F8_E4M3 || said == DT_F8_E5M2);
        if (f8) *t = said;
        else if (!dtype_parse(name, &said) || said != *t)
            return h5_corrupt(h, e, "has an attribute dtype that is not its type", path);
    }
    return true;
}

bool h5_tensor_info(H5In *h, const char *path, DType *t, int *ndim, int64_t dim[4], Err *e)
{
    hsize_t size[H5S_MAX_RANK];
    uint64_t bytes = 1;
    hid_t d = h5_dataset(h, path, e);
    if (d < 0) return false;
    bool ok = dtype_of(h, d, path, t, e);
    hid_t space = H5Dget_space(d);
    int n = H5Sget_simple_extent_type(space) == H5S_NULL ? -1 : H5Sget_simple_extent_dims(space, size, NULL);
    H5Sclose(space);
    H5Dclose(d);
    if (!ok) return false;
    if (n < 0 || n > 4) return h5_corrupt(h, e, "has over 4 dimensions, or none that can be read", path);
    *ndim = n;
    bytes = dtype_size(*t);
    for (int i = 0; i < 4; i++) {
        dim[i] = i < n ? (int64_t)size[i] : 0;
        if (i < n &&
            (size[i] > INT64_MAX || __builtin_mul_overflow(bytes, size[i], &bytes) || bytes > SIZE_MAX / 2))
            return h5_corrupt(h, e, "has an impossible shape", path);
    }
    return true;
}

/* Offset of the data in the file when it lies there in one piece. */
static bool placed(H5In *h, hid_t d, size_t bytes, size_t *at)
{
    haddr_t off = H5Dget_offset(d);
    H5Eclear2(H5E_DEFAULT);
    if (off == HADDR_UNDEF || off > h->map.bytes || bytes > h->map.bytes - off) return false;
    *at = (size_t)off;
    return true;
}

bool h5_owns(const H5In *h, const void *p, size_t bytes)
{
    const unsigned char *c = p;
    return c >= h->map.data && c + bytes <= h->map.data + h->map.bytes;
}

const unsigned char *h5_view(H5In *h, const char *path, size_t bytes, Err *e)
{
    size_t at;
    hid_t d = h5_dataset(h, path, e);
    if (d < 0) return NULL;
    const unsigned char *data = NULL;
    if (!bytes) {
        data = h->map.data;
    } else if (placed(h, d, bytes, &at)) {
        data = h->map.data + at;
    } else if (bytes > h->map.bytes) {
        h5_corrupt(h, e, "claims more bytes than the file has", path);
    } else {
        unsigned char *copy = arena_alloc(h->a, bytes, e);
        hid_t type = H5Dget_type(d);
        if (copy && H5Dread(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, copy) < 0)
            h5_error(e, ERR_CORRUPT, "%s: cannot read `%s`", h->path, path);
        H5Tclose(type);
        data = e->code ? NULL : copy;
    }
    H5Dclose(d);
    return data;
}

bool h5_verify(H5In *h, const char *path, const void *data, size_t bytes, Err *e)
{
    char have[17];
    if (h->foreign && H5Aexists_by_name(h->file, path, "xxh3_64", H5P_DEFAULT) <= 0) return true;
    const char *want = h5_get_str(h, path, "xxh3_64", e);
    if (!want) return false;
    const bool mapped = bytes > PAGES_BLOCK && h5_owns(h, data, bytes);
    XXH3_state_t *state = XXH3_createState();
    if (!state) return err_set(e, ERR_MEMORY, "%s: out of memory for a hash", h->path);
    XXH3_64bits_reset(state);
    for (size_t i = 0; i < bytes; i += PAGES_BLOCK) {
        const size_t now = bytes - i < PAGES_BLOCK ? bytes - i : PAGES_BLOCK;
        XXH3_64bits_update(state, (const unsigned char *)data + i, now);
        if (mapped) pages_drop((const unsigned char *)data + i, now);
    }
    snprintf(have, sizeof have, "%016llx", (unsigned long long)XXH3_64bits_digest(state));
    XXH3_freeState(state);
    return !strcmp(have, want) || h5_corrupt(h, e, "does not match its xxh3_64: damaged", path);
}

bool h5_read_tensor(H5In *h, const char *path, DType t, void *dst, size_t bytes, Err *e)
{
    DType have;
    int ndim;
    int64_t dim[4];
    if (e->code || !h5_tensor_info(h, path, &have, &ndim, dim, e)) return false;
    size_t need = dtype_size(have);
    for (int i = 0; i < ndim; i++) need *= (size_t)dim[i];
    if (have != t || need != bytes)
        return err_set(e, ERR_CORRUPT, "%s: `%s` holds %zu bytes of %s, %zu bytes of %s were expected",
                       h->path, path, need, dtype_name(have), bytes, dtype_name(t));
    ArenaMark mark = arena_mark(h->a);
    const unsigned char *data = h5_view(h, path, bytes, e);
    bool ok = data && h5_verify(h, path, data, bytes, e);
    if (ok && bytes) memcpy(dst, data, bytes);
    arena_release(h->a, mark);
    return ok;
}
