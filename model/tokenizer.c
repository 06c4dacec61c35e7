/* model/tokenizer.c: a tokenizer by its path, where the path may be a model in HDF5 that holds the
 * tokenizer's files. They are put into a folder of their own for as long as opening takes: a tokenizer
 * reads its files once. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "model/model.h"

static void remove_folder(const char *dir, Arena *a, Err *e)
{
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) {
        const char *path = f->d_name[0] == '.' ? NULL : path_join(a, dir, f->d_name, e);
        if (path) unlink(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

Tokenizer *model_tokenizer(const char *path, const TokenizerConfig *how, Arena *a, Err *e)
{
    if (!formats_is_h5(path)) return tokenizer_open_as(path, how, a, e);
    const char *tmp = getenv("TMPDIR");
    char *dir = arena_printf(a, e, "%s/pare-tokenizer-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    Tokenizer *t = NULL;
    if (!dir) return NULL;
    if (!mkdtemp(dir)) {
        err_set(e, ERR_FAIL, "%s: cannot make a folder for the tokenizer of %s: %s", dir, path,
                strerror(errno));
        return NULL;
    }
    if (formats_tokenizer_files(path, dir, a, e)) t = tokenizer_open_as(dir, how, a, e);
    if (t) tokenizer_set_path(t, path);
    Err none = {0};
    remove_folder(dir, a, &none);
    if (e->code) err_prefix(e, "tokenizer of %s", path);
    return t;
}
