/* tests/pare_impl.h: for tests of the whole program: runs the `pare` that lies beside this runner, with its
 * output caught, and reads what a run has left.
 *
 *   Pare p = PARE(.dir = test_dir(), ARGS("train", "c.yaml", "run.seed=3"));
 *   ASSERT_RAN(p, 0);  ASSERT_CONTAINS(p.err, "done at step");
 */
#ifndef TESTS_PARE_IMPL_H
#define TESTS_PARE_IMPL_H
#include "tests/test.h"
#include "train/train.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* dir: working folder; in: text for stdin; out: a file for stdout; file_limit: RLIMIT_FSIZE in bytes. */
typedef struct PareOptions {
    const char *dir, *in, *out;
    long file_limit;
    const char *const *args;
} PareOptions;
typedef struct Pare {
    int rc, signal; /* rc: exit status, -1 when a signal ended it */
    char *out, *err;
    pid_t pid;
    int out_fd, err_fd;
} Pare;
#define ARGS(...)                                                                                            \
    .args = (const char *const[]) { __VA_ARGS__, NULL }
#define PARE(...) pare_run(&(PareOptions){__VA_ARGS__})
#define START(...) pare_start(&(PareOptions){__VA_ARGS__})
#define ASSERT_RAN(p, want)                                                                                  \
    do {                                                                                                     \
        if ((p).rc != (want))                                                                                \
            test_fail(__FILE__, __LINE__, "exit status %d (signal %d), not %d; it said:\n%s", (p).rc,        \
                      (p).signal, (want), (p).err);                                                          \
    } while (0)

/* What lives to the end of the test's process: reachable, so that no leak is reported. */
static inline void *kept(void *p)
{
    static struct Kept {
        void *p;
        struct Kept *next;
    } * list;
    struct Kept *k = p ? malloc(sizeof *k) : NULL;
    if (k) {
        *k = (struct Kept){p, list};
        list = k;
    }
    return p;
}

static inline char *text_of(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline char *text_of(const char *fmt, ...)
{
    char *s = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&s, fmt, ap);
    va_end(ap);
    ASSERT(n >= 0);
    return kept(s);
}

/* test_dir()/name */
static inline char *in_dir(const char *name) { return text_of("%s/%s", test_dir(), name); }
/* A path of the repository, whatever the program's working folder is. */
static inline char *repo(const char *path)
{
    char cwd[2048];
    ASSERT(getcwd(cwd, sizeof cwd) != NULL);
    return text_of("%s/%s", cwd, path);
}

static inline void put_file(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "w");
    ASSERT_MSG(f != NULL, "%s: %s", path, strerror(errno));
    ASSERT_EQ(fwrite(data, 1, n, f), n);
    ASSERT_EQ(fclose(f), 0);
}
static inline void put_text(const char *path, const char *text) { put_file(path, text, strlen(text)); }

/* The whole file and its length, or NULL. */
static inline char *get_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "r");
    if (n) *n = 0;
    if (!f) return NULL;
    size_t cap = 1 << 16, used = 0, got;
    char *s = malloc(cap);
    while (s && (got = fread(s + used, 1, cap - used - 1, f)) > 0) {
        used += got;
        if (cap - used < 4096) s = realloc(s, cap *= 2);
    }
    fclose(f);
    ASSERT(s != NULL);
    s[used] = 0;
    if (n) *n = used;
    return kept(s);
}

static inline bool exists(const char *path) { return access(path, F_OK) == 0; }

static inline char *fd_text(int fd)
{
    off_t n = lseek(fd, 0, SEEK_END);
    char *s = calloc(1, (size_t)n + 1);
    ASSERT(s && pread(fd, s, (size_t)n, 0) == n);
    return kept(s);
}

static inline const char *pare_path(void)
{
    static char path[2048];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 8);
    ASSERT(n > 0);
    path[n] = 0;
    char *slash = strrchr(path, '/');
    snprintf(slash, 8, "/pare");
    ASSERT_MSG(access(path, X_OK) == 0, "%s is missing: `make test` builds it beside the runner", path);
    return path;
}

static inline void pare_child(const PareOptions *o, const char *path, int in, const Pare *p)
{
    const char *argv[64] = {"pare"};
    int out = o->out ? open(o->out, O_WRONLY) : p->out_fd;
    for (int i = 0; i < 60 && o->args[i]; i++) argv[i + 1] = o->args[i];
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(p->err_fd, 2) < 0) _exit(99);
    if (o->dir && chdir(o->dir)) _exit(98);
    struct rlimit limit = {(rlim_t)o->file_limit, (rlim_t)o->file_limit};
    if (o->file_limit && setrlimit(RLIMIT_FSIZE, &limit)) _exit(97);
    execv(path, (char *const *)(uintptr_t)argv);
    _exit(96);
}

static inline Pare pare_start(const PareOptions *o)
{
    Pare p = {.out_fd = memfd_create("out", MFD_CLOEXEC), .err_fd = memfd_create("err", MFD_CLOEXEC)};
    int in = memfd_create("in", MFD_CLOEXEC);
    const char *path = pare_path();
    ASSERT(p.out_fd >= 0 && p.err_fd >= 0 && in >= 0);
    if (o->in) ASSERT_EQ(pwrite(in, o->in, strlen(o->in), 0), (ssize_t)strlen(o->in));
    p.pid = fork();
    ASSERT(p.pid >= 0);
    if (p.pid == 0) pare_child(o, path, in, &p);
    close(in);
    return p;
}

static inline void pare_wait(Pare *p)
{
    int status;
    ASSERT_EQ(waitpid(p->pid, &status, 0), p->pid);
    p->rc = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    p->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    p->out = fd_text(p->out_fd);
    p->err = fd_text(p->err_fd);
    close(p->out_fd);
    close(p->err_fd);
}

static inline Pare pare_run(const PareOptions *o)
{
    Pare p = pare_start(o);
    pare_wait(&p);
    return p;
}

static inline void nap(double seconds)
{
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)}, NULL);
}

/* ---- a small run --------------------------------------------------------------------------------------- */
enum { TINY_VOCAB = 64, TINY_TOKENS = 2000 };

/* d.bin: tokens a small model can learn a little of; c.yaml: the run, with its folder `run`. */
static inline void tiny_run(const char *dir)
{
    uint16_t t[TINY_TOKENS];
    uint32_t x = 12345;
    for (int i = 0; i < TINY_TOKENS; i++) {
        x = x * 1664525u + 1013904223u;
        t[i] = (uint16_t)(((uint32_t)i * 7u + (x >> 29)) % TINY_VOCAB);
    }
    put_file(text_of("%s/d.bin", dir), t, sizeof t);
    put_text(text_of("%s/c.yaml", dir),
             "version: 1\n"
             "run: {recipe: pretrain, output_dir: run, seed: 3}\n"
             "device: {threads: 1}\n"
             "model:\n"
             "  init: {arch: llama, hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2,\n"
             "         num_key_value_heads: 1, intermediate_size: 32, vocab_size: 64,\n"
             "         max_position_embeddings: 32, initializer_range: 0.1}\n"
             "data:\n"
             "  train: [{path: d.bin, format: bin_nanogpt}]\n"
             "  val: [{path: d.bin, format: bin_nanogpt, split: 'train[-10%:]'}]\n"
             "  seq_len: 16\n"
             "train: {max_steps: 12, batch_size: 4}\n"
             "optim: {learning_rate: 1e-2}\n"
             "eval: {every_steps: 4}\n"
             "checkpoint: {every_steps: 3}\n"
             "log: {every_steps: 1}\n");
}

static inline char *make_dir(const char *name)
{
    char *d = in_dir(name);
    ASSERT_MSG(mkdir(d, 0700) == 0 || errno == EEXIST, "%s: %s", d, strerror(errno));
    return d;
}

/* A folder below test_dir() with a tiny run in it. */
static inline char *tiny_dir(const char *name)
{
    char *d = make_dir(name);
    tiny_run(d);
    return d;
}

/* ---- what a run leaves --------------------------------------------------------------------------------- */

/* The line at *at without its newline, or NULL at the end. */
static inline char *next_line(char **at)
{
    char *line = *at, *end = strchr(line, '\n');
    if (!*line) return NULL;
    *at = end ? end + 1 : line + strlen(line);
    if (end) *end = 0;
    return line;
}

/* Events of the given kinds as one text, one a line, keys sorted, without what the clock decides. NULL kind =
 * all. Every line must be a JSON object with t, time, event and step. */
static inline char *events(const char *path, const char *kind)
{
    size_t n, used = 0;
    char *all = get_file(path, &n), *out = calloc(1, 2 * (n + 1));
    ASSERT_MSG(all && out, "%s is missing", path);
    ASSERT_MSG(n == 0 || all[n - 1] == '\n', "%s: the last line has no end", path);
    for (char *at = all, *line; (line = next_line(&at));) {
        json_error_t je;
        json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, &je);
        ASSERT_MSG(json_is_object(o), "%s: %s in %s", path, je.text, line);
        const char *event = json_string_value(json_object_get(o, "event"));
        ASSERT_MSG(event && json_is_number(json_object_get(o, "t")) &&
                       json_is_string(json_object_get(o, "time")) &&
                       json_is_integer(json_object_get(o, "step")),
                   "%s: a field is missing in %s", path, line);
        static const char *const clock[] = {"t",         "time", "dt_ms",   "tok_s",
                                            "mem_bytes", "mfu",  "seconds", "data_wait_ms"};
        for (size_t i = 0; i < sizeof clock / sizeof *clock; i++) json_object_del(o, clock[i]);
        char *text = json_dumps(o, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(9));
        if (!kind || !strcmp(kind, event))
            used += (size_t)snprintf(out + used, 2 * (n + 1) - used, "%s\n", text);
        free(text);
        json_decref(o);
    }
    return kept(out);
}

/* A line of JSON, good to the end of the test. */
static inline json_t *json_line(const char *line)
{
    json_error_t je;
    json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, &je);
    ASSERT_MSG(json_is_object(o), "%s: \"%s\"", je.text, line);
    return kept(o);
}

/* The last event of a kind. */
static inline json_t *last_event(const char *path, const char *kind)
{
    char *text = events(path, kind), *end = text + strlen(text);
    ASSERT_MSG(end > text, "%s: no event %s", path, kind);
    end[-1] = 0;
    char *nl = strrchr(text, '\n');
    return json_line(nl ? nl + 1 : text);
}

static inline double field(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    ASSERT_MSG(json_is_number(v), "no number \"%s\"", key);
    return json_number_value(v);
}

/* One line, one JSON object, nothing else. */
static inline json_t *one_object(const char *out)
{
    const char *nl = strchr(out, '\n');
    ASSERT_MSG(nl && !nl[1], "not exactly one line: \"%s\"", out);
    return json_line(out);
}

static inline void same_tensor(H5In *x, H5In *y, const char *path, Arena *a)
{
    Err e = {0};
    DType tx, ty;
    int dx, dy;
    int64_t ex[4] = {1, 1, 1, 1}, ey[4] = {1, 1, 1, 1};
    ASSERT_MSG(h5_tensor_info(x, path, &tx, &dx, ex, &e) && h5_tensor_info(y, path, &ty, &dy, ey, &e),
               "%s: %s", path, e.msg);
    ASSERT(tx == ty && dx == dy && !memcmp(ex, ey, sizeof(int64_t) * (size_t)dx));
    size_t bytes = dtype_size(tx);
    for (int d = 0; d < dx; d++) bytes *= (size_t)ex[d];
    void *p = arena_alloc(a, bytes, &e), *q = arena_alloc(a, bytes, &e);
    ASSERT(h5_read_tensor(x, path, tx, p, bytes, &e) && h5_read_tensor(y, path, tx, q, bytes, &e));
    ASSERT_MSG(!memcmp(p, q, bytes), "%s differs", path);
}

/* Every tensor and moment, and the counters, of two training states; bit for bit. */
static inline void same_state(const char *path_a, const char *path_b)
{
    static const char *const group[] = {"/tensors", "/aux",          "/optimizer/m", "/optimizer/v",
                                        "/masks",   "/prune/scores", "/prune/dense"};
    static const char *const counter[][2] = {
        {"/", "step"},          {"/", "tokens_seen"},       {"/data_state", "sample_index"},
        {"/optimizer", "step"}, {"/schedule", "bad_steps"}, {"/best", "stale_evals"},
        {"/best", "evaluated"}, {"/schedule", "n_steps"},   {"/data_state", "permutation_seed"},
    };
    Arena a = {.name = "state"};
    Err e = {0};
    H5In *x = h5_open(path_a, false, &a, &e), *y = h5_open(path_b, false, &a, &e);
    ASSERT_OK(e);
    int seen = 0;
    for (size_t g = 0; g < sizeof group / sizeof *group; g++) {
        const char *name[256];
        int n = h5_list(x, group[g], name, 256);
        ASSERT_EQ(h5_list(y, group[g], name, 256), n);
        for (int i = 0; i < n; i++, seen++) {
            char *path = text_of("%s/%s", group[g], name[i]);
            const char *member[16]; /* of a tensor kept as codes */
            const int coded = h5_has(x, text_of("%s/codes", path)) ? h5_list(x, path, member, 16) : 0;
            for (int m = 0; m < coded; m++) same_tensor(x, y, text_of("%s/%s", path, member[m]), &a);
            if (!coded) same_tensor(x, y, path, &a);
        }
    }
    ASSERT_MSG(seen > 0, "%s holds no tensors", path_a);
    for (size_t i = 0; i < sizeof counter / sizeof *counter; i++) {
        int64_t p = 0, q = 0;
        h5_get_i64(x, counter[i][0], counter[i][1], &p, &e);
        h5_get_i64(y, counter[i][0], counter[i][1], &q, &e);
        ASSERT_OK(e);
        ASSERT_MSG(p == q, "%s of %s: %lld and %lld", counter[i][1], counter[i][0], (long long)p,
                   (long long)q);
    }
    h5_close(x);
    h5_close(y);
    arena_free(&a);
}
#endif
