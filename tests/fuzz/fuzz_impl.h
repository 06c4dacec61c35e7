/* tests/fuzz/fuzz_impl.h: what the fuzz targets share. A target is one function of bytes:
 *
 *   FUZZ(safetensors, 64)  { parse data (n,), with memory from `a` and errors in `e` }
 *
 * `make fuzz` links each with libFuzzer; tests/test_fuzz_corpus.c runs every committed input through it
 * without. A fault is a crash, a sanitizer's report, a hang, an error without a message, or more than `times`
 * bytes of arena for a byte of the file (1 MiB is free).
 */
#ifndef FUZZ_IMPL_H
#define FUZZ_IMPL_H
#include "core/core.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FUZZ_FAIL(...)                                                                                       \
    do {                                                                                                     \
        fprintf(stderr, __VA_ARGS__);                                                                        \
        fputc('\n', stderr);                                                                                 \
        __builtin_trap();                                                                                    \
    } while (0)

static void fuzz_check(const char *name, const Arena *a, const Err *e, size_t n, size_t times)
{
    if (e->code && !e->msg[0]) FUZZ_FAIL("%s: an error without a message", name);
    if (e->code == ERR_MEMORY) FUZZ_FAIL("%s: out of memory for %zu bytes: %s", name, n, e->msg);
    const size_t limit = times * n + ((size_t)1 << 20);
    if (a->peak > limit) FUZZ_FAIL("%s: %zu bytes of memory for a file of %zu", name, a->peak, n);
}

/* The folder of this process, and the links in it: memory files behind them, so nothing is written. */
static char fuzz_dir[32];
static struct {
    char link[128];
    int fd;
} fuzz_link[4];
static int fuzz_links;

static inline void fuzz_clean(void)
{
    for (int i = 0; i < fuzz_links; i++) unlink(fuzz_link[i].link);
    rmdir(fuzz_dir);
}

/* The bytes as a file NAME in fuzz_dir. */
static inline const char *fuzz_file(const char *name, const void *data, size_t n)
{
    int i = 0;
    if (!fuzz_dir[0]) {
        snprintf(fuzz_dir, sizeof fuzz_dir, "/tmp/fuzzXXXXXX");
        if (!mkdtemp(fuzz_dir)) FUZZ_FAIL("no folder");
        atexit(fuzz_clean);
    }
    while (i < fuzz_links && strcmp(strrchr(fuzz_link[i].link, '/') + 1, name) != 0) i++;
    if (i == 4) FUZZ_FAIL("five names");
    char *const link = fuzz_link[i].link;
    if (i == fuzz_links) {
        char target[64];
        const int fd = fuzz_link[i].fd = (int)syscall(SYS_memfd_create, "fuzz", 0);
        snprintf(target, sizeof target, "/proc/%d/fd/%d", (int)getpid(), fd);
        snprintf(link, sizeof fuzz_link[i].link, "%s/%s", fuzz_dir, name);
        if (fd < 0 || symlink(target, link)) FUZZ_FAIL("no memory file");
        fuzz_links++;
    }
    const int fd = fuzz_link[i].fd;
    if (ftruncate(fd, 0) || (n > 0 && pwrite(fd, data, n, 0) != (ssize_t)n)) FUZZ_FAIL("memory file");
    return link;
}

#ifdef LIBFUZZER
#define FUZZ_ENTRY(name)                                                                                     \
    int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);                                               \
    __attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)         \
    {                                                                                                        \
        fuzz_##name(data, n);                                                                                \
        return 0;                                                                                            \
    }
#else
#define FUZZ_ENTRY(name)
#endif

#define FUZZ(target_, times)                                                                                 \
    static void fuzz_body_##target_(const unsigned char *data, size_t n, Arena *a, Err *e);                  \
    static void fuzz_##target_(const unsigned char *data, size_t n)                                          \
    {                                                                                                        \
        Arena arena_ = {.name = #target_};                                                                   \
        static Err err_;                                                                                     \
        err_.code = ERR_OK;                                                                                  \
        err_.msg[0] = 0;                                                                                     \
        fuzz_body_##target_(data, n, &arena_, &err_);                                                        \
        fuzz_check(#target_, &arena_, &err_, n, times);                                                      \
        arena_free(&arena_);                                                                                 \
    }                                                                                                        \
    FUZZ_ENTRY(target_)                                                                                      \
    static void fuzz_body_##target_(const unsigned char *data, size_t n, Arena *a, Err *e)
#endif
