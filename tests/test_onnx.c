/* tests/test_onnx.c: the operator cases of tests/data/onnx-golden through our kernels, on every table.
 *
 * tests/onnx_cases.txt names each file: run, adapted (how) or out (why). A case is a file with tensors
 * in.<input> and out.<output> and the ONNX attributes in its metadata; onnx_ops_impl.h feeds the inputs to a
 * kernel of the table under test and compares. Numbers travel as double, to the table's type at the kernel.
 * Tolerances (relative): 1e-5; attention and norms 1e-4; half precision 1e-2; casts and codes bit for bit.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include "tests/onnx_ops_impl.h"
#include "tests/test.h"

#define FOLDER "tests/data/onnx-golden"
#define LIST "tests/onnx_cases.txt"
enum { MAX_CASES = 256 };

typedef struct Line {
    const char *name, *verdict, *how;
} Line;

/* Cuts the next word or the rest of the line off *p and ends it. */
static const char *cut(char **p, const char *stop)
{
    char *word = *p + strspn(*p, " "), *end = word + strcspn(word, stop);
    *p = *end ? end + 1 : end;
    *end = '\0';
    return word;
}

/* The list as lines; -1 with e set. */
static int read_list(Line *line, Arena *a, Err *e)
{
    size_t bytes = 0;
    char *p = file_read(a, LIST, &bytes, e);
    int n = 0;
    while (p && *p) {
        if (*p == '#') {
            cut(&p, "\n");
            continue;
        }
        if (n == MAX_CASES) {
            err_set(e, ERR_FAIL, "%s: more than %d cases", LIST, MAX_CASES);
            return -1;
        }
        line[n].name = cut(&p, " \n");
        line[n].verdict = cut(&p, " \n");
        line[n++].how = cut(&p, "\n");
    }
    return e->code ? -1 : n;
}

static bool run_case(const Kernels *k, const Line *l)
{
    Arena a = {.name = "onnx case"};
    Case c = {.k = k, .name = l->name, .a = &a, .tol = 1e-5};
    const Handler *h = NULL;
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++)
        if (!strncmp(l->name, handlers[i].prefix, strlen(handlers[i].prefix))) h = &handlers[i];
    const char *path = arena_printf(&a, &c.e, "%s/%s.safetensors", FOLDER, l->name);
    if (!h) blame(&c, "handler", 0, 0.0, 1.0);
    else if (formats_open(&c.f, path, &a, &c.e)) {
        h->run(&c);
        formats_close(&c.f);
    }
    if (c.e.code) fprintf(stderr, "%s: %s\n", l->name, c.e.msg);
    const bool ok = !c.bad && !c.e.code;
    arena_free(&a);
    return ok;
}

/* Cases that failed on this table, or -1 without a list. */
static int run_all(const Kernels *k)
{
    Arena a = {.name = "onnx list"};
    Err e = {0};
    Line line[MAX_CASES];
    int failed = 0, ran = 0;
    const int n = read_list(line, &a, &e);
    for (int i = 0; i < n; i++) {
        if (!strcmp(line[i].verdict, "out")) continue;
        failed += !run_case(k, &line[i]);
        ran++;
    }
    arena_free(&a);
    return ran ? failed : -1;
}

TEST(onnx, reference_f32) { ASSERT_EQ(run_all(kernels_ref_f32()), 0); }
TEST(onnx, reference_f64) { ASSERT_EQ(run_all(kernels_ref_f64()), 0); }
TEST(onnx, cpu_f32) { ASSERT_EQ(run_all(kernels_cpu_f32()), 0); }

TEST(onnx, every_file_is_listed)
{
    Arena a = {.name = "onnx list"};
    Err e = {0};
    Line line[MAX_CASES];
    const int n = read_list(line, &a, &e);
    ASSERT(n > 0);
    for (int i = 0; i < n; i++) {
        const char *v = line[i].verdict;
        const bool known = !strcmp(v, "run") || !strcmp(v, "adapted") || !strcmp(v, "out");
        const char *path = arena_printf(&a, &e, "%s/%s.safetensors", FOLDER, line[i].name);
        ASSERT_MSG(known && *line[i].how, "%s: %s: run, adapted or out, how or why", LIST, line[i].name);
        ASSERT_MSG(file_exists(path), "%s names %s, which is not there", LIST, path);
    }
    DIR *d = opendir(FOLDER);
    ASSERT(d != NULL);
    int files = 0;
    for (struct dirent *f = readdir(d); f; f = readdir(d)) {
        const char *dot = strstr(f->d_name, ".safetensors");
        bool found = !dot;
        for (int i = 0; i < n && !found; i++)
            found = strlen(line[i].name) == (size_t)(dot - f->d_name) &&
                    !strncmp(line[i].name, f->d_name, (size_t)(dot - f->d_name));
        ASSERT_MSG(found, "%s does not name %s", LIST, f->d_name);
        files += dot != NULL;
    }
    closedir(d);
    ASSERT_EQ(files, n);
    arena_free(&a);
}
