/* formats/h5copy.c: a group of one container into another, with its attributes, tensors and groups below it;
 * every hash is checked on the way. */
#include <string.h>
#include "formats/hdf5_impl.h"

enum { MAX_CHILDREN = 65536 };

static void copy_attrs(H5Out *to, H5In *from, const char *path, bool dataset, Err *e)
{
    static const char *const own[] = {"xxh3_64", "dtype", "layout"}; /* of a tensor: written with it */
    const char *text = h5_attrs_json(from, path, e), *key;
    json_t *all = text ? json_object_of(text, strlen(text), path, e) : NULL, *v;
    json_object_foreach(all, key, v)
    {
        int64_t list[64] = {0};
        bool skip = false;
        for (int i = 0; i < 3; i++) skip = skip || (dataset && !strcmp(key, own[i]));
        if (skip) continue;
        if (json_is_string(v)) h5_attr_str(to, path, key, json_string_value(v));
        else if (json_is_integer(v)) h5_attr_i64(to, path, key, json_integer_value(v));
        else if (json_is_real(v)) h5_attr_f64(to, path, key, json_real_value(v));
        else if (json_is_array(v) && json_array_size(v) <= 64) {
            for (size_t i = 0; i < json_array_size(v); i++)
                list[i] = json_integer_value(json_array_get(v, i));
            h5_attr_i64s(to, path, key, list, (int)json_array_size(v));
        }
    }
    json_decref(all);
}

static void copy_tensor(H5Out *to, H5In *from, const char *path, Err *e)
{
    DType t;
    int ndim;
    int64_t dim[4];
    Err none = {0};
    if (!h5_tensor_info(from, path, &t, &ndim, dim, e)) return;
    size_t bytes = dtype_size(t);
    for (int i = 0; i < ndim; i++) bytes *= (size_t)dim[i];
    Arena tmp = {.name = "copy"};
    void *data = arena_alloc(&tmp, bytes + 1, e);
    const char *layout = h5_get_str(from, path, "layout", &none);
    if (data && h5_read_tensor(from, path, t, data, bytes, e)) {
        h5_tensor_layout(to, path, t, ndim, dim, data, layout && !strcmp(layout, "in_out"));
        copy_attrs(to, from, path, true, e);
    }
    arena_free(&tmp);
}

bool h5_copy(H5Out *to, H5In *from, const char *path, Arena *a, Err *e)
{
    if (e->code) return false;
    if (h5_kind(from, path) != H5_GROUP) {
        copy_tensor(to, from, path, e);
        return !e->code;
    }
    copy_attrs(to, from, path, false, e);
    const int64_t n = h5_count(from, path);
    if (n < 0 || n > MAX_CHILDREN)
        return err_set(e, ERR_CORRUPT, "`%s` has %lld members", path, (long long)n);
    const char **name = arena_alloc(a, (size_t)(n + 1) * sizeof *name, e);
    const int got = name ? h5_list(from, path, name, (int)n) : 0;
    for (int i = 0; i < got && !e->code; i++) {
        const char *at = arena_printf(a, e, "%s/%s", path, name[i]);
        if (at) h5_copy(to, from, at, a, e);
    }
    return !e->code;
}
