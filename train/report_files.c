/* train/report_files.c: what a run left beside its metrics: weights (exports, else the newest checkpoint),
 * the last sample, the last evaluation. */
#include "train/report_impl.h"
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Counting zeros reads every weight: files above this are described by their size alone. */
#define INSPECT_LIMIT ((int64_t)4 << 30)

bool dir_exists(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

static int by_name(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

const char **dir_names(const char *dir, int *n, Arena *a, Err *e)
{
    int cap = 16;
    const char **name = arena_alloc(a, (size_t)cap * sizeof *name, e);
    DIR *d = opendir(dir);
    *n = 0;
    for (struct dirent *x; d && name && (x = readdir(d));) {
        if (x->d_name[0] == '.') continue;
        if (*n == cap) {
            name = arena_grow(a, name, (size_t)cap * sizeof *name, (size_t)cap * 2 * sizeof *name, e);
            cap *= 2;
        }
        char *copy = arena_strdup(a, x->d_name, e);
        if (!name || !copy) break;
        name[(*n)++] = copy;
    }
    if (d) closedir(d);
    if (e->code) *n = 0;
    if (*n) qsort(name, (size_t)*n, sizeof *name, by_name);
    return name;
}

static int64_t disk_bytes(const char *path, Arena *a, Err *e)
{
    struct stat st;
    if (stat(path, &st)) return -1;
    if (!S_ISDIR(st.st_mode)) return (int64_t)st.st_size;
    int n;
    int64_t sum = 0;
    const char **name = dir_names(path, &n, a, e);
    for (int i = 0; i < n; i++) {
        const char *p = path_join(a, path, name[i], e);
        if (p && !stat(p, &st) && S_ISREG(st.st_mode)) sum += (int64_t)st.st_size;
    }
    return sum;
}

static int64_t shape_count(const json_t *shape)
{
    int64_t n = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) n *= json_integer_value(json_array_get(shape, i));
    return n;
}

/* The object of `pare inspect --json`. */
static bool take_inspect(ReportFile *f, const json_t *o, Arena *a, Err *e)
{
    const json_t *list = json_object_get(o, "tensors"), *t;
    size_t i;
    const char *format = json_string_value(json_object_get(o, "format"));
    f->format = arena_strdup(a, format ? format : "", e);
    f->parameters = json_integer_value(json_object_get(o, "parameters"));
    f->bytes = json_integer_value(json_object_get(o, "bytes"));
    f->nonzero = 0;
    f->tensor = arena_alloc(a, (json_array_size(list) + 1) * sizeof *f->tensor, e);
    json_array_foreach(list, i, t)
    {
        if (e->code || json_object_get(t, "tied_to")) continue;
        const char *name = json_string_value(json_object_get(t, "name"));
        const char *encoding = json_string_value(json_object_get(t, "encoding"));
        const char *type = json_string_value(json_object_get(t, "dtype"));
        if (!encoding || !strcmp(encoding, "plain")) encoding = type;
        f->tensor[f->n_tensor++] = (ReportTensor){
            .name = arena_strdup(a, name ? name : "", e),
            .encoding = arena_strdup(a, encoding ? encoding : "", e),
            .parameters = shape_count(json_object_get(t, "shape")),
            .nonzero = json_integer_value(json_object_get(t, "nonzero")),
            .bytes = json_integer_value(json_object_get(t, "bytes"))};
        f->nonzero += json_integer_value(json_object_get(t, "nonzero"));
    }
    return !e->code;
}

/* A file that is no model is a note, not an error: the rest of the report stands. */
static void add_file(Report *r, ReportRun *run, const char *path, bool look, Err *e)
{
    ReportFile f = {.path = path, .format = "", .parameters = -1, .nonzero = -1, .bytes = -1};
    f.disk = disk_bytes(path, r->a, e);
    if (look && f.disk <= INSPECT_LIMIT) {
        Arena tmp = {.name = "inspect"};
        Err own = {0};
        char *text = inspect_json(path, false, &tmp, &own);
        json_t *o = text ? json_loads(text, 0, NULL) : NULL;
        if (o) take_inspect(&f, o, r->a, e);
        else report_note(r, e, "%s", own.code ? own.msg : "inspect gave nothing");
        json_decref(o);
        arena_free(&tmp);
        if (!o) return;
    } else if (look) report_note(r, e, "%s: over 4 GiB; `pare inspect` counts its zeros", path);
    ReportFile *more = arena_grow(r->a, run->file, (size_t)run->n_file * sizeof f,
                                  (size_t)(run->n_file + 1) * sizeof f, e);
    if (!more) return;
    run->file = more;
    run->file[run->n_file++] = f;
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static bool holds_weights(const char *path, const char *name, Arena *a, Err *e)
{
    static const char *const suffix[] = {".h5", ".hdf5", ".safetensors", ".bin", ".gguf"};
    for (int i = 0; i < 5; i++)
        if (ends_with(name, suffix[i])) return true;
    const char *config = path_join(a, path, "config.json", e);
    return config && file_exists(config);
}

static void read_weights(Report *r, ReportRun *run, bool look, Err *e)
{
    int n;
    const char *dir = path_join(r->a, run->path, "export", e);
    const char **name = dir ? dir_names(dir, &n, r->a, e) : NULL;
    for (int i = 0; name && i < n && !e->code; i++) {
        const char *path = path_join(r->a, dir, name[i], e);
        if (path && holds_weights(path, name[i], r->a, e)) add_file(r, run, path, look, e);
    }
    const char *stage = path_join(r->a, run->path, "model.h5", e); /* what a stage bakes */
    if (stage && file_exists(stage)) add_file(r, run, stage, look, e);
    run->exported = run->n_file > 0;
    Err own = {0};
    const char *newest = run->exported || e->code ? NULL : checkpoint_find(run->path, r->a, &own);
    if (own.code) report_note(r, e, "%s", own.msg);
    if (newest) add_file(r, run, newest, look, e);
}

/* Figures of the smallest export; of a checkpoint the model's part, its disk size is the optimizer's too. */
static void take_sizes(ReportRun *run)
{
    const ReportFile *f = run->n_file ? &run->file[0] : NULL;
    for (int i = 1; i < run->n_file; i++)
        if (run->file[i].disk < f->disk) f = &run->file[i];
    if (!f) return;
    ReportRow *w = &run->row;
    if (run->exported && w->disk < 0) w->disk = f->disk;
    if (f->parameters < 0) return;
    if (w->parameters < 0 || run->exported) w->parameters = f->parameters;
    if (w->bytes < 0 || run->exported) w->bytes = f->bytes;
    if (w->nonzero < 0) w->nonzero = f->nonzero;
    if (!isfinite(w->bits) && f->parameters) w->bits = 8.0 * (double)f->bytes / (double)f->parameters;
}

static int64_t step_of(const char *name)
{
    const char *p = strpbrk(name, "0123456789");
    return p ? strtoll(p, NULL, 10) : -1;
}

static const char *last_step(const char *dir, const char *suffix, Arena *a, Err *e)
{
    int n, best = -1;
    const char **name = dir_names(dir, &n, a, e);
    for (int i = 0; i < n; i++)
        if (ends_with(name[i], suffix) && (best < 0 || step_of(name[i]) >= step_of(name[best]))) best = i;
    return best < 0 ? NULL : name[best];
}

static void read_sample(Report *r, ReportRun *run, Err *e)
{
    size_t bytes;
    const char *dir = path_join(r->a, run->path, "samples", e),
               *name = dir ? last_step(dir, ".txt", r->a, e) : NULL;
    const char *path = name ? path_join(r->a, dir, name, e) : NULL;
    char *s = path ? file_read(r->a, path, &bytes, e) : NULL;
    if (!s) return;
    if (bytes > 20000) s[20000] = 0;
    run->sample = s;
    run->sample_name = name;
}

/* The protocol is only in eval/step_N.json. */
static void read_eval(Report *r, ReportRun *run, Err *e)
{
    size_t bytes;
    const char *dir = path_join(r->a, run->path, "eval", e),
               *name = dir ? last_step(dir, ".json", r->a, e) : NULL;
    const char *path = name ? path_join(r->a, dir, name, e) : NULL;
    char *s = path ? file_read(r->a, path, &bytes, e) : NULL;
    json_t *o = s ? json_loads(s, 0, NULL) : NULL;
    const char *protocol = json_string_value(json_object_get(o, "protocol"));
    if (protocol) run->row.protocol = arena_strdup(r->a, protocol, e);
    if (!isfinite(run->row.perplexity)) report_row_json(&run->row, o);
    json_decref(o);
}

void report_read_files(Report *r, ReportRun *run, Err *e)
{
    bool look = true; /* of seeds of one arm, the first is enough */
    for (const ReportRun *o = r->run; o < run; o++) look = look && strcmp(o->group, run->group);
    read_sample(r, run, e);
    if (!e->code) read_eval(r, run, e);
    if (!e->code) read_weights(r, run, look, e);
    if (!e->code) take_sizes(run);
}
