/* tests/test_core.c: floor 0 without the configuration layer: errors, arenas, files, threads, CPU, log.
 * Codecs and random numbers are in test_numbers.c.
 */
#define _GNU_SOURCE
#include "core/core.h"
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <omp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static bool all_zero(const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++)
        if (b[i]) return false;
    return true;
}

static int entries(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    ASSERT(d != NULL);
    for (const struct dirent *x = readdir(d); x; x = readdir(d)) n += x->d_name[0] != '.';
    closedir(d);
    return n;
}

static const char *file_in_dir(char out[512], const char *name)
{
    snprintf(out, 512, "%s/%s", test_dir(), name);
    return out;
}

TEST(err, first_one_wins)
{
    Err e = {0};
    ASSERT(!err_set(&e, ERR_CORRUPT, "tensor %s is %d bytes short", "wte", 4));
    ASSERT(!err_set(&e, ERR_USAGE, "second"));
    ASSERT_EQ(e.code, ERR_CORRUPT);
    ASSERT_STR(e.msg, "tensor wte is 4 bytes short");
    ASSERT_CONTAINS(e.file, "test_core.c");
    ASSERT(e.line > 0);
    err_prefix(&e, "%s", "a.bin");
    ASSERT_STR(e.msg, "a.bin: tensor wte is 4 bytes short");
    Err none = {0};
    err_prefix(&none, "x");
    ASSERT_STR(none.msg, "");
    ASSERT_EQ(none.code, ERR_OK);
}

TEST(err, long_messages_keep_their_place)
{
    Err e = {0};
    err_set(&e, ERR_FAIL, "%04000d", 7);
    ASSERT_EQ(strlen(e.msg), sizeof e.msg - 1);
    err_prefix(&e, "%0600d", 1);
    ASSERT_EQ(strlen(e.msg), sizeof e.msg - 1);
    ASSERT_EQ(e.msg[0], '0');
    ASSERT_CONTAINS(e.msg, ": 000");
}

TEST(arena, zeroed_aligned_apart)
{
    Arena a = {.name = "test"};
    Err e = {0};
    const size_t sizes[] = {0, 1, 63, 64, 65, 1000, 1 << 20, (1 << 20) + 1, 4 << 20, 9 << 20, 3, 100};
    enum { N = sizeof sizes / sizeof *sizes };
    unsigned char *p[N];
    for (int round = 0; round < 3; round++) {
        ArenaMark m = arena_mark(&a);
        for (int i = 0; i < N; i++) {
            p[i] = arena_alloc(&a, sizes[i], &e);
            ASSERT_OK(e);
            ASSERT_EQ((uintptr_t)p[i] % 64, 0u);
            ASSERT(all_zero(p[i], sizes[i]));
            if (sizes[i]) memset(p[i], 0x10 + i, sizes[i]);
        }
        for (int i = 0; i < N; i++)
            for (size_t k = 0; k < sizes[i]; k++) ASSERT_EQ(p[i][k], 0x10 + i);
        arena_release(&a, m);
        ASSERT_EQ(a.used, 0u);
    }
    arena_free(&a);
    ASSERT_EQ(a.reserved, 0u);
    ASSERT(a.head == NULL && a.spare == NULL);
}

TEST(arena, accounting_and_reuse)
{
    Arena a = {.name = "test"};
    Err e = {0};
    ASSERT(arena_alloc(&a, 6400, &e));
    ASSERT(a.used >= 6400 && a.used < 6400 + 256);
    size_t before = a.used;
    ArenaMark m = arena_mark(&a);
    const void *first = arena_alloc(&a, 32 << 20, &e);
    ASSERT_OK(e);
    size_t peak = a.peak, reserved = a.reserved;
    ASSERT_EQ(peak, a.used);
    for (int i = 0; i < 5; i++) {
        arena_release(&a, m);
        ASSERT_EQ(a.used, before);
        unsigned char *p = arena_alloc(&a, 32 << 20, &e);
        ASSERT_EQ((const void *)p, first); /* the block that was released */
        ASSERT(all_zero(p, 32 << 20));
        memset(p, 0xFF, 32 << 20);
        ASSERT_EQ(a.reserved, reserved);
        ASSERT_EQ(a.peak, peak);
    }
    arena_release(&a, m);
    ASSERT(arena_alloc(&a, 64 << 20, &e)); /* larger: the spare one is given back first */
    ASSERT(a.reserved < reserved + ((size_t)36 << 20));
    arena_free(&a);
}

TEST(arena, grow_and_strings)
{
    Arena a = {.name = "test"};
    Err e = {0};
    int *v = arena_alloc(&a, 3 * sizeof *v, &e);
    for (int i = 0; i < 3; i++) v[i] = i + 1;
    int *w = arena_grow(&a, v, 3 * sizeof *v, 100 * sizeof *v, &e);
    ASSERT_OK(e);
    ASSERT(w != v && w[2] == 3 && v[2] == 3 && all_zero(w + 3, 97 * sizeof *w));
    ASSERT_STR(arena_strdup(&a, "abc", &e), "abc");
    ASSERT_STR(arena_strndup(&a, "abcdef", 4, &e), "abcd");
    ASSERT_STR(arena_strndup(&a, "ab", 10, &e), "ab");
    ASSERT_STR(arena_printf(&a, &e, "%s.%d", "layers", 3), "layers.3");
    ASSERT_STR(path_join(&a, "runs", "x.h5", &e), "runs/x.h5");
    ASSERT_STR(path_join(&a, "runs/", "x.h5", &e), "runs/x.h5");
    ASSERT_STR(path_join(&a, "", "x.h5", &e), "x.h5");
    ASSERT_STR(path_join(&a, "runs", "/y", &e), "/y");
    arena_free(&a);
}

/* Allocation number k fails, for every k: what comes out is an error and nothing else. */
TEST(arena, every_allocation_may_fail)
{
    char path[512];
    Err e = {0};
    ASSERT(file_write_atomic(file_in_dir(path, "f"), "text", 4, &e));
    arena_fail_at(0);
    long total = -1;
    for (long k = 0; total < 0 || k <= total; k++) {
        Arena a = {.name = "probe"};
        Err x = {0};
        arena_fail_at(k);
        char *s = arena_strdup(&a, "one", &x);
        char *t = arena_printf(&a, &x, "two %d", 2);
        char *u = arena_grow(&a, "three", 6, 12, &x);
        char *f = file_read(&a, path, NULL, &x);
        const char *j = path_join(&a, "x", "y", &x);
        long made = arena_fail_at(0);
        if (k == 0) {
            total = made;
            ASSERT_EQ(total, 5);
            ASSERT_OK(x);
            ASSERT(s && t && u && f && j);
        } else {
            ASSERT_EQ(made, k); /* the error is sticky: no later allocation is tried */
            ASSERT_EQ(x.code, ERR_MEMORY);
            ASSERT_CONTAINS(x.msg, "arena 'probe'");
            ASSERT(!j);
            ASSERT_EQ(s != NULL, k > 1);
        }
        arena_free(&a);
    }
}

TEST(arena, out_of_memory_is_an_error)
{
    Arena a = {.name = "huge"};
    Err e = {0};
    ASSERT(!arena_alloc(&a, SIZE_MAX, &e));
    ASSERT_EQ(e.code, ERR_MEMORY);
    ASSERT_CONTAINS(e.msg, "arena 'huge'");
    e = (Err){0};
    ASSERT(!arena_alloc(&a, (size_t)1 << 60, &e));
    ASSERT_EQ(e.code, ERR_MEMORY);
    e = (Err){0};
    ASSERT(arena_alloc(&a, 100, &e)); /* and the arena still works */
    arena_free(&a);
}

TEST(file, read_write_map)
{
    char path[512], data[5000];
    Arena a = {.name = "test"};
    Err e = {0};
    for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7);
    file_in_dir(path, "f");
    for (size_t n = 0; n <= sizeof data; n += 2500) {
        size_t bytes = 77;
        FileMap m;
        ASSERT(file_write_atomic(path, data, n, &e));
        const char *p = file_read(&a, path, &bytes, &e);
        ASSERT_OK(e);
        ASSERT_EQ(bytes, n);
        ASSERT_BYTES(p, data, n);
        ASSERT_EQ(p[n], 0);
        ASSERT(file_map(&m, path, &e));
        ASSERT_EQ(m.bytes, n);
        ASSERT_EQ(m.data == NULL, n == 0);
        if (n) ASSERT_BYTES(m.data, data, n);
        file_unmap(&m);
        ASSERT(m.data == NULL);
    }
    ASSERT_EQ(entries(test_dir()), 1);
    arena_free(&a);
}

/* A pipe has no size to ask for; the buffer grows several times. */
TEST(file, read_from_a_pipe)
{
    enum { N = 50000 };
    char path[512];
    Arena a = {.name = "test"};
    Err e = {0};
    ASSERT_EQ(mkfifo(file_in_dir(path, "pipe"), 0600), 0);
    unsigned char *data = arena_alloc(&a, N, &e);
    for (int i = 0; i < N; i++) data[i] = (unsigned char)(i * 31 / 7);
    pid_t child = fork();
    if (child == 0) {
        int fd = open(path, O_WRONLY);
        _exit(write(fd, data, N) == N ? 0 : 1);
    }
    size_t bytes = 0;
    const char *p = file_read(&a, path, &bytes, &e);
    ASSERT_OK(e);
    ASSERT_EQ(bytes, N);
    ASSERT_BYTES(p, data, N);
    ASSERT_EQ(p[N], 0);
    ASSERT_EQ(waitpid(child, NULL, 0), child);
    arena_free(&a);
}

TEST(file, errors_name_the_path)
{
    char path[512];
    Arena a = {.name = "test"};
    Err e = {0};
    FileMap m;
    ASSERT(!file_read(&a, file_in_dir(path, "absent"), NULL, &e));
    ASSERT_CONTAINS(e.msg, "/absent: ");
    ASSERT_CONTAINS(e.msg, "No such file");
    e = (Err){0};
    ASSERT(!file_map(&m, test_dir(), &e));
    ASSERT_CONTAINS(e.msg, "is a folder");
    e = (Err){0};
    ASSERT(!file_write_atomic(file_in_dir(path, "absent/x"), "1", 1, &e));
    ASSERT_CONTAINS(e.msg, "/absent/x: ");
    e = (Err){0};
    ASSERT(!file_write_atomic(test_dir(), "1", 1, &e)); /* a folder stands there */
    ASSERT_EQ(e.code, ERR_FAIL);
    ASSERT_EQ(entries(test_dir()), 0);
    arena_free(&a);
}

/* A full disk, played by the file size limit: the old file stays, whole, and no temporary one is left. */
TEST(file, full_disk_keeps_the_old_file)
{
    enum { BIG = 1 << 20 };
    char path[512];
    Arena a = {.name = "test"};
    Err e = {0};
    ASSERT(file_write_atomic(file_in_dir(path, "f"), "old", 3, &e));
    char *big = arena_alloc(&a, BIG, &e);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit was, small;
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &was), 0);
    small = was;
    small.rlim_cur = 100 * 1024;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool ok = file_write_atomic(path, big, BIG, &e);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &was), 0);
    ASSERT(!ok);
    ASSERT_CONTAINS(e.msg, "/f: cannot write 1048576 bytes: File too large");
    ASSERT_EQ(entries(test_dir()), 1);
    e = (Err){0};
    ASSERT_STR(file_read(&a, path, NULL, &e), "old");
    ASSERT(file_write_atomic(path, big, BIG, &e));
    arena_free(&a);
}

TEST(file, replacing_keeps_the_mode_and_open_readers)
{
    char path[512], buf[8] = {0};
    Err e = {0};
    ASSERT(file_write_atomic(file_in_dir(path, "f"), "old", 3, &e));
    ASSERT_EQ(chmod(path, 0640), 0);
    int fd = open(path, O_RDONLY);
    ASSERT(file_write_atomic(path, "newer", 5, &e));
    /* whoever had it open reads the old one to its end */
    ASSERT_EQ(read(fd, buf, sizeof buf), 3);
    ASSERT_STR(buf, "old");
    close(fd);
    struct stat st;
    ASSERT_EQ(stat(path, &st), 0);
    ASSERT_EQ(st.st_mode & 0777u, 0640u);
    ASSERT_EQ(st.st_size, 5);
}

TEST(file, dir_make_like_mkdir_p)
{
    char path[512];
    Err e = {0};
    ASSERT(dir_make(file_in_dir(path, "a/b//c/"), &e));
    ASSERT(file_exists(path));
    ASSERT(dir_make(path, &e));
    ASSERT(!file_exists(file_in_dir(path, "a/x")));
    ASSERT(file_write_atomic(path, "1", 1, &e));
    ASSERT(!dir_make(path, &e));
    ASSERT_CONTAINS(e.msg, "is a file");
    e = (Err){0};
    ASSERT(!dir_make(file_in_dir(path, "a/x/y"), &e));
    ASSERT_EQ(e.code, ERR_FAIL);
    ASSERT_CONTAINS(e.msg, "a/x");
}

/* The slices tile [0,n) in order, each a whole number of units but for the last, sizes one unit apart at
 * most. */
TEST(threads, slices_tile_the_range)
{
    for (long n = 0; n <= 67; n++)
        for (long unit = 1; unit <= 16; unit += 5)
            for (int s = 1; s <= 9; s++) {
                long at = 0, least = n + 1, most = 0;
                for (int i = 0; i < s; i++) {
                    long lo = -1, hi = -1;
                    slice_range(n, unit, i, s, &lo, &hi);
                    ASSERT_EQ(lo, at);
                    ASSERT(hi >= lo && hi <= n);
                    ASSERT(hi == n || hi % unit == 0);
                    long units = (hi - lo + unit - 1) / unit;
                    if (units < least) least = units;
                    if (units > most) most = units;
                    at = hi;
                }
                ASSERT_EQ(at, n);
                ASSERT(most - least <= 1);
            }
    long lo, hi;
    /* no product of n and i that could overflow */
    slice_range(1L << 50, 64, 4095, 4096, &lo, &hi);
    ASSERT_EQ(hi, 1L << 50);
    ASSERT_EQ(lo, (1L << 50) - (1L << 38));
}

/* Outside the function: gcc folds the product of volatile locals. */
static volatile float tiny = 0x1p-126f, half = 0.5f;

TEST(threads, every_thread_flushes_subnormals)
{
    int wrong = 0;
    ASSERT_EQ(threads_init(3), 3);
    ASSERT_EQ(threads_count(), 3);
#pragma omp parallel reduction(+ : wrong)
    {
        wrong += omp_get_num_threads() != 3;
#if defined(__x86_64__) || defined(__aarch64__)
        float product = tiny * half; /* subnormal: flushed */
        uint32_t u;
        memcpy(&u, &product, sizeof u);
        wrong += u != 0;
#endif
    }
    ASSERT_EQ(wrong, 0);
    int n = threads_init(0);
    ASSERT(n >= 1 && n <= omp_get_num_procs());
    ASSERT_EQ(setenv("OMP_NUM_THREADS", "1", 1), 0);
    omp_set_num_threads(1);
    ASSERT_EQ(threads_init(0), 1);
}

TEST(cpu, override_never_raises)
{
    ASSERT_EQ(setenv("PARE_ISA", "portable", 1), 0);
    ASSERT_EQ(cpu_isa(), ISA_PORTABLE);
    ASSERT_STR(isa_name(ISA_AVX512), "avx512");
    ASSERT(cpu_features()[0] != 0);
    double t = time_now();
    ASSERT(time_now() >= t);
}

TEST(cpu, unknown_override_is_ignored)
{
    ASSERT_EQ(setenv("PARE_ISA", "sse9", 1), 0);
    Isa isa = cpu_isa();
    ASSERT(isa >= ISA_PORTABLE && isa <= ISA_AVX512);
#ifdef PORTABLE
    ASSERT_EQ(isa, ISA_PORTABLE);
#endif
}

TEST(log, file_lines)
{
    char path[512];
    Arena a = {.name = "test"};
    Err e = {0};
    ASSERT(log_open(file_in_dir(path, "run.log"), false, &e));
    log_info("step %d", 7);
    log_debug("not at this level");
    log_set_level(LOG_DEBUG);
    log_debug("now it is");
    log_plain("as is");
    log_progress("progress 1");
    log_progress("progress 2");
    log_close();
    log_warn("behind the end");
    char *s = file_read(&a, path, NULL, &e);
    ASSERT_OK(e);
    ASSERT_CONTAINS(s, " INFO  step 7\n");
    ASSERT_CONTAINS(s, " DEBUG now it is\nas is\nprogress 1\nprogress 2\n");
    ASSERT(!strstr(s, "not at") && !strstr(s, "behind") && !strchr(s, '\033'));
    int h, m, sec, ms;
    ASSERT_EQ(sscanf(s, "%2d:%2d:%2d.%3d", &h, &m, &sec, &ms), 4);
    ASSERT(log_open(path, true, &e));
    log_error("again");
    log_close();
    ASSERT_CONTAINS(file_read(&a, path, NULL, &e), " ERROR again\n");
    ASSERT_CONTAINS(file_read(&a, path, NULL, &e), "step 7");
    ASSERT(!log_open(file_in_dir(path, "absent/run.log"), false, &e));
    ASSERT_CONTAINS(e.msg, "absent/run.log");
    arena_free(&a);
}

/* On a terminal: levels in colour, the progress line rewritten below the messages, at most ten times a
 * second. */
TEST(log, terminal)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) SKIP("no pseudo-terminals here");
    char name[64], got[1024];
    ASSERT_EQ(ptsname_r(master, name, sizeof name), 0);
    int slave = open(name, O_RDWR | O_NOCTTY), keep = dup(STDERR_FILENO);
    if (slave < 0) SKIP("no pseudo-terminals here");
    unsetenv("NO_COLOR");
    setenv("TERM", "xterm", 1);
    dup2(slave, STDERR_FILENO);
    log_progress("step 1");
    log_info("message");
    log_progress("too soon");
    setenv("NO_COLOR", "1", 1);
    log_warn("plain");
    log_close();
    dup2(keep, STDERR_FILENO);
    size_t n = 0;
    for (double end = time_now() + 5; time_now() < end;) { /* what was written arrives some time later */
        ssize_t more = read(master, got + n, sizeof got - 1 - n);
        if (more > 0) n += (size_t)more;
        got[n] = 0;
        if (strstr(got, "plain\r\nstep 1\r\n")) break;
    }
    ASSERT_EQ(strncmp(got, "\r\033[Kstep 1\r\033[K", 14), 0);
    ASSERT_CONTAINS(got, " \033[32mINFO \033[0m message\r\nstep 1\r\033[K");
    ASSERT_CONTAINS(got, " WARN  plain\r\nstep 1\r\n");
    ASSERT(!strstr(got, "too soon"));
}

/* stdout belongs to the verbs: nothing of the log may land there. */
TEST(log, nothing_on_stdout)
{
    char path[512];
    Arena a = {.name = "test"};
    Err e = {0};
    int fd = open(file_in_dir(path, "stdout"), O_CREAT | O_RDWR, 0600);
    ASSERT(fd >= 0 && dup2(fd, STDOUT_FILENO) >= 0);
    log_error("a");
    log_plain("b");
    log_progress("c");
    fflush(NULL);
    size_t n = 1;
    ASSERT(file_read(&a, path, &n, &e));
    ASSERT_EQ(n, 0u);
    close(fd);
    arena_free(&a);
}
