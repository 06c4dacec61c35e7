/* train/tokens_h5.c: token files in our HDF5, for text that is tokenised once and read often, with what a
 * .bin cannot hold: which tokens are trained and where documents begin. Kind `tokens`, product.md 6's
 * envelope:
 *
 *   /tensors/tokens      I32 [n]
 *   /tensors/target      U8 [n], 1 = the loss counts this token; absent: all of them
 *   /tensors/documents   I64 [d], where documents begin; absent: one stream
 *   attributes of /      tokenizer_hash
 */
#include "formats/formats.h"
#include "train/train.h"
#include <string.h>

static bool length(H5In *h, const char *path, const char *name, DType want, int64_t *n, Err *e)
{
    DType t;
    int ndim;
    int64_t dim[4];
    if (!h5_tensor_info(h, name, &t, &ndim, dim, e)) return false;
    *n = dim[0];
    if (t == want && ndim == 1) return true;
    return err_set(e, ERR_CORRUPT, "%s: %s is %s of %d dimensions, must be %s of one", path, name,
                   dtype_name(t), ndim, dtype_name(want));
}

static bool read_documents(Tokens *out, H5In *h, const char *path, Arena *a, Err *e)
{
    int64_t n, *begin;
    const char *name = "/tensors/documents";
    if (!h5_has(h, name)) return true;
    if (!length(h, path, name, DT_I64, &n, e)) return false;
    begin = arena_alloc(a, (size_t)n * sizeof *begin, e);
    out->doc = arena_alloc(a, (size_t)(n + 1) * sizeof *out->doc, e);
    if (e->code || !h5_read_tensor(h, name, DT_I64, begin, (size_t)n * sizeof *begin, e)) return false;
    for (int64_t i = 0; i < n; i++) {
        if (begin[i] < 0 || (uint64_t)begin[i] >= out->n ||
            (i > 0 ? begin[i] <= begin[i - 1] : begin[i] != 0))
            return err_set(e, ERR_CORRUPT, "%s: document %lld begins at %lld: not in order", path,
                           (long long)i, (long long)begin[i]);
        out->doc[i] = (size_t)begin[i];
    }
    out->doc[n] = out->n;
    out->n_doc = (size_t)n;
    return true;
}

static bool read_all(Tokens *out, H5In *h, const char *path, Arena *a, Err *e)
{
    int64_t n, m;
    const char *kind = h5_get_str(h, "/", "kind", e);
    if (!kind || strcmp(kind, "tokens") != 0)
        return err_set(e, ERR_USAGE, "%s: holds %s, not tokens", path, kind ? kind : "something else");
    if (!length(h, path, "/tensors/tokens", DT_I32, &n, e)) return false;
    out->n = (size_t)n;
    out->id = arena_alloc(a, out->n * sizeof *out->id, e);
    if (!out->id || !h5_read_tensor(h, "/tensors/tokens", DT_I32, out->id, out->n * sizeof *out->id, e))
        return false;
    if (h5_has(h, "/tensors/target")) {
        if (!length(h, path, "/tensors/target", DT_U8, &m, e)) return false;
        if (m != n)
            return err_set(e, ERR_CORRUPT, "%s: %lld targets for %lld tokens", path, (long long)m,
                           (long long)n);
        out->target = arena_alloc(a, out->n, e);
        if (!out->target || !h5_read_tensor(h, "/tensors/target", DT_U8, out->target, out->n, e))
            return false;
    }
    return read_documents(out, h, path, a, e);
}

static bool read_tokens(Tokens *out, const char *path, Arena *a, Err *e)
{
    H5In *h = h5_open(path, false, a, e);
    const bool ok = h && read_all(out, h, path, a, e);
    h5_close(h);
    return ok;
}

void tokens_h5_enable(void) { tokens_h5_reader(read_tokens); }

bool tokens_h5_write(const char *path, const Tokens *t, const char *tokenizer_hash_hex, Arena *a, Err *e)
{
    const int64_t n = (int64_t)t->n, d = (int64_t)t->n_doc;
    int64_t *begin = arena_alloc(a, (t->n_doc + 1) * sizeof *begin, e);
    H5Out *h = begin ? h5_create(path, "tokens", "tokens", 0, a, e) : NULL;
    if (!h) return false;
    for (size_t i = 0; i < t->n_doc; i++) begin[i] = (int64_t)t->doc[i];
    h5_reserve(h, t->n * (sizeof *t->id + 1) + t->n_doc * sizeof *begin);
    h5_tensor(h, "/tensors/tokens", DT_I32, 1, &n, t->id);
    if (t->target) h5_tensor(h, "/tensors/target", DT_U8, 1, &n, t->target);
    if (d > 0) h5_tensor(h, "/tensors/documents", DT_I64, 1, &d, begin);
    if (tokenizer_hash_hex) h5_attr_str(h, "/", "tokenizer_hash", tokenizer_hash_hex);
    return h5_commit(h, e);
}
