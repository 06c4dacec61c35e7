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

/* The bytes as a file NAME in a folder of this process: a memory file behind a link, so nothing is
 * written. */
static inline const char *fuzz_file(const char *name, const unsigned char *data, size_t n)
{
    static int fd = -1;
    static char dir[64], link[4][128], target[64];
    static int n_link;
    if (fd < 0) {
        snprintf(dir, sizeof dir, "/tmp/fuzzXXXXXX");
        fd = (int)syscall(SYS_memfd_create, "fuzz", 0);
        if (fd < 0 || !mkdtemp(dir)) FUZZ_FAIL("no memory file");
        snprintf(target, sizeof target, "/proc/%d/fd/%d", (int)getpid(), fd);
    }
    if (ftruncate(fd, 0) || (n > 0 && pwrite(fd, data, n, 0) != (ssize_t)n)) FUZZ_FAIL("memory file");
    for (int i = 0; i < n_link; i++)
        if (strcmp(strrchr(link[i], '/') + 1, name) == 0) return link[i];
    if (n_link == 4) FUZZ_FAIL("five names");
    snprintf(link[n_link], sizeof link[0], "%s/%s", dir, name);
    if (symlink(target, link[n_link])) FUZZ_FAIL("symlink");
    return link[n_link++];
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
