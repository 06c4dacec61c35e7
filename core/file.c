/* core/file.c: whole files: read, map, and write so that a crash leaves the old file or the new one.
 *
 *   write = temporary name in the same folder, write, fsync, rename over the target, fsync of the folder
 */
#include "core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_retry(const char *path, int flags)
{
    int fd;
    do fd = open(path, flags | O_CLOEXEC, 0666);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static ssize_t read_retry(int fd, void *p, size_t n)
{
    ssize_t got;
    if (n > (size_t)1 << 30) n = (size_t)1 << 30; /* read(2) moves at most about 2 GiB a call */
    do got = read(fd, p, n);
    while (got < 0 && errno == EINTR);
    return got;
}

static bool open_file(const char *path, int *fd, struct stat *st, Err *e)
{
    *fd = open_retry(path, O_RDONLY);
    if (*fd < 0) return err_set(e, ERR_FAIL, "%s: cannot open for reading: %s", path, strerror(errno));
    if (fstat(*fd, st) != 0) {
        err_set(e, ERR_FAIL, "%s: cannot stat: %s", path, strerror(errno));
    } else if (S_ISDIR(st->st_mode)) {
        err_set(e, ERR_FAIL, "%s: is a folder, a file is expected", path);
    } else {
        return true;
    }
    close(*fd);
    return false;
}

char *file_read(Arena *a, const char *path, size_t *bytes, Err *e)
{
    int fd;
    struct stat st;
    if (bytes) *bytes = 0;
    if (e->code != ERR_OK || !open_file(path, &fd, &st, e)) return NULL;
    size_t cap = st.st_size > 0 ? (size_t)st.st_size : 4096; /* pipes and /proc report no size */
    size_t n = 0;
    char *p = arena_alloc(a, cap + 1, e); /* zeroed: the NUL behind the last byte is there */
    while (p) {
        if (n == cap) {
            char probe;
            ssize_t more = read_retry(fd, &probe, 1);
            if (more == 0) break;
            if (more < 0) goto failed;
            p = arena_grow(a, p, n, 2 * cap + 1, e);
            if (!p) break;
            cap = 2 * cap;
            p[n++] = probe;
        }
        ssize_t got = read_retry(fd, p + n, cap - n);
        if (got == 0) break;
        if (got < 0) goto failed;
        n += (size_t)got;
    }
    close(fd);
    if (!p) {
        err_prefix(e, "%s", path);
        return NULL;
    }
    if (bytes) *bytes = n;
    return p;
failed:
    err_set(e, ERR_FAIL, "%s: cannot read: %s", path, strerror(errno));
    close(fd);
    return NULL;
}

bool file_map(FileMap *m, const char *path, Err *e)
{
    int fd;
    struct stat st;
    *m = (FileMap){0};
    if (e->code != ERR_OK || !open_file(path, &fd, &st, e)) return false;
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED) {
            err_set(e, ERR_FAIL, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size,
                    strerror(errno));
            close(fd);
            return false;
        }
        m->data = p;
        m->bytes = (size_t)st.st_size;
    }
    close(fd);
    return true;
}

void file_unmap(FileMap *m)
{
    if (m->data) munmap((void *)(uintptr_t)m->data, m->bytes);
    *m = (FileMap){0};
}

static bool write_all(int fd, const unsigned char *p, size_t n)
{
    while (n) {
        ssize_t put = write(fd, p, n > (size_t)1 << 30 ? (size_t)1 << 30 : n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) {
            if (put == 0) errno = ENOSPC;
            return false;
        }
        p += put;
        n -= (size_t)put;
    }
    return true;
}

/* fsync of the folder that holds path makes the rename itself durable. File systems that cannot do it say
 * EINVAL, and a folder may be writable but not readable; neither is a failure of the write. */
static bool sync_parent(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof dir) return true;
    memcpy(dir, path, n);
    dir[n] = 0;
    int fd = open_retry(!slash ? "." : n ? dir : "/", O_RDONLY | O_DIRECTORY);
    if (fd < 0) return true;
    bool ok = fsync(fd) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP;
    int keep = errno;
    close(fd);
    errno = keep;
    return ok;
}

bool file_write_atomic(const char *path, const void *data, size_t bytes, Err *e)
{
    static atomic_uint serial;
    char tmp[PATH_MAX];
    if (e->code != ERR_OK) return false;
    int len = snprintf(tmp, sizeof tmp, "%s.tmp-%ld-%u", path, (long)getpid(), atomic_fetch_add(&serial, 1));
    if (len < 0 || (size_t)len >= sizeof tmp)
        return err_set(e, ERR_FAIL, "%s: the path is too long (%d bytes at most)", path, PATH_MAX - 32);
    unlink(tmp); /* left by a killed process of the same number */
    int fd = open_retry(tmp, O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0) return err_set(e, ERR_FAIL, "%s: cannot create: %s", path, strerror(errno));
    struct stat st;
    if (stat(path, &st) == 0) (void)!fchmod(fd, st.st_mode & 0777); /* keeps the old file's mode */
    const char *what = "write";
    bool ok = write_all(fd, data, bytes);
    if (ok) {
        what = "fsync";
        ok = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
    }
    int why = errno;
    if (close(fd) != 0 && ok && errno != EINTR) {
        ok = false;
        what = "close";
        why = errno;
    }
    if (ok && rename(tmp, path) != 0) {
        ok = false;
        what = "rename into place";
        why = errno;
    }
    if (!ok) {
        unlink(tmp);
        return err_set(e, ERR_FAIL, "%s: cannot %s %zu bytes: %s; the old file, if any, is untouched", path,
                       what, bytes, strerror(why));
    }
    if (!sync_parent(path))
        return err_set(e, ERR_FAIL, "%s: written, but its folder cannot be synced: %s", path,
                       strerror(errno));
    return true;
}

bool file_exists(const char *path)
{
    struct stat st;
    return path && stat(path, &st) == 0;
}

bool dir_make(const char *path, Err *e)
{
    char p[PATH_MAX];
    if (e->code != ERR_OK) return false;
    size_t n = strlen(path);
    if (n == 0 || n >= sizeof p) return err_set(e, ERR_FAIL, "'%s': not a usable folder name", path);
    memcpy(p, path, n + 1);
    for (size_t i = 1; i <= n; i++) {
        if (p[i] != '/' && p[i] != 0) continue;
        char keep = p[i];
        p[i] = 0;
        struct stat st;
        if (mkdir(p, 0777) != 0) {
            int why = errno;
            if (stat(p, &st) != 0)
                return err_set(e, ERR_FAIL, "%s: cannot make folder %s: %s", path, p, strerror(why));
            if (!S_ISDIR(st.st_mode))
                return err_set(e, ERR_FAIL, "%s: %s is a file, a folder is needed", path, p);
        }
        p[i] = keep;
    }
    return true;
}

const char *path_join(Arena *a, const char *dir, const char *name, Err *e)
{
    size_t n = strlen(dir);
    if (n == 0 || name[0] == '/') return arena_strdup(a, name, e);
    return arena_printf(a, e, "%s%s%s", dir, dir[n - 1] == '/' ? "" : "/", name);
}
