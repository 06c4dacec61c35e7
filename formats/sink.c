/* formats/sink.c: how files are written: temporary file in the target folder, fsync, rename, fsync of the
 * folder; and an OutTensor's stored bytes: element type by round to nearest even, [out,in] -> [in,out]. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "formats/formats_impl.h"

#define SINK_BYTES 65536u

bool space_check(const char *path, uint64_t bytes, Err *e)
{
    struct statvfs vfs;
    Arena a = {.name = "formats"};
    const char *dir = path_dir(&a, path, e);
    if (dir && statvfs(dir, &vfs) == 0) {
        double free_bytes = (double)vfs.f_bavail * (double)vfs.f_frsize, need = 1.1 * (double)bytes;
        if (free_bytes < need)
            err_set(e, ERR_FAIL,
                    "%s: not enough space: %.1f MB are needed, %.1f MB are free; nothing was written", path,
                    need / 1e6, free_bytes / 1e6);
    }
    arena_free(&a);
    return !e->code;
}

bool folder_sync(const char *path, Err *e)
{
    Arena a = {.name = "formats"};
    const char *dir = path_dir(&a, path, e);
    int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY) : -1;
    /* EINVAL: file systems that cannot sync a folder have nothing to sync */
    if (dir && (fd < 0 || (fsync(fd) != 0 && errno != EINVAL)))
        err_set(e, ERR_FAIL, "%s: cannot sync the folder: %s", dir, strerror(errno));
    if (fd >= 0) close(fd);
    arena_free(&a);
    return !e->code;
}

bool sink_open(Sink *s, const char *path, uint64_t expect_bytes, Arena *a, Err *e)
{
    *s = (Sink){.fd = -1, .path = path, .e = e};
    s->tmp = arena_printf(a, e, "%s.tmp.%ld", path, (long)getpid());
    s->buf = arena_alloc(a, SINK_BYTES, e);
    if (!s->buf || !space_check(path, expect_bytes, e)) return false;
    s->fd = open(s->tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return s->fd >= 0 || err_set(e, ERR_FAIL, "%s: cannot create: %s", path, strerror(errno));
}

static void sink_flush(Sink *s)
{
    for (size_t done = 0; done < s->used && !s->e->code;) {
        ssize_t n = write(s->fd, s->buf + done, s->used - done);
        if (n > 0) done += (size_t)n;
        else if (errno != EINTR) err_set(s->e, ERR_FAIL, "%s: cannot write: %s", s->path, strerror(errno));
    }
    s->used = 0;
}

void sink_put(Sink *s, const void *p, size_t n)
{
    const unsigned char *from = p;
    while (n && !s->e->code) {
        size_t room = SINK_BYTES - s->used, now = n < room ? n : room;
        memcpy(s->buf + s->used, from, now);
        s->used += now;
        from += now;
        n -= now;
        if (s->used == SINK_BYTES) sink_flush(s);
    }
}

bool sink_commit(Sink *s)
{
    Err *e = s->e;
    if (s->fd < 0) return false;
    sink_flush(s);
    if (!e->code && fsync(s->fd) != 0) err_set(e, ERR_FAIL, "%s: cannot sync: %s", s->path, strerror(errno));
    if (close(s->fd) != 0) err_set(e, ERR_FAIL, "%s: cannot close: %s", s->path, strerror(errno));
    if (!e->code && rename(s->tmp, s->path) != 0)
        err_set(e, ERR_FAIL, "%s: cannot rename the finished file into place: %s", s->path, strerror(errno));
    if (e->code) {
        unlink(s->tmp);
        return false;
    }
    return folder_sync(s->path, e);
}

/* ---- OutTensor ----------------------------------------------------------------------------------------- */

void out_dims(const OutTensor *t, int64_t dim[4])
{
    for (int i = 0; i < 4; i++) dim[i] = i < t->ndim ? t->dim[i] : 1;
    if (t->in_out) {
        dim[0] = t->dim[1];
        dim[1] = t->dim[0];
    }
}

static size_t out_count(const OutTensor *t)
{
    size_t n = 1;
    for (int i = 0; i < t->ndim; i++) n *= (size_t)t->dim[i];
    return n;
}

size_t out_bytes(const OutTensor *t) { return out_count(t) * dtype_size(t->dtype); }

static int names_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool out_sane(const OutTensor *t, const char *path, Err *e)
{
    uint64_t n;
    if (t->dtype >= DT_COUNT || t->ndim < 0 || t->ndim > 4)
        return err_set(e, ERR_FAIL, "%s: tensor `%s`: bad element type or rank %d", path, t->name, t->ndim);
    n = dtype_size(t->dtype);
    for (int i = 0; i < t->ndim; i++)
        if (t->dim[i] < 0 || __builtin_mul_overflow(n, (uint64_t)t->dim[i], &n))
            return err_set(e, ERR_FAIL, "%s: tensor `%s`: impossible shape", path, t->name);
    if (t->in_out && (t->ndim != 2 || t->raw))
        return err_set(e, ERR_FAIL, "%s: tensor `%s`: only a 2-D float matrix can be stored [in,out]", path,
                       t->name);
    if (!t->tied_to && !t->src && !t->raw && !t->load && n)
        return err_set(e, ERR_FAIL, "%s: tensor `%s`: no data given", path, t->name);
    return true;
}

bool out_check(const OutModel *m, const char *path, Err *e)
{
    Arena a = {.name = "formats"};
    const char **name = arena_alloc(&a, (size_t)m->n * sizeof *name, e);
    for (int i = 0; name && i < m->n && !e->code; i++) {
        name[i] = m->t[i].name;
        if (!name[i] || !*name[i] || !strcmp(name[i], "__metadata__"))
            err_set(e, ERR_FAIL, "%s: tensor %d has no usable name", path, i);
        else out_sane(&m->t[i], path, e);
    }
    if (!e->code) qsort(name, (size_t)m->n, sizeof *name, names_compare);
    for (int i = 0; i < m->n && !e->code; i++) {
        const char *to = m->t[i].tied_to;
        if (i && !strcmp(name[i], name[i - 1]))
            err_set(e, ERR_FAIL, "%s: tensor `%s` is given twice", path, name[i]);
        if (to && !bsearch(&to, name, (size_t)m->n, sizeof *name, names_compare))
            err_set(e, ERR_FAIL, "%s: tensor `%s` is tied to `%s`, which is not there", path, m->t[i].name,
                    to);
    }
    arena_free(&a);
    return !e->code;
}

void out_fill(const OutTensor *t, size_t first, size_t n, void *dst)
{
    const size_t size = dtype_size(t->dtype), out = (size_t)t->dim[0], in = (size_t)t->dim[1];
    float part[256];
    if (t->raw) {
        memcpy(dst, (const unsigned char *)t->raw + first * size, n * size);
    } else if (!t->in_out) {
        dtype_from_f32(dst, t->dtype, t->src + first, n);
    } else {
        for (size_t k = 0; k < n; k += 256) {
            size_t now = n - k < 256 ? n - k : 256;
            for (size_t j = 0; j < now; j++) {
                size_t at = first + k + j;
                part[j] = t->src[at % out * in + at / out];
            }
            dtype_from_f32((unsigned char *)dst + k * size, t->dtype, part, now);
        }
    }
}

const OutTensor *out_pull(const OutTensor *t, OutTensor *pulled, Arena *a, Err *e)
{
    if (!t->load || t->src || t->raw || t->tied_to) return t;
    float *v = arena_alloc(a, out_count(t) * sizeof *v, e);
    *pulled = *t;
    pulled->src = v;
    if (v) t->load(t, v, e);
    return pulled;
}

void sink_tensor(Sink *s, const OutTensor *out)
{
    Arena a = {.name = "tensor"};
    OutTensor pulled;
    const OutTensor *t = out_pull(out, &pulled, &a, s->e);
    unsigned char part[8192];
    const size_t n = out_count(t), size = dtype_size(t->dtype), step = sizeof part / size;
    for (size_t i = 0; i < n && !s->e->code; i += step) {
        size_t now = n - i < step ? n - i : step;
        out_fill(t, i, now, part);
        sink_put(s, part, now * size);
    }
    arena_free(&a);
}
