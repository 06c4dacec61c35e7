/* tests/config_load_impl.h: a text as a configuration file, loaded, and its error lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/test.h"
#include "train/config_impl.h"

/* The least that trains: three lines. */
#define DOC "version: 1\nmodel: {path: m}\ndata: {train: [{path: t.txt}]}\n"

typedef struct Loaded {
    Config *c;
    ConfigDoc *doc;
    Err e;
    Arena a;
    char path[256];
} Loaded;

static const char *folder(void)
{
    static char dir[200];
    const char *tmp = getenv("TMPDIR");
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "%.150s/pare-config-XXXXXX", tmp ? tmp : "/tmp");
        ASSERT(mkdtemp(dir) != NULL);
    }
    return dir;
}

static const char *write_file(const char *name, const char *text)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    mkdir(folder(), 0700); /* clean() removes it with its last file */
    FILE *f = fopen(path, "wb");
    ASSERT(f != NULL);
    ASSERT_EQ(fwrite(text, 1, strlen(text), f), strlen(text));
    fclose(f);
    return path;
}

static void clean(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder(), name);
    unlink(path);
    rmdir(folder());
}

/* Into l, which stays where it is: the document keeps a pointer to its arena. */
static void load(Loaded *l, const char *text, int n, const char *const *override)
{
    *l = (Loaded){.a = {.name = "test"}};
    snprintf(l->path, sizeof l->path, "%s", write_file("c.yaml", text));
    l->c = config_load(&l->a, l->path, n, (char *const *)(uintptr_t) override, &l->doc, &l->e);
    clean("c.yaml");
}

static int count_lines(const char *text)
{
    int n = *text != 0;
    for (; *text; text++) n += *text == '\n';
    return n;
}

/* The line that starts with FILE:where and holds message. */
static bool has_line(const char *text, const char *file, const char *where, const char *message)
{
    char start[512];
    snprintf(start, sizeof start, "%s:%s", file, where);
    for (const char *p = text; p;) {
        const char *end = strchr(p, '\n');
        size_t len = end ? (size_t)(end - p) : strlen(p);
        char line[1024];
        snprintf(line, sizeof line, "%.*s", (int)len, p);
        if (strncmp(line, start, strlen(start)) == 0 && strstr(line, message)) return true;
        p = end ? end + 1 : NULL;
    }
    return false;
}
